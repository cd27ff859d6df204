//! The directories of a running gate. A reload keeps directories with unchanged configuration (requirement I44).

use std::sync::Arc;

use parking_lot::Mutex;

use crate::server::error::KeyFault;
use rotogate_config::{DirectoryConfig, UsersConfig};
use rotogate_core::directory::Directory;
use rotogate_core::password::Passwords;
use rotogate_directories::{AccountDirectory, Directories, DirectoryMetrics, RemoteDirectory};

type Configured = (DirectoryConfig, Arc<dyn Directory>);

#[derive(Debug)]
pub(crate) struct LiveDirectories {
    shared: Directories,
    configured: Mutex<Vec<Configured>>,
    passwords: Arc<Passwords>,
    metrics: DirectoryMetrics,
}

fn entries(configured: &[Configured]) -> Vec<AccountDirectory> {
    let entry = |(config, directory): &Configured| AccountDirectory {
        accounts: config.accounts.clone(),
        directory: Arc::clone(directory),
    };
    configured.iter().map(entry).collect()
}

impl LiveDirectories {
    pub(crate) fn new(configured: Vec<Configured>, passwords: Arc<Passwords>, metrics: DirectoryMetrics) -> Self {
        let shared = Directories::new(entries(&configured), Arc::clone(&passwords));
        Self { shared, configured: Mutex::new(configured), passwords, metrics }
    }

    pub(crate) fn shared(&self) -> Arc<dyn Directory> {
        Arc::new(self.shared.clone())
    }

    pub(crate) const fn metrics(&self) -> &DirectoryMetrics {
        &self.metrics
    }

    /// Opens new directories, without using them yet.
    ///
    /// # Errors
    /// The invalid configuration key, and a description of the problem.
    pub(crate) fn prepare(&self, new: &[DirectoryConfig]) -> Result<Vec<Configured>, KeyFault> {
        let old = self.configured.lock();
        let open = |config: &DirectoryConfig| {
            let is_it = |(old, _): &&Configured| old.name == config.name && old.users == config.users;
            if let Some((_, directory)) = old.iter().find(is_it) {
                return Ok((config.clone(), Arc::clone(directory)));
            }
            let UsersConfig::Remote { source, bounds } = &config.users else {
                return Err(KeyFault::new(
                    &config.key,
                    "a new users file needs a restart, because the gate opens a users file only when it starts",
                ));
            };
            let opened = source.open(bounds.timeout);
            let source = opened.map_err(|(key, message)| KeyFault::new(format!("{}.{key}", config.key), message))?;
            let directory = RemoteDirectory::new(
                &config.name,
                source,
                bounds.clone(),
                Arc::clone(&self.passwords),
                self.metrics.clone(),
            );
            let directory: Arc<dyn Directory> = Arc::new(directory);
            Ok((config.clone(), directory))
        };
        new.iter().map(open).collect()
    }

    pub(crate) fn replace(&self, prepared: Vec<Configured>) {
        let mut configured = self.configured.lock();
        self.shared.replace(entries(&prepared));
        *configured = prepared;
    }
}
