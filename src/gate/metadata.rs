//! Authorization server metadata, at the paths of RFC 8414 §3 and of OpenID Connect Discovery §4.

use bytes::Bytes;
use http::Uri;
use serde::Serialize;

use crate::dialect::OAuthPaths;
use crate::gate::endpoint::JWKS_PATH;
use rotogate_core::client::{Client, Grant};
use rotogate_core::dpop::ALGORITHM_NAMES;
use rotogate_core::session::Binding;
use rotogate_core::token::algorithm::{Algorithm, Family};

/// RFC 8414 §3: an issuer's path is appended to this path.
const OAUTH_METADATA_PATH: &str = "/.well-known/oauth-authorization-server";
/// OpenID Connect Discovery §4: an issuer's path is put in front of this path.
const OPENID_METADATA_PATH: &str = "/.well-known/openid-configuration";

/// The server supports neither response types nor ID tokens.
#[derive(Debug, Serialize)]
pub(super) struct Metadata<'a> {
    issuer: &'a str,
    /// The endpoint of another server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authorization_endpoint: Option<&'a str>,
    pub(super) token_endpoint: String,
    revocation_endpoint: String,
    introspection_endpoint: String,
    /// draft-parecki-oauth-global-token-revocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) global_token_revocation_endpoint: Option<String>,
    jwks_uri: String,
    grant_types_supported: Vec<&'static str>,
    response_types_supported: [&'static str; 0],
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    revocation_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    introspection_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    /// draft-ietf-oauth-identity-assertion-authz-grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_grant_profiles_supported: Option<[&'static str; 1]>,
    /// RFC 9728 §4.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) protected_resources: Vec<&'a str>,
    /// RFC 9449 §5.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    dpop_signing_alg_values_supported: Option<[&'static str; ALGORITHM_NAMES.len()]>,
    /// RFC 8705 §3.3.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_client_certificate_bound_access_tokens: bool,
}

const ID_JAG: &str = "urn:ietf:params:oauth:grant-profile:id-jag";
const METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];
/// Listed if a client has public keys (RFC 7523 §2.2).
const BY_ASSERTION: &str = "private_key_jwt";

impl<'a> Metadata<'a> {
    /// `public_url` does not have a path. `clients` are the clients of the endpoint. Without a directory, the password
    /// grant is not listed.
    pub(super) fn new<'c>(
        issuer: &'a str,
        public_url: &str,
        paths: &OAuthPaths,
        clients: impl Iterator<Item = &'c Client>,
        has_directory: bool,
        uses_dpop: bool,
    ) -> Self {
        let base = public_url.trim_end_matches('/');
        let account = path_of(issuer);
        // If the issuer's path has exactly one segment, this segment is the account. Any other path belongs to the
        // default account.
        let account = if account.matches('/').count() == 1 { account } else { String::new() };
        let url = |template: &str| format!("{base}{}", template.replace("/{account}", &account));
        let (mut grants, mut by_certificate, mut by_assertion) = (Vec::new(), false, false);
        for client in clients {
            by_assertion |= client.keys.is_some();
            by_certificate |= client.certificate_bound != Binding::Off;
            grants.extend(client.grants.iter().copied().filter(|grant| !grants.contains(grant)).collect::<Vec<_>>());
        }
        let methods: Vec<_> = METHODS.into_iter().chain(by_assertion.then_some(BY_ASSERTION)).collect();
        // Public clients use `none`.
        let or_none = || ["none"].into_iter().chain(methods.iter().copied()).collect();
        let signing = if by_assertion { signing_algorithms() } else { Vec::new() };
        let all =
            [Grant::Password, Grant::RefreshToken, Grant::ClientCredentials, Grant::JwtBearer, Grant::TokenExchange];
        Self {
            issuer,
            authorization_endpoint: None,
            token_endpoint: url(&paths.token),
            revocation_endpoint: url(&paths.revocation),
            introspection_endpoint: url(&paths.introspection),
            global_token_revocation_endpoint: None,
            jwks_uri: format!("{base}{JWKS_PATH}"),
            grant_types_supported: all
                .iter()
                .filter(|grant| grants.contains(grant) && (has_directory || **grant != Grant::Password))
                .map(|grant| grant.word())
                .collect(),
            response_types_supported: [],
            token_endpoint_auth_methods_supported: or_none(),
            revocation_endpoint_auth_methods_supported: or_none(),
            introspection_endpoint_auth_methods_supported: methods,
            token_endpoint_auth_signing_alg_values_supported: signing.clone(),
            revocation_endpoint_auth_signing_alg_values_supported: signing.clone(),
            introspection_endpoint_auth_signing_alg_values_supported: signing,
            authorization_grant_profiles_supported: None,
            protected_resources: Vec::new(),
            dpop_signing_alg_values_supported: uses_dpop.then_some(ALGORITHM_NAMES),
            tls_client_certificate_bound_access_tokens: by_certificate,
        }
    }

    // Requirement D27.
    pub(super) fn announce_id_jag(&mut self, takes_id_jag: bool) {
        let is_presented = self.grant_types_supported.contains(&Grant::JwtBearer.word());
        self.authorization_grant_profiles_supported = (takes_id_jag && is_presented).then_some([ID_JAG]);
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// Returns the algorithms with public keys (RFC 8414 §2).
fn signing_algorithms() -> Vec<&'static str> {
    let names = Algorithm::ALL.into_iter().filter(|algorithm| algorithm.family() != Family::Hmac).map(Algorithm::name);
    // RFC 9864 gave EdDSA with Ed25519 a second name, `Ed25519`.
    names.chain(["Ed25519"]).collect()
}

/// See RFC 8414 §3.1 and OpenID Connect Discovery §4.1.
pub(super) fn paths(issuer: &str) -> [String; 2] {
    let path = path_of(issuer);
    [format!("{OAUTH_METADATA_PATH}{path}"), format!("{path}{OPENID_METADATA_PATH}")]
}

/// Returns the public URL with the parent path of the token endpoint. `None` for the root path, or a path with an
/// account.
// Requirement N48.
pub(super) fn issuer_of_endpoint(public_url: &str, base: &str) -> Option<String> {
    let (folder, _) = base.rsplit_once('/')?;
    let is_own = !folder.is_empty() && !folder.contains('{');
    is_own.then(|| format!("{}{folder}", public_url.trim_end_matches('/')))
}

fn path_of(issuer: &str) -> String {
    let path = issuer.parse::<Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
    path.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Protocol;
    use crate::dialect::oauth2::OAuth2;
    use rotogate_core::password::SecretHash;

    fn metadata(issuer: &str, base: &str, clients: &[Client]) -> serde_json::Value {
        let paths = OAuth2.oauth(base).unwrap();
        let bytes = Metadata::new(issuer, "https://gate.example/", &paths, clients.iter(), true, false).to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn the_issuer_is_the_configured_one_to_the_byte_and_the_urls_are_the_public_ones() {
        let web = [Client::public("web")];
        for issuer in ["https://id.example", "https://id.example/"] {
            let said = metadata(issuer, "/{account}/connect/token", &web);
            assert_eq!(said["issuer"], issuer);
            assert_eq!(said["token_endpoint"], "https://gate.example/connect/token");
            assert_eq!(said["revocation_endpoint"], "https://gate.example/connect/revocation");
            assert_eq!(said["introspection_endpoint"], "https://gate.example/connect/introspect");
            assert_eq!(said["jwks_uri"], "https://gate.example/.well-known/jwks.json");
            assert_eq!(said["grant_types_supported"], serde_json::json!(["password", "refresh_token"]));
            assert_eq!(said["response_types_supported"], serde_json::json!([]));
            assert_eq!(said.get("id_token_signing_alg_values_supported"), None);
        }
        assert_eq!(
            metadata("https://x", "/oauth/token", &web)["revocation_endpoint"],
            "https://gate.example/oauth/revocation"
        );
    }

    #[test]
    fn an_issuer_of_one_segment_is_that_accounts() {
        let said = metadata("https://id.example/acme", "/{account}/connect/token", &[]);
        assert_eq!(said["token_endpoint"], "https://gate.example/acme/connect/token");
        let said = metadata("https://id.example/a/b", "/{account}/connect/token", &[]);
        assert_eq!(said["token_endpoint"], "https://gate.example/connect/token");
    }

    #[test]
    fn the_grants_are_those_that_some_client_has() {
        let service = Client {
            secret_hash: Some(SecretHash::new("x")),
            grants: vec![Grant::ClientCredentials],
            ..Client::public("svc")
        };
        let said = metadata("https://x", "/connect/token", &[service]);
        assert_eq!(said["grant_types_supported"], serde_json::json!(["client_credentials"]));
    }

    #[test]
    fn t33_no_password_is_offered_where_nobody_knows_one() {
        let paths = OAuth2.oauth("/token").unwrap();
        let bytes =
            Metadata::new("https://x", "https://x", &paths, [Client::public("web")].iter(), false, true).to_bytes();
        let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(said["grant_types_supported"], serde_json::json!(["refresh_token"]));
    }

    #[test]
    fn an_issuers_path_stands_where_each_standard_wants_it() {
        for issuer in ["https://h", "https://h/"] {
            assert_eq!(paths(issuer), [OAUTH_METADATA_PATH, OPENID_METADATA_PATH]);
        }
        let expected = ["/.well-known/oauth-authorization-server/acct", "/acct/.well-known/openid-configuration"];
        assert_eq!(paths("https://h/acct"), expected);
        assert_eq!(paths("https://h/acct/"), expected);
    }
}
