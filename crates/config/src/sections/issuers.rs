//! `[[issuers]]`: the trusted issuers besides the gate itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::{Print, Put};
use super::super::value;
use super::introspection::{self, IntrospectionConfig};
use super::issuer::{IssuerConfig, algorithm, audience};
use super::mapping::{AllowedScopes, allowed_scopes};
use super::remote::RemoteSource;
use super::signals::GlobalRevocationConfig;
use super::{DAY, EndpointConfig, SECOND, grants, mapping, path_in, remote, signals};
use crate::Config;
use rotogate::remote_keys::FetchFiles;
use rotogate_core::client::ExchangeRules;
use rotogate_core::directory::UserNameForm;
use rotogate_core::private_file::{read_private, trusted};
use rotogate_core::route::{Auth, Route, WarningKind};
use rotogate_core::token::algorithm::Family;
use rotogate_core::token::assertion::is_assertion_typ;
use rotogate_core::token::claims::CLIENT_PREFIX;
use rotogate_core::token::verify::{
    ClaimMapping, EventEffects, OWN, Preset, RequiredClaim, WantedClaim, host_of, is_subject,
};
use rotogate_core::token::{Algorithm, IdJagRules, JwtBearerRules};
use rotogate_kit::config::{Section, Value as Raw, printable};

section! {
    /// An entry of `[[issuers]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TrustedIssuer, read by read_keys(section, others: &[TrustedIssuer], dir: &Path, own: &IssuerConfig) {
        /// Required: The `iss` of its tokens, compared byte for byte.
        reload url: String = by { read_url(section, others, own) },
        /// Name for routes. Default: the host of `url`.
        reload name: String = by { read_name(section, others, &url) },
        /// Known provider, which sets `typ`, `claims`, `require` and `max_lifetime`; keys of the entry take
        /// precedence (docs/issuers.md).
        reload preset: Option<Preset> = get(value::word(&Preset::ALL.map(|preset| (preset.word(), preset)), &[])),
        /// Accepted values of `typ`. Add `"JWT"` if access tokens are not `at+jwt` and ID tokens have another
        /// audience. `""`: no `typ`.
        // Requirement J6.
        reload typ: Vec<String> = by { read_typ(section, preset) },
        /// The files for connections to the issuer's servers.
        reload files as "..": FetchFiles = by { remote::read_files(section, dir) },
        /// The issuer's keys.
        reload keys as "..": KeySource = by { issuer_keys(section, dir, preset, (&name, &url)) },
        /// Claims to read, and their meaning at the gate.
        reload claims as "..": ClaimMapping = by {
            mapping::read(section, preset.map(Preset::claims).unwrap_or_default())
        },
        /// Scopes that the issuer's tokens may have (`["read"]`). `"any"`: no restriction.
        reload scopes: AllowedScopes = by { allowed_scopes(section) },
        /// true: routes without `issuers` accept tokens of this issuer. false: only routes that name the issuer do:
        /// `issuers = ["self", "idp.example.com"]`.
        reload everywhere: bool = get_or(value::boolean, false),
        /// Prefix for its subjects, such as `"idp|"`, at most 64 characters, with a separator at the end. Required if
        /// browsers log in there, or for `id_jag` and exchanges, unless the gate has no other users.
        reload subject_prefix: String = get_or(self::subject_prefix, String::new()),
        /// Required: Accepted values of `aud`, one or several.
        reload audience: Vec<String> = by { self::audience(section) },
        /// Introspection of opaque tokens, instead of keys or in addition to them (docs/issuers.md).
        reload introspection: Option<IntrospectionConfig> = table(|section| introspection::read_keys(section, dir)),
        /// Longest lifetime of a token, from `iat` to `exp`; a token with a longer one is refused. Raise it for an
        /// issuer without `preset` whose tokens live longer than a day.
        reload max_lifetime: Duration = get_or(
            value::duration_within(SECOND, 366 * DAY),
            preset.map_or(DAY, Preset::max_lifetime)
        ),
        /// Tolerated clock difference: that of `[issuer]`.
        no_key leeway: Duration = by { own.leeway },
        /// Whether browsers log in at this issuer. This is set later from the endpoint for browsers.
        no_key logs_in_browsers: bool = by { false },
        /// Endpoint for the issuer's logout tokens (OpenID Connect back-channel logout), which end its tokens.
        reload backchannel_logout: Option<EventsConfig> = table(|section| read_events(section, dir, false)),
        /// Endpoint for its security events (RFC 8935): docs/logout-events.md.
        reload events: Option<EventsConfig> = table(|section| read_events(section, dir, true)),
        /// Effects of the issuer's security events, where they differ from the defaults (`{ "credential-change" = "end"
        /// }`): `"end"`, `"refresh"` or `"log"` for a type in docs/logout-events.md. Set it if an event must end more,
        /// or less, than the default does.
        reload on_event as some: EventEffects = by { signals::on_event(section) },
        /// Endpoint for its global token revocation (Okta's Universal Logout): docs/logout-events.md.
        reload global_revocation: Option<GlobalRevocationConfig> = table(signals::read_global_revocation),
        /// Forms of subject identifiers in the issuer's events and requests that are accepted in addition to `iss` and
        /// `sub`: `"email"`, `"opaque"`. The lookup of an HTTP directory resolves them. Set it for an issuer that names
        /// users only in these forms.
        reload user_names as some: Vec<UserNameForm> = by { signals::user_names(section) },
        /// Accepts its identity assertions about users (ID-JAG) as grants: docs/clients-without-secrets.md.
        reload id_jag: Option<IdJagRules> = table(grants::read_id_jag),
        /// Accepts its tokens for workloads (GitHub Actions, Kubernetes) as grants (RFC 7523).
        reload jwt_bearer: Option<JwtBearerRules> = table(grants::read_jwt_bearer),
        /// Claim with the id of the issuer's session, by which logout tokens name the session. Set it for an issuer
        /// that uses another claim (Entra ID, Auth0 and Okta with a claim mapping). `""`: tokens have no session.
        reload session_claim: String = get_or(self::session_claim, "sid".to_owned()),
    }
    with {
        /// File with the issuer's JWK set, or with one public key in PEM; read again when it changes. Alternatives:
        /// `discovery`, `jwks_url`.
        reload jwks_file: text,
        /// Only accepted algorithm (`"RS256"`). Set it for keys of `jwks_file` without `alg`, and for an RSA key in PEM
        /// with another algorithm than RS256.
        reload algorithm: text,
        /// true: the keys are at the `jwks_uri` of the discovery document, at `url` +
        /// `/.well-known/openid-configuration`, or after a 404 at the URL of RFC 8414. A string: the URL of that
        /// document.
        reload discovery: boolean,
        /// URL of its JWK set, without discovery.
        reload jwks_url: text,
        /// How the gate connects to the issuer's servers (`ca`, `client_cert`) and fetches keys: docs/issuers.md.
        reload fetch: table of super::remote::FetchKeys,
        /// true: the gate is not ready until it has fetched the keys once. Set it if a rollout must not replace gates
        /// by new gates that have no keys yet.
        reload required: boolean,
        /// Claims to read. A claim is a path such as `"realm_access.roles"`, with quotes around names with dots, colons
        /// or slashes: `'"https://example.com/roles"'`. `{}` at the end: the names of an object's members. If several
        /// claims are listed, the first one that the token has is used. Its value is a string, except for `scope` and
        /// `roles`.
        reload claims: table,
        /// Claims for scopes. The value is a string with spaces between the scopes, or a list.
        reload scope as "claims.scope": list,
        /// Claims for the client id.
        reload client as "claims.client": list,
        /// Claims for roles. The roles of all listed claims count; a string is one role.
        reload roles as "claims.roles": list,
        /// Claims for the account, which is `NAME:VALUE` with the issuer's name.
        reload account as "claims.account": list,
        /// Claims for the subject.
        reload subject as "claims.subject": list,
        /// Maps the issuer's scopes to scopes of the gate, before `scopes` applies: `{ "access_as_user" = "read" }`.
        /// Set it if the issuer cannot write the scopes that your routes name.
        reload scope_map: table,
        /// Claims that tokens must have, each with its value or a list of allowed values: `{ token_use = "access" }`.
        /// Set it if the issuer has users or clients that must not reach your routes.
        reload require: table,
        /// Characters of a subject other than visible ASCII, and `%`, are percent-encoded.
        fixed subject_encoding: text = "percent",
    }
}

section! {
    /// An endpoint at which an issuer sends notices: `backchannel_logout` or `events`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EventsConfig, read by read_events(section, dir: &Path, has_token: bool) {
        /// Path to which the issuer posts.
        reload path: String = required("a path such as \"/logout/idp\"", events_path),
        /// Required: Names by which the issuer knows this gate: a client id, or a URL. A notice must name one of them.
        reload audience: Vec<String> = by { read_events_audience(section) },
        /// File with the sender's token (0600). Required in `events`, forbidden in `backchannel_logout`.
        reload token_file: Option<PathBuf> = by { read_events_token_file(section, dir, has_token) },
    }
}

/// The source of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file with a JWK set (RFC 7517 §5) or one public key in PEM, and the only accepted algorithm, if one is
    /// configured.
    File(PathBuf, Option<Algorithm>),
    /// No keys, because all tokens are introspected.
    None,
    /// A JWK set that is fetched.
    Remote(Box<RemoteSource>),
}

impl KeySource {
    /// The configuration key and the file, if the keys are in a file.
    pub fn file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::File(path, _) => Some(("jwks_file", path)),
            Self::Remote(_) | Self::None => None,
        }
    }

    /// Whether all tokens are introspected.
    pub(super) const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The source of fetched keys, if the keys are fetched.
    pub fn remote(&self) -> Option<&RemoteSource> {
        match self {
            Self::Remote(source) => Some(source),
            Self::File(..) | Self::None => None,
        }
    }
}

impl Print for Preset {
    fn print(&self) -> Value {
        self.word().into()
    }
}

impl Print for FetchFiles {
    /// Prints the part of `fetch` that also applies to introspection. If keys are fetched, their own table replaces it.
    fn print(&self) -> Value {
        let mut fetch = Table::new();
        self.ca.put(&mut fetch, "ca");
        self.client_cert.put(&mut fetch, "client_cert");
        let of_issuer = (!fetch.is_empty()).then(|| ("fetch".to_owned(), fetch.into()));
        Table::from_iter(of_issuer).into()
    }
}

impl Print for KeySource {
    fn print(&self) -> Value {
        let mut table = Table::new();
        match self {
            Self::File(file, algorithm) => {
                file.put(&mut table, "jwks_file");
                algorithm.put(&mut table, "algorithm");
            }
            Self::None => {}
            Self::Remote(source) => remote::print(&mut table, source),
        }
        table.into()
    }
}

pub(super) fn read(section: &Section<'_>, above: &[TrustedIssuer], dir: &Path, own: &IssuerConfig) -> TrustedIssuer {
    let issuer = read_keys(section, above, dir, own);
    warn_of_everybody(section, &issuer.url, issuer.preset, &issuer.claims);
    issuer
}

fn read_url(section: &Section<'_>, others: &[TrustedIssuer], own: &IssuerConfig) -> String {
    let url = section.required("url", "the issuer (iss)", value::issuer_url);
    if !url.is_empty() && url == own.url {
        section.blame("url", "is the gate's own issuer, whose tokens are always trusted; remove this entry");
    } else if !url.is_empty() && others.iter().any(|other| other.url == url) {
        section.blame("url", format!("{url} is listed twice; remove one of the two"));
    }
    if url.parse().is_ok_and(|url| value::is_in_clear(&url)) {
        section.blame(
            "url",
            "is http: the connection is neither encrypted nor authenticated; expected https, or a loopback address",
        );
    }
    url
}

fn read_name(section: &Section<'_>, others: &[TrustedIssuer], url: &str) -> String {
    let name = section.get_or("name", issuer_name, host_of(url).to_owned());
    if !name.is_empty() && others.iter().any(|other| other.name == name) {
        let hint = if section.has("name") { "" } else { ", because it is the host of url; give this one a name" };
        section.blame("name", format!("\"{name}\" is listed twice{hint}"));
    }
    name
}

fn read_typ(section: &Section<'_>, preset: Option<Preset>) -> Vec<String> {
    let typ = section.one_or_list("typ", token_type);
    if typ.as_ref().is_some_and(Vec::is_empty) {
        section.blame("typ", "is empty; expected at least one type, such as \"at+jwt\"");
    }
    typ.unwrap_or_else(|| match preset {
        Some(preset) => preset.typ().map(str::to_owned).collect(),
        None => vec!["at+jwt".to_owned()],
    })
}

/// Issuers at which anybody can have an account. Their presets require a restriction.
const OF_EVERYBODY: [(&str, Preset); 2] = [
    ("https://accounts.google.com", Preset::Google),
    ("https://token.actions.githubusercontent.com", Preset::GithubActions),
];

/// Warns about an issuer at which anybody can have an account, if its preset is not used. Only the preset requires a
/// restriction.
// Requirement I60.
fn warn_of_everybody(section: &Section<'_>, url: &str, preset: Option<Preset>, claims: &ClaimMapping) {
    let is_its = |(known, _): &&(&str, Preset)| url.trim_end_matches('/') == *known;
    let Some((_, own)) = OF_EVERYBODY.iter().find(is_its).filter(|(_, own)| preset != Some(*own)) else { return };
    let asked = own.claims().require.into_iter().filter(|asked| asked.wanted.is_open()).map(|asked| asked.path);
    let asked: Vec<_> = asked.collect();
    let restricts = |one: &RequiredClaim| asked.contains(&one.path) && matches!(one.wanted, WantedClaim::OneOf(_));
    if !claims.require.iter().any(restricts) {
        let names = asked.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        let message = format!(
            "any person can have an account at this issuer, and tokens of all its users pass: write {names} into require"
        );
        section.warn(WarningKind::Everybody, "require", message);
    }
}

fn read_events_audience(section: &Section<'_>) -> Vec<String> {
    let audience = section.list_or_empty("audience", value::text);
    if audience.is_empty() && !section.is_bad() {
        section
            .blame("audience", "is missing or empty; expected what the issuer calls this gate: a client id, or a URL");
    }
    audience
}

fn read_events_token_file(section: &Section<'_>, dir: &Path, has_token: bool) -> Option<PathBuf> {
    if !has_token {
        return None;
    }
    let file = section.require("token_file", "the file with the sender's token", path_in(dir));
    if let Some(file) = &file
        && !section.is_bad()
        && let Err(message) = read_event_token(file)
    {
        section.blame("token_file", message);
    }
    file
}

/// Reads the file with the token that a sender of events must present.
pub fn read_event_token(file: &Path) -> Result<SecretString, String> {
    let text = trusted::check_folders(file).and_then(|()| read_private(file))?;
    let token = text.trim();
    match token.len() {
        16.. => Ok(SecretString::from(token.to_owned())),
        _ => Err(format!("{}: a token of at least 16 characters is needed", file.display())),
    }
}

pub(super) fn events_path(v: &Raw) -> Result<String, String> {
    value::fitting(v, "a path such as \"/logout/idp\"", |path| {
        path.starts_with('/')
            && path.len() > 1
            && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b))
    })
}

/// Reads a claim, or "" for none.
fn session_claim(v: &Raw) -> Result<String, String> {
    if v.as_text() == Some("") { Ok(String::new()) } else { value::text(v) }
}

fn issuer_name(v: &Raw) -> Result<String, String> {
    match v.as_text() {
        Some(OWN) => Err(format!("\"{OWN}\" is the gate's own issuer; expected another name")),
        Some(name) if name.starts_with(CLIENT_PREFIX) => {
            Err(format!("\"{CLIENT_PREFIX}…\" names the keys of a client; expected another name"))
        }
        _ => value::matching(v, "1 to 256 visible ASCII characters", is_subject),
    }
}

/// Reads a `typ`, or "" for tokens that have none.
fn token_type(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(none) if none.is_empty() => Ok(String::new()),
        Raw::String(typ) if is_assertion_typ(typ.to_ascii_lowercase().trim_start_matches("application/")) => {
            Err(format!("{typ} is the type of assertions, which cannot be used as tokens"))
        }
        other => value::text(other),
    }
}

fn subject_prefix(v: &Raw) -> Result<String, String> {
    let fits = |text: &str| text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic());
    value::matching(v, "at most 64 visible ASCII characters, such as \"kc|\"", fits)
}

/// The keys of `[[issuers]]` that name a source of keys. Exactly one of them must be present.
const SOURCES: [&str; 3] = ["discovery", "jwks_url", "jwks_file"];

fn issuer_keys(section: &Section<'_>, dir: &Path, preset: Option<Preset>, named: (&str, &str)) -> KeySource {
    if !SOURCES.iter().any(|key| section.has(key)) && section.has("introspection") {
        if section.get("algorithm", algorithm).is_some() {
            section.blame("algorithm", "is of no use without keys; remove it, or add discovery = true");
        }
        let _ = remote::read(section, dir, named.0, named.1, None);
        return KeySource::None;
    }
    key_source(section, dir, preset, named)
}

/// Reads the source of the keys of an issuer or a client. A client has no discovery document.
pub(super) fn key_source(
    section: &Section<'_>,
    dir: &Path,
    preset: Option<Preset>,
    (name, url): (&str, &str),
) -> KeySource {
    let is_client = name.starts_with(CLIENT_PREFIX);
    let file = |v: &Raw| match value::text(v)? {
        url if url.contains("://") => Err(format!("expected a file, found the URL {}; write jwks_url", v.describe())),
        _ => path_in(dir)(v),
    };
    let jwks = section.get("jwks_file", file);
    // If the entry names no algorithm, the preset's algorithm applies to keys without `alg`.
    let written = if is_client { None } else { section.get("algorithm", algorithm) };
    let algorithm = written.or(preset.and_then(Preset::algorithm));
    let remote = remote::read(section, dir, name, url, algorithm);
    let named: Vec<_> = SOURCES.into_iter().filter(|key| section.has(key)).collect();
    match *named.as_slice() {
        [] if is_client => {
            let expected = "jwks_file or jwks_url";
            section.blame("jwks_file", format!("missing; the keys have no source: expected {expected}"));
        }
        ["discovery"] if is_client => section.blame("discovery", "a client has no discovery document; write jwks_url"),
        [] => {
            let expected = "discovery = true, jwks_url or jwks_file; for opaque tokens, introspection";
            section.blame("discovery", format!("missing; the keys have no source: expected {expected}"));
        }
        ["jwks_file"] if algorithm.is_some_and(|algorithm| algorithm.family() == Family::Hmac) => {
            section.blame("algorithm", "is a shared-secret algorithm, and a public key is not secret");
        }
        [_] => {}
        [first, second, ..] => section.blame(second, format!("conflicts with {first}; expected one source of keys")),
    }
    remote.map_or_else(
        || KeySource::File(jwks.unwrap_or_default(), algorithm),
        |source| KeySource::Remote(Box::new(source)),
    )
}

/// Reports an issuer whose tokens no route accepts, because this is probably a mistake.
pub(super) fn check_used(sections: &[Section<'_>], config: &Config) {
    let Config { issuers, routes, endpoints, clients, .. } = config;
    for (section, issuer) in sections.iter().zip(issuers) {
        let is_exchanged = |rules: &ExchangeRules| rules.issuers.iter().any(|name| **name == *issuer.name);
        if clients.iter().filter_map(|client| client.exchange.as_ref()).any(is_exchanged) {
            continue;
        }
        let is_let_in = |route: &Route| {
            matches!(route.policy.auth, Auth::Required | Auth::Optional)
                && route.policy.takes(&issuer.name, issuer.everywhere)
        };
        let is_behind = |endpoint: &EndpointConfig| {
            let logs_in = endpoint.browser.as_ref().and_then(|browser| browser.provider.as_deref());
            [endpoint.relayed_issuer(), logs_in].contains(&Some(issuer.name.as_str()))
        };
        let grants = issuer.id_jag.is_some() || issuer.jwt_bearer.is_some() || issuer.global_revocation.is_some();
        let is_used = routes.iter().any(is_let_in) || endpoints.iter().any(is_behind) || grants;
        if !section.is_bad() && !routes.is_empty() && !is_used {
            let name = printable(&issuer.name);
            let message = format!(
                "no route accepts its tokens; write issuers = [\"{OWN}\", \"{name}\"] at the [[routes]] that should, or \
                 everywhere = true here"
            );
            section.blame("url", message);
        }
    }
}
