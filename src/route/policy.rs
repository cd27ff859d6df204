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
    /// The names of the issuers whose tokens are taken; ours is `self`. Empty: our own, and those that are taken
    /// everywhere.
    pub issuers: Vec<String>,
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
    /// A path that a common reading takes for that of a stricter route (requirement T20).
    pub loose_match: LooseMatch,
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

    /// Are the tokens taken of an issuer of this name, which are taken `everywhere` that no issuers are named, or not?
    pub fn takes(&self, issuer: &str, everywhere: bool) -> bool {
        if self.issuers.is_empty() { everywhere } else { self.issuers.iter().any(|name| name == issuer) }
    }

    /// Is there a request that this policy refuses to a caller, and the other does not? Then no spelling of a path of this
    /// route may reach the other one (requirement T20).
    ///
    /// It is not an order: each of two policies may be stricter than the other.
    pub fn is_stricter_than(&self, other: &Self) -> bool {
        // Each field is named, so that nobody adds one without deciding.
        let Self {
            auth,
            scopes,
            issuers,
            audiences,
            bad_credential_on_optional: bad_credential,
            upgrade,
            // How a request is passed on, in whose words it is refused and where its token may stand: nobody is let in or
            // kept out by that.
            forward_token: _,
            encoded_slash: _,
            keep_underscore_headers: _,
            keep_override_headers: _,
            max_body: _,
            preflight_to_upstream: _,
            dialect: _,
            cookie: _,
            on_expiry: _,
            loose_match: _,
        } = self;
        let by_auth = |auth: Auth, bad: BadCredential| match (auth, bad) {
            (Auth::None, _) => 0,
            (Auth::Optional, BadCredential::Anonymous) => 1,
            (Auth::Optional, BadCredential::Refuse) => 2,
            (Auth::Required, _) => 3,
        };
        // Where nobody is asked, nothing more is.
        let asks = *auth != Auth::None;
        let unlike = |ours: &[String], theirs: &[String]| {
            // Without any the issuer's own rules decide, which may take what the other's list does not, and the reverse.
            ours.is_empty() != theirs.is_empty() || theirs.iter().any(|one| !ours.contains(one))
        };
        by_auth(*auth, *bad_credential) > by_auth(other.auth, other.bad_credential_on_optional)
            || (asks && !scopes.is_within(&other.scopes))
            || (asks && other.auth != Auth::None && unlike(issuers, &other.issuers))
            || (asks && other.auth != Auth::None && unlike(audiences, &other.audiences))
            || (!upgrade && other.upgrade)
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

/// `loose_match`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LooseMatch {
    /// 404: servers behind a gate fold case, cut parameters, and take `/p` for `/p/`.
    #[default]
    Refuse,
    /// The route's upstream compares paths byte for byte, as the gate does.
    Ignore,
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
    fn t20_a_policy_is_stricter_in_any_respect_or_in_none() {
        let asks = |scopes: &str| RoutePolicy { scopes: Scope::parse(scopes).unwrap(), ..RoutePolicy::default() };
        let audiences = |of: &[&str]| RoutePolicy {
            audiences: of.iter().map(|one| (*one).to_owned()).collect(),
            ..RoutePolicy::default()
        };
        let lax = RoutePolicy { bad_credential_on_optional: BadCredential::Anonymous, ..RoutePolicy::optional() };
        let upgrade = RoutePolicy { upgrade: true, ..RoutePolicy::default() };
        // Which is stricter than which; neither, where both are false.
        let table = [
            (RoutePolicy::default(), RoutePolicy::default(), false, false),
            (RoutePolicy::default(), RoutePolicy::optional(), true, false),
            (RoutePolicy::optional(), lax.clone(), true, false),
            (lax, RoutePolicy::public(), true, false),
            (asks("admin"), RoutePolicy::default(), true, false),
            (asks("a b"), asks("a"), true, false),
            (asks("a"), asks("b"), true, true),
            (asks("a"), RoutePolicy::public(), true, false),
            (audiences(&["x"]), RoutePolicy::default(), true, true),
            (audiences(&["x"]), audiences(&["x", "y"]), true, false),
            (audiences(&["x"]), RoutePolicy::public(), true, false),
            (RoutePolicy::default(), upgrade.clone(), true, false),
            (RoutePolicy::public(), upgrade, true, true),
        ];
        for (one, other, more, less) in table {
            assert_eq!(one.is_stricter_than(&other), more, "{one:?} {other:?}");
            assert_eq!(other.is_stricter_than(&one), less, "{other:?} {one:?}");
        }
        // What nobody is asked for makes no policy stricter.
        let unasked = RoutePolicy { scopes: Scope::parse("admin").unwrap(), ..RoutePolicy::public() };
        assert!(!unasked.is_stricter_than(&RoutePolicy::public()));
    }

    #[test]
    fn the_default_policy_is_the_strictest() {
        let policy = RoutePolicy::default();
        assert_eq!(policy.auth, Auth::Required);
        assert_eq!(policy.bad_credential_on_optional, BadCredential::Refuse);
        assert!(!policy.forward_token && !policy.keep_override_headers && !policy.keep_underscore_headers);
    }
}
