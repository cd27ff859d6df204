//! A directory in another system, with limits on its requests.
//!
//! A failed request is a [`DirectoryError`] and never a decision about a user (requirement I22). The number of running
//! and waiting requests is limited (requirement I25).

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use moka::future::Cache;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::circuit::Circuit;
use super::metrics::Label;
use super::padding::SlowestCheck;
use super::{Cause, DirectoryMetrics, Found, HashedUser, Login, LoginAttempt, Source, SourceError, username};
use rotogate_core::context::{Context, inherited};
use rotogate_core::directory::{Directory, DirectoryError, LoginRequest, NamedUsers, PasswordMark, User, UserName};
use rotogate_core::password::{self, Accepted, Cost, CostClass, PasswordHash, Passwords, SecretHash};
use rotogate_core::trace::{Trace, Value};

const LOGIN: &str = "authenticate";
const MAX_CACHED_LOOKUPS: u64 = 100_000;

/// The limits of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The time limit for a request, including the connection setup.
    pub timeout: Duration,
    /// The maximum number of concurrent requests.
    pub max_requests: usize,
    /// The maximum waiting time in the queue.
    pub queue_timeout: Duration,
    /// How long a lookup result is cached.
    pub lookup_cache: Duration,
}

impl Bounds {
    /// The default of `timeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
    /// The default of `max_requests`.
    pub const MAX_REQUESTS: usize = 64;
    /// The default of `queue_timeout`.
    pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
}

#[derive(Clone, Debug)]
enum Fault {
    Busy,
    Failed(String),
    Entry(String),
    Later(Duration),
}

impl From<Fault> for DirectoryError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Busy => Self::Busy,
            Fault::Failed(message) => Self::Unavailable(message),
            Fault::Entry(message) => Self::Entry(message),
            Fault::Later(wait) => Self::Later(wait),
        }
    }
}

/// A directory in another system.
#[derive(Clone)]
pub struct RemoteDirectory(Arc<Inner>);

struct Inner {
    label: Label,
    source: Arc<dyn Source>,
    bounds: Bounds,
    turns: Arc<Semaphore>,
    /// Logins may use only a part of all permits, so that they cannot block lookups for existing sessions (requirement
    /// A20).
    logins: Arc<Semaphore>,
    circuit: Circuit,
    lookups: Cache<Key, Option<User>>,
    passwords: Arc<Passwords>,
    /// The most expensive hash class that was seen or is expected. Every check takes as long as a check of this class
    /// (requirements A2, I32).
    dearest: Mutex<Dearest>,
    /// Only one password is rehashed at a time.
    rehashing: Semaphore,
    checks: SlowestCheck,
    metrics: DirectoryMetrics,
    runtime: Handle,
}

#[derive(Default)]
struct Dearest {
    class: CostClass,
    /// Configured cost classes. Until the first check, the costs of these classes are estimates.
    expected: Vec<CostClass>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    account: Option<Box<str>>,
    subject: Box<str>,
}

impl Key {
    fn new(account: Option<&str>, subject: &str) -> Self {
        Self { account: account.map(Into::into), subject: subject.into() }
    }
}

rotogate_core::debug_with!(RemoteDirectory, |it| { source: it.0.source });

impl RemoteDirectory {
    /// Creates a directory. Must be called within the Tokio runtime that will run the requests.
    pub fn new(
        name: &str,
        source: Arc<dyn Source>,
        bounds: Bounds,
        passwords: Arc<Passwords>,
        metrics: DirectoryMetrics,
    ) -> Self {
        let label = Label { directory: name.to_owned(), kind: source.kind() };
        Self(Arc::new(Inner {
            turns: Arc::new(Semaphore::new(bounds.max_requests)),
            logins: Arc::new(Semaphore::new((bounds.max_requests - bounds.max_requests.div_ceil(4)).max(1))),
            circuit: Circuit::new(label.clone()),
            label,
            lookups: Cache::builder().max_capacity(MAX_CACHED_LOOKUPS).time_to_live(bounds.lookup_cache).build(),
            passwords,
            dearest: Mutex::new(Dearest { expected: source.expected_hashes().to_vec(), ..Dearest::default() }),
            rehashing: Semaphore::new(1),
            checks: SlowestCheck::default(),
            metrics,
            runtime: Handle::current(),
            source,
            bounds,
        }))
    }

    /// Runs `what` within the limits of [`Bounds`]. `what` finishes even if the caller stops waiting.
    async fn ask<T, F>(
        &self,
        operation: &'static str,
        what: impl FnOnce(Arc<dyn Source>) -> F + Send + 'static,
        result: fn(&T) -> &'static str,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, SourceError>> + Send,
    {
        let inner = &self.0;
        if let Some(span) = Trace::current().span() {
            span.set("rotogate.directory.name", Value::Text(&inner.label.directory));
            span.set("rotogate.directory.kind", Value::Fixed(inner.label.kind));
        }
        let open = |rest: Duration| {
            inner.metrics.count(&inner.label, operation, "not_asked");
            let seconds = rest.as_secs().max(1);
            Fault::Failed(format!("the directory failed repeatedly; the gate sends the next request in {seconds} s"))
        };
        if let Some(rest) = inner.circuit.rest(Instant::now()) {
            return Err(open(rest));
        }
        let turn = timeout(inner.bounds.queue_timeout, inner.turn(operation)).await;
        let Ok(Ok(turn)) = turn else {
            inner.metrics.count(&inner.label, operation, "busy");
            return Err(Fault::Busy);
        };
        let begun = Instant::now();
        inner.circuit.admit(begun).map_err(open)?;
        let this = Arc::clone(inner);
        let task = inner.runtime.spawn(inherited(Context::current(), async move {
            let _turn = turn;
            let within = this.bounds.timeout;
            let asked = AssertUnwindSafe(async { what(Arc::clone(&this.source)).await }).catch_unwind();
            let answer = match timeout(within, asked).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(SourceError::new(Cause::Panic, "the response could not be parsed")),
                Err(_) => {
                    let message = format!("no response within {}", humantime::format_duration(within));
                    Err(SourceError::new(Cause::Timeout, message))
                }
            };
            let now = Instant::now();
            this.metrics.took(&this.label, operation, now.saturating_duration_since(begun));
            match &answer {
                Ok(answer) => {
                    this.metrics.count(&this.label, operation, result(answer));
                    this.circuit.answered();
                }
                Err(error) => {
                    this.metrics.count(&this.label, operation, error.cause.word());
                    if error.cause.is_of_one_user() {
                        this.circuit.answered();
                    } else {
                        if matches!(error.cause, Cause::Timeout | Cause::Connect) {
                            // If the server is down, each idle connection would cause another timeout.
                            this.source.close_idle();
                        }
                        this.circuit.failed(error, now);
                    }
                }
            }
            answer.map_err(|error| {
                let message = || format!("{}: {error}", this.label.directory);
                match error.cause {
                    Cause::Later(wait) => Fault::Later(wait),
                    cause if cause.is_of_one_user() => Fault::Entry(message()),
                    _ => Fault::Failed(message()),
                }
            })
        }));
        // The task can only fail because the runtime is shutting down.
        task.await.unwrap_or_else(|_| Err(Fault::Failed("the gate is stopping".to_owned())))
    }

    /// Connects to the source and describes it.
    ///
    /// # Errors
    /// Describes why the source is unreachable or unusable.
    pub async fn inspect(&self) -> Result<Found, String> {
        let asked = self.ask("inspect", async move |source: Arc<dyn Source>| source.inspect().await, |_| "found").await;
        asked.map_err(|fault| DirectoryError::from(fault).to_string())
    }

    async fn ask_for(&self, key: Key) -> Result<Option<User>, Fault> {
        let Key { account, subject } = key;
        let what = async move |source: Arc<dyn Source>| match source.lookup(account.as_deref(), &subject).await? {
            Some(user) if user.subject != subject => {
                Err(SourceError::new(Cause::Entry, "the directory returned another user than the requested one"))
            }
            found => Ok(found),
        };
        self.ask("lookup", what, |found| if found.is_some() { "found" } else { "none" }).await
    }

    /// Checks a password. The duration of the check does not depend on the user (requirement A2).
    async fn check(&self, found: Option<HashedUser>, password: &SecretString) -> Result<Option<User>, DirectoryError> {
        let inner = &self.0;
        let Some(HashedUser { mut user, hash, is_marked }) = found else {
            let dearest = self.dearest_with(None).await;
            inner.passwords.check(password, None, dearest).await?;
            return Ok(None);
        };
        let parsed = match PasswordHash::parse(hash.expose(), &Accepted::default()) {
            Ok(parsed) => parsed,
            Err(error) => {
                // The hash is unusable. The refusal takes as long as a real check (requirement I47).
                let dearest = self.dearest_with(None).await;
                inner.passwords.check(password, None, dearest).await?;
                let directory = &inner.label.directory;
                return Err(DirectoryError::Entry(format!("{directory}: a stored password hash is {error}")));
            }
        };
        let dearest = self.dearest_with(Some(parsed.class())).await;
        if !inner.passwords.check(password, Some(parsed), dearest).await? || !user.active {
            return Ok(None);
        }
        let hash = match self.rehash(&user.subject, &hash, password).await {
            Some(new) => new,
            None => hash,
        };
        if is_marked {
            user = user.password_mark(PasswordMark::new(hash.expose().as_bytes()));
        }
        Ok(Some(user))
    }

    /// Returns the most expensive hash class, including `class`. Measures a new class first, while other checks wait.
    async fn dearest_with(&self, class: Option<CostClass>) -> CostClass {
        let mut dearest = self.0.dearest.lock().await;
        let mut new = dearest.expected.clone();
        new.extend(class.filter(|class| *class != dearest.class));
        if !new.is_empty() {
            let (passwords, known) = (Arc::clone(&self.0.passwords), dearest.class);
            let measured = tokio::task::spawn_blocking(move || passwords.dearest(new.into_iter().chain([known]))).await;
            *dearest = Dearest { class: measured.unwrap_or(known), expected: Vec::new() };
        }
        dearest.class
    }

    /// Replaces an outdated hash after a login, and returns the new hash. Failures do not affect the login (requirement
    /// I29).
    async fn rehash(&self, subject: &str, old: &SecretHash, password: &SecretString) -> Option<SecretHash> {
        let inner = &self.0;
        let is_good = password::cost_of(old.expose()).is_ok_and(|cost| cost.work() >= Cost::default().work());
        if is_good || !inner.source.rehashes() {
            return None;
        }
        // If another rehash is running, the next login tries again.
        let _turn = inner.rehashing.try_acquire().ok()?;
        let password = password.clone();
        let new = tokio::task::spawn_blocking(move || password::hash(&password)).await.ok()?.ok()?;
        let new = SecretHash::new(new);
        let (subject, then, now) = (subject.to_owned(), old.clone(), new.clone());
        let what = async move |source: Arc<dyn Source>| source.rehash(&subject, &then, &now).await;
        match self.ask("rehash", what, |done| if *done { "replaced" } else { "changed_meanwhile" }).await {
            Ok(true) => Some(new),
            Ok(false) => None,
            Err(_) => {
                let Label { directory, kind } = &inner.label;
                tracing::warn!(
                    directory,
                    kind,
                    "the user's password hash could not be replaced; the user's next login tries again"
                );
                None
            }
        }
    }
}

impl Inner {
    /// A login also needs a login permit, so that logins do not delay lookups.
    async fn turn(
        &self,
        operation: &str,
    ) -> Result<(Option<OwnedSemaphorePermit>, OwnedSemaphorePermit), AcquireError> {
        let is_login = operation == LOGIN;
        let login = if is_login { Some(Arc::clone(&self.logins).acquire_owned().await?) } else { None };
        Ok((login, Arc::clone(&self.turns).acquire_owned().await?))
    }
}

#[async_trait]
impl Directory for RemoteDirectory {
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        self.log_in(&LoginRequest::new(account, username, password)).await
    }

    async fn log_in(&self, login: &LoginRequest<'_>) -> Result<Option<User>, DirectoryError> {
        if !username::is_acceptable(self.0.source.significant(login.username)) {
            return Ok(None);
        }
        let attempt = LoginAttempt::from(login);
        let what = async move |source: Arc<dyn Source>| {
            let begun = Instant::now();
            let login = source.authenticate(&attempt).await?;
            Ok((login, begun.elapsed()))
        };
        let result = |(login, _): &(Login, Duration)| match login {
            Login::Checked(Some(_)) => "accepted",
            Login::Checked(None) => "rejected",
            Login::Hashed(Some(_)) => "found",
            Login::Hashed(None) | Login::Absent => "none",
        };
        let (found, took) = self.ask(LOGIN, what, result).await?;
        let (is_absent, is_padded) = (matches!(found, Login::Absent), self.0.source.pads_refusals());
        let found = match found {
            Login::Checked(found) => found,
            Login::Hashed(found) => self.check(found, login.password).await?,
            Login::Absent => None,
        };
        let has_none = |user: &User| user.active && user.account.is_none() && login.account.is_some();
        let lacks_account = found.as_ref().is_some_and(has_none);
        let user = found.filter(|user| user.active && user.account.as_deref() == login.account);
        match &user {
            // Later lookups must not return an older cached user.
            Some(user) => {
                let key = Key::new(login.account, &user.subject);
                self.0.lookups.invalidate(&key).await;
                self.0.checks.accepted(took, Instant::now());
            }
            None if !is_padded => {}
            None if is_absent => sleep(self.0.checks.missing(took)).await,
            None => sleep(self.0.checks.refused(took)).await,
        }
        // If no user can have an account, the fault is in the configuration rather than in the user's entry.
        if lacks_account { Err(DirectoryError::NoAccount) } else { Ok(user) }
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        self.lookup_in(None, subject).await
    }

    async fn lookup_in(&self, account: Option<&str>, subject: &str) -> Result<Option<User>, DirectoryError> {
        // Concurrent lookups for one subject share a request.
        let key = Key::new(account, subject);
        let found = self.0.lookups.try_get_with(key.clone(), self.ask_for(key)).await;
        found.map_err(|fault| DirectoryError::from(Arc::unwrap_or_clone(fault)))
    }

    async fn lookup_of_issuer(&self, issuer: &str, subject: &str) -> Result<Option<User>, DirectoryError> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        let what = async move |source: Arc<dyn Source>| source.lookup_of_issuer(&issuer, &subject).await;
        let found = self.ask("lookup", what, |found| if found.is_some() { "found" } else { "none" }).await;
        Ok(found?)
    }

    async fn lookup_named(&self, issuer: &str, name: &UserName) -> Result<NamedUsers, DirectoryError> {
        let (issuer, name) = (issuer.to_owned(), name.clone());
        let what = async move |source: Arc<dyn Source>| source.lookup_named(&issuer, &name).await;
        let result = |found: &NamedUsers| if matches!(found, NamedUsers::One(_)) { "found" } else { "none" };
        Ok(self.ask("lookup", what, result).await?)
    }

    /// All spellings of a name share one limit. Each name of a user has its own limit, so that a 429 reveals nothing
    /// about other names (requirement I62).
    fn limit_key<'a>(&self, _: Option<&str>, username: &'a str) -> Cow<'a, str> {
        let source = &self.0.source;
        let as_one = |c| if source.has_collations() { username::vowels_as_one(c) } else { c };
        Cow::Owned(username::limit_key(source.significant(username), as_one))
    }
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl RemoteDirectory {
        pub(crate) fn figures(&self) -> &DirectoryMetrics {
            &self.0.metrics
        }
    }
}
