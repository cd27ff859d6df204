//! An end by another issuer holds at every gate of the store.

use serde_json::{Value, json};
use support::{Place, until};

use super::fleet::{Fleet, GATES};
use super::servers::Servers;
use crate::edge::exchange::{ACCESS, GRANT};
use crate::edge::issuer::{Issuer, URL, claims};

const ISSUER: &str = r#"
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
everywhere = true
scopes = ["read"]
subject_prefix = "idp|"
backchannel_logout = { path = "/logout/idp", audience = ["our-client"] }
[[clients]]
id = "orders"
keys = { jwks_file = "idp.json" }
grants = ["token-exchange"]
exchange = { as = ["api"], to = ["billing"], issuers = ["self", "idp"] }
[[routes]]
path = "/billing/{*rest}"
audiences = ["billing"]
upstream = "app"
"#;

async fn every_gate_hears(servers: Servers) {
    let idp = Issuer::new(11);
    let keys = json!({ "keys": [idp.jwk("k1")] }).to_string();
    let files = |place: &Place| std::fs::write(place.path("idp.json"), keys).unwrap();
    let mut fleet = Fleet::start_with(servers, "grace = \"10s\"", ISSUER, files).await;
    let now = claims(&json!({}))["iat"].as_u64().unwrap();
    let token = |sid: &str, at: u64| idp.token(&json!({ "sid": sid, "jti": format!("t-{sid}-{at}"), "iat": at }));
    let (ended, other) = (token("s-1", now - 10), token("s-2", now - 10));
    for gate in 0..GATES {
        for token in [&ended, &other] {
            assert_eq!(fleet.gate(gate).get("/data", token).await.status, 200);
        }
    }
    let exchanged = async |fleet: &Fleet, gate: usize, subject: &str| {
        let own = json!({ "iss": "orders", "sub": "orders", "aud": "http://gate.test", "jti": uuid::Uuid::new_v4(), "scope": null });
        let own = idp.sign(&json!({ "alg": "EdDSA", "kid": "k1" }), &claims(&own));
        let fields = [
            ("grant_type", GRANT),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &own),
            ("subject_token", subject),
            ("subject_token_type", ACCESS),
        ];
        let answer = fleet.gate(gate).form("/connect/token", &fields).await;
        let said: Value = serde_json::from_slice(&answer.body).unwrap();
        said["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    // Each token at another gate than the gate that ends it.
    let held = fleet.gate(0).login().await;
    let (theirs, ours) = (exchanged(&fleet, 1, &ended).await, exchanged(&fleet, 2, &held.access).await);
    for gate in 0..GATES {
        for token in [&theirs, &ours] {
            assert_eq!(fleet.gate(gate).get("/billing/x", token).await.status, 200);
        }
    }
    let told = idp.sign(
        &json!({ "alg": "EdDSA", "typ": "logout+jwt", "kid": "k1" }),
        &json!({
            "iss": URL, "aud": "our-client", "iat": now, "exp": now + 120, "jti": "l-1", "sid": "s-1",
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        }),
    );
    assert_eq!(fleet.gate(0).form("/logout/idp", &[("logout_token", &told)]).await.status, 200);
    // The gate that acknowledged it is gone at once.
    fleet.kill(0);
    for gate in 1..GATES {
        let gate = fleet.gate(gate);
        until("the end is heard of", async || gate.get("/data", &ended).await.status == 401).await;
        // A token that this gate sees for the first time, and one of another session.
        assert_eq!(gate.get("/data", &token("s-1", now - 5)).await.status, 401);
        assert_eq!(gate.get("/data", &other).await.status, 200);
        assert_eq!(gate.get("/billing/x", &theirs).await.status, 401, "what was exchanged ends with it");
        assert_eq!(gate.get("/billing/x", &ours).await.status, 200);
    }
    assert_eq!(fleet.gate(1).revoke(&held.refresh).await.status, 200);
    assert_eq!(fleet.gate(1).get("/billing/x", &ours).await.status, 401);
    until("the end is heard of", async || fleet.gate(2).get("/billing/x", &ours).await.status == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_n51_n54_every_gate_on_redis_hears_what_another_issuer_ended() {
    every_gate_hears(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_n51_n54_every_gate_on_postgresql_hears_what_another_issuer_ended() {
    every_gate_hears(Servers::postgres()).await;
}
