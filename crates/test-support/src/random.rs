//! Reproducible random choices.

use std::hash::{BuildHasher, RandomState};

/// The generator SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Uses the seed in the environment variable, or prints a new seed. The timing of concurrent requests is not
    /// reproduced.
    pub fn new(test: &str, variable: &str) -> Self {
        let seed = match std::env::var(variable) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
            Err(_) => RandomState::new().hash_one(()),
        };
        println!("{test}: {variable}={seed}");
        Self::from_seed(seed)
    }

    pub const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }
}
