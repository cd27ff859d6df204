//! The operator's view of the gate's own keys, and how one takes the place of another.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use rotogate::context::{Context, inherited};
use rotogate::gate::{Gate, JWKS_MAX_AGE};
use rotogate::token::Algorithm;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{Code, Problem, Refusal};
use super::{Answer, Body, State as Admin, ok};
use crate::server::key_roll::{self, RollError};

/// The gate's own keys.
#[derive(Serialize, ToSchema)]
pub(super) struct Keys {
    /// Those that sign access tokens.
    pub(super) keys: Vec<Key>,
    /// The secrets of refresh tokens.
    pub(super) refresh: Vec<RefreshKey>,
}

/// A key of access tokens.
#[derive(Serialize, ToSchema)]
pub(super) struct Key {
    pub(super) kid: String,
    pub(super) algorithm: String,
    pub(super) state: State,
}

/// A secret of refresh tokens.
#[derive(Serialize, ToSchema)]
pub(super) struct RefreshKey {
    /// As `rotogate keys` names it.
    pub(super) kid: String,
    pub(super) state: State,
}

/// Whether a key makes tokens.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Signing,
    Verifying,
    Retired,
}

impl State {
    #[cfg(feature = "page")]
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Verifying => "verifying",
            Self::Retired => "retired",
        }
    }

    fn of(is_signing: bool) -> Self {
        if is_signing { Self::Signing } else { Self::Verifying }
    }
}

/// The gate's own keys, as they are in force.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "keys",
    responses((status = 200, description = "done", body = Keys), (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"]))
)]
pub(super) fn list(gate: &Gate) -> Response<Body> {
    ok(&describe(gate))
}

/// The gate's own keys, now.
pub(super) fn describe(gate: &Gate) -> Keys {
    let keyring = gate.keyring();
    let signing = keyring.signer().kid();
    let keys = keyring.signing_keys().map(|key| Key {
        kid: key.kid().to_owned(),
        algorithm: key.algorithm().to_string(),
        state: State::of(key.kid() == signing),
    });
    let secrets = keyring.refresh_keys();
    let refresh =
        secrets.ids().map(|id| RefreshKey { kid: format!("refresh-{id}"), state: State::of(id == secrets.current()) });
    Keys { keys: keys.collect(), refresh: refresh.collect() }
}

/// How the key that signs changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateRequest {
    /// The algorithm of the new key; by default that of `[issuer]`.
    #[serde(default)]
    algorithm: Option<String>,
    /// Change the secret of refresh tokens instead.
    #[serde(default)]
    refresh: bool,
}

/// What may be overridden.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRequest {
    /// Do it at once, whatever refuses tokens because of it: for a key that was stolen.
    #[serde(default)]
    force: bool,
}

/// A key that changed.
#[derive(Serialize, ToSchema)]
struct ChangedKey {
    kid: String,
    state: State,
    /// The seconds for which it is published before it signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    signs_after: Option<u64>,
    /// What to do besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

impl From<RollError> for Refusal {
    fn from(error: RollError) -> Self {
        let code = match error {
            RollError::Unknown(_) => Code::UnknownKey,
            RollError::TooEarly(_) => Code::KeyInUse,
            RollError::Failed(_) => {
                tracing::error!(%error, "keys not changed");
                Code::Internal
            }
        };
        Self::new(code, error.to_string())
    }
}

/// Adds a key, which is published at once, and signs with it once other verifiers have it: after 5 minutes, and once all
/// gates of the store have it. If the gate stops before, promote the key by hand.
#[utoipa::path(
    post,
    path = "/v1/keys/rotate",
    operation_id = "rotate_keys",
    tag = "keys",
    request_body = RotateRequest,
    responses((status = 202, description = "added; it signs later", body = ChangedKey), (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json"), (status = "5XX", description = "failed", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["admin"]))
)]
pub(super) async fn rotate(state: &Admin, request: RotateRequest) -> Answer {
    let RotateRequest { algorithm, refresh } = request;
    let algorithm = algorithm.map(|name| name.parse::<Algorithm>()).transpose();
    let algorithm = algorithm.map_err(|error| Refusal::new(Code::InvalidBody, format!("algorithm: {error}")))?;
    let Ok(turn) = Arc::clone(&state.rotating).try_lock_owned() else {
        return Err(Refusal::new(Code::KeyInUse, "a rotation is under way: GET /v1/keys shows its key"));
    };
    let config = state.config.load_full();
    let added = {
        let (config, context) = (Arc::clone(&config), Context::current());
        let add = move || {
            let add = || key_roll::add(&config, algorithm, refresh);
            // The audit trail names the operator.
            context.map_or_else(add, |context| context.enter(add))
        };
        tokio::task::spawn_blocking(add).await
    };
    let kid = added.map_err(|error| RollError::Failed(error.to_string()))??;
    let promoted = kid.clone();
    tokio::spawn(inherited(Context::current(), async move {
        if let Err(error) = key_roll::promote(&config, &promoted, Some((true, Duration::ZERO))).await {
            tracing::error!(kid = promoted, %error, "key does not sign: promote it by hand");
        }
        drop(turn);
    }));
    let signs_after = (!refresh).then_some(JWKS_MAX_AGE.as_secs());
    let mut response = ok(&ChangedKey { kid, state: State::Verifying, signs_after, warning: None });
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Signs with a key from now on. 409 while a gate of the store, or another verifier, may not have it.
#[utoipa::path(
    post,
    path = "/v1/keys/{kid}/promote",
    operation_id = "promote_key",
    tag = "keys",
    params(("kid" = String, Path, description = "the key; `refresh-2` is the second secret of refresh tokens")),
    request_body = KeyRequest,
    responses((status = 200, description = "done", body = ChangedKey), (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json"), (status = "5XX", description = "failed", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["admin"]))
)]
pub(super) async fn promote(state: &Admin, kid: &str, request: KeyRequest) -> Answer {
    let when = (!request.force).then_some((false, Duration::ZERO));
    key_roll::promote(&state.config.load_full(), kid, when).await?;
    Ok(ok(&ChangedKey { kid: kid.to_owned(), state: State::Signing, signs_after: None, warning: None }))
}

/// Removes a key that is no longer used. 409 while a token or a session may need it.
#[utoipa::path(
    post,
    path = "/v1/keys/{kid}/retire",
    operation_id = "retire_key",
    tag = "keys",
    params(("kid" = String, Path, description = "the key; `refresh-1` is the first secret of refresh tokens")),
    request_body = KeyRequest,
    responses((status = 200, description = "done", body = ChangedKey), (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json"), (status = "5XX", description = "failed", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["admin"]))
)]
pub(super) async fn retire(state: &Admin, kid: &str, request: KeyRequest) -> Answer {
    let warning = key_roll::retire(&state.config.load_full(), kid, request.force).await?;
    Ok(ok(&ChangedKey { kid: kid.to_owned(), state: State::Retired, signs_after: None, warning }))
}
