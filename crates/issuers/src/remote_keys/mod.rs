//! Keys of other issuers, fetched in the background.

mod answer;
pub(crate) mod client;
mod fetch;
mod kept;
mod schedule;
mod settings;
mod status;
mod task;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

pub use answer::{FetchFailure, Metadata, revocation_target, token_target};
pub use rotogate_core::http_client::{BadProxy, Proxy};
pub use settings::{FetchFiles, FetchSettings, KeyLocation, RemoteIssuer};
pub use status::RemoteStatus;

use fetch::{Fetched, Fetcher};
use rotogate_core::clock::{EngineClock, SystemTime, TimeSource, Timestamp};
use rotogate_core::invalid::InvalidValue;
use rotogate_core::token::live_keys::{FetchRules, LiveKeys};
use rotogate_core::token::verify::{IssuerKeys, IssuerRules, Keys};
use status::RemoteKeysShared;
use task::{Command, Task};

/// The keys of an issuer, and the task that fetches them.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use rotogate::remote_keys::{RemoteIssuer, RemoteKeys};
///
/// let remote = RemoteKeys::start(RemoteIssuer::new("google", "https://accounts.google.com"))?;
/// remote.first_attempt().await;
/// let builder = rotogate::Gate::builder().trusted_issuer(remote.rules(["api"]));
/// # let _ = builder;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RemoteKeys {
    keys: Arc<LiveKeys>,
    shared: Arc<RemoteKeysShared>,
    commands: mpsc::Sender<Command>,
    tried: watch::Receiver<bool>,
    task: AbortHandle,
}

impl RemoteKeys {
    /// Starts fetching keys. Must be called within a Tokio runtime. Stored keys take effect immediately.
    ///
    /// # Errors
    /// The settings are contradictory, or a URL is not allowed. An unreachable issuer is not an error.
    pub fn start(issuer: RemoteIssuer) -> Result<Self, InvalidValue> {
        Self::start_with(issuer, Arc::new(SystemTime::new()))
    }

    pub(crate) fn start_with(issuer: RemoteIssuer, time: Arc<dyn TimeSource>) -> Result<Self, InvalidValue> {
        issuer.check()?;
        let rules = FetchRules { cooldown: issuer.fetch.cooldown, timeout: issuer.fetch.timeout };
        let keys = LiveKeys::fetched(rules);
        let clock = EngineClock::start(Arc::clone(&time), Timestamp::ZERO, Duration::ZERO);
        let shared = Arc::new(RemoteKeysShared::new(issuer.clone(), clock));
        let (commands, received) = mpsc::channel(4);
        let (first, tried) = watch::channel(false);
        let task = Task::new(issuer, Arc::clone(&shared), time);
        let task = tokio::spawn(task.run(Arc::downgrade(&keys), received, first)).abort_handle();
        Ok(Self { keys, shared, commands, tried, task })
    }

    /// Returns [rules](rotogate_core::token::IssuerRules::external) for the issuer's tokens.
    pub fn rules(&self, audience: impl IntoIterator<Item = impl Into<Box<str>>>) -> IssuerRules {
        let RemoteIssuer { name, issuer, .. } = self.issuer();
        let audience = audience.into_iter().map(Into::into).collect();
        let mut rules = IssuerRules::external(issuer.as_str(), audience, IssuerKeys::unknown()).named(name.as_str());
        rules.keys = Keys::Live(self.keys());
        rules
    }

    /// Returns the issuer.
    pub fn issuer(&self) -> &RemoteIssuer {
        self.shared.issuer()
    }

    /// Waits until the first attempt has ended, successful or not.
    pub async fn first_attempt(&self) {
        // An error means that the task has ended.
        let _ = self.tried.clone().wait_for(|tried| *tried).await;
    }
}

#[doc(hidden)]
impl RemoteKeys {
    /// The current keys.
    pub fn keys(&self) -> Arc<LiveKeys> {
        Arc::clone(&self.keys)
    }

    /// Fetches the keys now. Also resumes scheduled fetches that [`Self::drop_keys`] stopped.
    ///
    /// # Errors
    /// Why no keys were fetched.
    pub async fn refresh(&self) -> Result<(), FetchFailure> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Refresh(done)).await;
        answer.await.unwrap_or_else(|_| Err(FetchFailure::ended()))
    }

    /// Drops the keys, including stored ones, because the issuer is no longer trusted. The issuer's tokens are refused
    /// until [`Self::refresh`] or a restart.
    pub async fn drop_keys(&self) {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Drop(done)).await;
        let _ = answer.await;
    }

    /// Stops fetching. Requests in progress may still use the keys.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// The last discovery document, or `None` if none was read.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.shared.metadata()
    }

    /// The state of the keys.
    pub fn status(&self) -> RemoteStatus {
        self.shared.status(&self.keys)
    }

    /// The number of fetches per result.
    pub fn fetches(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.shared.fetches()
    }
}

/// The result of a single attempt, for a configuration check.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspected {
    /// The usable keys.
    pub keys: IssuerKeys,
    /// How long the response is fresh.
    pub fresh_for: Duration,
    /// The discovery document.
    pub metadata: Option<Metadata>,
}

/// Fetches the keys of an issuer once.
///
/// # Errors
/// Why no keys were fetched.
pub async fn inspect(issuer: RemoteIssuer) -> Result<Inspected, FetchFailure> {
    let mut fetcher = Fetcher::new(issuer);
    match fetcher.attempt(Duration::ZERO).await? {
        (Fetched::New(keys), fresh_for) => {
            Ok(Inspected { keys: *keys, fresh_for, metadata: fetcher.metadata().cloned() })
        }
        // Unreachable, because the request was unconditional.
        (Fetched::Unchanged, _) => Err(FetchFailure::ended()),
    }
}
