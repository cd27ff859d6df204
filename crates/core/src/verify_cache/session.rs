//! Sessions of browsers: the check of a session cookie. The cookie represents the current access token of its session,
//! and the cache has the verified token under the bytes of the cookie. A hit costs as much as a bearer token's hit.
//!
//! On a miss the cookie's tag is checked, which needs no store. A request with a good tag waits for
//! [`TokenChecker::load_session`], which reads the record, renews the session if a renewal is due, and verifies the
//! access token like every other token. A token that has expired, or was ended by a later generation, is a miss: only
//! the record says whether the session is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::key_set::{KeySet, RefusedToken};
use super::{CheckResult, MissContext, TRY_AGAIN, TokenChecker, Verified, front};
use crate::clock::Timestamp;
use crate::denial::{Denial, Standing};
use crate::engine::{BrowserToken, Engine, ProviderTerms, RenewWhen, RulesOf, SessionProvider, SessionTerms};
use crate::fault::{Error, Fault};
use crate::limit::{Limits, Source};
use crate::random::are_equal;
use crate::revocation::list::TokenFacts;
use crate::rule::Rule;
use crate::session::{Binding, Generation, SessionId};
use crate::token::device_cookie;
use crate::token::keyring::{Keyring, RefreshKeys};
use crate::token::observer::Observer;
use crate::token::session_cookie::{PREFIX, SessionCookie};

/// The last generation that a token can have.
const LATEST: Generation = Generation::new(u64::MAX - 1);
/// How long no renewal in the background begins after one has begun or failed.
const PAUSE: Duration = TRY_AGAIN;

/// Is this text meant as a session cookie? No token looks like a session cookie, so the cache's entry for a cookie is
/// found by the cookie alone.
pub(super) fn is_cookie(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The part of a cached session that a token does not have.
pub(super) struct CachedSession {
    /// The value of the cookie: the key of the cache.
    pub(super) cookie: Arc<str>,
    terms: SessionTerms,
    /// The provider's terms, if the user logged in at a provider.
    provider: Option<Box<ProviderTerms>>,
    /// The device, if the session is bound to a device.
    device: Option<Box<CachedDevice>>,
    /// Whether a look-up has found that a renewal is due, so that other requests read no clock for it.
    is_due: AtomicBool,
    /// The earliest time of the next renewal in the background, in milliseconds.
    asked_next: AtomicU64,
}

/// The device of a cached session.
struct CachedDevice {
    /// The key of the session's cookies, and when the session was bound.
    bound: (u8, Timestamp),
    /// The last good cookie of the device, and its expiry.
    last: Mutex<Option<([u8; device_cookie::LENGTH], Timestamp)>>,
}

impl CachedDevice {
    fn is_proved(&self, shown: &[u8], session: SessionId, keys: &RefreshKeys, now: Timestamp) -> bool {
        let last = *self.last.lock();
        if let Some((_, expires)) = last.filter(|(cookie, _)| are_equal(cookie, shown)) {
            return now < expires;
        }
        let expires = device_cookie::expiry(keys, self.bound.0, session, shown).filter(|expires| now < *expires);
        if let (Some(expires), Ok(cookie)) = (expires, shown.try_into()) {
            *self.last.lock() = Some((cookie, expires));
        }
        expires.is_some()
    }
}

impl CachedSession {
    /// The memory of its texts.
    pub(super) fn bytes(&self) -> usize {
        let token =
            self.provider.as_deref().map(|provider| provider.access_token.as_ref().map_or(0, |token| token.len()));
        let device = self.device.as_ref().map_or(0, |_| size_of::<CachedDevice>());
        self.cookie.len() + token.map_or(0, |token| token + size_of::<ProviderTerms>()) + device
    }
}

/// The context of a miss.
pub struct SessionMiss<'a> {
    /// The limits, and the source of the request.
    pub miss: MissContext<'a>,
    /// The keys that make cookies.
    pub keyring: Arc<Keyring>,
    /// The result of the read that the request waited for.
    pub answer: Option<&'a SessionAnswer>,
}

/// The result of reading the record of a session cookie or an API key, for the request that waited for it.
#[derive(Clone)]
pub struct SessionAnswer {
    /// The value of the cookie, or the key.
    pub cookie: Arc<str>,
    /// The token that the credential represents; or the denial, which is undecided after a fault.
    pub outcome: Result<Arc<Verified>, Denial>,
}

impl SessionAnswer {
    /// Counts the outcome, for the limits on its source.
    pub fn record(&self, limits: &Limits, source: Source<'_>) {
        match &self.outcome {
            Ok(_) => limits.record_valid(source),
            Err(denial) if denial.standing() == Standing::Dead => limits.record_refused(source),
            Err(_) => {}
        }
    }
}

impl Verified {
    /// The times of the session, if the caller presented a session cookie.
    pub fn session_terms(&self) -> Option<&SessionTerms> {
        self.session().map(|session| &session.terms)
    }

    /// Is a renewal in the background due, and has no renewal begun lately? If so, and if `may_renew`, the caller must
    /// begin it.
    pub fn takes_renewal(&self, now: impl FnOnce() -> Timestamp, may_renew: impl FnOnce() -> bool) -> bool {
        let Some(session) = self.session().filter(|session| session.is_due.load(Ordering::Relaxed)) else {
            return false;
        };
        let (now, next) = (now(), session.asked_next.load(Ordering::Relaxed));
        let later = now.plus(PAUSE).as_millis();
        now.as_millis() >= next
            && may_renew()
            && session.asked_next.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Does a request pass with the device cookie that it has? A bound session needs a good device cookie. Other
    /// callers need no device cookie.
    // Requirement B48.
    pub fn admits_device<'a>(
        &self,
        mode: Binding,
        shown: impl FnOnce() -> Option<&'a [u8]>,
        keyring: impl FnOnce() -> Arc<Keyring>,
        now: Timestamp,
    ) -> bool {
        let (Some(session), Some((id, _))) = (self.session(), self.token.session) else { return true };
        let device = session.device.as_deref();
        mode.admits(id.created(), device.map(|device| device.bound), now, |_| {
            let shown = device.zip(shown());
            shown.is_some_and(|(device, shown)| device.is_proved(shown, id, keyring().refresh_keys(), now))
        })
    }

    /// The value of the session cookie, if the caller presented one.
    pub fn session_cookie(&self) -> Option<&Arc<str>> {
        self.session().map(|session| &session.cookie)
    }

    /// The access token of the session, if the caller presented a session cookie: for an upstream.
    pub fn session_token(&self) -> Option<&str> {
        self.session().map(|_| &*self.token.text)
    }

    /// The provider's access token, if the user of the session logged in at a provider. A route may forward this token.
    ///
    /// # Errors
    /// [`Denial::ProviderTokenOver`]; [`Denial::SessionUnavailable`] if the provider did not refresh it.
    // Requirement B40.
    pub fn provider_token(&self, now: Timestamp) -> Result<Option<&Arc<Zeroizing<String>>>, Denial> {
        let Some(provider) = self.session().and_then(|session| session.provider.as_deref()) else { return Ok(None) };
        match &provider.access_token {
            Some(token) if now < provider.token_until => Ok(Some(token)),
            Some(_) | None if provider.is_refreshable => Err(Denial::SessionUnavailable(TRY_AGAIN)),
            Some(_) | None => Err(Denial::ProviderTokenOver),
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let Some(session) = self.session() else { return true };
        let is_due = session.terms.renew_from <= now;
        if is_due {
            session.is_due.store(true, Ordering::Relaxed);
        }
        is_due
    }
}

impl TokenChecker {
    /// Checks a session cookie. `value` contains its bytes in the request.
    ///
    /// # Errors
    /// [`Denial::SessionUnavailable`] for a cookie of this gate whose session must be loaded first: see
    /// [`load_session`](Self::load_session). [`Denial::SessionOver`], [`Denial::UnknownSessionCookie`];
    /// [`Denial::RateLimited`] for an unseen cookie, if too many forged cookies came from its source.
    // Requirement B3.
    pub fn check_session<'a, O: Observer>(
        &self,
        value: &[u8],
        shown: impl FnOnce() -> SessionMiss<'a>,
        observer: &mut O,
    ) -> Result<Arc<Verified>, Denial> {
        let keys = self.keys.load();
        match self.known_session::<O>(&keys, value) {
            Ok(None) => {}
            Ok(Some(known)) => {
                self.counted::<O>(CheckResult::Hit);
                // The session is good. The rules are judged again, so that an observer without effects gets each
                // result.
                return if O::HAS_EFFECTS { Ok(known) } else { self.check_now(known, observer) };
            }
            Err(denial) => return observer.read(denial.rule(), Err(denial)),
        }
        let SessionMiss { miss, keyring, answer } = shown();
        let text = std::str::from_utf8(value).unwrap_or_default();
        if let Some(answer) = answer.filter(|answer| *answer.cookie == *text) {
            return self.answered(answer, observer);
        }
        let key = keys.key(text);
        if let Some(denial) = keys.refused::<O>(key) {
            self.counted::<O>(CheckResult::Hit);
            return observer.read(denial.rule(), Err(denial));
        }
        let admitted =
            if O::HAS_EFFECTS { self.admit_unseen(miss) } else { miss.limits.foresee_unverified(miss.source) };
        observer.judged(Rule::Limit, admitted)?;
        if SessionCookie::authenticate(keyring.refresh_keys(), text).is_none() {
            if O::HAS_EFFECTS {
                miss.limits.record_forged(miss.source);
            }
            self.counted::<O>(CheckResult::Forged);
            return observer.read(Rule::Credential, Err(Denial::UnknownSessionCookie));
        }
        observer.read(Rule::Revocation, Err(Denial::SessionUnavailable(TRY_AGAIN)))
    }

    /// A session in the caches whose record need not be read.
    ///
    /// # Errors
    /// An undecided denial, if it is not known whether the session's token was revoked.
    fn known_session<O: Observer>(&self, keys: &KeySet, value: &[u8]) -> Result<Option<Arc<Verified>>, Denial> {
        let times = self.clock.now_and_latest();
        let at_hand = if O::HAS_EFFECTS { front::find(keys.id, value) } else { None };
        if let Some(known) = at_hand.filter(|known| !known.is_due(times.0))
            && let Some(known) = self.if_good(known, times)?
        {
            return Ok(Some(known));
        }
        let Ok(text) = std::str::from_utf8(value) else { return Ok(None) };
        if !is_cookie(text) {
            return Ok(None);
        }
        // Another thread may have renewed the session.
        let shared = keys.cached::<O>(keys.key(text)).map(|known| self.if_good(known, times)).transpose()?.flatten();
        if let Some(known) = &shared
            && !known.is_due(times.0)
            && O::HAS_EFFECTS
            && self.capacity > 0
        {
            front::keep(keys.id, known);
        }
        Ok(shared)
    }

    /// The session, if its token is good now; `None` if the session's record must be read.
    ///
    /// # Errors
    /// [`Denial::SessionOver`]; an undecided denial.
    fn if_good(&self, known: Arc<Verified>, times: (Timestamp, Timestamp)) -> Result<Option<Arc<Verified>>, Denial> {
        let Some(session) = known.session() else { return Ok(None) };
        // The provider must be asked first.
        if session.provider.as_deref().is_some_and(|provider| provider.good_until <= times.0) {
            return Ok(None);
        }
        match self.check_at(times, &known, &mut ()) {
            Ok(()) => Ok(Some(known)),
            Err(denial) if denial.is_undecided() => Err(denial),
            Err(Denial::TokenRevoked) if self.is_ended(&known) => Err(Denial::SessionOver("it was ended")),
            Err(_) => Ok(None),
        }
    }

    /// Does the revocation list end the session itself, not only the generation of its token?
    fn is_ended(&self, known: &Verified) -> bool {
        let session = known.token.session.map(|(id, _)| (id, LATEST));
        let now = self.clock.now();
        // A request for newer tokens ends no session, so it must not match.
        let issued_at = Some(Timestamp::MAX);
        self.revocations.judge(TokenFacts { session, issued_at, ..known.facts() }, now).refuses(now)
    }

    /// The answer that a request waited for.
    fn answered<O: Observer>(&self, answer: &SessionAnswer, observer: &mut O) -> Result<Arc<Verified>, Denial> {
        let checked = match &answer.outcome {
            Ok(verified) => {
                self.counted::<O>(CheckResult::Valid);
                // A later generation may have ended this token meanwhile.
                let good = self.if_good(Arc::clone(verified), self.clock.now_and_latest());
                good.and_then(|good| good.ok_or(Denial::SessionUnavailable(TRY_AGAIN)))
            }
            Err(denial) => Err(*denial),
        };
        match checked {
            Ok(verified) if O::HAS_EFFECTS => Ok(verified),
            Ok(verified) => self.check_now(verified, observer),
            Err(denial) => observer.read(denial.rule(), Err(denial)),
        }
    }

    /// The session of a cookie: from the cache, if another request has loaded it meanwhile; otherwise from its record,
    /// after a renewal if `when` requires one.
    ///
    /// The future must run to its end: give it a task of its own.
    ///
    /// # Errors
    /// As [`Engine::browser_session`]; [`Denial::SessionNotRenewed`].
    // Requirement B9.
    pub async fn load_session(
        &self,
        engine: &Engine,
        value: &Arc<str>,
        by: (RulesOf<'_>, Option<&dyn SessionProvider>),
        when: RenewWhen,
    ) -> Result<Arc<Verified>, Error> {
        let cookie = engine.session_cookie(value).ok_or(Denial::UnknownSessionCookie)?;
        let turn = engine.take_turn(cookie.session()).await;
        let known = self.known_session::<()>(&self.keys.load(), value.as_bytes())?;
        if let Some(known) = known.filter(|known| when != RenewWhen::Due || !known.is_due(self.clock.now())) {
            return Ok(known);
        }
        match engine.browser_token(&turn, &cookie, by, when).await {
            Ok(token) => self.keep_session(value, token),
            Err(Error::Denied(denial)) if denial.standing() == Standing::Dead => {
                // The end of a session is final, so the refusal is remembered and the record is not read again.
                let keys = self.keys.load();
                keys.refused.insert(keys.key(value).owned(), RefusedToken { denial, token: None });
                Err(denial.into())
            }
            Err(error) => Err(error),
        }
    }

    /// The result of [`load_session`](Self::load_session), for an explanation: nothing is renewed or cached. `None` if
    /// the session would be renewed first.
    ///
    /// # Errors
    /// As [`Engine::browser_session`].
    pub async fn foresee_session(
        &self,
        engine: &Engine,
        value: &Arc<str>,
        by: (RulesOf<'_>, Option<&dyn SessionProvider>),
    ) -> Result<Option<Arc<Verified>>, Error> {
        let cookie = engine.session_cookie(value).ok_or(Denial::UnknownSessionCookie)?;
        let turn = engine.take_turn(cookie.session()).await;
        match engine.browser_token(&turn, &cookie, by, RenewWhen::Never).await {
            Ok(token) => self.verify_session(&self.keys.load(), value, token).map(Some),
            Err(Error::Denied(Denial::SessionNotRenewed)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn keep_session(&self, value: &Arc<str>, token: BrowserToken) -> Result<Arc<Verified>, Error> {
        let keys = self.keys.load();
        let verified = self.verify_session(&keys, value, token)?;
        keys.cache.insert(keys.key(value).owned(), Arc::clone(&verified));
        Ok(verified)
    }

    /// Verifies the token of a session, like every other token.
    fn verify_session(&self, keys: &KeySet, value: &Arc<str>, token: BrowserToken) -> Result<Arc<Verified>, Error> {
        let BrowserToken { access_token, mut terms, at_provider, device, provider } = token;
        let (now, text) = (self.clock.now(), access_token.expose());
        let unverified = |denial| match denial {
            Denial::BadClaim(_) => {
                Denial::SessionOver("its user has the prefix of an issuer that did not vouch").into()
            }
            _ => Error::from(Fault::Signing("the access token of a session is not good here")),
        };
        let mut access = keys.verifier.verify(text, now, self.clock.wall()).map_err(unverified)?;
        if let Some(user) = &at_provider {
            let issuer = keys.verifier.token_issuer(&user.issuer);
            let issuer = issuer.ok_or(Denial::SessionOver("its provider is no longer an issuer of this gate"))?;
            if !std::ptr::eq(&**issuer, access.vouching_issuer()) {
                return Err(Denial::SessionOver("its provider has another subject_prefix now").into());
            }
            access.rare.get_or_insert_default().is_at_provider = true;
        }
        let rules = keys.verifier.id_of(access.issuer()).ok_or(Denial::UnknownIssuer).map_err(unverified)?;
        let judged = keys.shared.judge(&access, now);
        if let Some(provider) = &provider {
            terms.renew_from = terms.renew_from.min(provider.refresh_from);
        }
        let (provider, is_due, asked_next) = (provider.map(Box::new), AtomicBool::new(false), AtomicU64::new(0));
        let device = device.map(|bound| Box::new(CachedDevice { bound, last: Mutex::default() }));
        let session = CachedSession { cookie: Arc::clone(value), terms, provider, device, is_due, asked_next };
        Ok(keys.shared.accept(access, None, rules, judged, Some(session)))
    }
}
