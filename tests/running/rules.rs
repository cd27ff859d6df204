//! SIGHUP applies routes, clients, endpoints, CORS, identity headers, limits, sessions and the level of the log.

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::reload::reload;
use support::{Answer, CONFIG, Gate, Place, Tokens, until, with};

fn replaced(config: &str, from: &str, to: &str) -> String {
    assert!(config.contains(from), "{from}");
    config.replace(from, to)
}

/// The header of this name that the built-in upstream got.
fn sent(answer: &Answer, name: &str) -> Option<String> {
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    let headers = told["headers"].as_array().unwrap();
    headers.iter().find(|header| header[0] == name).map(|header| header[1].as_str().unwrap().to_owned())
}

/// A request on a connection that stays open, and the head of its answer.
async fn ask(connection: &mut TcpStream, path: &str, access: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: gate.test\r\nauthorization: Bearer {access}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = [0; 8192];
    let read = connection.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

async fn log_in_with(gate: &Gate, client: &str) -> Answer {
    let fields =
        [("grant_type", "password"), ("client_id", client), ("username", "demo"), ("password", &gate.password)];
    gate.token(&fields).await
}

const MORE: &str = "[[routes]]\npath = \"/more/{*rest}\"\nauth = \"none\"\nupstream = \"app\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_reload_takes_routes_for_open_connections_and_known_tokens() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    let mut connection = TcpStream::connect(gate.address).await.unwrap();
    assert!(ask(&mut connection, "/hello", &tokens.access).await.starts_with("HTTP/1.1 200"));

    // A further route, a route with more demands, and one route less.
    let scoped = replaced(CONFIG, "path = \"/{*rest}\"", "path = \"/{*rest}\"\nscopes = [\"admin\"]");
    let public = "[[routes]]\npath = \"/public/{*rest}\"\nauth = \"none\"\nupstream = \"app\"\n";
    let next = replaced(&scoped, public, MORE);
    reload(&place, &gate, &next).await;
    assert!(gate.log().contains("changed=routes"), "{}", gate.log());
    assert!(!gate.log().contains("restart needed"));
    let refused = ask(&mut connection, "/hello", &tokens.access).await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("insufficient_scope"), "{refused}");
    assert_eq!(gate.call(Method::GET, "/more/x", &[], "").await.status, StatusCode::OK);
    assert_eq!(gate.call(Method::GET, "/public/x", &[], "").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK, "sessions go on");

    reload(&place, &gate, CONFIG).await;
    assert!(ask(&mut connection, "/hello", &tokens.access).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_with_watch_a_change_of_the_file_is_a_reload_and_a_mistake_changes_nothing() {
    let config = with(CONFIG, "server", "watch = true");
    let place = Place::new(&config);
    let gate = place.start();
    let public = async || gate.call(Method::GET, "/more/x", &[], "").await.status;
    assert_eq!(public().await, StatusCode::UNAUTHORIZED);
    let more = format!("{config}{MORE}");
    place.write_config(&more.replace("auth = \"none\"", "auth = \"nine\""));
    until("the mistake is told", async || gate.log().contains("configuration invalid")).await;
    assert_eq!(public().await, StatusCode::UNAUTHORIZED);
    place.write_config(&more);
    until("the route is there", async || public().await == StatusCode::OK).await;
    assert_eq!(gate.log().matches("configuration invalid").count(), 1, "{}", gate.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_reload_takes_clients_endpoints_cors_identity_limits_sessions_and_the_level_of_the_log() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    assert!(sent(&gate.get("/hello", &tokens.access).await, "x-auth-subject").is_some());
    assert_eq!(log_in_with(&gate, "mobile").await.status, StatusCode::BAD_REQUEST);

    let mut next = replaced(CONFIG, "id = \"web\"", "id = \"mobile\"");
    next = replaced(&next, "path = \"/{account}/connect/token\"", "path = \"/{account}/other/token\"");
    for (section, keys) in [
        ("cors", "origins = [\"https://app.test\"]"),
        ("identity", "headers = { subject = \"x-user\" }\nstrip = [\"x-auth-subject\"]"),
        ("limits", "for_tests.forged_per_address = \"1/1h\"\nfor_tests.max_token_body = \"2KiB\""),
        ("sessions", "access_ttl = \"90s\""),
        ("log", "level = \"debug\""),
    ] {
        next = with(&next, section, keys);
    }
    place.write_config(&next);
    place.done(&["check"], "");
    reload(&place, &gate, &next).await;
    for name in ["sessions", "limits", "cors", "clients", "endpoints", "identity", "log"] {
        assert!(gate.log().lines().any(|line| line.contains("changed=") && line.contains(name)), "{name}");
    }
    assert!(!gate.log().contains("restart needed"), "{}", gate.log());

    // The path of the endpoint now belongs to a route, and the client is unknown.
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::UNAUTHORIZED);
    let at = "/other/token";
    let (username, password) = (("username", "demo"), ("password", gate.password.as_str()));
    let begun = gate.form(at, &[("grant_type", "password"), ("client_id", "mobile"), username, password]).await;
    assert_eq!(begun.status, StatusCode::OK, "{begun:?}");
    let begun: Value = serde_json::from_slice(&begun.body).unwrap();
    assert_eq!(begun["expires_in"], 90);
    let by_old_client = [("grant_type", "refresh_token"), ("client_id", "web"), ("refresh_token", &*tokens.refresh)];
    assert_eq!(gate.form(at, &by_old_client).await.status, StatusCode::BAD_REQUEST);
    let long = "x".repeat(3 * 1024);
    assert_eq!(gate.form(at, &[("grant_type", &long)]).await.status, StatusCode::PAYLOAD_TOO_LARGE);

    // For a token that was verified before the reload, upstreams get only the new header.
    let answer = gate.get("/hello", &tokens.access).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(sent(&answer, "x-user").is_some() && sent(&answer, "x-auth-subject").is_none());
    let spoofed = [("x-user", "root"), ("x-auth-subject", "root")];
    let answer = gate.call(Method::GET, "/public/x", &spoofed, "").await;
    assert!(sent(&answer, "x-user").is_none(), "the client's own copy is removed");

    let preflight = [("origin", "https://app.test"), ("access-control-request-method", "PUT")];
    let allowed = gate.call(Method::OPTIONS, "/hello", &preflight, "").await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://app.test");

    // After one forged token an hour, and one more that exceeds the limit, the gate checks no token.
    let (head, signature) = tokens.access.rsplit_once('.').unwrap();
    let mut statuses = Vec::new();
    for other in ["AAAAAAAA", "BBBBBBBB", "CCCCCCCC"] {
        let forged = format!("{head}.{other}{}", &signature[other.len()..]);
        statuses.push(gate.get("/hello", &forged).await.status);
    }
    assert_eq!(statuses.last(), Some(&StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
    until("the log shows more", async || {
        gate.call(Method::GET, "/public/x", &[], "").await;
        gate.log().contains("DEBUG")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_reload_with_one_mistake_changes_nothing() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let more = format!("{CONFIG}{MORE}");
    for (wrong, said) in [
        (
            replaced(
                &more,
                "upstream = \"app\"\n[[routes]]\npath = \"/more",
                "upstream = \"no\"\n[[routes]]\npath = \"/more",
            ),
            "no",
        ),
        (format!("{more}[[routes]]\npath = \"/a\"\nissuers = [\"nobody\"]\nupstream = \"app\"\n"), "nobody"),
        (
            format!("{more}[[upstreams]]\nname = \"b\"\nurls = [\"https://127.0.0.1:1\"]\nca = \"nowhere.pem\"\n"),
            "nowhere.pem",
        ),
        (with(&more, "cors", "origins = [\"nowhere\"]"), "cors.origins"),
        (format!("{more}[[clients]]\nid = \"web\"\n"), "web"),
    ] {
        let before = gate.log().matches("config_reload").count();
        place.write_config(&wrong);
        gate.signal("HUP");
        until("the mistake is in the log", async || {
            let log = gate.log();
            let mut lines = log.lines().filter(|line| line.contains("ERROR") || line.contains("gateway.toml:"));
            lines.next_back().is_some_and(|line| line.contains(said)) || log.matches("config_reload").count() > before
        })
        .await;
        assert!(!gate.log().contains("configuration reloaded"), "{said}");
        assert_eq!(gate.call(Method::GET, "/more/x", &[], "").await.status, StatusCode::UNAUTHORIZED, "{said}");
    }
}

/// An upstream that answers one request at a signal of the test.
struct Held {
    listener: TcpListener,
}

impl Held {
    async fn taken(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut head = [0; 4096];
        assert_ne!(stream.read(&mut head).await.unwrap(), 0);
        stream
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_request_under_way_goes_on_though_its_route_and_upstream_are_removed() {
    let held = Held { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let url = format!("http://{}", held.listener.local_addr().unwrap());
    let with_it = format!(
        "{CONFIG}[[upstreams]]\nname = \"slow\"\nurls = [\"{url}\"]\n\
         [[routes]]\npath = \"/slow/{{*rest}}\"\nauth = \"none\"\nupstream = \"slow\"\n"
    );
    let place = Place::new(&with_it);
    let gate = place.start();
    let asked = gate.call(Method::GET, "/slow/x", &[], "");
    let answered = async {
        let mut stream = held.taken().await;
        reload(&place, &gate, CONFIG).await;
        let removed = gate.call(Method::GET, "/slow/y", &[], "").await;
        assert_eq!(removed.status, StatusCode::UNAUTHORIZED, "another route serves it now");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow").await.unwrap();
        stream
    };
    let (answer, _stream) = tokio::join!(asked, answered);
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"slow"[..]));
    let Tokens { access, .. } = gate.login().await;
    assert_eq!(gate.get("/hello", &access).await.status, StatusCode::OK);
}
