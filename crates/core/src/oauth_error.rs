//! How providers use a token endpoint's `error` values (RFC 6749 §5.2).

/// The meaning of an `error` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthError {
    /// The presented token is permanently invalid.
    Grant,
    /// The provider refuses the user, or the `error` value is unknown.
    User,
    /// The provider refuses the client.
    Client,
    /// The provider refuses the request.
    Request,
    /// The client must send the request again.
    Step,
    /// The server requests a pause, and did not process the request.
    Busy,
    /// The server failed.
    Server,
}

/// The known `error` values. All other values mean [`OAuthError::User`].
const WORDS: &[(OAuthError, &[&str])] = &[
    (
        OAuthError::Grant,
        &[
            // From RFC 6749, RFC 6750, GitHub and Slack.
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
        // RFC 6749, GitHub, Slack.
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
        // RFC 6749, RFC 8707, RFC 9449, Entra ID.
        &[
            "unsupported_grant_type",
            "invalid_request",
            "invalid_scope",
            "invalid_target",
            "invalid_dpop_proof",
            "invalid_resource",
        ],
    ),
    // RFC 9449 §8, RFC 8628 §3.5.
    (OAuthError::Step, &["use_dpop_nonce", "authorization_pending", "slow_down"]),
    // RFC 6749 §4.1.2.1, Entra ID, Slack, Auth0.
    (
        OAuthError::Busy,
        &["temporarily_unavailable", "ratelimited", "rate_limited", "too_many_requests", "too_many_attempts"],
    ),
    // RFC 6749 §4.1.2.1, Slack.
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
    /// Returns the meaning of an `error` value.
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
