//! What long connections hang on: a session and a generation. A token that opened one may have been exchanged, and
//! refused from then on, while its holder goes on: a rotation carries the connection to the generation that the exchange
//! brought on, and its deadline with it. A generation that a reissue abandons has nobody to carry it.
//!
//! Only sessions that a connection hangs on are known here, so a rotation costs one look-up.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dashmap::DashMap;

use crate::clock::Timestamp;
use crate::session::{Generation, SessionId};
use crate::token::keyring::KeyPrint;

/// The lines of all sessions. See the module.
#[derive(Clone, Default)]
pub struct LiveSessions(Arc<DashMap<SessionId, Vec<Weak<LiveConnection>>>>);

impl fmt::Debug for LiveSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSessions").field("sessions", &self.0.len()).finish()
    }
}

/// What one connection hangs on.
#[derive(Debug)]
pub struct LiveConnection {
    all: LiveSessions,
    session: SessionId,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    generation: Generation,
    /// What was exchanged for it. Whoever lost the answer exchanges that again.
    before: Option<Generation>,
    /// The access token of this generation; none, as long as that is the one that it began with.
    advanced_to: Option<SuccessorToken>,
}

/// Where a rotation has carried a connection: what of the new access token decides how long it may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessorToken {
    /// Its generation.
    pub generation: Generation,
    /// When it expires.
    pub expires: Timestamp,
    /// The key that signed it.
    pub(crate) key: KeyPrint,
}

impl LiveSessions {
    /// Begins with a token of this generation.
    pub fn begin(&self, session: SessionId, generation: Generation) -> Arc<LiveConnection> {
        let state = Mutex::new(State { generation, before: None, advanced_to: None });
        let line = Arc::new(LiveConnection { all: self.clone(), session, state });
        self.0.entry(session).or_default().push(Arc::downgrade(&line));
        line
    }

    /// Carries what hangs on the generation that was presented to the one that was issued for it. To be called before the
    /// end of the generation presented is put into force.
    pub fn advance(&self, session: SessionId, presented: Generation, issued: SuccessorToken) {
        // Outside of the map's lock: the last holder of a line takes it out of the map.
        let lines: Vec<_> = match self.0.get(&session) {
            Some(lines) => lines.iter().filter_map(Weak::upgrade).collect(),
            None => return,
        };
        for line in lines {
            let mut state = line.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.generation == presented || state.before == Some(presented) {
                *state = State { generation: issued.generation, before: Some(presented), advanced_to: Some(issued) };
            }
        }
    }
}

impl LiveConnection {
    /// The session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The generation that it hangs on now.
    pub fn generation(&self) -> Generation {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Where a rotation has carried it, if one has.
    pub fn advanced_to(&self) -> Option<SuccessorToken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).advanced_to
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
        let (one, two) = (all.begin(id(), 1), all.begin(id(), 2));
        assert_eq!((one.advanced_to(), one.session()), (None, id()));
        all.advance(id(), 2, to(3));
        assert_eq!((one.advanced_to(), two.advanced_to()), (None, Some(to(3))));
        all.advance(id(), 3, to(4));
        assert_eq!((one.generation(), two.generation()), (1, 4));
        all.advance(SessionId::from_bytes([8; 16]), 4, to(5));
        assert_eq!(two.generation(), 4, "another session's");
    }

    #[test]
    fn a_reissue_carries_its_presenter_over_and_leaves_what_it_abandons() {
        let all = LiveSessions::default();
        let victim = all.begin(id(), 1);
        all.advance(id(), 1, to(2));
        let thief = all.begin(id(), 2);
        for issued in [3, 4] {
            all.advance(id(), 1, to(issued));
            assert_eq!((victim.generation(), thief.generation()), (issued, 2));
        }
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let all = LiveSessions::default();
        let (one, two) = (all.begin(id(), 1), all.begin(id(), 1));
        drop(one);
        assert_eq!(all.0.get(&id()).unwrap().len(), 1);
        drop(two);
        assert!(all.0.is_empty());
    }
}
