//! HAProxy.

use anyhow::{Result, bail};
use rotogate_core::token::algorithm::{Algorithm, Family};

use super::Common;
use crate::keys::{self, AUDIENCE, ISSUER};
use crate::limits::Limits;
use crate::serve::LEEWAY;
use crate::tls;

/// One thread, keep-alive on both sides. With an algorithm, it also checks the claims that `jwt_verify` ignores.
pub fn haproxy(common: Common<'_>, jwt: Option<Algorithm>) -> Result<String> {
    let Common { listen, upstream, keys: folder, tls, .. } = common;
    let rules = match jwt {
        None => String::new(),
        Some(algorithm) => {
            let key = match algorithm.family() {
                Family::Hmac => keys::secret().to_owned(),
                Family::Rsa | Family::Ecdsa => keys::public_pem(folder, algorithm).display().to_string(),
                Family::Edwards => bail!("jwt_verify knows no EdDSA"),
            };
            format!(
                r#"    http-request set-var(txn.token) http_auth_bearer
    http-request set-var(txn.alg) var(txn.token),jwt_header_query('$.alg')
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str {algorithm} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify(txn.alg,"{key}") 1 }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.iss') -m str {ISSUER} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.aud') -m str {AUDIENCE} }}
    http-request set-var(txn.now) date(-{LEEWAY})
    http-request set-var(txn.left) var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now)
    http-request deny deny_status 401 unless {{ var(txn.left) -m int gt 0 }}
    http-request set-header x-auth-subject %[var(txn.token),jwt_payload_query('$.sub')]
"#
            )
        }
    };
    let bind = match tls {
        true => format!(" ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.3", tls::both(folder).display()),
        false if common.is_grpc() => " proto h2".to_owned(),
        false => String::new(),
    };
    let maxconn = Limits::get().connections;
    let server = if common.is_grpc() { " proto h2" } else { "" };
    Ok(format!(
        r"global
    nbthread 1
    maxconn {maxconn}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    timeout tunnel 60s
    option http-keep-alive
    http-reuse always
frontend gateway
    bind {listen}{bind}
{rules}    default_backend app
backend app
    server app {upstream}{server}
"
    ))
}
