//! What a running gate reads again when it changes: keys, the keys of other issuers, and the certificates of listeners.
//! Users are watched by their directory. What is broken is not taken: the old one stays, and the log says so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::ServerError;
use super::assemble::{self, Assembled};
use super::tls::Tls;
use crate::config::{Config, KeySource};
use crate::gate::Gate;
use crate::private_file::parent;
use crate::token::keyring::Keyring;
use crate::token::verify::IssuerRules;

/// How long to wait for more changes after one: editors and importers write several files.
const SETTLE: Duration = Duration::from_millis(200);
/// After this long without any event the files are read again all the same: an event may be missed, and requirement J16
/// gives a removed key a second.
const ANYHOW: Duration = Duration::from_secs(30);

/// A file with its size and time, if it is there.
type Stamp = (PathBuf, Option<(u64, std::time::SystemTime)>);

/// Watches until dropped.
#[derive(Debug)]
pub(super) struct Watching {
    _watcher: RecommendedWatcher,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches the keyring's folder, the files of other issuers' keys, and those of certificates.
pub(super) fn watch(
    config: &Arc<Config>,
    assembled: &Assembled,
    certificates: Vec<Arc<Tls>>,
) -> Result<Watching, ServerError> {
    let (changed, mut changes) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event, too, and we read them.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })
    .map_err(|error| ServerError::new(format!("files cannot be watched for changes: {error}")))?;
    let mut folders = folders(config);
    folders.extend(certificates.iter().flat_map(|tls| tls.files()).map(|file| parent(file).to_owned()));
    for folder in folders {
        watcher
            .watch(&folder, RecursiveMode::NonRecursive)
            .map_err(|error| ServerError::new(format!("{} cannot be watched: {error}", folder.display())))?;
    }
    let (config, gate, mut trusted) = (Arc::clone(config), assembled.gate.clone(), assembled.trusted.clone());
    let task = tokio::spawn(async move {
        let mut seen = fingerprint(&config);
        let mut seen_tls: Vec<_> = certificates.iter().map(|tls| tls_fingerprint(tls)).collect();
        loop {
            let waited = tokio::time::timeout(ANYHOW, changes.recv()).await;
            if matches!(waited, Ok(None)) {
                return;
            }
            tokio::time::sleep(SETTLE).await;
            while changes.try_recv().is_ok() {}
            let now = fingerprint(&config);
            // What could not be used is tried again: mending a file's mode changes neither its size nor its time.
            if now != seen && reload(&config, &gate, &mut trusted) {
                seen = now;
            }
            for (tls, seen) in certificates.iter().zip(&mut seen_tls) {
                let now = tls_fingerprint(tls);
                if now != *seen && reload_tls(tls) {
                    *seen = now;
                }
            }
        }
    });
    Ok(Watching { _watcher: watcher, task })
}

/// False if anything of it could not be used. A broken file of another issuer does not keep a key of ours in force that
/// was taken out.
fn reload(config: &Config, gate: &Gate, trusted: &mut Vec<IssuerRules>) -> bool {
    let refused = |error: &str| {
        tracing::error!(error, "the keys changed but cannot be used; the old ones stay in force");
        false
    };
    let whole = match assemble::trusted_issuers(config) {
        Ok(rules) => {
            *trusted = rules;
            true
        }
        Err(error) => refused(&error.to_string()),
    };
    let keys = match Keyring::load(&config.issuer.keys) {
        Ok(keys) => keys,
        Err(error) => return refused(&error.to_string()),
    };
    match gate.set_keys(keys, trusted.clone()) {
        Ok(()) => tracing::info!(keys = %config.issuer.keys.display(), "the keys changed and were read again"),
        Err(error) => return refused(&error.to_string()),
    }
    whole
}

/// False if they could not be used. Of a pair that is written one by one the first half does not fit yet.
fn reload_tls(tls: &Tls) -> bool {
    match tls.reload() {
        Ok(()) => {
            tracing::info!(key = tls.key(), "certificates changed and were read again");
            true
        }
        Err(error) => {
            tracing::error!(error, "certificates changed but cannot be used; the old ones stay in force");
            false
        }
    }
}

/// The folders to watch: editors and mounted secrets replace a file, and only its folder sees that.
fn folders(config: &Config) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::from([config.issuer.keys.clone()]);
    folders.extend(key_files(config).map(|file| parent(file).to_owned()));
    folders
}

fn key_files(config: &Config) -> impl Iterator<Item = &Path> {
    config.issuers.iter().map(|issuer| match &issuer.keys {
        KeySource::Jwks(path, _) | KeySource::PublicKey(path, _) => path.as_path(),
    })
}

/// What tells whether any key file changed: names, sizes and times, not contents. The store's mark lies in the same
/// folder and changes all the time; files that are being written, and locks, begin with a dot.
fn fingerprint(config: &Config) -> Vec<Stamp> {
    let mut files: Vec<PathBuf> = key_files(config).map(Path::to_owned).collect();
    if let Ok(entries) = std::fs::read_dir(&config.issuer.keys) {
        let mark = assemble::high_water(&config.issuer.keys);
        let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        files.extend(
            entries.flatten().filter(|e| !hidden(&e.file_name())).map(|e| e.path()).filter(|path| *path != mark),
        );
    }
    files.sort();
    stamps(files)
}

fn tls_fingerprint(tls: &Tls) -> Vec<Stamp> {
    stamps(tls.files().map(Path::to_owned).collect())
}

fn stamps(files: Vec<PathBuf>) -> Vec<Stamp> {
    let stamp = |path: PathBuf| {
        let what = std::fs::metadata(&path).ok().and_then(|meta| Some((meta.len(), meta.modified().ok()?)));
        (path, what)
    };
    files.into_iter().map(stamp).collect()
}
