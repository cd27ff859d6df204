use std::borrow::Cow;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::super::{CheckedToken, Command, CommandHandler, Outcome, RefreshCredential, Superseded};
use super::message::{Action, Message};
use super::words::Problem;
use super::{MALFORMED, expiry, http};
use rotogate_core::clock::Timestamp;
use rotogate_core::credential::Found;
use rotogate_core::denial::Denial;
use rotogate_core::engine::IssuedTokens;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;

const STRATEGY: &str = "local";
const ANONYMOUS: &str = "-1";

pub(super) struct ActionResult {
    pub(super) came: Result<Value, Problem>,
    pub(super) cookie: Cookie,
    pub(super) reason: Reason,
}

pub(super) enum Cookie {
    Leave,
    Set(SecretString, Timestamp),
    Clear,
}

enum ActionPlan {
    Now(Value),
    Engine(Command),
}

pub(super) type Credential<'a> = Result<Option<Found<Cow<'a, str>>>, Denial>;
pub(super) type ActionError = (Problem, Reason);

pub(super) async fn perform(
    asked: &Message,
    action: Action,
    credential: Credential<'_>,
    path: &str,
    gate: &dyn CommandHandler,
) -> ActionResult {
    // A token from a cookie is replaced in a cookie, so that scripts can never read it.
    let in_cookie = asked.flag("cookieAuth") || matches!(&credential, Ok(Some(found)) if found.by_cookie);
    let outcome = match wanted(asked, action, credential, path) {
        Ok(ActionPlan::Now(result)) => {
            let cookie = if action == Action::Logout { Cookie::Clear } else { Cookie::Leave };
            return ActionResult { came: Ok(result), cookie, reason: Reason::ANSWERED };
        }
        Ok(ActionPlan::Engine(command)) => gate.execute(command).await,
        Err((problem, reason)) => return ActionResult { came: Err(problem), cookie: Cookie::Leave, reason },
    };
    let reason = match &outcome {
        // For `checkToken`, an invalid token is not a denial.
        Ok(Outcome::Checked(Err(denial))) if action != Action::CheckToken => Reason::denied(denial),
        outcome => super::super::reason(outcome),
    };
    let (came, cookie) = match outcome {
        Ok(Outcome::Issued(issued)) => {
            let came = Ok(tokens(&issued, !in_cookie));
            let set = || Cookie::Set(SecretString::from(issued.access_token.expose()), issued.expires);
            (came, if in_cookie { set() } else { Cookie::Leave })
        }
        Ok(Outcome::Revoked) => (Ok(acknowledged()), if in_cookie { Cookie::Clear } else { Cookie::Leave }),
        // A logout with an invalid token removes the cookie. If the token may still be valid, the cookie stays, and the
        // client gets the error (requirement R16).
        Err(Error::Denied(denial))
            if action == Action::Logout && in_cookie && !asked.flag("global") && denial.is_dead() =>
        {
            (Ok(acknowledged()), Cookie::Clear)
        }
        Ok(Outcome::Checked(checked)) => (said_of(asked, action, checked), Cookie::Leave),
        Err(error) => (Err(Problem::of_error(&error, asked)), Cookie::Leave),
    };
    ActionResult { came, cookie, reason }
}

fn wanted(asked: &Message, action: Action, credential: Credential<'_>, path: &str) -> Result<ActionPlan, ActionError> {
    let malformed = |problem| (problem, MALFORMED);
    Ok(match action {
        Action::Login => ActionPlan::Engine(login(asked).map_err(malformed)?),
        Action::RefreshToken => {
            let (access, by_query) = token(asked, credential)?.ok_or_else(|| nobody(asked))?;
            let access_ttl = expiry::read(asked.argument("expiresIn")).map_err(malformed)?;
            // Logs and browser histories may store a URL's query for a long time.
            let credential = RefreshCredential::Access { access, may_have_expired: !by_query };
            ActionPlan::Engine(Command::Refresh { client: None, credential, scope: None, access_ttl, resource: None })
        }
        Action::Logout => match token(asked, credential)? {
            Some((access, _)) => ActionPlan::Engine(Command::Logout { access, everywhere: asked.flag("global") }),
            None if asked.flag("cookieAuth") => ActionPlan::Now(acknowledged()),
            None => return Err(nobody(asked)),
        },
        Action::CheckToken => match token_to_check(asked, credential)? {
            Some((access, by_query)) => {
                let superseded = if by_query { Superseded::Unexpired } else { Superseded::Any };
                ActionPlan::Engine(Command::Check { access, superseded })
            }
            None => ActionPlan::Now(json!({ "valid": true, "expiresAt": -1, "kuid": ANONYMOUS })),
        },
        Action::GetCurrentUser => match token(asked, credential)? {
            Some((access, _)) => ActionPlan::Engine(Command::Check { access, superseded: Superseded::None }),
            None => {
                let source = json!({ "profileIds": ["anonymous"], "name": "Anonymous" });
                ActionPlan::Now(json!({ "_id": ANONYMOUS, "_source": source, "strategies": [] }))
            }
        },
        Action::GetStrategies => ActionPlan::Now(json!([STRATEGY])),
        // The gate never executes this action from an envelope, so the upstream's own actions are added only over HTTP.
        Action::PublicApi => ActionPlan::Now(http::public_api(path)),
    })
}

/// Returns the caller's token, and whether it was in the query.
pub(super) fn token(asked: &Message, credential: Credential<'_>) -> Result<Option<(SecretString, bool)>, ActionError> {
    match credential {
        Ok(found) => Ok(found.map(|found| (SecretString::from(found.token.into_owned()), found.by_query))),
        Err(denial) => Err((Problem::of_denial(denial, asked), Reason::denied(&denial))),
    }
}

/// Returns the token of a call of `checkToken`.
pub(super) fn token_to_check(
    asked: &Message,
    credential: Credential<'_>,
) -> Result<Option<(SecretString, bool)>, ActionError> {
    if asked.flag("cookieAuth") {
        return token(asked, credential);
    }
    let in_body = asked.text_in_body("token").map_err(|problem| (problem, MALFORMED))?;
    Ok(in_body.map(|token| (SecretString::from(token.to_owned()), false)))
}

pub(super) fn nobody(asked: &Message) -> ActionError {
    (Problem::unauthorized(asked), Reason::denied(&Denial::NoCredential))
}

fn login(asked: &Message) -> Result<Command, Problem> {
    match asked.argument("strategy").map(Value::as_str) {
        Some(Some(STRATEGY)) => {}
        Some(Some(other)) => return Err(Problem::unknown_strategy(other)),
        Some(None) => return Err(Problem::invalid_type("strategy", "string")),
        None => return Err(Problem::missing_argument("strategy")),
    }
    let field = |name: &'static str| {
        let text = asked.text_in_body(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| Problem::missing_argument(&format!("body.{name}")))
    };
    Ok(Command::Login {
        client: None,
        username: field("username")?.to_owned(),
        password: SecretString::from(field("password")?.to_owned()),
        scope: None,
        access_ttl: expiry::read(asked.argument("expiresIn"))?,
        resource: None,
    })
}

pub(super) fn acknowledged() -> Value {
    json!({ "acknowledged": true })
}

/// Times are in milliseconds.
fn tokens(issued: &IssuedTokens, with_token: bool) -> Value {
    let mut tokens = json!({
        "_id": issued.subject,
        "expiresAt": issued.expires.as_millis(),
        "ttl": issued.expires_in.saturating_mul(1000),
    });
    if let Some(fields) = tokens.as_object_mut().filter(|_| with_token) {
        fields.insert("jwt".to_owned(), issued.access_token.expose().into());
    }
    tokens
}

fn said_of(asked: &Message, action: Action, checked: Result<Box<CheckedToken>, Denial>) -> Result<Value, Problem> {
    match (action, checked) {
        (Action::CheckToken, Ok(checked)) => {
            Ok(json!({ "valid": true, "expiresAt": checked.expires.as_millis(), "kuid": checked.subject }))
        }
        (Action::CheckToken, Err(denial)) => {
            let problem = Problem::of_denial(denial, asked);
            Ok(json!({ "valid": false, "state": problem.message() }))
        }
        (_, Ok(checked)) => Ok(user(&checked)),
        (_, Err(denial)) => Err(Problem::of_denial(denial, asked)),
    }
}

fn user(checked: &CheckedToken) -> Value {
    let profile = checked.user.as_ref().map(|user| user.profile.clone()).unwrap_or_default();
    let mut source = json!({ "profileIds": [] });
    if let Some(fields) = source.as_object_mut() {
        fields.extend(profile);
    }
    json!({ "_id": checked.subject, "_source": source, "strategies": [STRATEGY] })
}
