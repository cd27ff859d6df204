//! The users of the gate.

mod bounded;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use async_trait::async_trait;
use secrecy::SecretString;

pub(crate) use self::bounded::BoundedDirectory;
use crate::claim::OwnClaims;
use crate::clock::Timestamp;
use crate::session::{Scope, VouchedBy};
use crate::token::claims::CLIENT_PREFIX;
use crate::token::verify::is_subject;

pub use crate::fault::DirectoryError;
pub use crate::token::verify::{UserName, UserNameForm};

/// A user as returned by a directory.
///
/// ```
/// use rotogate::claim::OwnClaims;
/// use rotogate::directory::User;
///
/// let mut claims = OwnClaims::new();
/// claims.insert(OwnClaims::ROLES, ["editor"])?;
/// let user = User::new("u-17").account("acme").claims(claims).field("email", "ada@example.com");
/// assert!(user.active);
/// # Ok::<(), rotogate::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The `sub` claim: 1 to 256 bytes of visible ASCII, not starting with `client:`.
    // Requirements J9, R21.
    pub subject: Box<str>,
    /// The user's account, or `None` if the user has no account.
    pub account: Option<Box<str>>,
    /// Whether the user may log in and refresh.
    pub active: bool,
    /// Sessions created at or before this moment are not valid.
    pub sessions_valid_from: Timestamp,
    /// A mark that changes with the user's password.
    pub password_mark: Option<PasswordMark>,
    /// The scopes that the user's tokens may contain.
    pub scopes: Scope,
    /// The claims for the user's access tokens. Roles are in the claim `roles`
    /// ([`OwnClaims::ROLES`](crate::claim::OwnClaims::ROLES)).
    pub claims: OwnClaims,
    /// The issuer that authenticated the user, if the directory relied on another issuer.
    pub vouched_by: Option<VouchedBy>,
    /// Profile fields, such as names or an email address.
    pub profile: BTreeMap<String, serde_json::Value>,
}

impl User {
    /// Creates an active user without an account, scopes, claims or a profile.
    ///
    /// ```
    /// use rotogate::directory::{PasswordMark, User};
    /// use rotogate::session::Scope;
    ///
    /// # fn user(hash: &str) -> Result<User, Box<dyn std::error::Error>> {
    /// let user = User::new("u-17").scopes(Scope::parse("read write")?).password_mark(PasswordMark::new(hash.as_bytes()));
    /// # Ok(user) }
    /// ```
    pub fn new(subject: impl Into<Box<str>>) -> Self {
        Self {
            subject: subject.into(),
            account: None,
            active: true,
            sessions_valid_from: Timestamp::ZERO,
            password_mark: None,
            scopes: Scope::default(),
            claims: OwnClaims::default(),
            vouched_by: None,
            profile: BTreeMap::new(),
        }
    }

    /// Sets the account.
    #[must_use]
    pub fn account(self, account: impl Into<Box<str>>) -> Self {
        Self { account: Some(account.into()), ..self }
    }

    /// Sets whether the user may log in and refresh.
    #[must_use]
    pub fn active(self, active: bool) -> Self {
        Self { active, ..self }
    }

    /// Ends the sessions created at or before this moment.
    #[must_use]
    pub fn sessions_valid_from(self, moment: Timestamp) -> Self {
        Self { sessions_valid_from: moment, ..self }
    }

    /// Sets the password mark.
    #[must_use]
    pub fn password_mark(self, mark: PasswordMark) -> Self {
        Self { password_mark: Some(mark), ..self }
    }

    /// Sets the scopes.
    #[must_use]
    pub fn scopes(self, scopes: Scope) -> Self {
        Self { scopes, ..self }
    }

    /// Sets the claims of the user's access tokens.
    #[must_use]
    pub fn claims(self, claims: OwnClaims) -> Self {
        Self { claims, ..self }
    }

    /// Sets the issuer that authenticated the user.
    #[must_use]
    pub fn vouched_by(self, by: VouchedBy) -> Self {
        Self { vouched_by: Some(by), ..self }
    }

    /// Adds a field for the dialects that report a profile.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.profile.insert(name.into(), value.into());
        self
    }
}

/// A digest of the user's data on which a login depends.
pub fn login_state(user: &User) -> [u8; 32] {
    let User { active, account, password_mark, sessions_valid_from, .. } = user;
    let account = account.as_deref();
    let mark = password_mark.map(PasswordMark::to_bytes);
    PasswordMark::new(format!("{active} {account:?} {mark:?} {sessions_valid_from:?}").as_bytes()).to_bytes()
}

/// A value that changes with a user's password without revealing it. Derive the mark only from the stored hash or a
/// version.
///
/// ```
/// use rotogate::directory::{PasswordMark, User};
///
/// // The value of the column `password_changed_at` in your table of users.
/// let before = User::new("u-17").password_mark(PasswordMark::new(b"2026-10-01T08:00:00Z"));
/// let after = User::new("u-17").password_mark(PasswordMark::new(b"2026-11-20T17:30:00Z"));
/// assert_ne!(before, after, "a login that began with the old password is checked again");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordMark([u8; 32]);

impl PasswordMark {
    /// Creates a mark from a password hash, version or change time.
    pub fn new(kept: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, kept);
        let mut mark = [0; 32];
        mark.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(mark)
    }
}

impl PasswordMark {
    /// Restores a mark from its stored form.
    pub fn from_bytes(kept: [u8; 32]) -> Self {
        Self(kept)
    }

    /// The mark in a form that can be stored.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

crate::debug_with!(PasswordMark);

/// A login attempt.
///
/// ```
/// use rotogate::SecretString;
/// use rotogate::directory::{Directory, LoginRequest};
///
/// async fn is_right(users: &dyn Directory, password: &SecretString) -> bool {
///     let login = LoginRequest::new(Some("acme"), "ada", password);
///     users.log_in(&login).await.is_ok_and(|user| user.is_some())
/// }
/// # let _ = is_right;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginRequest<'a> {
    /// The account, if the endpoint has one.
    pub account: Option<&'a str>,
    /// The submitted name.
    pub username: &'a str,
    /// The submitted password.
    pub password: &'a SecretString,
    /// The id of the authenticated client.
    pub client: Option<&'a str>,
    /// The address of the caller, or `None` if it is unknown.
    pub address: Option<IpAddr>,
    /// The caller's `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The requested scope, or `None` for all allowed scopes.
    pub scope: Option<&'a Scope>,
}

impl<'a> LoginRequest<'a> {
    /// A login with only a name and a password.
    pub fn new(account: Option<&'a str>, username: &'a str, password: &'a SecretString) -> Self {
        Self { account, username, password, client: None, address: None, user_agent: None, scope: None }
    }
}

/// The local users that match a name from another issuer.
#[derive(Debug)]
pub enum NamedUsers {
    /// The name does not belong to a user.
    None,
    /// The name belongs to one user.
    One(Box<User>),
    /// The name belongs to several users.
    Several,
}

/// The users of the gate.
///
/// A login calls [`authenticate`](Self::authenticate), and then [`lookup`](Self::lookup) before it writes the session.
/// If `active`, `account`, `sessions_valid_from` or `password_mark` differ, the password is checked again.
/// [`authenticate`](Self::authenticate) and [`lookup`](Self::lookup) must return the same values for an unchanged user.
/// A directory that knows when a password changes must show the change in `sessions_valid_from` or `password_mark`. A
/// refresh calls [`lookup`](Self::lookup). A refresh ends the session if the user is inactive or in another account. A
/// session must be newer than `sessions_valid_from`. If the directory does not respond within 30 seconds, it counts as
/// unavailable.
///
/// ```
/// # use std::sync::Arc;
/// # use rotogate::SecretString;
/// use rotogate::directory::{Directory, DirectoryError, User};
///
/// // Only the users of another directory whose account is `staff`. The module shows a complete directory.
/// # #[derive(Debug)]
/// # struct Staff(Arc<dyn Directory>);
/// #[async_trait::async_trait]
/// impl Directory for Staff {
///     # async fn authenticate(
///     #     &self,
///     #     account: Option<&str>,
///     #     username: &str,
///     #     password: &SecretString,
///     # ) -> Result<Option<User>, DirectoryError> {
///     #     let user = self.0.authenticate(account, username, password).await?;
///     #     Ok(user.filter(|user| user.account.as_deref() == Some("staff")))
///     # }
///     // … and `authenticate`, with the same filter
///     async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
///         Ok(self.0.lookup(subject).await?.filter(|user| user.account.as_deref() == Some("staff")))
///     }
/// }
/// ```
#[async_trait]
pub trait Directory: fmt::Debug + Send + Sync + 'static {
    /// Checks the name and the password. Returns `None` for an unknown user, an inactive user or a wrong password.
    /// Refusals must all take the same time.
    // Requirement A2.
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError>;

    /// Like [`authenticate`](Self::authenticate), with more information about the login. The default implementation
    /// calls `authenticate`.
    async fn log_in(&self, login: &LoginRequest<'_>) -> Result<Option<User>, DirectoryError> {
        self.authenticate(login.account, login.username, login.password).await
    }

    /// The directory's current entry for a subject. Returning `None` ends the subject's sessions.
    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError>;

    /// Like [`lookup`](Self::lookup), with the account of the subject's session. The default implementation calls
    /// `lookup`. The returned user may have another account.
    async fn lookup_in(&self, _account: Option<&str>, subject: &str) -> Result<Option<User>, DirectoryError> {
        self.lookup(subject).await
    }

    /// Finds the user whom another issuer identifies by `iss` and `sub`. The default implementation returns `None`. Do
    /// not link accounts by e-mail address.
    async fn lookup_of_issuer(&self, _issuer: &str, _subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(None)
    }

    /// Finds the users whose sessions end when another issuer reports this name.
    #[doc(hidden)]
    async fn lookup_named(&self, _issuer: &str, _name: &UserName) -> Result<NamedUsers, DirectoryError> {
        Ok(NamedUsers::None)
    }

    /// Returns whether the directory has no users.
    #[doc(hidden)]
    fn is_empty(&self) -> bool {
        false
    }

    /// The name under which the login limits count attempts. Equivalent spellings need the same name. The default is
    /// the submitted name. The result must not depend on which users exist. Otherwise a limit shared by two names would
    /// reveal that they belong to the same user.
    fn limit_key<'a>(&self, _account: Option<&str>, username: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(username)
    }
}

/// Returns whether a string is a valid `sub`: 1 to 256 bytes of visible ASCII, without the prefix `client:`.
pub fn is_valid_subject(subject: &str) -> bool {
    is_subject(subject) && !subject.starts_with(CLIENT_PREFIX)
}
