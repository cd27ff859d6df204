//! `rotogate explain` where a newcomer was led astray: other names of this machine, routes without tokens, the wrong
//! token of the pair.

use http::{Method, StatusCode};
use serde_json::Value;

use support::{CONFIG, Gate, Place, keep_secret};

const MORE: &str = r#"
[api_keys]
[[endpoints]]
dialect = "browser"
path = "/auth"
[[routes]]
path = "/page"
credentials = ["session"]
upstream = "app"
[[routes]]
path = "/machine"
credentials = ["key"]
upstream = "app"
[[routes]]
path = "/either"
credentials = ["session", "key"]
upstream = "app"
"#;

fn world() -> (Place, Gate) {
    let place = Place::new(&format!("{CONFIG}{MORE}").replace("http://gate.test", "https://gate.test"));
    let gate = place.start();
    place.point_commands_at(&gate);
    (place, gate)
}

fn explain(place: &Place, arguments: &[&str], token: &str) -> Value {
    serde_json::from_str(&place.run(&[&["--json", "explain"], arguments].concat(), token).stdout).unwrap()
}

#[tokio::test]
async fn p58_loopback_names_are_explained_as_a_listener_on_loopback_answers_them() {
    let (place, gate) = world();
    let tokens = gate.login().await;
    keep_secret(&tokens.access);
    let bearer = format!("Bearer {}", tokens.access);
    for (host, expected) in [
        ("localhost", "passed"),
        ("localhost:8080", "passed"),
        ("127.0.0.1:9999", "passed"),
        ("foo.example", "unknown_host"),
    ] {
        let said = explain(&place, &["--path", "/x", "--host", host], &tokens.access);
        let headers = [("host", host), ("authorization", &*bearer)];
        let answer = gate.call(Method::GET, "/x", &headers, "").await;
        let status = if expected == "passed" { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST };
        assert_eq!(answer.status, status, "{host}");
        assert_eq!(if expected == "passed" { &said["decision"] } else { &said["outcome"] }, expected, "{host}: {said}");
    }
    // A client on another machine cannot reach that listener.
    let said = explain(&place, &["--path", "/x", "--host", "localhost", "--from", "192.0.2.7"], &tokens.access);
    assert_eq!(said["outcome"], "unknown_host", "{said}");
}

#[tokio::test]
async fn p58_advice_names_a_credential_that_the_route_accepts() {
    let (place, gate) = world();
    let tokens = gate.login().await;
    keep_secret(&tokens.access);
    keep_secret(&tokens.refresh);
    let failed = |said: &Value| {
        let rules = said["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["result"] == "fail").unwrap()["detail"].as_str().unwrap().to_owned()
    };
    for (path, lacks, accepts, advice) in [
        ("/page", "no session cookie was sent", "session", &["/auth/login", "--header 'cookie: __Host-Http-rg=…'"][..]),
        ("/machine", "no API key was sent", "key", &["Send an API key"]),
        ("/either", "no session cookie or API key was sent", "session, key", &["/auth/login", "Or send an API key"]),
    ] {
        let without = explain(&place, &["--path", path], "");
        let with = explain(&place, &["--path", path], &tokens.access);
        assert_eq!(failed(&without), lacks, "{path}");
        assert_eq!(
            failed(&with),
            format!("the request has an Authorization header, but the route accepts {accepts}"),
            "{path}"
        );
        for said in [&without["advice"], &with["advice"]].map(|advice| advice.as_str().unwrap()) {
            assert!(advice.iter().all(|part| said.contains(part)) && !said.contains("Bearer"), "{path}: {said}");
        }
    }
    let said = explain(&place, &["--path", "/x"], &tokens.refresh);
    assert_eq!(said["advice"], "This is a refresh token. Send the `access_token` of the same response.", "{said}");
}
