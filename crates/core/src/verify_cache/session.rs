//! Checks the session cookies of browser sessions. A cookie represents the current access token of its session. The
//! verified token is cached with the cookie as its key. A cache hit therefore costs the same as for a bearer token.
//!
//! On a miss, the cookie's tag is checked without the store. If the tag is valid, the request waits until the engine has
//! loaded the session: it reads the session's record, and renews the session if necessary. The access token is verified
//! by the same rules as every other token. A cached token that has expired or was replaced counts as a miss. Only the
//! record shows whether the session has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::browser_token::{BrowserToken, ProviderTerms, SessionTerms};
use super::key_set::{KeySet, RefusedToken};
use super::{CheckResult, MissContext, TRY_AGAIN, TokenChecker, Verified, front};
use crate::clock::Timestamp;
use crate::denial::{Denial, Standing};
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

/// The highest generation number that a token can have.
const LATEST: Generation = Generation::new(u64::MAX - 1);
/// The minimum time between two background renewals, whether the first succeeded or failed.
const PAUSE: Duration = TRY_AGAIN;

/// Returns whether this string has the prefix of a session cookie. No token has this prefix, so tokens and cookies
/// share no cache key.
pub(super) fn is_cookie(text: &str) -> bool {
    text.starts_with(PREFIX)
}

pub(super) struct CachedSession {
    /// The value of the cookie, which is the cache key.
    pub(super) cookie: Arc<str>,
    terms: SessionTerms,
    /// The data about the provider login, if the user logged in at a provider.
    provider: Option<Box<ProviderTerms>>,
    /// The device to which the session is bound. `None` if the session is not bound.
    device: Option<Box<CachedDevice>>,
    /// Whether the session should be renewed. Other requests then need not read the clock.
    is_due: AtomicBool,
    /// The earliest start of the next background renewal, in milliseconds.
    asked_next: AtomicU64,
}

/// The device to which a cached session is bound.
struct CachedDevice {
    /// The id of the secret for device cookies, and the time of the binding.
    bound: (u8, Timestamp),
    /// The last valid cookie of the device, and its expiry.
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
    /// The memory that the session's strings use.
    pub(super) fn bytes(&self) -> usize {
        let token =
            self.provider.as_deref().map(|provider| provider.access_token.as_ref().map_or(0, |token| token.len()));
        let device = self.device.as_ref().map_or(0, |_| size_of::<CachedDevice>());
        self.cookie.len() + token.map_or(0, |token| token + size_of::<ProviderTerms>()) + device
    }
}

/// The context for a session cookie that is not in the cache.
pub struct SessionMiss<'a> {
    /// The rate limits, and the source of the request.
    pub miss: MissContext<'a>,
    /// The keys for session cookies.
    pub keyring: Arc<Keyring>,
    /// The loaded session, if the request waited for it.
    pub answer: Option<&'a SessionAnswer>,
}

/// The result of a lookup for a session cookie or an API key.
#[derive(Clone)]
pub struct SessionAnswer {
    /// The value of the session cookie, or the API key.
    pub cookie: Arc<str>,
    /// The token that the credential represents, or the denial. A check that could not be completed is also a denial.
    pub outcome: Result<Arc<Verified>, Denial>,
}

impl SessionAnswer {
    /// Applies the outcome to the rate limits of the request's source.
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

    /// Returns whether the caller must begin a renewal in the background. A renewal begins if the session should be
    /// renewed, none has begun recently, and `may_renew` returns true.
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

    /// Returns whether a request satisfies the device binding. A valid device cookie is required only if the caller's
    /// session is bound to a device.
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

    /// The access token of the session, to be sent to an upstream. `None` unless the caller presented a session cookie.
    pub fn session_token(&self) -> Option<&str> {
        self.session().map(|_| &*self.token.text)
    }

    /// The provider's access token, if the user of the session logged in at a provider. A route may be configured to
    /// forward this token.
    ///
    /// # Errors
    /// [`Denial::ProviderTokenOver`]; [`Denial::SessionUnavailable`] if the provider did not refresh the token.
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
    /// Checks a session cookie. `value` is the cookie's value as bytes.
    ///
    /// # Errors
    /// [`Denial::SessionUnavailable`] for a cookie of this gate whose session the engine must load first.
    /// [`Denial::SessionOver`]. [`Denial::UnknownSessionCookie`].
    /// [`Denial::RateLimited`] for an unseen cookie if too many forged cookies came from its source.
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
                // The session is valid. Only an explanation needs the result of each rule.
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

    /// Returns a valid cached session whose record does not have to be read again.
    ///
    /// # Errors
    /// A denial which states that the gate cannot currently decide whether the session's token was revoked.
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
        // Another thread may have renewed the session, so the shared cache is checked.
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

    /// Returns the session if its token is valid now, or `None` if the session's record must be read.
    ///
    /// # Errors
    /// [`Denial::SessionOver`]; or a denial which states that the gate cannot currently decide whether the token was
    /// revoked.
    fn if_good(&self, known: Arc<Verified>, times: (Timestamp, Timestamp)) -> Result<Option<Arc<Verified>>, Denial> {
        let Some(session) = known.session() else { return Ok(None) };
        // After this time, the provider must be queried before the session may continue.
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

    /// Returns whether the whole session is revoked, rather than only the generation of this token.
    fn is_ended(&self, known: &Verified) -> bool {
        let session = known.token.session.map(|(id, _)| (id, LATEST));
        let now = self.clock.now();
        // Entries for older tokens must not match.
        let issued_at = Some(Timestamp::MAX);
        self.revocations.judge(TokenFacts { session, issued_at, ..known.facts() }, now).refuses(now)
    }

    fn answered<O: Observer>(&self, answer: &SessionAnswer, observer: &mut O) -> Result<Arc<Verified>, Denial> {
        let checked = match &answer.outcome {
            Ok(verified) => {
                self.counted::<O>(CheckResult::Valid);
                // A later generation may have replaced this token in the meantime.
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

    /// Returns the cached session for a cookie, or `None` if the session must be loaded. With `unless_due`, also `None` if
    /// the session should be renewed.
    ///
    /// # Errors
    /// A denial which states that the gate cannot currently decide whether the session's token was revoked.
    pub(crate) fn cached_session(&self, value: &str, unless_due: bool) -> Result<Option<Arc<Verified>>, Denial> {
        let known = self.known_session::<()>(&self.keys.load(), value.as_bytes())?;
        Ok(known.filter(|known| !unless_due || !known.is_due(self.clock.now())))
    }

    /// Remembers that a session cookie or an API key is refused for all time. Its record is then not read again.
    pub(crate) fn remember_refused(&self, value: &str, denial: Denial) {
        let keys = self.keys.load();
        keys.refused.insert(keys.key(value).owned(), RefusedToken { denial, token: None });
    }

    /// Verifies a session that was loaded, and caches it.
    ///
    /// # Errors
    /// The errors of [`session_of`](Self::session_of).
    pub(crate) fn keep_session(&self, value: &Arc<str>, token: BrowserToken) -> Result<Arc<Verified>, Error> {
        let keys = self.keys.load();
        let verified = self.verify_session(&keys, value, token)?;
        keys.cache.insert(keys.key(value).owned(), Arc::clone(&verified));
        Ok(verified)
    }

    /// Verifies a session that was loaded, without caching it.
    ///
    /// # Errors
    /// [`Denial::SessionOver`] if the current rules refuse the session, or a fault.
    pub(crate) fn session_of(&self, value: &Arc<str>, token: BrowserToken) -> Result<Arc<Verified>, Error> {
        self.verify_session(&self.keys.load(), value, token)
    }

    /// Verifies a session's access token by the same rules as any other token.
    fn verify_session(&self, keys: &KeySet, value: &Arc<str>, token: BrowserToken) -> Result<Arc<Verified>, Error> {
        let BrowserToken { access_token, mut terms, at_provider, device, provider } = token;
        let (now, text) = (self.clock.now(), access_token.expose());
        let unverified = |denial| match denial {
            Denial::BadClaim(_) => Denial::SessionOver(
                "the subject of its user begins with the prefix of an issuer that did not vouch for the user",
            )
            .into(),
            _ => Error::from(Fault::Signing("the access token of a session could not be verified")),
        };
        let mut access = keys.verifier.verify(text, now, self.clock.wall()).map_err(unverified)?;
        if let Some(user) = &at_provider {
            let issuer = keys.verifier.token_issuer(&user.issuer);
            let issuer = issuer.ok_or(Denial::SessionOver("its provider is no longer an issuer of this gate"))?;
            if !std::ptr::eq(&**issuer, access.vouching_issuer()) {
                return Err(Denial::SessionOver("the `subject_prefix` of its provider has changed").into());
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
