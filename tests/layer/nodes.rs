//! Several gates on one store.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use rotogate::Gate;
use rotogate::gate::{Readiness, Whose};
use rotogate::route::{Route, RoutePolicy};
use rotogate::session::profile::Profile;
use rotogate::store::{Filter, Store};
use rotogate::token::Algorithm;
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};
use rotogate_core::store::Staleness;
use rotogate_core::store::conformance::nodes::{Backup, MemoryNode, Way};
use rotogate_core::token::keyring::Keyring;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{Answer, Server};
use crate::upgrades::{ask, chatter, rest, upgrading};
use crate::{builder_with, tokens};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// The longest wait of a test for an expected event.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gate, its clock, its handle on the store, and a server behind it.
struct Node {
    gate: Gate,
    time: Arc<ManualTime>,
    /// The store's own clock.
    store_time: Arc<ManualTime>,
    store: Arc<MemoryNode>,
    cluster: Cluster,
    server: Server,
}

impl Node {
    async fn status(&self, token: &str) -> StatusCode {
        self.server.get_with("/", token).await.status
    }

    /// Repeats the request until it gets this answer.
    async fn comes_to(&self, token: &str, status: StatusCode) {
        comes("the answer", async || self.status(token).await == status).await;
    }
}

/// Waits until a condition holds.
async fn comes(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} does not come"));
}

/// Gates whose wall clocks differ from that of their store by these seconds.
async fn nodes<const N: usize>(staleness: Staleness, clocks: [i64; N]) -> [Node; N] {
    nodes_with(staleness, clocks, Profile::default()).await
}

async fn nodes_with<const N: usize>(staleness: Staleness, clocks: [i64; N], profile: Profile) -> [Node; N] {
    let folder = tempfile::tempdir().unwrap();
    drop(Keyring::create(folder.path(), Algorithm::EdDsa).unwrap());
    let store_time = ManualTime::at(START);
    let first =
        MemoryNode::first("https://api.test", Gate::DEFAULT_LEEWAY, Arc::clone(&store_time) as Arc<dyn TimeSource>);
    let cluster = Cluster { keys: Arc::new(folder), store_time, store: Arc::new(first), staleness, profile };
    cluster.nodes(clocks).await
}

/// Further gates of the cluster of one.
async fn join<const N: usize>(node: &Node, clocks: [i64; N]) -> [Node; N] {
    node.cluster.nodes(clocks).await
}

/// The common parts of the gates.
#[derive(Clone)]
struct Cluster {
    keys: Arc<tempfile::TempDir>,
    /// The store's own clock.
    store_time: Arc<ManualTime>,
    store: Arc<MemoryNode>,
    staleness: Staleness,
    profile: Profile,
}

impl Cluster {
    async fn nodes<const N: usize>(&self, clocks: [i64; N]) -> [Node; N] {
        let Self { keys: folder, store_time, store: first, staleness, profile } = self;
        let mut nodes = Vec::new();
        for ahead in clocks {
            let time = ManualTime::at(Timestamp::from_secs(START.as_secs().saturating_add_signed(ahead)));
            let store = Arc::new(first.another());
            let keys = Keyring::load(folder.path()).unwrap();
            let gate = builder_with(keys)
                .profile(profile.clone())
                .route(Route::new("/open", RoutePolicy::public()))
                .route(Route::new("/ws", upgrading()))
                .route(Route::catch_all(RoutePolicy::default()))
                .shared_store(Arc::clone(&store) as Arc<dyn Store>)
                .staleness(staleness.limit, staleness.served)
                .time(Arc::clone(&time) as Arc<dyn TimeSource>)
                .build()
                .await
                .unwrap();
            let app = Router::new().route("/", get(async || "ok")).route("/open", get(async || "ok"));
            let app = app.route("/ws", get(chatter)).layer(gate.layer());
            let cluster = self.clone();
            nodes.push(Node {
                gate,
                time,
                store_time: Arc::clone(store_time),
                store,
                cluster,
                server: Server::axum(app).await,
            });
        }
        nodes.try_into().unwrap_or_else(|_| unreachable!("as many as asked for"))
    }
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
    b.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!(b.status(&access).await, StatusCode::UNAUTHORIZED, "at its next request");
    a.comes_to(&access, StatusCode::UNAUTHORIZED).await;
    assert_eq!(a.server.refresh("/token", &at_b.member("refresh_token")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_session_that_a_gate_changed_last_is_changed_again_without_being_read() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (_, first) = tokens(&a.gate, "").await;
    let (mut reads, mut last) = (a.store.loads(), first);
    let refresh = async |node: &Node, token: &str| {
        let answer = node.server.refresh("/token", token).await;
        assert_eq!(answer.status, StatusCode::OK);
        (answer.member("access_token"), answer.member("refresh_token"))
    };
    let mut has_read = |number: u64| {
        reads += number;
        assert_eq!(a.store.loads(), reads);
    };
    for _ in 0..3 {
        last = refresh(&a, &last).await.1;
    }
    has_read(0);
    // The gate knows the uses that it has recorded.
    let (access, used) = refresh(&a, &last).await;
    assert_eq!(a.status(&access).await, StatusCode::OK);
    a.gate.flush().await.unwrap();
    last = refresh(&a, &used).await.1;
    has_read(0);
    // Another gate's change is found by the swap that fails, which brings the record.
    let (access, used) = refresh(&a, &last).await;
    assert_eq!(b.status(&access).await, StatusCode::OK);
    b.gate.flush().await.unwrap();
    last = refresh(&a, &used).await.1;
    has_read(0);
    // This gate did not write the pair of another gate, so a repeated refresh gets the pair in the store.
    let (access, next) = refresh(&b, &last).await;
    assert_eq!(refresh(&a, &last).await, (access, next.clone()));
    has_read(0);
    last = refresh(&a, &next).await.1;
    has_read(1);
    // A session that another gate ended is refused, too, whether its revocation has arrived or not.
    a.store.set_way(Way::FeedHeld);
    a.store.feed_is_held().await;
    b.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!(a.server.refresh("/token", &last).await.status, StatusCode::SERVICE_UNAVAILABLE);
    a.store.set_way(Way::Open);
    assert_eq!(decided(&a, &last).await.status, StatusCode::BAD_REQUEST);
}

/// The record has advanced by as many revisions as the note would have added.
#[tokio::test]
async fn c5_a_note_of_use_that_came_too_late_makes_no_second_successor() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (access, first) = tokens(&a.gate, "").await;
    assert_eq!(a.status(&access).await, StatusCode::OK);
    let issued = b.server.refresh("/token", &first).await;
    assert_eq!(issued.status, StatusCode::OK);
    a.gate.flush().await.unwrap();
    // Time passes, so that a new access token would differ.
    for node in [&a, &b] {
        node.time.advance(Duration::from_secs(1));
    }
    let again = decided(&a, &first).await;
    assert_eq!(again.member("access_token"), issued.member("access_token"), "one successor");
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
    // The store answers, but its revocations do not arrive.
    b.store.set_way(Way::FeedHeld);
    a.gate.sessions().revoke_all(Whose::Subject("ben")).await.unwrap();
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
    a.gate.sessions().revoke_all(Whose::Subject("ben")).await.unwrap();
    b.store.feed_is_held().await;
    b.time.advance(Duration::from_secs(2));
    a.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    // The gate has processed the answer once it asks again.
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
    slow.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
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

/// Reads what a chatter sends for about a second: its connection stays open.
async fn goes_on(stream: &mut TcpStream) {
    let mut frame = [0; 2 + "on and on".len()];
    for _ in 0..100 {
        stream.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[0], 0x81, "a text frame");
    }
}

#[tokio::test]
async fn c27_a_connection_at_one_gate_survives_a_rotation_at_another_and_ends_with_its_session() {
    let profile = Profile { revoke_previous_after: Some(Duration::ZERO), ..Profile::default() };
    let [a, b] = nodes_with(Staleness::default(), [0, 0], profile).await;
    let (access, refresh) = tokens(&a.gate, "").await;
    let (status, mut stream) = ask(a.server, "/ws", "websocket", Some(&access)).await;
    assert_eq!(status, 101);
    let next = b.server.refresh("/token", &refresh).await;
    a.comes_to(&access, StatusCode::UNAUTHORIZED).await;
    goes_on(&mut stream).await;
    let again = b.server.refresh("/token", &next.member("refresh_token")).await;
    a.comes_to(&next.member("access_token"), StatusCode::UNAUTHORIZED).await;
    goes_on(&mut stream).await;
    assert_eq!(a.status(&again.member("access_token")).await, StatusCode::OK);
    b.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.windows(4).any(|four| four[0] == 0x88 && four[2..] == 1008_u16.to_be_bytes()));
}

#[tokio::test]
async fn c27_a_connection_goes_on_past_its_token_if_another_gate_exchanged_that_in_time() {
    // The clocks jump further than any staleness below.
    let staleness = Staleness { limit: Duration::from_secs(60), served: Duration::from_secs(86_400) };
    let nodes = nodes(staleness, [0, 0]).await;
    let [a, b] = &nodes;
    let (access, refresh) = tokens(&a.gate, "").await;
    let (other, _) = tokens(&a.gate, "").await;
    let (_, mut stream) = ask(a.server, "/ws", "websocket", Some(&access)).await;
    let (_, mut unrefreshed) = ask(a.server, "/ws", "websocket", Some(&other)).await;
    move_on(&nodes, Duration::from_secs(598)).await;
    // The jump looks like a standstill of the gates: they refresh again a moment later.
    assert_eq!(decided(b, &refresh).await.status, StatusCode::OK);
    // The gates now ask about both once a second. Two rounds, because one may have begun before the refresh.
    let before = a.store.loads();
    comes("the store is asked", async || a.store.loads() >= before + 4).await;
    move_on(&nodes, Duration::from_secs(3)).await;
    rest(&mut unrefreshed).await;
    goes_on(&mut stream).await;
}

/// Moves all clocks, and waits until all gates have seen the new time.
async fn move_on(nodes: &[Node], by: Duration) {
    nodes[0].store_time.advance(by);
    nodes.iter().for_each(|node| node.time.advance(by));
    nodes[0].gate.sessions().revoke_all(Whose::Subject("nobody")).await.unwrap();
    for node in nodes {
        comes("a gate is ready", async || node.gate.readiness().await == Readiness::Ready).await;
    }
}

/// Asks for the next pair until the gate gives an answer other than 503.
async fn decided(node: &Node, refresh: &str) -> Answer {
    let mut answer = node.server.refresh("/token", refresh).await;
    comes("a decision", async || {
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(answer.headers["retry-after"], "1");
            answer = node.server.refresh("/token", refresh).await;
        }
        answer.status != StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    answer
}

/// The store fails over, and every gate has written back the records that it knew.
async fn lose(nodes: &[&Node], backup: &Backup) {
    let before = nodes[0].store.history();
    nodes[0].store.fail_over(backup).unwrap();
    comes("the loss is noticed", async || nodes[0].store.history() > before).await;
    for node in nodes {
        comes("a gate is ready", async || node.gate.readiness().await == Readiness::Ready).await;
    }
}

#[tokio::test]
async fn c15_a_revocation_that_a_living_gate_knows_holds_after_the_store_lost_it() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (of_session, other) = tokens(&a.gate, "").await;
    let id = a.gate.sessions().list(Filter::All, None, 1).await.unwrap().sessions[0].id;
    let (access, refresh) = tokens(&a.gate, "").await;
    let backup = a.store.back_up().unwrap();
    a.gate.sessions().revoke(id).await.unwrap();
    b.comes_to(&of_session, StatusCode::UNAUTHORIZED).await;
    lose(&[&a, &b], &backup).await;
    assert_eq!(b.server.refresh("/token", &other).await.status, StatusCode::BAD_REQUEST);
    for node in [&a, &b] {
        assert_eq!(node.status(&of_session).await, StatusCode::UNAUTHORIZED);
        assert_eq!(node.status(&access).await, StatusCode::OK);
    }
    // Not-befores, too.
    let backup = a.store.back_up().unwrap();
    b.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    a.comes_to(&access, StatusCode::UNAUTHORIZED).await;
    lose(&[&a, &b], &backup).await;
    assert_eq!(b.server.refresh("/token", &refresh).await.status, StatusCode::BAD_REQUEST);
    let [c] = join(&a, [0]).await;
    assert_eq!([c.status(&access).await, c.status(&of_session).await], [StatusCode::UNAUTHORIZED; 2]);
}

#[tokio::test]
async fn c15_what_a_living_gate_wrote_lately_is_written_back() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (_, first) = tokens(&a.gate, "").await;
    let backup = a.store.back_up().unwrap();
    let second = a.server.refresh("/token", &first).await;
    let third = a.server.refresh("/token", &second.member("refresh_token")).await;
    let (_, login) = tokens(&b.gate, "").await;
    lose(&[&a, &b], &backup).await;
    let again = b.server.refresh("/token", &second.member("refresh_token")).await;
    assert_eq!(again.member("access_token"), third.member("access_token"), "a replay of what was lost");
    assert_eq!(b.server.refresh("/token", &third.member("refresh_token")).await.status, StatusCode::OK);
    assert_eq!(a.server.refresh("/token", &login).await.status, StatusCode::OK);
    assert_eq!(
        a.server.refresh("/token", &first).await.status,
        StatusCode::BAD_REQUEST,
        "it has two successors behind it"
    );
}

#[tokio::test]
async fn c15_c16_a_session_whose_writer_is_gone_goes_on_where_every_revocation_is_known() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (_, first) = tokens(&a.gate, "").await;
    let (_, other) = tokens(&a.gate, "").await;
    let backup = a.store.back_up().unwrap();
    let second = a.server.refresh("/token", &first).await.member("refresh_token");
    let ahead = a.server.refresh("/token", &other).await.member("refresh_token");
    // No other gate knows this gate's write, so this refresh finds the loss.
    a.store.set_way(Way::Cut);
    a.store.lose(&backup).unwrap();
    assert_eq!(b.server.refresh("/token", &second).await.status, StatusCode::SERVICE_UNAVAILABLE);
    comes("the loss is noticed", async || b.store.history() == 1).await;
    // No refresh before gate a has written back its records, or has had three times the staleness as time for it.
    assert_eq!(b.server.refresh("/token", &first).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let after = Duration::from_secs(6);
    b.store_time.advance(after);
    b.time.advance(after);
    comes("b is ready", async || b.gate.readiness().await == Readiness::Ready).await;
    let [c] = join(&b, [6]).await;
    assert_eq!(c.server.refresh("/token", &ahead).await.status, StatusCode::BAD_REQUEST, "it may lack revocations");
    let third = decided(&b, &second).await;
    assert_eq!(third.status, StatusCode::OK);
    let replayed = c.server.refresh("/token", &second).await;
    assert_eq!(replayed.member("access_token"), third.member("access_token"), "one successor");
    // Only the end of the lost generation remains.
    assert_eq!(b.server.refresh("/token", &first).await.status, StatusCode::BAD_REQUEST);
    let ended = b.server.refresh("/token", &third.member("refresh_token")).await;
    assert_eq!(ended.status, StatusCode::BAD_REQUEST, "a reuse ends the session");
}

#[tokio::test]
async fn c16_a_revocation_that_comes_back_late_wins() {
    let [a, b] = nodes(Staleness::default(), [0, 0]).await;
    let (access, refresh) = tokens(&b.gate, "").await;
    comes("a has heard of the login", async || a.gate.readiness().await == Readiness::Ready).await;
    let backup = a.store.back_up().unwrap();
    b.store.set_way(Way::Cut);
    a.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    a.store.set_way(Way::Cut);
    a.store.fail_over(&backup).unwrap();
    b.store.set_way(Way::Open);
    // This gate has noticed the loss, and does not know the lost records.
    comes("the loss is noticed", async || b.store.history() == 1).await;
    let after = Duration::from_secs(6);
    b.store_time.advance(after);
    b.time.advance(after);
    let next = decided(&b, &refresh).await;
    assert_eq!((next.status, b.status(&access).await), (StatusCode::OK, StatusCode::OK));
    a.store.set_way(Way::Open);
    b.comes_to(&next.member("access_token"), StatusCode::UNAUTHORIZED).await;
    assert_eq!(decided(&b, &next.member("refresh_token")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(a.status(&access).await, StatusCode::UNAUTHORIZED);
}
