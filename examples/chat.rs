//! A chat over WebSocket whose members leave with their session: a logout closes the socket, a refresh keeps it.
//!
//! ```sh
//! cargo run --example chat
//! ```

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use rotogate::client::Client;
use rotogate::gate::{Lease, NewSession};
use rotogate::token::Keyring;
use rotogate::{Gate, Identity};
use tokio::sync::broadcast;

/// The room: what one says, all hear.
#[derive(Clone)]
struct Room {
    gate: Gate,
    said: broadcast::Sender<String>,
}

/// The application. Members log in elsewhere; see the other examples.
pub async fn app() -> Result<(Router, Gate), Box<dyn Error>> {
    let gate = Gate::builder()
        .issuer("http://localhost:3000")
        .keys(Keyring::ephemeral()?)
        .client(Client::public("chat"))
        .build()
        .await?;
    let room = Room { gate: gate.clone(), said: broadcast::Sender::new(64) };
    let app = Router::new()
        // `upgrade()` lets the request become a WebSocket. A browser cannot send `Authorization` with one: there,
        // `.cookie("__Host-access")` takes the token.
        .route("/chat", get(chat).route_layer(gate.require().upgrade()))
        .route("/logout", post(logout).route_layer(gate.require()))
        .with_state(room);
    Ok((app, gate))
}

async fn chat(
    State(room): State<Room>,
    identity: Identity,
    axum::Extension(lease): axum::Extension<Lease>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(async move |mut socket: WebSocket| {
        let mut heard = room.said.subscribe();
        // The gate closes the socket with the session, whatever a handler does. One that waits for the end can tell others.
        let mut ended = std::pin::pin!(lease.ended(std::time::Duration::from_millis(250)));
        loop {
            let sent = tokio::select! {
                said = heard.recv() => match said {
                    Ok(text) => socket.send(Message::Text(text.into())).await.is_ok(),
                    Err(_) => false,
                },
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => room.said.send(format!("{}: {text}", identity.subject())).is_ok(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => true,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => false,
                },
                _ = &mut ended => false,
            };
            if !sent {
                break;
            }
        }
        let _ = room.said.send(format!("{} has left", identity.subject()));
    })
}

/// Ends the caller's session, and with it the sockets that were opened in it.
async fn logout(State(room): State<Room>, identity: Identity) -> StatusCode {
    let Some(session) = identity.session() else { return StatusCode::NO_CONTENT };
    match room.gate.sessions().revoke(session).await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(error) => error.status(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (app, gate) = app().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    for name in ["ada", "bob"] {
        let issued = gate.sessions().start(NewSession::new(name, "chat")).await?;
        let token = issued.access_token.expose();
        println!("websocat -H 'Authorization: Bearer {token}' ws://{}/chat   # {name}", listener.local_addr()?);
    }
    println!("curl -X POST http://{}/logout -H 'Authorization: Bearer …'", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
