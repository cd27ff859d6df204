//! Several certificates on one listener (SNI, RFC 6066 §3), and certificates of clients.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::pki::{Pair, Pki, with_server};
use support::tls_client::{Client, refusal};
use support::{Gate, Place, until};

const TWO: &str = "tls = { cert = [\"a.pem\", \"b.pem\"], key = [\"a.key\", \"b.key\"] }";

/// `a.test` and `*.a.test` have one certificate, `b.test` and `other.a.test` another.
fn two(pki: &Pki) -> (Place, Gate) {
    let place = Place::new(&with_server(&format!("{TWO}\nhosts = [\"*\"]")));
    pki.issue(&["a.test", "*.a.test", "127.0.0.1"]).write(&place, "a");
    pki.issue(&["b.test", "b2.test"]).write(&place, "b");
    let gate = place.start();
    (place, gate)
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_the_first_is_for_the_rest() {
    let pki = Pki::new();
    let (_place, gate) = two(&pki);
    let client = Client::new(&pki, &["h2"]);
    let seen = async |name: &str| client.open(gate.address, name).await.unwrap().certificate;
    let (a, b) = (seen("a.test").await, seen("b.test").await);
    assert_ne!(a, b);
    assert_eq!(seen("x.a.test").await, a);
    assert_eq!(seen("B2.TEST").await, b);
    // Clients send no name for an address (RFC 6066 §3).
    assert_eq!(seen("127.0.0.1").await, a);
    // The client refuses the certificate, which was the first one.
    for unknown in ["c.test", "x.y.a.test", "test"] {
        let said = refusal(client.connect(gate.address, unknown).await).await;
        assert!(said.contains("not valid for name") && said.contains("*.a.test"), "{unknown}: {said}");
    }
}

#[tokio::test]
async fn t16_a_request_for_another_certificate_than_the_one_shown_is_421() {
    let pki = Pki::new();
    let (_place, gate) = two(&pki);
    for protocol in ["h2", "http/1.1"] {
        let client = Client::new(&pki, &[protocol]);
        let status = async |name: &str, host: &str| {
            let mut connection = client.open(gate.address, name).await.unwrap();
            connection.get(host, "/public/x").await.unwrap().status
        };
        for (name, host) in
            [("b.test", "a.test"), ("b.test", "x.a.test"), ("b.test", "c.test"), ("a.test", "b.test:443")]
        {
            assert_eq!(status(name, host).await, StatusCode::MISDIRECTED_REQUEST, "{protocol}: {name} {host}");
        }
        for (name, host) in
            [("a.test", "A.test:8443"), ("a.test", "x.a.test"), ("a.test", "a.test."), ("b.test", "b2.test")]
        {
            assert_eq!(status(name, host).await, StatusCode::OK, "{protocol}: {name} {host}");
        }
        // The connection stays open, and each request is judged separately.
        let mut connection = client.open(gate.address, "b.test").await.unwrap();
        assert_eq!(connection.get("a.test", "/public/x").await.unwrap().status, StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(connection.get("b.test", "/public/x").await.unwrap().status, StatusCode::OK);
    }
    assert!(gate.log().contains("misdirected"));
}

#[tokio::test]
async fn t23_who_names_no_server_speaks_to_those_of_the_first_certificate_alone() {
    let pki = Pki::new();
    let (_place, gate) = two(&pki);
    for protocol in ["h2", "http/1.1"] {
        let client = Client::new(&pki, &[protocol]);
        for (host, expected) in [
            ("127.0.0.1", StatusCode::OK),
            ("a.test", StatusCode::OK),
            ("x.a.test:443", StatusCode::OK),
            ("b.test", StatusCode::MISDIRECTED_REQUEST),
            ("B2.test:443", StatusCode::MISDIRECTED_REQUEST),
        ] {
            // Clients send no name for an address (RFC 6066 §3).
            let mut connection = client.open(gate.address, "127.0.0.1").await.unwrap();
            assert_eq!(connection.get(host, "/public/x").await.unwrap().status, expected, "{protocol}: {host}");
        }
    }
    // The host must also be a served one, which here is only that of `public_url`.
    let place = Place::new(&with_server(TWO));
    pki.issue(&["a.test", "127.0.0.1"]).write(&place, "a");
    pki.issue(&["b.test"]).write(&place, "b");
    let gate = place.start();
    let mut connection = Client::new(&pki, &["h2"]).open(gate.address, "127.0.0.1").await.unwrap();
    assert_eq!(connection.get("a.test", "/public/x").await.unwrap().status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK);
    assert!(gate.log().contains("unknown_host"));
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_as_the_configuration_says() {
    let (pki, others) = (Pki::new(), Pki::new());
    let (good, foreign) = (pki.issue(&["client.test"]), others.issue(&["client.test"]));
    let clients = [
        ("none", Client::new(&pki, &["h2"])),
        ("good", Client::with(&pki, &["h2"], Some(&good))),
        ("foreign", Client::with(&pki, &["h2"], Some(&foreign))),
    ];
    for (auth, who_passes) in [
        ("", &["good"][..]),
        (", client_auth = \"required\"", &["good"]),
        (", client_auth = \"optional\"", &["none", "good"]),
        (", client_auth = \"none\"", &["none", "good", "foreign"]),
    ] {
        let tls = format!("tls = {{ cert = \"server.pem\", key = \"server.key\", client_ca = \"ca.pem\"{auth} }}");
        let place = Place::new(&with_server(&tls));
        pki.issue(&["gate.test"]).write(&place, "server");
        std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
        let gate = place.start();
        for (who, client) in &clients {
            let passes = who_passes.contains(who);
            if passes {
                let mut connection = client.open(gate.address, "gate.test").await.unwrap();
                let answer = connection.get("gate.test", "/public/x").await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{who} {auth}");
                // No part of the certificate reaches the upstream.
                assert!(!String::from_utf8_lossy(&answer.body).contains("client.test"), "{who} {auth}");
            } else {
                let said = refusal(client.connect(gate.address, "gate.test").await).await;
                let why = if *who == "none" { "CertificateRequired" } else { "UnknownCA" };
                assert!(said.contains(why), "{who} {auth}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn t43_a_revoked_client_certificate_opens_nothing_and_ends_what_it_opened() {
    let pki = Pki::new();
    let serial = |number: u64| {
        pki.issue_with(&["client.test"], move |params| params.serial_number = Some(rcgen::SerialNumber::from(number)))
    };
    let [first, second] = [serial(7), serial(8)].map(|pair| Client::with(&pki, &["h2"], Some(&pair)));
    let tls = "tls = { cert = \"server.pem\", key = \"server.key\", client_ca = \"ca.pem\", client_crl = \"crl.pem\" }";
    let place = Place::new(&with_server(tls));
    pki.issue(&["gate.test"]).write(&place, "server");
    std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
    let revoke =
        |serials: &[u64], until| std::fs::write(place.path("crl.pem"), pki.revocations(serials, until)).unwrap();
    revoke(&[], 2200);
    let gate = place.start();
    let mut open = Vec::new();
    for (client, protocol) in [(&first, "h2"), (&first, "http/1.1"), (&second, "h2"), (&second, "http/1.1")] {
        let mut client = client.clone();
        client.config.alpn_protocols = vec![protocol.into()];
        open.push(client.open(gate.address, "gate.test").await.unwrap());
    }
    for connection in &mut open {
        assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK);
    }
    revoke(&[7], 2200);
    let reloaded = async |times: usize| {
        until("the list is read", async || gate.log().matches("certificates reloaded").count() >= times).await;
    };
    reloaded(1).await;
    let said = refusal(first.connect(gate.address, "gate.test").await).await;
    assert!(said.contains("CertificateRevoked"), "{said}");
    let (ended, others) = open.split_at_mut(2);
    for connection in ended {
        until("it ends", async || connection.get("gate.test", "/public/x").await.is_err()).await;
    }
    let mut other = second.open(gate.address, "gate.test").await.unwrap();
    for connection in others.iter_mut().chain([&mut other]) {
        assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK, "the other goes on");
    }
    // An expired list refuses every certificate.
    revoke(&[7], 2001);
    reloaded(2).await;
    assert!(gate.log().contains("certificate revocation list of"));
    let said = refusal(second.connect(gate.address, "gate.test").await).await;
    assert!(said.contains("alert"), "{said}");
    // The list of another issuer does not suffice either.
    std::fs::write(place.path("crl.pem"), Pki::new().revocations(&[], 2200)).unwrap();
    reloaded(3).await;
    let said = refusal(second.connect(gate.address, "gate.test").await).await;
    assert!(said.contains("alert"), "{said}");
}

/// A gate that asks clients for certificates of `pki` in this way.
fn asking(pki: &Pki, auth: &str) -> (Place, Gate) {
    let tls = format!("tls = {{ cert = \"server.pem\", key = \"server.key\"{auth} }}");
    let place = Place::new(&with_server(&tls));
    pki.issue(&["gate.test"]).write(&place, "server");
    std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
    let gate = place.start();
    (place, gate)
}

/// A client of only this TLS version, which resumes sessions.
fn of_version(pki: &Pki, version: &'static SupportedProtocolVersion, pair: &Pair) -> Client {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let (cert, key) = pair.der();
    let config = builder.with_root_certificates(pki.roots()).with_client_auth_cert(vec![cert], key).unwrap();
    Client { config }
}

/// The kind of the handshake before an answered request; `None` if it is refused.
async fn handshake(client: &Client, gate: &Gate) -> Option<HandshakeKind> {
    let mut stream = client.connect(gate.address, "gate.test").await.ok()?;
    let request = b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    // In the certificate's last moment a connection may begin and get no answer.
    answer.starts_with(b"HTTP/1.1 200").then(|| stream.get_ref().1.handshake_kind())?
}

#[tokio::test]
async fn t35_no_session_is_resumed_where_clients_show_certificates_and_elsewhere_one_is() {
    let pki = Pki::new();
    let pair = pki.issue(&["client.test"]);
    for (auth, second) in [
        ("", HandshakeKind::Resumed),
        (", client_ca = \"ca.pem\", client_auth = \"none\"", HandshakeKind::Resumed),
        (", client_ca = \"ca.pem\", client_auth = \"optional\"", HandshakeKind::Full),
        (", client_ca = \"ca.pem\"", HandshakeKind::Full),
    ] {
        let (_place, gate) = asking(&pki, auth);
        for version in [&TLS12, &TLS13] {
            let client = of_version(&pki, version, &pair);
            assert_eq!(handshake(&client, &gate).await, Some(HandshakeKind::Full), "{auth}");
            assert_eq!(handshake(&client, &gate).await, Some(second), "{auth} {version:?}");
        }
    }
}

/// A certificate that ends in some seconds.
fn short(pki: &Pki) -> Pair {
    let end = std::time::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(4);
    pki.issue_with(&["client.test"], |params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end)
}

#[tokio::test]
async fn t35_t36_after_its_end_a_certificate_opens_nothing_and_keeps_nothing_open() {
    let pki = Pki::new();
    let (_place, gate) = asking(&pki, ", client_ca = \"ca.pem\"");
    let (short, long) = (short(&pki), pki.issue(&["client.test"]));
    let known = [&TLS12, &TLS13].map(|version| of_version(&pki, version, &short));
    for client in &known {
        assert_eq!(handshake(client, &gate).await, Some(HandshakeKind::Full));
    }
    let mut open = Vec::new();
    for (pair, lasts) in [(&short, false), (&long, true)] {
        for protocol in ["http/1.1", "h2"] {
            let client = Client::with(&pki, &[protocol], Some(pair));
            open.push((client.open(gate.address, "gate.test").await.unwrap(), protocol, lasts));
        }
    }
    for (connection, protocol, _) in &mut open {
        assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK, "{protocol}");
    }
    for (connection, _, _) in open.iter_mut().filter(|(_, _, lasts)| !lasts) {
        until("the connection ends", async || connection.get("gate.test", "/public/x").await.is_err()).await;
    }
    // A client that does not resume sessions.
    until("the certificate has ended", async || {
        let stranger = of_version(&pki, &TLS13, &short);
        handshake(&stranger, &gate).await.is_none()
    })
    .await;
    for client in &known {
        assert_eq!(handshake(client, &gate).await, None);
    }
    for (connection, protocol, _) in open.iter_mut().filter(|(_, _, lasts)| *lasts) {
        assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK, "{protocol}");
    }
}
