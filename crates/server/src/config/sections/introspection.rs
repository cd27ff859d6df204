//! `introspection` of an entry of `[[issuers]]`: how the issuer is asked about tokens that are not JWTs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::super::print::{path, put, put_some, time};
use super::super::raw::{Section, Value as Raw};
use super::super::value;
use super::issuers::TrustedIssuer;
use super::{SECOND, path_in};
use rotogate_core::http_client::{Allowed, Target};
use rotogate_core::introspection::Introspection;
use rotogate_core::route::{Auth, Route};

/// `introspection` of an entry of `[[issuers]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntrospectionConfig {
    /// The introspection endpoint.
    pub url: String,
    /// The gate as a client of the issuer.
    pub client_id: String,
    /// The file with its secret.
    pub secret_file: PathBuf,
    /// Where the secret is sent.
    pub secret_in: SecretIn,
    /// How long a response counts.
    pub cache: Duration,
    /// How long a token that is not active is refused without another question.
    pub negative: Duration,
    /// How much longer a response counts while the issuer does not answer.
    pub stale_if_error: Duration,
    /// The time for one question.
    pub timeout: Duration,
    /// The only authorities that count for the endpoint's certificate; those of the system if unset.
    pub ca: Option<PathBuf>,
    /// The certificate, its chain and its private key for an endpoint that asks for one.
    pub client_cert: Option<PathBuf>,
    /// The beginning of the tokens that are introspected.
    pub prefix: String,
    /// Whether JWTs are introspected, too.
    pub always: bool,
    /// Whether a response without `aud` is accepted.
    pub audience_optional: bool,
}

/// Where a request has the gate's id and secret (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretIn {
    /// In `Authorization`.
    #[default]
    Basic,
    /// In the form.
    Form,
}

const SECRET_IN: [(&str, SecretIn); 2] = [("basic", SecretIn::Basic), ("form", SecretIn::Form)];

/// The defaults.
impl IntrospectionConfig {
    const TIMEOUT: Duration = Duration::from_secs(5);
    const MAX_TIMEOUT: Duration = Duration::from_secs(20);

    /// The files that it names, each with its key.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let ca = self.ca.as_deref().map(|ca| ("ca", ca));
        let client_cert = self.client_cert.as_deref().map(|cert| ("client_cert", cert));
        [("secret_file", self.secret_file.as_path())].into_iter().chain(ca).chain(client_cert)
    }
}

pub(super) fn read(issuer: &Section<'_>, dir: &Path) -> Option<IntrospectionConfig> {
    if !issuer.has("introspection") {
        return None;
    }
    let section = issuer.section("introspection");
    let url = section.require("url", "the introspection endpoint", endpoint);
    let client_id = section.require("client_id", "the gate's client id at the issuer", value::text);
    let secret_file = section.require("secret_file", "a file with the gate's secret at the issuer", path_in(dir));
    let within = |longest| value::duration_within(Duration::ZERO, longest);
    let config = IntrospectionConfig {
        url: url.unwrap_or_default(),
        client_id: client_id.unwrap_or_default(),
        secret_file: secret_file.unwrap_or_default(),
        secret_in: section.get("secret_in", value::word(&SECRET_IN, &[])).unwrap_or_default(),
        cache: section.get("cache", within(Introspection::MAX_CACHE)).unwrap_or(Introspection::CACHE),
        negative: section.get("negative", within(Introspection::MAX_NEGATIVE)).unwrap_or(Introspection::NEGATIVE),
        stale_if_error: section.get("stale_if_error", within(Introspection::MAX_CACHE)).unwrap_or_default(),
        timeout: section
            .get("timeout", value::duration_within(SECOND, IntrospectionConfig::MAX_TIMEOUT))
            .unwrap_or(IntrospectionConfig::TIMEOUT),
        ca: section.get("ca", path_in(dir)),
        client_cert: section.get("client_cert", path_in(dir)),
        prefix: section.get("prefix", prefix).unwrap_or_default(),
        always: section.get("always", value::boolean).unwrap_or(false),
        audience_optional: section.get("audience_optional", value::boolean).unwrap_or(false),
    };
    section.finish();
    Some(config)
}

fn endpoint(v: &Raw) -> Result<String, String> {
    let url = value::text(v)?;
    match Target::parse(&url, Allowed::by_operator()) {
        Ok(_) => Ok(url),
        Err(error) => Err(format!("{error}, found {}", v.describe())),
    }
}

fn prefix(v: &Raw) -> Result<String, String> {
    let prefix = value::text(v)?;
    match prefix.len() <= 64 && prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(prefix),
        false => {
            Err(format!("expected at most 64 visible ASCII characters, such as \"ory_at_\", found {}", v.describe()))
        }
    }
}

/// Blames a route on which it is not clear which issuer is asked about an opaque token: the token does not say.
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
                    "takes opaque tokens of \"{}\" and of \"{}\", both {what}: nothing in a token says which of them to \
                     ask; name one of them, or write introspection.prefix",
                    other.name, issuer.name
                );
                section.blame("issuers", message);
            }
            asked.push((issuer, prefix));
        }
    }
}

pub(super) fn print(config: &IntrospectionConfig) -> Value {
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
    let mut table = Table::new();
    put(&mut table, "url", url.as_str());
    put(&mut table, "client_id", client_id.as_str());
    put(&mut table, "secret_file", path(secret_file));
    put_some(&mut table, "secret_in", SECRET_IN.iter().find(|(_, place)| place == secret_in).map(|(word, _)| *word));
    put(&mut table, "cache", time(*cache));
    put(&mut table, "negative", time(*negative));
    put(&mut table, "stale_if_error", time(*stale_if_error));
    put(&mut table, "timeout", time(*timeout));
    put_some(&mut table, "ca", ca.as_deref().map(path));
    put_some(&mut table, "client_cert", client_cert.as_deref().map(path));
    put_some(&mut table, "prefix", Some(prefix.as_str()).filter(|prefix| !prefix.is_empty()));
    put(&mut table, "always", *always);
    put(&mut table, "audience_optional", *audience_optional);
    table.into()
}
