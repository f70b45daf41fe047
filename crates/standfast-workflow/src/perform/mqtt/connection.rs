//! A connection to a broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hyper_rustls::ConfigBuilderExt;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Login, Packet, PingReq,
    PubAck, PubAckReason, PubCompReason, PubRec, PubRecReason, PubRel, Publish,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use standfast_model::Stamp;
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{BATCH_MAX, MqttError, PACKET};
use crate::ask::MqttRequest;
use crate::decide::VALUE_BYTES_MAX;

/// Longest until a broker has let us in, or has answered.
pub(super) const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a broker hears of us that has nothing to say.
const PING_PERIOD: Duration = Duration::from_secs(20);
/// How long the session is kept of who receives and is away.
const SESSION: Duration = Duration::from_secs(86_400);

/// What becomes of a step's session with a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// A new one, which ends with the connection.
    New,
    /// The one before goes on, and outlives the connection.
    Kept,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) struct Connection<'c> {
    stream: Box<dyn Stream>,
    read: BytesMut,
    clock: &'c Clock,
    /// How often the broker must hear of us.
    ping: Duration,
    /// The largest packet that it takes, in bytes.
    packet_max: Option<u32>,
    /// The highest `qos` that it takes.
    pub(super) qos_max: u8,
}

impl<'c> Connection<'c> {
    pub(super) async fn open(
        clock: &'c Clock,
        request: &MqttRequest,
        session: Session,
    ) -> Result<Self, MqttError> {
        let opening = async {
            let stream = connect(request).await?;
            let mut connection = Self {
                stream,
                read: BytesMut::new(),
                clock,
                ping: PING_PERIOD,
                packet_max: None,
                qos_max: 2,
            };
            let is_kept = session == Session::Kept;
            let properties = ConnectProperties {
                session_expiry_interval: is_kept.then_some(SESSION.as_secs() as u32),
                max_packet_size: Some(VALUE_BYTES_MAX as u32),
                receive_maximum: Some(BATCH_MAX as u16),
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
                Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                    let wishes = ack.properties.as_ref();
                    // It gives up who is silent for one and a half of these seconds.
                    match wishes.and_then(|wishes| wishes.server_keep_alive) {
                        None | Some(0) => {}
                        Some(length) => {
                            connection.ping = PING_PERIOD.min(Duration::from_secs(length.into()) / 2);
                        }
                    }
                    connection.packet_max = wishes.and_then(|wishes| wishes.max_packet_size);
                    connection.qos_max = wishes.and_then(|wishes| wishes.max_qos).unwrap_or(2);
                    Ok(connection)
                }
                Packet::ConnAck(ack) => Err(MqttError::NotLetIn(ack.code)),
                Packet::Disconnect(why) => Err(why.reason_code.into()),
                _ => Err(MqttError::Refused("it answers what it was not asked".to_owned())),
            }
        };
        match clock.timeout(CONNECT_TIME_MAX, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(MqttError::Late(CONNECT_TIME_MAX)),
        }
    }

    pub(super) async fn write(&mut self, packet: &Packet) -> Result<(), MqttError> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, self.packet_max)?;
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

    /// The next packet, if one comes until then. Meanwhile the broker hears of us.
    pub(super) async fn packet_by(&mut self, until: Stamp) -> Result<Option<Packet>, MqttError> {
        let mut is_asked = false;
        loop {
            let left = until.since(self.clock.now());
            let limit = left.min(if is_asked { CONNECT_TIME_MAX } else { self.ping });
            match self.read_within(limit).await {
                Ok(packet) => return Ok(Some(packet)),
                Err(MqttError::Late(_)) if limit == left => return Ok(None),
                Err(late @ MqttError::Late(_)) if is_asked => return Err(late),
                Err(MqttError::Late(_)) => {
                    self.write(&Packet::PingReq(PingReq)).await?;
                    is_asked = true;
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Waits until the one message that was sent is the broker's.
    pub(super) async fn is_taken(&mut self) -> Result<(), MqttError> {
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
                Packet::Disconnect(why) => return Err(why.reason_code.into()),
                _ => {}
            }
        }
    }

    pub(super) async fn acknowledge(&mut self, message: &Publish) -> Result<(), MqttError> {
        match message.qos {
            QoS::AtMostOnce => Ok(()),
            QoS::AtLeastOnce => self.write(&Packet::PubAck(PubAck::new(message.pkid, None))).await,
            QoS::ExactlyOnce => self.write(&Packet::PubRec(PubRec::new(message.pkid, None))).await,
        }
    }

    /// Says goodbye; a broker that does not listen finds out by itself.
    pub(super) async fn close(mut self) {
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
