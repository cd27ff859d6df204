//! Metrics of the process and of its build.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::output::ScrapeOutput;
use rotogate_kit::metric_families as names;

/// The source revision, which a packager sets at build time.
pub(crate) const REVISION: &str = match option_env!("ROTOGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

const FEATURES: [(&str, bool); 7] = [
    ("failpoints", cfg!(feature = "failpoints")),
    ("ldap", cfg!(feature = "ldap")),
    ("otel", cfg!(feature = "otel")),
    ("postgres", cfg!(feature = "postgres")),
    ("redis", cfg!(feature = "redis")),
    ("sql", cfg!(feature = "sql")),
    ("test-util", cfg!(feature = "test-util")),
];

pub(crate) fn features() -> Vec<&'static str> {
    FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect()
}

pub(super) fn build_info(output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
    let labels = [env!("CARGO_PKG_VERSION"), REVISION, env!("BUILD_RUSTC"), &features().join(",")];
    output.family(&names::BUILD_INFO)?.add(labels, 1_u64)
}

/// The resident memory in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn resident_memory() -> Option<u64> {
    let stat = procfs::process::Process::myself().and_then(|process| process.stat()).ok()?;
    Some(stat.rss.saturating_mul(procfs::page_size()))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn resident_memory() -> Option<u64> {
    None
}

/// Reads metrics from the operating system, and omits unavailable metrics.
#[derive(Debug)]
pub(super) struct ProcessCollector;

#[cfg(target_os = "linux")]
impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut output = ScrapeOutput::new(&mut encoder);
        let Ok(process) = procfs::process::Process::myself() else { return Ok(()) };
        if let Ok(stat) = process.stat() {
            let ticks = procfs::ticks_per_second();
            let seconds = |of: u64| of as f64 / ticks as f64;
            output.one(&names::PROCESS_CPU, seconds(stat.utime + stat.stime))?;
            output.one(&names::PROCESS_RESIDENT_MEMORY, stat.rss.saturating_mul(procfs::page_size()))?;
            output.one(&names::PROCESS_VIRTUAL_MEMORY, stat.vsize)?;
            output.one(&names::PROCESS_THREADS, u64::try_from(stat.num_threads).unwrap_or_default())?;
            if let Ok(boot) = procfs::boot_time_secs() {
                output.one(&names::PROCESS_START_TIME, boot as f64 + seconds(stat.starttime))?;
            }
        }
        if let Ok(open) = process.fd_count() {
            output.one(&names::PROCESS_OPEN_FDS, open)?;
        }
        if let Ok(limits) = process.limits()
            && let procfs::process::LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            output.one(&names::PROCESS_MAX_FDS, most)?;
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
impl Collector for ProcessCollector {
    fn encode(&self, _: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o43_the_list_of_features_has_those_of_the_manifest() {
        let (_, rest) = include_str!("../../../../Cargo.toml").split_once("[features]").unwrap();
        let (section, _) = rest.split_once("\n[").unwrap();
        let declared = section.lines().filter_map(|line| Some(line.split_once(" = ")?.0));
        let mut declared: Vec<_> = declared.filter(|name| !matches!(*name, "default" | "full")).collect();
        declared.sort_unstable();
        assert_eq!(FEATURES.map(|(name, _)| name).to_vec(), declared);
    }
}
