//! The gate's client registration at a provider, and browser logins with that provider.

use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;

use super::issuers::RemoteIssuers;
use crate::server::error::KeyFault;
use rotogate::gate::LoginProvider;
use rotogate_config::{BrowserConfig, ClientKeySettings, ProviderClientSettings, TrustedIssuer};
use rotogate_core::client_auth::ClientKey;
use rotogate_core::http_client::{Allowed, ClientCredentials, FetchTarget, HttpClient, SecretPlace, Tls};
use rotogate_core::private_file::{read_private, trusted};
use rotogate_core::token::keyring::KeyMaterial;

/// The key is relative to the endpoint's section.
const SECRET_FILE: &str = "client.secret_file";
/// The key is relative to the endpoint's section.
const KEY_FILE: &str = "client.key_file";
/// The key is relative to the provider's entry.
pub(super) const CLIENT_CERT: &str = "client.client_cert";

/// `key` is the configuration key of the CA file.
///
/// # Errors
/// The file is unusable.
pub(super) fn http_client(key: &str, ca: Option<&Path>) -> Result<HttpClient, KeyFault> {
    let http = Tls::read(ca, None).and_then(|tls| HttpClient::with_tls(&tls));
    http.map_err(|error| KeyFault::new(key, error.message))
}

/// # Errors
/// The URL is invalid.
pub(super) fn target(key: &str, url: &str) -> Result<FetchTarget, KeyFault> {
    FetchTarget::parse(url, Allowed::by_operator()).map_err(|error| KeyFault::new(key, error.to_string()))
}

/// # Errors
/// The file is unusable.
pub(crate) fn credentials(client: &ProviderClientSettings) -> Result<ClientCredentials, KeyFault> {
    let bad = |message: String| KeyFault::new(SECRET_FILE, message);
    let read = |path: &Path| {
        let text = trusted::check_folders(path).and_then(|()| read_private(path)).map_err(bad)?;
        let text = text.trim();
        if text.is_empty() || text.contains(char::is_control) {
            let message = format!("{}: expected the client's secret on one line", path.display());
            return Err(bad(message));
        }
        Ok((SecretString::from(text.to_owned()), client.secret_in))
    };
    let secret = client.secret_file.as_deref().map(read).transpose()?;
    let key = client.key.as_ref().map(|key| client_key(&client.id, key)).transpose();
    let key = key.map_err(|message| KeyFault::new(KEY_FILE, message))?;
    Ok(ClientCredentials { id: client.id.clone(), secret, assertions: key.map(|key| key as _) })
}

/// # Errors
/// The file is unusable.
pub(crate) fn client_key(id: &str, settings: &ClientKeySettings) -> Result<Arc<ClientKey>, String> {
    let ClientKeySettings { file, audience, algorithm, kid } = settings;
    let text = trusted::check_folders(file).and_then(|()| read_private(file))?;
    let pem = KeyMaterial::new(text.as_bytes().to_vec());
    let key = ClientKey::new(id, audience, &pem, (*algorithm, kid.as_deref()));
    key.map(Arc::new).map_err(|error| format!("{}: {error}", file.display()))
}

/// Returns the client's files, each with its configuration key relative to the endpoint's section.
pub(crate) fn files(client: &ProviderClientSettings) -> impl Iterator<Item = (&'static str, &Path)> {
    let secret = client.secret_file.as_deref().map(|file| (SECRET_FILE, file));
    let key = client.key.as_ref().map(|key| (KEY_FILE, key.file.as_path()));
    let certificate = client.client_cert.as_deref().map(|file| (CLIENT_CERT, file));
    secret.into_iter().chain(key).chain(certificate)
}

/// Builds the provider for browser logins, or `None` if users log in at this gate.
///
/// # Errors
/// A file is unusable.
pub(crate) fn login_provider(
    browser: &BrowserConfig,
    trusted: &[TrustedIssuer],
    issuers: &RemoteIssuers,
) -> Result<Option<LoginProvider>, KeyFault> {
    let Some((name, client)) = browser.provider.as_deref().zip(browser.client.as_ref()) else { return Ok(None) };
    let issuer = trusted.iter().find(|issuer| issuer.name == name).and_then(|issuer| issuer.keys.remote());
    let issuer = issuer
        .ok_or_else(|| KeyFault::new("provider", "expected the name of an `[[issuers]]` entry with `discovery`"))?;
    let (issuers, of) = (issuers.clone(), name.to_owned());
    let ClientCredentials { id, secret, assertions } = credentials(client)?;
    let provider = LoginProvider::with_metadata(&issuer.issuer, id, Arc::new(move || issuers.metadata(&of)));
    let provider = match secret {
        Some((secret, SecretPlace::Basic)) => provider.secret(secret),
        Some((secret, SecretPlace::Form)) => provider.secret_in_form(secret),
        None => provider,
    };
    let provider = match assertions {
        Some(key) => provider.key(key),
        None => provider,
    };
    let provider = provider.scopes(browser.scopes.iter().map(String::as_str));
    let with = |provider: LoginProvider, (name, value): (&String, &String)| provider.parameter(name, value);
    let provider = browser.parameters.iter().fold(provider, with);
    Ok(Some(if browser.par { provider.pushed() } else { provider }))
}
