//! A **session** is one login of one client (a token family in RFC 9700).
//!
//! Each new pair of tokens in the session has the next **generation**.

mod browser;
pub mod confirm;
pub mod expiry;
pub mod profile;
pub mod rotation;
pub mod scope;
pub mod step_up;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::claim::OwnClaims;
use crate::clock::Timestamp;
use crate::invalid::InvalidValue;
use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};
pub use browser::{Binding, BrowserBinding, DeviceBinding, DeviceKey};
pub use scope::Scope;

/// The number of a token pair within its session.
///
/// ```
/// use rotogate::session::Generation;
///
/// assert!(Generation::FIRST > Generation::NONE);
/// assert_eq!(Generation::new(7).get(), 7);
/// assert_eq!(Generation::new(7).to_string(), "7");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// The generation before the first pair.
    pub const NONE: Self = Self(0);
    /// The generation of the pair that a login issues.
    pub const FIRST: Self = Self(1);

    /// Creates a generation from the number in a token or a record.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as in a token's `gen` claim.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next generation, or `None` after the last number.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

/// Whether the pair of this generation was used. The use of the first pair is not recorded.
pub const fn use_in_words(generation: Generation, confirmed: bool) -> &'static str {
    match (confirmed, generation) {
        (true, _) => "seen in use",
        (false, Generation::FIRST) => "not refreshed yet",
        (false, _) => "not seen in use",
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a session: a UUIDv7 with the session's creation time.
///
/// ```
/// use rotogate::clock::Timestamp;
/// use rotogate::session::SessionId;
///
/// let login = Timestamp::from_secs(1_800_000_000);
/// let id = SessionId::new(login, [7; 10]);
/// assert_eq!(SessionId::parse(&id.to_string()), Some(id), "the claim `sid`");
/// assert_eq!(id.to_string().parse::<SessionId>()?, id, "a part of a path");
/// assert_eq!(id.created(), login);
/// assert!("ada".parse::<SessionId>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Creates an id from the creation time and ten random bytes.
    pub fn new(created: Timestamp, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(created.as_millis(), &random).into_uuid().into_bytes())
    }

    /// Creates an id from the sixteen bytes in a token or a record.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses a `sid` claim. Only a hyphenated lower-case UUIDv7 is accepted.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok()?;
        let own = Self(id.into_bytes());
        (id.get_version_num() == 7 && own.to_string() == text).then_some(own)
    }

    /// The creation time, to the millisecond. Not-befores are compared with this time.
    pub fn created(&self) -> Timestamp {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[..6]);
        Timestamp::from_millis(u64::from_be_bytes(ms))
    }
}

impl std::str::FromStr for SessionId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text).ok_or_else(|| InvalidValue::new("not a session id; expected a UUIDv7 in lower case"))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).as_hyphenated().fmt(f)
    }
}

crate::debug_with!(SessionId, |it, f| write!(f, "{it}"));

/// A session's random secret, part of the HMAC key for its refresh tokens. Only the store and the engine have the
/// secret.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionSecret([u8; 16]);

impl SessionSecret {
    /// Creates a secret from sixteen random bytes.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// The bytes of the secret, which are part of the HMAC key for refresh tokens.
    pub const fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

crate::debug_with!(SessionSecret);

/// The state of a session.
///
/// ```
/// use rotogate::session::{RevokedBecause, Status};
///
/// /// A column of a list of sessions.
/// fn state(status: Status) -> &'static str {
///     match status {
///         Status::Live => "live",
///         Status::Revoked(because) => because.word(),
///     }
/// }
/// assert_eq!(state(Status::Revoked(RevokedBecause::Logout)), "logout");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The session may be refreshed.
    Live,
    /// The session was revoked.
    Revoked(RevokedBecause),
}

/// Why a session was revoked.
///
/// ```
/// use rotogate::session::{RevokedBecause, Session, Status};
///
/// /// Returns whether one of the session's refresh tokens was copied.
/// fn was_copied(session: &Session) -> bool {
///     matches!(session.status, Status::Revoked(RevokedBecause::Reuse | RevokedBecause::OtherClient))
/// }
/// assert_eq!(RevokedBecause::Reuse.word(), "reuse");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RevokedBecause {
    /// The holder logged out, or revoked one of the session's tokens (RFC 7009).
    Logout,
    /// A superseded refresh token was presented (RFC 9700 §4.14.2).
    Reuse,
    /// Another client presented the session's refresh token.
    OtherClient,
    /// The operator or the application revoked the session.
    Operator,
    /// The subject exceeded the maximum number of live sessions, and this session was the oldest.
    TooMany,
    /// A refresh found that the user is gone, inactive or in another account, or has a later `sessions_valid_from`.
    UserChanged,
    /// The store lost the session's revocation, and a gate restored it.
    Restored,
    /// The issuer that authenticated the user reported a logout.
    IssuerLogout,
    /// The provider where the user logged in refused a refresh, or responded with another user.
    ProviderRefused,
    /// Another issuer requested the revocation of all the user's sessions (global token revocation).
    GlobalRevocation,
}

impl RevokedBecause {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Logout,
        Self::Reuse,
        Self::OtherClient,
        Self::Operator,
        Self::TooMany,
        Self::UserChanged,
        Self::Restored,
        Self::IssuerLogout,
        Self::ProviderRefused,
        Self::GlobalRevocation,
    ];

    /// A logout keeps the user's API keys.
    // Requirement K4.
    pub(crate) const fn ends_keys(self) -> bool {
        match self {
            Self::Operator | Self::UserChanged | Self::Restored | Self::GlobalRevocation => true,
            Self::Logout
            | Self::Reuse
            | Self::OtherClient
            | Self::TooMany
            | Self::IssuerLogout
            | Self::ProviderRefused => false,
        }
    }

    /// The name of the reason in lists of sessions.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Reuse => "reuse",
            Self::OtherClient => "other-client",
            Self::Operator => "operator",
            Self::TooMany => "too-many",
            Self::UserChanged => "user-changed",
            Self::Restored => "restored",
            Self::IssuerLogout => "issuer-logout",
            Self::ProviderRefused => "provider-refused",
            Self::GlobalRevocation => "global-revocation",
        }
    }
}

/// The inputs of the last token pair, from which the gate can produce identical tokens again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPair {
    /// The granted scope.
    pub scope: Scope,
    /// When the access token expires, in whole seconds.
    pub access_expires: Timestamp,
    /// The `kid` of the key that signed the access token.
    pub kid: Box<str>,
    /// The id of the refresh secret that made the refresh token.
    pub refresh_key: u8,
}

/// The record of a session.
///
/// `Serialize` writes the record as it is stored, **including the secret of the session**. Never send it to a client.
/// Show single fields instead, such as `id.to_string()`, `subject` and `id.created()`.
///
/// ```
/// use rotogate::session::Status;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let tokens = gate.sessions().start(NewSession::new("ada", "web")).await?;
/// let id = tokens.session.ok_or("a login has a session")?;
/// let session = gate.sessions().get(id).await?.ok_or("and a record")?;
/// assert_eq!((&*session.subject, session.status), ("ada", Status::Live));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session's id, which contains its creation time.
    pub id: SessionId,
    /// The session's own random secret.
    #[doc(hidden)]
    pub secret: SessionSecret,
    /// The subject that logged in.
    pub subject: Box<str>,
    /// The subject's account.
    pub account: Option<Box<str>>,
    /// The OAuth client to which the tokens were issued.
    pub client: Box<str>,
    /// The scope that was granted at login. A refresh cannot get more than this scope (RFC 6749 §6).
    pub scope: Scope,
    /// The dialect of the session's login.
    pub dialect: Box<str>,
    /// The session's expiry, which refreshes do not extend.
    pub expires: Timestamp,
    /// The latest expiry among the session's access tokens.
    pub latest_access_expires: Timestamp,

    /// The last generation that was issued.
    pub current: Generation,
    /// The generation that was exchanged for `current`, or [`Generation::NONE`].
    pub previous: Generation,
    /// When `previous` was first exchanged.
    pub rotated_at: Timestamp,
    /// When `current` was issued.
    pub issued_at: Timestamp,
    /// Whether a token of the current generation was used. Always false for [`Generation::FIRST`].
    pub confirmed: bool,
    /// The inputs from which the last pair of tokens was made.
    #[doc(hidden)]
    pub last: LastPair,

    /// Whether the session is live or revoked.
    pub status: Status,
    /// The revision, which rises with every change of the record.
    pub revision: u64,
    /// The browser's user agent at login.
    pub user_agent: Option<Box<str>>,
    /// The client's address at login.
    pub address: Option<IpAddr>,
    /// The application's own claims in the last access token.
    #[serde(default)]
    pub claims: OwnClaims,
    /// The DPoP key to which the last pair is bound (RFC 9449). For a public client the key never changes.
    #[serde(default)]
    pub bound_to: Option<KeyThumbprint>,
    /// The audience of the session's tokens, if a resource was requested (RFC 8707). `None` means the audience of the
    /// gate.
    #[serde(default)]
    pub resource: Option<Box<str>>,
    /// The external issuer that authenticated the user. A logout at that issuer ends the session.
    #[serde(default)]
    pub vouched_by: Option<Box<VouchedBy>>,
    /// The client certificate to which the last pair is bound (RFC 8705). For a public client the certificate never
    /// changes.
    #[serde(default)]
    pub certificate: Option<CertificateThumbprint>,
    /// The browser's cookie for the session. Refresh tokens of this session never leave the gate.
    #[doc(hidden)]
    #[serde(default)]
    pub browser: Option<Box<BrowserBinding>>,
    /// Proof that a gate wrote the record. Stores must not change the seal.
    #[doc(hidden)]
    #[serde(default)]
    pub seal: Seal,
}

/// Proof that a gate wrote a record.
///
/// An authentication tag over all fields except `status`, `confirmed` and `revision`, which a store changes in
/// place. If the tag is missing or invalid, requests for the session get 503.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seal(Option<(u8, [u8; 16])>);

impl Seal {
    pub(crate) const fn parts(&self) -> Option<(u8, [u8; 16])> {
        self.0
    }
}

impl Seal {
    /// Creates a seal. `key` is the id of the refresh secret that made `tag`.
    pub const fn new(key: u8, tag: [u8; 16]) -> Self {
        Self(Some((key, tag)))
    }

    /// The id of the refresh secret that made the seal.
    pub fn key(&self) -> Option<u8> {
        self.0.map(|(key, _)| key)
    }
}

/// Another issuer that authenticated the user, with its identifiers for user and session.
///
/// ```
/// use rotogate::session::VouchedBy;
///
/// // The claims of an ID token: `iss`, `sub` and `sid`.
/// let by = VouchedBy::new("https://idp.example.com", "u-1").session("s-9");
/// assert_eq!(by.session.as_deref(), Some("s-9"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VouchedBy {
    /// The `iss` of the issuer.
    pub issuer: Box<str>,
    /// The user's `sub` at the issuer.
    pub subject: Box<str>,
    /// The issuer's `sid` for the session.
    #[serde(default)]
    pub session: Option<Box<str>>,
}

impl VouchedBy {
    /// Creates a value from the `iss` and `sub` of the issuer's token.
    pub fn new(issuer: impl Into<Box<str>>, subject: impl Into<Box<str>>) -> Self {
        Self { issuer: issuer.into(), subject: subject.into(), session: None }
    }

    /// Sets the issuer's `sid`.
    #[must_use]
    pub fn session(self, session: impl Into<Box<str>>) -> Self {
        Self { session: Some(session.into()), ..self }
    }

    /// Returns whether all values have 1 to 256 bytes and no control characters.
    pub fn is_valid(&self) -> bool {
        let all = [Some(&self.issuer), Some(&self.subject), self.session.as_ref()];
        all.into_iter().flatten().all(|text| (1..=256).contains(&text.len()) && !text.chars().any(char::is_control))
    }
}

impl Session {
    /// The creation time, to the millisecond.
    pub fn created(&self) -> Timestamp {
        self.id.created()
    }

    /// The time after which neither the session nor any of its tokens is valid. For a revoked session, this is the
    /// expiry of its last access token.
    pub fn ends_at(&self) -> Timestamp {
        match self.status {
            Status::Live => self.expires.max(self.latest_access_expires),
            Status::Revoked(_) => self.latest_access_expires,
        }
    }

    /// Returns whether the session was revoked.
    pub fn is_revoked(&self) -> bool {
        match self.status {
            Status::Live => false,
            Status::Revoked(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_its_creation_to_the_millisecond() {
        let t = Timestamp::from_millis(1_732_000_000_123);
        let id = SessionId::new(t, [0xab; 10]);
        assert_eq!(id.created(), t);
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        for bad in ["", "x", &id.to_string().to_uppercase(), &id.to_string().replace('-', ""), &Uuid::nil().to_string()]
        {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn o3_a_secret_does_not_print() {
        assert_eq!(format!("{:?}", SessionSecret::new([0x41; 16])), "SessionSecret(…)");
    }
}
