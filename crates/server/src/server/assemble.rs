//! Builds the gate and its proxy from a configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderName;

use super::ServerError;
use super::prepare::Prepared;
use super::users::LiveUsers;
use crate::config::{Config, DirectoryConfig, KeySource, LimitsConfig, StoreConfig, TrustedIssuer};
use crate::proxy::{Proxy, Settings, Upstream};
use crate::server::admin::AdminToken;
use crate::users::{FileDirectory, FirstUser};
use rotogate::client::Client;
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::dialect;
use rotogate::gate::{Endpoint, Gate, GateBuilder};
use rotogate::limit::Rates;
use rotogate::password::Passwords;
use rotogate::private_file::trusted;
use rotogate::store::redb::{Options, RedbStore};
use rotogate::store::{MemoryStore, Store};
use rotogate::token::keyring::Keyring;
use rotogate::token::verify::{IssuerKeys, IssuerRules};
use rotogate::verify_cache::IdentityField;

/// A gate, and what the server keeps beside it.
#[derive(Debug)]
pub struct Assembled {
    /// The gate.
    pub gate: Gate,
    /// The service behind the gate.
    pub(crate) proxy: Proxy,
    /// Keeps the users in step with their file.
    pub(crate) users: Arc<LiveUsers>,
    /// The embedded store, if the configuration names it.
    pub(crate) redb: Option<RedbStore>,
    /// The token of the admin listener.
    pub(crate) admin_token: Arc<AdminToken>,
    /// The user that the start created because the users file was missing, with its password. Shown once.
    pub first_user: Option<FirstUser>,
    /// The rules for each `[[issuers]]` entry, as read at the start.
    pub(super) trusted: Vec<IssuerRules>,
    /// Whether this start created the keys.
    pub new_keys: bool,
}

impl Assembled {
    pub(super) async fn close(&self) {
        if let Some(store) = &self.redb
            && let Err(error) = store.close().await
        {
            tracing::error!(error = ?rotogate::fault::Chain(&error), "store not closed cleanly");
        }
    }
}

/// The longest key file of another issuer, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 4 << 20;
/// The file in the key folder that holds the store's high-water mark (requirement O5).
const HIGH_WATER_FILE: &str = "store.mark";

/// Builds everything. Creates keys, users and the admin token if they are missing.
///
/// # Errors
/// Keys, store, users or another part cannot be opened. The text says which, where, and what to do.
pub(super) async fn assemble(config: &Config, prepared: Prepared) -> Result<Assembled, ServerError> {
    let Prepared { trusted, directory, passwords, warnings: _, last_read: _ } = prepared;
    let new_keys = !config.issuer.keys.join("keyring.toml").exists();
    let keyring = Keyring::load_or_create(&config.issuer.keys, config.issuer.algorithm).map_err(from)?;
    if keyring.signer().algorithm() != config.issuer.algorithm {
        tracing::warn!(
            configured = %config.issuer.algorithm,
            signing = %keyring.signer().algorithm(),
            "issuer.algorithm ignored: it applies to new keyrings, and the keyring's key decides"
        );
    }
    let admin_token = Arc::new(AdminToken::load_or_create(&config.admin.token_file).map_err(ServerError::new)?);
    let now = SystemTime::new().wall();
    let (redb, store) = store(config, &keyring)?;
    let (directory, first_user) = match directory {
        Some(directory) => (directory, None),
        None => {
            let DirectoryConfig::File { path } = &config.directory;
            let made = FileDirectory::create_with_first_user(path, Arc::clone(&passwords), now).map_err(from)?;
            (Arc::new(made.0), Some(made.1))
        }
    };
    let watching = directory.watch().map_err(from)?;
    let proxy = Proxy::new(upstreams(config), proxy_settings(config)).map_err(from)?;
    let builder = builder(config, keyring, store, Some(&directory), passwords, &trusted)?;
    let gate = builder.build().await.map_err(from)?;
    let users = Arc::new(LiveUsers::watch(directory, watching, &gate));
    Ok(Assembled { gate, proxy, users, redb, admin_token, first_user, trusted, new_keys })
}

/// A builder with everything that the configuration says about the gate.
pub(super) fn builder(
    config: &Config,
    keyring: Keyring,
    store: Arc<dyn Store>,
    directory: Option<&Arc<FileDirectory>>,
    passwords: Arc<Passwords>,
    trusted: &[IssuerRules],
) -> Result<GateBuilder, ServerError> {
    let limits = &config.limits;
    let mut builder = Gate::builder()
        .issuer(config.issuer.url.as_str())
        // An operator may choose an http issuer; `rotogate check` accepts it too.
        .dangerous_plain_issuer()
        .audience(config.issuer.audience.iter().map(String::as_str))
        .keys(keyring)
        .leeway(config.issuer.leeway)
        .shared_store(store)
        .passwords(passwords)
        .profile(config.sessions.profile.clone())
        .rates(rates(limits))
        .verified_cache(limits.verified_cache)
        .max_endpoint_body(limits.max_token_body)
        .max_stream(config.sessions.max_stream)
        .bounds(config.server.overload)
        .public_url(config.server.public_url.to_string())
        .hosts(config.server.hosts.iter().map(String::as_str))
        .strip_headers(config.identity.strip.iter().cloned())
        .keep_headers(config.identity.keep.iter().cloned())
        .allowed_origins(config.cors.origins.iter().map(String::as_str))
        .trusted_proxies(config.server.trusted_proxies.clone())
        .identity_headers(identity(config));
    if !config.sessions.keep_login_client {
        builder = builder.forget_login_origin();
    }
    if let Some(directory) = directory {
        builder = builder.directory(Arc::clone(directory) as Arc<dyn rotogate::directory::Directory>);
    }
    for rules in trusted.iter().cloned() {
        builder = builder.trusted_issuer(rules);
    }
    for client in &config.clients {
        builder = builder.client(Client {
            id: client.id.as_str().into(),
            secret_hash: client.secret_hash.clone(),
            grants: client.grants.clone(),
            scopes: client.scopes.clone(),
            profile: client.profile.clone(),
        });
    }
    for endpoint in &config.endpoints {
        let dialect = dialect::by_name(endpoint.dialect, &endpoint.options)
            .ok_or_else(|| ServerError::new(format!("there is no dialect {:?}", endpoint.dialect)))?;
        let mut made = Endpoint::boxed(dialect).path(endpoint.path.as_str()).profile(endpoint.profile.clone());
        if let Some(clients) = &endpoint.clients {
            made = made.clients(clients.iter().map(String::as_str));
        }
        if let Some(client) = &endpoint.client {
            made = made.client(client.as_str());
        }
        if let Some(account) = &endpoint.account {
            made = made.account(account.as_str());
        }
        for accepted in &endpoint.accepts {
            made = made.accepts(*accepted);
        }
        builder = builder.endpoint(made);
    }
    for route in &config.routes {
        builder = builder.route(route.clone());
    }
    Ok(builder)
}

fn from(error: impl std::error::Error) -> ServerError {
    ServerError::new(format!("{:?}", rotogate::fault::Chain(&error)))
}

fn store(config: &Config, keyring: &Keyring) -> Result<(Option<RedbStore>, Arc<dyn Store>), ServerError> {
    match &config.store {
        StoreConfig::Memory => {
            tracing::warn!("store.kind is \"memory\": all sessions are lost when the gate stops");
            Ok((None, Arc::new(MemoryStore::new(config.issuer.url.as_str(), config.issuer.leeway))))
        }
        StoreConfig::Redb { path, accept_restored_store, cache_size, give_up: _ } => {
            let mut options = Options::new(config.issuer.url.as_str(), keyring.id(), config.issuer.leeway);
            options.high_water = Some(high_water(&config.issuer.keys));
            options.accept_restored = *accept_restored_store;
            options.cache_size = *cache_size;
            let store = RedbStore::open(path, options).map_err(from)?;
            Ok((Some(store.clone()), Arc::new(store)))
        }
    }
}

/// The path of the store's high-water mark.
pub(crate) fn high_water(keys: &Path) -> PathBuf {
    keys.join(HIGH_WATER_FILE)
}

/// The rules for each `[[issuers]]` entry.
pub(crate) fn load_issuers(config: &Config) -> Result<Vec<IssuerRules>, ServerError> {
    config.issuers.iter().map(load_issuer_and_log).collect()
}

/// Reads the rules for an issuer, and logs each key of its file that cannot be used.
pub(crate) fn load_issuer_and_log(issuer: &TrustedIssuer) -> Result<IssuerRules, ServerError> {
    let rules = load_issuer(issuer).map_err(ServerError::new)?;
    for ignored in rules.keys.ignored() {
        tracing::warn!(issuer = issuer.url, file = %key_file(issuer).display(), "not used: {ignored}");
    }
    Ok(rules)
}

/// The key file of an issuer.
pub(super) fn key_file(issuer: &TrustedIssuer) -> &Path {
    let (KeySource::Jwks(path, _) | KeySource::PublicKey(path, _)) = &issuer.keys;
    path
}

/// The rules for an issuer, with the keys that its file holds now.
pub(super) fn load_issuer(issuer: &TrustedIssuer) -> Result<IssuerRules, String> {
    let path = key_file(issuer);
    let text = trusted::read(path, MAX_KEY_FILE_BYTES)?;
    let keys = match &issuer.keys {
        KeySource::Jwks(_, algorithm) => IssuerKeys::from_jwks(&text, *algorithm),
        KeySource::PublicKey(_, algorithm) => IssuerKeys::from_public_pem(&text, *algorithm),
    };
    let keys = keys.map_err(|error| format!("{}: the keys of issuer {}: {error}", path.display(), issuer.url))?;
    Ok(IssuerRules {
        issuer: issuer.url.as_str().into(),
        name: issuer.name.as_str().into(),
        scopes: issuer.scopes.clone(),
        role_claims: Arc::default(),
        everywhere: issuer.everywhere,
        subject_prefix: issuer.subject_prefix.as_str().into(),
        ours: false,
        audience: issuer.audience.iter().map(|audience| audience.as_str().into()).collect(),
        typ: issuer.typ.iter().map(|typ| typ.as_str().into()).collect(),
        keys,
        leeway: issuer.leeway,
        max_lifetime: Some(issuer.max_lifetime),
    })
}

/// The upstreams, with the defaults that other sections set.
pub(super) fn upstreams(config: &Config) -> Vec<Upstream> {
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

fn rates(limits: &LimitsConfig) -> Rates {
    Rates {
        login_per_address: limits.login_per_address,
        login_per_account: limits.login_per_account,
        login_per_client: limits.login_per_client,
        refresh_per_address: limits.refresh_per_address,
        refresh_per_session: limits.refresh_per_session,
        forged_per_address: limits.forged_per_address,
        refused_per_address: limits.refused_per_address,
        forged_overall: limits.forged_overall,
    }
}

fn identity(config: &Config) -> Vec<(HeaderName, IdentityField)> {
    let identity = &config.identity;
    let fixed = [
        (&identity.subject, IdentityField::Subject),
        (&identity.account, IdentityField::Account),
        (&identity.client, IdentityField::Client),
        (&identity.scope, IdentityField::Scope),
        (&identity.session, IdentityField::Session),
        (&identity.issuer, IdentityField::Issuer),
    ];
    let claims =
        identity.claims.iter().map(|(name, claim)| (name.clone(), IdentityField::Claim(claim.as_str().into())));
    fixed.into_iter().filter_map(|(name, field)| Some((name.clone()?, field))).chain(claims).collect()
}
