//! `[admin]`: the listener for operators.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::print::{path, put, texts};
use super::super::raw::Section;
use super::super::value;
use super::{ServerConfig, collide, loopback, path_in};

/// `[admin]`: the listener for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address: loopback, unless `dangerous_non_loopback` is set.
    pub listen: SocketAddr,
    /// The file of the admin token.
    pub token_file: PathBuf,
    /// Whether the operator allows an address that other machines reach (requirement O10).
    pub dangerous_non_loopback: bool,
    /// Further host names of the listener, in lower case, besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
}

/// The defaults of the section. The address is a loopback one.
impl AdminConfig {
    const PORT: u16 = 8081;
    const TOKEN_FILE: &str = "data/admin.token";
}

pub(super) fn read(section: &Section<'_>, dir: &Path, server: &ServerConfig) -> AdminConfig {
    let listen = section.get("listen", value::address).unwrap_or_else(|| loopback(AdminConfig::PORT));
    let dangerous_non_loopback = section.get("dangerous_non_loopback", value::boolean).unwrap_or(false);
    if !listen.ip().to_canonical().is_loopback() && !dangerous_non_loopback {
        let message = format!(
            "{listen} can be reached from other machines; expected a loopback address such as 127.0.0.1:8081, or \
             dangerous_non_loopback = true beside it"
        );
        section.blame("listen", message);
    }
    if let Some(public) = server.addresses().find(|public| collide(*public, listen)) {
        let message = format!("{listen} is the public listener {public} too; expected an address of its own");
        section.blame("listen", message);
    }
    let token_file = section.get("token_file", path_in(dir)).unwrap_or_else(|| dir.join(AdminConfig::TOKEN_FILE));
    let hosts = section.list("hosts", value::host).unwrap_or_default();
    section.finish();
    AdminConfig { listen, token_file, dangerous_non_loopback, hosts }
}

pub(super) fn print(admin: &AdminConfig) -> Value {
    let AdminConfig { listen, token_file, dangerous_non_loopback, hosts } = admin;
    let mut table = Table::new();
    put(&mut table, "listen", listen.to_string());
    put(&mut table, "token_file", path(token_file));
    put(&mut table, "dangerous_non_loopback", *dangerous_non_loopback);
    put(&mut table, "hosts", texts(hosts));
    table.into()
}
