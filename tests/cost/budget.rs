//! The measured costs behind a budget, and the message for a build that exceeds the budget.

/// The tolerance in percent above the measured cost. Instructions of two runs differ by half a percent.
const TOLERANCE: f64 = 3.0;

/// The last measured cost of a request.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
    /// The code that a request executes, in lines of 64 bytes, which is what a processor's cache holds.
    pub(crate) lines: f64,
    /// The file that has these figures.
    pub(crate) file: &'static str,
}

impl Row {
    /// The messages if a request now costs more. `measured` is its instructions, allocations and lines.
    pub(crate) fn judge(&self, [instructions, allocations, lines]: [f64; 3]) -> Vec<String> {
        let rows = [
            ("instructions", instructions, self.instructions),
            ("allocations", allocations, self.allocations),
            ("lines", lines, self.lines),
        ];
        let exceeded = rows.into_iter().filter_map(|(what, measured, before)| {
            let budget = before * (1.0 + TOLERANCE / 100.0);
            (measured > budget).then(|| {
                format!(
                    "{}: {measured:.1} {what} of a request, at most {budget:.1}. Find what the change added \
                     (benches/peers/instructions). If it is worth that, write {measured:.1} as `{what}` of this row in \
                     {}, and say in the commit what it is for",
                    self.name, self.file
                )
            })
        });
        exceeded.collect()
    }
}

#[test]
fn a_row_that_exceeds_its_budget_is_named() {
    let row = Row { name: "a row", instructions: 1000.0, allocations: 10.0, lines: 100.0, file: "here.rs" };
    assert_eq!(row.judge([1030.0, 10.0, 103.0]), Vec::<String>::new());
    let said = row.judge([1031.0, 11.0, 104.0]).join("\n");
    let expected =
        ["a row: 1031.0 instructions", "at most 1030.0", "a row: 11.0 allocations", "a row: 104.0 lines", "here.rs"];
    assert!(expected.iter().all(|part| said.contains(part)), "{said}");
}
