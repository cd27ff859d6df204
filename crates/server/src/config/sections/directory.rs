//! `[directory]`.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::print::{self, list, number, put, put_some, time};
use super::super::raw::Section;
use super::super::value;
use super::path_in;
use crate::directories::{Bounds, SourceSettings};
use rotogate::password::{Accepted, FirebaseParameters, Legacy, Spring};
use rotogate::private_file::read_private;
use secrecy::SecretString;

#[cfg(feature = "hook")]
mod http;
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
        /// Which imported password hashes it may have.
        hashes: HashesConfig,
    },
    /// Another system.
    Remote {
        /// The system.
        source: SourceSettings,
        /// The bounds on requests to it.
        bounds: Bounds,
    },
}

/// Imported password hashes: which are accepted besides those that always are, and what some of them need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashesConfig {
    /// The weak schemes.
    pub allow_legacy: Vec<Legacy>,
    /// The file with the password hash parameters of a Firebase project.
    pub firebase: Option<PathBuf>,
    /// The iterations of Spring's `{pbkdf2}`, where they are not its defaults.
    pub spring_iterations: Option<u32>,
    /// The file with the secret of Spring's `{pbkdf2}`.
    pub spring_secret_file: Option<PathBuf>,
}

impl HashesConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// A text that names the key and the file, and says what is wrong.
    pub fn accepted(&self) -> Result<Accepted, String> {
        let Self { allow_legacy, firebase, spring_iterations, spring_secret_file } = self;
        let parameters = |path: &PathBuf| {
            let parameters = FirebaseParameters::from_json(&read_private(path)?);
            parameters.map_err(|error| format!("{}: {error}", path.display()))
        };
        let secret = |path: &PathBuf| {
            read_private(path).map(|text| SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))
        };
        let of = |key: &str, error: String| format!("directory.{key}: {error}");
        Ok(Accepted {
            legacy: allow_legacy.clone(),
            firebase: firebase.as_ref().map(parameters).transpose().map_err(|error| of("firebase", error))?,
            spring: Spring {
                iterations: *spring_iterations,
                secret: spring_secret_file
                    .as_ref()
                    .map(secret)
                    .transpose()
                    .map_err(|error| of("spring_pbkdf2_secret_file", error))?,
            },
        })
    }
}
#[derive(Clone, Copy)]
enum Kind {
    File,
    #[cfg(feature = "hook")]
    Http,
    #[cfg(feature = "ldap")]
    Ldap,
    #[cfg(feature = "sql")]
    Sql,
}

const KINDS: &[(&str, Kind)] = &[
    ("file", Kind::File),
    #[cfg(feature = "hook")]
    ("http", Kind::Http),
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
    let kind = section.get("kind", value::word(KINDS, &[])).unwrap_or(Kind::File);
    let source: Option<SourceSettings> = match kind {
        Kind::File => None,
        #[cfg(feature = "hook")]
        Kind::Http => http::read(section, dir),
        #[cfg(feature = "ldap")]
        Kind::Ldap => ldap::read(section, dir),
        #[cfg(feature = "sql")]
        Kind::Sql => sql::read(section, dir),
    };
    let directory = match (kind, source) {
        (Kind::File, _) => {
            let path = section.get("path", path_in(dir)).unwrap_or_else(|| dir.join(DirectoryConfig::PATH));
            DirectoryConfig::File { path, hashes: hashes(section, dir) }
        }
        #[cfg(any(feature = "hook", feature = "ldap", feature = "sql"))]
        (_, source) => {
            let bounds = bounds(section, kind);
            // Without a source there is a problem, and the result is discarded.
            let missing = DirectoryConfig::File { path: PathBuf::new(), hashes: HashesConfig::default() };
            source.map_or(missing, |source| DirectoryConfig::Remote { source, bounds })
        }
    };
    section.finish();
    directory
}

#[cfg(any(feature = "hook", feature = "ldap", feature = "sql"))]
fn bounds(section: &Section<'_>, kind: Kind) -> Bounds {
    let timeout = match kind {
        #[cfg(feature = "hook")]
        Kind::Http => http::TIMEOUT,
        _ => Bounds::TIMEOUT,
    };
    let within = |max| value::duration_within(std::time::Duration::ZERO, max);
    let at_least = std::time::Duration::from_millis(100);
    Bounds {
        timeout: section.get("timeout", value::duration_within(at_least, 60 * super::SECOND)).unwrap_or(timeout),
        max_requests: section.get("max_requests", value::count(1, 10_000)).unwrap_or(Bounds::MAX_REQUESTS),
        queue_timeout: section.get("queue_timeout", within(60 * super::SECOND)).unwrap_or(Bounds::QUEUE_TIMEOUT),
        lookup_cache: section.get("lookup_cache", within(60 * super::SECOND)).unwrap_or_default(),
    }
}

fn hashes(section: &Section<'_>, dir: &Path) -> HashesConfig {
    HashesConfig {
        allow_legacy: section.list("allow_legacy", value::word(&Legacy::NAMES, &[])).unwrap_or_default(),
        firebase: section.get("firebase", path_in(dir)),
        spring_iterations: section
            .get("spring_pbkdf2_iterations", value::count(1, 5_000_000))
            .and_then(|iterations| u32::try_from(iterations).ok()),
        spring_secret_file: section.get("spring_pbkdf2_secret_file", path_in(dir)),
    }
}

pub(super) fn print(directory: &DirectoryConfig) -> Value {
    let mut table = Table::new();
    match directory {
        DirectoryConfig::File { path, hashes } => {
            put(&mut table, "kind", "file");
            put(&mut table, "path", print::path(path));
            let HashesConfig { allow_legacy, firebase, spring_iterations, spring_secret_file } = hashes;
            if !allow_legacy.is_empty() {
                let name = |scheme: &Legacy| {
                    Legacy::NAMES.iter().find(|(_, known)| known == scheme).map_or("", |(name, _)| name)
                };
                put(&mut table, "allow_legacy", list(allow_legacy, |scheme| name(scheme).into()));
            }
            put_some(&mut table, "firebase", firebase.as_deref().map(print::path));
            put_some(&mut table, "spring_pbkdf2_iterations", spring_iterations.map(i64::from));
            put_some(&mut table, "spring_pbkdf2_secret_file", spring_secret_file.as_deref().map(print::path));
        }
        DirectoryConfig::Remote { source, bounds } => {
            let Bounds { timeout, max_requests, queue_timeout, lookup_cache } = bounds;
            put(&mut table, "timeout", time(*timeout));
            put(&mut table, "max_requests", number(*max_requests));
            put(&mut table, "queue_timeout", time(*queue_timeout));
            put(&mut table, "lookup_cache", time(*lookup_cache));
            match *source {
                #[cfg(feature = "hook")]
                SourceSettings::Http(ref settings) => http::print(settings, &mut table),
                #[cfg(feature = "ldap")]
                SourceSettings::Ldap(ref settings) => ldap::print(settings, &mut table),
                #[cfg(feature = "sql")]
                SourceSettings::Sql(ref settings) => sql::print(settings, &mut table),
            }
        }
    }
    table.into()
}
