//! Checks tokens that are not in this thread's cache.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "kuzzle")]
use super::introspected::unavailable;
use super::introspected::{Introspected, IntrospectedTokens};
use super::key_set::KeySet;
use super::token_key::{TokenKey, TokenRef};
use super::{TakenIssuers, TokenChecker, Verified, front};
use crate::api_key::KeyPrefix;
use crate::denial::Denial;
use crate::limit::{Limits, Source, Vain};
use crate::reason::Reason;
use crate::rule::Rule;
use crate::session::confirm::Confirmations;
use crate::strict_json::Members;
use crate::token::observer::Observer;
use crate::token::verify::{MAX_TOKEN, TokenRefusal, TokenToVerify, has_prefix, is_jwt_shaped, payload_of};
use crate::trace::{self, StepKind};

/// The result of a check of an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The token was checked before.
    Hit,
    /// The signature and the claims are valid.
    Valid,
    /// The signature is invalid.
    Forged,
    /// The signature is valid, but the token is refused because of a claim or a revocation.
    Refused,
    /// The token is malformed or expired, or its issuer or key is unknown, so the signature is not checked.
    Unchecked,
    /// The token was refused unchecked because of a rate limit.
    RefusedUnverified,
}

impl CheckResult {
    /// All results.
    pub const ALL: [Self; 6] =
        [Self::Hit, Self::Valid, Self::Forged, Self::Refused, Self::Unchecked, Self::RefusedUnverified];

    /// The name of the result in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Valid => "valid",
            Self::Forged => "forged",
            Self::Refused => "refused",
            Self::Unchecked => "unchecked",
            Self::RefusedUnverified => "refused_unverified",
        }
    }
}

/// The context of a cache miss: the token's source, and counters.
#[derive(Clone, Copy)]
pub struct MissContext<'a> {
    /// The rate limits.
    pub limits: &'a Limits,
    /// The queue of delivery confirmations for new tokens.
    pub confirmations: &'a Confirmations,
    /// The source address of the token.
    pub source: Source<'a>,
    /// The outcome of the introspection, if the request waited for it.
    pub introspected: Option<&'a Introspected>,
}

impl<'a> MissContext<'a> {
    /// The context for a token from this source.
    pub fn new(limits: &'a Limits, confirmations: &'a Confirmations, source: impl Into<Source<'a>>) -> Self {
        Self { limits, confirmations, source: source.into(), introspected: None }
    }

    /// Returns the context for a request that waited for this introspection.
    pub fn after(self, introspected: Option<&'a Introspected>) -> Self {
        Self { introspected, ..self }
    }
}

impl TokenChecker {
    /// Treats strings with this prefix as API keys.
    #[must_use]
    pub fn with_key_prefix(self, prefix: Option<KeyPrefix>) -> Self {
        Self { key_prefix: prefix, ..self }
    }

    /// Refuses a string with the prefix of API keys, which must not be sent to an issuer.
    // Requirement K6.
    pub(super) fn is_no_key(&self, token: &str) -> Result<(), Denial> {
        let is_key = self.key_prefix.as_ref().is_some_and(|prefix| prefix.begins(token));
        if is_key { Err(Denial::UnusableCredential) } else { Ok(()) }
    }

    /// Checks a token that this thread does not have in its cache. Not inlined, to keep the hit path short.
    #[inline(never)]
    pub(super) fn check_absent<'a, O: Observer>(
        &self,
        keys: &KeySet,
        token: &str,
        taken: TakenIssuers<'_>,
        shown: impl FnOnce() -> MissContext<'a>,
        observer: &mut O,
    ) -> Result<Arc<Verified>, Denial> {
        let key = keys.key(token);
        let verified = match keys.cached::<O>(key) {
            Some(verified) => {
                self.counted::<O>(CheckResult::Hit);
                observer.judged(Rule::Signature, Ok(()))?;
                verified
            }
            None => match keys.introspecting(token, taken) {
                Some(tokens) => {
                    return match tokens.known::<O>(token) {
                        Some(known) => {
                            self.counted::<O>(CheckResult::Hit);
                            if let (true, Ok(verified)) = (O::HAS_EFFECTS, &known)
                                && verified.is_first_use()
                            {
                                verified.note_use(shown().confirmations);
                            }
                            observer.read(Rule::Signature, known)
                        }
                        None => self.check_unknown(keys, tokens, key, shown(), observer),
                    };
                }
                None => self.check_new(keys, key, taken, shown(), observer)?,
            },
        };
        // Introspected tokens are not cached here, because their validity depends on the issuer's response.
        if O::HAS_EFFECTS && self.capacity > 0 {
            front::keep(keys.id, &verified);
        }
        Ok(verified)
    }

    /// Decides whether to check a token that is not in any cache of accepted tokens. A token that was refused before
    /// gets the same denial again.
    fn admit_absent<O: Observer>(
        &self,
        keys: &KeySet,
        key: TokenRef<'_>,
        shown: MissContext<'_>,
        observer: &mut O,
    ) -> Result<(), Denial> {
        if let Some(denial) = keys.refused::<O>(key) {
            self.counted::<O>(CheckResult::Hit);
            return observer.judged(denial.rule(), Err(denial));
        }
        let admitted =
            if O::HAS_EFFECTS { self.admit_unseen(shown) } else { shown.limits.foresee_unverified(shown.source) };
        observer.judged(Rule::Limit, admitted)
    }

    /// Handles a token that must be introspected. Begins the introspection, unless each request introspects its token
    /// separately.
    fn check_unknown<O: Observer>(
        &self,
        keys: &KeySet,
        tokens: &Arc<IntrospectedTokens>,
        key: TokenRef<'_>,
        shown: MissContext<'_>,
        observer: &mut O,
    ) -> Result<Arc<Verified>, Denial> {
        let token = key.text;
        if let Some(outcome) = shown.introspected.and_then(|answer| answer.about(tokens, token)) {
            if let (true, Ok(verified)) = (O::HAS_EFFECTS, &outcome)
                && verified.is_first_use()
            {
                verified.note_use(shown.confirmations);
            }
            return outcome;
        }
        self.admit_absent(keys, key, shown, observer)?;
        let has_keys = || keys.verifier.rules(&tokens.rules().issuer).is_some_and(|rules| !rules.keys.are_missing());
        if is_jwt_shaped(token) && !has_prefix(keys.verifier.issuers(), token) && has_keys() {
            let (now, wall) = (self.clock.now(), self.clock.wall());
            if let Err(refusal) = keys.verifier.verify_observed(token, now, wall, Duration::ZERO, observer) {
                if O::HAS_EFFECTS {
                    keys.remember(key.owned(), refusal);
                    self.count(refusal, token, shown);
                }
                return Err(refusal.into_denial());
            }
        }
        tokens.begin::<O>(token, shown.limits.knows(shown.source))
    }

    fn check_new<O: Observer>(
        &self,
        keys: &KeySet,
        key: TokenRef<'_>,
        taken: TakenIssuers<'_>,
        shown: MissContext<'_>,
        observer: &mut O,
    ) -> Result<Arc<Verified>, Denial> {
        self.admit_absent(keys, key, shown, observer)?;
        // The issuer is checked before the shared verification below, because different routes accept different
        // issuers.
        let (payload, read);
        let mut claims = None;
        if keys.verifier.has_others() {
            let unchecked = |denial| {
                if O::HAS_EFFECTS {
                    self.count(TokenRefusal::Unchecked(denial), key.text, shown);
                }
                denial
            };
            payload = payload_of(key.text).map_err(unchecked)?;
            read = Members::read(&payload).map_err(|why| unchecked(Denial::MalformedToken(why)))?;
            let rules = keys.verifier.claimed_in(&read).map_err(unchecked)?.0;
            if taken.is_some_and(|taken| !taken(rules)) {
                observer.judged(Rule::Issuer, Err(unchecked(Denial::WrongIssuer)))?;
            }
            claims = Some(&read);
        }
        let key = key.owned();
        if !O::HAS_EFFECTS {
            return self
                .verify(keys, &key, claims, Some(shown.confirmations), observer)
                .map_err(TokenRefusal::into_denial);
        }
        let span = trace::begin(StepKind::Internal, "rotogate.verify");
        let mut verify = || self.verify(keys, &key, claims, Some(shown.confirmations), observer);
        let anew = keys.cache.try_get_with(key.clone(), &mut verify).map_err(|refusal| *refusal);
        let anew = match anew {
            // The token was cached by a request that began before the rules changed.
            Ok(verified) if !verified.stands_in(keys) => {
                verify().inspect(|verified| keys.cache.insert(key.clone(), Arc::clone(verified)))
            }
            anew => anew,
        };
        match &anew {
            Ok(_) => {
                self.counted::<O>(CheckResult::Valid);
                shown.limits.record_valid(shown.source);
            }
            Err(refusal) => self.count(*refusal, key.text(), shown),
        }
        let anew = anew.map_err(TokenRefusal::into_denial);
        if let (Some(span), Err(denial)) = (&span, &anew) {
            span.set_error(Reason::denied(denial).word(), false);
        }
        anew
    }

    /// Checks a token that the gate itself, or the provider behind a relay, has just issued. The check does not confirm the token's generation, because
    /// the client may never receive the token.
    ///
    /// # Errors
    /// The errors of [`Self::check`].
    #[cfg(feature = "kuzzle")]
    pub fn check_issued(&self, token: &str) -> Result<Arc<Verified>, Denial> {
        let keys = self.keys.load();
        let verified = match keys.introspecting(token, Some(&|_| true)) {
            Some(tokens) => tokens.known::<()>(token).ok_or_else(|| unavailable(None))??,
            None => {
                let verified = self.verify(&keys, &keys.key(token).owned(), None, None, &mut ());
                verified.map_err(TokenRefusal::into_denial)?
            }
        };
        verified.token.of_bearer()?;
        Ok(verified)
    }

    fn verify<O: Observer>(
        &self,
        keys: &KeySet,
        key: &TokenKey,
        claims: Option<&Members<'_>>,
        confirmations: Option<&Confirmations>,
        observer: &mut O,
    ) -> Result<Arc<Verified>, TokenRefusal> {
        let now = self.clock.now();
        // The cache key and the cache entry share the token's string.
        let token = TokenToVerify { text: key.text(), kept: Some(key.text()), claims };
        let verified = keys.verifier.verify_observed(token, now, self.clock.wall(), Duration::ZERO, observer);
        let access = verified.inspect_err(|refusal| {
            if O::HAS_EFFECTS {
                keys.remember(key.clone(), *refusal);
            }
        })?;
        let issuer_keys = keys.verifier.rules(access.issuer()).and_then(|rules| rules.keys.live()).map(Arc::clone);
        let rules = keys.verifier.id_of(access.issuer()).ok_or(TokenRefusal::Unchecked(Denial::UnknownIssuer))?;
        let judged = keys.shared.judge(&access, now);
        if let Err(denial) = observer.judged(Rule::Revocation, judged.passes(now)) {
            if O::HAS_EFFECTS {
                keys.remember_revoked(access);
            }
            return Err(TokenRefusal::Authentic(denial));
        }
        let verified = keys.shared.accept(access, issuer_keys, rules, judged, None);
        // A bound token counts as used only after the caller has proved possession of its key.
        if let Some(confirmations) = confirmations.filter(|_| O::HAS_EFFECTS && !verified.token.is_bound()) {
            verified.note_use(confirmations);
        }
        Ok(verified)
    }

    /// Decides whether to check an unseen token.
    pub(super) fn admit_unseen(&self, shown: MissContext<'_>) -> Result<(), Denial> {
        let admitted = shown.limits.admit_unverified(shown.source);
        admitted.inspect_err(|_| self.counted::<()>(CheckResult::RefusedUnverified))
    }

    /// Counts a failed verification according to its cost.
    pub(super) fn count(&self, refusal: TokenRefusal, token: &str, shown: MissContext<'_>) {
        let is_read = Some(token).filter(|token| token.len() <= MAX_TOKEN);
        let (result, vain) = match refusal {
            TokenRefusal::Unchecked(_) => {
                (CheckResult::Unchecked, is_read.and_then(Vain::cost_unchecked).map(|cost| (Vain::Refused, cost)))
            }
            TokenRefusal::Undecided(_, tried) => {
                (CheckResult::Unchecked, Some((Vain::Undecided, Vain::cost(token, tried))))
            }
            TokenRefusal::Forged(_, tried) => (CheckResult::Forged, Some((Vain::Forged, Vain::cost(token, tried)))),
            TokenRefusal::Authentic(_) => (CheckResult::Refused, Some((Vain::Refused, Vain::cost(token, 1)))),
        };
        if let Some((vain, cost)) = vain {
            shown.limits.record(vain, shown.source, cost);
        }
        self.counted::<()>(result);
    }

    #[inline]
    pub(super) fn counted<O: Observer>(&self, result: CheckResult) {
        if O::HAS_EFFECTS {
            self.results.add(result as usize, 1);
        }
    }
}
