//! The outcome of the last change, for each kind of file.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::server::build::files::{self, FileGroup, LastRead};
use rotogate_core::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadSource {
    /// `gateway.toml` and environment variables.
    Configuration,
    Keys,
    /// The key files of other issuers, and the gate's credentials at these issuers.
    Issuers,
    Certificates,
    Upstreams,
    /// The keys of clients, and the gate's credentials at providers.
    Clients,
}

impl ReloadSource {
    pub(crate) const ALL: [Self; 6] =
        [Self::Configuration, Self::Keys, Self::Issuers, Self::Certificates, Self::Upstreams, Self::Clients];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Keys => "keys",
            Self::Issuers => "issuers",
            Self::Certificates => "certificates",
            Self::Upstreams => "upstreams",
            Self::Clients => "clients",
        }
    }
}

#[derive(Debug)]
struct Outcome {
    is_refused: AtomicBool,
    /// Unix time in seconds, when files were last applied.
    taken: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Outcomes([Outcome; ReloadSource::ALL.len()]);

impl Outcomes {
    /// The outcomes after a start.
    pub(crate) fn new() -> Self {
        let now = files::now().as_secs();
        Self(std::array::from_fn(|_| Outcome { is_refused: AtomicBool::new(false), taken: AtomicU64::new(now) }))
    }

    fn outcome(&self, source: ReloadSource) -> Option<&Outcome> {
        self.0.get(source as usize)
    }

    /// Returns whether the last change was refused, and the Unix time of the last applied change.
    pub(crate) fn get(&self, source: ReloadSource) -> (bool, u64) {
        let read = |of: &Outcome| (of.is_refused.load(Ordering::Relaxed), of.taken.load(Ordering::Relaxed));
        self.outcome(source).map_or_else(Default::default, read)
    }

    pub(crate) fn set(&self, source: ReloadSource, is_refused: bool) {
        let Some(of) = self.outcome(source) else { return };
        of.is_refused.store(is_refused, Ordering::Relaxed);
        if !is_refused {
            of.taken.store(files::now().as_secs(), Ordering::Relaxed);
        }
    }

    pub(super) fn follow(&self, last_read: &LastRead) {
        let LastRead { own, issuers, certificates, upstreams, clients } = last_read;
        for (source, groups) in [
            (ReloadSource::Keys, std::slice::from_ref(own)),
            (ReloadSource::Issuers, issuers),
            (ReloadSource::Certificates, certificates),
            (ReloadSource::Upstreams, std::slice::from_ref(upstreams)),
            (ReloadSource::Clients, std::slice::from_ref(clients)),
        ] {
            let Some(of) = self.outcome(source) else { continue };
            of.is_refused.store(groups.iter().any(FileGroup::is_refused), Ordering::Relaxed);
            let taken = groups.iter().map(FileGroup::taken).max().map_or(0, Timestamp::as_secs);
            of.taken.fetch_max(taken, Ordering::Relaxed);
        }
    }
}
