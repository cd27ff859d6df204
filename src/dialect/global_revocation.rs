//! Global token revocation (draft-parecki-oauth-global-token-revocation), which Okta calls Universal Logout. Another
//! issuer asks the gate to end all sessions and tokens of a user. The gate verifies the JWT.
//!
//! ```
//! use rotogate::dialect::global_revocation::GlobalRevocations;
//! use rotogate::gate::Endpoint;
//!
//! // `okta` is the name of a trusted issuer, and `0oa1` the id of this gate there.
//! let revocations = GlobalRevocations::new("okta", "0oa1", "https://api.example.com/revoke/okta");
//! let builder = rotogate::Gate::builder().endpoint(Endpoint::new(revocations).path("/revoke/okta"));
//! # let _ = builder;
//! ```

use http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use secrecy::SecretString;
use serde_json::json;

use super::answer::{self, empty};
use super::events::{limited, unavailable};
use super::{Call, Command, Dialect, Outcome, Reply, ServedPath, said_json};
use rotogate_core::bounds::MAX_GLOBAL_REVOCATION;
use rotogate_core::denial::{Class, Denial, EventFlaw};
use rotogate_core::fault::Error;
use rotogate_core::reply;

/// An unverified request to end all sessions and tokens of a user.
#[derive(Debug)]
pub struct GlobalRevocation {
    /// The name of the issuer whose endpoint received the request.
    pub issuer: Box<str>,
    /// The required `sub` of the JWT.
    pub client_id: Box<str>,
    /// The required `aud` of the JWT.
    pub audience: Box<str>,
    /// The JWT, or the reason why there is no JWT.
    pub token: Result<SecretString, &'static str>,
    /// The body, which names the user.
    pub body: Box<[u8]>,
}

/// An endpoint for one issuer's requests.
#[derive(Clone, Debug)]
pub struct GlobalRevocations {
    issuer: Box<str>,
    client_id: Box<str>,
    url: Box<str>,
}

impl GlobalRevocations {
    /// Accepts requests of this issuer, which knows the gate as `client_id`. The issuer calls the endpoint at `url`.
    pub fn new(issuer: impl Into<Box<str>>, client_id: impl Into<Box<str>>, url: impl Into<Box<str>>) -> Self {
        Self { issuer: issuer.into(), client_id: client_id.into(), url: url.into() }
    }
}

fn bearer(call: &Call<'_>) -> Result<SecretString, &'static str> {
    let mut values = call.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err("the request must have exactly one Authorization header");
    };
    let value = value.to_str().map_err(|_| "the Authorization header is not ASCII")?;
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => {
            Ok(SecretString::from(token.trim().to_owned()))
        }
        _ => Err("the Authorization header has no bearer token"),
    }
}

impl Dialect for GlobalRevocations {
    fn name(&self) -> &'static str {
        super::GLOBAL_REVOCATION
    }

    fn default_path(&self) -> &'static str {
        "/global-token-revocation"
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        vec![ServedPath::new("revoke", base.to_owned(), &[Method::POST])]
    }

    fn read(&self, call: &Call<'_>) -> Result<Command, Denial> {
        if call.body.len() > MAX_GLOBAL_REVOCATION {
            return Err(Denial::BodyTooLarge);
        }
        // A body of another media type is treated as empty, and is rejected after the sender was verified. An
        // unauthenticated caller therefore learns nothing.
        let body = if said_json(call.headers) == Some(true) { Box::from(&**call.body) } else { Box::default() };
        Ok(Command::RevokeGlobally(GlobalRevocation {
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            audience: self.url.clone(),
            token: bearer(call),
            body,
        }))
    }

    fn write(&self, _: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        let mut answer = match outcome {
            Ok(_) => empty(StatusCode::NO_CONTENT),
            Err(Error::Denied(denial)) => refusal(denial),
            Err(Error::Failed(_)) => unavailable(std::time::Duration::from_secs(1)),
        };
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

fn refusal(denial: Denial) -> Reply {
    let flaw = match (denial, denial.class()) {
        (Denial::RefusedEvent(flaw), _) => flaw,
        (_, Class::TooLarge) => return reply::problem(StatusCode::PAYLOAD_TOO_LARGE, None),
        (_, Class::Limited(wait)) => return limited(wait),
        (_, Class::Unavailable(wait)) => return unavailable(wait),
        _ => EventFlaw::Request("the request is malformed"),
    };
    let (status, error) = match flaw {
        EventFlaw::Authentication | EventFlaw::Credential(_) | EventFlaw::Key | EventFlaw::Audience => {
            let mut answer = empty(StatusCode::UNAUTHORIZED);
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return answer;
        }
        EventFlaw::Issuer => (StatusCode::FORBIDDEN, "access_denied"),
        EventFlaw::UnknownUser => (StatusCode::NOT_FOUND, "unknown_user"),
        EventFlaw::SeveralUsers => (StatusCode::UNPROCESSABLE_ENTITY, "several_users"),
        _ => (StatusCode::BAD_REQUEST, "invalid_request"),
    };
    answer::json(status, &json!({ "error": error }))
}
