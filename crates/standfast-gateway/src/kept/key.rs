//! What makes two requests the same one. Pure.
//!
//! A key belongs to its caller: with somebody else's key nobody is given somebody else's answer. A caller is who shows the same client
//! certificate and says the same in the header fields that the stack names. Who shows and says nothing is told apart by address, on
//! listeners that are open to anyone. Digests instead of texts, so that no secret is held and no length is unbounded; SHA-256, since
//! a collision would give an answer to the wrong caller.

use std::sync::Arc;

use ring::digest::{Context, SHA256};

use crate::body::Source;
use crate::client::Client;
use crate::headers::Said;
use crate::kept::Store;
use crate::pool::Service;
use crate::routes::Rule;
use crate::trace::RequestId;
use crate::wire::{Fields, Framing, Known, RequestHead};

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

/// A request whose answer is kept, or was.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) store: Arc<Store>,
    /// Of what it has in common with its repeats.
    pub(crate) scope: Digest,
    /// Of this request.
    pub(crate) id: RequestId,
}

impl Key {
    /// The key of a request as its client sent it; `None` where no answer is kept: there is no key, the service does not ask for
    /// it, the method is safe and so may be repeated freely, or the answer is a stream by nature (gRPC, upgrades).
    pub(crate) fn of(
        client: &Client,
        head: &RequestHead,
        said: &Said,
        service: &Service,
        id: RequestId,
    ) -> Option<Self> {
        if said.has_idempotency_key { Self::of_keyed(client, head, service, id) } else { None }
    }

    fn of_keyed(client: &Client, head: &RequestHead, service: &Service, id: RequestId) -> Option<Self> {
        let store = service.kept.borrow().clone()?;
        if head.method.is_safe() || head.upgrades || head.is_grpc() {
            return None;
        }
        let policy = service.policy.borrow();
        let callers = &policy.keep_answers.as_ref()?.callers;
        Some(Self { store, scope: scope(client, head, callers), id })
    }
}

fn scope(client: &Client, head: &RequestHead, callers: &[String]) -> Digest {
    let mut sum = Sum::new();
    sum.add(head.host().to_ascii_lowercase().as_bytes());
    sum.add(head.method.as_str().as_bytes());
    sum.add(head.target().as_bytes());
    sum.add_all(head.fields.all(Known::IdempotencyKey));
    let certificate = client.certificate.get();
    sum.add_all(certificate.iter().map(|digest| &digest[..]));
    let mut is_known = certificate.is_some();
    for name in callers {
        is_known |= sum.add_all(values(&head.fields, name)) > 0;
    }
    if !is_known && client.kind.is_public() {
        sum.add(client.address().to_string().as_bytes());
    }
    sum.digest()
}

/// All values of a field, by name in any case.
fn values<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = move |(_, found, value): (Known, &'a [u8], &'a [u8])| {
        found.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    };
    fields.iter().filter_map(named)
}

/// The digest of the certificate that a client has shown.
pub(crate) fn certificate(connection: &rustls::ServerConnection) -> Option<Digest> {
    let leaf = connection.peer_certificates()?.first()?;
    let mut sum = Sum::new();
    sum.add(leaf);
    Some(sum.digest())
}

/// What a route chooses among its services by, where one of them keeps answers: a repeat must come to the same.
pub(crate) fn same_target(rule: &Rule<std::rc::Rc<Service>>, head: &RequestHead) -> Option<u64> {
    let is_choice = rule.targets().nth(1).is_some();
    if !is_choice || !rule.targets().any(|service| service.kept.borrow().is_some()) {
        return None;
    }
    head.fields.get(Known::IdempotencyKey).map(crate::ring::stable_hash)
}

/// What tells that a key is used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fingerprint {
    /// Of the whole body, its trailers left out.
    Whole(Digest),
    /// Of a body too long to be held: only its length, where that is known beforehand.
    Long(Option<u64>),
}

impl Fingerprint {
    pub(crate) fn of(source: &Source) -> Self {
        let body: &[u8] = match source {
            Source::Empty => b"",
            Source::Kept { data, .. } => data,
            Source::Streamed { framing: Framing::Length(length), .. } => return Self::Long(Some(*length)),
            Source::Streamed { .. } => return Self::Long(None),
        };
        let mut sum = Sum::new();
        sum.add(body);
        Self::Whole(sum.digest())
    }

    /// Whether both may be of the same body.
    pub(crate) fn fits(self, other: Self) -> bool {
        match (self, other) {
            (Self::Long(None), Self::Long(_)) | (Self::Long(_), Self::Long(None)) => true,
            _ => self == other,
        }
    }
}

/// A digest of several parts, which no other parts come to.
struct Sum(Context);

impl Sum {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// Adds parts and how many there were, which it returns.
    fn add_all<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> u64 {
        let mut count = 0;
        for part in parts {
            self.add(part);
            count += 1;
        }
        // No part is as long as that: it ends the list.
        self.0.update(&(u64::MAX - count).to_be_bytes());
        count
    }

    fn digest(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;
    use std::rc::Rc;

    use standfast_model::{KeepAnswers, Stamp};

    use super::*;
    use crate::listener::ListenerKind;

    fn client(kind: ListenerKind, address: &str) -> Client {
        let peer: SocketAddr = format!("{address}:9").parse().unwrap();
        Client::new(Rc::new(kind), peer, &Rc::new(Cell::new(Stamp::EPOCH)))
    }

    fn of(client: &Client, target: &str, fields: &str) -> Digest {
        let text = format!("POST {target} HTTP/1.1\r\nhost: Shop.test\r\nidempotency-key: k\r\n{fields}\r\n");
        let head = RequestHead::parse(text.as_bytes(), 100).unwrap();
        scope(client, &head, &KeepAnswers::default().callers)
    }

    #[test]
    fn a_key_belongs_to_its_caller() {
        let public = client(ListenerKind::Public, "10.0.0.1");
        let elsewhere = client(ListenerKind::Public, "10.0.0.2");
        let same = of(&public, "/pay", "authorization: a\r\n");
        assert_eq!(same, of(&elsewhere, "/pay", "accept: */*\r\nAUTHORIZATION: a\r\n"));
        for other in [
            of(&public, "/pay", ""),
            of(&public, "/pay", "authorization: b\r\n"),
            of(&public, "/pay", "authorization: a\r\nauthorization: b\r\n"),
            of(&public, "/pay", "cookie: a\r\n"),
            of(&public, "/pay", "authorization: a\r\ncookie: a\r\n"),
            of(&public, "/pay", "authorization: a\r\nidempotency-key: k\r\n"),
            of(&public, "/pay?", "authorization: a\r\n"),
        ] {
            assert_ne!(same, other);
        }
        let shown = client(ListenerKind::PublicTls, "10.0.0.1");
        shown.certificate.set(Some([7; 32]));
        assert_ne!(same, of(&shown, "/pay", "authorization: a\r\n"));
    }

    #[test]
    fn who_says_nothing_is_told_apart_by_address_where_anyone_may_come() {
        let public = |address| of(&client(ListenerKind::Public, address), "/pay", "");
        assert_eq!(public("10.0.0.1"), public("10.0.0.1"));
        assert_ne!(public("10.0.0.1"), public("10.0.0.2"));
        let inner = |address| {
            let kind = ListenerKind::Service { service: "pay".parse().unwrap(), caller_zone: None };
            of(&client(kind, address), "/pay", "")
        };
        assert_eq!(inner("10.0.0.1"), inner("10.0.0.2"));
    }

    #[test]
    fn parts_cannot_be_moved_into_each_other() {
        let of = |lists: &[&[&str]]| {
            let mut sum = Sum::new();
            for list in lists {
                sum.add_all(list.iter().map(|part| part.as_bytes()));
            }
            sum.digest()
        };
        let all =
            [of(&[&["a", "b"], &[]]), of(&[&["a"], &["b"]]), of(&[&["ab"], &[]]), of(&[&[], &["a", "b"]])];
        for (place, one) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|other| other != one), "{place}");
        }
    }

    #[test]
    fn bodies_too_long_to_be_held_differ_by_their_lengths() {
        let long = Fingerprint::Long;
        assert!(
            long(Some(1)).fits(long(Some(1)))
                && long(None).fits(long(Some(1)))
                && long(Some(1)).fits(long(None))
        );
        assert!(!long(Some(1)).fits(long(Some(2))));
        let whole = Fingerprint::of(&Source::Empty);
        let kept = |text: &'static str| Fingerprint::of(&Source::Kept { data: text.into(), trailers: None });
        assert!(whole.fits(kept("")) && !whole.fits(kept("a")) && !whole.fits(long(None)));
    }
}
