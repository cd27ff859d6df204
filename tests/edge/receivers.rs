//! Receivers of security events: the real binary at a stand-in of a receiver.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::keyring::KeyMaterial;
use serde_json::{Value, json};

use support::receiver::Receiver;
use support::{CONFIG, Place, keep_secret, until};

const TOKEN: &str = "token-of-the-gate-at-the-receiver";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

fn part(token: &str, number: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap()).unwrap()
}

fn files(place: &Place) {
    keep_secret(TOKEN);
    let key = KeyMaterial::generate(Algorithm::Rs256).unwrap();
    for (file, text) in [("siem.token", TOKEN.as_bytes()), ("events.pem", key.expose())] {
        let path = place.path(file);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
}

/// The signature of the receiver's key.
fn rs256(place: &Place, message: &[u8]) -> Vec<u8> {
    let text = std::fs::read_to_string(place.path("events.pem")).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = RsaKeyPair::from_pkcs8(&base64::engine::general_purpose::STANDARD.decode(body).unwrap()).unwrap();
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn receiver(at: &Receiver, clients: &str) -> String {
    format!(
        "{CONFIG}\n[[receivers]]\nname = \"siem\"\nurl = \"{}\"\naudience = \"https://siem.test\"\n\
         token_file = \"siem.token\"\nkey_file = \"events.pem\"\nclients = {clients}\n",
        at.url
    )
}

#[tokio::test]
async fn s24_s25_s26_s27_a_receiver_hears_of_each_end_and_its_key_opens_nothing() {
    let at = Receiver::start(TOKEN);
    let place = Place::new(&receiver(&at, "[\"web\"]"));
    files(&place);
    let mut gate = place.start();
    until("the receiver is known", async || {
        let text = gate.admin_get("/metrics").await.body;
        String::from_utf8_lossy(&text).contains("rotogate_receiver_lag_seconds{receiver=\"siem\"}")
    })
    .await;
    let [one, two, three] = [gate.login().await, gate.login().await, gate.login().await];
    let session = |access: &str| part(access, 1)["sid"].clone();
    gate.revoke(&one.refresh).await;
    let told = at.until_taken(1)[0].clone();
    let claims = part(&told, 1);
    assert_eq!(claims["sub_id"]["session"]["id"], session(&one.access));
    assert_eq!((&claims["events"][REVOKED]["initiating_entity"], &claims["exp"]), (&"user".into(), &Value::Null));
    // The receiver's key is in the JWK set, and signs no access token.
    let keys = gate.call(Method::GET, "/.well-known/jwks.json", &[], "").await.json();
    let kid = &part(&told, 0)["kid"];
    assert_eq!(
        keys["keys"].as_array().unwrap().iter().filter(|key| key["kid"] == *kid && key["alg"] == "RS256").count(),
        1
    );
    let metadata = gate.call(Method::GET, "/.well-known/ssf-configuration", &[], "").await.json();
    assert_eq!((&metadata["issuer"], metadata.get("jwks_uri").is_some()), (&claims["iss"], true));
    // Neither an event nor an access token that its key signed is good, whatever the header says.
    let forged = |head: Value| {
        let text =
            [head.to_string(), part(&one.access, 1).to_string()].map(|text| URL_SAFE_NO_PAD.encode(text)).join(".");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(rs256(&place, text.as_bytes())))
    };
    let own = part(&one.access, 0);
    for token in [
        told.clone(),
        forged(json!({ "alg": "RS256", "typ": own["typ"], "kid": kid })),
        forged(json!({ "alg": "RS256", "typ": own["typ"], "kid": own["kid"] })),
        forged(json!({ "alg": "RS256", "typ": own["typ"] })),
    ] {
        let bearer = [("authorization", &*format!("Bearer {token}"))];
        assert_eq!(gate.call(Method::GET, "/api/x", &bearer, "").await.status, 401);
    }

    // An outage, with a kill during it.
    at.state().lie = Some(Box::new(|_| Some((503, String::new()))));
    gate.revoke(&two.refresh).await;
    until("the receiver was asked", async || at.state().asked.len() > 1).await;
    gate.kill();
    at.state().lie = None;
    let gate = place.start();
    assert_eq!(part(&at.until_taken(2)[1], 1)["sub_id"]["session"]["id"], session(&two.access));
    // A not-before of the user: one event without a session.
    place.point_commands_at(&gate);
    place.done(&["session", "revoke", "--subject", part(&three.access, 1)["sub"].as_str().unwrap()], "");
    let told = part(&at.until_taken(3)[2], 1);
    assert_eq!(
        (&told["sub_id"]["session"], &told["sub_id"]["user"]["sub"]),
        (&Value::Null, &part(&three.access, 1)["sub"])
    );
    until("it is counted", async || {
        gate.metric("rotogate_receiver_events_total{receiver=\"siem\",result=\"sent\"}").await >= 2
    })
    .await;
    place.done(&["check", "--online"], "");
    let greeted = part(at.state().taken.last().unwrap(), 1);
    assert!(greeted["events"]["https://schemas.openid.net/secevent/ssf/event-type/verification"].is_object());
    // Without receivers, nothing is sent, and the key is not published.
    place.write_config(CONFIG);
    gate.signal("HUP");
    let keys = async || gate.call(Method::GET, "/.well-known/jwks.json", &[], "").await.json().to_string();
    until("the key is gone", async || !keys().await.contains("RS256")).await;
}

#[test]
fn s26_s27_a_receiver_without_clients_and_a_key_of_another_kind_are_refused() {
    let at = Receiver::start(TOKEN);
    let place = Place::new(&receiver(&at, "[]"));
    files(&place);
    assert!(place.refused().contains("expected the ids of the clients"));
    place.write_config(&receiver(&at, "[\"wbe\"]"));
    assert!(place.refused().contains("did you mean \"web\""));
    place.write_config(&receiver(&at, "[\"web\"]"));
    std::fs::write(place.path("events.pem"), KeyMaterial::generate(Algorithm::EdDsa).unwrap().expose()).unwrap();
    let said = place.refused();
    assert!(said.contains("key_file"), "{said}");
    // The RSA key that signs access tokens signs no events.
    let with_rsa = |config: &str| config.replacen("[issuer]\n", "[issuer]\nalgorithm = \"RS256\"\n", 1);
    let place = Place::new(&with_rsa(CONFIG));
    files(&place);
    assert_eq!(place.start().stop(), Some(0));
    let keys = std::fs::read_dir(place.path("data/keys")).unwrap().map(|file| file.unwrap().path());
    let signing = keys.filter(|file| file.extension().is_some_and(|kind| kind == "pem")).last().unwrap();
    std::fs::copy(signing, place.path("events.pem")).unwrap();
    place.write_config(&with_rsa(&receiver(&at, "[\"web\"]")));
    let said = place.refused();
    assert!(said.contains("is a key of the keyring, which signs access tokens"), "{said}");
}
