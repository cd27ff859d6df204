//! Users in another system: what a fault of it does, and what a change in it does.

mod guesses;
#[cfg(feature = "hook")]
mod http;
#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "sql")]
mod mariadb;
#[cfg(feature = "sql")]
mod postgres;
#[cfg(feature = "hook")]
mod several;
#[cfg(feature = "sql")]
mod sqlite;
