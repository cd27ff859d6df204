//! Opaque tokens at the real binary, in front of introspection servers that answer well, badly, or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::issuer::{Issuer, URL, claims};
use super::long_replies::{begun, is_cut};
use support::stub::{Edge, HEAD};
use support::{Place, keep_secret, until};

/// A received question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    target: String,
    authorization: String,
    form: BTreeMap<String, String>,
}

/// An introspection server whose responses the test sets. It records the requests.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    questions: Mutex<Vec<Question>>,
    /// Whole responses by token, and for any other token under `*`. Without one, a token is not active.
    answers: Mutex<BTreeMap<String, Vec<u8>>>,
    /// While set, questions wait.
    held: Mutex<bool>,
    changed: Condvar,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&served);
                std::thread::spawn(move || drop(serve(&shared, &stream.unwrap())));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/introspect", self.address)
    }

    pub(crate) fn says(&self, token: &str, answer: &Value) {
        self.answers(token, ok("application/json", answer.to_string().as_bytes()));
    }

    pub(crate) fn answers(&self, token: &str, response: impl Into<Vec<u8>>) {
        self.shared.answers.lock().unwrap().insert(token.to_owned(), response.into());
    }

    fn hold(&self, held: bool) {
        *self.shared.held.lock().unwrap() = held;
        self.shared.changed.notify_all();
    }

    /// The questions since the last time.
    pub(crate) fn asked(&self) -> Vec<Question> {
        std::mem::take(&mut self.shared.questions.lock().unwrap())
    }
}

fn ok(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn status(line: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\n{headers}Content-Length: 2\r\n\r\n{{}}").into()
}

fn serve(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match &*name.to_ascii_lowercase() {
            "authorization" => authorization = value.to_owned(),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let form: BTreeMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
    let token = form.get("token").cloned().unwrap_or_default();
    shared.questions.lock().unwrap().push(Question { target, authorization, form });
    let held = shared.held.lock().unwrap();
    drop(shared.changed.wait_while(held, |held| *held).unwrap());
    let answers = shared.answers.lock().unwrap();
    let answer = answers.get(&token).or_else(|| answers.get("*")).cloned();
    drop(answers);
    match answer.unwrap_or_else(|| ok("application/json", br#"{"active":false}"#)) {
        // No answer: until the gate gives up.
        silent if silent.is_empty() => drop(reader.read(&mut [0])?),
        response => (&mut &*stream).write_all(&response)?,
    }
    Ok(())
}

pub(crate) fn active(changes: &Value) -> Value {
    let mut answer = claims(changes);
    if changes.get("active").is_none() {
        answer["active"] = true.into();
    }
    answer
}

/// A gate whose issuer `idp` is introspected at this server, with these further settings.
fn edge(server: &Server, settings: &str, keys: &str) -> Edge {
    let config = format!(
        r#"{HEAD}
[[issuers]]
name = "idp"
url = "{URL}"
audience = ["api"]
scopes = ["read"]
{keys}
introspection = {{ url = "{}", client_id = "the gate", secret_file = "idp.secret"{settings} }}
[[routes]]
path = "/own/{{*rest}}"
upstream = "app"
[[routes]]
path = "/admin/{{*rest}}"
issuers = ["idp"]
scopes = ["admin"]
upstream = "app"
[[routes]]
path = "/reports/{{*rest}}"
issuers = ["idp"]
audiences = ["reports"]
upstream = "app"
[[routes]]
path = "/{{*rest}}"
issuers = ["self", "idp"]
upstream = "app"
"#,
        server.url()
    );
    keep_secret("s3cret of:the gate");
    Edge::with(&config, |place| files(place, "s3cret of:the gate\n"), |_| {})
}

pub(crate) fn files(place: &Place, secret: &str) {
    let file = place.path("idp.secret");
    std::fs::write(&file, secret).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(place.path("idp.json"), json!({ "keys": [Issuer::new(1).jwk("k1")] }).to_string()).unwrap();
}

fn status_of(edge: &Edge, token: &str, path: &str) -> u16 {
    edge.ask_as(token, &format!("GET {path}"), &[]).status
}

#[test]
fn i14_i20_an_opaque_token_is_what_its_issuer_says() {
    let server = Server::start();
    server.says("opaque", &active(&json!({ "scope": "read admin" })));
    let edge = edge(&server, "", "");
    assert_eq!(status_of(&edge, "opaque", "/x"), 200);
    let received = edge.stub.one();
    assert_eq!(received.all("x-auth-subject"), ["user-1"]);
    assert_eq!(received.all("x-auth-client"), ["their-client"]);
    assert_eq!(received.all("x-auth-scope"), ["read"]);
    assert_eq!(received.all("x-auth-issuer"), [URL]);
    assert_eq!(received.all("x-auth-session"), Vec::<&str>::new());
    assert_eq!(received.all("authorization"), Vec::<&str>::new());
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "/introspect");
    let pair = STANDARD.decode(asked[0].authorization.strip_prefix("Basic ").unwrap()).unwrap();
    assert_eq!(String::from_utf8(pair).unwrap(), "the+gate:s3cret+of%3Athe+gate");
    let form: Vec<_> = asked[0].form.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(form, [("token", "opaque"), ("token_type_hint", "access_token")]);
    // The demands of a route apply to the cached answer, too.
    for (path, expected) in [("/x", 200), ("/admin/x", 403), ("/reports/x", 401), ("/own/x", 401), ("/x", 200)] {
        assert_eq!(status_of(&edge, "opaque", path), expected, "{path}");
    }
    assert_eq!(edge.stub.take().len(), 2);
    assert_eq!(server.asked(), []);
    // A login works as before.
    let own = edge.login().access;
    assert_eq!(status_of(&edge, &own, "/own/x"), 200);
    edge.stub.take();
    // The issuer is not asked about JWTs, about our own refresh tokens, nor on routes that do not take its tokens.
    for token in [Issuer::new(1).token(&json!({})), "rg1_AAAAAAAA".to_owned(), "a\"b".to_owned()] {
        assert_eq!(status_of(&edge, &token, "/x"), 401, "{token}");
    }
    assert_eq!(status_of(&edge, "another", "/own/x"), 401);
    assert_eq!(server.asked(), []);
    assert!(edge.stub.take().is_empty());
}

#[test]
fn i20_a_response_that_lies_or_breaks_decides_nothing() {
    let server = Server::start();
    let edge = edge(&server, ", for_tests = { timeout = \"1s\" }", "");
    let good = active(&json!({})).to_string();
    let json = |body: &str| ok("application/json", body.as_bytes());
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", good.len() + 10);
    let broken: [(&str, Vec<u8>); 16] = [
        ("text", json(&good.replace("true", "\"true\""))),
        ("number", json(&good.replace("true", "1"))),
        ("null", json(&good.replace("true", "null"))),
        ("missing", json(&good.replace("\"active\":true", "\"activ\":true"))),
        ("twice", json(&format!("{{\"active\":false,{}", &good[1..]))),
        ("subject-twice", json(&format!("{{\"sub\":\"admin\",{}", &good[1..]))),
        ("html", ok("text/html", b"<html><body>Welcome</body></html>")),
        ("list", json(&format!("[{good}]"))),
        ("torn", json(&good[..good.len() - 1])),
        ("large", json(&format!("{{\"pad\":\"{}\",{}", "x".repeat(70_000), &good[1..]))),
        ("empty", json("")),
        ("cut", [chunked.as_bytes(), good.as_bytes()].concat()),
        ("500", [b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".as_slice()].concat()),
        ("redirect", status("302 Found", "Location: http://evil.test/introspect\r\n")),
        ("encoded", [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n".as_slice(), &json(&good)[17..]].concat()),
        ("silent", Vec::new()),
    ];
    for (token, response) in broken {
        server.answers(token, response);
        let reply = edge.ask_as(token, "GET /x", &[]);
        assert_eq!(reply.status, 503, "{token}");
        assert_eq!(reply.header("retry-after"), "1", "{token}");
        assert!(reply.all("www-authenticate").is_empty(), "{token}: no client throws its token away");
        assert_eq!(server.asked().len(), 1, "{token}: asked once, and not again");
        // The answer is not cached.
        server.says(token, &active(&json!({})));
        assert_eq!(status_of(&edge, token, "/x"), 200, "{token}");
        assert_eq!(server.asked().len(), 1, "{token}");
        edge.stub.one();
    }
    for line in ["401 Unauthorized", "403 Forbidden"] {
        server.answers("unknown", status(line, "WWW-Authenticate: Basic\r\n"));
        assert_eq!(status_of(&edge, "unknown", "/x"), 503, "{line}");
    }
    let log = edge.gate.log();
    let of = |level: &str, cause: &str| {
        let named = |line: &&str| line.contains("introspection failed") && line.contains("idp") && line.contains(cause);
        log.lines().filter(named).filter(|line| line.contains(level)).count()
    };
    assert_eq!(of("ERROR", "client_refused"), 1, "one line, though it happened twice: {log}");
    assert_eq!(of("ERROR", "malformed"), 0);
    assert!(of("WARN", "timeout") == 1 && of("WARN", "redirect") == 1 && of("WARN", "too_large") == 1, "{log}");
    assert!(log.contains("introspection succeeds again"));
    assert!(!log.contains("evil.test/introspect"), "the host alone");
    // The issuer asks for a pause: it is asked about no other token either.
    server.asked();
    server.answers("busy", status("503 Busy", "Retry-After: 17\r\n"));
    assert_eq!(edge.ask_as("busy", "GET /x", &[]).header("retry-after"), "17");
    let other = edge.ask_as("other", "GET /x", &[]);
    assert!((1..=17).contains(&other.header("retry-after").parse::<u64>().unwrap()), "{other:?}");
    assert_eq!((other.status, server.asked().len()), (503, 1));
}

#[test]
fn i20_what_is_active_and_not_good_is_refused() {
    let server = Server::start();
    let edge = edge(&server, "", "");
    let now = claims(&json!({}))["iat"].as_u64().unwrap();
    for (n, changes) in [
        json!({ "active": false }),
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "iss": "https://evil.test/" }),
        json!({ "iss": "https://idp.test" }),
        json!({ "exp": now - 60 }),
        json!({ "exp": null }),
        json!({ "nbf": now + 600 }),
        json!({ "cnf": { "jkt": "x" } }),
        json!({ "token_use": "refresh_token" }),
        json!({ "sub": null, "client_id": null }),
        json!({ "sub": 7 }),
        json!({ "exp": now + 100 * 86_400 }),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("token-{n}");
        server.says(&token, &active(&changes));
        let reply = edge.ask_as(&token, "GET /x", &[]);
        assert_eq!(reply.status, 401, "{changes}");
        assert!(reply.header("www-authenticate").contains("error=\"invalid_token\""), "{changes}");
        assert!(edge.stub.take().is_empty(), "{changes}");
    }
    server.says("client", &active(&json!({ "sub": null })));
    assert_eq!(status_of(&edge, "client", "/x"), 200);
    assert_eq!(edge.stub.one().all("x-auth-subject"), ["their-client"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i21_requests_with_one_token_share_a_question_and_others_go_on() {
    let server = Server::start();
    let edge = Arc::new(edge(&server, "", ""));
    server.says("opaque", &active(&json!({})));
    let own = edge.login().access;
    server.hold(true);
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let edge = Arc::clone(&edge);
            std::thread::spawn(move || status_of(&edge, "opaque", "/x"))
        })
        .collect();
    until("the issuer is asked", async || !server.shared.questions.lock().unwrap().is_empty()).await;
    assert_eq!(status_of(&edge, &own, "/x"), 200, "a slow issuer holds up nobody else");
    server.hold(false);
    for one in asking {
        assert_eq!(one.join().unwrap(), 200);
    }
    assert_eq!(server.asked().len(), 1);
    for _ in 0..5 {
        assert_eq!(status_of(&edge, "junk", "/x"), 401);
    }
    assert_eq!(server.asked().len(), 1, "a token that is not active is remembered for a moment");
    let count = async |result: &str| {
        let series = format!("rotogate_issuer_introspections_total{{issuer=\"idp\",result=\"{result}\"}}");
        edge.gate.metric(&series).await
    };
    assert_eq!((count("active").await, count("inactive").await), (1, 1));
    assert_eq!(edge.gate.metric("rotogate_verified_tokens").await, 2);
}

#[test]
fn i20_i21_without_a_cache_each_request_asks() {
    let server = Server::start();
    let edge = edge(&server, ", cache = \"0s\", for_tests = { negative = \"0s\" }", "");
    for n in 1..=3 {
        server.says("opaque", &active(&json!({ "sub": format!("user-{n}") })));
        assert_eq!(status_of(&edge, "opaque", "/x"), 200);
        assert_eq!(edge.stub.one().all("x-auth-subject"), [format!("user-{n}")]);
    }
    server.says("opaque", &active(&json!({ "active": false })));
    assert_eq!([status_of(&edge, "opaque", "/x"), status_of(&edge, "opaque", "/x")], [401, 401]);
    server.says("opaque", &active(&json!({})));
    assert_eq!(status_of(&edge, "opaque", "/x"), 200);
    assert_eq!(server.asked().len(), 6);
}

#[test]
fn i20_a_jwt_is_introspected_only_if_its_issuer_says_so() {
    let token = Issuer::new(1).token(&json!({}));
    let forged = Issuer::new(2).token(&json!({}));
    let keys = "jwks_file = \"idp.json\"";
    let server = Server::start();
    let beside = edge(&server, "", keys);
    assert_eq!([status_of(&beside, &token, "/x"), status_of(&beside, &forged, "/x")], [200, 401]);
    assert_eq!(server.asked(), []);
    let server = Server::start();
    let always = edge(&server, ", always = true", keys);
    assert_eq!([status_of(&always, &token, "/x"), status_of(&always, &forged, "/x")], [401, 401]);
    assert_eq!(server.asked().len(), 1, "about the genuine one");
    server.says(&token, &active(&json!({})));
    let without_keys = edge(&server, ", always = true", "");
    assert_eq!(status_of(&without_keys, &token, "/x"), 200);
}

#[test]
fn i21_a_stream_ends_when_its_issuer_takes_the_token_back() {
    let server = Server::start();
    server.says("opaque", &active(&json!({})));
    let edge = edge(&server, ", cache = \"1s\"", "");
    let stream = begun(&edge, "/events/parts", "opaque");
    server.says("opaque", &active(&json!({ "active": false })));
    is_cut(stream);
    edge.stub.push(b"");
    assert_eq!(status_of(&edge, "opaque", "/x"), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn i20_another_secret_counts_without_a_restart() {
    let server = Server::start();
    let edge = edge(&server, ", cache = \"0s\"", "");
    server.says("opaque", &active(&json!({})));
    keep_secret("second-secret");
    files(&edge.place, "second-secret");
    until("the secret is read", async || {
        assert_eq!(status_of(&edge, "opaque", "/x"), 200);
        let last = server.asked().pop().unwrap();
        let pair = STANDARD.decode(last.authorization.strip_prefix("Basic ").unwrap()).unwrap();
        pair == b"the+gate:second-secret"
    })
    .await;
}

#[test]
fn i45_check_online_asks_about_a_token_that_cannot_exist() {
    let server = Server::start();
    let edge = edge(&server, ", prefix = \"b_\", secret_in = \"form\"", "");
    let said = edge.place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("issuer idp: introspection at http://") && said.contains("as inactive"), "{said}");
    let asked = server.asked();
    let [question] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(question.form["token"].starts_with("b_rotogate-check-"), "{question:?}");
    assert_eq!(question.authorization, "", "the secret is in the form");
    assert_eq!((&*question.form["client_id"], &*question.form["client_secret"]), ("the gate", "s3cret of:the gate"));
    for (response, key, what) in [
        (status("401 Unauthorized", ""), "client_id", "client_refused: 127.0.0.1"),
        (
            b"HTTP/1.1 400 Bad\r\nContent-Length: 26\r\n\r\n{\"error\":\"invalid_client\"}".to_vec(),
            "client_id",
            "`client_id`, secret or key is wrong",
        ),
        (status("500 Oh", ""), "url", "status: "),
        (ok("application/json", b"{\"active\":true}"), "url", "reports a token as active that cannot exist"),
        (ok("text/html", b"<html>"), "url", "malformed: "),
        (ok("application/json", b"{}"), "url", "malformed: `active` must be true or false"),
    ] {
        server.answers("*", response);
        let ran = edge.place.run(&["check", "--online"], "");
        assert_eq!(ran.code, Some(2), "{what}");
        let line = format!("issuers[0].introspection.{key}: ");
        assert!(ran.stderr.contains(&line) && ran.stderr.contains(what), "{}", ran.stderr);
        assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    }
}
