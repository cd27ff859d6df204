//! Gates: the gate that revokes, another gate on the same store, a gate that is killed, and a gate that loses its
//! store.

use std::time::{Duration, Instant};

use ::support::Gate;
use ::support::proxy::Proxy;
use ::support::server::free_port;
use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::probe::{Column, EVERY, Latency, Verifier};
use crate::scene::{Scene, Server, log_in, revoke};
use crate::support::quantile;
use crate::{Table, tokens};

/// The time that another gate may take.
const ELSEWHERE: Duration = Duration::from_millis(50);
/// The default of `[store] staleness`.
const STALENESS: Duration = Duration::from_secs(2);
/// The time that a stream may take to end.
const STREAM: Duration = Duration::from_secs(1);
/// The number of tokens for one kill.
const AT_ONCE: usize = 10;

/// Runs a part on a separate runtime.
pub(crate) fn block_on<T>(part: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(part)
}

fn shared() -> [fn() -> Server; 2] {
    [Server::redis, Server::postgres]
}

/// Tokens in sequence, each revoked at `revoker` and checked at `verifier`.
async fn one_by_one(revoker: &Gate, verifier: &Verifier, number: usize) -> Vec<Latency> {
    let mut sample = Vec::new();
    for token in log_in(revoker, number).await {
        verifier.accepts(&token).await;
        let column = Column::new(verifier, std::slice::from_ref(&token));
        sample.extend(column.run(EVERY, async { vec![revoke(revoker, &token).await] }).await);
    }
    sample
}

/// The gate that revokes, and another one.
pub(crate) fn run(table: &mut Table) {
    block_on(async {
        let scene = Scene::new(Server::Embedded, "").await;
        let gate = scene.gate();
        let sample = one_by_one(&gate, &Verifier::new(gate.address), tokens(200)).await;
        table.add("the gate that revokes (redb)", &sample, Some(Duration::ZERO));
        for start in shared() {
            let scene = Scene::new(start(), "").await;
            let (first, second) = (scene.gate(), scene.gate());
            let sample = one_by_one(&first, &Verifier::new(second.address), tokens(200)).await;
            table.add(&format!("another gate ({})", scene.server.name()), &sample, Some(ELSEWHERE));
        }
    });
}

/// A gate that gets SIGKILL at t0 and is started again.
pub(crate) fn kill(table: &mut Table) {
    block_on(async {
        for server in [Server::Embedded, Server::redis(), Server::postgres()] {
            let scene = Scene::new(server, "").await;
            let port = free_port();
            let mut gate = scene.gate_at(port, scene.server.port());
            let mut sample = Vec::new();
            while sample.len() < tokens(200) {
                let verifier = Verifier::new(gate.address);
                let all = log_in(&gate, AT_ONCE.min(tokens(200))).await;
                for token in &all {
                    verifier.accepts(token).await;
                }
                let column = Column::new(&verifier, &all);
                let revoked = column.run(EVERY, async {
                    let mut at = Vec::new();
                    for token in &all {
                        at.push(revoke(&gate, token).await);
                    }
                    gate.kill();
                    gate = scene.gate_at(port, scene.server.port());
                    at
                });
                sample.extend(revoked.await);
            }
            table.add(
                &format!("a gate that is killed and started again ({})", scene.server.name()),
                &sample,
                Some(Duration::ZERO),
            );
        }
    });
}

/// Another gate, whose connection to the store is cut at t0.
pub(crate) fn cut(table: &mut Table) {
    block_on(async {
        for start in shared() {
            let scene = Scene::new(start(), "").await;
            let way = Proxy::to(scene.server.port()).await;
            let (first, second) = (scene.gate(), scene.gate_at(free_port(), way.port));
            let verifier = Verifier::new(second.address);
            let all = log_in(&first, tokens(200)).await;
            for token in &all {
                verifier.accepts(token).await;
            }
            let column = Column::new(&verifier, &all);
            let revoked = async {
                // The cut precedes the revocations, so the other gate does not receive them.
                way.go_away(true);
                join_all(all.iter().map(|token| revoke(&first, token))).await
            };
            let sample = column.run(EVERY, revoked).await;
            table.add(
                &format!("another gate, cut off from its store ({})", scene.server.name()),
                &sample,
                Some(STALENESS),
            );
        }
    });
}

/// The last byte of a stream that another gate has passed on.
pub(crate) fn streams(table: &mut Table) {
    block_on(async {
        for start in shared() {
            let scene = Scene::new(start(), "").await;
            let (first, second) = (scene.gate(), scene.gate());
            let mut sample = Vec::new();
            for token in log_in(&first, tokens(200)).await {
                sample.push(last_byte(&first, &second, &token).await);
            }
            table.add(
                &format!("a stream at another gate, its last byte ({})", scene.server.name()),
                &sample,
                Some(STREAM),
            );
        }
    });
}

async fn last_byte(revoker: &Gate, verifier: &Gate, token: &str) -> Latency {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(verifier.url("/stream")).header("authorization", format!("Bearer {token}"));
    let response = client.request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::OK);
    let mut body = response.into_body();
    let first = body.frame().await;
    assert!(first.is_some_and(|frame| frame.is_ok()), "the stream begins");
    let reading = async {
        let mut arrived = vec![Instant::now()];
        while let Some(Ok(_)) = body.frame().await {
            arrived.push(Instant::now());
        }
        arrived
    };
    let (arrived, t0) = tokio::join!(reading, revoke(revoker, token));
    let after: Vec<Duration> = arrived.iter().filter_map(|at| at.checked_duration_since(t0)).collect();
    let seconds: Vec<f64> = after.iter().map(Duration::as_secs_f64).collect();
    let last = if seconds.is_empty() { 0.0 } else { quantile(&seconds, 1.0) };
    Latency { accepted: after.len(), last: Duration::from_secs_f64(last) }
}
