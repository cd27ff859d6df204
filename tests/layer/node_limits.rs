//! Limits that several gates of one store count together.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::{Router, middleware};
use http::StatusCode;
use rotogate::Gate;
use rotogate::SecretString;
use rotogate::client::Client;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::gate::{Endpoint, Peer, Rate, Rates};
use rotogate::store::Store;
use rotogate::token::Algorithm;
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};
use rotogate_core::store::conformance::nodes::{MemoryNode, Way};
use rotogate_core::token::keyring::Keyring;
use secrecy::ExposeSecret;

use crate::client::{Answer, Server, send};

const HOUR: Duration = Duration::from_secs(3600);

/// Every user has the same password.
#[derive(Debug)]
pub(crate) struct Users;

#[async_trait::async_trait]
impl Directory for Users {
    async fn authenticate(
        &self,
        _: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        Ok((password.expose_secret() == "right").then(|| User::new(username)))
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(Some(User::new(subject)))
    }
}

/// The caller's address, as the server sees it in practice.
async fn from_address(mut request: Request) -> Request {
    let address = request.headers()["x-test-address"].to_str().unwrap().parse().unwrap();
    request.extensions_mut().insert(Peer::new(address, false));
    request
}

struct Node {
    store: Arc<MemoryNode>,
    server: Server,
}

impl Node {
    /// A login from an address.
    async fn log_in(&self, username: &str, password: &str, address: &str) -> Answer {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs([
            ("grant_type", "password"),
            ("client_id", "web"),
            ("username", username),
            ("password", password),
        ]);
        let request = self.server.request("/token").method("POST").header("x-test-address", address);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        send(request.body(body.finish()).unwrap()).await
    }
}

async fn nodes(rates: Rates, of_each: bool) -> Vec<Node> {
    let folder = tempfile::tempdir().unwrap();
    drop(Keyring::create(folder.path(), Algorithm::EdDsa).unwrap());
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let first = MemoryNode::first("https://api.test", Gate::DEFAULT_LEEWAY, Arc::clone(&time) as Arc<dyn TimeSource>);
    let mut nodes = Vec::new();
    for _ in 0..5 {
        let store = Arc::new(first.another());
        let mut builder = Gate::builder()
            .issuer("https://api.test")
            .keys(Keyring::load(folder.path()).unwrap())
            .client(Client::public("web"))
            .endpoint(Endpoint::new(OAuth2).path("/token"))
            .directory(Arc::new(Users))
            .rates(rates)
            .shared_store(Arc::clone(&store) as Arc<dyn Store>)
            .time(Arc::clone(&time) as Arc<dyn TimeSource>);
        if of_each {
            builder = builder.limits_per_node();
        }
        let gate = builder.build().await.unwrap();
        let app = Router::new().layer(gate.layer()).layer(middleware::map_request(from_address));
        nodes.push(Node { store, server: Server::axum(app).await });
    }
    nodes
}

/// How many of a hundred guesses at a password the gates admit together.
async fn admitted(nodes: &[Node], address: impl Fn(usize) -> String) -> usize {
    let mut admitted = 0;
    for n in 0..100 {
        match nodes[n % nodes.len()].log_in("ada", "wrong", &address(n)).await.status {
            StatusCode::BAD_REQUEST => admitted += 1,
            StatusCode::TOO_MANY_REQUESTS => {}
            other => panic!("{other}"),
        }
    }
    admitted
}

fn rates() -> Rates {
    let many = Rate::new(1000, HOUR);
    Rates { login_per_address: many, login_per_account: many, login_per_client: many, ..Rates::default() }
}

#[tokio::test]
async fn c29_guesses_at_one_account_from_everywhere_are_as_few_at_five_gates_as_at_one() {
    let rates = Rates { login_per_account: Rate::new(10, HOUR), ..rates() };
    let everywhere = |n| format!("192.0.2.{n}");
    assert_eq!(admitted(&nodes(rates, false).await, everywhere).await, 10);
    assert_eq!(admitted(&nodes(rates, true).await, everywhere).await, 50, "where each gate counts for itself");
}

#[tokio::test]
async fn c29_guesses_from_one_address_are_as_few_at_five_gates_as_at_one() {
    let rates = Rates { login_per_address: Rate::new(10, HOUR), ..rates() };
    assert_eq!(admitted(&nodes(rates, false).await, |_| "192.0.2.1".to_owned()).await, 10);
    assert_eq!(admitted(&nodes(rates, false).await, |n| format!("2001:db8::{n}")).await, 10, "an IPv6 /64 is one");
    assert_eq!(
        admitted(&nodes(rates, false).await, |n| format!("2001:db8:0:{n}::1")).await,
        40,
        "a /56 has four times as many"
    );
}

#[tokio::test]
async fn c29_guesses_with_one_client_hold_up_those_who_guess_at_every_gate() {
    let rates = Rates { login_per_client: Rate::new(10, HOUR), ..rates() };
    let nodes = nodes(rates, false).await;
    // One more than the burst puts the client into debt; then the guesser's own three failures count.
    assert_eq!(admitted(&nodes, |_| "192.0.2.1".to_owned()).await, 11);
    assert_eq!(nodes[4].log_in("ben", "right", "192.0.2.2").await.status, StatusCode::OK, "no other address");
}

#[tokio::test]
async fn c29_an_address_that_is_known_at_one_gate_is_locked_out_at_none() {
    let rates = Rates { login_per_account: Rate::new(10, HOUR), ..rates() };
    let nodes = nodes(rates, false).await;
    assert_eq!(nodes[0].log_in("ada", "right", "198.51.100.1").await.status, StatusCode::OK);
    assert_eq!(admitted(&nodes, |n| format!("192.0.2.{n}")).await, 9);
    for node in &nodes {
        assert_eq!(node.log_in("ada", "right", "198.51.100.1").await.status, StatusCode::OK);
        assert_eq!(node.log_in("ada", "right", "198.51.100.2").await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    // A gate still knows a familiar address while the store is away: this login fails because of the store, not of the
    // limit.
    nodes[1].store.set_way(Way::Cut);
    let away = nodes[1].log_in("ada", "right", "198.51.100.1").await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE, "{}", away.body);
}
