//! The protocol of RFC 6749, with forms in requests and JSON in replies. The request is serialised again from the
//! parsed form, so that the gate and the provider cannot parse it differently.

use http::header::{AUTHORIZATION, CONTENT_TYPE, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::super::oauth2::form::{self, Form};
use super::super::oauth2::words;
use super::super::{Call, RelayRequest, Reply};
use super::{REFRESH_TOKEN, REVOCATION, RelayDialect, passed_on};
use crate::relay::provider::DPOP_NONCE;
use crate::relay::{Params, Presented, Presenter, ProviderReply, ProviderRequest};
use rotogate_core::denial::{Class, Denial, ProofFlaw};
use rotogate_core::fault::Error;
use rotogate_core::reply::retry_after;

const DPOP: HeaderName = HeaderName::from_static("dpop");
/// The parameters that may be repeated (RFC 8707 §2, RFC 8693 §2.1).
const LISTS: [&str; 2] = ["resource", "audience"];
/// The form parameters that authenticate a client (RFC 6749 §2.3.1, RFC 7521 §4.2).
const SECRETS: [&str; 2] = ["client_secret", "client_assertion"];

pub(super) fn read(dialect: &RelayDialect, call: &Call<'_>) -> Result<RelayRequest, Denial> {
    let form = form::read_with(call, &LISTS)?;
    let (token, grant) = if call.operation == REVOCATION {
        (form.secret("token").ok_or(Denial::MalformedRequest("token is missing"))?, None)
    } else {
        let grant = form.get("grant_type").ok_or(Denial::MalformedRequest("grant_type is missing"))?;
        if !dialect.serves_grant(grant) {
            return Err(Denial::UnsupportedGrantType);
        }
        (SecretString::default(), Some(grant))
    };
    let proof = one_proof(call.headers)?;
    let (presenter, request) = request(dialect.client.as_deref(), call.headers, &form)?;
    let list = |name: &str| form.fields().filter(|(known, _)| *known == name).map(|(_, one)| one.to_owned()).collect();
    let scope = form.get("scope").unwrap_or_default();
    let params = Params {
        scope: scope.split_ascii_whitespace().map(str::to_owned).collect(),
        resource: list("resource"),
        audience: list("audience"),
    };
    let presented = |token, proof| Presented { token, presenter, proof, params, request, ..Presented::default() };
    match grant {
        None => Ok(RelayRequest::Revoke(presented(token, None))),
        Some(REFRESH_TOKEN) => {
            let token = form.secret("refresh_token").ok_or(Denial::MalformedRequest("refresh_token is missing"))?;
            Ok(RelayRequest::Exchange(presented(token, proof)))
        }
        Some(_) => Ok(RelayRequest::Pass(presented(token, None).request)),
    }
}

fn one_proof(headers: &HeaderMap) -> Result<Option<SecretString>, Denial> {
    let mut proofs = headers.get_all(DPOP).iter();
    let Some(proof) = proofs.next() else { return Ok(None) };
    if proofs.next().is_some() {
        return Err(ProofFlaw::Malformed("more than one DPoP proof was sent").into());
    }
    let proof = proof.to_str().map_err(|_| ProofFlaw::Malformed("the proof is not ASCII"))?;
    Ok(Some(SecretString::from(proof.to_owned())))
}

/// Returns the presenter of the token, and the request to the provider.
fn request(own: Option<&str>, headers: &HeaderMap, form: &Form) -> Result<(Presenter, ProviderRequest), Denial> {
    let mut sent = HeaderMap::new();
    if let Some(proof) = headers.get(DPOP) {
        sent.insert(DPOP, proof.clone());
    }
    let mut body = form_urlencoded::Serializer::new(String::new());
    let presenter = match own {
        Some(own) => {
            let shows_secret = SECRETS.iter().any(|name| form.get(name).is_some());
            if shows_secret || headers.contains_key(AUTHORIZATION) {
                return Err(Denial::MalformedRequest(
                    "do not send a client secret, because the gate authenticates the client at the provider",
                ));
            }
            if form.get("client_id").is_some_and(|id| id != own) {
                return Err(Denial::InvalidClient);
            }
            body.extend_pairs(form.fields().filter(|(name, _)| *name != "client_id" && !SECRETS.contains(name)));
            Presenter { client: own.to_owned(), ..Presenter::default() }
        }
        None => {
            body.extend_pairs(form.fields());
            let presenter = presenter(headers, form)?;
            if let Some(value) = headers.get(AUTHORIZATION) {
                sent.insert(AUTHORIZATION, value.clone());
            }
            presenter
        }
    };
    let body = Zeroizing::new(body.finish().into_bytes());
    Ok((presenter, ProviderRequest { call: "", headers: sent, body }))
}

/// Returns the client's credentials, which may be in only one place (RFC 6749 §2.3).
fn presenter(headers: &HeaderMap, form: &Form) -> Result<Presenter, Denial> {
    let id = form.get("client_id");
    let mut in_form = SECRETS.iter().filter_map(|name| form.secret(name));
    let (credential, another) = (in_form.next(), in_form.next());
    let basic = form::basic(headers)?;
    if another.is_some() || credential.is_some() && basic.is_some() {
        return Err(Denial::MalformedRequest("the client authenticates in two ways at once"));
    }
    let Some(basic) = basic else {
        return Ok(Presenter { client: id.unwrap_or_default().to_owned(), credential, jkt: None });
    };
    if id.is_some_and(|id| id != basic.id) {
        return Err(Denial::MalformedRequest("client_id differs from the client in the Authorization header"));
    }
    Ok(Presenter { client: basic.id, credential: basic.secret, jkt: None })
}

/// Writes the provider's reply. The relay has already checked that the body is empty, or is JSON as in RFC 6749.
pub(super) fn reply(call: &Call<'_>, reply: &ProviderReply) -> Reply {
    let mut written = passed_on(reply);
    let headers = written.headers_mut();
    if call.operation != REVOCATION || !reply.body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    let passed = [(WWW_AUTHENTICATE, &reply.challenge), (DPOP_NONCE, &reply.dpop_nonce)];
    for (name, value) in passed {
        if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    written
}

/// The reply to a denial, or to a fault of the gate itself.
pub(super) fn refusal(headers: &HeaderMap, error: &Error) -> Reply {
    match error {
        Error::Denied(denial) => {
            let mut reply = words::denied(*denial, form::used_basic(headers));
            if let Class::WrongMethod = denial.class() {
                reply.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("POST"));
            }
            reply
        }
        Error::Failed(fault) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let mut reply = words::refusal(status, "temporarily_unavailable", "repeat the request");
            retry_after(&mut reply, fault.retry_after());
            reply
        }
    }
}
