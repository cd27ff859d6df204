//! Output for people, or for programs.

use std::io::Write;

use serde::Serialize;

use super::{Done, Failure};

/// How a command answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Writes `value` as JSON, or `text` for people.
    pub(super) fn write<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Done {
        let line = if self.json { serde_json::to_string(value).map_err(Failure::of)? } else { text() };
        // Not `println!`, which panics where nobody reads any more.
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Failed(format!("standard output cannot be written: {error}")),
        })
    }
}
