//! The assertions about a verified token's caller, cached with the token for each audience.
//!
//! On a hit, an existing assertion is copied. Once half of the assertion's lifetime has passed, a new assertion is
//! signed in the background. Meanwhile, requests use the old assertion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use super::Verified;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::token::assertion::assertion;
use crate::token::keyring::GateSigner;

/// The header that contains assertions, and the lifetime of assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionHeader {
    /// The name of the header.
    pub name: HeaderName,
    /// The time from `iat` to `exp`, unless the token expires earlier.
    pub ttl: Duration,
}

/// The maximum number of cached assertions for one token. A further assertion evicts the oldest one.
const MAX_KEPT: usize = 4;
/// The delay before a failed signature is retried.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The assertions of one token.
#[derive(Default)]
pub(super) struct Assertions {
    kept: ArcSwapOption<Vec<Arc<CachedAssertion>>>,
    /// This lock is held while an assertion is signed, so that concurrent requests share the assertion.
    signing: Mutex<()>,
}

struct CachedAssertion {
    audience: Arc<str>,
    value: HeaderValue,
    /// The generation of the keys that signed the assertion.
    generation: u64,
    renew_from: Timestamp,
    expires: Timestamp,
    is_ordered: AtomicBool,
}

impl Assertions {
    fn find(&self, audience: &Arc<str>, generation: u64) -> Option<Arc<CachedAssertion>> {
        let kept = self.kept.load();
        let is_it = |one: &&Arc<CachedAssertion>| {
            one.generation == generation && (Arc::ptr_eq(&one.audience, audience) || one.audience == *audience)
        };
        kept.as_ref()?.iter().find(is_it).map(Arc::clone)
    }

    fn keep(&self, new: CachedAssertion) -> Arc<CachedAssertion> {
        let new = Arc::new(new);
        let old = self.kept.load();
        let others = old.iter().flat_map(|old| old.iter());
        let others = others.filter(|one| one.audience != new.audience && one.generation == new.generation);
        let all = std::iter::once(&new).chain(others).take(MAX_KEPT).map(Arc::clone).collect();
        self.kept.store(Some(Arc::new(all)));
        new
    }
}

impl Verified {
    /// Returns the header that asserts this caller to `audience`, or `None` if assertions are not configured.
    ///
    /// # Errors
    /// [`Denial::AssertionUnavailable`].
    pub fn assertion<S: GateSigner>(
        self: &Arc<Self>,
        signer: &Arc<S>,
        audience: &Arc<str>,
    ) -> Result<Option<(&HeaderName, HeaderValue)>, Denial> {
        let Some((header, assertions)) = self.assertions() else { return Ok(None) };
        let now = signer.now();
        let generation = signer.keys_generation();
        let found = assertions.find(audience, generation).filter(|kept| now < kept.expires);
        let kept = match found {
            Some(kept) => {
                if now >= kept.renew_from && !kept.is_ordered.swap(true, Ordering::Relaxed) {
                    self.order(signer, audience);
                }
                kept
            }
            None => self.sign(signer.as_ref(), audience, false)?,
        };
        Ok(Some((&header.name, kept.value.clone())))
    }

    /// Starts to sign a new assertion in the background.
    fn order<S: GateSigner>(self: &Arc<Self>, signer: &Arc<S>, audience: &Arc<str>) {
        let (caller, signer, audience) = (Arc::clone(self), Arc::clone(signer), Arc::clone(audience));
        let renew = move || {
            // A failure is logged later, once the old assertion has expired and a request needs a new one.
            let _ = caller.sign(signer.as_ref(), &audience, true);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(renew)),
            Err(_) => renew(),
        }
    }

    #[cold]
    fn sign(&self, signer: &impl GateSigner, audience: &Arc<str>, anew: bool) -> Result<Arc<CachedAssertion>, Denial> {
        let unavailable = Denial::AssertionUnavailable(TRY_AGAIN);
        let Some((header, assertions)) = self.assertions() else { return Err(unavailable) };
        let _one_at_once = assertions.signing.lock();
        // Read the generation first. Otherwise an assertion that was signed with a removed key could be treated as
        // current.
        let generation = signer.keys_generation();
        let now = signer.now();
        if let Some(kept) = assertions.find(audience, generation).filter(|kept| !anew && now < kept.expires) {
            return Ok(kept);
        }
        let signed = assertion(&signer.keyring(), signer.issuer(), audience, &self.token, now, header.ttl);
        let (value, expires) = signed.map_err(|error| {
            tracing::error!(audience = %audience, error = %error, "the assertion could not be signed, so the request \
                                                                   is refused");
            unavailable
        })?;
        let half = expires.since(now) / 2;
        Ok(assertions.keep(CachedAssertion {
            audience: Arc::clone(audience),
            value,
            generation,
            renew_from: now.plus(half),
            expires,
            is_ordered: AtomicBool::new(false),
        }))
    }
}
