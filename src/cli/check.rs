//! `rotogate check`.

use std::path::Path;

use serde::Serialize;

use super::Done;
use super::output::Output;
use crate::config::Config;

#[derive(Serialize)]
struct Checked<'a> {
    file: &'a Path,
    ok: bool,
}

pub(super) fn run(path: &Path, config: &Config, print: bool, output: Output) -> Done {
    output.write(&Checked { file: path, ok: true }, || {
        let mut text = format!("{}: good", path.display());
        if print {
            text.push('\n');
            text.push_str(&config.masked());
        }
        text
    })
}
