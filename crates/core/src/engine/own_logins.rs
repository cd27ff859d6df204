//! The recent logins at this gate, each with the user's state. Gates that share a store detect a changed user
//! independently. When the first gate detects the change, all earlier sessions end at all gates. Later logins with the
//! new password stay valid. A gate that detects the change later ends the sessions that it has since begun with the old
//! password.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::{Session, SessionId};

/// The maximum number of logins. If the list no longer contains a login that may be affected, all sessions of the user
/// end.
const MOST: usize = 65_536;
/// If two logins are in the wrong order in the list, their times differ by at most this much.
const DISORDER: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct OwnLogin {
    id: SessionId,
    subject: Box<str>,
    state: [u8; 32],
    end: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct OwnLogins(Mutex<Logins>);

#[derive(Debug, Default)]
struct Logins {
    all: VecDeque<OwnLogin>,
    /// The list no longer contains all logins up to this time.
    forgotten: Timestamp,
}

impl OwnLogins {
    pub(super) fn since(began: Timestamp) -> Self {
        Self(Mutex::new(Logins { forgotten: began, ..Logins::default() }))
    }

    pub(super) fn add(&self, session: &Session, state: [u8; 32]) {
        let login = OwnLogin { id: session.id, subject: session.subject.clone(), state, end: session.ends_at() };
        let mut logins = self.0.lock();
        if logins.all.len() >= MOST
            && let Some(oldest) = logins.all.pop_front()
        {
            logins.forgotten = logins.forgotten.max(oldest.id.created());
        }
        logins.all.push_back(login);
    }

    /// Returns revocations for the logins after `moment` whose user state is outdated. Returns `None` if the list no
    /// longer reaches back to `moment`.
    pub(super) fn others(
        &self,
        subject: &str,
        state: Option<[u8; 32]>,
        moment: Timestamp,
        leeway: Duration,
    ) -> Option<Vec<Revocation>> {
        let logins = self.0.lock();
        if logins.forgotten > moment {
            return None;
        }
        let late = logins.all.iter().rev().take_while(|login| login.id.created().plus(DISORDER) > moment);
        let is_other =
            |login: &&OwnLogin| login.id.created() > moment && *login.subject == *subject && state != Some(login.state);
        let end = |login: &OwnLogin| Revocation {
            target: Target::Session(login.id),
            effect: Effect::SESSION_REVOKED,
            until: login.end.plus(leeway),
        };
        Some(late.filter(is_other).map(end).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{LEEWAY, session, start};

    #[test]
    fn logins_in_another_state_after_the_moment_end_and_no_others() {
        let at = |n| start().plus(Duration::from_secs(n));
        let logins = OwnLogins::since(start());
        let (old, new) = ([1; 32], [2; 32]);
        let sessions: Vec<_> = [(5, "ada", old), (15, "ada", old), (16, "ben", old), (17, "ada", new)]
            .map(|(second, subject, state)| {
                let session = session(subject, second, at(second));
                logins.add(&session, state);
                session
            })
            .into();
        let ended = logins.others("ada", Some(new), at(10), LEEWAY).unwrap();
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].target, Target::Session(sessions[1].id));
        assert!(ended[0].until > sessions[1].ends_at());
        assert_eq!(logins.others("ada", None, at(10), LEEWAY).unwrap().len(), 2, "a user that is gone has no state");
        assert_eq!(logins.others("ada", Some(new), at(0), LEEWAY).unwrap().len(), 2);
        let began_later = OwnLogins::since(at(20));
        assert_eq!(began_later.others("ada", Some(new), at(10), LEEWAY), None, "it may have been another run's");
    }

    #[test]
    fn more_logins_than_are_remembered_leave_it_open() {
        let logins = OwnLogins::since(start());
        let at = |n: usize| start().plus(Duration::from_millis(n as u64));
        for n in 0..=MOST {
            logins.add(&session("ada", n as u64, at(n)), [1; 32]);
        }
        assert_eq!(logins.others("ben", None, start().minus(Duration::from_millis(1)), LEEWAY), None);
        assert_eq!(logins.others("ben", None, at(1), LEEWAY), Some(Vec::new()));
    }
}
