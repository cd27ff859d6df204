//! Builds the gate and its proxy from a configuration.

// Reports configuration keys that this code ignores.
#![deny(unused_variables)]

use std::path::Path;
use std::sync::Arc;

use http::HeaderName;

use super::admin_tokens::AdminTokens;
use super::directories::LiveDirectories;
use super::issuer_rules::load_keys;
use super::issuers::RemoteIssuers;
use super::prepare::{DirectoryPlan, StartPlan};
use super::provider_client::{self, login_provider};
use super::start_wait::StartWait;
use super::stores::keys_and_stores;
use super::users::LiveUsers;
use super::{exchanges, relays};
use crate::server::error::{Faults, KeyFault, ServerError};
use rotogate::Gate;
use rotogate::dialect::global_revocation::GlobalRevocations;
use rotogate::gate::{BuildError, Endpoint, GateBuilder};
use rotogate::store::redb::RedbStore;
use rotogate_config::{
    AssertionHeader, ClientConfig, ClientKeySource, Config, ConfigErrors, CorsConfig, EndpointConfig,
    GlobalRevocationConfig, IdentityConfig, IdentityNames, IssuerConfig, LimitsConfig, ServerConfig, SessionsConfig,
    StoreConfig, read_event_token,
};
use rotogate_core::client::{Client, ClientKeys};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::password::Passwords;
use rotogate_core::route::Route;
use rotogate_core::token::verify::IssuerRules;
use rotogate_core::verify_cache::IdentityField;
use rotogate_directories::users::{FileDirectory, FirstUser};
use rotogate_proxy::{Proxy, Settings};

/// The parts of a server.
#[derive(Debug)]
pub struct GateParts {
    /// The gate.
    pub gate: Gate,
    pub(crate) proxy: Proxy,
    /// `None` if users are not in a file.
    pub(crate) users: Option<Arc<LiveUsers>>,
    pub(crate) directories: Arc<LiveDirectories>,
    /// The number of concurrent password checks is limited.
    pub(crate) passwords: Arc<Passwords>,
    pub(crate) redb: Option<RedbStore>,
    pub(crate) admin_tokens: Arc<AdminTokens>,
    /// The user that this start created, with a password that is shown only once.
    pub first_user: Option<FirstUser>,
    /// The initial rules for `[[issuers]]`.
    pub(crate) trusted: Vec<IssuerRules>,
    pub(crate) remote_issuers: RemoteIssuers,
    /// Whether this start created the keys.
    pub new_keys: bool,
}

impl GateParts {
    pub(crate) async fn close(&self) {
        if let Some(store) = &self.redb
            && let Err(error) = store.close().await
        {
            tracing::error!(error = ?rotogate_core::fault::Chain(&error), "the store was not closed cleanly");
        }
    }
}

/// # Errors
/// A part cannot be opened. The error names the part, its location and the remedy.
pub(crate) async fn assemble(config: &Config, plan: StartPlan) -> Result<GateParts, ServerError> {
    let StartPlan { builder, remote_issuers, mut trusted, directories: planned, metrics, passwords, .. } = plan;
    let new_keys = !config.issuer.keys.join("keyring.toml").exists();
    let mut opened = keys_and_stores(config).await?;
    let keyring = &opened.0;
    if keyring.signer().algorithm() != config.issuer.algorithm {
        tracing::warn!(
            configured = %config.issuer.algorithm,
            signing = %keyring.signer().algorithm(),
            "`issuer.algorithm` ignored, because the signing key is for another algorithm. To change the signing key, \
             run `rotogate keys rotate`"
        );
    }
    let admin_tokens = Arc::new(AdminTokens::load_or_create(&config.admin).map_err(ServerError::Unusable)?);
    let now = SystemTime::new().wall();
    let mut first_user = None;
    let mut file = None;
    let mut entries = Vec::new();
    for (section, planned) in config.directories.iter().zip(planned) {
        let users = match planned {
            DirectoryPlan::NewFile => {
                let path = config.users_file().map_err(ServerError::Unusable)?;
                let made = FileDirectory::create_with_first_user(path, Arc::clone(&passwords), now)
                    .map_err(ServerError::part)?;
                first_user = Some(made.1);
                DirectoryPlan::File(Arc::new(made.0))
            }
            planned => planned,
        };
        if let DirectoryPlan::File(directory) = &users {
            file = Some(Arc::clone(directory));
        }
        entries.extend(users.directory().map(|directory| (section.clone(), directory)));
    }
    let directories = Arc::new(LiveDirectories::new(entries, Arc::clone(&passwords), metrics));
    let watching =
        file.map(|file| file.watch().map(|watcher| (file, watcher))).transpose().map_err(ServerError::part)?;
    let proxy = Proxy::new(config.upstreams.clone(), proxy_settings(config)).map_err(ServerError::part)?;
    remote_issuers.start(config, &mut trusted).await?;
    let builder = remote_issuers.given_to(builder, config);
    let builder = trusted.iter().cloned().fold(builder, GateBuilder::trusted_issuer);
    let builder = builder.passwords(Arc::clone(&passwords)).directory(directories.shared());
    let mut wait = StartWait::begin();
    let (gate, redb) = loop {
        let (keyring, (redb, stores)) = opened;
        match stores.given_to(builder.clone().keys(keyring)).build().await {
            Ok(gate) => break (gate, redb),
            // A failover of the store may be in progress.
            Err(BuildError::Store(error)) if config.store.is_shared() => match wait.pause(&error).await {
                true => opened = keys_and_stores(config).await?,
                false => return Err(ServerError::part(BuildError::Store(error))),
            },
            Err(error) => return Err(ServerError::part(error)),
        }
    };
    let users = watching.map(|(file, watcher)| Arc::new(LiveUsers::watch(file, watcher, &gate)));
    Ok(GateParts {
        gate,
        proxy,
        users,
        directories,
        passwords,
        redb,
        admin_tokens,
        first_user,
        trusted,
        remote_issuers,
        new_keys,
    })
}

/// Returns a builder that still lacks keys, store, users, password checker and issuer rules.
///
/// # Errors
/// Unusable files of endpoints, each at its configuration key.
pub(crate) fn builder(config: &Config, remote_issuers: &RemoteIssuers) -> Result<GateBuilder, ConfigErrors> {
    let mut builder = with_settings(config);
    let mut faults = Faults::new(config);
    for (index, client) in config.clients.iter().enumerate() {
        let client = faults.good(format_args!("clients[{index}]"), client_with_keys(client));
        builder = client.into_iter().fold(builder, GateBuilder::client);
    }
    builder = with_endpoints(builder, config, remote_issuers, &mut faults);
    for resource in config.resources.iter().cloned() {
        builder = builder.resource(resource);
    }
    for route in routes(config, remote_issuers, &mut faults) {
        builder = builder.route(route);
    }
    faults.result(builder)
}

/// Adds the settings that need no files. Destructuring without `..` ensures that every new key is handled.
fn with_settings(config: &Config) -> GateBuilder {
    let Config {
        server,
        issuer: IssuerConfig { url, audience, authorization_endpoint, leeway, algorithm: _, keys: _ },
        sessions: SessionsConfig { profile, keep_login_client, max_stream },
        store,
        limits,
        cors: CorsConfig { origins, allow_credentials: _, max_age: _, expose: _ },
        dpop,
        api_keys,
        identity,
        // `builder` adds these settings, which need files.
        clients: _,
        endpoints: _,
        providers: _,
        resources: _,
        routes: _,
        // Used elsewhere in the server.
        issuers: _,
        directories: _,
        upstreams: _,
        authorizers: _,
        admin: _,
        log: _,
        access_log: _,
        audit_log: _,
        tracing: _,
        warnings: _,
        source: _,
    } = config;
    let builder = Gate::builder()
        .issuer(url.as_str())
        // `rotogate check` also accepts an issuer URL with http.
        .dangerous_plain_issuer()
        .audience(audience.iter().map(String::as_str))
        .leeway(*leeway)
        .profile(profile.clone())
        .max_stream(*max_stream)
        .allowed_origins(origins.iter().map(String::as_str));
    let builder = with_option(builder, authorization_endpoint.as_deref(), GateBuilder::authorization_endpoint);
    let builder = with_option(builder, dpop.clone(), GateBuilder::dpop);
    let builder = with_option(builder, api_keys.clone(), GateBuilder::api_keys);
    let builder = if *keep_login_client { builder } else { builder.forget_login_origin() };
    with_store(with_identity(with_limits(with_server(builder, server), limits), identity), store)
}

fn with_option<T>(builder: GateBuilder, value: Option<T>, set: impl Fn(GateBuilder, T) -> GateBuilder) -> GateBuilder {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

fn with_server(builder: GateBuilder, server: &ServerConfig) -> GateBuilder {
    let ServerConfig {
        trusted_proxies,
        overload,
        public_url,
        hosts,
        max_connections: _,
        max_requests_per_connection: _,
        listeners: _,
        max_connections_per_address: _,
        head_timeout: _,
        idle_timeout: _,
        max_head: _,
        workers: _,
        min_body_rate: _,
        drain_timeout: _,
        stream_drain: _,
        watch: _,
        request_id_header: _,
    } = server;
    builder
        .bounds(*overload)
        .public_url(public_url.to_string())
        .hosts(hosts.iter().map(String::as_str))
        .trusted_proxies(trusted_proxies.clone())
}

fn with_limits(builder: GateBuilder, limits: &LimitsConfig) -> GateBuilder {
    // `Passwords` applies the two password limits.
    let LimitsConfig { rates, rate_headers, verified_cache, max_token_body, max_password_checks: _, password_queue: _ } =
        limits;
    let builder = builder.rates(*rates).verified_cache(*verified_cache).max_endpoint_body(*max_token_body);
    with_option(builder, rate_headers.setting(), GateBuilder::rate_headers)
}

fn with_store(builder: GateBuilder, store: &StoreConfig) -> GateBuilder {
    #[cfg(any(feature = "postgres", feature = "redis"))]
    let builder = with_option(builder, store.staleness(), |builder, staleness| {
        builder.staleness(staleness.limit, staleness.served)
    });
    if store.is_shared() { builder.node_name(node_name()) } else { builder }
}

/// Fetched keys are added later.
fn client_with_keys(config: &ClientConfig) -> Result<Client, KeyFault> {
    let mut client = config.client.clone();
    if let Some(ClientKeySource { source }) = &config.keys {
        let keys = load_keys(source, &format!("client {}", client.id))
            .map_err(|message| KeyFault::new("keys.jwks_file", message))?;
        client.keys = keys.map(ClientKeys::from);
    }
    Ok(client)
}

fn routes(config: &Config, remote_issuers: &RemoteIssuers, faults: &mut Faults<'_>) -> Vec<Route> {
    let mut routes = config.routes.clone();
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let Some(settings) = &upstream.exchange else { continue };
        let place = config.providers.iter().position(|provider| provider.name == settings.provider);
        let table = format!("providers[{}]", place.unwrap_or_default());
        let exchange = faults.good(table, exchanges::load(upstream, settings, config, remote_issuers));
        let is_its = |route: &&mut Route| route.upstream.is_some_and(|upstream| upstream.position() == index);
        routes.iter_mut().filter(is_its).for_each(|route| route.exchange.clone_from(&exchange));
    }
    routes
}

/// An endpoint with unusable files is left out and reported.
fn with_endpoints(
    mut builder: GateBuilder,
    config: &Config,
    remote_issuers: &RemoteIssuers,
    faults: &mut Faults<'_>,
) -> GateBuilder {
    for (index, configured) in config.endpoints.iter().enumerate() {
        let table = format_args!("endpoints[{index}]");
        let Some(settings) = &configured.browser else {
            let endpoint = faults.good(table, endpoint(configured, remote_issuers));
            builder = endpoint.into_iter().fold(builder, GateBuilder::endpoint);
            continue;
        };
        if let Some(provider) = faults.good(table, login_provider(settings, &config.issuers, remote_issuers)) {
            let is_forwarded = config.routes.iter().any(|route| route.policy.forward_token);
            let provider = provider.map(|provider| if is_forwarded { provider } else { provider.identity_only() });
            builder = builder.browser(settings.browser(configured, &config.cors, provider));
        }
    }
    for (index, issuer) in config.issuers.iter().enumerate() {
        let of = |audience: &[String]| audience.iter().map(|one| one.as_str().into()).collect::<Vec<Box<str>>>();
        if let Some(logout) = &issuer.backchannel_logout {
            let logouts = Endpoint::back_channel_logout(&issuer.name, of(&logout.audience));
            builder = builder.endpoint(logouts.path(logout.path.as_str()));
        }
        if let Some(GlobalRevocationConfig { path, client_id }) = &issuer.global_revocation {
            let url = format!("{}{path}", config.server.public_url.to_string().trim_end_matches('/'));
            let dialect = GlobalRevocations::new(issuer.name.as_str(), client_id.as_str(), url);
            builder = builder.endpoint(Endpoint::new(dialect).path(path.as_str()));
        }
        if let Some(events) = &issuer.events
            && let Some(file) = &events.token_file
        {
            let token = read_event_token(file).map_err(|message| KeyFault::new("events.token_file", message));
            if let Some(token) = faults.good(format_args!("issuers[{index}]"), token) {
                let taken = Endpoint::security_events(&issuer.name, of(&events.audience), token);
                builder = builder.endpoint(taken.path(events.path.as_str()));
            }
        }
    }
    builder
}

fn endpoint(config: &EndpointConfig, remote_issuers: &RemoteIssuers) -> Result<Endpoint, KeyFault> {
    let EndpointConfig {
        dialect,
        path,
        profile,
        clients,
        client,
        accepts,
        account,
        listeners,
        // `options` contains these sections.
        envelope: _,
        kuzzle: _,
        my_sessions: _,
        my_keys: _,
        // Browser endpoints do not use a registered dialect.
        browser: _,
        relay,
    } = config;
    let listeners = || listeners.iter().cloned();
    if let Some(settings) = relay {
        let relay = relays::load(settings, remote_issuers)?;
        return Ok(Endpoint::boxed(settings.dialect()).path(path.as_str()).listeners(listeners()).relay(relay));
    }
    let dialect = rotogate::program::by_name(dialect, &config.options())
        .ok_or_else(|| KeyFault::new("dialect", format!("unknown dialect {dialect:?}")))?;
    let mut endpoint = Endpoint::boxed(dialect).path(path.as_str()).listeners(listeners()).profile(profile.clone());
    if let Some(clients) = clients {
        endpoint = endpoint.clients(clients.iter().map(String::as_str));
    }
    if let Some(client) = client {
        endpoint = endpoint.client(client.as_str());
    }
    if let Some(account) = account {
        endpoint = endpoint.account(account.as_str());
    }
    Ok(accepts.iter().flatten().fold(endpoint, |endpoint, accepted| endpoint.accepts(*accepted)))
}

pub(super) fn files_of(endpoint: &EndpointConfig) -> impl Iterator<Item = (&'static str, &Path)> {
    let client = endpoint.browser.as_ref().and_then(|browser| browser.client.as_ref());
    client.into_iter().flat_map(provider_client::files).chain(endpoint.relay.iter().flat_map(relays::files))
}

fn node_name() -> String {
    format!("{}/{}", rustix::system::uname().nodename().to_string_lossy(), std::process::id())
}

pub(super) fn proxy_settings(config: &Config) -> Settings {
    let server = &config.server;
    let trusted_proxies = server.trusted_proxies.clone();
    Settings { trusted_proxies, workers: server.workers.get(), ..Settings::default() }
}

fn with_identity(builder: GateBuilder, config: &IdentityConfig) -> GateBuilder {
    let IdentityConfig { headers, claims, assertion, strip, keep } = config;
    let builder = with_option(builder, assertion.as_ref(), |builder, AssertionHeader { header, ttl }| {
        builder.assertion(header.clone(), *ttl)
    });
    builder
        .strip_headers(strip.iter().map(ToString::to_string))
        .keep_headers(keep.iter().map(ToString::to_string))
        .identity_headers(identity_headers(headers, claims))
}

fn identity_headers(headers: &IdentityNames, claims: &[(HeaderName, String)]) -> Vec<(HeaderName, IdentityField)> {
    let IdentityNames { subject, account, client, actor, scope, session, issuer, roles } = headers;
    let fixed = [
        (subject, IdentityField::Subject),
        (account, IdentityField::Account),
        (client, IdentityField::Client),
        (actor, IdentityField::Actor),
        (scope, IdentityField::Scope),
        (session, IdentityField::Session),
        (issuer, IdentityField::Issuer),
        (roles, IdentityField::Roles),
    ];
    let claims = claims.iter().map(|(name, claim)| (name.clone(), IdentityField::Claim(claim.as_str().into())));
    fixed.into_iter().filter_map(|(header, field)| Some((header.0.clone()?, field))).chain(claims).collect()
}
