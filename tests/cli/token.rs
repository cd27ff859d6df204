//! `rotogate token`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use http::StatusCode;
use serde_json::json;

use crate::edge::introspection::Server;
use crate::edge::issuer::{Issuer, URL, claims};
use crate::edge::remote_keys::Provider;
use support::{CONFIG, Place};

/// The output of a command about a token. The exit code is 1 if the token is refused.
#[track_caller]
fn inspected(place: &Place, arguments: &[&str], token: &str) -> serde_json::Value {
    let ran = place.run(&[&["token", "inspect", "--json"], arguments].concat(), token);
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let is_good = said["authentic"] == true && said.get("refused").is_none();
    assert_eq!(ran.code, Some(i32::from(!is_good)), "{ran:?}");
    said
}

#[test]
fn o40_garbage_is_refused_with_exit_code_1_and_a_wrong_option_with_2() {
    let place = Place::new(CONFIG);
    place.done(&["keys", "init"], "");
    for garbage in ["garbage", "a.b.c", "rt1_garbage"] {
        assert_eq!(inspected(&place, &[], garbage)["authentic"], false, "{garbage}");
        assert_eq!(place.run(&["token", "inspect"], garbage).code, Some(1), "as text, too");
    }
    assert_eq!(place.run(&["token", "inspect", "--nonsense"], "garbage").code, Some(2));
}

#[tokio::test]
async fn a_token_on_standard_input_is_looked_into() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    let access = place.json(&["token", "inspect"], &tokens.access);
    assert_eq!((&access["kind"], &access["authentic"]), (&"access_token".into(), &true.into()));
    assert_eq!(access["claims"]["client_id"], "web");
    let refresh = place.json(&["token", "inspect"], &format!("{}\n", tokens.refresh));
    assert_eq!((&refresh["kind"], &refresh["authentic"]), (&"refresh_token".into(), &true.into()));
    assert!(refresh["session"].is_string());

    let mut forged = tokens.refresh.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for garbage in ["garbage", "a.b.c", "rg1", &forged, &tokens.access[..tokens.access.len() - 4]] {
        let said = inspected(&place, &[], garbage);
        assert_eq!(said["authentic"], false);
        assert!(said.get("claims").is_none() && said.get("session").is_none(), "nothing in it can be believed");
    }
    assert!(place.fails(&["token", "inspect"], "").contains("empty"));
    assert!(place.done(&["token", "inspect"], &tokens.access).stdout.contains("\"authentic\": true"));
}

#[tokio::test]
async fn o40_a_revoked_or_expired_token_shows_its_claims_and_why_it_is_refused() {
    let place = with_issuer("jwks_file = \"idp.json\"");
    let gate = place.start();
    place.point_commands_at(&gate);
    let tokens = gate.login().await;
    let said = inspected(&place, &[], &tokens.access);
    assert_eq!((&said["revocation"], said.get("refused")), (&json!("none"), None), "{said}");
    assert_eq!(gate.revoke(&tokens.access).await.status, StatusCode::OK);
    let said = inspected(&place, &[], &tokens.access);
    assert_eq!((&said["authentic"], &said["refused"]), (&json!(true), &json!("token_revoked")), "{said}");
    assert_eq!((&said["claims"]["client_id"], said.get("routes")), (&json!("web"), None), "{said}");
    // Without the gate nobody knows of revocations, and the command says so.
    assert_eq!(gate.stop(), Some(0));
    let said = inspected(&place, &[], &tokens.access);
    assert!(said["revocation"].as_str().unwrap().starts_with("not checked: no gate responds"), "{said}");

    for (times, reason) in [
        (json!({ "exp": 1_700_000_300, "iat": 1_700_000_000 }), "token_expired"),
        (
            json!({ "exp": 4_000_000_300_u64, "iat": 4_000_000_000_u64, "nbf": 4_000_000_000_u64 }),
            "token_not_yet_valid",
        ),
    ] {
        let mut claims = json!({ "tenant": "acme", "groups": ["clerk"] });
        claims.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
        let said = inspected(&place, &[], &Issuer::new(1).token(&claims));
        assert_eq!((&said["authentic"], &said["refused"]), (&json!(true), &json!(reason)), "{said}");
        assert_eq!((&said["claims"]["exp"], &said["caller"]["roles"]), (&times["exp"], &json!(["clerk"])), "{said}");
        // Of a key that the issuer does not have, nothing can be believed.
        let forged = inspected(&place, &[], &Issuer::new(2).token(&claims));
        assert_eq!((&forged["authentic"], forged.get("claims")), (&json!(false), None), "{forged}");
        assert!(forged.get("refused").is_some(), "{forged}");
    }
}

#[tokio::test]
async fn a_minted_token_is_good_until_its_client_revokes_it() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let mint = ["token", "mint", "--subject", "job-1", "--client", "web", "--scope", "read", "--ttl", "5m"];
    let minted = place.json(&mint, "");
    let token = minted["access_token"].as_str().unwrap();
    assert!(minted["jti"].is_string() && minted["expires"].is_u64());
    let other = place.done(&mint, "").stdout;
    let call = gate.get("/", token).await;
    assert_eq!(call.status, StatusCode::OK);
    assert_eq!(call.echoed("x-auth-subject"), ["job-1"]);
    assert_eq!(call.echoed("x-auth-scope"), ["read"]);

    assert_eq!(gate.revoke(token).await.status, StatusCode::OK);
    assert_eq!(gate.get("/", token).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.get("/", other.trim()).await.status, StatusCode::OK, "the revocation is of one jti");
    assert_eq!(gate.stop(), Some(0));
    let gate = place.start();
    assert_eq!(gate.get("/", token).await.status, StatusCode::UNAUTHORIZED, "and outlives a restart");
    assert_eq!(gate.get("/", other.trim()).await.status, StatusCode::OK);
}

#[test]
fn a_token_that_lives_too_long_or_that_nobody_could_revoke_is_not_minted() {
    let place = Place::new(CONFIG);
    let mint = |ttl| ["token", "mint", "--subject", "job-1", "--client", "web", "--ttl", ttl];
    assert!(place.fails(&mint("1h"), "").contains("data/keys"), "there are no keys yet");
    drop(place.start());
    assert!(place.fails(&mint("25h"), "").contains("1d"));
    let unknown = ["token", "mint", "--subject", "job-1", "--client", "wbe"];
    assert!(place.fails(&unknown, "").contains("\"wbe\""), "a client that could not revoke it");
    assert_eq!(place.run(&mint("soon"), "").code, Some(2));
}

/// Another issuer with keys in a file, and routes that take its tokens.
fn with_issuer(more: &str) -> Place {
    let entry = format!(
        "[[issuers]]\nname = \"idp\"\nurl = \"{URL}\"\naudience = [\"api\"]\nscopes = [\"read\"]\n\
         require = {{ tenant = \"acme\" }}\nclaims = {{ roles = \"groups\" }}\n{more}\n\
         [[routes]]\nid = \"theirs\"\npath = \"/theirs/{{*rest}}\"\nissuers = [\"idp\"]\nroles = [\"clerk\"]\nupstream = \"app\"\n\
         [[routes]]\nid = \"ours\"\npath = \"/ours/{{*rest}}\"\nissuers = [\"self\"]\nupstream = \"app\"\n\
         [[routes]]\nid = \"admin\"\npath = \"/theirs/admin\"\nissuers = [\"idp\"]\nscopes = [\"write\"]\nupstream = \"app\"\n"
    );
    let place = Place::new(&format!("{CONFIG}{entry}"));
    std::fs::write(place.path("idp.json"), json!({ "keys": [Issuer::new(1).jwk("k1")] }).to_string()).unwrap();
    std::fs::write(place.path("idp.secret"), "secret").unwrap();
    std::fs::set_permissions(place.path("idp.secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    drop(place.start());
    place
}

#[test]
fn i16_i17_a_token_of_another_issuer_is_judged_as_the_gate_would() {
    let place = with_issuer("jwks_file = \"idp.json\"");
    let inspect = |arguments: &[&str], token: &str| inspected(&place, arguments, token);
    let claims = json!({ "tenant": "acme", "groups": ["clerk"] });
    let token = Issuer::new(1).token(&claims);
    let said = inspect(&[], &token);
    assert_eq!(
        (&said["authentic"], &said["issuer"], &said["judged_by"]),
        (&json!(true), &json!("idp"), &json!("keys"))
    );
    let caller = json!({
        "subject": "user-1", "client": "their-client", "scope": "read", "audience": ["api"], "roles": ["clerk"],
    });
    assert_eq!(said["caller"], caller, "as upstreams would see it");
    let decisions: BTreeMap<_, _> = said["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| (route["route"].as_str().unwrap().to_owned(), route["decision"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [("theirs", "accepted"), ("ours", "wrong_issuer"), ("admin", "insufficient_scope")];
    for (route, decision) in expected {
        assert_eq!(decisions[route], decision, "{said}");
    }
    assert_eq!(inspect(&["--issuer", "idp"], &token)["authentic"], true);

    let refused = |arguments: &[&str], token: &str| {
        let said = inspect(arguments, token);
        assert!(said["authentic"] == false && said.get("claims").is_none() && said.get("caller").is_none(), "{said}");
        (said["refused"].as_str().unwrap().to_owned(), said["detail"].as_str().unwrap_or_default().to_owned())
    };
    // The claim at fault is named.
    let (reason, detail) = refused(&[], &Issuer::new(1).token(&json!({ "tenant": "other" })));
    assert!(reason == "bad_claim" && detail.starts_with("tenant: "), "{reason}: {detail}");
    assert_eq!(refused(&[], &Issuer::new(2).token(&claims)).0, "bad_signature");
    let elsewhere = Issuer::new(1).token(&json!({ "iss": "https://other.test/", "tenant": "acme" }));
    for arguments in [&[][..], &["--issuer", "idp"]] {
        let (reason, detail) = refused(arguments, &elsewhere);
        assert!(reason == "unknown_issuer" && detail.contains("https://other.test/"), "{reason}: {detail}");
    }
    assert_eq!(refused(&["--issuer", "self"], &token).0, "unknown_issuer");
    assert_eq!(refused(&[], "opaque").0, "malformed_token");
    let ran = place.run(&["token", "inspect", "--issuer", "none"], &token);
    assert!(ran.code == Some(2) && ran.stderr.contains("expected one of self, idp"), "{ran:?}");
}

#[test]
fn i4_a_token_is_inspected_with_keys_that_are_fetched() {
    let provider = Provider::start();
    provider.publish(&[Issuer::new(1).jwk("k1")]);
    let source = format!("jwks_url = \"{}\"\nfetch = {{ for_tests = {{ timeout = \"2s\" }} }}", provider.at("/keys"));
    let place = with_issuer(&source);
    let token = Issuer::new(1).token(&json!({ "tenant": "acme", "groups": [] }));
    assert_eq!(place.json(&["token", "inspect"], &token)["authentic"], true);
    provider.fail();
    let said = inspected(&place, &[], &token);
    assert_eq!(said["refused"], "keys_unavailable");
    assert!(said["detail"].as_str().unwrap().starts_with("status: "), "{said}");
}

#[test]
fn i20_an_opaque_token_is_shown_to_its_issuer_only_when_told() {
    let server = Server::start();
    let mut answer = claims(&json!({ "tenant": "acme", "groups": ["clerk"] }));
    answer["active"] = true.into();
    server.says("b_1", &answer);
    let place = with_issuer(&format!(
        "introspection = {{ url = \"{}\", client_id = \"gate\", secret_file = \"idp.secret\", prefix = \"b_\" }}",
        server.url()
    ));
    let started = server.asked().len();
    assert_eq!(started, 0);
    let said = inspected(&place, &[], "b_1");
    assert_eq!((&said["issuer"], &said["refused"]), (&json!("idp"), &json!("introspection_unavailable")));
    assert!(said["detail"].as_str().unwrap().contains("--online"), "{said}");
    assert_eq!(server.asked(), []);
    let said = place.json(&["token", "inspect", "--online"], "b_1");
    assert_eq!((&said["authentic"], &said["judged_by"]), (&json!(true), &json!("introspection")));
    assert_eq!(said["caller"]["subject"], "user-1");
    assert_eq!(inspected(&place, &["--online"], "b_2")["refused"], "token_inactive");
    assert_eq!(server.asked().len(), 2);
}
