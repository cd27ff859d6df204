use std::sync::OnceLock;

use crate::clock::{SystemTime, TimeSource};
use crate::counters::{CountedDurations, Durations, FINE_SECONDS};
use crate::token::algorithm::Algorithm;

type OfAlgorithm = Durations<{ FINE_SECONDS.len() + 1 }>;

#[derive(Debug, Default)]
pub(crate) struct SignatureTimes {
    algorithms: [OnceLock<OfAlgorithm>; Algorithm::ALL.len()],
    time: SystemTime,
}

impl SignatureTimes {
    pub(super) fn measure(&self, algorithm: Algorithm, check: impl FnOnce() -> bool) -> bool {
        let begun = self.time.monotonic();
        let holds = check();
        let took = self.time.monotonic().saturating_sub(begun);
        if let Some(durations) = self.algorithms.get(algorithm as usize) {
            durations.get_or_init(|| OfAlgorithm::new(&FINE_SECONDS)).add(took);
        }
        holds
    }

    pub(crate) fn counted(&self) -> Vec<(&'static str, CountedDurations)> {
        let all = Algorithm::ALL.into_iter().zip(&self.algorithms);
        all.filter_map(|(algorithm, durations)| Some((algorithm.name(), durations.get()?.counted()))).collect()
    }
}
