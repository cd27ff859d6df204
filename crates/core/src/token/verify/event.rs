//! Verification of signed notices from other issuers: logout tokens and security event tokens.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::genuine::{Genuine, NotGenuine, genuine};
use super::sessions_seen::Named;
use super::user_name::UserName;
use super::{IssuerRules, Verifier};
use crate::clock::Timestamp;
use crate::denial::{Denial, EventFlaw};
use crate::revocation::{Effect, LONGEST_KEY, Revocation, Target};
use crate::strict_json;

pub(super) mod kind;
mod security;

pub use kind::{EventEffect, EventEffects, EventKind};

/// The issuer sends a logout token at the time of the logout.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long a revocation is kept if the maximum lifetime of the issuer's tokens is not configured.
const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
/// The maximum idle timeout of a session whose user was authenticated by another issuer.
pub const VOUCHED_IDLE: Duration = Duration::from_secs(3 * 86_400);
/// Revocations are kept for this long after the tokens expire, so that every gate receives them.
const HEARD_WITHIN: Duration = Duration::from_secs(3600);
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The protocol by which an issuer reports that a session or a user's access has ended.
///
/// ```
/// use rotogate_core::token::verify::EventProtocol;
///
/// assert_eq!(EventProtocol::BackChannelLogout.word(), "logout");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventProtocol {
    /// OpenID Connect back-channel logout 1.0.
    BackChannelLogout,
    /// Security event tokens that the issuer pushes (RFC 8935).
    SecurityEvents,
}

impl EventProtocol {
    /// The name of the protocol in log lines and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BackChannelLogout => "logout",
            Self::SecurityEvents => "events",
        }
    }
}

/// A notice to verify.
#[derive(Clone, Copy)]
pub struct SentNotice<'a> {
    /// The protocol that delivered the notice.
    pub protocol: EventProtocol,
    /// The name of the issuer that must have signed the notice.
    pub issuer: &'a str,
    /// The accepted values of `aud`.
    pub audience: &'a [Box<str>],
    /// The signed notice.
    pub token: &'a str,
}

/// The content of a valid notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The type of the event.
    pub kind: EventKind,
    /// What the gate does in response to the event.
    pub effect: EventEffect,
    /// The revoked tokens and sessions.
    pub ended: Ended,
    /// The time at which the issuer made the notice (`iat`).
    pub told: Timestamp,
    /// The id of the notice (`jti`).
    pub id: Box<str>,
}

/// The tokens and sessions that a notice revokes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The tokens that a revocation entry matches.
    Tokens {
        /// The entry for the revocation list.
        entry: Revocation,
        /// A second entry, for tokens of the subject that may belong to the revoked session.
        also: Option<Revocation>,
        /// The user whose access is revoked. `None` if only a token or a session of the user is revoked.
        user: Option<Box<str>>,
        /// Whether the gate has accepted a token that names this user or session since the gate started. The entry
        /// takes effect anyway.
        is_seen: bool,
        /// Whether the entry certainly matches the intended tokens. If false, the entry takes effect, but the sender
        /// gets an error.
        is_sure: bool,
    },
    /// The tokens of a user whose name only the directory can resolve.
    OfDirectory {
        /// The issuer that names the user.
        issuer: Arc<str>,
        /// The user's name.
        name: UserName,
        /// Whether the tokens are revoked or must be refreshed.
        effect: EventEffect,
        /// Only tokens issued up to this moment are affected.
        at: Timestamp,
    },
    /// The event does not revoke tokens or sessions.
    Nothing,
    /// The gate cannot relate the subject of the event to a user or a session.
    Unmatched,
}

impl Ended {
    /// The user whose access is revoked, or `None` if only a token or a session of the user is revoked.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Tokens { user, .. } => user.as_deref(),
            Self::OfDirectory { name, .. } => Some(name.text()),
            Self::Nothing | Self::Unmatched => None,
        }
    }
}

/// How long an issuer may take to publish a new key. Until then, the sender must retry notices with an unknown key.
const KEY_LAG: Duration = Duration::from_secs(300);
const KEY_RETRY: Duration = Duration::from_secs(5);

pub(super) struct Signed<'a> {
    pub(super) rules: &'a IssuerRules,
    pub(super) typ: Option<String>,
    pub(super) claims: Map<String, Value>,
}

pub(super) fn malformed(what: &'static str) -> Denial {
    Denial::RefusedEvent(EventFlaw::Request(what))
}

impl Verifier {
    /// Verifies a notice, and returns what it reports.
    ///
    /// # Errors
    /// [`Denial::RefusedEvent`]; [`Denial::KeysUnavailable`].
    pub fn reported(&self, notice: SentNotice<'_>, engine_now: Timestamp, wall: Timestamp) -> Result<Reported, Denial> {
        let signed = self.notice(notice.issuer, notice.token, engine_now)?;
        match notice.protocol {
            EventProtocol::BackChannelLogout => signed.logout(notice.audience, wall),
            EventProtocol::SecurityEvents => signed.security_event(notice.audience, wall),
        }
    }

    pub(super) fn notice(&self, issuer: &str, token: &str, now: Timestamp) -> Result<Signed<'_>, Denial> {
        let rules = self.named(issuer).ok_or(Denial::RefusedEvent(EventFlaw::Issuer))?;
        let issued = std::cell::Cell::new(None);
        let read = |payload: &[u8]| {
            let claims = strict_json::object(payload).map_err(malformed)?;
            issued.set(date(&claims, "iat"));
            let is_its = claims.get("iss").and_then(Value::as_str) == Some(&*rules.issuer);
            if is_its { Ok(claims) } else { Err(Denial::RefusedEvent(EventFlaw::Issuer)) }
        };
        let refuse = |flaw| match flaw {
            NotGenuine::MissingKey
                if issued.get().is_some_and(|at| now < at.plus(KEY_LAG) && at < now.plus(KEY_LAG)) =>
            {
                Denial::KeysUnavailable(KEY_RETRY)
            }
            flaw => flaw.denial(malformed, Denial::RefusedEvent(EventFlaw::Key)),
        };
        let Genuine { claims, typ, .. } = genuine((&rules.keys, rules.leeway), token, now, read, refuse)?;
        Ok(Signed { rules, typ, claims })
    }
}

impl Signed<'_> {
    /// Ends the sessions that a logout token names (OpenID Connect back-channel logout 1.0 §2.6).
    // Requirements N49, N50.
    fn logout(self, audience: &[Box<str>], wall: Timestamp) -> Result<Reported, Denial> {
        let Self { rules, typ, claims } = self;
        if !matches!(typ.as_deref(), None | Some("logout+jwt" | "jwt")) {
            return Err(malformed("`typ` is not the type of a logout token"));
        }
        names_one(&claims, audience)?;
        let at = issued_at(&claims, rules, wall)?;
        if at.plus(MAX_AGE).plus(rules.leeway) < wall {
            return Err(malformed("`iat` is too long ago"));
        }
        if claims.contains_key("exp") {
            let exp = date(&claims, "exp").ok_or(malformed("`exp` must be a time"))?;
            if exp.plus(rules.leeway) <= wall {
                return Err(malformed("`exp` is in the past"));
            }
        }
        let id = text(&claims, "jti")?.ok_or(malformed("`jti` is missing"))?;
        if claims.get("nonce").is_some_and(|nonce| !nonce.is_null()) {
            return Err(malformed("a logout token must not have a `nonce`"));
        }
        let events = claims.get("events").and_then(Value::as_object).ok_or(malformed("`events` must be an object"))?;
        if !events.get(LOGOUT).is_some_and(Value::is_object) {
            return Err(malformed("the claim `events` does not contain the logout event"));
        }
        let targets = match (text(&claims, "sid")?, text(&claims, "sub")?) {
            (Some(sid), subject) if !rules.session_claim.is_empty() => session_target(rules, sid, subject),
            (_, Some(subject)) => {
                // An ordinary logout is not reported as the end of the user's access.
                let is_usual = rules.sessions_seen.is_usual_logout(subject);
                let targets = subject_target(rules, subject);
                Targets { user: targets.user.filter(|_| !is_usual), ..targets }
            }
            (Some(_), None) => {
                return Err(malformed(
                    "the notice has `sid` without `sub`, but `session_claim` says that the tokens have no session",
                ));
            }
            (None, None) => return Err(malformed("neither `sub` nor `sid` is present")),
        };
        let ended = targets.ended(rules, at, wall);
        let (kind, effect) = (EventKind::Logout, EventEffect::End);
        Ok(Reported { kind, effect, ended, told: at, id: id.into() })
    }
}

struct Targets {
    target: Target,
    also: Option<Target>,
    user: Option<Box<str>>,
    is_seen: bool,
    is_sure: bool,
    with_keys: bool,
}

impl Targets {
    fn ended(self, rules: &IssuerRules, at: Timestamp, wall: Timestamp) -> Ended {
        let Self { target, also, user, is_seen, is_sure, with_keys } = self;
        let also = also.map(|also| before(rules, also, (at, wall), false));
        Ended::Tokens { entry: before(rules, target, (at, wall), with_keys), also, user, is_seen, is_sure }
    }
}

// Requirements N66, N72, N73.
fn session_target(rules: &IssuerRules, sid: &str, subject: Option<&str>) -> Targets {
    let named = rules.sessions_seen.name(sid);
    let also = subject.map(|subject| match named {
        Named::Carried => Target::without_session_of(&rules.issuer, subject),
        Named::Elsewhere | Named::Unproven => Target::any_session_of(&rules.issuer, subject),
    });
    let is_sure = also.is_some() || named != Named::Unproven;
    if !is_sure {
        tracing::error!(
            issuer = %rules.name,
            session_claim = %rules.session_claim,
            "a notice names only a session, and no accepted token of this issuer has named that session, so tokens may \
             stay valid. Let the issuer send `sub`, or set `session_claim` to the claim of its tokens that contains \
             the session"
        );
    } else if named == Named::Unproven {
        tracing::warn!(
            issuer = %rules.name,
            session_claim = %rules.session_claim,
            "a notice names a session that no accepted token of this issuer has named, so all tokens of its subject \
             end. If this line repeats, correct `session_claim`"
        );
    }
    // The notice revokes all sessions of the user, because the gate may not know all of them.
    let user = subject.filter(|subject| !rules.sessions_seen.is_of(sid, subject)).map(Box::from);
    let is_seen =
        rules.sessions_seen.knows_session(sid) || subject.is_some_and(|one| rules.sessions_seen.knows_user(one));
    Targets { target: Target::session_of(&rules.issuer, sid), also, user, is_seen, is_sure, with_keys: false }
}

fn subject_target(rules: &IssuerRules, subject: &str) -> Targets {
    let (target, user) = (subject_of(rules, subject), Some(subject.into()));
    let is_seen = rules.sessions_seen.knows_user(subject);
    Targets { target, also: None, user, is_seen, is_sure: true, with_keys: false }
}

pub(super) fn subject_of(rules: &IssuerRules, subject: &str) -> Target {
    Target::Subject { issuer: Arc::clone(&rules.issuer), subject: subject.into() }
}

fn proves(rules: &IssuerRules, sid: &str) -> bool {
    rules.sessions_seen.name(sid) != Named::Unproven
}

/// Returns an entry that revokes the tokens issued until now. The entry is kept until these tokens, and any revoked API
/// keys, have expired.
pub(super) fn before(
    rules: &IssuerRules,
    target: Target,
    (at, wall): (Timestamp, Timestamp),
    with_keys: bool,
) -> Revocation {
    let longest = rules.max_lifetime.unwrap_or(MAX_LIFETIME).max(if with_keys { LONGEST_KEY } else { Duration::ZERO });
    let of_tokens = at.plus(longest).plus(rules.leeway);
    let until = of_tokens.max(wall.plus(VOUCHED_IDLE).plus(HEARD_WITHIN));
    Revocation { target, effect: Effect::not_before(at, with_keys), until }
}

pub(super) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Denial> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (1..=256).contains(&text.len()) => Ok(Some(text)),
        Some(_) => Err(malformed("a claim must be a string of 1 to 256 bytes")),
    }
}

pub(super) fn names_one(claims: &Map<String, Value>, audience: &[Box<str>]) -> Result<(), Denial> {
    let ours = |one: &str| audience.iter().any(|own| **own == *one);
    let is_ours = match claims.get("aud") {
        Some(Value::String(one)) => ours(one),
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).any(ours),
        Some(_) | None => false,
    };
    if is_ours { Ok(()) } else { Err(Denial::RefusedEvent(EventFlaw::Audience)) }
}

/// Reads a NumericDate claim (RFC 7519 §2).
pub(super) fn date(claims: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    match claims.get(name)? {
        Value::Number(number) => Timestamp::from_numeric_date(number),
        _ => None,
    }
}

pub(super) fn issued_at(
    claims: &Map<String, Value>,
    rules: &IssuerRules,
    wall: Timestamp,
) -> Result<Timestamp, Denial> {
    let at = date(claims, "iat").ok_or(malformed("`iat` must be a time"))?;
    if at > wall.plus(rules.leeway) { Err(malformed("`iat` is in the future")) } else { Ok(at) }
}
