//! The operator's requests about issuers whose keys are fetched.

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::State;
use super::sessions::json;
use rotogate::dialect::Reply;
use rotogate::reply;

pub(super) fn list(state: &State) -> Reply {
    json(&state.issuers.report())
}

/// Fetches the keys of an issuer now.
pub(super) async fn refresh(state: &State, name: &str) -> Reply {
    match state.issuers.refresh(&decoded(name)).await {
        Some((report, Ok(()))) => json(&report),
        Some((_, Err(failure))) => {
            let detail = format!("{}: {failure}", failure.cause);
            reply::problem(StatusCode::BAD_GATEWAY, Some(&detail))
        }
        None => unknown(),
    }
}

/// Drops the keys of an issuer.
pub(super) async fn drop_keys(state: &State, name: &str) -> Reply {
    match state.issuers.drop_keys(&decoded(name)).await {
        Some(report) => {
            tracing::info!(target: "rotogate::audit", event = "issuer_keys_dropped", issuer = name);
            json(&report)
        }
        None => unknown(),
    }
}

/// The name as it is in the configuration.
fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

fn unknown() -> Reply {
    reply::problem(StatusCode::NOT_FOUND, Some("no issuer of this name has keys that are fetched"))
}
