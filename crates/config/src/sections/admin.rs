//! `[admin]`: the listener for operators.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::{ServerConfig, collide, loopback, path_in};
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// `[admin]`: the listener for operators.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AdminConfig, read by read_keys(section, dir: &Path) {
        /// Address of the listener. An address other than loopback needs `dangerous_non_loopback`.
        restart listen: SocketAddr = get_or(value::address, loopback(AdminConfig::PORT)),
        /// true: `listen` may be an address that other machines can reach. Set it if Prometheus runs on another
        /// machine, and nobody else can read the traffic between the machines.
        // Requirement O10.
        restart dangerous_non_loopback: bool = get_or(value::boolean, false),
        /// File with the admin token named `default`, which has the role `admin`. The gate creates it at the first
        /// start. A token is needed to read sessions and to change anything.
        restart token_file: PathBuf = get_or(path_in(dir), dir.join(AdminConfig::TOKEN_FILE)),
        /// Further admin tokens, in addition to the token `default` in `token_file`.
        restart tokens: Vec<AdminTokenConfig> = by { read_tokens(section, dir, &token_file) },
        /// Address of a listener that serves only `/livez` and `/readyz`, without a token. Any address is allowed. Set
        /// it for a load balancer or a kubelet on another machine.
        // Requirement P54.
        restart probes: Option<SocketAddr> = get(value::address),
        /// Host names that the listener accepts in addition to localhost and IP addresses. Requests with another `Host`
        /// get 421. Set it if callers use a host name.
        restart hosts: Vec<String> = list_or_empty(value::host),
    }
}

section! {
    /// An entry of `[[admin.tokens]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AdminTokenConfig, read by read_token(section, dir: &Path) {
        /// Name of the token in the audit log. Two tokens may have the same name, for example while a new token
        /// replaces an old one.
        restart name: String = required("a name for the audit trail, such as \"ada\"", token_name),
        /// Required: `"viewer"`: may read; `"operator"`: may also revoke sessions and reload the configuration;
        /// `"admin"`: may also create API keys and copy the store.
        restart role: AdminRole = by {
            let role = section.require("role", "\"viewer\", \"operator\" or \"admin\"", value::word_of);
            role.unwrap_or(AdminRole::Viewer)
        },
        /// File with the token. The gate creates it at a start if it is missing, and reads it again when it changes.
        restart file: PathBuf = required("the file with the token", path_in(dir)),
    }
}

/// The permissions that a token grants. Each role includes the permissions of the roles before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// May read.
    Viewer,
    /// May also end sessions and reload the configuration.
    Operator,
    /// May do everything, for example copy the store.
    Admin,
}

impl AdminRole {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word for the role in the configuration and in the audit trail.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl Words for AdminRole {
    const WORDS: &'static [(&'static str, Self)] =
        &[("viewer", Self::Viewer), ("operator", Self::Operator), ("admin", Self::Admin)];
}

impl AdminConfig {
    const PORT: u16 = 8081;
    const TOKEN_FILE: &str = "data/admin.token";
    /// The name of the token in `token_file`.
    pub const DEFAULT_TOKEN: &str = "default";

    /// All tokens and the configuration keys of their files.
    pub fn all_tokens(&self) -> impl Iterator<Item = (String, AdminTokenConfig)> {
        let default = AdminTokenConfig {
            name: Self::DEFAULT_TOKEN.to_owned(),
            role: AdminRole::Admin,
            file: self.token_file.clone(),
        };
        let more = self.tokens.iter().enumerate();
        let more = more.map(|(index, token)| (format!("admin.tokens[{index}].file"), token.clone()));
        std::iter::once(("admin.token_file".to_owned(), default)).chain(more)
    }

    /// The addresses and their configuration keys.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &str)> {
        std::iter::once((self.listen, "admin.listen")).chain(self.probes.map(|probes| (probes, "admin.probes")))
    }
}

/// The settings for requests to a running gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAccess {
    /// The host and port of the admin listener.
    pub address: String,
    /// The file with an admin token. With `None`, only the probes can be requested.
    pub token_file: Option<PathBuf>,
}

impl AdminConfig {
    /// The settings for requests to the admin listener.
    pub fn access(&self) -> AdminAccess {
        AdminAccess { address: self.listen.to_string(), token_file: Some(self.token_file.clone()) }
    }
}

/// Reads only the two keys that are needed for access.
pub(crate) fn read_access(section: &Section<'_>, dir: &Path) -> AdminAccess {
    let listen = section.get("listen", value::address).unwrap_or_else(|| loopback(AdminConfig::PORT));
    let token_file = section.get("token_file", path_in(dir)).unwrap_or_else(|| dir.join(AdminConfig::TOKEN_FILE));
    AdminAccess { address: listen.to_string(), token_file: Some(token_file) }
}

pub(super) fn read(section: &Section<'_>, dir: &Path, server: &ServerConfig) -> AdminConfig {
    let admin = read_keys(section, dir);
    let listen = admin.listen;
    if !listen.ip().to_canonical().is_loopback() && !admin.dangerous_non_loopback {
        let message = format!(
            "{listen} can be reached from other machines; expected a loopback address such as 127.0.0.1:8081, or \
             `dangerous_non_loopback = true` in this section"
        );
        section.blame("listen", message);
    }
    if let Some(public) = server.addresses().find(|public| collide(*public, listen)) {
        let message =
            format!("{listen} is already used by the public listener {public}; choose another address or port");
        section.blame("listen", message);
    }
    if let Some(probes) = admin.probes
        && let Some(other) = server.addresses().chain([listen]).find(|other| collide(*other, probes))
    {
        section.blame(
            "probes",
            format!("{probes} is already used by the listener {other}; choose another address or port"),
        );
    }
    admin
}

fn read_tokens(section: &Section<'_>, dir: &Path, default: &Path) -> Vec<AdminTokenConfig> {
    let mut tokens: Vec<AdminTokenConfig> = Vec::new();
    for section in section.sections("tokens") {
        let token = read_token(&section, dir);
        let is_refused = section.is_bad();
        section.finish();
        if is_refused {
            continue;
        }
        let AdminTokenConfig { name, role, file } = &token;
        let known = |other: &&AdminTokenConfig| other.name == *name && other.role != *role;
        if let Some(other) = tokens.iter().find(known) {
            let message = format!(
                "\"{name}\" has the role {} in an entry above; give all tokens with this name the same role",
                other.role.word()
            );
            section.blame("role", message);
        } else if name == AdminConfig::DEFAULT_TOKEN && *role != AdminRole::Admin {
            section.blame(
                "role",
                "the name \"default\" belongs to the token in `admin.token_file`, which has the role `admin`; choose \
                 another name",
            );
        }
        if file == default || tokens.iter().any(|other| other.file == *file) {
            section.blame(
                "file",
                format!("{} is already the file of another token; give each token its own file", file.display()),
            );
        }
        tokens.push(token);
    }
    tokens
}

/// Reads the name of a token. Only characters that are readable in a log line are allowed.
fn token_name(value: &Raw) -> Result<String, String> {
    const MAX_BYTES: usize = 64;
    let is_sound = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    let fits = |name: &str| name.len() <= MAX_BYTES && name.bytes().all(is_sound);
    value::fitting(value, &format!("1 to {MAX_BYTES} letters, digits and . _ @ -"), fits)
}
