//! Revocations that hold here and that a shared store has not acknowledged. Their callers got an error; the entries are
//! written again until the store has them, so that the other gates refuse the same (requirement C22).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Engine;
use crate::clock::Timestamp;
use crate::revocation::{Revocation, Target};
use crate::session::RevokedBecause;
use crate::store::{StoreError, WriteOutcome};

/// The most entries that are kept. Of more, the callers alone know.
const MAX_OWED: usize = 100_000;
/// How many of them one round writes.
const PAID_AT_ONCE: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<BTreeMap<Target, (Revocation, RevokedBecause)>>);

impl Owed {
    fn note(&self, entry: Revocation, because: RevokedBecause) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, _)) = owed.get_mut(&entry.target) {
            known.effect = known.effect.merge(entry.effect);
            known.until = known.until.max(entry.until);
        } else if owed.len() < MAX_OWED {
            owed.insert(entry.target.clone(), (entry, because));
        }
    }

    fn some(&self, now: Timestamp) -> Vec<(Revocation, RevokedBecause)> {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owed.retain(|_, (entry, _)| entry.until > now);
        owed.values().take(PAID_AT_ONCE).cloned().collect()
    }

    /// What was added to it meanwhile stays.
    fn paid(&self, paid: &Revocation) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.get(&paid.target).is_some_and(|(entry, _)| entry == paid) {
            owed.remove(&paid.target);
        }
    }
}

impl Engine {
    /// The store did not acknowledge an entry that holds here.
    pub(super) fn owe(&self, entry: Revocation, because: RevokedBecause, error: &StoreError) {
        if self.store.shared().is_some() && error.outcome() != WriteOutcome::Refused {
            self.owed.note(entry, because);
        }
    }

    /// Writes entries that the store has not acknowledged. Returns how many it did.
    ///
    /// # Errors
    /// Those of the store. What it did not take stays.
    pub(crate) async fn pay(&self) -> Result<usize, StoreError> {
        let mut number = 0;
        for (entry, because) in self.owed.some(self.clock.now()) {
            match self.measured(self.store.revoke(entry.clone(), because)).await {
                Ok(merged) => {
                    self.revocations.apply(&merged);
                    number += 1;
                }
                // It will never be taken.
                Err(error) if error.outcome() == WriteOutcome::Refused => {}
                Err(error) => return Err(error),
            }
            self.owed.paid(&entry);
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::Effect;

    #[test]
    fn what_is_owed_of_one_target_is_one_entry_and_stays_if_it_grew_while_it_was_paid() {
        let owed = Owed::default();
        let at = Timestamp::from_secs;
        let entry = |moment, until| Revocation {
            target: Target::Global,
            effect: Effect::NotBefore(at(moment)),
            until: at(until),
        };
        owed.note(entry(5, 100), RevokedBecause::Operator);
        let (first, _) = owed.some(at(1)).remove(0);
        owed.note(entry(3, 200), RevokedBecause::Operator);
        owed.paid(&first);
        let (grown, _) = owed.some(at(1)).remove(0);
        assert_eq!(grown, entry(5, 200));
        assert!(owed.some(at(200)).is_empty(), "what has ended is forgotten");
    }

    #[test]
    fn what_is_owed_is_bounded() {
        let owed = Owed::default();
        for n in 0..=MAX_OWED {
            let target = Target::Token { issuer: "https://a.test".into(), jti: n.to_string().into() };
            let entry = Revocation { target, effect: Effect::Gone, until: Timestamp::from_secs(9) };
            owed.note(entry, RevokedBecause::Operator);
        }
        assert_eq!(owed.0.lock().unwrap().len(), MAX_OWED);
        assert_eq!(owed.some(Timestamp::ZERO).len(), PAID_AT_ONCE);
    }
}
