//! The reasons why a gate does not start, does not apply another configuration, or stops.

use std::path::PathBuf;
use std::{fmt, io};

use rotogate_config::{Config, ConfigError, ConfigErrors};
use rotogate_core::fault::Chain;
use rotogate_core::store::StoreError;

/// The reason why the gate could not start, or had to stop. The message says what failed, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration is invalid, or names a file that cannot be used. Each error has its line.
    #[error("{0}")]
    Configured(#[from] ConfigErrors),
    /// The value of one configuration key is invalid. The error has no line.
    #[error("{0}")]
    Key(#[from] KeyFault),
    /// A file or a value cannot be used. The message names it.
    #[error("{0}")]
    Unusable(String),
    /// A part of the gate cannot be opened or built.
    #[error("{:?}", Chain(&**.0))]
    Part(Box<dyn std::error::Error + Send + Sync>),
    /// The shared store exists, but its keys are not on this machine.
    #[error(
        "{error}. There are no keys in {}, and a gate creates keys only for a new store. Copy the key folder of \
         another gate that uses this store", .folder.display()
    )]
    NoKeys {
        /// The reason why the store cannot be opened.
        error: Box<Self>,
        /// The folder in which the keys were expected.
        folder: PathBuf,
    },
    /// A socket that was passed to this process cannot be used.
    #[error("socket {index} of LISTEN_FDS is not a TCP socket: {error}")]
    PassedSocket {
        /// The number of the socket, from 0.
        index: usize,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The operating system could not start the worker threads.
    #[error("worker threads cannot be started: {0}")]
    Workers(io::Error),
    /// The thread or the socket of the admin listener could not be created.
    #[error("the admin listener cannot be served: {0}")]
    AdminListener(io::Error),
    /// The last writes of the gate could not be stored.
    #[error("revocations or confirmations could not be written to the store: {0}")]
    Unwritten(StoreError),
}

impl ServerError {
    /// Wraps the error that occurs when a part of the gate cannot be opened or built.
    pub(crate) fn part(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Part(Box::new(error))
    }

    /// Adds the position in the file to the fault of a configuration key.
    pub(crate) fn at(config: &Config, KeyFault { key, message }: KeyFault) -> Self {
        Self::Configured(ConfigErrors::single(config.blame(&key, message)))
    }
}

/// A fault in the value of a configuration key, or in a file that it names.
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

/// Collects the faults in a configuration.
pub(crate) struct Faults<'a> {
    config: &'a Config,
    wrong: Vec<ConfigError>,
}

impl<'a> Faults<'a> {
    pub(crate) const fn new(config: &'a Config) -> Self {
        Self { config, wrong: Vec::new() }
    }

    /// Adds a fault at a configuration key.
    pub(crate) fn add(&mut self, key: &str, message: impl Into<String>) {
        self.wrong.push(self.config.blame(key, message));
    }

    /// Adds a part of the configuration that could not be examined.
    pub(crate) fn add_unchecked(&mut self, key: &str, message: impl Into<String>) {
        self.wrong.push(ConfigError { unchecked: true, ..self.config.blame(key, message) });
    }

    /// Returns the part. If it has a fault, adds the fault and returns `None`. The key in the fault is relative to
    /// `table`.
    pub(crate) fn good<T>(&mut self, table: impl fmt::Display, part: Result<T, KeyFault>) -> Option<T> {
        part.map_err(|KeyFault { key, message }| self.add(&format!("{table}.{key}"), message)).ok()
    }

    /// Returns `found` if there are no faults, and otherwise all faults.
    pub(crate) fn result<T>(self, found: T) -> Result<T, ConfigErrors> {
        ConfigErrors::new(self.wrong).map_or(Ok(found), Err)
    }
}
