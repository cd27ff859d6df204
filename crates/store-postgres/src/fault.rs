//! Classifies the driver's errors.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

use super::connect::PostgresFailure;
use super::options::PostgresOptions;
use rotogate_core::store::{StoreError, WriteOutcome};

/// Error codes that an operator must resolve: login, database, rights, and settings that a pooler refuses.
const FOR_OPERATOR: [&str; 5] = ["28000", "28P01", "3D000", "42501", "08P01"];
/// The code that `rg_begin` raises if the data has another history.
const OTHER_HISTORY: &str = "RG001";

pub(super) fn judge(options: &PostgresOptions, error: &Error) -> PostgresFailure {
    let (text, outcome, again, all) = match error.as_db_error() {
        Some(refused) => of_server(options, refused),
        None => of_connection(options, error),
    };
    let failure = StoreError::new(text).with_outcome(outcome);
    let is_for_operator = error.code().is_some_and(|code| FOR_OPERATOR.contains(&code.code()));
    let failure = if is_for_operator { failure.for_operator() } else { failure };
    let is_other_history = error.code().is_some_and(|code| code.code() == OTHER_HISTORY);
    PostgresFailure { error: failure, again, all, is_other_history }
}

type Judged = (String, WriteOutcome, bool, bool);

fn of_connection(options: &PostgresOptions, error: &Error) -> Judged {
    let address = options.address();
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied) {
        let text = format!(
            "PostgreSQL at {address} is a standby or read-only and does not accept writes: give the address of the primary, and \
             set default_transaction_read_only off for the gate's user"
        );
        return (text, WriteOutcome::NotDone, true, true);
    }
    let mut text = format!("PostgreSQL at {address} cannot be reached: {error}");
    if let Some(cause) = error.source() {
        text = format!("{text}: {cause}");
    }
    // A retry does not correct a wrong password or certificate.
    let again = error.is_closed() || cause.is_some();
    (text, WriteOutcome::InDoubt, again, error.is_closed())
}

/// Classifies a server's error. The transaction was rolled back. The text omits server messages that may contain user
/// names.
fn of_server(options: &PostgresOptions, refused: &DbError) -> Judged {
    use WriteOutcome::{InDoubt, NotDone, Refused};
    let address = options.address();
    let code = refused.code();
    let said = refused.message();
    let pooled = "a connection pooler is in between: set `statements = \"unnamed\"`";
    let ends = matches!(refused.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    match code.code() {
        "28000" | "28P01" => {
            let text =
                format!("PostgreSQL at {address} refuses the user, its password or its certificate: correct them");
            (text, NotDone, false, true)
        }
        "3D000" => (format!("PostgreSQL at {address} has no such database: create it"), NotDone, false, false),
        "42501" => {
            let text = format!(
                "PostgreSQL at {address} does not allow the gate's user a required operation ({said}): \
                 docs/postgres.md lists the required rights"
            );
            (text, NotDone, false, false)
        }
        "25006" => {
            let text = format!(
                "PostgreSQL at {address} is a standby or read-only and does not accept writes: give the address of the \
                 primary"
            );
            (text, NotDone, true, true)
        }
        "3F000" | "42P01" | "42883" => {
            let text = format!("PostgreSQL at {address} has lost parts of the store ({said}): restore a back-up");
            (text, NotDone, false, false)
        }
        "40001" | "40P01" | "55P03" | "57014" => {
            (format!("PostgreSQL at {address} was too busy ({said})"), NotDone, true, false)
        }
        "0A000" if said.contains("cached plan") => (
            format!("PostgreSQL at {address} now has another version of the store's tables ({said})"),
            NotDone,
            true,
            true,
        ),
        "08P01" if said.contains("startup parameter") => {
            (format!("PostgreSQL at {address} refuses the gate's settings ({said}): {pooled}"), NotDone, false, false)
        }
        "26000" | "42P05" => (
            format!("PostgreSQL at {address} lost a prepared statement of the gate ({said}): {pooled}"),
            NotDone,
            false,
            true,
        ),
        "53300" => {
            (format!("PostgreSQL at {address} has too many connections: raise max_connections"), NotDone, true, false)
        }
        "53100" | "53200" | "53400" => (
            format!("PostgreSQL at {address} has run out of disk space, memory or another resource: {said}"),
            NotDone,
            false,
            false,
        ),
        OTHER_HISTORY => {
            let text = "PostgreSQL has lost writes: the gates write back the revocations that they know before they \
                        continue";
            (text.to_owned(), NotDone, false, false)
        }
        "23505" => (format!("PostgreSQL at {address} refuses the request: {said}"), Refused, false, false),
        "57P03" => (format!("PostgreSQL at {address} is starting or stopping: {said}"), NotDone, true, true),
        // The commit may have happened before the connection ended.
        _ if ends || code == &SqlState::ADMIN_SHUTDOWN || code == &SqlState::CRASH_SHUTDOWN => {
            (format!("PostgreSQL at {address} ended the connection: {said}"), InDoubt, true, true)
        }
        other => (format!("PostgreSQL at {address} failed: {said} (SQLSTATE {other})"), NotDone, false, false),
    }
}
