//! `rotogate config`.

use std::path::Path;

use clap::Subcommand;
use http::Method;
use serde::Serialize;

use super::output::Output;
use super::{CommandResult, admin_client, runtime};
use crate::server::operate::admin::{ConfigInfo, ConfigValue, ValueSource};
use rotogate_config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Shows each value that the file or the environment sets, with its line or its variable. Secrets are masked.
    Show {
        /// Also shows the defaults, so that every value in use is listed.
        #[arg(long)]
        effective: bool,
        /// Shows the configuration of the running gate. The file may have changed since its start.
        #[arg(long)]
        running: bool,
    },
    /// Prints a configuration with every key, its default and its meaning. `check` accepts this configuration. Does not
    /// read a file.
    Reference,
}

#[derive(Serialize)]
struct Reference {
    reference: &'static str,
}

pub(super) fn run(path: &Path, command: &ConfigCommand, output: Output) -> CommandResult {
    match command {
        ConfigCommand::Show { effective, running } => show(&super::load(path)?, *effective, *running, output),
        ConfigCommand::Reference => {
            let reference = rotogate_config::REFERENCE;
            output.write(&Reference { reference }, || reference.trim_end().to_owned())
        }
    }
}

fn show(config: &Config, effective: bool, running: bool, output: Output) -> CommandResult {
    let info = if running {
        runtime()?.block_on(admin_client::request(&config.admin.access(), Method::GET, "/v1/config"))?
    } else {
        ConfigInfo::new(config)
    };
    let is_shown = |value: &ConfigValue| effective || !matches!(value.source, ValueSource::Default);
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
