//! rotogate as a program: the [`rotogate`] layer around a reverse proxy, with configuration, listeners, admin API and
//! command line. The binary `rotogate`, its tests and its benches share this library. Its API may change with the
//! program at any time. An application that embeds the gate depends on [`rotogate`] instead.
//!
//! | for | see |
//! |---|---|
//! | the command line | [`cli`] |
//! | `gateway.toml` | [`rotogate_config`] |
//! | listeners, connections, admin listener, reload | [`server`] |
//! | the users file, and users in other systems | [`rotogate_directories`] |
//! | forwarding to upstreams | [`rotogate_proxy`] |
//! | traces | [`trace`] |

mod audit;
pub mod cli;
pub mod log;
pub mod server;
pub mod trace;
