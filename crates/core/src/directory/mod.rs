//! The users. The gate asks a [`Directory`] at each login and each refresh.

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

/// A user, as the directory knows it.
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
    /// The `sub` of the user's tokens: visible ASCII, 1 to 256 bytes. It does not begin with `client:`.
    // Requirements J9, R21.
    pub subject: Box<str>,
    /// The user's account, if any.
    pub account: Option<Box<str>>,
    /// May the user log in and refresh?
    pub active: bool,
    /// Sessions created at or before this moment are not valid. A change of the password moves it forward.
    pub sessions_valid_from: Timestamp,
    /// A mark of the user's password, if the directory can tell passwords apart.
    pub password_mark: Option<PasswordMark>,
    /// The scopes that the user's tokens may carry.
    pub scopes: Scope,
    /// The current claims for the access tokens of the user's sessions; a refresh copies them into the new token. Roles
    /// are the claim `roles` ([`OwnClaims::ROLES`](crate::claim::OwnClaims::ROLES)).
    pub claims: OwnClaims,
    /// The issuer that vouched for the user at this login, if the directory asked an issuer.
    pub vouched_by: Option<VouchedBy>,
    /// Further fields (names, email, …) for the dialects that report them.
    pub profile: BTreeMap<String, serde_json::Value>,
}

impl User {
    /// An active user without account, scopes, claims and profile, whose sessions are all valid.
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

    /// Sets the mark of the password: a changed mark ends a login in progress.
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

    /// Sets the issuer that vouched for the user at this login.
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

/// A digest of the user's data that a login depends on. A session that began with other data is not valid.
pub fn login_state(user: &User) -> [u8; 32] {
    let User { active, account, password_mark, sessions_valid_from, .. } = user;
    let account = account.as_deref();
    let mark = password_mark.map(PasswordMark::to_bytes);
    PasswordMark::new(format!("{active} {account:?} {mark:?} {sessions_valid_from:?}").as_bytes()).to_bytes()
}

/// Distinguishes a user's password from the previous one without revealing either: a digest of what the directory
/// stores, such as a salted hash. Never a digest of the password itself.
///
/// ```
/// use rotogate::directory::{PasswordMark, User};
///
/// // The column `password_changed_at` of a table of users.
/// let before = User::new("u-17").password_mark(PasswordMark::new(b"2026-10-01T08:00:00Z"));
/// let after = User::new("u-17").password_mark(PasswordMark::new(b"2026-11-20T17:30:00Z"));
/// assert_ne!(before, after, "a login that began with the old password is checked again");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordMark([u8; 32]);

impl PasswordMark {
    /// Makes a mark from the stored form of the password, or from any value that changes with the password: a version,
    /// the time of the change.
    pub fn new(kept: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, kept);
        let mut mark = [0; 32];
        mark.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(mark)
    }
}

impl PasswordMark {
    /// A stored mark.
    pub fn from_bytes(kept: [u8; 32]) -> Self {
        Self(kept)
    }

    /// The mark in a form to store.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

crate::debug_with!(PasswordMark);

/// A login to decide on: the name, the password, and the known facts about the client.
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
    /// The client, authenticated.
    pub client: Option<&'a str>,
    /// The address of the caller, if it is known.
    pub address: Option<IpAddr>,
    /// The caller's `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The requested scope; `None` for all that is allowed.
    pub scope: Option<&'a Scope>,
}

impl<'a> LoginRequest<'a> {
    /// A login with a name and a password only.
    pub fn new(account: Option<&'a str>, username: &'a str, password: &'a SecretString) -> Self {
        Self { account, username, password, client: None, address: None, user_agent: None, scope: None }
    }
}

/// The users of ours that another issuer names.
#[derive(Debug)]
pub enum NamedUsers {
    /// No user has this name.
    None,
    /// One user has this name.
    One(Box<User>),
    /// Several users have this name, so no session ends.
    Several,
}

/// The users of the gate.
///
/// A login asks twice: [`authenticate`](Self::authenticate) first, and [`lookup`](Self::lookup) right before the
/// session is written. If the two differ in `active`, `account`, `sessions_valid_from` or `password_mark`, the user was
/// changed in between, and the password is checked once more. So both must return the same values for an unchanged
/// user, and a directory that knows when a password changes must show the change in one of the last two fields. A
/// refresh asks [`lookup`](Self::lookup). It ends a session whose user is inactive or in another account, or that was
/// created at or before `sessions_valid_from`. After 30 seconds without an answer, a directory counts as unavailable.
///
/// ```
/// # use std::sync::Arc;
/// # use rotogate::SecretString;
/// use rotogate::directory::{Directory, DirectoryError, User};
///
/// // The staff among the users of another directory. The module has a whole one.
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
    /// The user with this name and password in this account. `None`, after the same amount of work, for an unknown
    /// user, an inactive user and a wrong password.
    // Requirement A2.
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError>;

    /// Like [`authenticate`](Self::authenticate), which it calls by default, with the other known facts about the
    /// login. The gate calls this method.
    async fn log_in(&self, login: &LoginRequest<'_>) -> Result<Option<User>, DirectoryError> {
        self.authenticate(login.account, login.username, login.password).await
    }

    /// The current entry of a subject. `None` ends the subject's sessions.
    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError>;

    /// Like [`lookup`](Self::lookup), which it calls by default, with the account of the subject's session. The gate
    /// calls this method. The entry may now be in another account.
    async fn lookup_in(&self, _account: Option<&str>, subject: &str) -> Result<Option<User>, DirectoryError> {
        self.lookup(subject).await
    }

    /// The user that another issuer names by its `iss` and `sub`. Used for an identity assertion whose issuer is
    /// configured with `subject = "directory"`. The default implementation returns `None`. An e-mail address must never
    /// link two accounts.
    async fn lookup_of_issuer(&self, _issuer: &str, _subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(None)
    }

    /// The users that another issuer names by another name than its `sub`. The gate asks only for the forms of name
    /// that the issuer's rules allow, and only to end the users' sessions: no login ever follows from such a name. The
    /// default implementation finds no user.
    #[doc(hidden)]
    async fn lookup_named(&self, _issuer: &str, _name: &UserName) -> Result<NamedUsers, DirectoryError> {
        Ok(NamedUsers::None)
    }

    /// Does it name no user at all? Then the users of another source need no prefix beside it.
    #[doc(hidden)]
    fn is_empty(&self) -> bool {
        false
    }

    /// The name under which limits count logins within the account: the same name for all spellings that the directory
    /// treats as equal. The default is the name as submitted. It must not depend on the users: if two names of one user
    /// shared a limit, wrong passwords for one name would reveal the other.
    fn limit_key<'a>(&self, _account: Option<&str>, username: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(username)
    }
}

/// Is this usable as a user's `sub`: visible ASCII, 1 to 256 bytes (requirement J9), and unlike a client's own subject
/// (requirement R21)?
pub fn is_valid_subject(subject: &str) -> bool {
    is_subject(subject) && !subject.starts_with(CLIENT_PREFIX)
}
