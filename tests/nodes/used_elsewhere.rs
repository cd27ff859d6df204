//! A proof or an assertion that is used at one gate is used at every gate of the store.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::{Place, until};

use super::fleet::{Fleet, GATES};
use super::servers::Servers;
use crate::edge::issuer::{Issuer, claims};

const CLIENT: &str = r#"
[[clients]]
id = "orders"
keys = { jwks_file = "orders.json" }
grants = ["client_credentials"]
[[issuers]]
name = "ci"
url = "https://ci.test/"
audience = ["unused"]
jwks_file = "orders.json"
jwt_bearer = { subjects = ["repo:acme/app"], as_client = "deploy" }
[[clients]]
id = "deploy"
grants = ["jwt-bearer"]
"#;

/// So many assertions of each kind are presented, some at the same time.
const MANY: usize = 48;
const AT_ONCE: usize = 8;

async fn once_at_all_gates(servers: Servers) {
    let orders = Issuer::new(41);
    let keys = json!({ "keys": [orders.jwk("k1")] }).to_string();
    let files = |place: &Place| std::fs::write(place.path("orders.json"), &keys).unwrap();
    let mut fleet = Fleet::start_with(servers, "grace = \"10s\"", CLIENT, files).await;
    let signed = |iss: &str, sub: &str, id: &str| {
        let said =
            json!({ "iss": iss, "sub": sub, "aud": "http://gate.test", "jti": id, "scope": null, "client_id": null });
        orders.sign(&json!({ "alg": "EdDSA", "kid": "k1" }), &claims(&said))
    };
    // The fields of a request with a new assertion: one authenticates a client, the other is a grant.
    let of_client = |id: &str| {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let assertion = signed("orders", "orders", id);
        vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_assertion_type", kind.to_owned()),
            ("client_assertion", assertion),
        ]
    };
    let grant = |id: &str| {
        let kind = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        vec![("grant_type", kind.to_owned()), ("assertion", signed("https://ci.test/", "repo:acme/app", id))]
    };
    let status = async |fleet: &Fleet, gate: usize, fields: &[(&str, String)]| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fleet.gate(gate).form("/connect/token", &fields).await.status.as_u16()
    };
    // At all gates at once, beside others: one gate accepts it.
    let present = async |fields: Vec<(&str, String)>| {
        let at_once = futures_util::future::join_all((0..GATES).map(|gate| status(&fleet, gate, &fields))).await;
        assert_eq!(at_once.iter().filter(|status| **status == 200).count(), 1, "{at_once:?}");
        assert!(at_once.iter().all(|status| matches!(status, 200 | 400)), "{at_once:?}");
    };
    let all = (0..MANY).flat_map(|n| [of_client(&format!("many-{n}")), grant(&format!("many-{n}"))]);
    futures_util::stream::iter(all.map(present)).buffer_unordered(AT_ONCE).for_each(async |()| {}).await;
    // The gate that took them is gone at once.
    let used = [of_client("last"), grant("last")];
    for fields in &used {
        assert_eq!(status(&fleet, 0, fields).await, 200);
    }
    fleet.kill(0);
    for gate in 1..GATES {
        for fields in &used {
            assert_eq!(status(&fleet, gate, fields).await, 400);
        }
        for fields in [of_client(&format!("gate {gate}")), grant(&format!("gate {gate}"))] {
            assert_eq!(status(&fleet, gate, &fields).await, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d22_d26_an_assertion_is_used_once_at_all_gates_on_redis() {
    once_at_all_gates(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d22_d26_an_assertion_is_used_once_at_all_gates_on_postgresql() {
    once_at_all_gates(Servers::postgres()).await;
}

const JAG: &str = r#"
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["unused"]
jwks_file = "orders.json"
subject_prefix = "idp|"
id_jag = { clients = ["wiki"] }
backchannel_logout = { path = "/logout/idp", audience = ["our-client"] }
[[clients]]
id = "wiki"
keys = { jwks_file = "orders.json" }
grants = ["jwt-bearer"]
"#;

/// The session of a token.
fn session(token: &str) -> String {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let said: Value = serde_json::from_slice(&payload).unwrap();
    said["sid"].as_str().unwrap().to_owned()
}

async fn one_session_at_all_gates(servers: Servers) {
    let idp = Issuer::new(42);
    let keys = json!({ "keys": [idp.jwk("k1")] }).to_string();
    let files = |place: &Place| std::fs::write(place.path("orders.json"), &keys).unwrap();
    let mut fleet = Fleet::start_with(servers, "grace = \"10s\"", JAG, files).await;
    let signed = |typ: &str, said: Value| idp.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": typ }), &claims(&said));
    let present = async |fleet: &Fleet, gate: usize, assertion: &str| {
        let own = json!({ "iss": "wiki", "sub": "wiki", "aud": "http://gate.test", "jti": uuid::Uuid::new_v4(), "scope": null });
        let (own, kind) = (signed("JWT", own), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion),
            ("client_assertion_type", kind),
            ("client_assertion", &own),
        ];
        let answer = fleet.gate(gate).form("/connect/token", &fields).await;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        said["access_token"].as_str().map(str::to_owned).ok_or(answer.status.as_u16())
    };
    let now = claims(&json!({}))["iat"].as_u64().unwrap();
    let jag = |id: &str, sid: &str| {
        let said = json!({ "aud": "http://gate.test", "client_id": "wiki", "jti": id, "sid": sid, "iat": now - 20 });
        signed("oauth-id-jag+jwt", said)
    };
    let (one, other) = (jag("one", "s-1"), jag("two", "s-2"));
    let at_once = futures_util::future::join_all((0..GATES).map(|gate| present(&fleet, gate, &one))).await;
    let tokens: Vec<String> = at_once.into_iter().map(Result::unwrap).collect();
    let sessions: BTreeSet<_> = tokens.iter().map(|token| session(token)).collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    // Many at the same time: each has one session, and its own.
    let many = (0..MANY).map(|n| jag(&format!("many-{n}"), &format!("many-{n}")));
    let many = many.map(async |one| {
        let at_once = futures_util::future::join_all((0..GATES).map(|gate| present(&fleet, gate, &one))).await;
        let of_one: BTreeSet<_> = at_once.into_iter().map(|token| session(&token.unwrap())).collect();
        assert_eq!(of_one.len(), 1, "{of_one:?}");
        of_one.into_iter().next().unwrap()
    });
    let many: BTreeSet<_> = futures_util::stream::iter(many).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(many.len(), MANY);
    let goes_on = present(&fleet, 1, &other).await.unwrap();
    for gate in 0..GATES {
        for token in &tokens {
            assert_eq!(fleet.gate(gate).get("/data", token).await.status, 200);
        }
    }
    let told = json!({
        "aud": "our-client", "iat": now, "jti": "l-1", "sid": "s-1", "sub": null, "scope": null, "client_id": null,
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let told = signed("logout+jwt", told);
    assert_eq!(fleet.gate(0).form("/logout/idp", &[("logout_token", &told)]).await.status, 200);
    // The gate that acknowledged it is gone at once.
    fleet.kill(0);
    for gate in 1..GATES {
        until("the end is heard of", async || fleet.gate(gate).get("/data", &tokens[1]).await.status == 401).await;
        assert_eq!(present(&fleet, gate, &one).await, Err(400), "it is never revived");
        assert_eq!(fleet.gate(gate).get("/data", &goes_on).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d19_d20_d21_an_assertion_has_one_session_at_all_gates_on_redis() {
    one_session_at_all_gates(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d19_d20_d21_an_assertion_has_one_session_at_all_gates_on_postgresql() {
    one_session_at_all_gates(Servers::postgres()).await;
}
