//! Certificates are read again when their files change.

use http::StatusCode;
use rustls::pki_types::CertificateDer;

use support::pki::{Pki, secure_place, write_private};
use support::tls_client::Client;
use support::{Gate, until};

async fn served(client: &Client, gate: &Gate) -> CertificateDer<'static> {
    client.open(gate.address, "gate.test").await.unwrap().certificate
}

#[tokio::test]
async fn new_connections_get_the_new_certificate_and_old_ones_go_on() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let client = Client::new(&pki, &["h2"]);
    let mut old = client.open(gate.address, "gate.test").await.unwrap();
    let next = pki.issue(&["gate.test"]);
    next.write(&place, "server");
    until("the new certificate is served", async || served(&client, &gate).await == next.der().0).await;
    assert_eq!(old.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK);
    assert_ne!(old.certificate, next.der().0);
    // Another change, in the form of a mounted secret: another file under the same name.
    let last = pki.issue(&["gate.test"]);
    last.write(&place, "fresh");
    for kind in ["pem", "key"] {
        std::fs::rename(place.path(&format!("fresh.{kind}")), place.path(&format!("server.{kind}"))).unwrap();
    }
    until("the last certificate is served", async || served(&client, &gate).await == last.der().0).await;
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_changes_nothing_until_it_is_mended() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let client = Client::new(&pki, &["h2"]);
    let first = served(&client, &gate).await;
    let next = pki.issue(&["gate.test"]);
    std::fs::write(place.path("server.pem"), &next.cert).unwrap();
    let refused = "certificates changed but cannot be used; the old ones stay in force";
    until("the mistake is in the log", async || gate.log().contains(refused)).await;
    assert!(gate.log().contains("server.key"), "the log names the file");
    assert_eq!(served(&client, &gate).await, first);
    write_private(&place.path("server.key"), &next.key);
    until("the new certificate is served", async || served(&client, &gate).await == next.der().0).await;
    // The file is missing.
    std::fs::remove_file(place.path("server.pem")).unwrap();
    until("the loss is in the log", async || gate.log().matches(refused).count() > 1).await;
    assert_eq!(served(&client, &gate).await, next.der().0);
}

#[tokio::test]
async fn a_session_from_before_a_reload_is_not_resumed() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let client = Client::new(&pki, &["http/1.1"]);
    client.open(gate.address, "gate.test").await.unwrap().get("gate.test", "/public/x").await.unwrap();
    let next = pki.issue(&["gate.test"]);
    next.write(&place, "server");
    // A separate client checks, so that the first client keeps its ticket.
    let looker = Client::new(&pki, &["http/1.1"]);
    until("the new certificate is served", async || served(&looker, &gate).await == next.der().0).await;
    assert_eq!(served(&client, &gate).await, next.der().0);
}

#[tokio::test]
async fn t16_a_reload_at_the_moment_of_a_renewal_does_not_swallow_the_new_files() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let client = Client::new(&pki, &["h2"]);
    let first = served(&client, &gate).await;
    let next = pki.issue(&["gate.test"]);
    // As a deploy hook does: the files, and a reload at once, of a configuration whose `[tls]` is unchanged.
    next.write(&place, "server");
    gate.signal("HUP");
    assert_ne!(first, next.der().0);
    until("the new certificate is served", async || served(&client, &gate).await == next.der().0).await;
}

#[tokio::test]
async fn t16_other_files_are_taken_as_the_configuration_says_and_watched_from_then_on() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let client = Client::new(&pki, &["h2"]);
    let mut old = client.open(gate.address, "gate.test").await.unwrap();
    let next = pki.issue(&["gate.test"]);
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&config.replace("server.pem", "next.pem").replace("server.key", "next.key"));
    gate.signal("HUP");
    // The files do not exist yet.
    until("the mistake is in the log", async || gate.log().contains("the old one stays in force")).await;
    assert_eq!(served(&client, &gate).await, old.certificate);
    next.write(&place, "next");
    gate.signal("HUP");
    until("the next certificate is served", async || served(&client, &gate).await == next.der().0).await;
    let last = pki.issue(&["gate.test"]);
    last.write(&place, "next");
    until("the last certificate is served", async || served(&client, &gate).await == last.der().0).await;
    assert_eq!(old.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK);
}
