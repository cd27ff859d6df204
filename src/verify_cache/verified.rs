//! A token that was verified, and what all tokens of a gate share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{HeaderName, HeaderValue};

use super::assertions::Assertions;
use super::key_set::KeySet;
use super::{ASSERTION_BYTES, ENTRY_OVERHEAD_BYTES, IdentityHeaders};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::effects::Effects;
use crate::engine::confirm::Confirmations;
use crate::overload::{Holder, Shares};
use crate::revocation::RevocationList;
use crate::revocation::epoch::RevocationEpoch;
use crate::revocation::list::TokenFacts;
use crate::token::claims::AccessToken;
use crate::token::live_keys::LiveKeys;
use crate::token::verify::RulesId;

/// What all tokens of a set share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) revocations: Arc<RevocationList>,
    pub(super) identity: IdentityHeaders,
    /// The requests in flight of each caller.
    pub(super) callers: Arc<Shares>,
}

/// A token whose signature, claims, times and revocation were checked for this request.
pub struct Verified {
    pub(super) token: AccessToken,
    /// Those that it has, each with its place among the gate's identity headers.
    headers: Box<[(u16, HeaderValue)]>,
    pub(super) shard: usize,
    /// Its memory, in bytes.
    pub(super) weight: u32,
    pub(super) watch: RevocationEpoch,
    /// The keys of its issuer; `None` for our own, which change with the whole cache.
    keys: Option<Arc<LiveKeys>>,
    /// The generation of the keys for which its key was found last.
    keys_stamp: AtomicU64,
    /// The rules and keys that judged it.
    pub(super) rules: RulesId,
    holder: Holder,
    /// Whether the use of a bound token was noted, which only its first proof does.
    is_confirmed: AtomicBool,
    pub(super) assertions: Assertions,
    pub(super) shared: Arc<Shared>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Shared {
    /// A token that was verified, or introspected, with the keys of its issuer if they may change.
    ///
    /// # Errors
    /// The token itself, if it is revoked.
    pub(super) fn accept(
        self: &Arc<Self>,
        access: AccessToken,
        keys: Option<Arc<LiveKeys>>,
        rules: RulesId,
        now: Timestamp,
    ) -> Result<Arc<Verified>, Box<AccessToken>> {
        let shard = self.revocations.shard_of(facts(&access));
        // Read before the list: an entry that is added meanwhile moves the epoch past this one.
        let epoch = self.revocations.epoch(shard);
        let judged = self.revocations.judge(facts(&access), now);
        if judged.refuse_from <= now {
            return Err(Box::new(access));
        }
        let headers = self.identity.values(&access);
        let watch = RevocationEpoch::new(epoch, judged.refuse_from);
        let assertions = self.identity.assertion.as_ref().map_or(0, |_| ASSERTION_BYTES);
        let weight = weight(&access, &headers, assertions);
        let holder = Holder::caller(&access.issuer, &access.subject);
        Ok(Arc::new(Verified {
            token: access,
            headers,
            shard,
            weight,
            watch,
            keys,
            // No generation: the first check finds out.
            keys_stamp: AtomicU64::new(0),
            rules,
            holder,
            assertions: Assertions::default(),
            is_confirmed: AtomicBool::new(false),
            shared: Arc::clone(self),
        }))
    }
}

impl Verified {
    /// The token's claims.
    pub fn token(&self) -> &AccessToken {
        &self.token
    }

    /// The holder that the caller's resources count for.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Notes the first use of a bound token whose caller proved its key, or about which a trusted client asks: a bearer of
    /// it alone is no use.
    pub(crate) fn confirm(&self, confirmations: &Confirmations) {
        if let Some((session, generation)) = self.token.session
            && self.token.is_bound()
            && !self.is_confirmed.swap(true, Ordering::Relaxed)
        {
            confirmations.seen(session, generation);
        }
    }

    /// A request of this caller ended.
    pub(crate) fn left(&self) {
        self.shared.callers.leave(self.holder, 1);
    }

    /// The headers that tell an upstream the caller, ready to send.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let named = &self.shared.identity.headers;
        self.headers.iter().filter_map(|(at, value)| Some((&named.get(usize::from(*at))?.0, value)))
    }

    /// Is the key that signed it still one of its issuer's?
    pub(super) fn recheck_key<E: Effects>(&self, now: Timestamp) -> Result<(), Denial> {
        self.keys.as_ref().map_or(Ok(()), |keys| match E::ARE_WANTED {
            true => keys.recheck(&self.token.key, &self.keys_stamp, now),
            false => keys.holds(&self.token.key, now),
        })
    }

    /// Do the rules and keys that judged it still hold?
    pub(super) fn stands_in(&self, keys: &KeySet) -> bool {
        keys.verifier.id_of(&self.token.issuer) == Some(self.rules)
    }

    pub(super) fn text(&self) -> &str {
        &self.token.text
    }

    pub(super) fn facts(&self) -> TokenFacts<'_> {
        facts(&self.token)
    }
}

pub(super) fn facts(token: &AccessToken) -> TokenFacts<'_> {
    TokenFacts {
        issuer: &token.issuer,
        subject: token.token_subject(),
        client: token.client.as_deref(),
        session: token.session,
        issuer_session: token.issuer_session.as_deref(),
        vouched_by: token.vouched_by.as_deref(),
        jti: token.jti.as_deref(),
        issued_at: token.issued_at,
    }
}

fn weight(token: &AccessToken, headers: &[(u16, HeaderValue)], assertions: usize) -> u32 {
    let headers: usize = headers.iter().map(|header| size_of_val(header) + header.1.len()).sum();
    let audience: usize = token.audience.iter().map(|audience| audience.len()).sum();
    let texts = [token.account.as_deref(), token.client.as_deref(), token.jti.as_deref()];
    let texts: usize = texts.into_iter().flatten().map(str::len).sum();
    let roles: usize = token.roles.names().iter().map(|role| role.len() + size_of_val(role)).sum();
    as_weight(
        ENTRY_OVERHEAD_BYTES
            + assertions
            + headers
            + audience
            + texts
            + roles
            + token.text.len()
            + token.response.as_ref().map_or(0, |response| response.0.len())
            + token.subject.len()
            + token.raw_subject.as_ref().map_or(0, |raw| raw.len())
            + token
                .login
                .as_ref()
                .map_or(0, |login| size_of_val(&**login) + login.acr.as_ref().map_or(0, |acr| acr.len()))
            + token.scope.as_str().len(),
    )
}

pub(super) fn as_weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
