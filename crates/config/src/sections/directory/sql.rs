//! `[directory]` with `kind = "sql"`.

use std::path::{Path, PathBuf};

use toml::{Table, Value as Toml};

use super::super::super::declare::section;
use super::super::super::print::{Print, Put};
use super::super::super::value;
use super::super::path_in;
use super::hashes::expected;
use rotogate_core::claim::OwnClaims;
use rotogate_directories::sql::template::{AUTHENTICATE, LOOKUP, Purpose, REHASH, Template};
use rotogate_directories::sql::{DatabaseUrl, SqlSettings, check_url, has_password};
use rotogate_directories::{ExpectedHash, SourceSettings};
use rotogate_kit::config::{Section, Value};

/// Examples for the error about a missing statement.
const EXPECTED_AUTHENTICATE: &str = "a statement such as \"SELECT id AS subject, password AS password_hash FROM users \
                                     WHERE username = {username}\"";
const EXPECTED_LOOKUP: &str =
    "a statement such as \"SELECT id AS subject, password AS password_hash FROM users WHERE id = {subject}\"";

section! {
    impl SqlSettings, read by read_keys(section, dir: &Path) {
        /// The URL of the database, or the file with the URL.
        reload url as "..": DatabaseUrl = by { self::url(section, dir) },
        // Relative SQLite paths are relative to this folder.
        no_key folder: PathBuf = by { dir.to_owned() },
        /// SQL statement that finds a user at a login by `{username}` and `{account}`.
        reload authenticate: Template = required(EXPECTED_AUTHENTICATE, statement(AUTHENTICATE)),
        /// SQL statement that finds a user at a refresh by `{subject}`.
        reload lookup: Template = required(EXPECTED_LOOKUP, statement(LOOKUP)),
        /// SQL statement that replaces a weak password hash after a login, with `{subject}`, `{old_hash}` and
        /// `{new_hash}`. It must compare the stored hash with `{old_hash}`, so that it does not overwrite a newer
        /// password. Unset: the gate does not write to the database. Set it if your table has hashes of an older
        /// scheme, and no other program replaces them.
        reload rehash: Option<Template> = get(statement(REHASH)),
        /// File (PEM) with the only certificate authorities that the gate trusts for this server. Set it if an internal
        /// authority issued the server's certificate. Default: the system's authorities.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// Columns whose values become further claims in access tokens. Set it if your services need more data about a
        /// user, such as the email address.
        reload claims: Vec<String> = list_or_empty(claim),
        /// Columns whose values become fields of the user in login responses of dialects. Set it for a client that
        /// shows the user's data without another request.
        reload profile: Vec<String> = list_or_empty(value::text),
        /// Maximum number of connections to the database.
        fixed pool: usize = get_or(value::count(1, 1000), SqlSettings::POOL),
        /// Whether connections keep prepared statements. A transaction pooler such as PgBouncer would lose them.
        fixed statement_cache: bool = get_or(value::boolean, false),
        /// Schemes of users' password hashes, such as `["bcrypt"]` (docs/users.md). Set it if your application created
        /// the hashes with a scheme other than Argon2id, which the gate uses.
        reload hashes as some: Vec<ExpectedHash> = list_or_empty(expected),
    }
    with {
        /// File with the URL of the database. Either this key or `url` is required.
        reload url_file: text,
        /// URL of the database, if the URL does not contain a password (SQLite, or a login with a client certificate).
        reload url: text,
    }
}

pub(super) fn read(section: &Section<'_>, dir: &Path) -> SourceSettings {
    let settings = read_keys(section, dir);
    if let DatabaseUrl::Plain(url) = &settings.url
        && !url.is_empty()
        && let Err(message) = check_url(url, &settings)
    {
        section.blame("url", message);
    }
    SourceSettings::Sql(Box::new(settings))
}

fn url(section: &Section<'_>, dir: &Path) -> DatabaseUrl {
    let (url, file) = (section.get("url", value::text), section.get("url_file", path_in(dir)));
    match (url, file) {
        (Some(_), Some(_)) => section.blame("url_file", "cannot be combined with `url`; remove one of the two"),
        (Some(url), None) if has_password(&url) => {
            section.blame(
                "url",
                "contains a password, which others may be able to read in this file; move the URL to a file of its \
                 own, and name that file in `url_file`",
            );
        }
        (Some(url), None) => return DatabaseUrl::Plain(url),
        (None, Some(path)) => return DatabaseUrl::File(path),
        (None, None) if section.has("url") || section.has("url_file") => {}
        (None, None) => section.blame("url_file", "missing; set it to a file with the database URL, or set `url`"),
    }
    DatabaseUrl::Plain(String::new())
}

fn statement(purpose: Purpose) -> impl Fn(&Value) -> Result<Template, String> {
    move |value| {
        let text = value::matching(value, "a statement", |text| !text.trim().is_empty())?;
        Template::parse(text.trim(), purpose)
    }
}

/// Reads the name of a column that becomes a claim with the same name.
fn claim(value: &Value) -> Result<String, String> {
    let name = value::text(value)?;
    OwnClaims::new().insert(name.as_str(), true).map_err(|error| error.to_string())?;
    Ok(name)
}

impl Print for DatabaseUrl {
    fn print(&self) -> Toml {
        let mut table = Table::new();
        match self {
            Self::Plain(url) => url.put(&mut table, "url"),
            Self::File(file) => file.put(&mut table, "url_file"),
        }
        table.into()
    }
}

impl Print for Template {
    fn print(&self) -> Toml {
        self.source().into()
    }
}
