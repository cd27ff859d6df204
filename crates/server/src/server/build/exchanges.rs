//! The token exchanges of upstreams: their providers, and the files that the providers need.

use std::sync::Arc;

use super::issuers::RemoteIssuers;
use super::provider_client::credentials;
use crate::config::Config;
use crate::server::error::KeyFault;
use rotogate::program::HttpExchanger;
use rotogate::relay::{HttpCaller, UrlSource};
use rotogate::remote_keys::token_target;
use rotogate_core::exchange::{ExchangeForm, UpstreamExchange};
use rotogate_core::http_client::{Allowed, FetchTarget, HttpClient, SecretPlace, Tls};
use rotogate_proxy::{ExchangeSettings, Upstream};

/// The exchange of an upstream. Reads the files of its provider.
///
/// # Errors
/// A file cannot be used; the key is one of the provider.
pub(super) fn load(
    upstream: &Upstream,
    settings: &ExchangeSettings,
    config: &Config,
    issuers: &RemoteIssuers,
) -> Result<Arc<UpstreamExchange>, KeyFault> {
    let ExchangeSettings { provider, form, audience, resource, scope, max_age } = settings.clone();
    let provider = config.providers.iter().find(|known| known.name == provider);
    let provider =
        provider.ok_or_else(|| KeyFault::new("name", "an upstream names it, but there is none".to_owned()))?;
    let http = Tls::read(provider.ca.as_deref(), None).and_then(|tls| HttpClient::with_tls(&tls));
    let http = http.map_err(|error| KeyFault::new("ca", error.message))?;
    let issuer: Arc<str> = provider.issuer.as_str().into();
    let url: UrlSource = match &provider.token_url {
        Some(url) => {
            let target = FetchTarget::parse(url, Allowed::by_operator());
            let target = target.map_err(|error| KeyFault::new("token_url", error.to_string()))?;
            Arc::new(move || Some(target.clone()))
        }
        None => {
            let (issuers, issuer) = (issuers.clone(), Arc::clone(&issuer));
            Arc::new(move || issuers.metadata(&issuer).and_then(|metadata| token_target(&metadata)))
        }
    };
    let mut client = credentials(&provider.client)?;
    if form == ExchangeForm::Entra {
        // Entra's own libraries send the secret in the form, too.
        client.secret.iter_mut().for_each(|(_, place)| *place = SecretPlace::Form);
    }
    let exchanger = HttpExchanger {
        caller: HttpCaller::new(http, provider.timeout),
        url,
        place: provider.token_url.clone().unwrap_or_else(|| format!("issuer {issuer}")),
        client,
        form,
        audience,
        resource,
        scope,
    };
    let names = [provider.name.as_str().into(), upstream.name.as_str().into(), issuer];
    Ok(Arc::new(UpstreamExchange::new(names, max_age, Arc::new(exchanger))))
}
