//! SIGHUP: the gate reads `gateway.toml` again.

use std::io::{Read, Write};
use std::net::TcpStream;

use http::{Method, StatusCode};

use crate::upstreams::server::Server;
use support::pki::Pki;
use support::{CONFIG, Gate, Place, until};

const TAKEN: &str = "configuration reloaded";

fn upstream(url: &str, lines: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"other\"\nurls = [\"{url}\"]\n{lines}\n\
         [[routes]]\npath = \"/other/{{*rest}}\"\nauth = \"none\"\nupstream = \"other\"\n"
    )
}

/// Reloads the gate with another configuration.
pub(super) async fn reload(place: &Place, gate: &Gate, config: &str) {
    let before = gate.log().matches(TAKEN).count();
    place.write_config(config);
    gate.signal("HUP");
    until("it is taken up", async || gate.log().matches(TAKEN).count() > before).await;
}

async fn status(gate: &Gate, path: &str) -> StatusCode {
    gate.call(Method::GET, path, &[], "").await.status
}

/// A request on a connection that stays open, and the status of its answer.
fn ask(connection: &mut TcpStream) -> String {
    connection.write_all(b"GET /public/x HTTP/1.1\r\nhost: gate.test\r\n\r\n").unwrap();
    let mut bytes = [0; 4096];
    let read = connection.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..read]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_upstream_takes_the_next_request_and_connections_and_sessions_go_on() {
    let (one, two) = (Server::plain().await, Server::plain().await);
    let config = |server: &Server| format!("{CONFIG}{}", upstream(&format!("http://{}", server.address), ""));
    let place = Place::new(&config(&one));
    let gate = place.start();
    let tokens = gate.login().await;
    let mut connection = TcpStream::connect(gate.address).unwrap();
    assert_eq!(ask(&mut connection), "HTTP/1.1 200 OK");
    assert_eq!(status(&gate, "/other/x").await, StatusCode::OK);
    assert_eq!((one.state.requests(), two.state.requests()), (1, 0));

    reload(&place, &gate, &config(&two)).await;
    assert_eq!(status(&gate, "/other/x").await, StatusCode::OK);
    assert_eq!((one.state.requests(), two.state.requests()), (1, 1));
    assert_eq!(ask(&mut connection), "HTTP/1.1 200 OK", "an open connection goes on");
    assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
    assert!(gate.log().contains("upstreams"), "the log says what is another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_or_gone_changes_nothing_and_what_takes_a_start_is_named() {
    let one = Server::plain().await;
    let good = format!("{CONFIG}{}", upstream(&format!("http://{}", one.address), ""));
    let place = Place::new(&good);
    let gate = place.start();
    for (wrong, said) in [
        (good.replace("[issuer]", "[isuer]"), "isuer: unknown key"),
        (good.replace(&one.address.to_string(), "other.test:0"), "gateway.toml:"),
        (format!("{CONFIG}{}", upstream("https://127.0.0.1:1", "ca = \"nowhere.pem\"")), "nowhere.pem"),
    ] {
        place.write_config(&wrong);
        gate.signal("HUP");
        until("the mistake is in the log", async || gate.log().contains(said)).await;
        assert_eq!(status(&gate, "/other/x").await, StatusCode::OK);
    }
    assert!(!gate.log().contains(TAKEN));

    let later = support::with(&good, "issuer", "audience = [\"other\"]");
    let later = support::with(&later, "limits", "verified_cache = \"1MiB\"");
    reload(&place, &gate, &later).await;
    let named = "keys=\"issuer, limits.verified_cache\"";
    until("what takes a start is named", async || gate.log().contains("restart needed")).await;
    assert!(gate.log().contains(named), "{}", gate.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_bounds_of_connections_hold_for_those_that_begin_afterwards() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let mut early: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(gate.address).unwrap()).collect();
    early.iter_mut().for_each(|connection| assert_eq!(ask(connection), "HTTP/1.1 200 OK"));
    let server = |lines: &str| support::with(CONFIG, "server", lines);

    reload(&place, &gate, &server("max_connections_per_address = 3")).await;
    let mut fourth = TcpStream::connect(gate.address).unwrap();
    let _ = fourth.write_all(b"GET /public/x HTTP/1.1\r\nhost: gate.test\r\n\r\n");
    let mut said = String::new();
    let _ = fourth.read_to_string(&mut said);
    assert_eq!(said, "", "it has no place");
    early.iter_mut().for_each(|connection| assert_eq!(ask(connection), "HTTP/1.1 200 OK"));

    // The bound on all connections. The listener already held a permit for the next connection; the connection after
    // that waits until there are fewer than three.
    reload(&place, &gate, &server("max_connections = 3")).await;
    let mut fourth = TcpStream::connect(gate.address).unwrap();
    assert_eq!(ask(&mut fourth), "HTTP/1.1 200 OK");
    let mut waits = TcpStream::connect(gate.address).unwrap();
    waits.write_all(b"GET /public/x HTTP/1.1\r\nhost: gate.test\r\n\r\n").unwrap();
    waits.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    early.iter_mut().for_each(|connection| assert_eq!(ask(connection), "HTTP/1.1 200 OK"));
    assert_eq!(waits.read(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop((fourth, early.pop()));
    until("it is served", async || waits.read(&mut bytes).is_ok_and(|read| bytes[..read].starts_with(b"HTTP/1.1 200")))
        .await;

    // The old number is possible again.
    reload(&place, &gate, CONFIG).await;
    let mut more: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(gate.address).unwrap()).collect();
    more.iter_mut().for_each(|connection| assert_eq!(ask(connection), "HTTP/1.1 200 OK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t16_what_an_upstream_must_prove_follows_the_file_of_its_authority() {
    let (old, new) = (Pki::new(), Pki::new());
    let named = |pki: &Pki| pki.issue(&["app.test"]);
    let (one, two) = (Server::secure(&named(&old), &["h2"]).await, Server::secure(&named(&new), &["h2"]).await);
    let lines = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
    let both = format!("https://{}\", \"https://{}", one.address, two.address);
    let place = Place::new(&format!("{CONFIG}{}", upstream(&both, lines)));
    std::fs::write(place.path("ca.pem"), old.root_pem()).unwrap();
    let gate = place.start();
    assert_eq!(status(&gate, "/other/x").await, StatusCode::OK);
    assert_eq!(two.state.requests(), 0);
    // A file that cannot be read changes nothing.
    std::fs::write(place.path("ca.pem"), "no certificate").unwrap();
    let refused = "files of upstreams changed but cannot be used; the old ones stay in force";
    until("the mistake is in the log", async || gate.log().contains(refused)).await;
    assert_eq!(status(&gate, "/other/x").await, StatusCode::OK);
    std::fs::write(place.path("ca.pem"), new.root_pem()).unwrap();
    until("the new authority counts", async || {
        gate.call(Method::GET, "/other/x", &[], "").await;
        two.state.requests() > 0
    })
    .await;
    let before = one.state.requests();
    for _ in 0..10 {
        assert_eq!(status(&gate, "/other/x").await, StatusCode::OK);
    }
    assert_eq!(one.state.requests(), before, "the old authority counts no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_another_bound_of_requests_holds_from_the_next_one_and_those_under_way_run_on() {
    // Accepts connections as the system does, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = format!("{CONFIG}{}", upstream(&format!("http://{}", silent.local_addr().unwrap()), ""));
    let place = Place::new(&open);
    let gate = place.start();
    let mut held = TcpStream::connect(gate.address).unwrap();
    held.write_all(b"GET /other/x HTTP/1.1\r\nhost: gate.test\r\n\r\n").unwrap();
    until("it is under way", async || gate.metric("rotogate_requests_in_flight").await == 1).await;
    reload(&place, &gate, &support::with(&open, "server", "max_requests = 1")).await;
    assert_eq!(status(&gate, "/public/x").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(gate.metric("rotogate_requests_in_flight").await, 1);
    reload(&place, &gate, &open).await;
    assert_eq!(status(&gate, "/public/x").await, StatusCode::OK);
}
