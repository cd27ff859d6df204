//! Rules for another issuer's tokens, with keys and secrets from files.

use std::path::Path;

use secrecy::SecretString;

use super::provider_client::{client_key, target};
use crate::server::error::{KeyFault, ServerError};
use rotogate::program::{HttpIntrospector, KuzzleIntrospector, KuzzleSecret};
use rotogate::remote_keys::FetchFiles;
use rotogate_config::{IntrospectionConfig, IntrospectionKind, KeySource, TrustedIssuer};
use rotogate_core::http_client::{ClientCredentials, HttpClient, Tls};
use rotogate_core::introspection::Introspection;
use rotogate_core::private_file::{self, trusted};
use rotogate_core::token::verify::{IssuerKeys, IssuerRules, RulesError};
use rotogate_core::token::{Algorithm, AssertionGrants};

/// The maximum size of a key file, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 4 << 20;

pub(crate) fn load_issuer_and_log(issuer: &TrustedIssuer) -> Result<IssuerRules, ServerError> {
    let rules = load_issuer(issuer).map_err(ServerError::Unusable)?;
    if let Some((_, file)) = issuer.keys.file() {
        for ignored in rules.keys.ignored() {
            tracing::warn!(issuer = issuer.url, file = %file.display(), "not used: {ignored}");
        }
    }
    Ok(rules)
}

/// `None` if no keys are configured.
pub(super) fn load_keys(source: &KeySource, whose: &str) -> Result<Option<IssuerKeys>, String> {
    let (path, algorithm) = match source {
        KeySource::File(path, algorithm) => (path, *algorithm),
        KeySource::Remote(_) => return Ok(Some(IssuerKeys::unknown())),
        KeySource::None => return Ok(None),
    };
    let text = trusted::read(path, MAX_KEY_FILE_BYTES)?;
    let in_file = |what: String| format!("{}: the keys of {whose}: {what}", path.display());
    let keys = if is_pem(&text) {
        of_pem(&text, algorithm).map_err(|error| in_file(error.to_string()))?
    } else {
        IssuerKeys::from_jwks(&text, algorithm)
            .map_err(|error| in_file(format!("{error}; save the JWK Set that {whose} publishes")))?
    };
    Ok(Some(keys))
}

/// If no algorithm is configured, the type of the key determines the algorithm.
fn of_pem(text: &[u8], algorithm: Option<Algorithm>) -> Result<IssuerKeys, RulesError> {
    let others = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Es384];
    let fitting = || others.into_iter().find_map(|one| IssuerKeys::from_public_pem(text, one).ok());
    match algorithm {
        Some(algorithm) => IssuerKeys::from_public_pem(text, algorithm),
        None => fitting().map_or_else(|| IssuerKeys::from_public_pem(text, Algorithm::Rs256), Ok),
    }
}

fn is_pem(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"-----BEGIN")
}

/// # Errors
/// The invalid configuration key, and a description of the problem.
pub(crate) fn load_introspection(config: &IntrospectionConfig, files: &FetchFiles) -> Result<Introspection, KeyFault> {
    let IntrospectionConfig {
        url,
        kind,
        client_id,
        key,
        secret_file,
        secret_in,
        timeout,
        // `ruled` reads the other keys.
        ..
    } = config;
    let in_file = |key, file: &Path, what: &str| KeyFault::new(key, format!("{}: {what}", file.display()));
    let mut credentials = ClientCredentials::public(client_id);
    if let Some(secret_file) = secret_file {
        let text = private_file::read_private(secret_file)
            .map_err(|message| KeyFault::new("introspection.secret_file", message))?;
        let secret = text.trim_end_matches(['\n', '\r']);
        if secret.is_empty() {
            return Err(in_file(
                "introspection.secret_file",
                secret_file,
                "is empty; expected the secret of the client in `client_id`",
            ));
        }
        let secret = SecretString::from(secret.to_owned());
        if *kind == IntrospectionKind::Kuzzle {
            let own = KuzzleSecret::new(&secret);
            let own = own.map_err(|what| in_file("introspection.secret_file", secret_file, what))?;
            return Ok(ruled(Introspection::by(own), config));
        }
        credentials.secret = Some((secret, *secret_in));
    }
    if let Some(key) = key {
        let key = client_key(client_id, key).map_err(|message| KeyFault::new("introspection.key_file", message))?;
        credentials.assertions = Some(key);
    }
    let (ca, client_cert) = (&files.ca, &files.client_cert);
    let mut tls = Tls::read(ca.as_deref(), None).map_err(|error| KeyFault::new("fetch.ca", error.message))?;
    if let Some(file) = client_cert {
        let pem = private_file::read_private(file).map_err(|message| KeyFault::new("fetch.client_cert", message))?;
        tls.client_cert = Some((pem.to_string(), SecretString::from(pem.to_string())));
    }
    let client = HttpClient::with_tls(&tls).map_err(|error| match (error.key, client_cert) {
        ("ca", _) if ca.is_some() => KeyFault::new("fetch.ca", error.message),
        ("client_cert", Some(file)) => in_file("fetch.client_cert", file, &error.message),
        _ => KeyFault::new("introspection.url", error.message),
    })?;
    let (client, endpoint) = (client.with_timeout(*timeout), target("introspection.url", url)?);
    let introspection = match kind {
        IntrospectionKind::OAuth => Introspection::by(HttpIntrospector::by(client, endpoint, credentials)),
        IntrospectionKind::Kuzzle => Introspection::by(KuzzleIntrospector::new(client, endpoint)),
    };
    Ok(ruled(introspection, config))
}

/// Adds the rules of the configuration.
fn ruled(introspection: Introspection, config: &IntrospectionConfig) -> Introspection {
    let IntrospectionConfig { cache, negative, stale_if_error, .. } = *config;
    let mut introspection =
        introspection.cache(cache).negative(negative).stale_if_error(stale_if_error).prefix(config.prefix());
    introspection.always = config.always;
    introspection.audience_optional = config.audience_optional || config.kind == IntrospectionKind::Kuzzle;
    introspection
}

pub(crate) fn load_issuer(issuer: &TrustedIssuer) -> Result<IssuerRules, String> {
    let keys = load_keys(&issuer.keys, &format!("issuer {}", issuer.url))?;
    let introspection = issuer.introspection.as_ref().map(|it| load_introspection(it, &issuer.files)).transpose();
    let introspection = introspection.map_err(|fault| fault.to_string())?;
    let TrustedIssuer {
        name,
        url,
        scopes,
        everywhere,
        subject_prefix,
        // The other keys already contain the values of the preset.
        preset: _,
        claims,
        audience,
        keys: _,
        files: _,
        introspection: _,
        typ,
        max_lifetime,
        leeway,
        logs_in_browsers,
        session_claim,
        id_jag,
        jwt_bearer,
        on_event,
        user_names,
        // Used by the gate's logout endpoints.
        backchannel_logout: _,
        events: _,
        global_revocation: _,
    } = issuer;
    let audience = audience.iter().map(|audience| audience.as_str().into()).collect();
    let rules = match (keys, introspection) {
        (Some(keys), None) => IssuerRules::external(url.as_str(), audience, keys),
        (Some(keys), Some(it)) => IssuerRules::external(url.as_str(), audience, keys).introspection(it),
        (None, Some(it)) => IssuerRules::introspected(url.as_str(), audience, it),
        (None, None) => return Err(format!("the issuer {url} has neither keys nor introspection")),
    };
    let mut rules = rules.named(name.as_str()).scopes(scopes.listed().cloned()).claims(claims.clone());
    rules.everywhere = *everywhere;
    rules.subject_prefix = subject_prefix.as_str().into();
    rules.typ = typ.iter().map(|typ| typ.as_str().into()).collect();
    rules.leeway = *leeway;
    rules.logs_in_browsers = *logs_in_browsers;
    rules.session_claim = session_claim.as_str().into();
    // A Kuzzle server may issue tokens without an end.
    rules.max_lifetime = (!issuer.is_kuzzle()).then_some(*max_lifetime);
    rules.on_event = on_event.clone();
    rules.user_names.clone_from(user_names);
    rules.grants = AssertionGrants { id_jag: id_jag.clone(), jwt_bearer: jwt_bearer.clone() };
    Ok(rules)
}
