//! `[directory]` with `kind = "sql"`.

use std::path::Path;

use toml::Table;

use super::super::super::print::{number, path, put, put_some, texts};
use super::super::super::raw::{Section, Value};
use super::super::super::value;
use super::super::path_in;
use rotogate_core::claim::OwnClaims;
use rotogate_directories::SourceSettings;
use rotogate_directories::sql::template::{AUTHENTICATE, LOOKUP, Purpose, REHASH, Template};
use rotogate_directories::sql::{DatabaseUrl, SqlSettings, check_url, has_password};

/// What a missing statement is to look like.
const EXPECTED_AUTHENTICATE: &str = "a statement such as \"SELECT id AS subject, password AS password_hash FROM users \
                                     WHERE username = {username}\"";
const EXPECTED_LOOKUP: &str =
    "a statement such as \"SELECT id AS subject, password AS password_hash FROM users WHERE id = {subject}\"";

/// `None` if a key that is needed is missing or refused.
pub(super) fn read(section: &Section<'_>, dir: &Path) -> Option<SourceSettings> {
    let url = url(section, dir);
    let authenticate = section.require("authenticate", EXPECTED_AUTHENTICATE, statement(AUTHENTICATE));
    let lookup = section.require("lookup", EXPECTED_LOOKUP, statement(LOOKUP));
    let rehash = section.get("rehash", statement(REHASH));
    let ca = section.get("ca", path_in(dir));
    let claims = section.list("claims", claim).unwrap_or_default();
    let profile = section.list("profile", value::text).unwrap_or_default();
    let pool = section.get("pool", value::count(1, 1000)).unwrap_or(SqlSettings::POOL);
    let statement_cache = section.get("statement_cache", value::boolean).unwrap_or(true);
    let settings = SqlSettings {
        url: url?,
        folder: dir.to_owned(),
        ca,
        authenticate: authenticate?,
        lookup: lookup?,
        rehash,
        claims,
        profile,
        pool,
        statement_cache,
        hashes: super::hashes::read_expected(section),
    };
    if let DatabaseUrl::Plain(url) = &settings.url
        && let Err(message) = check_url(url, &settings)
    {
        section.blame("url", message);
        return None;
    }
    Some(SourceSettings::Sql(Box::new(settings)))
}

fn url(section: &Section<'_>, dir: &Path) -> Option<DatabaseUrl> {
    let (url, file) = (section.get("url", value::text), section.get("url_file", path_in(dir)));
    match (url, file) {
        (Some(_), Some(_)) => section.blame("url_file", "stands beside url; write one of the two"),
        (Some(url), None) if has_password(&url) => {
            section.blame("url", "holds a password, which others may read here; write the URL to a file: url_file");
        }
        (Some(url), None) => return Some(DatabaseUrl::Plain(url)),
        (None, Some(path)) => return Some(DatabaseUrl::File(path)),
        (None, None) if section.has("url") || section.has("url_file") => {}
        (None, None) => section.blame("url_file", "missing; expected a file with the URL of the database, or url"),
    }
    None
}

fn statement(purpose: Purpose) -> impl Fn(&Value) -> Result<Template, String> {
    move |value| match value {
        Value::String(text) | Value::Env(text) if !text.trim().is_empty() => Template::parse(text.trim(), purpose),
        other => Err(format!("expected a statement, found {}", other.describe())),
    }
}

/// A column that becomes a claim of its name.
fn claim(value: &Value) -> Result<String, String> {
    let name = value::text(value)?;
    OwnClaims::new().insert(name.as_str(), true).map_err(|error| error.to_string())?;
    Ok(name)
}

pub(super) fn print(settings: &SqlSettings, table: &mut Table) {
    // The paths below are printed in full.
    let SqlSettings {
        url,
        folder: _,
        ca,
        authenticate,
        lookup,
        rehash,
        claims,
        profile,
        pool,
        statement_cache,
        hashes,
    } = settings;
    put(table, "kind", "sql");
    match url {
        DatabaseUrl::Plain(url) => put(table, "url", url.as_str()),
        DatabaseUrl::File(file) => put(table, "url_file", path(file)),
    }
    put_some(table, "ca", ca.as_deref().map(path));
    put(table, "authenticate", authenticate.source());
    put(table, "lookup", lookup.source());
    put_some(table, "rehash", rehash.as_ref().map(Template::source));
    put(table, "claims", texts(claims));
    put(table, "profile", texts(profile));
    put(table, "pool", number(*pool));
    put(table, "statement_cache", *statement_cache);
    super::hashes::print_expected(hashes, table);
}
