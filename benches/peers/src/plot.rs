//! The plot: CPU time of a request, by gateway, the cheapest first.

use std::path::Path;

use anyhow::Result;
use svg::Document;
use svg::node::element::{Line, Rectangle, Text};

use crate::contender::Contender;
use crate::run::Measured;
use crate::statistics::Spread;

const WIDTH: f64 = 960.0;
/// For the names.
const LEFT: f64 = 385.0;
/// For the figure behind the longest bar.
const RIGHT: f64 = 70.0;
const TOP: f64 = 56.0;
const ROW: f64 = 28.0;
const BAR: f64 = 18.0;

pub fn write(measured: &Measured, file: &Path) -> Result<()> {
    let rows = measured.set.cells.iter().zip(&measured.samples);
    let mut rows: Vec<_> =
        rows.map(|(cell, samples)| (cell, Spread::of(samples.iter().map(|sample| sample.cpu)))).collect();
    rows.sort_by(|(_, one), (_, other)| one.median.total_cmp(&other.median));
    let most = rows.iter().map(|(_, spread)| spread.high).fold(1.0, f64::max);
    let x = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
    let height = TOP + ROW * rows.len() as f64 + 16.0;
    let mut plot = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("font-family", "DejaVu Sans, Helvetica, Arial, sans-serif")
        .set("font-size", 13)
        .add(Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "#ffffff"))
        .add(
            text("CPU time of a proxied request, microseconds", 16.0, 24.0)
                .set("font-size", 16)
                .set("font-weight", "bold"),
        )
        .add(text("dark: checks a token; light: checks nothing; the line: lowest to highest round", 16.0, 44.0));
    for (index, (cell, spread)) in rows.into_iter().enumerate() {
        let top = TOP + ROW * index as f64;
        let middle = top + BAR / 2.0;
        let end = x(spread.high.max(spread.median));
        plot = plot
            .add(text(&cell.name, LEFT - 8.0, middle + 4.5).set("text-anchor", "end"))
            .add(
                Rectangle::new()
                    .set("x", LEFT)
                    .set("y", top)
                    .set("width", round(x(spread.median) - LEFT))
                    .set("height", BAR)
                    .set("fill", colour(cell.contender)),
            )
            .add(
                Line::new()
                    .set("x1", round(x(spread.low)))
                    .set("x2", round(x(spread.high)))
                    .set("y1", middle)
                    .set("y2", middle)
                    .set("stroke", "#222222")
                    .set("stroke-width", 2),
            )
            .add(text(&format!("{:.1}", spread.median), end + 6.0, middle + 4.5));
    }
    Ok(svg::save(file, &plot)?)
}

fn text(content: &str, x: f64, y: f64) -> Text {
    Text::new(content).set("x", round(x)).set("y", round(y)).set("fill", "#222222")
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn colour(contender: Contender) -> &'static str {
    match (contender.is_rotogate(), contender.checks()) {
        (true, true) => "#c2410c",
        (true, false) => "#fdba74",
        (false, true) => "#475569",
        (false, false) => "#cbd5e1",
    }
}
