//! Tokens that are bound to a key (RFC 9449), at the real binary: the answers to clients without the key, and with it.

mod dialects;
mod exchange;
mod routes;
mod session;
#[cfg(feature = "redis")]
mod shared;

use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use support::stub::{Edge, HEAD};
use support::wire::Reply;
use support::{Place, keep_secret};

/// Clients of every kind, and routes.
const CLIENTS: &str = r#"
[[clients]]
id = "bound"
dpop = "optional"
[[clients]]
id = "strict"
dpop = "required"
[[clients]]
id = "service"
secret_hash_file = "service.hash"
grants = ["password", "refresh_token", "client_credentials"]
scopes = ["read"]
dpop = "optional"
[[routes]]
path = "/bound/{*rest}"
upstream = "app"
dpop = "required"
[[routes]]
path = "/forwarded/{*rest}"
upstream = "app"
forward_token = true
[[routes]]
path = "/open/{*rest}"
auth = "optional"
upstream = "app"
[[routes]]
path = "/cookie/{*rest}"
cookie = "token"
upstream = "app"
[[routes]]
path = "/named/{*rest}"
hosts = ["named.test"]
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;
const SECRET: &str = "the secret of the service";

fn edge() -> Edge {
    edge_with("")
}

/// The configuration with these keys in `[dpop]`.
fn edge_with(dpop: &str) -> Edge {
    edge_on(&format!("{HEAD}{CLIENTS}\n[dpop]\n{dpop}"))
}

fn edge_on(config: &str) -> Edge {
    let config = support::with(config, "server", "hosts = [\"*\"]\ntrusted_proxies = [\"127.0.0.2/32\"]");
    keep_secret(SECRET);
    Edge::with(&config, hash_secret, |_| {})
}

fn hash_secret(place: &Place) {
    // Makes the file that the configuration names.
    let made = Place::new(HEAD).json(&["client", "secret", "--stdin"], SECRET);
    let path = place.path("service.hash");
    std::fs::write(&path, made["secret_hash"].as_str().unwrap()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A client with a key.
pub(crate) struct Holder(SigningKey);

impl Holder {
    pub(crate) fn new(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }

    fn jwk(&self) -> Value {
        json!({ "crv": "Ed25519", "kty": "OKP", "x": URL_SAFE_NO_PAD.encode(self.0.verifying_key().as_bytes()) })
    }

    /// RFC 7638.
    fn thumbprint(&self) -> String {
        let canonical = format!("{{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":{}}}", self.jwk()["x"]);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": self.jwk() });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()).to_bytes());
        format!("{message}.{signature}")
    }

    /// The header of a proof for a request, with some claims changed.
    pub(crate) fn proof(&self, method: &str, url: &str, token: Option<&str>, changes: &Value) -> String {
        let mut claims = json!({ "jti": jti(), "htm": method, "htu": url, "iat": now() });
        if let Some(token) = token {
            claims["ath"] = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())).into();
        }
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let proof = self.sign(&claims);
        keep_secret(&proof);
        format!("DPoP: {proof}")
    }

    /// A proof for the token endpoint.
    fn for_tokens(&self) -> String {
        self.proof("POST", TOKEN_URL, None, &json!({}))
    }

    fn for_path(&self, path: &str, token: &str) -> String {
        self.proof("GET", &format!("http://gate.test{path}"), Some(token), &json!({}))
    }
}

const TOKEN_URL: &str = "http://gate.test/connect/token";

fn jti() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("proof {}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A second ahead of the gate's time: `iat` has whole seconds, and the gate refuses an `iat` before its start.
fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a client has a clock of its own")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    now + 1
}

/// Sends a request with a DPoP token.
fn ask(edge: &Edge, path: &str, token: &str, proof: &str) -> Reply {
    edge.ask(&format!("GET {path}"), &[&format!("Authorization: DPoP {token}"), proof])
}

/// Asks the token endpoint as a client.
fn token(edge: &Edge, client: &str, headers: &[&str], fields: &[(&str, &str)]) -> Reply {
    let secret = [("client_secret", SECRET)];
    let secret: &[_] = if client == "service" { &secret } else { &[] };
    let reply = edge.form("/connect/token", headers, &[&[("client_id", client)], secret, fields].concat());
    if reply.status == 200 {
        for name in ["access_token", "refresh_token"] {
            reply.json()[name].as_str().into_iter().for_each(keep_secret);
        }
    }
    reply
}

fn log_in(edge: &Edge, client: &str, headers: &[&str]) -> Reply {
    let password = edge.gate.password.clone();
    token(edge, client, headers, &[("grant_type", "password"), ("username", "demo"), ("password", &password)])
}

fn refresh(edge: &Edge, client: &str, headers: &[&str], refresh_token: &str) -> Reply {
    token(edge, client, headers, &[("grant_type", "refresh_token"), ("refresh_token", refresh_token)])
}

fn field(reply: &Reply, name: &str) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()[name].as_str().unwrap().to_owned()
}

/// The claims of a token.
pub(crate) fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}
