//! Requests at a fixed rate, and the accepted ones among them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::MissedTickBehavior;

/// The time between two requests about one token.
pub(crate) const EVERY: Duration = Duration::from_millis(1);
/// A test of a token ends after this many consecutive refusals, and after requests for this time.
const REFUSALS: usize = 25;
const LEAST: Duration = Duration::from_millis(100);

/// A verifier as its clients see it.
#[derive(Clone)]
pub(crate) struct Verifier {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

impl Verifier {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), address }
    }

    /// The status of a response; `None`: no response came.
    pub(crate) async fn ask(&self, token: &str) -> Option<StatusCode> {
        let request =
            Request::get(format!("http://{}/orders", self.address)).header("authorization", format!("Bearer {token}"));
        let response = self.client.request(request.body(Full::default()).unwrap()).await.ok()?;
        let status = response.status();
        response.into_body().collect().await.ok()?;
        Some(status)
    }

    /// Checks that a verifier accepts a token, several times.
    pub(crate) async fn accepts(&self, token: &str) {
        let mut status = self.ask(token).await;
        for _ in 0..100 {
            if status == Some(StatusCode::OK) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            status = self.ask(token).await;
        }
        panic!("{}: {status:?} for a token that is good", self.address);
    }
}

/// The result for a revoked token.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    /// Requests that were sent after t0.
    pub(crate) accepted: usize,
    /// The time from t0 until the last of these requests was sent.
    pub(crate) last: Duration,
}

/// The requests of one token.
#[derive(Default)]
struct Sent {
    /// The sending times of accepted requests.
    accepted: Vec<Instant>,
    /// The sending times of the requests that were refused since the last accepted one.
    refused: Vec<Instant>,
}

impl Sent {
    fn is_over(&self, t0: Instant) -> bool {
        let accepted = self.accepted.iter().max();
        let since = self.refused.iter().filter(|at| **at > t0 && accepted.is_none_or(|last| *at > last)).count();
        since >= REFUSALS && t0.elapsed() >= LEAST
    }

    fn latency(&self, t0: Instant) -> Latency {
        let after: Vec<Duration> = self.accepted.iter().filter_map(|at| at.checked_duration_since(t0)).collect();
        Latency { accepted: after.len(), last: after.iter().max().copied().unwrap_or_default() }
    }
}

/// A column: tokens, and when each was revoked.
pub(crate) struct Column {
    verifier: Verifier,
    tokens: Vec<Arc<str>>,
    sent: Arc<Vec<Mutex<Sent>>>,
}

impl Column {
    pub(crate) fn new(verifier: &Verifier, tokens: &[String]) -> Self {
        let sent = tokens.iter().map(|_| Mutex::default()).collect();
        let tokens = tokens.iter().map(|token| token.as_str().into()).collect();
        Self { verifier: verifier.clone(), tokens, sent: Arc::new(sent) }
    }

    /// Tests each token in turn until it is refused for good; `revoke` returns the moment of each t0.
    pub(crate) async fn run(&self, every: Duration, revoke: impl Future<Output = Vec<Instant>>) -> Vec<Latency> {
        let revoked: Mutex<Option<Vec<Instant>>> = Mutex::new(None);
        let asking = async {
            let mut tick = tokio::time::interval(every);
            // Another program had the processor: the rate stays.
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut left: Vec<usize> = (0..self.tokens.len()).collect();
            let mut next = 0;
            while !left.is_empty() {
                tick.tick().await;
                next = if next + 1 < left.len() { next + 1 } else { 0 };
                let number = left[next];
                let is_over = revoked.lock().unwrap().as_ref().is_some_and(|at| self.is_over(number, at[number]));
                match is_over {
                    true => drop(left.swap_remove(next)),
                    false => self.send(number),
                }
            }
        };
        let revoking = async {
            // The requests reach their rate before the first revocation.
            tokio::time::sleep(LEAST).await;
            let at = revoke.await;
            *revoked.lock().unwrap() = Some(at.clone());
            at
        };
        let ((), at) = tokio::join!(asking, revoking);
        let ended = self.sent.iter().zip(at);
        ended.map(|(sent, t0)| sent.lock().unwrap().latency(t0)).collect()
    }

    fn is_over(&self, number: usize, t0: Instant) -> bool {
        self.sent[number].lock().unwrap().is_over(t0)
    }

    fn send(&self, number: usize) {
        let (verifier, token, sent) = (self.verifier.clone(), Arc::clone(&self.tokens[number]), Arc::clone(&self.sent));
        tokio::spawn(async move {
            let at = Instant::now();
            let status = verifier.ask(&token).await;
            let mut sent = sent[number].lock().unwrap();
            match status {
                Some(StatusCode::OK) => sent.accepted.push(at),
                Some(StatusCode::UNAUTHORIZED | StatusCode::SERVICE_UNAVAILABLE) => sent.refused.push(at),
                // A killed gate serves again in a moment; an overloaded proxy says so.
                _ => {}
            }
        });
    }
}
