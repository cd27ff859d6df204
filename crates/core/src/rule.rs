//! The rules that a gate checks for each request.

/// A rule of the gate. Explanations list the rules in this order.
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
    /// The framing and the host of the HTTP request.
    Request,
    /// The canonical path.
    Path,
    /// The route, its methods, and the gate's own endpoints.
    Route,
    /// Exactly one credential, in a valid form.
    Credential,
    /// The cross-origin check of a request with a cookie.
    Origin,
    /// The rate limits on invalid tokens.
    Limit,
    /// The issuer's key.
    Key,
    /// The signature, or the issuer's response about an opaque token.
    Signature,
    /// The token's type, times and claim format.
    Claims,
    /// The revocations.
    Revocation,
    /// The proof that the caller has the key to which the token is bound.
    Proof,
    /// The issuers that the route accepts.
    Issuer,
    /// The audiences.
    Audience,
    /// The scopes.
    Scope,
    /// The roles and the application's own requirements.
    Role,
    /// The conditions on claims.
    Condition,
    /// How and when the caller logged in (RFC 9470).
    StepUp,
    /// The route's rate limits and quotas for callers.
    Quota,
    /// The session of a refresh token.
    Session,
    /// The rotation of a refresh token.
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

    /// The rule's name.
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
