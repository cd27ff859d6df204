//! Errors of a start, a reload or a running gate.

use std::path::PathBuf;
use std::{fmt, io};

use rotogate_config::{Config, ConfigError, ConfigErrors};
use rotogate_core::fault::Chain;
use rotogate_core::store::StoreError;

/// Why the gate could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration or a file that it names is invalid.
    #[error("{0}")]
    Configured(#[from] ConfigErrors),
    /// A configuration value is invalid.
    #[error("{0}")]
    Key(#[from] KeyFault),
    /// A file or a value is unusable.
    #[error("{0}")]
    Unusable(String),
    /// A part of the gate cannot be opened or built.
    #[error("{:?}", Chain(&**.0))]
    Part(Box<dyn std::error::Error + Send + Sync>),
    /// The shared store exists, but this machine lacks its keys.
    #[error(
        "{error}. There are no keys in {}, and a gate creates keys only for a new store. Copy the key folder of \
         another gate that uses this store", .folder.display()
    )]
    NoKeys {
        /// The error of the store.
        error: Box<Self>,
        /// The expected folder of the keys.
        folder: PathBuf,
    },
    /// A passed socket is unusable.
    #[error("socket {index} of LISTEN_FDS is not a TCP socket: {error}")]
    PassedSocket {
        /// The index of the socket.
        index: usize,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The worker threads could not start.
    #[error("worker threads cannot be started: {0}")]
    Workers(io::Error),
    /// The admin listener could not start.
    #[error("the admin listener cannot be served: {0}")]
    AdminListener(io::Error),
    /// The last writes could not be stored.
    #[error("revocations or confirmations could not be written to the store: {0}")]
    Unwritten(StoreError),
}

impl ServerError {
    pub(crate) fn part(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Part(Box::new(error))
    }

    pub(crate) fn at(config: &Config, KeyFault { key, message }: KeyFault) -> Self {
        Self::Configured(ConfigErrors::single(config.blame(&key, message)))
    }
}

/// A fault in a configuration value or a file.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct KeyFault {
    pub(crate) key: String,
    pub(crate) message: String,
}

impl KeyFault {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

pub(crate) struct Faults<'a> {
    config: &'a Config,
    wrong: Vec<ConfigError>,
}

impl<'a> Faults<'a> {
    pub(crate) const fn new(config: &'a Config) -> Self {
        Self { config, wrong: Vec::new() }
    }

    pub(crate) fn add(&mut self, key: &str, message: impl Into<String>) {
        self.wrong.push(self.config.blame(key, message));
    }

    /// Reports that a part of the configuration could not be checked.
    pub(crate) fn add_unchecked(&mut self, key: &str, message: impl Into<String>) {
        self.wrong.push(ConfigError { unchecked: true, ..self.config.blame(key, message) });
    }

    /// Returns the value of `part`, or records the fault. The fault's key is relative to `table`.
    pub(crate) fn good<T>(&mut self, table: impl fmt::Display, part: Result<T, KeyFault>) -> Option<T> {
        part.map_err(|KeyFault { key, message }| self.add(&format!("{table}.{key}"), message)).ok()
    }

    /// Returns `found` if there are no faults.
    pub(crate) fn result<T>(self, found: T) -> Result<T, ConfigErrors> {
        ConfigErrors::new(self.wrong).map_or(Ok(found), Err)
    }
}
