//! Limits by caller, in the program.

use http::{Method, StatusCode};

use super::reload::reload;
use support::{CONFIG, Place};

/// A route with this limit, before the route for all other paths.
fn config(limit: &str) -> String {
    let route = format!(
        "[[routes]]\nid = \"orders\"\npath = \"/orders/{{*rest}}\"\nupstream = \"app\"\n\
         rate = [{{ per = \"subject\", limit = \"{limit}\" }}]\n[[routes]]\npath = \"/{{*rest}}\""
    );
    CONFIG.replace("[[routes]]\npath = \"/{*rest}\"", &route)
}

#[tokio::test]
async fn k18_k21_k25_a_limit_refuses_is_told_counted_and_explained_and_a_reload_keeps_it() {
    let place = Place::new(&config("2/1h"));
    let gate = place.start();
    let tokens = gate.login().await;
    let ask = async || gate.get("/orders/1", &tokens.access).await;
    let passed = ask().await;
    assert_eq!((passed.status, passed.headers.get("ratelimit")), (StatusCode::OK, None));
    assert_eq!(ask().await.status, StatusCode::OK);
    let refused = ask().await;
    let header = |name: &str| refused.headers[name].to_str().unwrap();
    assert_eq!(
        (refused.status, header("ratelimit-policy")),
        (StatusCode::TOO_MANY_REQUESTS, "\"orders subject\";q=2;w=3600")
    );
    assert!(header("ratelimit").starts_with("\"orders subject\";r=0;t=1"), "{}", header("ratelimit"));
    assert_eq!(refused.json()["violated-policies"][0], "orders subject");
    assert_eq!(gate.get("/other", &tokens.access).await.status, StatusCode::OK, "other routes have none");
    assert_eq!(gate.metric("rotogate_rate_refused_total{name=\"orders subject\"}").await, 1);
    let subject = passed.echoed("x-auth-subject").remove(0);
    let log = gate.log();
    for mark in ["quota_exceeded", "attempt refused by a limit"] {
        let has = |line: &str, text: &str| line.contains(text);
        let is_told = |line: &str| has(line, mark) && has(line, "orders subject") && has(line, &subject);
        assert!(log.lines().any(is_told), "{mark}: {log}");
    }
    place.point_commands_at(&gate);
    let explained = place.run(&["--json", "explain", "--path", "/orders/1", "--method", "GET"], &tokens.access);
    assert!(
        explained.stdout.contains("orders subject: the next request is admitted in"),
        "{}{}",
        explained.stdout,
        explained.stderr
    );

    reload(&place, &gate, &config("3/1h")).await;
    let refused = ask().await;
    assert_eq!(
        (refused.status, refused.headers["ratelimit-policy"].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "\"orders subject\";q=3;w=3600")
    );
    assert_eq!(gate.metric("rotogate_rate_refused_total{name=\"orders subject\"}").await, 2);
    // Requests without a token do not count, and no caller is refused for another's requests.
    assert_eq!(gate.call(Method::GET, "/orders/1", &[], "").await.status, StatusCode::UNAUTHORIZED);
}
