//! Output as text or JSON.

use std::io::Write;

use serde::Serialize;

use super::{CommandResult, Failure};

#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    pub(super) fn write<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> CommandResult {
        let line = if self.json { serde_json::to_string(value).map_err(Failure::failed)? } else { text() };
        print(&format!("{line}\n"))
    }

    pub(super) fn list<T: Serialize>(self, values: &[T], line: impl Fn(&T) -> String) -> CommandResult {
        let mut text = String::new();
        for value in values {
            text += &if self.json { serde_json::to_string(value).map_err(Failure::failed)? } else { line(value) };
            text.push('\n');
        }
        print(&text)
    }
}

fn print(text: &str) -> CommandResult {
    // `print!` would panic if standard output is closed.
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Failed(format!("standard output cannot be written: {error}")),
    })
}
