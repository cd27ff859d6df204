//! Users in LDAP or Active Directory. A login finds the user's entry, then binds with the submitted password.
//!
//! A bind changes the authenticated identity of a connection. Searches and binds therefore use separate pools
//! (requirement I26).

mod connection;
mod entry;
pub mod filter;
mod groups;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::{Object, Pool, PoolError};
use ldap3::{Scope as SearchScope, SearchEntry, SearchOptions};
use secrecy::{ExposeSecret, SecretString};

use super::servers::Servers;
use super::{Cause, Found, Login, LoginAttempt, Source, SourceError};
use connection::{LdapConnector, OPERATION_TIMEOUT, bind_password, code, describe, lost, refused};
use entry::{Entry, filetime, subject_value};
use filter::Filter;
pub use groups::{GroupSettings, GroupsBy};
use rotogate_core::claim::OwnClaims;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::directory::User;
use rotogate_core::password::MAX_PASSWORD;
use rotogate_core::session::Scope;
use rotogate_kit::upstream_tls::UpstreamTls;

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
const ANY: &str = "(objectClass=*)";
/// Requests no attributes (RFC 4511 §4.5.1.8).
const NO_ATTRIBUTES: &str = "1.1";

/// The settings of `[directory]` with `kind = "ldap"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapSettings {
    /// The server URLs, in the order in which they are tried.
    pub urls: Vec<String>,
    /// Whether `ldap://` connections start with StartTLS.
    pub starttls: bool,
    /// Whether connections without TLS are allowed.
    pub dangerous_plaintext: bool,
    /// The file with the accepted CA certificates. `None` means the system's.
    pub ca: Option<PathBuf>,
    /// The distinguished name and password file of the service account. `None` for anonymous searches.
    pub bind: Option<(String, PathBuf)>,
    /// The base of the search for users.
    pub base: String,
    /// The filter that finds the user by `{username}`.
    pub filter: Filter,
    /// Whether a domain at the start of a name is ignored, as in `EXAMPLE\ada`.
    pub strip_domain: bool,
    /// The attribute that contains the subject.
    pub subject: String,
    /// The filter for active users.
    pub active: Option<Filter>,
    /// The attribute for `sessions_valid_from`.
    pub valid_from: Option<String>,
    /// The attribute that contains the account.
    pub account: Option<String>,
    /// The scopes of every user.
    pub scopes: Scope,
    /// The names of the claims, each with its LDAP attribute.
    pub claims: BTreeMap<String, String>,
    /// Maps the profile fields for dialects to attributes.
    pub profile: BTreeMap<String, String>,
    /// How groups are found.
    pub groups: Option<GroupSettings>,
    /// The maximum number of connections in each of the two pools.
    pub pool: usize,
}

impl LdapSettings {
    /// The default of `pool`.
    pub const POOL: usize = 8;

    pub(super) fn claims(&self) -> Vec<&str> {
        let roles = self.groups.as_ref().filter(|groups| groups.roles).map(|_| OwnClaims::ROLES);
        self.claims.keys().map(String::as_str).chain(roles).collect()
    }

    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        let password = self.bind.as_ref().map(|(_, file)| ("bind_password_file", file.as_path()));
        password.into_iter().chain(self.ca.as_deref().map(|ca| ("ca", ca))).collect()
    }
}

/// An LDAP directory as a source of users.
pub struct LdapSource {
    settings: Arc<LdapSettings>,
    searching: Pool<LdapConnector>,
    binding: Pool<LdapConnector>,
    attributes: Vec<String>,
    time: SystemTime,
}

rotogate_core::debug_with!(LdapSource { settings.urls });

struct Search<'a> {
    base: &'a str,
    scope: SearchScope,
    filter: &'a str,
    attributes: &'a [String],
    /// More entries are a fault.
    most: usize,
}

impl LdapSource {
    /// Reads the files named in the settings, without connecting. `timeout` is the time limit of a request.
    ///
    /// # Errors
    /// Returns the invalid configuration key and a description of the problem.
    pub fn open(settings: &LdapSettings, timeout: Duration) -> Result<Self, (&'static str, String)> {
        let tls = UpstreamTls { ca: settings.ca.clone(), ..UpstreamTls::default() };
        let tls = Arc::new(tls.load().map_err(|bad| ("ca", bad.message))?);
        if let Some((_, file)) = &settings.bind {
            bind_password(file).map_err(|error| ("bind_password_file", error))?;
        }
        let settings = Arc::new(settings.clone());
        let size = settings.pool;
        let servers = Arc::new(Servers::new(settings.urls.len(), timeout));
        let pool = |binds| {
            let (settings, tls, servers) = (Arc::clone(&settings), Arc::clone(&tls), Arc::clone(&servers));
            Pool::builder(LdapConnector { settings, tls, servers, binds })
                .max_size(size)
                .runtime(deadpool::Runtime::Tokio1)
                .wait_timeout(Some(ACQUIRE_TIMEOUT))
                .build()
                .map_err(|error| ("pool", error.to_string()))
        };
        let of_groups = settings.groups.as_ref().and_then(GroupSettings::attribute);
        let single = [&settings.valid_from, &settings.account].into_iter().flatten().chain(of_groups);
        let mapped = settings.claims.values().chain(settings.profile.values());
        let attributes: BTreeSet<&String> = single.chain(mapped).chain([&settings.subject]).collect();
        Ok(Self {
            searching: pool(true)?,
            binding: pool(false)?,
            attributes: attributes.into_iter().cloned().collect(),
            settings: Arc::clone(&settings),
            time: SystemTime::new(),
        })
    }

    async fn connection(pool: &Pool<LdapConnector>) -> Result<Object<LdapConnector>, SourceError> {
        pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            other => SourceError::new(Cause::Timeout, other.to_string()),
        })
    }

    /// Referrals are skipped. If `may_be_absent` is set, a missing base gives an empty list.
    async fn search(&self, search: Search<'_>, may_be_absent: bool) -> Result<Vec<Entry>, SourceError> {
        let mut connection = Self::connection(&self.searching).await?;
        Self::search_on(&mut connection, search, may_be_absent).await
    }

    async fn search_on(
        connection: &mut Object<LdapConnector>,
        search: Search<'_>,
        may_be_absent: bool,
    ) -> Result<Vec<Entry>, SourceError> {
        connection.is_spoilt = true;
        let Search { base, scope, filter, attributes, most } = search;
        let limit = i32::try_from(most + 1).unwrap_or(i32::MAX);
        connection.ldap.with_timeout(OPERATION_TIMEOUT);
        connection.ldap.with_search_options(SearchOptions::new().sizelimit(limit));
        let started = connection.ldap.streaming_search(base, scope, filter, attributes.to_vec());
        let mut stream = started.await.map_err(|error| lost(&error))?;
        let mut entries = Vec::new();
        while let Some(entry) = stream.next().await.map_err(|error| lost(&error))? {
            // `construct` panics if the result is not an entry.
            if entry.is_ref() || entry.is_intermediate() {
                continue;
            }
            if entries.len() == most {
                let message = if most == 1 { "the search found more than one entry" } else { "too many groups" };
                return Err(SourceError::new(Cause::Entry, message));
            }
            entries.push(Entry(SearchEntry::construct(entry)));
        }
        let result = stream.finish().await;
        drop(stream);
        match result.rc {
            code::SUCCESS => {}
            code::NO_SUCH_OBJECT if may_be_absent => entries.clear(),
            code::SIZE_LIMIT_EXCEEDED => {
                return Err(SourceError::new(Cause::Entry, "the server returned only a part of the entries"));
            }
            _ => return Err(refused(&result, scope)),
        }
        connection.is_spoilt = false;
        Ok(entries)
    }

    async fn bind(&self, dn: &str, password: &SecretString) -> Result<bool, SourceError> {
        let mut connection = Self::connection(&self.binding).await?;
        connection.is_spoilt = true;
        connection.ldap.with_timeout(OPERATION_TIMEOUT);
        let result = connection.ldap.simple_bind(dn, password.expose_secret()).await.map_err(|error| lost(&error))?;
        let is_right = match result.rc {
            code::SUCCESS => true,
            // Servers use different codes for wrong passwords and locked entries. Different responses would reveal
            // which names exist (requirement I63).
            code::INVALID_CREDENTIALS
            | code::UNWILLING
            | code::INAPPROPRIATE_AUTHENTICATION
            | code::CONSTRAINT_VIOLATION
            | code::NO_SUCH_OBJECT => false,
            _ => {
                let message = format!("the server neither accepted nor rejected a bind: {}", describe(&result));
                let cause = match result.rc {
                    code::BUSY | code::UNAVAILABLE => Cause::Connect,
                    code::STRONGER_AUTH_REQUIRED | code::CONFIDENTIALITY_REQUIRED => Cause::Refused,
                    _ => Cause::Entry,
                };
                return Err(SourceError::new(cause, message));
            }
        };
        connection.is_spoilt = false;
        Ok(is_right)
    }

    fn active(&self) -> String {
        let now = || filetime(self.time.wall()).to_string();
        self.settings.active.as_ref().map_or_else(|| ANY.to_owned(), |filter| filter.for_value(&now()))
    }

    async fn user(&self, entry: &Entry) -> Result<User, SourceError> {
        let LdapSettings { subject, valid_from, account, scopes, claims, profile, groups, .. } = &*self.settings;
        let mut own = OwnClaims::new();
        let mut set = |name: &str, value: serde_json::Value| {
            own.insert(name, value).map_err(|error| SourceError::new(Cause::Entry, error.to_string()))
        };
        for (name, attribute) in claims {
            if let Some(value) = json(&entry.texts(attribute)?) {
                set(name, value)?;
            }
        }
        let mut granted = scopes.to_string();
        if let Some(groups) = groups {
            let names = self.groups_of(entry, groups).await?;
            for scope in names.iter().filter_map(|name| groups.scopes.get(name)) {
                granted.push(' ');
                granted.push_str(scope.as_str());
            }
            if groups.roles {
                set(OwnClaims::ROLES, names.into_iter().collect::<Vec<_>>().into())?;
            }
        }
        let granted = Scope::parse(granted.trim())
            .map_err(|_| SourceError::new(Cause::Entry, "the scopes of the user are too long in total"))?;
        let mut user = User::new(entry.subject(subject)?).scopes(granted).claims(own);
        if let Some(attribute) = valid_from {
            user = user.sessions_valid_from(entry.moment(attribute)?);
        }
        if let Some(attribute) = account
            && let Some(account) = entry.text(attribute)?
        {
            user = user.account(account);
        }
        for (name, attribute) in profile {
            if let Some(value) = json(&entry.texts(attribute)?) {
                user = user.field(name.as_str(), value);
            }
        }
        Ok(user)
    }
}

/// Several values become a list.
fn json(values: &[&str]) -> Option<serde_json::Value> {
    match values {
        [] => None,
        [only] => Some((*only).into()),
        [..] => Some(values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>().into()),
    }
}

#[async_trait]
impl Source for LdapSource {
    fn kind(&self) -> &'static str {
        "ldap"
    }

    async fn authenticate(&self, login: &LoginAttempt) -> Result<Login, SourceError> {
        let password = &login.password;
        let secret = password.expose_secret();
        // Servers accept a bind with an empty password (RFC 4513 §5.1.2). A server may also truncate a password at a
        // NUL byte.
        if secret.is_empty() || secret.contains('\0') || secret.len() > MAX_PASSWORD {
            return Ok(Login::Absent);
        }
        let settings = &*self.settings;
        let filter = settings.filter.for_value(self.significant(&login.username));
        let search = Search {
            base: &settings.base,
            scope: SearchScope::Subtree,
            filter: &filter,
            attributes: &[NO_ATTRIBUTES.to_owned()],
            most: 1,
        };
        let Some(found) = self.search(search, false).await?.pop() else {
            // An unknown name causes the same requests as a wrong password. The padding of refusals compensates for the
            // missing hash computation (requirement I49).
            return match self.bind(&format!("uid=rotogate-unknown-user,{}", settings.base), password).await {
                Err(error) if error.cause != Cause::Entry => Err(error),
                _ => Ok(Login::Absent),
            };
        };
        // A bind with an empty name would be anonymous and succeed with any password.
        if found.dn().is_empty() {
            return Err(SourceError::new(Cause::Entry, "the search found an entry without a name"));
        }
        if !self.bind(found.dn(), password).await? {
            return Ok(Login::Checked(None));
        }
        let active = self.active();
        let search = Search {
            base: found.dn(),
            scope: SearchScope::Base,
            filter: &active,
            attributes: &self.attributes,
            most: 1,
        };
        match self.search(search, true).await?.pop() {
            Some(entry) => Ok(Login::Checked(Some(self.user(&entry).await?))),
            None => Ok(Login::Checked(None)),
        }
    }

    fn significant<'a>(&self, username: &'a str) -> &'a str {
        match username.split_once('\\') {
            Some((_, name)) if self.settings.strip_domain => name,
            _ => username,
        }
    }

    fn has_collations(&self) -> bool {
        false
    }

    fn pads_refusals(&self) -> bool {
        true
    }

    async fn lookup(&self, _: Option<&str>, subject: &str) -> Result<Option<User>, SourceError> {
        let settings = &*self.settings;
        let Some(value) = subject_value(&settings.subject, subject) else { return Ok(None) };
        // Users must also match the login filter. Otherwise, users whom the filter excludes could still refresh tokens.
        let filter = format!("(&({}={value}){}{})", settings.subject, settings.filter.for_any(), self.active());
        let search = Search {
            base: &settings.base,
            scope: SearchScope::Subtree,
            filter: &filter,
            attributes: &self.attributes,
            most: 1,
        };
        match self.search(search, false).await?.pop() {
            Some(entry) => self.user(&entry).await.map(Some),
            None => Ok(None),
        }
    }

    fn close_idle(&self) {
        self.searching.retain(|_, _| false);
        self.binding.retain(|_, _| false);
    }

    async fn inspect(&self) -> Result<Found, SourceError> {
        let groups = self.settings.groups.as_ref().and_then(GroupSettings::base).map(|base| ("groups.base", base));
        let mut lines = Vec::new();
        for (key, base) in [("base", &self.settings.base)].into_iter().chain(groups) {
            let attributes = [NO_ATTRIBUTES.to_owned()];
            let search = Search { base, scope: SearchScope::Base, filter: ANY, attributes: &attributes, most: 1 };
            let found = self.search(search, false).await;
            let found = found.map_err(|error| SourceError::new(error.cause, format!("{key}: {error}")))?;
            if found.is_empty() {
                return Err(SourceError::new(
                    Cause::Answer,
                    format!("{key}: the account that the gate searches with cannot see this entry"),
                ));
            }
            lines.push(format!("{key}: {base}: found"));
        }
        Ok(Found { lines, lacks_account: self.settings.account.is_none().then_some("account") })
    }
}

#[cfg(test)]
mod tests;
