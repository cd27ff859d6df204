//! The access log as its schema says, for requests of every kind; and which requests have a line.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{CONFIG, Gate, Place, until};

/// An upstream whose reply depends on the path.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(std::thread::spawn(|| one(stream))));
    });
    address
}

fn one(mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let head: Vec<_> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let reply: &[u8] = match first.split(' ').nth(1)? {
        "/public/events" => {
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n"
        }
        "/public/half" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "/public/bad" => b"no HTTP\r\n\r\n",
        "/public/gone" => b"",
        "/public/error" => b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno",
        "/public/moved" => b"HTTP/1.1 304 Not Modified\r\n\r\n",
        "/tunnel" if head.iter().any(|line| line.eq_ignore_ascii_case("upgrade: chat")) => {
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\nbye"
        }
        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    };
    stream.write_all(reply).ok()
}

fn config(address: SocketAddr, more: &str) -> String {
    let config = CONFIG.replace("urls = [\"echo:\"]", &format!("urls = [\"http://{address}\"]"));
    let config = config.replace(
        "[[upstreams]]",
        "[[endpoints]]\ndialect = \"envelope\"\npath = \"/envelope\"\n[[endpoints]]\ndialect = \"kuzzle\"\npath = \
         \"/kuzzle\"\n[[upstreams]]\nname = \"dead\"\nurls = [\"http://127.0.0.1:1\"]\n[[upstreams]]",
    );
    format!(
        "{config}[[routes]]\npath = \"/dead\"\nauth = \"none\"\nupstream = \"dead\"\n[[routes]]\npath = \"/admin\"\nkuzzle = [\"security:*\", \"my-plugin:*\"]\nscopes = \
         [\"admin\"]\nupstream = \"app\"\n[[routes]]\npath = \"/tunnel\"\nupgrade = true\nupstream = \"app\"\n[[routes]]\npath = \
         \"/health\"\nauth = \"none\"\nupstream = \"app\"\naccess_log = false\n[[routes]]\npath = \"/errors/{{*rest}}\"\n\
         auth = \"none\"\nupstream = \"app\"\naccess_log = \"errors\"\n[cors]\norigins = [\"https://app.test\"]\n[log]\n\
         format = \"json\"\n[access_log]\noutput = \"./access.log\"\n{more}"
    )
}

/// The whole lines of a file.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Waits for the line of a request that follows all other requests of its thread.
async fn written(gate: &Gate, place: &Place, name: &str) -> Vec<Value> {
    let last = format!("/last-{}", lines(&place.path(name)).len());
    let mut found = Vec::new();
    until("the last line is written", async || {
        // Each thread writes separately: at the end each thread has such a line.
        gate.call(Method::GET, &last, &[], "").await;
        found = lines(&place.path(name));
        found.iter().any(|line| line["url.path"] == last.as_str())
    })
    .await;
    found
}

/// Sends a request unchanged, and returns all bytes until the end.
fn raw(gate: &Gate, request: &str) -> String {
    let mut stream = TcpStream::connect(gate.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p30_lines_of_requests_of_every_kind_are_as_the_schema_says() {
    let place = Place::new(&config(upstream(), ""));
    let gate = place.start();
    let held = gate.login().await;
    let get = async |path: &str, token: &str| gate.get(path, token).await.status;
    for (path, token, status) in [
        ("/private", held.access.as_str(), 200),
        ("/public/x", "", 200),
        ("/public/moved", "", 304),
        ("/private/none", "", 401),
        ("/private/bad", "nonsense", 401),
        ("/private/forged", &format!("{}AAAA", &held.access[..held.access.len() - 4]), 401),
        ("/admin", &held.access, 403),
        ("/public/error", "", 500),
        ("/public/bad", "", 502),
        ("/public/gone", "", 502),
        ("/dead", "", 502),
        ("/.well-known/jwks.json", "", 200),
        ("/public/%2f", "", 400),
    ] {
        assert_eq!(get(path, token).await, StatusCode::from_u16(status).unwrap(), "{path}");
    }
    gate.call(Method::DELETE, "/.well-known/jwks.json", &[], "").await;
    gate.call(Method::HEAD, "/public/head", &[("user-agent", &"x".repeat(300))], "").await;
    gate.call(Method::POST, "/public/body", &[], "a body").await;
    let origin = [("origin", "https://app.test"), ("access-control-request-method", "GET")];
    gate.call(Method::OPTIONS, "/private", &origin, "").await;
    gate.call(Method::POST, "/rpc.Service/Call", &[("content-type", "application/grpc")], "").await;
    // Endpoints of each dialect, good and refused.
    let second = gate.refresh(&held.refresh).await.tokens();
    gate.refresh("rg1_nonsense").await;
    gate.log_in("demo", "wrong").await;
    let login = json!({ "username": "demo", "password": gate.password }).to_string();
    for path in ["/envelope", "/kuzzle/_login/local", "/kuzzle/nothing"] {
        gate.call(Method::POST, path, &[("content-type", "application/json")], &login).await;
    }
    gate.revoke(&second.refresh).await;
    // Responses that end late: a stream, half a reply, a tunnel.
    let head = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: gate.test\r\n{more}\r\n");
    let fresh = gate.login().await;
    assert!(raw(&gate, &head("/public/events", "connection: close\r\n")).contains("data: 1"));
    assert!(raw(&gate, &head("/public/half", "connection: close\r\n")).contains("half"));
    let upgrade = format!("connection: upgrade\r\nupgrade: chat\r\nauthorization: Bearer {}\r\n", fresh.access);
    assert!(raw(&gate, &head("/tunnel", &upgrade)).ends_with("bye"));
    let phases = |lines: &[Value], path: &str| -> Vec<String> {
        let of_path = lines.iter().filter(|line| line["url.path"] == path);
        of_path.map(|line| line["rotogate.phase"].as_str().unwrap_or("none").to_owned()).collect()
    };
    until("the ends are written", async || {
        let lines = lines(&place.path("access.log"));
        phases(&lines, "/tunnel").len() == 2 && phases(&lines, "/public/events").len() == 2
    })
    .await;

    let found = written(&gate, &place, "access.log").await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/schema/access.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for line in &found {
        let faults: Vec<_> = validator.iter_errors(line).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?}: {line:#}");
        for key in line.as_object().unwrap().keys() {
            assert!(schema["properties"].get(key).is_some(), "{key} is not in the schema: {line:#}");
            seen.insert(key);
        }
    }
    // The validator finds faults.
    let mut bad = found[0].clone();
    bad["http.response.status_code"] = json!("200");
    assert!(!validator.is_valid(&bad));
    bad.as_object_mut().unwrap().remove("rotogate.end");
    assert!(!validator.is_valid(&bad));
    // Fields that a gate without TLS, accounts, other issuers and traces cannot have.
    let all: BTreeSet<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let missing: Vec<_> = all.difference(&seen).copied().collect();
    let others = ["rotogate.account", "rotogate.issuer", "span_id", "tls.protocol.version", "trace_flags", "trace_id"];
    assert_eq!(missing, others);
    for path in ["/tunnel", "/public/events"] {
        assert_eq!(phases(&found, path), ["begin", "end"], "{path}");
    }
    // The metrics have the same figures.
    let metrics = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    for series in [
        "rotogate_streams_ended_total{route=\"/tunnel\",cause=\"complete\"} 1",
        "rotogate_streams_ended_total{route=\"/public/{*rest}\",cause=\"complete\"} 1",
    ] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
    let grpc = metrics.lines().find(|line| line.starts_with("rotogate_grpc_responses_total{"));
    assert!(grpc.is_some_and(|line| line.ends_with("grpc_code=\"16\"} 1")), "{grpc:?}");
    let bytes = |name: &str, of: &str| -> u64 {
        let series = format!("{name}{{route=\"{of}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    };
    assert_eq!(bytes("rotogate_request_bytes_total", "/public/{*rest}"), "a body".len() as u64);
    assert!(bytes("rotogate_response_bytes_total", "/public/{*rest}") > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_requests_that_pass_a_sample_has_a_line_and_of_others_each() {
    let place = Place::new(&config(upstream(), "sample = 0\n"));
    let gate = place.start();
    gate.get("/public/x", "").await;
    gate.get("/public/moved", "").await;
    gate.get("/health", "").await;
    gate.get("/errors/none", "").await;
    gate.get("/public/error", "").await;
    gate.get("/errors/%2f", "").await;
    gate.get("/private", "").await;
    gate.call(Method::HEAD, "/admin", &[("user-agent", "someone")], "").await;
    gate.login().await;
    let found = written(&gate, &place, "access.log").await;
    let paths: Vec<_> = found.iter().filter_map(|line| line["url.path"].as_str()).collect();
    for path in ["/public/error", "/errors/%2f", "/private", "/admin", "/connect/token"] {
        assert_eq!(paths.iter().filter(|known| **known == path).count(), 1, "{path}: {paths:?}");
    }
    for path in ["/public/x", "/public/moved", "/health", "/errors/none"] {
        assert!(!paths.contains(&path), "{path}: {paths:?}");
    }
    // A late line is complete, too.
    let late = found.iter().find(|line| line["url.path"] == "/admin").unwrap();
    for (key, expected) in [
        ("http.request.method", "HEAD"),
        ("user_agent.original", "someone"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
    ] {
        assert_eq!(late[key], expected, "{late:#}");
    }
    assert!(late["server.address"].is_string() && late["http.request.id"].is_string(), "{late:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_outputs_formats_and_the_sample_of_the_logs() {
    let address = upstream();
    let place = Place::new(&config(address, ""));
    let gate = place.start();
    let reload = |config: &str| {
        place.write_config(config);
        gate.signal("HUP");
    };
    gate.get("/public/first", "").await;
    let one = |name: &str, path: &str| {
        let text = fs::read_to_string(place.path(name)).unwrap_or_default();
        text.lines().filter(|line| line.contains(path)).count()
    };
    // Another output for the access log, in text, and a separate audit log.
    let other = config(address, "[audit_log]\noutput = \"./audit.log\"\naddresses = \"none\"\n")
        .replace("./access.log", "./other.log")
        .replace("format = \"json\"", "format = \"text\"");
    reload(&other);
    until("the other file has lines", async || {
        gate.get("/public/second", "").await;
        one("other.log", " url.path=/public/second ") > 0
    })
    .await;
    assert_eq!(one("access.log", "/public/first"), 1, "what was written before stays where it is");
    gate.login().await;
    until("the audit log has the login", async || one("audit.log", "session.start") == 1).await;
    assert_eq!(one("audit.log", "client.address"), 0);
    // An output that cannot be opened changes nothing.
    reload(&other.replace("./other.log", "./nowhere/access.log"));
    until("the mistake is in the audit log", async || one("audit.log", "nowhere/access.log") == 1).await;
    let before = one("other.log", "/public/third");
    until("the old output is in use", async || {
        gate.get("/public/third", "").await;
        one("other.log", "/public/third") > before
    })
    .await;
    // Back to the first output, which is reopened, without lines for passed requests.
    reload(&config(address, "sample = 0\n"));
    until("the first file has lines again", async || {
        gate.get("/private/fourth", "").await;
        one("access.log", "/private/fourth") > 0
    })
    .await;
    gate.get("/public/fifth", "").await;
    let last = written(&gate, &place, "access.log").await;
    assert!(last.iter().all(|line| line["url.path"] != "/public/fifth"), "{last:#?}");
    // No access log, and the application log in another file.
    let none = config(address, "enabled = false\n").replace("[log]\n", "[log]\noutput = \"./app.log\"\n");
    reload(&none);
    until("the application log is in its file", async || one("app.log", "configuration reloaded") > 0).await;
}

/// The lines of the token endpoint, in the order of the requests, each with these fields.
async fn told(gate: &Gate, place: &Place, fields: &[&str]) -> Vec<String> {
    let mut found = written(gate, place, "access.log").await;
    found.retain(|line| line["url.path"] == "/connect/token");
    found.sort_by_key(|line| line["timestamp"].as_str().unwrap().to_owned());
    let of = |line: &Value| {
        let values: Vec<_> = fields.iter().map(|key| line[*key].as_str().unwrap_or("-").to_owned()).collect();
        values.join(" ")
    };
    found.iter().map(of).collect()
}

#[tokio::test]
async fn o46_a_line_names_client_user_and_session_of_a_refused_attempt() {
    let place = Place::new(&config(upstream(), ""));
    let gate = place.start();
    let held = gate.login().await;
    gate.log_in("demo", "wrong").await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    gate.call(Method::POST, "/connect/token", &form, "grant_type=password&client_id=wub&username=demo&password=x")
        .await;
    let next = gate.refresh(&held.refresh).await.tokens();
    let newest = gate.refresh(&next.refresh).await.tokens();
    gate.refresh(&held.refresh).await;
    gate.refresh(&newest.refresh).await;
    gate.refresh("rg1_nonsense").await;

    let fields = ["rotogate.outcome", "rotogate.client.id", "user.id", "session.id"];
    let found = told(&gate, &place, &fields).await;
    let whose = found[0].strip_prefix("answered ").unwrap();
    assert!(whose.starts_with("web ") && !whose.contains(" -"), "{found:?}");
    let expected = [
        format!("answered {whose}"),
        "wrong_password web - -".to_owned(),
        // The client is unknown, and its name is any text.
        "invalid_client - - -".to_owned(),
        format!("answered {whose}"),
        format!("answered {whose}"),
        format!("reuse {whose}"),
        format!("session_revoked {whose}"),
        "unknown_refresh_token web - -".to_owned(),
    ];
    assert_eq!(found, expected);
}
