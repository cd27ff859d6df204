//! What a route asks of a request, and what it lets through.

use super::path::{CanonicalPath, PathError};
use crate::denial::Denial;
use crate::session::scope::Scope;

/// The rules of one route. The default is the strictest: a token is required, and nothing unusual passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Is a token required?
    pub auth: Auth,
    /// The scopes that the token must hold, all of them.
    pub scopes: Scope,
    /// The audiences of which the token must name one. Empty: any that its issuer's rules allow.
    pub audiences: Vec<String>,
    /// What a credential that does not hold brings where none is required.
    pub bad_credential_on_optional: BadCredential,
    /// The upstream gets the `Authorization` header too (T14).
    pub forward_token: bool,
    /// Paths with `%2F`.
    pub encoded_slash: EncodedSlash,
    /// Headers with `_` in their names pass, unless they could be taken for one of ours (T4).
    pub keep_underscore_headers: bool,
    /// Headers that override method or URL pass (T6).
    pub keep_override_headers: bool,
    /// A longer request body is refused, in bytes. None: no bound.
    pub max_body: Option<u64>,
    /// CORS preflight goes to the upstream (T19).
    pub preflight_to_upstream: bool,
    /// The dialect in whose words a request is refused here, and whose clients' ways of sending a token are taken.
    pub dialect: Option<String>,
    /// A cookie that may hold the access token (requirement T18).
    pub cookie: Option<String>,
    /// A WebSocket or another upgrade passes to the upstream (requirement T9).
    pub upgrade: bool,
    /// What becomes of a tunnel or a long reply when its caller's token expires.
    pub on_expiry: OnExpiry,
}

impl RoutePolicy {
    /// For everyone: no token is looked at.
    pub fn public() -> Self {
        Self { auth: Auth::None, ..Self::default() }
    }

    /// With a token or without; one that is sent must hold.
    pub fn optional() -> Self {
        Self { auth: Auth::Optional, ..Self::default() }
    }

    /// May a request with this path take the route (T12)?
    ///
    /// # Errors
    /// [`Denial::BadPath`] for an escaped slash that the route does not keep.
    pub fn admits(&self, path: &CanonicalPath<'_>) -> Result<(), Denial> {
        match self.encoded_slash {
            EncodedSlash::Refuse if path.has_encoded_slash() => Err(PathError::EncodedSlash.into()),
            EncodedSlash::Refuse | EncodedSlash::Keep => Ok(()),
        }
    }
}

/// `auth`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Public: no token is looked at.
    None,
    /// With a token or without, but one that is sent must hold.
    Optional,
    /// Only with a token.
    #[default]
    Required,
}

/// `bad_credential_on_optional` (T13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadCredential {
    /// 401.
    #[default]
    Refuse,
    /// The request goes on as if it had brought none.
    Anonymous,
}

/// `encoded_slash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlash {
    /// 400.
    #[default]
    Refuse,
    /// It is data within its segment, and stays escaped.
    Keep,
}

/// `on_expiry`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// It ends, unless the token was exchanged before.
    #[default]
    Close,
    /// It goes on, until its session is revoked.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t12_an_escaped_slash_passes_only_where_the_route_keeps_it() {
        let path = CanonicalPath::parse("/a%2fb").unwrap();
        let strict = RoutePolicy::default();
        assert_eq!(strict.admits(&path), Err(Denial::BadPath(PathError::EncodedSlash)));
        assert_eq!(strict.admits(&CanonicalPath::parse("/a/b").unwrap()), Ok(()));
        let lax = RoutePolicy { encoded_slash: EncodedSlash::Keep, ..RoutePolicy::default() };
        assert_eq!(lax.admits(&path), Ok(()));
    }

    #[test]
    fn the_default_policy_is_the_strictest() {
        let policy = RoutePolicy::default();
        assert_eq!(policy.auth, Auth::Required);
        assert_eq!(policy.bad_credential_on_optional, BadCredential::Refuse);
        assert!(!policy.forward_token && !policy.keep_override_headers && !policy.keep_underscore_headers);
    }
}
