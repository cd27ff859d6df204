//! Builds the gate and its proxy from a configuration.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use secrecy::SecretString;
use uuid::Uuid;

use super::admin_tokens::AdminTokens;
use super::directories::LiveDirectories;
use super::issuers::RemoteIssuers;
use super::prepare::{DirectoryPlan, StartPlan};
#[cfg(feature = "relay")]
use super::relays;
#[cfg(any(feature = "postgres", feature = "redis"))]
use super::shared;
use super::start_wait::StartWait;
#[cfg(any(feature = "postgres", feature = "redis"))]
use super::start_wait::once_it_is_there;
use super::users::LiveUsers;
use crate::config::{
    Config, EndpointConfig, IdentityConfig, IntrospectionConfig, IssuerConfig, KeySource, LimitsConfig, SecretIn,
    SessionsConfig, StoreConfig, TrustedIssuer, read_event_token,
};
use crate::proxy::{Proxy, Settings, Upstream};
use crate::server::error::{KeyFault, ServerError};
use crate::users::{FileDirectory, FirstUser, UsersFile};
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::dialect;
use rotogate::dialect::events::Events;
use rotogate::gate::{BuildError, Endpoint, Gate, GateBuilder};
use rotogate::http_client::{Allowed, HttpClient, Target, Tls};
use rotogate::introspection::{HttpIntrospector, Introspection};
use rotogate::password::Passwords;
use rotogate::private_file::{self, trusted};
#[cfg(feature = "postgres")]
use rotogate::store::PostgresStore;
#[cfg(feature = "redis")]
use rotogate::store::RedisStore;
use rotogate::store::redb::{Options, RedbStore};
#[cfg(feature = "relay")]
use rotogate::store::relay::RelayStore;
use rotogate::store::{MemoryStore, Store};
use rotogate::token::keyring::{Begun, Keyring};
use rotogate::token::verify::{IssuerKeys, IssuerRules};
use rotogate::verify_cache::IdentityField;

/// A gate, and what the server keeps beside it.
#[derive(Debug)]
pub struct GateParts {
    /// The gate.
    pub gate: Gate,
    /// The service behind the gate.
    pub(crate) proxy: Proxy,
    /// Keeps the users in step with their file. `None`: other systems have all users.
    pub(crate) users: Option<Arc<LiveUsers>>,
    /// The directories, which a reload replaces.
    pub(crate) directories: Arc<LiveDirectories>,
    /// Checks passwords, a bounded number at once.
    pub(crate) passwords: Arc<Passwords>,
    /// The embedded store, if the configuration names it.
    pub(crate) redb: Option<RedbStore>,
    /// How long the embedded store may be unwritable.
    pub(crate) give_up: Option<Duration>,
    /// The tokens of the admin listener.
    pub(crate) admin_tokens: Arc<AdminTokens>,
    /// The user that the start created because the users file was missing, with its password. Shown once.
    pub first_user: Option<FirstUser>,
    /// The rules for each `[[issuers]]` entry, as read at the start.
    pub(crate) trusted: Vec<IssuerRules>,
    /// Those whose keys are fetched.
    pub(crate) remote_issuers: RemoteIssuers,
    /// Whether this start created the keys.
    pub new_keys: bool,
}

impl GateParts {
    pub(crate) async fn close(&self) {
        if let Some(store) = &self.redb
            && let Err(error) = store.close().await
        {
            tracing::error!(error = ?rotogate::fault::Chain(&error), "store not closed cleanly");
        }
    }
}

/// The longest key file of another issuer, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 4 << 20;

/// Builds everything. Creates keys, users and the admin token if they are missing.
///
/// # Errors
/// Keys, store, users or another part cannot be opened. The text says which, where, and what to do.
pub(crate) async fn assemble(config: &Config, plan: StartPlan) -> Result<GateParts, ServerError> {
    let StartPlan { mut trusted, directories: planned, metrics, passwords, warnings: _, last_read: _ } = plan;
    let new_keys = !config.issuer.keys.join("keyring.toml").exists();
    let mut opened = keys_and_stores(config).await?;
    let keyring = &opened.0;
    if keyring.signer().algorithm() != config.issuer.algorithm {
        tracing::warn!(
            configured = %config.issuer.algorithm,
            signing = %keyring.signer().algorithm(),
            "issuer.algorithm ignored: it applies to new keyrings, and the keyring's key decides"
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
                let path = UsersFile::configured(config).map_err(ServerError::Unusable)?;
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
    let proxy = Proxy::new(upstreams(config), proxy_settings(config)).map_err(ServerError::part)?;
    let remote_issuers = RemoteIssuers::start(config, &mut trusted).await?;
    let mut wait = StartWait::begin();
    let (gate, redb) = loop {
        let (keyring, (redb, stores)) = opened;
        let builder = builder(config, &remote_issuers, &trusted)?.passwords(Arc::clone(&passwords));
        match stores.given_to(builder.keys(keyring).directory(directories.shared())).build().await {
            Ok(gate) => break (gate, redb),
            // In the middle of a failover: another gate has given the data a new history, or another server is the primary.
            Err(BuildError::Store(error)) if config.store.is_shared() => match wait.pause(&error).await {
                true => opened = keys_and_stores(config).await?,
                false => return Err(ServerError::part(BuildError::Store(error))),
            },
            Err(error) => return Err(ServerError::part(error)),
        }
    };
    let users = watching.map(|(file, watcher)| Arc::new(LiveUsers::watch(file, watcher, &gate)));
    let give_up = match config.store {
        StoreConfig::Redb { give_up, .. } => give_up,
        StoreConfig::Memory => None,
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(_) => None,
        #[cfg(feature = "redis")]
        StoreConfig::Redis(_) => None,
    };
    Ok(GateParts {
        gate,
        proxy,
        users,
        directories,
        passwords,
        redb,
        give_up,
        admin_tokens,
        first_user,
        trusted,
        remote_issuers,
        new_keys,
    })
}

/// A builder with everything that the configuration says about the gate; keys, store, users and the checker of passwords
/// are not in it. The sections are destructured without `..`: a new key does not compile until it is given to the builder,
/// or listed here as read elsewhere.
pub(crate) fn builder(
    config: &Config,
    remote_issuers: &RemoteIssuers,
    trusted: &[IssuerRules],
) -> Result<GateBuilder, ServerError> {
    // `keys` and `algorithm` made the keyring; the two limits of password checks made `passwords`.
    let IssuerConfig { url, audience, algorithm: _, keys: _, leeway } = &config.issuer;
    let LimitsConfig { rates, shared, verified_cache, max_password_checks: _, password_queue: _, max_token_body } =
        &config.limits;
    let SessionsConfig { profile, keep_login_client, max_stream } = &config.sessions;
    let server = &config.server;
    let mut builder = Gate::builder()
        .issuer(url.as_str())
        // An operator may choose an http issuer; `rotogate check` accepts it too.
        .dangerous_plain_issuer()
        .audience(audience.iter().map(String::as_str))
        .leeway(*leeway)
        .profile(profile.clone())
        .rates(*rates)
        .verified_cache(*verified_cache)
        .max_endpoint_body(*max_token_body)
        .max_stream(*max_stream)
        .bounds(server.overload)
        .public_url(server.public_url.to_string())
        .hosts(server.hosts.iter().map(String::as_str))
        .strip_headers(config.identity.strip.iter().cloned())
        .keep_headers(config.identity.keep.iter().cloned())
        .allowed_origins(config.cors.origins.iter().map(String::as_str))
        .trusted_proxies(server.trusted_proxies.clone())
        .identity_headers(identity(&config.identity));
    if let Some((header, ttl)) = &config.identity.assertion {
        builder = builder.assertion(header.clone(), *ttl);
    }
    if let Some(dpop) = &config.dpop {
        builder = builder.dpop(dpop.clone());
    }
    #[cfg(any(feature = "postgres", feature = "redis"))]
    if let Some(staleness) = config.store.staleness() {
        builder = builder.staleness(staleness);
    }
    if config.store.is_shared() {
        builder = builder.node_name(node_name());
    }
    if !shared {
        builder = builder.limits_per_node();
    }
    if !keep_login_client {
        builder = builder.forget_login_origin();
    }
    for rules in trusted.iter().cloned() {
        builder = builder.trusted_issuer(rules);
    }
    for client in config.clients.iter().cloned() {
        builder = builder.client(client);
    }
    for configured in &config.endpoints {
        builder = builder.endpoint(endpoint(configured, remote_issuers)?);
    }
    for issuer in &config.issuers {
        let of = |audience: &[String]| audience.iter().map(|one| one.as_str().into()).collect::<Vec<Box<str>>>();
        if let Some(logout) = &issuer.backchannel_logout {
            let dialect = Events::back_channel_logout(&issuer.name, of(&logout.audience));
            builder = builder.endpoint(Endpoint::new(dialect).path(logout.path.as_str()));
        }
        if let Some(events) = &issuer.events
            && let Some(file) = &events.token_file
        {
            let token = read_event_token(file).map_err(ServerError::Unusable)?;
            let dialect = Events::security_events(&issuer.name, of(&events.audience), token);
            builder = builder.endpoint(Endpoint::new(dialect).path(events.path.as_str()));
        }
    }
    for resource in config.resources.iter().cloned() {
        builder = builder.resource(resource);
    }
    for route in config.routes.iter().cloned() {
        builder = builder.route(route);
    }
    Ok(builder)
}

#[cfg_attr(not(feature = "relay"), expect(unused_variables, reason = "relays alone ask other issuers"))]
fn endpoint(config: &EndpointConfig, remote_issuers: &RemoteIssuers) -> Result<Endpoint, ServerError> {
    let EndpointConfig {
        dialect,
        path,
        profile,
        clients,
        client,
        accepts,
        account,
        listeners,
        options,
        #[cfg(feature = "relay")]
        relay,
    } = config;
    let listeners = || listeners.iter().cloned();
    #[cfg(feature = "relay")]
    if let Some(settings) = relay {
        let relay = relays::load(settings, remote_issuers).map_err(|fault| ServerError::Unusable(fault.message))?;
        return Ok(Endpoint::new(settings.dialect()).path(path.as_str()).listeners(listeners()).relay(relay));
    }
    let dialect = dialect::by_name(dialect, options)
        .ok_or_else(|| ServerError::Unusable(format!("there is no dialect {dialect:?}")))?;
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
    Ok(accepts.iter().fold(endpoint, |endpoint, accepted| endpoint.accepts(*accepted)))
}

/// The store of sessions, and the same store for the records of relays.
#[derive(Debug)]
pub(crate) struct Stores {
    sessions: Arc<dyn Store>,
    #[cfg(feature = "relay")]
    relay: Arc<dyn RelayStore>,
}

impl Stores {
    /// A builder of a gate on these stores.
    pub(super) fn given_to(self, builder: GateBuilder) -> GateBuilder {
        let builder = builder.shared_store(self.sessions);
        #[cfg(feature = "relay")]
        let builder = builder.relay_store(self.relay);
        builder
    }
}

impl From<MemoryStore> for Stores {
    fn from(store: MemoryStore) -> Self {
        let store = Arc::new(store);
        Self {
            #[cfg(feature = "relay")]
            relay: Arc::clone(&store) as _,
            sessions: store,
        }
    }
}

/// The embedded store, if it is one, and the stores of the gate.
type OpenedStores = (Option<RedbStore>, Stores);

/// The keys, and the store that was made with them. Gates of one store have the same keys: a gate without keys makes some only
/// if it also makes the store.
async fn keys_and_stores(config: &Config) -> Result<(Keyring, OpenedStores), ServerError> {
    let (keys, algorithm) = (&config.issuer.keys, config.issuer.algorithm);
    if !config.store.is_shared() {
        let keyring = Keyring::load_or_create(keys, algorithm).map_err(ServerError::part)?;
        let stores = stores(config, &keyring).await?;
        return Ok((keyring, stores));
    }
    match Keyring::load_or_begin(keys, algorithm).map_err(ServerError::part)? {
        Begun::Loaded(keyring) => {
            let stores = stores(config, &keyring).await?;
            Ok((*keyring, stores))
        }
        Begun::New(new) => match stores(config, new.keyring()).await {
            Ok(stores) => Ok((new.publish().map_err(ServerError::part)?, stores)),
            Err(error) => Err(ServerError::NoKeys { error: Box::new(error), folder: keys.clone() }),
        },
    }
}

/// The store of a configuration.
pub(crate) async fn open_store(config: &Config, keyring: &Keyring) -> Result<Arc<dyn Store>, ServerError> {
    Ok(stores(config, keyring).await?.1.sessions)
}

/// The store that other gates use, too, as the configuration names it; `None` if it names no such store.
pub(crate) async fn shared_store(config: &Config, keyring: &Keyring) -> Result<Option<Arc<dyn Store>>, ServerError> {
    if !config.store.is_shared() {
        return Ok(None);
    }
    Ok(Some(stores(config, keyring).await?.1.sessions))
}

async fn stores(config: &Config, keyring: &Keyring) -> Result<OpenedStores, ServerError> {
    match &config.store {
        StoreConfig::Memory => {
            tracing::warn!("store.kind is \"memory\": all sessions are lost when the gate stops");
            Ok((None, MemoryStore::new(config.issuer.url.as_str(), config.issuer.leeway).into()))
        }
        StoreConfig::Redb { path, .. } => {
            let store = RedbStore::open(path, redb_options(config, keyring.id())).map_err(ServerError::part)?;
            let stores = Stores {
                sessions: Arc::new(store.clone()),
                #[cfg(feature = "relay")]
                relay: Arc::new(store.clone()),
            };
            Ok((Some(store), stores))
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            let options = shared::of_postgres(config, settings, keyring.id())?;
            let connect = || PostgresStore::connect(options.clone());
            let store = Arc::new(once_it_is_there(connect).await.map_err(ServerError::part)?);
            let stores = Stores {
                #[cfg(feature = "relay")]
                relay: Arc::clone(&store) as _,
                sessions: store,
            };
            Ok((None, stores))
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => {
            let options = shared::of_redis(config, settings, keyring.id())?;
            let connect = || RedisStore::connect(options.clone());
            let store = Arc::new(once_it_is_there(connect).await.map_err(ServerError::part)?);
            let stores = Stores {
                #[cfg(feature = "relay")]
                relay: Arc::clone(&store) as _,
                sessions: store,
            };
            Ok((None, stores))
        }
    }
}

/// The name of this process among the gates of a store: its machine, and its process id.
fn node_name() -> String {
    format!("{}/{}", rustix::system::uname().nodename().to_string_lossy(), std::process::id())
}

/// How the embedded store of a configuration is opened.
pub(crate) fn redb_options(config: &Config, keyring: Uuid) -> Options {
    let mut options = Options::new(config.issuer.url.as_str(), keyring, config.issuer.leeway);
    if let StoreConfig::Redb { path: _, mark, accept_restored_store, cache_size, give_up: _ } = &config.store {
        options.high_water = Some(mark.clone());
        options.accept_restored = *accept_restored_store;
        options.cache_size = *cache_size;
    }
    options
}

/// Reads the rules for an issuer, and logs each key of its file that cannot be used.
pub(crate) fn load_issuer_and_log(issuer: &TrustedIssuer) -> Result<IssuerRules, ServerError> {
    let rules = load_issuer(issuer).map_err(ServerError::Unusable)?;
    if let Some((_, file)) = issuer.keys.file() {
        for ignored in rules.keys.ignored() {
            tracing::warn!(issuer = issuer.url, file = %file.display(), "not used: {ignored}");
        }
    }
    Ok(rules)
}

/// The keys of an issuer: those that its file holds now, or unknown ones that are fetched later. `None`: it has no keys.
fn load_keys(issuer: &TrustedIssuer) -> Result<Option<IssuerKeys>, String> {
    let read = |path| trusted::read(path, MAX_KEY_FILE_BYTES);
    let (path, keys) = match &issuer.keys {
        KeySource::Jwks(path, algorithm) => (path, IssuerKeys::from_jwks(&read(path)?, *algorithm)),
        KeySource::PublicKey(path, algorithm) => (path, IssuerKeys::from_public_pem(&read(path)?, *algorithm)),
        KeySource::Remote(_) => return Ok(Some(IssuerKeys::unknown())),
        KeySource::None => return Ok(None),
    };
    let remedy = match &issuer.keys {
        KeySource::Jwks(..) => "; save the set that the issuer publishes",
        _ => "",
    };
    keys.map(Some).map_err(|error| format!("{}: the keys of issuer {}: {error}{remedy}", path.display(), issuer.url))
}

/// How an issuer is asked about opaque tokens, with the secret that its file holds now.
///
/// # Errors
/// The key at fault, and what is wrong with it.
pub(crate) fn load_introspection(config: &IntrospectionConfig) -> Result<Introspection, KeyFault> {
    let IntrospectionConfig {
        url,
        client_id,
        secret_file,
        secret_in,
        cache,
        negative,
        stale_if_error,
        timeout,
        ca,
        client_cert,
        prefix,
        always,
        audience_optional,
    } = config;
    let in_file = |key, file: &Path, what: &str| KeyFault::new(key, format!("{}: {what}", file.display()));
    let text = private_file::read_private(secret_file).map_err(|message| KeyFault::new("secret_file", message))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(in_file("secret_file", secret_file, "is empty; expected the secret of client_id"));
    }
    let mut tls = Tls::default();
    if let Some(ca) = ca {
        let bytes = trusted::read(ca, MAX_KEY_FILE_BYTES).map_err(|message| KeyFault::new("ca", message))?;
        tls.ca = Some(String::from_utf8(bytes.to_vec()).map_err(|_| in_file("ca", ca, "is not PEM"))?);
    }
    if let Some(file) = client_cert {
        let pem = private_file::read_private(file).map_err(|message| KeyFault::new("client_cert", message))?;
        tls.client_cert = Some((pem.to_string(), SecretString::from(pem.to_string())));
    }
    let client = HttpClient::with_tls(&tls).map_err(|error| match (error.key, ca, client_cert) {
        ("ca", Some(ca), _) => in_file("ca", ca, &error.message),
        ("client_cert", _, Some(file)) => in_file("client_cert", file, &error.message),
        _ => KeyFault::new("url", error.message),
    })?;
    let endpoint =
        Target::parse(url, Allowed::by_operator()).map_err(|error| KeyFault::new("url", error.to_string()))?;
    let secret = SecretString::from(secret.to_owned());
    let client = client.with_timeout(*timeout);
    let introspector = match secret_in {
        SecretIn::Basic => HttpIntrospector::new(client, endpoint, client_id, &secret),
        SecretIn::Form => HttpIntrospector::with_secret_in_form(client, endpoint, client_id, &secret),
    };
    let mut introspection = Introspection::by(introspector)
        .cache(*cache)
        .negative(*negative)
        .stale_if_error(*stale_if_error)
        .prefix(prefix.as_str());
    (introspection.always, introspection.audience_optional) = (*always, *audience_optional);
    Ok(introspection)
}

/// The rules for an issuer, with the keys and the secret that its files hold now.
pub(crate) fn load_issuer(issuer: &TrustedIssuer) -> Result<IssuerRules, String> {
    let keys = load_keys(issuer)?;
    let introspection = issuer.introspection.as_ref().map(load_introspection).transpose();
    let introspection = introspection.map_err(|fault| format!("introspection.{fault}"))?;
    let TrustedIssuer {
        name,
        url,
        scopes,
        everywhere,
        subject_prefix,
        // Its values are in the other keys.
        preset: _,
        claims,
        audience,
        keys: _,
        introspection: _,
        typ,
        max_lifetime,
        leeway,
        session_claim,
        // Their endpoints are the gate's.
        backchannel_logout: _,
        events: _,
    } = issuer;
    let audience = audience.iter().map(|audience| audience.as_str().into()).collect();
    let rules = match (keys, introspection) {
        (Some(keys), None) => IssuerRules::external(url.as_str(), audience, keys),
        (Some(keys), Some(it)) => IssuerRules::external(url.as_str(), audience, keys).introspection(it),
        (None, Some(it)) => IssuerRules::introspected(url.as_str(), audience, it),
        (None, None) => return Err(format!("the issuer {url} has neither keys nor introspection")),
    };
    let mut rules = rules.named(name.as_str()).scopes(scopes.clone()).claims(claims.clone());
    rules.everywhere = *everywhere;
    rules.subject_prefix = subject_prefix.as_str().into();
    rules.typ = typ.iter().map(|typ| typ.as_str().into()).collect();
    rules.leeway = *leeway;
    rules.session_claim = session_claim.as_str().into();
    rules.max_lifetime = Some(*max_lifetime);
    Ok(rules)
}

/// The upstreams, with the defaults that other sections set.
pub(crate) fn upstreams(config: &Config) -> Vec<Upstream> {
    let complete = |upstream: &Upstream| {
        let connect_timeout = upstream.connect_timeout.or(Some(config.server.connect_timeout));
        Upstream { connect_timeout, ..upstream.clone() }
    };
    config.upstreams.iter().map(complete).collect()
}

fn proxy_settings(config: &Config) -> Settings {
    let server = &config.server;
    let trusted_proxies = server.trusted_proxies.clone();
    Settings { trusted_proxies, workers: server.workers.get(), ..Settings::default() }
}

fn identity(config: &IdentityConfig) -> Vec<(HeaderName, IdentityField)> {
    // The builder takes `assertion`, `strip` and `keep` on its own.
    let IdentityConfig {
        subject,
        account,
        client,
        scope,
        session,
        issuer,
        roles,
        claims,
        assertion: _,
        strip: _,
        keep: _,
    } = config;
    let fixed = [
        (subject, IdentityField::Subject),
        (account, IdentityField::Account),
        (client, IdentityField::Client),
        (scope, IdentityField::Scope),
        (session, IdentityField::Session),
        (issuer, IdentityField::Issuer),
        (roles, IdentityField::Roles),
    ];
    let claims = claims.iter().map(|(name, claim)| (name.clone(), IdentityField::Claim(claim.as_str().into())));
    fixed.into_iter().filter_map(|(name, field)| Some((name.clone()?, field))).chain(claims).collect()
}
