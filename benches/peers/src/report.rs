//! The report of a run: `RESULTS.md`, and a plot.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::limits::Limits;
use crate::load::CONNECTIONS;
use crate::run::{Measured, Options};
use crate::statistics::Spread;
use crate::{goals, plot};

/// The machine, and the versions of the measured programs.
pub struct Machine {
    processor: String,
    kernel: String,
    load: String,
    date: String,
    versions: Vec<String>,
}

/// On a machine that does nothing else a gateway has more of its processor than this.
const ALONE: f64 = 0.7;

/// The peers among our own dependencies.
const CRATES: [&str; 7] =
    ["hyper", "tokio", "axum", "jsonwebtoken", "jwt-authorizer", "axum-jwt-auth", "tower-oauth2-resource-server"];

impl Machine {
    /// Call this before the run, which changes the load average.
    pub fn look(options: &Options) -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let number = std::thread::available_parallelism()?;
        // "/where/it/is  version: commit/1.40.0/Clean/RELEASE/BoringSSL"
        let envoy = first_line(&options.envoy, "--version")?;
        let envoy = format!("Envoy {}", envoy.rsplit('/').nth(3).context("a version of Envoy")?);
        let mut versions = vec![build(options)?, first_line("haproxy", "-v")?, first_line("nginx", "-v")?, envoy];
        for name in CRATES {
            versions.push(format!("{name} {}", locked(name).context("a package of the lock file")?));
        }
        Ok(Self {
            processor: format!("{number} x {}", model.map_or("an unknown processor", |(_, model)| model)),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: fs::read_to_string("/proc/loadavg")?.split(' ').take(3).collect::<Vec<_>>().join(" "),
            date: first_line("date", "+%F")?,
            versions,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, kernel, load, date, .. } = self;
        write!(f, "{processor}, Linux {kernel}; load average before {load}; {date}")
    }
}

/// Version, revision and recorded load of the program that is measured.
fn build(options: &Options) -> Result<String> {
    let output = Command::new(&options.rotogate).arg("--version").output();
    let output = output.with_context(|| options.rotogate.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().take(3).collect::<Vec<_>>().join(", "))
}

fn first_line(program: impl AsRef<OsStr>, argument: &str) -> Result<String> {
    let output = Command::new(&program).arg(argument).output();
    let output = output.with_context(|| program.as_ref().display().to_string())?;
    // nginx prints it to standard error.
    let said = [output.stdout, output.stderr].concat();
    let line =
        String::from_utf8_lossy(&said).lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    Ok(line.split(" - ").next().unwrap_or_default().to_owned())
}

/// All versions of a package, as it is built here.
fn locked(name: &str) -> Option<String> {
    let lock = include_str!("../Cargo.lock");
    let of_it = format!("name = \"{name}\"\nversion = \"");
    let versions: Vec<&str> = lock.split(&of_it).skip(1).filter_map(|rest| rest.split('"').next()).collect();
    (!versions.is_empty()).then(|| versions.join(" and "))
}

pub fn write(options: &Options, folder: &Path, machine: &Machine, measured: &[Measured], took: Duration) -> Result<()> {
    let text = text(options, machine, measured, took)?;
    fs::create_dir_all(folder)?;
    fs::write(folder.join("RESULTS.md"), &text)?;
    if let Some(contenders) = measured.iter().find(|measured| measured.set.key == crate::sets::CONTENDERS) {
        // The page docs/peers.md shows the plot of a whole run.
        let pictures = if folder == Path::new(crate::run::RESULTS) { Path::new("docs") } else { folder };
        plot::write(contenders, &pictures.join("peers.svg"))?;
    }
    println!("{text}");
    eprintln!("written to {}", folder.display());
    Ok(())
}

fn text(options: &Options, machine: &Machine, measured: &[Measured], took: Duration) -> Result<String> {
    let Machine { processor, kernel, load, date, versions } = machine;
    let limits = Limits::get();
    let mut text = String::from("# rotogate beside other gateways: a run\n\n");
    writeln!(text, "Written by a run of\n\n    {}\n", options.command())?;
    writeln!(
        text,
        "on {date}: {processor}, Linux {kernel}; load average before it {load}; {} rounds of {} s in {:.0} minutes. {}.\n",
        options.rounds(),
        options.time().as_secs_f64(),
        took.as_secs_f64() / 60.0,
        versions.join(", ")
    )?;
    if options.is_trial() {
        writeln!(text, "**A trial run: too short for its figures to mean anything.**\n")?;
    }
    let busy = Spread::of(measured.iter().flat_map(|set| set.samples.iter().flatten()).map(|sample| sample.busy));
    if busy.median < ALONE {
        writeln!(
            text,
            "**The machine had other things to do: the gateways had {:.2} of their processor in the median. Rates and \
             latencies say nothing here, and ratios of CPU less than their spread.**\n",
            busy.median
        )?;
    }
    writeln!(
        text,
        "How it is measured:\n\n\
         - **Processors.** Each gateway has one worker thread and a processor of its own. The load generator and the upstream \
         share another one, or have up to three where one would be the bound: TLS, HTTP/2, gRPC, long bodies. They never \
         sleep, so no gateway pays for waking them.\n\
         - **Load.** Unless a table says otherwise: HTTP/1.1 in clear text over loopback, GET requests on {CONNECTIONS} \
         keep-alive connections, responses of 1 KiB. Each connection sends its next request when the last was answered.\n\
         - **Rounds.** Every gateway is measured once in each round, in a process started for it. The order is reversed every \
         other round.\n\
         - **Correctness.** Before it is measured, each gateway answers 200 with the upstream's body to a good token, and 401 \
         to no token, a bad signature, forged claims, `alg` none and an expired token, in the way in which it is measured. \
         Each counted answer is 200 with that body. Otherwise there is no report.\n\
         - **Settings.** The peers have their defaults, beyond what keeps connections alive and lifts limits. Envoy makes a \
         request ID for each request, as rotogate does; HAProxy and nginx do not. {limits}\n\n\
         The columns:\n\n\
         - **CPU us**: user and system time of the gateway's processes, an auth server or rotogate behind it included, divided by the \
         answers.\n\
         - **x**: the ratio of CPU to the named row, taken within each round. Read this first.\n\
         - **a second**, **p50 ms**, **p99 ms**, **p99.9 ms**: rate and latency of a gateway that is driven as fast as it \
         can, unless the table says at what rate.\n\
         - **busy**: the share of its processor that the gateway used. Below 0.9, the load generator or another process of \
         the machine was the bound.\n\
         - **MiB**: resident memory at the end.\n\n\
         Figures are medians of the rounds; the lowest and the highest are in parentheses.\n"
    )?;
    writeln!(text, "{}", goals::table(measured, options.is_trial())?)?;
    for measured in measured {
        table(&mut text, measured)?;
    }
    Ok(text.trim_end().to_owned() + "\n")
}

fn table(text: &mut String, measured: &Measured) -> Result<()> {
    let Measured { set, samples } = measured;
    let base = measured.of(set.base).context("the row to compare with")?;
    writeln!(text, "## {}\n\n{}\n", set.title, set.note)?;
    writeln!(text, "| | CPU us | x {} | a second | p50 ms | p99 ms | p99.9 ms | busy | MiB |", set.base)?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
    for (cell, samples) in set.cells.iter().zip(samples) {
        let of = |figure: fn(&crate::statistics::Sample) -> f64| Spread::of(samples.iter().map(figure));
        let name = if cell.contender.is_rotogate() { format!("**{}**", cell.name) } else { cell.name.clone() };
        writeln!(
            text,
            "| {name} | {:.1} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |",
            of(|sample| sample.cpu),
            Spread::ratio(samples, base),
            of(|sample| sample.rate).median,
            of(|sample| sample.p50).median,
            of(|sample| sample.p99).median,
            of(|sample| sample.p999).median,
            of(|sample| sample.busy).median,
            of(|sample| sample.resident).median,
        )?;
    }
    let beside = samples.iter().flatten().map(|sample| sample.rotations).filter(|rotations| *rotations > 0.0);
    let beside = Spread::of(beside);
    if beside.median > 0.0 {
        writeln!(text, "\nRotations a second beside: {beside:.0}.")?;
    }
    let forged = samples.iter().flatten().map(|sample| sample.forged).filter(|forged| *forged > 0.0);
    let forged = Spread::of(forged);
    if forged.median > 0.0 {
        writeln!(text, "\nForged tokens a second that were answered beside: {forged:.0}.")?;
    }
    writeln!(text)?;
    Ok(())
}
