//! The start and `rotogate check` report mistakes in certificates with file and key.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::Place;
use support::pki::{Pki, secure_place, with_server, write_private};
use support::tls_client::Client;

/// `check` and the start report it, and both name the key of gateway.toml.
fn both_say(place: &Place, texts: &[&str]) {
    let checked = place.run(&["check"], "");
    assert_eq!(checked.code, Some(2), "{checked:?}");
    for said in [place.refused(), checked.stderr] {
        for text in texts {
            assert!(said.contains(text), "{text:?} is not in {said}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_key() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    assert_eq!(place.run(&["check"], "").code, Some(0));
    let (cert, key) = (place.path("server.pem"), place.path("server.key"));
    let (good_cert, good_key) = (fs::read_to_string(&cert).unwrap(), fs::read_to_string(&key).unwrap());

    write_private(&key, &pki.issue(&["gate.test"]).key);
    both_say(
        &place,
        &[
            "server.key: is not the private key of the first certificate in",
            "server.pem",
            "gateway.toml:",
            "server.tls.key: ",
        ],
    );
    write_private(&key, "not a key");
    both_say(&place, &["server.key: not a readable private key", "server.tls.key: "]);
    write_private(&key, &good_key);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    both_say(&place, &["its mode 644 gives others access: chmod 600", "server.tls.key: "]);
    fs::remove_file(&key).unwrap();
    both_say(&place, &["server.key: cannot be opened", "server.tls.key: "]);
    write_private(&key, &good_key);

    fs::write(&cert, "").unwrap();
    both_say(&place, &["server.pem: holds no certificate", "server.tls.cert: "]);
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    both_say(&place, &["server.pem: is not PEM", "server.tls.cert: "]);
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    both_say(&place, &["server.pem: its first certificate is not a server certificate", "server.tls.cert: "]);
    // The authority first, a common mistake when files are joined.
    fs::write(&cert, format!("{}{good_cert}", pki.root_pem())).unwrap();
    both_say(&place, &["must be the server's own", "server.tls.key: "]);
    fs::remove_file(&cert).unwrap();
    both_say(&place, &["server.pem: cannot be read", "server.tls.cert: "]);
}

#[test]
fn one_certificate_of_several_is_named_by_its_place() {
    let pki = Pki::new();
    let place = Place::new(&with_server(
        "listeners = [{ address = \"127.0.0.1:0\", tls = { cert = [\"a.pem\", \"b.pem\"], \
         key = [\"a.key\", \"b.key\"], client_ca = \"ca.pem\" } }]",
    ));
    pki.issue(&["a.test"]).write(&place, "a");
    both_say(&place, &["b.pem: cannot be read", "server.listeners[0].tls.cert[1]: "]);
    pki.issue(&["b.test"]).write(&place, "b");
    both_say(&place, &["ca.pem: cannot be read", "server.listeners[0].tls.client_ca: "]);
}

#[tokio::test]
async fn a_certificate_at_the_wrong_time_is_served_with_a_warning() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    for (from, until, said, refusal) in [
        ((1999, 1, 1), (2001, 2, 3), "server.pem: the certificate expired at Sat, 03 Feb 2001 00:00:00 GMT", "expired"),
        (
            (4000, 1, 1),
            (4001, 1, 1),
            "server.pem: the certificate is not valid before Sat, 01 Jan 4000 00:00:00 GMT",
            "not valid yet",
        ),
    ] {
        let pair = pki.issue_with(&["gate.test"], |params| {
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        });
        pair.write(&place, "server");
        let checked = place.run(&["check"], "");
        assert_eq!(checked.code, Some(0), "{checked:?}");
        assert!(checked.stdout.contains(said) && checked.stdout.contains("server.tls.cert: "), "{checked:?}");
        let gate = place.start();
        assert!(gate.log().contains(said), "{}", gate.log());
        let error = Client::new(&pki, &["h2"]).connect(gate.address, "gate.test").await.unwrap_err().to_string();
        assert!(error.contains(refusal), "{error}");
    }
}
