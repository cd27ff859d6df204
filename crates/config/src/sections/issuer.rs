//! `[issuer]`: the tokens that the gate mints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::super::declare::section;
use super::super::value;
use super::{ServerConfig, path_in};
use rotogate::Gate;
use rotogate_core::token::Algorithm;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// `[issuer]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct IssuerConfig, read by pub(super) read_keys(section, dir: &Path, server: &ServerConfig, has_no_users: bool) {
        /// `iss` of the gate's tokens. A change invalidates all existing tokens. Set it if verifiers expect another
        /// URL. Default: `public_url`.
        restart url: String = get_or(value::issuer_url, without_slash(&server.public_url)),
        /// Required: `aud` of the gate's tokens, one value or several. With `directory.kind = "none"` the default is
        /// `url`.
        restart audience: Vec<String> = by {
            if has_no_users && !section.has("audience") { vec![url.clone()] } else { self::audience(section) }
        },
        /// Algorithm of new signing keys. Use ES256 or RS256 if a verifier does not support EdDSA.
        restart algorithm: Algorithm = get_or(self::algorithm, Algorithm::EdDsa),
        /// URL of the authorization endpoint, at the server where users log in. The gate publishes it in its metadata,
        /// where some clients (MCP) need it.
        restart authorization_endpoint: Option<String> = get(value::endpoint_url),
        /// Private folder with the signing keys. The gate creates it at the first start. Do not store it together with
        /// backups of the store.
        restart keys: PathBuf = get_or(path_in(dir), dir.join("data/keys")),
        /// Tolerated difference between the clocks of the issuer and the gate.
        // Requirement J7.
        fixed leeway: Duration = get_or(value::duration_within(Duration::ZERO, Gate::DEFAULT_LEEWAY), Gate::DEFAULT_LEEWAY),
    }
}

pub(super) fn algorithm(v: &Raw) -> Result<Algorithm, String> {
    value::word(&Algorithm::ALL.map(|a| (a.name(), a)), &[])(v)
}

pub(super) fn audience(section: &Section<'_>) -> Vec<String> {
    if !section.has("audience") {
        section.require("audience", "the audiences (`aud`), such as [\"api\"]", value::text);
        return Vec::new();
    }
    let found = section.one_or_list("audience", value::text);
    if found.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame("audience", "is empty; expected at least one audience");
    }
    found.unwrap_or_default()
}

/// The public URL without a trailing slash, to be used as the issuer.
fn without_slash(url: &Uri) -> String {
    format!("{}://{}", url.scheme_str().unwrap_or("http"), url.authority().map_or("", |a| a.as_str()))
}
