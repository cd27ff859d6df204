//! Keys of other issuers. They are found by discovery or at a URL, fetched in the background, and kept up to date.

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

/// The keys of one issuer, with the task that fetches them.
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
    /// Starts to fetch the keys of an issuer. Must be called within a tokio runtime. A stored set takes effect at
    /// once.
    ///
    /// # Errors
    /// The settings contradict each other, or a URL is not allowed. It is not an error if the issuer does not
    /// respond.
    pub fn start(issuer: RemoteIssuer) -> Result<Self, InvalidValue> {
        Self::start_with(issuer, Arc::new(SystemTime::new()))
    }

    /// Starts to fetch the keys of an issuer, with another clock.
    ///
    /// # Errors
    /// The same as for [`Self::start`].
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

    /// Returns the rules for the tokens of the issuer. They are made by
    /// [`IssuerRules::external`](rotogate_core::token::IssuerRules::external) with these keys.
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

    /// Waits until the first attempt to fetch the keys has ended, whether or not it was successful.
    pub async fn first_attempt(&self) {
        // An error means that the task has ended, so there is nothing left to wait for.
        let _ = self.tried.clone().wait_for(|tried| *tried).await;
    }
}

/// Functions for the crates of this project only. They are hidden on docs.rs.
#[doc(hidden)]
impl RemoteKeys {
    /// Returns the keys as requests use them.
    pub fn keys(&self) -> Arc<LiveKeys> {
        Arc::clone(&self.keys)
    }

    /// Fetches the keys now, ahead of the schedule. After [`Self::drop_keys`], this starts fetching again.
    ///
    /// # Errors
    /// The reason why no keys were fetched.
    pub async fn refresh(&self) -> Result<(), FetchFailure> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Refresh(done)).await;
        answer.await.unwrap_or_else(|_| Err(FetchFailure::ended()))
    }

    /// Drops the keys, including the stored ones. The gate accepts no tokens of the issuer until [`Self::refresh`]
    /// is called or the process restarts. Use this for an issuer that is no longer trusted.
    pub async fn drop_keys(&self) {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Drop(done)).await;
        let _ = answer.await;
    }

    /// Stops fetching at once. The present keys remain, because requests in progress may still use them. Use this
    /// for an issuer that was removed from the configuration.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// Returns the last discovery document, or `None` if discovery is not used or the document has not been read
    /// yet.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.shared.metadata()
    }

    /// Returns the state of the keys.
    pub fn status(&self) -> RemoteStatus {
        self.shared.status(&self.keys)
    }

    /// Returns the number of fetches for each result. The results are words from a fixed list.
    pub fn fetches(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.shared.fetches()
    }
}

/// The result of a single attempt, which is used to check a configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspected {
    /// The usable keys, and a list of the ignored ones.
    pub keys: IssuerKeys,
    /// How long the response is fresh.
    pub fresh_for: Duration,
    /// The discovery document.
    pub metadata: Option<Metadata>,
}

/// Fetches the keys of an issuer once.
///
/// # Errors
/// The reason why no keys were fetched.
pub async fn inspect(issuer: RemoteIssuer) -> Result<Inspected, FetchFailure> {
    let mut fetcher = Fetcher::new(issuer);
    match fetcher.attempt(Duration::ZERO).await? {
        (Fetched::New(keys), fresh_for) => {
            Ok(Inspected { keys: *keys, fresh_for, metadata: fetcher.metadata().cloned() })
        }
        // Cannot happen, because the request was not conditional.
        (Fetched::Unchanged, _) => Err(FetchFailure::ended()),
    }
}
