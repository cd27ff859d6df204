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
    pub struct IntrospectionConfig, read by pub(super) read_keys(section, dir: &Path) {
        /// URL of the introspection endpoint: `https`, or `http` on loopback. The gate does not follow redirects.
        reload url: String = required("the URL of the introspection endpoint", value::asked_url),
        /// The gate's client id at the issuer.
        reload client_id: String = required("the gate's client id at the issuer", value::text),
        /// The private key with which the gate authenticates to the issuer, instead of a secret.
        reload key as "..": Option<ClientKeySettings> = by {
            read_key(section, dir, &["secret_file", "secret_in"])
        },
        /// Required, unless there is a `key_file`: File (0600) with the client's secret. The gate reads it again when
        /// it changes.
        reload secret_file: Option<PathBuf> = by { read_secret_file(section, dir) },
        /// How the gate sends its client id and secret: `"basic"`, or `"form"` for a server that accepts them only in
        /// the form (`client_secret_post`). The gate cannot detect this, because it does not read the server's metadata
        /// for introspection.
        reload secret_in: SecretPlace = get_or(value::word_of, SecretPlace::Basic),
        /// How long the gate caches a response; at most 5m, and not beyond the token's `exp`. `"0s"`: the gate
        /// introspects the token for each request. Shorten it if a revocation at the issuer must take effect sooner.
        reload cache: Duration = get_or(within(Introspection::MAX_CACHE), Introspection::CACHE),
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

/// Reads `secret_file`, which is required unless there is a key.
fn read_secret_file(section: &Section<'_>, dir: &Path) -> Option<PathBuf> {
    if section.has("key_file") {
        return section.get("secret_file", path_in(dir));
    }
    let file =
        section.required("secret_file", "a file with the gate's secret at the issuer, or `key_file`", path_in(dir));
    Some(file)
}

fn within(longest: Duration) -> impl Fn(&Raw) -> Result<Duration, String> {
    value::duration_within(Duration::ZERO, longest)
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
            let prefix = introspection.prefix.as_str();
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
