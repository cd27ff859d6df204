//! The settings of an issuer: the location of its keys, and how they are fetched.

use std::path::PathBuf;
use std::time::Duration;

use super::answer::FetchFailure;
use super::client::FetchClient;
use rotogate_core::http_client::{Allowed, FetchTarget, Proxy};
use rotogate_core::invalid::InvalidValue;
use rotogate_core::token::algorithm::Algorithm;

/// How often keys are fetched, and the bounds of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// How long an answer without `max-age` is fresh. Any answer is fetched again within half of `stale_for`.
    pub fresh: Duration,
    /// The shortest freshness of an answer, and the longest time between attempts while all fail.
    pub min: Duration,
    /// The longest freshness of an answer.
    pub max: Duration,
    /// The shortest time between two fetches for unknown keys.
    pub cooldown: Duration,
    /// The time for resolving, connecting, TLS and answer together; also the longest that a request waits for keys.
    pub timeout: Duration,
    /// How long the last good set is used while no other can be fetched.
    pub stale_for: Duration,
    /// The longest answer, in bytes.
    pub max_size: usize,
}

impl FetchSettings {
    /// The longest `stale_for`.
    pub const MAX_STALE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
    /// The largest `max_size`, in bytes.
    pub const MAX_SIZE: usize = 1 << 20;

    /// The problem of the settings: the key, and the reason.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        const SECOND: Duration = Duration::from_secs(1);
        let times = [
            ("fresh", self.fresh),
            ("min", self.min),
            ("max", self.max),
            ("cooldown", self.cooldown),
            ("timeout", self.timeout),
            ("stale_for", self.stale_for),
        ];
        if let Some((key, _)) = times.into_iter().find(|(_, time)| *time < SECOND) {
            return Some((key, "must be at least 1s"));
        }
        if self.min > self.max {
            return Some(("min", "must not be longer than max"));
        }
        if self.stale_for > Self::MAX_STALE_FOR {
            return Some(("stale_for", "must be at most 7d"));
        }
        if self.stale_for < self.max {
            return Some(("stale_for", "must not be shorter than max"));
        }
        if self.min > self.stale_for / 2 {
            return Some(("min", "must not be longer than half of stale_for"));
        }
        if self.fresh < self.min {
            return Some(("fresh", "must not be shorter than min"));
        }
        if self.fresh > self.max {
            return Some(("fresh", "must not be longer than max"));
        }
        if self.timeout > self.stale_for {
            return Some(("timeout", "must not be longer than stale_for"));
        }
        if !(1024..=Self::MAX_SIZE).contains(&self.max_size) {
            return Some(("max_size", "must be between 1KiB and 1MiB"));
        }
        None
    }
}

impl Default for FetchSettings {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            fresh: minutes(10),
            min: minutes(1),
            max: minutes(24 * 60),
            cooldown: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            stale_for: minutes(24 * 60),
            max_size: 256 << 10,
        }
    }
}

/// The location of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyLocation {
    /// At the `jwks_uri` of the discovery document. The URL of this document follows from the issuer's URL.
    Discovery,
    /// At the `jwks_uri` of the discovery document at this URL.
    DiscoveryAt(String),
    /// At this URL.
    JwksUrl(String),
}

/// The files of the client, read again at each fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchFiles {
    /// The only trusted authorities, in PEM. `None` for the system's authorities.
    pub ca: Option<PathBuf>,
    /// A certificate, its chain and its private key, in PEM.
    pub client_cert: Option<PathBuf>,
    /// A bearer token.
    pub bearer: Option<PathBuf>,
}

/// An issuer whose keys are fetched.
///
/// ```
/// use std::path::Path;
/// use std::time::Duration;
/// use rotogate::remote_keys::RemoteIssuer;
///
/// let google = RemoteIssuer::new("google", "https://accounts.google.com");
/// assert!(google.check().is_ok());
/// // In a pod of Kubernetes.
/// let folder = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
/// let cluster = RemoteIssuer::new("k8s", "https://kubernetes.default.svc.cluster.local");
/// let cluster = cluster.ca(folder.join("ca.crt")).bearer(folder.join("token"));
/// let patient = RemoteIssuer::new("kc", "https://id.example.com").stale_for(Duration::from_secs(48 * 3600));
/// assert!(patient.kept_in("data/issuers").check().is_ok());
/// # let _ = cluster;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteIssuer {
    /// A short name, for logs, metrics and the kept set.
    pub name: String,
    /// The exact `iss` of the issuer's tokens.
    pub issuer: String,
    /// The location of the issuer's keys.
    #[doc(hidden)]
    pub location: KeyLocation,
    /// The algorithms that the issuer's keys may have; empty: all. The first RSA algorithm applies to RSA keys without
    /// `alg`.
    pub algorithms: Vec<Algorithm>,
    /// How the keys are fetched.
    #[doc(hidden)]
    pub fetch: FetchSettings,
    /// The files that the issuer's server requires.
    #[doc(hidden)]
    pub files: FetchFiles,
    /// The proxy to the issuer's server.
    #[doc(hidden)]
    pub proxy: Option<Proxy>,
    /// The folder that keeps the last good set.
    pub(super) kept_in: Option<PathBuf>,
}

impl RemoteIssuer {
    /// An issuer with discovery and the default settings.
    pub fn new(name: impl Into<String>, issuer: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            issuer: issuer.into(),
            location: KeyLocation::Discovery,
            algorithms: Vec::new(),
            fetch: FetchSettings::default(),
            files: FetchFiles::default(),
            proxy: None,
            kept_in: None,
        }
    }

    /// Fetches the keys from this URL, without discovery.
    #[must_use]
    pub fn jwks_url(self, url: impl Into<String>) -> Self {
        Self { location: KeyLocation::JwksUrl(url.into()), ..self }
    }

    /// Fetches the discovery document from this URL.
    #[must_use]
    pub fn discovery_at(self, url: impl Into<String>) -> Self {
        Self { location: KeyLocation::DiscoveryAt(url.into()), ..self }
    }

    /// Accepts only keys of these algorithms.
    #[must_use]
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        Self { algorithms: algorithms.into_iter().collect(), ..self }
    }

    /// Keeps the last good keys in a private file in this folder, which is created with the first file. Kept keys are in
    /// force at the next start, until the issuer answers.
    #[must_use]
    pub fn kept_in(self, folder: impl Into<PathBuf>) -> Self {
        Self { kept_in: Some(folder.into()), ..self }
    }

    /// How long an answer without `max-age` is fresh; 10 minutes by default. Any answer is fetched again within half of
    /// [`Self::stale_for`].
    #[must_use]
    pub const fn fresh_for(mut self, time: Duration) -> Self {
        self.fetch.fresh = time;
        self
    }

    /// The shortest and the longest freshness of an answer; 1 minute and 24 hours by default. The shortest is also the
    /// longest time between attempts while all fail.
    #[must_use]
    pub const fn fresh_between(mut self, min: Duration, max: Duration) -> Self {
        (self.fetch.min, self.fetch.max) = (min, max);
        self
    }

    /// The shortest time between two fetches for unknown keys; 30 seconds by default.
    #[must_use]
    pub const fn cooldown(mut self, time: Duration) -> Self {
        self.fetch.cooldown = time;
        self
    }

    /// The time for resolving, connecting, TLS and answer together; also the longest that a request waits for keys. 5
    /// seconds by default.
    #[must_use]
    pub const fn timeout(mut self, time: Duration) -> Self {
        self.fetch.timeout = time;
        self
    }

    /// How long the last good keys are used while no others can be fetched; 24 hours by default, 7 days at most.
    #[must_use]
    pub const fn stale_for(mut self, time: Duration) -> Self {
        self.fetch.stale_for = time;
        self
    }

    /// The longest answer, in bytes; 256 KiB by default, 1 MiB at most.
    #[must_use]
    pub const fn max_size(mut self, bytes: usize) -> Self {
        self.fetch.max_size = bytes;
        self
    }

    /// Fetches with these settings.
    #[doc(hidden)]
    #[must_use]
    pub fn fetch(self, fetch: FetchSettings) -> Self {
        Self { fetch, ..self }
    }

    /// Trusts only the authorities in this file, in PEM, instead of the system's. Each fetch reads the file again.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.ca = Some(file.into());
        self
    }

    /// Shows the certificate in this file, with its chain and its private key, in PEM. Each fetch reads the file again.
    #[must_use]
    pub fn client_certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.client_cert = Some(file.into());
        self
    }

    /// Sends the bearer token in this file. Each fetch reads the file again.
    #[must_use]
    pub fn bearer(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.bearer = Some(file.into());
        self
    }

    /// Asks through the HTTP proxy at this URL.
    ///
    /// # Errors
    /// Not the URL of a proxy.
    pub fn proxy(self, url: &str) -> Result<Self, InvalidValue> {
        let proxy = Proxy::parse(url).map_err(|why| InvalidValue::of_key("proxy", why.to_string()))?;
        Ok(Self { proxy: Some(proxy), ..self })
    }

    /// Reads the file of authorities, and makes a client with the files.
    ///
    /// # Errors
    /// The reason why the files cannot be used.
    #[doc(hidden)]
    pub fn check_files(&self) -> Result<(), FetchFailure> {
        FetchClient::new(self).current().map(drop)
    }

    /// The source of the issuer's keys as a text. Another text means another source.
    pub(super) fn source(&self) -> String {
        match &self.location {
            KeyLocation::Discovery => "discovery".to_owned(),
            KeyLocation::DiscoveryAt(url) => format!("discovery {url}"),
            KeyLocation::JwksUrl(url) => format!("jwks_url {url}"),
        }
    }
}

impl RemoteIssuer {
    /// Checks the settings. Sends no request.
    ///
    /// # Errors
    /// The settings contradict each other, or a URL is not allowed.
    pub fn check(&self) -> Result<(), InvalidValue> {
        let refuse = |key, message: String| Err(InvalidValue::of_key(key, message));
        if let Some((key, why)) = self.fetch.problem() {
            return refuse(key, why.to_owned());
        }
        let (key, url) = match &self.location {
            KeyLocation::Discovery => ("url", &self.issuer),
            KeyLocation::DiscoveryAt(url) => ("discovery", url),
            KeyLocation::JwksUrl(url) => ("jwks_url", url),
        };
        match FetchTarget::parse(url, Allowed::by_operator()) {
            Ok(_) => Ok(()),
            Err(why) => refuse(key, why.to_string()),
        }
    }
}
