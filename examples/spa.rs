//! A single-page client whose tokens are in cookies that no script can read.
//!
//! ```sh
//! cargo run --example spa    # then open http://localhost:3000
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Form, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::map_request;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use rotogate::client::Client;
use rotogate::directory::password::{self, Passwords};
use rotogate::fault;
use rotogate::gate::ACCESS_COOKIE;
use rotogate::gate::{NewSession, Peer};
use rotogate::token::Keyring;
use rotogate::{Gate, Identity};

/// The page: it calls `/api/me`, and after a 401 refreshes once.
const PAGE: &str = r#"<!doctype html><title>rotogate</title>
<form><input name=user value=ada><input name=password type=password value="correct horse"><button>log in</button></form>
<button onclick="call('/logout', {method: 'POST'}).then(me)">log out</button><p id=me></p>
<script>
const call = (path, options) => fetch(path, options);
const api = async path => {
    const answer = await call(path);
    if (answer.status != 401 || !(await call('/refresh', {method: 'POST'})).ok) return answer;
    return call(path);
};
const me = async () => {
    const answer = await api('/api/me');
    document.getElementById('me').textContent = answer.ok ? await answer.text() : 'nobody is logged in';
};
document.forms[0].onsubmit = event => {
    event.preventDefault();
    call('/login', {method: 'POST', body: new URLSearchParams(new FormData(event.target))}).then(me);
};
me();
</script>"#;

/// What the login needs.
#[derive(Clone)]
struct Logins {
    gate: Gate,
    passwords: Arc<Passwords>,
    hash: Arc<str>,
}

#[derive(serde::Deserialize)]
struct LoginForm {
    user: String,
    password: String,
}

/// The application. Its one user is ada; yours are in a database.
pub async fn app(origin: &str, password: &str) -> Result<(Router, Gate), Box<dyn Error>> {
    let gate = Gate::builder()
        // Its origin is that of the page: a request from another one changes nothing.
        .issuer(origin)
        .keys(Keyring::ephemeral()?)
        .client(Client::public("spa"))
        .build()
        .await?;
    let logins = Logins {
        gate: gate.clone(),
        passwords: Arc::new(Passwords::default()),
        hash: password::hash(&password.into())?.into(),
    };
    // No `gate.layer()` here: each route asks for itself, and there is no endpoint of the gate's own.
    let api = Router::new().route("/api/me", get(me)).route_layer(gate.require().cookie(ACCESS_COOKIE));
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/login", post(login))
        .route("/refresh", post(refresh))
        .route("/logout", post(logout))
        .merge(api)
        .with_state(logins)
        .layer(map_request(peer));
    Ok((app, gate))
}

async fn me(identity: Identity) -> String {
    identity.subject().to_owned()
}

async fn login(
    State(Logins { gate, passwords, hash }): State<Logins>,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Result<HeaderMap, StatusCode> {
    gate.cookies().admit(&headers).map_err(|_| StatusCode::FORBIDDEN)?;
    let right = passwords.verify(&form.password.into(), &hash).await;
    if !right.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)? || form.user != "ada" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let issued = gate.sessions().start(NewSession::new(form.user, "spa")).await;
    Ok(gate.cookies().set(&issued.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?))
}

/// 401: the session is over, and its cookies are cleared. 503: nothing was decided, try again.
async fn refresh(State(logins): State<Logins>, request: Request) -> Response {
    let cookies = logins.gate.cookies();
    match cookies.refresh(&request.into_parts().0).await {
        Ok(issued) => (StatusCode::NO_CONTENT, cookies.set(&issued)).into_response(),
        Err(fault::Error::Denied(denial)) if !denial.is_undecided() => {
            (StatusCode::UNAUTHORIZED, cookies.clear()).into_response()
        }
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn logout(State(logins): State<Logins>, request: Request) -> Response {
    match logins.gate.cookies().log_out(&request.into_parts().0).await {
        Ok(()) => (StatusCode::NO_CONTENT, logins.gate.cookies().clear()).into_response(),
        Err(fault::Error::Denied(_)) => StatusCode::FORBIDDEN.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Tells the gate where a request comes from, for its limits by address.
async fn peer(ConnectInfo(address): ConnectInfo<SocketAddr>, mut request: Request) -> Request {
    request.extensions_mut().insert(Peer::new(address.ip(), false));
    request
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (app, gate) = app("http://localhost:3000", "correct horse").await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("open http://localhost:3000 in Chrome or Firefox, which take `Secure` cookies from localhost");
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    gate.flush().await?; // what waits to be written; without it a user may have to log in again
    Ok(())
}
