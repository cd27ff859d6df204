//! `[[endpoints]]`.

use std::time::Duration;

use http::StatusCode;
use toml::{Table, Value};

#[cfg(test)]
use super::super::declare::Key;
use super::super::declare::section;
use super::super::print::{Print, Put, put};
use super::super::value;
#[cfg(feature = "relay")]
use super::RelaySettings;
use super::listeners;
use super::sessions::{put_override, read_override};
use super::{ClientConfig, DAY, SECOND, dangling};
use rotogate::dialect::{self, envelope::Envelope, kuzzle::Kuzzle, my_sessions::MySessions};
use rotogate::gate::ACCESS_COOKIE;
use rotogate_core::engine::APPLICATION;
use rotogate_core::session::profile::ProfileOverride;
use rotogate_core::token::verify::is_subject;
use rotogate_kit::config::{Section, Value as Raw};

/// `[[endpoints]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Its protocol.
    pub dialect: &'static str,
    /// The path of its token endpoint; may contain `{account}`.
    pub path: String,
    /// The rules that it overrides.
    pub profile: ProfileOverride,
    /// The ids of the clients that may use it. `None`: all.
    pub clients: Option<Vec<String>>,
    /// The client of its sessions, if the protocol names none. `None`: the dialect's own.
    pub client: Option<String>,
    /// Further dialects whose sessions it accepts.
    pub accepts: Vec<&'static str>,
    /// Its only account. `None`: the one in the path, or any.
    pub account: Option<String>,
    /// The listeners that serve it. Empty: all.
    pub listeners: Vec<Box<str>>,
    /// The options of its dialect.
    pub options: rotogate::dialect::Options,
    /// The provider behind it.
    #[cfg(feature = "relay")]
    pub relay: Option<RelaySettings>,
}

impl EndpointConfig {
    /// Can a login here be for an account?
    pub(crate) fn may_have_account(&self) -> bool {
        self.account.is_some() || self.path.contains("{account}")
    }

    /// The issuer of the access tokens that it relays, if it names one.
    pub(super) fn relayed_issuer(&self) -> Option<&str> {
        #[cfg(feature = "relay")]
        let issuer = self.relay.as_ref().and_then(|relay| relay.issuer.as_deref());
        #[cfg(not(feature = "relay"))]
        let issuer = None;
        issuer
    }
}

/// The other sections that an endpoint refers to.
pub(super) struct Surroundings<'a> {
    #[cfg(feature = "relay")]
    pub(super) dir: &'a std::path::Path,
    pub(super) clients: &'a [ClientConfig],
    /// The listeners that have a name.
    pub(super) listeners: &'a [&'a str],
    #[cfg(feature = "relay")]
    pub(super) issuers: &'a [super::TrustedIssuer],
    pub(super) is_https: bool,
}

#[cfg(feature = "relay")]
const RELAY: &str = dialect::relay::NAME;
#[cfg(not(feature = "relay"))]
const RELAY: &str = "relay";

/// The features of the dialects that not every build has.
const FEATURES: [(&str, &str); 2] = [("knox", "grpc"), (RELAY, "relay")];

fn accepted_dialect(v: &Raw) -> Result<&'static str, String> {
    let known: Vec<_> =
        rotogate::program::NAMES.iter().copied().chain([APPLICATION]).map(|name| (name, name)).collect();
    value::word_of_build(&known, &FEATURES[..1])(v)
}

pub(super) fn dialect_name(v: &Raw) -> Result<&'static str, String> {
    let known: Vec<_> = rotogate::program::NAMES.iter().map(|name| (*name, *name)).collect();
    value::word_of_build(&known, &FEATURES[..1])(v)
}

/// The dialect of an endpoint: besides those that begin sessions, a user's own sessions and the relay.
fn endpoint_dialect(v: &Raw) -> Result<&'static str, String> {
    let relay = cfg!(feature = "relay").then_some(RELAY);
    let further = [dialect::my_sessions::NAME].into_iter().chain(relay);
    let known: Vec<_> = rotogate::program::NAMES.iter().copied().chain(further).map(|name| (name, name)).collect();
    value::word_of_build(&known, &FEATURES)(v)
}

pub(super) fn read(sections: &[Section<'_>], surroundings: &Surroundings<'_>) -> Vec<EndpointConfig> {
    let Surroundings { clients, is_https, .. } = *surroundings;
    let known: Vec<&str> = clients.iter().map(|client| &*client.id).collect();
    let mut endpoints: Vec<EndpointConfig> = Vec::new();
    for section in sections {
        let dialect = match section.has("dialect") {
            true => section.kind("dialect", endpoint_dialect),
            false => section.require("dialect", "\"oauth2\"", endpoint_dialect),
        };
        #[cfg(feature = "relay")]
        if dialect == Some(RELAY) {
            let endpoint = read_relay(section, surroundings);
            blame_path(section, &endpoint.path, &endpoints);
            endpoints.push(endpoint);
            section.finish();
            continue;
        }
        if dialect == Some(dialect::my_sessions::NAME) {
            let endpoint = read_my_sessions(section, surroundings);
            blame_path(section, &endpoint.path, &endpoints);
            endpoints.push(endpoint);
            section.finish();
            continue;
        }
        let path = if dialect == Some(dialect::kuzzle::NAME) {
            // The prefix of its routes; none by default.
            Some(section.get("path", kuzzle_prefix).unwrap_or_else(|| "/".to_owned()))
        } else {
            section.get("path", endpoint_path).or_else(|| {
                let path = rotogate::program::by_name(dialect?, &dialect::Options::default())?.default_path();
                (!section.has("path")).then(|| path.to_owned())
            })
        };
        let path = path.unwrap_or_default();
        let dialect = dialect.unwrap_or(dialect::oauth2::NAME);
        if dialect != dialect::kuzzle::NAME {
            section.later(&["cookie"]);
        }
        blame_path(section, &path, &endpoints);
        if section.has("account") && path.contains("{account}") {
            section.blame("account", "conflicts with {account} in path; remove one of the two");
        }
        let ids = section.indexed("clients", value::text);
        for (index, id) in ids.iter().flatten() {
            if !known.contains(&id.as_str()) {
                section.blame_element("clients", *index, dangling("client", id, &known));
            }
        }
        let options = dialect::Options {
            envelope: match dialect {
                dialect::envelope::NAME => read_envelope(section, &Envelope::default()),
                _ => Envelope::default(),
            },
            kuzzle: read_kuzzle(section, dialect, is_https),
            ..dialect::Options::default()
        };
        // The dialect's routes use the cookie of its first endpoint.
        let is_other = |other: &EndpointConfig| other.options.kuzzle.host_cookie != options.kuzzle.host_cookie;
        if dialect == dialect::kuzzle::NAME && endpoints.iter().any(|other| other.dialect == dialect && is_other(other))
        {
            section.blame("cookie", "differs from that of another kuzzle endpoint; all of them share one");
        }
        endpoints.push(EndpointConfig {
            dialect,
            path,
            profile: read_override(section),
            clients: ids.map(|ids| ids.into_iter().map(|(_, id)| id).collect()),
            client: endpoint_client(section, dialect, clients),
            accepts: accepts(section, dialect),
            account: section.get("account", account),
            listeners: listeners::bound_to(section, surroundings.listeners),
            options,
            #[cfg(feature = "relay")]
            relay: None,
        });
        section.finish();
    }
    endpoints
}

fn blame_path(section: &Section<'_>, path: &str, others: &[EndpointConfig]) {
    if !path.is_empty() && others.iter().any(|other| other.path == path) {
        section.blame("path", format!("{path} is listed twice; give one of the two another path"));
    }
}

section! {
    impl MySessions, read by read_my_sessions_keys(section, default: &MySessions) {
        /// How old the access token of a request that ends sessions may be; 24h at most.
        reload max_age: Duration = get_or(value::duration_within(SECOND, DAY), default.max_age),
        /// true: the access token must have the scope `sessions`.
        reload needs_scope: bool = get_or(value::boolean, default.needs_scope),
        /// The cookie of the access token in a browser: `"__Host-access"`, `"authToken"` or `"__Host-authToken"`.
        reload cookie: &'static str = get_or(value::word(&COOKIES, &[]), default.cookie),
    }
}

const COOKIES: [(&str, &str); 3] = [
    (ACCESS_COOKIE, ACCESS_COOKIE),
    (dialect::kuzzle::COOKIE, dialect::kuzzle::COOKIE),
    (dialect::kuzzle::HOST_COOKIE, dialect::kuzzle::HOST_COOKIE),
];

/// An endpoint that begins no session: the keys for that are unknown.
fn read_my_sessions(section: &Section<'_>, surroundings: &Surroundings<'_>) -> EndpointConfig {
    let default = MySessions::default();
    let path = section.get("path", endpoint_path);
    let path = path.unwrap_or_else(|| dialect::Dialect::default_path(&default).to_owned());
    let account_of_path = path.contains("{account}");
    let account = section.get("account", account);
    if account.is_some() && account_of_path {
        section.blame("account", "conflicts with {account} in path; remove one of the two");
    }
    let my_sessions = read_my_sessions_keys(section, &default);
    EndpointConfig {
        dialect: dialect::my_sessions::NAME,
        path,
        profile: ProfileOverride::default(),
        clients: None,
        client: None,
        accepts: Vec::new(),
        account,
        listeners: listeners::bound_to(section, surroundings.listeners),
        options: dialect::Options { my_sessions, ..dialect::Options::default() },
        #[cfg(feature = "relay")]
        relay: None,
    }
}

/// An endpoint without sessions, users and clients of ours: the keys for them are unknown.
#[cfg(feature = "relay")]
fn read_relay(section: &Section<'_>, surroundings: &Surroundings<'_>) -> EndpointConfig {
    let wire = super::relay::wire(section);
    let default = dialect::relay::RelayDialect { wire, ..Default::default() };
    let path = section.get("path", endpoint_path);
    let path = path.unwrap_or_else(|| dialect::Dialect::default_path(&default).to_owned());
    if path.contains('{') {
        section.blame("path", "expected a path without parameters: a provider has no {account}");
    }
    EndpointConfig {
        dialect: RELAY,
        profile: ProfileOverride::default(),
        clients: None,
        client: None,
        accepts: Vec::new(),
        account: None,
        listeners: listeners::bound_to(section, surroundings.listeners),
        options: dialect::Options::default(),
        relay: Some(super::relay::read(section, surroundings.dir, surroundings.issuers, wire, &path)),
        path,
    }
}

/// `client`, for a dialect whose protocol names none. For another dialect the key is unknown.
fn endpoint_client(section: &Section<'_>, dialect: &str, clients: &[ClientConfig]) -> Option<String> {
    let default = rotogate::program::by_name(dialect, &dialect::Options::default())?.client()?;
    let named = section.get("client", value::text);
    let id = named.as_deref().unwrap_or(default);
    match (clients.iter().find(|client| *client.id == *id), &named) {
        (None, Some(id)) => {
            let known: Vec<&str> = clients.iter().map(|client| &*client.id).collect();
            section.blame("client", dangling("client", id, &known));
        }
        (Some(client), Some(_)) if client.secret_hash.is_some() => {
            section.blame("client", "is confidential, and this protocol cannot carry its secret; name a public one");
        }
        (Some(client), None) if client.secret_hash.is_some() => {
            let message = format!(
                "missing, so its sessions are those of the client \"{default}\", which [[clients]] makes confidential, and \
                 this protocol cannot carry its secret; name a public one"
            );
            section.blame("client", message);
        }
        (Some(_) | None, _) => {}
    }
    named
}

/// `accepts`. Only sessions of protocols without refresh tokens can be refreshed by an access token.
fn accepts(section: &Section<'_>, dialect: &str) -> Vec<&'static str> {
    let by_access = |name: &str| {
        rotogate::program::by_name(name, &dialect::Options::default())
            .is_some_and(|dialect| dialect.refreshes_by_access())
    };
    let accepted = section.indexed("accepts", accepted_dialect).unwrap_or_default();
    for (index, name) in accepted.iter().filter(|(_, name)| by_access(dialect) && !by_access(name)) {
        let message = format!(
            "\"{name}\" has refresh tokens, and \"{dialect}\" exchanges access tokens only: none of its sessions could \
             continue here. Remove it, or let the endpoint of \"{name}\" serve these clients"
        );
        section.blame_element("accepts", *index, message);
    }
    accepted.into_iter().map(|(_, name)| name).collect()
}

/// An account, as in users.toml.
fn account(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(s) | Raw::Env(s) if is_subject(s) && !s.contains('/') => Ok(s.clone()),
        other => Err(format!("expected 1 to 256 visible ASCII characters, none of them /, found {}", other.describe())),
    }
}

section! {
    impl Envelope, read by read_envelope(section, default: &Envelope) {
        /// How long ago the access token of a refresh may have expired; 7d at most.
        reload expired_for_at_most as "allow_expired_access_token": Duration = get_or(
            value::duration_within(Duration::ZERO, 7 * DAY),
            default.expired_for_at_most
        ),
        /// The status of refused credentials and tokens: 401, or 200 for clients that read only `errorCode`.
        reload failure_status: StatusCode = get_or(failure_status, default.failure_status),
    }
    with {
        /// The public client of these sessions: the protocol names none. Default: `"envelope"`.
        reload client: text,
    }
}

fn failure_status(v: &Raw) -> Result<StatusCode, String> {
    match value::count(200, 401)(v) {
        Ok(200) => Ok(StatusCode::OK),
        Ok(401) => Ok(StatusCode::UNAUTHORIZED),
        Ok(_) | Err(_) => Err(format!("expected 401 or 200, found {}", v.describe())),
    }
}

impl Print for StatusCode {
    fn print(&self) -> Value {
        self.as_u16().print()
    }
}

/// The keys of `dialect = "kuzzle"`.
#[cfg(test)]
pub(crate) const KUZZLE_KEYS: &[Key] = section!(keys {
    /// The cookie of the access token in a browser: `"authToken"`, or `"__Host-authToken"`, which needs https.
    reload cookie: text,
});

/// The keys of `dialect = "kuzzle"`. For another dialect they are unknown.
fn read_kuzzle(section: &Section<'_>, dialect: &str, is_https: bool) -> Kuzzle {
    let default = Kuzzle { secure_cookies: is_https, ..Kuzzle::default() };
    if dialect != dialect::kuzzle::NAME {
        return default;
    }
    let names = [(dialect::kuzzle::COOKIE, false), (dialect::kuzzle::HOST_COOKIE, true)];
    let host_cookie = section.get("cookie", value::word(&names, &[])).unwrap_or(default.host_cookie);
    if host_cookie && !is_https {
        let message = "needs a server.public_url that begins with https://: a browser takes a __Host- cookie over https \
                       alone";
        section.blame("cookie", message);
    }
    Kuzzle { host_cookie, ..default }
}

/// The SDKs support a prefix, but no account in the path.
fn kuzzle_prefix(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(s) | Raw::Env(s) if s.is_empty() || s == "/" => Ok("/".to_owned()),
        _ => endpoint_path(v).and_then(|path| {
            let found = v.describe();
            if path.contains('{') {
                Err(format!("expected a path without parameters, found {found}"))
            } else {
                Ok(path)
            }
        }),
    }
}

fn endpoint_path(v: &Raw) -> Result<String, String> {
    let path = value::pattern(v)?;
    let is_known = |segment: &str| segment == "{account}" || !segment.contains(['{', '}']);
    if path.ends_with('/') || !path.split('/').all(is_known) {
        return Err(format!(
            "expected a path without a slash at its end whose only parameter is {{account}}, a segment of its own, \
             found {}",
            v.describe()
        ));
    }
    Ok(path)
}

/// Whether the path or the dialect of an endpoint with a relay differs.
pub(super) fn are_other_relays(old: &[EndpointConfig], new: &[EndpointConfig]) -> bool {
    let relays = |all: &[EndpointConfig]| -> Vec<(String, &'static str)> {
        let relays = all.iter().filter(|endpoint| endpoint.dialect == RELAY);
        relays.map(|endpoint| (endpoint.path.clone(), endpoint.dialect)).collect()
    };
    relays(old) != relays(new)
}

impl Print for EndpointConfig {
    #[cfg(test)]
    const KEYS: &'static [Key] = section!(keys {
        /// Required: The protocol of its clients: `"oauth2"`, `"envelope"`, `"kuzzle"`, `"knox"`, `"my-sessions"` or `"relay"`
        /// (docs/protocols.md).
        reload dialect: text,
        /// The path. `{account}` is the user's account in users.toml. Or, without: `"/connect/token"`. Default: that of the
        /// protocol.
        reload path: text,
        /// Any key of `[sessions]` from `access_ttl` to `revoke_previous_after`.
        reload profile: table,
        /// The clients that may use it. Unset: all.
        reload clients: list,
        /// Other dialects whose sessions may continue here.
        reload accepts: list,
        /// Only this account, introspection and revocation included; not with `{account}` in `path`.
        reload account: text,
        /// As `listeners` of a route. 404 on other listeners.
        reload listeners: list,
    });

    fn print(&self) -> Value {
        let Self {
            dialect,
            path,
            profile,
            clients,
            client,
            accepts,
            account,
            listeners,
            options,
            #[cfg(feature = "relay")]
            relay,
        } = self;
        let mut table = Table::new();
        put(&mut table, "dialect", *dialect);
        put(&mut table, "path", path.as_str());
        if !listeners.is_empty() {
            listeners.put(&mut table, "listeners");
        }
        #[cfg(feature = "relay")]
        if let Some(relay) = relay {
            relay.put(&mut table, "..");
            return table.into();
        }
        let dialect::Options { envelope, kuzzle, my_sessions } = options;
        if *dialect == dialect::my_sessions::NAME {
            account.put(&mut table, "account");
            my_sessions.put(&mut table, "..");
            return table.into();
        }
        put_override(&mut table, profile);
        clients.put(&mut table, "clients");
        client.put(&mut table, "client");
        accepts.put(&mut table, "accepts");
        account.put(&mut table, "account");
        if *dialect == dialect::envelope::NAME {
            envelope.put(&mut table, "..");
        }
        if *dialect == dialect::kuzzle::NAME {
            // `secure_cookies` follows from public_url.
            let dialect::kuzzle::Kuzzle { secure_cookies: _, host_cookie } = kuzzle;
            let cookie = if *host_cookie { dialect::kuzzle::HOST_COOKIE } else { dialect::kuzzle::COOKIE };
            put(&mut table, "cookie", cookie);
        }
        table.into()
    }
}
