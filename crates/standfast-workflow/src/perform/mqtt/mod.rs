//! Messages by MQTT 5 (OASIS standard of 2019). Each request has a connection of its own. What is received is acknowledged only once it
//! is journalled: the next request of the same step finds it again, knows it by its key, and acknowledges it then. Until that the
//! broker's session keeps it, also while no process of ours runs.

mod connection;
mod receiving;

use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::CONTENT_TYPE;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, Packet, Publish, PublishProperties,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use standfast_model::Stamp;
use standfast_runtime::{Clock, with_causes};

use self::connection::{Connection, Session};
use self::receiving::Receiving;
use crate::ask::{Answer, MqttDoes, MqttRequest};
use crate::run::{Problem, Standard};

/// Most messages in one answer.
const BATCH_MAX: usize = 20;
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
        MqttDoes::Receive { topic, qos, taken, seen, until } => {
            let receiving = Receiving { clock, request, topic, qos: *qos, taken, seen };
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
    #[error("it ended the connection: {0:?}")]
    Ended(DisconnectReasonCode),
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
        use ConnectReturnCode as Not;
        use DisconnectReasonCode as Why;
        match self {
            Self::Io(_) | Self::Late(_) | Self::Closed => true,
            Self::NotLetIn(why) => matches!(
                why,
                Not::ServiceUnavailable
                    | Not::ServerUnavailable
                    | Not::ServerBusy
                    | Not::ConnectionRateExceeded
            ),
            Self::Ended(why) => matches!(
                why,
                Why::NormalDisconnection
                    | Why::UnspecifiedError
                    | Why::ServerBusy
                    | Why::ServerShuttingDown
                    | Why::KeepAliveTimeout
                    | Why::SessionTakenOver
                    | Why::MessageRateTooHigh
                    | Why::AdministrativeAction
                    | Why::ConnectionRateExceeded
                    | Why::MaximumConnectTime
            ),
            Self::Codec(_) | Self::Tls(_) | Self::Refused(_) => false,
        }
    }
}

impl From<DisconnectReasonCode> for MqttError {
    fn from(why: DisconnectReasonCode) -> Self {
        Self::Ended(why)
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
    if qos as u8 > connection.qos_max {
        let (max, qos) = (connection.qos_max, qos as u8);
        return Err(MqttError::Refused(format!(
            "it takes messages of `qos` {max} at most, and this has {qos}"
        )));
    }
    connection.write(&Packet::Publish(message)).await?;
    if qos != QoS::AtMostOnce {
        connection.is_taken().await?;
    }
    connection.close().await;
    Ok(())
}
