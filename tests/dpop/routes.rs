//! Data routes: a bound token counts with a proof for this very request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::wire::Wire;

use super::*;
use crate::edge::issuer::{Issuer, claims as claims_of, header};

const ALGORITHMS: &str = "algs=\"ES256 EdDSA Ed25519 ES384 RS256 PS256\"";

fn bound(edge: &Edge, holder: &Holder) -> String {
    field(&log_in(edge, "bound", &[&holder.for_tokens()]), "access_token")
}

#[test]
fn n31_a_bound_token_is_no_bearer_token_and_an_unbound_one_has_no_key() {
    let (edge, holder) = (edge(), Holder::new(1));
    let (access, plain) = (bound(&edge, &holder), field(&log_in(&edge, "bound", &[]), "access_token"));
    let proof = || holder.for_path("/x", &access);
    let bearer = edge.ask_as(&access, "GET /x", &[&proof()]);
    assert_eq!(bearer.status, 401);
    let challenges = bearer.all("www-authenticate");
    assert!(challenges[0].starts_with("Bearer error=\"invalid_token\""), "{challenges:?}");
    assert_eq!(challenges[1], format!("DPoP {ALGORITHMS}"));
    let unbound = ask(&edge, "/x", &plain, &holder.for_path("/x", &plain));
    assert_eq!(unbound.status, 401);
    assert!(unbound.all("www-authenticate")[0].starts_with("DPoP error=\"invalid_token\""));
    let other = ask(&edge, "/x", &access, &Holder::new(2).for_path("/x", &access));
    assert!(other.all("www-authenticate")[0].starts_with("DPoP error=\"invalid_token\""), "{other:?}");
    // On a route for bound tokens alone, and where no token is needed.
    let only = edge.ask_as(&plain, "GET /bound/x", &[]);
    assert_eq!((only.status, only.all("www-authenticate").len()), (401, 1));
    assert!(only.header("www-authenticate").starts_with("DPoP error=\"invalid_token\""));
    assert_eq!(edge.ask("GET /bound/x", &[]).all("www-authenticate"), [format!("DPoP {ALGORITHMS}")]);
    assert_eq!(edge.ask("GET /x", &[]).all("www-authenticate"), ["Bearer".to_owned(), format!("DPoP {ALGORITHMS}")]);
    assert_eq!(edge.ask_as(&access, "GET /open/x", &[&proof()]).status, 401);
    // Neither a cookie nor the query carries one.
    for (line, cookie) in [
        ("GET /cookie/x", format!("Cookie: token={access}")),
        (&format!("GET /x?access_token={access}"), "A: b".to_owned()),
    ] {
        assert_eq!(edge.ask(line, &[&cookie, &proof()]).status, 401, "{line}");
    }
    assert!(edge.stub.take().is_empty(), "none of these arrived");
    assert_eq!(ask(&edge, "/bound/x", &access, &holder.for_path("/bound/x", &access)).status, 200);
    assert_eq!(ask(&edge, "/open/x", &access, &holder.for_path("/open/x", &access)).status, 200);
    assert_eq!(edge.ask_as(&plain, "GET /x", &[]).status, 200);
    let log = edge.gate.log();
    for reason in ["unproved_binding", "unbound_token", "other_key"] {
        assert!(log.contains(reason), "{reason}");
    }
}

#[test]
fn n30_n40_each_request_needs_a_proof_of_its_own_that_stays_here() {
    let (edge, holder) = (edge(), Holder::new(1));
    let access = bound(&edge, &holder);
    let wrong = |changes: Value| holder.proof("GET", "http://gate.test/x", Some(&access), &changes);
    let good = wrong(json!({}));
    assert_eq!(ask(&edge, "/x?query=1", &access, &good).status, 200);
    let arrived = edge.stub.one();
    assert!(arrived.all("dpop").is_empty() && arrived.all("authorization").is_empty(), "{arrived:?}");
    // The token is in the cache now. The proof is checked all the same.
    for (bad, reason) in [
        (good.clone(), "proof_replayed"),
        ("DPoP: x".to_owned(), "proof_malformed"),
        (wrong(json!({ "htm": "POST" })), "proof_wrong_method"),
        (wrong(json!({ "htu": "http://gate.test/y" })), "proof_wrong_url"),
        (wrong(json!({ "iat": now() - 3600 })), "proof_wrong_time"),
        (wrong(json!({ "ath": "x" })), "proof_wrong_token"),
        (wrong(json!({ "jti": 1 })), "proof_bad_id"),
        ("X: y".to_owned(), "proof_missing"),
    ] {
        let reply = ask(&edge, "/x", &access, &bad);
        assert_eq!(reply.status, 401, "{reason}");
        assert_eq!(reply.all("www-authenticate"), [format!("DPoP error=\"invalid_dpop_proof\", {ALGORITHMS}")]);
        assert!(edge.gate.log().contains(reason), "{reason}");
    }
    let two = [&*format!("Authorization: DPoP {access}"), &*wrong(json!({})), &*wrong(json!({}))];
    assert_eq!(edge.ask("GET /x", &two).status, 401);
    assert!(edge.stub.take().is_empty());
    // A route that forwards tokens forwards both as they are.
    let proof = holder.for_path("/forwarded/x", &access);
    assert_eq!(ask(&edge, "/forwarded/x", &access, &proof).status, 200);
    let arrived = edge.stub.one();
    assert_eq!(arrived.all("authorization"), [format!("DPoP {access}")]);
    assert_eq!(arrived.all("dpop"), [proof.strip_prefix("DPoP: ").unwrap()]);
}

#[test]
fn n32_of_thirty_two_uses_of_a_proof_at_once_one_passes() {
    let (edge, holder) = (Arc::new(edge()), Holder::new(1));
    let access = bound(&edge, &holder);
    let proof = holder.for_path("/x", &access);
    let (passed, barrier) = (AtomicUsize::new(0), std::sync::Barrier::new(32));
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                barrier.wait();
                match ask(&edge, "/x", &access, &proof).status {
                    200 => drop(passed.fetch_add(1, Ordering::SeqCst)),
                    status => assert_eq!(status, 401),
                }
            });
        }
    });
    assert_eq!((passed.into_inner(), edge.stub.take().len()), (1, 1));
}

#[test]
fn n33_the_memory_of_proofs_is_bounded_and_fails_closed() {
    let many = support::with(
        &format!("{HEAD}{CLIENTS}\n[dpop]\nfor_tests = {{ max_proofs = 1000 }}\n"),
        "limits",
        "login_per_address = \"1000/1s\"\nlogin_per_account = \"1000/1s\"\nfor_tests.login_per_client = \"1000/1s\"",
    );
    let (edge, holder) = (edge_on(&many), Holder::new(1));
    let access = bound(&edge, &holder);
    // The login's proof is one of the twenty that a key may have in a thousand.
    for _ in 0..19 {
        assert_eq!(ask(&edge, "/x", &access, &holder.for_path("/x", &access)).status, 200);
    }
    let beyond = ask(&edge, "/x", &access, &holder.for_path("/x", &access));
    assert_eq!((beyond.status, beyond.all("retry-after").len()), (429, 1));
    // Others are served all the same.
    let other = Holder::new(2);
    let theirs = bound(&edge, &other);
    assert_eq!(ask(&edge, "/x", &theirs, &other.for_path("/x", &theirs)).status, 200);
    // Bad proofs, and those of a wrong key, take no room.
    for _ in 0..50 {
        assert_eq!(ask(&edge, "/x", &theirs, &holder.for_path("/x", &theirs)).status, 401);
    }
    assert_eq!(ask(&edge, "/x", &theirs, &other.for_path("/x", &theirs)).status, 200);
    // More keys fill it. Then nobody gets in, and nothing is forgotten.
    let mut full = None;
    for seed in 3..=60 {
        let holder = Holder::new(seed);
        let begun = log_in(&edge, "bound", &[&holder.for_tokens()]);
        if begun.status == 503 {
            full = Some(begun);
            break;
        }
        let access = field(&begun, "access_token");
        for _ in 0..19 {
            let reply = ask(&edge, "/x", &access, &holder.for_path("/x", &access));
            if reply.status == 503 {
                full = Some(reply);
            }
        }
    }
    let full = full.expect("a thousand fit");
    assert_eq!(full.all("retry-after").len(), 1);
}

#[test]
fn n34_nonces_are_asked_for_and_renewed_in_the_words_of_rfc_9449() {
    let (edge, holder) = (edge_with("nonce = \"required\""), Holder::new(1));
    let nonce_of = |reply: &Reply| {
        assert_eq!((reply.all("dpop-nonce").len(), reply.all("cache-control")), (1, vec!["no-store"]), "{reply:?}");
        reply.header("dpop-nonce").to_owned()
    };
    let asked = log_in(&edge, "bound", &[&holder.for_tokens()]);
    assert_eq!((asked.status, &*asked.error()), (400, "use_dpop_nonce"));
    let nonce = nonce_of(&asked);
    let with = |nonce: &str| holder.proof("POST", TOKEN_URL, None, &json!({ "nonce": nonce }));
    assert_eq!(log_in(&edge, "bound", &[&with("made up")]).error(), "use_dpop_nonce");
    let access = field(&log_in(&edge, "bound", &[&with(&nonce)]), "access_token");
    let refused = ask(&edge, "/x", &access, &holder.for_path("/x", &access));
    assert_eq!(refused.status, 401);
    assert_eq!(refused.all("www-authenticate"), [format!("DPoP error=\"use_dpop_nonce\", {ALGORITHMS}")]);
    let nonce = nonce_of(&refused);
    let proof = holder.proof("GET", "http://gate.test/x", Some(&access), &json!({ "nonce": nonce }));
    let reply = ask(&edge, "/x", &access, &proof);
    assert_eq!((reply.status, reply.all("dpop-nonce").len()), (200, 0), "it is fresh");
    // A bearer needs none.
    let plain = field(&log_in(&edge, "bound", &[]), "access_token");
    assert_eq!(edge.ask_as(&plain, "GET /x", &[]).status, 200);
}

#[test]
fn n39_a_proof_is_for_the_url_that_the_client_sees() {
    let (edge, holder) = (edge(), Holder::new(1));
    let access = bound(&edge, &holder);
    let ask = |host: &str, path: &str, headers: &[&str], url: &str| {
        let mut wire = Wire::open(edge.gate.address);
        let authorization = format!("Authorization: DPoP {access}");
        let proof = holder.proof("GET", url, Some(&access), &json!({}));
        let host = format!("Host: {host}");
        wire.head(&format!("GET {path}"), &[&[&*host, &*authorization, &*proof], headers].concat());
        wire.reply().status
    };
    // The public URL stands for its host, whatever port the request came to.
    for url in ["http://gate.test/x", "HTTP://GATE.test:80/x", "http://gate.test/x?a=1", "http://gate.test/%78"] {
        assert_eq!(ask("gate.test", "/x?b=2", &[], url), 200, "{url}");
        assert_eq!(ask("gate.test:8080", "/x", &[], url), 200, "{url}");
    }
    for url in ["https://gate.test/x", "http://gate.test:8080/x", "http://named.test/x", "http://gate.test/x/"] {
        assert_eq!(ask("gate.test", "/x", &[], url), 401, "{url}");
    }
    // A host that a route names, with the scheme of the connection; no client says what that is.
    assert_eq!(ask("named.test:81", "/named/x", &[], "http://named.test:81/named/x"), 200);
    let forwarded = ["X-Forwarded-Proto: https", "X-Forwarded-Host: gate.test"];
    assert_eq!(ask("named.test", "/named/x", &forwarded, "https://named.test/named/x"), 401);
    assert_eq!(ask("named.test", "/named/x", &forwarded, "http://named.test/named/x"), 200);
    // The gate serves every host, and still knows no proof for one that nobody named: a page there may have got it.
    assert_eq!(ask("evil.test", "/x", &[], "http://evil.test/x"), 401);
    let paths = |path: &str| ask("gate.test", path, &[], "http://gate.test/a/b");
    assert_eq!((paths("/a/b"), paths("/a//b"), paths("/a/%62"), paths("/a/B")), (200, 200, 200, 401));
}

#[test]
fn n31_tokens_of_other_issuers_are_checked_the_same_way() {
    let (issuer, holder) = (Issuer::new(7), Holder::new(1));
    let keys = json!({ "keys": [issuer.jwk("k1")] }).to_string();
    let theirs = format!(
        "{HEAD}{CLIENTS}\n[[issuers]]\nname = \"idp\"\nurl = \"{}\"\naudience = [\"api\"]\njwks_file = \"idp.json\"\n\
         everywhere = true\nscopes = \"any\"\n[dpop]\n",
        crate::edge::issuer::URL
    );
    let files = |place: &Place| {
        hash_secret(place);
        std::fs::write(place.path("idp.json"), &keys).unwrap();
    };
    let edge = Edge::with(&theirs, files, |_| {});
    let token = |cnf: Value| issuer.sign(&header(), &claims_of(&json!({ "cnf": cnf })));
    let good = token(json!({ "jkt": holder.thumbprint() }));
    let reply = ask(&edge, "/x", &good, &holder.for_path("/x", &good));
    assert_eq!(reply.status, 200, "{reply:?} {}", edge.gate.log());
    assert_eq!(edge.ask_as(&good, "GET /x", &[]).status, 401);
    assert_eq!(ask(&edge, "/x", &good, &Holder::new(2).for_path("/x", &good)).status, 401);
    // R14: a confirmation that the gate cannot check is refused, beside one that it can as well.
    for cnf in [json!({ "x5t#S256": holder.thumbprint() }), json!({ "jkt": holder.thumbprint(), "x5t#S256": "x" })] {
        let other = token(cnf);
        assert_eq!(ask(&edge, "/x", &other, &holder.for_path("/x", &other)).status, 401);
    }
}

#[test]
fn n34_pages_can_read_what_they_need_and_the_metadata_lists_the_algorithms() {
    let config = support::with(&format!("{HEAD}{CLIENTS}"), "cors", "origins = [\"https://app.test\"]");
    let edge = edge_on(&config);
    let reply = edge.ask("GET /x", &["Origin: https://app.test"]);
    let exposed = reply.header("access-control-expose-headers").to_ascii_lowercase();
    assert!(exposed.contains("dpop-nonce") && exposed.contains("www-authenticate"), "{exposed}");
    let metadata = edge.ask("GET /.well-known/oauth-authorization-server", &[]).json();
    assert_eq!(
        metadata["dpop_signing_alg_values_supported"],
        json!(["ES256", "EdDSA", "Ed25519", "ES384", "RS256", "PS256"])
    );
    // A gate that has nothing to do with proofs says nothing of them, and takes no such token.
    let plain = Edge::new(support::stub::ROUTES);
    let reply = plain.ask("GET /x", &["Authorization: DPoP a.b.c"]);
    assert_eq!((reply.status, reply.all("www-authenticate")), (401, vec!["Bearer"]));
    let metadata = plain.ask("GET /.well-known/oauth-authorization-server", &[]).json();
    assert_eq!(metadata.get("dpop_signing_alg_values_supported"), None);
}
