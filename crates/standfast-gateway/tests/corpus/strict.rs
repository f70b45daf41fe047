//! A reader of what the gateway writes to replicas that shares no code with it and forgives nothing.

/// A request as a replica sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// `none`, `length` or `chunked`.
    pub(crate) framing: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
}

/// What the bytes begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// A whole request of so many bytes.
    Whole(Box<Request>, usize),
    /// The beginning of one.
    Cut(Box<Request>),
    Bad(String),
}

impl Request {
    /// The first value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        value(&self.fields, name)
    }

    /// The first value of a trailer.
    pub(crate) fn trailer(&self, name: &str) -> Option<&[u8]> {
        value(&self.trailers, name)
    }
}

fn value<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
}

/// Reads the request at the start of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Read {
    let mut request = Request::default();
    match request.read(bytes) {
        Ok(Some(length)) => Read::Whole(Box::new(request), length),
        Ok(None) => Read::Cut(Box::new(request)),
        Err(why) => Read::Bad(why),
    }
}

/// A line without its CRLF, and where the next one begins.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, String> {
    let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = bytes[at..at + end].strip_suffix(b"\r").ok_or("a bare LF")?;
    if line.contains(&b'\r') {
        return Err("a bare CR".to_owned());
    }
    Ok(Some((line, at + end + 1)))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

impl Request {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some((first, mut at)) = line(bytes, 0)? else { return Ok(None) };
        let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
        let [method, target, b"HTTP/1.1"] = words[..] else {
            return Err(format!("the request line {:?}", String::from_utf8_lossy(first)));
        };
        let is_visible = !target.is_empty() && target.iter().all(|byte| byte.is_ascii_graphic());
        if !is_token(method) || !is_visible || !(target[0] == b'/' || target == b"*") {
            return Err(format!("the request line {:?}", String::from_utf8_lossy(first)));
        }
        self.method = String::from_utf8_lossy(method).into_owned();
        self.target = String::from_utf8_lossy(target).into_owned();
        let Some(next) = read_fields(bytes, at, &mut self.fields)? else { return Ok(None) };
        at = next;
        self.framing = self.check_fields()?;
        match self.framing {
            "length" => {
                let length = self.field("content-length").and_then(|value| std::str::from_utf8(value).ok());
                let length: usize = length.and_then(|text| text.parse().ok()).ok_or("the content-length")?;
                let there = bytes.len().saturating_sub(at).min(length);
                self.body = bytes[at..at + there].to_vec();
                Ok((there == length).then_some(at + length))
            }
            "chunked" => self.read_chunks(bytes, at),
            _ => Ok(Some(at)),
        }
    }

    /// How the body is framed, if the fields leave no doubt.
    fn check_fields(&self) -> Result<&'static str, String> {
        let count =
            |name: &str| self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).count();
        if count("host") != 1 {
            return Err("not one host".to_owned());
        }
        for (name, may_be) in [
            ("keep-alive", &[][..]),
            ("proxy-connection", &[]),
            ("proxy-authorization", &[]),
            ("expect", &[]),
            ("te", &[&b"trailers"[..]]),
            ("connection", &[b"upgrade"]),
            ("transfer-encoding", &[b"chunked"]),
        ] {
            let values = || self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            if values().count() > 1 || values().any(|(_, value)| !may_be.contains(&value.as_slice())) {
                return Err(format!("the field {name}"));
            }
        }
        if count("upgrade") != count("connection") {
            return Err("upgrade without connection".to_owned());
        }
        match (count("content-length"), count("transfer-encoding")) {
            (0, 0) => Ok("none"),
            (1, 0) => Ok("length"),
            (0, 1) => Ok("chunked"),
            _ => Err("framed twice".to_owned()),
        }
    }

    fn read_chunks(&mut self, bytes: &[u8], mut at: usize) -> Result<Option<usize>, String> {
        loop {
            let Some((size, data)) = line(bytes, at)? else { return Ok(None) };
            let is_plain = size.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
            let number = std::str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
            let number =
                number.filter(|_| is_plain && (size == b"0" || size[0] != b'0')).ok_or("a chunk's size")?;
            if number == 0 {
                return read_fields(bytes, data, &mut self.trailers);
            }
            let end = data + number;
            let there = bytes.len().min(end).max(data);
            self.body.extend_from_slice(&bytes[data..there]);
            match bytes.get(end..end + 2) {
                None => return Ok(None),
                Some(b"\r\n") => at = end + 2,
                Some(_) => return Err("a chunk longer than its size".to_owned()),
            }
        }
    }
}

/// Reads fields up to the empty line; the result is where it ends.
fn read_fields(
    bytes: &[u8],
    mut at: usize,
    fields: &mut Vec<(String, Vec<u8>)>,
) -> Result<Option<usize>, String> {
    loop {
        let Some((field, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        if field.is_empty() {
            return Ok(Some(at));
        }
        let colon = field.iter().position(|byte| *byte == b':').ok_or("a field without a colon")?;
        let (name, value) = (&field[..colon], &field[colon + 1..]);
        let value = value.strip_prefix(b" ").ok_or("a field without a space")?;
        let is_value = value.iter().all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f);
        if !is_token(name) || !is_value || value.trim_ascii() != value {
            return Err(format!("the field {:?}", String::from_utf8_lossy(field)));
        }
        fields.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
}
