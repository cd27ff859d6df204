//! Remembers swaps without a response, so that a client's retry of a refresh does not look like a stolen token.
//!
//! A handle recognises its own write by the record's last write id.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::fields::Op;
use crate::session::SessionId;
use crate::store::{StoreError, Swap, WriteOutcome};

const MAX: usize = 65_536;
const MAX_OF_ONE: usize = 4;

/// The swaps whose outcome is unknown.
#[derive(Default)]
pub struct Doubts(Mutex<OpsBySession>);

#[derive(Default)]
struct OpsBySession {
    ops: HashMap<SessionId, Vec<Op>>,
    order: VecDeque<SessionId>,
}

impl Doubts {
    /// Records the result of a swap.
    pub fn take(&self, id: SessionId, op: Op, swapped: &Result<Swap, StoreError>) {
        match swapped {
            Ok(Swap::Swapped) => self.forget(id),
            // An earlier swap with an unknown outcome may have caused this result.
            Ok(Swap::Changed(_) | Swap::NoLongerValid) => {}
            Err(error) if error.outcome() == WriteOutcome::InDoubt => self.note(id, op),
            Err(_) => {}
        }
    }

    fn note(&self, id: SessionId, op: Op) {
        let mut known = self.0.lock();
        let ops = known.ops.entry(id).or_default();
        let is_first = ops.is_empty();
        ops.push(op);
        if ops.len() > MAX_OF_ONE {
            ops.remove(0);
        }
        if is_first {
            known.order.push_back(id);
        }
        if known.order.len() > MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.ops.remove(&oldest);
        }
    }

    /// Forgets the swaps of a session whose state is known again.
    pub fn forget(&self, id: SessionId) {
        let mut known = self.0.lock();
        if known.ops.remove(&id).is_some() {
            known.order.retain(|other| *other != id);
        }
    }

    /// The write ids of the session's unanswered swaps.
    pub fn ops(&self, id: SessionId) -> Option<Vec<Op>> {
        self.0.lock().ops.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_doubts_the_latest_are_known() {
        let doubts = Doubts::default();
        let id = |n: usize| {
            let mut bytes = [0; 16];
            bytes[8..].copy_from_slice(&(n as u64).to_be_bytes());
            SessionId::from_bytes(bytes)
        };
        for n in 0..=MAX {
            doubts.note(id(n), [1; 8]);
        }
        doubts.note(id(5), [2; 8]);
        assert_eq!([0, 5, MAX].map(|n| doubts.ops(id(n))), [None, Some(vec![[1; 8], [2; 8]]), Some(vec![[1; 8]])]);
        for n in 3..=6 {
            doubts.note(id(5), [n; 8]);
        }
        assert_eq!(doubts.ops(id(5)), Some((3..=6).map(|n| [n; 8]).collect()));
        doubts.forget(id(5));
        doubts.forget(id(0));
        assert_eq!(doubts.ops(id(5)), None);
        let known = doubts.0.lock();
        assert_eq!((known.ops.len(), known.order.len()), (MAX - 1, MAX - 1));
    }
}
