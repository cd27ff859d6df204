//! What tells whether a file changed: names, sizes and times, not contents.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::{Config, KeySource, ListenerConfig};
use crate::private_file::parent;
use crate::server::assemble;
use crate::server::tls::files_of;

/// A file with its size and time, if it is there.
type Stamp = (PathBuf, Option<(u64, std::time::SystemTime)>);

/// The files of a configuration as they were. To be looked at before they are read: what changes in between is then
/// read once too often, and not never.
#[derive(Debug)]
pub(in crate::server) struct Seen {
    pub(super) keys: Vec<Stamp>,
    /// Those of each listener.
    pub(super) certificates: Vec<Vec<Stamp>>,
    pub(super) upstreams: Vec<Stamp>,
}

impl Seen {
    pub(in crate::server) fn of(config: &Config) -> Self {
        let of_listener = |listener: &ListenerConfig| stamps(listener.tls.iter().flat_map(files_of));
        Self {
            keys: keys(config),
            certificates: config.server.listeners.iter().map(of_listener).collect(),
            upstreams: stamps(config.upstreams.iter().flat_map(|upstream| upstream.tls.files())),
        }
    }

    /// The keys were made just now, by us.
    pub(in crate::server) fn see_new_keys(&mut self, config: &Config) {
        self.keys = keys(config);
    }

    /// The folders of all of them: editors and mounted secrets replace a file, and only its folder sees that.
    pub(super) fn folders(&self) -> BTreeSet<&Path> {
        let all = self.certificates.iter().flatten().chain(&self.keys).chain(&self.upstreams);
        all.map(|(file, _)| parent(file)).collect()
    }
}

/// The files of other issuers' keys.
fn of_keys(config: &Config) -> impl Iterator<Item = &Path> {
    config.issuers.iter().map(|issuer| match &issuer.keys {
        KeySource::Jwks(path, _) | KeySource::PublicKey(path, _) => path.as_path(),
    })
}

/// Those that are not as they were.
pub(super) fn changed(before: &[Stamp], now: &[Stamp]) -> Vec<PathBuf> {
    now.iter().filter(|stamp| !before.contains(stamp)).map(|(path, _)| path.clone()).collect()
}

/// The store's mark lies in the same folder as our keys and changes all the time; files that are being written, and
/// locks, begin with a dot.
fn keys(config: &Config) -> Vec<Stamp> {
    let mark = assemble::high_water(&config.issuer.keys);
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    let entries = std::fs::read_dir(&config.issuer.keys).into_iter().flatten().flatten();
    let own = entries.filter(|e| !hidden(&e.file_name())).map(|e| e.path()).filter(|path| *path != mark);
    stamps(of_keys(config).map(Path::to_owned).chain(own))
}

fn stamps(files: impl Iterator<Item = impl Into<PathBuf>>) -> Vec<Stamp> {
    let files: BTreeSet<PathBuf> = files.map(Into::into).collect();
    let stamp = |path: PathBuf| {
        let what = std::fs::metadata(&path).ok().and_then(|meta| Some((meta.len(), meta.modified().ok()?)));
        (path, what)
    };
    files.into_iter().map(stamp).collect()
}
