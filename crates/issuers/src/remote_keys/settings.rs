//! Settings for fetching an issuer's keys.

use std::path::PathBuf;
use std::time::Duration;

use super::answer::FetchFailure;
use super::client::FetchClient;
use rotogate_core::http_client::{Allowed, FetchTarget, Proxy};
use rotogate_core::invalid::InvalidValue;
use rotogate_core::token::algorithm::Algorithm;

/// The schedule of fetches, and limits for responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// How long a response without `max-age` is fresh. Keys are always fetched again within half of `stale_for`.
    pub fresh: Duration,
    /// The minimum freshness, and the maximum pause between failed attempts.
    pub min: Duration,
    /// The maximum freshness.
    pub max: Duration,
    /// The minimum time between fetches for unknown keys.
    pub cooldown: Duration,
    /// The time limit for a fetch, from name resolution to the complete response. Requests wait at most this long for
    /// keys.
    pub timeout: Duration,
    /// How long the last keys are used while fetching fails.
    pub stale_for: Duration,
    /// The maximum length of a response, in bytes.
    pub max_size: usize,
}

impl FetchSettings {
    /// The highest allowed value of `stale_for`.
    pub const MAX_STALE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
    /// The highest allowed value of `max_size`, in bytes.
    pub const MAX_SIZE: usize = 1 << 20;

    /// Returns the first invalid setting and the reason, or `None` if all settings are valid.
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

/// Where an issuer's keys are found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyLocation {
    /// The keys are at `jwks_uri` in the discovery document. The URL of the document is derived from the issuer's URL.
    Discovery,
    /// `jwks_uri` in the discovery document at this URL.
    DiscoveryAt(String),
    /// At this URL.
    JwksUrl(String),
}

/// The files of the HTTP client, read again for each fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchFiles {
    /// A PEM file with the only trusted authorities. `None` means the system's.
    pub ca: Option<PathBuf>,
    /// A PEM file with the client certificate, its chain and its private key.
    pub client_cert: Option<PathBuf>,
    /// A file with a bearer token.
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
/// // An issuer in a Kubernetes pod.
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
    /// A short name for logs, metrics and stored files.
    pub name: String,
    /// The issuer's `iss`.
    pub issuer: String,
    /// The location of the issuer's keys.
    #[doc(hidden)]
    pub location: KeyLocation,
    /// The allowed key algorithms, or empty to allow all. The first RSA algorithm in this list applies to RSA keys
    /// without `alg`.
    pub algorithms: Vec<Algorithm>,
    /// The fetch settings.
    #[doc(hidden)]
    pub fetch: FetchSettings,
    /// The files for the connection.
    #[doc(hidden)]
    pub files: FetchFiles,
    /// The proxy for requests to the issuer.
    #[doc(hidden)]
    pub proxy: Option<Proxy>,
    pub(super) kept_in: Option<PathBuf>,
}

impl RemoteIssuer {
    /// Creates an issuer with discovery and default settings.
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

    /// Accepts only keys for these algorithms.
    #[must_use]
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        Self { algorithms: algorithms.into_iter().collect(), ..self }
    }

    /// Stores the last valid keys in this folder. After a restart, stored keys are used until the issuer responds.
    #[must_use]
    pub fn kept_in(self, folder: impl Into<PathBuf>) -> Self {
        Self { kept_in: Some(folder.into()), ..self }
    }

    /// Sets how long a response without `max-age` is fresh. The default is 10 minutes. Keys are always fetched again
    /// within half of [`Self::stale_for`].
    #[must_use]
    pub const fn fresh_for(mut self, time: Duration) -> Self {
        self.fetch.fresh = time;
        self
    }

    /// Sets the minimum and the maximum freshness. The defaults are 1 minute and 24 hours. The minimum is also the
    /// longest pause between failed attempts.
    #[must_use]
    pub const fn fresh_between(mut self, min: Duration, max: Duration) -> Self {
        (self.fetch.min, self.fetch.max) = (min, max);
        self
    }

    /// Sets the minimum time between fetches for unknown keys. The default is 30 seconds.
    #[must_use]
    pub const fn cooldown(mut self, time: Duration) -> Self {
        self.fetch.cooldown = time;
        self
    }

    /// Sets the time limit for a fetch, from name resolution to the complete response. Requests wait at most this long
    /// for keys. The default is 5 seconds.
    #[must_use]
    pub const fn timeout(mut self, time: Duration) -> Self {
        self.fetch.timeout = time;
        self
    }

    /// Sets how long the last keys are used while fetching fails. The default is 24 hours, and the maximum is 7 days.
    #[must_use]
    pub const fn stale_for(mut self, time: Duration) -> Self {
        self.fetch.stale_for = time;
        self
    }

    /// Sets the maximum length of a response, in bytes. The default is 256 KiB, and the maximum is 1 MiB.
    #[must_use]
    pub const fn max_size(mut self, bytes: usize) -> Self {
        self.fetch.max_size = bytes;
        self
    }

    /// Replaces all fetch settings.
    #[doc(hidden)]
    #[must_use]
    pub fn fetch(self, fetch: FetchSettings) -> Self {
        Self { fetch, ..self }
    }

    /// Trusts only the authorities in this PEM file. The file is read again for each fetch.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.ca = Some(file.into());
        self
    }

    /// Uses the client certificate in this PEM file, which also contains the chain and the private key. The file is
    /// read again for each fetch.
    #[must_use]
    pub fn client_certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.client_cert = Some(file.into());
        self
    }

    /// Sends the bearer token in this file. The file is read again for each fetch.
    #[must_use]
    pub fn bearer(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.bearer = Some(file.into());
        self
    }

    /// Sends requests through this HTTP proxy.
    ///
    /// # Errors
    /// The URL is not a proxy URL.
    pub fn proxy(self, url: &str) -> Result<Self, InvalidValue> {
        let proxy = Proxy::parse(url).map_err(|why| InvalidValue::of_key("proxy", why.to_string()))?;
        Ok(Self { proxy: Some(proxy), ..self })
    }

    /// Checks that the files are usable.
    ///
    /// # Errors
    /// Why the files are unusable.
    #[doc(hidden)]
    pub fn check_files(&self) -> Result<(), FetchFailure> {
        FetchClient::new(self).current().map(drop)
    }

    pub(super) fn source(&self) -> String {
        match &self.location {
            KeyLocation::Discovery => "discovery".to_owned(),
            KeyLocation::DiscoveryAt(url) => format!("discovery {url}"),
            KeyLocation::JwksUrl(url) => format!("jwks_url {url}"),
        }
    }
}

impl RemoteIssuer {
    /// Checks the settings without sending a request.
    ///
    /// # Errors
    /// The settings are contradictory, or a URL is not allowed.
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
