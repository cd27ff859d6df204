//! The rules by which a gate judges requests.

/// A rule of the gate. The variants are in the order in which an explanation lists them.
///
/// ```
/// use rotogate::denial::Denial;
/// use rotogate::gate::Rule;
///
/// assert_eq!(Denial::TokenExpired.rule(), Rule::Claims);
/// assert_eq!(Denial::InsufficientScope.rule().word(), "scope");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The framing and the host.
    Request,
    /// The canonical path.
    Path,
    /// The route, its methods, and the gate's own endpoints.
    Route,
    /// The request's only credential, and its form.
    Credential,
    /// The origin of a request with a cookie.
    Origin,
    /// The limits for invalid tokens.
    Limit,
    /// The issuer's key.
    Key,
    /// The signature, or the issuer's response about an opaque token.
    Signature,
    /// The type, the times and the form of the claims.
    Claims,
    /// The revocations.
    Revocation,
    /// The key to which the token is bound, and the caller's proof of possession.
    Proof,
    /// The issuers that the route accepts.
    Issuer,
    /// The audiences.
    Audience,
    /// The scopes.
    Scope,
    /// The roles, and further requirements that the application sets.
    Role,
    /// The conditions on claims.
    Condition,
    /// How and when the caller logged in (RFC 9470).
    StepUp,
    /// The limits of the route for its callers.
    Quota,
    /// The session of a refresh token.
    Session,
    /// The result of the rotation table for a refresh token.
    Rotation,
}

impl Rule {
    /// The rules for a request, in order.
    pub const OF_REQUESTS: [Self; 18] = [
        Self::Request,
        Self::Path,
        Self::Route,
        Self::Credential,
        Self::Origin,
        Self::Limit,
        Self::Key,
        Self::Signature,
        Self::Claims,
        Self::Revocation,
        Self::Proof,
        Self::Issuer,
        Self::Audience,
        Self::Scope,
        Self::Role,
        Self::Condition,
        Self::StepUp,
        Self::Quota,
    ];

    /// The rule's name in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Path => "path",
            Self::Route => "route",
            Self::Credential => "credential",
            Self::Origin => "origin",
            Self::Limit => "limit",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Revocation => "revocation",
            Self::Proof => "proof",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Scope => "scope",
            Self::Role => "role",
            Self::Condition => "condition",
            Self::StepUp => "step_up",
            Self::Quota => "quota",
            Self::Session => "session",
            Self::Rotation => "rotation",
        }
    }
}
