//! A login's whole life on the real binary: call, refresh, replay, theft, revocation, and the same after a restart.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::Value;
use support::{Answer, CONFIG, Gate, Place, Tokens};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The time limit for waiting, sufficient on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_user_logs_in_calls_refreshes_and_is_refused_after_revocation() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let first = gate.login().await;

    let answer = gate.get("/hello?a=1", &first.access).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.echoed("x-auth-client"), ["web"]);
    assert_eq!(answer.echoed("x-auth-scope"), ["read write"]);
    assert_eq!(answer.echoed("authorization"), Vec::<String>::new());
    assert_eq!(answer.json()["query"], "a=1");

    let second = gate.refresh(&first.refresh).await.tokens();
    let again = gate.refresh(&first.refresh).await.tokens();
    assert_eq!(second, again, "a repeat at once gets the identical pair");
    assert_ne!(first, second);
    // Without revoke_previous_after, the first access token remains valid until it expires.
    assert_eq!(gate.get("/", &first.access).await.status, StatusCode::OK);

    assert_eq!(gate.revoke(&second.refresh).await.status, StatusCode::OK);
    for access in [&first.access, &second.access] {
        let answer = gate.get("/hello", access).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    }
    assert!(is_invalid_grant(&gate.refresh(&second.refresh).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_two_hundred_presentations_at_once_get_one_successor() {
    let place = Place::new(&with_sessions("grace = \"60s\""));
    let gate = Arc::new(place.start());
    let first = gate.login().await;
    let mut presentations = JoinSet::new();
    for _ in 0..200 {
        let (gate, token) = (Arc::clone(&gate), first.refresh.clone());
        presentations.spawn(async move { gate.refresh(&token).await });
    }
    let mut pairs = Vec::new();
    while let Some(answer) = presentations.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        pairs.push(answer.tokens());
    }
    let second = pairs.pop().unwrap();
    assert_ne!(second, first);
    assert!(pairs.len() == 199 && pairs.iter().all(|pair| *pair == second), "all get the same pair");
    assert_eq!(claims(&second)["gen"], 2, "one exchange took place");
    let third = gate.refresh(&second.refresh).await.tokens();
    assert_eq!((&claims(&third)["gen"], &claims(&third)["sid"]), (&Value::from(3), &claims(&first)["sid"]));
}

#[tokio::test]
async fn r4_a_token_that_comes_again_after_its_successor_was_used_ends_the_session() {
    let place = Place::new(&with_sessions("grace = \"1s\""));
    let gate = place.start();
    let first = gate.login().await;
    let second = gate.refresh(&first.refresh).await.tokens();
    assert_eq!(gate.get("/", &second.access).await.status, StatusCode::OK);
    let answer = present_until(&gate, &first, |answer| answer.status != StatusCode::OK, Some(&second)).await;
    assert!(is_invalid_grant(&answer), "{answer:?}");
    assert_over(&gate, &[&first, &second]).await;
}

#[tokio::test]
async fn r3_what_nobody_used_is_abandoned_when_its_predecessor_comes_again() {
    let place = Place::new(&with_sessions("grace = \"1s\""));
    let gate = place.start();
    let first = gate.login().await;
    let lost = gate.refresh(&first.refresh).await.tokens();
    let other = |answer: &Answer| answer.status != StatusCode::OK || answer.tokens() != lost;
    let answer = present_until(&gate, &first, other, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let found = answer.tokens();
    assert_eq!(gate.get("/", &lost.access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.get("/", &found.access).await.status, StatusCode::OK);
    assert!(is_invalid_grant(&gate.refresh(&lost.refresh).await));
    assert_over(&gate, &[&first, &lost, &found]).await;
}

#[tokio::test]
async fn r2_a_kill_keeps_what_was_acknowledged() {
    keeps_what_was_acknowledged(|mut gate| gate.kill()).await;
}

#[tokio::test]
async fn r2_a_restart_in_order_keeps_what_was_acknowledged() {
    keeps_what_was_acknowledged(|gate| assert_eq!(gate.stop(), Some(0))).await;
}

async fn keeps_what_was_acknowledged(end: impl Fn(Gate)) {
    let place = Place::new(&with_sessions("grace = \"60s\""));
    let gate = place.start();
    let first = gate.login().await;
    let second = gate.refresh(&first.refresh).await.tokens();
    let revoked = gate.login().await;
    assert_eq!(gate.revoke(&revoked.refresh).await.status, StatusCode::OK);
    end(gate);

    let gate = place.start();
    assert_over(&gate, &[&revoked]).await;
    assert_eq!(gate.get("/", &second.access).await.status, StatusCode::OK);
    assert_eq!(gate.refresh(&first.refresh).await.tokens(), second, "a replay gets the same pair after a restart, too");
    let third = gate.refresh(&second.refresh).await.tokens();
    assert_ne!(third, second);
    assert_eq!(gate.revoke(&third.access).await.status, StatusCode::OK);
    end(gate);

    let gate = place.start();
    assert_over(&gate, &[&revoked, &second, &third]).await;
}

#[tokio::test]
async fn tokens_are_signed_as_configured_and_others_can_verify_them_with_the_published_keys() {
    for (algorithm, kty) in [("EdDSA", Some("OKP")), ("ES256", Some("EC")), ("RS256", Some("RSA")), ("HS256", None)] {
        // Other gates accept an issuer's tokens only if its URL is https.
        let config = with_sessions("grace = \"60s\"").replace("http://gate.test", "https://gate.test");
        let place = Place::new(&support::with(&config, "issuer", &format!("algorithm = \"{algorithm}\"")));
        let gate = place.start();
        let first = gate.login().await;
        let header = part(&first.access, 0);
        assert_eq!((&header["alg"], &header["typ"]), (&Value::from(algorithm), &Value::from("at+jwt")));
        let second = gate.refresh(&first.refresh).await.tokens();
        let again = gate.refresh(&first.refresh).await.tokens();
        // ES256 signs with a random number: all but the signature is the same.
        assert_eq!((claims(&again), &again.refresh), (claims(&second), &second.refresh), "{algorithm}");
        assert_eq!(again == second, algorithm != "ES256", "{algorithm}");
        for access in [&first.access, &second.access, &again.access] {
            assert_eq!(gate.get("/", access).await.status, StatusCode::OK, "{algorithm}");
        }

        let published = gate.call(Method::GET, "/.well-known/jwks.json", &[], "").await;
        let keys = published.json()["keys"].as_array().unwrap().clone();
        let Some(kty) = kty else {
            assert_eq!(keys, Vec::<Value>::new(), "a shared secret is not published");
            continue;
        };
        assert_eq!(keys.len(), 1);
        for (name, value) in
            [("kty", kty), ("alg", algorithm), ("use", "sig"), ("kid", header["kid"].as_str().unwrap())]
        {
            assert_eq!(keys[0][name], value, "{algorithm}: {name}");
        }
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert_eq!(keys[0].get(private), None, "{algorithm}");
        }
        let key = DecodingKey::from_jwk(&serde_json::from_value(keys[0].clone()).unwrap()).unwrap();
        let mut rules = Validation::new(algorithm.parse().unwrap());
        rules.set_issuer(&["https://gate.test"]);
        rules.set_audience(&["api"]);
        jsonwebtoken::decode::<Value>(&second.access, &key, &rules).unwrap();

        // Another gate trusts the tokens by the same keys, and distinguishes them from its own.
        let other = Place::new(&format!(
            "{}\n[[issuers]]\nurl = \"https://gate.test\"\naudience = [\"api\"]\njwks_file = \"gate.jwks.json\"\neverywhere = true\n",
            CONFIG.replace("http://gate.test", "http://other.test")
        ));
        std::fs::write(other.path("gate.jwks.json"), &published.body).unwrap();
        let other = other.start();
        assert_eq!(other.get("/", &second.access).await.status, StatusCode::OK, "{algorithm}");
        let own = other.login().await;
        assert_eq!(
            gate.get("/", &own.access).await.status,
            StatusCode::UNAUTHORIZED,
            "{algorithm}: trust has a direction"
        );
        assert!(is_invalid_grant(&other.refresh(&second.refresh).await), "{algorithm}");
    }
}

#[tokio::test]
async fn a6_no_secret_is_logged_at_any_level_wherever_it_stands() {
    let place = Place::new(CONFIG);
    let gate = place.start_with(|command| {
        command.env("ROTOGATE_LOG", "trace");
    });
    let first = gate.login().await;
    let second = gate.refresh(&first.refresh).await.tokens();
    let (access, refresh, password) = (second.access.as_str(), second.refresh.as_str(), gate.password.as_str());
    gate.get("/", access).await;
    for token in [access, refresh, password] {
        let bearer = format!("Bearer {token}");
        let cookie = format!("session={token}");
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("web:{token}")));
        support::keep_secret(&basic["Basic ".len()..]);
        for path in ["/", "/public/", "/connect/token", "/Connect/Token", "/connect/revocation"] {
            let with_query = format!("{path}?access_token={token}");
            for method in [Method::GET, Method::POST, Method::TRACE] {
                for header in [("authorization", &bearer), ("authorization", &basic), ("cookie", &cookie)] {
                    gate.call(method.clone(), &with_query, &[(header.0, header.1)], "").await;
                }
                let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
                gate.call(method, path, &twice, &format!("{{\"token\": \"{token}\"}}")).await;
            }
        }
        for field in ["username", "password", "refresh_token", "scope", "client_id", "token", "grant_type"] {
            if (field, token) != ("username", password) {
                gate.form("/connect/token", &[("grant_type", "password"), (field, token)]).await;
            }
            gate.form("/connect/revocation", &[(field, token)]).await;
        }
        support::raw(gate.address, format!("GET / HTTP/1.1\r\nhost: {token}\r\nx y: {token}\r\n\r\n").as_bytes());
    }
    let log = gate.log.clone();
    let tokens = [first.access.clone(), first.refresh.clone(), second.access.clone(), second.refresh.clone()];
    let secrets = [tokens.as_slice(), std::slice::from_ref(&gate.password)].concat();
    assert_eq!(gate.stop(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("event.action=session.start ") && log.contains("TRACE"), "it logs");
    for (number, line) in log.lines().enumerate() {
        // A signature alone would identify a token, and a name of a client or a user is not a secret.
        let leak = secrets.iter().any(|secret| line.contains(secret.rsplit('.').next().unwrap()));
        assert!(!leak, "a secret in line {number}, which begins with {:?}", line.chars().take(60).collect::<String>());
    }
}

fn with_sessions(rules: &str) -> String {
    format!("{CONFIG}\n[sessions]\n{rules}\n")
}

/// Part of a JWT, read without checking it.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn claims(tokens: &Tokens) -> Value {
    part(&tokens.access, 1)
}

fn is_invalid_grant(answer: &Answer) -> bool {
    answer.status == StatusCode::BAD_REQUEST && answer.error() == "invalid_grant"
}

/// Presents a refresh token again and again, as replays do not extend grace, until the answer is another one.
async fn present_until(
    gate: &Gate,
    tokens: &Tokens,
    is_over: impl Fn(&Answer) -> bool,
    until_then: Option<&Tokens>,
) -> Answer {
    let waiting = async {
        loop {
            let answer = gate.refresh(&tokens.refresh).await;
            if is_over(&answer) {
                return answer;
            }
            if let Some(expected) = until_then {
                assert_eq!(answer.tokens(), *expected, "within grace");
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("grace ends")
}

/// No token of these sessions is valid any more.
async fn assert_over(gate: &Gate, pairs: &[&Tokens]) {
    for pair in pairs {
        assert_eq!(gate.get("/", &pair.access).await.status, StatusCode::UNAUTHORIZED);
        let answer = gate.refresh(&pair.refresh).await;
        assert!(is_invalid_grant(&answer), "{answer:?}");
    }
}
