//! Several gates on one store.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use rotogate::Gate;
use rotogate::clock::{ManualTime, TimeSource, Timestamp};
use rotogate::gate::{DEFAULT_LEEWAY, Readiness};
use rotogate::route::{Route, RoutePolicy};
use rotogate::store::memory::nodes::{MemoryNode, Way};
use rotogate::store::{Staleness, Store};
use rotogate::token::Algorithm;
use rotogate::token::keyring::Keyring;

use crate::client::Server;
use crate::{builder_with, tokens};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gate, its clock, its handle on the store, and a server behind it.
struct Node {
    gate: Gate,
    time: Arc<ManualTime>,
    store: Arc<MemoryNode>,
    server: Server,
}

impl Node {
    async fn status(&self, token: &str) -> StatusCode {
        self.server.get_with("/", token).await.status
    }

    /// Asks until the answer is this.
    async fn comes_to(&self, token: &str, status: StatusCode) {
        let asked = async {
            while self.status(token).await != status {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("the answer comes to {status}"));
    }
}

/// Gates whose wall clocks differ from that of their store by these seconds.
async fn nodes<const N: usize>(staleness: Staleness, clocks: [i64; N]) -> [Node; N] {
    let folder = tempfile::tempdir().unwrap();
    drop(Keyring::create(folder.path(), Algorithm::EdDsa).unwrap());
    let first = MemoryNode::first("https://api.test", DEFAULT_LEEWAY, ManualTime::at(START) as Arc<dyn TimeSource>);
    let mut nodes = Vec::new();
    for ahead in clocks {
        let time = ManualTime::at(Timestamp::from_secs(START.as_secs().saturating_add_signed(ahead)));
        let store = Arc::new(first.another());
        let keys = Keyring::load(folder.path()).unwrap();
        let gate = builder_with(keys)
            .route(Route::new("/open", RoutePolicy::public()))
            .route(Route::catch_all(RoutePolicy::default()))
            .shared_store(Arc::clone(&store) as Arc<dyn Store>)
            .staleness(staleness)
            .time(Arc::clone(&time) as Arc<dyn TimeSource>)
            .build()
            .await
            .unwrap();
        let app = Router::new().route("/", get(async || "ok")).route("/open", get(async || "ok")).layer(gate.layer());
        nodes.push(Node { gate, time, store, server: Server::axum(app).await });
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!("as many as asked for"))
}

#[tokio::test]
async fn a_session_of_one_gate_goes_on_at_another_and_ends_at_all_of_them() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (_, refresh) = tokens(&a.gate, "").await;
    let at_b = b.server.refresh("/token", &refresh).await;
    assert_eq!(at_b.status, StatusCode::OK);
    let access = at_b.member("access_token");
    assert_eq!([a.status(&access).await, b.status(&access).await], [StatusCode::OK; 2]);
    // A lost reply, and a repeat at the other gate.
    assert_eq!(a.server.refresh("/token", &refresh).await.member("access_token"), access);
    b.gate.sessions().revoke_subject("ada").await.unwrap();
    assert_eq!(b.status(&access).await, StatusCode::UNAUTHORIZED, "at its next request");
    a.comes_to(&access, StatusCode::UNAUTHORIZED).await;
    assert_eq!(a.server.refresh("/token", &at_b.member("refresh_token")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn c10_a_gate_that_did_not_hear_from_the_store_for_too_long_decides_nothing() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (access, refresh) = tokens(&a.gate, "").await;
    b.store.set_way(Way::Cut);
    assert_eq!(b.status(&access).await, StatusCode::OK, "not stale yet");
    let lost = b.server.refresh("/token", &refresh).await;
    assert_eq!((lost.status, &lost.headers["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
    assert_eq!(b.gate.readiness().await, Readiness::Ready);
    // A node that was stopped for longer than the staleness accepts nothing with its first request (C9).
    b.time.advance(Duration::from_secs(2));
    let stale = b.server.get_with("/", &access).await;
    assert_eq!((stale.status, &stale.headers["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
    assert_eq!(b.server.get("/open").await.status, StatusCode::OK);
    assert!(matches!(b.gate.readiness().await, Readiness::NotReady(_)));
    assert_eq!(b.server.refresh("/token", &refresh).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(a.status(&access).await, StatusCode::OK, "the other one hears");
    // Nothing was consumed.
    b.store.set_way(Way::Open);
    b.comes_to(&access, StatusCode::OK).await;
    assert_eq!(b.gate.readiness().await, Readiness::Ready);
    assert_eq!(b.server.refresh("/token", &refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn c10_where_availability_counts_for_more_tokens_pass_for_longer_and_none_is_minted() {
    let staleness = Staleness { served: Duration::from_secs(60), ..Staleness::default() };
    let [a, b] = nodes(staleness, [0, 0]).await;
    let (access, refresh) = tokens(&a.gate, "").await;
    // The store answers, and its revocations do not come.
    b.store.set_way(Way::FeedHeld);
    a.gate.sessions().revoke_subject("ben").await.unwrap();
    b.time.advance(Duration::from_secs(3));
    assert_eq!(b.status(&access).await, StatusCode::OK);
    assert!(matches!(b.gate.readiness().await, Readiness::Degraded(_)));
    assert_eq!(b.server.refresh("/token", &refresh).await.status, StatusCode::SERVICE_UNAVAILABLE);
    b.time.advance(Duration::from_secs(60));
    assert_eq!(b.status(&access).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn c8_an_answer_that_was_long_under_way_proves_only_what_was_known_when_it_was_asked_for() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (access, _) = tokens(&a.gate, "").await;
    b.store.set_way(Way::FeedHeld);
    // The feed of b asks, and its answer is held.
    a.gate.sessions().revoke_subject("ben").await.unwrap();
    b.store.feed_is_held().await;
    b.time.advance(Duration::from_secs(2));
    a.gate.sessions().revoke_subject("ada").await.unwrap();
    // The gate took it once it asks again.
    b.store.release_one().await;
    b.store.feed_is_held().await;
    assert_eq!(b.status(&access).await, StatusCode::SERVICE_UNAVAILABLE, "the answer is older than the staleness");
    b.store.set_way(Way::Open);
    b.comes_to(&access, StatusCode::UNAUTHORIZED).await;
}

#[tokio::test]
async fn c4_a_revocation_by_a_slow_clock_ends_what_a_fast_one_began_and_nothing_later() {
    let [slow, fast] = nodes(Staleness::default(), [-20, 20]).await;
    let (before, _) = tokens(&fast.gate, "").await;
    slow.gate.sessions().revoke_subject("ada").await.unwrap();
    let (after, _) = tokens(&fast.gate, "").await;
    fast.comes_to(&before, StatusCode::UNAUTHORIZED).await;
    assert_eq!(slow.status(&before).await, StatusCode::UNAUTHORIZED);
    assert_eq!([slow.status(&after).await, fast.status(&after).await], [StatusCode::OK; 2]);
}

#[tokio::test]
async fn a_gate_whose_clock_differs_too_much_from_the_stores_mints_nothing_and_others_go_on() {
    let [good, skewed] = nodes(Staleness::default(), [0, 31]).await;
    let (access, refresh) = tokens(&good.gate, "").await;
    assert_eq!(skewed.server.refresh("/token", &refresh).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(matches!(skewed.gate.readiness().await, Readiness::NotReady(why) if why.contains("clock")));
    assert_eq!(skewed.status(&access).await, StatusCode::OK);
    assert_eq!(good.server.refresh("/token", &refresh).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c5_a_token_that_many_present_at_all_gates_has_one_successor() {
    let nodes = nodes(Staleness::default(), [0, 5, -5]).await;
    for _ in 0..20 {
        let (_, refresh) = tokens(&nodes[0].gate, "").await;
        let callers = (0..60).map(|n| {
            let (gate, refresh) = (nodes[n % nodes.len()].gate.clone(), refresh.clone());
            tokio::spawn(async move { gate.sessions().refresh(&refresh).await.unwrap() })
        });
        let callers: Vec<_> = callers.collect();
        let mut successors = std::collections::BTreeSet::new();
        for caller in callers {
            let issued = caller.await.unwrap();
            let refresh = issued.refresh_token.unwrap();
            successors.insert((issued.access_token.expose().to_owned(), refresh.expose().to_owned()));
        }
        assert_eq!(successors.len(), 1);
    }
}
