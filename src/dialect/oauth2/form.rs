//! Reads the form in a request, and the client's credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::super::{Call, said_media};
use super::secret;
pub(in crate::dialect) use rotogate_core::bounds::MAX_PARAMETERS;
use rotogate_core::client::PresentedClient;
use rotogate_core::denial::Denial;
use rotogate_core::session::Scope;
use rotogate_core::token::verify::{CLIENT_ASSERTION_TYPE, peek};

/// RFC 6749 §3.2: a parameter may occur only once, and an empty one counts as absent.
pub(in crate::dialect) struct Form {
    fields: Vec<(String, Zeroizing<String>)>,
}

pub(in crate::dialect) const FORM: &str = "application/x-www-form-urlencoded";

/// A request may repeat this parameter (RFC 8707).
pub(super) const RESOURCE: &str = "resource";

/// A request may repeat this parameter (RFC 8693).
pub(super) const AUDIENCE: &str = "audience";

/// Unknown parameters are ignored (RFC 6749 §3.2). Only parameters in `lists` may be repeated.
pub(in crate::dialect) fn read_with(call: &Call<'_>, lists: &[&str]) -> Result<Form, Denial> {
    if !said_media(call.headers, FORM) {
        return Err(Denial::MalformedRequest("the body must be application/x-www-form-urlencoded"));
    }
    if call.query.is_some_and(|query| !query.is_empty()) {
        // RFC 6749 §3.2 and §2.3.1: parameters belong in the body, and credentials are never in the URI.
        return Err(Denial::MalformedRequest("parameters belong in the body, not in the query"));
    }
    if std::str::from_utf8(call.body).is_err() {
        return Err(Denial::MalformedRequest("the body is not UTF-8"));
    }
    let mut fields: Vec<(String, Zeroizing<String>)> = Vec::new();
    for (name, value) in form_urlencoded::parse(call.body) {
        if fields.len() == MAX_PARAMETERS {
            return Err(Denial::MalformedRequest("the body has more than 64 parameters"));
        }
        if !lists.contains(&&*name) && fields.iter().any(|(known, _)| *known == name) {
            return Err(Denial::MalformedRequest("a parameter was sent twice"));
        }
        fields.push((name.into_owned(), Zeroizing::new(value.into_owned())));
    }
    Ok(Form { fields })
}

impl Form {
    pub(in crate::dialect) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(in crate::dialect) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    pub(in crate::dialect) fn secret(&self, name: &str) -> Option<SecretString> {
        self.get(name).and_then(secret)
    }

    pub(super) fn scope(&self) -> Result<Option<Scope>, Denial> {
        self.get("scope").map(Scope::parse).transpose().map_err(|_| Denial::InvalidScope)
    }

    fn values<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(|(name, _)| names.contains(&&**name)).map(|(_, value)| value.as_str())
    }

    /// RFC 8693 §2.1: the service that will get the token. A request may name only one.
    // Requirement D1.
    pub(super) fn target(&self) -> Result<Option<Box<str>>, Denial> {
        Ok(one(self.values(&[RESOURCE, AUDIENCE]))?.filter(|one| !one.is_empty()))
    }

    pub(super) fn once(&self, name: &str) -> Result<(), Denial> {
        let twice = self.fields.iter().filter(|(known, _)| known == name).nth(1).is_some();
        if twice { Err(Denial::MalformedRequest("a parameter was sent twice")) } else { Ok(()) }
    }

    /// RFC 8707 §2: the gate issues tokens for a single resource.
    // Requirement N45.
    pub(super) fn resource(&self) -> Result<Option<Box<str>>, Denial> {
        Ok(one(self.values(&[RESOURCE]))?.filter(|one| !one.is_empty()))
    }

    pub(super) fn names_client(&self, headers: &HeaderMap) -> bool {
        let fields = ["client_id", "client_secret", "client_assertion", "client_assertion_type"];
        used_basic(headers) || fields.iter().any(|name| self.get(name).is_some())
    }

    /// The client is in Basic, in the body or in an assertion, but only in one of them (RFC 6749 §2.3). The body may
    /// repeat the `client_id`.
    // Requirement D24.
    pub(super) fn client(&self, headers: &HeaderMap) -> Result<PresentedClient, Denial> {
        let id = self.get("client_id");
        let body_secret = self.secret("client_secret");
        let (kind, assertion) = (self.get("client_assertion_type"), self.secret("client_assertion"));
        if let Some(assertion) = assertion {
            if body_secret.is_some() || used_basic(headers) {
                return Err(Denial::MalformedRequest("the client authenticates in two ways at once"));
            }
            if kind != Some(CLIENT_ASSERTION_TYPE) {
                return Err(Denial::ClientAssertion("client_assertion_type is missing or not supported"));
            }
            // RFC 7521 §4.2: `client_id` is optional, because the assertion names the client.
            let named = || peek(assertion.expose_secret()).and_then(|says| says.subject).map(String::from);
            let id = id.map(str::to_owned).or_else(named).ok_or(Denial::InvalidClient)?;
            return Ok(PresentedClient { id, secret: None, assertion: Some(assertion) });
        }
        if kind.is_some() {
            return Err(Denial::MalformedRequest("client_assertion is missing"));
        }
        let Some(basic) = basic(headers)? else {
            let id = id.ok_or(Denial::InvalidClient)?;
            return Ok(PresentedClient { id: id.to_owned(), secret: body_secret, assertion: None });
        };
        if body_secret.is_some() {
            return Err(Denial::MalformedRequest("the client's secret was sent in two places"));
        }
        if id.is_some_and(|id| id != basic.id) {
            return Err(Denial::MalformedRequest("client_id differs from the client in the Authorization header"));
        }
        Ok(basic)
    }
}

fn one<'a>(mut values: impl Iterator<Item = &'a str>) -> Result<Option<Box<str>>, Denial> {
    match (values.next(), values.next()) {
        (only, None) => Ok(only.map(Into::into)),
        (_, Some(_)) => Err(Denial::InvalidTarget),
    }
}

/// If the client used Basic, a refusal needs a challenge (RFC 6749 §5.2).
pub(in crate::dialect) fn used_basic(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| scheme_and_rest(value.as_bytes()).is_some())
}

fn scheme_and_rest(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(end)?;
    scheme.eq_ignore_ascii_case(b"basic").then(|| rest.trim_ascii())
}

/// The id and the secret are form-encoded (RFC 6749 §2.3.1). Other schemes are ignored, because many clients send their
/// access token with every request.
pub(in crate::dialect) fn basic(headers: &HeaderMap) -> Result<Option<PresentedClient>, Denial> {
    let all = headers.get_all(AUTHORIZATION);
    let Some(encoded) = all.iter().find_map(|value| scheme_and_rest(value.as_bytes())) else { return Ok(None) };
    if all.iter().nth(1).is_some() {
        return Err(Denial::TwoCredentials);
    }
    let malformed = || Denial::InvalidClient;
    let decoded = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| malformed())?);
    let text = std::str::from_utf8(&decoded).map_err(|_| malformed())?;
    let (id, password) = text.split_once(':').ok_or_else(malformed)?;
    let password = decode(password).ok_or_else(malformed)?;
    Ok(Some(PresentedClient {
        id: decode(id).ok_or_else(malformed)?.expose_secret().to_owned(),
        secret: secret(password.expose_secret()),
        assertion: None,
    }))
}

fn decode(value: &str) -> Option<SecretString> {
    let spaced = Zeroizing::new(value.replace('+', " "));
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(SecretString::from(decoded.into_owned()))
}
