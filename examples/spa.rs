//! A page and its API, with a session of one cookie: the browser never sees a token.
//!
//! ```sh
//! cargo run --example spa    # then open http://localhost:3000
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::map_request;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use rotogate::directory::password::{self, Cost, Passwords};
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::gate::{Browser, Peer};
use rotogate::route::{Route, RoutePolicy};
use rotogate::token::Keyring;
use rotogate::{Gate, Identity, SecretString};

/// The page. It shows the notes of whoever is logged in, and leads to the login when nobody is.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Notes</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 30rem; margin: 10vh auto; padding: 0 1rem }</style>
<h1>Notes</h1>
<p id="who">…</p>
<form id="add" hidden><input name="note" required placeholder="A note" maxlength="200"><button>Add</button></form>
<ul id="notes"></ul>
<p><a id="in" href="/auth/login?to=/" hidden>Log in</a> <button id="out" hidden>Log out</button></p>
<script>
const at = id => document.getElementById(id);
// The whole client: a 401 means that the session is over, a 503 that nothing was decided.
const api = async (path, options = {}) => {
    const answer = await fetch(path, { ...options, headers: { 'x-csrf': '1', ...options.headers } });
    if (answer.status === 401) {
        const refusal = await answer.clone().json().catch(() => null);
        const url = refusal?.login && new URL(refusal.login, location);
        url?.searchParams.set('to', location.pathname + location.search + location.hash);
        if (url) location.assign(url);
    }
    return answer;
};
const show = notes => at('notes').replaceChildren(...notes.map(note => {
    const item = document.createElement('li');
    item.textContent = note;
    return item;
}));
const undecided = () => { at('who').textContent = 'the service is not ready: reload this page in a moment'; };
const start = async () => {
    const answer = await api('/auth/session');
    if (!answer.ok) return undecided();
    const session = await answer.json();
    at('in').hidden = session.authenticated;
    at('out').hidden = at('add').hidden = !session.authenticated;
    at('who').textContent = session.authenticated ? `${session.subject} is logged in` : 'nobody is logged in';
    if (!session.authenticated) return;
    const notes = await api('/api/notes');
    if (notes.ok) show(await notes.json());
};
at('add').onsubmit = async event => {
    event.preventDefault();
    const note = new FormData(event.target).get('note');
    const answer = await api('/api/notes', {
        method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(note),
    });
    if (answer.ok) { event.target.reset(); show(await answer.json()); }
};
at('out').onclick = async () => {
    const answer = await api('/auth/logout', { method: 'POST' });
    if (!answer.ok) return undecided(); // nobody is logged out
    const { logout } = await answer.json();
    // With a login at a provider, its page ends the login there.
    logout ? location.assign(logout) : start();
};
start();
</script>
</html>"#;

/// The users of the application: ada alone. Yours are in a database, as in `examples/users.rs`.
#[derive(Debug)]
struct Users {
    passwords: Arc<Passwords>,
    hash: String,
}

#[async_trait]
impl Directory for Users {
    async fn authenticate(
        &self,
        _: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        if username != "ada" {
            // As much work as for a known user: the time must not reveal which users exist.
            self.passwords.verify_dummy(password, Cost::default()).await?;
            return Ok(None);
        }
        Ok(self.passwords.verify(password, &self.hash).await?.then(|| User::new("ada")))
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok((subject == "ada").then(|| User::new("ada")))
    }
}

/// The notes, each with its writer.
type Notes = Arc<Mutex<Vec<(String, String)>>>;

/// The application at this origin, as the browser shows it.
pub async fn app(origin: &str, password: &str) -> Result<(Router, Gate), Box<dyn Error>> {
    let users = Users { passwords: Arc::new(Passwords::default()), hash: password::hash(&password.into())? };
    let gate = Gate::builder()
        .issuer(origin)
        // Keys of this process alone, and sessions in memory. In earnest: keys from files, `.store(RedbStore::open(…)?)`.
        .keys(Keyring::ephemeral()?)
        .passwords(Arc::clone(&users.passwords))
        .directory(Arc::new(users))
        // The login form is at /auth/login, the state of the session at /auth/session.
        .browser(Browser::own("/auth").csrf_header("x-csrf".parse()?))
        .route(Route::new("/", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default().session()))
        .build()
        .await?;
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/api/notes", get(notes).post(add))
        .with_state(Notes::default())
        .layer(gate.layer())
        .layer(map_request(peer));
    Ok((app, gate))
}

fn notes_of(notes: &Notes, writer: &str) -> Vec<String> {
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    notes.iter().filter(|(of, _)| of == writer).map(|(_, note)| note.clone()).collect()
}

async fn notes(identity: Identity, State(notes): State<Notes>) -> Json<Vec<String>> {
    Json(notes_of(&notes, identity.subject()))
}

async fn add(identity: Identity, State(notes): State<Notes>, Json(note): Json<String>) -> Json<Vec<String>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner).push((identity.subject().to_owned(), note));
    Json(notes_of(&notes, identity.subject()))
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
    println!("open http://localhost:3000 in Chrome or Firefox, and log in as ada with the password: correct horse");
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    gate.flush().await?; // what waits to be written; without it a user may have to log in again
    Ok(())
}
