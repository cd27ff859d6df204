//! Classifies Redis errors: the outcome of the write, and whether to retry.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::cluster::Elsewhere;
use rotogate_core::store::kit::network::{RETRY_AFTER, outcome_of_all};
use rotogate_core::store::{StoreError, WriteOutcome};

/// The gate's own error code if the server is not a primary.
pub(super) const REPLICA: &str = "REPLICA";

#[derive(Clone, Debug)]
pub(super) struct RedisFailure {
    pub(super) text: String,
    pub(super) outcome: WriteOutcome,
    pub(super) again: bool,
    pub(super) closes: bool,
    /// Whether only an operator can resolve the failure.
    pub(super) for_operator: bool,
    pub(super) elsewhere: Option<Elsewhere>,
}

impl RedisFailure {
    /// A failure before anything was sent.
    pub(super) fn before(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            outcome: WriteOutcome::NotDone,
            again: true,
            closes: false,
            for_operator: false,
            elsewhere: None,
        }
    }

    /// The server may have executed the request. The caller may retry.
    pub(super) fn in_doubt(text: impl Into<String>) -> Self {
        Self { outcome: WriteOutcome::InDoubt, ..Self::before(text) }
    }

    /// A retry would not help. Nothing was sent.
    pub(super) fn for_good(text: impl Into<String>, outcome: WriteOutcome) -> Self {
        Self { outcome, again: false, closes: true, ..Self::before(text) }
    }

    pub(super) fn replica(address: &str, by_sentinels: bool) -> Self {
        let remedy = if by_sentinels { "the gate asks the Sentinels again" } else { "give the address of the primary" };
        Self { closes: true, ..Self::before(format!("Redis at {address} is a replica: {remedy}")) }
    }

    pub(super) fn from_error(address: &str, by_sentinels: bool, error: &RedisError) -> Self {
        if error.code() == Some(REPLICA) {
            return Self::replica(address, by_sentinels);
        }
        let (outcome, again, closes) = meaning(error);
        let for_operator = is_for_operator(error);
        let elsewhere = Elsewhere::from_error(error);
        Self { text: describe(address, error), outcome, again, closes, for_operator, elsewhere }
    }

    /// A retry may succeed.
    pub(super) fn again(error: &StoreError) -> Self {
        Self { outcome: error.outcome(), ..Self::in_doubt(error.to_string()) }
    }

    /// Marks the write as in doubt, because the server may have written before the failure.
    pub(super) fn after(self) -> Self {
        Self { outcome: WriteOutcome::InDoubt, elsewhere: None, ..self }
    }

    pub(super) fn error(self) -> StoreError {
        let error = StoreError::new(self.text).with_outcome(self.outcome).with_retry_after(RETRY_AFTER);
        if self.for_operator { error.for_operator() } else { error }
    }
}

/// Returns whether a password, setting or permission is wrong. A failover does not help.
fn is_for_operator(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::Server(ServerErrorKind::NoPerm)
    ) || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// Returns the outcome of the write, whether to retry, and whether to close the connection.
fn meaning(error: &RedisError) -> (WriteOutcome, bool, bool) {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::UnexpectedReturnType => (WriteOutcome::InDoubt, true, true),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => (WriteOutcome::NotDone, false, true),
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask => (WriteOutcome::NotDone, true, false),
            // The primary has become a replica. The address may already lead to the new primary.
            ServerErrorKind::ReadOnly => (WriteOutcome::NotDone, true, true),
            ServerErrorKind::NoPerm => (WriteOutcome::NotDone, false, false),
            _ if is_out_of_memory(error) => (WriteOutcome::NotDone, false, false),
            _ if is_not_local(error) => (WriteOutcome::NotDone, true, false),
            _ => (WriteOutcome::InDoubt, false, false),
        },
        ErrorKind::Extension => match error.code() {
            Some("BUSY" | "NOREPLICAS") => (WriteOutcome::NotDone, true, false),
            // A server ends blocked commands when it becomes a replica.
            Some("UNBLOCKED") => (WriteOutcome::InDoubt, true, true),
            Some("NOAUTH" | "WRONGPASS") => (WriteOutcome::NotDone, false, true),
            Some("OOM" | "MISCONF") => (WriteOutcome::NotDone, false, false),
            _ => (WriteOutcome::InDoubt, false, false),
        },
        _ => (WriteOutcome::InDoubt, false, true),
    }
}

/// Describes the problem and the remedy, without server messages that may contain user names.
pub(super) fn describe(address: &str, error: &RedisError) -> String {
    let code = error.code().unwrap_or_default();
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            format!("Redis at {address} refuses the username or the password: correct them")
        }
        ErrorKind::Io => format!("Redis at {address} cannot be reached: {error}"),
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            format!("Redis at {address} does not allow a command or a key: docs/redis.md shows the required ACL")
        }
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            format!("Redis at {address} is a replica and does not accept writes: give the address of the primary")
        }
        ErrorKind::Server(ServerErrorKind::BusyLoading) => format!("Redis at {address} is still loading its data"),
        ErrorKind::Server(ServerErrorKind::MasterDown) => {
            format!("Redis at {address} is a replica and cannot serve data without its primary")
        }
        ErrorKind::Server(ServerErrorKind::ClusterDown) => format!("the cluster of Redis at {address} is down"),
        _ if code == "BUSY" => format!("Redis at {address} is busy with a script"),
        _ if code == "OOM" || is_out_of_memory(error) => {
            format!("Redis at {address} is out of memory: raise its maxmemory")
        }
        _ if code == "NOREPLICAS" => format!("Redis at {address} has fewer replicas than min-replicas-to-write"),
        _ if code == "NOAUTH" || code == "WRONGPASS" => {
            format!("Redis at {address} refuses the username or the password: correct them")
        }
        _ if code == "MISCONF" => {
            format!("Redis at {address} cannot write to its disk and rejects writes: see the log of Redis")
        }
        _ => format!("Redis at {address} failed: {error}"),
    }
}

/// Before Redis 7.0, a script's error has the code only in its text.
fn is_out_of_memory(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("OOM command not allowed"))
}

/// Returns whether a script found a moved key. The script has not written anything.
fn is_not_local(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("non local key"))
}

pub(super) fn after_all(failed: RedisFailure, sent: bool) -> StoreError {
    let outcome = outcome_of_all(failed.outcome, sent);
    RedisFailure { outcome, ..failed }.error()
}
