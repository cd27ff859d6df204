//! The operator's requests about the users file.

use std::io;

use http::{Response, StatusCode};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::context::Context;
use rotogate_core::session::Scope;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Refusal};
use super::{AdminResult, AdminState, Body, full, page_size, rfc3339};
use crate::server::build::users::{LiveUsers, ReloadError};
use rotogate_config::{Config, DirectoryConfig, UsersConfig};
use rotogate_directories::users::audit::{ChangedUser, UserEvent};
use rotogate_directories::users::edit::{self, EditError, ListedUser, UserKey};
use rotogate_directories::users::{UsersFile, UsersPage};

const MAX_PAGE_USERS: usize = 1000;

/// A user of the users file.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserInfo {
    /// The user's name.
    pub(crate) user: String,
    /// The user's account, if any.
    pub(crate) account: Option<String>,
    /// The `sub` of the user's tokens.
    pub(crate) subject: String,
    /// Whether the user can log in.
    pub(crate) active: bool,
    /// The scopes that the user's tokens may carry.
    pub(crate) scopes: String,
    /// The time when the user was last added, disabled or given a new password, if the file has it (RFC 3339). Sessions
    /// from before this time have ended.
    pub(crate) sessions_valid_from: Option<String>,
}

impl UserInfo {
    fn new(listed: ListedUser) -> Self {
        let ListedUser { username, user } = listed;
        let since = user.sessions_valid_from;
        Self {
            user: username,
            account: user.account.map(String::from),
            subject: user.subject.into(),
            active: user.active,
            scopes: user.scopes.to_string(),
            sessions_valid_from: (since > Timestamp::ZERO).then(|| rfc3339(since)),
        }
    }
}

/// The parameters that select users.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsersQuery {
    /// Only users whose name contains this text, in upper or lower case.
    pub(super) name: Option<String>,
    /// The `next` of the previous page, with the same name.
    pub(super) cursor: Option<String>,
    /// The maximum number of users on the page.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    pub(super) limit: Option<String>,
}

/// A page of users.
#[derive(Serialize, ToSchema)]
pub(super) struct UserList {
    /// The users, in the order of the file.
    pub(super) users: Vec<UserInfo>,
    /// The number of users that match the search, on all pages.
    pub(super) total: usize,
    /// The `cursor` of the next page. `null` at the end.
    pub(super) next: Option<String>,
}

/// Lists the users in the users file.
#[utoipa::path(
    get, path = "/v1/users", operation_id = "list_users", tag = "users", params(UsersQuery),
    responses((status = 200, description = "done", body = UserList))
)]
pub(super) fn list(state: &AdminState, query: UsersQuery) -> Result<UserList, Refusal> {
    let UsersQuery { name, cursor, limit } = query;
    let limit = page_size(limit, MAX_PAGE_USERS)?;
    let page = file_users(state)?.directory().page(&name.unwrap_or_default(), cursor.as_deref(), limit);
    let UsersPage { users, total, has_more } = page.ok_or_else(|| {
        Refusal::new(Code::InvalidParameter, "cursor: the user before this page was removed; begin with the first page")
    })?;
    let users: Vec<_> = users.into_iter().map(UserInfo::new).collect();
    let next = users.last().filter(|_| has_more).map(|last| last.subject.clone());
    Ok(UserList { users, total, next })
}

fn file_users(state: &AdminState) -> Result<&LiveUsers, Refusal> {
    let missing = || Refusal::new(Code::NotConfigured, "the users are not in a file (`directory.kind`)");
    // A reload may have replaced the file by another kind of directory.
    let is_configured = state.config.load().file_directory().is_some();
    state.users.as_deref().filter(|_| is_configured).ok_or_else(missing)
}

/// Returns why the gate cannot change the users file, or `None` if no obstacle is known.
pub(super) fn unwritable(state: &AdminState) -> Option<String> {
    state.config.load().users_file().ok()?.unwritable()
}

/// Reads the users file now. The response is sent when the resulting revocations are durable, so that a command that
/// changed the file can wait for them.
#[utoipa::path(
    post, path = "/v1/users/reload", operation_id = "reload_users", tag = "users",
    responses((status = 204, description = "the gate now uses the users in the file"))
)]
pub(super) async fn reload(state: &AdminState) -> AdminResult {
    read_again(state).await.map(|()| no_content())
}

async fn read_again(state: &AdminState) -> Result<(), Refusal> {
    match file_users(state)?.reload().await {
        Ok(()) => Ok(()),
        Err(error @ ReloadError::Broken(_)) => Err(Refusal::new(Code::BrokenUsersFile, error.to_string())),
        Err(error @ ReloadError::NotDurable) => {
            Err(Refusal::new(Code::StoreFailed, error.to_string()).retry_after(std::time::Duration::from_secs(5)))
        }
    }
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The user to change, from the users file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserRequest {
    /// The user's name.
    pub(crate) user: String,
    /// The user's account. If absent, the user without an account is changed.
    pub(crate) account: Option<String>,
}

impl UserRequest {
    fn key(&self) -> UserKey<'_> {
        key_of(&self.user, self.account.as_deref())
    }
}

fn key_of<'a>(username: &'a str, account: Option<&'a str>) -> UserKey<'a> {
    UserKey { account: account.filter(|account| !account.is_empty()), username }
}

/// A user to add to the users file. The gate chooses the password.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUserRequest {
    /// The user's name.
    pub(super) user: String,
    /// The user's account, if any.
    pub(super) account: Option<String>,
    /// The `sub` of the user's tokens. By default, it is random.
    pub(super) subject: Option<String>,
    /// The scopes that the user's tokens may carry, separated by spaces.
    pub(super) scopes: Option<String>,
}

/// A new password, which is shown only in this response.
#[derive(Serialize, ToSchema)]
pub(super) struct NewPassword {
    /// The user's name.
    pub(super) user: String,
    /// The user's account, if any.
    pub(super) account: Option<String>,
    /// The password.
    #[serde(serialize_with = "exposed")]
    #[schema(value_type = String)]
    pub(super) password: SecretString,
    /// What is probably not intended about the user's scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<String>,
}

fn exposed<S: serde::Serializer>(password: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(password.expose_secret())
}

/// Adds a user to the users file, as `rotogate user add` does. The gate chooses the password.
#[utoipa::path(
    post, path = "/v1/users", operation_id = "add_user", tag = "users",
    request_body = NewUserRequest, responses((status = 200, description = "done", body = NewPassword))
)]
pub(super) async fn add(state: &AdminState, request: NewUserRequest) -> Result<NewPassword, Refusal> {
    let wrong = |what: String| Refusal::new(Code::InvalidBody, what);
    let NewUserRequest { user, account, subject, scopes } = request;
    let scopes = Scope::parse(scopes.as_deref().unwrap_or_default());
    let scopes = scopes.map_err(|_| wrong("scopes: names separated by single spaces are expected".to_owned()))?;
    let added = move |config: &Config, file: &UsersFile| {
        let who = key_of(&user, account.as_deref());
        config.file_takes_users_of(who.account).map_err(wrong)?;
        let password = edit::random_password().map_err(of_edit)?;
        let subject = edit::add_user(file, who, subject.as_deref(), &scopes, &password, now()).map_err(of_edit)?;
        write_event(UserEvent::Added, who, Some(&subject), None);
        let account = who.account.map(str::to_owned);
        Ok(NewPassword { user: user.clone(), account, password, warning: config.unknown_scopes(&scopes) })
    };
    change(state, NOT_SHOWN, added).await
}

/// Gives a user of the users file a new password, as `rotogate user passwd` does. The gate chooses the password. All
/// sessions of the user end.
#[utoipa::path(
    post, path = "/v1/users/password", operation_id = "set_password", tag = "users",
    request_body = UserRequest, responses((status = 200, description = "done", body = NewPassword))
)]
pub(super) async fn set_password(state: &AdminState, request: UserRequest) -> Result<NewPassword, Refusal> {
    let set = move |_: &Config, file: &UsersFile| {
        let password = edit::random_password().map_err(of_edit)?;
        edit::set_password(file, request.key(), &password, now()).map_err(of_edit)?;
        write_event(UserEvent::Changed, request.key(), None, Some("password"));
        let account = request.key().account.map(str::to_owned);
        Ok(NewPassword { user: request.user.clone(), account, password, warning: None })
    };
    change(state, NOT_SHOWN, set).await
}

/// Disables a user of the users file, as `rotogate user disable` does. The user can no longer log in, and all sessions
/// of the user end. The response is sent when this is durable.
#[utoipa::path(
    post, path = "/v1/users/disable", operation_id = "disable_user", tag = "users",
    request_body = UserRequest, responses((status = 204, description = "done"))
)]
// Requirement O28.
pub(super) async fn disable(state: &AdminState, request: UserRequest) -> AdminResult {
    set_active(state, request, false).await
}

/// Lets a disabled user of the users file log in again, as `rotogate user enable` does. Ended sessions stay ended.
#[utoipa::path(
    post, path = "/v1/users/enable", operation_id = "enable_user", tag = "users",
    request_body = UserRequest, responses((status = 204, description = "done"))
)]
pub(super) async fn enable(state: &AdminState, request: UserRequest) -> AdminResult {
    set_active(state, request, true).await
}

async fn set_active(state: &AdminState, request: UserRequest, active: bool) -> AdminResult {
    let set = move |_: &Config, file: &UsersFile| {
        edit::set_active(file, request.key(), active, now()).map_err(of_edit)?;
        let event = if active { UserEvent::Enabled } else { UserEvent::Disabled };
        write_event(event, request.key(), None, None);
        Ok(())
    };
    change(state, "", set).await.map(|()| no_content())
}

/// What an error adds if a new password is in the file already.
const NOT_SHOWN: &str = ". The new password is not shown: set another password";

/// Edits the users file, and waits until the gate uses the change and the ended sessions are durable. If only the edit
/// succeeds, the error ends with `lost`.
async fn change<T: Send + 'static>(
    state: &AdminState,
    lost: &str,
    edit: impl FnOnce(&Config, &UsersFile) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let config = state.config.load_full();
    let change = move || {
        let file = config.users_file().map_err(|what| Refusal::new(Code::NotConfigured, what))?;
        edit(&config, &file)
    };
    let context = Context::current();
    // The audit log names the operator.
    let change = move || match context {
        Some(context) => context.enter(change),
        None => change(),
    };
    let changed = tokio::task::spawn_blocking(change).await;
    let changed = changed.map_err(|error| Refusal::new(Code::Internal, error.to_string()))??;
    let in_file = |mut refusal: Refusal| {
        let why = &refusal.detail;
        refusal.detail = format!("the users file was changed, but the gate does not use the change yet: {why}{lost}");
        refusal
    };
    read_again(state).await.map_err(in_file)?;
    Ok(changed)
}

fn now() -> Timestamp {
    SystemTime::new().wall()
}

fn write_event(event: UserEvent, who: UserKey<'_>, subject: Option<&str>, changed: Option<&str>) {
    let UserKey { account, username: name } = who;
    ChangedUser { event, name, account, subject, changed: changed.map(str::to_owned) }.write();
}

/// Sentences about users who are not in the users file, with code in backticks.
pub(super) fn elsewhere(state: &AdminState) -> Vec<String> {
    let config = state.config.load();
    if config.directories.is_empty() {
        let none = "This gate has no users of its own, because `directory.kind` is `none`. Its users come from other \
                    issuers, or log in at a provider.";
        return vec![none.to_owned()];
    }
    config.directories.iter().filter_map(|directory| place_of(directory, config.directories.len())).collect()
}

fn place_of(directory: &DirectoryConfig, directories: usize) -> Option<String> {
    let DirectoryConfig { key, name, accounts, users } = directory;
    let UsersConfig::Remote { source, .. } = users else { return None };
    let whose = match accounts {
        Some(accounts) => format!("The users of the accounts {}", accounts.join(", ")),
        None if directories > 1 => "All other users".to_owned(),
        None => "The users".to_owned(),
    };
    let system = match source.kind() {
        "ldap" => "the LDAP directory",
        "sql" => "the SQL database",
        _ => "the service of the login hook",
    };
    Some(format!("{whose} are in {system} `{name}` (`{key}` in the configuration). Add and disable them there."))
}

/// Whether the file cannot be changed at its place. Other errors may pass.
fn is_read_only(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    // The path is a link.
    let is_link = error.kind() == InvalidInput;
    is_link || matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | ResourceBusy)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn of_edit(error: EditError) -> Refusal {
    let code = match error {
        EditError::Unknown => Code::UnknownTarget,
        EditError::File(_) => Code::BrokenUsersFile,
        EditError::Io(ref error) if is_read_only(error) => Code::ReadOnlyUsers,
        EditError::Io(_) => Code::Internal,
        EditError::Password(_) => Code::Internal,
        EditError::Import(_) | EditError::TooMany { .. } | EditError::Exists(_) | EditError::Invalid(_) => {
            Code::InvalidBody
        }
    };
    Refusal::new(code, error.to_string())
}
