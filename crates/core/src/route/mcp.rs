//! How a resource's calls of the Model Context Protocol (MCP) are judged: `mcp` and `implies` of a resource, `calls` of a
//! route.

mod implied;
mod pattern;
mod rules;

pub use implied::Implied;
pub use pattern::McpCalls;
pub use rules::{CallRule, CallRules};

use crate::mcp::VERSIONS;

/// How the calls of a resource are judged. The default judges the body, accepts the newest version, and bodies of up to
/// 1 MiB.
///
/// ```
/// use rotogate::route::{Mcp, Resource};
///
/// // Clients of the version before may call, too.
/// let mcp = Mcp { versions: vec!["2026-07-28".into(), "2025-11-25".into()], ..Mcp::default() };
/// let builder = rotogate::Gate::builder().resource(Resource { mcp: Some(mcp), ..Resource::new("/mcp") });
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mcp {
    /// What names the call.
    pub check: McpCheck,
    /// The accepted versions of the protocol.
    pub versions: Vec<String>,
    /// The longest body, in bytes, of a call that is judged by its body.
    pub max_message: u64,
    /// The origins of pages that may send calls, besides the gate's own origin and the CORS origins. A request from
    /// another page is refused.
    pub origins: Vec<Box<str>>,
}

/// The part of a request that names its call.
///
/// ```
/// use rotogate::route::{Mcp, McpCheck};
///
/// // The server behind the gate compares headers and body, as the version of 2026-07-28 requires.
/// let mcp = Mcp { check: McpCheck::Headers, ..Mcp::default() };
/// # let _ = mcp;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum McpCheck {
    /// The body, with which the headers must agree. The gate buffers it.
    #[default]
    Body,
    /// The gate checks the headers alone, because the server compares the headers with the body.
    Headers,
}

impl McpCheck {
    /// The value's word in `gateway.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
        }
    }
}

impl Default for Mcp {
    fn default() -> Self {
        Self {
            check: McpCheck::Body,
            versions: vec![VERSIONS[0].to_owned()],
            max_message: 1024 * 1024,
            origins: Vec::new(),
        }
    }
}

impl Mcp {
    /// The problem of the versions, if there is one.
    pub fn problem(&self) -> Option<String> {
        let known = || VERSIONS.join("\", \"");
        if self.versions.is_empty() {
            return Some(format!("no version is listed; expected some of \"{}\"", known()));
        }
        if let Some(other) = self.versions.iter().find(|version| !VERSIONS.contains(&version.as_str())) {
            return Some(format!("\"{other}\" is not a known version; expected some of \"{}\"", known()));
        }
        (self.check == McpCheck::Headers && self.takes_older()).then(|| {
            format!(
                "servers of versions before {} do not compare the headers with the body; use check = \"body\"",
                VERSIONS[0]
            )
        })
    }

    /// Is an older version of the protocol accepted? Its clients send GET and DELETE requests, and no headers about the
    /// call.
    pub fn takes_older(&self) -> bool {
        self.versions.iter().any(|version| version != VERSIONS[0])
    }
}

#[cfg(test)]
mod tests;
