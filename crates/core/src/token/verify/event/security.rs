//! Security event tokens (RFC 8417) and their effect.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::IssuerRules;
use super::super::user_name::UserName;
use super::{
    Ended, EventEffect, EventKind, Reported, Signed, Targets, before, date, issued_at, malformed, names_one, proves,
    session_target, subject_target, text,
};
use crate::clock::Timestamp;
use crate::denial::{Denial, EventFlaw};
use crate::revocation::{Effect, Revocation, Target};

/// The subject of an event (RFC 9493 §3, SSF 1.0 §3).
#[derive(Debug)]
enum NamedSubject<'a> {
    User(&'a str),
    /// A session at the issuer, and its user if the event names the user.
    Session(&'a str, Option<&'a str>),
    Token(&'a str),
    /// A user name that only the directory can resolve.
    ByDirectory(UserName),
    Unknown,
}

impl Signed<'_> {
    // Requirements S19, S20.
    pub(super) fn security_event(self, audience: &[Box<str>], wall: Timestamp) -> Result<Reported, Denial> {
        let Self { rules, typ, claims } = self;
        if typ.as_deref() != Some("secevent+jwt") {
            return Err(malformed("`typ` is not `secevent+jwt`"));
        }
        names_one(&claims, audience)?;
        let issued = issued_at(&claims, rules, wall)?;
        let jti = text(&claims, "jti")?.ok_or(malformed("`jti` is missing"))?;
        let events = claims.get("events").and_then(Value::as_object).ok_or(malformed("`events` must be an object"))?;
        let mut all = events.iter();
        let (Some((uri, event)), None) = (all.next(), all.next()) else {
            return Err(malformed("`events` must contain exactly one event"));
        };
        let event = event.as_object().ok_or(malformed("the event must be an object"))?;
        let kind = EventKind::from_uri(uri);
        let effect = rules.on_event.effect(kind, event);
        let report = |ended| Reported { kind, effect, ended, told: issued, id: jti.into() };
        if effect == EventEffect::Log {
            let state = event.get("state").and_then(Value::as_str);
            tracing::info!(
                issuer = %rules.name,
                kind = uri,
                jti,
                state,
                "received a security event that does not end any tokens"
            );
            return Ok(report(Ended::Nothing));
        }
        let subject = claims.get("sub_id").and_then(Value::as_object).ok_or(malformed("`sub_id` is missing"))?;
        // The later of `event_timestamp` and `iat`, if it is not in the future.
        let stated = date(event, "event_timestamp");
        let at = stated.map_or(issued, |stated| stated.max(issued)).min(wall.max(issued));
        let named = named_subject(rules, subject)?;
        let ended = match effect {
            EventEffect::Refresh => refreshed(rules, named, at, wall),
            EventEffect::End | EventEffect::Log => ended(rules, (kind, named), at, wall),
        };
        Ok(report(ended))
    }
}

fn ended(rules: &IssuerRules, (kind, named): (EventKind, NamedSubject<'_>), at: Timestamp, wall: Timestamp) -> Ended {
    let targets = match named {
        NamedSubject::User(subject) => Targets { with_keys: kind.ends_keys(), ..subject_target(rules, subject) },
        NamedSubject::Session(sid, user) => session_target(rules, sid, user),
        NamedSubject::Token(jti) => return gone(rules, jti, wall),
        NamedSubject::ByDirectory(name) => return by_directory(rules, name, EventEffect::End, at),
        NamedSubject::Unknown => return Ended::Unmatched,
    };
    targets.ended(rules, at, wall)
}

/// All access tokens of the user are refused, so each client must refresh once.
fn refreshed(rules: &IssuerRules, named: NamedSubject<'_>, at: Timestamp, wall: Timestamp) -> Ended {
    let seen = &rules.sessions_seen;
    let (target, user, is_seen, is_sure) = match named {
        NamedSubject::User(subject) | NamedSubject::Session(_, Some(subject)) => {
            (Target::refreshed(&rules.issuer, subject), Some(subject.into()), seen.knows_user(subject), true)
        }
        NamedSubject::Session(sid, None) => {
            (Target::refreshed_session(&rules.issuer, sid), None, seen.knows_session(sid), proves(rules, sid))
        }
        NamedSubject::Token(jti) => return gone(rules, jti, wall),
        NamedSubject::ByDirectory(name) => return by_directory(rules, name, EventEffect::Refresh, at),
        NamedSubject::Unknown => return Ended::Unmatched,
    };
    Targets { target, also: None, user, is_seen, is_sure, with_keys: false }.ended(rules, at, wall)
}

fn gone(rules: &IssuerRules, jti: &str, wall: Timestamp) -> Ended {
    let target = Target::Token { issuer: Arc::clone(&rules.issuer), jti: jti.into() };
    let entry = Revocation { effect: Effect::Gone, ..before(rules, target, (wall, wall), false) };
    Ended::Tokens { entry, also: None, user: None, is_seen: true, is_sure: true }
}

fn by_directory(rules: &IssuerRules, name: UserName, effect: EventEffect, at: Timestamp) -> Ended {
    Ended::OfDirectory { issuer: Arc::clone(&rules.issuer), name, effect, at }
}

fn named_subject<'a>(rules: &IssuerRules, subject: &'a Map<String, Value>) -> Result<NamedSubject<'a>, Denial> {
    match subject.get("format").and_then(Value::as_str) {
        Some("jwt_id") => {
            is_of(rules, subject)?;
            text(subject, "jti")?
                .map(NamedSubject::Token)
                .ok_or(malformed("a subject of the format `jwt_id` has no `jti`"))
        }
        Some("opaque") => session(rules, subject, None),
        Some("complex") => complex(rules, subject),
        Some(_) => user(rules, subject),
        None => Err(malformed("`sub_id` has no `format`")),
    }
}

fn complex<'a>(rules: &IssuerRules, subject: &'a Map<String, Value>) -> Result<NamedSubject<'a>, Denial> {
    let part = |name: &str| subject.get(name).map(|part| part.as_object().ok_or(malformed("`sub_id` is malformed")));
    let (of_session, of_user) = (part("session").transpose()?, part("user").transpose()?);
    if subject.len() < 2 {
        return Err(malformed("a subject of the format `complex` has no member"));
    }
    let user = of_user.map(|of_user| user(rules, of_user)).transpose()?;
    match (of_session, user) {
        (Some(of_session), Some(NamedSubject::User(subject))) if !rules.session_claim.is_empty() => {
            session(rules, of_session, Some(subject))
        }
        (Some(of_session), None | Some(NamedSubject::Unknown)) => session(rules, of_session, None),
        (_, Some(user)) => Ok(user),
        (None, None) => Ok(NamedSubject::Unknown),
    }
}

fn session<'a>(
    rules: &IssuerRules,
    session: &'a Map<String, Value>,
    user: Option<&'a str>,
) -> Result<NamedSubject<'a>, Denial> {
    if rules.session_claim.is_empty() {
        return Err(malformed(
            "the event names only a session, but `session_claim` says that the tokens have no session",
        ));
    }
    if session.get("format").and_then(Value::as_str) != Some("opaque") {
        return Err(malformed("a session must be named with the format `opaque`"));
    }
    let id = text(session, "id")?.ok_or(malformed("a subject of the format `opaque` has no `id`"))?;
    Ok(NamedSubject::Session(id, user))
}

fn user<'a>(rules: &IssuerRules, user: &'a Map<String, Value>) -> Result<NamedSubject<'a>, Denial> {
    match user.get("format").and_then(Value::as_str) {
        Some("iss_sub") => {
            is_of(rules, user)?;
            text(user, "sub")?
                .map(NamedSubject::User)
                .ok_or(malformed("a subject of the format `iss_sub` has no `sub`"))
        }
        Some(format) => {
            let name = UserName::read(format, |member| text(user, member).ok().flatten());
            let name = name.filter(|name| rules.user_names.contains(&name.form()));
            Ok(name.map_or(NamedSubject::Unknown, NamedSubject::ByDirectory))
        }
        None => Err(malformed("the user has no `format`")),
    }
}

fn is_of(rules: &IssuerRules, object: &Map<String, Value>) -> Result<(), Denial> {
    match object.get("iss").and_then(Value::as_str) {
        Some(issuer) if issuer == &*rules.issuer => Ok(()),
        Some(_) | None => Err(Denial::RefusedEvent(EventFlaw::Issuer)),
    }
}
