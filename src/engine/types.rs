//! What the engine is asked, and what it answers.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::SecretString;

use crate::claim::OwnClaims;
use crate::client::Client;
use crate::clock::Timestamp;
use crate::directory::User;
use crate::session::profile::Profile;
use crate::session::{Scope, SessionId};
use crate::token::claims::OwnChecked;
use crate::token::mint::AccessTokenText;
use crate::token::refresh::RefreshToken;

/// Where a request came from, for limits and the audit trail.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's address, if it is known.
    pub address: Option<IpAddr>,
    /// Its `User-Agent`.
    pub user_agent: Option<Box<str>>,
}

/// A login with a password (RFC 6749 §4.3).
#[derive(Debug)]
pub struct Login<'a> {
    /// The client, authenticated.
    pub client: &'a Client,
    /// The account from the path, if the endpoint has one.
    pub account: Option<&'a str>,
    /// The user's name.
    pub username: &'a str,
    /// The user's password.
    pub password: &'a SecretString,
    /// The scope asked for; `None` for all that is allowed.
    pub scope: Option<Scope>,
    /// How long the access token should live; `None` for the profile's time.
    pub access_ttl: Option<Duration>,
    /// The endpoint's rules.
    pub profile: &'a Profile,
    /// The endpoint's dialect.
    pub dialect: &'a str,
    /// Where it came from.
    pub origin: &'a Origin,
}

/// A session that the application begins itself, with its own login page.
#[derive(Debug)]
pub struct ApplicationLogin<'a> {
    /// The `sub` of its tokens.
    pub subject: &'a str,
    /// The account, where there is one.
    pub account: Option<&'a str>,
    /// The client that the tokens are for.
    pub client: &'a str,
    /// The scope granted.
    pub scope: Scope,
    /// Claims for its access tokens.
    pub claims: OwnClaims,
    /// The rules.
    pub profile: &'a Profile,
    /// Where it came from.
    pub origin: &'a Origin,
}

/// What is presented to be exchanged. An access token was verified before, but for revocation: a superseded one is revoked
/// in some protocols, and may still be exchanged for the same successor within grace.
#[derive(Clone, Copy, Debug)]
pub enum Exchange<'a> {
    /// A refresh token (RFC 6749 §6).
    Refresh(&'a SecretString),
    /// An access token of ours, in a session of a dialect that knows no other credential.
    Access(OwnChecked<'a>),
    /// Both: the access token's generation is that of the refresh token, or the one before.
    Pair(&'a SecretString, OwnChecked<'a>),
}

/// A presented refresh credential.
#[derive(Debug)]
pub struct Refresh<'a> {
    /// What was presented.
    pub credential: Exchange<'a>,
    /// The client, authenticated.
    pub client: &'a Client,
    /// Whose sessions the request may be about.
    pub account: AccountRule<'a>,
    /// The scope asked for: the granted one or less.
    pub scope: Option<Scope>,
    /// How long the access token should live; `None` for the profile's time.
    pub access_ttl: Option<Duration>,
    /// The endpoint's rules.
    pub profile: &'a Profile,
    /// The dialects whose sessions the endpoint takes.
    pub accepts: &'a [Box<str>],
    /// Those among them in which an access token is its own refresh credential.
    pub by_access: &'a [Box<str>],
    /// Where it came from.
    pub origin: &'a Origin,
}

/// The account that a request names in its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountRule<'a> {
    /// The endpoint's path has no place for an account: sessions of every account are refreshed there.
    Any,
    /// Sessions of this account alone; of none at all, where the path names none.
    Only(Option<&'a str>),
}

impl AccountRule<'_> {
    /// Is a session of this account meant?
    pub fn has(self, account: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Only(named) => named == account,
        }
    }
}

/// How tokens came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueKind {
    /// A login.
    Login,
    /// A client's own credentials.
    ClientCredentials,
    /// A rotation.
    Rotated,
    /// The current pair again.
    Replayed,
    /// A new pair in the place of one that nobody used.
    Reissued,
    /// A session taken on from where the store had lost it.
    FastForwarded,
}

/// Tokens for a client.
#[derive(Debug)]
pub struct IssuedTokens {
    /// The access token.
    pub access_token: AccessTokenText,
    /// The refresh token; none for a client's own credentials.
    pub refresh_token: Option<RefreshToken>,
    /// When the access token expires.
    pub expires: Timestamp,
    /// How many seconds of it are left.
    pub expires_in: u64,
    /// Whose they are: `sub`.
    pub subject: Box<str>,
    /// The scope granted.
    pub scope: Scope,
    /// The session, where there is one.
    pub session: Option<SessionId>,
    /// How many seconds of that session are left at most: the longest that the refresh token can be of use.
    pub session_expires_in: Option<u64>,
    /// The user, where a directory knows one.
    pub user: Option<User>,
    /// How they came about.
    pub how: IssueKind,
}
