//! Messages by MQTT 5 (OASIS standard of 2019). Each request has a connection of its own. What is received is acknowledged only once it
//! is journalled: the next request of the same step finds it again, knows it by its key, and acknowledges it then. Until that the
//! broker's session keeps it, also while no process of ours runs.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::CONTENT_TYPE;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use hyper_rustls::ConfigBuilderExt;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter, Login, Packet,
    PingReq, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason, PubRel, Publish,
    PublishProperties, RetainForwardRule, Subscribe, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use serde_json::{Map, Value, json};
use standfast_model::Stamp;
use standfast_runtime::{Backoff, Clock, Net, Rng, with_causes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::ask::{Answer, MqttDoes, MqttRequest, Received};
use crate::decide::VALUE_BYTES_MAX;
use crate::run::{Digest, Problem, Standard};

/// Longest until a broker has let us in.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a broker hears of us that has nothing to say.
const PING_PERIOD: Duration = Duration::from_secs(20);
/// How long the session is kept of who receives and is away.
const SESSION: Duration = Duration::from_secs(86_400);
/// Most messages in one answer, and their bytes.
const BATCH_MAX: usize = 20;
const BATCH_BYTES_MAX: usize = 256 << 10;
/// How long more messages are waited for once one has come.
const GATHER: Duration = Duration::from_millis(20);
/// For how long a broker may be away before who receives gives up.
const AWAY_MAX: Duration = Duration::from_secs(30);
const AGAIN: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(3) };
/// Names the one packet of ours that waits for an answer.
const PACKET: u16 = 1;

/// Sends, receives or leaves.
pub(super) async fn ask(clock: &Clock, request: &MqttRequest, deadline: Stamp) -> Result<Answer, Problem> {
    match &request.does {
        MqttDoes::Send { topic, qos, retain, headers, body } => {
            let properties = properties(headers);
            let message = Publish {
                retain: *retain,
                pkid: if *qos == 0 { 0 } else { PACKET },
                ..Publish::new(topic.clone(), level(*qos), body.clone(), Some(properties))
            };
            let sent = send(clock, request, message).await;
            sent.map(|()| Answer::Begun).map_err(|why| why.into_problem(request))
        }
        MqttDoes::Receive { topic, qos, taken, until } => {
            let receiving = Receiving { clock, request, topic, qos: *qos, taken };
            receiving
                .receive(until.unwrap_or(deadline).min(deadline), until.is_some())
                .await
                .map(Answer::Received)
        }
        MqttDoes::Leave => {
            if let Ok(connection) = Connection::open(clock, request, Session::New).await {
                connection.close().await;
            }
            Ok(Answer::Begun)
        }
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
enum MqttError {
    #[error("it cannot be reached")]
    Io(#[from] std::io::Error),
    #[error("it did not answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("it closed the connection")]
    Closed,
    #[error("what it says is no MQTT 5")]
    Codec(#[from] Error),
    #[error("no certificates can be checked: {0}")]
    Tls(String),
    #[error("it does not let us in: {0:?}")]
    NotLetIn(ConnectReturnCode),
    #[error("it refused: {0}")]
    Refused(String),
}

impl MqttError {
    fn into_problem(self, request: &MqttRequest) -> Problem {
        let standard = match &self {
            Self::NotLetIn(ConnectReturnCode::BadUserNamePassword) => Standard::Authentication,
            Self::NotLetIn(ConnectReturnCode::NotAuthorized) => Standard::Authorization,
            _ => Standard::Communication,
        };
        standard.problem(format!("the broker at {}:{}: {}", request.host, request.port, with_causes(&self)))
    }

    /// Whether it may be gone in a moment.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Late(_) | Self::Closed)
    }
}

fn level(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn properties(headers: &HeaderMap) -> PublishProperties {
    let text = |value: &::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let others = headers.iter().filter(|(name, _)| *name != CONTENT_TYPE);
    PublishProperties {
        content_type: headers.get(CONTENT_TYPE).map(text),
        user_properties: others.map(|(name, value)| (name.to_string(), text(value))).collect(),
        ..PublishProperties::default()
    }
}

async fn send(clock: &Clock, request: &MqttRequest, message: Publish) -> Result<(), MqttError> {
    let mut connection = Connection::open(clock, request, Session::New).await?;
    let qos = message.qos;
    connection.write(&Packet::Publish(message)).await?;
    if qos != QoS::AtMostOnce {
        connection.is_taken().await?;
    }
    connection.close().await;
    Ok(())
}

/// Who receives.
struct Receiving<'r> {
    clock: &'r Clock,
    request: &'r MqttRequest,
    topic: &'r str,
    qos: u8,
    taken: &'r [Digest],
}

impl Receiving<'_> {
    /// Some messages, as soon as there are any; none at the end. That is one of the time for messages, or one that is late.
    async fn receive(&self, until: Stamp, is_end: bool) -> Result<Received, Problem> {
        let (mut away_since, mut failures, mut rng) = (None, 0, Rng::from_entropy());
        loop {
            let receiving = self.receive_once(until, &mut away_since);
            let why = match receiving.await {
                Ok(messages) => {
                    let is_over = is_end && messages.is_empty();
                    return Ok(Received { messages, is_over });
                }
                Err(why) => why,
            };
            let now = self.clock.now();
            let since = *away_since.get_or_insert(now);
            if !why.may_pass() || now.since(since) >= AWAY_MAX {
                return Err(why.into_problem(self.request));
            }
            if now >= until {
                return Ok(Received { messages: Vec::new(), is_over: is_end });
            }
            self.clock.sleep(AGAIN.wait(failures, &mut rng)).await;
            failures += 1;
        }
    }

    async fn receive_once(
        &self,
        until: Stamp,
        away_since: &mut Option<Stamp>,
    ) -> Result<Vec<(Option<Digest>, Value)>, MqttError> {
        let mut connection = Connection::open(self.clock, self.request, Session::Kept).await?;
        let filter = Filter {
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
            ..Filter::new(self.topic, level(self.qos))
        };
        let subscribe = Subscribe { pkid: PACKET, filters: vec![filter], properties: None };
        connection.write(&Packet::Subscribe(subscribe)).await?;
        let (mut messages, mut bytes, mut ends) = (Vec::new(), 0, until);
        let mut released = Vec::new();
        while messages.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let left = ends.since(self.clock.now());
            let packet = match connection.read_within(left.min(PING_PERIOD)).await {
                Ok(packet) => packet,
                Err(MqttError::Late(_)) if left <= PING_PERIOD => break,
                Err(MqttError::Late(_)) => {
                    connection.write(&Packet::PingReq(PingReq)).await?;
                    connection.read_within(CONNECT_TIME_MAX).await?
                }
                Err(other) => return Err(other),
            };
            match packet {
                Packet::SubAck(ack) => match ack.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => *away_since = None,
                    refused => return Err(MqttError::Refused(format!("{refused:?}"))),
                },
                Packet::Publish(message) => {
                    let key = match named(&message, self.taken) {
                        Named::Taken => {
                            // It is journalled: the broker may forget it.
                            connection.acknowledge(&message).await?;
                            continue;
                        }
                        Named::New(key) => key,
                    };
                    if messages.is_empty() {
                        ends = until.min(self.clock.now().plus(GATHER));
                    }
                    bytes += message.payload.len();
                    messages.push((key, value_of(&message)));
                }
                Packet::PubRel(release) if !released.contains(&release.pkid) => {
                    released.push(release.pkid);
                    let done = PubComp::new(release.pkid, None);
                    connection.write(&Packet::PubComp(done)).await?;
                }
                Packet::Disconnect(why) => return Err(MqttError::Refused(format!("{:?}", why.reason_code))),
                _ => {}
            }
        }
        connection.close().await;
        Ok(messages)
    }
}

/// Whether a message came before.
#[derive(Debug, PartialEq)]
enum Named {
    /// It did, and was taken.
    Taken,
    /// It did not; by its key it is known again, if it can be sent again.
    New(Option<Digest>),
}

fn named(message: &Publish, taken: &[Digest]) -> Named {
    // Sent once and never again: another one may look the same.
    if message.qos == QoS::AtMostOnce {
        return Named::New(None);
    }
    let key = key_of(message);
    match (taken.contains(&key), message.dup) {
        (true, true) => Named::Taken,
        // The number was used before, for a message that said the same.
        (true, false) => Named::New(None),
        (false, _) => Named::New(Some(key)),
    }
}

/// Tells a message from others that the same session was sent lately.
fn key_of(message: &Publish) -> Digest {
    let mut text = message.pkid.to_be_bytes().to_vec();
    text.extend_from_slice(&message.topic);
    text.push(0);
    text.extend_from_slice(&message.payload);
    Digest::of(&text)
}

/// A message as the language has it.
fn value_of(message: &Publish) -> Value {
    let text = |bytes: &Bytes| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => BASE64.encode(bytes),
    };
    let given = message.properties.clone().unwrap_or_default();
    let mut headers = Map::new();
    headers.extend(given.user_properties.into_iter().map(|(name, value)| (name, value.into())));
    headers.extend(given.content_type.map(|kind| ("content-type".to_owned(), kind.into())));
    let payload: Value =
        serde_json::from_slice(&message.payload).unwrap_or_else(|_| text(&message.payload).into());
    let mut value = json!({"channel": text(&message.topic), "headers": headers, "payload": payload});
    if let Some(correlation) = given.correlation_data {
        value["correlationId"] = text(&correlation).into();
    }
    value
}

/// What becomes of a step's session with a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    /// A new one, which ends with the connection.
    New,
    /// The one before goes on, and outlives the connection.
    Kept,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

struct Connection<'c> {
    stream: Box<dyn Stream>,
    read: BytesMut,
    clock: &'c Clock,
}

impl<'c> Connection<'c> {
    async fn open(clock: &'c Clock, request: &MqttRequest, session: Session) -> Result<Self, MqttError> {
        let opening = async {
            let stream = connect(request).await?;
            let mut connection = Self { stream, read: BytesMut::new(), clock };
            let is_kept = session == Session::Kept;
            let properties = ConnectProperties {
                session_expiry_interval: is_kept.then_some(SESSION.as_secs() as u32),
                max_packet_size: Some(VALUE_BYTES_MAX as u32),
                ..ConnectProperties::new()
            };
            let connect = Connect {
                keep_alive: (2 * PING_PERIOD.as_secs()) as u16,
                client_id: request.client.clone(),
                clean_start: !is_kept,
                properties: Some(properties),
            };
            let login = request.login.as_ref().map(|(user, password)| Login::new(user, &*password.0));
            connection.write(&Packet::Connect(connect, None, login)).await?;
            match connection.packet().await? {
                Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(connection),
                Packet::ConnAck(ack) => Err(MqttError::NotLetIn(ack.code)),
                other => Err(MqttError::Refused(format!("{other:?}"))),
            }
        };
        match clock.timeout(CONNECT_TIME_MAX, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(MqttError::Late(CONNECT_TIME_MAX)),
        }
    }

    async fn write(&mut self, packet: &Packet) -> Result<(), MqttError> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None)?;
        self.stream.write_all(&bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next packet. Cancel safe: what was read of it is kept.
    async fn packet(&mut self) -> Result<Packet, MqttError> {
        loop {
            match Packet::read(&mut self.read, Some(VALUE_BYTES_MAX as u32)) {
                Ok(packet) => return Ok(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(why) => return Err(why.into()),
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(MqttError::Closed);
            }
        }
    }

    async fn read_within(&mut self, limit: Duration) -> Result<Packet, MqttError> {
        let clock = self.clock;
        match clock.timeout(limit, self.packet()).await {
            Ok(packet) => packet,
            Err(_) => Err(MqttError::Late(limit)),
        }
    }

    /// Waits until the one message that was sent is the broker's.
    async fn is_taken(&mut self) -> Result<(), MqttError> {
        let refused = |reason: String| Err(MqttError::Refused(reason));
        loop {
            match self.read_within(CONNECT_TIME_MAX).await? {
                Packet::PubAck(ack) if ack.pkid == PACKET => match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => return Ok(()),
                    reason => return refused(format!("{reason:?}")),
                },
                Packet::PubRec(ack) if ack.pkid == PACKET => match ack.reason {
                    PubRecReason::Success | PubRecReason::NoMatchingSubscribers => {
                        self.write(&Packet::PubRel(PubRel::new(PACKET, None))).await?;
                    }
                    reason => return refused(format!("{reason:?}")),
                },
                Packet::PubComp(ack) if ack.pkid == PACKET => match ack.reason {
                    PubCompReason::Success => return Ok(()),
                    reason => return refused(format!("{reason:?}")),
                },
                Packet::Disconnect(why) => return refused(format!("{:?}", why.reason_code)),
                _ => {}
            }
        }
    }

    async fn acknowledge(&mut self, message: &Publish) -> Result<(), MqttError> {
        match message.qos {
            QoS::AtMostOnce => Ok(()),
            QoS::AtLeastOnce => self.write(&Packet::PubAck(PubAck::new(message.pkid, None))).await,
            QoS::ExactlyOnce => self.write(&Packet::PubRec(PubRec::new(message.pkid, None))).await,
        }
    }

    /// Says goodbye; a broker that does not listen finds out by itself.
    async fn close(mut self) {
        let goodbye = Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection));
        let clock = self.clock;
        let _it_is_gone = clock
            .timeout(Duration::from_secs(1), async {
                self.write(&goodbye).await?;
                Ok::<_, MqttError>(self.stream.shutdown().await?)
            })
            .await;
    }
}

async fn connect(request: &MqttRequest) -> Result<Box<dyn Stream>, MqttError> {
    let mut failed = std::io::Error::new(std::io::ErrorKind::NotFound, "it has no address");
    for address in tokio::net::lookup_host((request.host.as_str(), request.port)).await? {
        let stream = match Net::real().connect_tcp(address).await {
            Ok(stream) => stream,
            Err(why) => {
                failed = why;
                continue;
            }
        };
        if !request.is_sealed {
            return Ok(Box::new(stream));
        }
        let tls = |why: &dyn std::fmt::Display| MqttError::Tls(why.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| tls(&why))?
            .with_native_roots()
            .map_err(|why| tls(&why))?
            .with_no_client_auth();
        let name = ServerName::try_from(request.host.clone()).map_err(|why| tls(&why))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        return Ok(Box::new(stream));
    }
    Err(failed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_and_one_that_looks_the_same_is_another() {
        let message = |qos, dup| Publish { dup, pkid: 7, ..Publish::new("t", qos, "tick", None) };
        let first = named(&message(QoS::AtLeastOnce, false), &[]);
        let Named::New(Some(key)) = first else { panic!("{first:?}") };
        let taken = [key.clone()];
        assert_eq!(named(&message(QoS::AtLeastOnce, true), &taken), Named::Taken);
        assert_eq!(
            named(&message(QoS::AtLeastOnce, true), &[]),
            Named::New(Some(key)),
            "it was not journalled"
        );
        assert_eq!(named(&message(QoS::AtLeastOnce, false), &taken), Named::New(None));
        assert_eq!(named(&message(QoS::AtMostOnce, false), &[]), Named::New(None));
    }
}
