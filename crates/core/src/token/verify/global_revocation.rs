//! Global token revocation (draft-parecki-oauth-global-token-revocation, Okta's "Universal Logout"). Another issuer
//! requests the revocation of all tokens and sessions of a user.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::client_assertion::UsableOnce;
use super::event::{before, date, issued_at, names_one, subject_of, text};
use super::user_name::UserName;
use super::{IssuerRules, JagSubject, Verifier};
use crate::clock::Timestamp;
use crate::denial::{Denial, EventFlaw};
use crate::revocation::Revocation;
use crate::strict_json;

const TYP: &str = "global-token-revocation+jwt";
/// The maximum remaining lifetime of the JWT in a request.
const MAX_LIFETIME: Duration = Duration::from_secs(600);

/// A request to verify.
#[derive(Clone, Copy)]
pub struct SentGlobalRevocation<'a> {
    /// The name of the issuer that must have signed the request.
    pub issuer: &'a str,
    /// The required `sub`: the client id of this gate at the issuer.
    pub client_id: &'a str,
    /// The required `aud`: the URL of the endpoint.
    pub audience: &'a str,
    /// The JWT.
    pub token: &'a str,
    /// The body, which names the user.
    pub body: &'a [u8],
}

/// A valid request. The caller must still refuse a second use.
#[derive(Clone, Debug)]
pub struct AskedRevocation {
    /// The id that prevents a second use of the request.
    pub once: UsableOnce,
    /// The issuer.
    pub issuer: Arc<str>,
    /// The user whose tokens and sessions are revoked.
    pub user: RevokedUser,
}

/// The user that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedUser {
    /// A user of the issuer.
    Subject {
        /// The user's `sub` at the issuer.
        subject: Box<str>,
        /// The user's name in the directory, or `None` if no token has contained it since the start.
        at_directory: Option<Box<str>>,
        /// Whether this gate has accepted a token or session of the user since its start.
        is_seen: bool,
        /// Whether the entry certainly revokes all sessions of the user. If false, the sender gets an error,
        /// although the entry takes effect.
        is_sure: bool,
        /// The entry that revokes the user's tokens and sessions.
        entry: Revocation,
    },
    /// A user name that only the directory can resolve.
    Named(UserName),
}

impl RevokedUser {
    /// The subject or the name of the user.
    pub fn text(&self) -> &str {
        match self {
            Self::Subject { subject, .. } => subject,
            Self::Named(name) => name.text(),
        }
    }
}

fn unproved(what: &'static str) -> Denial {
    Denial::RefusedEvent(EventFlaw::Credential(what))
}

fn as_proof(denial: Denial) -> Denial {
    match denial {
        Denial::RefusedEvent(flaw) => unproved(flaw.what()),
        other => other,
    }
}

impl Verifier {
    /// Verifies a request. The caller must still check that the request was not used before.
    ///
    /// # Errors
    /// [`Denial::RefusedEvent`] if the request is invalid. [`Denial::KeysUnavailable`] if the issuer's keys are
    /// unavailable.
    // Requirements S13, S14.
    pub fn asked_revocation(
        &self,
        sent: SentGlobalRevocation<'_>,
        engine_now: Timestamp,
        wall: Timestamp,
    ) -> Result<AskedRevocation, Denial> {
        let signed = self.notice(sent.issuer, sent.token, engine_now).map_err(as_proof)?;
        let (rules, claims) = (signed.rules, &signed.claims);
        if signed.typ.as_deref() != Some(TYP) {
            return Err(unproved("`typ` is not `global-token-revocation+jwt`"));
        }
        // A JWT with several audiences could be replayed at another receiver.
        if !claims.get("aud").is_some_and(is_one) || names_one(claims, &[sent.audience.into()]).is_err() {
            return Err(unproved("`aud` must be the URL of this endpoint, as its only value"));
        }
        if claims.get("sub").and_then(Value::as_str) != Some(sent.client_id) {
            return Err(unproved("`sub` is not the configured `client_id`"));
        }
        let issued = issued_at(claims, rules, wall).map_err(as_proof)?;
        let expires = date(claims, "exp").ok_or(unproved("`exp` must be a time"))?;
        // Used requests are recorded in engine time, so the expiry is compared with both clocks.
        if expires.plus(rules.leeway) <= wall.max(engine_now) {
            return Err(unproved("`exp` is in the past"));
        }
        if expires > wall.plus(MAX_LIFETIME).plus(rules.leeway) {
            return Err(unproved("`exp` is more than 10 minutes ahead"));
        }
        let id = text(claims, "jti").map_err(as_proof)?.ok_or(unproved("`jti` is missing"))?;
        let once = UsableOnce {
            kind: "global token revocation",
            issuer: Box::from(&*rules.issuer),
            id: id.into(),
            until: expires.plus(rules.leeway * 2),
        };
        // Sessions and API keys are created in engine time, which may be ahead of the wall clock.
        let user = revoked_user(rules, sent.body, (issued.max(wall).max(engine_now), wall))?;
        Ok(AskedRevocation { once, issuer: Arc::clone(&rules.issuer), user })
    }
}

fn is_one(audience: &Value) -> bool {
    audience.is_string() || audience.as_array().is_some_and(|several| several.len() == 1)
}

fn malformed(what: &'static str) -> Denial {
    Denial::RefusedEvent(EventFlaw::Request(what))
}

/// Reads the user from the body, which must not contain other members.
fn revoked_user(rules: &IssuerRules, body: &[u8], (at, wall): (Timestamp, Timestamp)) -> Result<RevokedUser, Denial> {
    let body = strict_json::object(body).map_err(malformed)?;
    let named = body.get("sub_id").and_then(Value::as_object).filter(|_| body.len() == 1);
    let named = named.ok_or(malformed("the body must be an object whose only member is `sub_id`"))?;
    let only =
        |members: &[&str]| named.len() == members.len() + 1 && members.iter().all(|name| named.contains_key(*name));
    let member = |of: &'_ Map<String, Value>, name: &str| -> Option<Box<str>> { text(of, name).ok()?.map(Into::into) };
    match named.get("format").and_then(Value::as_str).ok_or(malformed("`sub_id` has no `format`"))? {
        "iss_sub" if only(&["iss", "sub"]) => {
            if named.get("iss").and_then(Value::as_str) != Some(&*rules.issuer) {
                return Err(Denial::RefusedEvent(EventFlaw::Issuer));
            }
            let subject = member(named, "sub").ok_or(malformed("`sub` must be a string of 1 to 256 bytes"))?;
            let entry = before(rules, subject_of(rules, &subject), (at, wall), true);
            let is_seen = rules.sessions_seen.knows_user(&subject);
            // The directory knows users by the claim with which they log in.
            let at_directory = match rules.claims.has_sub_as_subject() {
                true => Some(subject.clone()),
                false => rules.sessions_seen.subject_of(&subject),
            };
            let is_mapped = rules.grants.id_jag.as_ref().is_some_and(|jag| jag.subject == JagSubject::Directory);
            let is_sure = at_directory.is_some() || !is_mapped;
            Ok(RevokedUser::Subject { subject, at_directory, is_seen, is_sure, entry })
        }
        format => {
            let name = UserName::read(format, |name| text(named, name).ok().flatten());
            let name = name.filter(|name| rules.user_names.contains(&name.form()) && named.len() == 2);
            name.map(RevokedUser::Named).ok_or(malformed("the format of `sub_id` is not supported"))
        }
    }
}
