//! The headers that name the caller to an upstream.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::AssertionHeader;
use crate::headers::encoded::{IdentityText, identity_values};
use crate::token::claims::AccessToken;

/// The headers that name the caller to an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// The name and the content of each header.
    pub headers: Vec<(HeaderName, IdentityField)>,
    /// The header with a signed assertion about the caller. `None` means that no assertion is sent.
    pub assertion: Option<AssertionHeader>,
}

/// The content of an identity header.
///
/// ```
/// use http::HeaderName;
/// use rotogate::gate::IdentityField;
///
/// let headers = vec![
///     (HeaderName::from_static("x-user"), IdentityField::Subject),
///     (HeaderName::from_static("x-email"), IdentityField::Claim("email".into())),
/// ];
/// let builder = rotogate::Gate::builder().identity_headers(headers);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityField {
    /// `sub`.
    Subject,
    /// The account.
    Account,
    /// `client_id`.
    Client,
    /// The client that acts for the subject: `sub` of the outermost `act` in the gate's own tokens (RFC 8693 §4.1).
    Actor,
    /// `scope`.
    Scope,
    /// `sid`.
    Session,
    /// `iss`.
    Issuer,
    /// The roles, separated by commas. The header is absent if the issuer left roles out.
    Roles,
    /// Another claim, if it is a string, a number or a boolean.
    Claim(Box<str>),
}

impl IdentityHeaders {
    /// The names of all these headers.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name).chain(self.assertion.as_ref().map(|assertion| &assertion.name))
    }

    /// Returns a header value for each field that the token has.
    pub(super) fn values(&self, token: &AccessToken) -> IdentityValues {
        let asks_claims = self.headers.iter().any(|(_, field)| matches!(field, IdentityField::Claim(_)));
        let others = if asks_claims { token.claims() } else { serde_json::Map::new() };
        let claim = |field: &IdentityField| -> Option<IdentityText<'_>> {
            Some(IdentityText::Claim(match field {
                IdentityField::Subject => token.header_subject(),
                IdentityField::Account => token.account()?.into(),
                IdentityField::Client => token.client.as_deref()?.into(),
                IdentityField::Actor => token.delegation()?.actor().into(),
                IdentityField::Scope => token.scope.as_str().into(),
                IdentityField::Session => token.session?.0.to_string().into(),
                IdentityField::Issuer => (&*token.vouching_issuer().url).into(),
                IdentityField::Roles if token.roles().are_left_out() || token.roles().names().is_empty() => {
                    return None;
                }
                IdentityField::Roles => return Some(IdentityText::List(token.roles().names())),
                // The header contains the scope that this gate grants, not the scope that the issuer wrote.
                IdentityField::Claim(name) if **name == *"scope" || token.issued_by.mapping.has_scope_in(name) => {
                    token.scope.as_str().into()
                }
                IdentityField::Claim(name) => match others.get(name.as_ref())? {
                    serde_json::Value::String(text) => Cow::Owned(text.clone()),
                    serde_json::Value::Number(number) => number.to_string().into(),
                    serde_json::Value::Bool(yes) => (if *yes { "true" } else { "false" }).into(),
                    serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                        return None;
                    }
                },
            }))
        };
        let mut present = 0;
        let bits = (0..MAX_IDENTITY_HEADERS).map(|place| 1 << place);
        let claims: Vec<_> =
            bits.zip(&self.headers).filter_map(|(bit, (_, field))| claim(field).inspect(|_| present |= bit)).collect();
        IdentityValues { present, values: identity_values(claims).into() }
    }
}

/// The maximum number of identity headers of a gate, not counting the assertion header.
pub const MAX_IDENTITY_HEADERS: usize = 64;

/// The identity header values of one token.
pub(super) struct IdentityValues {
    /// One bit for each header, with the lowest bit for the first header. A bit is set if the token has a value for the
    /// header.
    present: u64,
    values: Box<[HeaderValue]>,
}

impl IdentityValues {
    /// The header names with their values.
    pub(super) fn named<'a>(
        &'a self,
        headers: &'a IdentityHeaders,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let mut left = self.present;
        self.values.iter().filter_map(move |value| {
            let place = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            Some((&headers.headers.get(place)?.0, value))
        })
    }

    /// The memory that the values use.
    pub(super) fn bytes(&self) -> usize {
        self.values.iter().map(|value| size_of_val(value) + value.len()).sum()
    }
}
