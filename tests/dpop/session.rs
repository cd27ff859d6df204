//! The token endpoint: what a login binds, and what a refresh needs.

use serde_json::json;
use support::stub::HEAD;

use super::*;

#[test]
fn n30_n36_n40_a_login_binds_its_tokens_and_a_refresh_keeps_the_key() {
    let (edge, holder) = (edge(), Holder::new(1));
    let first = log_in(&edge, "bound", &[&holder.for_tokens()]);
    assert_eq!(field(&first, "token_type"), "DPoP");
    let (access, credential) = (field(&first, "access_token"), field(&first, "refresh_token"));
    assert_eq!(claims(&access)["cnf"], json!({ "jkt": holder.thumbprint() }));
    assert_eq!(ask(&edge, "/x", &access, &holder.for_path("/x", &access)).status, 200);

    let second = refresh(&edge, "bound", &[&holder.for_tokens()], &credential);
    let pair = (field(&second, "access_token"), field(&second, "refresh_token"));
    assert_eq!(claims(&pair.0)["cnf"]["jkt"], holder.thumbprint());
    // The reply was lost: the identical pair, for this key, with a proof of its own.
    let again = refresh(&edge, "bound", &[&holder.for_tokens()], &credential);
    assert_eq!((field(&again, "access_token"), field(&again, "refresh_token")), pair);
    for other in [&[][..], &[&*Holder::new(2).for_tokens()]] {
        assert_eq!(refresh(&edge, "bound", other, &credential).status, 400);
    }
    // Without a proof such a client is a bearer, as before.
    let plain = log_in(&edge, "bound", &[]);
    assert_eq!(field(&plain, "token_type"), "Bearer");
    assert_eq!(claims(&field(&plain, "access_token")).get("cnf"), None);
    // A client that has to do without proofs ignores them, good or bad.
    for header in [holder.for_tokens(), "DPoP: x".to_owned()] {
        assert_eq!(field(&log_in(&edge, "web", &[&header]), "token_type"), "Bearer");
    }
    assert!(!edge.gate.log().contains(&access) && !edge.gate.log().contains("dpop+jwt"));
}

#[test]
fn n34_the_token_endpoint_says_what_is_wrong_in_the_words_of_rfc_9449() {
    let (edge, holder) = (edge(), Holder::new(1));
    let wrong = |changes: &Value| holder.proof("POST", TOKEN_URL, None, changes);
    for header in [
        "DPoP: x".to_owned(),
        wrong(&json!({ "htm": "GET" })),
        wrong(&json!({ "htu": "http://gate.test/other" })),
        wrong(&json!({ "htu": "https://gate.test/connect/token" })),
        wrong(&json!({ "iat": 1 })),
        wrong(&json!({ "jti": "" })),
    ] {
        for client in ["bound", "strict", "service"] {
            let reply = log_in(&edge, client, &[&header]);
            assert_eq!((reply.status, &*reply.error()), (400, "invalid_dpop_proof"), "{client}: {reply:?}");
        }
    }
    let missing = log_in(&edge, "strict", &[]);
    assert_eq!((missing.status, &*missing.error()), (400, "invalid_dpop_proof"));
    let used = holder.for_tokens();
    assert_eq!(log_in(&edge, "strict", &[&used]).status, 200);
    let again = log_in(&edge, "strict", &[&used]);
    assert_eq!((again.status, &*again.error()), (400, "invalid_dpop_proof"));
    // A proof that came with a wrong password is not used up: strangers fill no memory.
    let fresh = holder.for_tokens();
    let guess = [("grant_type", "password"), ("username", "demo"), ("password", "wrong")];
    assert_eq!(token(&edge, "strict", &[&fresh], &guess).error(), "invalid_grant");
    assert_eq!(log_in(&edge, "strict", &[&fresh]).status, 200);
}

#[test]
fn n35_n37_without_the_key_a_refresh_token_is_worth_nothing_and_harms_nobody() {
    let config =
        support::with(&format!("{HEAD}{CLIENTS}"), "sessions", "grace = \"0s\"\nlost_response_window = \"0s\"");
    let (edge, holder, thief) = (edge_on(&config), Holder::new(1), Holder::new(2));
    let first = field(&log_in(&edge, "bound", &[&holder.for_tokens()]), "refresh_token");
    let harmless = |credential: &str| {
        let reply = refresh(&edge, "bound", &[], credential);
        assert_eq!((reply.status, &*reply.error()), (400, "invalid_dpop_proof"));
        let reply = refresh(&edge, "bound", &[&thief.for_tokens()], credential);
        assert_eq!((reply.status, &*reply.error()), (400, "invalid_grant"));
        // Another client's id neither: that would end the session.
        let reply = refresh(&edge, "web", &[], credential);
        assert_eq!(reply.status, 400);
        let reply = refresh(&edge, "service", &[&thief.for_tokens()], credential);
        assert_eq!(reply.status, 400);
    };
    harmless(&first);
    let second = field(&refresh(&edge, "bound", &[&holder.for_tokens()], &first), "refresh_token");
    // Superseded, it would end the session, if the thief had the key.
    harmless(&first);
    // The same proof twice: the second request changes nothing, and a fresh proof refreshes the session.
    let used = holder.for_tokens();
    let third = field(&refresh(&edge, "bound", &[&used], &second), "refresh_token");
    assert_eq!(refresh(&edge, "bound", &[&used], &third).error(), "invalid_dpop_proof");
    let fourth = refresh(&edge, "bound", &[&holder.for_tokens()], &third);
    assert_eq!(field(&fourth, "token_type"), "DPoP");
    // With the key, the superseded one is a reuse.
    assert_eq!(refresh(&edge, "bound", &[&holder.for_tokens()], &first).error(), "invalid_grant");
    let after = refresh(&edge, "bound", &[&holder.for_tokens()], &field(&fourth, "refresh_token"));
    assert_eq!(after.error(), "invalid_grant", "the reuse ended the session");
}

#[test]
fn n37_a_session_stays_bound_or_unbound_as_it_began() {
    let (edge, holder) = (edge(), Holder::new(1));
    let plain = field(&log_in(&edge, "bound", &[]), "refresh_token");
    let next = refresh(&edge, "bound", &[&holder.for_tokens()], &plain);
    assert_eq!(field(&next, "token_type"), "Bearer", "a proof makes no half-bound session");
    assert_eq!(refresh(&edge, "bound", &["DPoP: x"], &field(&next, "refresh_token")).error(), "invalid_dpop_proof");
    assert_eq!(refresh(&edge, "bound", &[], &field(&next, "refresh_token")).status, 200);
    // A confidential client may change its key, and never do without.
    let (one, two) = (Holder::new(3), Holder::new(4));
    let begun = log_in(&edge, "service", &[&one.for_tokens()]);
    let changed = refresh(&edge, "service", &[&two.for_tokens()], &field(&begun, "refresh_token"));
    assert_eq!(claims(&field(&changed, "access_token"))["cnf"]["jkt"], two.thumbprint());
    let replayed = refresh(&edge, "service", &[&one.for_tokens()], &field(&begun, "refresh_token"));
    assert_eq!(replayed.error(), "invalid_grant", "that pair has another key");
    let without = refresh(&edge, "service", &[], &field(&changed, "refresh_token"));
    assert_eq!(without.error(), "invalid_dpop_proof");
    // The client's own token is bound, too.
    let own = token(&edge, "service", &[&one.for_tokens()], &[("grant_type", "client_credentials")]);
    assert_eq!(claims(&field(&own, "access_token"))["cnf"]["jkt"], one.thumbprint());
    assert_eq!(field(&own, "token_type"), "DPoP");
}

#[test]
fn n37_a_bound_session_is_bound_after_a_restart_and_without_the_setting() {
    let config = format!("{HEAD}{CLIENTS}").replace("kind = \"memory\"", "path = \"sessions.redb\"");
    let (mut edge, holder) = (edge_on(&config), Holder::new(1));
    let mut last = field(&log_in(&edge, "bound", &[&holder.for_tokens()]), "refresh_token");
    let written = std::fs::read_to_string(edge.place.path("gateway.toml")).unwrap();
    for config in [written.clone(), written.replacen("dpop = \"optional\"", "dpop = \"off\"", 1)] {
        edge.gate.kill();
        edge.place.write_config(&config);
        edge.gate = edge.place.start();
        assert_eq!(refresh(&edge, "bound", &[], &last).error(), "invalid_dpop_proof");
        let next = refresh(&edge, "bound", &[&holder.for_tokens()], &last);
        assert_eq!(field(&next, "token_type"), "DPoP");
        last = field(&next, "refresh_token");
    }
}

#[test]
fn n38_revocation_and_introspection_take_no_proof() {
    let (edge, holder) = (edge(), Holder::new(1));
    let tokens = log_in(&edge, "bound", &[&holder.for_tokens()]);
    let (access, credential) = (field(&tokens, "access_token"), field(&tokens, "refresh_token"));
    let as_service = [("client_id", "service"), ("client_secret", SECRET)];
    let introspect =
        || edge.form("/connect/introspect", &[], &[&as_service[..], &[("token", &access)]].concat()).json();
    let said = introspect();
    assert_eq!((&said["active"], &said["token_type"]), (&json!(true), &json!("DPoP")));
    assert_eq!(said["cnf"], json!({ "jkt": holder.thumbprint() }));
    let revoked = edge.form("/connect/revocation", &[], &[("client_id", "bound"), ("token", &credential)]);
    assert_eq!(revoked.status, 200);
    assert_eq!(introspect(), json!({ "active": false }));
    assert_eq!(ask(&edge, "/x", &access, &holder.for_path("/x", &access)).status, 401);
    assert_eq!(refresh(&edge, "bound", &[&holder.for_tokens()], &credential).error(), "invalid_grant");
}

#[test]
fn n33_a_kill_reopens_no_proof() {
    let (mut edge, holder) = (edge(), Holder::new(1));
    // Used in the second of the kill, or before it.
    let proof = holder.proof("POST", TOKEN_URL, None, &json!({ "iat": now() - 1 }));
    let before = log_in(&edge, "bound", &[&proof]);
    edge.gate.kill();
    edge.gate = edge.place.start();
    let after = log_in(&edge, "bound", &[&proof]);
    assert_eq!((after.status, &*after.error()), (400, "invalid_dpop_proof"), "before: {}", before.status);
    assert!(edge.gate.log().contains("proof_before_start"));
    assert_eq!(log_in(&edge, "bound", &[&holder.for_tokens()]).status, 200);
}
