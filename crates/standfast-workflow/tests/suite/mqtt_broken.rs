//! Brokers that are allowed what real ones seldom do: a script plays one, in the protocol's own packets.

use std::path::Path;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Packet, PingResp,
    Publish, SubAck, SubscribeReasonCode,
};
use serde_json::{Value, json};
use standfast_runtime::{Clock, Net};
use standfast_workflow::{Definition, FolderAndNetwork, Status, WorkflowName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{PATIENCE, Rig};

/// Plays a broker on one connection.
struct Played {
    stream: TcpStream,
    read: BytesMut,
}

impl Played {
    /// Takes the next connection, and lets it in or not.
    async fn accept(listener: &TcpListener, code: ConnectReturnCode, keep_alive: Option<u16>) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut played = Self { stream, read: BytesMut::new() };
        let Packet::Connect(..) = played.hears().await.unwrap() else { panic!("it connects first") };
        let properties = ConnAckProperties { server_keep_alive: keep_alive, ..no_wishes() };
        played
            .says(Packet::ConnAck(ConnAck { session_present: true, code, properties: Some(properties) }))
            .await;
        played
    }

    /// Takes the next connection, lets it in, and has it subscribed.
    async fn subscribed(listener: &TcpListener) -> Self {
        let mut played = Self::accept(listener, ConnectReturnCode::Success, None).await;
        played.subscribes().await;
        played
    }

    async fn subscribes(&mut self) {
        let Some(Packet::Subscribe(subscribe)) = self.hears().await else { panic!("it subscribes") };
        let return_codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
        self.says(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })).await;
    }

    async fn says(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        match packet {
            Packet::ConnAck(ack) => ack.write(&mut bytes).map(|_| ()),
            Packet::SubAck(ack) => ack.write(&mut bytes).map(|_| ()),
            other => other.write(&mut bytes, None).map(|_| ()),
        }
        .unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next packet; `None` when the connection has ended.
    async fn hears(&mut self) -> Option<Packet> {
        let hearing = async {
            loop {
                if let Ok(packet) = Packet::read(&mut self.read, None) {
                    return Some(packet);
                }
                if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        Clock::system().timeout(PATIENCE, hearing).await.expect("something is said in time")
    }

    async fn publishes(&mut self, pkid: u16, dup: bool, text: &str) {
        let payload = json!({"text": text}).to_string();
        self.says(Packet::Publish(Publish {
            pkid,
            dup,
            ..Publish::new("t", QoS::AtLeastOnce, payload, None)
        }))
        .await;
    }

    /// Answers pings until the connection ends; returns what was acknowledged.
    async fn until_it_ends(mut self) -> Vec<u16> {
        let mut acknowledged = Vec::new();
        while let Some(packet) = self.hears().await {
            match packet {
                Packet::PubAck(ack) => acknowledged.push(ack.pkid),
                Packet::PingReq(_) => self.says(Packet::PingResp(PingResp)).await,
                Packet::Disconnect(_) => break,
                other => panic!("{other:?}"),
            }
        }
        acknowledged
    }
}

fn no_wishes() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

/// A workflow that receives from a broker that is played.
async fn receiver(rig: &Rig, folder: &Path, amount: usize) -> (TcpListener, WorkflowName) {
    let listener = Net::real().listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let document = format!(
        "asyncapi: 3.0.0\nservers: {{ broker: {{ host: '{}', protocol: mqtt }} }}\nchannels: {{ t: {{ address: t }} }}\noperations: {{ take: {{ action: receive, channel: {{ $ref: '#/channels/t' }} }} }}\n",
        listener.local_addr().unwrap()
    );
    std::fs::write(folder.join("t.yaml"), document).unwrap();
    let text = format!(
        "document: {{ dsl: '1.0.3', namespace: tests, name: take, version: '1.0.0' }}\ndo:\n  - hear: {{ call: asyncapi, with: {{ document: {{ endpoint: 'file://t.yaml' }}, operation: take, subscription: {{ consume: {{ amount: {amount} }} }} }} }}\n"
    );
    let reader = FolderAndNetwork::new(Some(folder.to_owned()), Clock::system());
    let definition = Definition::read("take", &text, &reader).await.unwrap();
    let name = definition.program.name().clone();
    rig.engine.define(definition).await.unwrap();
    (listener, name)
}

fn texts(output: &Value) -> Vec<&str> {
    output.as_array().unwrap().iter().map(|message| message["payload"]["text"].as_str().unwrap()).collect()
}

/// Numbers of messages are given anew once they are free, and what is sent into a connection that ends is sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_message_with_the_number_and_the_text_of_one_before_is_another() {
    let (rig, folder) = (Rig::new().await, tempfile::tempdir().unwrap());
    let (listener, take) = receiver(&rig, folder.path(), 3).await;
    let id = rig.start(&take, json!({})).await;
    let mut played = Played::subscribed(&listener).await;
    played.publishes(1, false, "tick").await;
    assert_eq!(played.until_it_ends().await, [0_u16; 0], "it is not journalled yet");
    let mut played = Played::subscribed(&listener).await;
    played.publishes(1, true, "tick").await;
    assert_eq!(played.until_it_ends().await, [1]);
    // The next one was sent before, into a connection that had ended already.
    let mut played = Played::subscribed(&listener).await;
    played.publishes(1, true, "tick").await;
    assert_eq!(played.until_it_ends().await, [0_u16; 0], "it is another one");
    // The third is sent at once as the number is free, on the same connection.
    let mut played = Played::subscribed(&listener).await;
    played.publishes(1, true, "tick").await;
    while !matches!(played.hears().await, Some(Packet::PubAck(_))) {}
    played.publishes(1, false, "tick").await;
    played.until_it_ends().await;
    // It has enough, and leaves.
    Played::accept(&listener, ConnectReturnCode::Success, None).await.until_it_ends().await;
    assert_eq!(texts(rig.end(id).await.output.as_ref().unwrap()), ["tick"; 3]);
}

/// One that is stopped, or busy, says so: who receives waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_and_comes_is_waited_for() {
    let (rig, folder) = (Rig::new().await, tempfile::tempdir().unwrap());
    let (listener, take) = receiver(&rig, folder.path(), 1).await;
    let id = rig.start(&take, json!({})).await;
    let mut played = Played::subscribed(&listener).await;
    played.says(Packet::Disconnect(Disconnect::new(DisconnectReasonCode::ServerShuttingDown))).await;
    drop(played);
    for code in [ConnectReturnCode::ServerUnavailable, ConnectReturnCode::ServerBusy] {
        drop(Played::accept(&listener, code, None).await);
    }
    // It gives up who is silent for 1.5 seconds.
    let mut played = Played::accept(&listener, ConnectReturnCode::Success, Some(1)).await;
    played.subscribes().await;
    let Some(Packet::PingReq(_)) = played.hears().await else { panic!("it is heard of") };
    played.says(Packet::PingResp(PingResp)).await;
    played.publishes(7, false, "at last").await;
    played.until_it_ends().await;
    Played::accept(&listener, ConnectReturnCode::Success, None).await.until_it_ends().await;
    assert_eq!(texts(rig.end(id).await.output.as_ref().unwrap()), ["at last"]);
}

/// What a broker cannot promise is a problem, told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_promises_less_is_refused() {
    let (rig, folder) = (Rig::new().await, tempfile::tempdir().unwrap());
    let (listener, take) = receiver(&rig, folder.path(), 1).await;
    let id = rig.start(&take, json!({})).await;
    let mut played = Played::accept(&listener, ConnectReturnCode::Success, None).await;
    let Some(Packet::Subscribe(subscribe)) = played.hears().await else { panic!("it subscribes") };
    let return_codes = vec![SubscribeReasonCode::Success(QoS::AtMostOnce)];
    played.says(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })).await;
    let ended = rig.end(id).await;
    assert_eq!(ended.status, Status::Faulted);
    let detail = ended.problem.unwrap().detail.unwrap();
    assert!(detail.contains("grants `qos` 0 at most, and 1 is asked for"), "{detail}");
}
