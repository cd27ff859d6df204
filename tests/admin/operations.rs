//! The effect of each operation.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{CONFIG, Gate, Place, Tokens, raw, until, with};

use super::{Ask, admin_token, code, events};

fn sid(place: &Place, tokens: &Tokens) -> String {
    place.json(&["token", "inspect"], &tokens.refresh)["session"].as_str().unwrap().to_owned()
}

async fn lives(gate: &Gate, tokens: &Tokens) -> bool {
    gate.get("/x", &tokens.access).await.status == StatusCode::OK
}

#[tokio::test]
async fn p10_p11_a_revocation_ends_what_its_target_names_and_nothing_for_an_unknown_one() {
    let place = Place::new(&format!("{CONFIG}[[clients]]\nid = \"app\"\n[[clients]]\nid = \"idle\"\n"));
    let gate = place.start();
    let token = admin_token(&place);
    let admin = Ask::with(&gate, &token);
    let first = gate.login().await;
    let shown = admin.get(&format!("/v1/sessions/{}", sid(&place, &first))).await.json();
    let subject = shown["subject"].as_str().unwrap();

    // A request with an unknown target, or not with exactly one, ends nothing.
    for (body, status, expected) in [
        (json!({"user": "nobody"}), 404, "unknown_target"),
        (json!({"user": "demo", "account": "acme"}), 404, "unknown_target"),
        (json!({"subject": "demo"}), 404, "unknown_target"),
        (json!({"client": "nobody"}), 404, "unknown_target"),
        (json!({"account": "nobody"}), 404, "unknown_target"),
        (json!({"token": {"jti": "t-1"}}), 404, "unknown_target"),
        (json!({"subject": subject, "issuer": "nobody", "force": true}), 404, "unknown_target"),
        (json!({}), 400, "invalid_body"),
        (json!({"force": true}), 400, "invalid_body"),
        (json!({"all": false}), 400, "invalid_body"),
        (json!({"user": ""}), 400, "invalid_body"),
        (json!({"user": "demo", "client": "web"}), 400, "invalid_body"),
        (json!({"all": true, "client": "web"}), 400, "invalid_body"),
        (json!({"client": "web", "issuer": "x"}), 400, "invalid_body"),
        (json!({"usr": "demo"}), 400, "invalid_body"),
        (json!([]), 400, "invalid_body"),
    ] {
        let answer = admin.post("/v1/revocations", &body.to_string()).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (status, expected), "{body}");
    }
    for (body, media, status, expected) in [
        ("{", "application/json", 400, "invalid_body"),
        ("{\"all\":true}", "text/plain", 415, "unsupported_media_type"),
        ("all=true", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ] {
        let answer = Ask::with(&gate, &token).header("content-type", media).post("/v1/revocations", body).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (status, expected), "{body}");
    }
    let long = format!("{{\"user\":\"{}\"}}", "x".repeat(65 << 10));
    let answer = admin.post("/v1/revocations", &long).await;
    assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_long"));
    let answer = admin.post("/v1/revocations?all", "{\"all\":true}").await;
    assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::BAD_REQUEST, "invalid_parameter"));
    assert!(lives(&gate, &first).await);
    let listed = admin.get("/v1/revocations").await.json();
    assert_eq!(listed, json!({"revocations": [], "total": 0}));

    // Each target, first as a dry run.
    for target in [json!({"user": "demo"}), json!({"subject": subject}), json!({"client": "web"}), json!({"all": true})]
    {
        let held = gate.login().await;
        let mut dry = target.clone();
        dry["dry_run"] = true.into();
        let would = admin.post("/v1/revocations", &dry.to_string()).await.json();
        assert!(lives(&gate, &held).await, "{target}");
        let did = admin.post("/v1/revocations", &target.to_string()).await.json();
        assert_eq!((&would["matched"], &would["ended"]), (&did["matched"], &did["ended"]), "{target}");
        assert_eq!((would["dry_run"].as_bool(), did["dry_run"].as_bool()), (Some(true), None));
        assert!(did["ended"].as_u64().unwrap() >= 1 && did["not_before"].is_string(), "{did}");
        assert!(!lives(&gate, &held).await, "{target}");
    }
    let idle = admin.post("/v1/revocations", &json!({"client": "idle"}).to_string()).await;
    assert_eq!((idle.status, &idle.json()["ended"]), (StatusCode::OK, &0.into()), "known, without a session");
    // A target that only its issuer knows needs `force`.
    for forced in [json!({"subject": "ghost", "force": true}), json!({"token": {"jti": "t-1"}, "force": true})] {
        assert_eq!(admin.post("/v1/revocations", &forced.to_string()).await.status, StatusCode::OK, "{forced}");
    }
    let kinds = async |query: &str| {
        let listed = admin.get(&format!("/v1/revocations?{query}")).await.json();
        let entries = listed["revocations"].as_array().unwrap();
        let mut kinds: Vec<_> = entries.iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds("").await, ["all", "client", "client", "subject", "subject", "token"]);
    assert_eq!(kinds("kind=token").await, ["token"]);
    assert_eq!(kinds("limit=1").await.len(), 1);
    for wrong in ["kind=x", "limit=0", "x=1"] {
        assert_eq!(admin.get(&format!("/v1/revocations?{wrong}")).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn the_sessions_of_an_account_end_and_no_others() {
    let place = Place::new(CONFIG);
    place.done(&["user", "add", "ada", "--account", "acme", "--stdin"], "correct horse battery");
    place.done(&["user", "add", "bob", "--account", "other", "--stdin"], "correct horse battery");
    let gate = place.start();
    let token = admin_token(&place);
    let admin = Ask::with(&gate, &token);
    let log_in = async |username: &str, account: &str| {
        let fields = [("client_id", "web"), ("grant_type", "password"), ("username", username)];
        let fields = [&fields[..], &[("password", "correct horse battery")]].concat();
        gate.form(&format!("/{account}/connect/token"), &fields).await.tokens()
    };
    let (ada, bob) = (log_in("ada", "acme").await, log_in("bob", "other").await);
    let answer = admin.post("/v1/revocations", "{\"account\":\"acme\"}").await.json();
    assert_eq!((&answer["matched"], &answer["ended"]), (&1.into(), &1.into()));
    assert!(!lives(&gate, &ada).await && lives(&gate, &bob).await);
    let listed = admin.get("/v1/sessions?account=acme").await.json();
    assert_eq!(listed["sessions"][0]["status"], "operator", "{listed}");
}

#[tokio::test]
async fn a_reload_says_what_came_of_it_and_a_broken_file_changes_nothing() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let token = admin_token(&place);
    let admin = Ask::with(&gate, &token);
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();

    place.write_config(&with(&config, "server", "max_connections = 77\nworkers = 3\ndrain_timeout = \"2s\""));
    let checked = admin.post("/v1/config/check", "").await.json();
    assert_eq!((&checked["ok"], &checked["errors"]), (&true.into(), &json!([])), "{checked}");
    assert_eq!(checked["changed"], json!(["server.max_connections", "server.workers"]), "{checked}");
    assert_eq!((&checked["changes"][0]["new"], &checked["changes"][0]["restart"]), (&77.into(), &false.into()));
    assert_eq!((&checked["changes"][1]["new"], &checked["changes"][1]["restart"]), (&3.into(), &true.into()));
    let reloaded = admin.post("/v1/config/reload", "").await;
    assert_eq!(reloaded.status, StatusCode::OK, "{reloaded:?}");
    let reloaded = reloaded.json();
    assert_eq!(reloaded["applied"], json!(["server.max_connections"]));
    assert_eq!(reloaded["restart_needed"], json!(["server.workers"]));
    let value = async |key: &str| {
        let values = admin.get("/v1/config").await.json()["values"].as_array().unwrap().clone();
        values.into_iter().find(|value| value["key"] == key).unwrap_or_else(|| panic!("{key}"))
    };
    let line = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    let line = line.lines().position(|line| line.starts_with("max_connections")).unwrap() + 1;
    const KEY: &str = "server.max_connections";
    assert_eq!(value(KEY).await, json!({"key": KEY, "value": 77, "source": "file", "line": line}));
    assert_eq!(value("server.max_head").await["source"], "default");
    let lines = events(&gate, &token, "action=config.reload").await;
    assert_eq!((lines.len(), &lines[0]["rotogate.actor"]), (1, &"default".into()), "{lines:?}");

    place.write_config(&with(&config, "server", "max_connections = 99\nworkres = 3"));
    let checked = admin.post("/v1/config/check", "").await.json();
    assert_eq!((&checked["ok"], &checked["errors"][0]["key"]), (&false.into(), &"server.workres".into()), "{checked}");
    let refused = admin.post("/v1/config/reload", "").await;
    assert_eq!((refused.status, code(&refused).as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_configuration"));
    let error = &refused.json()["errors"][0];
    assert!(error["detail"].as_str().unwrap().contains("did you mean workers?"), "{error}");
    assert!(error["line"].is_number(), "{error}");
    assert_eq!(value(KEY).await["value"], 77);
    let status = admin.get("/v1/status").await.json();
    let of_file = status["reloads"].as_array().unwrap().iter().find(|one| one["source"] == "configuration").unwrap();
    assert_eq!(of_file["refused"], true, "{status}");
}

#[tokio::test]
async fn a_value_of_the_environment_is_said_to_be_from_there_and_secrets_are_masked() {
    let config = format!("{CONFIG}[[clients]]\nid = \"service\"\nsecret_hash = \"HASH\"\n");
    let place = Place::new(CONFIG);
    let made = place.json(&["client", "secret"], "");
    support::keep_secret(made["client_secret"].as_str().unwrap());
    let hash = made["secret_hash"].as_str().unwrap();
    place.write_config(&config.replace("HASH", hash));
    let gate = place.start_with(|command| {
        command.env("ROTOGATE_SERVER__DRAIN_TIMEOUT", "3s");
    });
    let shown = Ask::with(&gate, &admin_token(&place)).get("/v1/config").await;
    assert!(!String::from_utf8_lossy(&shown.body).contains(hash));
    let shown = shown.json();
    let values = shown["values"].as_array().unwrap();
    let value = |key: &str| values.iter().find(|value| value["key"] == key).unwrap();
    assert_eq!(value("clients[1].secret_hash")["value"], "(masked)");
    let drain = value("server.drain_timeout");
    assert_eq!(
        (&drain["source"], &drain["variable"]),
        (&"environment".into(), &"ROTOGATE_SERVER__DRAIN_TIMEOUT".into())
    );
    // The text equals the command's output, and is a configuration.
    place.write_config(shown["toml"].as_str().unwrap());
    let printed: toml::Table = place.done(&["check", "--print"], "").stdout.parse().unwrap();
    assert_eq!(printed, shown["toml"].as_str().unwrap().parse().unwrap());
}

#[tokio::test]
async fn status_keys_routes_and_upstreams_are_those_in_force() {
    let routes = "[[routes]]\npath = \"/orders/{id}\"\nupstream = \"app\"\nmethods = [\"GET\"]\nscopes = [\"read\"]\n";
    let place = Place::new(&format!("{CONFIG}{routes}"));
    let gate = place.start();
    let token = admin_token(&place);
    let admin = Ask::with(&gate, &token);
    let status = admin.get("/v1/status").await.json();
    assert_eq!((&status["ready"], &status["store"]), (&true.into(), &json!({"kind": "redb", "up": true})), "{status}");
    assert_eq!(status["pid"], gate.child.id());
    let listed = admin.get("/v1/routes").await.json();
    let paths: Vec<_> = listed["routes"].as_array().unwrap().iter().map(|route| route["path"].clone()).collect();
    assert_eq!(paths, ["/orders/{id}", "/public/{*rest}", "/{*rest}"], "in the order of match");
    let orders = &listed["routes"][0];
    assert_eq!(
        (&orders["auth"], &orders["scopes"], &orders["upstream"]),
        (&"required".into(), &json!(["read"]), &"app".into())
    );
    let upstreams = admin.get("/v1/upstreams").await.json();
    assert_eq!(upstreams["upstreams"][0]["addresses"][0]["state"], "up", "{upstreams}");
    let keys = admin.get("/v1/keys").await.json();
    let listed = place.json_lines(&["keys", "list"]);
    assert_eq!((&keys["keys"][0]["kid"], &keys["keys"][0]["state"]), (&listed[0]["kid"], &"signing".into()));
    assert_eq!((&keys["refresh"][0]["kid"], &keys["refresh"][0]["state"]), (&"refresh-1".into(), &"signing".into()));
}

#[tokio::test]
async fn p17_keys_change_by_the_api_with_the_rules_of_the_command_line() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let token = admin_token(&place);
    let admin = Ask::with(&gate, &token);
    let held = gate.login().await;
    let first = admin.get("/v1/keys").await.json()["keys"][0]["kid"].as_str().unwrap().to_owned();

    let added = admin.post("/v1/keys/rotate", "{\"algorithm\": \"ES256\"}").await;
    assert_eq!((added.status, added.json()["signs_after"].as_u64()), (StatusCode::ACCEPTED, Some(300)));
    let kid = added.json()["kid"].as_str().unwrap().to_owned();
    until("it is published", async || {
        let jwks = gate.call(Method::GET, "/.well-known/jwks.json", &[], "").await.json();
        jwks["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid.as_str())
    })
    .await;
    for (path, body, status, expected) in [
        ("/v1/keys/rotate", "{}", 409, "key_in_use"),
        ("/v1/keys/rotate", "{\"algorithm\": \"none\"}", 400, "invalid_body"),
        (&format!("/v1/keys/{kid}/promote"), "{}", 409, "key_in_use"),
        (&format!("/v1/keys/{first}/retire"), "{}", 409, "key_in_use"),
        ("/v1/keys/other/promote", "{}", 404, "unknown_key"),
        ("/v1/keys/refresh-7/retire", "{}", 404, "unknown_key"),
    ] {
        let answer = admin.post(path, body).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (status, expected), "{path} {body}: {answer:?}");
    }
    let forced = admin.post(&format!("/v1/keys/{kid}/promote"), "{\"force\": true}").await;
    assert_eq!((forced.status, &forced.json()["state"]), (StatusCode::OK, &"signing".into()));
    until("it signs", async || {
        let keys = admin.get("/v1/keys").await.json();
        keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid.as_str() && key["state"] == "signing")
    })
    .await;
    assert_eq!(gate.get("/", &held.access).await.status, StatusCode::OK, "tokens of the former key are good");
    let early = admin.post(&format!("/v1/keys/{first}/retire"), "{}").await;
    assert!(
        early.json()["detail"].as_str().unwrap().contains("access tokens that it signed may be in use"),
        "{early:?}"
    );
    let gone = admin.post(&format!("/v1/keys/{first}/retire"), "{\"force\": true}").await;
    assert_eq!((gone.status, &gone.json()["state"]), (StatusCode::OK, &"retired".into()));
    gate.until_refused(&held.access).await;
    let actors = events(&gate, &token, "action=key.promote").await;
    assert!(actors.iter().any(|line| line["rotogate.actor"] == "default"), "{actors:#?}");
}

#[tokio::test]
async fn events_are_the_last_lines_of_the_audit_trail_and_can_be_followed() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let token = admin_token(&place);
    let held = gate.login().await;
    let id = sid(&place, &held);
    let began = events(&gate, &token, &format!("session={id}")).await;
    assert_eq!(began.iter().map(|line| &line["event.action"]).collect::<Vec<_>>(), ["session.start"]);
    let subject = began[0]["user.id"].as_str().unwrap();
    assert_eq!(events(&gate, &token, &format!("subject={subject}&action=session.start")).await, began);
    assert_eq!(events(&gate, &token, "action=process.start").await.len(), 1);
    let last = Ask::with(&gate, &token).get("/v1/events?limit=1").await.json();
    assert_eq!(last["events"], Value::Array(began));

    // Follows the events: past and new ones.
    let (admin, path) = (gate.admin, format!("/v1/events?session={id}"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
    );
    let mut stream = std::net::TcpStream::connect(admin).unwrap();
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut text = Vec::new();
    let mut has = async |what: &str| {
        until(what, async || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = std::io::Read::read(&mut stream, &mut bytes) {
                text.extend_from_slice(&bytes[..read]);
            }
            String::from_utf8_lossy(&text).contains(what)
        })
        .await;
    };
    has("\"event.action\":\"session.start\"").await;
    gate.login().await;
    Ask::with(&gate, &token).post(&format!("/v1/sessions/{id}/revoke"), "").await;
    has("\"event.action\":\"revocation\"").await;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("content-type: text/event-stream"), "{text}");
    assert_eq!(text.matches("data: ").count(), 2, "of that session alone: {text}");
    let refused = raw(admin, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
}
