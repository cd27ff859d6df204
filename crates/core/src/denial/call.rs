//! The flaw of a call of the Model Context Protocol.

/// The flaw of a call.
///
/// ```
/// use rotogate::denial::{CallFlaw, Denial};
///
/// let denial = Denial::BadCall(CallFlaw::HeaderMismatch("Mcp-Name is not the name in the body"));
/// assert_eq!(denial.to_string(), "bad_call: Mcp-Name is not the name in the body");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFlaw {
    /// A header of the call is missing, repeated, malformed, or contradicts the body.
    HeaderMismatch(&'static str),
    /// The resource does not list the version of the protocol.
    UnsupportedVersion,
    /// The body is not JSON.
    NotJson,
    /// The body is JSON, but not a single, unambiguous JSON-RPC message.
    NotOneMessage(&'static str),
    /// The body has another media type, or a content coding.
    MediaType,
    /// Calls are judged by their bodies, and this request is judged without one.
    NoBody,
}

impl CallFlaw {
    /// The flaw, as a fixed text.
    pub const fn what(self) -> &'static str {
        match self {
            Self::HeaderMismatch(what) | Self::NotOneMessage(what) => what,
            Self::UnsupportedVersion => "the resource does not list this version of the protocol",
            Self::NotJson => "the body is not JSON",
            Self::MediaType => "the body must be application/json in UTF-8, without a content coding",
            Self::NoBody => "the gate must read the body of this call, and this request is judged without its body",
        }
    }
}
