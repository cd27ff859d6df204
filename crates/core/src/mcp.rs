//! Calls of the Model Context Protocol (MCP 2026-07-28, "Streamable HTTP").

mod flaw;
mod head;
mod message;

pub use flaw::reply;
pub use head::CallHead;
pub use message::{Message, MessageId, read};

use std::borrow::Cow;

/// The versions that a resource may list, newest first.
pub const VERSIONS: [&str; 4] = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"];

/// Returns whether this version requires servers to compare headers and body.
pub fn has_call_headers(version: &str) -> bool {
    version >= VERSIONS[0]
}

/// A call of a tool, prompt or resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The JSON-RPC method, or `None` for a client's response.
    pub method: Option<Cow<'a, str>>,
    /// The value of `params.name` or `params.uri`.
    pub name: Option<Cow<'a, str>>,
}

impl Call<'_> {
    /// A copy without borrowed data.
    pub fn into_owned(self) -> Call<'static> {
        let text = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Call { method: text(self.method), name: text(self.name) }
    }
}

/// The member of `params` that `Mcp-Name` must repeat.
fn named_by(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
