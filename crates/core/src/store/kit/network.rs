//! The connection of a gate to its store's server, with authentication.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::password::Password;
use crate::clock::Timestamp;
use crate::random::jittered;
use crate::store::{StoreError, WriteOutcome};

/// The pause before the first retry.
pub const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause before a retry.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The value of `Retry-After` in the gate's responses.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A random pause after `failures` failures. Its upper limit doubles with each failure.
pub fn pause_after(failures: u32) -> Duration {
    jittered(FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE))
}

/// The error for an operation that was not executed and can safely be retried.
pub fn not_done(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::NotDone).with_retry_after(RETRY_AFTER)
}

/// The error for a problem that a retry cannot solve.
pub fn refused(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::Refused)
}

/// The outcome of all attempts. `last` is the outcome of the last attempt, and `sent` is true if any attempt was
/// sent.
pub fn outcome_of_all(last: WriteOutcome, sent: bool) -> WriteOutcome {
    match (sent, last) {
        // An earlier attempt may have been executed.
        (true, WriteOutcome::NotDone | WriteOutcome::InDoubt) => WriteOutcome::InDoubt,
        (false, WriteOutcome::InDoubt) => WriteOutcome::NotDone,
        (_, outcome) => outcome,
    }
}

/// The options for a store on a server, apart from its address.
///
/// ```
/// # fn example(keyring: &rotogate::token::Keyring) {
/// use std::time::Duration;
/// use rotogate::store::NetworkOptions;
///
/// let options = NetworkOptions::new("https://api.example.com", keyring.id(), Duration::from_secs(30));
/// let options = NetworkOptions { high_water: Some("data/keys/store.mark".into()), ..options };
/// let options = options.password_file("/run/secrets/store");
/// # let _ = options;
/// # }
/// ```
#[derive(Clone)]
pub struct NetworkOptions {
    /// The issuer of the gate. Gates that share a store have the same issuer.
    pub issuer: String,
    /// The id of the gate's key ring. A store that belongs to another key ring is refused.
    pub keyring: Uuid,
    /// The leeway of the gate.
    pub leeway: Duration,
    /// CA certificates in PEM that replace the system's certificates.
    pub ca: Option<Vec<u8>>,
    /// The gate's own certificate and key, in PEM.
    pub client_certificate: Option<(Vec<u8>, SecretString)>,
    /// The file with this gate's high-water mark. The mark shows at the next start whether the store was reset to an
    /// older state. Gates on one machine may share one file.
    pub high_water: Option<PathBuf>,
    /// Whether the operator accepts a store that contradicts its mark.
    pub accept_restored: bool,
    /// The longest wait for a connection. Default: 1 s.
    pub connect_timeout: Duration,
    /// The longest wait for one response. A timeout closes the connection. Default: 1 s for PostgreSQL, 700 ms for
    /// Redis.
    pub reply_timeout: Option<Duration>,
    /// The time limit of an operation, including all retries. Default: 2 s.
    pub operation_timeout: Duration,
    /// The password for the server.
    #[doc(hidden)]
    pub password: Option<Password>,
    /// The name of the store that is copied into this one. This store must be new, or an incomplete copy.
    #[doc(hidden)]
    pub copying: Option<String>,
}

impl NetworkOptions {
    /// Describes how the operator can start again with an empty store. `delete` describes how to delete the old data.
    #[doc(hidden)]
    pub fn to_begin_anew(&self, delete: String) -> String {
        match self.high_water.as_deref().filter(|mark| mark.exists()) {
            Some(mark) => format!("{delete}, remove the file {}", mark.display()),
            None => delete,
        }
    }

    /// The default options for a gate with this issuer, keyring and leeway.
    pub fn new(issuer: impl Into<String>, keyring: Uuid, leeway: Duration) -> Self {
        Self {
            issuer: issuer.into(),
            keyring,
            leeway,
            ca: None,
            client_certificate: None,
            high_water: None,
            accept_restored: false,
            connect_timeout: Duration::from_secs(1),
            reply_timeout: None,
            operation_timeout: Duration::from_secs(2),
            password: None,
            copying: None,
        }
    }

    /// Sets the password.
    #[must_use]
    pub fn password(self, password: SecretString) -> Self {
        Self { password: Some(Password::Value(password)), ..self }
    }

    /// Sets the password file, which other users must not be able to read.
    ///
    /// The gate reads the file for each connection, so a new password does not need a restart.
    #[must_use]
    pub fn password_file(self, path: impl Into<PathBuf>) -> Self {
        Self { password: Some(Password::File(path.into())), ..self }
    }
}

/// Compares the server's time with our time before and after the request.
///
/// A wrong clock would cause tokens to be refused or accepted for too long.
///
/// # Errors
/// The clocks differ by more than the leeway.
pub fn compare_clocks(
    options: &NetworkOptions,
    server: impl std::fmt::Display,
    before: Timestamp,
    theirs: Timestamp,
    after: Timestamp,
) -> Result<(), StoreError> {
    if theirs.plus(options.leeway) >= before && theirs <= after.plus(options.leeway) {
        return Ok(());
    }
    let apart = theirs.since(after).max(before.since(theirs)).as_secs();
    Err(refused(format!(
        "the clock of {server} and the clock of this machine differ by {apart} s, which is more than the leeway. Set \
         both by NTP"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c20_a_clock_that_differs_by_more_than_the_leeway_is_refused() {
        const LEEWAY: Duration = Duration::from_secs(30);
        let (options, now) =
            (NetworkOptions::new("https://auth.example", Uuid::nil(), LEEWAY), Timestamp::from_secs(1_800_000_000));
        let skewed = |theirs: Timestamp| compare_clocks(&options, "Redis", now, theirs, now);
        assert!(skewed(now.plus(LEEWAY)).is_ok() && skewed(now.minus(LEEWAY)).is_ok());
        for theirs in [now.plus(LEEWAY * 2), now.minus(LEEWAY * 2)] {
            let said = skewed(theirs).unwrap_err().to_string();
            assert!(said.contains("by 60 s") && said.contains("NTP"), "{said}");
        }
    }
}
