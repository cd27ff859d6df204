//! The claims of an access token (RFC 7519 §4, RFC 9068 §2.2).

mod notices;
mod own;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::claim::OwnClaims;
use crate::clock::Timestamp;
use crate::session::{Generation, Scope, SessionId, VouchedBy};
use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};
use crate::token::delegation::Delegation;
use crate::token::keyring::{KeyIdentity, KeyPrint};
use crate::token::verify::mapping::{ClaimMapping, Roles};
use crate::token::verify::shape::claims_of;

pub use own::{AccountRule, OfAccount, OwnChecked};

/// The form of access tokens that the clients of a dialect need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenStyle {
    /// The name of an additional claim with the value of `sub`.
    pub subject_claim: Option<&'static str>,
    /// Whether the payload's base64url avoids `-` and `_`, for clients that decode it as plain base64. Strings then
    /// contain more JSON escapes.
    pub plain_base64: bool,
}

/// The claims of a token to be minted. Equal claims give equal bytes, because the order of the fields is fixed.
#[derive(Clone, Copy, Debug)]
pub struct MintedClaims<'a> {
    /// `iss`: the gate's own issuer.
    pub issuer: &'a str,
    /// `sub`: the token's subject.
    pub subject: &'a str,
    /// `aud`. One audience is written as a string, several as an array.
    pub audience: &'a [Box<str>],
    /// `exp`, in whole seconds.
    pub expires: Timestamp,
    /// `iat`, in whole seconds.
    pub issued_at: Timestamp,
    /// `jti`: the token's id.
    pub jti: &'a str,
    /// `client_id`: the OAuth client.
    pub client: &'a str,
    /// `scope`, which is omitted if it is empty.
    pub scope: &'a Scope,
    /// `sid` and `gen`: the session and its generation.
    pub session: Option<(SessionId, Generation)>,
    /// `account`.
    pub account: Option<&'a str>,
    /// `cnf.jkt`: the key to which the token is bound (RFC 9449 §6.1).
    pub bound_to: Option<KeyThumbprint>,
    /// `cnf.x5t#S256`: the client certificate to which the token is bound (RFC 8705 §3.1).
    pub certificate: Option<CertificateThumbprint>,
    /// `origin_iss`, `origin_sub` and `origin_sid`: the other issuer that authenticated the subject.
    pub vouched_by: Option<&'a VouchedBy>,
    /// `act` and the other claims from a token exchange.
    pub delegation: Option<&'a Delegation>,
    /// Additional claims, with names that the other fields do not use.
    pub own: Option<&'a OwnClaims>,
    /// The form of the token, as the session's dialect requires.
    pub style: TokenStyle,
}

impl Serialize for MintedClaims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("iss", self.issuer)?;
        map.serialize_entry("sub", self.subject)?;
        match self.audience {
            [one] => map.serialize_entry("aud", one)?,
            several => map.serialize_entry("aud", several)?,
        }
        map.serialize_entry("exp", &self.expires.as_secs())?;
        map.serialize_entry("iat", &self.issued_at.as_secs())?;
        map.serialize_entry("jti", self.jti)?;
        map.serialize_entry("client_id", self.client)?;
        if !self.scope.is_empty() {
            map.serialize_entry("scope", self.scope)?;
        }
        if let Some((session, generation)) = self.session {
            map.serialize_entry("sid", &session.to_string())?;
            map.serialize_entry("gen", &generation)?;
        }
        if let Some(account) = self.account {
            map.serialize_entry("account", account)?;
        }
        if let Some(confirmation) = Confirmation::new(self.bound_to.as_ref(), self.certificate.as_ref()) {
            map.serialize_entry("cnf", &confirmation)?;
        }
        if let Some(by) = self.vouched_by {
            map.serialize_entry("origin_iss", &by.issuer)?;
            map.serialize_entry("origin_sub", &by.subject)?;
            if let Some(session) = &by.session {
                map.serialize_entry("origin_sid", session)?;
            }
        }
        if let Some(delegation) = self.delegation {
            delegation.put(&mut map)?;
        }
        if let Some(name) = self.style.subject_claim {
            map.serialize_entry(name, self.subject)?;
        }
        for (name, value) in self.own.into_iter().flat_map(OwnClaims::iter) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The claim `cnf` (RFC 7800 §3.1), with the members of RFC 9449 §6.1 and RFC 8705 §3.1.
#[derive(serde::Serialize)]
pub struct Confirmation<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    jkt: Option<&'a KeyThumbprint>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a CertificateThumbprint>,
}

impl<'a> Confirmation<'a> {
    /// Returns `None` if the token is not bound.
    pub fn new(jkt: Option<&'a KeyThumbprint>, certificate: Option<&'a CertificateThumbprint>) -> Option<Self> {
        (jkt.is_some() || certificate.is_some()).then_some(Self { jkt, certificate })
    }
}

/// The claims of a verified access token. The signature and times were checked, but not revocation or the route's
/// requirements.
///
/// ```
/// use rotogate_core::token::AccessToken;
///
/// /// Returns whether this is a user's token that gives access to reports.
/// fn may_report(token: &AccessToken) -> bool {
///     token.is_for(&["https://reports.example.com"]) && token.scope.contains("report") && !token.is_clients_own()
/// }
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct AccessToken {
    pub(crate) text: Arc<str>,
    /// The issuer of the token.
    pub issued_by: Arc<TokenIssuer>,
    /// An introspected token does not have a signing key.
    pub(crate) signer: Option<Arc<KeyIdentity>>,
    pub(crate) rare: Option<Box<RareClaims>>,
    /// The subject with the prefix and the encoding that the issuer's rules require.
    pub subject: Box<str>,
    /// `client_id`, or the claim that the issuer's rules name instead.
    pub client: Option<Box<str>>,
    /// The scope, mapped and limited by the issuer's rules. May be empty.
    pub scope: Scope,
    /// `aud`, or the claim that the issuer's rules name instead. Never empty.
    pub audience: Arc<[Box<str>]>,
    /// `sid` and `gen`. Only the gate's own tokens have these claims.
    pub session: Option<(SessionId, Generation)>,
    /// `jti`.
    pub jti: Option<Box<str>>,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `exp`.
    pub expires: Timestamp,
}

/// The access token to which a rotation moved a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessorToken {
    /// The token's generation.
    pub generation: Generation,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The token's expiry.
    pub expires: Timestamp,
    pub(crate) key: KeyPrint,
}

/// The properties that all tokens of an issuer share.
#[derive(Debug, PartialEq)]
pub struct TokenIssuer {
    pub(crate) url: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) is_ours: bool,
    pub(crate) is_accepted_everywhere: bool,
    pub(crate) mapping: Arc<ClaimMapping>,
    /// The length of the prefix in bytes.
    pub(crate) subject_prefix: usize,
    /// The accepted audiences on routes that do not name audiences.
    pub audience: Arc<[Box<str>]>,
    /// The largest accepted difference between the clocks of the gate and this issuer.
    pub(crate) leeway: Duration,
}

impl TokenIssuer {
    pub(crate) fn unknown(url: &str) -> Arc<Self> {
        Arc::new(Self {
            url: url.into(),
            name: "".into(),
            is_ours: false,
            is_accepted_everywhere: false,
            mapping: Arc::default(),
            subject_prefix: 0,
            audience: Arc::default(),
            leeway: Duration::ZERO,
        })
    }

    /// `iss`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The short name by which routes refer to the issuer.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// DPoP proofs contain this hash as `ath` (RFC 9449 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenHash(Box<str>);

impl TokenHash {
    pub(crate) fn new(token: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())).into())
    }
}

/// Most tokens lack these claims, so they are boxed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RareClaims {
    pub(crate) roles: Roles,
    /// The subject in the token, unless it equals [`AccessToken::subject`] without the prefix.
    pub(crate) raw_subject: Option<Box<str>>,
    /// The `sub` of another issuer's token, if another claim contains the subject.
    pub(crate) sub: Option<Box<str>>,
    pub(crate) account: Option<Box<str>>,
    pub(crate) issuer_session: Option<Box<str>>,
    pub(crate) vouched_by: Option<VouchedBy>,
    /// Only the gate's own tokens have a delegation.
    pub(crate) delegation: Option<Delegation>,
    /// The DPoP key, and the `ath` for its proofs.
    pub(crate) bound_to: Option<(KeyThumbprint, TokenHash)>,
    pub(crate) certificate: Option<CertificateThumbprint>,
    pub(crate) login: LoginClaims,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) response: Option<Arc<str>>,
    /// In the gate's own tokens, the other issuer that the subject belongs to.
    pub(crate) source: Option<Arc<TokenIssuer>>,
    /// The user of this browser session logged in at the provider `source`.
    pub(crate) is_at_provider: bool,
    pub(crate) key: Option<Box<KeyFacts>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyFacts {
    /// The external identities of the users who created this key or its predecessors.
    pub(crate) vouched_by: Vec<VouchedBy>,
    /// The id for rate limits. A replacement key inherits the id, and thus the quota.
    pub(crate) limited_as: Box<str>,
}

impl RareClaims {
    pub(crate) fn bytes(&self) -> usize {
        let Self { roles, raw_subject, sub, account, issuer_session, vouched_by, bound_to, login, response, .. } = self;
        let texts = [raw_subject, sub, account, issuer_session, &login.acr].map(Option::as_deref);
        let of_key = self.key.as_deref().into_iter().flat_map(|key| &key.vouched_by);
        let by = vouched_by.iter().chain(of_key);
        let by = by.flat_map(|by| [Some(&*by.issuer), Some(&*by.subject), by.session.as_deref()]);
        let hash = bound_to.as_ref().map(|(_, hash)| &*hash.0);
        let texts = texts.into_iter().chain([response.as_deref(), hash]).chain(by);
        let roles: usize = roles.names().iter().map(|role| role.len() + size_of_val(role)).sum();
        let delegation = self.delegation.as_ref().map_or(0, Delegation::bytes);
        size_of_val(self) + delegation + roles + texts.flatten().map(str::len).sum::<usize>()
    }
}

/// See RFC 9470 §6.2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoginClaims {
    pub(crate) acr: Option<Box<str>>,
    pub(crate) auth_time: Option<Timestamp>,
}

/// The subject prefix of a token that a client obtained for itself. No user's subject has this prefix (RFC 9700
/// §4.15).
pub const CLIENT_PREFIX: &str = "client:";

impl AccessToken {
    /// The received token, which must be sent only to its issuer.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// `iss`.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issued_by.url
    }

    /// The short name by which routes refer to the token's issuer.
    pub fn issuer_name(&self) -> &Arc<str> {
        &self.issued_by.name
    }

    /// The issuer to which the subject belongs. Routes and upstreams treat the token as a token of this issuer.
    // Requirement I67.
    pub fn vouching_issuer(&self) -> &TokenIssuer {
        let source = self.rare.as_deref().and_then(|rare| rare.source.as_deref());
        source.unwrap_or(&self.issued_by)
    }

    /// Returns whether the subject is a user or a client of the gate itself.
    pub fn is_of_own_user(&self) -> bool {
        self.vouching_issuer().is_ours
    }

    /// Returns whether the user of this session logged in at a provider.
    pub fn is_at_provider(&self) -> bool {
        self.rare.as_deref().is_some_and(|rare| rare.is_at_provider)
    }

    /// Returns whether the gate minted the token.
    pub fn is_ours(&self) -> bool {
        self.issued_by.is_ours
    }

    /// Returns whether the token is accepted on routes that do not name an issuer.
    pub fn is_accepted_everywhere(&self) -> bool {
        self.issued_by.is_accepted_everywhere
    }

    /// The largest accepted difference between the clocks of the gate and another issuer.
    pub fn leeway(&self) -> Duration {
        self.issued_by.leeway
    }

    /// The roles, from the claims that the issuer's rules name.
    pub fn roles(&self) -> &Roles {
        static NONE: LazyLock<Roles> = LazyLock::new(Roles::default);
        self.rare.as_deref().map_or_else(|| &*NONE, |rare| &rare.roles)
    }

    /// The account. In another issuer's token, the issuer's name and a colon precede the mapped account.
    pub fn account(&self) -> Option<&str> {
        self.rare.as_deref()?.account.as_deref()
    }

    /// The session at the token's issuer, or `None` for the gate's own tokens.
    pub fn issuer_session(&self) -> Option<&str> {
        self.rare.as_deref()?.issuer_session.as_deref()
    }

    /// In the gate's own tokens, the other issuer that authenticated the subject.
    pub fn vouched_by(&self) -> Option<&VouchedBy> {
        self.rare.as_deref()?.vouched_by.as_ref()
    }

    /// In the gate's own tokens, the client that acts for the subject (RFC 8693 §4.1).
    pub fn delegation(&self) -> Option<&Delegation> {
        self.rare.as_deref()?.delegation.as_ref()
    }

    /// `cnf.jkt`: the thumbprint of the key to which the token is bound (RFC 9449 §6.1).
    pub fn bound_to(&self) -> Option<KeyThumbprint> {
        self.rare.as_deref()?.bound_to.as_ref().map(|(key, _)| *key)
    }

    /// Returns the thumbprint from `cnf.jkt`, and the `ath` that a DPoP proof with this key must contain.
    pub fn proved_by(&self) -> Option<(KeyThumbprint, &str)> {
        self.rare.as_deref()?.bound_to.as_ref().map(|(key, hash)| (*key, &*hash.0))
    }

    /// `cnf.x5t#S256`: the thumbprint of the client certificate to which the token is bound (RFC 8705 §3.1).
    pub fn certificate(&self) -> Option<&CertificateThumbprint> {
        self.rare.as_deref()?.certificate.as_ref()
    }

    /// `nbf`.
    pub fn not_before(&self) -> Option<Timestamp> {
        self.rare.as_deref()?.not_before
    }

    /// The `kid` of the signing key.
    pub fn kid(&self) -> Option<&str> {
        self.signer.as_deref()?.kid.as_deref()
    }

    /// If this key is removed, long-lived connections end, even if another key has the same `kid`.
    pub(crate) fn key(&self) -> KeyPrint {
        self.signer.as_deref().map_or(KeyPrint::NONE, |signer| signer.print)
    }

    pub(crate) fn response(&self) -> Option<&str> {
        self.rare.as_deref()?.response.as_deref()
    }

    /// `acr` of the user's login.
    pub fn acr(&self) -> Option<&str> {
        self.login().0
    }

    /// Returns `acr` and `auth_time`. Without `auth_time`, the start of the gate's own session counts.
    // Requirement N46.
    pub(crate) fn login(&self) -> (Option<&str>, Option<Timestamp>) {
        let login = self.rare.as_deref().map(|rare| &rare.login);
        let began = || self.session.filter(|_| self.vouched_by().is_none()).map(|(session, _)| session.created());
        let auth_time = login.and_then(|login| login.auth_time).or_else(began);
        (login.and_then(|login| login.acr.as_deref()), auth_time)
    }

    /// The leeway applies only to tokens of other issuers.
    pub(crate) fn refused_from(&self) -> Timestamp {
        if self.is_ours() { self.expires } else { self.expires.plus(self.leeway()) }
    }

    /// Returns whether the token represents an API key of its subject.
    pub fn is_api_key(&self) -> bool {
        self.key_facts().is_some()
    }

    pub(crate) fn key_facts(&self) -> Option<&KeyFacts> {
        self.rare.as_deref()?.key.as_deref()
    }

    /// The client id to which limits apply. An API key keeps the id of the key that it replaced.
    // Requirement K34.
    pub fn limited_client(&self) -> Option<&str> {
        self.key_facts().map(|key| &*key.limited_as).or(self.client.as_deref())
    }

    /// Returns whether a client got the token for itself, without a user.
    pub fn is_clients_own(&self) -> bool {
        self.is_ours() && self.session.is_none() && self.subject.starts_with(CLIENT_PREFIX)
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.rare.as_deref().is_some_and(|rare| rare.bound_to.is_some() || rare.certificate.is_some())
    }

    pub(crate) fn has_prefixed_subject(&self) -> bool {
        self.issued_by.subject_prefix > 0
    }

    fn raw_subject(&self) -> Option<&str> {
        self.rare.as_deref()?.raw_subject.as_deref()
    }

    /// Returns whether the token has this text.
    pub fn has_text(&self, text: &str) -> bool {
        *self.text == *text
    }

    /// The subject as in the token, without the prefix. Revocations use this form.
    pub fn token_subject(&self) -> &str {
        let rest = || self.subject.get(self.issued_by.subject_prefix..).unwrap_or_default();
        self.raw_subject().unwrap_or_else(rest)
    }

    /// The result has the prefix, but is not yet encoded.
    pub(crate) fn header_subject(&self) -> Cow<'_, str> {
        match (self.raw_subject(), self.subject.get(..self.issued_by.subject_prefix)) {
            (Some(raw), Some(prefix)) => format!("{prefix}{raw}").into(),
            (None, _) | (_, None) => (&*self.subject).into(),
        }
    }

    /// All claims of the token. For an introspected token, all members of the response, including `active`.
    ///
    /// Parses the token at each call.
    pub fn claims(&self) -> serde_json::Map<String, serde_json::Value> {
        match self.response() {
            Some(response) => crate::strict_json::object(response.as_bytes()).unwrap_or_default(),
            None => claims_of(&self.text).unwrap_or_default(),
        }
    }

    /// Returns whether the audience includes one of `audiences`. The comparison is byte for byte.
    pub fn is_for<A: AsRef<str>>(&self, audiences: &[A]) -> bool {
        self.audience.iter().any(|mine| audiences.iter().any(|theirs| theirs.as_ref() == &**mine))
    }
}

// `Debug` omits the application's claims, because they may contain secrets.
crate::debug_with!(AccessToken { issuer(), subject, client, scope, session, expires });
