//! The users of the gate. The gate queries a [`Directory`] at each login and each refresh.

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
    /// The `sub` of the user's tokens: 1 to 256 bytes of visible ASCII, not starting with `client:`.
    // Requirements J9, R21.
    pub subject: Box<str>,
    /// The user's account, if any.
    pub account: Option<Box<str>>,
    /// Whether the user may log in and refresh.
    pub active: bool,
    /// Sessions created at or before this moment are not valid. A change of the password moves this moment forward.
    pub sessions_valid_from: Timestamp,
    /// A mark that changes with the user's password, if the directory can detect such changes.
    pub password_mark: Option<PasswordMark>,
    /// The scopes that the user's tokens may contain.
    pub scopes: Scope,
    /// The current claims for the access tokens of the user's sessions. Each refresh copies them into the new token.
    /// Roles are in the claim `roles` ([`OwnClaims::ROLES`](crate::claim::OwnClaims::ROLES)).
    pub claims: OwnClaims,
    /// The issuer that authenticated the user at this login, if the directory relied on another issuer.
    pub vouched_by: Option<VouchedBy>,
    /// Further fields (names, email, …) for the dialects that report them.
    pub profile: BTreeMap<String, serde_json::Value>,
}

impl User {
    /// An active user without an account, scopes, claims or a profile. Sessions of any age are valid.
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

    /// Ends the sessions that were created at this moment or before.
    #[must_use]
    pub fn sessions_valid_from(self, moment: Timestamp) -> Self {
        Self { sessions_valid_from: moment, ..self }
    }

    /// Sets the mark of the password. If the mark changes during a login, the password is checked again.
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

    /// Sets the issuer that authenticated the user at this login.
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

/// A digest of the user's data on which a login depends. If the data changes, the session is no longer valid.
pub fn login_state(user: &User) -> [u8; 32] {
    let User { active, account, password_mark, sessions_valid_from, .. } = user;
    let account = account.as_deref();
    let mark = password_mark.map(PasswordMark::to_bytes);
    PasswordMark::new(format!("{active} {account:?} {mark:?} {sessions_valid_from:?}").as_bytes()).to_bytes()
}

/// Distinguishes a user's password from the previous one without revealing either. It is a digest of what the directory
/// stores, such as a salted hash, but never a digest of the password itself.
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
    /// Makes a mark from the stored form of the password, or from any value that changes with the password, such as a
    /// version number or the time of the last change.
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

/// A login attempt, with the name, the password, and what is known about the client.
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
    /// The client, which has authenticated.
    pub client: Option<&'a str>,
    /// The address of the caller, if it is known.
    pub address: Option<IpAddr>,
    /// The caller's `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The requested scope, or `None` for the whole allowed scope.
    pub scope: Option<&'a Scope>,
}

impl<'a> LoginRequest<'a> {
    /// A login with only a name and a password.
    pub fn new(account: Option<&'a str>, username: &'a str, password: &'a SecretString) -> Self {
        Self { account, username, password, client: None, address: None, user_agent: None, scope: None }
    }
}

/// The users of this gate that another issuer's notice names.
#[derive(Debug)]
pub enum NamedUsers {
    /// No user has this name.
    None,
    /// One user has this name.
    One(Box<User>),
    /// Several users have this name, so their sessions do not end.
    Several,
}

/// The users of the gate.
///
/// A login queries the directory twice: first with [`authenticate`](Self::authenticate), and right before the session
/// is written with [`lookup`](Self::lookup). If the results differ in `active`, `account`, `sessions_valid_from` or
/// `password_mark`, the user was changed in between, and the password is checked again. Both methods must therefore
/// return the same values for an unchanged user. A directory that knows when a password changes must show the change in
/// `sessions_valid_from` or `password_mark`. A refresh queries [`lookup`](Self::lookup). It ends the session if the
/// user is inactive or in another account, or if the session was created at or before `sessions_valid_from`. If the
/// directory does not respond within 30 seconds, it counts as unavailable.
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
    /// The user with this name and password in this account. Returns `None` for an unknown user, an inactive user or a
    /// wrong password. All three must take the same amount of work.
    // Requirement A2.
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError>;

    /// Does the same as [`authenticate`](Self::authenticate), with more information about the login. The gate calls
    /// this method. The default implementation calls `authenticate`.
    async fn log_in(&self, login: &LoginRequest<'_>) -> Result<Option<User>, DirectoryError> {
        self.authenticate(login.account, login.username, login.password).await
    }

    /// The directory's current entry for a subject. Returning `None` ends the subject's sessions.
    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError>;

    /// Does the same as [`lookup`](Self::lookup), with the account of the subject's session. The gate calls this
    /// method. The default implementation calls `lookup`. The returned entry may be in a different account.
    async fn lookup_in(&self, _account: Option<&str>, subject: &str) -> Result<Option<User>, DirectoryError> {
        self.lookup(subject).await
    }

    /// The user whom another issuer identifies by `iss` and `sub`. Used for an identity assertion whose issuer is
    /// configured with `subject = "directory"`. The default implementation returns `None`. Do not link accounts by
    /// e-mail address.
    async fn lookup_of_issuer(&self, _issuer: &str, _subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(None)
    }

    /// The users whom another issuer identifies by a name other than its `sub`. The gate passes only the forms of names
    /// that the issuer's rules allow, and only to end the users' sessions, never to log a user in. The default
    /// implementation does not find any user.
    #[doc(hidden)]
    async fn lookup_named(&self, _issuer: &str, _name: &UserName) -> Result<NamedUsers, DirectoryError> {
        Ok(NamedUsers::None)
    }

    /// Returns whether the directory has no users. In that case the users of another source do not need a prefix.
    #[doc(hidden)]
    fn is_empty(&self) -> bool {
        false
    }

    /// The name, within the account, under which the login limits count attempts. It must be the same for all spellings
    /// that the directory treats as equal. The default is the submitted name. The result must not depend on the
    /// existing users, because if two names of one user shared a limit, wrong passwords for one name would reveal the
    /// other name.
    fn limit_key<'a>(&self, _account: Option<&str>, username: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(username)
    }
}

/// Returns whether this can be a user's `sub`. It must be 1 to 256 bytes of visible ASCII (requirement J9), and must
/// not look like a client's own subject (requirement R21).
pub fn is_valid_subject(subject: &str) -> bool {
    is_subject(subject) && !subject.starts_with(CLIENT_PREFIX)
}
