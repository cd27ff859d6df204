//! The cost of a run of argon2.

/// The memory of a check of the gate's own hashes, in KiB. Every check counts as using at least this much memory.
pub(super) const SHARE_KIB: u32 = 19 * 1024;

/// The cost of one argon2 run.
///
/// ```
/// use rotogate::directory::password::Cost;
///
/// let dear = Cost { passes: 3, ..Cost::default() };
/// assert!(dear.work() > Cost::default().work());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost {
    /// The memory, in KiB.
    pub memory_kib: u32,
    /// The number of passes over the memory.
    pub passes: u32,
    /// The number of lanes.
    pub lanes: u32,
}

impl Cost {
    /// The work of a run, as the number of 1 KiB blocks that are filled. The lanes are filled one after the other.
    pub fn work(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    /// The cost of the additional run that is needed so that `self` and this run together take as long as `dearest`.
    /// `None` if it would be negligible.
    pub(super) fn up_to(self, dearest: Self) -> Option<Self> {
        dearest.with_work(dearest.work().saturating_sub(self.work()))
    }

    /// The cost of a run that takes the fraction `share / whole` of the time of `self`. `None` if it would be
    /// negligible.
    pub(super) fn part(self, share: u32, whole: u32) -> Option<Self> {
        self.with_work(self.work().saturating_mul(share.into()).checked_div(whole.into())?)
    }

    /// The cost of a run with this amount of work and the same number of lanes. `None` if the work is too little for a
    /// run.
    pub(super) fn with_work(self, work: u64) -> Option<Self> {
        let least = u64::from(self.lanes.max(1)) * 8;
        let passes = u64::from(self.passes).min(work / least);
        let memory_kib = work.checked_div(passes)?;
        Some(Self {
            memory_kib: u32::try_from(memory_kib).ok()?,
            passes: u32::try_from(passes).ok()?,
            lanes: self.lanes,
        })
    }
}

impl Default for Cost {
    /// 19 MiB, 2 passes and 1 lane, which is the minimum that OWASP recommends.
    fn default() -> Self {
        Self { memory_kib: SHARE_KIB, passes: 2, lanes: 1 }
    }
}
