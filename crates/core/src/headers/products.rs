//! Headers in which other products tell an upstream who the caller is (requirement T24). An upstream may still trust
//! these headers, so the gate removes them from the requests of clients. The configuration key `keep` of `[identity]`
//! lets one of these headers pass. The configuration key `strip` adds further names.
//!
//! A trailing `*` matches anything. The names are grouped by their first letters to reduce comparisons.

use super::names::{fold_begins, fold_byte, folds_to};

const X_A: &[&str] = &[
    "x-auth",
    // This pattern includes `x-auth-request-*` of oauth2-proxy.
    "x-auth-*",
    // Kong's OAuth 2 plugin, and others.
    "x-authenticated-*",
    "x-authentik-*",
    // AWS: load balancer with OIDC and mutual TLS, Verified Access.
    "x-amzn-oidc-*",
    "x-amzn-mtls-*",
    "x-amzn-ava-*",
    // Google: API Gateway, App Engine.
    "x-apigateway-api-userinfo",
    "x-appengine-user-*",
    "x-appengine-inbound-appid",
    // Azure App Service.
    "x-arr-clientcert*",
    "x-anonymous-consumer",
];
/// Google's load balancer, nginx, HAProxy and Kong.
const X_C: &[&str] = &["x-client-cert*", "x-client-dn", "x-client-verify", "x-consumer-*", "x-credential-*"];
/// Google's Cloud Endpoints, and Envoy, which trusts its own headers on internal requests.
const X_E: &[&str] = &["x-endpoint-api-userinfo", "x-envoy-*"];
/// oauth2-proxy, Traefik, Envoy, and products that imitate them.
const X_F: &[&str] = &[
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-roles",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-forwarded-client-cert*",
    "x-forwarded-tls-client-cert*",
];
/// Google's Identity-Aware Proxy.
const X_G: &[&str] = &["x-goog-authenticated-user-*", "x-goog-iap-*"];
const X_I: &[&str] = &["x-identity", "x-identity-*", "x-istio-attributes"];
/// Azure's App Service, Container Apps and Static Web Apps.
const X_M: &[&str] = &["x-ms-client-principal*", "x-ms-token-*"];
const X_P: &[&str] = &["x-pomerium-*"];
/// Kubernetes' front proxy and Grafana (`x-remote-*`), and 3scale.
const X_R: &[&str] = &["x-remote", "x-remote-*", "x-rh-identity"];
/// HAProxy, nginx and Apache (`x-ssl-*`), SPIFFE and Shibboleth.
const X_S: &[&str] = &["x-ssl-client*", "x-ssl-cert*", "x-spiffe-*", "x-shib-*"];
/// Caddy's security plugin.
const X_T: &[&str] = &["x-tls-client*", "x-token-user-*", "x-token-subject"];
const X_U: &[&str] = &["x-user", "x-user-*", "x-userinfo"];
const X_V: &[&str] = &["x-vouch-*"];
const X_W: &[&str] = &["x-webauth-*"];
/// RFC 9440 §2.4, Cloudflare Access, Cloudflare's mutual TLS, and CloudFront.
const C: &[&str] = &["client-cert*", "cf-access-*", "cf-client-cert*", "cloudfront-viewer-cert-*"];
/// WebSEAL, and Kubernetes, where a proxy may impersonate users with these headers.
const I: &[&str] = &["iv-user*", "iv-group*", "iv-cred*", "impersonate-*"];
/// Linkerd.
const L: &[&str] = &["l5d-client-id"];
/// Apache's mod_auth_openidc and Oracle Access Manager.
const O: &[&str] = &["oidc-*", "oam-remote-user*"];
/// Authelia, and servers that imitate CGI variables.
const R: &[&str] = &["remote-*"];
/// nginx, Shibboleth and SiteMinder.
const S: &[&str] = &["ssl-client*", "shib-*", "sm-user*", "sm-universalid"];
/// `txn-token` is the header of transaction tokens.
const T: &[&str] = &["tailscale-*", "teleport-jwt-assertion", "txn-token"];

pub(super) const ALL: [&[&str]; 21] =
    [X_A, X_C, X_E, X_F, X_G, X_I, X_M, X_P, X_R, X_S, X_T, X_U, X_V, X_W, C, I, L, O, R, S, T];

fn list_of(name: &str) -> &'static [&'static str] {
    let mut bytes = name.bytes().map(fold_byte);
    let (Some(first), Some(second)) = (bytes.next(), bytes.next()) else { return &[] };
    match (first, second) {
        (b'x', b'-') => match bytes.next() {
            Some(b'a') => X_A,
            Some(b'c') => X_C,
            Some(b'e') => X_E,
            Some(b'f') => X_F,
            Some(b'g') => X_G,
            Some(b'i') => X_I,
            Some(b'm') => X_M,
            Some(b'p') => X_P,
            Some(b'r') => X_R,
            Some(b's') => X_S,
            Some(b't') => X_T,
            Some(b'u') => X_U,
            Some(b'v') => X_V,
            Some(b'w') => X_W,
            Some(_) | None => &[],
        },
        (b'c', b'l' | b'f') => C,
        (b'i', b'v' | b'm') => I,
        (b'l', b'5') => L,
        (b'o', b'i' | b'a') => O,
        (b'r', b'e') => R,
        (b's', b's' | b'h' | b'm') => S,
        (b't', b'a' | b'e' | b'x') => T,
        _ => &[],
    }
}

pub(super) fn is_identity(name: &str) -> bool {
    list_of(name).iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(begin) => fold_begins(name, begin),
        None => folds_to(name, pattern),
    })
}

pub(super) fn patterns() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|list| list.iter().copied())
}

/// Returns whether any header name matches both this pattern and a pattern in the lists.
pub(super) fn overlaps(name: &str, is_begin: bool) -> bool {
    patterns().any(|pattern| match pattern.strip_suffix('*') {
        Some(begin) => fold_begins(name, begin) || (is_begin && begin.starts_with(name)),
        None => folds_to(name, pattern) || (is_begin && pattern.starts_with(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;

    #[test]
    fn t24_every_pattern_stands_on_the_list_that_its_names_are_looked_for_on() {
        for list in ALL {
            for pattern in list {
                let name = pattern.replace('*', "x");
                assert!(names::is_identity(&name), "{name}");
                assert!(names::is_identity(&name.replace('-', "_").to_ascii_uppercase()), "{name}");
                assert_eq!(pattern.trim_end_matches('*'), names::fold(pattern.trim_end_matches('*')));
            }
        }
        for name in
            ["accept", "cookie", "content-type", "cf-ray", "cf-connecting-ip", "x-request-id", "x-real-ip", "te"]
        {
            assert!(!is_identity(name), "{name}");
        }
    }
}
