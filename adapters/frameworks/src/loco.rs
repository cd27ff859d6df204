//! A resource server on Loco: its routers are axum's, so the gate is a layer.
//!
//! ```sh
//! cargo run --bin on-loco -- https://idp.example.com/realms/x
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::OnceLock;

use async_trait::async_trait;
use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderMap;
use axum::middleware::map_request;
use axum::routing::get;
use loco_rs::app::{AppContext, Hooks};
use loco_rs::bgworker::Queue;
use loco_rs::boot::{BootResult, ServeParams, StartMode, create_app, start};
use loco_rs::config::Config;
use loco_rs::controller::{AppRoutes, Routes};
use loco_rs::environment::Environment;
use loco_rs::task::Tasks;
use rotogate::gate::Peer;
use rotogate::{Gate, Identity, ResourceServer};

/// Hooks have no state of their own.
static GATE: OnceLock<Gate> = OnceLock::new();

struct App;

#[async_trait]
impl Hooks for App {
    fn app_name() -> &'static str {
        "on-loco"
    }

    async fn boot(mode: StartMode, environment: &Environment, config: Config) -> loco_rs::Result<BootResult> {
        create_app::<Self>(mode, environment, config).await
    }

    /// Around every route, and what no route matches.
    async fn after_routes(router: axum::Router, _: &AppContext) -> loco_rs::Result<axum::Router> {
        let gate = GATE.get().ok_or_else(|| loco_rs::Error::string("no gate"))?;
        Ok(router.layer(gate.layer()).layer(map_request(peer)))
    }

    fn routes(_: &AppContext) -> AppRoutes {
        AppRoutes::empty().add_route(Routes::new().add("/me", get(me)).add("/seen", get(seen)))
    }

    async fn connect_workers(_: &AppContext, _: &Queue) -> loco_rs::Result<()> {
        Ok(())
    }

    fn register_tasks(_: &mut Tasks) {}
}

/// Tells the gate where a request comes from.
async fn peer(ConnectInfo(address): ConnectInfo<SocketAddr>, mut request: Request) -> Request {
    request.extensions_mut().insert(Peer::new(address.ip(), false));
    request
}

async fn me(caller: Identity) -> String {
    caller.subject().to_owned()
}

/// Returns the identity headers that a handler sees.
async fn seen(headers: HeaderMap) -> String {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    format!("{:?} {:?}", header("x-auth-subject"), header("authorization"))
}

/// Serves until the process ends.
pub async fn serve(gate: Gate, port: u16) -> Result<(), Box<dyn Error>> {
    GATE.set(gate).map_err(|_| "one gate for a process")?;
    // In an application it is config/*.yaml.
    let config = serde_json::from_value(serde_json::json!({
        "logger": { "enable": false, "level": "info", "format": "compact" },
        "server": { "binding": "127.0.0.1", "port": port, "host": "http://127.0.0.1" },
        "workers": { "mode": "ForegroundBlocking" },
    }))?;
    let boot = App::boot(StartMode::ServerOnly, &Environment::Production, config).await?;
    start::<App>(boot, ServeParams { port: port.into(), binding: "127.0.0.1".to_owned() }, true).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::args().nth(1).ok_or("usage: on-loco ISSUER")?;
    let gate = ResourceServer::discover(&issuer).audience("api").build().await?;
    serve(gate, 3000).await
}
