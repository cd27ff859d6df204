//! The start reports mistakes in an upstream's files with line and key.

use super::secure::{place, upstream};
use support::pki::{Pki, write_private};

#[test]
fn t16_certificates_that_cannot_be_used_are_refused_with_the_key_that_names_them() {
    let (pki, other) = (Pki::new(), Pki::new());
    let refused = |lines: &str| {
        let place = place(&pki, &upstream("tls", "https://127.0.0.1:1", lines));
        pki.issue(&["gate"]).write(&place, "gate");
        other.issue(&["gate"]).write(&place, "other");
        std::fs::write(place.path("empty.pem"), "nothing\n").unwrap();
        write_private(&place.path("bad.key"), "nothing\n");
        let ran = place.run(&["check"], "");
        assert_ne!(ran.code, Some(0), "{lines}");
        format!("{}{}", ran.stdout, ran.stderr)
    };
    for (lines, key, what) in [
        ("ca = \"no.pem\"", "upstreams[1].ca", "no.pem: cannot be read"),
        ("ca = \"empty.pem\"", "upstreams[1].ca", "holds no certificate"),
        ("ca = \"ca.pem\"\nserver_name = \"a b\"", "upstreams[1].server_name", "expected a host name"),
        (
            "ca = \"ca.pem\"\nclient_cert = { cert = \"gate.pem\", key = \"bad.key\" }",
            "upstreams[1].client_cert",
            "holds no private key",
        ),
        (
            "ca = \"ca.pem\"\nclient_cert = { cert = \"gate.pem\", key = \"other.key\" }",
            "upstreams[1].client_cert",
            "do not match",
        ),
        (
            "ca = \"ca.pem\"\nclient_cert = { cert = \"gate.pem\", key = \"gate.pem\" }",
            "upstreams[1].client_cert",
            "chmod 600",
        ),
        ("verify = false", "upstreams[1].verify", "is always verified"),
    ] {
        let said = refused(lines);
        assert!(said.contains(key) && said.contains(what), "{lines}: {said}");
    }
}
