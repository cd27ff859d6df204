//! Processes of the bench: each runs on the processors of the gateway, and ends together with its children. Also their CPU time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A process with its own process group; ended when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on the first processors, with its output in `log`. Nothing else runs on them.
    pub fn start(command: &Command, processors: usize, log: &Path) -> Result<Self> {
        // The kernel ends it when this process is gone, for whatever reason.
        let mut pinned = Command::new("setpriv");
        pinned
            .args(["--pdeathsig", "TERM", "taskset", "-c", &format!("0-{}", processors - 1)])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                pinned.env(name, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            pinned.current_dir(folder);
        }
        let log = File::options().append(true).create(true).open(log)?;
        pinned.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = pinned
            .spawn()
            .with_context(|| format!("{command:?} could not be started (are setpriv and taskset there?)"))?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it ended?
    pub fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        let began = Instant::now();
        while !self.is_over() && began.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The resources of a process tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all of its processes, and of their children that have ended.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
}

/// The sum over these processes and all of their descendants.
pub fn usage(roots: &[u32]) -> Result<Usage> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // The process may have ended meanwhile.
        if let Some(stat) = Stat::of(id) {
            all.insert(id, stat);
        }
    }
    let mut usage = Usage::default();
    let mut tree = roots.to_vec();
    while let Some(id) = tree.pop() {
        let stat = all.get(&id).with_context(|| format!("process {id} is gone"))?;
        usage.cpu += Duration::from_secs_f64(stat.ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        usage.resident += stat.pages * rustix::param::page_size() as u64;
        tree.extend(all.iter().filter(|(_, other)| other.parent == id).map(|(child, _)| child));
    }
    Ok(usage)
}

/// proc_pid_stat(5).
struct Stat {
    parent: u32,
    ticks: u64,
    pages: u64,
}

impl Stat {
    fn of(id: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may contain any character. Numbers follow it, from the third field on.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        // utime, stime, and the same of children that were waited for.
        let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
        Some(Self { parent: number(4)?.try_into().ok()?, ticks, pages: number(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(&command, 1, Path::new("/dev/null")).unwrap()
    }

    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_a_child_uses_is_counted_while_it_runs() {
        // The shell itself does next to nothing.
        let process = shell("sh -c 'while :; do :; done'; :");
        until(|| (usage(&[process.id()]).unwrap().cpu > Duration::from_millis(100)).then_some(()));
    }

    #[test]
    fn what_a_child_used_is_counted_when_it_has_ended() {
        let process = shell("sh -c 'i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done'; sleep 1000");
        // It has ended once the only child is the next.
        until(|| {
            let name = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            (children(process.id()).iter().map(name).collect::<Vec<_>>() == ["sleep\n"]).then_some(())
        });
        let ended = usage(&[process.id()]).unwrap().cpu;
        assert!(ended > Duration::from_millis(50), "{ended:?}");
    }

    #[test]
    fn cpu_time_is_neither_lost_nor_counted_twice() {
        let began = Instant::now();
        let process = shell("sh -c 'while :; do :; done' & while :; do :; done");
        // Both loops share one processor: no more than the time on the clock goes by.
        let used = until(|| {
            let now = usage(&[process.id()]).unwrap().cpu;
            (now > Duration::from_millis(300)).then_some(now)
        });
        assert!(used <= began.elapsed() + Duration::from_millis(40), "{used:?} in {:?}", began.elapsed());
    }

    #[test]
    fn a_group_ends_as_a_whole() {
        let process = shell("sleep 1000 & sleep 1000");
        let children = until(|| {
            let children = children(process.id());
            (children.len() == 2).then_some(children)
        });
        drop(process);
        for child in children {
            until(|| (!Path::new(&format!("/proc/{child}")).exists()).then_some(()));
        }
    }

    fn children(parent: u32) -> Vec<u32> {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        all.filter(|id| Stat::of(*id).is_some_and(|stat| stat.parent == parent)).collect()
    }
}
