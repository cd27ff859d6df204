//! `[[issuers]]`: the trusted issuers besides the gate itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::{Print, Put};
use super::super::value;
use super::introspection::{self, IntrospectionConfig, IntrospectionKind};
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
use rotogate_core::token::claims::CLIENT_PREFIX;
use rotogate_core::token::typ::is_assertion_typ;
use rotogate_core::token::verify::{
    ClaimMapping, EventEffects, OWN, Preset, RequiredClaim, WantedClaim, host_of, is_subject,
};
use rotogate_core::token::{Algorithm, IdJagRules, JwtBearerRules};
use rotogate_kit::config::{Section, Value as Raw, printable};

section! {
    /// An entry of `[[issuers]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TrustedIssuer, read by read_keys(section, others: &[TrustedIssuer], dir: &Path, own: &IssuerConfig) {
        /// Required: The `iss` of the issuer's tokens, compared byte for byte.
        reload url: String = by { read_url(section, others, own) },
        /// Name by which routes refer to the issuer. Default: the host of `url`.
        reload name: String = by { read_name(section, others, &url) },
        /// Name of a known provider, which sets the defaults of `typ`, `claims`, `require` and `max_lifetime`
        /// (docs/issuers.md).
        reload preset: Option<Preset> = get(value::word(&Preset::ALL.map(|preset| (preset.word(), preset)), &[])),
        /// Accepted values of `typ` in a token's header. Add `"JWT"` if access tokens do not have `at+jwt`, and ID
        /// tokens have another audience. `""` accepts tokens without `typ`.
        // Requirement J6.
        reload typ: Vec<String> = by { read_typ(section, preset) },
        /// The files for connections to the issuer's servers.
        reload files as "..": FetchFiles = by { remote::read_files(section, dir) },
        /// The issuer's keys.
        reload keys as "..": KeySource = by { issuer_keys(section, dir, preset, (&name, &url)) },
        /// Which claims the gate reads, and what they mean at the gate.
        reload claims as "..": ClaimMapping = by {
            mapping::read(section, preset.map(Preset::claims).unwrap_or_default())
        },
        /// Scopes that the issuer's tokens may have (`["read"]`). `"any"`: no restriction.
        reload scopes: AllowedScopes = by { allowed_scopes(section) },
        /// true: routes without `issuers` accept tokens of this issuer. false: only routes accept them that name the
        /// issuer: `issuers = ["self", "idp.example.com"]`.
        reload everywhere: bool = get_or(value::boolean, false),
        /// Prefix for subjects of this issuer, such as `"idp|"`; at most 64 characters, with a separator at the end.
        /// Required if users log in with a browser at this issuer, or for `id_jag` and token exchange, unless the gate
        /// has no other users.
        reload subject_prefix: String = get_or(self::subject_prefix, String::new()),
        /// Introspection of opaque tokens, instead of signing keys or in addition to them (docs/issuers.md).
        reload introspection: Option<IntrospectionConfig> = table(|section| introspection::read_keys(section, dir)),
        /// Required, except for a Kuzzle server: Accepted values of `aud`, of which a token must have one.
        reload audience: Vec<String> = by { read_audience(section, introspection.as_ref(), &name) },
        /// Maximum lifetime of a token, from `iat` to `exp`. The gate refuses tokens with a longer lifetime, except those
        /// of a Kuzzle server. Raise it for an issuer without `preset` whose tokens live longer than a day.
        reload max_lifetime: Duration = get_or(
            value::duration_within(SECOND, 366 * DAY),
            if is_kuzzle(introspection.as_ref()) { 366 * DAY } else { preset.map_or(DAY, Preset::max_lifetime) }
        ),
        /// Tolerated difference between the clocks of the issuer and the gate, as in `[issuer]`.
        no_key leeway: Duration = by { own.leeway },
        /// Whether browsers log in at this issuer. This is set later from the endpoint for browsers.
        no_key logs_in_browsers: bool = by { false },
        /// Endpoint for the issuer's logout tokens (OpenID Connect back-channel logout). A logout token invalidates the
        /// issuer's tokens of the user or session.
        reload backchannel_logout: Option<EventsConfig> = table(|section| read_events(section, dir, false)),
        /// Endpoint for the issuer's security events (RFC 8935, docs/logout-events.md).
        reload events: Option<EventsConfig> = table(|section| read_events(section, dir, true)),
        /// Effects of security event types, where they differ from the defaults (`{ "credential-change" = "end" }`).
        /// Each event type in docs/logout-events.md can have the effect `"end"`, `"refresh"` or `"log"`. Set it if an
        /// event must end more, or less, than by default.
        reload on_event as some: EventEffects = by { signals::on_event(section) },
        /// Endpoint for the issuer's global token revocation (Okta's Universal Logout, docs/logout-events.md).
        reload global_revocation: Option<GlobalRevocationConfig> = table(signals::read_global_revocation),
        /// Forms of subject identifiers in the issuer's events and requests that are accepted in addition to `iss` and
        /// `sub`: `"email"`, `"opaque"`. The lookup of an HTTP directory resolves them. Set it for an issuer that names
        /// users only in these forms.
        reload user_names as some: Vec<UserNameForm> = by { signals::user_names(section) },
        /// Accepts the issuer's identity assertions about users (ID-JAG) as grants (docs/clients-without-secrets.md).
        reload id_jag: Option<IdJagRules> = table(grants::read_id_jag),
        /// Accepts the issuer's tokens for workloads (GitHub Actions, Kubernetes) as grants (RFC 7523).
        reload jwt_bearer: Option<JwtBearerRules> = table(grants::read_jwt_bearer),
        /// Claim with the id of the issuer's session. Logout tokens name a session by this id. Set it for an issuer
        /// that uses another claim (Entra ID, Auth0 and Okta with a claim mapping). `""`: tokens have no session.
        reload session_claim: String = get_or(self::session_claim, "sid".to_owned()),
    }
    with {
        /// File with the issuer's JWK set, or with one public key in PEM. The gate reads it again when it changes.
        /// Alternatives: `discovery`, `jwks_url`.
        reload jwks_file: text,
        /// The only accepted signature algorithm (`"RS256"`). Set it if keys in `jwks_file` have no `alg`, or if an RSA
        /// key in PEM is for another algorithm than RS256.
        reload algorithm: text,
        /// true: the gate fetches the keys from the `jwks_uri` in the issuer's discovery document. The document is at
        /// `url` + `/.well-known/openid-configuration` or, if that returns 404, at the URL of RFC 8414. A string: the
        /// URL of the document.
        reload discovery: boolean,
        /// URL of the issuer's JWK set, for an issuer without a discovery document.
        reload jwks_url: text,
        /// How the gate connects to the issuer's servers (`ca`, `client_cert`) and fetches the issuer's keys
        /// (docs/issuers.md).
        reload fetch: table of super::remote::FetchKeys,
        /// true: a new gate does not become ready until it has fetched the issuer's keys once. Set it if a rollout must
        /// wait until the new gates have these keys.
        reload required: boolean,
        /// Claims to read. A claim is a path such as `"realm_access.roles"`. Names that contain dots, colons or slashes
        /// need quotes: `'"https://example.com/roles"'`. `{}` at the end selects the member names of an object. If
        /// several claims are listed, the first one that the token has is used. Its value is a string, except for
        /// `scope` and `roles`.
        reload claims: table,
        /// Claims for scopes. The value is a string with spaces between the scopes, or a list.
        reload scope as "claims.scope": list,
        /// Claims for the client id.
        reload client as "claims.client": list,
        /// Claims for roles. The caller has the roles from all listed claims. A string is one role.
        reload roles as "claims.roles": list,
        /// Claims for the account. The account is `NAME:VALUE`, where `NAME` is the issuer's name.
        reload account as "claims.account": list,
        /// Claims for the subject.
        reload subject as "claims.subject": list,
        /// Maps the issuer's scopes to scopes of the gate, before `scopes` applies: `{ "access_as_user" = "read" }`.
        /// Set it if the issuer cannot issue the scopes that your routes name.
        reload scope_map: table,
        /// Claims that tokens must have, each with its value or a list of allowed values: `{ token_use = "access" }`.
        /// Set it if some users or clients of the issuer must not reach your routes.
        reload require: table,
        /// In a subject, `%` and all characters other than visible ASCII are percent-encoded.
        fixed subject_encoding: text = "percent",
    }
}

section! {
    /// An endpoint to which an issuer sends notices: `backchannel_logout` or `events`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EventsConfig, read by read_events(section, dir: &Path, has_token: bool) {
        /// Path to which the issuer posts.
        reload path: String = required("a path such as \"/logout/idp\"", events_path),
        /// Required: Accepted values of `aud` in the issuer's notices: a client id or a URL by which the issuer knows
        /// this gate.
        reload audience: Vec<String> = by { read_events_audience(section) },
        /// File (0600) with the token that the sender must present. Required in `events`, forbidden in
        /// `backchannel_logout`.
        reload token_file: Option<PathBuf> = by { read_events_token_file(section, dir, has_token) },
    }
}

/// The source of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file with a JWK set (RFC 7517 §5) or one public key in PEM. If an algorithm is given, the gate accepts no
    /// other algorithm.
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

    /// The URLs of the keys, or `None` if the gate does not fetch the keys.
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
    if issuer.is_kuzzle() && above.iter().any(TrustedIssuer::is_kuzzle) {
        section.blame(
            "introspection",
            "names another Kuzzle server; a gate can have only one, because tokens do not name it",
        );
    }
    warn_of_everybody(section, &issuer.url, issuer.preset, &issuer.claims);
    issuer
}

fn read_url(section: &Section<'_>, others: &[TrustedIssuer], own: &IssuerConfig) -> String {
    let url = section.required("url", "the URL of the issuer (`iss`)", value::issuer_url);
    if !url.is_empty() && url == own.url {
        section.blame("url", "is the gate's own issuer, whose tokens are always trusted; remove this entry");
    } else if !url.is_empty() && others.iter().any(|other| other.url == url) {
        section.blame("url", format!("{url} is listed twice; remove one of the two"));
    }
    if url.parse().is_ok_and(|url| value::is_in_clear(&url)) {
        section.blame(
            "url",
            "uses http, so the connection is neither encrypted nor authenticated; expected https, or a loopback \
             address",
        );
    }
    url
}

fn read_name(section: &Section<'_>, others: &[TrustedIssuer], url: &str) -> String {
    let name = section.get_or("name", issuer_name, host_of(url).to_owned());
    if !name.is_empty() && others.iter().any(|other| other.name == name) {
        let hint = if section.has("name") {
            ""
        } else {
            ", because the name is by default the host of `url`; give this issuer a name"
        };
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

/// Issuers at which anybody can create an account.
const OF_EVERYBODY: [(&str, Preset); 2] = [
    ("https://accounts.google.com", Preset::Google),
    ("https://token.actions.githubusercontent.com", Preset::GithubActions),
];

/// Warns about an issuer at which anybody can create an account.
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
            "anybody can have an account at this issuer, and the tokens of all its users are accepted; restrict them \
             with {names} in `require`"
        );
        section.warn(WarningKind::Everybody, "require", message);
    }
}

fn is_kuzzle(introspection: Option<&IntrospectionConfig>) -> bool {
    introspection.is_some_and(|own| own.kind == IntrospectionKind::Kuzzle)
}

impl TrustedIssuer {
    /// Whether the issuer is a Kuzzle server.
    pub fn is_kuzzle(&self) -> bool {
        is_kuzzle(self.introspection.as_ref())
    }
}

/// Tokens of a Kuzzle server have no audience, so any name will do.
fn read_audience(section: &Section<'_>, introspection: Option<&IntrospectionConfig>, name: &str) -> Vec<String> {
    if is_kuzzle(introspection) && !section.has("audience") { vec![name.to_owned()] } else { audience(section) }
}

fn read_events_audience(section: &Section<'_>) -> Vec<String> {
    let audience = section.list_or_empty("audience", value::text);
    if audience.is_empty() && !section.is_bad() {
        section.blame(
            "audience",
            "is missing or empty; expected the name of this gate at the issuer, which is a client id or a URL",
        );
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

/// Reads the bearer token that event senders must present.
pub fn read_event_token(file: &Path) -> Result<SecretString, String> {
    let text = trusted::check_folders(file).and_then(|()| read_private(file))?;
    let token = text.trim();
    match token.len() {
        16.. => Ok(SecretString::from(token.to_owned())),
        _ => Err(format!("{}: the token in this file is too short; expected at least 16 characters", file.display())),
    }
}

pub(super) fn events_path(v: &Raw) -> Result<String, String> {
    value::fitting(v, "a path such as \"/logout/idp\"", |path| {
        path.starts_with('/')
            && path.len() > 1
            && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b))
    })
}

/// An empty string means no claim.
fn session_claim(v: &Raw) -> Result<String, String> {
    if v.as_text() == Some("") { Ok(String::new()) } else { value::text(v) }
}

fn issuer_name(v: &Raw) -> Result<String, String> {
    match v.as_text() {
        Some(OWN) => Err(format!("\"{OWN}\" is the gate's own issuer; expected another name")),
        Some(name) if name.starts_with(CLIENT_PREFIX) => {
            Err(format!("\"{CLIENT_PREFIX}…\" is reserved for the signing keys of clients; expected another name"))
        }
        _ => value::matching(v, "1 to 256 visible ASCII characters", is_subject),
    }
}

fn token_type(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(none) if none.is_empty() => Ok(String::new()),
        Raw::String(typ) if is_assertion_typ(typ.to_ascii_lowercase().trim_start_matches("application/")) => {
            Err(format!("{typ} is the type of assertions, which are not accepted as access tokens"))
        }
        other => value::text(other),
    }
}

fn subject_prefix(v: &Raw) -> Result<String, String> {
    let fits = |text: &str| text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic());
    value::matching(v, "at most 64 visible ASCII characters, such as \"kc|\"", fits)
}

const SOURCES: [&str; 3] = ["discovery", "jwks_url", "jwks_file"];

fn issuer_keys(section: &Section<'_>, dir: &Path, preset: Option<Preset>, named: (&str, &str)) -> KeySource {
    if !SOURCES.iter().any(|key| section.has(key)) && section.has("introspection") {
        if section.get("algorithm", algorithm).is_some() {
            section.blame("algorithm", "has no effect without signing keys; remove it, or add `discovery = true`");
        }
        let _ = remote::read(section, dir, named.0, named.1, None);
        return KeySource::None;
    }
    key_source(section, dir, preset, named)
}

/// Reads the key source of an issuer or a client.
pub(super) fn key_source(
    section: &Section<'_>,
    dir: &Path,
    preset: Option<Preset>,
    (name, url): (&str, &str),
) -> KeySource {
    let is_client = name.starts_with(CLIENT_PREFIX);
    let file = |v: &Raw| match value::text(v)? {
        url if url.contains("://") => {
            Err(format!("expected a file, found the URL {}; write it into `jwks_url` instead", v.describe()))
        }
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
            let expected = "`jwks_file` or `jwks_url`";
            section.blame("jwks_file", format!("missing; expected a source of the signing keys: {expected}"));
        }
        ["discovery"] if is_client => {
            section.blame("discovery", "a client does not have a discovery document; write `jwks_url`");
        }
        [] => {
            let expected = "`discovery = true`, `jwks_url` or `jwks_file`; for opaque tokens, `introspection`";
            section.blame("discovery", format!("missing; expected a source of the signing keys: {expected}"));
        }
        ["jwks_file"] if algorithm.is_some_and(|algorithm| algorithm.family() == Family::Hmac) => {
            section.blame(
                "algorithm",
                "is an algorithm with a shared secret, but the keys in `jwks_file` are public; expected an algorithm \
                 with a public key",
            );
        }
        [_] => {}
        [first, second, ..] => {
            section.blame(second, format!("conflicts with `{first}`; expected only one source of signing keys"));
        }
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
                "no route accepts its tokens; write `issuers = [\"{OWN}\", \"{name}\"]` in the `[[routes]]` that \
                 should, or `everywhere = true` here"
            );
            section.blame("url", message);
        }
    }
}
