//! The versions of the records of sessions, where gates of two releases share a store.
//!
//! A release reads its own version and the one before it, and says so in the row of each gate. It writes the lowest that
//! every gate reads which was heard of within [`NODE_HEARD_WITHIN`](super::NODE_HEARD_WITHIN). So the gates are exchanged one
//! after the other, in either direction: while one of the earlier release runs, everything that is written is for both.
//!
//! What the scripts and functions of a store read is no part of a record's version: they change it whatever the version of
//! the rest is, so a gate of either release ends a session of the other. A record of an unknown version is a fault for its
//! session alone. An entry of the log that is unknown may be a revocation: it stops the feed, and the gate becomes stale.

use std::sync::atomic::{AtomicU8, Ordering};

use zeroize::Zeroizing;

use super::StoreError;
use super::encoding::{decode_session, encode_session};
use super::shared::NodeRow;
use crate::session::Session;

/// The oldest version that this release reads.
const OLDEST: u8 = 1;
/// The newest, which it writes once every gate reads it.
pub(super) const NEWEST: u8 = 1;

/// What a handle reads, and what it writes now.
#[derive(Debug)]
pub(super) struct Versions {
    newest: u8,
    writes: AtomicU8,
}

impl Versions {
    /// Until it was heard what the others read, the oldest is written.
    pub(super) fn up_to(newest: u8) -> Self {
        Self { newest, writes: AtomicU8::new(OLDEST) }
    }

    pub(super) fn reads(&self) -> [u8; 2] {
        [OLDEST, self.newest]
    }

    fn writes(&self) -> u8 {
        self.writes.load(Ordering::Acquire)
    }

    /// What a row says before everything else: read from, read to, written.
    pub(super) fn in_row(&self) -> [u8; 3] {
        [OLDEST, self.newest, self.writes()]
    }

    /// These are the nodes that were heard of.
    pub(super) fn agree<'a>(&self, nodes: impl Iterator<Item = &'a NodeRow>) {
        let lowest = nodes.map(|row| row.reads[1]).fold(self.newest, u8::min).max(OLDEST);
        let before = self.writes.swap(lowest, Ordering::AcqRel);
        if before != lowest {
            tracing::info!(
                before,
                now = lowest,
                "records are written in another version: the gates of the store read it"
            );
        }
    }

    /// The record of a session, for all of them.
    pub(super) fn encode(&self, session: &Session) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        match self.writes() {
            #[cfg(test)]
            next::VERSION => next::encode(session),
            _ => encode_session(session),
        }
    }

    /// The record under an id.
    pub(super) fn decode(&self, id: &[u8; 16], bytes: &[u8]) -> Result<Session, StoreError> {
        match bytes.first() {
            #[cfg(test)]
            Some(&next::BYTE) if self.newest >= next::VERSION => next::decode(id, bytes),
            _ => decode_session(id, bytes),
        }
    }
}

/// A later version, which tests alone have: the first one, and a field behind it.
#[cfg(test)]
pub(super) mod next {
    use super::*;

    pub(in crate::store) const VERSION: u8 = 2;
    /// What a record of it begins with.
    pub(in crate::store) const BYTE: u8 = 0xf2;
    const FIELD: &[u8] = b"a field";

    pub(super) fn encode(session: &Session) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        Ok(Zeroizing::new([&[BYTE], encode_session(session)?.as_slice(), FIELD].concat()))
    }

    pub(super) fn decode(id: &[u8; 16], bytes: &[u8]) -> Result<Session, StoreError> {
        let first = bytes.strip_prefix(&[BYTE]).and_then(|rest| rest.strip_suffix(FIELD));
        decode_session(id, first.ok_or_else(|| StoreError::new("the field is missing"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{session, start};

    fn row(reads: [u8; 2]) -> NodeRow {
        NodeRow { reads, ..NodeRow::default() }
    }

    #[test]
    fn c30_the_lowest_version_is_written_that_every_node_reads() {
        let versions = Versions::up_to(2);
        assert_eq!(versions.in_row(), [1, 2, 1], "before the others are known");
        for (nodes, expected) in [
            (vec![row([1, 2]), row([1, 2])], 2),
            (vec![row([1, 2]), row([1, 1])], 1),
            (vec![row([2, 3]), row([1, 2])], 2),
            (vec![row([1, 2]), row([0, 0])], 1),
            (vec![], 2),
        ] {
            versions.agree(nodes.iter());
            assert_eq!(versions.in_row(), [1, 2, expected], "{nodes:?}");
        }
        let only = Versions::up_to(NEWEST);
        only.agree([row([1, 2])].iter());
        assert_eq!(only.in_row(), [1, 1, 1]);
    }

    #[test]
    fn c30_a_record_of_the_next_version_is_read_by_its_release_and_no_guess_of_this_one() {
        let (this, next) = (Versions::up_to(1), Versions::up_to(2));
        let session = session("alice", 1, start());
        let id = session.id.as_bytes();
        let first = next.encode(&session).unwrap();
        assert_eq!(*first, *this.encode(&session).unwrap(), "both write the first one");
        next.agree([].iter());
        let second = next.encode(&session).unwrap();
        assert_ne!(*second, *first);
        for bytes in [&first, &second] {
            assert_eq!(next.decode(id, bytes).unwrap(), session);
        }
        assert_eq!(this.decode(id, &first).unwrap(), session);
        let error = this.decode(id, &second).unwrap_err();
        assert!(error.to_string().contains("version 242"), "{error}");
    }
}
