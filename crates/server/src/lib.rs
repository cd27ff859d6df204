//! The program rotogate: the [`rotogate`] layer around a reverse proxy, with configuration, listeners, admin API and
//! command line. This API may change at any time, so embedding applications should use [`rotogate`].
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
