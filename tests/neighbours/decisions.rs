//! Decision points (AuthZEN 1.0) against the real binary: a stand-in that permits, denies and lies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::Duration;

use serde_json::{Value, json};

use super::scene::{NGINX, Scene, bearer, run};
use support::Place;
use support::stub::HEAD;

/// A decision point on its own port, and the received questions with their heads.
pub(crate) struct StandIn {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&asked);
        spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
                // A client that disconnects ends its connection.
                spawn(move || drop(answer(stream, port, &seen)));
            }
        });
        Self { port, asked }
    }
}

fn answer(stream: TcpStream, port: u16, seen: &Mutex<Vec<(String, Value)>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line)? > 2 {
        head.push_str(&line);
        line.clear();
    }
    let head = head.to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let mut stream = stream;
    if head.starts_with("get /.well-known/authzen-configuration ") {
        let origin = format!("http://127.0.0.1:{port}");
        let metadata = json!({
            "policy_decision_point": origin, "access_evaluation_endpoint": format!("{origin}/access/v1/evaluation"),
        });
        return reply(&mut stream, "200 OK", "application/json", &metadata.to_string());
    }
    assert!(head.starts_with("post /access/v1/evaluation "), "{head}");
    let question: Value = serde_json::from_slice(&body)?;
    let id = question["resource"]["id"].as_str().unwrap().to_owned();
    let before = seen.lock().unwrap().len();
    seen.lock().unwrap().push((head, question));
    let json = "application/json";
    match id.as_str() {
        "permit" => reply(&mut stream, "200 OK", json, r#"{"decision":true}"#),
        "twice" if before < 2 => reply(&mut stream, "200 OK", json, r#"{"decision":true}"#),
        "deny" | "twice" => reply(&mut stream, "200 OK", json, r#"{"decision":false}"#),
        "acr" => reply(&mut stream, "200 OK", json, r#"{"decision":false,"context":{"acr_values":"gold"}}"#),
        "text" => reply(&mut stream, "200 OK", json, r#"{"decision":"true"}"#),
        "html" => reply(&mut stream, "200 OK", "text/html", r#"{"decision":true}"#),
        "created" => reply(&mut stream, "201 Created", json, r#"{"decision":true}"#),
        "fault" => reply(&mut stream, "500 Internal Server Error", json, r#"{"decision":true}"#),
        "unknown" => reply(&mut stream, "401 Unauthorized", json, r#"{"decision":true}"#),
        "elsewhere" => {
            let moved = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{port}/x\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(moved.as_bytes())
        }
        "long" => {
            reply(&mut stream, "200 OK", json, &format!("{{\"decision\":true,\"x\":\"{}\"}}", "a".repeat(70_000)))
        }
        "drip" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n")?;
            for byte in br#"{"decision":true}"# {
                std::thread::sleep(Duration::from_millis(100));
                stream.write_all(&[*byte])?;
            }
            Ok(())
        }
        other => panic!("{other}"),
    }
}

fn reply(stream: &mut TcpStream, status: &str, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())
}

fn routes(port: u16) -> String {
    format!(
        r#"
[[decision_points]]
name = "pdp"
url = "http://127.0.0.1:{port}"
cache = {{ allow = "0s", deny = "0s" }}
[[decision_points]]
name = "kept"
evaluation_url = "http://127.0.0.1:{port}/access/v1/evaluation"
cache = {{ allow = "60s" }}
[[routes]]
path = "/orders/{{id}}"
decision = {{ point = "pdp", action = "read", resource = {{ type = "order", id = "{{id}}" }}, claims = ["gen"] }}
upstream = "app"
[[routes]]
path = "/kept/{{id}}"
decision = {{ point = "kept", resource = {{ type = "order", id = "{{id}}" }} }}
upstream = "app"
[[routes]]
path = "/_query"
kuzzle = ["*"]
dialect = "kuzzle"
upstream = "app"
[[routes]]
path = "/{{index}}/{{collection}}/{{id}}"
decision = {{ point = "pdp", resource = {{ type = "document", id = "{{id}}" }} }}
upstream = "app"
[[endpoints]]
dialect = "kuzzle"
"#
    )
}

#[test]
fn k27_k20_only_a_permit_of_the_decision_point_forwards_a_request_and_a_revocation_wins() {
    let point = StandIn::start();
    let scene = Scene::on(HEAD, NGINX, &routes(point.port));
    let tokens = scene.login();
    let good = bearer(&tokens);
    let header = good.split_once(": ").unwrap().1;
    let get = |path: &str, more: &[(&str, &str)]| scene.get(path, header, more);
    for (id, expected) in [
        ("permit", 200),
        ("deny", 403),
        ("acr", 401),
        ("text", 503),
        ("html", 503),
        ("created", 503),
        ("fault", 503),
        ("unknown", 503),
        ("elsewhere", 503),
        ("long", 503),
        ("drip", 503),
    ] {
        let reply = get(&format!("/orders/{id}"), &[]);
        assert_eq!(reply.status.as_u16(), expected, "{id}: {reply:?}");
        assert_eq!(reply.headers.contains_key("retry-after"), expected == 503, "{id}");
        let asked = scene.about("GET", &format!("/orders/{id}"), &[&good]).status;
        assert_eq!(asked, expected, "{id}: forward-auth");
    }
    let challenge = get("/orders/acr", &[]);
    assert!(challenge.headers["www-authenticate"].to_str().unwrap().contains("acr_values=\"gold\""), "{challenge:?}");
    let grpc = get("/orders/deny", &[("content-type", "application/grpc")]);
    assert_eq!(grpc.headers["grpc-status"], "7");
    // The question about a call in an envelope is the question about the equal request.
    let call = |id: &str| scene.call_kuzzle(header, "get", "i", id);
    assert_eq!([call("permit"), call("deny"), call("fault")], [200, 403, 503]);
    let (head, question) = point.asked.lock().unwrap().last().cloned().unwrap();
    assert!(head.contains("x-request-id: ") && head.contains("content-type: application/json"), "{head}");
    assert_eq!((&question["action"]["name"], &question["resource"]["type"]), (&json!("GET"), &json!("document")));
    // A kept permit counts for a caller that this request has verified.
    let before = point.asked.lock().unwrap().len();
    assert_eq!([get("/kept/permit", &[]).status, get("/kept/permit", &[]).status], [200; 2]);
    assert_eq!(point.asked.lock().unwrap().len(), before + 1);
    assert_eq!(run(scene.gate.metric("rotogate_decisions_total{point=\"kept\",result=\"kept_permit\"}")), 1);
    run(scene.gate.revoke(&tokens.refresh));
    assert_eq!(get("/kept/permit", &[]).status, 401);
    assert_eq!(point.asked.lock().unwrap().len(), before + 1);
    // Without the listener that the gate holds.
    let place = Place::new(&format!("{}{}", HEAD.replace("@upstream@", "127.0.0.1:1"), routes(point.port)));
    let checked = place.done(&["check", "--online"], "").stdout;
    let line = format!("decision point pdp: evaluates at http://127.0.0.1:{}/access/v1/evaluation", point.port);
    assert!(checked.contains(&line), "{checked}");
}
