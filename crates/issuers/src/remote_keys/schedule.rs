//! The schedule of fetches, without clock, randomness or I/O.

use std::time::Duration;

use super::settings::FetchSettings;

const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// The discovery document is read again with every sixth fetch.
const FETCHES_PER_DISCOVERY: u32 = 6;
const DISCOVERY_FOR: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug)]
pub(super) struct Schedule {
    min: Duration,
    /// The maximum time between fetches. The limit leaves time for retries before the keys become stale (requirement
    /// I50).
    most: Duration,
    failures: u32,
    fetches: u32,
    /// `None` means that discovery must run first.
    discovered: Option<Duration>,
}

impl Schedule {
    pub(super) fn new(settings: &FetchSettings) -> Self {
        Self {
            min: settings.min,
            most: settings.max.min(settings.stale_for / 2),
            failures: 0,
            fetches: 0,
            discovered: None,
        }
    }

    /// Returns 80 to 95 % of `fresh` at random, so that gates do not fetch at the same time.
    pub(super) fn after_good(&mut self, fresh: Duration, random: u32) -> Duration {
        self.failures = 0;
        fresh.min(self.most).mul_f64(0.80 + 0.15 * fraction(random))
    }

    /// Returns the delay after a failure: 1, 2, 4 … 60 s ± 20 %, at most `self.min`.
    pub(super) fn after_failure(&mut self, random: u32) -> Duration {
        let most = MAX_BACK_OFF.min(self.min);
        let doubled = 1_u64.checked_shl(self.failures.min(16)).unwrap_or(u64::MAX);
        self.failures = self.failures.saturating_add(1);
        let base = Duration::from_secs(doubled).min(most);
        base.mul_f64(0.8 + 0.4 * fraction(random)).min(most)
    }

    pub(super) fn discovery_is_due(&self, now: Duration) -> bool {
        self.fetches >= FETCHES_PER_DISCOVERY
            || self.discovered.is_none_or(|at| now.saturating_sub(at) >= DISCOVERY_FOR)
    }

    pub(super) fn discovered(&mut self, now: Duration) {
        self.discovered = Some(now);
        self.fetches = 0;
    }

    /// After a failure the discovery document is read again, because the URL of the keys may have changed.
    pub(super) fn fetched(&mut self, is_good: bool) {
        self.fetches = self.fetches.saturating_add(1);
        if !is_good {
            self.discovered = None;
        }
    }
}

fn fraction(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn schedule() -> Schedule {
        Schedule::new(&FetchSettings::default())
    }

    #[test]
    fn i1_a_good_set_is_fetched_again_before_it_is_no_longer_fresh() {
        assert_eq!(schedule().after_good(600 * S, 0), 480 * S);
        assert_eq!(schedule().after_good(600 * S, u32::MAX), 570 * S);
        let middle = schedule().after_good(600 * S, u32::MAX / 2);
        assert!(middle > 520 * S && middle < 530 * S, "{middle:?}");
    }

    #[test]
    fn i50_a_set_is_fetched_again_before_it_is_too_old_however_long_it_is_fresh() {
        for (stale_for, max, expected) in [(300, 300, 150), (86_400, 86_400, 43_200), (86_400, 600, 600)] {
            let settings = FetchSettings { max: max * S, stale_for: stale_for * S, ..FetchSettings::default() };
            let mut schedule = Schedule::new(&settings);
            for fresh in [600, 86_400, 7 * 86_400] {
                let longest = schedule.after_good(fresh * S, u32::MAX);
                assert_eq!(longest, (expected.min(fresh) * S).mul_f64(0.95), "{stale_for} {max} {fresh}");
            }
        }
    }

    #[test]
    fn i4_failures_are_retried_ever_slower_but_never_slower_than_min() {
        let waits = |settings: FetchSettings, random| {
            let mut schedule = Schedule::new(&settings);
            (0..40).map(|_| schedule.after_failure(random)).collect::<Vec<_>>()
        };
        let settings = FetchSettings::default();
        let longest = waits(settings, u32::MAX);
        assert_eq!(longest[..3], [1200, 2400, 4800].map(Duration::from_millis));
        assert_eq!(longest[39], 60 * S);
        let shortest = waits(settings, 0);
        assert_eq!(shortest[..3], [800, 1600, 3200].map(Duration::from_millis));
        assert_eq!(shortest[39], 48 * S);
        let hasty = FetchSettings { min: 3 * S, ..settings };
        assert!(waits(hasty, u32::MAX).into_iter().all(|wait| wait <= 3 * S));
        // A success resets the back-off.
        let mut schedule = schedule();
        schedule.after_failure(0);
        schedule.after_failure(0);
        schedule.after_good(600 * S, 0);
        assert_eq!(schedule.failures, 0);
        assert_eq!(schedule.after_failure(0), Duration::from_millis(800));
    }

    #[test]
    fn i1_discovery_is_read_with_every_sixth_fetch_after_a_day_and_after_a_failure() {
        let mut schedule = schedule();
        assert!(schedule.discovery_is_due(S));
        schedule.discovered(S);
        let mut due = Vec::new();
        for _ in 0..14 {
            if schedule.discovery_is_due(2 * S) {
                schedule.discovered(2 * S);
                due.push(true);
            } else {
                due.push(false);
            }
            schedule.fetched(true);
        }
        let mut expected = vec![false; 14];
        expected[6] = true;
        expected[12] = true;
        assert_eq!(due, expected);
        schedule.discovered(S);
        assert!(!schedule.discovery_is_due(DISCOVERY_FOR));
        assert!(schedule.discovery_is_due(DISCOVERY_FOR + S));
        schedule.discovered(S);
        schedule.fetched(false);
        assert!(schedule.discovery_is_due(S));
    }
}
