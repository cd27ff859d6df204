//! Token exchange: a token that is bound to a key does not become one that is not.

use super::*;
use crate::edge::assertion_grants::scene_with;
use crate::edge::exchange::{ACCESS, GRANT};

#[test]
fn d7_a_bound_token_is_exchanged_with_a_proof_alone_and_what_comes_of_it_is_bound_to_that_key() {
    let rules = "\"client_credentials\", \"token-exchange\"]\nexchange = { as = [\"api\"], to = [\"ledger\"] }";
    let route = "[[routes]]\npath = \"/ledger/{*rest}\"\naudiences = [\"ledger\"]\nupstream = \"app\"\n";
    let clients =
        CLIENTS.replace("\"client_credentials\"]", rules).replacen("[[routes]]", &format!("{route}[[routes]]"), 1);
    let edge = edge_on(&format!("{HEAD}{clients}\n[dpop]\n"));
    let (user, service, thief) = (Holder::new(1), Holder::new(2), Holder::new(3));
    let exchange = |subject: &str, headers: &[&str]| {
        let fields = [
            ("grant_type", GRANT),
            ("client_id", "service"),
            ("client_secret", SECRET),
            ("subject_token", subject),
            ("subject_token_type", ACCESS),
        ];
        edge.form("/connect/token", headers, &fields)
    };
    let bound = field(&log_in(&edge, "bound", &[&user.for_tokens()]), "access_token");
    let refused = exchange(&bound, &[]);
    assert_eq!((refused.status, &*refused.error()), (400, "invalid_request"), "a bearer token would be a downgrade");
    let reply = exchange(&bound, &[&service.for_tokens()]);
    assert_eq!(field(&reply, "token_type"), "DPoP");
    let token = field(&reply, "access_token");
    assert_eq!(claims(&token)["cnf"], json!({ "jkt": service.thumbprint() }));
    assert_eq!(ask(&edge, "/ledger/x", &token, &service.for_path("/ledger/x", &token)).status, 200);
    assert_eq!(ask(&edge, "/ledger/x", &token, &thief.for_path("/ledger/x", &token)).status, 401);
    assert_eq!(edge.ask_as(&token, "GET /ledger/x", &[]).status, 401);
    // A bearer token stays one, or is bound: both are no less.
    let plain = field(&log_in(&edge, "web", &[]), "access_token");
    assert_eq!(field(&exchange(&plain, &[]), "token_type"), "Bearer");
    assert_eq!(field(&exchange(&plain, &[&service.for_tokens()]), "token_type"), "DPoP");
}

#[test]
fn d18_an_assertion_for_a_key_is_granted_with_its_proof_alone_and_the_token_is_bound_to_the_key() {
    let scene = scene_with(|config| format!("{config}\n[dpop]\n"));
    let (user, thief) = (Holder::new(4), Holder::new(5));
    let assertion = || scene.signed(&json!({ "client_id": "bound", "cnf": { "jkt": user.thumbprint() } }));
    for headers in [&[][..], &[&*thief.for_tokens()]] {
        let refused = scene.present_with("bound", &assertion(), headers, &[]);
        assert_eq!((refused.status, &*refused.error()), (400, "invalid_grant"), "{headers:?}");
    }
    let reply = scene.present_with("bound", &assertion(), &[&user.for_tokens()], &[]);
    assert_eq!(field(&reply, "token_type"), "DPoP");
    let token = field(&reply, "access_token");
    assert_eq!(claims(&token)["cnf"], json!({ "jkt": user.thumbprint() }));
    assert_eq!(ask(&scene.edge, "/x", &token, &user.for_path("/x", &token)).status, 200);
    assert_eq!(ask(&scene.edge, "/x", &token, &thief.for_path("/x", &token)).status, 401);
    assert_eq!(scene.edge.ask_as(&token, "GET /x", &[]).status, 401);
}
