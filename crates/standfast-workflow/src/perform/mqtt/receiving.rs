//! Messages that are received.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PingReq, PubComp, Publish, RetainForwardRule, Subscribe, SubscribeReasonCode,
};
use serde_json::{Map, Value, json};
use standfast_model::Stamp;
use standfast_runtime::{Backoff, Clock, Rng};

use super::connection::{CONNECT_TIME_MAX, Connection, Session};
use super::{BATCH_MAX, MqttError, PACKET, level};
use crate::ask::{MqttRequest, Received};
use crate::decide::{over_limits, size_of};
use crate::run::{Digest, Problem};

/// Most bytes of messages in one answer, but for the last.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// How long more messages are waited for once one has come.
const GATHER: Duration = Duration::from_millis(20);
/// For how long a broker may be away before who receives gives up.
const AWAY_MAX: Duration = Duration::from_secs(30);
const AGAIN: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(3) };

/// Who receives.
pub(super) struct Receiving<'r> {
    pub(super) clock: &'r Clock,
    pub(super) request: &'r MqttRequest,
    pub(super) topic: &'r str,
    pub(super) qos: u8,
    /// Names of messages that this step took and the broker may send again.
    pub(super) taken: &'r [Digest],
    /// Names of those that other steps took, or earlier attempts at this one.
    pub(super) seen: &'r [Digest],
}

impl Receiving<'_> {
    /// Some messages, as soon as there are any; none at the end. That is one of the time for messages, or one that is late.
    pub(super) async fn receive(&self, until: Stamp, is_end: bool) -> Result<Received, Problem> {
        let (mut away_since, mut failures, mut rng) = (None, 0, Rng::from_entropy());
        loop {
            let receiving = self.receive_once(until, &mut away_since);
            let why = match receiving.await {
                Ok(batch) => {
                    let is_over = is_end && batch.is_empty();
                    let Batch { messages, acknowledged, .. } = batch;
                    return Ok(Received { messages, acknowledged, is_over });
                }
                Err(why) => why,
            };
            let now = self.clock.now();
            let since = *away_since.get_or_insert(now);
            if !why.may_pass() || now.since(since) >= AWAY_MAX {
                return Err(why.into_problem(self.request));
            }
            if now >= until {
                return Ok(Received { is_over: is_end, ..Received::default() });
            }
            self.clock.sleep(AGAIN.wait(failures, &mut rng)).await;
            failures += 1;
        }
    }

    /// What comes, as soon as something does, on a connection of its own. A broker that does not let us in, or is slow to, is an error;
    /// none that has nothing.
    async fn receive_once(&self, until: Stamp, away_since: &mut Option<Stamp>) -> Result<Batch, MqttError> {
        let mut connection = Connection::open(self.clock, self.request, Session::Kept).await?;
        self.subscribe(&mut connection).await?;
        let mut batch = Batch::new(self.clock.now());
        while !batch.is_full() {
            let ends = batch.ends(until);
            let packet = if self.clock.now() < ends { connection.packet_by(ends).await? } else { None };
            match packet {
                Some(packet) => self.take(packet, &mut connection, &mut batch).await?,
                None if batch.is_subscribed => break,
                None => return Err(MqttError::Late(CONNECT_TIME_MAX)),
            }
        }
        *away_since = None;
        if !batch.acknowledged.is_empty() && self.is_known(&mut connection, &mut batch).await.is_err() {
            // Perhaps it does not know yet: these may come again.
            batch.acknowledged.clear();
        }
        connection.close().await;
        Ok(batch)
    }

    async fn subscribe(&self, connection: &mut Connection<'_>) -> Result<(), MqttError> {
        let filter = Filter {
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
            ..Filter::new(self.topic, level(self.qos))
        };
        let subscribe = Subscribe { pkid: PACKET, filters: vec![filter], properties: None };
        connection.write(&Packet::Subscribe(subscribe)).await
    }

    /// Takes what the broker says.
    async fn take(
        &self,
        packet: Packet,
        connection: &mut Connection<'_>,
        batch: &mut Batch,
    ) -> Result<(), MqttError> {
        match packet {
            Packet::SubAck(ack) => match ack.return_codes.first() {
                Some(SubscribeReasonCode::Success(granted)) if *granted as u8 >= self.qos => {
                    batch.is_subscribed(self.clock.now());
                    Ok(())
                }
                Some(SubscribeReasonCode::Success(granted)) => Err(MqttError::Refused(format!(
                    "it grants `qos` {} at most, and {} is asked for",
                    *granted as u8, self.qos
                ))),
                refused => Err(MqttError::Refused(format!("{refused:?}"))),
            },
            Packet::Publish(message) => match named(&message, self.taken, self.seen) {
                Named::Taken(key) => {
                    // It is journalled: the broker may forget it.
                    connection.acknowledge(&message).await?;
                    batch.forget(key, self.clock.now());
                    Ok(())
                }
                // What finds no more room is not acknowledged, and comes again.
                Named::New { .. } if batch.is_full() => Ok(()),
                Named::New { key, forgotten } => {
                    if let Some(key) = forgotten {
                        batch.forget(key, self.clock.now());
                    }
                    batch.put(key, value_of(&message), self.clock.now());
                    Ok(())
                }
            },
            Packet::PubRel(release) => {
                connection.write(&Packet::PubComp(PubComp::new(release.pkid, None))).await
            }
            Packet::Disconnect(why) => Err(MqttError::from(why.reason_code)),
            _ => Ok(()),
        }
    }

    /// Waits until the broker knows what was acknowledged: it answers what it is told in the order in which that comes.
    async fn is_known(&self, connection: &mut Connection<'_>, batch: &mut Batch) -> Result<(), MqttError> {
        connection.write(&Packet::PingReq(PingReq)).await?;
        let by = self.clock.now().plus(CONNECT_TIME_MAX);
        loop {
            match connection.packet_by(by).await? {
                Some(Packet::PingResp(_)) => return Ok(()),
                Some(packet) => self.take(packet, connection, batch).await?,
                None => return Err(MqttError::Late(CONNECT_TIME_MAX)),
            }
        }
    }
}

/// What came by one connection.
#[derive(Debug)]
struct Batch {
    is_subscribed: bool,
    messages: Vec<(Option<Digest>, Value)>,
    bytes: usize,
    /// By their keys: messages that were taken before, and that the broker will not send again.
    acknowledged: Vec<Digest>,
    /// When there was a first message or, before that, anything at all.
    since: Stamp,
}

impl Batch {
    fn new(since: Stamp) -> Self {
        Self { is_subscribed: false, messages: Vec::new(), bytes: 0, acknowledged: Vec::new(), since }
    }

    /// The broker has said that we are.
    fn is_subscribed(&mut self, now: Stamp) {
        self.is_subscribed = true;
        if self.is_empty() {
            self.since = now;
        }
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.acknowledged.is_empty()
    }

    /// Until when more is waited for. What was kept for us while we were away comes at once, also when the time is over already.
    fn ends(&self, until: Stamp) -> Stamp {
        let gathered = self.since.plus(GATHER);
        match (self.is_subscribed, self.is_empty()) {
            (false, _) => self.since.plus(CONNECT_TIME_MAX),
            (true, true) => until.max(gathered),
            (true, false) => gathered,
        }
    }

    fn put(&mut self, key: Option<Digest>, message: Value, now: Stamp) {
        if self.messages.is_empty() {
            self.since = now;
        }
        self.bytes += size_of(&message);
        self.messages.push((key, message));
    }

    fn forget(&mut self, key: Digest, now: Stamp) {
        if self.messages.is_empty() && self.acknowledged.len() < BATCH_MAX {
            self.since = now;
        }
        self.acknowledged.push(key);
    }
}

/// Whether a message came before.
#[derive(Debug, PartialEq)]
enum Named {
    /// It did, and was taken.
    Taken(Digest),
    /// It did not.
    New {
        /// By which it is known again, if it can be sent again.
        key: Option<Digest>,
        /// Of one that looked the same, had its number, and will not be sent again, since its number is this one's now.
        forgotten: Option<Digest>,
    },
}

/// Names a message: `taken` are the names of those that this step took and the broker may send again, `seen` of those that were taken
/// before by others, of which an earlier attempt at this step may have been one.
fn named(message: &Publish, taken: &[Digest], seen: &[Digest]) -> Named {
    // Sent once and never again: another one may look the same.
    if message.qos == QoS::AtMostOnce {
        return Named::New { key: None, forgotten: None };
    }
    let look = look_of(message);
    let one_of = |keys: &[Digest]| keys.iter().rev().find(|key| is_named(key, &look)).cloned();
    match (one_of(taken), message.dup) {
        (Some(key), true) => Named::Taken(key),
        (None, true) if let Some(key) = one_of(seen) => Named::New { key: Some(key), forgotten: None },
        (forgotten, _) => Named::New { key: Some(new_key(&look)), forgotten },
    }
}

/// Tells a message from others that are under way at the same time. Its number may be another's later, which may look the same.
fn look_of(message: &Publish) -> Digest {
    let mut text = message.pkid.to_be_bytes().to_vec();
    text.extend_from_slice(&message.topic);
    text.push(0);
    text.extend_from_slice(&message.payload);
    Digest::of(&text)
}

/// How a message looks and, behind a `-`, what no other message that looks the same has.
fn new_key(look: &Digest) -> Digest {
    Digest::from_text(&format!("{look}-{:08x}", Rng::from_entropy().bits() as u32))
}

fn is_named(key: &Digest, look: &Digest) -> bool {
    key.as_str().strip_prefix(look.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
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
    // What nests too deep for a run is a text to it.
    let payload =
        serde_json::from_slice(&message.payload).ok().filter(|payload| over_limits(payload).is_none());
    let payload: Value = payload.unwrap_or_else(|| text(&message.payload).into());
    let mut value = json!({"channel": text(&message.topic), "headers": headers, "payload": payload});
    if let Some(correlation) = given.correlation_data {
        value["correlationId"] = text(&correlation).into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_and_one_that_looks_the_same_is_another() {
        let message = |qos, dup| Publish { dup, pkid: 7, ..Publish::new("t", qos, "tick", None) };
        let Named::New { key: Some(key), forgotten: None } =
            named(&message(QoS::AtLeastOnce, false), &[], &[])
        else {
            panic!("nothing was taken yet")
        };
        let taken = [key.clone()];
        let again = message(QoS::AtLeastOnce, true);
        assert_eq!(named(&again, &taken, &[]), Named::Taken(key.clone()));
        let known = Named::New { key: Some(key.clone()), forgotten: None };
        assert_eq!(named(&again, &[], &taken), known, "another attempt is given it by the same name");
        let is_new = |named| match named {
            Named::New { key: Some(new), forgotten } => (new != key, forgotten),
            other => panic!("{other:?}"),
        };
        assert_eq!(is_new(named(&again, &[], &[])), (true, None), "it was not journalled");
        let another = named(&message(QoS::AtLeastOnce, false), &taken, &[]);
        assert_eq!(is_new(another), (true, Some(key.clone())), "its number is free again");
        let once = Named::New { key: None, forgotten: None };
        assert_eq!(named(&message(QoS::AtMostOnce, false), &taken, &[]), once);
    }
}
