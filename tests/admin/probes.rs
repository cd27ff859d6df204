//! The listener for health checks alone.

use std::net::SocketAddr;

use http::StatusCode;
use support::{CONFIG, Gate, Place, raw, until, with};

use super::{Ask, admin_token};

fn place() -> Place {
    Place::new(&with(CONFIG, "admin", "probes = \"0.0.0.0:0\""))
}

/// The address of the listener: the last of those that the gate names.
pub(super) async fn address(place: &Place, gate: &Gate) -> SocketAddr {
    let status = Ask::with(gate, &admin_token(place)).get("/v1/status").await.json();
    let listeners = status["listeners"].as_array().unwrap();
    let address: SocketAddr = listeners.last().unwrap().as_str().unwrap().parse().unwrap();
    assert!(address.ip().is_unspecified(), "{status}");
    (std::net::Ipv4Addr::LOCALHOST, address.port()).into()
}

fn ask(address: SocketAddr, method: &str, path: &str, head: &str) -> (String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\n{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
    let answer = raw(address, request.as_bytes());
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[tokio::test]
async fn p54_probes_answer_under_any_address_without_a_token_and_nothing_else_does() {
    let place = place();
    let gate = place.start();
    let (token, address) = (admin_token(&place), address(&place, &gate).await);
    let user = gate.login().await;
    // Requests of a kubelet, by the IP of a pod, and by any name.
    for host in ["10.42.0.7:8083", "[fd00::7]:8083", "pod.example", "127.0.0.1"] {
        let head = format!("Host: {host}\r\n");
        assert_eq!(ask(address, "GET", "/livez", &head), ("200".to_owned(), "alive\n".to_owned()), "{host}");
        assert_eq!(ask(address, "GET", "/readyz", &head), ("200".to_owned(), "ready\n".to_owned()), "{host}");
        assert_eq!(ask(address, "HEAD", "/readyz", &head).0, "200", "{host}");
    }
    let authorised = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/v1/status"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/v1/sessions"),
        ("POST", "/v1/revocations"),
        ("POST", "/v1/store/backup"),
        ("GET", "/sessions"),
        ("GET", "/public/x"),
        ("GET", "/livez/"),
    ] {
        let (status, body) = ask(address, method, path, &authorised);
        assert_eq!(status, "404", "{method} {path}: {body}");
    }
    assert_eq!(ask(address, "POST", "/livez", &authorised).0, "405");
    assert_eq!(gate.get("/x", &user.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn p54_an_upgrade_takes_the_probes_along_and_opens_those_that_are_new() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let (before, pid) = (address(&place, &gate).await, gate.child.id());
    let started = |status: &serde_json::Value| status["listeners"].as_array().unwrap().len();
    let status = Ask::with(&gate, &token).get("/v1/status").await.json();
    assert_eq!(started(&status), 3, "{status}");
    // The sockets that are open, by their addresses, and a new one for the probes.
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], support::server::free_port()));
    let config = with(CONFIG, "server", &format!("listen = \"{}\"", gate.address));
    let config = with(&config, "admin", &format!("listen = \"{}\"\nprobes = \"{free}\"", gate.admin));
    // The successor opens each listener before it drains the gate, that of an authorizer, too.
    let asked = std::net::SocketAddr::from(([127, 0, 0, 1], support::server::free_port()));
    let authorizer = format!(
        "\n[[authorizers]]\nkind = \"nginx\"\nlisten = \"{asked}\"\n\
         trusted_proxies = [\"127.0.0.1/32\"]\n"
    );
    place.write_config(&(config + &authorizer));
    gate.signal("USR2");
    until("the probes answer at the new address", async || {
        let open = tokio::net::TcpStream::connect(free).await.is_ok();
        open && ask(free, "GET", "/readyz", "Host: x\r\n").0 == "200"
    })
    .await;
    assert_eq!(gate.child.id(), pid);
    assert!(std::net::TcpStream::connect(before).is_err(), "the former address is closed");
    // Another upgrade with the same configuration: the socket is passed on.
    let begun = gate.log().matches("process.start").count();
    gate.signal("USR2");
    until("it has started again", async || gate.log().matches("process.start").count() > begun).await;
    assert_eq!(ask(free, "GET", "/livez", "Host: x\r\n").0, "200");
    let checked = place.json(&["check"], "");
    for address in [free, asked] {
        assert!(checked["listen"].as_array().unwrap().contains(&address.to_string().into()), "{checked}");
    }
}
