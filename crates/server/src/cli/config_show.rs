//! `rotogate config`.

use clap::Subcommand;
use http::Method;

use super::output::Output;
use super::{CommandResult, admin_client, runtime};
use crate::server::operate::admin::{ConfigInfo, ConfigValue, ValueSource};
use rotogate_config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Shows each value that the file or the environment sets, with its line or its variable. Secrets are masked.
    Show {
        /// Shows the defaults, too: every value in force.
        #[arg(long)]
        effective: bool,
        /// Asks the running gate, whose file may have changed since.
        #[arg(long)]
        running: bool,
    },
}

pub(super) fn run(config: &Config, command: &ConfigCommand, output: Output) -> CommandResult {
    let ConfigCommand::Show { effective, running } = command;
    let info = if *running {
        runtime()?.block_on(admin_client::request(&config.admin.access(), Method::GET, "/v1/config"))?
    } else {
        ConfigInfo::new(config)
    };
    let is_shown = |value: &ConfigValue| *effective || !matches!(value.source, ValueSource::Default);
    let values: Vec<_> = info.values.into_iter().filter(is_shown).collect();
    output.list(&values, |value| line(value, &info.file))
}

fn line(value: &ConfigValue, file: &str) -> String {
    let ConfigValue { key, value, source, line, variable } = value;
    let source = match (source, line, variable) {
        (ValueSource::File, Some(line), _) => format!("{file}:{line}"),
        (ValueSource::File, None, _) => file.to_owned(),
        (ValueSource::Environment, _, Some(variable)) => variable.clone(),
        (ValueSource::Environment | ValueSource::Default, ..) => source.word().to_owned(),
    };
    format!("{key} = {value}  # {source}")
}
