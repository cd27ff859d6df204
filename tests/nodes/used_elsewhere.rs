//! What is used at one gate is used at every gate of the store.

use serde_json::json;
use support::Place;

use super::fleet::{Fleet, GATES};
use super::servers::Servers;
use crate::edge::issuer::{Issuer, claims};

const CLIENT: &str = r#"
[[clients]]
id = "orders"
auth = "private_key_jwt"
keys = { jwks_file = "orders.json" }
grants = ["client_credentials"]
"#;

async fn once_at_all_gates(servers: Servers) {
    let orders = Issuer::new(41);
    let keys = json!({ "keys": [orders.jwk("k1")] }).to_string();
    let files = |place: &Place| std::fs::write(place.path("orders.json"), &keys).unwrap();
    let mut fleet = Fleet::start_with(servers, "grace = \"10s\"", CLIENT, files).await;
    let assertion = |id: &str| {
        let said = json!({ "iss": "orders", "sub": "orders", "aud": "http://gate.test", "jti": id, "scope": null, "client_id": null });
        orders.sign(&json!({ "alg": "EdDSA", "kid": "k1" }), &claims(&said))
    };
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let status = async |fleet: &Fleet, gate: usize, assertion: &str| {
        let fields =
            [("grant_type", "client_credentials"), ("client_assertion_type", kind), ("client_assertion", assertion)];
        fleet.gate(gate).form("/connect/token", &fields).await.status.as_u16()
    };
    // At all gates at once: one of them takes it.
    let one = assertion("one");
    let at_once = futures_util::future::join_all((0..GATES).map(|gate| status(&fleet, gate, &one))).await;
    assert_eq!(at_once.iter().filter(|status| **status == 200).count(), 1, "{at_once:?}");
    assert!(at_once.iter().all(|status| matches!(status, 200 | 400)), "{at_once:?}");
    // The gate that took it is gone at once.
    let two = assertion("two");
    assert_eq!(status(&fleet, 0, &two).await, 200);
    fleet.kill(0);
    for gate in 1..GATES {
        assert_eq!(status(&fleet, gate, &two).await, 400);
        assert_eq!(status(&fleet, gate, &assertion(&format!("gate {gate}"))).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d26_an_assertion_is_used_once_at_all_gates_on_redis() {
    once_at_all_gates(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d26_an_assertion_is_used_once_at_all_gates_on_postgresql() {
    once_at_all_gates(Servers::postgres()).await;
}
