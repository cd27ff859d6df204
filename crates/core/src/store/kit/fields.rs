//! Write ids and the encoding of effects, for shared stores.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::clock::Timestamp;
use crate::random::random;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::Generation;
use crate::store::{StoreError, WriteOutcome};

/// The id of a write, by which the store recognises retries.
pub type Op = [u8; 8];

/// The id of a store's history. A loss of writes starts a new history.
pub type History = [u8; 8];

/// The live revocations, with their positions in the log.
pub type LiveRevocations<P> = BTreeMap<Target, (P, Revocation)>;

/// Adds the entries of a log, in any order. Only the latest entry of each target is kept.
pub fn add_logged<P: Ord>(live: &mut LiveRevocations<P>, entries: Vec<(P, Revocation)>) {
    for (place, entry) in entries {
        match live.entry(entry.target.clone()) {
            Entry::Vacant(free) => drop(free.insert((place, entry))),
            Entry::Occupied(mut known) if known.get().0 < place => drop(known.insert((place, entry))),
            Entry::Occupied(_) => {}
        }
    }
}

/// The entries, sorted by position, or by server clock if there are several logs.
pub fn in_order<P: Ord>(live: LiveRevocations<P>) -> Vec<Revocation> {
    let mut entries: Vec<_> = live.into_values().collect();
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Creates an id for a write.
///
/// # Errors
/// The system does not return random bytes.
pub fn new_op() -> Result<Op, StoreError> {
    random::<8>().map(|bytes| *bytes).map_err(|error| {
        StoreError::caused_by("cannot get random bytes for a write", error).with_outcome(WriteOutcome::NotDone)
    })
}

/// Encodes a time.
pub fn millis(time: Timestamp) -> [u8; 8] {
    time.as_millis().to_be_bytes()
}

/// The length of an encoded effect.
pub const EFFECT: usize = 25;

/// Encodes an effect as its kind and three numbers.
pub fn encode_effect(effect: Effect) -> Vec<u8> {
    let (kind, numbers) = match effect {
        Effect::Minimum { minimum, effective_from, before } => {
            (b'M', [minimum.get(), effective_from.as_millis(), before.get()])
        }
        Effect::NotBefore(moment) => (b'N', [moment.as_millis(), 0, 0]),
        Effect::NotBeforeWithKeys { sessions, keys } => (b'N', [sessions.as_millis(), keys.as_millis(), 0]),
        Effect::Gone => (b'G', [0; 3]),
    };
    std::iter::once(kind).chain(numbers.into_iter().flat_map(u64::to_be_bytes)).collect()
}

/// A not-before with these times in milliseconds. `keys` is 0 if API keys are not revoked.
pub fn not_before(sessions: u64, keys: u64) -> Effect {
    let sessions = Timestamp::from_millis(sessions);
    match Timestamp::from_millis(keys) {
        Timestamp::ZERO => Effect::NotBefore(sessions),
        keys => Effect::NotBeforeWithKeys { sessions, keys },
    }
}

/// Decodes an effect, or returns `None` if this program does not know it.
pub fn decode_effect(bytes: &[u8]) -> Option<Effect> {
    // A longer effect has fields that this version of the program does not know.
    let (kind, numbers) = bytes.split_first()?;
    let (numbers, []) = numbers.as_chunks::<8>() else { return None };
    let [a, b, c] = <[[u8; 8]; 3]>::try_from(numbers).ok()?.map(u64::from_be_bytes);
    match kind {
        b'M' => Some(Effect::Minimum {
            minimum: Generation::new(a),
            effective_from: Timestamp::from_millis(b),
            before: Generation::new(c),
        }),
        b'N' => Some(not_before(a, b)),
        b'G' => Some(Effect::Gone),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_the_bytes_of_a_not_before_say_whether_it_ends_keys() {
        let at = Timestamp::from_millis;
        for effect in [
            Effect::NotBefore(at(7)),
            Effect::NotBeforeWithKeys { sessions: at(9), keys: at(5) },
            Effect::SESSION_REVOKED,
            Effect::Gone,
        ] {
            let bytes = encode_effect(effect);
            assert_eq!((bytes.len(), decode_effect(&bytes)), (EFFECT, Some(effect)));
        }
    }
}
