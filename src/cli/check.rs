//! `rotogate check`.

use std::path::Path;

use serde::Serialize;

use super::output::Output;
use super::{Done, Failure};
use crate::config::Config;
use crate::server;

#[derive(Serialize)]
struct Checked<'a> {
    file: &'a Path,
    ok: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

pub(super) fn run(path: &Path, config: &Config, print: bool, output: Output) -> Done {
    let prefixed = |what: &String| format!("{}: {what}", path.display());
    let warnings = server::check_certificates(config)
        .map_err(|wrong| Failure::Wrong(wrong.iter().map(prefixed).collect::<Vec<_>>().join("\n")))?;
    let of_config = config.warnings.iter().map(ToString::to_string);
    let warnings: Vec<String> = of_config.chain(warnings.iter().map(prefixed)).collect();
    let text = warnings.clone();
    output.write(&Checked { file: path, ok: true, warnings }, || {
        let mut text: String = text.iter().map(|warning| format!("{warning}\n")).collect();
        text.push_str(&format!("{}: good", path.display()));
        if print {
            text.push('\n');
            text.push_str(&config.masked());
        }
        text
    })
}
