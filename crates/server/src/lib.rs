//! The program rotogate. It runs the [`rotogate`] layer around a reverse proxy, and adds the configuration, the
//! listeners, the admin API and the command line. The binary `rotogate`, its tests and its benchmarks share this
//! library. Its API may change at any time, so an application that embeds the gate should depend on [`rotogate`]
//! instead.
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
mod shell;
pub mod trace;
