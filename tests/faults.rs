//! Faults of the machine under the real binary: each ends in a clear error, and no acknowledged change is lost. No test
//! needs a privilege; as root, a test first drops the privileges that would hide the fault.
//!
//! A clock that jumps back and forth is in the engine's own tests (`o9_…`), in those of `clock`, and in the simulation
//! (`tests/simulation/`), with restarts in between: the time of a process cannot be changed from outside it.

mod corrupt;
mod descriptors;
mod full;
mod read_only;

use http::{Method, Request, StatusCode};
use support::{Answer, CONFIG, Gate, Tokens, send};

const STORE: &str = "data/rotogate.redb";

/// A long grace, so that a refresh that is repeated minutes later gets the same answer.
fn config() -> String {
    format!("{CONFIG}\n[sessions]\ngrace = \"60s\"\nmax_sessions_per_subject = 10000\n")
}

async fn readyz(gate: &Gate) -> Answer {
    let request = Request::builder().method(Method::GET).uri(format!("http://{}/readyz", gate.admin));
    send(request.body(Default::default()).unwrap()).await
}

/// A fault of the gate: 503 with `Retry-After`. The acknowledged state: live sessions, and ended sessions.
#[derive(Default)]
struct Acknowledged {
    live: Vec<Tokens>,
    over: Vec<Tokens>,
}

impl Acknowledged {
    /// Checks that all acknowledged changes hold.
    async fn holds(&self, gate: &Gate) {
        for tokens in &self.over {
            assert_eq!(
                gate.get("/x", &tokens.access).await.status,
                StatusCode::UNAUTHORIZED,
                "an ended session is back"
            );
            assert_eq!(gate.refresh(&tokens.refresh).await.error(), "invalid_grant", "an ended session is back");
        }
        for tokens in &self.live {
            assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::OK, "a session is lost");
            let answer = gate.refresh(&tokens.refresh).await;
            assert_eq!(answer.status, StatusCode::OK, "a session is lost: {answer:?}");
        }
    }
}
