//! A store of your own: sessions and revocations in SQLite. `rotogate::store::rules` decides, the tables are here.
//!
//! ```sh
//! cargo run --example store
//! ```
//!
//! One gate in one process may use it: a gate reads the revocations of others at its start alone.

use std::error::Error;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rotogate::clock::Timestamp;
use rotogate::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate::store::rules::{Failure, Rules, State};
use rotogate::store::{
    Cursor, Filter, Inserted, Page, Revocation, Store, StoreError, SubjectBound, Swap, Swept, Target,
};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS sessions (
        id BLOB PRIMARY KEY, subject TEXT NOT NULL, ends INTEGER NOT NULL, live INTEGER, record TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS of_subject ON sessions (subject, id);
    CREATE INDEX IF NOT EXISTS by_end ON sessions (ends);
    CREATE TABLE IF NOT EXISTS revocations (
        place INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT NOT NULL UNIQUE, until INTEGER NOT NULL, entry TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS by_until ON revocations (until);
    CREATE TABLE IF NOT EXISTS times (last_known INTEGER NOT NULL);
    INSERT INTO times SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM times);
";

/// Sessions and revocations in a file of SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    rules: Rules,
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// `issuer` is that of the gate, `leeway` too.
    pub fn open(path: &Path, issuer: &str, leeway: Duration) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        Ok(Self { rules: Rules::new(issuer, leeway), connection: Mutex::new(connection) })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic left behind was rolled back when it was dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does work in a transaction, which is durable when this returns `Ok`. SQLite blocks, so the runtime makes room for it.
    fn transact<T>(&self, work: impl FnOnce(&Rules, &mut Tables<'_>) -> Result<T, Failure>) -> Result<T, StoreError> {
        tokio::task::block_in_place(|| {
            let mut connection = self.connection();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            let mut tables = Tables(transaction);
            // Dropped without a commit, it is rolled back.
            let done = work(&self.rules, &mut tables)?;
            tables.0.commit().map_err(failed)?;
            Ok(done)
        })
    }
}

fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::caused_by("SQLite failed", error)
}

fn broken(error: rusqlite::Error) -> Failure {
    Failure::Broken(failed(error))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::caused_by("a row cannot be read", error))
}

fn write(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::Refused(StoreError::caused_by("a row cannot be written", error)))
}

/// SQLite has signed integers; no time of a gate lies beyond them, but "never" does.
fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> Timestamp {
    if millis == i64::MAX { Timestamp::MAX } else { Timestamp::from_millis(millis.unsigned_abs()) }
}

/// The tables inside one transaction.
struct Tables<'c>(Transaction<'c>);

impl Tables<'_> {
    fn end(&self, query: &str, subject: Option<&str>) -> Result<Timestamp, Failure> {
        let end: Option<i64> = match subject {
            Some(subject) => self.0.query_row(query, [subject], |row| row.get(0)),
            None => self.0.query_row(query, [], |row| row.get(0)),
        }
        .map_err(broken)?;
        Ok(end.map_or(Timestamp::ZERO, time))
    }
}

impl State for Tables<'_> {
    fn session(&self, id: SessionId) -> Result<Option<Session>, Failure> {
        let row = self.0.query_row("SELECT record FROM sessions WHERE id = ?", [id.as_bytes()], |row| row.get(0));
        let text: Option<String> = row.optional().map_err(broken)?;
        text.map(|text| read(&text)).transpose().map_err(Failure::Refused)
    }

    fn revocation(&self, target: &Target) -> Result<Option<Revocation>, Failure> {
        let query = "SELECT entry FROM revocations WHERE target = ?";
        let row = self.0.query_row(query, [write(target)?], |row| row.get(0));
        let text: Option<String> = row.optional().map_err(broken)?;
        text.map(|text| read(&text)).transpose().map_err(Failure::Refused)
    }

    fn end_of_subject(&self, subject: &str) -> Result<Timestamp, Failure> {
        self.end("SELECT max(ends) FROM sessions WHERE subject = ?", Some(subject))
    }

    fn end_of_all(&self) -> Result<Timestamp, Failure> {
        self.end("SELECT max(ends) FROM sessions", None)
    }

    fn live_of(&self, subject: &str, limit: usize) -> Result<Vec<(SessionId, Timestamp)>, Failure> {
        let query = "SELECT id, live FROM sessions WHERE subject = ? AND live IS NOT NULL ORDER BY id LIMIT ?";
        let mut statement = self.0.prepare_cached(query).map_err(broken)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![subject, limit], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?)));
        rows.map_err(broken)?
            .map(|row| row.map(|(id, end)| (SessionId::from_bytes(id), time(end))).map_err(broken))
            .collect()
    }

    fn forget_live(&mut self, _: &str, id: SessionId) -> Result<(), Failure> {
        self.0.execute("UPDATE sessions SET live = NULL WHERE id = ?", [id.as_bytes()]).map(drop).map_err(broken)
    }

    fn put_session(&mut self, _: Option<&Session>, new: &Session) -> Result<(), Failure> {
        let live = (!new.is_revoked()).then_some(millis(new.expires));
        let row = params![new.id.as_bytes(), &*new.subject, millis(new.ends_at()), live, write(new)?];
        self.0.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", row).map(drop).map_err(broken)
    }

    fn put_revocation(&mut self, entry: &Revocation) -> Result<(), Failure> {
        // A row that is replaced moves to the end of the sequence.
        let row = params![write(&entry.target)?, millis(entry.until), write(entry)?];
        let query = "INSERT OR REPLACE INTO revocations (target, until, entry) VALUES (?, ?, ?)";
        self.0.execute(query, row).map(drop).map_err(broken)
    }

    fn raise_time(&mut self, time: Timestamp) -> Result<(), Failure> {
        let query = "UPDATE times SET last_known = max(last_known, ?)";
        self.0.execute(query, [millis(time)]).map(drop).map_err(broken)
    }

    fn remove_ended(&mut self, before: Timestamp, limit: usize) -> Result<Swept, Failure> {
        let row = params![millis(before), i64::try_from(limit).unwrap_or(i64::MAX)];
        let sessions = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE ends < ? LIMIT ?)";
        let revocations =
            "DELETE FROM revocations WHERE place IN (SELECT place FROM revocations WHERE until < ? LIMIT ?)";
        Ok(Swept {
            sessions: self.0.execute(sessions, row).map_err(broken)? as u64,
            revocations: self.0.execute(revocations, row).map_err(broken)? as u64,
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.transact(|_, tables| tables.session(id))
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        self.transact(|rules, tables| rules.insert(tables, &session, bound))
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        self.transact(|rules, tables| rules.compare_and_swap(tables, expected, &record, revocation.as_ref()))
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        self.transact(|rules, tables| rules.revoke(tables, entry, because))
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        self.transact(|rules, tables| rules.confirm(tables, &seen))
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        let mut end = cursor.place()?;
        let after = i64::try_from(end).unwrap_or(i64::MAX);
        let connection = self.connection();
        let query = "SELECT place, entry FROM revocations WHERE place > ? ORDER BY place";
        let mut statement = connection.prepare_cached(query).map_err(failed)?;
        let rows = statement.query_map([after], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
        let mut entries = Vec::new();
        for row in rows.map_err(failed)? {
            let (place, entry) = row.map_err(failed)?;
            entries.push(read(&entry)?);
            end = place.unsigned_abs();
        }
        Ok((entries, Cursor::from_place(end)))
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        let limit = Rules::page_size(limit);
        let after = after.map_or(Vec::new(), |id| id.as_bytes().to_vec());
        let subject = match &filter {
            Filter::All => None,
            Filter::Subject(subject) => Some(&**subject),
        };
        let connection = self.connection();
        let query = "SELECT record FROM sessions WHERE id > ?1 AND (?2 IS NULL OR subject = ?2) ORDER BY id LIMIT ?3";
        let mut statement = connection.prepare_cached(query).map_err(failed)?;
        let one_more = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
        let rows = statement.query_map(params![after, subject, one_more], |row| row.get::<_, String>(0));
        let mut sessions: Vec<Session> = Vec::new();
        for row in rows.map_err(failed)? {
            sessions.push(read(&row.map_err(failed)?)?);
        }
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        Ok(Page { next: sessions.last().map(|session| session.id).filter(|_| more), sessions })
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        let mut total = Swept::default();
        loop {
            let step = self.transact(|rules, tables| rules.sweep_step(tables, now))?;
            if step == Swept::default() {
                return Ok(total);
            }
            total.sessions += step.sessions;
            total.revocations += step.revocations;
            tokio::task::yield_now().await;
        }
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        let row = self.connection().query_row("SELECT last_known FROM times", [], |row| row.get(0));
        Ok(time(row.map_err(failed)?))
    }

    async fn check(&self) -> Result<(), StoreError> {
        // A write, if only of nothing: a full disk or a file that is read-only shows.
        self.transact(|_, tables| tables.raise_time(Timestamp::ZERO))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    use rotogate::Gate;
    use rotogate::client::Client;
    use rotogate::gate::NewSession;
    use rotogate::token::Keyring;

    const ISSUER: &str = "https://api.example.com";
    let file = std::env::temp_dir().join("rotogate-sessions.sqlite");
    let gate = Gate::builder()
        .issuer(ISSUER)
        // In earnest keys from files (`Keyring::load_or_create`): tokens of other keys are of no use to a later process.
        .keys(Keyring::ephemeral()?)
        .client(Client::public("web"))
        .store(SqliteStore::open(&file, ISSUER, Gate::DEFAULT_LEEWAY)?)
        .build()
        .await?;
    gate.sessions().start(NewSession::new("ada", "web")).await?;
    let sessions = gate.sessions().list(Filter::Subject("ada".into()), None, 100).await?;
    println!("{} sessions of ada in {}", sessions.sessions.len(), file.display());
    gate.flush().await?;
    Ok(())
}
