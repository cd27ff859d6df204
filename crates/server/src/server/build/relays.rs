//! The relays of the configuration: their dialects, their providers, and the files that they need.

use std::path::Path;
use std::sync::Arc;

use super::issuers::RemoteIssuers;
use super::provider_client::{self, credentials, http_client, target};
use crate::server::error::KeyFault;
use rotogate::dialect::relay::{EnvelopeProvider, KnoxProvider, KuzzleProvider, Wire};
use rotogate::gate::RelayConfig;
use rotogate::relay::{HttpCaller, OAuthProvider, Provider, ProviderUrls, UrlSource};
use rotogate::remote_keys;
use rotogate_config::{RelaySettings, RelayWire};

/// The files that a relay reads, each with its key.
pub(crate) fn files(relay: &RelaySettings) -> impl Iterator<Item = (&'static str, &Path)> {
    let ca = relay.ca.as_deref().map(|ca| ("ca", ca));
    relay.client.iter().flat_map(provider_client::files).chain(ca)
}

/// Builds a relay: its provider and its rules. Reads the files.
///
/// # Errors
/// A file cannot be used.
pub(crate) fn load(relay: &RelaySettings, issuers: &RemoteIssuers) -> Result<RelayConfig, KeyFault> {
    let http = http_client("ca", relay.ca.as_deref())?;
    let provider: Arc<dyn Provider> = match relay.wire {
        RelayWire::Plain(Wire::OAuth) => {
            let caller = HttpCaller::new(http, relay.rules.timeout);
            Arc::new(
                OAuthProvider::new(caller, urls(relay, issuers)?)
                    .with_client(relay.client.as_ref().map(credentials).transpose()?),
            )
        }
        RelayWire::Plain(Wire::Envelope) => {
            Arc::new(EnvelopeProvider::new(HttpCaller::new(http, relay.rules.timeout), urls(relay, issuers)?))
        }
        RelayWire::Kuzzle => {
            Arc::new(KuzzleProvider::new(HttpCaller::new(http, relay.rules.timeout), urls(relay, issuers)?))
        }
        RelayWire::Plain(Wire::Knox) => {
            let base = relay.token_url.as_deref().unwrap_or_default().trim_end_matches('/');
            let method = |method: &str| target("token_url", &format!("{base}/user_api.v1.UserApiService/{method}"));
            let (authn, refresh) = (method("AuthnWithPassword")?, method("RefreshAccessToken")?);
            Arc::new(KnoxProvider::new(http, authn, refresh, relay.rules.timeout))
        }
    };
    Ok(RelayConfig {
        rules: relay.rules,
        provider,
        place: match (&relay.token_url, &relay.issuer) {
            (Some(url), _) => url.clone(),
            (None, issuer) => format!("issuer {}", issuer.as_deref().unwrap_or_default()),
        },
        known_issuer: relay.issuer.is_some(),
    })
}

/// Returns the URLs of the provider. If the configuration lacks these URLs, each call takes them from the issuer's
/// current discovery document.
fn urls(relay: &RelaySettings, issuers: &RemoteIssuers) -> Result<ProviderUrls, KeyFault> {
    let revocation = relay.revocation_url.as_deref().map(|url| target("revocation_url", url)).transpose()?;
    if let Some(url) = &relay.token_url {
        return Ok(ProviderUrls::fixed(target("token_url", url)?, revocation));
    }
    let issuer = relay.issuer.as_deref().unwrap_or_default();
    let has_revocations = relay.revocation_path.is_some();
    let revocation = match revocation {
        Some(target) => Some(Arc::new(move || Some(target.clone())) as UrlSource),
        None => has_revocations.then(|| issuers.discovered(issuer, remote_keys::revocation_target)),
    };
    Ok(ProviderUrls { token: issuers.discovered(issuer, remote_keys::token_target), revocation })
}
