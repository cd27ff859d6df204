//! Scripts, and the decoding of their replies.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value, cmd};

use rotogate_core::clock::Timestamp;
use rotogate_core::store::{StoreError, WriteOutcome};

macro_rules! scripts {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new($file, include_str!(concat!("scripts/", $file, ".lua"))));)+
    };
}

scripts! {
    OPEN = "open",
    STAMP = "stamp",
    COMMIT = "commit",
    SWAP = "swap",
    BEAT = "beat",
    SWEEP = "sweep",
    CHECK = "check",
    ANNOUNCE = "announce",
    ADOPT = "adopt",
    RESTORATION = "restoration",
    LOWER = "lower",
    ROOM = "room",
    CHANGE = "change",
    COUNT = "count",
    NODES = "nodes",
}

scripts! {
    ROW_INSERT = "row_insert",
    ROW_SWAP = "row_swap",
    ROW_REMOVE = "row_remove",
    ROW_SWEEP = "row_sweep",
}

const COMMON: &str = include_str!("scripts/common.lua");

pub(super) struct Script {
    source: String,
    hash: String,
    /// Whether the store waits for replicas after this script.
    pub(super) waits: bool,
}

impl Script {
    fn new(name: &str, body: &str) -> Self {
        let source = format!("local OPENING = {}\n{COMMON}{body}", matches!(name, "open" | "adopt"));
        // A counter does not wait for replicas, because waiting would delay each login. If a counter is reset, a client
        // only gets a few more attempts.
        Self { waits: name != "count", ..Self::from_source(&source) }
    }

    pub(super) fn from_source(source: &str) -> Self {
        Self { source: source.to_owned(), hash: redis::Script::new(source).get_hash().to_owned(), waits: true }
    }

    /// Sends the script's hash, or the full text if the server does not know the hash.
    pub(super) async fn send(
        &self,
        mut connection: MultiplexedConnection,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> RedisResult<Value> {
        match self.command(false, keys, args).query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.command(true, keys, args).query_async(&mut connection).await
            }
            done => done,
        }
    }

    pub(super) fn command(&self, in_full: bool, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Cmd {
        if in_full { command("EVAL", &self.source, keys, args) } else { command("EVALSHA", &self.hash, keys, args) }
    }
}

fn command(name: &str, script: &str, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Cmd {
    let mut command = cmd(name);
    command.arg(script).arg(keys.len());
    for part in keys.iter().chain(args) {
        command.arg(part.as_slice());
    }
    command
}

/// Every reply has the server's time, the number of writes, a status word, and values.
pub(super) struct ScriptReply {
    pub(super) time: Timestamp,
    pub(super) seq: u64,
    pub(super) status: String,
    rest: std::vec::IntoIter<Value>,
}

impl ScriptReply {
    pub(super) fn read(value: Value) -> Result<Self, StoreError> {
        let Value::Array(parts) = value else { return Err(unexpected("no list")) };
        let mut rest = parts.into_iter();
        let (time, seq, status) = (rest.next(), rest.next(), rest.next());
        match (time, seq, status.and_then(bytes).map(String::from_utf8)) {
            (Some(Value::Int(time)), Some(Value::Int(seq)), Some(Ok(status))) => Ok(Self {
                time: Timestamp::from_millis(u64::try_from(time).unwrap_or_default()),
                seq: u64::try_from(seq).unwrap_or_default(),
                status,
                rest,
            }),
            _ => Err(unexpected("no status")),
        }
    }

    pub(super) fn value(&mut self) -> Result<Value, StoreError> {
        self.rest.next().ok_or_else(|| unexpected("a short list"))
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        bytes(self.value()?).ok_or_else(|| unexpected("a number or a list"))
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| unexpected("no text"))
    }

    pub(super) fn moment(&mut self) -> Result<Timestamp, StoreError> {
        self.text()?.parse().map(Timestamp::from_millis).map_err(|_| unexpected("no time"))
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        match self.value()? {
            Value::Int(number) => u64::try_from(number).map_err(|_| unexpected("a negative number")),
            _ => Err(unexpected("no number")),
        }
    }

    pub(super) fn list(&mut self) -> Result<Vec<Value>, StoreError> {
        match self.value()? {
            Value::Array(list) => Ok(list),
            _ => Err(unexpected("no list")),
        }
    }

    /// Returns the reply if its status is `word`.
    pub(super) fn with_status(self, word: &str) -> Result<Self, StoreError> {
        if self.status == word { Ok(self) } else { Err(self.unknown()) }
    }

    pub(super) fn unknown(&self) -> StoreError {
        unexpected(&format!("the word {:?}", self.status))
    }
}

pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

pub(super) fn unexpected(what: &str) -> StoreError {
    let text = format!("Redis sent a reply that rotogate does not understand: it contains {what}");
    StoreError::new(text).with_outcome(WriteOutcome::InDoubt)
}
