//! Details of each session's last refresh, to classify the reuse of a refresh token. The details are kept only in
//! memory. After a restart, or a refresh at another gate, the verdict is [`ReuseVerdict::Unknown`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Origin;
use crate::clock::Timestamp;
use crate::session::rotation::Reuse;
use crate::session::{Generation, Session, SessionId};

/// The details of a session take at most 600 bytes.
const MAX_SESSIONS: u64 = 65_536;
const KEPT: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub(super) struct LastRefreshes(Cache<SessionId, Arc<LastRefresh>, foldhash::quality::RandomState>);

#[derive(Debug)]
pub(super) struct LastRefresh {
    generation: Generation,
    /// The client's address and user agent, if the gate keeps them.
    pub(super) origin: Origin,
    replays: AtomicU32,
    /// The time of the confirmation in milliseconds, or 0.
    confirmed_at: AtomicU64,
}

impl LastRefresh {
    pub(super) fn replays(&self) -> u32 {
        self.replays.load(Ordering::Relaxed)
    }

    pub(super) fn confirmed_at(&self) -> Option<Timestamp> {
        Some(Timestamp::from_millis(self.confirmed_at.load(Ordering::Relaxed))).filter(|at| *at > Timestamp::ZERO)
    }
}

impl Default for LastRefreshes {
    fn default() -> Self {
        let cache = Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(KEPT);
        Self(cache.eviction_policy(EvictionPolicy::lru()).build_with_hasher(Default::default()))
    }
}

impl LastRefreshes {
    pub(super) fn remember(&self, record: &Session, origin: Origin) {
        let last = LastRefresh {
            generation: record.current,
            origin,
            replays: AtomicU32::new(0),
            confirmed_at: AtomicU64::new(0),
        };
        self.0.insert(record.id, Arc::new(last));
    }

    pub(super) fn count_replay(&self, id: SessionId, generation: Generation) {
        if let Some(last) = self.get(id, generation) {
            last.replays.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn confirm(&self, seen: &[(SessionId, Generation)], now: Timestamp) {
        for (id, generation) in seen {
            if let Some(last) = self.get(*id, *generation) {
                // Keep the time of an earlier confirmation of the same generation.
                let _ = last.confirmed_at.compare_exchange(0, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn get(&self, id: SessionId, generation: Generation) -> Option<Arc<LastRefresh>> {
        self.0.get(&id).filter(|last| last.generation == generation)
    }
}

/// The probable cause of a reused token (see docs/logs.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReuseVerdict {
    /// The tokens of the last refresh were used, and the address and user agent have changed since.
    TheftLikely,
    /// The address and user agent are those of a recent refresh, so one client probably refreshed twice at once.
    RacePossible,
    Unknown,
}

impl ReuseVerdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::TheftLikely => "theft_likely",
            Self::RacePossible => "race_possible",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) last: Option<Arc<LastRefresh>>,
    pub(super) same_address_as_login: Option<bool>,
    pub(super) same_user_agent_as_login: Option<bool>,
    pub(super) same_address_as_last_refresh: Option<bool>,
    pub(super) same_user_agent_as_last_refresh: Option<bool>,
    pub(super) verdict: ReuseVerdict,
}

impl Evidence {
    pub(super) fn new(
        session: &Session,
        last: Option<Arc<LastRefresh>>,
        reuse: Reuse,
        grace: Duration,
        presenter: &Origin,
    ) -> Self {
        let refresher = last.as_ref().map(|last| &last.origin);
        let same_address = same(refresher.and_then(|from| from.address.as_ref()), presenter.address.as_ref());
        let same_agent = same(refresher.and_then(|from| from.user_agent.as_ref()), presenter.user_agent.as_ref());
        let is_soon = reuse.superseded_for.is_some_and(|time| time < grace * 2);
        let verdict = match (same_address, same_agent) {
            (Some(true), Some(true)) if is_soon => ReuseVerdict::RacePossible,
            (Some(false), Some(false)) if session.confirmed => ReuseVerdict::TheftLikely,
            _ => ReuseVerdict::Unknown,
        };
        Self {
            same_address_as_login: same(session.address.as_ref(), presenter.address.as_ref()),
            same_user_agent_as_login: same(session.user_agent.as_ref(), presenter.user_agent.as_ref()),
            same_address_as_last_refresh: same_address,
            same_user_agent_as_last_refresh: same_agent,
            verdict,
            last,
        }
    }
}

fn same<T: PartialEq>(earlier: Option<&T>, now: Option<&T>) -> Option<bool> {
    Some(earlier? == now?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn origin(address: &str, agent: &str) -> Origin {
        Origin { address: Some(address.parse().unwrap()), user_agent: Some(agent.into()), ..Origin::default() }
    }

    fn verdict(last: Option<Origin>, is_confirmed: bool, seconds: Option<u64>, presenter: &Origin) -> ReuseVerdict {
        let mut session = crate::store::conformance::session("ada", 1, Timestamp::from_secs(1_800_000_000));
        session.confirmed = is_confirmed;
        let refreshes = LastRefreshes::default();
        if let Some(last) = last {
            refreshes.remember(&session, last);
        }
        let reuse = Reuse { generations_old: 1, superseded_for: seconds.map(Duration::from_secs) };
        let last = refreshes.get(session.id, session.current);
        Evidence::new(&session, last, reuse, GRACE, presenter).verdict
    }

    #[test]
    fn p41_the_verdict_is_arithmetic() {
        use ReuseVerdict::{RacePossible, TheftLikely, Unknown};
        let (here, there) = (origin("203.0.113.7", "Firefox"), origin("198.51.100.66", "curl"));
        let half = origin("203.0.113.7", "curl");
        let kept = || Some(here.clone());
        for (last, is_confirmed, seconds, presenter, expected) in [
            (kept(), true, Some(19), &here, RacePossible),
            (kept(), true, Some(20), &here, Unknown),
            (kept(), true, None, &here, Unknown),
            (kept(), true, Some(86_400), &there, TheftLikely),
            (kept(), true, None, &there, TheftLikely),
            (kept(), true, Some(1), &there, TheftLikely),
            (kept(), false, Some(1), &there, Unknown),
            (kept(), true, Some(1), &half, Unknown),
            (None, true, Some(1), &here, Unknown),
            (None, true, Some(86_400), &there, Unknown),
            (Some(Origin::default()), true, Some(1), &Origin::default(), Unknown),
        ] {
            let found = verdict(last.clone(), is_confirmed, seconds, presenter);
            assert_eq!(found, expected, "{last:?} {is_confirmed} {seconds:?} {presenter:?}");
        }
    }

    #[test]
    fn a_refresh_is_known_until_the_session_goes_on_elsewhere() {
        let mut session = crate::store::conformance::session("ada", 1, Timestamp::from_secs(1_800_000_000));
        let refreshes = LastRefreshes::default();
        refreshes.remember(&session, Origin::default());
        refreshes.count_replay(session.id, session.current);
        let moments = [7, 9].map(Timestamp::from_secs);
        moments.iter().for_each(|now| refreshes.confirm(&[(session.id, session.current)], *now));
        let last = refreshes.get(session.id, session.current).unwrap();
        assert_eq!((last.replays(), last.confirmed_at()), (1, Some(moments[0])));
        session.current = session.current.next().unwrap();
        assert!(refreshes.get(session.id, session.current).is_none());
    }
}
