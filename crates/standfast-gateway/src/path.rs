//! How paths are read: which ones are refused because two parties could understand them differently, and in which form the
//! others are compared with routes. Pure.
//!
//! The service gets the path as the client sent it, and how it will read that is not known: it may take `%2F` for a slash or
//! for text, may join `//` or not. So a route is chosen by a *reading* that any service may come to, and of routes that differ
//! in it the most specific one wins:
//!
//! - `%61` is `a`: encoded characters that can be seen are what they stand for; all others stay encoded, with upper-case digits.
//! - `//` is `/`, `/./` is `/`, `/a/../` is `/`.
//! - `%2F` and `%5C` are `/`, so that `/admin%2Fx` is under `/admin`. Regular expressions get a second chance with the text as it
//!   is, so that `/projects/[^/]+` matches `/projects/group%2Fname`.
//!
//! What is left over is refused by [`check_path`]: where a `..` leads to depends on who reads it when an encoded separator or `//`
//! is in the same path. Paths that are encoded twice (`%252F`) are read once: services must not read them twice.

use std::borrow::Cow;

/// Whether a request's path (without its query) means the same to everyone.
///
/// # Errors
/// Why it does not, for people: the request is to be answered with 400.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    if is_plain(path) || path == "*" {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err("the path does not begin with `/`");
    }
    check_bytes(path.as_bytes())?;
    check_dots(path)
}

/// Whether there is nothing in a path that could be read in more than one way: true for nearly all.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    let is_fine = |byte: u8| {
        let is_special = matches!(byte, b'%' | b'\\' | b'#' | b'?') || !byte.is_ascii_graphic();
        let begins_odd_segment = before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        !(is_special || begins_odd_segment)
    };
    path.starts_with('/') && path.bytes().all(is_fine)
}

fn check_bytes(path: &[u8]) -> Result<(), &'static str> {
    let mut rest = path;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'\\' => return Err("the path holds a backslash"),
            b'#' | b'?' => return Err("the path holds a `#` or `?`"),
            b'%' => match encoded(after) {
                None => return Err("the path holds a `%` that encodes nothing"),
                Some(0) => return Err("the path holds an encoded zero"),
                Some(_) => rest = &after[2..],
            },
            byte if *byte <= b' ' || *byte == 0x7f => {
                return Err("the path holds a space or a control character");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Dot segments are only good when everyone sees all of them and they lead to the same place.
fn check_dots(path: &str) -> Result<(), &'static str> {
    // What a service sees that decodes everything and, as servlet containers do, cuts a segment at `;`.
    let read = decoded(path, Separators::AreSlashes);
    let seen =
        read.split('/').filter(|segment| is_dots(segment.split(';').next().unwrap_or(segment))).count();
    let written = path.split('/').filter(|segment| is_dots(segment)).count();
    if seen != written {
        return Err("the path hides a `.` or `..` segment");
    }
    if !path.split('/').any(|segment| segment == "..") {
        return Ok(());
    }
    if has_encoded_separator(path) || path.contains("//") {
        return Err("the path holds a `..` segment and separators that can be read in two ways");
    }
    let mut depth = 0_u32;
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => depth = depth.checked_sub(1).ok_or("the path leads out of its root")?,
            _ => depth += 1,
        }
    }
    Ok(())
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

fn has_encoded_separator(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.windows(3).any(|at| at[0] == b'%' && matches!(encoded(&at[1..]), Some(b'/' | b'\\')))
}

/// The byte that the two hexadecimal digits after a `%` stand for.
pub(crate) fn encoded(after: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// What encoded separators are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Separators {
    AreSlashes,
    AreText,
}

/// A path with everything decoded that can be seen, but for the `%` itself.
fn decoded(path: &str, separators: Separators) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let byte = match encoded(after).filter(|_| *first == b'%') {
            None => {
                push(&mut text, *first, first.is_ascii());
                continue;
            }
            Some(byte) => byte,
        };
        rest = &after[2..];
        if matches!(byte, b'/' | b'\\') {
            match separators {
                Separators::AreSlashes => text.push('/'),
                Separators::AreText => push(&mut text, byte, false),
            }
        } else {
            push(&mut text, byte, byte.is_ascii_graphic() && byte != b'%');
        }
    }
    text
}

/// Writes a byte as it is or encoded.
fn push(text: &mut String, byte: u8, is_plain: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if is_plain {
        text.push(char::from(byte));
    } else {
        text.push('%');
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// A path that [`check_path`] lets through, without dot segments and empty ones.
fn resolved(path: &str, separators: Separators) -> String {
    let text = decoded(path, separators);
    let mut kept = Vec::new();
    let mut last = "";
    for segment in text.split('/') {
        last = segment;
        match segment {
            "" | "." => {}
            ".." => {
                let _root_is_never_left = kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut path = String::with_capacity(text.len());
    for segment in &kept {
        path.push('/');
        path.push_str(segment);
    }
    if path.is_empty() || last.is_empty() || is_dots(last) {
        path.push('/');
    }
    path
}

/// A request's path as routes are compared with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading<'a> {
    /// With encoded separators as slashes.
    pub(crate) path: Cow<'a, str>,
    /// With encoded separators as text, where there are any.
    pub(crate) with_text: Option<String>,
}

impl<'a> Reading<'a> {
    /// `None` for what [`check_path`] refuses, and for `*`: no route is for that.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        if is_plain(path) {
            return Some(Self { path: Cow::Borrowed(path), with_text: None });
        }
        if path == "*" || check_path(path).is_err() {
            return None;
        }
        let with_text = has_encoded_separator(path).then(|| resolved(path, Separators::AreText));
        Some(Self { path: Cow::Owned(resolved(path, Separators::AreSlashes)), with_text })
    }
}

/// The text of a route's path as readings of requests are compared with it.
pub(crate) fn of_route(path: &str) -> String {
    if check_path(path).is_ok() && path.starts_with('/') {
        resolved(path, Separators::AreSlashes)
    } else {
        path.to_owned()
    }
}

/// What follows a route's prefix in a request's path, as it can be sent: empty or from a `/` on. As much as possible of what the
/// client wrote is kept. `None` when the path is not under the prefix.
pub(crate) fn after_prefix<'a>(path: &'a str, prefix: &str) -> Option<Cow<'a, str>> {
    fn cut<'b>(path: &'b str, prefix: &str) -> Option<&'b str> {
        path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
    let has_dots = || path.split('/').any(is_dots);
    if let Some(rest) = cut(path, prefix.trim_end_matches('/')).filter(|_| is_plain(path) || !has_dots()) {
        return Some(Cow::Borrowed(rest));
    }
    check_path(path).ok()?;
    let prefix = of_route(prefix);
    let prefix = prefix.trim_end_matches('/');
    [Separators::AreText, Separators::AreSlashes].into_iter().find_map(|separators| {
        cut(&resolved(path, separators), prefix).map(|rest| Cow::Owned(sendable(rest)))
    })
}

/// A path in which everything is encoded that may not stand in one. What is encoded stays so.
pub(crate) fn sendable(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        push(&mut text, byte, byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_read_differently_is_refused() {
        for path in [
            "",
            "x",
            "http://x/",
            "/a b",
            "/a\u{7f}",
            "/a\r\nb",
            "/a\\b",
            "/a#b",
            "/a?b",
            "/100%",
            "/%4",
            "/%zz",
            "/%+1",
            "/a%00",
            "/..",
            "/../a",
            "/a/../../b",
            "/./..",
            "/%2e%2e/a",
            "/a/%2E./b",
            "/a/%2e/b",
            "/a%2F../b",
            "/a/..%2fb",
            "/a%2F..%2Fb",
            "/a%5c..%5Cb",
            "/a%2Fb/../c",
            "/a//../b",
            "/a//b/../c",
            "/public/..;/admin",
            "/public/..;x=1/admin",
            "/public/.;/admin",
            "/public/..%3B/admin",
        ] {
            assert!(check_path(path).is_err(), "{path}");
            assert_eq!(Reading::of(path), None, "{path}");
        }
    }

    #[test]
    fn routes_are_compared_with_what_any_service_may_read() {
        for (path, reading) in [
            ("/", "/"),
            ("/orders/1", "/orders/1"),
            ("/.well-known/acme", "/.well-known/acme"),
            ("/a/...", "/a/..."),
            ("/a/..b", "/a/..b"),
            ("//admin", "/admin"),
            ("/a///b//", "/a/b/"),
            ("/./admin", "/admin"),
            ("/a/.", "/a/"),
            ("/a/./", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/%61dmin", "/admin"),
            ("/admin%2Fx", "/admin/x"),
            ("/%2fadmin", "/admin"),
            ("/admin%5Cx", "/admin/x"),
            ("/%40me/a%2Bb", "/@me/a+b"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9"),
            ("/a%252Fb", "/a%252Fb"),
            ("/a;v=1", "/a;v=1"),
            ("/\u{e9}", "/%C3%A9"),
        ] {
            assert_eq!(check_path(path), Ok(()), "{path}");
            assert_eq!(Reading::of(path).unwrap().path, reading, "{path}");
            assert_eq!(of_route(path), reading, "{path}");
        }
        let reading = Reading::of("/projects/a%2fb%2B").unwrap();
        assert_eq!(reading.with_text.as_deref(), Some("/projects/a%2Fb+"));
        assert!(matches!(Reading::of("/orders/1.5").unwrap().path, Cow::Borrowed(_)));
        assert_eq!((check_path("*"), Reading::of("*")), (Ok(()), None));
    }

    #[test]
    fn a_reading_is_its_own_reading() {
        for path in ["/a%2Fb//c/./d", "/a/b/../c/", "/%7e%25%2541/", "/x%20%C3%a9"] {
            let once = Reading::of(path).unwrap().path.into_owned();
            assert_eq!(Reading::of(&once).unwrap().path, once);
        }
    }

    #[test]
    fn what_follows_a_prefix_is_kept_as_it_was_sent() {
        for (path, prefix, rest) in [
            ("/api", "/api", Some("")),
            ("/api/", "/api", Some("/")),
            ("/api/x", "/api/", Some("/x")),
            ("/api/a%2Fb//c%41", "/api", Some("/a%2Fb//c%41")),
            ("/api/.well-known", "/api", Some("/.well-known")),
            ("/%61pi/a%2Fb", "/api", Some("/a%2Fb")),
            ("//api//x", "/api", Some("/x")),
            ("/api/x/../y", "/api", Some("/y")),
            ("/x/../api/y", "/api", Some("/y")),
            ("/api%2Fx%3Fy", "/api", Some("/x%3Fy")),
            ("/x", "/", Some("/x")),
            ("/", "/", Some("/")),
            ("/apis", "/api", None),
            ("/api/../x", "/api", None),
            ("/api/../../x", "/api", None),
        ] {
            assert_eq!(after_prefix(path, prefix).as_deref(), rest, "{path} {prefix}");
        }
        assert_eq!(sendable("/a b\"<%20>\u{e9}?#"), "/a%20b%22%3C%20%3E%C3%A9%3F%23");
    }
}
