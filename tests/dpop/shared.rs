//! Proofs at gates that share a store in Redis.

use support::Gate;
use support::redis::Redis;
use support::wire::Wire;

use super::*;

/// Asks one of the gates.
fn ask_at(gate: &Gate, path: &str, token: &str, proof: &str) -> Reply {
    let mut wire = Wire::open(gate.address);
    wire.head(&format!("GET {path}"), &["Host: gate.test", &format!("Authorization: DPoP {token}"), proof]);
    wire.reply()
}

fn log_in_at(gate: &Gate, proof: &str) -> Reply {
    let fields =
        [("client_id", "strict"), ("grant_type", "password"), ("username", "demo"), ("password", &gate.password)];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let length = format!("Content-Length: {}", body.len());
    let mut wire = Wire::open(gate.address);
    let form = "Content-Type: application/x-www-form-urlencoded";
    wire.head("POST /connect/token", &["Host: gate.test", form, &length, proof]);
    wire.send(body);
    let reply = wire.reply();
    if reply.status == 200 {
        ["access_token", "refresh_token"]
            .iter()
            .filter_map(|name| reply.json()[name].as_str().map(keep_secret))
            .count();
    }
    reply
}

#[test]
fn j25_j26_a_proof_counts_once_at_two_gates_on_redis_and_not_while_it_is_away() {
    let mut server = Redis::start(&[]);
    let store = format!("kind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\nstaleness = \"60s\"", server.port);
    let edge = edge_on(&format!("{}{CLIENTS}\n[dpop]\n", HEAD.replace("kind = \"memory\"", &store)));
    let (a, b, holder) = (&edge.gate, edge.place.start(), Holder::new(1));
    let captured = holder.for_tokens();
    let access = field(&log_in_at(a, &captured), "access_token");
    for gate in [&b, a] {
        let refused = log_in_at(gate, &captured);
        assert_eq!((refused.status, refused.error().as_str()), (400, "invalid_dpop_proof"));
    }
    assert_eq!(log_in_at(&b, &holder.for_tokens()).status, 200);
    let fresh = || holder.for_path("/x", &access);
    let captured = fresh();
    let asked = [a, &b, a].map(|gate| ask_at(gate, "/x", &access, &captured).status);
    assert_eq!(asked, [200, 401, 401]);
    assert_eq!([a, &b].map(|gate| ask_at(gate, "/x", &access, &fresh()).status), [200, 200]);
    assert_eq!(edge.stub.take().len(), 3);
    server.kill();
    let unknown = ask_at(&b, "/x", &access, &fresh());
    assert!(unknown.status == 503 && !unknown.all("retry-after").is_empty(), "{unknown:?}");
    assert!(b.log().contains("proofs_unavailable"));
    assert!(edge.stub.take().is_empty());
}
