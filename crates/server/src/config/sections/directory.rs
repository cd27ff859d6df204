//! `[directory]`.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::print::{self, put};
use super::super::raw::Section;
use super::super::value;
use super::path_in;

/// `[directory]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryConfig {
    /// A users file.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// The default of the section.
impl DirectoryConfig {
    const PATH: &str = "data/users.toml";
}

pub(super) fn read(section: &Section<'_>, dir: &Path) -> DirectoryConfig {
    section.later(&["url"]);
    section.get("kind", value::word(&[("file", ())], &["webhook"]));
    let path = section.get("path", path_in(dir)).unwrap_or_else(|| dir.join(DirectoryConfig::PATH));
    section.finish();
    DirectoryConfig::File { path }
}

pub(super) fn print(directory: &DirectoryConfig) -> Value {
    let DirectoryConfig::File { path } = directory;
    let mut table = Table::new();
    put(&mut table, "kind", "file");
    put(&mut table, "path", print::path(path));
    table.into()
}
