//! `rotogate store restore`: replaces the embedded store with a backup. No gate may run.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::output::Output;
use super::super::{CommandResult, Failure, audit_trail, keys, runtime};
use super::beside;
use crate::server::build::stores::redb_options;
use rotogate::store::redb::RedbStore;
use rotogate_config::Config;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::engine::api_keys::keys_by_secret;
use rotogate_core::private_file;
use rotogate_core::revocation::LONGEST_KEY;
use rotogate_core::session::RevokedBecause;
use rotogate_core::store::{Effect, Revocation, Store, StoreError, Target};
use rotogate_core::token::keyring::Keyring;

#[derive(Serialize)]
struct RestoreReport<'a> {
    store: &'a Path,
    from: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<PathBuf>,
    all_ended: bool,
    /// The number of live API keys in the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_keys: Option<u64>,
}

pub(super) fn run(config: &Config, path: &Path, from: &Path, end_all: bool, output: Output) -> CommandResult {
    let keyring = Keyring::load(&config.issuer.keys).map_err(Failure::failed)?;
    let _held = no_gate_runs(path)?;
    if is_same(path, from) {
        return Err(Failure::Failed(format!("{} is the store itself; name a back-up of it", from.display())));
    }
    let _trail = audit_trail(config)?;
    let part = beside(path, "restoring");
    let (kept, api_keys) = runtime()?.block_on(async {
        // An interrupted run may have left a partial copy.
        remove_part(&part)?;
        let restored = restore(config, &keyring, path, from, &part, end_all).await;
        // The copy has a second file, with revocations that are not in the store yet. `remove_part` removes both files.
        let removed = remove_part(&part);
        if restored.is_ok() {
            removed?;
        }
        restored
    })?;
    tracing::warn!(
        target: "rotogate::audit",
        event = "store_restored",
        from = %from.display(),
        all_ended = end_all,
        api_keys,
        "store restored from a back-up"
    );
    let report = RestoreReport { store: path, from, kept, all_ended: end_all, api_keys };
    output.write(&report, || {
        let RestoreReport { store, from, kept, .. } = &report;
        let kept = kept
            .as_ref()
            .map_or_else(String::new, |kept| format!("; the previous store was kept as {}", kept.display()));
        let (ended, keys) = if end_all {
            ("Every session, token and API key so far has ended: users must log in again", "ended")
        } else {
            (
                "Sessions, tokens and API keys that were revoked after the back-up are valid again. To end all of \
                 them, run `rotogate session revoke --all` when the gate runs, or restore with `--end-all`",
                "are valid, even if they were revoked after the back-up",
            )
        };
        let keys = api_keys.filter(|keys| *keys > 0).map_or_else(String::new, |n| format!(". {n} API keys {keys}"));
        format!("{} is restored from {}{kept}. {ended}{keys}", store.display(), from.display())
    })
}

async fn restore(
    config: &Config,
    keyring: &Keyring,
    path: &Path,
    from: &Path,
    part: &Path,
    end_all: bool,
) -> Result<(Option<PathBuf>, Option<u64>), Failure> {
    // The folder may be missing on a new machine.
    private_file::create_private_dir(private_file::parent(part)).map_err(|error| cannot(path, &error))?;
    RedbStore::backup_file(from, part).map_err(Failure::failed)?;
    let mut options = redb_options(config, keyring.id());
    let mark = options.high_water.take();
    options.accept_restored = true;
    // This call checks the keyring and the version before the old store is replaced.
    let store = RedbStore::open(part, options.clone()).map_err(Failure::failed)?;
    let keys = live_keys(config, &store).await;
    let ended = if end_all { end(config, &store).await } else { Ok(()) };
    store.close().await.map_err(Failure::failed)?;
    ended.map_err(Failure::failed)?;
    let keys = keys.map_err(Failure::failed)?;

    // From here on, a gate finds either the old or the new store. A gate refuses the new store until the mark file is
    // written.
    let kept = keep(path).map_err(|error| cannot(path, &error))?;
    fs::rename(part, path).map_err(|error| cannot(path, &error))?;
    let folder = private_file::parent(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| cannot(folder, &error))?;
    options.high_water = mark;
    let whole = RedbStore::open(path, options).map_err(Failure::failed)?;
    whole.close().await.map_err(Failure::failed)?;
    Ok((kept, keys))
}

async fn live_keys(config: &Config, store: &RedbStore) -> Result<Option<u64>, StoreError> {
    let (list, _) = store.revocations().await?;
    let keys = keys_by_secret(store, (&list, &config.issuer.url), SystemTime::new().wall()).await?;
    Ok(Some(keys.values().sum()))
}

/// Also ends sessions and tokens that are not in the backup.
async fn end(config: &Config, store: &RedbStore) -> Result<(), StoreError> {
    let moment = SystemTime::new().wall().max(store.last_known_time().await?);
    let longest = keys::longest_access(config).max(LONGEST_KEY.saturating_add(config.issuer.leeway));
    let everything =
        Revocation { target: Target::Global, effect: Effect::not_before(moment, true), until: moment.plus(longest) };
    store.revoke(everything, RevokedBecause::Operator).await.map(drop)
}

/// Fails if a gate runs. While the returned lock is held, no gate can start on this store.
fn no_gate_runs(path: &Path) -> Result<Option<File>, Failure> {
    if !path.exists() {
        return Ok(None);
    }
    let file = private_file::open_private(path, false).map_err(Failure::Failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Failure::Failed(format!(
            "{} is in use by a gate: stop the gate, restore the store, and start the gate again",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot(path, &error)),
    }
}

/// Keeps the store under a name that contains the time, with a number if the name is taken.
fn keep(path: &Path) -> io::Result<Option<PathBuf>> {
    let name = format!("replaced-{}", SystemTime::new().wall().as_secs());
    for number in 1.. {
        let kept = beside(path, &if number == 1 { name.clone() } else { format!("{name}-{number}") });
        match fs::hard_link(path, &kept) {
            Ok(()) => return Ok(Some(kept)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // On a file system without hard links, the store is renamed. The rename must not replace a store that was
            // kept earlier.
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                if fs::symlink_metadata(&kept).is_err() {
                    return fs::rename(path, &kept).map(|()| Some(kept));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn remove_part(part: &Path) -> Result<(), Failure> {
    [part.to_owned(), beside(part, "owed")]
        .iter()
        .try_for_each(|path| remove(path).map_err(|error| cannot(path, &error)))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn is_same(path: &Path, from: &Path) -> bool {
    matches!((path.canonicalize(), from.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{} cannot be replaced: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_within_a_second_keep_each_former_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("rotogate.redb");
        assert_eq!(keep(&store).unwrap(), None, "there is no store");
        for number in 0..10 {
            fs::write(&store, number.to_string()).unwrap();
            let kept = keep(&store).unwrap().unwrap();
            assert_eq!(fs::read_to_string(kept).unwrap(), number.to_string());
            // In a real restore, the backup replaces this file.
            fs::remove_file(&store).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 10);
    }
}
