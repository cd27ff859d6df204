//! Verifiers that learn of no revocation: they accept a token until it expires, or until they ask again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::support::pki::write_private;
use ::support::server::{Process, free_port, program};
use ::support::{CONFIG, Gate, Place, with};
use axum::Router;
use axum::http::HeaderMap;
use http::StatusCode;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Value, json};

use crate::gates::block_on;
use crate::probe::{Column, Latency, Verifier};
use crate::scene::{ISSUER, Scene, Server, log_in, revoke, serve};
use crate::{Table, tokens};

const SECRET: &str = "the-secret-of-the-service-1234567890";

/// The time between two requests of a column. Five columns run at the same time.
const EVERY: Duration = Duration::from_millis(5);

/// A verifier, and its process.
struct Peer {
    name: &'static str,
    verifier: Verifier,
    _process: Option<Process>,
    _gate: Option<(Place, Gate)>,
}

/// The names of the columns, with what each shows.
pub(crate) fn run(table: &mut Table) {
    block_on(async {
        let hash = hash_of_secret();
        let service = format!(
            "[[clients]]\nid = \"svc\"\nsecret_hash = \"{hash}\"\ngrants = [\"client_credentials\"]\nscopes = [\"read\"]\n"
        );
        let scene = Scene::new(Server::Embedded, &service).await;
        let gate = scene.gate();
        let peers = peers(&scene, &gate).await;
        let mut columns = Vec::new();
        for peer in &peers {
            let all = log_in(&gate, tokens(200)).await;
            for token in &all {
                peer.verifier.accepts(token).await;
            }
            columns.push((peer.name, all));
        }
        // All columns run at the same time, because each lasts for minutes.
        let gate = Arc::new(gate);
        let measured = peers.iter().zip(&columns).map(|(peer, (name, all))| {
            let (gate, column) = (Arc::clone(&gate), Column::new(&peer.verifier, all));
            async move {
                let revoked = async {
                    let mut at: Vec<Instant> = Vec::new();
                    for token in all {
                        at.push(revoke(&gate, token).await);
                    }
                    at
                };
                (*name, column.run(EVERY, revoked).await)
            }
        });
        let measured: Vec<(&str, Vec<Latency>)> = futures_util::future::join_all(measured).await;
        for (name, sample) in measured {
            table.add(name, &sample, None);
        }
    });
}

fn hash_of_secret() -> String {
    let made = Place::new(CONFIG).run(&["client", "secret", "--stdin", "--json"], SECRET).stdout;
    let made: Value = serde_json::from_str(&made).unwrap();
    made["secret_hash"].as_str().unwrap().to_owned()
}

/// The name of a verifier, its program on this machine, and a function that starts it.
type Installed = (&'static str, PathBuf, fn(&Scene, &Keys, &Path, &Path) -> Peer);

/// The verifiers whose programs this machine has. The function prints the missing programs.
async fn peers(scene: &Scene, gate: &Gate) -> Vec<Peer> {
    let folder = scene.place.path("peers");
    fs::create_dir(&folder).unwrap();
    let keys = keys(scene, gate, &folder).await;
    let mut peers = vec![server_that_verifies(&keys).await, introspecting_gate(scene, gate)];
    let installed: [Installed; 2] = [
        ("haproxy", program("haproxy", &[PathBuf::from("/usr/sbin")]), haproxy),
        ("envoy", ::support::target_folder("interop-cache").join("neighbours/bin/envoy-itself"), envoy),
    ];
    for (name, program, start) in installed {
        match program.exists() || Command::new(&program).arg("-v").output().is_ok() {
            true => peers.push(start(scene, &keys, &folder, &program)),
            false => println!("{name} is missing: no column for it"),
        }
    }
    let nginx = program("nginx", &[PathBuf::from("/usr/sbin")]);
    match Command::new(&nginx).arg("-v").output().is_ok() {
        true => peers.push(nginx_that_asks(scene, &folder, &nginx, &keys).await),
        false => println!("nginx is missing: no column for it"),
    }
    peers
}

/// The public key of the gate, in the forms that its verifiers read.
struct Keys {
    /// In PEM.
    pem: PathBuf,
    /// As a JWK set.
    set: PathBuf,
    key: DecodingKey,
}

async fn keys(scene: &Scene, gate: &Gate, folder: &Path) -> Keys {
    let answer = gate.call(http::Method::GET, "/.well-known/jwks.json", &[], "").await;
    let set: Value = answer.json();
    let jwk = set["keys"].as_array().unwrap().iter().find(|key| key["alg"] == "ES256").expect("a key for ES256");
    let key = DecodingKey::from_jwk(&serde_json::from_value(jwk.clone()).unwrap()).unwrap();
    let kid = jwk["kid"].as_str().unwrap();
    let private = fs::read_to_string(scene.place.path("data/keys").join(::support::key_file(kid))).unwrap();
    let pem = folder.join("public.pem");
    fs::write(&pem, rcgen::KeyPair::from_pem(&private).unwrap().public_key_pem()).unwrap();
    let file = folder.join("jwks.json");
    fs::write(&file, json!({ "keys": [jwk] }).to_string()).unwrap();
    Keys { pem, set: file, key }
}

fn listening(address: SocketAddr) -> impl FnMut() -> bool {
    move || std::net::TcpStream::connect(address).is_ok()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A verifier as a service would write it: `jsonwebtoken` with its defaults, which give a token 60 seconds of leeway.
async fn verifying_server(keys: &Keys) -> SocketAddr {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&["api"]);
    let (key, validation) = (Arc::new(keys.key.clone()), Arc::new(validation));
    serve(Router::new().fallback(move |headers: HeaderMap| async move {
        let token = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match token.is_some_and(|token| decode::<Value>(token, &key, &validation).is_ok()) {
            true => StatusCode::OK,
            false => StatusCode::UNAUTHORIZED,
        }
    }))
    .await
}

async fn server_that_verifies(keys: &Keys) -> Peer {
    let verifier = Verifier::new(verifying_server(keys).await);
    Peer { name: "a server that verifies (jsonwebtoken), tokens of 5 minutes", verifier, _process: None, _gate: None }
}

/// Another gate that asks the first by introspection and keeps the answer for the default of 30 seconds.
fn introspecting_gate(scene: &Scene, gate: &Gate) -> Peer {
    let source = format!(
        "introspection = {{ url = \"{}\", client_id = \"svc\", secret_file = \"svc.secret\", always = true }}\n",
        gate.url("/connect/introspect")
    );
    let files = |place: &Place| write_private(&place.path("svc.secret"), SECRET);
    another_gate("introspection, remembered for 30 s", scene, &source, files)
}

/// Another gate that trusts the first as an issuer.
fn another_gate(name: &'static str, scene: &Scene, source: &str, files: impl FnOnce(&Place)) -> Peer {
    let config = CONFIG.replace("echo:", &format!("http://{}", scene.application));
    let config = with(&config, "server", "public_url = \"http://other.test\"");
    let config = format!(
        "{config}[[issuers]]\nname = \"first\"\nurl = \"{ISSUER}\"\naudience = [\"api\"]\n\
         scopes = [\"read\", \"write\"]\neverywhere = true\n{source}"
    );
    let place = Place::new(&config);
    files(&place);
    let second = tokio::task::block_in_place(|| {
        place.start_with(|command| {
            command.env("ROTOGATE_LOG", "info");
        })
    });
    let verifier = Verifier::new(second.address);
    Peer { name, verifier, _process: None, _gate: Some((place, second)) }
}

fn started(name: &'static str, port: u16, command: &mut Command) -> Peer {
    let process = Process::start(command, listening(local(port))).expect(name);
    Peer { name, verifier: Verifier::new(local(port)), _process: Some(process), _gate: None }
}

/// HAProxy with the rules of its documentation: signature, issuer, audience, and `exp` without leeway.
fn haproxy(scene: &Scene, keys: &Keys, folder: &Path, program: &Path) -> Peer {
    let (port, file, pem) = (free_port(), folder.join("haproxy.cfg"), keys.pem.display());
    let config = format!(
        r#"defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend gateway
    bind 127.0.0.1:{port}
    http-request set-var(txn.token) http_auth_bearer
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_header_query('$.alg') -m str ES256 }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify('ES256',"{pem}") 1 }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.iss') -m str {ISSUER} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.aud') -m str api }}
    http-request set-var(txn.now) date()
    http-request set-var(txn.left) var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now)
    http-request deny deny_status 401 unless {{ var(txn.left) -m int gt 0 }}
    default_backend app
backend app
    server app {}
"#,
        scene.application
    );
    fs::write(&file, config).unwrap();
    started("HAProxy, jwt_verify, tokens of 5 minutes", port, Command::new(program).arg("-db").arg("-f").arg(file))
}

/// `jwt_authn` with its defaults, which give a token 60 seconds of leeway.
fn envoy(scene: &Scene, keys: &Keys, folder: &Path, program: &Path) -> Peer {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
    let (port, file) = (free_port(), folder.join("envoy.json"));
    let address =
        |of: SocketAddr| json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } });
    let filters = json!([
        { "name": "envoy.filters.http.jwt_authn", "typed_config": {
            "@type": format!("{TYPES}.http.jwt_authn.v3.JwtAuthentication"),
            "providers": { "gate": {
                "issuer": ISSUER, "audiences": ["api"], "local_jwks": { "filename": keys.set },
                "jwt_cache_config": { "jwt_cache_size": 1000 },
            } },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "gate" } }],
        } },
        { "name": "envoy.filters.http.router", "typed_config": { "@type": format!("{TYPES}.http.router.v3.Router") } },
    ]);
    let manager = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "public", "http_filters": filters,
        "route_config": { "virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "app" } }],
        }] },
    } });
    let endpoint = json!({ "endpoint": { "address": address(scene.application) } });
    let config = json!({ "static_resources": {
        "listeners": [{ "address": address(local(port)), "filter_chains": [{ "filters": [manager] }] }],
        "clusters": [{ "name": "app", "load_assignment": {
            "cluster_name": "app", "endpoints": [{ "lb_endpoints": [endpoint] }],
        } }],
    } });
    fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "warn"]);
    started("Envoy, jwt_authn, tokens of 5 minutes", port, &mut command)
}

/// `auth_request` to a server that verifies.
async fn nginx_that_asks(scene: &Scene, folder: &Path, program: &Path, keys: &Keys) -> Peer {
    let asked = verifying_server(keys).await;
    let (port, file, place) = (free_port(), folder.join("nginx.conf"), folder.display());
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        r#"{user} daemon off; worker_processes 1; pid {place}/nginx.pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log {place}/access.log;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    keepalive_requests 1000000;
    upstream app {{ server {}; keepalive 64; }}
    upstream asked {{ server {asked}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ auth_request /asked; proxy_pass http://app; }}
        location = /asked {{
            internal;
            proxy_pass http://asked;
            proxy_pass_request_body off;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
        }}
    }}
}}
"#,
        scene.application
    );
    fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(file);
    started("nginx, auth_request to a server that verifies, tokens of 5 minutes", port, &mut command)
}
