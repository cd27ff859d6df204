//! Finds faults in the configured files that would prevent a start.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::admin_tokens::AdminToken;
use super::issuers::RemoteIssuers;
use super::prepare::DirectoryPlan;
use super::stores::{Stores, refuse_new_keys};
use super::{assemble, issuer_rules};
use crate::server::listen::tls;
#[cfg(feature = "otel")]
use crate::trace::Credentials;
use rotogate::gate::{BuildError, GateBuilder};
use rotogate::store::redb::check_mark;
use rotogate_config::LogOutput;
#[cfg(any(feature = "postgres", feature = "redis"))]
use rotogate_config::SharedSettings;
use rotogate_config::{
    Config, ConfigError, ConfigErrors, DirectoryConfig, HashesConfig, RedbSettings, RemoteSource, StoreConfig,
    TlsConfig, TrustedIssuer, UsersConfig,
};
use rotogate_core::fault::Chain;
use rotogate_core::http_client::HttpClient;
use rotogate_core::password::Passwords;
use rotogate_core::private_file::{self, trusted};
use rotogate_core::route::hosts::is_loopback;
use rotogate_core::store::MemoryStore;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::IssuerRules;
use rotogate_directories::users::FileDirectory;
use rotogate_directories::{DirectoryMetrics, RemoteDirectory, Source, SourceSettings};

pub(super) struct Findings<'a> {
    config: &'a Config,
    pub(super) wrong: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigError>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, wrong: Vec::new(), warnings: config.warnings.clone() }
    }

    fn blame(&mut self, key: &str, message: impl Into<String>) {
        let faults = message.into();
        self.wrong.extend(faults.lines().map(|fault| self.config.blame(key, fault)));
    }

    fn warn(&mut self, key: &str, message: impl Into<String>) {
        self.warnings.push(self.config.blame(key, message));
    }

    /// Reports a file that only the gate's user may be able to read.
    fn unchecked(&mut self, key: &str, message: String) {
        self.wrong.push(ConfigError { unchecked: true, ..self.config.blame(key, message) });
    }

    /// Reports the first file that this process may not read, and returns whether there is one.
    fn is_denied<'p, K: AsRef<str>>(&mut self, files: impl IntoIterator<Item = (K, &'p Path)>) -> bool {
        let denied = files.into_iter().find_map(|(key, path)| Some((key, private_file::denied_as_another(path)?)));
        denied.is_some_and(|(key, why)| {
            self.unchecked(key.as_ref(), why);
            true
        })
    }

    /// Reads a private file. Returns `None` if the file is missing or unusable.
    fn private<T>(&mut self, key: &str, path: &Path, read: impl FnOnce() -> Result<T, String>) -> Option<T> {
        if self.is_denied([(key, path)]) {
            return None;
        }
        // A dangling link does not count as a missing file.
        if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            self.creatable(key, path);
            return None;
        }
        match trusted::check_folders(path).and_then(|()| read()) {
            Ok(read) => Some(read),
            Err(message) => {
                self.blame(key, message);
                None
            }
        }
    }

    /// Checks a private file, or the folder in which it would be created.
    fn creatable(&mut self, key: &str, path: &Path) {
        self.writable(key, path);
        if let Err(why) = trusted::check_folders(path) {
            self.blame(key, why);
        }
    }

    fn writable(&mut self, key: &str, path: &Path) {
        match private_file::unwritable(path) {
            None => {}
            Some((why, true)) => self.unchecked(key, why),
            Some((why, false)) => self.blame(key, why),
        }
    }

    pub(super) fn suspicious(&mut self) {
        let config = self.config;
        let tls = config.server.listeners.iter().find_map(|listener| listener.tls.as_ref());
        if let Some(TlsConfig { key, .. }) = tls
            && config.server.public_url.scheme_str() == Some("http")
        {
            let message = format!(
                "is an http URL, but a listener uses https because of {key}, so the gate would send clients to the \
                 wrong URL"
            );
            self.warn("server.public_url", message);
        } else if config.server.public_url.scheme_str() == Some("http")
            && let Some(host) = config.server.public_url.host()
            && !is_local(host)
        {
            let message = format!(
                "is http: clients send their tokens to {host} in clear text. Write the https URL of the proxy in \
                 front of the gate. Without a proxy, give the listener a certificate (`server.tls`), and write the \
                 listener's https URL"
            );
            self.warn("server.public_url", message);
        }
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let most = config.server.max_connections;
        if let Some(files) = files.filter(|files| *files < most as u64) {
            let message = format!(
                "is {most}, but the system allows this process only {files} open files, so further connections would \
                 wait. Raise the hard limit (`LimitNOFILE` of systemd, `--ulimit nofile` of Docker), or lower this \
                 value"
            );
            self.warn("server.max_connections", message);
        }
        for (index, client) in config.clients.iter().enumerate() {
            let key = format!("clients[{index}].secret_hash");
            if client.secret_hash.is_some()
                && config.source.is_in_file(&key)
                && let Some(mode) = trusted::is_for_everyone(config.source.file())
            {
                let file = config.source.file().display();
                self.warn(
                    &key,
                    format!(
                        "every user of this machine can read the hash (mode {mode:03o}): run `chmod o-r {file}`, or \
                         use `secret_hash_file`"
                    ),
                );
            }
        }
    }

    pub(super) fn keys(&mut self) -> Option<Keyring> {
        const KEY: &str = "issuer.keys";
        let folder = &self.config.issuer.keys;
        let inside = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        if let Some(why) =
            std::iter::once(folder.clone()).chain(inside).find_map(|at| private_file::denied_as_another(&at))
        {
            self.unchecked(KEY, why);
            return None;
        }
        if let Some(mode) = private_file::is_open(folder) {
            let shown = folder.display();
            self.warn(
                KEY,
                format!("{shown}: other users can access this folder (mode {mode:03o}): run `chmod 700 {shown}`"),
            );
        }
        match Keyring::load_if_there(folder) {
            Ok(Some(keyring)) => return Some(keyring),
            Ok(None) => match refuse_new_keys(self.config) {
                Ok(()) => self.creatable(KEY, folder),
                // Another check already reports a lost store.
                Err(fault) if fault.key != KEY => {}
                Err(fault) => self.blame(KEY, fault.message),
            },
            Err(error) => self.blame(KEY, format!("{:?}", Chain(&error))),
        }
        None
    }

    #[cfg(any(feature = "postgres", feature = "redis"))]
    fn secret(&mut self, key: &'static str, file: Option<&Path>) {
        if let Some(file) = file {
            self.readable(key, file, private_file::read_private(file).map(drop));
        }
    }

    #[cfg(any(feature = "postgres", feature = "redis"))]
    fn public(&mut self, key: &'static str, file: Option<&Path>) {
        if let Some(file) = file {
            let read = std::fs::read(file).map(drop);
            self.readable(key, file, read.map_err(|error| format!("{}: {error}", file.display())));
        }
    }

    #[cfg(any(feature = "postgres", feature = "redis"))]
    fn pair(&mut self, key: &'static str, pair: Option<&(PathBuf, PathBuf)>) {
        let (certificate, secret) = pair.map(|(certificate, key)| (certificate.as_path(), key.as_path())).unzip();
        self.secret(key, secret);
        self.public(key, certificate);
    }

    #[cfg(any(feature = "postgres", feature = "redis"))]
    fn readable(&mut self, key: &'static str, file: &Path, read: Result<(), String>) {
        let Err(message) = read else { return };
        match private_file::denied_as_another(file) {
            Some(why) => self.unchecked(key, why),
            None => self.blame(key, message),
        }
    }

    pub(super) fn store(&mut self) {
        const KEY: &str = "store.path";
        let config = self.config;
        #[cfg(any(feature = "postgres", feature = "redis"))]
        if let Some(SharedSettings { password_file, ca, client_cert, mark, .. }) = config.store.shared() {
            self.secret("store.password_file", password_file.as_deref());
            self.pair("store.client_cert", client_cert.as_ref());
            self.public("store.ca", ca.as_deref());
            // Each start replaces the mark file, so its folder must be writable.
            self.writable("store.mark", private_file::parent(mark));
        }
        #[cfg(feature = "redis")]
        if let StoreConfig::Redis(settings) = &config.store {
            let sentinel = settings.sentinel.as_ref().and_then(|sentinel| sentinel.password_file.as_deref());
            self.secret("store.sentinel_password_file", sentinel);
        }
        let StoreConfig::Redb(RedbSettings { path, mark, .. }) = &config.store else { return };
        let is_there = self.private(KEY, path, || private_file::open_private(path, true)).is_some();
        if self.is_denied([("store.mark", mark.as_path())]) {
            return;
        }
        if let Err(error) = check_mark(mark, path, is_there || path.exists()) {
            self.blame(KEY, error.to_string());
        } else if mark.parent().is_some_and(Path::is_dir) {
            // Each start replaces the mark file, so its folder must be writable.
            self.writable("store.mark", private_file::parent(mark));
        }
    }

    #[cfg(feature = "otel")]
    pub(super) fn tracing(&mut self) {
        let Some(settings) = &self.config.tracing else { return };
        if !self.is_denied(Credentials::files(settings))
            && let Err((key, message)) = Credentials::read(settings)
        {
            self.blame(key, message);
        }
    }

    /// The gate creates missing files, but not missing folders.
    pub(super) fn logs(&mut self) {
        let Config { log, access_log, audit_log, .. } = self.config;
        let access = access_log.enabled.then_some(&access_log.output);
        let audit = audit_log.output.as_ref();
        for (key, output) in
            [("log.output", Some(&log.output)), ("access_log.output", access), ("audit_log.output", audit)]
        {
            if let Some(why) = output.and_then(LogOutput::missing_folder) {
                self.blame(key, why);
            } else if let Some(LogOutput::File(path)) = output {
                self.writable(key, path);
            }
        }
    }

    pub(super) fn admin_token(&mut self) {
        let config = self.config;
        let mut seen: Vec<(String, AdminToken)> = Vec::new();
        for (key, token) in config.admin.all_tokens() {
            let read = self.private(&key, &token.file, || AdminToken::load(&token.file));
            let Some(read) = read else { continue };
            if let Some((other, _)) = seen.iter().find(|(_, known)| known.is(read.expose())) {
                self.blame(&key, format!("the token is the same as in {other}; expected a different token"));
            }
            seen.push((key, read));
        }
    }

    pub(super) fn certificates(&mut self) {
        let mut seen: Vec<&TlsConfig> = Vec::new();
        for tls in self.config.listeners().filter_map(|listener| listener.tls.as_ref()) {
            if seen.contains(&tls) {
                continue;
            }
            seen.push(tls);
            if let Some(why) = tls::files_of(tls).find_map(private_file::denied) {
                self.unchecked(&tls.key, why);
                continue;
            }
            match tls::load(tls) {
                Ok((_, warnings)) => warnings.into_iter().for_each(|warning| self.warn(&warning.key, warning.message)),
                Err(wrong) => self.blame(&wrong.key, wrong.message),
            }
        }
    }

    pub(super) fn trusted(&mut self) -> Vec<IssuerRules> {
        let mut all = Vec::new();
        // Clients share the system's CA certificates while at least one client exists.
        let _reads_authorities_once = self.config.issuers.iter().any(is_asked).then(HttpClient::new);
        for (index, issuer) in self.config.issuers.iter().enumerate() {
            if let Some(source) = issuer.keys.remote() {
                self.fetch_files(index, source);
            }
            if !self.introspection(index, issuer) {
                continue;
            }
            let (key, path) = match issuer.keys.file() {
                Some((key, path)) => (format!("issuers[{index}].{key}"), path.to_owned()),
                None => (format!("issuers[{index}]"), PathBuf::new()),
            };
            if issuer.keys.file().is_some()
                && let Some(why) = private_file::denied(&path)
            {
                self.unchecked(&key, why);
                continue;
            }
            match issuer_rules::load_issuer(issuer) {
                Ok(rules) => {
                    for ignored in rules.keys.ignored() {
                        self.warn(&key, format!("{}: not used: {ignored}", path.display()));
                    }
                    all.push(rules);
                }
                Err(message) => self.blame(&key, message),
            }
        }
        all
    }

    /// Returns whether all files can be used.
    fn introspection(&mut self, index: usize, issuer: &TrustedIssuer) -> bool {
        let Some(config) = &issuer.introspection else { return true };
        let named = |key: &str| format!("issuers[{index}].{key}");
        if self.is_denied(issuer.introspection_files().map(|(key, path)| (named(key), path))) {
            return false;
        }
        match issuer_rules::load_introspection(config, &issuer.files) {
            Ok(_) => true,
            Err(fault) => {
                self.blame(&named(&fault.key), fault.message);
                false
            }
        }
    }

    fn fetch_files(&mut self, index: usize, source: &RemoteSource) {
        let key = format!("issuers[{index}].fetch");
        let files = &source.issuer.files;
        let all = [&files.ca, &files.client_cert, &files.bearer].into_iter().flatten();
        if !self.is_denied(all.map(|path| (&key, path.as_path())))
            && let Err(error) = source.issuer.check_files()
        {
            self.blame(&key, error.message);
        }
    }

    pub(super) fn builder(&self, remote_issuers: &RemoteIssuers) -> Result<GateBuilder, ConfigErrors> {
        let all = self.config.endpoints.iter().enumerate();
        let denied = all.flat_map(|(index, endpoint)| {
            let denied = |(key, path): (_, &Path)| {
                let why = private_file::denied_as_another(path)?;
                Some(ConfigError { unchecked: true, ..self.config.blame(&format!("endpoints[{index}].{key}"), why) })
            };
            assemble::files_of(endpoint).filter_map(denied).collect::<Vec<_>>()
        });
        match ConfigErrors::new(denied.collect()) {
            Some(unchecked) => Err(unchecked),
            None => assemble::builder(self.config, remote_issuers),
        }
    }

    pub(super) fn directories(&mut self, passwords: &Arc<Passwords>, metrics: &DirectoryMetrics) -> Vec<DirectoryPlan> {
        let all = &self.config.directories;
        all.iter().map(|section| self.directory(section, passwords, metrics)).collect()
    }

    /// If there is a problem, the returned plan is a placeholder.
    fn directory(
        &mut self,
        section: &DirectoryConfig,
        passwords: &Arc<Passwords>,
        metrics: &DirectoryMetrics,
    ) -> DirectoryPlan {
        let planned = match &section.users {
            UsersConfig::File { path, hashes } => self.file(&section.key, path, hashes, passwords),
            UsersConfig::Remote { source, bounds } => self.source(&section.key, source, bounds.timeout).map(|source| {
                let (passwords, metrics) = (Arc::clone(passwords), metrics.clone());
                DirectoryPlan::Remote(RemoteDirectory::new(&section.name, source, bounds.clone(), passwords, metrics))
            }),
        };
        planned.unwrap_or(DirectoryPlan::NewFile)
    }

    fn file(
        &mut self,
        table: &str,
        path: &Path,
        hashes: &HashesConfig,
        passwords: &Arc<Passwords>,
    ) -> Option<DirectoryPlan> {
        if let Some(path) = &hashes.hash_parameters {
            let key = format!("{table}.hash_parameters");
            if self.is_denied([(&key, path.as_path())]) {
                return None;
            }
            if let Err(message) = trusted::check_folders(path).and_then(|()| private_file::open_private(path, false)) {
                self.blame(&key, message);
                return None;
            }
        }
        let config = self.config;
        let open = || {
            let file = config.users_file()?;
            FileDirectory::open(file, Arc::clone(passwords)).map_err(|error| error.to_string())
        };
        let key = format!("{table}.path");
        let directory = self.private(&key, path, open)?;
        let unknown = config.unknown_scopes(&directory.scopes()).map(|what| format!("users in it: {what}"));
        directory.warnings().into_iter().chain(unknown).for_each(|warning| self.warn(&key, warning));
        Some(DirectoryPlan::File(Arc::new(directory)))
    }

    fn source(&mut self, table: &str, settings: &SourceSettings, timeout: Duration) -> Option<Arc<dyn Source>> {
        if self.is_denied(settings.files().into_iter().map(|(key, path)| (format!("{table}.{key}"), path))) {
            return None;
        }
        settings.open(timeout).map_err(|(key, message)| self.blame(&format!("{table}.{key}"), message)).ok()
    }

    /// Builds a trial gate with a memory store.
    pub(super) async fn gate(&mut self, builder: GateBuilder) {
        let issuer = &self.config.issuer;
        let store = MemoryStore::for_a_trial(issuer.url.as_str(), issuer.leeway);
        match Stores::from(store).given_to(builder).build().await {
            Ok(_) => {}
            Err(error @ BuildError::Endpoint { .. }) => self.blame("endpoints", error.to_string()),
            Err(error) => self.blame("", format!("{:?}", Chain(&error))),
        }
    }
}

/// Returns whether the gate sends requests to the issuer.
fn is_asked(issuer: &TrustedIssuer) -> bool {
    issuer.keys.remote().is_some() || issuer.introspection.is_some()
}

/// Domains that are not in the public DNS (RFC 6761, RFC 6762, ICANN's `internal`).
const PRIVATE_DOMAINS: [&str; 3] = [".internal", ".local", ".test"];

/// Returns whether the host is on this machine or in a private network.
fn is_local(host: &str) -> bool {
    let address =
        host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|address| address.to_canonical());
    match address {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => {
            let is_private = !host.contains('.') || PRIVATE_DOMAINS.iter().any(|domain| host.ends_with(domain));
            is_private || is_loopback(host)
        }
    }
}
