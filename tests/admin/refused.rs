//! The last refused requests, and the figures of each route, on the page and in the API (requirements P71, P73).

use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Answer, Gate, Place, until, with};

use super::page::{Browser, OPERATOR, VIEWER, csrf, place, text};
use super::{Ask, admin_token, code};

/// A place whose gate trusts what the test says about the client's address.
fn behind_a_proxy() -> Place {
    let place = place();
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&with(&config, "server", "trusted_proxies = [\"127.0.0.1\"]"));
    place
}

/// A request from this address.
async fn from(gate: &Gate, address: &str, path: &str) -> Answer {
    gate.call(Method::GET, path, &[("x-forwarded-for", address)], "").await
}

fn id_of(answer: &Answer) -> String {
    answer.headers["x-request-id"].to_str().unwrap().to_owned()
}

async fn refused(gate: &Gate, token: &str, query: &str) -> Value {
    let answer = Ask::with(gate, token).get(&format!("/v1/refused?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn p73_a_refused_request_is_found_by_its_id_and_explained_by_a_button() {
    let place = place();
    let gate = place.start();
    assert!(refused(&gate, VIEWER, "").await["refused"].as_array().unwrap().is_empty());
    let passed = gate.call(Method::GET, "/public/x?page=s3cret", &[], "").await;
    assert_eq!(passed.status, StatusCode::OK);
    let other = gate.call(Method::GET, "/other", &[], "").await;
    let answer = gate.call(Method::GET, "/orders/7?page=s3cret&token=s3cret", &[("cookie", "a=s3cret")], "").await;
    assert_eq!((answer.status, other.status), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    let id = answer.json()["request_id"].as_str().unwrap().to_owned();
    assert_eq!(id, id_of(&answer), "an error names the id");

    let mut browser = Browser::signed_in(&gate, OPERATOR).await;
    let all = text(&browser.get("/ui/refused").await);
    assert!(
        all.find("GET /orders/7</code>").unwrap() < all.find("GET /other</code>").unwrap(),
        "the newest first: {all}"
    );
    assert!(!all.contains("/public/x") && !all.contains("s3cret"), "{all}");
    let found = text(&browser.get(&format!("/ui/refused?request_id=+{id}")).await);
    for part in ["GET /orders/7</code>", "with page, token", "1 of the 2 requests", "/ui/outcome?word=no_credential"] {
        assert!(found.contains(part), "{part}: {found}");
    }
    assert!(!found.contains("/other"), "{found}");
    for unknown in [id_of(&passed), id[1..].to_owned()] {
        let shown = text(&browser.get(&format!("/ui/refused?request_id={unknown}")).await);
        assert!(shown.contains("No request found") && shown.contains("0 of the 2"), "{shown}");
    }

    // The button fills in the form, and the form explains.
    let button = found.split("<form method=\"get\" action=\"/ui/explain\">").nth(1).unwrap();
    let button = button.split("</form>").next().unwrap();
    let fields: Vec<(&str, &str)> = ["method", "path", "host"]
        .map(|name| {
            (name, button.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap().split('"').next().unwrap())
        })
        .into();
    let host = gate.address.to_string();
    assert_eq!(fields, [("method", "GET"), ("path", "/orders/7"), ("host", &*host)]);
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
    let form = browser.get(&format!("/ui/explain?{query}")).await;
    let shown = text(&form);
    for (name, value) in &fields {
        assert!(shown.contains(&format!("name=\"{name}\" value=\"{value}\"")), "{name}: {shown}");
    }
    let own = csrf(&form);
    let explained = text(&browser.post("/ui/explain", &[&fields[..], &[("csrf", &own)]].concat()).await);
    assert!(
        explained.contains("This request is refused with 401") && explained.contains("no_credential"),
        "{explained}"
    );
    // The outcome's page leads back.
    let outcome = text(&browser.get("/ui/outcome?word=no_credential").await);
    assert!(outcome.contains("href=\"/ui/refused?outcome=no_credential\""), "{outcome}");
}

#[tokio::test]
async fn p73_a_viewer_sees_no_address_and_one_address_displaces_only_its_own_requests() {
    let place = behind_a_proxy();
    let gate = place.start();
    let first = from(&gate, "203.0.113.1", "/x").await;
    assert_eq!(first.status, StatusCode::UNAUTHORIZED);
    let others = ["203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5"];
    for other in others {
        for _ in 0..70 {
            assert_eq!(from(&gate, other, "/x").await.status, StatusCode::UNAUTHORIZED);
        }
    }
    let listed = refused(&gate, OPERATOR, "limit=1000").await;
    let all = listed["refused"].as_array().unwrap();
    let number = |address: &str| all.iter().filter(|it| it["address"] == address).count();
    assert_eq!((number("203.0.113.1"), number("203.0.113.2"), all.len()), (1, 64, 257), "{listed}");
    assert_eq!(all[256]["request_id"], id_of(&first), "the oldest is last");

    let listed = refused(&gate, VIEWER, "limit=1000").await;
    assert_eq!(listed["kept"], 257);
    assert!(listed["refused"].as_array().unwrap().iter().all(|it| it["address"].is_null()), "{listed}");
    assert!(!listed.to_string().contains("203.0.113."), "{listed}");
    for (token, is_shown) in [(VIEWER, false), (OPERATOR, true)] {
        let mut browser = Browser::signed_in(&gate, token).await;
        let shown = text(&browser.get("/ui/refused").await);
        assert!(shown.contains("GET /x</code>"), "{shown}");
        for part in ["203.0.113.2", "title=\"From ", "action=\"/ui/explain\""] {
            assert_eq!(shown.contains(part), is_shown, "{part}: {shown}");
        }
        // Requests of one caller that repeat share a row.
        let rows = shown.matches("<td data-label=\"Time\">").count();
        assert_eq!(rows, if is_shown { others.len() } else { 1 }, "{shown}");
        assert!(shown.contains("<p>63 more, the first ") == is_shown, "{shown}");
        // The second page has the rest.
        let older = shown.split("<a href=\"/ui/refused?before=").nth(1).unwrap().split('"').next().unwrap();
        let rest = text(&browser.get(&format!("/ui/refused?before={older}")).await);
        let requests = |shown: &str| shown.matches("<span class=\"id\" title=\"").count();
        assert_eq!((requests(&shown), requests(&rest)), (200, 57), "{rest}");
        assert!(rest.contains(&id_of(&first)) && !rest.contains("rel=\"next\""), "{rest}");
    }
}

#[tokio::test]
async fn p73_requests_are_found_by_outcome_route_and_caller() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let place = place();
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&format!(
        "{config}[[upstreams]]\nname = \"dead\"\nurls = [\"http://{address}\"]\n\
         [[routes]]\npath = \"/dead/{{*rest}}\"\nauth = \"none\"\nupstream = \"dead\"\n\
         [[routes]]\nid = \"writes\"\npath = \"/orders\"\nscopes = [\"orders\"]\nupstream = \"app\"\n"
    ));
    drop(listener);
    let gate = place.start();
    let user = gate.login().await;
    assert_eq!(gate.get("/orders", &user.access).await.status, StatusCode::FORBIDDEN);
    // Nobody has verified who sent this token.
    let mut forged = user.access.clone();
    forged.replace_range(forged.len() - 8..forged.len() - 4, "AAAA");
    assert_eq!(gate.get("/orders", &forged).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.call(Method::GET, "/dead/x", &[], "").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(gate.log_in("demo", "a wrong password").await.status, StatusCode::BAD_REQUEST);

    let listed = refused(&gate, OPERATOR, "").await;
    let outcomes: Vec<_> = listed["refused"].as_array().unwrap().iter().map(|it| it["outcome"].clone()).collect();
    assert_eq!(outcomes, ["wrong_password", "upstream_unreachable", "bad_signature", "insufficient_scope"], "{listed}");
    let scope = &listed["refused"][3];
    let subject = scope["subject"].as_str().unwrap();
    let expected = json!(["writes", "/orders", "demo", "web", 403, "GET", null]);
    let fields = ["route", "pattern", "user", "client", "status", "method", "upstream"];
    assert_eq!(Value::from_iter(fields.map(|name| scope[name].clone())), expected, "{scope}");
    assert_eq!(listed["refused"][1]["upstream"], "dead", "{listed}");
    assert!(listed["refused"][2]["subject"].is_null(), "{listed}");
    for (query, expected) in [
        ("outcome=upstream_unreachable", &["upstream_unreachable"][..]),
        ("route=writes", &["bad_signature", "insufficient_scope"]),
        ("route=%2Forders&outcome=insufficient_scope", &["insufficient_scope"]),
        ("route=_endpoint", &["wrong_password"]),
        ("caller=demo", &["insufficient_scope"]),
        ("caller=web&route=writes", &["insufficient_scope"]),
        (&format!("caller={subject}"), &["insufficient_scope"]),
        ("caller=nobody", &[]),
        ("caller=", &[]),
    ] {
        let listed = refused(&gate, VIEWER, query).await;
        let found: Vec<_> = listed["refused"].as_array().unwrap().iter().map(|it| it["outcome"].clone()).collect();
        assert_eq!(found, expected, "{query}: {listed}");
        assert_eq!(listed["matched"], expected.len(), "{query}: {listed}");
    }
    let page = refused(&gate, VIEWER, "limit=3").await;
    let last = refused(&gate, VIEWER, &format!("limit=3&before={}", page["next"].as_str().unwrap())).await;
    assert_eq!(last["refused"].as_array().unwrap().len(), 1, "{last}");
    assert!(last["next"].is_null() && last["refused"][0]["outcome"] == "insufficient_scope", "{last}");
    for wrong in ["before=x", "limit=0", "limit=1001"] {
        let answer = Ask::with(&gate, VIEWER).get(&format!("/v1/refused?{wrong}")).await;
        assert_eq!((answer.status, &*code(&answer)), (StatusCode::BAD_REQUEST, "invalid_parameter"), "{wrong}");
    }
    let shown = text(&Browser::signed_in(&gate, VIEWER).await.get("/ui/refused?caller=demo").await);
    assert!(shown.contains("\">demo</a>") && shown.contains("client web"), "{shown}");
}

#[tokio::test]
async fn p71_each_route_has_its_requests_errors_and_p99_and_leads_to_its_refused_requests() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let place = place();
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&format!(
        "{config}[[upstreams]]\nname = \"dead\"\nurls = [\"http://{address}\"]\n\
         [[routes]]\nid = \"dead\"\npath = \"/dead/{{*rest}}\"\nupstream = \"dead\"\n"
    ));
    drop(listener);
    let gate = place.start();
    let (user, token) = (gate.login().await, admin_token(&place));
    let dead =
        |listed: &Value| listed["routes"].as_array().unwrap().iter().find(|it| it["id"] == "dead").unwrap().clone();
    let mut route = Value::Null;
    // The gate takes its first reading when it has started.
    until("the figures have one more refusal and one more error", async || {
        assert_eq!(gate.get("/dead/x", &user.access).await.status, StatusCode::BAD_GATEWAY);
        assert_eq!(gate.call(Method::GET, "/dead/x", &[], "").await.status, StatusCode::UNAUTHORIZED);
        route = dead(&Ask::with(&gate, &token).get("/v1/routes").await.json());
        route["errors"] != 0 && route["refused"] != 0
    })
    .await;
    let number = |name: &str| route[name].as_u64().unwrap();
    assert_eq!(number("requests"), number("errors") + number("refused"), "{route}");
    assert!(route["p99_seconds"].as_f64().unwrap() > 0.0, "{route}");
    let shown = text(&Browser::signed_in(&gate, VIEWER).await.get("/ui/routes").await);
    let row = shown.split("<th scope=\"row\" class=\"long\">dead</th>").nth(1).unwrap().split("</tr>").next().unwrap();
    for part in [
        format!("data-label=\"Requests\" class=\"number\">{}<", number("requests")),
        format!("data-label=\"Errors\" class=\"number\"><a href=\"/ui/refused?route=dead\">{}</a>", number("errors")),
        format!("<a href=\"/ui/refused?route=dead\">{}</a>", number("refused")),
        " ms</td>".to_owned(),
    ] {
        assert!(row.contains(&part), "{part}: {row}");
    }
    assert!(shown.contains(">the gate&#39;s endpoints</th>"), "the login: {shown}");
}
