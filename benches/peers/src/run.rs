//! The run: measures all cells in turn, round after round.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use futures_util::future::try_join_all;

use crate::contender::Running;
use crate::flood::Clients;
use crate::load::{Chain, Load, Picker, refresh_all};
use crate::prepare::{self, Ready};
use crate::process::usage;
use crate::report::{self, Machine};
use crate::sets::{self, Cell, Scale, Set, Work};
use crate::statistics::{Sample, Spread};
use crate::tokens::Bad;
use crate::{check, serve};

/// How long a gateway is driven before it is measured, at least.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Args)]
pub struct Options {
    /// The binary to measure.
    #[arg(long)]
    pub rotogate: PathBuf,
    /// How often each gateway is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each is measured in a round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only these sets: contenders, algorithms, tokens, revocations, rotations, forged, refresh.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The row of that name alone, and no report: for a look at what a change does. Several, if given several times.
    #[arg(long)]
    cell: Vec<String>,
    /// One short round with fewer tokens and revocations: does it work at all?
    #[arg(long)]
    pub quick: bool,
    /// The folder for peers.md and peers.svg. Unless said: `docs` for a whole run of three rounds or more, that of
    /// --scratch for less.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A folder on a real disk for what is needed meanwhile.
    #[arg(long)]
    pub scratch: PathBuf,
}

impl Options {
    pub fn scale(&self) -> &'static Scale {
        if self.quick { &Scale::QUICK } else { &Scale::WHOLE }
    }

    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    /// Is the run too short to judge by?
    pub fn is_trial(&self) -> bool {
        self.rounds() < 3
    }

    pub fn time(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.3 } else { self.seconds.clamp(0.1, 600.0) })
    }

    fn out(&self) -> &Path {
        let whole = !self.is_trial() && self.only.is_empty();
        self.out.as_deref().unwrap_or(if whole { Path::new("docs") } else { &self.scratch })
    }

    /// As it stands in the report.
    pub fn command(&self) -> String {
        let mut command = "benches/peers/run".to_owned();
        if self.quick {
            command += " --quick";
        } else {
            command += &format!(" --rounds {} --seconds {}", self.rounds, self.seconds);
        }
        if !self.only.is_empty() {
            command += &format!(" --only {}", self.only.join(","));
        }
        command
    }

    fn sets(&self) -> Result<Vec<Set>> {
        let mut all = sets::all(self.scale());
        if let Some(unknown) = self.only.iter().find(|name| all.iter().all(|set| set.key != **name)) {
            bail!("there is no set {unknown:?}: see --help");
        }
        all.retain(|set| self.only.is_empty() || self.only.iter().any(|name| name == set.key));
        for set in &mut all {
            set.cells.retain(|cell| self.cell.is_empty() || self.cell.contains(&cell.name));
        }
        Ok(all)
    }
}

/// A set and its samples, by cell and round.
pub struct Measured {
    pub set: Set,
    pub samples: Vec<Vec<Sample>>,
}

impl Measured {
    /// The samples of the cell with this name.
    pub fn of(&self, name: &str) -> Option<&[Sample]> {
        let index = self.set.cells.iter().position(|cell| cell.name == name)?;
        self.samples.get(index).map(Vec::as_slice)
    }
}

pub fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    let sets = options.sets()?;
    let machine = Machine::look()?;
    let ready = prepare::prepare(options, &sets)?;
    eprintln!("prepared after {:.0} s", began.elapsed().as_secs_f64());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::spawn(serve::upstream(tokio::net::TcpListener::from_std(ready.upstream.try_clone()?)?));
        tokio::spawn(stay_awake());
        Ok::<_, anyhow::Error>(())
    })?;
    let mut measured = Vec::new();
    for set in sets {
        let samples = runtime.block_on(measure(&set, &ready, options)).with_context(|| format!("set {}", set.key))?;
        measured.push(Measured { set, samples });
        eprintln!("measured {} after {:.0} s", measured.len(), began.elapsed().as_secs_f64());
    }
    if options.cell.is_empty() {
        return report::write(options, options.out(), &machine, &measured, began.elapsed());
    }
    for measured in &measured {
        for (cell, samples) in measured.set.cells.iter().zip(&measured.samples) {
            let cpu = Spread::of(samples.iter().map(|sample| sample.cpu));
            println!("{cpu} us: {}, {}", measured.set.key, cell.name);
        }
    }
    Ok(())
}

/// Keeps the thread of the load and the upstream from sleeping. Over loopback the sender spends CPU time to wake a
/// sleeping receiver, and a slower gateway would find it asleep more often; over a network a gateway never pays for
/// that.
async fn stay_awake() {
    loop {
        tokio::task::yield_now().await;
    }
}

/// All cells of a set in turn, the order turned around every other round.
async fn measure(set: &Set, ready: &Ready, options: &Options) -> Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); set.cells.len()];
    for round in 0..options.rounds() {
        let mut order: Vec<usize> = (0..set.cells.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let cell = &set.cells[index];
            let sample = one(cell, ready, options).await.with_context(|| cell.name.clone())?;
            eprintln!(
                "{} {}/{}: {:.2} us, {:.0}/s, busy {:.2}: {}",
                set.key,
                round + 1,
                options.rounds(),
                sample.cpu,
                sample.rate,
                sample.busy,
                cell.name
            );
            samples[index].push(sample);
        }
    }
    Ok(samples)
}

/// One cell in one round, on a gateway started for it.
async fn one(cell: &Cell, ready: &Ready, options: &Options) -> Result<Sample> {
    let tokens = ready.tokens(cell.algorithm)?;
    let template = ready.template(cell.contents(options.scale()))?;
    let behind = matches!(cell.work, Work::Flooded(_));
    let mut running = Running::start(&ready.stage, cell.contender, cell.algorithm, template, behind)?;
    let address = running.address;
    let good = tokens.good.first().context("a token")?;
    let start = check::until_it_answers(&mut running, good).await?;
    check::check(cell.contender, address, good, &tokens.bad).await?;

    let chains = template.refresh_tokens.iter().map(|token| Chain::open(address, token));
    let mut chains = try_join_all(chains).await?;
    let picker = Picker::new(Arc::clone(&tokens.good), cell.mix, cell.known);
    let mut load = Load::open(address, cell.contender.path()).await?;
    match cell.work {
        Work::Requests | Work::Flooded(_) => load.warm_up(&picker, WARM_UP).await?,
        Work::Beside(_, every) => {
            load.warm_up(&picker, WARM_UP).await?;
            refresh_all(&mut chains, Some(every), WARM_UP).await?;
        }
        Work::Rotations(_) => drop(refresh_all(&mut chains, None, WARM_UP).await?),
    }

    let (before, time) = (usage(&running.processes())?, options.time());
    let (mut rotations, mut forged) = (0.0, 0.0);
    let driven = match cell.work {
        Work::Requests => load.measure(&picker, time).await?,
        Work::Rotations(_) => refresh_all(&mut chains, None, time).await?,
        Work::Flooded(flood) => {
            let false_one = tokens.bad.iter().find(|(bad, _)| *bad == Bad::Signature);
            let token = false_one.and_then(|(_, token)| token.as_deref()).context("a forged token")?;
            let (driven, answered) =
                Clients::open(address).await?.measure(cell.contender.path(), &picker, token, flood, time).await?;
            forged = answered;
            driven
        }
        Work::Beside(_, every) => {
            let (driven, beside) =
                tokio::try_join!(load.measure(&picker, time), refresh_all(&mut chains, Some(every), time))?;
            rotations = beside.rate();
            driven
        }
    };
    let after = usage(&running.processes())?;
    running.check()?;
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    Ok(Sample {
        cpu: cpu * 1e6 / driven.latency.len() as f64,
        rate: driven.rate(),
        p50: driven.milliseconds(0.5),
        p99: driven.milliseconds(0.99),
        busy: cpu / driven.took.as_secs_f64(),
        resident: after.resident as f64 / (1 << 20) as f64,
        start: start.as_secs_f64() * 1e3,
        rotations,
        forged,
    })
}
