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
use crate::token::verify::{self, ClaimMapping, Roles};

pub use own::{AccountRule, OfAccount, OwnChecked};

/// The `typ` of every access token that we mint (RFC 9068 §2.1).
pub const TYP: &str = "at+jwt";

/// The form of access token that a dialect's clients need, besides the claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenStyle {
    /// A claim that repeats `sub`, for clients that look for it under this name.
    pub subject_claim: Option<&'static str>,
    /// Whether the payload's base64url must contain neither `-` nor `_`, for clients that decode it as plain base64.
    /// Characters that would cause `-` or `_` are escaped within strings, which does not change the JSON value.
    pub plain_base64: bool,
}

/// The claims of a token to be minted. The claims are written in the order of the fields, so that the same claims give
/// the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct MintedClaims<'a> {
    /// `iss`: our issuer.
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
    /// `scope`; omitted if empty.
    pub scope: &'a Scope,
    /// `sid` and `gen`: the session and its generation, if the token has one.
    pub session: Option<(SessionId, Generation)>,
    /// `account`, if any.
    pub account: Option<&'a str>,
    /// `cnf.jkt`: the key that the token is bound to, if any (RFC 9449 §6.1).
    pub bound_to: Option<KeyThumbprint>,
    /// `cnf.x5t#S256`: the client certificate that the token is bound to, if any (RFC 8705 §3.1).
    pub certificate: Option<CertificateThumbprint>,
    /// `origin_iss`, `origin_sub` and `origin_sid`: the issuer that vouched for the subject, if any.
    pub vouched_by: Option<&'a VouchedBy>,
    /// `act` and the further claims of a token that a client got by token exchange, if any.
    pub delegation: Option<&'a Delegation>,
    /// Further claims, which none of the other fields sets.
    pub own: Option<&'a OwnClaims>,
    /// The form of token that the clients of the session's dialect need.
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

/// `cnf` (RFC 7800 §3.1), with the members of RFC 9449 §6.1 and RFC 8705 §3.1.
#[derive(serde::Serialize)]
pub struct Confirmation<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    jkt: Option<&'a KeyThumbprint>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a CertificateThumbprint>,
}

impl<'a> Confirmation<'a> {
    /// The confirmation of a token; `None` if the token is bound to nothing.
    pub fn new(jkt: Option<&'a KeyThumbprint>, certificate: Option<&'a CertificateThumbprint>) -> Option<Self> {
        (jkt.is_some() || certificate.is_some()).then_some(Self { jkt, certificate })
    }
}

/// The claims of a verified access token. Signature, times and form were checked; revocation and the requirements of a
/// route (audience, scope) were not.
///
/// ```
/// use rotogate_core::token::AccessToken;
///
/// /// Is it a user's token, good for a report?
/// fn may_report(token: &AccessToken) -> bool {
///     token.is_for(&["https://reports.example.com"]) && token.scope.contains("report") && !token.is_clients_own()
/// }
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct AccessToken {
    /// The token itself, as it was sent.
    pub(crate) text: Arc<str>,
    /// The data that all tokens of its issuer share.
    pub issued_by: Arc<TokenIssuer>,
    /// The key that signed the token; `None` for an introspected token.
    pub(crate) signer: Option<Arc<KeyIdentity>>,
    /// The claims that most tokens do not have.
    pub(crate) rare: Option<Box<RareClaims>>,
    /// The subject, with the prefix and the encoding of its issuer's rules.
    pub subject: Box<str>,
    /// The client: `client_id`, or the claim that its issuer's rules map.
    pub client: Option<Box<str>>,
    /// The scope, in our names and reduced to the scope that its issuer's rules allow; empty if there is none.
    pub scope: Scope,
    /// `aud`, or the claim that its issuer's rules read instead: at least one audience.
    pub audience: Arc<[Box<str>]>,
    /// `sid` and `gen`: from our own tokens only.
    pub session: Option<(SessionId, Generation)>,
    /// `jti`.
    pub jti: Option<Box<str>>,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `exp`.
    pub expires: Timestamp,
}

/// The properties that an issuer's rules give to all its tokens.
#[derive(Debug, PartialEq)]
pub struct TokenIssuer {
    /// `iss`.
    pub(crate) url: Arc<str>,
    /// The issuer's short name, which routes use.
    pub(crate) name: Arc<str>,
    /// Whether our own issuer minted the token.
    pub(crate) is_ours: bool,
    /// Are the issuer's tokens accepted on routes that name no issuers?
    pub(crate) is_accepted_everywhere: bool,
    /// The claims to read.
    pub(crate) mapping: Arc<ClaimMapping>,
    /// The length of the prefix of the subjects, in bytes.
    pub(crate) subject_prefix: usize,
    /// The accepted audiences if a route names no audience.
    pub audience: Arc<[Box<str>]>,
    /// How much the issuer's clock may differ from ours.
    pub(crate) leeway: Duration,
}

impl TokenIssuer {
    /// An issuer whose rules the gate does not have. No route names it.
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

    /// The issuer's short name, which routes use.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The SHA-256 of a token in base64url: `ath` of the proofs for it (RFC 9449 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenHash(Box<str>);

impl TokenHash {
    pub(crate) fn new(token: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())).into())
    }
}

/// Claims that most tokens do not have. A token without them needs no memory for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RareClaims {
    pub(crate) roles: Roles,
    /// The subject as the token has it, if it differs from the rest of [`AccessToken::subject`].
    pub(crate) raw_subject: Option<Box<str>>,
    /// `sub`, if the subject is another claim of another issuer's token.
    pub(crate) sub: Option<Box<str>>,
    pub(crate) account: Option<Box<str>>,
    pub(crate) issuer_session: Option<Box<str>>,
    pub(crate) vouched_by: Option<VouchedBy>,
    /// The client that acts for the subject, in our own tokens.
    pub(crate) delegation: Option<Delegation>,
    /// The key that the token is bound to, and the hash of the token, which each proof contains.
    pub(crate) bound_to: Option<(KeyThumbprint, TokenHash)>,
    pub(crate) certificate: Option<CertificateThumbprint>,
    pub(crate) login: LoginClaims,
    pub(crate) not_before: Option<Timestamp>,
    /// The response with the claims of an introspected token, which no key verified.
    pub(crate) response: Option<Arc<str>>,
    /// The issuer whose user the subject of one of our tokens is: routes and upstreams see the token as a token of that
    /// issuer. `None` for a user or a client of the gate itself.
    pub(crate) source: Option<Arc<TokenIssuer>>,
    /// The token represents the session of a browser whose user logged in at a provider, which is `source`.
    pub(crate) is_at_provider: bool,
    /// The API key for which the token stands.
    pub(crate) key: Option<Box<KeyFacts>>,
}

/// What a token knows of the API key for which it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyFacts {
    /// The users at other issuers who made the key and its predecessors.
    pub(crate) vouched_by: Vec<VouchedBy>,
    /// The client of limits: the first of the key's predecessors, so that a rotation brings no new quota.
    pub(crate) limited_as: Box<str>,
}

impl RareClaims {
    /// The memory that the claims take, in bytes.
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

/// The claims about the user's login (RFC 9470 §6.2). Read once, when the token is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoginClaims {
    /// `acr`.
    pub(crate) acr: Option<Box<str>>,
    /// `auth_time`.
    pub(crate) auth_time: Option<Timestamp>,
}

/// The prefix of the subject of a client's own token. No user's subject has it (RFC 9700 §4.15).
pub const CLIENT_PREFIX: &str = "client:";

impl AccessToken {
    /// The token itself, as it was sent, for its issuer alone.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// `iss`.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issued_by.url
    }

    /// The short name of the token's issuer, for routes.
    pub fn issuer_name(&self) -> &Arc<str> {
        &self.issued_by.name
    }

    /// The issuer that routes and upstreams see: the issuer whose user the subject is. For one of our own tokens, that is
    /// the issuer that vouched for the user, if its user has a subject of this gate; otherwise the token's issuer.
    // Requirement I67.
    pub fn vouching_issuer(&self) -> &TokenIssuer {
        let source = self.rare.as_deref().and_then(|rare| rare.source.as_deref());
        source.unwrap_or(&self.issued_by)
    }

    /// Is the subject a user, or a client, of the gate itself?
    pub fn is_of_own_user(&self) -> bool {
        self.vouching_issuer().is_ours
    }

    /// Did the user of this session log in at a provider?
    pub fn is_at_provider(&self) -> bool {
        self.rare.as_deref().is_some_and(|rare| rare.is_at_provider)
    }

    /// Did we mint it?
    pub fn is_ours(&self) -> bool {
        self.issued_by.is_ours
    }

    /// Whether routes that name no issuers accept the token.
    pub fn is_accepted_everywhere(&self) -> bool {
        self.issued_by.is_accepted_everywhere
    }

    /// How much the issuer's clock may differ from ours, for later checks of the times. Our own tokens end at their
    /// `exp`, without leeway.
    pub fn leeway(&self) -> Duration {
        self.issued_by.leeway
    }

    /// The roles, from the claims that its issuer's rules name; for our own tokens, from the claim `roles`.
    pub fn roles(&self) -> &Roles {
        static NONE: LazyLock<Roles> = LazyLock::new(Roles::default);
        self.rare.as_deref().map_or_else(|| &*NONE, |rare| &rare.roles)
    }

    /// `account` of our own tokens; for another issuer's token the mapped account, preceded by the issuer's name and a
    /// colon.
    pub fn account(&self) -> Option<&str> {
        self.rare.as_deref()?.account.as_deref()
    }

    /// The session at the token's issuer, from the claim that the issuer's rules name; `None` for our own tokens.
    pub fn issuer_session(&self) -> Option<&str> {
        self.rare.as_deref()?.issuer_session.as_deref()
    }

    /// The issuer that vouched for the subject: from our own tokens only.
    pub fn vouched_by(&self) -> Option<&VouchedBy> {
        self.rare.as_deref()?.vouched_by.as_ref()
    }

    /// The client that acts for the subject (RFC 8693 §4.1), in our own tokens only.
    pub fn delegation(&self) -> Option<&Delegation> {
        self.rare.as_deref()?.delegation.as_ref()
    }

    /// `cnf.jkt`: the key that the token is bound to (RFC 9449 §6.1).
    pub fn bound_to(&self) -> Option<KeyThumbprint> {
        self.rare.as_deref()?.bound_to.as_ref().map(|(key, _)| *key)
    }

    /// `cnf.jkt`, with the hash of the token that a proof of the key must contain.
    pub fn proved_by(&self) -> Option<(KeyThumbprint, &str)> {
        self.rare.as_deref()?.bound_to.as_ref().map(|(key, hash)| (*key, &*hash.0))
    }

    /// `cnf.x5t#S256`: the client certificate that the token is bound to (RFC 8705 §3.1).
    pub fn certificate(&self) -> Option<&CertificateThumbprint> {
        self.rare.as_deref()?.certificate.as_ref()
    }

    /// `nbf`.
    pub fn not_before(&self) -> Option<Timestamp> {
        self.rare.as_deref()?.not_before
    }

    /// The `kid` of the key that signed the token, if the key has a `kid`; `None` for an introspected token.
    pub fn kid(&self) -> Option<&str> {
        self.signer.as_deref()?.kid.as_deref()
    }

    /// The print of the key that signed the token: long-lived connections end when this key is removed, whatever its
    /// `kid`.
    pub(crate) fn key(&self) -> KeyPrint {
        self.signer.as_deref().map_or(KeyPrint::NONE, |signer| signer.print)
    }

    /// The response with the claims of an introspected token.
    pub(crate) fn response(&self) -> Option<&str> {
        self.rare.as_deref()?.response.as_deref()
    }

    /// `acr` of the user's login.
    pub fn acr(&self) -> Option<&str> {
        self.login().0
    }

    /// `acr` and `auth_time` of the user's login. A session of ours began with its login, unless another issuer vouched
    /// for its user: the time of the login there is known to that issuer alone.
    // Requirement N46.
    pub(crate) fn login(&self) -> (Option<&str>, Option<Timestamp>) {
        let login = self.rare.as_deref().map(|rare| &rare.login);
        let began = || self.session.filter(|_| self.vouched_by().is_none()).map(|(session, _)| session.created());
        let auth_time = login.and_then(|login| login.auth_time).or_else(began);
        (login.and_then(|login| login.acr.as_deref()), auth_time)
    }

    /// The time from which the token counts as expired: `exp` of our own token; `exp` plus the leeway for another
    /// issuer's token.
    pub(crate) fn refused_from(&self) -> Timestamp {
        if self.is_ours() { self.expires } else { self.expires.plus(self.leeway()) }
    }

    /// Does the token stand for an API key of its subject?
    pub fn is_api_key(&self) -> bool {
        self.key_facts().is_some()
    }

    pub(crate) fn key_facts(&self) -> Option<&KeyFacts> {
        self.rare.as_deref()?.key.as_deref()
    }

    /// The client for limits: an API key counts together with the keys that it replaced.
    // Requirement K34.
    pub fn limited_client(&self) -> Option<&str> {
        self.key_facts().map(|key| &*key.limited_as).or(self.client.as_deref())
    }

    /// Whether the token is a client's own.
    pub fn is_clients_own(&self) -> bool {
        self.is_ours() && self.session.is_none() && self.subject.starts_with(CLIENT_PREFIX)
    }

    /// Whether the token is bound to a key or a certificate, so that it is useless on its own.
    pub(crate) fn is_bound(&self) -> bool {
        self.rare.as_deref().is_some_and(|rare| rare.bound_to.is_some() || rare.certificate.is_some())
    }

    /// Do the issuer's rules put a prefix before the token's subject?
    pub(crate) fn has_prefixed_subject(&self) -> bool {
        self.issued_by.subject_prefix > 0
    }

    fn raw_subject(&self) -> Option<&str> {
        self.rare.as_deref()?.raw_subject.as_deref()
    }

    /// The subject as it is in the token, without prefix. Revocations use this form.
    pub fn token_subject(&self) -> &str {
        let rest = || self.subject.get(self.issued_by.subject_prefix..).unwrap_or_default();
        self.raw_subject().unwrap_or_else(rest)
    }

    /// The subject for a header: with the prefix, not encoded yet.
    pub(crate) fn header_subject(&self) -> Cow<'_, str> {
        match (self.raw_subject(), self.subject.get(..self.issued_by.subject_prefix)) {
            (Some(raw), Some(prefix)) => format!("{prefix}{raw}").into(),
            (None, _) | (_, None) => (&*self.subject).into(),
        }
    }

    /// Every claim of the token; for an introspected token every member of the response, including `active`. Parsed at
    /// each call, because most callers need only the claims above, and many tokens are cached.
    pub fn claims(&self) -> serde_json::Map<String, serde_json::Value> {
        match self.response() {
            Some(response) => crate::strict_json::object(response.as_bytes()).unwrap_or_default(),
            None => verify::claims_of(&self.text).unwrap_or_default(),
        }
    }

    /// Whether the token is meant for one of `audiences`, compared byte for byte.
    pub fn is_for<A: AsRef<str>>(&self, audiences: &[A]) -> bool {
        self.audience.iter().any(|mine| audiences.iter().any(|theirs| theirs.as_ref() == &**mine))
    }
}

// Omits the claims that only the application understands: they may contain secrets.
crate::debug_with!(AccessToken { issuer(), subject, client, scope, session, expires });
