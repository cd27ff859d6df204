//! Users in another system: the effects of its faults and of changes there.

mod guesses;
mod http;
#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "sql")]
mod postgres;
mod several;
#[cfg(any(feature = "ldap", feature = "sql"))]
mod silence;
#[cfg(feature = "sql")]
mod sqlite;
mod vouched;
