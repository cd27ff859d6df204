//! Token exchanges of upstreams.

use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;

use super::issuers::RemoteIssuers;
use super::provider_client::{CLIENT_CERT, credentials, target};
use crate::server::error::KeyFault;
use rotogate::program::HttpExchanger;
use rotogate::relay::{HttpCaller, UrlSource};
use rotogate::remote_keys::token_target;
use rotogate_config::{Config, ProviderClientSettings, ProviderSettings};
use rotogate_core::exchange::{ExchangeForm, UpstreamExchange};
use rotogate_core::http_client::{HttpClient, SecretPlace, Tls};
use rotogate_core::private_file::{read_private, trusted};
use rotogate_core::session::Scope;
use rotogate_proxy::{ExchangeSettings, Upstream};

/// # Errors
/// A file is unusable. The error names the provider's key.
pub(super) fn load(
    upstream: &Upstream,
    settings: &ExchangeSettings,
    config: &Config,
    issuers: &RemoteIssuers,
) -> Result<Arc<UpstreamExchange>, KeyFault> {
    let ExchangeSettings { provider, form, audience, resource, scope, authorization_server, max_age } =
        settings.clone();
    let named = |name: &str| {
        let found = config.providers.iter().find(|known| known.name == name);
        found.ok_or_else(|| {
            KeyFault::new(
                "name",
                "an upstream names this provider, but no `[[providers]]` entry has this name".to_owned(),
            )
        })
    };
    let provider = named(&provider)?;
    let then = match authorization_server {
        Some(name) => Some(Box::new(HttpExchanger {
            scope: scope.clone(),
            ..exchanger(named(&name)?, ExchangeForm::JwtBearer, issuers)?
        })),
        None => None,
    };
    let exchanger = HttpExchanger { audience, resource, scope, then, ..exchanger(provider, form, issuers)? };
    let names = [&provider.name, &upstream.name, &provider.issuer].map(|name| name.as_str().into());
    let exchange = UpstreamExchange::new(names, max_age, Arc::new(exchanger));
    Ok(Arc::new(if form == ExchangeForm::IdJag { exchange.of_id_tokens() } else { exchange }))
}

/// Builds the HTTP client for a provider, with the gate's client certificate.
///
/// # Errors
/// A file is unusable.
fn http_client(ca: Option<&Path>, client: &ProviderClientSettings) -> Result<HttpClient, KeyFault> {
    let mut tls = Tls::read(ca, None).map_err(|error| KeyFault::new("ca", error.message))?;
    if let Some(file) = &client.client_cert {
        let pem = trusted::check_folders(file).and_then(|()| read_private(file));
        let pem = pem.map_err(|message| KeyFault::new(CLIENT_CERT, message))?;
        tls.client_cert = Some((pem.to_string(), SecretString::from(pem.to_string())));
    }
    HttpClient::with_tls(&tls).map_err(|error| match (error.key, &client.client_cert) {
        ("client_cert", Some(file)) => KeyFault::new(CLIENT_CERT, format!("{}: {}", file.display(), error.message)),
        _ => KeyFault::new("ca", error.message),
    })
}

/// Builds the token exchanger for an entry of `[[providers]]`.
fn exchanger(
    provider: &ProviderSettings,
    form: ExchangeForm,
    issuers: &RemoteIssuers,
) -> Result<HttpExchanger, KeyFault> {
    let http = http_client(provider.ca.as_deref(), &provider.client)?;
    let url: UrlSource = match &provider.token_url {
        Some(url) => {
            let target = target("token_url", url)?;
            Arc::new(move || Some(target.clone()))
        }
        None => issuers.discovered(&provider.issuer, token_target),
    };
    let mut client = credentials(&provider.client)?;
    if form == ExchangeForm::Entra {
        // The secret is sent in the form, as in Entra's own libraries.
        client.secret.iter_mut().for_each(|(_, place)| *place = SecretPlace::Form);
    }
    Ok(HttpExchanger {
        caller: HttpCaller::new(http, provider.timeout),
        url,
        place: provider.token_url.clone().unwrap_or_else(|| format!("issuer {}", provider.issuer)),
        client,
        form,
        audience: None,
        resource: None,
        scope: Scope::default(),
        then: None,
    })
}
