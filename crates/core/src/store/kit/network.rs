//! How a gate reaches the server of its store, and how it identifies itself there.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::password::Password;
use crate::clock::Timestamp;
use crate::random::jittered;
use crate::store::{StoreError, WriteOutcome};

/// The first pause before another attempt.
pub const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause before another attempt.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For `Retry-After`.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The pause after so many failures, at random up to a limit that each failure doubles.
pub fn pause_after(failures: u32) -> Duration {
    jittered(FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE))
}

/// The error for an operation that was not sent, or that the server did not execute. It may be repeated.
pub fn not_done(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::NotDone).with_retry_after(RETRY_AFTER)
}

/// The error for what is wrong in the options, or with the server: a repetition does not help.
pub fn refused(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::Refused)
}

/// The outcome of an operation whose last attempt had this outcome, if an attempt was sent or none was.
pub fn outcome_of_all(last: WriteOutcome, sent: bool) -> WriteOutcome {
    match (sent, last) {
        // An earlier attempt may have been carried out.
        (true, WriteOutcome::NotDone | WriteOutcome::InDoubt) => WriteOutcome::InDoubt,
        (false, WriteOutcome::InDoubt) => WriteOutcome::NotDone,
        (_, outcome) => outcome,
    }
}

/// The options for opening a store on a server, besides the server's address.
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
    /// The issuer of the gate. Gates of one issuer share a store.
    pub issuer: String,
    /// The id of the gate's keyring. A store of another keyring is refused.
    pub keyring: Uuid,
    /// The leeway of the gate.
    pub leeway: Duration,
    /// The trusted CA certificates for the server, in PEM, instead of those of the system.
    pub ca: Option<Vec<u8>>,
    /// The gate's own certificate and key, in PEM.
    pub client_certificate: Option<(Vec<u8>, SecretString)>,
    /// The file of this gate's high-water mark: by this mark a later start notices that the store was set back. Gates
    /// on one machine may share one file.
    pub high_water: Option<PathBuf>,
    /// Whether the operator accepts another store than the mark's, or a store that is older than its mark.
    pub accept_restored: bool,
    /// The longest wait for a connection. Default: 1 s.
    pub connect_timeout: Duration,
    /// The longest wait for one reply. A timeout closes the connection. Default: 1 s for PostgreSQL, 700 ms for Redis.
    pub reply_timeout: Option<Duration>,
    /// The longest wait for an operation with all its repetitions. Default: 2 s.
    pub operation_timeout: Duration,
    /// The password of the gate's user.
    #[doc(hidden)]
    pub password: Option<Password>,
    /// The name of the store of which this store is to become a copy. This store must be new, or an incomplete copy of
    /// that store.
    #[doc(hidden)]
    pub copying: Option<String>,
}

impl NetworkOptions {
    /// What to do, besides `delete`, before a gate begins anew with an unused store.
    #[doc(hidden)]
    pub fn to_begin_anew(&self, delete: String) -> String {
        match self.high_water.as_deref().filter(|mark| mark.exists()) {
            Some(mark) => format!("{delete}, remove the file {}", mark.display()),
            None => delete,
        }
    }

    /// The defaults, for a gate with this issuer, keyring and leeway.
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

    /// The password.
    #[must_use]
    pub fn password(self, password: SecretString) -> Self {
        Self { password: Some(Password::Value(password)), ..self }
    }

    /// A file with the password, which no other user may read. The gate reads the file at each connection, so a new
    /// password needs no restart.
    #[must_use]
    pub fn password_file(self, path: impl Into<PathBuf>) -> Self {
        Self { password: Some(Password::File(path.into())), ..self }
    }
}

/// Compares the clock of the server (`theirs`) with ours, read before and after it: if the clocks differ, one of them
/// is wrong, and tokens would be refused or live too long. `server` names the server in the error.
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
        "the clock of {server} and this machine's differ by {apart} s, which is more than the leeway: set both by NTP"
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
