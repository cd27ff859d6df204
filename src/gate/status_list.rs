//! Our Token Status Lists: how a gate begins to publish them, and the task that keeps them up to date.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::maintain::every;
use super::running::Running;
use rotogate_core::counters::Seldom;
use rotogate_core::engine::StatusFollower;
use rotogate_core::fault::Chain;

/// How often the lists are brought up to date, which bounds the delay of a change.
const UPDATE_EVERY: Duration = Duration::from_secs(1);

/// Starts the task, if lists are published.
pub(super) fn begin(gate: &Arc<Running>) {
    if gate.engine.status_lists().is_some() {
        tokio::spawn(update(Arc::downgrade(gate)));
    }
}

async fn update(gate: Weak<Running>) {
    let mut ticks = every(UPDATE_EVERY);
    let (mut follower, mut failing) = (StatusFollower::default(), Seldom::default());
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        match gate.engine.follow_status(&mut follower).await {
            Ok(()) => failing = Seldom::default(),
            Err(error) if failing.is_due(gate.engine.clock().source().monotonic()) => {
                tracing::error!(error = ?Chain(&error), "the status lists cannot be brought up to date; retrying");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use bytes::Bytes;
    use futures_util::future::join_all;
    use http::{Request, Response, StatusCode, header};
    use http_body_util::Full;
    use serde_json::Value;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::gate::{Gate, ListSize, NewSession, StatusListSettings};
    use rotogate_core::client::Client;
    use rotogate_core::clock::{TimeSource, Timestamp};
    use rotogate_core::store::MemoryStore;
    use rotogate_core::token::Keyring;

    const ISSUER: &str = "https://gate.test";
    const TTL: u64 = 5;
    /// The requests of each second.
    const FLOOD: usize = 300;

    /// The clock of tokio, which a test stops.
    struct Paused(tokio::time::Instant);

    impl TimeSource for Paused {
        fn wall(&self) -> Timestamp {
            // A multiple of `TTL`, so that a list begins with the clock.
            Timestamp::from_secs(1_800_000_000).plus(self.monotonic())
        }

        fn monotonic(&self) -> Duration {
            self.0.elapsed()
        }
    }

    async fn ask(gate: &Gate, path: &str, etag: Option<&str>) -> Response<()> {
        let service = tower::service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let mut request = Request::get(path).header(header::HOST, "gate.test");
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let request = request.body(Full::default()).unwrap();
        gate.layer().layer(service).oneshot(request).await.unwrap().map(drop)
    }

    /// As many requests at once as there are in a second: for the list, again with its tag, and for unknown lists.
    async fn flood(gate: &Gate, path: &str, etag: &str) {
        let requests = (0..FLOOD).map(|number| {
            let (gate, path, etag) = (gate.clone(), path.to_owned(), etag.to_owned());
            tokio::spawn(async move {
                match number % 3 {
                    0 => assert_eq!(ask(&gate, &path, None).await.status(), StatusCode::OK),
                    1 => {
                        let status = ask(&gate, &path, Some(&etag)).await.status();
                        assert!([StatusCode::OK, StatusCode::NOT_MODIFIED].contains(&status), "{status}");
                    }
                    _ => {
                        let unknown = format!("/status/{}", (1 << 20) + number);
                        assert_eq!(ask(&gate, &unknown, None).await.status(), StatusCode::NOT_FOUND);
                    }
                }
            })
        });
        for one in join_all(requests).await {
            one.unwrap();
        }
    }

    /// Attack: a flood of requests for lists. Requests build nothing, so the gate builds a list once per `ttl`, and at
    /// most once a second if sessions end.
    #[tokio::test(start_paused = true)]
    async fn s3_s4_a_flood_of_requests_for_a_list_makes_one_build_per_ttl() {
        let store = Arc::new(MemoryStore::new(ISSUER, Gate::DEFAULT_LEEWAY));
        let settings = StatusListSettings {
            size: ListSize(14),
            ttl: Duration::from_secs(TTL),
            expires: Duration::from_secs(60),
            ..StatusListSettings::default()
        };
        let gate = Gate::builder().issuer(ISSUER).keys(Keyring::ephemeral().unwrap()).client(Client::public("web"));
        let gate = gate.shared_store(Arc::<MemoryStore>::clone(&store)).relay_store(store);
        let gate = gate.status_list(settings).time(Arc::new(Paused(tokio::time::Instant::now())));
        let gate = gate.build().await.unwrap();
        let builds = || gate.0.engine.status_lists().unwrap().builds();
        let begun = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
        let claims = URL_SAFE_NO_PAD.decode(begun.access_token.expose().split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let path = claims["status"]["status_list"]["uri"].as_str().unwrap().strip_prefix(ISSUER).unwrap().to_owned();

        // The middle of each second, so that no request is at the moment of an update.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let first = builds();
        assert_eq!(first, 1);
        let etag = ask(&gate, &path, None).await.headers()[header::ETAG].to_str().unwrap().to_owned();
        for second in 1..4 * TTL {
            flood(&gate, &path, &etag).await;
            assert_eq!(builds(), first + second / TTL, "after {second} s");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // The ends of sessions within one second are one further build, whoever asks meanwhile.
        let (before, etag) = (builds(), ask(&gate, &path, None).await.headers()[header::ETAG].clone());
        assert_eq!(ask(&gate, &path, etag.to_str().ok()).await.status(), StatusCode::NOT_MODIFIED);
        let others = [gate.sessions().start(NewSession::new("bob", "web")).await.unwrap(), begun];
        for session in others {
            gate.sessions().revoke(session.session.unwrap()).await.unwrap();
            flood(&gate, &path, etag.to_str().unwrap()).await;
        }
        assert_eq!(builds(), before, "not by a request");
        tokio::time::sleep(Duration::from_secs(1)).await;
        flood(&gate, &path, etag.to_str().unwrap()).await;
        assert_eq!(builds(), before + 1);
        assert_eq!(ask(&gate, &path, etag.to_str().ok()).await.status(), StatusCode::OK, "a new list");
    }
}
