//! SQLite, on threads for blocking work.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Pool, PoolError, RecycleError};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::time::timeout;

use super::super::{Cause, SourceError};
use super::row::{Field, Row};
use super::{ACQUIRE_TIMEOUT, Prepared, STATEMENT_TIMEOUT, Statement};

pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Opener {
    path: PathBuf,
    writes: bool,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    /// The device and inode of the file, read just before the file was opened.
    file: Option<(u64, u64)>,
}

fn file(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

impl managed::Manager for Opener {
    type Type = Session;
    type Error = SourceError;

    async fn create(&self) -> Result<Session, SourceError> {
        let path = self.path.clone();
        let access = if self.writes { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        blocking(move || {
            let file = file(&path);
            let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            Ok(Session { connection, file })
        })
        .await
    }

    async fn recycle(&self, session: &mut Session, _: &managed::Metrics) -> managed::RecycleResult<SourceError> {
        // Checks whether the open file was removed or replaced.
        let is_there = session.file.is_some() && session.file == file(&self.path);
        if is_there { Ok(()) } else { Err(RecycleError::message("the file of the database was replaced or removed")) }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| fault(&error)),
        Err(_) => Err(SourceError::new(Cause::Panic, "a statement did not finish")),
    }
}

fn fault(error: &rusqlite::Error) -> SourceError {
    let cause = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OperationInterrupted) => Cause::Timeout,
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => Cause::Connect,
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => Cause::Entry,
        // The statement is valid, but failed for this user's values.
        Some(ErrorCode::Unknown) if matches!(error, rusqlite::Error::SqliteFailure(..)) => Cause::Entry,
        Some(_) | None => Cause::Refused,
    };
    let message = match error {
        // The full error would contain the statement.
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    SourceError::new(cause, message)
}

#[derive(Debug)]
pub(super) struct Sqlite {
    pool: Pool<Opener>,
}

impl Sqlite {
    pub(super) fn new(path: PathBuf, writes: bool, pool: usize) -> Result<Self, String> {
        let pool = Pool::builder(Opener { path, writes })
            .max_size(pool)
            .runtime(deadpool::Runtime::Tokio1)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .create_timeout(Some(ACQUIRE_TIMEOUT))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { pool })
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SourceError> {
        let session = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            other => SourceError::new(Cause::Timeout, other.to_string()),
        })?;
        let interrupt = session.connection.get_interrupt_handle();
        let done = timeout(STATEMENT_TIMEOUT, blocking(move || work(&session.connection))).await;
        done.unwrap_or_else(|_| {
            interrupt.interrupt();
            Err(SourceError::new(Cause::Timeout, "the statement took too long"))
        })
    }

    pub(super) async fn query(
        &self,
        statement: &Arc<Statement>,
        values: Vec<Option<String>>,
    ) -> Result<Vec<Row>, SourceError> {
        let statement = Arc::clone(statement);
        self.with(move |connection| {
            let mut prepared = connection.prepare_cached(&statement.text)?;
            let names: Vec<String> = prepared.column_names().map(str::to_owned).collect();
            let mut rows = prepared.query(rusqlite::params_from_iter(values))?;
            let mut found = Vec::new();
            while found.len() < 2
                && let Some(row) = rows.next()?
            {
                let mut fields = Vec::with_capacity(names.len());
                for (index, name) in names.iter().enumerate() {
                    fields.push((name.clone(), field(row.get_ref(index)?)));
                }
                found.push(Row(fields));
            }
            Ok(found)
        })
        .await
    }

    pub(super) async fn execute(
        &self,
        statement: &Arc<Statement>,
        values: Vec<Option<String>>,
    ) -> Result<u64, SourceError> {
        let statement = Arc::clone(statement);
        let changed = self
            .with(move |connection| {
                connection.prepare_cached(&statement.text)?.execute(rusqlite::params_from_iter(values))
            })
            .await?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    pub(super) async fn prepare(&self, statement: &Arc<Statement>) -> Result<Prepared, SourceError> {
        let statement = Arc::clone(statement);
        self.with(move |connection| {
            let prepared = connection.prepare(&statement.text)?;
            let columns = prepared.column_names().map(|name| (name.to_owned(), None)).collect();
            Ok(Prepared { parameters: vec![String::new(); prepared.parameter_count()], columns })
        })
        .await
    }
}

fn field(value: ValueRef<'_>) -> Field {
    match value {
        ValueRef::Null => Field::Null,
        ValueRef::Integer(number) => Field::Integer(number),
        ValueRef::Real(number) => serde_json::Number::from_f64(number).map_or(Field::Null, |n| Field::Json(n.into())),
        ValueRef::Text(text) | ValueRef::Blob(text) => Field::Text(String::from_utf8_lossy(text).into_owned()),
    }
}
