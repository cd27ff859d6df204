//! `[identity]`: the headers that identify the caller to an upstream.

use std::cell::RefCell;
use std::time::Duration;

use http::HeaderName;
use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::{Print, put};
use super::super::value;
use super::{Config, DirectoryConfig, TrustedIssuer, UsersConfig};
use rotogate_core::headers::HeaderPattern;
use rotogate_core::route::WarningKind;
use rotogate_core::token::assertion::ASSERTION_TTL;
use rotogate_core::verify_cache::MAX_IDENTITY_HEADERS;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// `[identity]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct IdentityConfig, read by read_keys(section, issuers: &[TrustedIssuer], used: &UsedHeaders) {
        /// The names of the headers.
        reload headers: IdentityNames = inner(|keys| read_names(keys, issuers, used)),
        /// Headers for further claims, such as `{ "x-auth-email" = "email" }`; at most 64 headers in all. Set it if
        /// your services need more data about the caller.
        reload claims: ClaimHeaders = by { read_claims(&section.section("claims"), used) },
        /// Signed JWT about the caller, in a header (docs/assertion.md). Set it if your services can be reached without
        /// the gate, because then anyone can forge the other headers. Default: none.
        reload assertion: Option<AssertionHeader> = table(|keys| read_assertion(keys, used)),
        /// Further headers to remove from requests (`["x-tenant", "x-acme-*"]`). The gate always removes the headers of
        /// known products (docs/edge.md). Set it if your services trust further headers.
        // Requirement T24.
        reload strip: Vec<HeaderPattern> = list_or_empty(header_pattern),
        /// Headers that the gate forwards although it removes them by default, because a known product in front of the
        /// gate sets them (`["cf-access-*"]`). Set it if your services read these headers.
        reload keep: Vec<HeaderPattern> = by { read_keep(section, used) },
    }
}

section! {
    /// The headers for properties that every caller has.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct IdentityNames, read by read_names(section, issuers: &[TrustedIssuer], used: &UsedHeaders) {
        /// Header for `sub`, the caller's id. Set it to the header from which your services read the user, such as
        /// `"remote-user"`.
        reload subject: HeaderOrNone = by { used.header(section, "subject", "x-auth-subject") },
        /// Header for the account. Set it if your services read the account from another header, or to `""` if no
        /// service reads it.
        reload account: HeaderOrNone = by { used.header(section, "account", "x-auth-account") },
        /// Header for `client_id`. Set it if your services read the client from another header, or to `""` if no
        /// service reads it.
        reload client: HeaderOrNone = by { used.header(section, "client", "x-auth-client") },
        /// Header for the client that acts for the subject, such as `client:orders` (docs/act-for-a-user.md). Set it if
        /// services must distinguish a user's own requests from those that a client sends on behalf of the user.
        reload actor: HeaderOrNone = by { used.header(section, "actor", "") },
        /// Header for the scopes, separated by spaces. Set it to `""` if only routes check scopes, because the header
        /// makes requests longer.
        reload scope: HeaderOrNone = by { used.header(section, "scope", "x-auth-scope") },
        /// Header for the session. Set it if your services read the session from another header, or to `""` if no
        /// service reads it.
        reload session: HeaderOrNone = by { used.header(section, "session", "x-auth-session") },
        /// Header for `iss`. Set it if your services read the issuer from another header. If there are several issuers,
        /// services need this header, because two users may have the same `sub`. Default: `"x-auth-issuer"` if there
        /// are `[[issuers]]`; the header is then also sent for the gate's own tokens.
        // With several issuers, a subject is ambiguous without its issuer.
        reload issuer: HeaderOrNone = by {
            used.header(section, "issuer", if issuers.is_empty() { "" } else { "x-auth-issuer" })
        },
        /// Header for the roles, percent-encoded and separated by commas. Set it if your own users have roles that
        /// services read. Default: `"x-auth-roles"` if any of `[[issuers]]` has a claim for roles.
        reload roles: HeaderOrNone = by {
            let has_roles = issuers.iter().any(|issuer| !issuer.claims.roles.is_empty());
            used.header(section, "roles", if has_roles { "x-auth-roles" } else { "" })
        },
    }
}

section! {
    /// The header with a signed assertion.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AssertionHeader, read by read_assertion(section, used: &UsedHeaders) {
        /// Required: Name of the header with the signed JWT.
        reload header: HeaderName = by {
            let header = section.require("header", "a header such as \"x-auth-assertion\"", assertion_header);
            used.note(section, "header", header).unwrap_or(HeaderName::from_static("x-auth-assertion"))
        },
        /// Lifetime of an assertion.
        fixed ttl: Duration = get_or(
            value::duration_within(*ASSERTION_TTL.start(), *ASSERTION_TTL.end()),
            Duration::from_secs(60)
        ),
    }
}

/// A header name, or `""` for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderOrNone(pub Option<HeaderName>);

impl Print for HeaderOrNone {
    fn print(&self) -> Value {
        self.0.as_ref().map_or("", HeaderName::as_str).into()
    }
}

pub(super) type ClaimHeaders = Vec<(HeaderName, String)>;

impl Print for ClaimHeaders {
    fn print(&self) -> Value {
        let mut table = Table::new();
        self.iter().for_each(|(header, claim)| put(&mut table, header.as_str(), claim.as_str()));
        table.into()
    }
}

/// The headers that are already in use.
#[derive(Default)]
struct UsedHeaders(RefCell<Vec<HeaderName>>);

impl UsedHeaders {
    fn take(&self, header: &HeaderName) -> Result<(), String> {
        let mut used = self.0.borrow_mut();
        if used.contains(header) {
            return Err(format!("{header} already carries another value"));
        }
        used.push(header.clone());
        Ok(())
    }

    fn note(&self, section: &Section<'_>, key: &'static str, header: Option<HeaderName>) -> Option<HeaderName> {
        if let Some(Err(message)) = header.as_ref().map(|header| self.take(header)) {
            section.blame(key, message);
        }
        header
    }

    fn header(&self, section: &Section<'_>, key: &'static str, default: &'static str) -> HeaderOrNone {
        let default = (!default.is_empty()).then(|| HeaderName::from_static(default));
        let header = section.get(key, value::identity_header).unwrap_or(default);
        HeaderOrNone(self.note(section, key, header))
    }
}

fn assertion_header(v: &Raw) -> Result<HeaderName, String> {
    value::text(v).and_then(|name| value::header(&name))
}

fn header_pattern(v: &Raw) -> Result<HeaderPattern, String> {
    HeaderPattern::parse(&value::text(v)?).map_err(|why| format!("{why}, found {}", v.describe()))
}

pub(super) fn read(section: &Section<'_>, issuers: &[TrustedIssuer]) -> IdentityConfig {
    let identity = read_keys(section, issuers, &UsedHeaders::default());
    section.finish();
    identity
}

fn read_claims(section: &Section<'_>, used: &UsedHeaders) -> ClaimHeaders {
    let read = |name: &str, claim: &Raw| {
        let header = value::header(name)?;
        if used.0.borrow().len() >= MAX_IDENTITY_HEADERS && !used.0.borrow().contains(&header) {
            return Err(format!("there are already {MAX_IDENTITY_HEADERS} identity headers, which is the maximum"));
        }
        let claim = value::text(claim)?;
        used.take(&header).map(|()| (header, claim))
    };
    let mut claims = ClaimHeaders::new();
    for (name, claim) in section.free() {
        match read(name, claim) {
            Ok(header) => claims.push(header),
            Err(message) => section.blame(name, message),
        }
    }
    claims
}

fn read_keep(section: &Section<'_>, used: &UsedHeaders) -> Vec<HeaderPattern> {
    let used = used.0.borrow();
    let mut keep = Vec::new();
    for (index, kept) in section.indexed("keep", header_pattern).unwrap_or_default() {
        if let Some(own) = used.iter().find(|own| kept.matches(own.as_str())) {
            let message =
                format!("{own} is an identity header of the gate, so the gate always removes it from client requests");
            section.blame_element("keep", index, message);
        } else if !kept.is_of_a_product() {
            section.blame_element(
                "keep",
                index,
                "has no effect: no known product uses this header, so the gate forwards it anyway; remove it",
            );
        } else {
            keep.push(kept);
        }
    }
    keep
}

/// The standard claims of the gate's tokens.
const REGISTERED: [&str; 12] =
    ["iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "sid", "gen", "account", "auth_time"];

/// Warns about a header for a claim that no user has.
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
                "{header} is never set, because no directory has the claim {claim:?}; add the claim to `claims` of \
                 the directory"
            );
            section.warn(WarningKind::NoAccess, "claims", message);
        }
    }
}
