use rotogate_core::client::Grant;
use rotogate_core::counters::Counters;
use rotogate_core::denial::Class;
use rotogate_core::fault::Error;

use crate::dialect::{Command, Outcome};

const GRANTS: [Grant; 5] =
    [Grant::Password, Grant::RefreshToken, Grant::ClientCredentials, Grant::TokenExchange, Grant::JwtBearer];
const RESULTS: [&str; 3] = ["granted", "refused", "unavailable"];
const COUNTERS: usize = GRANTS.len() * RESULTS.len();

/// Relays have separate counters.
#[derive(Debug, Default)]
pub(crate) struct GrantResults(Counters<COUNTERS>);

impl GrantResults {
    pub(super) fn count(&self, grant: Grant, outcome: &Result<Outcome, Error>) {
        let result = match outcome {
            Ok(_) => 0,
            Err(Error::Denied(denial)) if !matches!(denial.class(), Class::Unavailable(_)) => 1,
            Err(_) => 2,
        };
        let grant = GRANTS.iter().position(|known| *known == grant).unwrap_or_default();
        self.0.add(grant * RESULTS.len() + result, 1);
    }

    pub(in crate::gate) fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let labels = GRANTS.into_iter().flat_map(|grant| RESULTS.map(|result| (grant.word(), result)));
        labels.zip(self.0.sums()).map(|((grant, result), number)| (grant, result, number))
    }
}

pub(super) const fn grant_of(command: &Command) -> Option<Grant> {
    match command {
        Command::Login { .. } => Some(Grant::Password),
        Command::Refresh { .. } => Some(Grant::RefreshToken),
        Command::ClientToken { .. } => Some(Grant::ClientCredentials),
        Command::Exchange(_) => Some(Grant::TokenExchange),
        Command::Assertion { .. } => Some(Grant::JwtBearer),
        Command::Revoke { .. } | Command::Logout { .. } | Command::Introspect { .. } | Command::Check { .. } => None,
        Command::RevokeGlobally(_) => None,
    }
}
