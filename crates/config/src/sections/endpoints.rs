//! `[[endpoints]]`.

use std::path::Path;
use std::time::Duration;

use http::{StatusCode, Uri};
use toml::Value;

use super::super::declare::section;
use super::super::print::Print;
use super::super::value;
use super::browser::{self, BrowserConfig};
use super::relay::RelayWire;
use super::sessions::read_override;
use super::{ClientConfig, CorsConfig, DAY, RelaySettings, SECOND, TrustedIssuer, check_known, known_names, listeners};
use rotogate::dialect::{self, envelope::Envelope, my_keys::MyKeys, my_sessions::MySessions};
use rotogate::program::{BROWSER, ENVELOPE, KUZZLE, KUZZLE_COOKIE, KUZZLE_HOST_COOKIE, MY_KEYS, MY_SESSIONS, OAUTH2};
use rotogate_core::engine::APPLICATION;
use rotogate_core::session::profile::ProfileOverride;
use rotogate_core::token::verify::is_subject;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// `[[endpoints]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EndpointConfig, read by read_keys(
        section,
        dialect: &'static str,
        around: &Surroundings<'_>,
        above: &[EndpointConfig],
    ) {
        /// Required: Protocol (docs/protocols.md): `"oauth2"`, `"envelope"`, `"kuzzle"`, `"knox"`, `"browser"`,
        /// `"my-sessions"`, `"my-keys"` or `"relay"`.
        reload dialect: &'static str = by { dialect },
        /// Path, such as `"/connect/token"`, or `"/{account}/connect/token"` if the path names the user's account.
        /// Default: the usual path of the protocol.
        reload path: String = by { read_path(section, dialect, above) },
        /// Session rules of the endpoint, which override those of `[sessions]`: any of its keys from `access_ttl` to
        /// `revoke_previous_after`.
        reload profile as some: ProfileOverride = by {
            match dialect {
                BROWSER => browser::profile(section),
                _ if begins_sessions(dialect) => read_override(section),
                _ => ProfileOverride::default(),
            }
        },
        /// Clients that may use the endpoint. Unset: all clients. Set it if the endpoint is for one application.
        reload clients: Option<Vec<String>> = by {
            let known = around.clients.iter().map(|client| &*client.id);
            if has_clients(dialect) { known_names(section, "clients", "client", known) } else { None }
        },
        /// Public client to which the sessions belong, if requests of the protocol do not name a client. Set it if the
        /// rules of an entry of `[[clients]]` should apply to these sessions. Default: the name of the protocol.
        reload client: Option<String> = by {
            if dialect == BROWSER && section.has("provider") {
                // For logins at a provider, the gate has its own client.
                None
            } else {
                endpoint_client(section, dialect, around.clients)
            }
        },
        /// Other dialects whose sessions may be refreshed at this endpoint. Set it while clients migrate from one
        /// protocol to another.
        reload accepts: Option<Vec<&'static str>> = by { has_clients(dialect).then(|| accepts(section, dialect)) },
        /// Account of the users who may log in at this endpoint; not allowed with `{account}` in `path`. Set it if a
        /// tenant has its own endpoint.
        reload account: Option<String> = by {
            if dialect == RELAY { None } else { read_account(section, &path) }
        },
        /// Names of the listeners that serve this endpoint; others respond with 404. Unset: all. Set it for an endpoint
        /// of an internal network.
        reload listeners as some: Vec<Box<str>> = by { listeners::bound_to(section, around.listeners) },
        /// Options of the dialect.
        reload envelope as "..?": Option<Envelope> = by {
            (dialect == ENVELOPE).then(|| read_envelope(section, &Envelope::default()))
        },
        /// Options of the dialect.
        reload kuzzle as "..?": Option<KuzzleConfig> = by {
            (dialect == KUZZLE).then(|| read_kuzzle(section, around.is_https(), above))
        },
        /// Options of the dialect.
        reload my_sessions as "..?": Option<MySessions> = by {
            (dialect == MY_SESSIONS).then(|| read_my_sessions(section, &MySessions::default()))
        },
        /// Options of the dialect.
        reload my_keys as "..?": Option<MyKeys> = by { my_keys(section, dialect) },
        /// Options of the dialect.
        reload browser as "..?": Option<BrowserConfig> = by {
            (dialect == BROWSER).then(|| browser::read(section, &path, around))
        },
        /// Provider behind a relay.
        reload relay as "..?": Option<RelaySettings> = by { read_relay(section, dialect, around, &path) },
    }
}

section! {
    /// The keys of `dialect = "kuzzle"`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KuzzleConfig, read by read_kuzzle(section, is_https: bool, above: &[EndpointConfig]) {
        /// Cookie that carries a browser's access token: `"authToken"`, or `"__Host-authToken"`, which needs `https`
        /// and which other hosts in the domain cannot set.
        reload cookie: &'static str = by { read_cookie(section, is_https, above) },
        /// Whether clients reach the gate by https.
        no_key is_https: bool = by { is_https },
    }
}

impl EndpointConfig {
    /// Whether a login at this endpoint names an account.
    pub fn may_have_account(&self) -> bool {
        self.account.is_some() || self.path.contains("{account}")
    }

    /// The options of the endpoint's dialect.
    pub fn options(&self) -> dialect::Options {
        let mut options = dialect::Options::default();
        options.envelope = self.envelope.unwrap_or(options.envelope);
        options.my_sessions = self.my_sessions.unwrap_or(options.my_sessions);
        if let Some(my_keys) = &self.my_keys {
            options.my_keys = *my_keys;
        }
        if let Some(KuzzleConfig { cookie, is_https }) = self.kuzzle {
            (options.kuzzle.host_cookie, options.kuzzle.secure_cookies) = (cookie == KUZZLE_HOST_COOKIE, is_https);
        }
        options
    }

    /// Whether the endpoint serves Kuzzle's protocol.
    pub(super) fn is_kuzzle(&self) -> bool {
        self.kuzzle.is_some() || self.relay.as_ref().is_some_and(|relay| relay.wire == RelayWire::Kuzzle)
    }

    pub(super) fn relayed_issuer(&self) -> Option<&str> {
        self.relay.as_ref().and_then(|relay| relay.issuer.as_deref())
    }
}

/// The parts of the configuration to which an endpoint refers.
pub(super) struct Surroundings<'a> {
    pub(super) dir: &'a Path,
    pub(super) clients: &'a [ClientConfig],
    /// The listeners that have a name.
    pub(super) listeners: &'a [&'a str],
    pub(super) issuers: &'a [TrustedIssuer],
    pub(super) public_url: &'a Uri,
    pub(super) cors: &'a CorsConfig,
}

impl Surroundings<'_> {
    /// Whether clients reach the gate by https.
    pub(super) fn is_https(&self) -> bool {
        self.public_url.scheme_str() == Some("https")
    }
}

const RELAY: &str = dialect::relay::NAME;

fn dialect_or(v: &Raw, further: &[&'static str]) -> Result<&'static str, String> {
    let known: Vec<_> = rotogate::program::NAMES.iter().chain(further).map(|name| (*name, *name)).collect();
    value::word(&known, &[])(v)
}

fn accepted_dialect(v: &Raw) -> Result<&'static str, String> {
    dialect_or(v, &[APPLICATION])
}

pub(super) fn dialect_name(v: &Raw) -> Result<&'static str, String> {
    dialect_or(v, &[])
}

fn endpoint_dialect(v: &Raw) -> Result<&'static str, String> {
    dialect_or(v, &[BROWSER, MY_SESSIONS, MY_KEYS, RELAY])
}

pub(super) fn read(section: &Section<'_>, above: &[EndpointConfig], around: &Surroundings<'_>) -> EndpointConfig {
    let dialect = match section.has("dialect") {
        true => section.kind("dialect", endpoint_dialect),
        false => section.require("dialect", "\"oauth2\"", endpoint_dialect),
    };
    let dialect = dialect.unwrap_or(OAUTH2);
    if begins_sessions(dialect) && dialect != KUZZLE {
        section.later(&["cookie"]);
    }
    let endpoint = read_keys(section, dialect, around, above);
    let is_relay = |one: &EndpointConfig| one.is_kuzzle() && one.relay.is_some();
    if above.iter().any(|other| endpoint.is_kuzzle() && other.is_kuzzle() && (is_relay(&endpoint) || is_relay(other))) {
        let message = "is the second endpoint for Kuzzle; a relay in front of a Kuzzle server must be the only one, because \
                       all of them would read the same cookie";
        section.blame("dialect", message);
    }
    endpoint
}

/// Whether an endpoint of this dialect creates sessions of the gate.
fn begins_sessions(dialect: &str) -> bool {
    ![RELAY, MY_SESSIONS, MY_KEYS].contains(&dialect)
}

fn has_clients(dialect: &str) -> bool {
    begins_sessions(dialect) && dialect != BROWSER
}

fn read_path(section: &Section<'_>, dialect: &str, above: &[EndpointConfig]) -> String {
    let is_kuzzle = dialect == KUZZLE || dialect == RELAY && super::relay::wire(section) == RelayWire::Kuzzle;
    let path = if is_kuzzle {
        section.get_or("path", kuzzle_prefix, "/".to_owned())
    } else {
        let default = if section.has("path") || section.is_bad() { None } else { default_path(section, dialect) };
        section.get("path", endpoint_path).or(default).unwrap_or_default()
    };
    if dialect == RELAY && path.contains('{') {
        section.blame("path", "expected a path without parameters, because a provider does not use `{account}`");
    }
    if dialect == BROWSER && path.contains('{') {
        section
            .blame("path", "expected a path without parameters, because a browser sends the account in the login form");
    }
    if !path.is_empty() && above.iter().any(|other| other.path == path) {
        section.blame("path", format!("{path} is listed twice; give one of the two another path"));
    }
    path
}

fn default_path(section: &Section<'_>, dialect: &str) -> Option<String> {
    if dialect == RELAY {
        return Some(super::relay::default_path(super::relay::wire(section)));
    }
    Some(rotogate::program::by_name(dialect, &dialect::Options::default())?.default_path().to_owned())
}

fn read_relay(section: &Section<'_>, dialect: &str, around: &Surroundings<'_>, path: &str) -> Option<RelaySettings> {
    let read = |wire| super::relay::read(section, around.dir, around.issuers, wire, path, around.is_https());
    (dialect == RELAY).then(|| read(super::relay::wire(section)))
}

fn read_account(section: &Section<'_>, path: &str) -> Option<String> {
    if section.has("account") && path.contains("{account}") {
        section.blame("account", "conflicts with `{account}` in `path`; remove one of the two");
    }
    section.get("account", account)
}

/// All routes use the cookie of the dialect's first endpoint.
fn read_cookie(section: &Section<'_>, is_https: bool, above: &[EndpointConfig]) -> &'static str {
    const HOST: &str = KUZZLE_HOST_COOKIE;
    let cookie = section.get_or("cookie", value::word(&COOKIES, &[]), KUZZLE_COOKIE);
    if cookie == HOST && !is_https {
        let message = "needs a `server.public_url` that begins with https://, because a browser accepts a `__Host-` \
                       cookie only over https";
        section.blame("cookie", message);
    }
    if above.iter().filter_map(|other| other.kuzzle.as_ref()).any(|other| other.cookie != cookie) {
        section.blame(
            "cookie",
            "differs from the cookie of another `kuzzle` endpoint; all of these endpoints must use the same cookie",
        );
    }
    cookie
}

section! {
    impl MySessions, read by read_my_sessions(section, default: &MySessions) {
        /// Maximum age of the access token with which a user ends sessions.
        fixed max_age: Duration = get_or(value::duration_within(SECOND, DAY), MySessions::default().max_age),
        /// true: the access token must have the scope `sessions`. Set it if clients of other parties get tokens of your
        /// users.
        reload needs_scope: bool = get_or(value::boolean, default.needs_scope),
        // See `share_cookie`.
        no_key cookie: &'static str = by { default.cookie },
    }
}

section! {
    impl MyKeys, read by read_my_keys(section, default: &MyKeys) {
        /// Maximum age of the access token, or of the browser session's login, with which a user changes API keys.
        fixed max_age: Duration = get_or(value::duration_within(SECOND, DAY), MyKeys::default().max_age),
        /// true: the access token must have the scope `keys`. Set it if clients of other parties get tokens of your
        /// users, because otherwise each of these clients can create API keys.
        reload needs_scope: bool = get_or(value::boolean, default.needs_scope),
        // See `share_cookie`.
        no_key cookie: &'static str = by { default.cookie },
    }
}

fn my_keys(section: &Section<'_>, dialect: &str) -> Option<MyKeys> {
    (dialect == MY_KEYS).then(|| read_my_keys(section, &MyKeys::default()))
}

const COOKIES: [(&str, &str); 2] = [(KUZZLE_COOKIE, KUZZLE_COOKIE), (KUZZLE_HOST_COOKIE, KUZZLE_HOST_COOKIE)];

/// Sets the cookie that `my-sessions` and `my-keys` read. If there is a `kuzzle` endpoint, both read its cookie.
/// Otherwise both read `__Host-access`.
pub(super) fn share_cookie(mut endpoints: Vec<EndpointConfig>) -> Vec<EndpointConfig> {
    let Some(cookie) = endpoints.iter().find_map(|endpoint| Some(endpoint.kuzzle.as_ref()?.cookie)) else {
        return endpoints;
    };
    for endpoint in &mut endpoints {
        endpoint.my_sessions.iter_mut().for_each(|own| own.cookie = cookie);
        endpoint.my_keys.iter_mut().for_each(|own| own.cookie = cookie);
    }
    endpoints
}

/// Reads `client` for a dialect whose requests do not name a client. For other dialects, `client` is an unknown key.
fn endpoint_client(section: &Section<'_>, dialect: &str, clients: &[ClientConfig]) -> Option<String> {
    let default = rotogate::program::by_name(dialect, &dialect::Options::default())?.client()?;
    let named = section.get("client", value::text);
    let id = named.as_deref().unwrap_or(default);
    match (clients.iter().find(|client| *client.id == *id), &named) {
        (None, Some(id)) => check_known(section, "client", "client", id, clients.iter().map(|client| &*client.id)),
        (Some(client), Some(_)) if client.is_confidential() => {
            section.blame(
                "client",
                "names a confidential client, but this protocol cannot carry a client secret; name a public client",
            );
        }
        (Some(client), None) if client.is_confidential() => {
            let message = format!(
                "missing, so its sessions would belong to the client \"{default}\". `[[clients]]` makes that client \
                 confidential, but this protocol cannot carry a client secret; name a public client"
            );
            section.blame("client", message);
        }
        (Some(_) | None, _) => {}
    }
    named
}

/// A dialect without refresh tokens cannot continue sessions with refresh tokens.
fn accepts(section: &Section<'_>, dialect: &str) -> Vec<&'static str> {
    let by_access = |name: &str| {
        rotogate::program::by_name(name, &dialect::Options::default())
            .is_some_and(|dialect| dialect.refreshes_by_access())
    };
    let accepted = section.indexed("accepts", accepted_dialect).unwrap_or_default();
    for (index, name) in accepted.iter().filter(|(_, name)| by_access(dialect) && !by_access(name)) {
        let message = format!(
            "sessions of \"{name}\" use refresh tokens, but \"{dialect}\" exchanges only access tokens, so they \
             could not continue here. Remove this entry, or let the endpoint of \"{name}\" serve these clients"
        );
        section.blame_element("accepts", *index, message);
    }
    accepted.into_iter().map(|(_, name)| name).collect()
}

/// Reads an account name, which has the same form as in users.toml.
pub(super) fn account(v: &Raw) -> Result<String, String> {
    let fits = |text: &str| is_subject(text) && !text.contains('/');
    value::matching(v, "1 to 256 visible ASCII characters other than /", fits)
}

section! {
    impl Envelope, read by read_envelope(section, default: &Envelope) {
        /// How long after its expiry an access token can still be used for a refresh; 7d at most. Raise it for clients
        /// that refresh only after their access token has expired.
        reload expired_for_at_most as "allow_expired_access_token": Duration = get_or(
            value::duration_within(Duration::ZERO, 7 * DAY),
            default.expired_for_at_most
        ),
        /// Status of the response to invalid credentials or an invalid token: 401, or 200 for clients that read only
        /// `errorCode`.
        reload failure_status: StatusCode = get_or(failure_status, default.failure_status),
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

/// The SDKs do not support parameters in the path.
fn kuzzle_prefix(v: &Raw) -> Result<String, String> {
    if v.as_text().is_some_and(|text| text.is_empty() || text == "/") {
        return Ok("/".to_owned());
    }
    match endpoint_path(v)? {
        path if path.contains('{') => value::unexpected("a path without parameters", v),
        path => Ok(path),
    }
}

fn endpoint_path(v: &Raw) -> Result<String, String> {
    let path = value::pattern(v)?;
    let is_known = |segment: &str| segment == "{account}" || !segment.contains(['{', '}']);
    if path.ends_with('/') || !path.split('/').all(is_known) {
        return Err(format!(
            "expected a path without a slash at its end, whose only parameter may be {{account}} as a whole segment, \
             found {}",
            v.describe()
        ));
    }
    Ok(path)
}

pub(super) fn are_other_relays(old: &[EndpointConfig], new: &[EndpointConfig]) -> bool {
    let relays = |all: &[EndpointConfig]| -> Vec<(String, &'static str)> {
        let relays = all.iter().filter(|endpoint| endpoint.dialect == RELAY);
        relays.map(|endpoint| (endpoint.path.clone(), endpoint.dialect)).collect()
    };
    relays(old) != relays(new)
}
