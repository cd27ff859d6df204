//! The operator's view of the gate's own keys.

use http::Response;
use rotogate::gate::Gate;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Body, ok};

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
}

impl State {
    #[cfg(feature = "page")]
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Verifying => "verifying",
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
