//! Signed statements (RFC 7519, RFC 7523) by which a client says who it is.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{hmac, signature};
use serde_json::{Value, json};
use standfast_model::Stamp;

use crate::run::{Problem, Standard};

/// How long a statement is good, in seconds.
const LIFE_SECONDS: u64 = 60;

/// What a client states.
pub(super) struct Statement<'s> {
    pub(super) client: &'s str,
    pub(super) audience: &'s str,
    pub(super) id: &'s str,
    pub(super) now: Stamp,
}

impl Statement<'_> {
    fn unsigned(&self, algorithm: &str) -> String {
        let now = self.now.as_millis() / 1_000;
        let head = json!({"alg": algorithm, "typ": "JWT"});
        let claims = json!({
            "iss": self.client, "sub": self.client, "aud": self.audience, "jti": self.id,
            "iat": now, "exp": now + LIFE_SECONDS,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", encode(&head), encode(&claims))
    }
}

/// Signed by a secret that both know (HS256).
pub(super) fn by_secret(statement: &Statement<'_>, secret: &str) -> String {
    let text = statement.unsigned("HS256");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Signed by a private key in PEM: RSA (RS256) or the curve P-256 (ES256).
pub(super) fn by_private_key(statement: &Statement<'_>, pem: &str) -> Result<String, Problem> {
    let (label, key) = decoded(pem).ok_or_else(bad_key)?;
    let random = SystemRandom::new();
    let rsa = match label {
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(&key).ok(),
        _ => RsaKeyPair::from_pkcs8(&key).ok(),
    };
    let (text, signature) = match rsa {
        Some(pair) => {
            let text = statement.unsigned("RS256");
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).map_err(|_| bad_key())?;
            (text, signature)
        }
        None => {
            let pair: EcdsaKeyPair =
                signature::EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random)
                    .map_err(|_| bad_key())?;
            let text = statement.unsigned("ES256");
            let signature = pair.sign(&random, text.as_bytes()).map_err(|_| bad_key())?;
            (text, signature.as_ref().to_vec())
        }
    };
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn bad_key() -> Problem {
    Standard::Configuration.problem(
        "`client.secret` is no private key that can be used: RSA or P-256 in PEM (PKCS #8) is, as `openssl genpkey` writes it",
    )
}

/// The first block of a PEM text, and what it says that it is.
fn decoded(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (_, from) = pem.split_once("-----BEGIN ")?;
    let (label, from) = from.split_once("-----")?;
    let (body, _) = from.split_once("-----END ")?;
    let body: String = body.chars().filter(|letter| !letter.is_whitespace()).collect();
    Some((label, STANDARD.decode(body).ok()?))
}

/// Who issued a token, if it is a JWT that says so.
pub(super) fn issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    // It is not checked: who is shown the token checks it.
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some(claims.get("iss")?.as_str()?.to_owned())
}
