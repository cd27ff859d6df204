//! The long-lived connections of each session. A connection can outlive the access token that opened it. A rotation
//! moves the connections to the new generation, with the expiry of the new token. A reissue, which replaces unused
//! tokens, ends the connections of those tokens. A connection with a session cookie depends on the session instead of
//! an access token. A renewal at any gate extends the connection to the session's new idle timeout.
//!
//! The map contains only sessions with connections.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::session::{Generation, SessionId};
use crate::token::claims::SuccessorToken;
use crate::verify_cache::SessionTerms;

/// The minimum time between two renewal attempts that client data triggers.
const RENEWED_AGAIN: Duration = Duration::from_secs(1);

/// The connections of all sessions.
#[derive(Clone, Default)]
pub struct LiveSessions(Arc<DashMap<SessionId, Vec<Weak<LiveConnection>>>>);

crate::debug_with!(LiveSessions, |it| { sessions: it.0.len() });

/// A connection with its session and generation.
#[derive(Debug)]
pub struct LiveConnection {
    all: LiveSessions,
    session: SessionId,
    state: Mutex<SessionState>,
    browser: Option<BrowserConnection>,
}

struct BrowserConnection {
    cookie: Arc<str>,
    idle_ttl: Duration,
    ends: Timestamp,
    access_ttl: Duration,
    /// The time of the next query to the directory and the issuer, in milliseconds.
    asked_next: AtomicU64,
    /// The time from which client data may trigger a renewal, in milliseconds.
    renewed_next: AtomicU64,
}

crate::debug_with!(BrowserConnection { ends });

#[derive(Clone, Copy, Debug)]
struct SessionState {
    generation: Generation,
    /// The previous generation, which the client presents again after a lost response.
    before: Option<Generation>,
    advanced_to: Option<SuccessorToken>,
    expires: Timestamp,
}

impl LiveSessions {
    /// Adds a connection. `opened_by` is the session cookie of the connection, with the session's lifetimes.
    pub fn begin(
        &self,
        session: SessionId,
        generation: Generation,
        expires: Timestamp,
        opened_by: Option<(&Arc<str>, &SessionTerms)>,
    ) -> Arc<LiveConnection> {
        let browser = opened_by.map(|(cookie, terms)| {
            let access_ttl = expires.since(terms.renewed_at);
            BrowserConnection {
                cookie: Arc::clone(cookie),
                idle_ttl: terms.idle_ttl,
                ends: terms.ends,
                access_ttl,
                asked_next: AtomicU64::new(terms.renewed_at.plus(access_ttl).as_millis()),
                renewed_next: AtomicU64::new(terms.renew_from.as_millis()),
            }
        });
        let expires = opened_by.map_or(expires, |(_, terms)| terms.idle_expires());
        let state = Mutex::new(SessionState { generation, before: None, advanced_to: None, expires });
        let line = Arc::new(LiveConnection { all: self.clone(), session, state, browser });
        self.0.entry(session).or_default().push(Arc::downgrade(&line));
        line
    }

    /// Moves the connections to the issued generation. Call this before you revoke the presented generation.
    pub fn advance(&self, session: SessionId, presented: Generation, issued: SuccessorToken) {
        // Collect the connections first, because dropping the last reference to a connection locks the map.
        let lines: Vec<_> = match self.0.get(&session) {
            Some(lines) => lines.iter().filter_map(Weak::upgrade).collect(),
            None => return,
        };
        for line in lines {
            let mut state = line.state.lock();
            let (is_moved, expires) = match &line.browser {
                // A session cookie is valid for all generations of its session.
                Some(browser) => (issued.generation > state.generation, browser.renewed(&issued)),
                None => (state.generation == presented || state.before == Some(presented), issued.expires),
            };
            if is_moved {
                *state = SessionState {
                    generation: issued.generation,
                    before: Some(presented),
                    advanced_to: Some(issued),
                    expires,
                };
            }
        }
    }

    pub(crate) fn has(&self, session: SessionId) -> bool {
        self.0.contains_key(&session)
    }

    /// Returns the browser sessions that must be checked with the directory and the provider.
    pub(crate) fn unasked(&self, now: Timestamp) -> Vec<(SessionId, Arc<str>)> {
        self.sessions_with(|line| {
            let browser = line.browser.as_ref().filter(|browser| browser.takes_question(now))?;
            Some((line.session, Arc::clone(&browser.cookie)))
        })
    }

    pub(crate) fn expiring(&self, within: Range<Timestamp>) -> Vec<SessionId> {
        self.sessions_with(|line| within.contains(&line.state.lock().expires).then_some(line.session))
    }

    fn sessions_with<T>(&self, due_of: impl Fn(&Arc<LiveConnection>) -> Option<T>) -> Vec<T> {
        let mut due = Vec::new();
        // Collect the connections first, because dropping the last reference to a connection locks the map.
        let mut seen = Vec::new();
        for lines in self.0.iter() {
            let lines_of: Vec<_> = lines.value().iter().filter_map(Weak::upgrade).collect();
            // Call `due_of` for every connection, because the call also schedules the connection's next check.
            due.extend(lines_of.iter().filter_map(&due_of).last());
            seen.extend(lines_of);
        }
        due
    }
}

impl BrowserConnection {
    fn renewed(&self, issued: &SuccessorToken) -> Timestamp {
        let renewed_next = issued.issued_at.plus(self.access_ttl * 4 / 5);
        self.renewed_next.store(renewed_next.as_millis(), Ordering::Relaxed);
        self.asked_next.store(issued.issued_at.plus(self.access_ttl).as_millis(), Ordering::Relaxed);
        issued.issued_at.plus(self.idle_ttl).min(self.ends)
    }

    fn takes_question(&self, now: Timestamp) -> bool {
        takes(&self.asked_next, now, self.access_ttl)
    }
}

fn takes(next: &AtomicU64, now: Timestamp, again: Duration) -> bool {
    let due = next.load(Ordering::Relaxed);
    let later = now.plus(again).as_millis();
    now.as_millis() >= due && next.compare_exchange(due, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

impl LiveConnection {
    pub(crate) fn idle_expires(&self) -> Option<Timestamp> {
        self.browser.as_ref().map(|_| self.state.lock().expires)
    }

    pub(crate) fn takes_renewal(&self, now: Timestamp) -> bool {
        self.browser.as_ref().is_some_and(|browser| takes(&browser.renewed_next, now, RENEWED_AGAIN))
    }

    /// The session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The current generation of the connection.
    pub fn generation(&self) -> Generation {
        self.state.lock().generation
    }

    /// The token to which a rotation moved the connection.
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
    use crate::token::keyring::KeyPrint;

    const BEGAN_WITH: Timestamp = Timestamp::from_millis(5000);

    fn to(generation: Generation) -> SuccessorToken {
        static KEY: std::sync::OnceLock<KeyPrint> = std::sync::OnceLock::new();
        let made = || crate::token::Keyring::ephemeral().unwrap().signer().verifying_key().print();
        SuccessorToken {
            generation,
            issued_at: BEGAN_WITH,
            expires: Timestamp::from_millis(9000),
            key: *KEY.get_or_init(made),
        }
    }

    fn id() -> SessionId {
        SessionId::from_bytes([7; 16])
    }

    #[test]
    fn a_rotation_carries_what_hangs_on_the_generation_presented_and_nothing_else() {
        let all = LiveSessions::default();
        let (one, two) = (
            all.begin(id(), Generation::FIRST, BEGAN_WITH, None),
            all.begin(id(), Generation::new(2), BEGAN_WITH, None),
        );
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
        let victim = all.begin(id(), Generation::FIRST, BEGAN_WITH, None);
        all.advance(id(), Generation::FIRST, to(Generation::new(2)));
        let thief = all.begin(id(), Generation::new(2), BEGAN_WITH, None);
        for issued in [3, 4] {
            all.advance(id(), Generation::FIRST, to(Generation::new(issued)));
            assert_eq!((victim.generation(), thief.generation()), (Generation::new(issued), Generation::new(2)));
        }
    }

    #[test]
    fn c27_a_connection_is_found_by_the_time_at_which_its_present_token_expires() {
        let all = LiveSessions::default();
        let _line = all.begin(id(), Generation::FIRST, BEGAN_WITH, None);
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
        let (one, two) = (
            all.begin(id(), Generation::FIRST, BEGAN_WITH, None),
            all.begin(id(), Generation::FIRST, BEGAN_WITH, None),
        );
        drop(one);
        assert_eq!(all.0.get(&id()).unwrap().len(), 1);
        drop(two);
        assert!(all.0.is_empty());
    }
}
