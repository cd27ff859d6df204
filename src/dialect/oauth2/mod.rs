//! The OAuth 2 token endpoint (RFC 6749 §3.2) with an account in the path, for MeshyDB's clients. It also serves
//! revocation (RFC 7009) and introspection (RFC 7662).
//!
//! | path | operation |
//! |---|---|
//! | `/{account}/connect/token`, `/connect/token` | the grants that are listed below |
//! | `/{account}/connect/revocation`, `/connect/revocation` | revocation |
//! | `/{account}/connect/introspect`, `/connect/introspect` | introspection, for confidential clients |
//!
//! The grants are `password`, `refresh_token`, `client_credentials` and `jwt-bearer`.
//!
//! MeshyDB's C# client logs out at `/{account}//connect/revocation`, and writes the field name `Token` with a capital
//! letter. Only the revocation endpoint accepts these two variants.
//!
//! If clients deviate from the RFC, the dialect follows the clients. An empty parameter counts as absent, as RFC 6749
//! §3.2 demands. `invalid_client` has the status 400 unless the client used Basic. A public client may use Basic with
//! an empty secret: `base64("id:")`.
//!
//! ```
//! use rotogate::dialect::oauth2::OAuth2;
//! use rotogate::gate::Endpoint;
//!
//! let endpoint = Endpoint::new(OAuth2).path("/{account}/connect/token");
//! # let _ = endpoint;
//! ```

use http::Method;
use secrecy::SecretString;

use super::{Call, Command, Dialect, OAuthPaths, Outcome, Protocol, RefreshCredential, Reply, ServedPath};
use rotogate_core::client::Grant;
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;

mod exchange;
pub(super) mod form;
pub(super) mod words;

#[cfg(test)]
mod tests;

/// The name of this dialect.
pub(crate) const NAME: &str = "oauth2";
const TOKEN: &str = "token";
const REVOCATION: &str = "revocation";
const INTROSPECTION: &str = "introspection";

/// The dialect `oauth2`.
///
/// ```
/// use rotogate::client::Client;
/// use rotogate::dialect::oauth2::OAuth2;
/// use rotogate::gate::Endpoint;
///
/// let endpoint = Endpoint::new(OAuth2).path("/oauth/token").clients(["web"]);
/// let builder = rotogate::Gate::builder().client(Client::public("web")).endpoint(endpoint);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OAuth2;

impl Dialect for OAuth2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_path(&self) -> &'static str {
        "/{account}/connect/token"
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
        let served = |operation, template| ServedPath::new(operation, template, &[Method::POST]);
        let beside = |folder: &str| {
            let mut revocation = served(REVOCATION, format!("{folder}/revocation"));
            revocation.spellings = match folder {
                "/{account}/connect" => &["/{account}//connect/revocation"],
                "/connect" => &["//connect/revocation"],
                _ => &[],
            };
            [revocation, served(INTROSPECTION, format!("{folder}/introspect"))]
        };
        let mut all = vec![served(TOKEN, base.to_owned())];
        all.extend(beside(folder));
        // A path without an account belongs to the default account.
        if let Some(bare) = base.strip_prefix("/{account}/") {
            all.push(served(TOKEN, format!("/{bare}")));
            all.extend(beside(folder.strip_prefix("/{account}").unwrap_or(folder)));
        }
        all
    }

    fn read(&self, call: &Call<'_>) -> Result<Command, Denial> {
        let form = form::read_with(call, &[form::RESOURCE, form::AUDIENCE])?;
        if call.operation == TOKEN && form.get("grant_type") == Some(Grant::JwtBearer.word()) {
            form.once(form::AUDIENCE)?;
            return Ok(Command::Assertion {
                // Client credentials are optional for a workload that sends an assertion about itself.
                client: if form.names_client(call.headers) { Some(form.client(call.headers)?) } else { None },
                assertion: form.secret("assertion").ok_or(Denial::MalformedRequest("assertion is missing"))?,
                scope: form.scope()?,
                resource: form.resource()?,
            });
        }
        let client = form.client(call.headers)?;
        if call.operation == TOKEN && form.get("grant_type") == Some(Grant::TokenExchange.word()) {
            return exchange::read(&form, client);
        }
        form.once(form::AUDIENCE)?;
        if call.operation != TOKEN {
            form.once(form::RESOURCE)?;
            let token = match (form.secret("token"), form.secret("Token")) {
                (Some(token), None) => token,
                (None, Some(token)) if call.operation == REVOCATION => token,
                (Some(_), Some(_)) => return Err(Denial::MalformedRequest("token was sent twice")),
                (None, _) => return Err(Denial::MalformedRequest("token is missing")),
            };
            return Ok(match call.operation {
                REVOCATION => Command::Revoke { client: Some(client), token },
                _ => Command::Introspect { client, token },
            });
        }
        let (scope, resource) = (form.scope()?, form.resource()?);
        match form.get("grant_type") {
            Some("password") => Ok(Command::Login {
                client: Some(client),
                username: form.get("username").ok_or(Denial::MalformedRequest("username is missing"))?.to_owned(),
                password: form.secret("password").ok_or(Denial::MalformedRequest("password is missing"))?,
                scope,
                access_ttl: None,
                resource,
            }),
            Some("refresh_token") => Ok(Command::Refresh {
                client: Some(client),
                credential: RefreshCredential::Refresh(
                    form.secret("refresh_token").ok_or(Denial::MalformedRequest("refresh_token is missing"))?,
                ),
                scope,
                access_ttl: None,
                resource,
            }),
            Some("client_credentials") => Ok(Command::ClientToken { client, scope, resource }),
            Some(_) => Err(Denial::UnsupportedGrantType),
            None => Err(Denial::MalformedRequest("grant_type is missing")),
        }
    }

    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        match outcome {
            Ok(Outcome::Issued(issued)) => words::issued(&issued),
            Ok(Outcome::Revoked) => words::revoked(),
            Ok(Outcome::Checked(checked)) => match checked {
                Ok(checked) => words::active(&checked),
                Err(_) => words::inactive(),
            },
            // Callers of introspection must authenticate, by Basic or in another way (RFC 7662 §2.3).
            Err(Error::Denied(denial)) => {
                words::denied(denial, call.operation == INTROSPECTION || form::used_basic(call.headers))
            }
            Err(Error::Failed(fault)) => words::failed(&fault),
        }
    }
}

impl Protocol for OAuth2 {
    fn oauth(&self, base: &str) -> Option<OAuthPaths> {
        let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
        Some(OAuthPaths {
            token: base.to_owned(),
            revocation: format!("{folder}/revocation"),
            introspection: format!("{folder}/introspect"),
        })
    }
}

fn secret(value: &str) -> Option<SecretString> {
    (!value.is_empty()).then(|| SecretString::from(value.to_owned()))
}
