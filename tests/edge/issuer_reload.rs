//! SIGHUP with other `[[issuers]]`.

use serde_json::json;

use super::introspection::Server;
use super::issuer::{Issuer, claims, header};
use super::long_replies::{begun, is_cut};
use super::remote_keys::{Provider, ROUTES, edge, status};
use support::stub::{Edge, HEAD};
use support::until;

const TAKEN: &str = "configuration reloaded";

/// Sends SIGHUP with these entries, and waits for `said` to be in the log once more.
async fn reload(edge: &Edge, entries: &str, said: &str) {
    let before = edge.gate.log().matches(said).count();
    let config = format!("{HEAD}{ROUTES}{entries}").replace("@upstream@", &edge.stub.address.to_string());
    edge.place.write_config(&config);
    edge.gate.signal("HUP");
    until(&format!("the log says: {said}"), async || edge.gate.log().matches(said).count() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i44_a_reload_takes_issuers_that_come_leave_and_change_and_the_others_go_on() {
    let key = Issuer::new(1);
    let providers = [(); 3].map(|()| Provider::start());
    providers.iter().for_each(|provider| provider.publish(&[key.jwk("k1")]));
    let [stays, leaves, comes] = &providers;
    let entry = |provider: &Provider, name: &str| provider.entry(name, "discovery = true");
    let edge = edge(&format!("{}{}", entry(stays, "stays"), entry(leaves, "leaves")));
    let tokens = [stays, leaves, comes].map(|provider| provider.token(&key, "k1"));
    let statuses = || tokens.each_ref().map(|token| status(&edge, token));
    assert_eq!(statuses(), [200, 200, 401]);
    let stream = begun(&edge, "/events/parts", &tokens[1]);
    let fetched = stays.fetches();
    assert_eq!(edge.gate.metric("rotogate_verified_tokens").await, 2);

    let two = format!("{}{}", entry(comes, "comes"), entry(stays, "stays"));
    reload(&edge, &two, TAKEN).await;
    let log = edge.gate.log();
    assert!(log.contains("added=comes removed=leaves\n"), "{log}");
    assert!(!log.contains("restart needed"), "{log}");
    assert_eq!(edge.gate.metric("rotogate_verified_tokens").await, 1, "the token of the one that stays is still there");
    assert_eq!(statuses(), [200, 401, 200], "from the cache, too");
    is_cut(stream);
    edge.stub.push(b"");
    assert_eq!(stays.fetches(), fetched, "its task goes on");
    let metrics = String::from_utf8(edge.gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("issuer=\"comes\"") && !metrics.contains("issuer=\"leaves\""), "{metrics}");

    // A change of only the rules: the gate does not fetch the keys again.
    let other = two.replace(&entry(comes, "comes"), &entry(comes, "comes").replace("[\"api\"]", "[\"other\"]"));
    let fetched = comes.fetches();
    reload(&edge, &other, TAKEN).await;
    assert_eq!((statuses(), comes.fetches()), ([200, 401, 401], fetched));
    // Another address with other keys.
    let new = Issuer::new(2);
    comes.document("/others", &json!({ "keys": [new.jwk("k1")] }));
    let elsewhere = format!("jwks_url = \"{}\"", comes.at("/others"));
    let moved = format!("{}{}", comes.entry("comes", &elsewhere), entry(stays, "stays"));
    reload(&edge, &moved, TAKEN).await;
    let [of_stays, of_leaves, _] = statuses();
    // The key may have replaced the one of its name since the last answer, so only an older token is refused for good.
    let then = claims(&json!({}))["iat"].as_u64().unwrap() - 300;
    let of_comes = key.sign(&header(), &claims(&json!({ "iss": comes.url(), "iat": then })));
    let of_new = comes.token(&new, "k1");
    assert_eq!((of_stays, of_leaves, status(&edge, &of_comes), status(&edge, &of_new)), (200, 401, 401, 200));
    assert_eq!(comes.fetches(), fetched, "the old place is not asked any more");
    assert_eq!(stays.fetches(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i44_a_mistake_in_an_issuer_leaves_all_of_the_old_configuration_in_force() {
    let key = Issuer::new(1);
    let [one, two] = [(); 2].map(|()| Provider::start());
    [&one, &two].into_iter().for_each(|provider| provider.publish(&[key.jwk("k1")]));
    let entry = |provider: &Provider, name: &str| provider.entry(name, "discovery = true");
    let edge = edge(&entry(&one, "one"));
    let tokens = [&one, &two].map(|provider| provider.token(&key, "k1"));
    for (source, said) in [
        ("jwks_file = \"none.json\"", "none.json"),
        ("jwks_url = \"http://id.example.com/k\"", "issuers[0].jwks_url: "),
        ("discovery = true\ntyp = []", "issuers[0].typ: is empty"),
    ] {
        // Besides the mistake, the configuration adds an issuer.
        let entries = format!("{}{}", one.entry("one", source).replace("\nfetch", "\n#fetch"), entry(&two, "two"));
        reload(&edge, &entries, said).await;
        assert_eq!(tokens.each_ref().map(|token| status(&edge, token)), [200, 401], "{source}");
    }
    assert!(!edge.gate.log().contains(TAKEN));
    assert_eq!(two.fetches(), 0, "it was not asked");
    reload(&edge, &format!("{}{}", entry(&one, "one"), entry(&two, "two")), TAKEN).await;
    assert_eq!(tokens.each_ref().map(|token| status(&edge, token)), [200, 200]);
    assert_eq!(one.fetches(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_i44_the_first_issuer_is_told_to_upstreams_from_its_first_token_on() {
    let provider = Provider::start();
    let key = Issuer::new(1);
    provider.publish(&[key.jwk("k1")]);
    let edge = edge("");
    let token = provider.token(&key, "k1");
    assert_eq!(status(&edge, &token), 401);
    reload(&edge, &provider.entry("kc", "discovery = true"), TAKEN).await;
    assert!(!edge.gate.log().contains("restart needed"), "{}", edge.gate.log());
    assert_eq!(edge.ask_as(&token, "GET /x", &["X-Auth-Issuer: https://other.test"]).status, 200);
    let [received] = &edge.stub.take()[..] else { panic!("one request") };
    assert_eq!(received.all("x-auth-issuer"), [provider.url()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i21_i44_introspected_tokens_of_an_issuer_that_stays_are_not_asked_about_again() {
    let (one, two) = (Server::start(), Server::start());
    let entry = |server: &Server, name: &str, prefix: &str, more: &str| {
        format!(
            "[[issuers]]\nname = \"{name}\"\nurl = \"https://{name}.test\"\naudience = [\"api\"]\neverywhere = true\n\
             introspection = {{ url = \"{}\", client_id = \"gate\", secret_file = \"idp.secret\", prefix = \"{prefix}\"{more} }}\n",
            server.url()
        )
    };
    for (server, name, token) in [(&one, "one", "a_1"), (&two, "two", "b_1")] {
        let issuer = format!("https://{name}.test");
        server.says(token, &super::introspection::active(&json!({ "iss": issuer })));
    }
    let both = format!("{}{}", entry(&one, "one", "a_", ""), entry(&two, "two", "b_", ""));
    let config = format!("{HEAD}{ROUTES}{both}");
    let edge = Edge::with(&config, |place| super::introspection::files(place, "secret"), |_| {});
    let statuses = || ["a_1", "b_1"].map(|token| status(&edge, token));
    assert_eq!(statuses(), [200, 200]);
    assert_eq!([one.asked().len(), two.asked().len()], [1, 1]);
    // The second issuer changes.
    let other = format!("{}{}", entry(&one, "one", "a_", ""), entry(&two, "two", "b_", ", cache = \"20s\""));
    reload(&edge, &other, TAKEN).await;
    assert_eq!(statuses(), [200, 200]);
    assert_eq!([one.asked().len(), two.asked().len()], [0, 1]);
    // The second issuer is removed.
    reload(&edge, &entry(&one, "one", "a_", ""), TAKEN).await;
    assert_eq!(statuses(), [200, 401]);
    assert_eq!([one.asked().len(), two.asked().len()], [0, 0]);
}
