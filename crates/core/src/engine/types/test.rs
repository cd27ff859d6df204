use super::*;

/// Tokens with arbitrary content, for tests of responses.
pub fn tokens_for_test(access: &str, refresh: &str, expires_in: u64) -> IssuedTokens {
    IssuedTokens {
        bound_to: None,
        certificate: None,
        access_token: TokenText::for_test(access),
        refresh_token: Some(TokenText::for_test(refresh)),
        expires: Timestamp::from_secs(10),
        expires_in,
        subject: "ada".into(),
        scope: Scope::default(),
        session_expires_in: None,
        session: None,
        user: None,
        how: IssueKind::Rotated,
    }
}
