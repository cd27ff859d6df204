//! `[store]` with `kind = "postgres"`.

use std::path::{Path, PathBuf};

use toml::Table;

use super::super::super::print::{number, path, put, put_some};
use super::super::super::raw::{Section, Value};
use super::super::super::value;
use super::super::path_in;
use super::shared;
use rotogate::store::{PostgresOptions, Staleness};

/// A database that several gates share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Its URL, without a password.
    pub url: String,
    /// The URL of the server itself, if the other one is a pooler's.
    pub listen_url: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// The schema with the tables.
    pub schema: String,
    /// The authorities of the server's certificate. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The gate's own certificate, and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Whether a connection keeps its statements.
    pub named_statements: bool,
    /// How many connections operations use at most.
    pub connections: usize,
    /// The file of this gate's high-water mark.
    pub mark: PathBuf,
    /// Whether the operator allows a restored backup.
    pub accept_restored_store: bool,
    /// How long the gate goes on without news.
    pub staleness: Staleness,
}

/// `None` if a key that is needed is missing or refused.
pub(super) fn read(section: &Section<'_>, dir: &Path, keys: &Path) -> Option<PostgresSettings> {
    let expected = "the URL of the database, such as \"postgres://gate@db.internal/rotogate\"";
    let url = section.require("url", expected, url);
    let listen_url = section.get("listen_url", self::url);
    let password_file = section.get("password_file", path_in(dir));
    let schema = section.get("schema", schema).unwrap_or_else(|| PostgresOptions::SCHEMA.to_owned());
    let ca = section.get("ca", path_in(dir));
    let client_cert = shared::client_cert(section, dir);
    let statements = value::word(&[("named", true), ("unnamed", false)], &[]);
    let named_statements = section.get("statements", statements).unwrap_or(true);
    let connections = section.get("connections", value::count(1, 1000)).unwrap_or(PostgresOptions::CONNECTIONS);
    let mark = super::read_mark(section, dir, keys);
    let accept_restored_store = section.get("accept_restored_store", value::boolean).unwrap_or(false);
    let staleness = shared::read(section);
    Some(PostgresSettings {
        url: url?,
        listen_url,
        password_file,
        schema,
        ca,
        client_cert,
        named_statements,
        connections,
        mark,
        accept_restored_store,
        staleness,
    })
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

pub(super) fn print(settings: &PostgresSettings, table: &mut Table) {
    let PostgresSettings {
        url,
        listen_url,
        password_file,
        schema,
        ca,
        client_cert,
        named_statements,
        connections,
        mark,
        accept_restored_store,
        staleness,
    } = settings;
    put(table, "kind", "postgres");
    put(table, "url", url.as_str());
    put_some(table, "listen_url", listen_url.as_deref());
    put_some(table, "password_file", password_file.as_deref().map(path));
    put(table, "schema", schema.as_str());
    put_some(table, "ca", ca.as_deref().map(path));
    shared::print_client_cert(client_cert.as_ref(), table);
    put(table, "statements", if *named_statements { "named" } else { "unnamed" });
    put(table, "connections", number(*connections));
    put(table, "mark", path(mark));
    put(table, "accept_restored_store", *accept_restored_store);
    shared::print(*staleness, table);
}
