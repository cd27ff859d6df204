//! Real OAuth 2 clients against the real binary: each logs in, refreshes with ten other requests in flight, calls a
//! protected route, loses a reply, finds the old credential refused, and is refused after revocation. They know only
//! the issuer, their client id, and a user's name and password, all of which are new in each run.
//!
//! Between the clients and the gate is a proxy. On request it drops a reply: the gate has answered, and the client's
//! connection closes. It can also make the gate seem faulty, which shows that the clients notice faults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::{Place, keep_secret, send};
use tokio::net::TcpListener;

/// A fault of the gate that a client can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A revoked access token still opens a route.
    RevokedAccessPasses,
    /// A refresh token that was superseded or revoked still brings tokens.
    ReuseIsIgnored,
    /// The same refresh token again is refused: a lost reply costs the login.
    ReplayIsRefused,
    /// `expires_in` in milliseconds.
    WrongUnit,
    /// The metadata is another issuer's.
    OtherIssuer,
}

const FAULTS: [Fault; 5] =
    [Fault::RevokedAccessPasses, Fault::ReuseIsIgnored, Fault::ReplayIsRefused, Fault::WrongUnit, Fault::OtherIssuer];

/// A script for each client.
const SCRIPTS: [&str; 3] = ["openid_client.mjs", "authlib_client.py", "requests_oauthlib_client.py"];
/// The script of a client whose tokens are bound to a key.
const DPOP_SCRIPT: &str = "dpop_client.mjs";

/// Clients that authenticate by assertions.
const ASSERTION_SCRIPTS: [&str; 2] = ["private_key_jwt.mjs", "private_key_jwt.py"];

/// The state of the proxy.
struct Between {
    gate: SocketAddr,
    fault: Fault,
    lose_next: bool,
    seen: Vec<Bytes>,
    last_tokens: Bytes,
}

async fn between(
    state: Arc<Mutex<Between>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    if request.uri().path() == "/test/lose-the-next-reply" {
        state.lock().unwrap().lose_next = true;
        return Ok(Response::new(Full::default()));
    }
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let (gate, fault) = {
        let state = state.lock().unwrap();
        (state.gate, state.fault)
    };
    let path = parts.uri.path().to_owned();
    parts.uri = format!("http://{gate}{}", parts.uri).parse().unwrap();
    parts.headers.remove("connection");
    let answer = send(Request::from_parts(parts, Full::new(body.clone()))).await;
    let (mut status, mut said) = (answer.status, answer.body);
    let mut state = state.lock().unwrap();
    if path.ends_with("/token") {
        let again = state.seen.contains(&body);
        state.seen.push(body);
        match (fault, status) {
            (Fault::ReplayIsRefused, StatusCode::OK) if again => {
                (status, said) = (StatusCode::BAD_REQUEST, Bytes::from_static(br#"{"error":"invalid_grant"}"#));
            }
            (Fault::ReuseIsIgnored, StatusCode::BAD_REQUEST) => {
                (status, said) = (StatusCode::OK, state.last_tokens.clone());
            }
            (Fault::WrongUnit, StatusCode::OK) => said = edited(&said, "\"expires_in\":", "\"expires_in\":1000"),
            _ => {}
        }
        if status == StatusCode::OK {
            state.last_tokens = said.clone();
        }
        if std::mem::take(&mut state.lose_next) {
            return Err(std::io::Error::other("lost"));
        }
    }
    match fault {
        Fault::RevokedAccessPasses if path == "/data" => status = StatusCode::OK,
        Fault::OtherIssuer if path.starts_with("/.well-known/o") => {
            said = edited(&said, "\"issuer\":\"", "\"issuer\":\"x");
        }
        _ => {}
    }
    let mut response = Response::new(Full::new(said));
    *response.status_mut() = status;
    for name in ["content-type", "cache-control", "www-authenticate", "dpop-nonce"] {
        for value in answer.headers.get_all(name) {
            response.headers_mut().append(name, value.clone());
        }
    }
    Ok(response)
}

fn edited(body: &Bytes, from: &str, to: &str) -> Bytes {
    let text = std::str::from_utf8(body).unwrap();
    assert!(text.contains(from), "there is nothing to make wrong");
    text.replace(from, to).into()
}

/// The folder with the installed clients, and our programs beside what they import.
pub(super) fn clients() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let files = [&SCRIPTS[..], &[DPOP_SCRIPT, "exchange.mjs"], &ASSERTION_SCRIPTS].concat();
        support::clients::installed_with("interop/oauth2", &files)
    })
}

/// The clients: the name, and the program.
fn programs(cache: &Path) -> Vec<(&'static str, Vec<PathBuf>)> {
    let scripts = SCRIPTS.iter().map(|script| {
        let interpreter = if script.ends_with(".mjs") { "node".into() } else { cache.join("python/bin/python") };
        (*script, vec![interpreter, cache.join(script)])
    });
    let tests = std::env::current_exe().unwrap();
    let oauth2 = vec![tests, "--exact".into(), super::oauth2_crate::PROGRAM.into(), "--nocapture".into()];
    scripts.chain([("the oauth2 crate", oauth2)]).collect()
}

/// The type of a client program (RFC 6749 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    /// Authenticates with a secret, by HTTP Basic.
    Confidential,
}

/// Runs a program against a new gate.
async fn run(program: &[PathBuf], kind: Kind, fault: Fault) -> Output {
    run_with(program, kind, fault, None).await
}

/// As above, for clients that prove a key, with or without nonces.
async fn run_with(program: &[PathBuf], kind: Kind, fault: Fault, nonce: Option<&str>) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let new = || uuid::Uuid::new_v4().simple().to_string();
    let (client, user, password) = (format!("client-{}", new()), format!("user-{}", new()), new());
    keep_secret(&password);
    let config = support::CONFIG
        .replace("http://gate.test", &issuer)
        .replace("drain_timeout = \"2s\"", "drain_timeout = \"0s\"")
        .replace("[limits]", "[sessions]\ngrace = \"60s\"\n[store]\nkind = \"memory\"\n[limits]")
        .replace("id = \"web\"", &format!("id = \"{client}\""));
    let config = match nonce {
        None => config,
        Some(nonce) => support::with(&config, "dpop", &format!("nonce = \"{nonce}\""))
            .replace(&format!("id = \"{client}\""), &format!("id = \"{client}\"\ndpop = \"required\"")),
    };
    let place = Place::new(&config);
    let secret = if kind == Kind::Confidential { new() } else { String::new() };
    if kind == Kind::Confidential {
        keep_secret(&secret);
        let made = place.run(&["client", "secret", "--stdin", "--json"], &secret);
        let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
        let id = format!("id = \"{client}\"");
        place.write_config(&config.replace(&id, &format!("{id}\nsecret_hash = {}", made["secret_hash"])));
    }
    let added = place.run(&["user", "add", &user, "--scopes", "read write"], &format!("{password}\n"));
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let gate = place.start();
    let state = Between { gate: gate.address, fault, lose_next: false, seen: Vec::new(), last_tokens: Bytes::new() };
    let state = Arc::new(Mutex::new(state));
    let proxy = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let state = Arc::clone(&state);
            let service = service_fn(move |request| between(Arc::clone(&state), request));
            // The connection ends, as intended for a lost reply.
            tokio::spawn(
                async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) },
            );
        }
    });
    let output = tokio::process::Command::new(&program[0])
        .args(&program[1..])
        .env("ISSUER", &issuer)
        .env("CLIENT_ID", &client)
        .env("CLIENT_SECRET", &secret)
        .env("USER_NAME", &user)
        .env("PASSWORD", &password)
        .env("NONCE", if nonce == Some("required") { "1" } else { "" })
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .await
        .unwrap();
    proxy.abort();
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_know_the_gate_by_its_metadata_alone() {
    for (name, program) in programs(clients()) {
        for kind in [Kind::Public, Kind::Confidential] {
            let output = run(&program, kind, Fault::None).await;
            assert!(output.status.success(), "{name}, {kind:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n30_n34_n36_openid_client_proves_its_key_and_oauth4webapi_agrees_with_the_gate() {
    let program = ["node".into(), clients().join(DPOP_SCRIPT)];
    for kind in [Kind::Public, Kind::Confidential] {
        for nonce in ["off", "required"] {
            let output = run_with(&program, kind, Fault::None, Some(nonce)).await;
            assert!(output.status.success(), "{kind:?}, {nonce}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_gate_is_noticed_by_every_client() {
    for (name, program) in programs(clients()) {
        for fault in FAULTS {
            let output = run(&program, Kind::Public, fault).await;
            assert!(!output.status.success(), "{name} is content with {fault:?}");
        }
    }
}
