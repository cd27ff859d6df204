//! The rules for tokens of another issuer, with the keys and the secret that its files hold now.

use std::path::Path;

use secrecy::SecretString;

use super::provider_client::{client_key, target};
use crate::server::error::{KeyFault, ServerError};
use rotogate::program::HttpIntrospector;
use rotogate_config::{IntrospectionConfig, KeySource, TrustedIssuer};
use rotogate_core::http_client::{ClientCredentials, HttpClient, Tls};
use rotogate_core::introspection::Introspection;
use rotogate_core::private_file::{self, trusted};
use rotogate_core::token::AssertionGrants;
use rotogate_core::token::verify::{IssuerKeys, IssuerRules};

/// The longest key file of another issuer, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 4 << 20;

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

/// The keys of an issuer or a client: the keys that its file holds now, or an empty set that a fetch fills later.
/// `None` if it has no keys.
pub(super) fn load_keys(source: &KeySource, whose: &str) -> Result<Option<IssuerKeys>, String> {
    let read = |path| trusted::read(path, MAX_KEY_FILE_BYTES);
    let (path, keys) = match source {
        KeySource::Jwks(path, algorithm) => (path, IssuerKeys::from_jwks(&read(path)?, *algorithm)),
        KeySource::PublicKey(path, algorithm) => (path, IssuerKeys::from_public_pem(&read(path)?, *algorithm)),
        KeySource::Remote(_) => return Ok(Some(IssuerKeys::unknown())),
        KeySource::None => return Ok(None),
    };
    let remedy = match source {
        KeySource::Jwks(..) => "; save the set that it publishes",
        _ => "",
    };
    keys.map(Some).map_err(|error| format!("{}: the keys of {whose}: {error}{remedy}", path.display()))
}

/// The client for an issuer's introspection of opaque tokens, with the secret that its file holds now.
///
/// # Errors
/// The key at fault, and what is wrong with it.
pub(crate) fn load_introspection(config: &IntrospectionConfig) -> Result<Introspection, KeyFault> {
    let IntrospectionConfig {
        url,
        client_id,
        key,
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
    let mut credentials = ClientCredentials::public(client_id);
    if let Some(secret_file) = secret_file {
        let text = private_file::read_private(secret_file).map_err(|message| KeyFault::new("secret_file", message))?;
        let secret = text.trim_end_matches(['\n', '\r']);
        if secret.is_empty() {
            return Err(in_file("secret_file", secret_file, "is empty; expected the secret of client_id"));
        }
        credentials.secret = Some((SecretString::from(secret.to_owned()), *secret_in));
    }
    if let Some(key) = key {
        let key = client_key(client_id, key).map_err(|message| KeyFault::new("key_file", message))?;
        credentials.assertions = Some(key);
    }
    let mut tls = Tls::read(ca.as_deref(), None).map_err(|error| KeyFault::new("ca", error.message))?;
    if let Some(file) = client_cert {
        let pem = private_file::read_private(file).map_err(|message| KeyFault::new("client_cert", message))?;
        tls.client_cert = Some((pem.to_string(), SecretString::from(pem.to_string())));
    }
    let client = HttpClient::with_tls(&tls).map_err(|error| match (error.key, client_cert) {
        ("ca", _) if ca.is_some() => KeyFault::new("ca", error.message),
        ("client_cert", Some(file)) => in_file("client_cert", file, &error.message),
        _ => KeyFault::new("url", error.message),
    })?;
    let introspector = HttpIntrospector::by(client.with_timeout(*timeout), target("url", url)?, credentials);
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
    let keys = load_keys(&issuer.keys, &format!("issuer {}", issuer.url))?;
    let introspection = issuer.introspection.as_ref().map(load_introspection).transpose();
    let introspection = introspection.map_err(|fault| format!("introspection.{fault}"))?;
    let TrustedIssuer {
        name,
        url,
        scopes,
        everywhere,
        subject_prefix,
        // The values of the preset are in the other keys.
        preset: _,
        claims,
        audience,
        keys: _,
        introspection: _,
        typ,
        max_lifetime,
        leeway,
        session_claim,
        id_jag,
        jwt_bearer,
        on_event,
        user_names,
        // The endpoints of back-channel logout belong to the gate.
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
    rules.session_claim = session_claim.as_str().into();
    rules.max_lifetime = Some(*max_lifetime);
    rules.on_event = on_event.clone();
    rules.user_names.clone_from(user_names);
    rules.grants = AssertionGrants { id_jag: id_jag.clone(), jwt_bearer: jwt_bearer.clone() };
    Ok(rules)
}
