//! The actions that the gate executes in front of a Kuzzle server that issues the tokens itself.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::super::relay::kuzzle::{logout, new_tokens, presented, server_error};
use super::super::{CommandHandler, RelayRequest};
use super::MALFORMED;
use super::message::{Action, Message};
use super::perform::{self, ActionError, ActionResult, Cookie, Credential};
use super::words::Problem;
use crate::relay::{Presented, ProviderReply};
use rotogate_core::clock::Timestamp;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;

/// Executes an action. Returns `None` if the server must execute the call.
pub(super) async fn perform(
    asked: &Message,
    action: Action,
    credential: Credential<'_>,
    gate: &dyn CommandHandler,
) -> Option<ActionResult> {
    let in_cookie = asked.flag("cookieAuth") || matches!(&credential, Ok(Some(found)) if found.by_cookie);
    let (came, cookie) = match action {
        Action::RefreshToken => match refreshed(asked, credential, gate).await {
            Ok(result) if in_cookie => in_a_cookie(result),
            came => (came, Cookie::Leave),
        },
        Action::CheckToken => (checked(asked, credential, gate).await?, Cookie::Leave),
        Action::Logout => {
            let came = logged_out(asked, credential, gate).await?;
            let cookie = if in_cookie && came.is_ok() { Cookie::Clear } else { Cookie::Leave };
            (came, cookie)
        }
        Action::Login | Action::GetCurrentUser | Action::GetStrategies | Action::PublicApi => return None,
    };
    Some(match came {
        Ok(result) => ActionResult { came: Ok(result), cookie, reason: Reason::ANSWERED },
        Err((problem, reason)) => ActionResult { came: Err(problem), cookie, reason },
    })
}

async fn refreshed(
    asked: &Message,
    credential: Credential<'_>,
    gate: &dyn CommandHandler,
) -> Result<Value, ActionError> {
    let (token, by_query) = perform::token(asked, credential)?.ok_or_else(|| perform::nobody(asked))?;
    if by_query {
        // Logs and browser histories may store a URL's query for a long time.
        let problem = Problem::invalid_argument("jwt", "a token in `Authorization`, in the message or in a cookie");
        return Err((problem, MALFORMED));
    }
    let request = RelayRequest::Exchange(presented(&token, asked.argument("expiresIn")));
    let reply = gate.relay(request).await.map_err(|error| failed(&error, asked))?;
    new_tokens(&reply).map(Value::Object).ok_or_else(|| refused(&reply))
}

/// The server's own refusal.
fn refused(reply: &ProviderReply) -> ActionError {
    let problem = server_error(reply).as_ref().and_then(Problem::of_server);
    (problem.unwrap_or_else(Problem::invalid_token), Reason::PROVIDER_REFUSED)
}

/// Moves the token from the result to the cookie, so that scripts can never read it.
fn in_a_cookie(mut result: Value) -> (Result<Value, ActionError>, Cookie) {
    let token = result.as_object_mut().and_then(|result| result.remove("jwt"));
    let expires = result.get("expiresAt").and_then(Value::as_u64).map_or(Timestamp::MAX, Timestamp::from_millis);
    let cookie = match token {
        Some(Value::String(token)) => Cookie::Set(SecretString::from(token), expires),
        _ => Cookie::Leave,
    };
    (Ok(result), cookie)
}

/// Reports a token as valid that only `refreshToken` still accepts. Returns `None` for any other token.
async fn checked(
    asked: &Message,
    credential: Credential<'_>,
    gate: &dyn CommandHandler,
) -> Option<Result<Value, ActionError>> {
    let token = match perform::token_to_check(asked, credential) {
        Ok(token) => token?.0,
        Err(problem) => return Some(Err(problem)),
    };
    let stored = match gate.relay_stored(presented(&token, None)).await {
        Ok(stored) => new_tokens(&stored?)?,
        Err(Error::Denied(denial)) if denial.is_dead() => {
            let problem = Problem::of_denial(denial, asked);
            return Some(Ok(json!({ "valid": false, "state": problem.message() })));
        }
        Err(error) => return Some(Err(failed(&error, asked))),
    };
    // The server reissues the same token for a second refresh within one second.
    if stored.get("jwt").and_then(Value::as_str) == Some(token.expose_secret()) {
        return None;
    }
    Some(Ok(json!({ "valid": true, "expiresAt": stored.get("expiresAt"), "kuid": stored.get("_id") })))
}

/// Logs out the session of a replaced token. The token's successor may never have reached the client, so the client cannot
/// name it. Returns `None` for any other token.
async fn logged_out(
    asked: &Message,
    credential: Credential<'_>,
    gate: &dyn CommandHandler,
) -> Option<Result<Value, ActionError>> {
    let token = match perform::token(asked, credential) {
        Ok(token) => token?.0,
        Err(problem) => return Some(Err(problem)),
    };
    let stored = match gate.relay_stored(presented(&token, None)).await {
        Ok(stored) => new_tokens(&stored?)?,
        Err(Error::Denied(denial)) if denial.is_dead() => return None,
        Err(error) => return Some(Err(failed(&error, asked))),
    };
    let next = stored.get("jwt").and_then(Value::as_str).filter(|next| *next != token.expose_secret())?;
    let request = logout(&SecretString::from(next), asked.flag("global"));
    let revoked = gate.relay(RelayRequest::Revoke(Presented { request, ..presented(&token, None) })).await;
    Some(match revoked {
        // The provider's part makes 200 of a token that is dead already.
        Ok(reply) if reply.status == 200 => Ok(perform::acknowledged()),
        Ok(reply) => Err(refused(&reply)),
        Err(error) => Err(failed(&error, asked)),
    })
}

fn failed(error: &Error, asked: &Message) -> ActionError {
    (Problem::of_error(error, asked), Reason::from(error))
}
