//! Digest authentication (RFC 7616): a challenge in, what is shown out.

use std::fmt::Write;

use ring::digest::{SHA256, digest};

use crate::ask::HttpRequest;

/// Most challenges that are read of one answer.
const CHALLENGES_MAX: usize = 16;
/// How often the nonce was used: each is used once.
const COUNT: &str = "00000001";

/// What a service wants to be answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// As it was written, to be said again.
    algorithm: Option<String>,
    protection: Protection,
    hides_user: bool,
}

/// What the answer covers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Protection {
    /// As RFC 2069 had it.
    #[default]
    Old,
    /// The request's head.
    Head,
    /// The body too.
    Body,
}

/// The strongest of the challenges that can be answered.
pub(super) fn strongest<'t>(headers: impl Iterator<Item = &'t str>) -> Option<Challenge> {
    let found = headers.flat_map(challenges).take(CHALLENGES_MAX);
    found.filter(|challenge| challenge.hash().is_some()).max_by_key(|challenge| challenge.is_sha256())
}

impl Challenge {
    fn hash(&self) -> Option<fn(&str) -> String> {
        let word = self.algorithm.as_deref().unwrap_or("MD5").to_ascii_uppercase();
        match word.strip_suffix("-SESS").unwrap_or(&word) {
            "MD5" => Some(md5_of),
            "SHA-256" => Some(sha256_of),
            _ => None,
        }
    }

    fn is_sha256(&self) -> bool {
        self.algorithm.as_deref().is_some_and(|word| word.to_ascii_uppercase().starts_with("SHA-256"))
    }

    fn is_session(&self) -> bool {
        self.algorithm.as_deref().is_some_and(|word| word.to_ascii_lowercase().ends_with("-sess"))
    }

    fn take(&mut self, name: &str, value: String) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => self.realm = value,
            "nonce" => self.nonce = value,
            "opaque" => self.opaque = Some(value),
            "algorithm" => self.algorithm = Some(value),
            "userhash" => self.hides_user = value.eq_ignore_ascii_case("true"),
            "qop" => {
                let offers = |word: &str| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(word));
                self.protection = match (offers("auth"), offers("auth-int")) {
                    (true, _) => Protection::Head,
                    (false, true) => Protection::Body,
                    (false, false) => Protection::Old,
                };
            }
            _ => {}
        }
    }
}

/// The `Digest` challenges of one header field, which may hold challenges of several schemes.
fn challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut is_ours = false;
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            is_ours = word.eq_ignore_ascii_case("digest");
            if is_ours {
                found.push(Challenge::default());
            }
            rest = after;
            continue;
        };
        let (value, after) = value_of(value.trim_start());
        if let (true, Some(challenge)) = (is_ours, found.last_mut()) {
            challenge.take(word, value);
        }
        rest = after;
    }
}

/// A value, perhaps in quotes, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        // `=` at its end is of a scheme that is not ours.
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter => value.push(letter),
        }
    }
    (value, "")
}

/// What is shown for a challenge; `own` is a word that nobody else knows before.
pub(super) fn answer(
    challenge: &Challenge,
    request: &HttpRequest,
    user: &str,
    password: &str,
    own: &str,
) -> String {
    let hash = challenge.hash().unwrap_or(md5_of);
    let Challenge { realm, nonce, .. } = challenge;
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut secret = hash(&format!("{user}:{realm}:{password}"));
    if challenge.is_session() {
        secret = hash(&format!("{secret}:{nonce}:{own}"));
    }
    let method = &request.method;
    let (covered, word) = match challenge.protection {
        Protection::Old => (format!("{method}:{path}"), None),
        Protection::Head => (format!("{method}:{path}"), Some("auth")),
        Protection::Body => {
            let body = if challenge.is_sha256() { sha256(&request.body) } else { md5(&request.body) };
            (format!("{method}:{path}:{body}"), Some("auth-int"))
        }
    };
    let covered = hash(&covered);
    let response = match word {
        Some(word) => hash(&format!("{secret}:{nonce}:{COUNT}:{own}:{word}:{covered}")),
        None => hash(&format!("{secret}:{nonce}:{covered}")),
    };
    let shown_user = if challenge.hides_user { hash(&format!("{user}:{realm}")) } else { user.to_owned() };
    let mut text = format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
        quoted(&shown_user),
        quoted(realm),
        quoted(nonce),
        quoted(path),
    );
    // Writing into a text cannot fail.
    if let Some(algorithm) = &challenge.algorithm {
        let _ = write!(text, ", algorithm={algorithm}");
    }
    if let Some(word) = word {
        let _ = write!(text, ", qop={word}, nc={COUNT}, cnonce={}", quoted(own));
    } else if challenge.is_session() {
        let _ = write!(text, ", cnonce={}", quoted(own));
    }
    if let Some(opaque) = &challenge.opaque {
        let _ = write!(text, ", opaque={}", quoted(opaque));
    }
    if challenge.hides_user {
        text.push_str(", userhash=true");
    }
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn md5_of(text: &str) -> String {
    md5(text.as_bytes())
}

fn sha256_of(text: &str) -> String {
    sha256(text.as_bytes())
}

fn md5(bytes: &[u8]) -> String {
    format!("{:x}", ::md5::compute(bytes))
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request() -> HttpRequest {
        HttpRequest {
            method: ::http::Method::GET,
            uri: "http://api.example.org/dir/index.html".parse().unwrap(),
            headers: ::http::HeaderMap::new(),
            body: Bytes::new(),
            credential: None,
        }
    }

    /// RFC 7616, section 3.9.1.
    #[test]
    fn the_examples_of_the_rfc_are_answered_as_it_has_them() {
        let common = "qop=\"auth, auth-int\", nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let offered = [
            format!("Basic realm=\"x\", Digest realm=\"http-auth@example.org\", algorithm=MD5, {common}"),
            format!("Negotiate abc==, Digest realm=\"http-auth@example.org\", algorithm=SHA-256, {common}"),
        ];
        let own = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let answered = |texts: &[String]| {
            let challenge = strongest(texts.iter().map(String::as_str)).unwrap();
            answer(&challenge, &request(), "Mufasa", "Circle of Life", own)
        };
        assert!(answered(&offered[..1]).contains("response=\"8ca523f5e9506fed4657c9700eebdbec\""));
        let both = answered(&offered);
        assert!(
            both.contains("response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\""),
            "{both}"
        );
        assert!(both.contains("algorithm=SHA-256, qop=auth, nc=00000001"), "{both}");
    }

    #[test]
    fn what_cannot_be_answered_is_no_challenge_and_hostile_texts_do_no_harm() {
        for text in
            ["", "Basic realm=\"a\"", "Digest algorithm=SHA-512-256, nonce=\"a\"", ",,,", "=", "\"", "==="]
        {
            assert_eq!(strongest(std::iter::once(text)), None, "{text}");
        }
        let odd = strongest(std::iter::once("Digest realm=\"a\\\"b, nonce=\"\u{e9}")).unwrap();
        assert!(!answer(&odd, &request(), "u\"\\", "p", "c").contains('\n'));
    }
}
