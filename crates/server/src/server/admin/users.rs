//! The operator's request about the users file.

use http::{Response, StatusCode};

use super::problem::{Code, Problem, Refusal};
use super::{Answer, State, full};
use crate::server::users::ReloadError;

/// Reads the users file now. Answers once the revocations that this causes are durable: a command that changed the file
/// waits for this.
#[utoipa::path(
    post,
    path = "/v1/users/reload",
    operation_id = "reload_users",
    tag = "users",
    responses(
        (status = 204, description = "it is in force"),
        (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "failed", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = ["operator"]))
)]
pub(super) async fn reload(state: &State) -> Answer {
    let Some(users) = &state.users else {
        return Err(Refusal::new(Code::NotConfigured, "the users are not in a file (directory.kind)"));
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
