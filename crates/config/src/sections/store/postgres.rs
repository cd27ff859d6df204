//! `[store]` with `kind = "postgres"`.

use std::path::Path;

use super::super::super::declare::section;
use super::super::super::value;
use super::shared::{self, SharedSettings};
use rotogate::store::PostgresOptions;
use rotogate_kit::config::Value;

section! {
    /// A database that several gates share.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PostgresSettings, read by pub(super) read(section, dir: &Path, keys: &Path) {
        /// URL of the database, without a password.
        restart url: String = required(URL, self::url),
        /// URL of the PostgreSQL server itself, for notifications. Set it if `url` is the URL of a connection pooler.
        restart listen_url: Option<String> = get(self::url),
        /// Schema that contains the gate's tables. Set it if several installations share a database.
        restart schema: String = get_or(
            |v| value::checked(v, PostgresOptions::check_schema),
            PostgresOptions::SCHEMA.to_owned()
        ),
        /// `"named"`: the gate prepares each SQL statement once per connection. Write `"unnamed"` for a transaction
        /// pooler that loses prepared statements, such as PgBouncer before 1.21.
        restart has_unnamed_statements as ("statements" STATEMENTS): bool = get_or(value::word(&STATEMENTS, &[]), false),
        /// Maximum number of connections for operations, in addition to 5 connections for revocations and the feed.
        fixed connections: usize = get_or(value::count(1, 1000), PostgresOptions::CONNECTIONS),
        /// The settings of every shared store.
        restart shared as "..": SharedSettings = by { shared::read(section, dir, keys) },
    }
}

const URL: &str = "the URL of the database, such as \"postgres://gate@db.internal/rotogate\"";

/// The values of `statements`. A pooler may change the connection between transactions and lose prepared statements.
const STATEMENTS: [(&str, bool); 2] = [("named", false), ("unnamed", true)];

fn url(value: &Value) -> Result<String, String> {
    // The error does not show the URL, because it may contain a password.
    value::checked(value, PostgresOptions::check_url)
}
