//! Whether what is in files is another than what is in force: the files are looked at often, read when they may have
//! changed, and tried when their content or the rights on them did. What was refused is not tried again as it is, but now
//! and then, and told once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use crate::config::{Config, KeySource, ListenerConfig, TrustedIssuer};
use crate::server::assemble;
use crate::server::tls::files_of;
use crate::stamp::{Looked, Stamp};
use rotogate::clock::{SystemTime, TimeSource, Timestamp};

/// What was refused may have been so for another reason than its files: it is tried once more after so long.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// No file of keys or certificates is longer; of a longer one the beginning counts.
const MAX_LEN: u64 = 1 << 20;

/// Files that are of use only together.
#[derive(Debug)]
pub(super) struct Group {
    looked: Looked,
    in_force: Digests,
    /// The last that was tried.
    tried: Digests,
    /// What was refused last, and when to try it again.
    refused: Option<(Digests, Timestamp)>,
}

/// Each file with a digest of its content and of who may do what with it.
type Digests = BTreeMap<PathBuf, [u8; 32]>;

impl Group {
    /// Files that are about to be read: what changes in between is then read once too often, and not never.
    pub(super) fn of(paths: Vec<PathBuf>) -> Self {
        let looked = Looked::at(paths.clone(), now());
        let in_force = digests(paths);
        Self { looked, tried: in_force.clone(), in_force, refused: None }
    }

    /// The files that differ from what is in force, if they are to be tried now.
    pub(super) fn changed(&mut self, paths: impl Fn() -> Vec<PathBuf>) -> Option<Vec<PathBuf>> {
        let due = self.refused.as_ref().is_some_and(|(_, due)| *due <= now());
        if !self.looked.look(paths(), now()) && !due {
            return None;
        }
        let found = digests(paths());
        if found == self.tried && !due {
            return None;
        }
        self.tried = found;
        let (old, new) = (&self.in_force, &self.tried);
        let all: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let changed: Vec<_> = all.into_iter().filter(|path| old.get(*path) != new.get(*path)).cloned().collect();
        if changed.is_empty() {
            // As it was before what was refused.
            self.refused = None;
            return None;
        }
        Some(changed)
    }

    /// What was tried is in force.
    pub(super) fn taken(&mut self) {
        self.in_force = self.tried.clone();
        self.refused = None;
    }

    /// What was tried cannot be used. True if that is to be told.
    pub(super) fn refuse(&mut self) -> bool {
        let is_news = self.refused.as_ref().is_none_or(|(refused, _)| *refused != self.tried);
        self.refused = Some((self.tried.clone(), now().plus(RETRY_AFTER)));
        is_news
    }

    /// Is something else in force than what the files say?
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }
}

/// All files of a configuration that count while the gate runs.
#[derive(Debug)]
pub(in crate::server) struct Seen {
    pub(super) own: Group,
    /// Those of each issuer trusted besides us.
    pub(super) issuers: Vec<Group>,
    /// Those of each listener.
    pub(super) certificates: Vec<Group>,
    pub(super) upstreams: Group,
}

impl Seen {
    pub(in crate::server) fn of(config: &Config) -> Self {
        let listeners = &config.server.listeners;
        Self {
            own: Group::of(own(config)),
            issuers: config.issuers.iter().map(|issuer| Group::of(of_issuer(issuer))).collect(),
            certificates: listeners.iter().map(|listener| Group::of(of_listener(listener))).collect(),
            upstreams: Group::of(of_upstreams(config)),
        }
    }

    /// The keys were made just now, by us.
    pub(in crate::server) fn see_new_keys(&mut self, config: &Config) {
        self.own = Group::of(own(config));
    }
}

/// Our own keys: the folder, and what is in it but the store's mark, which changes all the time, and what begins with a
/// dot, as files that are being written and locks do.
pub(super) fn own(config: &Config) -> Vec<PathBuf> {
    let mark = assemble::high_water(&config.issuer.keys);
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    let entries = std::fs::read_dir(&config.issuer.keys).into_iter().flatten().flatten();
    let files = entries.filter(|e| !hidden(&e.file_name())).map(|e| e.path()).filter(|path| *path != mark);
    files.chain([config.issuer.keys.clone()]).collect()
}

/// The file of another issuer's keys.
pub(super) fn of_issuer(issuer: &TrustedIssuer) -> Vec<PathBuf> {
    match &issuer.keys {
        KeySource::Jwks(path, _) | KeySource::PublicKey(path, _) => vec![path.clone()],
    }
}

/// The files of a listener's certificates.
pub(super) fn of_listener(listener: &ListenerConfig) -> Vec<PathBuf> {
    listener.tls.iter().flat_map(files_of).map(Path::to_owned).collect()
}

/// The files of certificates towards upstreams.
pub(super) fn of_upstreams(config: &Config) -> Vec<PathBuf> {
    config.upstreams.iter().flat_map(|upstream| upstream.tls.files()).map(Path::to_owned).collect()
}

fn digests(paths: Vec<PathBuf>) -> Digests {
    let digest = |path: PathBuf| {
        let digest = digest(&path);
        (path, digest)
    };
    paths.into_iter().map(digest).collect()
}

fn digest(path: &Path) -> [u8; 32] {
    use std::io::Read;
    let stamp = Stamp::of(path);
    let mut context = Context::new(&SHA256);
    for part in stamp.rights().into_iter().flatten() {
        context.update(&part.to_be_bytes());
    }
    if stamp.is_file() {
        let mut content = Zeroizing::new(Vec::with_capacity(64 << 10));
        match std::fs::File::open(path).and_then(|file| file.take(MAX_LEN).read_to_end(&mut content)) {
            Ok(_) => context.update(&content),
            Err(error) => context.update(format!("unreadable: {:?}", error.kind()).as_bytes()),
        }
    }
    let mut digest = [0; 32];
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

/// Files have the times of the wall clock.
pub(super) fn now() -> Timestamp {
    SystemTime::new().wall()
}
