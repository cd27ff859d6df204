//! Why a gate does not start, does not apply another configuration, or stops.

use std::path::PathBuf;
use std::{fmt, io};

use rotogate_config::{Config, ConfigError, ConfigErrors};
use rotogate_core::fault::Chain;
use rotogate_core::store::StoreError;

/// Why the gate could not start, or had to stop. The text says what failed, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Errors of the configuration at their lines: a value, or a file that it names, cannot be used.
    #[error("{0}")]
    Configured(#[from] ConfigErrors),
    /// An error of one key, without its line.
    #[error("{0}")]
    Key(#[from] KeyFault),
    /// A file or a value cannot be used. The text names it.
    #[error("{0}")]
    Unusable(String),
    /// A part of the gate cannot be opened or built.
    #[error("{:?}", Chain(&**.0))]
    Part(Box<dyn std::error::Error + Send + Sync>),
    /// The shared store exists, but its keys are not on this machine.
    #[error(
        "{error}. There are no keys in {}, and a gate makes keys for a new store only: copy the key folder of another gate of \
         this store", .folder.display()
    )]
    NoKeys {
        /// Why the store cannot be opened.
        error: Box<Self>,
        /// The folder of the keys.
        folder: PathBuf,
    },
    /// A socket that another program passed cannot be used.
    #[error("socket {index} of LISTEN_FDS is not a TCP socket: {error}")]
    PassedSocket {
        /// The number of the socket, from 0.
        index: usize,
        /// The error of the system.
        error: io::Error,
    },
    /// The system provides no worker threads.
    #[error("worker threads cannot be started: {0}")]
    Workers(io::Error),
    /// The admin listener has no thread or no socket.
    #[error("the admin listener cannot be served: {0}")]
    AdminListener(io::Error),
    /// The store could not take the last writes of the gate.
    #[error("revocations or confirmations could not be written: {0}")]
    Unwritten(StoreError),
}

impl ServerError {
    /// A part of the gate that cannot be opened or built.
    pub(crate) fn part(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Part(Box::new(error))
    }

    /// A fault of a key, with the place of the key.
    pub(crate) fn at(config: &Config, KeyFault { key, message }: KeyFault) -> Self {
        Self::Configured(ConfigErrors::single(config.blame(&key, message)))
    }
}

/// A fault of a configuration key, or of a file that it names.
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

/// The faults found in the parts of a configuration.
pub(crate) struct Faults<'a> {
    config: &'a Config,
    wrong: Vec<ConfigError>,
}

impl<'a> Faults<'a> {
    pub(crate) const fn new(config: &'a Config) -> Self {
        Self { config, wrong: Vec::new() }
    }

    /// Adds a fault of a key.
    pub(crate) fn add(&mut self, key: &str, message: impl Into<String>) {
        self.wrong.push(self.config.blame(key, message));
    }

    /// Adds a part that could not be examined.
    pub(crate) fn add_unchecked(&mut self, key: &str, message: impl Into<String>) {
        self.wrong.push(ConfigError { unchecked: true, ..self.config.blame(key, message) });
    }

    /// The part, or `None` if it has a fault, which is added. The key of the fault is one within `table`.
    pub(crate) fn good<T>(&mut self, table: impl fmt::Display, part: Result<T, KeyFault>) -> Option<T> {
        part.map_err(|KeyFault { key, message }| self.add(&format!("{table}.{key}"), message)).ok()
    }

    /// What was found, if there are no faults.
    pub(crate) fn result<T>(self, found: T) -> Result<T, ConfigErrors> {
        ConfigErrors::new(self.wrong).map_or(Ok(found), Err)
    }
}
