//! Checks MCP calls (Model Context Protocol) to a resource.
//!
//! The configuration keys are `mcp` and `implies` of a resource, and `calls` of a route.

mod implied;
mod pattern;
mod rules;
mod uri;

pub use implied::Implied;
pub use pattern::McpCalls;
pub use rules::{CallRule, CallRules};

use crate::mcp::VERSIONS;

/// How MCP calls to a resource are checked.
///
/// By default the gate reads the call from the body, which may have up to 1 MiB. Only the newest protocol version is
/// accepted.
///
/// ```
/// use rotogate::route::{Mcp, Resource};
///
/// // Clients of the previous version may also call.
/// let mcp = Mcp { versions: vec!["2026-07-28".into(), "2025-11-25".into()], ..Mcp::default() };
/// let builder = rotogate::Gate::builder().resource(Resource { mcp: Some(mcp), ..Resource::new("/mcp") });
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mcp {
    /// Whether the gate reads calls only from the headers.
    ///
    /// If true, the server must compare headers and body, as version 2026-07-28 requires. By default, the gate compares
    /// them.
    pub headers_alone: bool,
    /// The accepted protocol versions.
    pub versions: Vec<String>,
    /// The longest accepted body with a call, in bytes.
    pub max_message: u64,
    /// The additional origins of pages that may send calls. The gate's own origin and the CORS origins are always
    /// accepted.
    pub origins: Vec<Box<str>>,
}

impl Default for Mcp {
    fn default() -> Self {
        Self {
            headers_alone: false,
            versions: vec![VERSIONS[0].to_owned()],
            max_message: 1024 * 1024,
            origins: Vec::new(),
        }
    }
}

impl Mcp {
    /// Returns a problem with the versions, or `None`.
    pub fn problem(&self) -> Option<String> {
        let known = || VERSIONS.join("\", \"");
        if self.versions.is_empty() {
            return Some(format!("no version is listed; expected at least one of \"{}\"", known()));
        }
        if let Some(other) = self.versions.iter().find(|version| !VERSIONS.contains(&version.as_str())) {
            return Some(format!("\"{other}\" is not a known version; expected at least one of \"{}\"", known()));
        }
        // The list must not have gaps, because the server may choose the client's newest version.
        let oldest = VERSIONS.iter().rposition(|version| self.versions.iter().any(|listed| listed == version));
        let missing = VERSIONS[1..]
            .iter()
            .take(oldest.unwrap_or_default())
            .find(|version| !self.versions.iter().any(|listed| listed == **version));
        if let Some(missing) = missing {
            return Some(format!(
                "\"{missing}\" is missing; client and server may choose it, because it is newer than another version \
                 in the list"
            ));
        }
        (self.headers_alone && self.takes_older()).then(|| {
            format!(
                "servers that support versions before {} do not compare the headers with the body; use check = \
                 \"body\"",
                VERSIONS[0]
            )
        })
    }

    /// Whether an older protocol version is accepted. Older clients send GET and DELETE, and do not describe calls in
    /// headers.
    pub fn takes_older(&self) -> bool {
        self.versions.iter().any(|version| version != VERSIONS[0])
    }
}

#[cfg(test)]
mod tests;
