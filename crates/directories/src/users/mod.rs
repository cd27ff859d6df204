//! Users in `users.toml`, with one `[[users]]` table for each user.
//!
//! ```toml
//! [[users]]
//! subject = "0198f0a4-…"             # the sub of the user's tokens: never changed, never given to another user
//! username = "ada"                   # unique in its account
//! account = "acme"                   # where there are accounts; without it the user belongs to none
//! password = "$argon2id$v=19$…"      # written by `rotogate user passwd`, or imported; see docs/users.md
//! rehashed = { hash = "…", mark = "…" }        # written by the gate when a login replaced an imported hash
//! active = true
//! sessions_valid_from = 2026-01-31T12:00:00Z   # or milliseconds since 1970; sessions begun before are not valid
//! scopes = ["read", "write"]
//! profile = { email = "ada@example.com" }
//! ```
//!
//! The file is reloaded when it changes ([`FileDirectory::watch`]). An invalid file leaves the previous users in use.
//! The file contains password hashes, so only the gate's user may access it (requirement O2).

pub mod audit;
#[cfg(feature = "sql")]
pub mod database;
pub mod edit;
mod entry;
pub mod import;
mod kuzzle;
mod list;
mod parse;
mod rehash;
mod watch;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use secrecy::SecretString;

use crate::username::composed;
use audit::UserEvent;
use edit::ListedUser;
use entry::UserEntry;
use list::Users;
use rotogate_core::clock::Timestamp;
use rotogate_core::directory::{Directory, DirectoryError, User};
use rotogate_core::password::{Accepted, CostClass, FirebaseParameters, PasswordHash, Passwords};
use rotogate_core::private_file;
use rotogate_core::session::Scope;
pub use watch::FileWatcher;

/// The recommended maximum number of users. Each change reads and writes the whole file.
pub const MAX_USERS: usize = 2_000;

/// An existing user before and after a change of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserChange {
    /// The user before the change.
    pub before: User,
    /// The user after the change, or `None` if removed.
    pub after: Option<User>,
}

/// A users file, with the accepted kinds of password hashes.
#[derive(Clone, Debug)]
pub struct UsersFile {
    path: PathBuf,
    accepted: Arc<Accepted>,
    expected: Vec<CostClass>,
}

impl UsersFile {
    /// Creates a reference to a users file that may contain `accepted` hashes.
    pub fn new(path: impl Into<PathBuf>, accepted: Accepted) -> Self {
        Self { path: path.into(), accepted: Arc::new(accepted), expected: Vec::new() }
    }

    /// Pads each check as if the file contained hashes of these classes.
    #[must_use]
    pub fn expecting(mut self, classes: impl IntoIterator<Item = CostClass>) -> Self {
        self.expected = classes.into_iter().collect();
        self
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hash parameters of the Firebase project.
    pub fn firebase(&self) -> Option<&FirebaseParameters> {
        self.accepted.firebase.as_ref()
    }

    /// The accepted kinds of foreign hashes.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// Returns why this process cannot change the file, or `None` if no obstacle is known.
    pub fn unwritable(&self) -> Option<String> {
        let path = self.path();
        if path.symlink_metadata().is_ok_and(|found| found.file_type().is_symlink()) {
            let path = path.display();
            return Some(format!(
                "{path} is a symbolic link, as in a mounted volume, and only its target can be changed"
            ));
        }
        // A change replaces the file, so the folder decides.
        private_file::unwritable(private_file::parent(path)).map(|(why, _)| why)
    }
}

impl From<&Self> for UsersFile {
    fn from(file: &Self) -> Self {
        file.clone()
    }
}

impl From<&Path> for UsersFile {
    fn from(path: &Path) -> Self {
        Self::new(path, Accepted::default())
    }
}

impl From<&PathBuf> for UsersFile {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

/// A page of the users in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UsersPage {
    /// The users, in the order of the file.
    pub users: Vec<ListedUser>,
    /// The number of users that match the search, on all pages.
    pub total: usize,
    /// Whether more users follow.
    pub has_more: bool,
}

type Hook = Arc<dyn Fn(&[UserChange]) + Send + Sync>;

/// The user that is created with the file.
#[derive(Debug)]
pub struct FirstUser {
    /// The login name.
    pub username: String,
    /// The password, which is stored only as a hash. The caller must show the password to the operator.
    pub password: SecretString,
}

/// A directory whose users are in a file.
pub struct FileDirectory {
    file: UsersFile,
    passwords: Arc<Passwords>,
    users: ArcSwap<Users>,
    hooks: RwLock<Vec<Hook>>,
    after_reload: RwLock<Vec<Arc<dyn Fn() + Send + Sync>>>,
    /// The lock is held during a reload, so that older content never replaces newer content.
    reloading: Mutex<()>,
    last_read: watch::UsersFileState,
    broken: ArcSwapOption<String>,
    rehasher: rehash::Rehasher,
}

rotogate_core::debug_with!(FileDirectory { file.path });

impl FileDirectory {
    /// Opens the file.
    ///
    /// # Errors
    /// The file cannot be read, is accessible to others (requirement O2), or is invalid. The error lists every problem.
    pub fn open(file: impl Into<UsersFile>, passwords: Arc<Passwords>) -> Result<Self, DirectoryError> {
        let file = file.into();
        let mut users = parse::read(&file).map_err(DirectoryError::Unavailable)?;
        users.measure(&passwords, &file.expected);
        Ok(Self {
            rehasher: rehash::Rehasher::new(file.clone(), Arc::clone(&passwords)),
            file,
            passwords,
            users: ArcSwap::from_pointee(users),
            hooks: RwLock::default(),
            after_reload: RwLock::default(),
            reloading: Mutex::default(),
            last_read: watch::UsersFileState::default(),
            broken: ArcSwapOption::empty(),
        })
    }

    /// Creates and opens the file with one user `demo`. Also creates the file's directory.
    ///
    /// # Errors
    /// The file already exists, or cannot be written.
    pub fn create_with_first_user(
        file: impl Into<UsersFile>,
        passwords: Arc<Passwords>,
        now: Timestamp,
    ) -> Result<(Self, FirstUser), DirectoryError> {
        let file = file.into();
        let first = edit::create(file.path(), now).map_err(|e| DirectoryError::Unavailable(e.to_string()))?;
        Ok((Self::open(file, passwords)?, first))
    }

    /// Reloads the file. Returns whether the users changed.
    ///
    /// # Errors
    /// The errors of [`FileDirectory::open`]. The previous users stay in use.
    pub fn reload(&self) -> Result<bool, DirectoryError> {
        let _turn = self.reloading.lock();
        self.last_read.begin(&self.file.path);
        let before = self.users.load_full();
        let mut users = match parse::read(&self.file) {
            Ok(users) => users,
            Err(what) => {
                // The same problem is logged only once.
                if self.broken.swap(Some(Arc::new(what.clone()))).as_deref() != Some(&what) {
                    for problem in what.lines() {
                        tracing::error!(problem, "the users file is invalid, so the gate keeps the previous users");
                    }
                }
                return Err(DirectoryError::Unavailable(what));
            }
        };
        self.broken.store(None);
        users.measure(&self.passwords, &self.file.expected);
        let now = Arc::new(users);
        self.rehasher.forget_replaced(&now);
        if *before == *now {
            return Ok(false);
        }
        self.users.store(Arc::clone(&now));
        if too_many(&before, self.file.path()).is_none()
            && let Some(warning) = too_many(&now, self.file.path())
        {
            tracing::warn!(warning, "many users in the users file");
        }
        let (changes, found) = before.changes(&now);
        let added = found.iter().filter(|user| user.event == UserEvent::Added).count();
        tracing::info!(changed = changes.len(), added, "users file reloaded");
        audit::write_found_users(&found);
        let hooks = self.hooks.read().clone();
        if !changes.is_empty() {
            for hook in hooks {
                hook(&changes);
            }
        }
        let hooks = self.after_reload.read().clone();
        hooks.iter().for_each(|hook| hook());
        Ok(true)
    }

    /// Finds users by name: in one account (`Some(Some(_))`), without account (`Some(None)`), or anywhere (`None`).
    pub fn named(&self, account: Option<Option<&str>>, username: &str) -> Vec<User> {
        let users = self.users.load_full();
        let username = composed(username);
        let is_it = |entry: &&UserEntry| {
            composed(&entry.username) == username
                && account.is_none_or(|account| entry.user.account.as_deref() == account)
        };
        users.entries().iter().filter(is_it).map(|entry| entry.user.clone()).collect()
    }

    /// Returns at most `limit` users that come after the user with the subject `after`, and whose name contains `words`
    /// in any case. `None` if no user has this subject.
    pub fn page(&self, words: &str, after: Option<&str>, limit: usize) -> Option<UsersPage> {
        self.users.load().page(words, after, limit)
    }

    /// The union of all users' scopes.
    pub fn scopes(&self) -> Scope {
        self.users.load().entries().iter().fold(Scope::default(), |all, entry| all.union(&entry.user.scopes))
    }

    /// The account and the name of a subject.
    pub fn user_of(&self, subject: &str) -> Option<(Option<String>, String)> {
        let users = self.users.load();
        let entry = users.by_subject(subject)?;
        Some((entry.user.account.as_deref().map(str::to_owned), entry.username.to_string()))
    }

    /// Warnings about valid but probably unintended content of the file.
    pub fn warnings(&self) -> Vec<String> {
        let users = self.users.load();
        let dear = users.lone_dear(&self.passwords).map(|(class, number)| {
            format!(
                "{number} users have password hashes that take more than four times the usual time ({class:?}), and \
                 every refused login takes as long; set new passwords for them with `rotogate user passwd`"
            )
        });
        dear.into_iter().chain(too_many(&users, self.file.path())).collect()
    }

    /// Returns whether the file is invalid.
    pub fn is_broken(&self) -> bool {
        self.broken.load().is_some()
    }

    /// Registers a function that gets the changed users after each change. The function must not call
    /// [`FileDirectory::reload`].
    pub fn on_change(&self, hook: impl Fn(&[UserChange]) + Send + Sync + 'static) {
        self.hooks.write().push(Arc::new(hook));
    }

    /// Registers a function that is called after each change. The function must not call [`FileDirectory::reload`].
    pub fn on_reload(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.after_reload.write().push(Arc::new(hook));
    }

    /// A digest of all users, for a comparison between gates. A new order of the users, or a new hash of the same
    /// password, does not change the digest.
    pub fn digest(&self) -> String {
        let users = self.users.load_full();
        let mut digests: Vec<_> = users.entries().iter().map(|entry| entry.digest()).collect();
        digests.sort_unstable();
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        digests.iter().for_each(|digest| context.update(digest));
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, context.finish())
    }

    /// Reloads the file when it changes, until the watcher is dropped.
    ///
    /// # Errors
    /// The watcher thread cannot start.
    pub fn watch(self: &Arc<Self>) -> Result<FileWatcher, DirectoryError> {
        watch::start(self)
    }
}

fn too_many(users: &Users, path: &Path) -> Option<String> {
    let number = users.entries().len();
    let database = path.with_extension("db");
    let database = std::path::absolute(&database).unwrap_or(database);
    (number > MAX_USERS).then(|| {
        format!(
            "there are {number} users, more than {MAX_USERS}, and each change reads and writes the whole file; move \
             the users to a database: rotogate user import --to sqlite:{}",
            database.display()
        )
    })
}

#[async_trait]
impl Directory for FileDirectory {
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        let users = self.users.load_full();
        let entry = users.by_name(account, username);
        let hash = entry.map(|entry| PasswordHash::parse(entry.hash.expose(), self.file.accepted())).transpose();
        let hash = match hash {
            Ok(hash) => hash,
            Err(error) => {
                // The stored hash is unusable. The refusal takes as long as a real check (requirement I47).
                self.passwords.check(password, None, users.dearest()).await?;
                return Err(DirectoryError::Entry(format!("a stored password hash is {error}")));
            }
        };
        let is_ours = hash.as_ref().is_some_and(PasswordHash::is_ours);
        let matches = self.passwords.check(password, hash, users.dearest()).await?;
        let Some(entry) = entry.filter(|_| matches) else { return Ok(None) };
        // The user may have changed during the check.
        let now = self.users.load();
        let still = now
            .by_name(account, username)
            .filter(|e| e.user.active && e.user.password_mark == entry.user.password_mark);
        let Some(still) = still else { return Ok(None) };
        if !is_ours && still.hash == entry.hash {
            self.rehasher.begin(still, password);
        }
        Ok(Some(still.user.clone()))
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(self.users.load().by_subject(subject).map(|entry| entry.user.clone()))
    }
}
