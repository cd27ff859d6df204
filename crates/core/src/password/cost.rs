//! The cost of a run of argon2.

/// Every check counts as at least this much memory, in KiB.
pub(super) const SHARE_KIB: u32 = 19 * 1024;

/// The cost of an argon2 run.
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
    /// The number of 1 KiB blocks that one run fills. Lanes are filled one after the other.
    pub fn work(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    /// Returns the additional cost up to `dearest`, or `None` if it is too low for a run.
    pub(super) fn up_to(self, dearest: Self) -> Option<Self> {
        dearest.with_work(dearest.work().saturating_sub(self.work()))
    }

    /// Returns a cost with `share / whole` of this work, or `None` below the minimum.
    pub(super) fn part(self, share: u32, whole: u32) -> Option<Self> {
        self.with_work(self.work().saturating_mul(share.into()).checked_div(whole.into())?)
    }

    /// Returns `None` if `work` does not suffice for one pass.
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
    /// OWASP recommends at least 19 MiB, 2 passes and 1 lane.
    fn default() -> Self {
        Self { memory_kib: SHARE_KIB, passes: 2, lanes: 1 }
    }
}
