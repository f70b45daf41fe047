//! Header fields as they were received: one text, and where in it each name and value lies.
//!
//! A map would hash and allocate for each field of each message; a proxy looks at few of them and passes the rest on.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that the gateway knows by sight. The rest is passed on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Taken out.
    Removed,
    /// None of the others.
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    ProxyAuthorization,
    ProxyAuthenticate,
    Te,
    Trailer,
    Upgrade,
    Expect,
    IdempotencyKey,
    Deadline,
    GrpcTimeout,
    Priority,
    RequestId,
    Traceparent,
    /// `Forwarded`, `X-Forwarded-*`, `X-Real-IP`: what a proxy says of the client.
    Forwarded,
    /// `Standfast-Fault`.
    Fault,
    RetryAfter,
    Cookie,
    Server,
    Date,
}

impl Known {
    /// Looks a name up, in any case.
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            4 if is("date") => Self::Date,
            6 if is("cookie") => Self::Cookie,
            6 if is("expect") => Self::Expect,
            6 if is("server") => Self::Server,
            7 if is("upgrade") => Self::Upgrade,
            7 if is("trailer") => Self::Trailer,
            9 if is("forwarded") || is("x-real-ip") => Self::Forwarded,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::KeepAlive,
            11 if is("retry-after") => Self::RetryAfter,
            11 if is("traceparent") => Self::Traceparent,
            12 if is("grpc-timeout") => Self::GrpcTimeout,
            14 if is("content-length") => Self::ContentLength,
            15 if is("idempotency-key") => Self::IdempotencyKey,
            15 if is("standfast-fault") => Self::Fault,
            16 if is("proxy-connection") => Self::ProxyConnection,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            18 if is("standfast-deadline") => Self::Deadline,
            18 if is("standfast-priority") => Self::Priority,
            18 if is("proxy-authenticate") => Self::ProxyAuthenticate,
            19 if is("proxy-authorization") => Self::ProxyAuthorization,
            20 if is("standfast-request-id") => Self::RequestId,
            12.. if name[..12].eq_ignore_ascii_case(b"x-forwarded-") => Self::Forwarded,
            _ => Self::Other,
        }
    }

    /// Whether it means something to the next hop only (RFC 9110, 7.6.1), besides those that `Connection` names.
    pub(crate) const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthorization
                | Self::ProxyAuthenticate
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }
}

/// One field: where its name and value lie in the text.
#[derive(Debug, Clone, Copy)]
struct Field {
    known: Known,
    name_bytes: u16,
    name_at: u32,
    value_at: u32,
    value_bytes: u32,
}

/// A list of header fields, in their order. Names keep the case they came in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
}

impl Fields {
    /// An empty list that takes the text of a whole message head; ranges into it are added by [`Fields::note`].
    pub(crate) fn over(text: &[u8], count: usize) -> Self {
        // Room for what the gateway adds.
        let mut fields =
            Self { text: Vec::with_capacity(text.len() + 384), list: Vec::with_capacity(count + 8) };
        fields.text.extend_from_slice(text);
        fields
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Keeps bytes beside the fields; the result is where they lie in the text.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> (usize, usize) {
        let at = self.text.len();
        self.text.extend_from_slice(bytes);
        (at, at + bytes.len())
    }

    /// Adds a field that lies in the text already.
    pub(crate) fn note(&mut self, name_at: usize, name: &[u8], value_at: usize, value: &[u8]) {
        self.list.push(Field {
            known: Known::of(name),
            name_bytes: narrow(name.len()),
            name_at: place(name_at),
            value_at: place(value_at),
            value_bytes: place(value.len()),
        });
    }

    /// Adds a field.
    pub(crate) fn push(&mut self, known: Known, name: &str, value: &[u8]) {
        let name_at = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        let value_at = self.text.len();
        self.text.extend_from_slice(value);
        self.list.push(Field {
            known,
            name_bytes: narrow(name.len()),
            name_at: place(name_at),
            value_at: place(value_at),
            value_bytes: place(value.len()),
        });
    }

    /// Adds a field, looking up what it is.
    pub(crate) fn add(&mut self, name: &str, value: &[u8]) {
        self.push(Known::of(name.as_bytes()), name, value);
    }

    fn name_of(&self, field: &Field) -> &[u8] {
        let at = field.name_at as usize;
        &self.text[at..at + usize::from(field.name_bytes)]
    }

    fn value_of(&self, field: &Field) -> &[u8] {
        let at = field.value_at as usize;
        &self.text[at..at + field.value_bytes as usize]
    }

    fn there(&self) -> impl Iterator<Item = &Field> {
        self.list.iter().filter(|field| field.known != Known::Removed)
    }

    /// All fields that were not taken out: what they are, name and value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.there().map(|field| (field.known, self.name_of(field), self.value_of(field)))
    }

    /// The first value of a known field.
    pub(crate) fn get(&self, known: Known) -> Option<&[u8]> {
        self.list.iter().find(|field| field.known == known).map(|field| self.value_of(field))
    }

    /// All values of a known field.
    pub(crate) fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.list.iter().filter(move |field| field.known == known).map(|field| self.value_of(field))
    }

    pub(crate) fn has(&self, known: Known) -> bool {
        self.list.iter().any(|field| field.known == known)
    }

    /// The first value of any field, by name in any case.
    pub(crate) fn named(&self, name: &str) -> Option<&[u8]> {
        self.there()
            .find(|field| self.name_of(field).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| self.value_of(field))
    }

    /// Takes out all fields of a kind.
    pub(crate) fn remove(&mut self, known: Known) {
        self.list.iter_mut().filter(|field| field.known == known).for_each(|f| f.known = Known::Removed);
    }

    /// Takes out what is between two neighbours only, and what `Connection` says is.
    pub(crate) fn remove_hop_by_hop(&mut self) {
        let named: Vec<Vec<u8>> = self
            .all(Known::Connection)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.eq_ignore_ascii_case(b"close") && !name.eq_ignore_ascii_case(b"keep-alive"))
            // What decides where a message ends, whom it is for and whether it may be repeated cannot be declared away.
            .filter(|name| {
                !matches!(Known::of(name), Known::Host | Known::ContentLength | Known::IdempotencyKey)
            })
            .map(<[u8]>::to_vec)
            .collect();
        for field in &mut self.list {
            if field.known.is_hop_by_hop() {
                field.known = Known::Removed;
            }
        }
        for name in &named {
            self.remove_named(name);
        }
    }

    /// Takes out all fields of a name in any case.
    pub(crate) fn remove_named(&mut self, name: &[u8]) {
        for index in 0..self.list.len() {
            if self.name_of(&self.list[index]).eq_ignore_ascii_case(name) {
                self.list[index].known = Known::Removed;
            }
        }
    }

    /// Takes out all fields but those of this kind and name.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(Known, &[u8]) -> bool) {
        for index in 0..self.list.len() {
            if !is_kept(self.list[index].known, self.name_of(&self.list[index])) {
                self.list[index].known = Known::Removed;
            }
        }
    }

    /// Puts a field in place of all of its name.
    pub(crate) fn set(&mut self, known: Known, name: &str, value: &[u8]) {
        match known {
            Known::Other => self.remove_named(name.as_bytes()),
            known => self.remove(known),
        }
        self.push(known, name, value);
    }

    /// Whether a comma-separated field of a kind has this token; parameters after `;` are not looked at.
    pub(crate) fn has_token(&self, known: Known, token: &str) -> bool {
        self.all(known).flat_map(|value| value.split(|byte| *byte == b',')).any(|part| {
            let word = part.split(|byte| *byte == b';').next().unwrap_or(part);
            word.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
        })
    }

    /// Writes all fields as lines of HTTP/1.1.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for field in self.there() {
            out.extend_from_slice(self.name_of(field));
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.value_of(field));
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The fields as HTTP/2 wants them; what is no legal field there is left out.
    pub(crate) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.list.len());
        for (_, name, value) in self.iter() {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
        map
    }

    /// The fields of a message that came over HTTP/2.
    pub(crate) fn from_map(map: &HeaderMap) -> Self {
        let bytes: usize = map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let mut fields =
            Self { text: Vec::with_capacity(bytes + 384), list: Vec::with_capacity(map.len() + 8) };
        for (name, value) in map {
            fields.add(name.as_str(), value.as_bytes());
        }
        fields
    }
}

/// Heads are limited to far less than 4 GiB, names to 64 KiB.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn narrow(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in all {
            fields.add(name, value.as_bytes());
        }
        fields
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|(_, name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn fields_for_the_next_hop_only_are_taken_out_but_not_what_a_message_needs() {
        let mut all = fields(&[
            ("Host", "a"),
            ("Connection", "keep-alive, X-Secret, host, idempotency-key"),
            ("x-secret", "1"),
            ("X-SECRET", "2"),
            ("keep-alive", "timeout=5"),
            ("TE", "trailers, deflate"),
            ("Transfer-Encoding", "chunked"),
            ("upgrade", "h2c"),
            ("Idempotency-Key", "k"),
            ("accept", "*/*"),
        ]);
        assert!(all.has_token(Known::Te, "trailers"));
        all.remove_hop_by_hop();
        assert_eq!(names(&all), ["Host", "Idempotency-Key", "accept"]);
    }

    #[test]
    fn a_set_field_takes_the_place_of_all_of_its_name() {
        let mut all = fields(&[("x-a", "1"), ("X-A", "2"), ("Host", "h")]);
        all.set(Known::Other, "x-a", b"3");
        all.set(Known::Host, "host", b"i");
        let mut out = Vec::new();
        all.write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "x-a: 3\r\nhost: i\r\n");
        assert_eq!(all.named("X-a"), Some(&b"3"[..]));
    }

    #[test]
    fn a_map_and_a_list_say_the_same() {
        let all = fields(&[("x-a", "1"), ("cookie", "a=1"), ("x-a", "2")]);
        let back = Fields::from_map(&all.to_map());
        assert_eq!(back.iter().count(), 3);
        assert_eq!(back.get(Known::Cookie), Some(&b"a=1"[..]));
    }
}
