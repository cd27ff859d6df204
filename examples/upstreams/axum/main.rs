//! A service behind rotogate, in axum: each caller has orders of its own. docs/start.md puts the gate in front of it. A service that
//! takes the gate into its own process needs no headers: see `examples/axum.rs`.
//!
//! ```sh
//! cargo run --example upstream
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// The caller, by the headers of the gate.
#[derive(Serialize)]
struct Caller {
    subject: String,
    account: Option<String>,
    client: Option<String>,
    scopes: Vec<String>,
    roles: Vec<String>,
    session: Option<String>,
    issuer: Option<String>,
    address: Option<String>,
    request_id: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let text = |name: &str| header(&parts.headers, name);
        // Identity headers are percent-encoded where they are not visible ASCII.
        let claim = |name: &str| text(name).map(decoded);
        // The gate sends no request without a subject: its route has `auth = "none"`, or another program calls this port.
        let subject =
            claim("x-auth-subject").ok_or((StatusCode::FORBIDDEN, "no caller: call the gate, not this port"))?;
        Ok(Self {
            subject,
            account: claim("x-auth-account"),
            client: claim("x-auth-client"),
            scopes: claim("x-auth-scope").unwrap_or_default().split_whitespace().map(Into::into).collect(),
            roles: text("x-auth-roles").map(|roles| roles.split(',').map(decoded).collect()).unwrap_or_default(),
            session: claim("x-auth-session"),
            issuer: claim("x-auth-issuer"),
            // Only the gate calls this port, and the first entry is the client.
            address: text("x-forwarded-for").and_then(|list| list.split(',').next()).map(Into::into),
            request_id: text("x-request-id").map(Into::into),
        })
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[derive(Clone, Deserialize, Serialize)]
struct Order {
    item: String,
}

type Orders = Arc<Mutex<HashMap<String, Vec<Order>>>>;

async fn whoami(caller: Caller) -> Json<Caller> {
    Json(caller)
}

async fn listed(caller: Caller, State(orders): State<Orders>) -> Result<Json<Vec<Order>>, StatusCode> {
    let orders = orders.lock().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(orders.get(&caller.subject).cloned().unwrap_or_default()))
}

async fn ordered(
    caller: Caller,
    State(orders): State<Orders>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Vec<Order>>), StatusCode> {
    let mut orders = orders.lock().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let mine = orders.entry(caller.subject).or_default();
    mine.push(order);
    Ok((StatusCode::CREATED, Json(mine.clone())))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new()
        .route("/whoami", get(whoami))
        .route("/orders", get(listed).post(ordered))
        .with_state(Orders::default());
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    // On loopback: other machines reach the gate alone.
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    axum::serve(listener, app).await
}
