//! Logs the faults that kept the gate from deciding on a request. For each kind of fault, the gate logs the first fault
//! and its cause. It counts later faults of this kind, and logs their number once a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use rotogate_core::fault::{Chain, Error, Fault};

const COUNT_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct FaultLog(Mutex<BTreeMap<&'static str, Lasting>>);

#[derive(Debug)]
struct Lasting {
    said: Duration,
    requests: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Count {
    More(&'static str, u64),
    Over(&'static str),
}

impl FaultLog {
    fn lasting(&self) -> MutexGuard<'_, BTreeMap<&'static str, Lasting>> {
        self.0.lock()
    }

    fn is_first(&self, reason: &'static str, now: Duration) -> bool {
        let mut lasting = self.lasting();
        match lasting.get_mut(reason) {
            Some(known) => {
                known.requests = known.requests.saturating_add(1);
                false
            }
            None => {
                lasting.insert(reason, Lasting { said: now, requests: 0 });
                true
            }
        }
    }

    fn counted(&self, now: Duration) -> Vec<Count> {
        let mut lasting = self.lasting();
        let mut counts = Vec::new();
        lasting.retain(|reason, known| {
            if now < known.said.saturating_add(COUNT_EVERY) {
                return true;
            }
            let requests = std::mem::take(&mut known.requests);
            known.said = now;
            counts.push(if requests > 0 { Count::More(reason, requests) } else { Count::Over(reason) });
            requests > 0
        });
        counts
    }

    pub(super) fn tell<T>(&self, outcome: &Result<T, Error>, now: impl FnOnce() -> Duration) {
        let Err(Error::Failed(fault)) = outcome else { return };
        let reason = Fault::reason(fault);
        if self.is_first(reason, now()) {
            tracing::error!(
                target: "rotogate::fault",
                reason,
                error = ?Chain(fault),
                "request neither accepted nor rejected because of a fault. \
                 Further faults of this kind are counted, and their number is logged once a minute"
            );
        }
    }

    pub(super) fn tell_counts(&self, now: Duration) {
        for count in self.counted(now) {
            match count {
                Count::More(reason, requests) => tracing::error!(
                    target: "rotogate::fault",
                    reason,
                    requests,
                    "since the last line, `requests` more requests were neither accepted nor rejected because of a \
                     fault"
                ),
                Count::Over(reason) => tracing::info!(
                    target: "rotogate::fault",
                    reason,
                    "requests are processed again: no fault of this kind has occurred for a minute"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_writes_a_line_when_it_begins_and_one_a_minute_that_counts() {
        let log = FaultLog::default();
        let at = Duration::from_secs;
        let mut lines = 0;
        for request in 0..10_000 {
            lines += usize::from(log.is_first("store_failed", at(request / 100)));
        }
        assert_eq!(lines, 1);
        assert!(log.is_first("stale", at(1)), "another kind");
        assert_eq!(log.counted(at(59)), []);
        assert_eq!(log.counted(at(61)), [Count::Over("stale"), Count::More("store_failed", 9_999)]);
        assert!(!log.is_first("store_failed", at(70)), "it goes on");
        assert_eq!(log.counted(at(120)), []);
        assert_eq!(log.counted(at(121)), [Count::More("store_failed", 1)]);
        assert_eq!(log.counted(at(181)), [Count::Over("store_failed")]);
        assert_eq!(log.counted(at(300)), [], "once");
        assert!(log.is_first("store_failed", at(300)), "the next outage");
    }
}
