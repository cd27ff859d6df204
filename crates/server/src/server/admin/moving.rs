//! The copy to `[store.next]`, and the switch to it. They go on if the command that asked goes away.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rotogate::fault::Chain;
use rotogate::store::StoreError;
use rotogate::store::copy::Level;
use rotogate::store::moving::{MovingStore, Report};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use utoipa::ToSchema;

use super::problem::{Code, Problem, Refusal};
use super::{Answer, State};

/// What is to be done.
#[derive(Clone, Copy, Debug)]
enum Job {
    Copy,
    Switch,
}

/// A line of the answer. The last one is `Done` or `Failed`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// So far.
    Compared {
        /// Which comparison this is.
        pass: u32,
        /// How many sessions it has compared.
        sessions: u64,
    },
    /// It is done.
    Done(Done),
    /// It failed.
    Failed(String),
}

/// What a copy or a switch has done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Done {
    /// How many sessions were compared last.
    pub(crate) sessions: u64,
    /// How many revocations.
    pub(crate) revocations: u64,
    /// Both, and the digest.
    pub(crate) content: String,
    /// How many of them the last comparison found missing, and put.
    pub(crate) copied: u64,
    /// How many the next store has that the old one lost.
    pub(crate) ahead: u64,
    /// For how long no store was in charge, in milliseconds; for a switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) closed_ms: Option<u64>,
}

/// Copies to `[store.next]`, and keeps the copy level: a line of JSON for each step.
#[utoipa::path(
    post,
    path = "/v1/store/copy",
    operation_id = "copy_store",
    tag = "store",
    responses(
        (status = 200, description = "a line for each step", body = Line, content_type = "application/x-ndjson"),
        (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = ["admin"]))
)]
pub(super) fn copy(state: &State) -> Answer {
    run(state, Job::Copy)
}

/// Makes `[store.next]` the store in charge: a line of JSON for each step.
#[utoipa::path(
    post,
    path = "/v1/store/switch",
    operation_id = "switch_store",
    tag = "store",
    responses(
        (status = 200, description = "a line for each step", body = Line, content_type = "application/x-ndjson"),
        (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = ["admin"]))
)]
pub(super) fn switch(state: &State) -> Answer {
    run(state, Job::Switch)
}

/// Begins, and answers line by line.
fn run(state: &State, job: Job) -> Answer {
    let Some(moving) = state.moving.clone() else {
        let why = "there is no [store.next], or the gate runs on it already";
        return Err(Refusal::new(Code::NotConfigured, why));
    };
    let (lines, received) = unbounded_channel();
    let gate = state.gate.clone();
    tokio::spawn(async move {
        if let Job::Switch = job
            && let Err(error) = gate.flush().await
        {
            tracing::warn!(%error, "confirmations not written before the switch");
        }
        let last = match work(&moving, job, &lines).await {
            Ok((level, closed)) => done(&level, closed),
            Err(error) => {
                tracing::error!(error = ?Chain(&error), ?job, "store not moved");
                Line::Failed(format!("{:?}", Chain(&error)))
            }
        };
        // The command that asked may be gone.
        let _ = lines.send(last);
    });
    let lines = futures_util::stream::unfold(received, |mut received| async {
        let line = received.recv().await?;
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(text))), received))
    });
    let mut response = Response::new(StreamBody::new(lines.boxed()).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

async fn work(
    moving: &MovingStore,
    job: Job,
    lines: &UnboundedSender<Line>,
) -> Result<(Level, Option<Duration>), StoreError> {
    let told = |Report { pass, sessions }: Report| drop(lines.send(Line::Compared { pass, sessions }));
    match job {
        Job::Copy => moving.copy(&told).await.map(|level| (level, None)),
        Job::Switch => moving.switch(&told).await.map(|(level, closed)| (level, Some(closed))),
    }
}

fn done(level: &Level, closed: Option<Duration>) -> Line {
    let event = if closed.is_some() { "store_switched" } else { "store_copied" };
    let (content, copied, ahead) = (level.content, level.copied, level.ahead);
    let closed_ms = closed.map(|closed| u64::try_from(closed.as_millis()).unwrap_or(u64::MAX));
    tracing::info!(target: "rotogate::audit", event, %content, copied, ahead, closed_ms, "store compared with the next one");
    Line::Done(Done {
        sessions: content.sessions,
        revocations: content.revocations,
        content: content.to_string(),
        copied,
        ahead,
        closed_ms,
    })
}
