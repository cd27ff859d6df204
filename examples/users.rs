//! An axum API whose users are in SQLite: the gate logs them in, and asks again at each refresh.
//!
//! ```sh
//! cargo run --example users
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::map_request;
use axum::routing::get;
use rotogate::claim::OwnClaims;
use rotogate::client::Client;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::password::{self, Cost, Passwords};
use rotogate::directory::{Directory, DirectoryError, PasswordMark, User};
use rotogate::gate::{Endpoint, Peer};
use rotogate::token::Keyring;
use rotogate::{Gate, Identity, SecretString};
use rusqlite::{Connection, OptionalExtension, params};

/// The users, in a table.
#[derive(Debug)]
pub struct Users {
    connection: Arc<Mutex<Connection>>,
    passwords: Arc<Passwords>,
}

/// A row: the user, and the hash of the password.
type Row = Option<(User, String)>;

impl Users {
    /// In this database; one in memory for the example.
    pub fn new(connection: Connection) -> Result<Self, Box<dyn Error>> {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS users (
                id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash TEXT NOT NULL, roles TEXT NOT NULL,
                active INTEGER NOT NULL DEFAULT 1
            )",
        )?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), passwords: Arc::new(Passwords::default()) })
    }

    /// Adds a user with roles, which are words with blanks between them.
    pub fn add(&self, id: &str, name: &str, password: &str, roles: &str) -> Result<(), Box<dyn Error>> {
        let hash = password::hash(&SecretString::from(password))?;
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let query = "INSERT INTO users (id, name, hash, roles) VALUES (?, ?, ?, ?)";
        connection.execute(query, params![id, name, hash, roles])?;
        Ok(())
    }

    /// Changes a user's roles: the next refresh takes them up.
    pub fn set_roles(&self, id: &str, roles: &str) -> Result<(), Box<dyn Error>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.execute("UPDATE users SET roles = ? WHERE id = ?", params![roles, id])?;
        Ok(())
    }

    /// Reads a user on a thread that may block.
    async fn find(&self, column: &'static str, value: &str) -> Result<Row, DirectoryError> {
        let (connection, value) = (Arc::clone(&self.connection), value.to_owned());
        let read = move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let query = format!("SELECT id, hash, roles, active FROM users WHERE {column} = ?");
            let row = connection.query_row(&query, [value], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get(3)?))
            });
            row.optional()
        };
        let unavailable = |error: String| DirectoryError::Unavailable(error);
        let row = tokio::task::spawn_blocking(read).await.map_err(|error| unavailable(error.to_string()))?;
        let Some((id, hash, roles, active)) = row.map_err(|error| unavailable(error.to_string()))? else {
            return Ok(None);
        };
        let mut claims = OwnClaims::new();
        let roles: Vec<&str> = roles.split_whitespace().collect();
        claims.insert(OwnClaims::ROLES, roles).map_err(|error| unavailable(error.to_string()))?;
        let user = User::new(id)
            .active(active)
            .claims(claims)
            // Another password ends a login that is under way.
            .password_mark(PasswordMark::new(hash.as_bytes()));
        Ok(Some((user, hash)))
    }
}

#[async_trait]
impl Directory for Users {
    async fn authenticate(
        &self,
        _: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        let Some((user, hash)) = self.find("name", username).await? else {
            // As much work as for a known user: the time must not reveal which users exist.
            self.passwords.verify_dummy(password, Cost::default()).await?;
            return Ok(None);
        };
        Ok(self.passwords.verify(password, &hash).await?.then_some(user))
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(self.find("id", subject).await?.map(|(user, _)| user))
    }
}

/// The API, and the gate around it.
pub async fn app(users: Arc<Users>) -> Result<(Router, Gate), Box<dyn Error>> {
    let gate = Gate::builder()
        .issuer("http://localhost:3000")
        // Keys of this process alone, and sessions in memory. In earnest: keys from files, `.store(RedbStore::open(…)?)`.
        .keys(Keyring::ephemeral()?)
        .passwords(Arc::clone(&users.passwords))
        .directory(users)
        .client(Client::public("web"))
        .endpoint(Endpoint::new(OAuth2).path("/token"))
        .build()
        .await?;
    let app = Router::new()
        .route("/me", get(me))
        .route("/accounts", get(async || "all accounts").route_layer(gate.require().role("admin")))
        .layer(gate.layer())
        .layer(map_request(peer));
    Ok((app, gate))
}

async fn me(identity: Identity) -> String {
    identity.subject().to_owned()
}

/// Tells the gate where a request comes from, for its limits by address.
async fn peer(ConnectInfo(address): ConnectInfo<SocketAddr>, mut request: Request) -> Request {
    request.extensions_mut().insert(Peer::new(address.ip(), false));
    request
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = Arc::new(Users::new(Connection::open_in_memory()?)?);
    users.add("u-1", "ada", "correct horse", "admin")?;
    let (app, gate) = app(users).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("curl {url}/token -d grant_type=password -d client_id=web -d username=ada -d 'password=correct horse'");
    println!("curl {url}/accounts -H 'Authorization: Bearer …'   # the access_token");
    println!("curl {url}/token -d grant_type=refresh_token -d client_id=web -d refresh_token=…");
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    gate.flush().await?; // what waits to be written; without it a user may have to log in again
    Ok(())
}
