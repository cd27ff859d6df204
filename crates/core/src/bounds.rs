//! The maximum sizes of external input. The table in docs/bounds.md is generated from these lines.

/// A row of docs/bounds.md.
#[derive(Clone, Copy, Debug)]
pub struct InputBound {
    /// What is bounded.
    pub what: &'static str,
    /// The maximum.
    pub most: usize,
    /// Whether `most` is in bytes.
    pub is_bytes: bool,
    /// What happens if the maximum is exceeded.
    pub beyond: &'static str,
}

macro_rules! bounds {
    ($(#[$about:meta])* $table:ident: $(#[doc = $what:literal] $name:ident, $unit:ident: $most:expr, $beyond:literal;)+) => {
        $(#[doc = $what] pub const $name: usize = $most;)+
        $(#[$about])*
        pub const $table: &[InputBound] =
            &[$(InputBound { what: $what, most: $most, is_bytes: bounds!($unit), beyond: $beyond }),+];
    };
    (bytes) => { true };
    (number) => { false };
}

bounds! {
    /// The maximum sizes in requests.
    OF_REQUESTS:
    #[doc = "header fields, over HTTP/1.1 (hyper's own bound)"]
    MAX_REQUEST_FIELDS, number: 100, "431, `bad_head`";
    #[doc = "target: path and query"]
    MAX_TARGET, bytes: 8 << 10, "414, `target_too_long`";
    #[doc = "body for an endpoint of the gate"]
    MAX_ENDPOINT_BODY, bytes: 32 << 10, "413, `body_too_large`";
    #[doc = "parameters of a form"]
    MAX_PARAMETERS, number: 64, "400, `malformed_request`";
    #[doc = "members of a JSON object, in a token or a body"]
    MAX_MEMBERS, number: 1024, "400, or 401 `malformed_token`";
    #[doc = "nesting of JSON, in a token or a body"]
    MAX_DEPTH, number: 16, "400, or 401 `malformed_token`";
    #[doc = "password"]
    MAX_PASSWORD, bytes: 1024, "as a wrong password";
    #[doc = "user name"]
    MAX_USERNAME, bytes: 256, "as an unknown user";
    #[doc = "DPoP proof"]
    MAX_PROOF, bytes: 4 << 10, "401, `proof_malformed`";
    #[doc = "DPoP proof at a relay"]
    MAX_RELAYED_PROOF, bytes: 8 << 10, "400, `invalid_dpop_proof`";
    #[doc = "target of a browser login (`to`)"]
    MAX_LOGIN_TARGET, bytes: 8 << 10, "the login redirects to `/`";
    #[doc = "query of a provider's callback"]
    MAX_CALLBACK, bytes: 8 << 10, "400, `provider_login`";
    #[doc = "`acr_values` of a login"]
    MAX_ACR_VALUES, bytes: 512, "the login sends none";
    #[doc = "logout token or security event, with its request"]
    MAX_NOTICE, bytes: 32 << 10, "413";
    #[doc = "request for a global token revocation"]
    MAX_GLOBAL_REVOCATION, bytes: 4 << 10, "413";
    #[doc = "Kuzzle message without a valid token"]
    MAX_ANONYMOUS_MESSAGE, bytes: 32 << 10, "413, or closed with 1009";
    #[doc = "Kuzzle message with a valid token"]
    MAX_MESSAGE, bytes: 1 << 20, "413, or closed with 1009";
    #[doc = "Knox message over gRPC"]
    MAX_KNOX_MESSAGE, bytes: 32 << 10, "`RESOURCE_EXHAUSTED`";
    #[doc = "MCP message, or another body that a rule reads"]
    MAX_CONSULTED, bytes: 1 << 20, "413, `body_too_large`";
    #[doc = "Envoy's authorization request over gRPC"]
    MAX_QUESTION, bytes: 1 << 20, "`RESOURCE_EXHAUSTED`";
    #[doc = "header fields in Envoy's authorization request"]
    MAX_QUESTION_FIELDS, number: 1024, "400";
    #[doc = "body that is kept to resend a request"]
    MAX_KEPT_BODY, bytes: 16 << 10, "the request is not resent";
}

bounds! {
    /// The maximum sizes in tokens.
    OF_TOKENS:
    #[doc = "access token of the gate"]
    MAX_OWN_TOKEN, bytes: 8 << 10, "401, `malformed_token`; longer ones are not issued";
    #[doc = "token of another issuer, opaque token, ID token or assertion"]
    MAX_TOKEN, bytes: 24 << 10, "401, `malformed_token`";
    #[doc = "header of a token, decoded"]
    MAX_JOSE_HEADER, bytes: 1024, "401, `malformed_token`";
    #[doc = "`kid`"]
    MAX_KID, bytes: 128, "401, `malformed_token`; in a JWK set, the key is skipped";
    #[doc = "keys that are tried on a token without `kid`"]
    MAX_TRIED, number: 4, "401, `too_many_keys`";
    #[doc = "`sub`, `client_id`, `jti` and other names"]
    MAX_NAME, bytes: 256, "401, `bad_claim`";
    #[doc = "roles or scopes that one claim lists"]
    MAX_LIST, number: 256, "401 or 403, if the claim is required";
    #[doc = "`act`, as JSON"]
    MAX_ACT, bytes: 1024, "401, `bad_claim`";
    #[doc = "refresh token of a provider at a relay"]
    MAX_RELAYED_TOKEN, bytes: 8 << 10, "400, `invalid_grant`";
}

bounds! {
    /// The maximum sizes in other servers' responses.
    OF_ANSWERS:
    #[doc = "head of an upstream's response"]
    MAX_UPSTREAM_HEAD, bytes: 64 << 10, "502, `upstream_protocol`";
    #[doc = "header fields of an upstream's response, over HTTP/1.1"]
    MAX_UPSTREAM_FIELDS, number: 256, "502, `upstream_protocol`";
    #[doc = "head of a response to the gate's own requests"]
    MAX_ANSWER_HEAD, bytes: 16 << 10, "as an outage of that server";
    #[doc = "JWK set"]
    MAX_JWKS, bytes: 1 << 20, "the set is refused";
    #[doc = "keys of a JWK set"]
    MAX_KEYS, number: 100, "the set is refused";
    #[doc = "introspection response"]
    MAX_INTROSPECTION, bytes: 64 << 10, "503, `introspection_unavailable`";
    #[doc = "provider's response to a login, a refresh or an exchange"]
    MAX_PROVIDER_ANSWER, bytes: 64 << 10, "503";
    #[doc = "response that a relay keeps for longer than `grace`"]
    MAX_KEPT_REPLY, bytes: 16 << 10, "kept for `grace`";
    #[doc = "response of a directory hook"]
    MAX_HOOK_ANSWER, bytes: 64 << 10, "503";
    #[doc = "groups of a user in LDAP"]
    MAX_GROUPS, number: 1000, "503";
}
