//! Operations that list, create, replace and revoke API keys, and report leaked ones.

use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Refusal};
use super::revocations::subject_of;
use super::{AdminState, page_size, rfc3339, shown};
use rotogate::gate::{ApiKey, GateApiKeys, KeyRefusal, NewApiKey};
use rotogate_core::fault::Error;
use rotogate_core::session::Scope;
use rotogate_core::token::claims::CLIENT_PREFIX;

const MAX_PAGE_KEYS: usize = 200;
const MAX_REPORTED: usize = 500;

/// An API key as an operator sees it. Times are in RFC 3339.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ApiKeyInfo {
    /// The id of the API key. A request with the API key has this id as `jti`, and `key:<id>` as client.
    pub(crate) id: String,
    /// The name of the API key.
    pub(crate) name: String,
    /// The owner of the API key: a user's `sub`, or `client:` followed by the client's id.
    pub(crate) subject: String,
    /// The owner's account, if any.
    pub(crate) account: Option<String>,
    /// The scopes of requests with the API key. A request gets only those of them that the owner still has.
    pub(crate) scopes: String,
    /// The only audience of the API key. `null` for the gate's audience.
    pub(crate) audience: Option<String>,
    /// The networks from which the API key is accepted. Empty for all networks.
    pub(crate) networks: Vec<String>,
    /// `live`, `expired` or `revoked`.
    pub(crate) status: String,
    /// When the API key was created.
    pub(crate) created: String,
    /// When the API key expires.
    pub(crate) expires: String,
    /// When the API key was last used, accurate to an hour.
    pub(crate) last_used: Option<String>,
    /// The id of the API key that replaces this one.
    pub(crate) successor: Option<String>,
}

/// A new API key with its secret. Later responses do not contain the secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct NewKeyAnswer {
    /// The key.
    pub(crate) key: String,
    #[serde(flatten)]
    pub(crate) info: ApiKeyInfo,
}

/// The properties of a new API key. Exactly one of `user`, `subject` and `client` names the owner.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ApiKeyRequest {
    /// The name of the API key, with 1 to 100 characters.
    pub(crate) name: String,
    /// The name of a user in the users file.
    pub(crate) user: Option<String>,
    /// The account of the user or subject.
    pub(crate) account: Option<String>,
    /// The `sub` of a user.
    pub(crate) subject: Option<String>,
    /// The id of a confidential client.
    pub(crate) client: Option<String>,
    /// Scopes, separated by spaces. If absent, the API key gets all scopes of the owner.
    pub(crate) scopes: Option<String>,
    /// The only audience of the key.
    pub(crate) audience: Option<String>,
    /// The networks from which the key is accepted.
    pub(crate) networks: Vec<String>,
    /// How long the API key is valid, such as `90d`.
    pub(crate) lifetime: Option<String>,
}

/// How an API key is replaced.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RotateKeyRequest {
    /// How long the old API key stays valid, such as `1d`. `0s` revokes it at once. The default and maximum is `7d`.
    pub(crate) overlap: Option<String>,
}

/// Strings that were found in places where API keys should not be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeakReport {
    /// The strings, at most 500.
    pub(crate) keys: Vec<String>,
}

/// The result of a report of leaked keys.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct LeakAnswer {
    /// The number of this gate's live API keys among the strings. They are now revoked.
    pub(crate) revoked: usize,
}

/// Which API keys to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeysQuery {
    /// Only the live API keys of this subject. The subject of a client is `client:` followed by the client's id.
    pub(super) subject: Option<String>,
    /// The `next` of the previous page.
    pub(super) cursor: Option<String>,
    /// The maximum number of API keys on the page, up to 200.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 200)]
    pub(super) limit: Option<String>,
}

/// A page of API keys.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct KeysPage {
    /// The API keys, in any order.
    pub(crate) keys: Vec<ApiKeyInfo>,
    /// The `cursor` of the next page; `null` at the end.
    pub(crate) next: Option<String>,
}

fn keys(state: &AdminState) -> Result<GateApiKeys, Refusal> {
    let none = || {
        Refusal::new(Code::NotConfigured, "API keys are not enabled: add a section `[api_keys]` to the configuration")
    };
    state.gate.api_keys().ok_or_else(none)
}

fn info(state: &AdminState, key: &ApiKey) -> ApiKeyInfo {
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    let status = match key.revoked {
        None if state.gate.api_keys().is_some_and(|keys| keys.is_in_force(key)) => "live",
        None if !key.is_live(state.gate.sessions().now()) => "expired",
        Some(_) | None => "revoked",
    };
    ApiKeyInfo {
        id: key.id.to_string(),
        name: key.name.to_string(),
        subject: key.subject.to_string(),
        account: text(&key.account),
        scopes: key.scopes.to_string(),
        audience: text(&key.audience),
        networks: key.networks.iter().map(ToString::to_string).collect(),
        status: status.to_owned(),
        created: rfc3339(key.created),
        expires: rfc3339(key.expires),
        last_used: key.last_used.map(rfc3339),
        successor: text(&key.successor),
    }
}

/// Returns up to `most` live API keys, the newest first, and whether there are more. Without an owner, returns the keys
/// from a single scan.
pub(super) async fn newest(
    state: &AdminState,
    subject: Option<&str>,
    most: usize,
) -> Result<(Vec<ApiKeyInfo>, bool), Refusal> {
    let keys = keys(state)?;
    let (mut found, is_more) = match subject {
        Some(subject) => (keys.of_owner(subject).await.map_err(Refusal::of_store)?, false),
        None => {
            let page = keys.list(None, usize::MAX).await.map_err(Refusal::of_store)?;
            (page.keys, page.next.is_some())
        }
    };
    found.sort_by_key(|key| std::cmp::Reverse(key.created));
    let is_more = is_more || found.len() > most;
    Ok((found.iter().take(most).map(|key| info(state, key)).collect(), is_more))
}

/// Lists the API keys, or the live API keys of one owner.
#[utoipa::path(
    get, path = "/v1/api-keys", operation_id = "list_api_keys", tag = "api keys",
    params(KeysQuery), responses((status = 200, description = "done", body = KeysPage))
)]
pub(super) async fn list(state: &AdminState, query: KeysQuery) -> Result<KeysPage, Refusal> {
    let KeysQuery { subject, cursor, limit } = query;
    let keys = keys(state)?;
    let limit = page_size(limit, MAX_PAGE_KEYS)?;
    let (found, next) = match subject {
        Some(subject) => (keys.of_owner(&subject).await.map_err(Refusal::of_store)?, None),
        None => {
            let page = keys.list(cursor.as_deref(), limit).await.map_err(|error| match error {
                Error::Denied(denial) => Refusal::new(Code::InvalidParameter, denial.detail().unwrap_or_default()),
                error @ Error::Failed(_) => Refusal::of_store(error),
            })?;
            (page.keys, page.next)
        }
    };
    let keys = found.iter().map(|key| info(state, key)).collect();
    Ok(KeysPage { keys, next: next.map(Into::into) })
}

/// Creates an API key for a user or a client. Only this response contains the secret.
#[utoipa::path(
    post, path = "/v1/api-keys", operation_id = "create_api_key", tag = "api keys",
    request_body = ApiKeyRequest, responses((status = 200, description = "done", body = NewKeyAnswer))
)]
// Requirement K8.
pub(super) async fn create(state: &AdminState, request: ApiKeyRequest) -> Result<NewKeyAnswer, Refusal> {
    let keys = keys(state)?;
    let ApiKeyRequest { name, user, account, subject, client, scopes, audience, networks, lifetime } = request;
    let subject = match (user, subject, client) {
        (Some(user), None, None) => subject_of(state, &user, account.as_deref())?.into(),
        (None, Some(subject), None) => subject,
        (None, None, Some(client)) => format!("{CLIENT_PREFIX}{client}"),
        _ => return Err(wrong("exactly one of \"user\", \"subject\" and \"client\" is expected")),
    };
    let scopes = scopes.map(|text| Scope::parse(&text)).transpose();
    let networks = networks.iter().map(|text| text.parse::<IpNet>()).collect::<Result<_, _>>();
    let new = NewApiKey {
        name,
        subject,
        account: account.filter(|account| !account.is_empty()),
        scopes: scopes.map_err(|_| wrong("scopes: names separated by single spaces are expected"))?,
        audience,
        networks: networks.map_err(|_| wrong("networks: networks such as 10.0.0.0/8 are expected"))?,
        lifetime: duration("lifetime", lifetime.as_deref())?,
    };
    answer_of(state, keys.create(new).await.map_err(Refusal::of_store)?)
}

/// Replaces an API key with a new one that has the same owner, scopes, audience and networks. The old API key stays
/// valid for the overlap.
#[utoipa::path(
    post, path = "/v1/api-keys/{id}/rotate", operation_id = "rotate_api_key", tag = "api keys",
    params(("id" = String, Path, description = "the id of the API key")),
    request_body = RotateKeyRequest, responses((status = 200, description = "done", body = NewKeyAnswer))
)]
pub(super) async fn rotate(state: &AdminState, id: &str, request: RotateKeyRequest) -> Result<NewKeyAnswer, Refusal> {
    let RotateKeyRequest { overlap } = request;
    let overlap = duration("overlap", overlap.as_deref())?;
    let made = keys(state)?.rotate(id, overlap).await.map_err(Refusal::of_store)?;
    answer_of(state, made.ok_or_else(|| unknown(id))?)
}

/// Revokes an API key. Every gate refuses it from the next request on. The response is sent when the revocation is
/// durable.
#[utoipa::path(
    post, path = "/v1/api-keys/{id}/revoke", operation_id = "revoke_api_key", tag = "api keys",
    params(("id" = String, Path, description = "the id of the API key")),
    responses((status = 200, description = "done", body = ApiKeyInfo))
)]
pub(super) async fn revoke(state: &AdminState, id: &str) -> Result<ApiKeyInfo, Refusal> {
    let revoked = keys(state)?.revoke(id).await.map_err(Refusal::of_revocation)?;
    Ok(info(state, &revoked.ok_or_else(|| unknown(id))?))
}

/// Revokes this gate's live API keys among the reported strings, and returns their number. It is meant for scanners
/// that look for leaked API keys in repositories. The audit log names the API keys.
#[utoipa::path(
    post, path = "/v1/api-keys/leaked", operation_id = "report_leaked_api_keys", tag = "api keys",
    request_body = LeakReport, responses((status = 200, description = "done", body = LeakAnswer))
)]
// Requirement K14.
pub(super) async fn leaked(state: &AdminState, report: LeakReport) -> Result<LeakAnswer, Refusal> {
    if report.keys.len() > MAX_REPORTED {
        return Err(wrong("a report must not have more than 500 keys"));
    }
    let texts: Vec<_> = report.keys.into_iter().map(SecretString::from).collect();
    let (revoked, done) = keys(state)?.leaked(&texts).await;
    done.map_err(|error| {
        let mut refusal = Refusal::of_revocation(error);
        refusal.detail = format!("{revoked} keys are revoked; {}", refusal.detail);
        refusal
    })?;
    Ok(LeakAnswer { revoked })
}

fn answer_of(state: &AdminState, made: Result<(SecretString, ApiKey), KeyRefusal>) -> Result<NewKeyAnswer, Refusal> {
    let (text, key) = made.map_err(|refusal| {
        let code = if refusal == KeyRefusal::Owner { Code::UnknownTarget } else { Code::InvalidBody };
        Refusal::new(code, refusal.to_string())
    })?;
    Ok(NewKeyAnswer { key: text.expose_secret().to_owned(), info: info(state, &key) })
}

fn duration(name: &str, text: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let parsed = text.map(humantime::parse_duration).transpose();
    parsed.map_err(|_| wrong(format!("{name}: a duration such as \"90d\" is expected")))
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(Code::UnknownTarget, format!("there is no API key {}", shown(id)))
}

fn wrong(what: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidBody, what)
}
