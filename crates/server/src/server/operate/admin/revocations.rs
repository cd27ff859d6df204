//! Lists revocations, and revokes sessions and tokens.

use std::time::Duration;

use rotogate::gate::Whose;
use rotogate::program::Tally;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::directory::User;
use rotogate_core::fault::Error;
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::Session;
use rotogate_core::store::Filter;
use rotogate_core::token::MAX_SESSIONLESS_LIFETIME;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Refusal};
use super::sessions::is_live;
use super::{AdminState, page_size, rfc3339, shown};
use rotogate_config::Config;

const MAX_PAGE: usize = 1000;

/// What to revoke. Exactly one of `user`, `subject`, `client`, `token`, `all`, and `account` without `user` must be
/// set.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevocationRequest {
    /// Every session of the user with this name in the users file.
    pub(crate) user: Option<String>,
    /// Every session of this account. With `user`, it is the user's account, which is needed if several accounts have a
    /// user with that name. It is empty for the user without an account.
    pub(crate) account: Option<String>,
    /// Every session of this subject, or every token that `issuer` has issued to this subject.
    pub(crate) subject: Option<String>,
    /// With `subject`, the name of another issuer in `[[issuers]]`.
    pub(crate) issuer: Option<String>,
    /// Every session and token of this client.
    pub(crate) client: Option<String>,
    /// One token without a session.
    pub(crate) token: Option<TokenName>,
    /// `true`: every session and token.
    pub(crate) all: Option<bool>,
    /// Whether to only count the sessions, without ending them.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Whether to revoke even if the target is unknown to the users, the clients and the store. It is always needed for
    /// a subject of another issuer, and for a token.
    #[serde(default)]
    pub(crate) force: bool,
}

/// A token without a session.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenName {
    /// The token's `jti`.
    pub(crate) jti: String,
    /// The name of the token's issuer in `[[issuers]]`. If absent, the gate is the issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
}

/// The sessions that a revocation ended, or would end.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct RevocationReport {
    /// The number of matching sessions, including sessions that had already ended.
    #[serde(default)]
    pub(crate) matched: u64,
    /// The number of sessions that were live until the revocation.
    pub(crate) ended: u64,
    /// Sessions created up to this time, and tokens issued up to it, are refused (RFC 3339). Absent if the target is a
    /// single token, or single sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<String>,
    /// Whether the gate only counted the sessions, without ending them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dry_run: bool,
}

impl RevocationReport {
    pub(super) fn of_one(ended: bool) -> Self {
        Self { matched: 1, ended: ended.into(), ..Self::default() }
    }
}

/// An entry of the revocation list. The audit log shows who made the entry.
#[derive(Serialize, ToSchema)]
struct Entry {
    /// `session`, `subject`, `client`, `token` or `all`.
    kind: &'static str,
    /// The target's id, subject, `client_id` or `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    /// The `iss` of the refused tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// Refuses sessions that were created, and tokens without a session that were issued, up to this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    /// The time when the last token that the entry can match has expired.
    until: String,
}

/// A page of the list.
#[derive(Serialize, ToSchema)]
pub(super) struct Entries {
    /// The entries, with the latest `until` first.
    revocations: Vec<Entry>,
    /// The number of all entries of this kind.
    total: usize,
}

/// The parameters that select entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EntriesQuery {
    /// `session`, `subject`, `client`, `token` or `all`.
    kind: Option<String>,
    /// The maximum number of entries.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// Lists the revocations that can still match a token.
#[utoipa::path(
    get, path = "/v1/revocations", operation_id = "list_revocations", tag = "revocations",
    params(EntriesQuery), responses((status = 200, description = "done", body = Entries))
)]
pub(super) async fn list(state: &AdminState, EntriesQuery { kind, limit }: EntriesQuery) -> Result<Entries, Refusal> {
    const KINDS: [&str; 5] = ["session", "subject", "client", "token", "all"];
    if let Some(kind) = kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
        let what = format!("kind: expected one of {}, found {}", KINDS.join(", "), shown(kind));
        return Err(Refusal::new(Code::InvalidParameter, what));
    }
    let limit = page_size(limit, MAX_PAGE)?;
    let mut all = state.gate.sessions().revocations().await.map_err(Refusal::of_store)?;
    // A rotation also raises the minimum generation of a session, but is not a revocation.
    all.retain(|entry| !matches!(entry.effect, Effect::Minimum { .. }) || entry.effect == Effect::SESSION_REVOKED);
    all.retain(|entry| kind.as_deref().is_none_or(|kind| entry_of(entry).kind == kind));
    all.sort_by(|a, b| b.until.cmp(&a.until).then_with(|| a.target.cmp(&b.target)));
    let revocations = all.iter().take(limit).map(entry_of).collect();
    Ok(Entries { revocations, total: all.len() })
}

fn entry_of(entry: &Revocation) -> Entry {
    let (kind, of, issuer) = match &entry.target {
        Target::Session(id) => ("session", Some(id.to_string()), None),
        Target::Subject { issuer, subject } => ("subject", Some(subject.to_string()), Some(issuer.to_string())),
        Target::Client { issuer, client } => ("client", Some(client.to_string()), Some(issuer.to_string())),
        Target::Token { issuer, jti } => ("token", Some(jti.to_string()), Some(issuer.to_string())),
        Target::Global => ("all", None, None),
    };
    let not_before = entry.effect.sessions_until().map(rfc3339);
    Entry { kind, of, issuer, not_before, until: rfc3339(entry.until) }
}

enum RevocationTarget {
    Subject(Box<str>),
    ForeignSubject { issuer: String, subject: String },
    Client(String),
    Account(String),
    Token { issuer: Option<String>, jti: String },
    Everyone,
}

/// Revokes the sessions and tokens of a target. They are refused from the next request on. The response is sent when
/// the revocation is durable.
#[utoipa::path(
    post, path = "/v1/revocations", operation_id = "revoke", tag = "revocations",
    request_body = RevocationRequest, responses((status = 200, description = "done", body = RevocationReport))
)]
pub(super) async fn revoke(state: &AdminState, request: RevocationRequest) -> Result<RevocationReport, Refusal> {
    let (dry_run, force) = (request.dry_run, request.force);
    let asked = asked(state, request)?;
    let config = state.config.load_full();
    let sessions = state.gate.sessions();
    let whose = match &asked {
        RevocationTarget::Subject(subject) => Whose::Subject(subject),
        RevocationTarget::Client(client) => Whose::Client(client),
        RevocationTarget::Everyone => Whose::Everyone,
        RevocationTarget::Account(account) => return of_account(state, account, dry_run).await,
        RevocationTarget::ForeignSubject { issuer, subject } => {
            let (url, lifetime) = foreign(&config, issuer)?;
            must_be_forced(force, &format!("the subject {} of {issuer}", shown(subject)))?;
            if !dry_run {
                sessions.revoke_foreign_subject(&url, subject, lifetime).await.map_err(Refusal::of_revocation)?;
            }
            return Ok(RevocationReport { dry_run, ..RevocationReport::default() });
        }
        RevocationTarget::Token { issuer, jti } => {
            let (url, lifetime) = match issuer {
                Some(issuer) => foreign(&config, issuer)?,
                None => (config.issuer.url.clone(), MAX_SESSIONLESS_LIFETIME),
            };
            must_be_forced(force, &format!("the token {}", shown(jti)))?;
            if !dry_run {
                let until = SystemTime::new().wall().plus(lifetime);
                sessions.revoke_token(&url, jti, until).await.map_err(Refusal::of_revocation)?;
            }
            return Ok(RevocationReport { dry_run, ..RevocationReport::default() });
        }
    };
    if !force && let Some(what) = unknown(state, whose).await.map_err(Refusal::of_store)? {
        return Err(Refusal::new(Code::UnknownTarget, what));
    }
    let Tally { matched, ended, not_before } = match dry_run {
        true => sessions.count(whose).await.map_err(Refusal::of_store)?,
        false => sessions.revoke_counted(whose).await.map_err(Refusal::of_revocation)?,
    };
    let not_before = (!dry_run).then(|| rfc3339(not_before));
    Ok(RevocationReport { matched, ended, not_before, dry_run })
}

fn asked(state: &AdminState, request: RevocationRequest) -> Result<RevocationTarget, Refusal> {
    let RevocationRequest { user, account, subject, issuer, client, token, all, dry_run: _, force: _ } = request;
    let wrong = |what: &str| Err(Refusal::new(Code::InvalidBody, what));
    // With `user`, `account` may be empty.
    let account_alone = account.as_ref().filter(|_| user.is_none()).cloned();
    let texts = [&user, &account_alone, &subject, &issuer, &client];
    if texts.into_iter().flatten().any(String::is_empty) || token.as_ref().is_some_and(|token| token.jti.is_empty()) {
        return wrong("a field of the request is empty");
    }
    match (user, account, subject, issuer, client, token, all) {
        (Some(user), account, None, None, None, None, None) => {
            subject_of(state, &user, account.as_deref()).map(RevocationTarget::Subject)
        }
        (None, Some(account), None, None, None, None, None) => Ok(RevocationTarget::Account(account)),
        (None, None, Some(subject), None, None, None, None) => Ok(RevocationTarget::Subject(subject.into())),
        (None, None, Some(subject), Some(issuer), None, None, None) => {
            Ok(RevocationTarget::ForeignSubject { issuer, subject })
        }
        (None, None, None, None, Some(client), None, None) => Ok(RevocationTarget::Client(client)),
        (None, None, None, None, None, Some(TokenName { jti, issuer }), None) => {
            Ok(RevocationTarget::Token { issuer, jti })
        }
        (None, None, None, None, None, None, Some(true)) => Ok(RevocationTarget::Everyone),
        _ => wrong(
            "exactly one of \"user\", \"subject\", \"client\", \"account\", \"token\" and \"all\": true is expected; \
             \"account\" may go with \"user\", and \"issuer\" with \"subject\"",
        ),
    }
}

/// Refuses a target that this gate cannot look up, unless `force` is set.
fn must_be_forced(force: bool, what: &str) -> Result<(), Refusal> {
    match force {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::UnknownTarget,
            format!("the gate cannot check whether {what} exists; to revoke it anyway, send \"force\": true"),
        )),
    }
}

/// Returns another issuer's `iss`, and the maximum lifetime of that issuer's tokens.
fn foreign(config: &Config, name: &str) -> Result<(String, Duration), Refusal> {
    let issuer = config.issuers.iter().find(|issuer| issuer.name == name);
    let issuer = issuer.ok_or_else(|| {
        Refusal::new(Code::UnknownTarget, format!("no `[[issuers]]` entry has the name {}", shown(name)))
    })?;
    Ok((issuer.url.clone(), issuer.max_lifetime))
}

/// Ends each session of an account. A revocation by subject could miss sessions, because subjects may move between
/// accounts.
async fn of_account(state: &AdminState, account: &str, dry_run: bool) -> Result<RevocationReport, Refusal> {
    let sessions = state.gate.sessions();
    let mut report = RevocationReport { dry_run, ..RevocationReport::default() };
    let mut after = None;
    loop {
        let page = sessions.list(Filter::All, after, MAX_PAGE).await.map_err(Refusal::of_store)?;
        for session in page.sessions.iter().filter(|session| session.account.as_deref() == Some(account)) {
            report.matched += 1;
            let lives = is_live(&sessions, session);
            report.ended += u64::from(match dry_run {
                true => lives,
                false => lives && end(state, session).await?,
            });
        }
        match page.next {
            Some(next) => after = Some(next),
            None if report.matched == 0 => {
                let what = format!("no session belongs to the account {}", shown(account));
                return Err(Refusal::new(Code::UnknownTarget, what));
            }
            None => return Ok(report),
        }
    }
}

async fn end(state: &AdminState, session: &Session) -> Result<bool, Refusal> {
    let sessions = state.gate.sessions();
    let was_live = is_live(&sessions, session);
    Ok(sessions.revoke(session.id).await.map_err(Refusal::of_revocation)? && was_live)
}

/// Selects the user without an account if several users have the same name.
const NO_ACCOUNT: &str = "none";

pub(super) fn subject_of(state: &AdminState, user: &str, account: Option<&str>) -> Result<Box<str>, Refusal> {
    let asked = shown(user);
    let Some(users) = state.users.as_ref().map(|users| users.directory()) else {
        let what = format!("the users are not in a file, so the gate cannot look up the name {asked}; use --subject");
        return Err(Refusal::new(Code::NotConfigured, what));
    };
    // Requirement O38.
    let mut found = match account {
        None => users.named(None, user),
        Some("") => users.named(Some(None), user),
        Some(account) => users.named(Some(Some(account)), user),
    };
    // `none` means no account, unless an account has this name.
    if found.is_empty() && account == Some(NO_ACCOUNT) {
        found = users.named(Some(None), user);
    }
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only.subject),
        (Some(one), Some(other)) => {
            let named = |user: &User| user.account.as_deref().unwrap_or(NO_ACCOUNT).to_owned();
            let accounts = [&one, &other].into_iter().chain(&found).map(named).collect::<Vec<_>>().join(", ");
            let what = format!("several accounts have a user {asked}: {accounts}; choose one with --account");
            Err(Refusal::new(Code::AmbiguousUser, what))
        }
        (None, _) => {
            let mut what = format!("no user has the name {asked}");
            if let Some((_, name)) = users.user_of(user) {
                let name = shown(&name);
                what.push_str(&format!(", but it is the subject of {name}: use --user {name} or --subject {asked}"));
            }
            Err(Refusal::new(Code::UnknownTarget, what))
        }
    }
}

/// Returns an error message for an unknown target.
async fn unknown(state: &AdminState, whose: Whose<'_>) -> Result<Option<String>, Error> {
    let sessions = state.gate.sessions();
    match whose {
        Whose::Everyone => Ok(None),
        Whose::Subject(subject) => {
            // The user may exist in another system.
            let Some(users) = state.users.as_ref().map(|users| users.directory()) else { return Ok(None) };
            if users.user_of(subject).is_some() || sessions.has_any(whose).await? {
                return Ok(None);
            }
            let asked = shown(subject);
            let mut what = format!("no user, session or token has the subject {asked}");
            if let [user] = users.named(None, subject).as_slice() {
                what.push_str(&format!(
                    ", but a user with this name has the subject {}: use --user {asked}",
                    user.subject
                ));
            }
            Ok(Some(what))
        }
        Whose::Client(client) => {
            if state.gate.has_client(client) || sessions.has_any(whose).await? {
                return Ok(None);
            }
            Ok(Some(format!("no client, session or token has the client_id {}", shown(client))))
        }
        // Other kinds of targets cannot be looked up.
        _ => Ok(None),
    }
}
