//! Gates, their store, and an application behind them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::support::pki::write_private;
use ::support::postgres::Postgres;
use ::support::redis::Redis;
use ::support::server::free_port;
use ::support::{CONFIG, Gate, Place, with};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use http::StatusCode;

use crate::ACCESS;

/// The issuer of the gates' own tokens.
pub(crate) const ISSUER: &str = "https://gate.test";
const PASSWORD: &str = "a-password-of-the-gates";

/// The store of the gates.
pub(crate) enum Server {
    Embedded,
    Redis(Redis),
    Postgres(Postgres),
}

impl Server {
    pub(crate) fn redis() -> Self {
        Self::Redis(Redis::start(&["--appendonly yes", "--appendfsync always"]))
    }

    pub(crate) fn postgres() -> Self {
        let server = Postgres::start(&["fsync=on"]);
        server.sql(&format!("create role gate login password '{PASSWORD}'; grant create on database postgres to gate"));
        Self::Postgres(server)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "redb",
            Self::Redis(_) => "Redis",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Embedded => 0,
            Self::Redis(server) => server.port,
            Self::Postgres(server) => server.port,
        }
    }

    /// The variable with the address of the server, as it would be at another port.
    pub(crate) fn at(&self, port: u16) -> (&'static str, String) {
        match self {
            Self::Embedded => ("ROTOGATE_STORE__PATH", "data/rotogate.redb".to_owned()),
            Self::Redis(_) => ("ROTOGATE_STORE__URLS", format!("redis://127.0.0.1:{port}")),
            Self::Postgres(_) => ("ROTOGATE_STORE__URL", format!("postgres://gate@127.0.0.1:{port}/postgres")),
        }
    }

    fn section(&self) -> String {
        let port = self.port();
        match self {
            Self::Embedded => String::new(),
            Self::Redis(_) => format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{port}\"]\n"),
            Self::Postgres(_) => format!(
                "[store]\nkind = \"postgres\"\nurl = \"postgres://gate@127.0.0.1:{port}/postgres\"\n\
                 password_file = \"store.pw\"\n"
            ),
        }
    }
}

/// The common folder of the gates.
pub(crate) struct Scene {
    pub(crate) place: Place,
    pub(crate) server: Server,
    pub(crate) application: SocketAddr,
}

impl Scene {
    /// A folder whose gates sign with a key that all peers know, with further configuration.
    pub(crate) async fn new(server: Server, more: &str) -> Self {
        let application = application().await;
        let config = CONFIG.replace("echo:", &format!("http://{application}"));
        let config = config.replace("/{account}/connect", "/connect");
        let config = with(&config, "issuer", &format!("url = \"{ISSUER}\"\nalgorithm = \"ES256\""));
        let config = with(
            &config,
            "sessions",
            &format!("max_sessions_per_subject = 10000\naccess_ttl = \"{}s\"", ACCESS.as_secs()),
        );
        let place = Place::new(&format!("{config}{}{more}", server.section()));
        write_private(&place.path("store.pw"), PASSWORD);
        Self { place, server, application }
    }

    /// A further gate, at a port that it keeps over restarts.
    pub(crate) fn gate(&self) -> Gate {
        self.gate_at(free_port(), self.server.port())
    }

    /// A gate at `port`, with a store whose server is at the port `store`.
    pub(crate) fn gate_at(&self, port: u16, store: u16) -> Gate {
        let (name, value) = self.server.at(store);
        // The log is in a file, as in a deployment.
        tokio::task::block_in_place(|| {
            self.place.start_with(|command| {
                command
                    .env("ROTOGATE_LOG", "info")
                    .env("ROTOGATE_SERVER__LISTEN", format!("127.0.0.1:{port}"))
                    .env(name, value);
            })
        })
    }
}

/// The access tokens of this many sessions.
pub(crate) async fn log_in(gate: &Gate, number: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    for _ in 0..number {
        tokens.push(gate.login().await.access);
    }
    tokens
}

/// Revokes a token at a gate (RFC 7009), and returns the moment of the response. A revocation whose result is not certain
/// is repeated, as the gate asks for.
pub(crate) async fn revoke(gate: &Gate, token: &str) -> Instant {
    let mut answer = gate.revoke(token).await;
    for _ in 0..20 {
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        answer = gate.revoke(token).await;
    }
    let at = Instant::now();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    at
}

/// Answers at once, and at `/stream` with a byte each five milliseconds.
async fn application() -> SocketAddr {
    let stream = || async {
        let parts = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b".")), ()))
        });
        Body::from_stream(parts)
    };
    serve(Router::new().route("/stream", get(stream)).fallback(|| async { "ok" })).await
}

/// Serves while the runtime lives.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
