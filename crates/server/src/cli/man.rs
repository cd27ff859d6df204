//! `rotogate man`: man pages for the commands and the configuration.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use serde::Serialize;

use super::output::Output;
use super::{Arguments, CommandResult, EXIT_CODES, Failure};

#[derive(Debug, Args)]
pub(super) struct ManOptions {
    /// The folder for all man pages, such as /usr/local/share/man. Writes rotogate(1), rotogate-check(1) and so on into
    /// its man1, and gateway.toml(5) into its man5. Replaces the pages of another version.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct PageReport<'a> {
    page: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

pub(super) fn run(options: &ManOptions, output: Output) -> CommandResult {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &options.dir else {
        let (page, text) = page(command)?;
        return output.write(&PageReport { page: &page, file: None, text: Some(&text) }, || text.trim_end().to_owned());
    };
    for (name, text) in pages(command)? {
        let file = write(folder, &name, &text)?;
        output
            .write(&PageReport { page: &name, file: Some(file.clone()), text: None }, || file.display().to_string())?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let section = name.rsplit('.').next().unwrap_or_default();
    let folder = folder.join(format!("man{section}"));
    let file = folder.join(name);
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, text));
    written.map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", file.display())))?;
    Ok(file)
}

fn pages(command: clap::Command) -> Result<Vec<(String, String)>, Failure> {
    let mut pages = Vec::new();
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|below| !below.is_hide_set()).cloned());
        pages.push(page(command)?);
    }
    pages.push(("gateway.toml.5".to_owned(), configuration()));
    pages.sort();
    Ok(pages)
}

fn page(command: clap::Command) -> Result<(String, String), Failure> {
    let page = Man::new(command.after_help(EXIT_CODES)).manual("rotogate");
    let mut text = Vec::new();
    page.render(&mut text).map_err(Failure::failed)?;
    // The page of the program itself has additional sections.
    if !page.get_filename().contains('-') {
        more(&mut text)?;
    }
    Ok((page.get_filename(), String::from_utf8(text).map_err(Failure::failed)?))
}

/// Adds exit status, environment and signals (requirement O44).
fn more(text: &mut Vec<u8>) -> Result<(), Failure> {
    let mut page = Roff::new();
    for (section, entries) in [("EXIT STATUS", EXIT_STATUS), ("ENVIRONMENT", ENVIRONMENT), ("SIGNALS", SIGNALS)] {
        page.control("SH", [section]);
        for (name, meaning) in entries {
            page.control("TP", []);
            page.text([bold(*name)]);
            page.text([roman(*meaning)]);
        }
    }
    page.to_writer(text).map_err(Failure::failed)
}

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "The command succeeded, or the gate stopped after all its requests had ended."),
    ("1", "The command failed, was refused, or matched nothing."),
    ("2", "The command line or the configuration is invalid."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("ROTOGATE_CONFIG", "The configuration file, like the option --config."),
    ("ROTOGATE_LOG", "The log level, like the configuration key log.level."),
    (
        "ROTOGATE_SECTION__KEY",
        "The value of a configuration key, which replaces the value in the file. For example, ROTOGATE_STORE__PATH \
         sets path of [store], and ROTOGATE_CLIENTS__0__ID sets id of the first [[clients]] entry. A variable that \
         begins with ROTOGATE_ but does not name a key is an error.",
    ),
    ("SUDO_USER", "The user whom the audit log names if root makes a change."),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "The gate stops: it accepts no more connections, and exits when all requests have ended, or after \
         drain_timeout.",
    ),
    ("SIGHUP", "The gate reads its configuration again, as rotogate reload does."),
    ("SIGUSR1", "The gate opens its log files again."),
    ("SIGUSR2", "The gate replaces itself with the program at its path, as rotogate upgrade does."),
];

fn configuration() -> String {
    let version = concat!("rotogate ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["gateway.toml", "5", "", version, "rotogate"]);
    page.control("SH", ["NAME"]);
    page.text([roman("gateway.toml - the configuration of rotogate")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "The file that --config names; the default is gateway.toml in the current folder. This example shows every \
         key:",
    )]);
    page.control("PP", []);
    page.control("nf", []);
    page.text([roman(rotogate_config::REFERENCE)]);
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("rotogate(1), rotogate-check(1), rotogate-init(1)")]);
    page.render()
}
