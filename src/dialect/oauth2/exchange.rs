//! The parameters of a token exchange (RFC 8693 §2.1).

use rotogate_core::client::PresentedClient;
use rotogate_core::denial::Denial;
use rotogate_core::token::verify::strict_json;

use super::form::Form;
use crate::dialect::{Command, ExchangeRequest};

/// The type of the tokens that the gate issues and accepts.
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The other name of it: an access token of ours is a JWT.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The type of a transaction token (draft-ietf-oauth-transaction-tokens).
pub(super) const TRANSACTION_TOKEN: &str = "urn:ietf:params:oauth:token-type:txn_token";
/// What a transaction token is to say of its request (ibid.): an object that becomes `tctx`.
const DETAILS: &str = "request_details";
/// The longest one, in bytes: the token goes along with each call.
const MAX_DETAILS: usize = 1024;
/// How deep objects and arrays may be nested in it.
const DEPTH: usize = 4;

// Requirement D1.
pub(super) fn read(form: &Form, client: PresentedClient) -> Result<Command, Denial> {
    let subject = form.secret("subject_token").ok_or(Denial::MalformedRequest("subject_token is missing"))?;
    if !form.get("subject_token_type").is_some_and(is_taken) {
        return Err(Denial::MalformedRequest("subject_token_type must be the type of an access token"));
    }
    let actor = form.secret("actor_token");
    if form.get("actor_token_type").map(is_taken) != actor.as_ref().map(|_| true) {
        return Err(Denial::MalformedRequest("actor_token goes with the actor_token_type of an access token"));
    }
    let wants_transaction = match form.get("requested_token_type") {
        None | Some(ACCESS_TOKEN) => false,
        Some(TRANSACTION_TOKEN) => true,
        Some(_) => {
            return Err(Denial::MalformedRequest(
                "requested_token_type must be the type of an access token or a transaction token",
            ));
        }
    };
    let details = form.get(DETAILS).filter(|_| wants_transaction);
    if details
        .is_some_and(|text| text.len() > MAX_DETAILS || strict_json::object_of_depth(text.as_bytes(), DEPTH).is_err())
    {
        return Err(Denial::MalformedRequest(
            "request_details must be a JSON object of at most 1024 bytes and depth 4",
        ));
    }
    let (audience, scope, details) = (form.target()?, form.scope()?, details.map(Box::from));
    let request = ExchangeRequest { client, subject, actor, audience, scope, wants_transaction, details };
    Ok(Command::Exchange(Box::new(request)))
}

fn is_taken(token_type: &str) -> bool {
    [ACCESS_TOKEN, JWT].contains(&token_type)
}
