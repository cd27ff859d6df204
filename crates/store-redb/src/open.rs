//! Opens the file. The content is not trusted, and a refused file is not changed.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, StorageError, TableHandle,
};
use uuid::Uuid;

use super::schema::{
    BY_END, BY_SUBJECT, BY_UNTIL, COPYING_ROW, HEAD_ROW, LIVE, LOG, META, REVOCATIONS, SCHEMA, SCHEMA_ROW,
    SCHEMA_WITHOUT_LIVE, SESSIONS, StoreHead, Writing, failed, meta_row,
};
use super::staged::StagedFile;
use super::writer::MarkSchedule;
use super::{Options, copy};
use rotogate_core::clock::Timestamp;
use rotogate_core::private_file::{self, Unpublished};
use rotogate_core::random::random;
use rotogate_core::store::kit::encoding::decode;
use rotogate_core::store::kit::highwater::{self, HighWater, Mark, MarkVerdict};
use rotogate_core::store::rules::Failure;
use rotogate_core::store::{StoreError, WriteOutcome};

/// The free space that reopening needs, in bytes.
const MIN_FREE_BYTES: usize = 256 << 10;

pub(super) struct OpenedStore {
    pub(super) database: Database,
    pub(super) head: StoreHead,
    pub(super) marker: Option<MarkSchedule>,
    #[cfg(test)]
    pub(super) backend: StagedFile,
}

/// Opens the store at `path`. Creates a missing store, unless the mark shows that the store existed.
pub(super) fn open(path: &Path, options: &Options) -> Result<OpenedStore, StoreError> {
    let high_water = options.high_water.clone().map(HighWater::at);
    let mark = high_water.as_ref().map_or(Ok(None), HighWater::read)?;
    let judge = |found: Option<Mark>| {
        let verdict = MarkVerdict::compare(mark, found);
        match high_water.as_ref().and_then(|file| file.alarm(verdict, mark, path)) {
            Some(alarm) if options.accept_restored => {
                highwater::accept(&alarm);
                Ok(verdict)
            }
            Some(alarm) => Err(StoreError::new(alarm)),
            None => Ok(verdict),
        }
    };
    let (database, head, backend) = match std::fs::symlink_metadata(path) {
        Ok(_) => existing(path, options, judge)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            judge(None)?;
            new(path, options)?
        }
        Err(error) => return Err(cannot_open(path, error)),
    };
    let marker = match high_water {
        Some(file) => {
            // The sequence is durable, because it was read from the file or committed.
            file.write(Mark { store: head.store, sequence: head.sequence })?;
            Some(MarkSchedule::new(file, head.sequence))
        }
        None => {
            tracing::warn!(
                store = %path.display(),
                "the store has no high-water mark, so the gate would not notice if an older copy replaced the store, \
                 and would accept tokens that were revoked since. Set `Options::high_water` to a path beside the \
                 signing keys"
            );
            None
        }
    };
    #[cfg(not(test))]
    drop(backend);
    Ok(OpenedStore {
        database,
        head,
        marker,
        #[cfg(test)]
        backend,
    })
}

/// Reopens the same store after a failed write. No other database may have the file open.
pub(super) fn again(path: &Path, options: &Options, last: StoreHead) -> Result<OpenedStore, StoreError> {
    let file = private_file::open_private(path, false).map_err(|why| StoreError::new(format!("the store {why}")))?;
    // After a failed write, the page cache may contain data that is not on the disk. Dropping the cache forces reads
    // from the disk.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|error| cannot_open(path, error.into()))?;
    drop(file);
    let opened = open(path, options)?;
    if opened.head.store != last.store || opened.head.sequence < last.sequence {
        return Err(StoreError::new(format!(
            "the file {} is no longer the store that the gate opened",
            path.display()
        )));
    }
    let head = write(&opened.database, opened.head, |state| {
        state.touch();
        Ok(())
    })?;
    Ok(OpenedStore { head, ..opened })
}

pub(super) fn has_room(path: &Path) -> Result<(), StoreError> {
    use std::io::Write;
    let write = || {
        let (_removed, mut file) = Unpublished::beside(path)?;
        file.write_all(&vec![0xa5; MIN_FREE_BYTES])?;
        file.sync_all()
    };
    write().map_err(|error| {
        let text = format!("the disk has no room for a change to the store {}: {error}", path.display());
        StoreError::caused_by(text, error)
    })
}

pub(super) fn view(path: &Path, cache_size: usize) -> Result<Database, StoreError> {
    let (database, _, _) = examine(path, cache_size, 0, |_, _| Ok(()))?;
    Ok(database)
}

/// Opens a store to read it completely. Verifies the store in full, without changing the file.
pub(super) fn untouched(path: &Path, cache_size: usize) -> Result<Database, StoreError> {
    let (database, _, _) = examine(path, cache_size, u64::MAX, |_, _| Ok(()))?;
    Ok(database)
}

fn existing(
    path: &Path,
    options: &Options,
    judge: impl Fn(Option<Mark>) -> Result<MarkVerdict, StoreError>,
) -> Result<(Database, StoreHead, StagedFile), StoreError> {
    let (database, (mut head, verdict), backend) =
        examine(path, options.cache_size, options.check_up_to, |head, copying| {
            may_open(path, options, copying)?;
            if head.keyring != options.keyring_id {
                return Err(StoreError::new(format!(
                    "{} belongs to keyring {}, but the gate uses keyring {}, so it could not verify the refresh \
                     tokens of the store's sessions. Point `[issuer] keys` at the keyring of this store, or `[store] \
                     path` at the store of this keyring",
                    path.display(),
                    head.keyring,
                    options.keyring_id
                )));
            }
            let verdict = judge(Some(Mark { store: head.store, sequence: head.sequence }))?;
            Ok((*head, verdict))
        })?;
    backend.release().map_err(|error| cannot_open(path, error))?;
    if !has_live(&database)? {
        tracing::info!(store = %path.display(), "store of an earlier version: counting the live sessions in the store");
        head = write(&database, head, |state| state.fill_live())?;
    }
    if let MarkVerdict::Behind(_) | MarkVerdict::Another(_) = verdict {
        head = write(&database, head, |state| {
            // The store gets a new name, so that the newer original does not match the mark.
            if let MarkVerdict::Behind(_) = verdict {
                state.rename(random_id()?);
            }
            state.touch();
            Ok(())
        })?;
    }
    Ok((database, head, backend))
}

/// Refuses an unfinished copy, unless this call continues it.
fn may_open(path: &Path, options: &Options, copying: Option<String>) -> Result<(), StoreError> {
    let shown = path.display();
    let why = match (copying, &options.copying) {
        (None, None) => return Ok(()),
        (Some(of), Some(from)) if of == *from => return Ok(()),
        (Some(_), Some(_)) => format!("{shown} is an unfinished copy of another store: remove it, or use another path"),
        (Some(_), None) => {
            format!("{shown} is an unfinished copy: run `rotogate store copy` again, or use another path")
        }
        (None, Some(_)) => format!("{shown} already has data: copy into a new file"),
    };
    Err(StoreError::new(why).with_outcome(WriteOutcome::Refused))
}

/// Opens a file without writing to it, and passes its head to `judge`.
fn examine<T>(
    path: &Path,
    cache_size: usize,
    check_up_to: u64,
    judge: impl FnOnce(&StoreHead, Option<String>) -> Result<T, StoreError>,
) -> Result<(Database, T, StagedFile), StoreError> {
    let file = private_file::open_private(path, true).map_err(|why| StoreError::new(format!("the store {why}")))?;
    let metadata = file.metadata().map_err(|error| cannot_open(path, error))?;
    if metadata.len() == 0 {
        return Err(not_ours(path, "it is empty"));
    }
    let backend = StagedFile::holding(file).map_err(|error| unusable(path, error))?;
    let for_redb = backend.clone();
    // redb may panic if a file was crafted by an attacker.
    let examined = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = Builder::new();
        builder.set_cache_size(cache_size);
        let shown = path.display().to_string();
        builder.set_repair_callback(move |progress| {
            let progress = progress.progress();
            tracing::info!(store = %shown, progress, "the store was not closed cleanly: recovering");
        });
        let mut database = builder.create_with_backend(for_redb).map_err(|error| unusable(path, error))?;
        if metadata.len() <= check_up_to && !database.check_integrity().map_err(|error| unusable(path, error))? {
            return Err(not_ours(path, "its checksums are wrong"));
        }
        let read = database.begin_read().map_err(failed)?;
        let head = inspect(path, &read)?;
        drop(read);
        let judged = judge(&head, copy::copying(&database)?)?;
        Ok((database, judged))
    }));
    let (database, judged) = examined.unwrap_or_else(|_| Err(not_ours(path, "its content is invalid")))?;
    Ok((database, judged, backend))
}

fn has_live(database: &Database) -> Result<bool, StoreError> {
    Ok(meta_row(database, SCHEMA_ROW)?.is_some_and(|schema| schema == SCHEMA.to_be_bytes()))
}

/// Checks that rotogate created the tables.
fn inspect(path: &Path, read: &ReadTransaction) -> Result<StoreHead, StoreError> {
    let tables: Vec<_> = read.list_tables().map_err(failed)?.map(|table| table.name().to_owned()).collect();
    if !tables.iter().any(|name| name == META.name()) {
        return Err(not_ours(path, "it is a redb file of some other program"));
    }
    let meta = read.open_table(META).map_err(|error| not_ours(path, error))?;
    let row = |name| meta.get(name).map_err(failed);
    let schema = row(SCHEMA_ROW)?.ok_or_else(|| not_ours(path, "it has no schema version"))?;
    let schema = <[u8; 4]>::try_from(schema.value()).map_err(|_| not_ours(path, "its schema version is unreadable"))?;
    let schema = u32::from_be_bytes(schema);
    if schema != SCHEMA && schema != SCHEMA_WITHOUT_LIVE {
        return Err(StoreError::new(format!(
            "{} has schema version {schema}, but this program knows only versions up to {SCHEMA}. The file was left \
             as it is: use the version of rotogate that wrote it",
            path.display()
        )));
    }
    let head = row(HEAD_ROW)?.ok_or_else(|| not_ours(path, "it has no head"))?;
    let head = decode(format_args!("the head of {}", path.display()), head.value())?;
    read.open_table(SESSIONS).map_err(|error| not_ours(path, error))?;
    read.open_table(BY_SUBJECT).map_err(|error| not_ours(path, error))?;
    if schema == SCHEMA {
        read.open_table(LIVE).map_err(|error| not_ours(path, error))?;
    }
    read.open_table(BY_END).map_err(|error| not_ours(path, error))?;
    read.open_table(REVOCATIONS).map_err(|error| not_ours(path, error))?;
    read.open_table(BY_UNTIL).map_err(|error| not_ours(path, error))?;
    read.open_table(LOG).map_err(|error| not_ours(path, error))?;
    Ok(head)
}

/// Creates a store under a temporary name. The file gets its final name once the store is complete.
fn new(path: &Path, options: &Options) -> Result<(Database, StoreHead, StagedFile), StoreError> {
    private_file::create_private_dir(private_file::parent(path)).map_err(|error| cannot_open(path, error))?;
    let (unpublished, file) = Unpublished::beside(path).map_err(|error| cannot_open(path, error))?;
    let (database, backend) = create(file, options.cache_size).map_err(|error| unusable(path, error))?;
    let empty = StoreHead {
        store: random_id()?,
        keyring: options.keyring_id,
        sequence: 0,
        revocations: 0,
        last_known_time: Timestamp::ZERO,
    };
    let head = write(&database, empty, |state| {
        if let Some(from) = &options.copying {
            state.set_text(COPYING_ROW, Some(from))?;
        }
        state.found()
    })?;
    unpublished.publish_new(path).map_err(|error| cannot_open(path, error))?;
    tracing::info!(store = %path.display(), id = %head.store, "store created");
    Ok((database, head, backend))
}

pub(super) fn create(file: std::fs::File, cache_size: usize) -> Result<(Database, StagedFile), DatabaseError> {
    let backend = StagedFile::through(file)?;
    let database = Builder::new().set_cache_size(cache_size).create_with_backend(backend.clone())?;
    Ok((database, backend))
}

fn write(
    database: &Database,
    head: StoreHead,
    work: impl FnOnce(&mut Writing<'_>) -> Result<(), Failure>,
) -> Result<StoreHead, StoreError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(Durability::Immediate).map_err(failed)?;
    let mut state = Writing::open(&transaction, head).map_err(failed)?;
    let head = work(&mut state).and_then(|()| state.finish())?;
    transaction.commit().map_err(failed)?;
    head.ok_or_else(|| StoreError::new("the store is damaged: its main record is missing"))
}

fn random_id() -> Result<Uuid, Failure> {
    let random = random::<16>().map_err(|error| Failure::Broken(StoreError::new(error.to_string())))?;
    Ok(uuid::Builder::from_random_bytes(*random).into_uuid())
}

fn cannot_open(path: &Path, error: std::io::Error) -> StoreError {
    let shown = path.display();
    StoreError::caused_by(format!("the store {shown} cannot be opened: {error}"), error)
}

fn not_ours(path: &Path, why: impl std::fmt::Display) -> StoreError {
    StoreError::new(format!(
        "{} is not a store of rotogate, or is damaged: {why}. The file was left as it was. Check `[store] path`. If \
         the path is right, replace the file with the latest backup, or move the file away to start with an empty \
         store, which ends every session. In both cases, run `rotogate store accept-restored` once",
        path.display()
    ))
}

fn unusable(path: &Path, error: DatabaseError) -> StoreError {
    let shown = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::new(format!(
            "the store {shown} is in use by another process: first stop the gate that uses the store. (`rotogate \
             store backup` copies a store while its gate runs.)"
        )),
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            cannot_open(path, error)
        }
        other => not_ours(path, other),
    }
}
