//! A bounded table of providers' responses.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use http::HeaderValue;

use super::{ExchangeRefusal, TRY_AGAIN};
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::Denial;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryKey {
    pub(super) exchange: [u8; 32],
    /// A digest of the issuer and the token, keyed with a secret of this process.
    pub(super) token: [u8; 32],
}

impl Hash for EntryKey {
    /// Uses 8 bytes of each digest. Without the secret, a client cannot choose tokens that collide.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let part = |of: &[u8; 32]| of.first_chunk().map_or(0, |part| u64::from_le_bytes(*part));
        state.write_u64(part(&self.token) ^ part(&self.exchange));
    }
}

pub(super) type ByKey<V> = HashMap<EntryKey, V, BuildHasherDefault<Digested>>;

/// A hasher whose input is already a hash.
#[derive(Default)]
pub(super) struct Digested(u64);

impl Hasher for Digested {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

const MAX_OF_SESSION: usize = 8;
pub(super) const MAX_BYTES: usize = 16 << 20;
const OVERHEAD: usize = 512;

pub(super) struct Table<C> {
    known: ByKey<Entry<C>>,
    of_sessions: HashMap<Box<[u8]>, VecDeque<EntryKey>>,
    bytes: usize,
}

pub(super) struct Entry<C> {
    pub(super) answer: Result<HeaderValue, ExchangeRefusal>,
    pub(super) renew_from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) session: Box<[u8]>,
    pub(super) caller: C,
}

impl<C> Entry<C> {
    /// Returns the exchanged token, or the refusal. `now` is called only to compute the delay in a refusal.
    pub(super) fn answer(&self, now: impl FnOnce() -> Timestamp) -> Result<HeaderValue, ExchangeRefusal> {
        self.answer.clone().map_err(|refusal| match refusal.denial {
            Denial::ExchangeUnavailable(_) => {
                Denial::ExchangeUnavailable(self.until.since(now()).max(TRY_AGAIN)).into()
            }
            _ => refusal,
        })
    }

    fn bytes(&self) -> usize {
        OVERHEAD + self.session.len() + self.answer.as_ref().map_or(0, HeaderValue::len)
    }
}

impl<C> Default for Table<C> {
    fn default() -> Self {
        Self { known: HashMap::default(), of_sessions: HashMap::new(), bytes: 0 }
    }
}

impl<C> Table<C> {
    pub(super) fn find(&self, key: &EntryKey, now: Timestamp) -> Option<&Entry<C>> {
        self.get(key).filter(|entry| now < entry.until)
    }

    pub(super) fn find_mut(&mut self, key: &EntryKey, now: Timestamp) -> Option<&mut Entry<C>> {
        self.known.get_mut(key).filter(|entry| now < entry.until)
    }

    /// The caller of this function must check that the entry has not expired.
    pub(super) fn get(&self, key: &EntryKey) -> Option<&Entry<C>> {
        self.known.get(key)
    }

    /// If a session has too many entries, its oldest entry is dropped. If the table is full, the entries that expire
    /// first are dropped.
    // Requirement D14.
    pub(super) fn insert(&mut self, key: EntryKey, entry: Entry<C>) {
        self.remove(&key);
        self.bytes += entry.bytes();
        let all = self.of_sessions.entry(entry.session.clone()).or_default();
        all.push_back(key);
        let oldest = if all.len() > MAX_OF_SESSION { all.front().copied() } else { None };
        self.known.insert(key, entry);
        if let Some(oldest) = oldest {
            self.remove(&oldest);
        }
        while self.bytes > MAX_BYTES {
            let Some(first) = self.known.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| *key) else {
                break;
            };
            self.remove(&first);
        }
    }

    pub(super) fn remove(&mut self, key: &EntryKey) {
        let Some(entry) = self.known.remove(key) else { return };
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        if let Some(all) = self.of_sessions.get_mut(&entry.session) {
            all.retain(|other| other != key);
            if all.is_empty() {
                self.of_sessions.remove(&entry.session);
            }
        }
    }

    // Requirement D15.
    pub(super) fn remove_session(&mut self, session: &[u8]) {
        let all: Vec<_> = self.of_sessions.get(session).into_iter().flatten().copied().collect();
        all.iter().for_each(|key| self.remove(key));
    }

    pub(super) fn sweep(&mut self, is_over: impl Fn(&Entry<C>) -> bool) {
        let over: Vec<_> = self.known.iter().filter(|(_, entry)| is_over(entry)).map(|(key, _)| *key).collect();
        over.iter().for_each(|key| self.remove(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<C> Table<C> {
        pub(in crate::gate::exchange) fn len(&self) -> usize {
            self.known.len()
        }
    }

    fn entry(session: &str, until: u64, size: usize) -> Entry<()> {
        Entry {
            answer: Ok(HeaderValue::from_str(&"x".repeat(size)).unwrap()),
            renew_from: Timestamp::from_secs(until),
            until: Timestamp::from_secs(until),
            session: session.as_bytes().into(),
            caller: (),
        }
    }

    fn key(n: usize) -> EntryKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        EntryKey { exchange: [0; 32], token: key }
    }

    #[test]
    fn d14_a_session_has_at_most_eight_entries_and_two_tokens_of_it_live_side_by_side() {
        let (mut table, now) = (Table::default(), Timestamp::from_secs(1));
        for n in 0..20 {
            table.insert(key(n), entry("s", 100, 10));
        }
        assert_eq!(table.len(), MAX_OF_SESSION);
        assert!(table.find(&key(11), now).is_none() && table.find(&key(12), now).is_some());
        table.insert(key(30), entry("other", 100, 10));
        assert_eq!(table.len(), MAX_OF_SESSION + 1, "another session has its own");
        // Replacing an entry does not evict another entry.
        table.insert(key(19), entry("s", 100, 10));
        assert!(table.find(&key(12), now).is_some());
        assert!(table.find(&key(19), Timestamp::from_secs(100)).is_none(), "it is over");
        table.remove_session(b"s");
        assert_eq!((table.len(), table.of_sessions.len()), (1, 1));
    }

    #[test]
    fn d14_the_memory_is_bounded_and_what_ends_first_gives_way() {
        let mut table = Table::default();
        let each = 64 << 10;
        for n in 0..400 {
            table.insert(key(n), entry(&format!("s{n}"), 1000 - n as u64, each));
        }
        assert!(table.bytes <= MAX_BYTES && table.len() > 200, "{}", table.len());
        let now = Timestamp::from_secs(1);
        assert!(table.find(&key(0), now).is_some() && table.find(&key(399), now).is_none());
        table.sweep(|_| true);
        assert_eq!((table.bytes, table.of_sessions.len()), (0, 0));
    }
}
