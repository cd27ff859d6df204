//! Detection of changed files. A file is read if its attributes changed, and loaded if its content or permissions
//! changed. Refused content is logged once and retried occasionally.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::{assemble, provider_client};
use crate::server::listen::tls::files_of;
use rotogate_config::{Config, ListenerConfig, TrustedIssuer};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_kit::file_stamp::{ChangeDetector, Stamp};

/// Refused files are read again, because the cause may be elsewhere.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// The maximum number of compared bytes. Files with keys and certificates are shorter.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct FileGroup {
    detector: ChangeDetector,
    in_force: Digests,
    tried: Digests,
    /// Digests of the refused content, and the time of the next attempt.
    refused: Option<(Digests, Timestamp)>,
    taken: Timestamp,
}

/// Digests of content and permissions.
type Digests = BTreeMap<PathBuf, [u8; 32]>;

impl FileGroup {
    /// Must be called before the files are read, because a change could otherwise be missed.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let detector = ChangeDetector::new(paths.clone(), now());
        let in_force = digests(paths);
        Self { detector, tried: in_force.clone(), in_force, refused: None, taken: now() }
    }

    pub(crate) fn changed(&mut self, paths: impl Fn() -> Vec<PathBuf>) -> Option<Vec<PathBuf>> {
        let due = self.refused.as_ref().is_some_and(|(_, due)| *due <= now());
        if !self.detector.poll_changed(paths(), now()) && !due {
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
            self.refused = None;
            return None;
        }
        Some(changed)
    }

    /// Switches to the next configuration. Files that are in both configurations keep their digests.
    pub(crate) fn follow(&mut self, next: Self) {
        let as_before = |(path, read): (&PathBuf, &[u8; 32])| (path.clone(), *self.in_force.get(path).unwrap_or(read));
        let in_force: Digests = next.in_force.iter().map(as_before).collect();
        if in_force == next.in_force {
            *self = next;
        } else {
            self.tried.clone_from(&in_force);
            self.in_force = in_force;
        }
    }

    pub(crate) fn mark_applied(&mut self) {
        self.in_force = self.tried.clone();
        self.refused = None;
        self.taken = now();
    }

    pub(crate) fn mark_refused(&mut self) -> bool {
        let is_news = self.refused.as_ref().is_none_or(|(refused, _)| *refused != self.tried);
        self.refused = Some((self.tried.clone(), now().plus(RETRY_AFTER)));
        is_news
    }

    pub(crate) fn taken(&self) -> Timestamp {
        self.taken
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }
}

#[derive(Debug)]
pub(crate) struct LastRead {
    pub(crate) own: FileGroup,
    pub(crate) issuers: Vec<FileGroup>,
    pub(crate) certificates: Vec<FileGroup>,
    pub(crate) upstreams: FileGroup,
    pub(crate) clients: FileGroup,
}

impl LastRead {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            own: FileGroup::new(own(config)),
            issuers: config.issuers.iter().map(|issuer| FileGroup::new(of_issuer(issuer))).collect(),
            certificates: config.listeners().map(|listener| FileGroup::new(of_listener(listener))).collect(),
            upstreams: FileGroup::new(of_upstreams(config)),
            clients: FileGroup::new(of_clients(config)),
        }
    }

    /// Must be called after this process has created the keys.
    pub(crate) fn refresh_own_keys(&mut self, config: &Config) {
        self.own = FileGroup::new(own(config));
    }
}

/// The key folder and its files. Hidden files and the store's mark file are left out, because they change often.
pub(crate) fn own(config: &Config) -> Vec<PathBuf> {
    let mark = config.store.mark();
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    let entries = std::fs::read_dir(&config.issuer.keys).into_iter().flatten().flatten();
    let files =
        entries.filter(|e| !hidden(&e.file_name())).map(|e| e.path()).filter(|path| mark != Some(path.as_path()));
    files.chain([config.issuer.keys.clone()]).collect()
}

pub(crate) fn of_issuer(issuer: &TrustedIssuer) -> Vec<PathBuf> {
    let introspection = issuer.introspection_files().map(|(_, path)| path.to_owned());
    issuer.keys.file().map(|(_, path)| path.to_owned()).into_iter().chain(introspection).collect()
}

pub(crate) fn of_listener(listener: &ListenerConfig) -> Vec<PathBuf> {
    listener.tls.iter().flat_map(files_of).map(Path::to_owned).collect()
}

pub(crate) fn of_upstreams(config: &Config) -> Vec<PathBuf> {
    config.upstreams.iter().flat_map(|upstream| upstream.files()).map(Path::to_owned).collect()
}

pub(crate) fn of_clients(config: &Config) -> Vec<PathBuf> {
    let keys = config.clients.iter().filter_map(|client| client.keys.as_ref()?.source.file());
    let at_endpoints = config.endpoints.iter().flat_map(assemble::files_of);
    let at_providers = config.providers.iter().flat_map(|provider| provider_client::files(&provider.client));
    keys.chain(at_endpoints).chain(at_providers).map(|(_, path)| path.to_owned()).collect()
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
    let stamp = Stamp::read(path);
    let mut context = Context::new(&SHA256);
    for part in stamp.rights().into_iter().flatten() {
        context.update(&part.to_be_bytes());
    }
    if stamp.is_file() {
        let mut content = Zeroizing::new(Vec::with_capacity(64 << 10));
        match std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut content)) {
            Ok(_) => context.update(&content),
            Err(error) => context.update(format!("unreadable: {:?}", error.kind()).as_bytes()),
        }
    }
    let mut digest = [0; 32];
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

/// Returns the time of the wall clock.
pub(crate) fn now() -> Timestamp {
    SystemTime::new().wall()
}
