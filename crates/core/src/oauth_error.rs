//! The meaning of the `error` values of a token endpoint (RFC 6749 §5.2), as used by actual providers. All code that
//! queries a provider uses this table: relay, browser sessions, exchange, introspection and logins.

/// What an `error` says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthError {
    /// The presented token is permanently invalid.
    Grant,
    /// The provider refuses the user until the user takes some action, or the `error` value is unknown. An unknown
    /// value counts as a refusal, because a provider that has an outage does not send `error` values.
    User,
    /// The client that sent the request is refused.
    Client,
    /// The request of the client is refused.
    Request,
    /// A step of the protocol, after which the client sends the request again.
    Step,
    /// The server requests a pause. It did not process the request.
    Busy,
    /// The server failed.
    Server,
}

/// The `error` values whose meaning is not [`OAuthError::User`].
const WORDS: &[(OAuthError, &[&str])] = &[
    (
        OAuthError::Grant,
        &[
            // RFC 6749; GitHub; Slack; RFC 6750 words of other providers.
            "invalid_grant",
            "bad_refresh_token",
            "invalid_refresh_token",
            "token_revoked",
            "token_expired",
            "expired_token",
            "invalid_token",
        ],
    ),
    (
        OAuthError::Client,
        // RFC 6749; GitHub; Slack.
        &[
            "invalid_client",
            "unauthorized_client",
            "incorrect_client_credentials",
            "bad_client_secret",
            "invalid_client_id",
        ],
    ),
    (
        OAuthError::Request,
        // RFC 6749, RFC 8707, RFC 9449; Entra ID.
        &[
            "unsupported_grant_type",
            "invalid_request",
            "invalid_scope",
            "invalid_target",
            "invalid_dpop_proof",
            "invalid_resource",
        ],
    ),
    // RFC 9449 §8; RFC 8628 §3.5.
    (OAuthError::Step, &["use_dpop_nonce", "authorization_pending", "slow_down"]),
    // RFC 6749 §4.1.2.1, which Entra ID also sends here; Slack; Auth0.
    (
        OAuthError::Busy,
        &["temporarily_unavailable", "ratelimited", "rate_limited", "too_many_requests", "too_many_attempts"],
    ),
    // RFC 6749 §4.1.2.1; Slack.
    (
        OAuthError::Server,
        &[
            "server_error",
            "internal_error",
            "fatal_error",
            "service_unavailable",
            "request_timeout",
            "internal_server_error",
        ],
    ),
];

impl OAuthError {
    /// Looks up the meaning of an `error` value.
    ///
    /// ```
    /// use rotogate_core::oauth_error::OAuthError;
    ///
    /// assert_eq!(OAuthError::read("invalid_grant"), OAuthError::Grant);
    /// // Entra ID: the user must pass multi-factor authentication.
    /// assert_eq!(OAuthError::read("interaction_required"), OAuthError::User);
    /// ```
    pub fn read(word: &str) -> Self {
        WORDS.iter().find(|(_, words)| words.contains(&word)).map_or(Self::User, |(meaning, _)| *meaning)
    }
}
