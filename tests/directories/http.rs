//! A login hook that keeps its contract, and one that breaks it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use serde_json::{Value, json};
use support::pki::write_private;
use support::{Gate, Place, keep_secret, until, with};

use crate::edge::issuer::{Issuer, URL, claims};
use crate::rotation_table::dialects::dialects;
use crate::rotation_table::{config, passes};

pub(super) const PASSWORD: &str = "correct horse battery";
pub(super) const SECRET: &str = "hook-secret-of-this-test";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    headers: Vec<(String, String)>,
    pub(super) body: Value,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The answer: the bytes before the connection is closed, or `None` for no answer during the test.
type Script = dyn Fn(&Asked) -> Option<Vec<u8>> + Send + Sync;

pub(super) struct Hook {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Mutex<Arc<Script>>>,
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(super) fn json_answer(body: &Value) -> Option<Vec<u8>> {
    Some(answer("200 OK", &body.to_string()))
}

pub(super) fn user() -> Value {
    json!({"active": true, "subject": "u-1", "scopes": ["read", "write"], "profile": {"email": "demo@example.com"}})
}

/// One user, `demo`, in no account.
fn honest(asked: &Asked) -> Option<Vec<u8>> {
    let is_it = match asked.path.as_str() {
        "/hook/authenticate" => asked.body["username"] == "demo" && asked.body["password"] == PASSWORD,
        _ => asked.body["subject"] == "u-1",
    };
    json_answer(&if is_it { user() } else { json!({"active": false}) })
}

impl Hook {
    pub(super) fn start() -> Self {
        keep_secret(PASSWORD);
        keep_secret(SECRET);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(honest)));
        let (seen, said) = (Arc::clone(&asked), Arc::clone(&script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, said) = (Arc::clone(&seen), Arc::clone(&said));
                std::thread::spawn(move || serve(&stream.unwrap(), &seen, &said));
            }
        });
        Self { port, asked, script }
    }

    pub(super) fn says(&self, script: impl Fn(&Asked) -> Option<Vec<u8>> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    fn says_bytes(&self, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.says(move |_| Some(bytes.clone()));
    }

    /// The requests since the last call.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    pub(super) fn keys(&self) -> String {
        format!(
            "kind = \"http\"\nurl = \"http://127.0.0.1:{}/hook\"\nsecret_file = \"hook.secret\"\ntimeout = \"1s\"\n",
            self.port
        )
    }

    fn place(&self, config: &str, keys: &str) -> Place {
        let place = Place::new(&with(config, "directory", &format!("{}{keys}", self.keys())));
        write_private(&place.path("hook.secret"), &format!("{SECRET}\n"));
        place
    }

    fn gate(&self) -> (Place, Gate) {
        let place = self.place(support::CONFIG, "");
        let gate = start(&place);
        (place, gate)
    }
}

pub(super) fn start(place: &Place) -> Gate {
    let mut gate = place.start();
    gate.password = PASSWORD.to_owned();
    gate
}

fn serve(stream: &TcpStream, seen: &Mutex<Vec<Asked>>, script: &Mutex<Arc<Script>>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let Some(path) = line.strip_prefix("POST ").and_then(|rest| rest.strip_suffix(" HTTP/1.1\r\n")) else { return };
    let mut asked = Asked { path: path.to_owned(), headers: Vec::new(), body: Value::Null };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        asked.headers.push((name.to_owned(), value.to_owned()));
    }
    let mut body = vec![0; asked.header("content-length").unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    asked.body = serde_json::from_slice(&body).unwrap();
    seen.lock().unwrap().push(asked.clone());
    let script = Arc::clone(&script.lock().unwrap());
    match script(&asked) {
        // The gate may have closed the connection.
        Some(bytes) => drop((&mut &*stream).write_all(&bytes)),
        None => drop((&mut &*stream).read_to_end(&mut Vec::new())),
    }
}

#[tokio::test]
async fn i24_the_hook_gets_what_is_known_of_a_login_and_its_answer_counts() {
    let hook = Hook::start();
    let (_place, gate) = hook.gate();
    let fields = [("grant_type", "password"), ("username", "demo"), ("password", PASSWORD), ("scope", "read write")];
    let tokens = gate.token(&fields).await.tokens();
    let asked = hook.asked();
    assert_eq!(asked.len(), 2, "the password once, and a lookup before the session is written: {asked:?}");
    let [login, lookup] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((login.path.as_str(), lookup.path.as_str()), ("/hook/authenticate", "/hook/lookup"));
    let mut sent = login.body.clone();
    sent.as_object_mut().unwrap().remove("user_agent");
    let expected = json!({"v": 1, "username": "demo", "password": PASSWORD, "client_id": "web", "address": "127.0.0.1",
        "scope": "read write"});
    assert_eq!(sent, expected);
    assert_eq!(lookup.body, json!({"v": 1, "subject": "u-1"}));
    for asked in &asked {
        assert_eq!(asked.header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
        assert_eq!(asked.header("content-type"), Some("application/json"));
        assert_eq!(asked.header("accept"), Some("application/json"));
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
        assert!(asked.header("x-request-id").is_some_and(|id| !id.is_empty()), "{asked:?}");
    }
    assert_eq!(gate.get("/x", &tokens.access).await.echoed("x-auth-scope"), ["read write"]);

    hook.says(|_| json_answer(&json!({"active": true, "subject": "u-1", "scopes": ["read"]})));
    let next = gate.refresh(&tokens.refresh).await.tokens();
    assert_eq!(gate.get("/x", &next.access).await.echoed("x-auth-scope"), ["read"], "scopes follow the hook");
    hook.says(honest);

    for (name, password) in [("demo", "wrong"), ("nobody", PASSWORD)] {
        let refused = gate.log_in(name, password).await;
        assert_eq!((refused.status, refused.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"), "{name}");
    }
    hook.asked();
    for password in ["", &"x".repeat(1025)] {
        assert_eq!(gate.log_in("demo", password).await.status, StatusCode::BAD_REQUEST);
    }
    assert!(hook.asked().is_empty(), "neither an empty password nor one that is too long is sent");
}

#[tokio::test]
async fn i24_an_account_goes_to_the_hook_and_must_come_back() {
    let hook = Hook::start();
    let (_place, gate) = hook.gate();
    let login = async || {
        let fields = [("client_id", "web"), ("grant_type", "password"), ("username", "demo"), ("password", PASSWORD)];
        gate.form("/acme/connect/token", &fields).await
    };
    assert_eq!(login().await.status, StatusCode::BAD_REQUEST, "active, but in no account");
    assert_eq!(hook.asked()[0].body["account"], "acme");
    hook.says(|_| json_answer(&json!({"active": true, "subject": "u-1", "account": "acme"})));
    let tokens = login().await.tokens();
    hook.asked();
    let fields = [("client_id", "web"), ("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
    assert_eq!(gate.form("/acme/connect/token", &fields).await.status, StatusCode::OK);
    assert_eq!(hook.asked()[0].body, json!({"v": 1, "subject": "u-1", "account": "acme"}));
}

#[tokio::test]
async fn i22_i24_no_lie_of_the_hook_is_a_verdict() {
    let hook = Hook::start();
    let (_place, gate) = hook.gate();
    let active = user().to_string();
    let with_head = |head: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{active}").into_bytes();
    let length = format!("content-length: {}", active.len());
    let said = |body: &str| answer("200 OK", body);
    let lies: Vec<(&str, Vec<u8>)> = vec![
        ("401", answer("401 Unauthorized", "{\"active\":false}")),
        ("403", answer("403 Forbidden", &active)),
        ("404", answer("404 Not Found", "{\"active\":false}")),
        ("429", answer("429 Too Many Requests", "")),
        ("204", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        ("201", answer("201 Created", &active)),
        ("500", answer("500 Internal Server Error", &active)),
        ("503", answer("503 Service Unavailable", "{\"active\":false}")),
        (
            "a redirect",
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /hook/other\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        ("304", b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        ("HTML", said("<html>down for maintenance</html>")),
        ("nothing in it", said("")),
        ("a text for active", said(r#"{"active":"true","subject":"u-1"}"#)),
        ("a number for active", said(r#"{"active":1,"subject":"u-1"}"#)),
        ("no active", said(r#"{"subject":"u-1"}"#)),
        ("a member twice", said(r#"{"active":true,"active":true,"subject":"u-1"}"#)),
        ("no subject", said(r#"{"active":true}"#)),
        ("a subject that no token has", said(r#"{"active":true,"subject":"u 1"}"#)),
        ("a subject of a client", said(r#"{"active":true,"subject":"client:web"}"#)),
        ("a reserved claim", said(r#"{"active":true,"subject":"u-1","claims":{"sub":"root"}}"#)),
        ("two documents", said(&active.repeat(2))),
        ("too long", said(&format!("{}{active}", " ".repeat(65 << 10)))),
        ("compressed", with_head(&format!("{length}\r\ncontent-encoding: gzip"))),
        ("cut", with_head("content-length: 1000")),
        ("not HTTP", b"220 ready\r\n".to_vec()),
        ("closed", Vec::new()),
    ];
    for (lie, bytes) in lies {
        let held = gate.login().await;
        hook.says_bytes(&bytes);
        let answer = gate.refresh(&held.refresh).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{lie}: {answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{lie}");
        hook.asked();
        assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE, "{lie}");
        assert_eq!(hook.asked().len(), 1, "{lie}: a password is sent once");
        hook.says(honest);
        let answer = gate.refresh(&held.refresh).await;
        assert_eq!(answer.status, StatusCode::OK, "{lie}: the same token works afterwards: {answer:?}");
    }
    // The same at a lookup, which names the user.
    let held = gate.login().await;
    hook.says(|_| json_answer(&json!({"active": true, "subject": "u-2"})));
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE, "another user");
    hook.says(|_| None);
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE, "no answer");
    hook.says(honest);
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::OK);
    let log = gate.log();
    for cause in ["returned 404", "redirects are not followed"] {
        assert!(log.contains(cause), "{cause}: {log}");
    }
}

#[tokio::test]
async fn i22_a_hook_that_fails_is_503_in_every_dialect_and_consumes_nothing() {
    let hook = Hook::start();
    let place = hook.place(&config("", |_| Vec::new()), "");
    let gate = start(&place);
    let mut held = Vec::new();
    for dialect in dialects() {
        held.push((dialect, dialect.login(&gate).await));
    }
    hook.says_bytes(&answer("502 Bad Gateway", ""));
    for _ in 0..3 {
        for (dialect, tokens) in &held {
            assert!(dialect.is_undecided(&gate, tokens).await, "{}", dialect.name());
            assert!(passes(&gate, tokens).await, "{}: a data route asks no directory", dialect.name());
        }
    }
    hook.says(honest);
    until("the hook answers again", async || gate.log_in("demo", PASSWORD).await.status == StatusCode::OK).await;
    for (dialect, tokens) in &held {
        let next = dialect.refresh(&gate, tokens).await.unwrap_or_else(|| panic!("{}: refused", dialect.name()));
        assert!(next.access != tokens.access && passes(&gate, &next).await, "{}", dialect.name());
    }
}

#[tokio::test]
async fn i46_a_hook_that_fails_at_one_user_is_503_for_that_user_alone() {
    let hook = Hook::start();
    let (_place, gate) = hook.gate();
    let demo = gate.login().await;
    for (status, body) in [
        ("500 Internal Server Error", ""),
        ("404 Not Found", ""),
        // The answer of a hook that limits the attempts with a name.
        ("429 Too Many Requests", ""),
        ("200 OK", r#"{"active":true,"subject":"u-2","scopes":1}"#),
        ("200 OK", r#"{"active":true,"subject":"u-2","valid_from":"yesterday"}"#),
    ] {
        hook.says(
            move |asked| if asked.body["username"] == "eve" { Some(answer(status, body)) } else { honest(asked) },
        );
        // More often than faults of the hook open the circuit.
        for _ in 0..8 {
            assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE, "{status} {body}");
        }
        assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::OK, "{status} {body}");
    }
    assert_eq!(gate.refresh(&demo.refresh).await.status, StatusCode::OK);
    hook.says(|_| Some(answer("503 Service Unavailable", "")));
    for _ in 0..5 {
        assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    hook.asked();
    assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(hook.asked().is_empty(), "the circuit is open");
}

#[tokio::test]
async fn i48_a_user_of_a_hook_takes_as_many_guesses_as_nobody() {
    let hook = Hook::start();
    let place = hook.place(&super::guesses::config(), "");
    let gate = start(&place);
    // The hook answers the same for the disabled user `gone`, as its contract demands.
    assert_eq!(super::guesses::guesses(&gate, ["demo", "gone", "nobody", "else"]).await, [5; 4]);
}

#[tokio::test]
async fn i24_a_refused_secret_is_our_error_and_a_new_secret_file_counts_without_a_restart() {
    let hook = Hook::start();
    let (place, gate) = hook.gate();
    let held = gate.login().await;
    let new = "another-hook-secret-of-this-test";
    keep_secret(new);
    hook.says(move |asked| match asked.header("authorization") {
        Some(sent) if sent == format!("Bearer {new}") => honest(asked),
        _ => Some(answer("401 Unauthorized", "{\"active\":false}")),
    });
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let log = gate.log();
    let line = log.lines().find(|line| line.contains("does not accept the gate's secret"));
    assert!(line.is_some_and(|line| line.contains("ERROR")), "{log}");
    write_private(&place.path("new.secret"), new);
    std::fs::rename(place.path("new.secret"), place.path("hook.secret")).unwrap();
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::OK);
    // A file that others can read is not used (requirement O2).
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(place.path("hook.secret"), open).unwrap();
    hook.asked();
    assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(hook.asked().is_empty(), "without its secret the gate sends nothing");
}

#[tokio::test]
async fn i24_o46_retry_after_is_429_and_no_verdict() {
    let hook = Hook::start();
    let (place, gate) = hook.gate();
    place.point_commands_at(&gate);
    let held = gate.login().await;
    hook.says(|_| json_answer(&json!({"active": false, "retry_after": 60})));
    // More often than faults would open the circuit.
    for _ in 0..3 {
        for answer in [gate.log_in("demo", PASSWORD).await, gate.refresh(&held.refresh).await] {
            assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
            assert_eq!(answer.headers["retry-after"], "60");
        }
    }
    let told = place.json_lines(&["events", "--action", "rate.limited"]);
    assert!(!told.is_empty() && told.iter().all(|line| line["limit"] == "directory"), "{told:?}");
    hook.says(honest);
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::OK, "the session goes on");
}

#[tokio::test]
async fn i24_a_lookup_whose_connection_ends_without_an_answer_is_sent_once_more() {
    let hook = Hook::start();
    let (_place, gate) = hook.gate();
    let held = gate.login().await;
    hook.asked();
    let is_first = Mutex::new(true);
    hook.says(move |asked| {
        let is_first = std::mem::replace(&mut *is_first.lock().unwrap(), false);
        if is_first { Some(Vec::new()) } else { honest(asked) }
    });
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::OK);
    assert_eq!(hook.asked().len(), 2);
}

#[test]
fn i45_check_reports_every_mistake_of_a_hook() {
    let hook = Hook::start();
    let place = hook.place(support::CONFIG, "");
    let said = |keys: &str| {
        place.write_config(&with(support::CONFIG, "directory", &format!("kind = \"http\"\n{keys}")));
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{keys}: {ran:?}");
        ran.stderr
    };
    let url = "url = \"http://localhost:1/hook\"\n";
    write_private(&place.path("empty"), "\n");
    std::fs::write(place.path("open"), SECRET).unwrap();
    for (keys, expected) in [
        ("".to_owned(), "directory.url: missing; expected the URL of the login hook"),
        ("url = \"http://app.example.com/hook\"\n".to_owned(), "directory.url: expected https"),
        ("url = \"https://app.example.com/hook?key=1\"\n".to_owned(), "directory.url: expected a URL without a query"),
        ("url = \"https://gate:pw@app.example.com/\"\n".to_owned(), "directory.url: expected a URL without user"),
        ("url = \"https://169.254.169.254/\"\n".to_owned(), "directory.url: the URL must not lead to this address"),
        (format!("{url}secret_file = \"none\"\n"), "directory.secret_file: "),
        (format!("{url}secret_file = \"empty\"\n"), "expected the secret as one line of visible ASCII characters"),
        (format!("{url}secret_file = \"open\"\n"), "directory.secret_file: "),
        (format!("{url}secret = \"x\"\n"), "directory.secret: unknown key"),
        (format!("{url}client_cert = {{ cert = \"x.pem\" }}\n"), "directory.client_cert.key: missing"),
        (format!("{url}ca = \"none.pem\"\n"), "directory.ca: "),
    ] {
        assert!(said(&keys).contains(expected), "{expected}: {}", said(&keys));
    }
    place.write_config(&with(support::CONFIG, "directory", "kind = \"http\"\nurl = \"https://app.example.com/\"\n"));
    let warned = place.done(&["check"], "").stdout;
    assert!(warned.contains("warning: ") && warned.contains("directory.secret_file: missing"), "{warned}");

    place.write_config(&with(support::CONFIG, "directory", &hook.keys()));
    let printed = place.done(&["check", "--print"], "").stdout;
    assert!(printed.contains("hook.secret"), "{printed}");
    assert!(hook.asked().is_empty(), "it asks nobody");
    let online = place.done(&["check", "--online"], "").stdout;
    assert!(online.contains("directory: lookup of rotogate-check: inactive"), "{online}");
    hook.says_bytes(&answer("403 Forbidden", ""));
    let ran = place.run(&["check", "--online"], "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("does not accept the gate's secret"), "{ran:?}");
}

pub(super) const PROVIDER: &str = r#"
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
everywhere = true
backchannel_logout = { path = "/logout/idp", audience = ["our-client"] }
"#;

/// The hook logs a user in at a provider, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n51_n52_n53_a_session_that_began_by_another_issuer_ends_with_the_login_there() {
    let (idp, hook) = (Issuer::new(11), Hook::start());
    hook.says(|asked| {
        let mut user = user();
        if asked.path == "/hook/authenticate" {
            user["vouched_by"] = json!({ "issuer": URL, "subject": "u-there", "session": asked.body["username"] });
        }
        json_answer(&user)
    });
    let place = hook.place(&format!("{}{PROVIDER}", support::CONFIG), "");
    std::fs::write(place.path("idp.json"), json!({ "keys": [idp.jwk("k1")] }).to_string()).unwrap();
    let mut gate = start(&place);
    let login = async |gate: &Gate, session: &str| gate.log_in(session, PASSWORD).await.tokens();
    let told = |changes: Value| {
        let now = claims(&json!({}))["iat"].as_u64().unwrap();
        let mut said = json!({
            "iss": URL, "aud": "our-client", "iat": now, "exp": now + 120, "jti": "l-1",
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        said.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        idp.sign(&json!({ "alg": "EdDSA", "typ": "logout+jwt", "kid": "k1" }), &said)
    };
    let out = async |gate: &Gate, token: &str| gate.form("/logout/idp", &[("logout_token", token)]).await.status;
    let (one, two) = (login(&gate, "s-1").await, login(&gate, "s-2").await);
    let data = async |gate: &Gate, token: &str| gate.get("/data", token).await.status.as_u16();
    assert_eq!((data(&gate, &one.access).await, data(&gate, &two.access).await), (200, 200));

    let of_one = told(json!({ "sid": "s-1" }));
    assert_eq!(out(&gate, &of_one).await, StatusCode::OK);
    assert_eq!((data(&gate, &one.access).await, data(&gate, &two.access).await), (401, 200), "that session alone");
    gate.kill();
    gate = start(&place);
    assert_eq!((data(&gate, &one.access).await, data(&gate, &two.access).await), (401, 200), "durable");
    assert_eq!(gate.refresh(&one.refresh).await.error(), "invalid_grant");
    assert!(gate.log().contains("issuer-logout"), "the record ends for a reason of its own");
    let two = gate.refresh(&two.refresh).await.tokens();
    assert_eq!(data(&gate, &two.access).await, 200, "the successor keeps the login of the issuer");
    // A login after the notice stays, however often the notice comes again.
    let mut later = login(&gate, "s-1").await;
    until("the second of the notice is over", async || {
        later = login(&gate, "s-1").await;
        data(&gate, &later.access).await == 200
    })
    .await;
    assert_eq!(out(&gate, &of_one).await, StatusCode::OK);
    assert_eq!(data(&gate, &later.access).await, 200);
    // All sessions that began with the provider's subject end.
    assert_eq!(out(&gate, &told(json!({ "sub": "u-1" }))).await, StatusCode::OK);
    assert_eq!(data(&gate, &later.access).await, 200, "our own sub is none of theirs");
    assert_eq!(out(&gate, &told(json!({ "sub": "u-there" }))).await, StatusCode::OK);
    assert_eq!((data(&gate, &later.access).await, data(&gate, &two.access).await), (401, 401));
    assert_eq!(gate.refresh(&two.refresh).await.error(), "invalid_grant");
}
