//! The parameters of a token exchange (RFC 8693 §2.1).

use rotogate_core::client::PresentedClient;
use rotogate_core::denial::Denial;

use super::form::Form;
use crate::dialect::{Command, ExchangeRequest};

/// The type of the tokens that the gate issues and accepts.
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The type of JWTs is also accepted, because the gate's access tokens are JWTs.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

// Requirement D1.
pub(super) fn read(form: &Form, client: PresentedClient) -> Result<Command, Denial> {
    let subject = form.secret("subject_token").ok_or(Denial::MalformedRequest("subject_token is missing"))?;
    if !form.get("subject_token_type").is_some_and(is_taken) {
        return Err(Denial::MalformedRequest("subject_token_type must be the type of an access token"));
    }
    let actor = form.secret("actor_token");
    if form.get("actor_token_type").map(is_taken) != actor.as_ref().map(|_| true) {
        return Err(Denial::MalformedRequest("actor_token_type must be the type of an access token"));
    }
    if !matches!(form.get("requested_token_type"), None | Some(ACCESS_TOKEN)) {
        return Err(Denial::MalformedRequest("requested_token_type must be the type of an access token"));
    }
    let (audience, scope) = (form.target()?, form.scope()?);
    let request = ExchangeRequest { client, subject, actor, audience, scope };
    Ok(Command::Exchange(Box::new(request)))
}

fn is_taken(token_type: &str) -> bool {
    [ACCESS_TOKEN, JWT].contains(&token_type)
}
