//! What an access token says (RFC 7519 §4, RFC 9068 §2.2).

use std::fmt;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::claim::{ClaimPath, OwnClaims};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::revocation::Target;
use crate::session::{Generation, Scope, SessionId};
use crate::token::keyring::KeyPrint;
use crate::token::verify;

/// The `typ` of every access token that we mint (RFC 9068 §2.1).
pub const TYP: &str = "at+jwt";

/// What the clients of a dialect need of an access token besides what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenStyle {
    /// A claim that repeats `sub`, because clients look for it under this name.
    pub subject_claim: Option<&'static str>,
    /// The payload's base64url has neither `-` nor `_`, for clients that read it as plain base64: characters of strings
    /// that would bring one about are escaped, which JSON reads as the same.
    pub plain_base64: bool,
}

/// The claims of a token to be minted. They are written in the order of the fields, so that the same claims give the
/// same bytes.
#[derive(Clone, Copy, Debug)]
pub struct MintedClaims<'a> {
    /// `iss`: us.
    pub issuer: &'a str,
    /// `sub`: whose token it is.
    pub subject: &'a str,
    /// `aud`: whom it is for. One is written as a string, several as an array.
    pub audience: &'a [Box<str>],
    /// `exp`, in whole seconds.
    pub expires: Timestamp,
    /// `iat`, in whole seconds.
    pub issued_at: Timestamp,
    /// `jti`: the token's own name.
    pub jti: &'a str,
    /// `client_id`: the OAuth client.
    pub client: &'a str,
    /// `scope`; left out when it is empty.
    pub scope: &'a Scope,
    /// `sid` and `gen`: the session and its generation, unless the token has none.
    pub session: Option<(SessionId, Generation)>,
    /// `account`, where there is one.
    pub account: Option<&'a str>,
    /// Further claims, which are none of those here.
    pub own: Option<&'a OwnClaims>,
    /// What the clients of the session's dialect need besides.
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
        if let Some(name) = self.style.subject_claim {
            map.serialize_entry(name, self.subject)?;
        }
        for (name, value) in self.own.into_iter().flat_map(OwnClaims::iter) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// What a verified access token says. To have one means that signature, times and form were checked; what a route asks
/// (audience, scope) and revocation were not.
#[derive(Clone, PartialEq)]
pub struct AccessToken {
    /// The token itself, as it was sent.
    pub(crate) text: Arc<str>,
    /// `iss`.
    pub issuer: Arc<str>,
    /// The short name of its issuer, by which routes take it.
    pub issuer_name: Arc<str>,
    /// Did we mint it?
    pub ours: bool,
    /// Is it taken on routes that name no issuers?
    pub everywhere: bool,
    /// Where its issuer writes roles.
    pub(crate) role_claims: Arc<[ClaimPath]>,
    /// `sub`, behind what its issuer's rules put in front of it.
    pub subject: Box<str>,
    /// The length of that, in bytes.
    pub(crate) subject_prefix: usize,
    /// `account`: only ever from our own tokens.
    pub account: Option<Box<str>>,
    /// `client_id`.
    pub client: Option<Box<str>>,
    /// `scope`, as far as its issuer's rules let it count; empty when there is none.
    pub scope: Scope,
    /// `aud`: at least one.
    pub audience: Arc<[Box<str>]>,
    /// `sid` and `gen`: only ever from our own tokens.
    pub session: Option<(SessionId, Generation)>,
    /// `jti`.
    pub jti: Option<Box<str>>,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `exp`.
    pub expires: Timestamp,
    /// How much the issuer's clock may differ from ours, for checking the times again later. The `exp` of our own tokens
    /// is judged without it.
    pub leeway: std::time::Duration,
    /// The name of the key that signed it, where it has one.
    pub kid: Option<Arc<str>>,
    /// That key itself, whatever its name: long connections end when it is taken out.
    pub(crate) key: KeyPrint,
}

/// What the subject of a client's own token begins with, and no user's (RFC 9700 §4.15).
pub const CLIENT_PREFIX: &str = "client:";

impl AccessToken {
    /// From when on it is refused, whatever else holds: our own at its `exp`, another issuer's with the leeway.
    pub(crate) fn refused_from(&self) -> Timestamp {
        if self.ours { self.expires } else { self.expires.plus(self.leeway) }
    }

    /// Is it a token that a client of ours got for itself?
    pub fn is_clients_own(&self) -> bool {
        self.ours && self.session.is_none() && self.subject.starts_with(CLIENT_PREFIX)
    }

    /// `sub`, as it stands in the token: what revocations name.
    pub fn token_subject(&self) -> &str {
        self.subject.get(self.subject_prefix..).unwrap_or_default()
    }

    /// Every claim, as it stands in the token. Read anew at each call: most callers want none but those above, and
    /// many tokens are kept.
    pub fn claims(&self) -> serde_json::Map<String, serde_json::Value> {
        verify::claims_of(&self.text).unwrap_or_default()
    }

    /// Is it meant for one of `audiences`? Compared byte for byte.
    pub fn is_for<A: AsRef<str>>(&self, audiences: &[A]) -> bool {
        self.audience.iter().any(|mine| audiences.iter().any(|theirs| theirs.as_ref() == &**mine))
    }
}

/// An access token that this gate minted: what a command may act on. [`AccessToken::own`] alone makes one, so that no
/// command acts on our sessions in the name of another issuer's token (requirement R19).
#[derive(Clone, Copy, Debug)]
pub struct OwnChecked<'a>(&'a AccessToken);

impl AccessToken {
    /// The token, if it is ours.
    ///
    /// # Errors
    /// [`Denial::WrongIssuer`].
    pub fn own(&self) -> Result<OwnChecked<'_>, Denial> {
        if self.ours { Ok(OwnChecked(self)) } else { Err(Denial::WrongIssuer) }
    }
}

impl<'a> OwnChecked<'a> {
    /// What it says.
    pub const fn token(self) -> &'a AccessToken {
        self.0
    }

    /// What of it can be revoked: its session, or the token itself where it has none.
    pub fn revocable(self) -> Option<Target> {
        match self.0.session {
            Some((session, _)) => Some(Target::Session(session)),
            None => {
                self.0.jti.as_ref().map(|jti| Target::Token { issuer: Arc::clone(&self.0.issuer), jti: jti.clone() })
            }
        }
    }
}

impl fmt::Debug for AccessToken {
    /// Without the claims that only the application understands: they may be anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .field("client", &self.client)
            .field("scope", &self.scope)
            .field("session", &self.session)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
