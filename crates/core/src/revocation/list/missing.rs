//! Computes the difference between two revocation lists.

use std::sync::Arc;

use super::entry::{NotBefore, SessionEntry};
use super::{Effect, Revocation, RevocationList, Target};
use crate::clock::Timestamp;
use crate::session::SessionId;

impl RevocationList {
    /// Returns the entries that are missing in `other` or expire earlier there. Sweep both lists with the same time
    /// before this call.
    ///
    /// Yields batches, so that a million entries are not copied at once.
    pub fn missing_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Vec<Revocation>> + 'a {
        let sessions = (0..self.sessions.number()).map(move |part| {
            let of_session = |(id, entry)| self.missing_session(other, id, &entry);
            self.sessions.copy(part).into_iter().filter_map(of_session).collect()
        });
        sessions.chain(std::iter::once_with(move || self.missing_not_sessions(other)))
    }

    fn missing_session(&self, other: &Self, id: SessionId, entry: &SessionEntry) -> Option<Revocation> {
        let is_known = other.sessions.get(id, |known| {
            let mut merged = known.clone();
            !merged.merge(entry) && entry.until() <= known.until()
        });
        let revocation = || Revocation { target: Target::Session(id), effect: entry.effect(), until: entry.until() };
        (!is_known.unwrap_or(false)).then(revocation)
    }

    fn missing_not_sessions(&self, other: &Self) -> Vec<Revocation> {
        let mut missing = Vec::new();
        let mut add = |target, effect, until| missing.push(Revocation { target, effect, until });
        let not_before = |entry: &NotBefore, known: Option<NotBefore>| {
            let is_known = known.is_some_and(|known| known.covers(entry));
            (!is_known).then(|| (entry.effect(), entry.until()))
        };
        for (name, issuer) in self.issuers.load().iter() {
            let known = other.issuer(name);
            let known = known.as_deref();
            for entry in &issuer.subjects.map {
                let same = known.and_then(|known| known.subjects.get(entry.key(), |known| *known));
                if let Some((effect, until)) = not_before(entry.value(), same) {
                    add(Target::Subject { issuer: Arc::clone(name), subject: entry.key().clone() }, effect, until);
                }
            }
            for entry in &issuer.clients.map {
                let same = known.and_then(|known| known.clients.get(entry.key(), |known| *known));
                if let Some((effect, until)) = not_before(entry.value(), same) {
                    add(Target::Client { issuer: Arc::clone(name), client: entry.key().clone() }, effect, until);
                }
            }
            for entry in &issuer.tokens.map {
                let same: Option<Timestamp> = known.and_then(|known| known.tokens.get(entry.key(), |until| *until));
                if same.is_none_or(|until| until < *entry.value()) {
                    let target = Target::Token { issuer: Arc::clone(name), jti: entry.key().clone() };
                    add(target, Effect::Gone, *entry.value());
                }
            }
        }
        let global = *self.global.lock();
        let same = *other.global.lock();
        if let Some((effect, until)) = global.and_then(|entry| not_before(&entry, same)) {
            add(Target::Global, effect, until);
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Generation;

    const ISSUER: &str = "https://api.test";
    const UNTIL: Timestamp = Timestamp::from_secs(2_000_000_000);

    fn all() -> Vec<Revocation> {
        let issuer = || Arc::from(ISSUER);
        let at = |seconds| Effect::NotBefore(Timestamp::from_secs(seconds));
        let raised = Effect::Minimum {
            minimum: Generation::new(5),
            effective_from: Timestamp::from_secs(1_900_000_000),
            before: Generation::new(3),
        };
        [
            (Target::Session(SessionId::from_bytes([1; 16])), Effect::SESSION_REVOKED),
            (Target::Session(SessionId::from_bytes([2; 16])), raised),
            (Target::Subject { issuer: issuer(), subject: "ada".into() }, at(1_800_000_000)),
            (Target::Client { issuer: issuer(), client: "web".into() }, at(1_800_000_001)),
            (Target::Token { issuer: issuer(), jti: "one".into() }, Effect::Gone),
            (Target::Global, at(1_700_000_000)),
        ]
        .map(|(target, effect)| Revocation { target, effect, until: UNTIL })
        .into()
    }

    fn list(entries: &[Revocation]) -> RevocationList {
        let list = RevocationList::new();
        entries.iter().for_each(|entry| {
            list.apply(entry);
        });
        list
    }

    fn missing(ours: &RevocationList, theirs: &RevocationList) -> Vec<Revocation> {
        let mut missing: Vec<_> = ours.missing_in(theirs).flatten().collect();
        missing.sort_by_key(|entry| format!("{:?}", entry.target));
        missing
    }

    fn sorted(mut entries: Vec<Revocation>) -> Vec<Revocation> {
        entries.sort_by_key(|entry| format!("{:?}", entry.target));
        entries
    }

    #[test]
    fn what_the_other_list_has_is_not_missing() {
        assert_eq!(missing(&list(&all()), &list(&all())), []);
        assert_eq!(missing(&list(&all()), &RevocationList::new()), sorted(all()));
        assert_eq!(missing(&RevocationList::new(), &list(&all())), []);
    }

    #[test]
    fn each_entry_that_the_other_list_lacks_is_missing() {
        for lacking in all() {
            let known: Vec<_> = all().into_iter().filter(|entry| *entry != lacking).collect();
            assert_eq!(missing(&list(&all()), &list(&known)), [lacking]);
        }
    }

    #[test]
    fn an_entry_that_ends_earlier_or_refuses_less_in_the_other_list_is_missing() {
        let one = std::slice::from_ref;
        for ours in all() {
            let shorter = Revocation { until: Timestamp::from_secs(1_999_999_999), ..ours.clone() };
            assert_eq!(missing(&list(one(&ours)), &list(one(&shorter))), one(&ours));
            assert_eq!(missing(&list(one(&shorter)), &list(one(&ours))), []);
        }
        for (target, effect) in [(0, all()[1].effect), (2, Effect::NotBefore(Timestamp::from_secs(1)))] {
            let ours = all()[target].clone();
            let weaker = Revocation { effect, ..ours.clone() };
            assert_eq!(missing(&list(one(&ours)), &list(one(&weaker))), one(&ours));
            assert_eq!(missing(&list(one(&weaker)), &list(one(&ours))), []);
        }
    }
}
