//! The run: measures all cells in turn, round after round.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::crew::{Crew, Seats, stay_awake};
use crate::prepare::{self, Ready};
use crate::report::{self, Machine};
use crate::sets::{self, CORES, Cell, Scale, Set};
use crate::statistics::{Sample, Spread};
use crate::{cell, cores, limits};

/// The folder for the report of a whole run.
pub const RESULTS: &str = "benches/peers";

#[derive(Args)]
pub struct Options {
    /// The binary to measure.
    #[arg(long)]
    pub rotogate: PathBuf,
    /// Envoy's binary.
    #[arg(long)]
    pub envoy: PathBuf,
    /// How often each gateway is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each is measured in a round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only these sets: those of a whole run are named in the script; `cores` is none of them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The row of that name alone, and no report: for a look at what a change does. Several, if given several times.
    #[arg(long)]
    cell: Vec<String>,
    /// Only the rows with rotogate in them, and no report: a load for a profile of the program.
    #[arg(long)]
    own: bool,
    /// One short round with fewer tokens and revocations: does it work at all?
    #[arg(long)]
    pub quick: bool,
    /// The folder for RESULTS.md and peers.svg. Unless said: `benches/peers`, and `docs` for the plot, for a whole run of
    /// three rounds or more, that of --scratch for less.
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
        self.out.as_deref().unwrap_or(if whole { Path::new(RESULTS) } else { &self.scratch })
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
        if self.only.iter().any(|name| name == CORES) {
            all.push(sets::cores());
        }
        if let Some(unknown) = self.only.iter().find(|name| all.iter().all(|set| set.key != **name)) {
            bail!("there is no set {unknown:?}: see --help");
        }
        all.retain(|set| self.only.is_empty() || self.only.iter().any(|name| name == set.key));
        for set in &mut all {
            set.cells.retain(|cell| self.cell.is_empty() || self.cell.contains(&cell.name));
            set.cells.retain(|cell| !self.own || cell.contender.is_rotogate());
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
    limits::raise()?;
    // Before the main thread gets one for itself.
    let processors = std::thread::available_parallelism()?.get();
    let mut sets = options.sets()?;
    let mut too_many = Vec::new();
    for set in &mut sets {
        let fits = |cell: &Cell| Seats::of(cell.workers, set.weight, processors).is_some();
        let (kept, left_out): (_, Vec<_>) = std::mem::take(&mut set.cells).into_iter().partition(fits);
        set.cells = kept;
        too_many.extend(left_out);
    }
    let machine = Machine::look(options)?;
    let ready = prepare::prepare(options, &sets)?;
    eprintln!("prepared after {:.0} s", began.elapsed().as_secs_f64());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.spawn(stay_awake(|| false));
    let mut measured = Vec::new();
    for set in sets {
        let samples =
            runtime.block_on(measure(&set, &ready, processors, options)).with_context(|| format!("set {}", set.key))?;
        measured.push(Measured { set, samples });
        eprintln!("measured {} after {:.0} s", measured.len(), began.elapsed().as_secs_f64());
    }
    if let [Measured { set: Set { key: CORES, .. }, .. }] = measured.as_slice() {
        cores::print(&machine, &measured[0], &too_many, options.is_trial());
        return Ok(());
    }
    if options.cell.is_empty() && !options.own {
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

/// All cells of a set in turn, the order turned around every other round.
async fn measure(set: &Set, ready: &Ready, processors: usize, options: &Options) -> Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); set.cells.len()];
    for round in 0..options.rounds() {
        let mut order: Vec<usize> = (0..set.cells.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let cell = &set.cells[index];
            let seats = Seats::of(cell.workers, set.weight, processors);
            let crew = Crew::on(&seats.context("there are too few processors: two at least")?)?;
            let sample = cell::measure(cell, ready, &crew, options).await.with_context(|| cell.name.clone())?;
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
