//! Token Status Lists: ours, as verifiers elsewhere read them, and those of another issuer.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use rotogate_core::token::status_token::{CompressedList, inflated};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::exchange::{ACCESS, GRANT};
use super::isolation::secret;
use super::issuer::{Issuer, claims};
use super::remote_keys::{ROUTES, edge, status};
use super::streams::{ends, lives_on, open};
use super::upgrades::upstream;
use support::documents::Documents;
use support::stub::{Edge, HEAD};
use support::{Answer, CONFIG, Gate, Place, keep_secret, until, with};

fn claims_of(token: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

async fn fetch(gate: &Gate, path: &str, headers: &[(&str, &str)]) -> Answer {
    gate.call(Method::GET, path, headers, "").await
}

/// The bit of a session in its list, as a verifier reads it.
async fn bit(gate: &Gate, path: &str, index: u64) -> u8 {
    let answer = fetch(gate, path, &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let list = claims_of(std::str::from_utf8(&answer.body).unwrap());
    let bits = inflated(list["status_list"]["lst"].as_str().unwrap()).unwrap();
    bits[usize::try_from(index / 8).unwrap()] >> (index % 8) & 1
}

#[tokio::test]
async fn s1_s4_a_verifier_elsewhere_reads_each_end_of_a_session_also_after_a_kill() {
    let place = Place::new(&with(CONFIG, "status_list", "ttl = \"5s\"\nsize = \"2^14\""));
    let mut gate = place.start();
    let [held, other, third] = [gate.login().await, gate.login().await, gate.login().await];
    let entry = |token: &str| claims_of(token)["status"]["status_list"].clone();
    let (first, second, last) = (entry(&held.access), entry(&other.access), entry(&third.access));
    let path = first["uri"].as_str().unwrap().strip_prefix("http://gate.test").unwrap().to_owned();
    assert_ne!(first["idx"], second["idx"]);
    let index = |entry: &Value| entry["idx"].as_u64().unwrap();
    until("the list is published", async || fetch(&gate, &path, &[]).await.status == StatusCode::OK).await;

    let answer = fetch(&gate, &path, &[]).await;
    let said =
        |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(said("content-type"), "application/statuslist+jwt");
    assert_eq!((said("cache-control"), said("access-control-allow-origin")), ("public, max-age=5".into(), "*".into()));
    let header = std::str::from_utf8(&answer.body).unwrap().split('.').next().unwrap().to_owned();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(header["typ"], "statuslist+jwt");
    let list = claims_of(std::str::from_utf8(&answer.body).unwrap());
    assert_eq!((&list["sub"], &list["ttl"], &list["status_list"]["bits"]), (&first["uri"], &json!(5), &json!(1)));
    // A verifier that has the list. A new list may be published between the two requests.
    until("304", async || {
        let etag = fetch(&gate, &path, &[]).await.headers["etag"].to_str().unwrap().to_owned();
        let known = fetch(&gate, &path, &[("if-none-match", &etag)]).await;
        known.status == StatusCode::NOT_MODIFIED && known.body.is_empty()
    })
    .await;
    let past = fetch(&gate, &format!("{path}?time=1700000000"), &[]).await;
    assert_eq!(past.status, StatusCode::NOT_IMPLEMENTED);
    for unknown in ["/status/1", "/status/01", "/status/x", "/status/4294967296"] {
        assert_eq!(fetch(&gate, unknown, &[]).await.status, StatusCode::NOT_FOUND, "{unknown}");
    }
    assert_eq!(gate.call(Method::POST, &path, &[], "").await.status, StatusCode::METHOD_NOT_ALLOWED);

    // A refresh keeps the place; a logout sets the bit, and no other.
    let refreshed = gate.refresh(&third.refresh).await.tokens();
    assert_eq!(entry(&refreshed.access), last);
    gate.revoke(&held.refresh).await;
    until("the logout is in the list", async || bit(&gate, &path, index(&first)).await == 1).await;
    assert_eq!((bit(&gate, &path, index(&second)).await, bit(&gate, &path, index(&last)).await), (0, 0));
    // The list of a gate that starts after a kill contains the ended sessions.
    gate.kill();
    let gate = place.start();
    until("the list is published again", async || fetch(&gate, &path, &[]).await.status == StatusCode::OK).await;
    assert_eq!((bit(&gate, &path, index(&first)).await, bit(&gate, &path, index(&second)).await), (1, 0));
    place.point_commands_at(&gate);
    // A not-before of all of the user's sessions.
    place.done(&["session", "revoke", "--subject", claims_of(&other.access)["sub"].as_str().unwrap()], "");
    until("the rest has ended, too", async || {
        bit(&gate, &path, index(&second)).await == 1 && bit(&gate, &path, index(&last)).await == 1
    })
    .await;
    assert!(gate.metric("rotogate_status_list_builds_total").await > 0);
}

/// Publishes a list of `idp`; `later` orders the lists.
pub(crate) fn publish(idp: &Documents, (key, kid): (&Issuer, &str), path: &str, bytes: &[u8], later: u64) {
    let now = rotogate_core::clock::wall_micros() / 1_000_000;
    let list = serde_json::to_value(CompressedList::new(bytes).unwrap()).unwrap();
    let list = json!({ "iss": idp.url(), "sub": idp.at(path), "iat": now - 600 + later * 60, "exp": now + 600,
                       "ttl": 1, "status_list": list });
    let text = key.sign(&json!({ "alg": "EdDSA", "typ": "statuslist+jwt", "kid": kid }), &list);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/statuslist+jwt\r\nconnection: close\r\n";
    idp.answer(path, format!("{head}content-length: {}\r\n\r\n{text}", text.len()));
}

/// A token of `idp` with a place in a list.
pub(crate) fn token(idp: &Documents, (key, kid): (&Issuer, &str), url: &str, index: u64) -> String {
    let status = json!({ "status_list": { "idx": index, "uri": url } });
    key.sign(
        &json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": kid }),
        &claims(&json!({ "iss": idp.url(), "status": status })),
    )
}

/// The entry of `idp`, whose lists are read.
pub(crate) fn listed(idp: &Documents, source: &str) -> String {
    format!(
        "[[issuers]]\nname = \"idp\"\nurl = \"{0}\"\naudience = [\"api\"]\nscopes = \"any\"\neverywhere = true\n\
         {source}\nstatus_list = {{ prefixes = [\"{0}/status/\"], ttl = [\"1s\", \"5s\"] }}\n",
        idp.url()
    )
}

#[tokio::test]
async fn s8_s12_an_issuer_whose_file_is_replaced_keeps_its_lists_and_signs_them_with_the_new_key() {
    let (idp, old, new) = (Documents::start(), Issuer::new(3), Issuer::new(4));
    let set = |keys: &[Value]| json!({ "keys": keys }).to_string();
    let (url, first) = (idp.at("/status/1"), set(&[old.jwk("k1")]));
    publish(&idp, (&old, "k1"), "/status/1", &[0, 8], 0);
    let edge = Edge::with(
        &format!("{HEAD}{ROUTES}{}", listed(&idp, "jwks_file = \"idp.json\"")),
        |place| std::fs::write(place.path("idp.json"), first).unwrap(),
        |_| {},
    );
    let [kept, ended, later] = [3, 11, 12].map(|index| token(&idp, (&old, "k1"), &url, index));
    assert_eq!([&kept, &ended, &later].map(|token| status(&edge, token)), [200, 401, 200]);
    // The issuer adds a key: what the list ended stays ended, under each key.
    std::fs::write(edge.place.path("idp.json"), set(&[old.jwk("k1"), new.jwk("k2")])).unwrap();
    let [other_kept, other_ended] = [3, 11].map(|index| token(&idp, (&new, "k2"), &url, index));
    until("the new file is in force", async || status(&edge, &other_kept) == 200).await;
    assert_eq!([&kept, &ended, &other_ended].map(|token| status(&edge, token)), [200, 401, 401]);
    // Its next list is signed with that key, and ends a token that is in the cache.
    publish(&idp, (&new, "k2"), "/status/1", &[0, 24], 1);
    until("the new list is in force", async || status(&edge, &later) == 401).await;
    assert_eq!([&kept, &ended].map(|token| status(&edge, token)), [200, 401]);
}

#[tokio::test]
async fn s12_d6_a_token_for_one_of_a_list_lives_no_longer_than_the_list_promises() {
    let (idp, key, (secret, hash)) = (Documents::start(), Issuer::new(3), secret());
    idp.document("/keys", &json!({ "keys": [key.jwk("k1")] }));
    publish(&idp, (&key, "k1"), "/status/1", &[0, 8], 0);
    let source = format!("jwks_url = \"{}\"\nsubject_prefix = \"idp|\"", idp.at("/keys"));
    let entry = listed(&idp, &source).replace("\"5s\"]", "\"5s\"], stale_for = \"20s\"");
    let client = format!(
        "[[clients]]\nid = \"orders\"\nsecret_hash = \"{hash}\"\ngrants = [\"token-exchange\"]\n\
         exchange = {{ as = [\"api\"], to = [\"billing\"], issuers = [\"idp\"], scopes = [\"read\"] }}\n\
         [[endpoints]]\ndialect = \"envelope\"\nclient = \"web\"\naccepts = [\"oauth2\"]\n"
    );
    let edge = edge(&format!("{entry}{client}"));
    let exchanged = |subject: &str| {
        let fields = [
            ("grant_type", GRANT),
            ("client_id", "orders"),
            ("client_secret", &secret),
            ("subject_token", subject),
            ("subject_token_type", ACCESS),
            ("audience", "billing"),
        ];
        edge.form("/connect/token", &[], &fields)
    };
    let url = idp.at("/status/1");
    let [good, bad] = [3, 11].map(|index| token(&idp, (&key, "k1"), &url, index));
    assert_eq!([&good, &bad].map(|token| status(&edge, token)), [200, 401]);
    assert_eq!(exchanged(&bad).status, 400);
    let lives =
        |reply: support::wire::Reply| reply.json()["expires_in"].as_u64().unwrap_or_else(|| panic!("{reply:?}"));
    let without =
        key.sign(&json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "k1" }), &claims(&json!({ "iss": idp.url() })));
    assert!(lives(exchanged(&good)) <= 25 && lives(exchanged(&without)) > 25);
}

#[tokio::test]
async fn s12_d5_a_token_for_one_of_a_list_ends_with_it_and_so_does_one_that_was_exchanged_for_it_in_turn() {
    let (idp, key, (secret, hash)) = (Documents::start(), Issuer::new(3), secret());
    idp.document("/keys", &json!({ "keys": [key.jwk("k1")] }));
    publish(&idp, (&key, "k1"), "/status/1", &[0, 0], 0);
    let source = format!("jwks_url = \"{}\"\nsubject_prefix = \"idp|\"", idp.at("/keys"));
    // The lists are fetched every second, and nothing but the list ends a token within the test.
    let entry = listed(&idp, &source).replace("\"5s\"]", "\"5m\"], stale_for = \"5m\"");
    let client = |id: &str, of: &str, to: &str| {
        format!(
            "[[clients]]\nid = \"{id}\"\nsecret_hash = \"{hash}\"\ngrants = [\"token-exchange\"]\n\
             exchange = {{ as = [\"{of}\"], to = [\"{to}\"], issuers = [\"self\", \"idp\"], scopes = [\"read\"], depth = 2 }}\n\
             [[routes]]\npath = \"/{to}/{{*rest}}\"\naudiences = [\"{to}\"]\nupstream = \"app\"\n"
        )
    };
    let clients = [client("orders", "api", "billing"), client("billing", "billing", "ledger")].concat();
    let envelope = "[[endpoints]]\ndialect = \"envelope\"\nclient = \"web\"\naccepts = [\"oauth2\"]\n";
    let edge = edge(&format!("{entry}{clients}{envelope}"));
    let exchanged = |client: &str, subject: &str, audience: &str| {
        let fields = [
            ("grant_type", GRANT),
            ("client_id", client),
            ("client_secret", &secret),
            ("subject_token", subject),
            ("subject_token_type", ACCESS),
            ("audience", audience),
        ];
        let reply = edge.form("/connect/token", &[], &fields);
        let token = reply.json()["access_token"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned();
        keep_secret(&token);
        token
    };
    let url = idp.at("/status/1");
    let all = [3, 11].map(|index| {
        let subject = token(&idp, (&key, "k1"), &url, index);
        assert_eq!(status(&edge, &subject), 200, "the list is known");
        let first = exchanged("orders", &subject, "billing");
        let second = exchanged("billing", &first, "ledger");
        assert_eq!(claims_of(&second)["origin_status"], claims_of(&subject)["status"]);
        [first, second]
    });
    let answers = || {
        let path = ["GET /billing/x", "GET /ledger/x"];
        all.each_ref().map(|two| [0, 1].map(|n| edge.ask_as(&two[n], path[n], &[]).status))
    };
    assert_eq!(answers(), [[200; 2]; 2]);
    publish(&idp, (&key, "k1"), "/status/1", &[0, 8], 1);
    until("the list ends both tokens of one subject", async || answers() == [[200; 2], [401; 2]]).await;
}

#[tokio::test]
async fn s8_s11_a_list_ends_an_assertion_as_a_grant_and_its_absence_is_no_refusal_and_uses_nothing_up() {
    let (idp, key, (secret, hash)) = (Documents::start(), Issuer::new(3), secret());
    idp.document("/keys", &json!({ "keys": [key.jwk("k1")] }));
    publish(&idp, (&key, "k1"), "/status/1", &[0, 8], 0);
    let source = format!(
        "jwks_url = \"{}\"\nsubject_prefix = \"idp|\"\nid_jag = {{ clients = [\"wiki\"], max_age = \"5m\" }}\n\
         jwt_bearer = {{ subjects = [\"job\"], max_lifetime = \"10m\", as_client = \"deploy\" }}",
        idp.at("/keys")
    );
    let entry = listed(&idp, &source).replace("\"5s\"]", "\"5s\"], stale_for = \"20s\"");
    let clients = format!(
        "[[clients]]\nid = \"wiki\"\nsecret_hash = \"{hash}\"\ngrants = [\"jwt-bearer\"]\n\
         [[clients]]\nid = \"deploy\"\ngrants = [\"jwt-bearer\"]\nscopes = [\"deploy\"]\n"
    );
    let edge = edge(&format!("{entry}{clients}"));
    let signed = |typ: &str, said: &Value| {
        let mut all = json!({ "iss": idp.url(), "aud": "http://gate.test", "jti": uuid::Uuid::new_v4() });
        all.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let text = key.sign(&json!({ "alg": "EdDSA", "typ": typ, "kid": "k1" }), &claims(&all));
        keep_secret(&text);
        text
    };
    let about = |path: &str, index: u64| json!({ "status_list": { "idx": index, "uri": idp.at(path) } });
    let jag = |status: Value| {
        let exp = claims(&json!({}))["iat"].as_u64().unwrap() + 300;
        signed("oauth-id-jag+jwt", &json!({ "client_id": "wiki", "scope": "read", "status": status, "exp": exp }))
    };
    let job = |status: Value| {
        signed("JWT", &json!({ "sub": "job", "client_id": null, "scope": null, "sid": null, "status": status }))
    };
    let present = |assertion: &str, as_wiki: bool| {
        let grant = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion)];
        let wiki = [("client_id", "wiki"), ("client_secret", secret.as_str())];
        edge.form("/connect/token", &[], &[&grant[..], if as_wiki { &wiki } else { &[] }].concat())
    };
    for (assert, as_wiki) in [(&jag as &dyn Fn(Value) -> String, true), (&job, false)] {
        // The first grant waits for the list.
        let (good, plain) = (assert(about("/status/1", 3)), assert(Value::Null));
        let lives = |assertion: &str| {
            let reply = present(assertion, as_wiki);
            reply.json()["expires_in"].as_u64().unwrap_or_else(|| panic!("{reply:?}"))
        };
        assert!(lives(&good) <= 25 && lives(&plain) > 25, "the token lives no longer than the list promises");
        for bad in [about("/status/1", 11), about("/status/1", 99), about("/elsewhere", 3), json!(7)] {
            let reply = present(&assert(bad.clone()), as_wiki);
            assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_grant")), "{bad}");
        }
        // Nothing is decided, and nothing is used up.
        let path = format!("/status/{}", 2 + u8::from(as_wiki));
        idp.answer(&path, "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
        let undecided = assert(about(&path, 3));
        let reply = present(&undecided, as_wiki);
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(!reply.header("retry-after").is_empty());
        publish(&idp, (&key, "k1"), &path, &[0, 8], 0);
        until("the list is there", async || present(&undecided, as_wiki).status == 200).await;
    }
    // The same identity assertion brings no further token once the list ends it.
    let again = jag(about("/status/1", 4));
    assert_eq!(present(&again, true).status, 200);
    assert_eq!(present(&again, true).status, 200);
    publish(&idp, (&key, "k1"), "/status/1", &[16, 8], 1);
    until("the list ends it", async || present(&again, true).status == 400).await;
    assert_eq!(idp.times("/elsewhere"), 0, "S10");
}

#[tokio::test]
async fn s8_s11_s12_the_list_of_another_issuer_ends_its_tokens_and_its_absence_is_no_refusal() {
    let (idp, key) = (Documents::start(), Issuer::new(3));
    idp.document("/keys", &json!({ "keys": [key.jwk("k1")] }));
    let url = idp.at("/status/1");
    let publish = |path: &str, bytes: &[u8], later: u64| publish(&idp, (&key, "k1"), path, bytes, later);
    publish("/status/1", &[0, 0], 0);
    let entry = listed(&idp, &format!("jwks_url = \"{}\"", idp.at("/keys")));
    let (port, _heads) = upstream();
    let tunnels = format!(
        "[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/ws\"\nupgrade = true\nupstream = \"ws\"\n"
    );
    let gate = edge(&format!("{entry}{tunnels}"));
    let token = |url: &str, index: u64| token(&idp, (&key, "k1"), url, index);
    let [good, bad] = [token(&url, 3), token(&url, 11)];
    assert_eq!((status(&gate, &good), status(&gate, &bad)), (200, 200), "the first request waits for the list");
    let [mut live, mut ended] = [open(&gate.gate, &good), open(&gate.gate, &bad)];
    let fetched = idp.times("/status/1");
    publish("/status/1", &[0, 8], 1);
    // A fetch that had begun before brought the list of before.
    until("it is fetched", async || idp.times("/status/1") > fetched + 1).await;
    let since = Instant::now();
    ends(&mut ended);
    // S12 promises a second; a busy machine gets another.
    assert!(since.elapsed() < Duration::from_secs(2), "{:?} after the second fetch", since.elapsed());
    lives_on(&mut live);
    until("the list ends the token", async || status(&gate, &bad) == 401).await;
    assert_eq!(status(&gate, &good), 200);
    publish("/status/1", &[0, 0], 2);
    until("what was suspended passes again", async || status(&gate, &bad) == 200).await;
    // An earlier list counts no more.
    publish("/status/1", &[255, 255], 0);
    let before = idp.times("/status/1");
    until("it was fetched", async || idp.times("/status/1") > before + 1).await;
    assert_eq!(status(&gate, &good), 200, "S9");
    // A list that is not there, or that another key signed, decides nothing.
    idp.answer("/status/2", "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned());
    assert_eq!(status(&gate, &token(&idp.at("/status/2"), 0)), 503);
    // Elsewhere nothing is fetched.
    assert_eq!(status(&gate, &token(&idp.at("/elsewhere"), 0)), 401);
    assert_eq!(idp.times("/elsewhere"), 0, "S10");
}
