//! The operator's requests about the users file.

use http::{Response, StatusCode};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::context::Context;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{Code, Refusal};
use super::{AdminResult, AdminState, full};
use crate::server::build::users::ReloadError;
use rotogate_directories::users::audit::{ChangedUser, UserEvent};
use rotogate_directories::users::edit::{self, EditError, UserKey};

/// Reads the users file now. The response is sent when the resulting revocations are durable, so that a command that
/// changed the file can wait for them.
#[utoipa::path(
    post, path = "/v1/users/reload", operation_id = "reload_users", tag = "users",
    responses((status = 204, description = "the gate now uses the users in the file"))
)]
pub(super) async fn reload(state: &AdminState) -> AdminResult {
    let Some(users) = &state.users else {
        return Err(Refusal::new(Code::NotConfigured, "the users are not in a file (`directory.kind`)"));
    };
    match users.reload().await {
        Ok(()) => {
            let mut response = Response::new(full(bytes::Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Err(error @ ReloadError::Broken(_)) => Err(Refusal::new(Code::BrokenUsersFile, error.to_string())),
        Err(error @ ReloadError::NotDurable) => {
            Err(Refusal::new(Code::StoreFailed, error.to_string()).retry_after(std::time::Duration::from_secs(5)))
        }
    }
}

/// The user to disable, from the users file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisableRequest {
    /// The user's name.
    pub(crate) user: String,
    /// The user's account. If absent, the user without an account is disabled.
    pub(crate) account: Option<String>,
}

/// Disables a user of the users file, as `rotogate user disable` does. The user can no longer log in, and all sessions
/// of the user end. The response is sent when this is durable.
#[utoipa::path(
    post, path = "/v1/users/disable", operation_id = "disable_user", tag = "users",
    request_body = DisableRequest, responses((status = 204, description = "done"))
)]
// Requirement O28.
pub(super) async fn disable(state: &AdminState, request: DisableRequest) -> AdminResult {
    let config = state.config.load_full();
    let change = move || {
        let file = config.users_file().map_err(|what| Refusal::new(Code::NotConfigured, what))?;
        let DisableRequest { user, account } = &request;
        let (name, account) = (user.as_str(), account.as_deref().filter(|account| !account.is_empty()));
        edit::set_active(file, UserKey { account, username: name }, false, SystemTime::new().wall())
            .map_err(of_edit)?;
        ChangedUser { event: UserEvent::Disabled, name, account, subject: None, changed: None }.write();
        Ok::<(), Refusal>(())
    };
    let context = Context::current();
    // The audit log names the operator.
    let change = move || match context {
        Some(context) => context.enter(change),
        None => change(),
    };
    let changed = tokio::task::spawn_blocking(change).await;
    changed.map_err(|error| Refusal::new(Code::Internal, error.to_string()))??;
    reload(state).await
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn of_edit(error: EditError) -> Refusal {
    let code = match error {
        EditError::Unknown => Code::UnknownTarget,
        EditError::File(_) => Code::BrokenUsersFile,
        EditError::Io(_) | EditError::Password(_) => Code::Internal,
        EditError::Import(_) | EditError::TooMany { .. } | EditError::Exists(_) | EditError::Invalid(_) => {
            Code::InvalidBody
        }
    };
    Refusal::new(code, error.to_string())
}
