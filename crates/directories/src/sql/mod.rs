//! Users in PostgreSQL or SQLite, found by configured SQL statements.

mod postgres;
mod row;
mod sqlite;
pub mod table;
pub mod template;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::{Manager, Object, Pool, PoolError};
use secrecy::{ExposeSecret, SecretString};

use super::{Cause, ExpectedHash, Found, Login, LoginAttempt, Source, SourceError};
use crate::username::composed;
use postgres::Postgres;
use rotogate_core::directory::User;
use rotogate_core::password::{CostClass, SecretHash};
use rotogate_core::private_file::read_private;
use rotogate_kit::upstream_tls::UpstreamTls;
use row::Row;
use sqlite::Sqlite;
use template::{Param, PlaceholderStyle, Template};

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The source of the database URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// The URL itself, without a password.
    Plain(String),
    /// A private file with the URL.
    File(PathBuf),
}

/// The settings of `[directory]` with `kind = "sql"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlSettings {
    /// The database.
    pub url: DatabaseUrl,
    /// The folder for relative SQLite paths.
    pub folder: PathBuf,
    /// The file with the accepted CA certificates, or `None` for the system's.
    pub ca: Option<PathBuf>,
    /// The statement that finds a user for a login.
    pub authenticate: Template,
    /// The statement that finds a user by subject.
    pub lookup: Template,
    /// The statement that replaces an outdated hash.
    pub rehash: Option<Template>,
    /// The columns that become claims.
    pub claims: Vec<String>,
    /// The columns that become profile fields for dialects.
    pub profile: Vec<String>,
    /// The maximum number of connections.
    pub pool: usize,
    /// Whether each connection keeps its prepared statements.
    pub statement_cache: bool,
    /// The expected hash schemes.
    pub hashes: Vec<ExpectedHash>,
}

fn pool<M: Manager>(connector: M, size: usize) -> Result<Pool<M>, String> {
    Pool::builder(connector)
        .max_size(size)
        .runtime(deadpool::Runtime::Tokio1)
        .wait_timeout(Some(ACQUIRE_TIMEOUT))
        .recycle_timeout(Some(ACQUIRE_TIMEOUT))
        .build()
        .map_err(|error| error.to_string())
}

async fn session<M: Manager<Error = SourceError>>(pool: &Pool<M>) -> Result<Object<M>, SourceError> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => error,
        other => SourceError::new(Cause::Timeout, other.to_string()),
    })
}

impl SqlSettings {
    /// The default of `pool`.
    pub const POOL: usize = 8;

    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        let url = match &self.url {
            DatabaseUrl::Plain(_) => None,
            DatabaseUrl::File(path) => Some(("url_file", path.as_path())),
        };
        url.into_iter().chain(self.ca.as_deref().map(|ca| ("ca", ca))).collect()
    }
}

#[derive(Clone, Debug, Default)]
struct Columns {
    claims: Vec<String>,
    profile: Vec<String>,
    /// Whether the lookup returns the hash, so that a changed password is detected.
    is_marked: bool,
}

impl Columns {
    /// Column names must be unique, or the gate could read the wrong column.
    fn check<'a>(&self, names: &(impl Iterator<Item = &'a str> + Clone)) -> Result<(), SourceError> {
        let listed = self.claims.iter().chain(&self.profile).map(String::as_str);
        for name in row::FIXED.into_iter().chain(listed) {
            if names.clone().filter(|other| other.eq_ignore_ascii_case(name)).count() > 1 {
                let message = format!("several columns are called {name}; select fewer, or rename one with AS");
                return Err(SourceError::new(Cause::Entry, message));
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Statement {
    text: String,
    params: Vec<Param>,
}

impl Statement {
    fn render(template: &Template, placeholder: PlaceholderStyle) -> Arc<Self> {
        Arc::new(Self { text: template.render(placeholder), params: template.params().collect() })
    }
}

struct Prepared {
    parameters: Vec<String>,
    columns: Vec<(String, Option<String>)>,
}

#[derive(Debug)]
enum Database {
    Postgres(Postgres),
    Sqlite(Sqlite),
}

enum Target {
    Postgres(Vec<tokio_postgres::Config>),
    Sqlite(PathBuf),
}

impl Target {
    fn parse(url: &str, settings: &SqlSettings) -> Result<Self, String> {
        let scheme = url.split_once(':').map(|(scheme, _)| scheme);
        match scheme {
            Some("postgres" | "postgresql") => postgres::configs(url, settings.statement_cache).map(Self::Postgres),
            Some("sqlite") => table::sqlite_path(url, &settings.folder).map(Self::Sqlite).ok_or_else(|| {
                "is not the path of an SQLite file; expected sqlite:users.db or sqlite:///var/users.db".to_owned()
            }),
            Some(_) | None => Err("is not the URL of a supported database; expected postgres:// or sqlite:, or \
                                   kind = \"http\" for any other database (docs/directories.md)"
                .to_owned()),
        }
    }
}

/// Returns whether a URL contains a password.
pub fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || url.contains("password=")
}

/// Checks that a URL names a supported database.
///
/// # Errors
/// Describes the problem without quoting the URL.
pub fn check_url(url: &str, settings: &SqlSettings) -> Result<(), String> {
    Target::parse(url, settings).map(|_| ())
}

/// A database as a source of users.
#[derive(Debug)]
pub struct SqlSource {
    database: Database,
    authenticate: Arc<Statement>,
    lookup: Arc<Statement>,
    rehash: Option<Arc<Statement>>,
    columns: Columns,
    hashes: Vec<CostClass>,
}

impl SqlSource {
    /// Reads the files named in the settings, without connecting. `timeout` is the time limit of a request.
    ///
    /// # Errors
    /// Returns the invalid configuration key and a description of the problem.
    pub fn open(settings: &SqlSettings, timeout: Duration) -> Result<Self, (&'static str, String)> {
        let (key, url) = match &settings.url {
            DatabaseUrl::Plain(url) => ("url", SecretString::from(url.clone())),
            DatabaseUrl::File(path) => ("url_file", read_url(path).map_err(|error| ("url_file", error))?),
        };
        let in_file = |message: String| match &settings.url {
            DatabaseUrl::Plain(_) => (key, message),
            DatabaseUrl::File(path) => (key, format!("{}: {message}", path.display())),
        };
        let target = Target::parse(url.expose_secret(), settings).map_err(in_file)?;
        let SqlSettings { authenticate, lookup, rehash, claims, profile, pool, statement_cache, .. } = settings;
        let (database, placeholder): (_, PlaceholderStyle) = match target {
            Target::Postgres(hosts) => {
                let tls = UpstreamTls { ca: settings.ca.clone(), ..UpstreamTls::default() };
                let tls = tls.load().map_err(|bad| ("ca", bad.message))?;
                let opened = Postgres::new(hosts, tls, *statement_cache, *pool, timeout).map_err(in_file)?;
                (Database::Postgres(opened), |number| format!("${number}"))
            }
            Target::Sqlite(path) => {
                let opened = Sqlite::new(path, rehash.is_some(), *pool).map_err(in_file)?;
                (Database::Sqlite(opened), |number| format!("?{number}"))
            }
        };
        Ok(Self {
            database,
            hashes: settings.hashes.iter().map(|hash| hash.class).collect(),
            authenticate: Statement::render(authenticate, placeholder),
            lookup: Statement::render(lookup, placeholder),
            rehash: rehash.as_ref().map(|template| Statement::render(template, placeholder)),
            columns: Columns {
                claims: claims.clone(),
                profile: profile.clone(),
                is_marked: lookup.mentions("password_hash"),
            },
        })
    }

    async fn one(
        &self,
        statement: &Arc<Statement>,
        value: impl Fn(Param) -> Option<String>,
    ) -> Result<Option<Row>, SourceError> {
        let values = statement.params.iter().map(|param| value(*param)).collect();
        let mut rows = match &self.database {
            Database::Postgres(database) => database.query(statement, values).await?,
            Database::Sqlite(database) => database.query(statement, values).await?,
        };
        match (rows.pop(), rows.pop()) {
            (row, None) => Ok(row),
            (_, Some(_)) => Err(SourceError::new(Cause::Entry, "the statement returned more than one user")),
        }
    }
}

/// Returns whether an SQLSTATE is caused by this user's values. Classes: 21 cardinality, 22 data, 23 constraint, P0
/// PL/pgSQL.
fn is_of_values(state: &str) -> bool {
    ["21", "22", "23", "P0"].iter().any(|class| state.starts_with(class))
}

fn read_url(path: &Path) -> Result<SecretString, String> {
    let text = read_private(path)?;
    let url = text.trim();
    if url.is_empty() || url.contains(char::is_control) {
        return Err(format!(
            "{}: expected one line with a URL such as postgres://user:password@host/db",
            path.display()
        ));
    }
    Ok(SecretString::from(url.to_owned()))
}

#[async_trait]
impl Source for SqlSource {
    fn kind(&self) -> &'static str {
        "sql"
    }

    async fn authenticate(&self, login: &LoginAttempt) -> Result<Login, SourceError> {
        let row = async |username: &str| {
            let value = |param| match param {
                Param::Username => Some(username.to_owned()),
                Param::Account => login.account.clone(),
                Param::Subject | Param::OldHash | Param::NewHash => None,
            };
            self.one(&self.authenticate, value).await
        };
        let mut row_of_user = row(&login.username).await?;
        // Without the second query, the duration would reveal whether the first spelling exists.
        if let Cow::Owned(composed) = composed(&login.username) {
            let second = row(&composed).await?;
            row_of_user = row_of_user.or(second);
        }
        let row = row_of_user;
        let user = row.map_or(Ok(None), |row| row.hashed_user(&self.columns))?;
        Ok(Login::Hashed(user))
    }

    async fn lookup(&self, _: Option<&str>, subject: &str) -> Result<Option<User>, SourceError> {
        let row = self.one(&self.lookup, |_| Some(subject.to_owned())).await?;
        row.map(|row| row.looked_up(&self.columns)).transpose()
    }

    fn expected_hashes(&self) -> &[CostClass] {
        &self.hashes
    }

    fn rehashes(&self) -> bool {
        self.rehash.is_some()
    }

    async fn rehash(&self, subject: &str, old: &SecretHash, new: &SecretHash) -> Result<bool, SourceError> {
        let Some(statement) = &self.rehash else { return Ok(false) };
        let value = |param: &Param| match param {
            Param::Subject => Some(subject.to_owned()),
            Param::OldHash => Some(old.expose().to_owned()),
            Param::NewHash => Some(new.expose().to_owned()),
            Param::Username | Param::Account => None,
        };
        let values = statement.params.iter().map(value).collect();
        let changed = match &self.database {
            Database::Postgres(database) => database.execute(statement, values).await?,
            Database::Sqlite(database) => database.execute(statement, values).await?,
        };
        match changed {
            0 | 1 => Ok(changed == 1),
            more => Err(SourceError::new(
                Cause::Entry,
                format!("`rehash` changed {more} rows, but must change the row of one user"),
            )),
        }
    }

    fn close_idle(&self) {
        match &self.database {
            Database::Postgres(database) => database.close_idle(),
            // An SQLite file needs no reconnection.
            Database::Sqlite(_) => {}
        }
    }

    async fn inspect(&self) -> Result<Found, SourceError> {
        let mut found = Found::default();
        let all = [
            ("authenticate", Some(&self.authenticate)),
            ("lookup", Some(&self.lookup)),
            ("rehash", self.rehash.as_ref()),
        ];
        for (name, statement) in all.into_iter().filter_map(|(name, statement)| Some((name, statement?))) {
            let prepared = match &self.database {
                Database::Postgres(database) => database.prepare(statement).await,
                Database::Sqlite(database) => database.prepare(statement).await,
            };
            let Prepared { parameters, columns } =
                prepared.map_err(|error| SourceError::new(error.cause, format!("{name}: {error}")))?;
            if parameters.len() != statement.params.len() {
                let message = format!(
                    "{name}: the database does not treat each value in braces as a parameter; move the value out of \
                     the comment or the quotes"
                );
                return Err(SourceError::new(Cause::Answer, message));
            }
            let types = parameters.join(", ");
            let of = if types.trim_matches([',', ' ']).is_empty() { String::new() } else { format!(" ({types})") };
            if name != "rehash" {
                let names = columns.iter().map(|(column, _)| column.as_str());
                let checked = self.columns.check(&names);
                checked.map_err(|error| SourceError::new(Cause::Answer, format!("{name}: {error}")))?;
                if !names.clone().any(|column| column.eq_ignore_ascii_case("account")) {
                    found.lacks_account.get_or_insert(name);
                }
            }
            let shown = columns.into_iter().map(|(column, kind)| match kind {
                Some(kind) => format!("{column} {kind}"),
                None => column,
            });
            found.lines.push(format!("{name}{of}: {}", shown.collect::<Vec<_>>().join(", ")));
        }
        Ok(found)
    }
}
