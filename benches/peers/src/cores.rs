//! The output of the set `cores`, whose form is fixed: a line for each number of workers.

use crate::report::Machine;
use crate::run::Measured;
use crate::sets::Cell;
use crate::statistics::Spread;

/// What more workers may cost a request, beside one.
const MOST: f64 = 1.05;

/// Prints the table. `too_many`: what the machine has too few processors for.
pub fn print(machine: &Machine, measured: &Measured, too_many: &[Cell], trial: bool) {
    println!("machine: {machine}");
    println!("workers\trequests/s\tx one\tCPU us/request\tx one\tbusy\tp99 ms");
    let left_out = || {
        for cell in too_many {
            println!("{}\tnot measured: this machine has too few processors for the load beside", cell.workers);
        }
    };
    let Some(one) = measured.of(measured.set.base) else {
        left_out();
        return;
    };
    for (cell, samples) in measured.set.cells.iter().zip(&measured.samples) {
        let of = |figure: fn(&crate::statistics::Sample) -> f64| Spread::of(samples.iter().map(figure)).median;
        let rates = Spread::of(samples.iter().zip(one).map(|(more, one)| more.rate / one.rate));
        println!(
            "{}\t{:.0}\t{rates:.2}\t{:.2}\t{:.2}\t{:.2}\t{:.2}",
            cell.workers,
            of(|sample| sample.rate),
            of(|sample| sample.cpu),
            Spread::ratio(samples, one),
            of(|sample| sample.busy) / cell.workers as f64,
            of(|sample| sample.p99),
        );
    }
    left_out();
    if let Some(two) = measured.of("2") {
        let ratio = Spread::ratio(two, one);
        let verdict = if trial {
            "a trial run: too short to judge by"
        } else if ratio.high <= MOST {
            "met"
        } else if ratio.low > MOST {
            "NOT met"
        } else {
            "unknown: the rounds differ"
        };
        println!("CPU of a request, two workers / one: {ratio:.2} (at most {MOST}): {verdict}");
    }
}
