//! The task that fetches the keys of one issuer. Only this task changes the keys.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::answer::{self, FetchFailure};
use super::fetch::{Fetched, Fetcher};
use super::kept::{KeptKeySet, KeySetFolder};
use super::settings::{FetchSettings, RemoteIssuer};
use super::status::RemoteKeysShared;
use rotogate_core::clock::{TimeSource, Timestamp};
use rotogate_core::random::random;
use rotogate_core::token::live_keys::{IssuerKeyState, KeyChange, LiveKeys, Validity};
use rotogate_core::token::verify::{Ignored, IgnoredCause, IssuerKeys};

/// The interval at which a persistent failure is logged again.
const LOG_AGAIN: Duration = Duration::from_secs(600);
/// The minimum delay between checks for stale keys. It prevents a busy loop if the gate's clock lags behind.
const AT_LEAST: Duration = Duration::from_millis(10);
const DROPPED_RETRY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) enum Command {
    Refresh(oneshot::Sender<Result<(), FetchFailure>>),
    Drop(oneshot::Sender<()>),
}

pub(super) struct Task {
    issuer: RemoteIssuer,
    shared: Arc<RemoteKeysShared>,
    kept: Option<KeySetFolder>,
    time: Arc<dyn TimeSource>,
    fetcher: Fetcher,
    logged: Option<(&'static str, Duration)>,
    is_stale: bool,
    is_dropped: bool,
    validity: Option<Validity>,
    has_gate: bool,
}

enum Wakeup {
    Fetch,
    /// According to the gate's clock, the keys may be stale now.
    Stale,
    /// A request asked for a fetch, a gate began to use the keys, or the keys were dropped.
    Wanted,
    Command(Command),
    /// All handles were dropped.
    NoCommands,
}

impl Task {
    pub(super) fn new(issuer: RemoteIssuer, shared: Arc<RemoteKeysShared>, time: Arc<dyn TimeSource>) -> Self {
        let fetcher = Fetcher::new(issuer.clone());
        let kept = issuer.kept_in.as_ref().map(KeySetFolder::new);
        Self {
            issuer,
            shared,
            kept,
            time,
            fetcher,
            logged: None,
            is_stale: false,
            is_dropped: false,
            validity: None,
            has_gate: false,
        }
    }

    pub(super) async fn run(
        mut self,
        keys: Weak<LiveKeys>,
        commands: mpsc::Receiver<Command>,
        first: watch::Sender<bool>,
    ) {
        let Some(present) = keys.upgrade() else { return };
        let wants = present.wants();
        // The future is boxed, so that a waiting task needs little memory.
        Box::pin(self.restore(&present)).await;
        drop(present);
        let mut commands = Some(commands);
        let mut due = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            // The waiting task holds only a weak reference to the keys.
            let event = tokio::select! {
                () = &mut due, if !self.is_dropped => Wakeup::Fetch,
                () = tokio::time::sleep(self.until_stale()), if !self.is_stale => Wakeup::Stale,
                () = wants.notified() => Wakeup::Wanted,
                command = receive(&mut commands) => command.map_or(Wakeup::NoCommands, Wakeup::Command),
            };
            let Some(keys) = keys.upgrade() else { return };
            self.follow(&keys);
            match event {
                Wakeup::NoCommands => commands = None,
                // Another fetch has already satisfied the request.
                Wakeup::Wanted if !keys.is_wanted() => continue,
                Wakeup::Wanted if self.is_dropped => {
                    let now = self.shared.clock().now();
                    keys.begin(now, self.shared.clock().wall()).fail(now.plus(DROPPED_RETRY));
                }
                Wakeup::Stale if keys.state(self.shared.clock().now()) != IssuerKeyState::Stale => continue,
                Wakeup::Stale => {
                    self.is_stale = true;
                    let name = &self.issuer.name;
                    tracing::error!(
                        issuer = %name,
                        cause = "stale_for",
                        "issuer keys are older than `stale_for`, so the issuer's tokens get 503"
                    );
                    due.set(tokio::time::sleep(Box::pin(self.attempt(&keys)).await.0));
                }
                Wakeup::Fetch | Wakeup::Wanted => due.set(tokio::time::sleep(Box::pin(self.attempt(&keys)).await.0)),
                Wakeup::Command(Command::Refresh(done)) => {
                    self.is_dropped = false;
                    self.shared.progress().is_dropped = false;
                    let (wait, result) = Box::pin(self.attempt(&keys)).await;
                    due.set(tokio::time::sleep(wait));
                    let _ = done.send(result);
                }
                Wakeup::Command(Command::Drop(done)) => {
                    Box::pin(self.drop_keys(&keys)).await;
                    let _ = done.send(());
                }
            }
            first.send_replace(true);
        }
    }

    /// Switches to the gate's clock once a gate uses the keys.
    fn follow(&mut self, keys: &LiveKeys) {
        let (false, Some(clock)) = (self.has_gate, keys.clock()) else { return };
        self.has_gate = true;
        let (before, now) = (self.shared.clock().now(), clock.now());
        self.shared.set_clock(Arc::clone(clock));
        if let Some(Validity { fresh_until, usable_until }) = self.validity {
            let moved = |time: Timestamp| now.plus(time.since(before));
            let validity = Validity { fresh_until: moved(fresh_until), usable_until: moved(usable_until) };
            keys.renew(validity);
            self.validity = Some(validity);
        }
    }

    fn until_stale(&self) -> Duration {
        let now = self.shared.clock().now();
        self.validity.map_or(FetchSettings::MAX_STALE_FOR, |validity| validity.usable_until.since(now)).max(AT_LEAST)
    }

    async fn attempt(&mut self, keys: &Arc<LiveKeys>) -> (Duration, Result<(), FetchFailure>) {
        let (began, wall) = (self.shared.clock().now(), self.shared.clock().wall());
        let attempt = keys.begin(began, wall);
        let result = self.fetcher.attempt(self.time.monotonic()).await;
        self.shared.set_metadata(self.fetcher.metadata());
        match result {
            Ok((fetched, fresh)) => {
                let wait = self.fetcher.schedule.after_good(fresh, spread());
                let validity =
                    Validity { fresh_until: began.plus(fresh), usable_until: began.plus(self.issuer.fetch.stale_for) };
                self.take(keys, fetched, validity, wall).await;
                attempt.succeed();
                (wait, Ok(()))
            }
            Err(failure) => {
                let wait = self.fetcher.schedule.after_failure(spread());
                self.shared.count_failure(failure.cause);
                self.shared.progress().failure = Some(failure.clone());
                attempt.fail(self.shared.clock().now().plus(wait));
                self.log_failure(keys, &failure);
                (wait, Err(failure))
            }
        }
    }

    async fn take(&mut self, keys: &Arc<LiveKeys>, fetched: Fetched, validity: Validity, wall: Timestamp) {
        self.validity = Some(validity);
        let name = &self.issuer.name;
        let is_first = keys.is_empty();
        let kept = match fetched {
            Fetched::Unchanged => {
                keys.renew(validity);
                self.shared.count_good(true);
                None
            }
            Fetched::New(new) => {
                let ignored = new.ignored().to_vec();
                let jwks = new.to_jwks().to_string();
                let change = keys.set(*new, validity);
                self.shared.count_good(change.is_empty());
                let known = std::mem::replace(&mut self.shared.progress().ignored, ignored.clone());
                log_ignored(name, ignored.iter().filter(|ignored| !known.contains(ignored)));
                if is_first {
                    tracing::info!(issuer = %name, keys = keys.len(), "issuer keys fetched");
                } else {
                    log_change(name, &change);
                }
                Some(jwks)
            }
        };
        if self.logged.take().is_some() && !is_first {
            tracing::info!(issuer = %name, "issuer keys can be fetched again");
        }
        self.is_stale = false;
        {
            let mut progress = self.shared.progress();
            progress.last_success = Some(wall);
            progress.failure = None;
            progress.is_dropped = false;
            progress.had_keys = true;
        }
        self.keep(kept, wall).await;
    }

    /// `jwks` is `None` if the set is unchanged.
    async fn keep(&self, jwks: Option<String>, fetched_at: Timestamp) {
        let Some(store) = &self.kept else { return };
        let name = &self.issuer.name;
        let saved = async {
            let jwks = match jwks {
                Some(jwks) => jwks,
                None => match store.load(name).await? {
                    Some(kept) => kept.jwks,
                    None => return Ok(()),
                },
            };
            let (issuer, source) = (self.issuer.issuer.clone(), self.issuer.source());
            store.save(name, &KeptKeySet { issuer, source, fetched_at, jwks }).await
        };
        if let Err(error) = saved.await {
            tracing::warn!(
                issuer = %name,
                %error,
                "issuer keys could not be stored, so after a restart the gate must fetch them from the issuer"
            );
        }
    }

    async fn restore(&mut self, keys: &LiveKeys) {
        let Some(store) = &self.kept else { return };
        let name = &self.issuer.name;
        let kept = match store.load(name).await {
            Ok(Some(kept)) => kept,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(issuer = %name, %error, "the gate does not use the stored issuer keys");
                return;
            }
        };
        match self.judge(&kept) {
            Ok((set, validity)) => {
                let count = set.len();
                keys.set(set, validity);
                self.validity = Some(validity);
                let mut progress = self.shared.progress();
                progress.last_success = Some(kept.fetched_at);
                progress.had_keys = true;
                tracing::info!(
                    issuer = %name,
                    keys = count,
                    "the gate uses the stored issuer keys until the issuer responds"
                );
            }
            Err(why) => {
                tracing::warn!(issuer = %name, %why, "the gate does not use the stored issuer keys");
                if let Err(error) = store.remove(name).await {
                    tracing::warn!(
                        issuer = %name,
                        %error,
                        "the gate cannot remove the file with the stored issuer keys. Remove the file by hand"
                    );
                }
            }
        }
    }

    fn judge(&self, kept: &KeptKeySet) -> Result<(IssuerKeys, Validity), String> {
        if kept.issuer != self.issuer.issuer || kept.source != self.issuer.source() {
            return Err("the key set belongs to another issuer URL, or comes from another source".to_owned());
        }
        let now = self.shared.clock().now();
        let usable_for = kept.usable_for(self.shared.clock().wall(), self.issuer.fetch.stale_for)?;
        let keys = answer::keys(kept.jwks.as_bytes(), &self.issuer.algorithms).map_err(|failure| failure.message)?;
        Ok((keys, Validity { fresh_until: now, usable_until: now.plus(usable_for) }))
    }

    async fn drop_keys(&mut self, keys: &LiveKeys) {
        let name = &self.issuer.name;
        keys.clear();
        self.validity = None;
        self.is_dropped = true;
        self.fetcher.forget();
        {
            let mut progress = self.shared.progress();
            progress.is_dropped = true;
            progress.ignored.clear();
        }
        tracing::warn!(
            issuer = %name,
            "issuer keys dropped, so the issuer's tokens get 503 until you run `rotogate issuer refresh NAME` or \
             restart the gate"
        );
        if let Some(store) = &self.kept
            && let Err(error) = store.remove(name).await
        {
            tracing::error!(
                issuer = %name,
                %error,
                "the gate cannot remove the file with the stored issuer keys. Remove the file by hand, because \
                 otherwise the gate uses the dropped keys after a restart"
            );
        }
    }

    /// Logs a failure when it begins, when its cause changes, and at intervals.
    fn log_failure(&mut self, keys: &LiveKeys, failure: &FetchFailure) {
        let (name, cause, now) = (&self.issuer.name, failure.cause, self.time.monotonic());
        let is_stale = keys.state(self.shared.clock().now()) == IssuerKeyState::Stale;
        let became_stale = is_stale && !self.is_stale;
        self.is_stale = is_stale;
        let is_news = self.logged.is_none_or(|(word, at)| word != cause || now.saturating_sub(at) >= LOG_AGAIN);
        if !is_news && !became_stale {
            return;
        }
        self.logged = Some((cause, now));
        if is_stale {
            tracing::error!(
                issuer = %name,
                cause,
                %failure,
                "issuer keys are older than `stale_for`, so the issuer's tokens get 503"
            );
        } else if failure.is_grave() {
            tracing::error!(issuer = %name, cause, %failure, "issuer keys could not be fetched");
        } else if keys.is_empty() {
            tracing::warn!(issuer = %name, cause, %failure, "issuer has no keys yet, so its tokens get 503");
        } else {
            tracing::warn!(
                issuer = %name,
                cause,
                %failure,
                "issuer keys could not be fetched; the gate keeps using the last keys"
            );
        }
    }
}

/// The future never resolves after the last handle was dropped.
async fn receive(commands: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}

/// A random delay, so that gates that start together do not fetch together.
fn spread() -> u32 {
    random::<4>().map_or(u32::MAX / 2, |bytes| u32::from_ne_bytes(*bytes))
}

fn log_change(name: &str, change: &KeyChange) {
    let KeyChange { added, left, reused } = change;
    if !reused.is_empty() {
        tracing::warn!(
            issuer = %name,
            kids = reused.join(" "),
            "kid reused: a new signing key has the same `kid` as an old one, so tokens signed with the old key are \
             refused. Ask the issuer to give each signing key its own `kid`"
        );
    }
    if !added.is_empty() || !left.is_empty() {
        tracing::info!(issuer = %name, added = added.join(" "), left = left.join(" "), "issuer keys changed");
    }
}

fn log_ignored<'a>(name: &str, ignored: impl Iterator<Item = &'a Ignored>) {
    for ignored in ignored {
        let cause = ignored.cause.word();
        match ignored.cause {
            cause_of_leak if cause_of_leak.is_leak() => {
                tracing::error!(
                    issuer = %name,
                    cause,
                    %ignored,
                    "issuer publishes a secret key, which the gate does not use. Tell the issuer that the key is \
                     compromised"
                );
            }
            IgnoredCause::Ambiguous => {
                tracing::error!(issuer = %name, cause, %ignored, "the gate does not use this issuer key");
            }
            _ => tracing::info!(issuer = %name, cause, %ignored, "the gate does not use this issuer key"),
        }
    }
}
