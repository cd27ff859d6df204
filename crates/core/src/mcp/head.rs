//! The headers that repeat parts of a call (MCP 2026-07-28, "Request Metadata").

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};

use super::{Call, Message, has_call_headers, named_by};
use crate::denial::CallFlaw;

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The description of a call in the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallHead<'a> {
    /// The value of `MCP-Protocol-Version`, which some clients omit.
    pub version: Option<&'a str>,
    /// The value of `Mcp-Method`.
    pub method: Option<&'a str>,
    /// The decoded value of `Mcp-Name`.
    pub name: Option<Cow<'a, str>>,
}

impl<'a> CallHead<'a> {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`CallFlaw::HeaderMismatch`] if a header is repeated, invalid, or missing although the version requires it.
    // Requirements M2 and M3.
    pub fn read(headers: &'a HeaderMap) -> Result<Self, CallFlaw> {
        let version = once(headers, &VERSION, "MCP-Protocol-Version is repeated or has non-ASCII characters")?;
        let method = once(headers, &METHOD, "Mcp-Method is repeated or has non-ASCII characters")?;
        let name = once(headers, &NAME, "Mcp-Name is repeated or has non-ASCII characters")?;
        let name = name.map(decode).transpose()?;
        if version.is_some_and(has_call_headers) {
            let method = method.ok_or(CallFlaw::HeaderMismatch("Mcp-Method is missing"))?;
            if named_by(method).is_some() && name.is_none() {
                return Err(CallFlaw::HeaderMismatch("Mcp-Name is missing"));
            }
        }
        Ok(Self { version, method, name })
    }

    /// Returns the call in the headers.
    pub fn into_call(self) -> Option<Call<'a>> {
        let method = self.method?;
        let name = self.name.filter(|_| named_by(method).is_some());
        Some(Call { method: Some(method.into()), name })
    }

    /// Compares the headers with the body. Every header must match, even an optional one.
    ///
    /// # Errors
    /// [`CallFlaw::HeaderMismatch`].
    // Requirement M1.
    pub fn agree(&self, message: &Message<'_>) -> Result<(), CallFlaw> {
        let told = message.call();
        let is_told = |header: Option<&str>, body: Option<&str>| header.is_none_or(|header| body == Some(header));
        if !is_told(self.method, told.method.as_deref()) {
            return Err(CallFlaw::HeaderMismatch("Mcp-Method differs from the method in the body"));
        }
        if told.name.is_some() && !is_told(self.name.as_deref(), told.name.as_deref()) {
            return Err(CallFlaw::HeaderMismatch("Mcp-Name differs from the name in the body"));
        }
        // A missing header must not select an older version than the body states.
        match (self.version, message.version()) {
            (Some(header), Some(body)) if header != body => {
                Err(CallFlaw::HeaderMismatch("MCP-Protocol-Version differs from the version in the body"))
            }
            (None, Some(body)) if has_call_headers(body) => {
                Err(CallFlaw::HeaderMismatch("MCP-Protocol-Version is missing"))
            }
            _ => Ok(()),
        }
    }
}

fn once<'a>(headers: &'a HeaderMap, name: &HeaderName, flaw: &'static str) -> Result<Option<&'a str>, CallFlaw> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(http::HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) if !value.is_empty() => Ok(Some(value)),
        _ => Err(CallFlaw::HeaderMismatch(flaw)),
    }
}

/// The value is plain text, or base64 between `=?base64?` and `?=`.
fn decode(value: &str) -> Result<Cow<'_, str>, CallFlaw> {
    const FLAW: CallFlaw = CallFlaw::HeaderMismatch("Mcp-Name is not base64-encoded UTF-8");
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(value.into());
    };
    // The decoder accepts only one encoding of each value.
    let bytes = STANDARD.decode(encoded).map_err(|_| FLAW)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| FLAW)
}
