//! Users for whom another issuer vouched, by a login hook.

use std::fs;

use serde_json::json;
use support::pki::write_private;
use support::stub::Edge;
use support::{Place, with};

use super::http::{Hook, PASSWORD, PROVIDER, SECRET, json_answer, user};
use crate::edge::browser::{OWN, config, cookie, post_json};
use crate::edge::issuer::{Issuer, URL};

const FRESH: &str = r#"
[[routes]]
path = "/gold/{*rest}"
credentials = ["session"]
step_up = { max_age = "1h" }
upstream = "app"
"#;

/// Another issuer vouched for the user: the time of its login is the claim `auth_time`, or unknown.
#[test]
fn b36_n46_a_login_at_a_hook_that_is_not_young_enough_is_refused_and_no_circle() {
    let hook = Hook::start();
    let config = with(&format!("{}{PROVIDER}", config("", FRESH)), "directory", &hook.keys());
    let files = |place: &Place| {
        write_private(&place.path("hook.secret"), SECRET);
        fs::write(place.path("idp.json"), json!({ "keys": [Issuer::new(11).jwk("k1")] }).to_string()).unwrap();
    };
    let edge = Edge::with(&config, files, |_| {});
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let open = |cookie: &str, page: &str, more: &[&str]| {
        edge.ask(&format!("GET {page}"), &[&["Sec-Fetch-Site: same-origin", cookie], more].concat())
    };
    let tab = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
    for (claims, status) in
        [(json!({}), 401), (json!({ "auth_time": now - 7200 }), 401), (json!({ "auth_time": now }), 200)]
    {
        hook.says(move |_| {
            let mut user = user();
            user["vouched_by"] = json!({ "issuer": URL, "subject": "u-there" });
            user["claims"] = claims.clone();
            json_answer(&user)
        });
        let reply = post_json(&edge, &[OWN], &json!({ "username": "demo", "password": PASSWORD }));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let session = cookie(&reply);
        assert_eq!(open(&session, "/x", &tab).status, 200, "other routes do not mind");
        let reply = open(&session, "/gold/x", &tab);
        assert_eq!(reply.status, status, "{}", reply.text());
        // A script learns of no login either.
        let reply = open(&session, "/gold/x", &["Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"]);
        assert_eq!((reply.status, reply.text().contains("login\"")), (status, false), "{}", reply.text());
    }
    assert_eq!(open("X-None: 1", "/gold/x", &tab).status, 303, "without a session a tab is led to the login");
}
