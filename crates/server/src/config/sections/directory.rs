//! `[directory]`.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::print::{self, number, put, time};
use super::super::raw::Section;
use super::super::value;
use super::path_in;
use crate::directories::{Bounds, SourceSettings};

#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "sql")]
mod sql;

/// `[directory]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryConfig {
    /// A users file.
    File {
        /// The file.
        path: PathBuf,
    },
    /// Another system.
    Remote {
        /// The system.
        source: SourceSettings,
        /// The bounds on requests to it.
        bounds: Bounds,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    #[cfg(feature = "ldap")]
    Ldap,
    #[cfg(feature = "sql")]
    Sql,
}

const KINDS: &[(&str, Kind)] = &[
    ("file", Kind::File),
    #[cfg(feature = "ldap")]
    ("ldap", Kind::Ldap),
    #[cfg(feature = "sql")]
    ("sql", Kind::Sql),
];

/// The default of the section.
impl DirectoryConfig {
    const PATH: &str = "data/users.toml";
}

pub(super) fn read(section: &Section<'_>, dir: &Path) -> DirectoryConfig {
    let kind = section.get("kind", value::word(KINDS, &["webhook"])).unwrap_or(Kind::File);
    let source: Option<SourceSettings> = match kind {
        Kind::File => None,
        #[cfg(feature = "ldap")]
        Kind::Ldap => ldap::read(section, dir),
        #[cfg(feature = "sql")]
        Kind::Sql => sql::read(section, dir),
    };
    let directory = match (kind, source) {
        (Kind::File, _) => {
            let path = section.get("path", path_in(dir)).unwrap_or_else(|| dir.join(DirectoryConfig::PATH));
            DirectoryConfig::File { path }
        }
        #[cfg(any(feature = "ldap", feature = "sql"))]
        (_, source) => {
            let bounds = bounds(section);
            // Without a source there is a problem, and the result is discarded.
            let missing = DirectoryConfig::File { path: PathBuf::new() };
            source.map_or(missing, |source| DirectoryConfig::Remote { source, bounds })
        }
    };
    section.finish();
    directory
}

#[cfg(any(feature = "ldap", feature = "sql"))]
fn bounds(section: &Section<'_>) -> Bounds {
    let within = |max| value::duration_within(std::time::Duration::ZERO, max);
    let at_least = std::time::Duration::from_millis(100);
    Bounds {
        timeout: section
            .get("timeout", value::duration_within(at_least, 60 * super::SECOND))
            .unwrap_or(Bounds::TIMEOUT),
        max_requests: section.get("max_requests", value::count(1, 10_000)).unwrap_or(Bounds::MAX_REQUESTS),
        queue_timeout: section.get("queue_timeout", within(60 * super::SECOND)).unwrap_or(Bounds::QUEUE_TIMEOUT),
        lookup_cache: section.get("lookup_cache", within(60 * super::SECOND)).unwrap_or_default(),
    }
}

pub(super) fn print(directory: &DirectoryConfig) -> Value {
    let mut table = Table::new();
    match directory {
        DirectoryConfig::File { path } => {
            put(&mut table, "kind", "file");
            put(&mut table, "path", print::path(path));
        }
        DirectoryConfig::Remote { source, bounds } => {
            let Bounds { timeout, max_requests, queue_timeout, lookup_cache } = bounds;
            put(&mut table, "timeout", time(*timeout));
            put(&mut table, "max_requests", number(*max_requests));
            put(&mut table, "queue_timeout", time(*queue_timeout));
            put(&mut table, "lookup_cache", time(*lookup_cache));
            match *source {
                #[cfg(feature = "ldap")]
                SourceSettings::Ldap(ref settings) => ldap::print(settings, &mut table),
                #[cfg(feature = "sql")]
                SourceSettings::Sql(ref settings) => sql::print(settings, &mut table),
            }
        }
    }
    table.into()
}
