//! Clients, endpoints, identity, routes.

use std::path::Path;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::super::print::MASK;
use super::super::raw::{Section, Value, nearest, printable};
use super::super::types::{ClientConfig, EndpointConfig, IdentityConfig, TrustedIssuer};
use super::super::value;
use super::{path_in, profile};
use crate::proxy::Upstream;
use rotogate::client::Grant;
use rotogate::dialect::{self, envelope::Envelope, kuzzle::Kuzzle};
use rotogate::engine::APPLICATION;
use rotogate::headers::HeaderPattern;
use rotogate::password::SecretHash;
use rotogate::password::cost_of;
use rotogate::private_file::read_private;
use rotogate::route::{Auth, BadCredential, CallPattern, EncodedSlash, LooseMatch, OnExpiry, Route, RoutePolicy};
use rotogate::session::Scope;
use rotogate::session::profile::ProfileOverride;
use rotogate::token::claims::CLIENT_PREFIX;
use rotogate::token::verify::{OWN, is_subject};

/// Dialects that are designed and not built.
#[cfg(feature = "grpc")]
const LATER_DIALECTS: [&str; 0] = [];
#[cfg(not(feature = "grpc"))]
const LATER_DIALECTS: [&str; 1] = ["knox"];

fn accepted_dialect(v: &Value) -> Result<&'static str, String> {
    let known: Vec<_> = dialect::NAMES.iter().copied().chain([APPLICATION]).map(|name| (name, name)).collect();
    value::word(&known, &LATER_DIALECTS)(v)
}

fn dialect_name(v: &Value) -> Result<&'static str, String> {
    let known: Vec<_> = dialect::NAMES.iter().map(|name| (*name, *name)).collect();
    value::word(&known, &LATER_DIALECTS)(v)
}

fn scopes(section: &Section<'_>) -> Option<Scope> {
    let parts = section.list("scopes", value::scope)?;
    let joined = parts.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
    Scope::parse(&joined).ok()
}

/// "there is no X", with what was probably meant.
fn dangling(what: &str, name: &str, known: &[&str]) -> String {
    let shown = printable(name);
    match nearest(name, known) {
        Some(near) => format!("there is no {what} \"{shown}\"; did you mean \"{near}\"?"),
        None if known.is_empty() => format!("there is no {what} \"{shown}\"; none is configured"),
        None => format!("there is no {what} \"{shown}\"; expected one of {}", known.join(", ")),
    }
}

pub(super) fn clients(sections: &[Section<'_>], dir: &Path) -> Vec<ClientConfig> {
    let mut clients: Vec<ClientConfig> = Vec::new();
    for section in sections {
        let id = section.require("id", "the client_id", client_id).unwrap_or_default();
        if !id.is_empty() && clients.iter().any(|other| other.id == id) {
            section.blame("id", format!("\"{id}\" is there twice"));
        }
        let client = ClientConfig {
            secret_hash: secret_hash(section, dir),
            grants: grants(section),
            scopes: scopes(section),
            profile: own_profile(section),
            id,
        };
        let is_public = !section.has("secret_hash") && !section.has("secret_hash_file");
        if client.may(Grant::ClientCredentials) && is_public {
            let message = "client_credentials is for confidential clients (RFC 6749 §4.4); give it a secret_hash or \
                           secret_hash_file, or remove the grant";
            section.blame("grants", message);
        }
        if client.may(Grant::ClientCredentials)
            && !is_subject(&format!("{CLIENT_PREFIX}{}", client.id))
            && !client.id.is_empty()
        {
            let message = format!(
                "is too long for client_credentials: with \"{CLIENT_PREFIX}\" in front it is the sub of its tokens"
            );
            section.blame("id", message);
        }
        section.finish();
        clients.push(client);
    }
    clients
}

/// RFC 6749 appendix A.1, of a length that fits everywhere.
fn client_id(v: &Value) -> Result<String, String> {
    match v {
        Value::String(s) | Value::Env(s) if (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(s.clone())
        }
        other => Err(format!("expected 1 to 256 visible ASCII characters, found {}", other.describe())),
    }
}

fn secret_hash(section: &Section<'_>, dir: &Path) -> Option<SecretHash> {
    section.later(&["secret", "client_secret"]);
    // Whatever stands here may be a secret that somebody mistook for its hash: it is never repeated.
    let read = |phc: &str| cost_of(phc).map(|_| SecretHash::new(phc.to_owned())).map_err(|e| format!("is {e}"));
    let direct = section.get("secret_hash", |v| match v {
        Value::String(s) | Value::Env(s) if s == MASK => {
            let message = "is masked, as `rotogate check --print` does it: no secret is this client's; write the hash";
            section.warn("secret_hash", message);
            SecretHash::of_nobody().map_err(|error| error.to_string())
        }
        Value::String(s) | Value::Env(s) => read(s),
        _ => Err("expected an argon2id hash, \"$argon2id$v=19$…\"".to_owned()),
    });
    let from_file = section.get_file("secret_hash_file", path_in(dir), |path| {
        let text = read_private(path)?;
        read(text.trim())
    });
    if section.has("secret_hash") && section.has("secret_hash_file") {
        section.blame("secret_hash_file", "stands beside secret_hash; expected one of the two");
    }
    direct.or(from_file)
}

fn grants(section: &Section<'_>) -> Vec<Grant> {
    let known = [
        ("password", Grant::Password),
        ("refresh_token", Grant::RefreshToken),
        ("client_credentials", Grant::ClientCredentials),
    ];
    let later = ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"];
    let grants = section.list("grants", value::word(&known, &later));
    if grants.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame("grants", "is empty: such a client can do nothing; expected at least one grant");
    }
    grants.unwrap_or_else(|| vec![Grant::Password, Grant::RefreshToken])
}

fn own_profile(section: &Section<'_>) -> ProfileOverride {
    let own = section.section("profile");
    own.later(&["max_stream", "on_expiry"]);
    let rules = profile(&own);
    own.finish();
    rules
}

pub(super) fn endpoints(sections: &[Section<'_>], clients: &[ClientConfig], is_https: bool) -> Vec<EndpointConfig> {
    let known: Vec<&str> = clients.iter().map(|client| client.id.as_str()).collect();
    let mut endpoints: Vec<EndpointConfig> = Vec::new();
    for section in sections {
        let dialect = section.require("dialect", "\"oauth2\"", dialect_name);
        let path = if dialect == Some(dialect::kuzzle::NAME) {
            // What its routes begin with: nothing, if nothing is said.
            Some(section.get("path", kuzzle_prefix).unwrap_or_else(|| "/".to_owned()))
        } else {
            section.get("path", endpoint_path).or_else(|| {
                let path = dialect::by_name(dialect?, &dialect::Options::default())?.default_path();
                (!section.has("path")).then(|| path.to_owned())
            })
        };
        let path = path.unwrap_or_default();
        let dialect = dialect.unwrap_or(dialect::oauth2::NAME);
        if dialect != dialect::kuzzle::NAME {
            section.later(&["cookie"]);
        }
        if !path.is_empty() && endpoints.iter().any(|other| other.path == path) {
            section.blame("path", format!("{path} is there twice"));
        }
        if section.has("account") && path.contains("{account}") {
            section.blame("account", "stands beside {account} in path, which names another; remove one of the two");
        }
        let ids = section.indexed("clients", value::text);
        for (index, id) in ids.iter().flatten() {
            if !known.contains(&id.as_str()) {
                section.blame_element("clients", *index, dangling("client", id, &known));
            }
        }
        let options =
            dialect::Options { envelope: envelope(section, dialect), kuzzle: kuzzle(section, dialect, is_https) };
        // Routes of the dialect look for the cookie of its first endpoint.
        let is_other = |other: &EndpointConfig| other.options.kuzzle.host_cookie != options.kuzzle.host_cookie;
        if dialect == dialect::kuzzle::NAME && endpoints.iter().any(|other| other.dialect == dialect && is_other(other))
        {
            section.blame("cookie", "differs from that of another kuzzle endpoint; all of them share one");
        }
        endpoints.push(EndpointConfig {
            dialect,
            path,
            profile: own_profile(section),
            clients: ids.map(|ids| ids.into_iter().map(|(_, id)| id).collect()),
            client: endpoint_client(section, dialect, clients),
            accepts: accepts(section, dialect),
            account: section.get("account", account),
            options,
        });
        section.finish();
    }
    endpoints
}

/// `client`, at a dialect whose protocol names none. At another it is unknown.
fn endpoint_client(section: &Section<'_>, dialect: &str, clients: &[ClientConfig]) -> Option<String> {
    let default = dialect::by_name(dialect, &dialect::Options::default())?.client()?;
    let named = section.get("client", value::text);
    let id = named.as_deref().unwrap_or(default);
    match (clients.iter().find(|client| client.id == id), &named) {
        (None, Some(id)) => {
            let known: Vec<&str> = clients.iter().map(|client| client.id.as_str()).collect();
            section.blame("client", dangling("client", id, &known));
        }
        (Some(client), Some(_)) if client.secret_hash.is_some() => {
            section
                .blame("client", "is confidential, and this protocol has no place for its secret; name a public one");
        }
        (Some(client), None) if client.secret_hash.is_some() => {
            let message = format!(
                "missing, so its sessions are those of the client \"{default}\", which [[clients]] makes confidential, and \
                 this protocol has no place for its secret; name a public one"
            );
            section.blame("client", message);
        }
        (Some(_) | None, _) => {}
    }
    named
}

/// `accepts`. An access token is a refresh credential in sessions of the protocols alone that know no other.
fn accepts(section: &Section<'_>, dialect: &str) -> Vec<&'static str> {
    let by_access = |name: &str| {
        dialect::by_name(name, &dialect::Options::default()).is_some_and(|dialect| dialect.refreshes_by_access())
    };
    let accepted = section.indexed("accepts", accepted_dialect).unwrap_or_default();
    for (index, name) in accepted.iter().filter(|(_, name)| by_access(dialect) && !by_access(name)) {
        let message = format!(
            "\"{name}\" has refresh tokens, and \"{dialect}\" exchanges access tokens alone: none of its sessions could go \
             on here. Remove it, or let the endpoint of \"{name}\" serve these clients"
        );
        section.blame_element("accepts", *index, message);
    }
    accepted.into_iter().map(|(_, name)| name).collect()
}

/// An account, as users.toml writes it.
fn account(v: &Value) -> Result<String, String> {
    match v {
        Value::String(s) | Value::Env(s) if is_subject(s) && !s.contains('/') => Ok(s.clone()),
        other => Err(format!("expected 1 to 256 visible ASCII characters, none of them /, found {}", other.describe())),
    }
}

/// The keys of `dialect = "envelope"`. At another dialect they are unknown.
fn envelope(section: &Section<'_>, dialect: &str) -> Envelope {
    let default = Envelope::default();
    if dialect != dialect::envelope::NAME {
        return default;
    }
    let status = |v: &Value| match value::count(200, 401)(v) {
        Ok(200) => Ok(StatusCode::OK),
        Ok(401) => Ok(StatusCode::UNAUTHORIZED),
        Ok(_) | Err(_) => Err(format!("expected 401 or 200, found {}", v.describe())),
    };
    let window = value::duration_within(Duration::ZERO, Duration::from_secs(7 * 86_400));
    Envelope {
        expired_for_at_most: section.get("allow_expired_access_token", window).unwrap_or(default.expired_for_at_most),
        failure_status: section.get("failure_status", status).unwrap_or(default.failure_status),
    }
}

/// The keys of `dialect = "kuzzle"`. At another dialect they are unknown.
fn kuzzle(section: &Section<'_>, dialect: &str, is_https: bool) -> Kuzzle {
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

/// The SDKs know a prefix, if any, and no account.
fn kuzzle_prefix(v: &Value) -> Result<String, String> {
    match v {
        Value::String(s) | Value::Env(s) if s.is_empty() || s == "/" => Ok("/".to_owned()),
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

fn endpoint_path(v: &Value) -> Result<String, String> {
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

fn header_pattern(v: &Value) -> Result<HeaderPattern, String> {
    HeaderPattern::parse(&value::text(v)?).map_err(|why| format!("{why}, found {}", v.describe()))
}

pub(super) fn identity(section: &Section<'_>, several_issuers: bool) -> IdentityConfig {
    let headers = section.section("headers");
    let mut used: Vec<HeaderName> = Vec::new();
    let mut header = |key: &'static str, default: &'static str| {
        let default = (!default.is_empty()).then(|| HeaderName::from_static(default));
        let name = headers.get(key, value::identity_header).unwrap_or(default)?;
        if used.contains(&name) {
            headers.blame(key, format!("{name} tells something else already"));
        }
        used.push(name.clone());
        Some(name)
    };
    let mut identity = IdentityConfig {
        subject: header("subject", "x-auth-subject"),
        account: header("account", "x-auth-account"),
        client: header("client", "x-auth-client"),
        scope: header("scope", "x-auth-scope"),
        session: header("session", "x-auth-session"),
        // With others besides us, a subject says little without its issuer.
        issuer: header("issuer", if several_issuers { "x-auth-issuer" } else { "" }),
        claims: Vec::new(),
        strip: section.list("strip", header_pattern).unwrap_or_default(),
        keep: Vec::new(),
    };
    headers.finish();
    let claims = section.section("claims");
    for (name, claim) in claims.free() {
        let header = value::header(name).and_then(|header| {
            if used.contains(&header) { Err(format!("{header} tells something else already")) } else { Ok(header) }
        });
        match (header, value::text(claim)) {
            (Ok(header), Ok(claim)) => {
                used.push(header.clone());
                identity.claims.push((header, claim));
            }
            (Err(message), _) | (_, Err(message)) => claims.blame(name, message),
        }
    }
    for (index, kept) in section.indexed("keep", header_pattern).unwrap_or_default() {
        if let Some(own) = used.iter().find(|own| kept.matches(own.as_str())) {
            let message = format!("{own} is what the gate itself tells an upstream: a client's own never passes");
            section.blame_element("keep", index, message);
        } else if !kept.is_of_a_product() {
            section.blame_element("keep", index, "passes anyway: it is no header of a known product; remove it");
        } else {
            identity.keep.push(kept);
        }
    }
    section.finish();
    identity
}

/// An issuer whose tokens no route takes is one that somebody forgot to let in.
pub(super) fn let_in(sections: &[Section<'_>], issuers: &[TrustedIssuer], routes: &[Route]) {
    for (section, issuer) in sections.iter().zip(issuers) {
        let is_let_in = |route: &Route| {
            matches!(route.policy.auth, Auth::Required | Auth::Optional)
                && route.policy.takes(&issuer.name, issuer.everywhere)
        };
        if !section.is_bad() && !routes.is_empty() && !routes.iter().any(is_let_in) {
            let name = printable(&issuer.name);
            let message = format!(
                "no route takes its tokens; write issuers = [\"{OWN}\", \"{name}\"] at the [[routes]] that do, or \
                 everywhere = true here"
            );
            section.blame("url", message);
        }
    }
}

/// `issuers` of a route.
fn route_issuers(section: &Section<'_>, issuers: &[TrustedIssuer]) -> Vec<String> {
    let known: Vec<&str> = [OWN].into_iter().chain(issuers.iter().map(|issuer| issuer.name.as_str())).collect();
    let Some(named) = section.indexed("issuers", value::text) else { return Vec::new() };
    if named.is_empty() && !section.is_bad() {
        section.blame("issuers", format!("is empty: nobody could pass; expected at least one, such as \"{OWN}\""));
    }
    for (index, name) in named.iter().filter(|(_, name)| !known.contains(&name.as_str())) {
        section.blame_element("issuers", *index, dangling("issuer", name, &known));
    }
    named.into_iter().map(|(_, name)| name).collect()
}

pub(super) fn routes(sections: &[Section<'_>], upstreams: &[Upstream], issuers: &[TrustedIssuer]) -> Vec<Route> {
    let known: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let mut routes: Vec<Route> = Vec::new();
    for section in sections {
        let route = route(section, &known, issuers);
        let same =
            |other: &Route| (&other.path, &other.hosts, &other.methods) == (&route.path, &route.hosts, &route.methods);
        if !route.path.is_empty() && routes.iter().any(same) {
            let message = format!("{} is there twice, for the same hosts and methods", route.path);
            section.blame("path", message);
        }
        let mut id = route.id.clone();
        if !id.is_empty() && routes.iter().any(|other| other.id == id) {
            if section.has("id") {
                section.blame("id", format!("\"{id}\" is there twice"));
            }
            // Several routes of one path, told apart by hosts or methods.
            id = (2_usize..)
                .map(|n| format!("{}#{n}", route.id))
                .find(|id| routes.iter().all(|r| r.id != *id))
                .unwrap_or(id);
        }
        section.finish();
        routes.push(Route { id, ..route });
    }
    routes
}

fn call_pattern(v: &Value) -> Result<CallPattern, String> {
    CallPattern::parse(&value::text(v)?).map_err(|why| format!("{why}, found {}", v.describe()))
}

fn route(section: &Section<'_>, upstreams: &[&str], issuers: &[TrustedIssuer]) -> Route {
    section.later(&["max_stream", "websocket"]);
    let kuzzle = section.list("kuzzle", call_pattern).unwrap_or_default();
    // A rule for calls in envelopes needs no path, and leads nowhere then.
    let is_path = section.has("path") || !section.has("kuzzle");
    let require = |key, expected, read: fn(&Value) -> Result<String, String>| match is_path {
        true => section.require(key, expected, read).unwrap_or_default(),
        false => section.get(key, read).unwrap_or_default(),
    };
    let path = require("path", "a path such as \"/{*rest}\"", value::pattern);
    let upstream = require("upstream", "the name of an upstream", value::text);
    if !is_path && section.has("upstream") {
        section
            .blame("upstream", "is of use to a route with a path alone: a call goes where its envelope's path leads");
    }
    if !upstream.is_empty() && !upstreams.contains(&upstream.as_str()) {
        section.blame("upstream", dangling("upstream", &upstream, upstreams));
    }
    let modes = [("required", Auth::Required), ("optional", Auth::Optional), ("none", Auth::None)];
    let auth = section.get("auth", value::word(&modes, &[])).unwrap_or(Auth::Required);
    let scopes = scopes(section).unwrap_or_default();
    let audiences = section.list("audiences", value::text).unwrap_or_default();
    let issuers = route_issuers(section, issuers);
    if auth == Auth::None {
        // Whoever writes both believes that the route is protected.
        let asked = [
            ("scopes", !scopes.is_empty()),
            ("audiences", !audiences.is_empty()),
            ("issuers", !issuers.is_empty()),
            ("cookie", section.has("cookie")),
        ];
        for (key, given) in asked {
            if given {
                section.blame(key, "is never asked for, because auth = \"none\"; remove one of the two");
            }
        }
    }
    let slashes = [("refuse", EncodedSlash::Refuse), ("keep", EncodedSlash::Keep)];
    let ends = [("close", OnExpiry::Close), ("keep", OnExpiry::Keep)];
    let preflights = [("gate", false), ("upstream", true)];
    let exact = section.get("loose_match", value::boolean) == Some(false);
    let flag = |key| section.get(key, value::boolean).unwrap_or(false);
    let bad = [("refuse", BadCredential::Refuse), ("anonymous", BadCredential::Anonymous)];
    let policy = RoutePolicy {
        auth,
        scopes,
        issuers,
        audiences,
        bad_credential_on_optional: section.get("bad_credential", value::word(&bad, &[])).unwrap_or_default(),
        forward_token: flag("forward_token"),
        encoded_slash: section.get("encoded_slash", value::word(&slashes, &[])).unwrap_or_default(),
        keep_underscore_headers: flag("keep_underscore_headers"),
        keep_override_headers: flag("keep_override_headers"),
        max_body: section.get("max_body", value::size(0, u64::MAX)),
        dialect: section.get("dialect", dialect_name).map(str::to_owned),
        cookie: section.get("cookie", value::cookie_name),
        upgrade: flag("upgrade"),
        on_expiry: section.get("on_expiry", value::word(&ends, &[])).unwrap_or_default(),
        preflight_to_upstream: section.get("preflight", value::word(&preflights, &[])).unwrap_or(false),
        loose_match: if exact { LooseMatch::Ignore } else { LooseMatch::Refuse },
    };
    if section.has("bad_credential") && auth != Auth::Optional {
        section.blame("bad_credential", "says what becomes of a bad token where auth = \"optional\"; remove it");
    }
    Route {
        id: section.get("id", value::text).unwrap_or_else(|| match is_path {
            true => path.clone(),
            false => format!("kuzzle {}", kuzzle.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        }),
        path,
        kuzzle,
        hosts: section.list("hosts", value::host).unwrap_or_default(),
        methods: section.list("methods", value::method).unwrap_or_default(),
        policy,
        upstream: upstreams.iter().position(|known| *known == upstream),
    }
}
