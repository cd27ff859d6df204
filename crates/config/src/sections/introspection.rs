//! `introspection` of an entry of `[[issuers]]`: how the gate introspects the issuer's tokens that are not JWTs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::declare::section;
use super::super::value;
use super::issuers::TrustedIssuer;
use super::provider_client::{ClientKeySettings, read_key};
use super::{SECOND, path_in};
use rotogate_core::http_client::SecretPlace;
use rotogate_core::introspection::Introspection;
use rotogate_core::route::{Auth, Route};
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// `introspection` of an entry of `[[issuers]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct IntrospectionConfig, read by read_all(section, dir: &Path) {
        /// URL of the introspection endpoint, or of a Kuzzle server's `/_checkToken` (docs/kuzzle.md): `https`, or `http`
        /// on loopback. The gate does not follow redirects.
        reload url: String = required("the URL of the introspection endpoint", value::asked_url),
        /// The kind of server, as `url` shows.
        no_key kind: IntrospectionKind = by { IntrospectionKind::from_url(&url) },
        /// Required, except for Kuzzle: The gate's client id at the issuer.
        reload client_id as some: String = by { read_client_id(section, kind) },
        /// The private key with which the gate authenticates to the issuer, instead of a secret.
        reload key as "..": Option<ClientKeySettings> = by {
            if kind == IntrospectionKind::Kuzzle { None } else { read_key(section, dir, &["secret_file", "secret_in"]) }
        },
        /// Required, unless there is a `key_file`: File (0600) with the client's secret. The gate reads it again when
        /// it changes. For Kuzzle: not required; the server's own secret, with which the gate verifies tokens itself.
        reload secret_file: Option<PathBuf> = by { read_secret_file(section, dir, kind) },
        /// How the gate sends its client id and secret: `"basic"`, or `"form"` for a server that accepts them only in
        /// the form (`client_secret_post`). The gate cannot detect this, because it does not read the server's metadata
        /// for introspection.
        reload secret_in: SecretPlace = get_or(value::word_of, SecretPlace::Basic),
        /// How long the gate caches a response; at most 5m (for Kuzzle: 10s), and not beyond the token's `exp`.
        /// `"0s"`: the gate introspects the token for each request. Shorten it if a revocation at the issuer must take
        /// effect sooner.
        reload cache: Duration = get_or(within(kind.max_cache()), Introspection::CACHE.min(kind.max_cache())),
        /// How long the gate caches a response that says that a token is inactive.
        fixed negative: Duration = get_or(within(Introspection::MAX_NEGATIVE), Introspection::NEGATIVE),
        /// How much longer than `cache` the gate uses a cached response while the issuer does not respond.
        fixed stale_if_error: Duration = get_or(within(Introspection::MAX_CACHE), Duration::ZERO),
        /// Time limit for one introspection request, including connecting.
        fixed timeout: Duration = get_or(value::duration_within(SECOND, 20 * SECOND), 5 * SECOND),
        /// Prefix of the issuer's opaque tokens (`"ory_at_"`). The gate introspects only tokens with this prefix. Set
        /// it if a route accepts opaque tokens of several issuers.
        reload prefix as some: String = get_or(self::prefix, String::new()),
        /// true: the gate also introspects the issuer's JWTs; with `jwks_file` it verifies the signature first. Set it
        /// if a revocation at the issuer must end its JWTs before they expire.
        reload always: bool = get_or(value::boolean, false),
        /// true: the gate accepts a response without `aud`. If a response has an `aud`, it must still match. Set it for
        /// a server that leaves `aud` out of its responses.
        reload audience_optional: bool = get_or(value::boolean, false),
    }
}

/// The kind of a server that the gate asks about tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntrospectionKind {
    /// RFC 7662.
    OAuth,
    /// Kuzzle's action `auth:checkToken`.
    Kuzzle,
}

impl IntrospectionKind {
    fn from_url(url: &str) -> Self {
        let is_kuzzle = url.parse::<http::Uri>().is_ok_and(|url| url.path().ends_with("/_checkToken"));
        if is_kuzzle { Self::Kuzzle } else { Self::OAuth }
    }

    const fn max_cache(self) -> Duration {
        match self {
            Self::OAuth => Introspection::MAX_CACHE,
            Self::Kuzzle => Duration::from_secs(10),
        }
    }
}

pub(super) fn read_keys(section: &Section<'_>, dir: &Path) -> IntrospectionConfig {
    let config = read_all(section, dir);
    let IntrospectionConfig { kind, prefix, always, audience_optional, secret_in, .. } = &config;
    let set = [
        ("prefix", !prefix.is_empty()),
        ("always", *always),
        ("audience_optional", *audience_optional),
        ("secret_in", *secret_in != SecretPlace::Basic),
    ];
    for (key, _) in set.into_iter().filter(|(_, is_set)| *is_set && *kind == IntrospectionKind::Kuzzle) {
        section.blame(key, "does not apply to a Kuzzle server; remove it");
    }
    config
}

fn read_client_id(section: &Section<'_>, kind: IntrospectionKind) -> String {
    match kind {
        IntrospectionKind::OAuth => section.required("client_id", "the gate's client id at the issuer", value::text),
        IntrospectionKind::Kuzzle => String::new(),
    }
}

/// Reads `secret_file`, which is required unless there is a key.
fn read_secret_file(section: &Section<'_>, dir: &Path, kind: IntrospectionKind) -> Option<PathBuf> {
    if kind == IntrospectionKind::Kuzzle || section.has("key_file") {
        return section.get("secret_file", path_in(dir));
    }
    let file =
        section.required("secret_file", "a file with the gate's secret at the issuer, or `key_file`", path_in(dir));
    Some(file)
}

fn within(longest: Duration) -> impl Fn(&Raw) -> Result<Duration, String> {
    value::duration_within(Duration::ZERO, longest)
}

impl IntrospectionConfig {
    /// The prefix of the tokens that the gate introspects. It may be empty.
    pub fn prefix(&self) -> &str {
        match self.kind {
            IntrospectionKind::OAuth => &self.prefix,
            IntrospectionKind::Kuzzle => rotogate::program::KUZZLE_PREFIX,
        }
    }
}

impl TrustedIssuer {
    /// The files that introspection at this issuer needs, each with its configuration key.
    pub fn introspection_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.introspection.iter().flat_map(|own| {
            let key = own.key.as_ref().map(|key| ("introspection.key_file", key.file.as_path()));
            let secret = own.secret_file.as_deref().map(|secret| ("introspection.secret_file", secret));
            let ca = self.files.ca.as_deref().map(|ca| ("fetch.ca", ca));
            let client_cert = self.files.client_cert.as_deref().map(|cert| ("fetch.client_cert", cert));
            [secret, key, ca, client_cert].into_iter().flatten()
        })
    }
}

fn prefix(v: &Raw) -> Result<String, String> {
    let fits = |prefix: &str| prefix.len() <= 64 && prefix.bytes().all(|byte| byte.is_ascii_graphic());
    value::fitting(v, "at most 64 visible ASCII characters, such as \"ory_at_\"", fits)
}

/// Reports a route for which an opaque token could belong to several issuers. Such a token does not name its issuer, so
/// the gate would not know where to introspect it.
pub(super) fn check(sections: &[Section<'_>], routes: &[Route], issuers: &[TrustedIssuer]) {
    for (section, route) in sections.iter().zip(routes) {
        let policy = &route.policy;
        if policy.auth == Auth::None || section.is_bad() {
            continue;
        }
        let mut asked: Vec<(&TrustedIssuer, &str)> = Vec::new();
        for issuer in issuers.iter().filter(|issuer| policy.takes(&issuer.name, issuer.everywhere)) {
            let Some(introspection) = &issuer.introspection else { continue };
            let prefix = introspection.prefix();
            if let Some((other, _)) = asked.iter().find(|(_, known)| *known == prefix) {
                let what = if prefix.is_empty() {
                    "without a prefix".to_owned()
                } else {
                    format!("with the prefix \"{prefix}\"")
                };
                let message = format!(
                    "accepts opaque tokens of \"{}\" and of \"{}\", both {what}, but an opaque token does not name \
                     its issuer. Name only one of the two issuers, or set `introspection.prefix`",
                    other.name, issuer.name
                );
                section.blame("issuers", message);
            }
            asked.push((issuer, prefix));
        }
    }
}
