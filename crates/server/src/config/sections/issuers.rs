//! `[[issuers]]`: the issuers that are trusted besides our own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use secrecy::SecretString;
use toml::{Table, Value};

use super::super::print::{Print, path, put, put_some, texts, time};
use super::super::raw::{Section, Value as Raw, printable};
use super::super::value;
use super::EndpointConfig;
use super::introspection::{self, IntrospectionConfig};
use super::issuer::{IssuerConfig, algorithm, audience, leeway};
use super::remote::RemoteSource;
use super::{DAY, SECOND, mapping, path_in, remote};
use rotogate_core::private_file::{read_private, trusted};
use rotogate_core::route::{Auth, Route, WarningKind};
use rotogate_core::session::Scope;
use rotogate_core::token::Algorithm;
use rotogate_core::token::algorithm::Family;
use rotogate_core::token::assertion::ASSERTION_TYP;
use rotogate_core::token::verify::{AllowedScopes, ClaimMapping, OWN, Preset, RequiredClaim, WantedClaim, host_of};

/// An entry of `[[issuers]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// The name that routes use; the host of `url` by default.
    pub name: String,
    /// `iss`, exactly.
    pub url: String,
    /// The scopes that its tokens may carry here.
    pub scopes: AllowedScopes,
    /// Whether routes without `issuers` accept its tokens.
    pub everywhere: bool,
    /// The prefix of its subjects.
    pub subject_prefix: String,
    /// The provider, from which keys that are not written have their values.
    pub preset: Option<Preset>,
    /// Which of its claims are read, and what they mean here.
    pub claims: ClaimMapping,
    /// The accepted `aud` values; at least one.
    pub audience: Vec<String>,
    /// Its keys.
    pub keys: KeySource,
    /// How it is asked about opaque tokens, if it is.
    pub introspection: Option<IntrospectionConfig>,
    /// The accepted `typ` values (requirement J6).
    pub typ: Vec<String>,
    /// The longest accepted `exp` − `iat`.
    pub max_lifetime: Duration,
    /// The allowed clock difference.
    pub leeway: Duration,
    /// Where its logout tokens come (OpenID Connect back-channel logout).
    pub backchannel_logout: Option<EventsConfig>,
    /// Where its security events come (RFC 8935).
    pub events: Option<EventsConfig>,
    /// The claim with its session; empty: none.
    pub session_claim: String,
}

/// The source of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK set (RFC 7517 §5), and the only accepted algorithm, if one is named.
    Jwks(PathBuf, Option<Algorithm>),
    /// One public key in PEM, and its algorithm.
    PublicKey(PathBuf, Algorithm),
    /// None: all its tokens are introspected.
    None,
    /// A JWK set that is fetched.
    Remote(Box<RemoteSource>),
}

impl KeySource {
    /// The key that names it, and its file, if it is in one.
    pub fn file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::Jwks(path, _) => Some(("jwks_file", path)),
            Self::PublicKey(path, _) => Some(("public_key", path)),
            Self::Remote(_) | Self::None => None,
        }
    }

    /// The keys that are fetched.
    pub fn remote(&self) -> Option<&RemoteSource> {
        match self {
            Self::Remote(source) => Some(source),
            Self::Jwks(..) | Self::PublicKey(..) | Self::None => None,
        }
    }
}

/// The defaults of an entry.
impl TrustedIssuer {
    const MAX_LIFETIME: Duration = DAY;
    const TYP: &str = "at+jwt";
}

pub(super) fn read(sections: &[Section<'_>], dir: &Path, own: &IssuerConfig) -> Vec<TrustedIssuer> {
    let mut issuers: Vec<TrustedIssuer> = Vec::new();
    for section in sections {
        let url = section.require("url", "the issuer (iss)", value::issuer_url).unwrap_or_default();
        if !url.is_empty() && url == own.url {
            section.blame("url", "is our own issuer, whose tokens are always trusted; remove this entry");
        } else if !url.is_empty() && issuers.iter().any(|other| other.url == url) {
            section.blame("url", format!("{url} is listed twice; remove one of the two"));
        }
        if is_plain(&url) {
            section.blame(
                "url",
                "is http: the connection is neither encrypted nor authenticated; expected https, or a loopback address",
            );
        }
        let name = section.get("name", issuer_name).unwrap_or_else(|| host_of(&url).to_owned());
        if !name.is_empty() && issuers.iter().any(|other| other.name == name) {
            let hint = if section.has("name") { "" } else { ", because it is the host of url; give this one a name" };
            section.blame("name", format!("\"{name}\" is listed twice{hint}"));
        }
        let preset = section.get("preset", value::word(&Preset::ALL.map(|preset| (preset.word(), preset)), &[]));
        let typ = section.one_or_list("typ", token_type);
        if typ.as_ref().is_some_and(Vec::is_empty) {
            section.blame("typ", "is empty; expected at least one type, such as \"at+jwt\"");
        }
        let keys = issuer_keys(section, dir, preset, &name, &url);
        let claims = mapping::read(section, preset.map(Preset::claims).unwrap_or_default());
        warn_of_everybody(section, &url, preset, &claims);
        issuers.push(TrustedIssuer {
            name,
            url,
            scopes: allowed_scopes(section),
            everywhere: section.get("everywhere", value::boolean).unwrap_or(false),
            subject_prefix: section.get("subject_prefix", subject_prefix).unwrap_or_default(),
            preset,
            claims,
            audience: audience(section),
            keys,
            introspection: introspection::read(section, dir),
            typ: typ.unwrap_or_else(|| match preset {
                Some(preset) => preset.typ().map(str::to_owned).collect(),
                None => vec![TrustedIssuer::TYP.to_owned()],
            }),
            max_lifetime: section
                .get("max_lifetime", value::duration_within(SECOND, 366 * DAY))
                .or(preset.map(Preset::max_lifetime))
                .unwrap_or(TrustedIssuer::MAX_LIFETIME),
            leeway: leeway(section, own.leeway),
            backchannel_logout: section
                .has("backchannel_logout")
                .then(|| events(&section.section("backchannel_logout"), dir, false))
                .flatten(),
            events: section.has("events").then(|| events(&section.section("events"), dir, true)).flatten(),
            session_claim: section.get("session_claim", session_claim).unwrap_or_else(|| "sid".to_owned()),
        });
        section.finish();
    }
    issuers
}

/// Issuers that serve everybody. Their own preset asks for a restriction.
const OF_EVERYBODY: [(&str, Preset); 2] = [
    ("https://accounts.google.com", Preset::Google),
    ("https://token.actions.githubusercontent.com", Preset::GithubActions),
];

/// Without that preset, nothing but this asks for a restriction.
// Requirement I60.
fn warn_of_everybody(section: &Section<'_>, url: &str, preset: Option<Preset>, claims: &ClaimMapping) {
    let is_its = |(known, _): &&(&str, Preset)| url.trim_end_matches('/') == *known;
    let Some((_, own)) = OF_EVERYBODY.iter().find(is_its).filter(|(_, own)| preset != Some(*own)) else { return };
    let asked = own.claims().require.into_iter().filter(|asked| asked.wanted.is_open()).map(|asked| asked.path);
    let asked: Vec<_> = asked.collect();
    let restricts = |one: &RequiredClaim| asked.contains(&one.path) && matches!(one.wanted, WantedClaim::OneOf(_));
    if !claims.require.iter().any(restricts) {
        let names = asked.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        let message =
            format!("this issuer serves everybody, and tokens of all its users pass: write {names} into require");
        section.warn(WarningKind::Everybody, "require", message);
    }
}

/// An endpoint for notices of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsConfig {
    /// Its path.
    pub path: String,
    /// Of these, a notice must name one.
    pub audience: Vec<String>,
    /// The file with the token of the sender.
    pub token_file: Option<PathBuf>,
}

/// `backchannel_logout` and `events`.
fn events(section: &Section<'_>, dir: &Path, has_token: bool) -> Option<EventsConfig> {
    let path = section.require("path", "a path such as \"/logout/idp\"", events_path);
    let audience = section.list("audience", value::text).unwrap_or_default();
    if audience.is_empty() && !section.is_bad() {
        section
            .blame("audience", "is missing or empty; expected what the issuer calls this gate: a client id, or a URL");
    }
    let token_file = match has_token {
        true => section.require("token_file", "the file with the sender's token", path_in(dir)),
        false => None,
    };
    if let Some(file) = &token_file
        && !section.is_bad()
        && let Err(message) = read_event_token(file)
    {
        section.blame("token_file", message);
    }
    section.finish();
    Some(EventsConfig { path: path?, audience, token_file })
}

/// The token of a sender of events.
pub(crate) fn read_event_token(file: &Path) -> Result<SecretString, String> {
    let text = trusted::check_folders(file).and_then(|()| read_private(file))?;
    let token = text.trim();
    match token.len() {
        16.. => Ok(SecretString::from(token.to_owned())),
        _ => Err(format!("{}: a token of at least 16 characters is needed", file.display())),
    }
}

fn events_path(v: &Raw) -> Result<String, String> {
    let path = value::text(v)?;
    let is_plain = path.starts_with('/')
        && path.len() > 1
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b));
    if is_plain { Ok(path) } else { Err(format!("expected a path such as \"/logout/idp\", found {}", v.describe())) }
}

/// A claim, or "" for none.
fn session_claim(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(none) | Raw::Env(none) if none.is_empty() => Ok(String::new()),
        other => value::text(other),
    }
}

/// Is it an http URL of another machine?
fn is_plain(url: &str) -> bool {
    let Some(uri) = url.parse::<Uri>().ok().filter(|uri| uri.scheme() == Some(&Scheme::HTTP)) else { return false };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    !(host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

fn issuer_name(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(name) | Raw::Env(name) if name == OWN => {
            Err(format!("\"{OWN}\" is our own issuer; expected another name"))
        }
        Raw::String(name) | Raw::Env(name)
            if (1..=256).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Ok(name.clone())
        }
        other => Err(format!("expected 1 to 256 visible ASCII characters, found {}", other.describe())),
    }
}

/// A `typ`, or "" for tokens that have none.
fn token_type(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(none) if none.is_empty() => Ok(String::new()),
        Raw::String(typ) if typ.to_ascii_lowercase().trim_start_matches("application/") == ASSERTION_TYP => {
            Err("identity+jwt is for assertions, which tell one upstream who called: they are no tokens".to_owned())
        }
        other => value::text(other),
    }
}

fn subject_prefix(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(text) | Raw::Env(text) if text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(text.clone())
        }
        other => {
            Err(format!("expected at most 64 visible ASCII characters, such as \"kc|\", found {}", other.describe()))
        }
    }
}

/// A list, or "any", which must be written: another issuer's scopes do not mean what ours mean.
fn allowed_scopes(section: &Section<'_>) -> AllowedScopes {
    const ANY: &str = "any";
    let is_any = |v: &Raw| matches!(v, Raw::String(word) | Raw::Env(word) if word == ANY);
    if section.get("scopes", |v| Ok(is_any(v))) == Some(true) {
        return AllowedScopes::Any;
    }
    let listed = section.list("scopes", value::scope).unwrap_or_default();
    let joined = listed.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
    AllowedScopes::Only(Scope::parse(&joined).unwrap_or_default())
}

/// The keys of `[[issuers]]` that name a source of keys. Exactly one of them is there.
const SOURCES: [&str; 4] = ["discovery", "jwks_url", "jwks_file", "public_key"];

fn issuer_keys(section: &Section<'_>, dir: &Path, preset: Option<Preset>, name: &str, url: &str) -> KeySource {
    let file = |v: &Raw| match value::text(v)? {
        url if url.contains("://") => Err(format!("expected a file, found the URL {}; write jwks_url", v.describe())),
        _ => path_in(dir)(v),
    };
    let jwks = section.get("jwks_file", file);
    let public_key = section.get("public_key", file);
    let written = section.get("algorithm", algorithm);
    // The algorithm of keys without `alg`, if only the preset names one.
    let algorithm = written.or(preset.and_then(Preset::algorithm));
    let remote = remote::read(section, dir, name, url, algorithm);
    let named: Vec<_> = SOURCES.into_iter().filter(|key| section.has(key)).collect();
    match *named.as_slice() {
        [] if section.has("introspection") => {
            if section.has("algorithm") {
                section.blame("algorithm", "is of no use without keys; remove it, or add discovery = true");
            }
            return KeySource::None;
        }
        [] => {
            let expected =
                "discovery = true, jwks_url, jwks_file, or public_key with algorithm; for opaque tokens, introspection";
            section.blame("discovery", format!("missing; the keys have no source: expected {expected}"));
        }
        ["public_key"] if !section.has("algorithm") => {
            section.blame("algorithm", "missing; a public_key needs it, because the key fixes the algorithm");
        }
        ["public_key"] if written.is_some_and(|a| a.family() == Family::Hmac) => {
            section.blame("algorithm", "is a shared-secret algorithm, and a public key is not secret");
        }
        [_] => {}
        [first, second, ..] => section.blame(second, format!("conflicts with {first}; expected one source of keys")),
    }
    match (remote, public_key) {
        (Some(source), _) => KeySource::Remote(Box::new(source)),
        (None, Some(file)) => KeySource::PublicKey(file, written.unwrap_or(Algorithm::EdDsa)),
        (None, None) => KeySource::Jwks(jwks.unwrap_or_default(), algorithm),
    }
}

/// Blames an issuer whose tokens no route accepts: probably a route should.
pub(super) fn check_used(
    sections: &[Section<'_>],
    issuers: &[TrustedIssuer],
    routes: &[Route],
    endpoints: &[EndpointConfig],
) {
    for (section, issuer) in sections.iter().zip(issuers) {
        let is_let_in = |route: &Route| {
            matches!(route.policy.auth, Auth::Required | Auth::Optional)
                && route.policy.takes(&issuer.name, issuer.everywhere)
        };
        let is_relayed = |issuer: &TrustedIssuer| {
            endpoints.iter().any(|endpoint| endpoint.relayed_issuer() == Some(issuer.name.as_str()))
        };
        if !section.is_bad() && !routes.is_empty() && !routes.iter().any(is_let_in) && !is_relayed(issuer) {
            let name = printable(&issuer.name);
            let message = format!(
                "no route accepts its tokens; write issuers = [\"{OWN}\", \"{name}\"] at the [[routes]] that should, or \
                 everywhere = true here"
            );
            section.blame("url", message);
        }
    }
}

pub(super) fn print(issuer: &TrustedIssuer) -> Value {
    let TrustedIssuer {
        name,
        url,
        audience,
        scopes,
        everywhere,
        subject_prefix,
        preset,
        claims,
        keys,
        introspection,
        typ,
        max_lifetime,
        leeway,
        backchannel_logout,
        events,
        session_claim,
    } = issuer;
    let mut table = Table::new();
    put(&mut table, "name", name.as_str());
    let scopes = match scopes {
        AllowedScopes::Any => "any".into(),
        AllowedScopes::Only(scopes) => texts(&scopes.iter().collect::<Vec<_>>()),
    };
    put(&mut table, "scopes", scopes);
    put(&mut table, "everywhere", *everywhere);
    put(&mut table, "subject_prefix", subject_prefix.as_str());
    put_some(&mut table, "preset", preset.map(Preset::word));
    mapping::print(&mut table, claims);
    put(&mut table, "url", url.as_str());
    put(&mut table, "audience", texts(audience));
    match keys {
        KeySource::Jwks(file, algorithm) => {
            put(&mut table, "jwks_file", path(file));
            put_some(&mut table, "algorithm", algorithm.map(|algorithm| algorithm.name()));
        }
        KeySource::PublicKey(file, algorithm) => {
            put(&mut table, "public_key", path(file));
            put(&mut table, "algorithm", algorithm.name());
        }
        KeySource::None => {}
        KeySource::Remote(source) => remote::print(&mut table, source),
    }
    put_some(&mut table, "introspection", introspection.as_ref().map(Print::print));
    put(&mut table, "typ", texts(typ));
    put(&mut table, "max_lifetime", time(*max_lifetime));
    put(&mut table, "leeway", time(*leeway));
    put(&mut table, "session_claim", session_claim.as_str());
    for (key, config) in [("backchannel_logout", backchannel_logout), ("events", events)] {
        if let Some(EventsConfig { path: at, audience, token_file }) = config {
            let mut one = Table::new();
            put(&mut one, "path", at.as_str());
            put(&mut one, "audience", texts(audience));
            put_some(&mut one, "token_file", token_file.as_deref().map(path));
            put(&mut table, key, one);
        }
    }
    table.into()
}
