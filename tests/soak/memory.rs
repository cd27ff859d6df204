//! The resources of a process, as Linux reports them.

use std::fmt;
use std::fs;

/// The share by which the last third may exceed the second.
const TOLERANCE: f64 = 0.05;

#[derive(Default)]
pub(crate) struct Samples {
    /// In KiB.
    resident: Vec<u64>,
    descriptors: usize,
    threads: u64,
}

impl Samples {
    pub(crate) fn take(&mut self, process: u32) {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        self.resident.push(field("VmRSS:"));
        self.threads = field("Threads:");
        self.descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    }

    /// The means of the thirds, in KiB.
    fn thirds(&self) -> [f64; 3] {
        let third = self.resident.len() / 3;
        [0, 1, 2].map(|n| {
            let part = &self.resident[n * third..(n + 1) * third];
            part.iter().sum::<u64>() as f64 / part.len() as f64
        })
    }

    pub(crate) fn is_flat(&self) -> bool {
        let [_, second, last] = self.thirds();
        last <= second * (1.0 + TOLERANCE)
    }

    pub(crate) fn verdict(&self) -> String {
        let [first, second, last] = self.thirds().map(|kib| kib / 1024.0);
        let growth = (last / second - 1.0) * 100.0;
        format!("mean of the thirds: {first:.1}, {second:.1} and {last:.1} MiB; the last to the second: {growth:+.1} %")
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.resident.last().copied().unwrap_or_default() as f64 / 1024.0;
        write!(f, "{now:.1} MiB, {} descriptors, {} threads", self.descriptors, self.threads)
    }
}
