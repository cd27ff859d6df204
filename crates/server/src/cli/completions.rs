//! `rotogate completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde::Serialize;

use super::output::Output;
use super::{Arguments, CommandResult, Failure};

#[derive(Debug, Args)]
pub(super) struct CompletionsOptions {
    /// The shell.
    shell: Shell,
}

#[derive(Serialize)]
struct CompletionsReport<'a> {
    shell: String,
    script: &'a str,
}

pub(super) fn run(options: &CompletionsOptions, output: Output) -> CommandResult {
    let CompletionsOptions { shell } = *options;
    // The script is first written into memory, because clap_complete panics if the output is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "rotogate", &mut script);
    let script = String::from_utf8(script).map_err(Failure::failed)?;
    let script = script.trim_end();
    output.write(&CompletionsReport { shell: shell.to_string(), script }, || script.to_owned())
}
