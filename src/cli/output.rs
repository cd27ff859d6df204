//! Output for people, or for programs.

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
        println!("{line}");
        Ok(())
    }
}
