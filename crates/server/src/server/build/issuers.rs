//! Issuers with fetched keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::issuer_rules::load_introspection;
use crate::server::error::{Faults, KeyFault, ServerError};
use rotogate::gate::GateBuilder;
use rotogate::remote_keys::{self, FetchFailure, FetchFiles, Metadata, RemoteKeys, RemoteStatus};
use rotogate_config::{
    BrowserConfig, ClientConfig, Config, ConfigError, ConfigErrors, IntrospectionConfig, RemoteSource, TrustedIssuer,
};
use rotogate_core::client::ClientKeys;
use rotogate_core::http_client::{FetchTarget, SecretPlace};
use rotogate_core::strict_json;
use rotogate_core::token::live_keys::LiveKeys;
use rotogate_core::token::verify::{IssuerRules, Keys};
use rotogate_kit::config::printable;

const START_WAIT: Duration = Duration::from_secs(3);
const KEPT: &str = "issuers";
/// Issuers with fetched keys, in configuration order. Clones share one list, which a reload replaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteIssuers(Arc<ArcSwap<Vec<Remote>>>);

#[derive(Clone, Debug)]
struct Remote {
    keys: RemoteKeys,
    source: RemoteSource,
}

/// The issuers of the next configuration. Dropping this value stops the fetches that it started.
#[derive(Debug)]
pub(crate) struct NextIssuers {
    all: Vec<Remote>,
    started: Vec<RemoteKeys>,
}

impl NextIssuers {
    /// Reuses the keys if they are already fetched.
    fn add(
        &mut self,
        config: &Config,
        present: &[Remote],
        source: &RemoteSource,
    ) -> Result<Arc<LiveKeys>, ServerError> {
        let keys = match present.iter().find(|known| known.source.is_fetched_as(source)) {
            Some(known) => known.keys.clone(),
            None => {
                let issuer = source.issuer.clone();
                let issuer = if source.keep { issuer.kept_in(folder(config)) } else { issuer };
                let keys = RemoteKeys::start(issuer)
                    .map_err(|error| ServerError::Unusable(format!("issuer {}: {error}", source.issuer.name)))?;
                self.started.push(keys.clone());
                keys
            }
        };
        let live = keys.keys();
        self.all.push(Remote { keys, source: source.clone() });
        Ok(live)
    }

    pub(crate) fn given_to(&self, builder: GateBuilder, config: &Config) -> GateBuilder {
        given_to(&self.all, builder, config)
    }
}

fn of_clients(config: &Config) -> impl Iterator<Item = (&ClientConfig, &RemoteSource)> {
    config.clients.iter().filter_map(|client| Some((client, client.keys.as_ref()?.source.remote()?)))
}

fn given_to(all: &[Remote], builder: GateBuilder, config: &Config) -> GateBuilder {
    of_clients(config).fold(builder, |builder, (client, source)| {
        match all.iter().find(|remote| remote.source.is_fetched_as(source)) {
            Some(remote) => builder.client_keys(&client.id, &ClientKeys::live(remote.keys.keys())),
            None => builder,
        }
    })
}

/// The state of an issuer, as it is shown to an operator.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct IssuerReport {
    pub(crate) name: String,
    pub(crate) url: String,
    /// `empty`, `fresh`, `aging` or `stale`; `file` if the keys are in a file, or `introspection` if the issuer has no
    /// keys.
    pub(crate) state: String,
    /// The number of usable keys, if the gate fetches the keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<usize>,
    /// The configuration key and the path of the file with the issuer's keys, if the keys are in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// Whether an operator dropped the issuer's keys.
    pub(crate) dropped: bool,
    pub(crate) required: bool,
    /// The time when the gate last fetched the keys (RFC 3339).
    pub(crate) last_success: Option<String>,
    pub(crate) failure: Option<IssuerFailure>,
    pub(crate) refused_keys: Vec<RefusedKey>,
}

/// The reason why the last attempt failed.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct IssuerFailure {
    pub(crate) cause: String,
    pub(crate) message: String,
}

/// A key of the issuer's key set that the gate does not use.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RefusedKey {
    pub(crate) kid: Option<String>,
    pub(crate) cause: String,
    pub(crate) why: String,
}

/// The reports of all issuers in `[[issuers]]`.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct IssuerReports {
    pub(crate) issuers: Vec<IssuerReport>,
}

impl RemoteIssuers {
    /// Starts to fetch all keys, and adds the key sets to the rules.
    pub(crate) async fn start(&self, config: &Config, trusted: &mut [IssuerRules]) -> Result<(), ServerError> {
        self.replace(self.prepare(config, trusted).await?);
        Ok(())
    }

    /// Starts fetching from changed sources, and adds the keys to all rules. An issuer that does not respond delays a
    /// start or reload only briefly.
    pub(crate) async fn prepare(
        &self,
        config: &Config,
        trusted: &mut [IssuerRules],
    ) -> Result<NextIssuers, ServerError> {
        let present = self.0.load_full();
        let mut next = NextIssuers { all: Vec::new(), started: Vec::new() };
        for (issuer, rules) in config.issuers.iter().zip(trusted) {
            let source = issuer.keys.remote();
            let fetched = source.map(|source| next.add(config, &present, source)).transpose()?;
            complete(rules, fetched);
        }
        for (_, source) in of_clients(config) {
            next.add(config, &present, source)?;
        }
        let first = futures_util::future::join_all(next.started.iter().map(RemoteKeys::first_attempt));
        // Slower fetches continue in the background.
        let _ = tokio::time::timeout(START_WAIT, first).await;
        Ok(next)
    }

    /// Switches to these issuers, and stops the fetches of all others.
    pub(crate) fn replace(&self, mut next: NextIssuers) {
        next.started.clear();
        let old = self.0.swap(Arc::new(std::mem::take(&mut next.all)));
        let now = self.0.load();
        let is_over = |old: &&Remote| !now.iter().any(|now| now.source.is_fetched_as(&old.source));
        old.iter().filter(is_over).for_each(|old| old.keys.stop());
    }

    pub(crate) fn given_to(&self, builder: GateBuilder, config: &Config) -> GateBuilder {
        given_to(&self.0.load(), builder, config)
    }

    pub(crate) fn renew(&self, rules: &mut IssuerRules, issuer: &TrustedIssuer) {
        complete(rules, self.named(&issuer.name).map(|remote| remote.keys.keys()));
    }

    pub(crate) fn metadata(&self, name: &str) -> Option<Arc<remote_keys::Metadata>> {
        self.named(name)?.keys.metadata()
    }

    /// Returns a function that returns the current URL from the discovery document.
    pub(super) fn discovered(
        &self,
        name: &str,
        which: fn(&remote_keys::Metadata) -> Option<FetchTarget>,
    ) -> Arc<dyn Fn() -> Option<FetchTarget> + Send + Sync> {
        let (issuers, name) = (self.clone(), name.to_owned());
        Arc::new(move || which(&*issuers.metadata(&name)?))
    }

    /// Returns the name of a required issuer whose keys the gate has never had.
    pub(crate) fn missing(&self) -> Option<String> {
        let missing = |remote: &&Remote| remote.source.required && !remote.keys.status().had_keys;
        self.0.load().iter().find(missing).map(|remote| remote.keys.issuer().name.clone())
    }

    pub(crate) fn states(&self) -> String {
        let line = |remote: &Remote| {
            let status = remote.keys.status();
            let why = status.failure.map(|failure| format!(", {}", failure.cause)).unwrap_or_default();
            format!("issuer {}: {}{why}\n", remote.keys.issuer().name, status.state)
        };
        self.0.load().iter().map(line).collect()
    }

    pub(crate) fn report(&self, config: &Config) -> IssuerReports {
        let all = self.0.load();
        let of = |issuer: &TrustedIssuer| {
            let fetched = all.iter().find(|remote| remote.keys.issuer().name == issuer.name);
            fetched.map_or_else(|| not_fetched(issuer), report)
        };
        IssuerReports { issuers: config.issuers.iter().map(of).collect() }
    }

    pub(crate) async fn refresh(&self, name: &str) -> Option<(IssuerReport, Result<(), FetchFailure>)> {
        let remote = self.named(name)?;
        let result = remote.keys.refresh().await;
        Some((report(&remote), result))
    }

    pub(crate) async fn drop_keys(&self, name: &str) -> Option<IssuerReport> {
        let remote = self.named(name)?;
        remote.keys.drop_keys().await;
        Some(report(&remote))
    }

    fn named(&self, name: &str) -> Option<Remote> {
        self.0.load().iter().find(|remote| remote.source.issuer.name == name).cloned()
    }

    pub(crate) fn statuses(&self) -> Vec<(String, RemoteStatus)> {
        let of = |remote: &Remote| (remote.keys.issuer().name.clone(), remote.keys.status());
        self.0.load().iter().map(of).collect()
    }

    /// The number of fetches by issuer and outcome.
    pub(crate) fn fetches(&self) -> Vec<(String, &'static str, u64)> {
        let all = self.0.load();
        let of = |remote: &Remote| {
            let name = remote.keys.issuer().name.clone();
            remote.keys.fetches().map(move |(result, count)| (name.clone(), result, count)).collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
    }
}

fn complete(rules: &mut IssuerRules, fetched: Option<Arc<LiveKeys>>) {
    if let Some(keys) = fetched {
        rules.keys = Keys::Live(keys);
    }
}

impl Drop for NextIssuers {
    fn drop(&mut self) {
        self.started.iter().for_each(RemoteKeys::stop);
    }
}

/// The report for an issuer without fetched keys.
// Requirement O39.
fn not_fetched(issuer: &TrustedIssuer) -> IssuerReport {
    let file = issuer.keys.file().map(|(key, file)| format!("{key} {}", file.display()));
    IssuerReport {
        name: issuer.name.clone(),
        url: issuer.url.clone(),
        state: if file.is_some() { "file" } else { "introspection" }.to_owned(),
        file,
        ..IssuerReport::default()
    }
}

fn report(remote: &Remote) -> IssuerReport {
    let RemoteStatus { state, keys, last_success, failure, ignored, is_dropped, .. } = remote.keys.status();
    let refused = ignored.into_iter().map(|ignored| RefusedKey {
        kid: ignored.kid,
        cause: ignored.cause.word().to_owned(),
        why: ignored.why.to_owned(),
    });
    let at = |time: rotogate_core::clock::Timestamp| {
        let time = std::time::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
        time.map(|time| humantime::format_rfc3339_seconds(time).to_string())
    };
    IssuerReport {
        name: remote.keys.issuer().name.clone(),
        url: remote.keys.issuer().issuer.clone(),
        state: state.to_owned(),
        keys: Some(keys),
        file: None,
        dropped: is_dropped,
        required: remote.source.required,
        last_success: last_success.and_then(at),
        failure: failure.map(|failure| IssuerFailure { cause: failure.cause.to_owned(), message: failure.message }),
        refused_keys: refused.collect(),
    }
}

fn folder(config: &Config) -> PathBuf {
    config.issuer.keys.parent().unwrap_or(Path::new("")).join(KEPT)
}

/// Sends a request to each issuer, for `check --online`.
pub(crate) async fn inspect(config: &Config) -> Result<(Vec<String>, Vec<ConfigError>), ConfigErrors> {
    let asked = config.issuers.iter().enumerate().map(|(index, issuer)| async move {
        let key = format!("issuers[{index}]");
        let keys = async {
            match issuer.keys.remote() {
                Some(source) => Some(inspect_keys(source).await),
                None => None,
            }
        };
        let introspection = async {
            match &issuer.introspection {
                Some(settings) => Some(inspect_introspection(settings, &issuer.files).await),
                None => None,
            }
        };
        let (keys, introspection) = tokio::join!(keys, introspection);
        let (keys, metadata) = match keys {
            Some(Ok((lines, metadata))) => (Some(Ok(lines)), metadata),
            Some(Err(fault)) => (Some(Err(fault)), None),
            None => (None, None),
        };
        (key, issuer, metadata, [keys, introspection])
    });
    let (mut lines, mut faults, mut warnings) = (Vec::new(), Faults::new(config), Vec::new());
    for (key, issuer, metadata, found) in futures_util::future::join_all(asked).await {
        for found in found.into_iter().flatten() {
            let found = faults.good(&key, found).unwrap_or_default();
            lines.extend(found.into_iter().map(|line| format!("issuer {}: {line}", issuer.name)));
        }
        if let Some(metadata) = metadata {
            warnings.extend(without_acr(config, &issuer.name, &metadata.acr_values_supported));
            warnings.extend(unoffered(config, &issuer.name, &metadata.token_endpoint_auth_methods_supported));
        }
    }
    for endpoint in &config.endpoints {
        if let Some(provider) = endpoint.browser.as_ref().and_then(|browser| browser.provider.as_deref()) {
            let public_url = config.server.public_url.to_string();
            let base = public_url.trim_end_matches('/');
            lines.push(format!("issuer {provider}: register the redirect URI {base}{}/callback there", endpoint.path));
        }
    }
    faults.result((lines, warnings))
}

/// Warns about routes whose `step_up` the provider cannot satisfy.
fn without_acr(config: &Config, provider: &str, acr_values: &[Box<str>]) -> Vec<ConfigError> {
    let is_provider = |browser: &BrowserConfig| browser.provider.as_deref() == Some(provider);
    let logs_in = config.endpoints.iter().any(|endpoint| endpoint.browser.as_ref().is_some_and(is_provider));
    if !logs_in || acr_values.is_empty() {
        return Vec::new();
    }
    let asks = config.routes.iter().enumerate().filter(|(_, route)| route.policy.credentials.session);
    let lacks = asks.filter_map(|(index, route)| {
        let step_up = route.policy.step_up.as_ref()?;
        let is_missing = step_up.accepted_of(&acr_values.join(" ")).is_none();
        let message = format!(
            "requires an `acr` that {provider} does not list in `acr_values_supported`, so no browser session can \
             meet this requirement. Write one of {}, or configure the provider to support the value",
            printable(&acr_values.join(", "))
        );
        is_missing.then(|| config.blame(&format!("routes[{index}].step_up"), message))
    });
    lacks.collect()
}

type Found = Result<Vec<String>, KeyFault>;

/// Warns about client authentication methods that the provider does not offer.
fn unoffered(config: &Config, provider: &str, offered: &[Box<str>]) -> Vec<ConfigError> {
    let endpoints = config.endpoints.iter().enumerate().flat_map(|(index, endpoint)| {
        let browser = endpoint.browser.iter().map(|browser| (&browser.provider, &browser.client));
        let relay = endpoint.relay.iter().map(|relay| (&relay.issuer, &relay.client));
        let ours = browser.chain(relay).filter(|(issuer, _)| issuer.as_deref() == Some(provider));
        ours.filter_map(move |(_, client)| Some((format!("endpoints[{index}]"), client.as_ref()?)))
    });
    let exchanging = config.providers.iter().enumerate().filter(|(_, entry)| entry.issuer == provider);
    let clients = endpoints.chain(exchanging.map(|(index, entry)| (format!("providers[{index}]"), &entry.client)));
    let is_offered = |method: &str| offered.is_empty() || offered.iter().any(|offered| **offered == *method);
    let warned = clients.filter(|(_, client)| client.secret_file.is_some()).filter_map(|(entry, client)| {
        let (method, other, word) = match client.secret_in {
            SecretPlace::Basic => ("client_secret_basic", "client_secret_post", "form"),
            SecretPlace::Form => ("client_secret_post", "client_secret_basic", "basic"),
        };
        let remedy =
            if is_offered(other) { format!("write secret_in = \"{word}\"") } else { "use one of these methods".into() };
        let listed = printable(&offered.join(", "));
        let message = format!(
            "is {method}, but {provider} lists only {listed} in `token_endpoint_auth_methods_supported`; {remedy}"
        );
        (!is_offered(method)).then(|| config.blame(&format!("{entry}.client.secret_in"), message))
    });
    warned.collect()
}

async fn inspect_keys(source: &RemoteSource) -> Result<(Vec<String>, Option<Metadata>), KeyFault> {
    let found = remote_keys::inspect(source.issuer.clone()).await.map_err(|failure| {
        let key = match source.issuer.location {
            remote_keys::KeyLocation::JwksUrl(_) => "jwks_url",
            _ => "discovery",
        };
        KeyFault::new(key, format!("{}: {failure}", failure.cause))
    })?;
    let fresh = rotogate_core::clock::written(found.fresh_for);
    let keys = format!("keys {}; fresh for {fresh}", found.keys.describe().join(", "));
    let ignored = found.keys.ignored().iter().map(|ignored| format!("not used: {ignored}"));
    Ok(([keys].into_iter().chain(ignored).collect(), found.metadata))
}

/// Introspects a nonexistent token. A response means that the server accepts the gate's client credentials.
async fn inspect_introspection(settings: &IntrospectionConfig, files: &FetchFiles) -> Found {
    const URL: &str = "introspection.url";
    let introspection =
        load_introspection(settings, files).map_err(|fault| KeyFault::new("introspection", fault.message))?;
    let token = format!("{}rotogate-check-{}", settings.prefix(), uuid::Uuid::new_v4().simple());
    let response = introspection.introspector.introspect(&token).await.map_err(|fault| {
        let key = if fault.needs_operator() { "introspection.client_id" } else { URL };
        KeyFault::new(key, format!("{}: {fault}", fault.cause))
    })?;
    let members = strict_json::object(&response).map_err(|why| KeyFault::new(URL, format!("malformed: {why}")))?;
    match members.get("active") {
        Some(serde_json::Value::Bool(false)) => {
            Ok(vec![format!("introspection at {} works: it reports an unknown token as inactive", settings.url)])
        }
        Some(serde_json::Value::Bool(true)) => {
            let what = "reports a token as active that cannot exist; expected {\"active\":false}. Do not let this \
                        server decide about tokens";
            Err(KeyFault::new(URL, what))
        }
        _ => Err(KeyFault::new(URL, "malformed: `active` must be true or false; is this the introspection endpoint?")),
    }
}
