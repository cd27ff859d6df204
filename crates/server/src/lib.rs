//! rotogate as a program: the [`rotogate`] layer around a reverse proxy, with its configuration, listeners, admin API and
//! command line. This library is what the binary `rotogate`, its tests and its benches share. Its API follows the program
//! and makes no promise; an application that wants the gate inside depends on [`rotogate`] instead.
//!
//! | for | see |
//! |---|---|
//! | the command line | [`cli`] |
//! | `gateway.toml` | [`config`] |
//! | listeners, connections, admin listener, reload | [`server`] |
//! | the users file | [`users`] |
//! | forwarding to upstreams | [`proxy`] |

pub mod cli;
pub mod config;
pub mod lane;
pub mod log;
pub mod proxy;
pub mod server;
mod stamp;
pub mod users;
