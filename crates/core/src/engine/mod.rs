//! The engine, which applies the decisions of [`decide`](crate::session::rotation::decide) to the store and issues
//! tokens. The response is sent only after the commit is durable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::clock::{ClockState, EngineClock, Timestamp};
use crate::counters::{CountedCommits, Seldom};
use crate::denial::Denial;
use crate::directory::{BoundedDirectory, Directory, User};
use crate::fault::{Error, Fault};
use crate::limit::{Limits, Source};
use crate::revocation::RevocationList;
use crate::session::confirm::Confirmations;
use crate::session::{Scope, Session, SessionId};
use crate::store::{Staleness, Store, StoreError};
use crate::token::claims::{MintedClaims, TokenStyle};
use crate::token::keyring::{GateSigner, Keyring};
use crate::token::verify::SubjectSources;
use crate::token::{mint, refresh};
use crate::verify_cache::MissContext;

pub mod api_keys;
mod asserted;
mod audit;
mod bad_entries;
mod begin;
mod browser;
pub mod confirm;
mod counters;
mod counts;
mod events;
mod evidence;
mod exchange;
mod following;
mod grant;
pub mod live_sessions;
mod notices;
mod owed;
mod own_logins;
mod own_sessions;
mod restoring;
mod revoke;
mod sealed;
mod sources;
mod standstill;
mod token_exchange;
mod turn;
mod types;
pub mod used;
mod written;

pub use asserted::AssertedLogin;
pub use audit::SessionEvent;
use browser::DeviceProofs;
pub use browser::{
    BrowserLogin, BrowserRules, BrowserSession, DeviceAnswer, PresentedDevice, RenewWhen, RulesOf, SessionProvider,
};
use events::EventFeed;
pub use events::{GateEvent, GateEvents};
use evidence::LastRefreshes;
pub use exchange::{ExplainedRefresh, RefreshTerms, denial_of, rotates};
use following::Following;
pub use following::Freshness;
use live_sessions::LiveSessions;
use own_logins::OwnLogins;
use restoring::Restoring;
use sealed::SealedStore;
use turn::Turns;
use written::Written;

pub use crate::token::claims::AccountRule;
pub use counters::StoreCounters;
pub use counts::{Counts, Event};
pub use notices::NoticeResult;
pub use owed::Unpaid;
pub use own_sessions::{OwnSession, OwnSessions, OwnSessionsAction, OwnSessionsRequest};
pub use standstill::Arrival;
pub use token_exchange::TokenExchange;
#[cfg(any(test, feature = "test-util"))]
pub use types::tokens_for_test;
pub use types::{
    ApplicationLogin, Exchange, HeldUp, IssueKind, IssuedTokens, Login, Origin, Refresh, RequestNote, kind_of_issue,
};

/// The maximum number of attempts to change a session. More failures indicate a bug.
const MAX_TRIES: usize = 16;

/// The dialect of sessions that the application began. The directory does not know the users of these sessions.
pub const APPLICATION: &str = "application";

/// The parts of an engine.
#[derive(Debug)]
pub struct EngineConfig {
    /// The `iss` of issued tokens.
    pub issuer: Arc<str>,
    /// The `aud` of issued tokens.
    pub audience: Vec<Box<str>>,
    /// The tolerated clock difference.
    pub leeway: Duration,
    /// The style of access tokens for each dialect.
    pub styles: Vec<(Box<str>, TokenStyle)>,
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// The store of sessions.
    pub store: Arc<dyn Store>,
    /// The directory of users, if the gate logs users in.
    pub directory: Option<Arc<dyn Directory>>,
    /// Engine time.
    pub clock: Arc<EngineClock>,
    /// The revocation list.
    pub revocations: Arc<RevocationList>,
    /// The limits.
    pub limits: Arc<Limits>,
    /// The counters in the shared store.
    pub counters: Option<Arc<StoreCounters>>,
    /// Whether sessions keep the user agent and address of a login.
    pub keep_login_origin: bool,
    /// How long the engine continues if the shared store does not respond.
    pub staleness: Option<Staleness>,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    issuer: Arc<str>,
    audience: Vec<Box<str>>,
    leeway: Duration,
    styles: ArcSwap<Vec<(Box<str>, TokenStyle)>>,
    keyring: Arc<ArcSwap<Keyring>>,
    keys_generation: AtomicU64,
    /// The sealed store, which checks the seal of each record.
    store: Arc<dyn Store>,
    directory: Option<Arc<dyn Directory>>,
    clock: Arc<EngineClock>,
    revocations: Arc<RevocationList>,
    confirmations: Confirmations,
    limits: Arc<Limits>,
    counters: Option<Arc<StoreCounters>>,
    turns: Turns,
    live_sessions: LiveSessions,
    keep_login_origin: AtomicBool,
    last_refreshes: LastRefreshes,
    counts: Arc<Counts>,
    bad_entries: Mutex<Seldom>,
    /// Whether a failed write may still have reached the store.
    is_behind: AtomicBool,
    following: Following,
    own_logins: Option<OwnLogins>,
    restoring: Restoring,
    written: Written,
    standstill: standstill::Standstill,
    owed: owed::Debts,
    events: EventFeed,
    suspended: OnceLock<Arc<AtomicBool>>,
    devices: DeviceProofs,
    sources: ArcSwap<SubjectSources>,
}

impl Engine {
    /// Creates an engine.
    pub fn new(parts: EngineConfig) -> Self {
        let (keyring, counts) = (Arc::new(ArcSwap::new(parts.keyring)), Arc::new(Counts::default()));
        let sealed = SealedStore::new(parts.store, Arc::clone(&keyring), Arc::clone(&counts));
        let written = Written::new(sealed.shared().is_some());
        let own_logins = sealed.shared().map(|_| OwnLogins::since(parts.clock.now()));
        let devices = DeviceProofs::since(parts.clock.now());
        let engine = Self {
            devices,
            issuer: parts.issuer,
            audience: parts.audience,
            leeway: parts.leeway,
            styles: ArcSwap::from_pointee(parts.styles),
            keyring,
            keys_generation: AtomicU64::new(0),
            store: Arc::new(sealed),
            directory: parts.directory.map(|directory| Arc::new(BoundedDirectory(directory)) as _),
            clock: parts.clock,
            revocations: parts.revocations,
            confirmations: Confirmations::default(),
            limits: parts.limits,
            counters: parts.counters,
            turns: Turns::default(),
            live_sessions: LiveSessions::default(),
            keep_login_origin: AtomicBool::new(parts.keep_login_origin),
            last_refreshes: LastRefreshes::default(),
            counts,
            bad_entries: Mutex::default(),
            is_behind: AtomicBool::new(false),
            following: Following::new(parts.staleness),
            own_logins,
            restoring: Restoring::new(),
            written,
            standstill: standstill::Standstill::new(parts.staleness),
            owed: owed::Debts::default(),
            events: EventFeed::default(),
            suspended: OnceLock::new(),
            sources: ArcSwap::default(),
        };
        // The previous process's unwritten revocations must apply before the first request (requirement R24).
        engine.take_over_owed();
        engine
    }

    /// The `iss` of issued tokens.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// The `aud` of issued tokens.
    pub fn audience(&self) -> &[Box<str>] {
        &self.audience
    }

    /// Engine time.
    pub fn clock(&self) -> &Arc<EngineClock> {
        &self.clock
    }

    /// The store of sessions.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The revocation list.
    pub fn revocations(&self) -> &RevocationList {
        &self.revocations
    }

    /// The generations that requests have confirmed.
    pub fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// The context of a cache miss for a token from this source.
    pub fn miss<'a>(&'a self, source: impl Into<Source<'a>>) -> MissContext<'a> {
        MissContext::new(&self.limits, &self.confirmations, source)
    }

    /// The long-lived connections of sessions.
    pub fn live_sessions(&self) -> &LiveSessions {
        &self.live_sessions
    }

    /// The counters of events in this process.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    async fn measured<T>(&self, write: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if self.store.shared().is_none() {
            return write.await;
        }
        let time = self.clock.source();
        let begun = time.monotonic();
        let written = write.await;
        self.counts.writes.add(time.monotonic().saturating_sub(begun), written.is_ok());
        written
    }

    /// The writes to a shared store.
    pub fn shared_writes(&self) -> Option<CountedCommits> {
        self.store.shared().map(|_| self.counts.writes.counted())
    }

    /// Returns a receiver for all events from now on.
    pub fn events(&self) -> GateEvents {
        self.events.follow()
    }

    /// Sends the event of a refused request.
    pub fn tell_refused(&self, denial: &Denial) {
        self.events.tell_refused(denial);
    }

    /// The limits.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The current keys.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// Replaces the access token style of each dialect.
    pub fn set_styles(&self, styles: Vec<(Box<str>, TokenStyle)>) {
        self.styles.store(Arc::new(styles));
    }

    /// Sets whether sessions keep the address and user agent of logins and refreshes.
    pub fn set_keep_login_origin(&self, keep: bool) {
        self.keep_login_origin.store(keep, Ordering::Relaxed);
    }

    /// Records the client of a limited request once, in the audit trail and the access log.
    // Requirements O35, O46.
    pub fn tell_held_up(&self, error: &Error, origin: &Origin, of: impl FnOnce() -> HeldUp) {
        let Error::Denied(Denial::RateLimited(limit, _) | Denial::QuotaExceeded(limit, _)) = error else { return };
        if origin.note.held_up().is_some() {
            return;
        }
        let held_up = of();
        if self.limits.may_tell((limit, origin.address, &held_up)) {
            audit::rate_limited(limit, &held_up, origin);
        }
        origin.note.set_held_up(held_up);
    }

    fn kept_origin(&self, origin: &Origin) -> Origin {
        if !self.keep_login_origin.load(Ordering::Relaxed) {
            return Origin::default();
        }
        Origin { note: RequestNote::default(), ..origin.clone() }
    }

    /// Replaces the keys.
    pub fn set_keyring(&self, keyring: Arc<Keyring>) {
        if let Some(counters) = &self.counters {
            counters.set_keyring(Arc::clone(&keyring));
        }
        self.keyring.store(keyring);
        self.keys_generation.fetch_add(1, Ordering::Release);
    }

    /// Sets the number of gates with a recent heartbeat.
    pub fn set_nodes(&self, nodes: usize) {
        if let Some(counters) = &self.counters {
            counters.set_nodes(nodes);
        }
    }

    /// Returns whether the gate has a directory with users.
    pub fn has_users(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| !directory.is_empty())
    }

    /// Returns the directory's user with this subject and account, or `None`.
    ///
    /// # Errors
    /// A fault of the directory.
    pub async fn user(&self, account: Option<&str>, subject: &str) -> Result<Option<User>, Error> {
        match &self.directory {
            Some(directory) => Ok(self.look_up(directory.as_ref(), account, subject).await?),
            None => Ok(None),
        }
    }

    /// Stops issuing tokens while this flag is set.
    pub fn suspend_grants_while(&self, suspended: Arc<AtomicBool>) {
        let _ = self.suspended.set(suspended);
    }

    /// Returns a fault if the engine must not issue tokens now.
    pub fn may_mint(&self) -> Result<(), Fault> {
        if self.suspended.get().is_some_and(|suspended| suspended.load(Ordering::Relaxed)) {
            return Err(Fault::Suspended);
        }
        match self.clock.tick() {
            ClockState::Good if !self.restoring.is_over() => Err(Fault::Restoring),
            ClockState::Good if self.following.is_fresh(self.clock.now()) => Ok(()),
            ClockState::Good => Err(Fault::Stale),
            ClockState::Jumped | ClockState::Behind | ClockState::Skewed => Err(Fault::Clock),
        }
    }

    /// Waits until all data read from a shared store is as durable as an acknowledged write.
    async fn settle(&self) -> Result<(), StoreError> {
        match self.store.shared() {
            Some(shared) => shared.settle().await,
            None => Ok(()),
        }
    }

    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        match self.store.shared() {
            Some(shared) => shared.load_to_revoke(id).await,
            None => self.store.load(id).await,
        }
    }

    async fn stamp_creation(&self, after: Timestamp) -> Result<Timestamp, Fault> {
        let stamp = match self.store.shared() {
            Some(shared) => shared.stamp_creation(after).await?,
            None => self.clock.stamp_creation(after),
        };
        stamp.ok_or(Fault::Clock)
    }

    fn pair(
        &self,
        keyring: &Keyring,
        session: &Session,
        now: Timestamp,
        how: IssueKind,
    ) -> Result<IssuedTokens, Fault> {
        let last = &session.last;
        let key = keyring
            .signing_key(&last.kid)
            .ok_or(Fault::Signing("the signing key of this token pair no longer exists"))?;
        let jti = keyring
            .derive_jti(last.refresh_key, session.id, session.current, last.access_expires)
            .ok_or(Fault::Signing("the refresh key of this token pair no longer exists"))?;
        let claims = self.claims_of(session, &jti, &last.scope, (session.issued_at, last.access_expires));
        let access_token = mint::mint(key, &claims).map_err(Fault::from)?;
        let refresh_token = match session.browser {
            // A browser session has no refresh token: the gate itself renews the session.
            Some(_) => None,
            None => Some(
                refresh::make(
                    keyring.refresh_keys(),
                    last.refresh_key,
                    session.id,
                    session.current,
                    &session.secret,
                    &session.client,
                )
                .ok_or(Fault::Signing("the refresh key of this token pair no longer exists"))?,
            ),
        };
        let session_expires_in = Some(session.expires.since(now).as_secs());
        Ok(IssuedTokens { refresh_token, session_expires_in, ..IssuedTokens::new(access_token, &claims, now, how) })
    }

    fn claims_of<'a>(
        &'a self,
        session: &'a Session,
        jti: &'a str,
        scope: &'a Scope,
        (issued_at, expires): (Timestamp, Timestamp),
    ) -> MintedClaims<'a> {
        MintedClaims {
            issuer: &self.issuer,
            subject: &session.subject,
            audience: self.audience_for(session.resource.as_ref().map(std::slice::from_ref)),
            expires,
            issued_at,
            jti,
            client: &session.client,
            scope,
            session: Some((session.id, session.current)),
            account: session.account.as_deref(),
            bound_to: session.bound_to,
            certificate: session.certificate,
            vouched_by: session.vouched_by.as_deref(),
            delegation: None,
            own: Some(&session.claims),
            style: self.style(&session.dialect),
        }
    }

    fn audience_for<'a>(&'a self, resource: Option<&'a [Box<str>]>) -> &'a [Box<str>] {
        resource.unwrap_or(&self.audience)
    }

    fn style(&self, dialect: &str) -> TokenStyle {
        let styles = self.styles.load();
        styles.iter().find(|(name, _)| **name == *dialect).map(|(_, style)| *style).unwrap_or_default()
    }
}

impl GateSigner for Engine {
    fn issuer(&self) -> &str {
        &self.issuer
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn keyring(&self) -> Arc<Keyring> {
        self.keyring()
    }

    fn keys_generation(&self) -> u64 {
        self.keys_generation.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
