//! `[store]` with `kind = "postgres"`.

use std::path::{Path, PathBuf};

use super::super::super::declare::section;
use super::super::super::print::Words;
use super::super::super::value;
use super::super::path_in;
use super::shared;
use rotogate::store::{PostgresOptions, Staleness};
use rotogate_kit::config::{CertificateAndKey, Section, Value};

section! {
    /// A database that several gates share.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PostgresSettings, read by read_keys(section, dir: &Path, keys: &Path) {
        /// The URL of the database, never with a password.
        restart url: String = required(URL, self::url),
        /// The URL of the server itself, where `url` is a pooler's: for notifications.
        restart listen_url: Option<String> = get(self::url),
        /// A file with the password, read at each connection: a new password needs no restart.
        restart password_file: Option<PathBuf> = get(path_in(dir)),
        /// The schema with the tables.
        restart schema: String = get_or(self::schema, PostgresOptions::SCHEMA.to_owned()),
        /// A PEM file with the only authorities that count for the server's certificate. Default: those of the system.
        restart ca: Option<PathBuf> = get(path_in(dir)),
        /// The gate's own certificate, with its chain, and its key.
        restart client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// `"unnamed"`: a pooler gives each transaction another connection.
        restart statements: Statements = get_or(value::word_of, Statements::Named),
        /// The most connections of this gate's operations; 5 more are for revocations and the feed.
        restart connections: usize = get_or(value::count(1, 1000), PostgresOptions::CONNECTIONS),
        /// The file of this gate's mark, by which a start notices that an older store was put back.
        restart mark: PathBuf = by { super::read_mark(section, dir, keys) },
        /// true: accept a store that is behind `mark`.
        restart accept_restored_store: bool = get_or(value::boolean, false),
        /// How long the gate goes on without news.
        restart staleness as "..": Staleness = by { shared::read(section) },
    }
}

const URL: &str = "the URL of the database, such as \"postgres://gate@db.internal/rotogate\"";

/// `statements`: whether a connection keeps its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statements {
    /// It does.
    Named,
    /// A pooler may give each transaction another connection.
    Unnamed,
}

impl Words for Statements {
    const WORDS: &'static [(&'static str, Self)] = &[("named", Self::Named), ("unnamed", Self::Unnamed)];
}

pub(super) fn read(section: &Section<'_>, dir: &Path, keys: &Path) -> PostgresSettings {
    read_keys(section, dir, keys)
}

fn url(value: &Value) -> Result<String, String> {
    let url = value::text(value)?;
    // Not shown: it may hold a password.
    PostgresOptions::check_url(&url).map_err(|error| error.to_string())?;
    Ok(url)
}

fn schema(value: &Value) -> Result<String, String> {
    let schema = value::text(value)?;
    PostgresOptions::check_schema(&schema).map_err(|error| error.to_string())?;
    Ok(schema)
}
