//! Lists the newest sessions first. Stores list the oldest sessions first. This module therefore searches for a time
//! window with enough sessions.

use std::time::Duration;

use rotogate::gate::Sessions;
use rotogate_core::clock::Timestamp;
use rotogate_core::fault::Error;
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::{Filter, Page};

use crate::server::build::files;

/// The most sessions that the store returns at once, and the fewest that are requested.
const AT_ONCE: std::ops::RangeInclusive<usize> = 100..=1000;
/// The first window of time, in milliseconds.
pub(super) const FIRST_WINDOW: u64 = 3_600_000;
const GROWTH: u64 = 8;

/// Returns the newest sessions before `end`, the newest first: at least `limit` of them, or all. `window` is the window
/// of time that is tried first, in milliseconds, and then the one with the sessions, which fits for the next page.
pub(super) async fn newest_before(
    sessions: &Sessions,
    filter: &Filter,
    end: Option<SessionId>,
    limit: usize,
    window: &mut u64,
) -> Result<Page, Error> {
    let is_before_end = |id: SessionId| end.is_none_or(|end| id < end);
    let at = end.map_or_else(files::now, |id| id.created());
    let at_once = (4 * limit).clamp(*AT_ONCE.start(), *AT_ONCE.end());
    // The longest window that was too short, and the shortest that was too long.
    let (mut short, mut long) = (0, None);
    loop {
        let start = at.minus(Duration::from_millis(*window));
        let is_all = start == Timestamp::ZERO;
        let after = (!is_all).then(|| SessionId::new(start, [0; 10]));
        let Page { sessions: mut found, mut next } = sessions.list(filter.clone(), after, at_once).await?;
        // The window cannot shrink further, so read all its pages.
        let is_narrowest = long.is_some_and(|long| long <= *window);
        while let Some(after) = next.filter(|next| is_narrowest && is_before_end(*next)) {
            let page = sessions.list(filter.clone(), Some(after), *AT_ONCE.end()).await?;
            found.extend(page.sessions);
            next = page.next;
        }
        let is_too_long = next.is_some_and(is_before_end);
        found.retain(|session: &Session| is_before_end(session.id));
        if !is_too_long && (found.len() >= limit || is_all || is_narrowest) {
            found.reverse();
            let next = found.last().map(|session| session.id).filter(|_| !is_all);
            return Ok(Page { sessions: found, next });
        }
        match is_too_long {
            true => long = Some(*window),
            false => short = *window,
        }
        *window = match long {
            None => window.saturating_mul(GROWTH),
            Some(long) if long - short <= 1 => long,
            // The next window is the geometric mean of these two windows, but not below an eighth of the long one.
            Some(long) => {
                let least = short.max(long / (GROWTH * GROWTH)).max(1);
                let between = (u128::from(least) * u128::from(long)).isqrt();
                u64::try_from(between).unwrap_or(long).clamp(short + 1, long - 1)
            }
        };
    }
}
