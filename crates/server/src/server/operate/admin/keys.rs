//! Lists and replaces the gate's keys.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rotogate::gate::JWKS_MAX_AGE;
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::context::{Context, inherited};
use rotogate_core::private_file;
use rotogate_core::token::Algorithm;
use rotogate_core::token::keyring::Keyring;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::problem::{Code, Refusal};
use super::{AdminResult, AdminState, ok, rfc3339};
use crate::audit;
use crate::server::operate::key_roll::{self, AskingGate, RollError};

/// The gate's own keys.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Keys {
    /// The keys that sign access tokens.
    pub(crate) keys: Vec<Key>,
    /// The secrets for refresh tokens.
    pub(crate) refresh: Vec<RefreshKey>,
}

/// A key for access tokens.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Key {
    pub(crate) kid: String,
    pub(crate) algorithm: String,
    pub(crate) state: OwnKeyState,
    #[serde(flatten)]
    pub(crate) age: Age,
}

/// A secret for refresh tokens.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct RefreshKey {
    /// The name of the secret in `rotogate keys`.
    pub(crate) kid: String,
    pub(crate) state: OwnKeyState,
    #[serde(flatten)]
    pub(crate) age: Age,
}

/// The age of a key. Absent if the gate cannot examine the key's file.
#[derive(Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Age {
    /// The time when the key's file was written (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    /// The age in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
}

impl Age {
    // Requirement O42.
    fn read(folder: &Path, kid: &str) -> Self {
        let Some(written) = Keyring::written_at(folder, kid).ok().flatten().map(key_roll::time) else {
            return Self::default();
        };
        Self::new(written, SystemTime::new().wall())
    }

    pub(super) fn new(created: Timestamp, now: Timestamp) -> Self {
        Self { created: Some(rfc3339(created)), age: Some(now.since(created).as_secs()) }
    }

    /// The time when the key's file was written (RFC 3339), if it is known.
    pub(super) fn created(&self) -> Option<&str> {
        self.created.as_deref()
    }

    pub(crate) fn in_words(&self) -> String {
        const HOUR: u64 = 3600;
        match self.age {
            None => "age unknown".to_owned(),
            Some(age) if age >= 48 * HOUR => format!("{} days old", age / (24 * HOUR)),
            Some(age) if age >= 2 * HOUR => format!("{} hours old", age / HOUR),
            Some(age) if age < 60 => "under a minute old".to_owned(),
            Some(age) if age / 60 == 1 => "1 minute old".to_owned(),
            Some(age) => format!("{} minutes old", age / 60),
        }
    }
}

/// Whether a key is used to issue new tokens.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = State)]
pub(crate) enum OwnKeyState {
    Signing,
    Verifying,
    Retired,
}

impl OwnKeyState {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Verifying => "verifying",
            Self::Retired => "retired",
        }
    }

    fn new(is_signing: bool) -> Self {
        if is_signing { Self::Signing } else { Self::Verifying }
    }
}

/// Lists the gate's own keys that are in use.
#[utoipa::path(
    get, path = "/v1/keys", operation_id = "list_keys", tag = "keys",
    responses((status = 200, description = "done", body = Keys))
)]
pub(super) fn list(state: &AdminState) -> Keys {
    describe(&state.gate.keyring(), &state.config.load().issuer.keys)
}

pub(crate) fn describe(keyring: &Keyring, folder: &Path) -> Keys {
    let signing = keyring.signer().kid();
    let keys = keyring.signing_keys().map(|key| Key {
        kid: key.kid().to_owned(),
        algorithm: key.algorithm().to_string(),
        state: OwnKeyState::new(key.kid() == signing),
        age: Age::read(folder, key.kid()),
    });
    let secrets = keyring.refresh_keys();
    let refresh = secrets.ids().map(|id| {
        let kid = audit::refresh_name(id);
        RefreshKey { state: OwnKeyState::new(id == secrets.current()), age: Age::read(folder, &kid), kid }
    });
    Keys { keys: keys.collect(), refresh: refresh.collect() }
}

/// The properties of the key that becomes the signing key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateRequest {
    /// The algorithm of the new key. By default, that of `[issuer]`.
    #[serde(default)]
    pub(super) algorithm: Option<String>,
    /// Whether to change the secret for refresh tokens instead.
    #[serde(default)]
    pub(super) refresh: bool,
}

/// The checks that the operator overrides.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequest {
    /// Whether to change the key at once, even if valid tokens are then refused. Use it for a stolen key.
    #[serde(default)]
    pub(crate) force: bool,
}

/// A key that changed.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ChangedKey {
    pub(crate) kid: String,
    pub(crate) state: OwnKeyState,
    /// The number of seconds for which the key is published before it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signs_after: Option<u64>,
    /// What the operator must also do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) warning: Option<String>,
}

impl ChangedKey {
    pub(crate) fn retired(kid: &str, warning: Option<String>) -> Self {
        Self { kid: kid.to_owned(), state: OwnKeyState::Retired, signs_after: None, warning }
    }
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

/// Adds a key, publishes it at once, and signs with it when other verifiers have it. This is the case after 5 minutes,
/// when all gates of the store have the key. If the gate stops before it signs with the key, the key must be promoted
/// by hand.
#[utoipa::path(
    post, path = "/v1/keys/rotate", operation_id = "rotate_keys", tag = "keys",
    request_body = RotateRequest, responses((status = 202, description = "the key was added; it will sign later", body = ChangedKey))
)]
pub(super) async fn rotate(state: &AdminState, request: RotateRequest) -> AdminResult {
    let mut response = ok(&begin_rotation(state, request).await?);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Adds a key, and starts a task that promotes the key when it may sign.
pub(super) async fn begin_rotation(state: &AdminState, request: RotateRequest) -> Result<ChangedKey, Refusal> {
    let RotateRequest { algorithm, refresh } = request;
    let algorithm = algorithm.map(|name| name.parse::<Algorithm>()).transpose();
    let algorithm = algorithm.map_err(|error| Refusal::new(Code::InvalidBody, format!("algorithm: {error}")))?;
    let Ok(turn) = Arc::clone(&state.rotating).try_lock_owned() else {
        return Err(Refusal::new(
            Code::KeyInUse,
            "a key rotation is already running, and its new key does not sign yet",
        ));
    };
    let config = state.config.load_full();
    let (sender, added) = oneshot::channel();
    // The task goes on if the client disconnects, so that each added key is promoted.
    tokio::spawn(inherited(Context::current(), async move {
        let context = Context::current();
        let adding = Arc::clone(&config);
        let add = move || {
            let add = || key_roll::add(&adding, algorithm, refresh);
            // The event in the audit log names the operator.
            context.map_or_else(add, |context| context.enter(add))
        };
        let added = tokio::task::spawn_blocking(add).await;
        let added = added.unwrap_or_else(|error| Err(RollError::Failed(error.to_string())));
        let kid = added.as_ref().ok().cloned();
        let _ = sender.send(added);
        if let Some(kid) = kid
            && let Err(error) = key_roll::promote(&config, &kid, Some((true, Duration::ZERO))).await
        {
            tracing::error!(kid, %error, "the new key does not sign yet: run `rotogate keys promote KID --wait`");
        }
        drop(turn);
    }));
    let kid = added.await.map_err(|error| RollError::Failed(error.to_string()))??;
    let signs_after = (!refresh).then_some(JWKS_MAX_AGE.as_secs());
    Ok(ChangedKey { kid, state: OwnKeyState::Verifying, signs_after, warning: None })
}

/// What a rotation would change.
pub(super) struct RotationPreview {
    /// The key or the secret in use.
    pub(super) current: String,
    /// The algorithm of the new key.
    pub(super) algorithm: Algorithm,
    /// How long a new key is published before it signs.
    pub(super) signs_after: Duration,
    /// How long tokens of the current key are valid after the change.
    pub(super) valid_for: Duration,
    /// When the last token of the current signing key expires, if every gate has the new key in time.
    pub(super) last_token: Timestamp,
    /// Whether the key folder must be copied to other gates.
    pub(super) is_shared: bool,
}

pub(super) fn preview(state: &AdminState, refresh: bool) -> RotationPreview {
    let (config, keyring) = (state.config.load(), state.gate.keyring());
    let longest = key_roll::Longest::new(&config);
    let (signs_after, now) = (JWKS_MAX_AGE, SystemTime::new().wall());
    RotationPreview {
        current: match refresh {
            true => audit::refresh_name(keyring.refresh_keys().current()),
            false => keyring.signer().kid().to_owned(),
        },
        algorithm: config.issuer.algorithm,
        signs_after,
        valid_for: if refresh { longest.refresh() } else { longest.access },
        last_token: now.plus(signs_after).plus(longest.access),
        is_shared: config.store.is_shared(),
    }
}

/// Returns whether a new key waits until it may sign.
pub(super) fn is_rotating(state: &AdminState) -> bool {
    state.rotating.try_lock().is_err()
}

/// Returns why the gate cannot change its keys, or `None` if no obstacle is known.
pub(super) fn unwritable(state: &AdminState) -> Option<String> {
    private_file::unwritable(&state.config.load().issuer.keys).map(|(why, _)| why)
}

/// Makes a key the signing key. The status is 409 as long as a gate of the store, or another verifier, may not have the
/// key.
#[utoipa::path(
    post, path = "/v1/keys/{kid}/promote", operation_id = "promote_key", tag = "keys",
    params(("kid" = String, Path, description = "the key's id; `refresh-2` is the second refresh secret")), request_body = KeyRequest,
    responses((status = 200, description = "done", body = ChangedKey))
)]
pub(super) async fn promote(state: &AdminState, kid: &str, request: KeyRequest) -> Result<ChangedKey, Refusal> {
    let when = (!request.force).then_some((false, Duration::ZERO));
    key_roll::promote(&state.config.load_full(), kid, when).await?;
    Ok(ChangedKey { kid: kid.to_owned(), state: OwnKeyState::Signing, signs_after: None, warning: None })
}

/// Removes a key that is no longer used. The status is 409 as long as a token or a session may need the key.
#[utoipa::path(
    post, path = "/v1/keys/{kid}/retire", operation_id = "retire_key", tag = "keys",
    params(("kid" = String, Path, description = "the key's id; `refresh-1` is the first refresh secret")), request_body = KeyRequest,
    responses((status = 200, description = "done", body = ChangedKey))
)]
pub(super) async fn retire(state: &AdminState, kid: &str, request: KeyRequest) -> Result<ChangedKey, Refusal> {
    let asking = AskingGate { gate: &state.gate, store: state.redb.as_ref() };
    let warning = key_roll::retire(&state.config.load_full(), kid, request.force, Some(asking)).await?;
    Ok(ChangedKey::retired(kid, warning))
}
