//! nginx asks over TLS, with a client certificate.

use support::pki::Pki;
use support::tls_client::{Client, refusal};

use super::before::{Before, NGINX};
use super::scene::bearer;

/// The lines of docs/forward-auth.md.
const NGINX_LINES: &str = "proxy_pass https://gate/;
      proxy_ssl_certificate nginx.pem;
      proxy_ssl_certificate_key nginx.key;
      proxy_ssl_trusted_certificate gate-ca.pem;
      proxy_ssl_name gate.internal;
      proxy_ssl_verify on;";
const GATE_LINES: &str =
    "kind = \"nginx\"\ntls = { cert = \"gate.pem\", key = \"gate.key\", client_ca = \"proxies.pem\" }";

#[test]
fn n17_a_neighbour_asks_over_tls_with_a_certificate_and_nobody_asks_without() {
    let page = include_str!("../../docs/forward-auth.md");
    for line in NGINX_LINES.lines().chain(GATE_LINES.lines().skip(1)) {
        assert!(page.contains(line.trim()), "docs/forward-auth.md lacks {line}");
    }
    let (gate_ca, proxies) = (Pki::new(), Pki::new());
    let (of_gate, of_nginx) = (gate_ca.issue(&["gate.internal"]), proxies.issue(&["nginx"]));
    let change =
        |text: String| text.replace("proxy_pass http://gate/;", NGINX_LINES).replace("kind = \"nginx\"", GATE_LINES);
    let files = |folder: &std::path::Path| {
        for (pair, name) in [(&of_gate, "gate"), (&of_nginx, "nginx")] {
            std::fs::write(folder.join(format!("{name}.pem")), &pair.cert).unwrap();
            support::pki::write_private(&folder.join(format!("{name}.key")), &pair.key);
        }
        std::fs::write(folder.join("gate-ca.pem"), gate_ca.root_pem()).unwrap();
        std::fs::write(folder.join("proxies.pem"), proxies.root_pem()).unwrap();
    };
    let before = Before::start_changed("kind = \"memory\"", &NGINX, &change, &files);
    let good = bearer(&before.login());
    before.stub.take();
    let reply = before.ask("GET /private/a", &[&good, "X-Auth-Subject: root"]);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_ne!(before.stub.one().all("x-auth-subject"), ["root"]);
    assert_eq!(before.ask("GET /private/a", &[]).status, 401);

    // The gate refuses a connection without a certificate, and with a certificate of another authority.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let foreign = gate_ca.issue(&["nginx"]);
    for (pair, why) in [(None, "CertificateRequired"), (Some(&foreign), "UnknownCA")] {
        let client = Client::with(&gate_ca, &["http/1.1"], pair);
        let said = runtime.block_on(async { refusal(client.connect(before.asked, "gate.internal").await).await });
        assert!(said.contains(why), "{why}: {said}");
    }
}
