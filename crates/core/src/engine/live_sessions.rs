//! The long-lived connections of each session, and the generation that each one depends on. A connection outlives the
//! access token it was opened with. On a rotation it moves to the new generation and takes over that token's expiry. A
//! generation abandoned by a reissue is not moved, so its connections end.
//!
//! Only sessions with connections are in the map, so a rotation costs one look-up.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::session::{Generation, SessionId};
use crate::token::keyring::KeyPrint;

/// The connections of all sessions.
#[derive(Clone, Default)]
pub struct LiveSessions(Arc<DashMap<SessionId, Vec<Weak<LiveConnection>>>>);

impl fmt::Debug for LiveSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSessions").field("sessions", &self.0.len()).finish()
    }
}

/// One connection: its session and generation.
#[derive(Debug)]
pub struct LiveConnection {
    all: LiveSessions,
    session: SessionId,
    state: Mutex<SessionState>,
}

#[derive(Clone, Copy, Debug)]
struct SessionState {
    generation: Generation,
    /// The generation that was exchanged for this one. A client that lost the response presents it again.
    before: Option<Generation>,
    /// The access token of this generation; `None` while the connection still has its first token.
    advanced_to: Option<SuccessorToken>,
    /// The expiry of the access token that the connection depends on.
    expires: Timestamp,
}

/// The access token that a rotation moved a connection to: the properties that decide how long the connection may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessorToken {
    /// The token's generation.
    pub generation: Generation,
    /// The token's expiry.
    pub expires: Timestamp,
    /// The key that signed it.
    pub(crate) key: KeyPrint,
}

impl LiveSessions {
    /// Adds a connection that was opened with a token of this generation and expiry.
    pub fn begin(&self, session: SessionId, generation: Generation, expires: Timestamp) -> Arc<LiveConnection> {
        let state = Mutex::new(SessionState { generation, before: None, advanced_to: None, expires });
        let line = Arc::new(LiveConnection { all: self.clone(), session, state });
        self.0.entry(session).or_default().push(Arc::downgrade(&line));
        line
    }

    /// Moves the connections of the presented generation to the issued one. Call this before the revocation of the
    /// presented generation takes effect.
    pub fn advance(&self, session: SessionId, presented: Generation, issued: SuccessorToken) {
        // Outside the map's lock: dropping the last reference to a connection removes it from the map.
        let lines: Vec<_> = match self.0.get(&session) {
            Some(lines) => lines.iter().filter_map(Weak::upgrade).collect(),
            None => return,
        };
        for line in lines {
            let mut state = line.state.lock();
            if state.generation == presented || state.before == Some(presented) {
                *state = SessionState {
                    generation: issued.generation,
                    before: Some(presented),
                    advanced_to: Some(issued),
                    expires: issued.expires,
                };
            }
        }
    }

    /// Does the session have connections?
    pub(crate) fn has(&self, session: SessionId) -> bool {
        self.0.contains_key(&session)
    }

    /// The sessions with a connection whose token expires within this time.
    pub(crate) fn expiring(&self, within: Range<Timestamp>) -> Vec<SessionId> {
        let is_due = |line: &Arc<LiveConnection>| within.contains(&line.state.lock().expires);
        let mut due = Vec::new();
        // Kept until the map is unlocked: dropping the last reference to a connection removes it from the map.
        let mut seen = Vec::new();
        for lines in self.0.iter() {
            let lines_of: Vec<_> = lines.value().iter().filter_map(Weak::upgrade).collect();
            if lines_of.iter().any(is_due) {
                due.push(*lines.key());
            }
            seen.extend(lines_of);
        }
        due
    }
}

impl LiveConnection {
    /// The session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The generation that it depends on now.
    pub fn generation(&self) -> Generation {
        self.state.lock().generation
    }

    /// The token that a rotation moved it to, if there was one.
    pub fn advanced_to(&self) -> Option<SuccessorToken> {
        self.state.lock().advanced_to
    }
}

impl Drop for LiveConnection {
    fn drop(&mut self) {
        self.all.0.remove_if_mut(&self.session, |_, lines| {
            lines.retain(|line| line.strong_count() > 0);
            lines.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN_WITH: Timestamp = Timestamp::from_millis(5000);

    fn to(generation: Generation) -> SuccessorToken {
        static KEY: std::sync::OnceLock<KeyPrint> = std::sync::OnceLock::new();
        let made = || crate::token::Keyring::ephemeral().unwrap().signer().verifying_key().print();
        SuccessorToken { generation, expires: Timestamp::from_millis(9000), key: *KEY.get_or_init(made) }
    }

    fn id() -> SessionId {
        SessionId::from_bytes([7; 16])
    }

    #[test]
    fn a_rotation_carries_what_hangs_on_the_generation_presented_and_nothing_else() {
        let all = LiveSessions::default();
        let (one, two) =
            (all.begin(id(), Generation::FIRST, BEGAN_WITH), all.begin(id(), Generation::new(2), BEGAN_WITH));
        assert_eq!((one.advanced_to(), one.session()), (None, id()));
        all.advance(id(), Generation::new(2), to(Generation::new(3)));
        assert_eq!((one.advanced_to(), two.advanced_to()), (None, Some(to(Generation::new(3)))));
        all.advance(id(), Generation::new(3), to(Generation::new(4)));
        assert_eq!((one.generation(), two.generation()), (Generation::FIRST, Generation::new(4)));
        all.advance(SessionId::from_bytes([8; 16]), Generation::new(4), to(Generation::new(5)));
        assert_eq!(two.generation(), Generation::new(4), "another session's");
    }

    #[test]
    fn a_reissue_carries_its_presenter_over_and_leaves_what_it_abandons() {
        let all = LiveSessions::default();
        let victim = all.begin(id(), Generation::FIRST, BEGAN_WITH);
        all.advance(id(), Generation::FIRST, to(Generation::new(2)));
        let thief = all.begin(id(), Generation::new(2), BEGAN_WITH);
        for issued in [3, 4] {
            all.advance(id(), Generation::FIRST, to(Generation::new(issued)));
            assert_eq!((victim.generation(), thief.generation()), (Generation::new(issued), Generation::new(2)));
        }
    }

    #[test]
    fn c27_a_connection_is_found_by_the_time_at_which_its_present_token_expires() {
        let all = LiveSessions::default();
        let _line = all.begin(id(), Generation::FIRST, BEGAN_WITH);
        assert!(all.has(id()) && all.expiring(Timestamp::ZERO..BEGAN_WITH).is_empty());
        assert_eq!(all.expiring(BEGAN_WITH..Timestamp::MAX), [id()]);
        let next = to(Generation::new(2));
        all.advance(id(), Generation::FIRST, next);
        assert!(all.expiring(BEGAN_WITH..next.expires).is_empty());
        assert_eq!(all.expiring(next.expires..Timestamp::MAX), [id()]);
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let all = LiveSessions::default();
        let (one, two) =
            (all.begin(id(), Generation::FIRST, BEGAN_WITH), all.begin(id(), Generation::FIRST, BEGAN_WITH));
        drop(one);
        assert_eq!(all.0.get(&id()).unwrap().len(), 1);
        drop(two);
        assert!(all.0.is_empty());
    }
}
