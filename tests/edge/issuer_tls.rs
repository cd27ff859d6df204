//! Issuers behind TLS of a private authority, and behind TLS that asks for a client certificate.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::issuer::{Issuer, claims};
use support::pki::{Pair, Pki};
use support::stub::{Edge, HEAD};
use support::{Place, until};

const ROUTES: &str = "[[routes]]\npath = \"/{*rest}\"\nupstream = \"app\"\n";

/// A provider over TLS: keys at `/keys`, introspection at `/introspect`.
struct Provider {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<&'static str, String>>>,
    /// The requests that got through TLS.
    served: Arc<Mutex<Vec<String>>>,
}

impl Provider {
    /// Starts the provider with a certificate of `pki`. With `clients`, it accepts only clients with certificates of
    /// that authority.
    fn start(pki: &Pki, clients: Option<&Pki>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (cert, key) = pki.issue(&["127.0.0.1"]).der();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = match clients {
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots(), provider).build().unwrap();
                builder.unwrap().with_client_cert_verifier(verifier)
            }
            None => builder.unwrap().with_no_client_auth(),
        };
        let config = Arc::new(builder.with_single_cert(vec![cert], key).unwrap());
        let keys = json!({ "keys": [Issuer::new(1).jwk("k1")] }).to_string();
        let inactive = json!({ "active": false }).to_string();
        let answers = HashMap::from([("/keys", keys), ("/introspect", inactive)]);
        let (answers, served) = (Arc::new(Mutex::new(answers)), Arc::<Mutex<Vec<String>>>::default());
        let shared = (Arc::clone(&answers), Arc::clone(&served));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that does not trust this server, or has no certificate, breaks off.
                let _ = serve(stream, &config, &shared.0, &shared.1);
            }
        });
        Self { address, answers, served }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn served(&self) -> Vec<String> {
        self.served.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    answers: &Mutex<HashMap<&'static str, String>>,
    served: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    stream.read_exact(&mut vec![0; length])?;
    let body = answers.lock().unwrap().get(path.as_str()).cloned().unwrap_or_default();
    served.lock().unwrap().push(path);
    let stream = stream.get_mut();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn private(place: &Place, name: &str, text: &str) {
    std::fs::write(place.path(name), text).unwrap();
    std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn pem(pair: &Pair) -> String {
    format!("{}{}", pair.cert, pair.key)
}

/// An issuer `kc` with keys of the provider, fetched with these files, and opaque tokens.
fn config(provider: &Provider, fetch: &str) -> String {
    format!(
        "{HEAD}{ROUTES}[[issuers]]\nname = \"kc\"\nurl = \"https://idp.test/\"\naudience = [\"api\"]\n\
         everywhere = true\njwks_url = \"{url}/keys\"\n\
         fetch = {{ for_tests = {{ min = \"1s\", cooldown = \"1s\", timeout = \"2s\" }}{fetch} }}\n\
         introspection = {{ url = \"{url}/introspect\", client_id = \"gate\", secret_file = \"idp.secret\", \
         for_tests = {{ timeout = \"2s\" }}, cache = \"0s\" }}\n",
        url = provider.url()
    )
}

fn edge(config: &str, pki: &Pki, client: &Pair) -> Edge {
    let files = |place: &Place| {
        private(place, "idp.secret", "secret");
        private(place, "client.pem", &pem(client));
        std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
    };
    Edge::with(config, files, |_| {})
}

/// A route whose upstream gets tokens of the provider's `/token`. The gate proves itself there by these keys.
fn exchange(provider: &Provider, client: &str) -> String {
    format!(
        "{HEAD}[[issuers]]\nname = \"kc\"\nurl = \"https://idp.test/\"\naudience = [\"api\"]\njwks_file = \"kc.json\"\n\
         [[providers]]\nname = \"kc\"\nissuer = \"kc\"\ntoken_url = \"{}/token\"\nca = \"ca.pem\"\n\
         client = {{ id = \"gate\"{client} }}\n\
         [[upstreams]]\nname = \"graph\"\nurls = [\"http://@upstream@\"]\n\
         exchange = {{ provider = \"kc\", audience = \"graph\" }}\n\
         [[routes]]\npath = \"/{{*rest}}\"\nissuers = [\"kc\"]\nupstream = \"graph\"\n",
        provider.url()
    )
}

fn status(edge: &Edge, token: &str) -> u16 {
    edge.ask_as(token, "GET /x", &[]).status
}

const CA: &str = ", ca = \"ca.pem\"";
const BOTH: &str = ", ca = \"ca.pem\", client_cert = \"client.pem\"";

#[tokio::test(flavor = "multi_thread")]
async fn i1_i20_keys_and_introspection_of_a_private_authority() {
    let (pki, other) = (Pki::new(), Pki::new());
    let provider = Provider::start(&pki, None);
    let token = Issuer::new(1).token(&json!({}));
    let of_kc = edge(&config(&provider, CA), &pki, &pki.issue(&["gate"]));
    assert_eq!([status(&of_kc, &token), status(&of_kc, "opaque")], [200, 401]);
    assert_eq!(provider.served(), ["/keys", "/introspect"]);
    let mut answer = claims(&json!({}));
    answer["active"] = true.into();
    provider.answers.lock().unwrap().insert("/introspect", answer.to_string());
    assert_eq!(status(&of_kc, "another"), 200);
    let served = provider.served().len();

    // Another authority, and that of the system.
    for (pki, files) in [(&other, CA), (&pki, "")] {
        let of_kc = edge(&config(&provider, files), pki, &pki.issue(&["gate"]));
        assert_eq!([status(&of_kc, &token), status(&of_kc, "opaque")], [503, 503]);
        let log = of_kc.gate.log();
        let about = |text: &str| log.lines().find(|line| line.contains(text)).unwrap_or_default().to_owned();
        for said in [about("issuer has no keys yet"), about("introspection failed")] {
            assert!(said.contains("issuer=kc") && said.contains("cause=tls"), "{log}");
            assert!(said.contains("UnknownIssuer"), "{said}");
        }
        let ran = of_kc.place.run(&["check", "--online"], "");
        assert_eq!(ran.code, Some(2));
        for key in ["issuers[0].jwks_url", "issuers[0].introspection.url"] {
            let line = ran.stderr.lines().find(|line| line.contains(key)).unwrap_or_default();
            assert!(line.contains("tls: ") && line.contains("UnknownIssuer"), "{}", ran.stderr);
        }
    }
    assert_eq!(provider.served().len(), served, "nothing is sent to a server that is not trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i20_servers_that_ask_for_a_client_certificate() {
    let (pki, other) = (Pki::new(), Pki::new());
    let provider = Provider::start(&pki, Some(&pki));
    let token = Issuer::new(1).token(&json!({}));
    let of_kc = edge(&config(&provider, BOTH), &pki, &pki.issue(&["gate"]));
    assert_eq!([status(&of_kc, &token), status(&of_kc, "opaque")], [200, 401]);
    assert_eq!(provider.served(), ["/keys", "/introspect"]);
    // No certificate, and a certificate of another authority.
    for (files, client) in [(CA, pki.issue(&["gate"])), (BOTH, other.issue(&["gate"]))] {
        let of_kc = edge(&config(&provider, files), &pki, &client);
        assert_eq!([status(&of_kc, &token), status(&of_kc, "opaque")], [503, 503], "{files}");
        let failed = "issuer has no keys yet";
        until("it is in the log", async || of_kc.gate.log().contains(failed)).await;
    }
    assert_eq!(provider.served().len(), 2);
    // A file that is no certificate is named before anything starts.
    let place = Place::new(&config(&provider, BOTH).replace("@upstream@", "127.0.0.1:9"));
    private(&place, "idp.secret", "secret");
    private(&place, "client.pem", "no certificate");
    std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
    let ran = place.run(&["check"], "");
    assert_eq!(ran.code, Some(2));
    for key in ["issuers[0].fetch", "issuers[0].fetch.client_cert"] {
        assert!(ran.stderr.lines().any(|line| line.contains(key) && line.contains("client.pem")), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d12_the_gate_proves_itself_to_a_provider_by_its_certificate() {
    let (pki, other) = (Pki::new(), Pki::new());
    let provider = Provider::start(&pki, Some(&pki));
    let granted = json!({
        "access_token": "exchanged", "token_type": "Bearer", "expires_in": 300,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    });
    provider.answers.lock().unwrap().insert("/token", granted.to_string());
    let (certificate, secret) = (", client_cert = \"client.pem\"", ", secret_file = \"idp.secret\"");
    let of = |client: &str, pair: &Pair| {
        let files = |place: &Place| {
            private(place, "idp.secret", "secret");
            private(place, "client.pem", &pem(pair));
            std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
            std::fs::write(place.path("kc.json"), json!({ "keys": [Issuer::new(1).jwk("k1")] }).to_string()).unwrap();
        };
        Edge::with(&exchange(&provider, client), files, |_| {})
    };
    let token = Issuer::new(1).token(&json!({}));
    // The certificate alone, and beside a secret.
    for client in [certificate.to_owned(), format!("{secret}{certificate}")] {
        let edge = of(&client, &pki.issue(&["gate"]));
        assert_eq!(status(&edge, &token), 200);
        assert_eq!(edge.stub.one().all("authorization"), ["Bearer exchanged"]);
    }
    assert_eq!(provider.served(), ["/token"; 2]);
    // No certificate, and one of another authority.
    for (client, pair) in [(secret, pki.issue(&["gate"])), (certificate, other.issue(&["gate"]))] {
        assert_eq!(status(&of(client, &pair), &token), 503);
    }
    assert_eq!(provider.served().len(), 2);
    let place = Place::new(&exchange(&provider, certificate).replace("@upstream@", "127.0.0.1:9"));
    private(&place, "client.pem", "no certificate");
    std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
    std::fs::write(place.path("kc.json"), json!({ "keys": [Issuer::new(1).jwk("k1")] }).to_string()).unwrap();
    let ran = place.run(&["check"], "");
    assert_eq!(ran.code, Some(2));
    let line = ran.stderr.lines().find(|line| line.contains("client.client_cert")).unwrap_or_default();
    assert!(line.contains("client.pem"), "{}", ran.stderr);
}
