//! `[admin]`: the listener for operators.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::print::{list, path, put, put_some, texts};
use super::super::raw::{Section, Value as Raw};
use super::super::value;
use super::{ServerConfig, collide, loopback, path_in};

/// `[admin]`: the listener for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address: loopback, unless `dangerous_non_loopback` is set.
    pub listen: SocketAddr,
    /// The file of the token `default`, of the role admin.
    pub token_file: PathBuf,
    /// `[[admin.tokens]]`: further tokens.
    pub tokens: Vec<AdminTokenConfig>,
    /// The listener that answers health checks alone. Any address.
    // Requirement P54.
    pub probes: Option<SocketAddr>,
    /// Whether the operator allows an address that other machines reach (requirement O10).
    pub dangerous_non_loopback: bool,
    /// Further host names of the listener, in lower case, besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
}

/// An entry of `[[admin.tokens]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTokenConfig {
    /// Its name in the audit trail. Two files may have one name, while one replaces the other.
    pub name: String,
    /// What its holder may do.
    pub role: AdminRole,
    /// The file of the token.
    pub file: PathBuf,
}

/// What the holder of a token may do. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Reads.
    Viewer,
    /// Ends sessions, reloads.
    Operator,
    /// Everything: copies of the store.
    Admin,
}

impl AdminRole {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Its word in the configuration and in the audit trail.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// The defaults of the section. The address is a loopback one.
impl AdminConfig {
    const PORT: u16 = 8081;
    const TOKEN_FILE: &str = "data/admin.token";
    /// The name of the token in `token_file`.
    pub const DEFAULT_TOKEN: &str = "default";

    /// Every token, each with the key of its file.
    pub(crate) fn all_tokens(&self) -> impl Iterator<Item = (String, AdminTokenConfig)> {
        let default = AdminTokenConfig {
            name: Self::DEFAULT_TOKEN.to_owned(),
            role: AdminRole::Admin,
            file: self.token_file.clone(),
        };
        let more = self.tokens.iter().enumerate();
        let more = more.map(|(index, token)| (format!("admin.tokens[{index}].file"), token.clone()));
        std::iter::once(("admin.token_file".to_owned(), default)).chain(more)
    }

    /// Every address of the section, each with its key.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &str)> {
        std::iter::once((self.listen, "admin.listen")).chain(self.probes.map(|probes| (probes, "admin.probes")))
    }
}

/// What a command needs in order to ask a running gate: nothing else of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAccess {
    /// The host and port of the admin listener.
    pub address: String,
    /// The file of a token. `None`: none was named, so that probes alone can be asked for.
    pub token_file: Option<PathBuf>,
}

impl AdminConfig {
    /// How a command asks the gate of this configuration.
    pub fn access(&self) -> AdminAccess {
        AdminAccess { address: self.listen.to_string(), token_file: Some(self.token_file.clone()) }
    }
}

/// The two keys alone, whatever else the configuration says.
pub(crate) fn read_access(section: &Section<'_>, dir: &Path) -> AdminAccess {
    let listen = section.get("listen", value::address).unwrap_or_else(|| loopback(AdminConfig::PORT));
    let token_file = section.get("token_file", path_in(dir)).unwrap_or_else(|| dir.join(AdminConfig::TOKEN_FILE));
    AdminAccess { address: listen.to_string(), token_file: Some(token_file) }
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
    let tokens = read_tokens(section, dir, &token_file);
    let probes = section.get("probes", value::address);
    if let Some(probes) = probes
        && let Some(other) = server.addresses().chain([listen]).find(|other| collide(*other, probes))
    {
        section.blame("probes", format!("{probes} is the listener {other} too; expected an address of its own"));
    }
    let hosts = section.list("hosts", value::host).unwrap_or_default();
    section.finish();
    AdminConfig { listen, token_file, tokens, probes, dangerous_non_loopback, hosts }
}

fn read_tokens(section: &Section<'_>, dir: &Path, default: &Path) -> Vec<AdminTokenConfig> {
    let mut tokens: Vec<AdminTokenConfig> = Vec::new();
    for section in section.sections("tokens") {
        let name = section.require("name", "a name for the audit trail, such as \"ada\"", token_name);
        let words = AdminRole::ALL.map(|role| (role.word(), role));
        let role = section.require("role", "\"viewer\", \"operator\" or \"admin\"", value::word(&words, &[]));
        let file = section.require("file", "the file of the token", path_in(dir));
        section.finish();
        let (Some(name), Some(role), Some(file)) = (name, role, file) else { continue };
        let known = |other: &&AdminTokenConfig| other.name == name && other.role != role;
        if let Some(other) = tokens.iter().find(known) {
            let message = format!("\"{name}\" is {} above; expected one role for one name", other.role.word());
            section.blame("role", message);
        } else if name == AdminConfig::DEFAULT_TOKEN && role != AdminRole::Admin {
            section.blame("role", "\"default\" is the token of admin.token_file, an admin; expected another name");
        }
        if file == default || tokens.iter().any(|other| other.file == file) {
            section.blame("file", format!("{} is the file of another token too", file.display()));
        }
        tokens.push(AdminTokenConfig { name, role, file });
    }
    tokens
}

/// A name that reads well in a log line.
fn token_name(value: &Raw) -> Result<String, String> {
    const MAX_BYTES: usize = 64;
    let name = value::text(value)?;
    let is_sound = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    match (1..=MAX_BYTES).contains(&name.len()) && name.bytes().all(is_sound) {
        true => Ok(name),
        false => Err(format!("expected 1 to {MAX_BYTES} letters, digits and . _ @ -, found {}", value.describe())),
    }
}

pub(super) fn print(admin: &AdminConfig) -> Value {
    let AdminConfig { listen, token_file, tokens, probes, dangerous_non_loopback, hosts } = admin;
    let mut table = Table::new();
    put(&mut table, "listen", listen.to_string());
    put(&mut table, "token_file", path(token_file));
    put(&mut table, "tokens", list(tokens, print_token));
    put_some(&mut table, "probes", probes.map(|probes| probes.to_string()));
    put(&mut table, "dangerous_non_loopback", *dangerous_non_loopback);
    put(&mut table, "hosts", texts(hosts));
    table.into()
}

fn print_token(token: &AdminTokenConfig) -> Value {
    let AdminTokenConfig { name, role, file } = token;
    let mut table = Table::new();
    put(&mut table, "name", name.as_str());
    put(&mut table, "role", role.word());
    put(&mut table, "file", path(file));
    table.into()
}
