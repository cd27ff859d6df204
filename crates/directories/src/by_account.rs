//! Selection of a directory by account. The gate never falls back to another directory, where the same name could be a
//! different user (requirement I25).

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use secrecy::SecretString;

use rotogate_core::directory::{Directory, DirectoryError, LoginRequest, NamedUsers, User, UserName};
use rotogate_core::password::{Cost, Passwords};

/// A directory with the accounts that it serves.
#[derive(Clone, Debug)]
pub struct AccountDirectory {
    /// The accounts of this directory. `None` stands for all remaining accounts and for users without an account.
    pub accounts: Option<Vec<String>>,
    /// The directory.
    pub directory: Arc<dyn Directory>,
}

/// The directories of a gate. Clones share them.
#[derive(Clone, Debug)]
pub struct Directories {
    all: Arc<ArcSwap<Vec<AccountDirectory>>>,
    passwords: Arc<Passwords>,
}

impl Directories {
    /// Creates the selection. The first directory that serves an account is used.
    pub fn new(all: Vec<AccountDirectory>, passwords: Arc<Passwords>) -> Self {
        Self { all: Arc::new(ArcSwap::from_pointee(all)), passwords }
    }

    /// Replaces the directories. Running requests finish with the previous directories.
    pub fn replace(&self, all: Vec<AccountDirectory>) {
        self.all.store(Arc::new(all));
    }

    fn find(&self, account: Option<&str>) -> Option<Arc<dyn Directory>> {
        let all = self.all.load();
        let has = |one: &&AccountDirectory| {
            one.accounts.as_ref().is_some_and(|names| account.is_some_and(|account| names.iter().any(|n| n == account)))
        };
        let found = all.iter().find(has).or_else(|| all.iter().find(|one| one.accounts.is_none()));
        found.map(|one| Arc::clone(&one.directory))
    }
}

#[async_trait]
impl Directory for Directories {
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        self.log_in(&LoginRequest::new(account, username, password)).await
    }

    async fn log_in(&self, login: &LoginRequest<'_>) -> Result<Option<User>, DirectoryError> {
        match self.find(login.account) {
            Some(directory) => directory.log_in(login).await,
            // Takes as long as a password check, so that the duration does not reveal whether the account exists
            // (requirement I64).
            None => self.passwords.verify_dummy(login.password, Cost::default()).await.map(|()| None),
        }
    }

    fn is_empty(&self) -> bool {
        self.all.load().is_empty()
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        self.lookup_in(None, subject).await
    }

    async fn lookup_in(&self, account: Option<&str>, subject: &str) -> Result<Option<User>, DirectoryError> {
        match self.find(account) {
            Some(directory) => directory.lookup_in(account, subject).await,
            // The account may have been removed from the configuration since the login. The user may still exist, so
            // this is an error.
            None => Err(DirectoryError::Unavailable(match account {
                Some(account) => format!("no configured directory has the account {account:?}"),
                None => "no configured directory has users without an account".to_owned(),
            })),
        }
    }

    /// Users of another issuer have no account at this gate.
    async fn lookup_of_issuer(&self, issuer: &str, subject: &str) -> Result<Option<User>, DirectoryError> {
        match self.find(None) {
            Some(directory) => directory.lookup_of_issuer(issuer, subject).await,
            None => Ok(None),
        }
    }

    async fn lookup_named(&self, issuer: &str, name: &UserName) -> Result<NamedUsers, DirectoryError> {
        match self.find(None) {
            Some(directory) => directory.lookup_named(issuer, name).await,
            None => Ok(NamedUsers::None),
        }
    }

    fn limit_key<'a>(&self, account: Option<&str>, username: &'a str) -> Cow<'a, str> {
        match self.find(account) {
            Some(directory) => directory.limit_key(account, username),
            None => Cow::Borrowed(username),
        }
    }
}
