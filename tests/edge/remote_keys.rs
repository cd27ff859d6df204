//! Issuers whose keys the gate fetches: the handling of their answers, and the replies to clients.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::issuer::{Issuer, claims};
use support::documents::Documents;
use support::stub::{Edge, HEAD};
use support::{Place, until};

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A provider on this machine.
pub(crate) struct Provider(Documents);

impl Provider {
    pub(crate) fn start() -> Self {
        let provider = Self(Documents::start());
        provider.document(DISCOVERY, &json!({"issuer": provider.url(), "jwks_uri": provider.at("/keys")}));
        provider
    }

    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    pub(crate) fn at(&self, path: &str) -> String {
        self.0.at(path)
    }

    fn answer(&self, path: &str, answer: String) {
        self.0.answer(path, answer);
    }

    pub(crate) fn document(&self, path: &str, document: &Value) {
        self.0.document(path, document);
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        self.document("/keys", &json!({ "keys": keys }));
    }

    pub(crate) fn fail(&self) {
        for path in [DISCOVERY, "/keys"] {
            self.answer(path, "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned());
        }
    }

    pub(crate) fn fetches(&self) -> usize {
        self.0.times("/keys")
    }

    pub(crate) fn entry(&self, name: &str, source: &str) -> String {
        format!(
            "[[issuers]]\nname = \"{name}\"\nurl = \"{}\"\naudience = [\"api\"]\nscopes = \"any\"\neverywhere = true\n\
             {source}\nfetch = {{ for_tests = {{ min = \"1s\", cooldown = \"1s\", timeout = \"2s\" }} }}\n",
            self.url()
        )
    }

    /// A good token of its issuer.
    pub(crate) fn token(&self, key: &Issuer, kid: &str) -> String {
        let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": kid });
        key.sign(&header, &claims(&json!({ "iss": self.url() })))
    }
}

pub(crate) const ROUTES: &str = "[[routes]]\npath = \"/{*rest}\"\nupstream = \"app\"\n";

pub(crate) fn edge(entries: &str) -> Edge {
    Edge::with(&format!("{HEAD}{ROUTES}{entries}"), |_: &Place| {}, |_| {})
}

pub(crate) fn status(edge: &Edge, token: &str) -> u16 {
    edge.ask_as(token, "GET /x", &[]).status
}

pub(crate) fn admin_token(edge: &Edge) -> String {
    std::fs::read_to_string(edge.place.path("data/admin.token")).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i2_a_new_key_is_taken_up_and_one_that_left_is_refused() {
    let provider = Provider::start();
    let (old, new) = (Issuer::new(1), Issuer::new(2));
    provider.publish(&[old.jwk("k1")]);
    let edge = edge(&provider.entry("kc", "discovery = true"));
    let first = provider.token(&old, "k1");
    assert_eq!((status(&edge, &first), status(&edge, &first)), (200, 200));
    // The provider signs with another key, and its first token finds it; within the cooldown it gets 503 with Retry-After.
    provider.publish(&[old.jwk("k1"), new.jwk("k2")]);
    let second = provider.token(&new, "k2");
    passes(&edge, &second).await;
    assert_eq!(status(&edge, &first), 200);
    // The old key leaves the set. The gate refuses its verified token at once.
    provider.publish(&[new.jwk("k2")]);
    let admin = admin_token(&edge);
    let answer = edge.gate.admin(Method::POST, "/v1/issuers/kc/refresh", Some(&admin)).await;
    assert_eq!((answer.status, &answer.json()["keys"]), (StatusCode::OK, &json!(1)));
    assert_eq!((status(&edge, &first), status(&edge, &second)), (401, 200));
    assert!(edge.gate.log().contains("issuer keys changed"));
    // The same name with another key.
    let third = Issuer::new(3);
    provider.publish(&[third.jwk("k2")]);
    edge.gate.admin(Method::POST, "/v1/issuers/kc/refresh", Some(&admin)).await;
    assert_eq!((status(&edge, &second), status(&edge, &provider.token(&third, "k2"))), (401, 200));
    assert!(edge.gate.log().contains("kid reused"));
}

/// 200 in the end, and 503 before; never a refusal.
async fn passes(edge: &Edge, token: &str) {
    until("the new key is taken up", async || match status(edge, token) {
        200 => true,
        503 => false,
        other => panic!("{other}: a good token was refused"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i51_a_key_that_replaces_one_of_its_name_is_taken_up_and_forged_tokens_stay_bounded() {
    let (named, unnamed) = (Provider::start(), Provider::start());
    let [old, new, next, forger] = [1, 2, 3, 4].map(Issuer::new);
    let publish = |key: &Issuer| {
        named.publish(&[key.jwk("k1")]);
        let mut jwk = key.jwk("");
        jwk.as_object_mut().unwrap().remove("kid");
        unnamed.publish(&[jwk]);
    };
    publish(&old);
    let edge = edge(&[named.entry("named", "discovery = true"), unnamed.entry("unnamed", "discovery = true")].concat());
    for provider in [&named, &unnamed] {
        passes(&edge, &provider.token(&old, "k1")).await;
    }
    // The second replacement is within the cooldown of the first.
    for key in [&new, &next] {
        publish(key);
        for provider in [&named, &unnamed] {
            passes(&edge, &provider.token(key, "k1")).await;
        }
    }
    let counted = edge.gate.metric("rotogate_verifications_total{result=\"forged\"}").await;
    assert!(counted < 50, "{counted}: a lone client stays below the limit");
    // A flood of tokens with new times asks once in a cooldown, and ends in the limit of its address.
    let (begun, fetches) = (Instant::now(), named.fetches());
    let answers: Vec<_> = (0..200).map(|_| status(&edge, &named.token(&forger, "k1"))).collect();
    assert!(answers.iter().all(|answer| [401, 429, 503].contains(answer)), "{answers:?}");
    assert_eq!(answers.last(), Some(&429));
    let most = usize::try_from(begun.elapsed().as_secs()).unwrap() * 2 + 3;
    assert!(named.fetches() - fetches <= most, "{} fetches in {:?}", named.fetches() - fetches, begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_i9_i11_a_gate_starts_without_its_issuers_and_one_does_not_touch_another() {
    let (silent, good) = (Provider::start(), Provider::start());
    let key = Issuer::new(1);
    silent.fail();
    good.publish(&[key.jwk("k1")]);
    let url = format!("jwks_url = \"{}\"", good.at("/keys"));
    let edge = edge(&format!("{}{}", silent.entry("silent", "discovery = true"), good.entry("good", &url)));
    let unknown = edge.ask_as(&silent.token(&key, "k1"), "GET /x", &[]);
    assert_eq!(unknown.status, 503);
    assert!(unknown.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(status(&edge, &good.token(&key, "k1")), 200);
    let ready = edge.gate.admin_get("/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    let text = String::from_utf8_lossy(&ready.body).into_owned();
    assert!(text.contains("issuer silent: empty, status\n") && text.contains("issuer good: fresh\n"), "{text}");
    assert!(edge.gate.log().contains("issuer has no keys yet"));
    for (series, expected) in [
        ("rotogate_issuer_keys{issuer=\"good\"}", 1),
        ("rotogate_issuer_keys{issuer=\"silent\"}", 0),
        ("rotogate_issuer_state{issuer=\"good\"}", 1),
        ("rotogate_issuer_state{issuer=\"silent\"}", 0),
        ("rotogate_issuer_fetches_total{issuer=\"good\",result=\"ok\"}", 1),
        ("rotogate_issuer_refused_keys{issuer=\"good\",cause=\"secret\"}", 0),
    ] {
        assert_eq!(edge.gate.metric(series).await, expected, "{series}");
    }
    // The issuer answers at last.
    silent.document(DISCOVERY, &json!({"issuer": silent.url(), "jwks_uri": silent.at("/keys")}));
    silent.publish(&[key.jwk("k1")]);
    until("the silent issuer is heard", async || status(&edge, &silent.token(&key, "k1")) == 200).await;
    // The issuer is silent again: known keys count, and tokens of unknown keys are undecided.
    silent.fail();
    let admin = admin_token(&edge);
    let answer = edge.gate.admin(Method::POST, "/v1/issuers/silent/refresh", Some(&admin)).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(status(&edge, &silent.token(&key, "k1")), 200);
    assert_eq!(status(&edge, &silent.token(&Issuer::new(2), "k2")), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_a_required_issuer_keeps_the_gate_from_being_ready() {
    let provider = Provider::start();
    provider.fail();
    let edge = edge(&provider.entry("kc", "discovery = true\nrequired = true"));
    let ready = edge.gate.admin_get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&ready.body).starts_with("not ready: issuer kc has no keys yet\n"));
    provider.document(DISCOVERY, &json!({"issuer": provider.url(), "jwks_uri": provider.at("/keys")}));
    provider.publish(&[Issuer::new(1).jwk("k1")]);
    until("the issuer is heard", async || edge.gate.admin_get("/readyz").await.status == StatusCode::OK).await;
    // The gate was ready once, and stays ready.
    provider.fail();
    let admin = admin_token(&edge);
    edge.gate.admin(Method::POST, "/v1/issuers/kc/refresh", Some(&admin)).await;
    assert_eq!(edge.gate.admin_get("/readyz").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_i43_unknown_kids_cause_one_fetch_and_no_series() {
    let provider = Provider::start();
    let key = Issuer::new(1);
    provider.publish(&[key.jwk("k1")]);
    let entry = provider.entry("kc", "discovery = true").replace("cooldown = \"1s\"", "cooldown = \"1h\"");
    let edge = edge(&entry);
    assert_eq!(status(&edge, &provider.token(&key, "k1")), 200);
    let before = provider.fetches();
    // Older than the last answer: no newer key can have signed it.
    let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "evil\u{7f}\"} 1" });
    for n in 0..50_u64 {
        let iat = claims(&json!({}))["iat"].as_u64().unwrap() - 300;
        let token =
            Issuer::new(9).sign(&header, &claims(&json!({"iss": provider.url(), "iat": iat, "jti": n.to_string()})));
        assert_eq!(status(&edge, &token), 401);
    }
    assert_eq!(provider.fetches(), before);
    assert!(edge.gate.metric("rotogate_issuer_unknown_kid_total{issuer=\"kc\"}").await >= 50);
    let metrics = edge.gate.admin_get("/metrics").await;
    assert!(!String::from_utf8_lossy(&metrics.body).contains("evil"));
}

#[tokio::test(flavor = "multi_thread")]
async fn i51_i58_the_first_unknown_key_after_a_scheduled_fetch_is_taken_up_and_a_flood_fetches_no_more() {
    // An access token, and a logout token.
    for is_logout in [false, true] {
        let provider = Provider::start();
        let (old, new) = (Issuer::new(1), Issuer::new(2));
        provider.publish(&[old.jwk("k1")]);
        let source = "discovery = true\nbackchannel_logout = { path = \"/logout/kc\", audience = [\"our-client\"] }";
        let edge = edge(&provider.entry("kc", source).replace("cooldown = \"1s\"", "cooldown = \"1h\""));
        assert_eq!(status(&edge, &provider.token(&old, "k1")), 200);
        // The fetch of the start is in its cooldown.
        provider.publish(&[old.jwk("k1"), new.jwk("k2")]);
        let shown = |key: &Issuer, kid: &str| {
            if !is_logout {
                return status(&edge, &provider.token(key, kid));
            }
            let events = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
            let said = claims(&json!({ "iss": provider.url(), "aud": "our-client", "events": events }));
            let token = key.sign(&json!({ "alg": "EdDSA", "typ": "logout+jwt", "kid": kid }), &said);
            edge.form("/logout/kc", &[], &[("logout_token", &token)]).status
        };
        until("the new key is taken up", async || match shown(&new, "k2") {
            200 => true,
            503 => false,
            other => panic!("{other}: a good signature was refused"),
        })
        .await;
        assert_eq!(provider.fetches(), 2);
        for n in 0..20_u64 {
            // Such a key may be too new for the published set, so neither is decided.
            assert_eq!(shown(&Issuer::new(9), &format!("evil-{n}")), 503);
        }
        assert_eq!(provider.fetches(), 2, "within the cooldown of a fetch that was asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_i8_odd_keys_are_named_and_another_issuer_is_refused() {
    let (provider, other) = (Provider::start(), Provider::start());
    let key = Issuer::new(1);
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"});
    provider.publish(&[key.jwk("k1"), secret, json!({"kty": "RSA", "use": "enc", "kid": "e"})]);
    other.document(DISCOVERY, &json!({"issuer": format!("{}/", other.url()), "jwks_uri": other.at("/keys")}));
    other.publish(&[key.jwk("k1")]);
    let entries = format!("{}{}", provider.entry("kc", "discovery = true"), other.entry("other", "discovery = true"));
    let edge = edge(&entries);
    assert_eq!((status(&edge, &provider.token(&key, "k1")), status(&edge, &other.token(&key, "k1"))), (200, 503));
    assert_eq!(other.fetches(), 0, "nothing of the document is used");
    let log = edge.gate.log();
    assert!(log.contains("issuer publishes a secret key") && !log.contains("c2VjcmV0"), "{log}");
    assert!(log.contains("issuer_mismatch") && log.contains(&format!("{}/", other.url())), "{log}");
    let admin = admin_token(&edge);
    let list = edge.gate.admin(Method::GET, "/v1/issuers", Some(&admin)).await.json();
    assert_eq!(list["issuers"][0]["refused_keys"][0]["cause"], "secret");
    assert_eq!(list["issuers"][1]["failure"]["cause"], "issuer_mismatch");
    assert_eq!(edge.gate.metric("rotogate_issuer_refused_keys{issuer=\"kc\",cause=\"use\"}").await, 1);
    assert_eq!(edge.gate.admin(Method::GET, "/v1/issuers", None).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn i12_a_kept_set_survives_a_restart_and_a_drop_ends_it() {
    let provider = Provider::start();
    let key = Issuer::new(1);
    provider.publish(&[key.jwk("k1")]);
    let mut edge = edge(&provider.entry("kc", "discovery = true"));
    let token = provider.token(&key, "k1");
    assert_eq!(status(&edge, &token), 200);
    let kept = edge.place.path("data/issuers/kc.jwks.json");
    until("the set is kept", async || kept.exists()).await;
    provider.fail();
    edge.gate.kill();
    edge.gate = edge.place.start();
    assert_eq!(status(&edge, &token), 200);
    // The kill switch.
    edge.place.point_commands_at(&edge.gate);
    let dropped = edge.place.json(&["issuer", "drop", "kc"], "");
    assert_eq!(dropped["dropped"], json!(true));
    let listed = edge.place.done(&["issuer", "list"], "").stdout;
    assert!(listed.starts_with("kc  empty  keys 0") && listed.contains("  dropped"), "{listed}");
    let failed = edge.place.fails(&["issuer", "refresh", "kc"], "");
    assert!(failed.contains("status: "), "{failed}");
    let admin = admin_token(&edge);
    assert_eq!(status(&edge, &token), 503);
    assert!(!kept.exists());
    assert_eq!(
        edge.gate.admin(Method::POST, "/v1/issuers/none/drop", Some(&admin)).await.status,
        StatusCode::NOT_FOUND
    );
}

#[test]
fn i45_check_names_what_is_wrong_and_online_what_it_found() {
    let provider = Provider::start();
    provider.publish(&[Issuer::new(1).jwk("k1"), json!({"kty": "RSA", "use": "enc", "kid": "e"})]);
    let config = |entry: &str| {
        let routes = "[[routes]]\npath = \"/{*rest}\"\nupstream = \"app\"\n";
        format!("{HEAD}{routes}{entry}").replace("@upstream@", "127.0.0.1:9")
    };
    let place = Place::new(&config(&provider.entry("kc", "discovery = true")));
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("issuer kc: keys k1 (EdDSA); fresh for 10m"), "{said}");
    assert!(said.contains("issuer kc: not used: key e: its `use` does not allow signatures"), "{said}");
    provider.document(DISCOVERY, &json!({"issuer": "http://127.0.0.1/", "jwks_uri": provider.at("/keys")}));
    let refused = |arguments: &[&str]| {
        let ran = place.run(arguments, "");
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        ran.stderr
    };
    let wrong = refused(&["check", "--online"]);
    assert!(wrong.contains("issuers[0].discovery") && wrong.contains("issuer_mismatch"), "{wrong}");
    for (source, key, what) in [
        ("discovery = false", "issuers[0].discovery", "expected true"),
        ("discovery = true\njwks_url = \"https://a.example/k\"", "issuers[0].jwks_url", "one source of signing keys"),
        ("jwks_url = \"http://id.example.com/k\"", "issuers[0].jwks_url", "expected https"),
        ("jwks_url = \"https://169.254.169.254/k\"", "issuers[0].jwks_url", "must not lead to this address"),
    ] {
        place.write_config(&config(&provider.entry("kc", source)));
        let wrong = refused(&["check"]);
        assert!(wrong.contains(key) && wrong.contains(what), "{source}: {wrong}");
    }
    for (fetch, key, what) in [
        ("{ fresh = \"1m\" }", "issuers[0].fetch.fresh", "was removed"),
        ("{ stale_for = \"8d\" }", "issuers[0].fetch.stale_for", "7"),
        ("{ stale_for = \"1s\" }", "issuers[0].fetch.stale_for", "at least"),
        ("{ proxy = \"http://proxy\" }", "issuers[0].fetch.proxy", "expected http://host:port"),
        ("{ ca = \"none.pem\" }", "issuers[0].fetch", "none.pem"),
    ] {
        let entry = provider.entry("kc", "discovery = true");
        let entry = entry.split("fetch =").next().unwrap().to_owned() + &format!("fetch = {fetch}\n");
        place.write_config(&config(&entry));
        let wrong = refused(&["check"]);
        assert!(wrong.contains(key) && wrong.contains(what), "{fetch}: {wrong}");
    }
}
