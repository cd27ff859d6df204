//! Checks API keys. An API key is cached like a session cookie. The cache key is the API key itself, and the entry is
//! the verified token that represents it. A hit therefore costs as much as a hit for a token. On a miss, the gate first
//! checks the API key's checksum. Then the request waits until the engine has read the API key's record and its owner.

use std::net::IpAddr;
use std::sync::Arc;

use super::key_set::KeySet;
use super::{CheckResult, MissContext, SessionAnswer, TRY_AGAIN, TokenChecker, Verified, front};
use crate::api_key::{ApiKey, CachedKey, KeyClient};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::fault::{Error, Fault};
use crate::rule::Rule;
use crate::token::TokenText;
use crate::token::claims::{KeyFacts, LoginClaims};
use crate::token::observer::Observer;

/// The denial for a revoked API key.
const REVOKED: Denial = Denial::ApiKeyRefused("it was revoked, or all API keys of its owner were revoked");
const NETWORK: Denial = Denial::ApiKeyRefused("it may not be used from this address");

/// A valid key and its internal access token.
#[derive(Debug)]
pub struct ReadKey {
    /// The token, which never leaves the gate.
    pub access_token: TokenText,
    /// The record.
    pub key: ApiKey,
    /// When the record is read again.
    pub read_again: Timestamp,
}

impl TokenChecker {
    /// Returns whether the string starts like an API key of this gate.
    pub fn is_key(&self, text: &[u8]) -> bool {
        let begins =
            |prefix: &crate::api_key::KeyPrefix| std::str::from_utf8(text).is_ok_and(|text| prefix.begins(text));
        self.key_prefix.as_ref().is_some_and(begins)
    }

    /// Checks an API key. `address` returns the client's address.
    ///
    /// # Errors
    /// [`Denial::ApiKeyUnavailable`] for a key whose record must be read first; [`Denial::ApiKeyRefused`];
    /// [`Denial::RateLimited`] for an unseen key if too many forged keys came from its source.
    pub fn check_key<'a, O: Observer>(
        &self,
        text: &str,
        address: impl FnOnce() -> Option<IpAddr>,
        shown: impl FnOnce() -> (MissContext<'a>, Option<&'a SessionAnswer>),
        observer: &mut O,
    ) -> Result<Arc<Verified>, Denial> {
        let checked = self.checked_key(text, shown, observer);
        let checked = checked.and_then(|known| match known.api_key() {
            Some(key) if !key.networks.is_empty() && !key.is_good_at(address()) => Err(NETWORK),
            Some(_) | None => Ok(known),
        });
        match checked {
            Ok(known) if O::HAS_EFFECTS => Ok(known),
            // The key is valid. An observer without effects needs the result of each rule.
            Ok(known) => self.check_now(known, observer),
            Err(denial) => observer.read(denial.rule(), Err(denial)),
        }
    }

    fn checked_key<'a, O: Observer>(
        &self,
        text: &str,
        shown: impl FnOnce() -> (MissContext<'a>, Option<&'a SessionAnswer>),
        observer: &mut O,
    ) -> Result<Arc<Verified>, Denial> {
        let keys = self.keys.load();
        if let Some(known) = self.known_key::<O>(&keys, text)? {
            self.counted::<O>(CheckResult::Hit);
            return Ok(known);
        }
        let (miss, answer) = shown();
        if let Some(answer) = answer.filter(|answer| *answer.cookie == *text) {
            let verified = answer.outcome.clone()?;
            self.counted::<O>(CheckResult::Valid);
            return self.if_good_key(&verified)?.ok_or(Denial::ApiKeyUnavailable(TRY_AGAIN));
        }
        let is_key = self.key_prefix.as_ref().is_some_and(|prefix| prefix.id_of(text).is_some());
        if !is_key {
            self.counted::<O>(CheckResult::Unchecked);
            return Err(Denial::ApiKeyRefused("it is mistyped or made up, because its checksum is wrong"));
        }
        if let Some(denial) = keys.refused::<O>(keys.key(text)) {
            self.counted::<O>(CheckResult::Hit);
            return Err(denial);
        }
        let admitted =
            if O::HAS_EFFECTS { self.admit_unseen(miss) } else { miss.limits.foresee_unverified(miss.source) };
        observer.judged(Rule::Limit, admitted)?;
        Err(Denial::ApiKeyUnavailable(TRY_AGAIN))
    }

    /// Returns the cached API key, unless its record must be read again.
    fn known_key<O: Observer>(&self, keys: &KeySet, text: &str) -> Result<Option<Arc<Verified>>, Denial> {
        let at_hand = if O::HAS_EFFECTS { front::find(keys.id, text.as_bytes()) } else { None };
        if let Some(known) = at_hand
            && let Some(known) = self.if_good_key(&known)?
        {
            return Ok(Some(known));
        }
        let shared = keys.cached::<O>(keys.key(text)).map(|known| self.if_good_key(&known)).transpose()?.flatten();
        if let Some(known) = &shared
            && O::HAS_EFFECTS
            && self.capacity > 0
        {
            front::keep(keys.id, known);
        }
        Ok(shared)
    }

    /// Returns a valid API key, or `None` if its record must be read again.
    // Requirement K4.
    fn if_good_key(&self, known: &Arc<Verified>) -> Result<Option<Arc<Verified>>, Denial> {
        if known.api_key().is_none_or(|key| key.read_again <= self.clock.now()) {
            return Ok(None);
        }
        match self.check_now(Arc::clone(known), &mut ()) {
            Ok(known) => Ok(Some(known)),
            Err(denial) if denial.is_undecided() => Err(denial),
            Err(Denial::TokenRevoked) if self.revocations.is_key_replaced(known.facts()) => Ok(None),
            Err(Denial::TokenRevoked) => Err(REVOKED),
            Err(_) => Ok(None),
        }
    }

    /// Returns the cached API key, or `None` if its record must be read.
    ///
    /// # Errors
    /// [`Denial::ApiKeyRefused`], or a denial which states that the gate cannot currently decide.
    pub(crate) fn cached_key(&self, text: &str) -> Result<Option<Arc<Verified>>, Denial> {
        self.known_key::<()>(&self.keys.load(), text)
    }

    /// Verifies an API key whose record was read, and caches it.
    ///
    /// # Errors
    /// A fault.
    pub(crate) fn keep_key(&self, text: &Arc<str>, read: ReadKey) -> Result<Arc<Verified>, Error> {
        let keys = self.keys.load();
        let verified = self.verify_key(&keys, text, read)?;
        keys.cache.insert(keys.key(text).owned(), Arc::clone(&verified));
        Ok(verified)
    }

    /// Verifies an API key whose record was read, without caching it.
    ///
    /// # Errors
    /// A fault.
    pub(crate) fn key_of(&self, text: &Arc<str>, read: ReadKey) -> Result<Arc<Verified>, Error> {
        self.verify_key(&self.keys.load(), text, read)
    }

    /// Verifies the token that represents an API key, by the same rules as every other token.
    fn verify_key(&self, keys: &KeySet, text: &Arc<str>, read: ReadKey) -> Result<Arc<Verified>, Error> {
        let ReadKey { access_token, key, read_again } = read;
        let now = self.clock.now();
        let unverified = |_| Error::from(Fault::Signing("the token of an API key could not be verified"));
        let mut access = keys.verifier.verify(access_token.expose(), now, self.clock.wall()).map_err(unverified)?;
        (access.issued_at, access.expires) = (Some(key.began), key.expires);
        let rare = access.rare.get_or_insert_default();
        let limited_as = KeyClient(&key.lineage).to_string().into();
        // Using a key is not a login.
        rare.login = LoginClaims::default();
        rare.key = Some(Box::new(KeyFacts { vouched_by: key.vouched_by.clone(), limited_as }));
        let rules = keys.verifier.id_of(access.issuer()).ok_or(Denial::UnknownIssuer).map_err(unverified)?;
        let judged = keys.shared.judge(&access, now);
        let networks = key.networks().ok_or(Fault::Signing("the networks of an API key cannot be read"))?;
        let cached = CachedKey { text: Arc::clone(text), read_again, networks };
        Ok(keys.shared.accept_key(access, rules, judged, cached))
    }
}
