//! Revocations that apply at this gate, but that the store has not acknowledged. The gate writes them again until the
//! store has them (requirements C22, R24, R30). Revocations in the file beside the store survive the process. For other
//! revocations, the caller received an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::Engine;
use super::events::{Happening, OwedPlace};
use crate::clock::Timestamp;
use crate::fault::Error;
use crate::revocation::{Revocation, Target};
use crate::session::{RevokedBecause, SessionId};
use crate::store::StoreError;
use crate::store::owed::{Owed, OwedFile};
use crate::token::MAX_SESSIONLESS_LIFETIME;

/// The maximum number of failed writes that are queued for a retry.
const MAX_OWED: usize = 100_000;
const PAID_AT_ONCE: usize = 256;
/// A round of writes ends after this many failures, or at the first failure after [`FAILING_FOR`].
const MAX_FAILURES: usize = 64;
const FAILING_FOR: Duration = Duration::from_secs(3);
const NAMED: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Debts(Mutex<OwedRevocations>);

#[derive(Debug, Default)]
struct OwedRevocations {
    by_target: BTreeMap<Target, Debt>,
    told: BTreeSet<Target>,
    /// Entries that are never written to the store, because later entries replace them (requirement R31).
    held: Vec<Revocation>,
    tried: Option<Target>,
}

#[derive(Debug)]
struct Debt {
    owed: Owed,
    is_kept: bool,
}

/// Revocations that the store has not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpaid {
    /// The number of revocations.
    pub total: usize,
    /// The number of revocations that would be lost if the process ended.
    pub lost_at_end: usize,
    /// Some of the revocations that would be lost, as text for the log.
    pub named: String,
}

impl Debts {
    fn lock(&self) -> MutexGuard<'_, OwedRevocations> {
        self.0.lock()
    }

    fn note(&self, entry: &Revocation, because: RevokedBecause, is_kept: bool) -> bool {
        let mut debts = self.lock();
        if let Some(known) = debts.by_target.get_mut(&entry.target) {
            let effect = known.owed.entry.effect.merge(entry.effect);
            // If only the expiry differs, the file can stay unchanged.
            known.is_kept = is_kept || (known.is_kept && effect == known.owed.entry.effect);
            known.owed.entry.absorb(entry);
            return true;
        }
        if debts.by_target.len() >= MAX_OWED {
            return false;
        }
        let owed = Owed { because, entry: entry.clone() };
        debts.by_target.insert(entry.target.clone(), Debt { owed, is_kept });
        true
    }

    /// Only the store knows how long an entry must be kept, so the entry must not expire before the store accepts it.
    /// Entries that revoke a single token are not extended.
    fn extend(&self, now: Timestamp) -> Vec<Revocation> {
        let is_token = |debt: &Debt| matches!(debt.owed.entry.target, Target::Token { .. });
        let mut debts = self.lock();
        let OwedRevocations { by_target, held, .. } = &mut *debts;
        by_target.retain(|_, debt| !is_token(debt) || debt.owed.entry.until > now);
        let soon = now.plus(MAX_SESSIONLESS_LIFETIME / 2);
        let ending = by_target.values_mut().filter(|debt| !is_token(debt) && debt.owed.entry.until < soon);
        let held = held.iter_mut().filter(|entry| entry.until < soon);
        let extend = |entry: &mut Revocation| {
            entry.until = now.plus(MAX_SESSIONLESS_LIFETIME);
            entry.clone()
        };
        ending.map(|debt| &mut debt.owed.entry).chain(held).map(extend).collect()
    }

    fn some(&self, after: Option<&Target>) -> Vec<Owed> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let debts = self.lock();
        let some = debts.by_target.range::<Target, _>((from, Bound::Unbounded)).take(PAID_AT_ONCE);
        some.map(|(_, debt)| debt.owed.clone()).collect()
    }

    /// Returns true if the audit trail must record the acknowledgement.
    fn paid(&self, written: &Revocation) -> bool {
        let mut debts = self.lock();
        if let Some(debt) = debts.by_target.get(&written.target) {
            if debt.owed.entry.effect.merge(written.effect) != written.effect {
                return false;
            }
            debts.by_target.remove(&written.target);
        }
        debts.told.remove(&written.target)
    }

    fn tell(&self, target: &Target) {
        let mut debts = self.lock();
        if debts.told.len() < MAX_OWED {
            debts.told.insert(target.clone());
        }
    }

    fn kept(&self, entry: &Revocation) {
        if let Some(debt) = self.lock().by_target.get_mut(&entry.target) {
            debt.is_kept |= debt.owed.entry.effect == entry.effect;
        }
    }

    fn is_kept(&self, target: &Target) -> bool {
        self.lock().by_target.get(target).is_none_or(|debt| debt.is_kept)
    }

    fn is_owed(&self, target: &Target) -> bool {
        self.lock().by_target.contains_key(target)
    }

    /// Returns why the session was revoked. Returns `None` if the store has acknowledged the revocation.
    fn because(&self, session: SessionId) -> Option<RevokedBecause> {
        self.lock().by_target.get(&Target::Session(session)).map(|debt| debt.owed.because)
    }

    fn unkept(&self) -> Vec<Owed> {
        let debts = self.lock();
        let unkept = debts.by_target.values().filter(|debt| !debt.is_kept);
        unkept.take(PAID_AT_ONCE).map(|debt| debt.owed.clone()).collect()
    }

    fn is_empty(&self) -> bool {
        self.lock().by_target.is_empty()
    }

    fn unpaid(&self) -> Unpaid {
        let debts = self.lock();
        let held: BTreeSet<_> = debts.held.iter().map(|entry| &entry.target).collect();
        let others = || debts.by_target.iter().filter(|(target, _)| !held.contains(target));
        let unkept = others().filter(|(_, debt)| !debt.is_kept).map(|(target, _)| target);
        let lost: Vec<_> = held.iter().copied().chain(unkept).collect();
        let mut named: Vec<_> = lost.iter().take(NAMED).map(ToString::to_string).collect();
        if lost.len() > NAMED {
            named.push(format!("{} more", lost.len() - NAMED));
        }
        Unpaid { total: held.len() + others().count(), lost_at_end: lost.len(), named: named.join(", ") }
    }
}

/// If the request is dropped, the entry is written again later.
pub(super) struct UnderWay<'a> {
    engine: &'a Engine,
    entry: Option<(Revocation, RevokedBecause)>,
    is_news: bool,
}

impl UnderWay<'_> {
    pub(super) fn end(mut self) {
        self.entry = None;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some((entry, because)) = self.entry.take() {
            self.engine.owed.note(&entry, because, false);
            self.engine.tell_where(&entry, because, self.is_news, false);
        }
    }
}

impl Engine {
    pub(super) fn take_over_owed(&self) {
        let Some(file) = self.store.owed_file() else { return };
        for Owed { entry, because } in file.take_found() {
            self.revocations.apply(&entry);
            self.owed.note(&entry, because, true);
            self.owed.tell(&entry.target);
        }
    }

    /// The revocations that the store has not acknowledged.
    pub fn unpaid(&self) -> Unpaid {
        self.owed.unpaid()
    }

    pub(super) fn owed_end(&self, session: SessionId) -> Option<RevokedBecause> {
        self.owed.because(session)
    }

    pub(super) fn under_way(&self, entry: &Revocation, because: RevokedBecause, is_news: bool) -> UnderWay<'_> {
        UnderWay { engine: self, entry: Some((entry.clone(), because)), is_news }
    }

    /// Keeps an entry that the store did not accept. Returns `Ok` if the entry is durable.
    ///
    /// # Errors
    /// The error of the store.
    pub(super) async fn owe(&self, entry: Revocation, because: RevokedBecause, error: StoreError) -> Result<(), Error> {
        // Keep the entry even if the store refused it. An operator may fix the cause, such as a missing permission.
        if !self.owed.note(&entry, because, false) {
            return Err(error.into());
        }
        let kept = match self.store.owed_file() {
            Some(file) => self.keep_beside(file, Owed { because, entry }).await,
            None => false,
        };
        if kept { Ok(()) } else { Err(error.into()) }
    }

    async fn keep_beside(&self, file: &Arc<OwedFile>, owed: Owed) -> bool {
        if self.owed.is_kept(&owed.entry.target) {
            return true;
        }
        let (file, line) = (Arc::clone(file), owed.clone());
        match tokio::task::spawn_blocking(move || file.keep(&line)).await {
            Ok(Ok(())) => {
                self.owed.kept(&owed.entry);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    pub(super) fn hold(&self, entry: &Revocation) {
        let mut debts = self.owed.lock();
        if debts.held.len() < MAX_OWED {
            debts.held.push(entry.clone());
        }
    }

    /// Drops an entry after its replacement became durable.
    pub fn let_go(&self, entry: &Revocation) {
        let mut debts = self.owed.lock();
        let is_it = |held: &Revocation| held.target == entry.target && held.effect == entry.effect;
        if let Some(place) = debts.held.iter().position(is_it) {
            debts.held.swap_remove(place);
        }
    }

    pub(super) fn tell_where(&self, entry: &Revocation, because: RevokedBecause, is_news: bool, is_durable: bool) {
        if !is_news {
            return;
        }
        let owed = match (is_durable, self.owed.is_owed(&entry.target)) {
            (true, false) => None,
            (true, true) => Some(OwedPlace::File),
            (false, _) => Some(OwedPlace::Memory),
        };
        if owed.is_some() {
            self.owed.tell(&entry.target);
        }
        self.events.tell(&Happening::Ended { entry, because, owed });
    }

    pub(super) fn taken(&self, merged: &Revocation, because: RevokedBecause) {
        self.revocations.apply(merged);
        if self.owed.paid(merged) {
            self.events.tell(&Happening::Stored { entry: merged, because });
        }
    }

    /// Retries the unacknowledged writes, and returns how many the store acknowledged. A failed entry does not delay
    /// the others.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn pay(&self) -> Result<usize, StoreError> {
        for entry in self.owed.extend(self.clock.now()) {
            self.revocations.apply(&entry);
        }
        let monotonic = || self.clock.source().monotonic();
        let (begun, mut number, mut failures, mut failed) = (monotonic(), 0, 0, None);
        let mut after = self.owed.lock().tried.take();
        let mut is_from_first = after.is_none();
        'round: loop {
            let some = self.owed.some(after.as_ref());
            let is_end = some.len() < PAID_AT_ONCE;
            for Owed { entry, because } in some {
                after = Some(entry.target.clone());
                match self.measured(self.store.revoke(entry, because)).await {
                    Ok(merged) => {
                        self.taken(&merged, because);
                        number += 1;
                    }
                    Err(error) => {
                        failed = Some(error);
                        failures += 1;
                        if failures >= MAX_FAILURES || monotonic().saturating_sub(begun) >= FAILING_FOR {
                            self.owed.lock().tried = after;
                            break 'round;
                        }
                    }
                }
            }
            if is_end {
                if std::mem::replace(&mut is_from_first, true) {
                    break;
                }
                after = None;
            }
        }
        match failed {
            None => {
                self.clear_file().await;
                Ok(number)
            }
            Some(error) => {
                self.keep_unkept().await;
                Err(error)
            }
        }
    }

    async fn keep_unkept(&self) {
        let Some(file) = self.store.owed_file() else { return };
        for owed in self.owed.unkept() {
            if !self.keep_beside(file, owed).await {
                return;
            }
        }
    }

    async fn clear_file(&self) {
        let Some(file) = self.store.owed_file() else { return };
        // Count the lines before the check, so that entries added after the check stay in the file.
        let lines = file.lines();
        if self.owed.is_empty() && !file.is_empty() {
            let file = Arc::clone(file);
            // After a failure, the next process writes the entries again.
            let _ = tokio::task::spawn_blocking(move || file.clear(lines)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::revocation::Effect;

    const OPERATOR: RevokedBecause = RevokedBecause::Operator;

    fn at(moment: u64) -> Timestamp {
        Timestamp::from_secs(moment)
    }

    fn not_before(moment: u64, until: u64) -> Revocation {
        Revocation { target: Target::Global, effect: Effect::NotBefore(at(moment)), until: at(until) }
    }

    fn token(n: usize) -> Revocation {
        let target = Target::Token { issuer: "https://a.test".into(), jti: n.to_string().into() };
        Revocation { target, effect: Effect::Gone, until: at(9) }
    }

    #[test]
    fn what_is_owed_of_one_target_is_one_entry_and_stays_if_it_grew_while_it_was_paid() {
        let owed = Debts::default();
        owed.note(&not_before(5, 100_000), OPERATOR, true);
        let first = owed.some(None).remove(0).entry;
        owed.note(&not_before(7, 200_000), OPERATOR, false);
        owed.tell(&Target::Global);
        assert!(!owed.paid(&first));
        assert_eq!(owed.unpaid().lost_at_end, 1, "the file has the earlier one");
        let grown = owed.some(None).remove(0).entry;
        assert_eq!(grown, not_before(7, 200_000));
        assert!(owed.paid(&grown) && !owed.paid(&grown), "it is said once");
        assert!(owed.is_empty());
    }

    #[test]
    fn r25_a_debt_outlives_every_token_that_it_was_noted_for() {
        let owed = Debts::default();
        let target = Target::Session(SessionId::new(at(1), [7; 10]));
        owed.note(&Revocation { target, effect: Effect::SESSION_REVOKED, until: at(9) }, OPERATOR, false);
        owed.note(&not_before(5, 9), OPERATOR, false);
        owed.note(&token(1), OPERATOR, false);
        let month = at(9).plus(Duration::from_secs(30 * 86_400));
        assert_eq!(owed.extend(month).len(), 2, "the expired token needs no extension, unlike the session");
        assert!(owed.some(None).iter().all(|owed| owed.entry.until > month), "each entry is kept until it is written");
    }

    #[test]
    fn what_is_owed_is_bounded() {
        let owed = Debts::default();
        assert!((0..MAX_OWED).all(|n| owed.note(&token(n), OPERATOR, false)));
        assert!(!owed.note(&token(MAX_OWED), OPERATOR, false) && owed.note(&token(0), OPERATOR, false));
        assert_eq!(owed.unpaid().total, MAX_OWED);
        assert!(owed.unpaid().named.ends_with("99990 more"), "{}", owed.unpaid().named);
        assert_eq!(owed.some(None).len(), PAID_AT_ONCE);
    }
}
