//! The long-lived connections of each session, and the generation on which each connection depends. A connection can
//! outlive the access token that opened it. When the session rotates, the connection moves to the new generation and
//! gets the expiry of the new token. When a reissue abandons a generation, its connections are not moved and therefore
//! end.
//!
//! A connection that was opened with a session cookie depends on the session instead of its access token. A renewal at
//! any gate extends the connection to the session's new idle timeout. The connection ends at the idle timeout or with
//! the session.
//!
//! The map contains only sessions with connections, so for most sessions a rotation costs one look-up.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::SessionTerms;
use crate::clock::Timestamp;
use crate::session::{Generation, SessionId};
use crate::token::keyring::KeyPrint;

/// The minimum time between two renewals that are triggered by data from the client, because a renewal can fail.
const RENEWED_AGAIN: Duration = Duration::from_secs(1);

/// The connections of all sessions.
#[derive(Clone, Default)]
pub struct LiveSessions(Arc<DashMap<SessionId, Vec<Weak<LiveConnection>>>>);

crate::debug_with!(LiveSessions, |it| { sessions: it.0.len() });

/// One connection: its session and generation.
#[derive(Debug)]
pub struct LiveConnection {
    all: LiveSessions,
    session: SessionId,
    state: Mutex<SessionState>,
    browser: Option<BrowserConnection>,
}

/// The additional state of a connection that was opened with a session cookie.
struct BrowserConnection {
    /// The value of the cookie, which is needed to query the provider.
    cookie: Arc<str>,
    idle_ttl: Duration,
    ends: Timestamp,
    /// The lifetime of the session's access tokens.
    access_ttl: Duration,
    /// When the directory and the issuer are next queried about the session, in milliseconds.
    asked_next: AtomicU64,
    /// Before this time, in milliseconds, data from the client does not trigger a renewal.
    renewed_next: AtomicU64,
}

crate::debug_with!(BrowserConnection { ends });

#[derive(Clone, Copy, Debug)]
struct SessionState {
    generation: Generation,
    /// The generation that was exchanged for the current generation. A client that lost the response presents the
    /// earlier generation again.
    before: Option<Generation>,
    /// The access token of the current generation, or `None` while the connection still has its first token.
    advanced_to: Option<SuccessorToken>,
    /// The expiry of the access token that the connection depends on.
    expires: Timestamp,
}

/// The access token to which a rotation moved a connection. Contains only the properties that determine how long the
/// connection may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessorToken {
    /// The token's generation.
    pub generation: Generation,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The token's expiry.
    pub expires: Timestamp,
    /// The key that signed it.
    pub(crate) key: KeyPrint,
}

impl LiveSessions {
    /// Adds a connection that was opened with a token of this generation and expiry. `opened_by` contains the session
    /// cookie that opened the connection, if any, and the lifetimes of its session.
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

    /// Moves the connections of the presented generation to the issued generation. Must be called before the presented
    /// generation is revoked.
    pub fn advance(&self, session: SessionId, presented: Generation, issued: SuccessorToken) {
        // The connections are collected first, and dropped only after the map is unlocked. Dropping the last reference
        // to a connection removes the connection from the map, which needs the lock.
        let lines: Vec<_> = match self.0.get(&session) {
            Some(lines) => lines.iter().filter_map(Weak::upgrade).collect(),
            None => return,
        };
        for line in lines {
            let mut state = line.state.lock();
            let (is_moved, expires) = match &line.browser {
                // The cookie is valid for all generations.
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

    /// Returns whether the session has connections.
    pub(crate) fn has(&self, session: SessionId) -> bool {
        self.0.contains_key(&session)
    }

    /// The browser sessions with open connections for which the directory and the provider must be queried again, and
    /// the cookies of these sessions. This is the case if the last query is longer ago than an access token's lifetime.
    /// Each session is returned only once per such lifetime.
    pub(crate) fn unasked(&self, now: Timestamp) -> Vec<(SessionId, Arc<str>)> {
        self.sessions_with(|line| {
            let browser = line.browser.as_ref().filter(|browser| browser.takes_question(now))?;
            Some((line.session, Arc::clone(&browser.cookie)))
        })
    }

    /// The sessions with a connection whose token expires within this time.
    pub(crate) fn expiring(&self, within: Range<Timestamp>) -> Vec<SessionId> {
        self.sessions_with(|line| within.contains(&line.state.lock().expires).then_some(line.session))
    }

    fn sessions_with<T>(&self, due_of: impl Fn(&Arc<LiveConnection>) -> Option<T>) -> Vec<T> {
        let mut due = Vec::new();
        // The connections are kept until the map is unlocked. Dropping the last reference to a connection removes the
        // connection from the map, which needs the lock.
        let mut seen = Vec::new();
        for lines in self.0.iter() {
            let lines_of: Vec<_> = lines.value().iter().filter_map(Weak::upgrade).collect();
            // `due_of` must be called for all connections, because it also sets the next time of each connection.
            // Therefore `last` is used here, and not `next`.
            due.extend(lines_of.iter().filter_map(&due_of).last());
            seen.extend(lines_of);
        }
        due
    }
}

impl BrowserConnection {
    /// The new idle timeout after this renewal.
    fn renewed(&self, issued: &SuccessorToken) -> Timestamp {
        let renewed_next = issued.issued_at.plus(self.access_ttl * 4 / 5);
        self.renewed_next.store(renewed_next.as_millis(), Ordering::Relaxed);
        // The renewal has already queried the directory and the provider.
        self.asked_next.store(issued.issued_at.plus(self.access_ttl).as_millis(), Ordering::Relaxed);
        issued.issued_at.plus(self.idle_ttl).min(self.ends)
    }

    fn takes_question(&self, now: Timestamp) -> bool {
        takes(&self.asked_next, now, self.access_ttl)
    }
}

/// Returns whether the time in `next` has come. If it has, sets `next` to `now` plus `again`.
fn takes(next: &AtomicU64, now: Timestamp, again: Duration) -> bool {
    let due = next.load(Ordering::Relaxed);
    let later = now.plus(again).as_millis();
    now.as_millis() >= due && next.compare_exchange(due, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

impl LiveConnection {
    /// The idle timeout of the session, if the connection was opened with a session cookie.
    pub(crate) fn idle_expires(&self) -> Option<Timestamp> {
        self.browser.as_ref().map(|_| self.state.lock().expires)
    }

    /// Returns whether data from the client renews the session now. Returns false if such data has recently triggered a
    /// renewal.
    pub(crate) fn takes_renewal(&self, now: Timestamp) -> bool {
        self.browser.as_ref().is_some_and(|browser| takes(&browser.renewed_next, now, RENEWED_AGAIN))
    }

    /// The session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The generation that the connection depends on now.
    pub fn generation(&self) -> Generation {
        self.state.lock().generation
    }

    /// The token to which a rotation moved the connection, if the session has rotated.
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
