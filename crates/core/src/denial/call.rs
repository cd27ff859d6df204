//! The flaws of Model Context Protocol calls.

/// A flaw of a Model Context Protocol call.
///
/// ```
/// use rotogate::denial::{CallFlaw, Denial};
///
/// let denial = Denial::BadCall(CallFlaw::HeaderMismatch("Mcp-Name differs from the name in the body"));
/// assert_eq!(denial.to_string(), "bad_call: Mcp-Name differs from the name in the body");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFlaw {
    /// A header is missing, repeated or malformed, or contradicts the body.
    HeaderMismatch(&'static str),
    /// The resource does not support this protocol version.
    UnsupportedVersion,
    /// The body is not JSON.
    NotJson,
    /// The body is JSON, but not a single, unambiguous JSON-RPC message.
    NotOneMessage(&'static str),
    /// The body has a different media type or a content coding.
    MediaType,
    /// The route needs the body of the call, but the gate does not have it.
    NoBody,
}

impl CallFlaw {
    /// A description of the flaw.
    pub const fn what(self) -> &'static str {
        match self {
            Self::HeaderMismatch(what) | Self::NotOneMessage(what) => what,
            Self::UnsupportedVersion => "the resource does not support this version of the protocol",
            Self::NotJson => "the body is not JSON",
            Self::MediaType => "the body must be application/json in UTF-8, without a content coding",
            Self::NoBody => "the gate must read the body of this call, but received only the head of the request",
        }
    }
}
