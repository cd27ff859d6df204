//! `[identity]`: the headers that tell an upstream the caller.

use std::time::Duration;

use http::HeaderName;
use toml::{Table, Value};

#[cfg(test)]
use super::super::declare::{Key, section};
use super::super::print::{Print, Put, put};
use super::super::value;
use super::{Config, DirectoryConfig, TrustedIssuer, UsersConfig};
use rotogate_core::headers::HeaderPattern;
use rotogate_core::route::WarningKind;
use rotogate_core::token::assertion::ASSERTION_TTL;
use rotogate_core::verify_cache::MAX_IDENTITY_HEADERS;
use rotogate_kit::config::{Section, Value as Raw};

/// `[identity]`. A header that is `None` is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    /// `sub`
    pub subject: Option<HeaderName>,
    /// `account`
    pub account: Option<HeaderName>,
    /// `client_id`
    pub client: Option<HeaderName>,
    /// `scope`
    pub scope: Option<HeaderName>,
    /// `sid`
    pub session: Option<HeaderName>,
    /// `iss`
    pub issuer: Option<HeaderName>,
    /// The roles, joined by commas.
    pub roles: Option<HeaderName>,
    /// Further headers, each with its claim.
    pub claims: Vec<(HeaderName, String)>,
    /// The header with a signed assertion, and how long it is good for.
    pub assertion: Option<(HeaderName, Duration)>,
    /// Client headers to remove, besides those of known products (requirement T24).
    pub strip: Vec<HeaderPattern>,
    /// Client headers of known products to keep.
    pub keep: Vec<HeaderPattern>,
}

/// The default of `assertion.ttl`.
const DEFAULT_TTL: Duration = Duration::from_secs(60);

fn assertion_header(v: &Raw) -> Result<HeaderName, String> {
    value::text(v).and_then(|name| value::header(&name))
}

fn header_pattern(v: &Raw) -> Result<HeaderPattern, String> {
    HeaderPattern::parse(&value::text(v)?).map_err(|why| format!("{why}, found {}", v.describe()))
}

pub(super) fn read(section: &Section<'_>, issuers: &[TrustedIssuer]) -> IdentityConfig {
    let several_issuers = !issuers.is_empty();
    let has_roles = issuers.iter().any(|issuer| !issuer.claims.roles.is_empty());
    let headers = section.section("headers");
    let mut used: Vec<HeaderName> = Vec::new();
    let mut header = |key: &'static str, default: &'static str| {
        let default = (!default.is_empty()).then(|| HeaderName::from_static(default));
        let name = headers.get(key, value::identity_header).unwrap_or(default)?;
        if used.contains(&name) {
            headers.blame(key, format!("{name} is used for another value already"));
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
        // With several issuers, a subject is ambiguous without its issuer.
        issuer: header("issuer", if several_issuers { "x-auth-issuer" } else { "" }),
        roles: header("roles", if has_roles { "x-auth-roles" } else { "" }),
        claims: Vec::new(),
        assertion: None,
        strip: section.list("strip", header_pattern).unwrap_or_default(),
        keep: Vec::new(),
    };
    headers.finish();
    let claims = section.section("claims");
    for (name, claim) in claims.free() {
        let header = value::header(name).and_then(|header| {
            if used.contains(&header) {
                return Err(format!("{header} is used for another value already"));
            }
            if used.len() >= MAX_IDENTITY_HEADERS {
                return Err(format!("there are {MAX_IDENTITY_HEADERS} identity headers already, which is the most"));
            }
            Ok(header)
        });
        match (header, value::text(claim)) {
            (Ok(header), Ok(claim)) => {
                used.push(header.clone());
                identity.claims.push((header, claim));
            }
            (Err(message), _) | (_, Err(message)) => claims.blame(name, message),
        }
    }
    if section.has("assertion") {
        let assertion = section.section("assertion");
        let ttl = assertion.get("ttl", value::duration_within(*ASSERTION_TTL.start(), *ASSERTION_TTL.end()));
        let name = assertion.require("header", "a header such as \"x-auth-assertion\"", assertion_header);
        if let Some(name) = name {
            if used.contains(&name) {
                assertion.blame("header", format!("{name} is used for another value already"));
            }
            used.push(name.clone());
            identity.assertion = Some((name, ttl.unwrap_or(DEFAULT_TTL)));
        }
        assertion.finish();
    }
    for (index, kept) in section.indexed("keep", header_pattern).unwrap_or_default() {
        if let Some(own) = used.iter().find(|own| kept.matches(own.as_str())) {
            let message = format!("{own} is an identity header of the gate: a client's own never passes");
            section.blame_element("keep", index, message);
        } else if !kept.is_of_a_product() {
            section.blame_element("keep", index, "passes anyway: no known product uses it; remove it");
        } else {
            identity.keep.push(kept);
        }
    }
    section.finish();
    identity
}

/// The claims that each token of the gate may have.
const REGISTERED: [&str; 12] =
    ["iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "sid", "gen", "account", "auth_time"];

/// Warns of a header of a claim that no user has. A users file, a hook and other issuers may have any claim.
pub(super) fn check(section: &Section<'_>, config: &Config) {
    let claims_of = |directory: &DirectoryConfig| match &directory.users {
        UsersConfig::File { .. } => None,
        UsersConfig::Remote { source, .. } => {
            source.claims().map(|names| names.into_iter().map(str::to_owned).collect())
        }
    };
    let known: Option<Vec<Vec<String>>> = config.directories.iter().map(claims_of).collect();
    let Some(known) = known.filter(|_| config.issuers.is_empty()) else { return };
    for (header, claim) in &config.identity.claims {
        if !REGISTERED.contains(&claim.as_str()) && !known.iter().flatten().any(|name| name == claim) {
            let message = format!(
                "{header} is never set: no directory has the claim {claim:?}; write it into claims of the directory"
            );
            section.warn(WarningKind::NoAccess, "claims", message);
        }
    }
}

impl Print for IdentityConfig {
    #[cfg(test)]
    const KEYS: &'static [Key] = section!(keys {
        /// The name of each header. `issuer` is sent if there are `[[issuers]]`, as `x-auth-issuer`, for the gate's tokens too.
        /// `roles` is sent if there are `[[issuers]]` with a claim of roles, as `x-auth-roles`: percent-encoded, with commas
        /// between.
        reload headers: table,
        /// Headers of further claims, such as `{ "x-auth-email" = "email" }`; at most 64 headers, with those above.
        reload claims: table,
        /// The caller in a JWT that the gate signs, for upstreams that trust no network (docs/assertion.md). `ttl`: 10s to 10m.
        /// Default: none.
        reload assertion: table,
        /// Further headers of clients that are removed, such as `["x-tenant", "x-acme-*"]`. Headers of known products always are:
        /// docs/edge.md lists them.
        reload strip: list,
        /// Headers of a known product that are not removed, such as `["cf-access-*"]`, because that product is in front of the
        /// gate.
        reload keep: list,
    });

    fn print(&self) -> Value {
        let Self { subject, account, client, scope, session, issuer, roles, claims, assertion, strip, keep } = self;
        let mut headers = Table::new();
        for (key, header) in [
            ("subject", subject),
            ("account", account),
            ("client", client),
            ("scope", scope),
            ("session", session),
            ("issuer", issuer),
            ("roles", roles),
        ] {
            put(&mut headers, key, header.as_ref().map_or("", HeaderName::as_str));
        }
        let mut by_claim = Table::new();
        for (header, claim) in claims {
            put(&mut by_claim, header.as_str(), claim.as_str());
        }
        let mut table = Table::new();
        put(&mut table, "headers", headers);
        put(&mut table, "claims", by_claim);
        if let Some((header, ttl)) = assertion {
            let mut assertion = Table::new();
            put(&mut assertion, "header", header.as_str());
            ttl.put(&mut assertion, "ttl");
            put(&mut table, "assertion", assertion);
        }
        strip.put(&mut table, "strip");
        keep.put(&mut table, "keep");
        table.into()
    }
}
