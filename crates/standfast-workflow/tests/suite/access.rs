//! As whom services are called: what is shown, to whom, and how often it is asked for.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Response};
use ring::signature::{ECDSA_P256_SHA256_FIXED, KeyPair, UnparsedPublicKey};
use ring::{hmac, rand, signature};
use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::MemoryStore;
use standfast_workflow::{EngineConfig, Status, Summary};

use super::peer::{Peer, Seen, ok, status};
use super::rig::Rig;

async fn run(peer: &Peer, secrets: Value, text: &str) -> (Rig, Summary) {
    let config = EngineConfig {
        secrets: Some(secrets.as_object().unwrap().clone().into()),
        ..EngineConfig::default()
    };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let ended = rig.run(&text.replace("PEER", &peer.url), json!({"who": "you"})).await;
    (rig, ended)
}

/// A task that asks `/thing` as `access` says, three times one after the other.
fn thrice(access: &str) -> String {
    format!(
        "
use:
  secrets: [ login, authority ]
do:
  - each:
      for: {{ each: n, in: '[1, 2, 3]' }}
      do:
        - ask:
            call: http
            with:
              method: post
              endpoint: {{ uri: PEER/thing, authentication: {access} }}
              body: {{ n: '${{ $n }}' }}
"
    )
}

fn kind(summary: &Summary) -> &str {
    summary.problem.as_ref().and_then(|problem| problem.kind.rsplit('/').next()).unwrap_or("")
}

/// Wants a digest, and gives a nonce for each challenge.
fn wants_digest(seen: &Seen, _: usize) -> Response<Bytes> {
    if seen.header("authorization").contains("username=\"ada\"")
        && seen.header("authorization").contains("response=")
    {
        return ok(&json!({"in": true}));
    }
    let mut answer = status(401, &json!({}));
    answer.headers_mut().append(
        "www-authenticate",
        HeaderValue::from_static("Digest realm=\"r\", nonce=\"n1\", qop=\"auth\", algorithm=MD5"),
    );
    answer.headers_mut().append(
        "www-authenticate",
        HeaderValue::from_static(
            "Digest realm=\"r\", nonce=\"n2\", qop=\"auth\", algorithm=SHA-256-sess, opaque=\"o\"",
        ),
    );
    answer
}

#[tokio::test]
async fn a_digest_challenge_is_answered_once_by_the_strongest_way() {
    let peer = Peer::new(wants_digest).await;
    let secrets = json!({"login": {"username": "ada", "password": "pass"}});
    let (_rig, ended) = run(&peer, secrets, &thrice("{ digest: { use: login } }")).await;
    assert_eq!(ended.problem, None);
    let seen = peer.seen("/thing");
    assert_eq!(seen.len(), 6);
    assert!(seen[1].header("authorization").contains("algorithm=SHA-256-sess, qop=auth, nc=00000001"));
    assert!(seen[1].header("authorization").contains("opaque=\"o\""));
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
    assert_eq!(seen[1].json(), json!({"n": 1}));
}

#[tokio::test]
async fn who_is_not_known_or_may_not_fails_by_problems_of_their_own() {
    let peer = Peer::new(|seen, _| match seen.path.as_str() {
        "/thing" => wants_digest(seen, 0),
        _ => status(403, &json!({})),
    })
    .await;
    let secrets = json!({"login": {"username": "eve", "password": "pass"}});
    let (_rig, ended) = run(&peer, secrets, &thrice("{ digest: { use: login } }")).await;
    assert_eq!((kind(&ended), ended.problem.as_ref().unwrap().status), ("authentication", 401));
    assert_eq!(peer.seen("/thing").len(), 2, "a challenge is answered once");
    let text = "do:\n  - ask: { call: http, with: { method: get, endpoint: PEER/other } }\n";
    let (_rig, ended) = run(&peer, json!({}), text).await;
    assert_eq!((kind(&ended), ended.problem.as_ref().unwrap().status), ("authorization", 403));
}

/// Gives `t0`, `t1`, ... at `/oauth2/token`; at `/thing` lets all in but `refused`.
fn authority(refused: &'static str, life: u64) -> impl Fn(&Seen, usize) -> Response<Bytes> {
    let given = std::sync::atomic::AtomicUsize::new(0);
    move |seen, _| match seen.path.as_str() {
        "/oauth2/token" | "/deep/token" => {
            let number = given.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            ok(&json!({"access_token": format!("t{number}"), "token_type": "Bearer", "expires_in": life,
                "refresh_token": format!("r{number}")}))
        }
        "/deep/.well-known/openid-configuration" => {
            let host = seen.header("host");
            ok(
                &json!({"issuer": format!("http://{host}"), "token_endpoint": format!("http://{host}/deep/token")}),
            )
        }
        "/thing" if seen.header("authorization") == refused => status(401, &json!({})),
        _ => ok(&json!({"shown": seen.header("authorization")})),
    }
}

#[tokio::test]
async fn a_token_is_had_once_and_shown_until_it_expires() {
    let peer = Peer::new(authority("", 3_600)).await;
    let access = "{ oauth2: { authority: PEER, grant: client_credentials, client: { id: 'a b', secret: '${ $secrets.login }', authentication: client_secret_basic }, scopes: [ read, write ], audiences: [ shop ] } }";
    let (_rig, ended) = run(&peer, json!({"login": "s:t"}), &thrice(access)).await;
    assert_eq!(ended.problem, None);
    let asked = peer.seen("/oauth2/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), format!("Basic {}", STANDARD.encode("a%20b:s%3At")));
    let form = json!({"grant_type": "client_credentials", "scope": "read write", "audience": "shop"});
    assert_eq!(Value::Object(asked[0].form()), form);
    let shown: Vec<String> =
        peer.seen("/thing").iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(shown, ["Bearer t0", "Bearer t0", "Bearer t0"]);
}

#[tokio::test]
async fn a_token_that_is_refused_is_had_again_once() {
    let peer = Peer::new(authority("Bearer t0", 3_600)).await;
    let access = "{ oauth2: { authority: PEER, grant: client_credentials, client: { id: a, secret: b }, request: { encoding: application/json } } }";
    let (_rig, ended) = run(&peer, json!({}), &thrice(access)).await;
    assert_eq!(ended.problem, None);
    let asked = peer.seen("/oauth2/token");
    assert_eq!(asked.len(), 2);
    let body = json!({"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"});
    assert_eq!(asked[0].json(), body);
    assert_eq!(peer.seen("/thing").len(), 4);
}

#[tokio::test]
async fn a_token_that_expired_is_had_again_and_a_new_refresh_token_takes_the_place_of_the_old() {
    let peer = Peer::new(authority("", 0)).await;
    let access = "{ oauth2: { authority: PEER, grant: refresh_token, client: { id: a, authentication: none }, subject: { token: first, type: refresh } } }";
    let (_rig, ended) = run(&peer, json!({}), &thrice(access)).await;
    assert_eq!(ended.problem, None);
    let shown: Vec<Value> =
        peer.seen("/oauth2/token").iter().map(|seen| seen.form()["refresh_token"].clone()).collect();
    assert_eq!(shown, ["first", "r0", "r1"]);
}

#[tokio::test]
async fn an_authority_of_open_id_says_itself_where_tokens_are_had_and_a_secret_holds_all() {
    let peer = Peer::new(authority("", 3_600)).await;
    let secret = json!({
        "authority": format!("{}/deep/", peer.url), "grant": "urn:ietf:params:oauth:grant-type:token-exchange",
        "client": {"id": "a", "secret": "b"}, "subject": {"token": "mine", "type": "urn:t"},
        "actor": {"token": "other", "type": "urn:u"},
    });
    let (_rig, ended) =
        run(&peer, json!({"authority": secret}), &thrice("{ oidc: { use: authority } }")).await;
    assert_eq!(ended.problem, None);
    let asked = peer.seen("/deep/token");
    assert_eq!(asked.len(), 1);
    let form = asked[0].form();
    assert_eq!((&form["subject_token"], &form["actor_token_type"]), (&json!("mine"), &json!("urn:u")));
}

fn statement(seen: &Seen) -> (String, Vec<u8>, Value, Value) {
    let form = seen.form();
    let token = form["client_assertion"].as_str().unwrap().to_owned();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let read = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    (signed.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap(), read(head), read(claims))
}

#[tokio::test]
async fn a_client_says_who_it_is_by_a_signed_statement() {
    let peer = Peer::new(authority("", 3_600)).await;
    let access = |way: &str| {
        format!(
            "{{ oauth2: {{ authority: PEER, grant: client_credentials, client: {{ id: me, secret: '${{ $secrets.login }}', authentication: {way} }} }} }}"
        )
    };
    let (_rig, ended) = run(&peer, json!({"login": "shared"}), &thrice(&access("client_secret_jwt"))).await;
    assert_eq!(ended.problem, None);
    let (signed, signature, head, claims) = statement(&peer.seen("/oauth2/token")[0]);
    assert_eq!(head["alg"], "HS256");
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&json!("me"), &json!(format!("{}/oauth2/token", peer.url)))
    );
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, b"shared"), signed.as_bytes(), &signature).unwrap();

    let random = rand::SystemRandom::new();
    let key = signature::EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        .unwrap();
    let pair = signature::EcdsaKeyPair::from_pkcs8(
        &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        key.as_ref(),
        &random,
    )
    .unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(key.as_ref())
    );
    let (_rig, ended) = run(&peer, json!({"login": pem}), &thrice(&access("private_key_jwt"))).await;
    assert_eq!(ended.problem, None);
    let (signed, signature, head, _) = statement(&peer.seen("/oauth2/token")[1]);
    assert_eq!(head["alg"], "ES256");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref())
        .verify(signed.as_bytes(), &signature)
        .unwrap();
    let (_rig, ended) = run(&peer, json!({"login": "no key"}), &thrice(&access("private_key_jwt"))).await;
    assert_eq!(kind(&ended), "configuration");
}

#[tokio::test]
async fn an_rsa_key_signs_too() {
    let pem = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl is installed");
    let pem = String::from_utf8(pem.stdout).unwrap();
    let peer = Peer::new(authority("", 3_600)).await;
    let access = "{ oauth2: { authority: PEER, grant: client_credentials, client: { id: me, secret: '${ $secrets.login }', authentication: private_key_jwt } } }";
    let (_rig, ended) = run(&peer, json!({"login": pem}), &thrice(access)).await;
    assert_eq!(ended.problem, None);
    let (_, signature, head, _) = statement(&peer.seen("/oauth2/token")[0]);
    assert_eq!((head["alg"].as_str(), signature.len()), (Some("RS256"), 256));
}

#[tokio::test]
async fn what_an_authority_refuses_or_gives_wrongly_is_a_problem_of_the_task() {
    let access = "{ oauth2: { authority: PEER, grant: client_credentials, client: { id: a, secret: top-secret }, issuers: [ 'http://right' ] } }";
    let issued = |issuer: &str| {
        let claims = URL_SAFE_NO_PAD.encode(json!({"iss": issuer}).to_string());
        json!({"access_token": format!("e30.{claims}.x")})
    };
    let cases: Vec<(Response<Bytes>, &str, u16, &str)> = vec![
        (
            status(400, &json!({"error": "invalid_client", "error_description": "who?"})),
            "authentication",
            401,
            "invalid_client: who?",
        ),
        (status(503, &json!({})), "communication", 503, "503"),
        (Response::new(Bytes::from_static(b"<html>")), "authentication", 401, "JSON object"),
        (ok(&json!({"token": "x"})), "authentication", 401, "no `access_token`"),
        (ok(&json!({"access_token": "x", "token_type": "mac"})), "authentication", 401, "`mac`"),
        (ok(&json!({"access_token": "opaque"})), "authentication", 401, "nobody that it names"),
        (ok(&issued("http://wrong")), "authentication", 401, "http://wrong"),
        (ok(&json!({"access_token": "a\r\nb: c", "token_type": "Bearer"})), "authentication", 401, ""),
    ];
    for (answer, wanted, number, says) in cases {
        let peer = Peer::new(move |seen, _| match seen.path.as_str() {
            "/oauth2/token" => answer.clone(),
            _ => ok(&json!({})),
        })
        .await;
        let (_rig, ended) = run(&peer, json!({}), &thrice(access)).await;
        let problem = ended.problem.clone().unwrap();
        assert_eq!((kind(&ended), problem.status), (wanted, number), "{problem:?}");
        let detail = problem.detail.unwrap();
        assert!(detail.contains(says) && !detail.contains("top-secret"), "{detail}");
    }
    let right = issued("http://right");
    let peer = Peer::new(move |_, _| ok(&right)).await;
    assert_eq!(run(&peer, json!({}), &thrice(access)).await.1.status, Status::Completed);
}

#[tokio::test]
async fn no_secret_reaches_the_journal() {
    let peer = Peer::new(authority("", 3_600)).await;
    let access = "{ oauth2: { authority: PEER, grant: client_credentials, client: { id: a, secret: '${ $secrets.login }' } } }";
    let (rig, ended) = run(&peer, json!({"login": "top-secret"}), &thrice(access)).await;
    let records = format!("{:?}", rig.engine.show(ended.id).await.unwrap().records);
    assert!(!records.contains("top-secret") && !records.contains("Bearer t0\" }"), "{records}");
}

#[tokio::test]
async fn an_authority_that_does_not_answer_costs_the_task_its_time_and_nobody_elses() {
    let listener = standfast_runtime::Net::real().listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let peer = Peer::new(authority("", 3_600)).await;
    let text = thrice(&format!(
        "{{ oauth2: {{ authority: '{silent}', grant: client_credentials, client: {{ id: a, secret: b }} }} }}"
    ))
    .replace("        - ask:\n", "        - ask:\n            timeout: { after: { milliseconds: 300 } }\n");
    let clock = Clock::system();
    let begun = clock.now();
    let (_rig, ended) = run(&peer, json!({}), &text).await;
    assert_eq!((kind(&ended), ended.problem.as_ref().unwrap().status), ("timeout", 408));
    assert!(clock.now().since(begun) < Duration::from_secs(20));
}
