//! A rate limit for log lines that each request may cause. The first line is written at once, and then one line a
//! minute, with the number of skipped lines. So the number of lines depends on the minutes of an outage, not on its
//! requests.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The interval between lines of a kind.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The last lines. Kinds are a fixed set.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<BTreeMap<&'static str, Said>>);

/// The last line of a kind, and the number of skipped ones since.
#[derive(Debug)]
struct Said {
    at: Instant,
    others: u64,
}

impl Seldom {
    /// If a line of this kind is due, the number of lines that were skipped since the last one.
    // Requirement O31.
    pub(super) fn is_due(&self, kind: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut all = self.0.lock();
        match all.get_mut(kind) {
            Some(said) if now.duration_since(said.at) < SAY_EVERY => {
                said.others = said.others.saturating_add(1);
                None
            }
            Some(said) => {
                said.at = now;
                Some(std::mem::take(&mut said.others))
            }
            None => {
                all.insert(kind, Said { at: now, others: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn o31_the_first_of_a_kind_is_written_and_then_one_a_minute_that_counts_the_others() {
        let seldom = Seldom::default();
        assert_eq!(seldom.is_due("one"), Some(0));
        (0..1000).for_each(|_| assert_eq!(seldom.is_due("one"), None));
        assert_eq!(seldom.is_due("other"), Some(0), "another kind is not held back");
        tokio::time::advance(SAY_EVERY - Duration::from_millis(1)).await;
        assert_eq!(seldom.is_due("one"), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(seldom.is_due("one"), Some(1001));
        assert_eq!(seldom.is_due("one"), None);
    }
}
