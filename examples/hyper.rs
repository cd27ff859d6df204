//! A plain hyper service behind the gate, with users of its own: the gate logs them in.
//!
//! ```sh
//! cargo run --example hyper
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rotogate::client::Client;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::password::{self, Cost, Passwords};
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::gate::{Endpoint, Peer};
use rotogate::route::{Route, RoutePolicy};
use rotogate::session::Scope;
use rotogate::token::Keyring;
use rotogate::{Gate, Identity, SecretString};
use tokio::net::TcpListener;
use tower::{Layer, service_fn};

/// Users in memory; yours are in a database.
#[derive(Debug)]
struct Users {
    passwords: Arc<Passwords>,
    /// By name: the hash of the password, and what the gate wants to know.
    users: HashMap<String, (String, User)>,
}

impl Users {
    fn new(name: &str, password: &str, passwords: Arc<Passwords>) -> Result<Self, Box<dyn Error>> {
        let user = User::new(name).scopes(Scope::parse("read write")?);
        let hash = password::hash(&SecretString::from(password))?;
        Ok(Self { passwords, users: HashMap::from([(name.to_owned(), (hash, user))]) })
    }
}

#[async_trait]
impl Directory for Users {
    /// A login.
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        let Some((hash, user)) = self.users.get(username).filter(|(_, user)| user.account.as_deref() == account) else {
            // As much work as for a known user: the time must not reveal which users exist.
            self.passwords.verify_dummy(password, Cost::default()).await?;
            return Ok(None);
        };
        Ok(self.passwords.verify(password, hash).await?.then(|| user.clone()))
    }

    /// Called at each refresh: the session of a removed or inactive user ends.
    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(self.users.get(subject).map(|(_, user)| user.clone()))
    }
}

/// The gate, with one user, `ada`.
pub async fn gate(password: &str) -> Result<Gate, Box<dyn Error>> {
    // One bound for all password checks.
    let passwords = Arc::new(Passwords::default());
    Ok(Gate::builder()
        .issuer("https://api.example.com")
        // Keys of this process alone, and sessions in memory. In earnest: keys from files, `.store(RedbStore::open(…)?)`.
        .keys(Keyring::ephemeral()?)
        .directory(Arc::new(Users::new("ada", password, Arc::clone(&passwords))?))
        .passwords(passwords)
        .client(Client::public("web"))
        .endpoint(Endpoint::new(OAuth2).path("/connect/token"))
        .route(Route::new("/health", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default().scope("read")?))
        .build()
        .await?)
}

/// The service behind the gate. Only permitted requests reach it.
async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match Identity::from_extensions(request.extensions()) {
        Some(identity) => format!("Hello, {}!", identity.subject()),
        None => "Hello, stranger!".to_owned(),
    };
    Ok(Response::new(Full::from(text)))
}

/// Serves until the listener fails.
pub async fn serve(listener: TcpListener, gate: Gate) -> std::io::Result<()> {
    // Nothing in front of the gate routes by path, so it may put paths that are spelt otherwise right.
    let service = gate.layer().rewriting().layer(service_fn(hello));
    loop {
        let (stream, address) = listener.accept().await?;
        let service = service.clone();
        // The gate limits logins and refreshes by the address of the client.
        let service = tower::util::MapRequest::new(service, move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer::new(address.ip(), false));
            request
        });
        tokio::spawn(async move {
            let service = TowerToHyperService::new(service);
            let mut http = http1::Builder::new();
            if let Err(error) = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await {
                eprintln!("{address}: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gate = gate("correct horse").await?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("curl {url}/health");
    println!("curl {url}/                                    # 401");
    println!(
        "curl {url}/connect/token -d grant_type=password -d client_id=web -d username=ada -d 'password=correct horse'"
    );
    println!("curl {url}/ -H 'Authorization: Bearer …'       # the access_token");
    println!("curl {url}/connect/token -d grant_type=refresh_token -d client_id=web -d refresh_token=…");
    println!("curl {url}/connect/revocation -d client_id=web -d token=…");
    tokio::select! {
        ended = serve(listener, gate.clone()) => ended?,
        stop = tokio::signal::ctrl_c() => stop?,
    }
    // What waits to be written: without it a user may have to log in again.
    gate.flush().await?;
    Ok(())
}
