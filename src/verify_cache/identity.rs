//! The headers that tell an upstream the caller.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::AssertionHeader;
use crate::headers::{IdentityText, identity_values};
use crate::token::claims::AccessToken;

/// The headers that tell an upstream the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// Each header, and its content.
    pub headers: Vec<(HeaderName, IdentityField)>,
    /// The header with a signed assertion.
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
    /// `scope`.
    Scope,
    /// `sid`.
    Session,
    /// `iss`.
    Issuer,
    /// The roles, joined by commas; none if the issuer left some out.
    Roles,
    /// Another claim, if it is a string, a number or a boolean.
    Claim(Box<str>),
}

impl IdentityHeaders {
    /// The names of all of them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name).chain(self.assertion.as_ref().map(|assertion| &assertion.name))
    }

    /// The value of each header whose field the token has, with its place among them.
    pub(super) fn values(&self, token: &AccessToken) -> Box<[(u16, HeaderValue)]> {
        let asks_claims = self.headers.iter().any(|(_, field)| matches!(field, IdentityField::Claim(_)));
        let others = if asks_claims { token.claims() } else { serde_json::Map::new() };
        let claim = |field: &IdentityField| -> Option<IdentityText<'_>> {
            Some(IdentityText::Claim(match field {
                IdentityField::Subject => token.header_subject(),
                IdentityField::Account => token.account.as_deref()?.into(),
                IdentityField::Client => token.client.as_deref()?.into(),
                IdentityField::Scope => token.scope.as_str().into(),
                IdentityField::Session => token.session?.0.to_string().into(),
                IdentityField::Issuer => (&*token.issuer).into(),
                IdentityField::Roles if token.roles.are_left_out() || token.roles.names().is_empty() => return None,
                IdentityField::Roles => return Some(IdentityText::List(token.roles.names())),
                // The scope as this gate grants it, not as another issuer writes it.
                IdentityField::Claim(name) if **name == *"scope" || token.mapping.has_scope_in(name) => {
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
        let numbered = (0..).zip(&self.headers);
        let (places, claims): (Vec<u16>, Vec<_>) =
            numbered.filter_map(|(at, (_, field))| Some((at, claim(field)?))).unzip();
        places.into_iter().zip(identity_values(claims)).collect()
    }
}
