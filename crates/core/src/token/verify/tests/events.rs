//! Security event tokens: types, subjects, and what each does.

use super::*;
use crate::denial::EventFlaw;
use crate::revocation::{Effect, LONGEST_KEY, Target};
use crate::token::live_keys::{FetchRules, LiveKeys, Validity};
use crate::token::verify::event::Ended;
use crate::token::verify::{EventEffect, EventKind, EventProtocol, Reported, SentNotice, UserNameForm};

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type";

pub(super) struct Issuer {
    pub(super) key: SigningKey,
    pub(super) verifier: Verifier,
}

pub(super) fn issuer(rules: impl FnOnce(IssuerRules) -> IssuerRules) -> Issuer {
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let keys = IssuerKeys::from_jwks(jwks(std::slice::from_ref(&key)).to_string().as_bytes(), None).unwrap();
    let external = IssuerRules::external(IDP, vec!["api".into()], keys).named("idp");
    Issuer { key, verifier: Verifier::new(vec![rules(external)]).unwrap() }
}

fn user() -> Value {
    json!({ "format": "iss_sub", "iss": IDP, "sub": "ada" })
}

impl Issuer {
    #[expect(clippy::needless_pass_by_value, reason = "the tests are shorter so")]
    fn told(&self, uri: &str, event: Value, subject: Value) -> Result<Reported, Denial> {
        let header = json!({ "alg": "ES256", "typ": "secevent+jwt", "kid": self.key.kid() });
        let claims = json!({ "iss": IDP, "aud": "gate", "iat": 1_800_000_000, "jti": "e-1", "sub_id": subject,
            "events": { uri: event } });
        let token = forge(&self.key, header.to_string(), claims.to_string());
        let (protocol, audience) = (EventProtocol::SecurityEvents, ["gate".into()]);
        let sent = SentNotice { protocol, issuer: "idp", audience: &audience, token: &token };
        self.verifier.reported(sent, NOW, NOW)
    }

    /// A logout of a session, in a text with the key of another issuer.
    fn told_by(&self, signer: &SigningKey, now: Timestamp) -> Denial {
        self.told_as(signer.kid(), signer, now)
    }

    fn told_as(&self, kid: &str, signer: &SigningKey, now: Timestamp) -> Denial {
        let header = json!({ "alg": "ES256", "typ": "secevent+jwt", "kid": kid });
        let claims = json!({ "iss": IDP, "aud": "gate", "iat": 1_800_000_000, "jti": "e-1", "sub_id": user(),
            "events": { format!("{CAEP}/session-revoked"): {} } });
        let token = forge(signer, header.to_string(), claims.to_string());
        let sent = SentNotice {
            protocol: EventProtocol::SecurityEvents,
            issuer: "idp",
            audience: &["gate".into()],
            token: &token,
        };
        self.verifier.reported(sent, now, now).unwrap_err()
    }

    fn effect(&self, uri: &str, event: Value) -> EventEffect {
        self.told(uri, event, user()).unwrap().effect
    }

    fn ends(&self, subject: Value) -> Ended {
        self.told(&format!("{CAEP}/session-revoked"), json!({}), subject).unwrap().ended
    }
}

#[test]
fn s19_each_type_has_its_effect_and_none_makes_a_change_for_the_better_worse() {
    let issuer = issuer(|rules| rules);
    for (base, word, effect) in [
        (CAEP, "session-revoked", EventEffect::End),
        (RISC, "account-disabled", EventEffect::End),
        (RISC, "account-purged", EventEffect::End),
        (RISC, "credential-compromise", EventEffect::End),
        (RISC, "sessions-revoked", EventEffect::End),
        (CAEP, "credential-change", EventEffect::Refresh),
        (CAEP, "token-claims-change", EventEffect::Refresh),
        (CAEP, "assurance-level-change", EventEffect::Refresh),
        (RISC, "account-credential-change-required", EventEffect::Refresh),
        (CAEP, "device-compliance-change", EventEffect::Log),
        (CAEP, "risk-level-change", EventEffect::Log),
        (RISC, "account-enabled", EventEffect::Log),
        (RISC, "identifier-changed", EventEffect::Log),
        (RISC, "identifier-recycled", EventEffect::Log),
        (CAEP, "session-established", EventEffect::Log),
        (CAEP, "session-presented", EventEffect::Log),
        // Of another namespace it is another type.
        (RISC, "session-revoked", EventEffect::Log),
        (CAEP, "account-disabled", EventEffect::Log),
        (SSF, "session-revoked", EventEffect::Log),
        ("https://events.example", "session-revoked", EventEffect::Log),
    ] {
        assert_eq!(issuer.effect(&format!("{base}/{word}"), json!({})), effect, "{base} {word}");
    }
    let strict = self::issuer(|rules| {
        EventKind::configurable().fold(rules, |rules, kind| rules.on_event(kind, EventEffect::End))
    });
    for (word, better, worse) in [
        ("credential-change", json!({ "change_type": "create" }), json!({ "change_type": "revoke" })),
        (
            "assurance-level-change",
            json!({ "change_direction": "increase" }),
            json!({ "change_direction": "decrease" }),
        ),
        (
            "device-compliance-change",
            json!({ "current_status": "compliant" }),
            json!({ "current_status": "not-compliant" }),
        ),
        ("risk-level-change", json!({ "current_level": "LOW" }), json!({ "current_level": "HIGH" })),
    ] {
        let uri = format!("{CAEP}/{word}");
        assert_eq!(strict.effect(&uri, better), EventEffect::Log, "{word}");
        assert_eq!(strict.effect(&uri, worse), EventEffect::End, "{word}");
    }
    // An event about the stream itself ends nothing, whatever is configured.
    let verified =
        strict.told(&format!("{SSF}/verification"), json!({ "state": "s-1" }), json!({ "format": "opaque" }));
    let verified = verified.unwrap();
    assert_eq!((verified.kind, verified.ended), (EventKind::Verification, Ended::Nothing));
    let paused = strict.told(&format!("{SSF}/stream-updated"), json!({ "status": "paused" }), Value::Null).unwrap();
    assert_eq!((paused.kind, paused.ended), (EventKind::StreamUpdated, Ended::Nothing));
}

#[test]
fn s20_each_subject_is_matched_or_counted_as_nobodys() {
    let issuer = issuer(|mut rules| {
        rules.user_names = vec![UserNameForm::Email];
        rules
    });
    let target = |subject: Value| match issuer.ends(subject) {
        Ended::Tokens { entry, .. } => entry.target,
        other => panic!("{other:?}"),
    };
    assert_eq!(target(user()), Target::Subject { issuer: IDP.into(), subject: "ada".into() });
    let jwt = json!({ "format": "jwt_id", "iss": IDP, "jti": "t-1" });
    assert_eq!(target(jwt), Target::Token { issuer: IDP.into(), jti: "t-1".into() });
    let session = json!({ "format": "opaque", "id": "s-1" });
    assert_eq!(target(session.clone()), Target::session_of(IDP, "s-1"));
    let both =
        json!({ "format": "complex", "session": session, "user": user(), "tenant": { "format": "opaque", "id": "t" } });
    let Ended::Tokens { entry, also, is_sure, .. } = issuer.ends(both) else { panic!("it ends a session") };
    assert_eq!((entry.target, is_sure), (Target::session_of(IDP, "s-1"), true));
    assert_eq!(also.unwrap().target, Target::any_session_of(IDP, "ada"), "no token named the session");
    let email = json!({ "format": "email", "email": "ada@example.com" });
    for subject in [email.clone(), json!({ "format": "complex", "user": email })] {
        let Ended::OfDirectory { name, effect, .. } = issuer.ends(subject) else { panic!("the directory knows whom") };
        assert_eq!((name.text(), effect), ("ada@example.com", EventEffect::End));
    }
    for nobody in [
        json!({ "format": "complex", "tenant": { "format": "opaque", "id": "t-1" } }),
        json!({ "format": "complex", "device": { "format": "opaque", "id": "d-1" } }),
        json!({ "format": "complex", "user": { "format": "opaque", "id": "u-1" } }),
        json!({ "format": "phone_number", "phone_number": "+12065550100" }),
        json!({ "format": "account", "uri": "acct:ada@example.com" }),
        json!({ "format": "email" }),
    ] {
        assert_eq!(issuer.ends(nobody.clone()), Ended::Unmatched, "{nobody}");
    }
    let other = json!({ "format": "iss_sub", "iss": "https://other.example/", "sub": "ada" });
    let told = issuer.told(&format!("{CAEP}/session-revoked"), json!({}), other);
    assert_eq!(told, Err(Denial::RefusedEvent(EventFlaw::Issuer)), "an issuer speaks for its own users");
}

#[test]
fn s15_a_notice_concerns_a_user_unless_it_names_one_token_or_one_known_session() {
    let issuer = issuer(|mut rules| {
        rules.user_names = vec![UserNameForm::Email];
        rules
    });
    issuer.verifier.rules(IDP).unwrap().sessions_seen.note(Some("s-1"), "ada");
    let session = |id: &str| json!({ "format": "opaque", "id": id });
    let both = |id: &str, user: Value| json!({ "format": "complex", "session": session(id), "user": user });
    let bob = json!({ "format": "iss_sub", "iss": IDP, "sub": "bob" });
    for (subject, ended, refreshed) in [
        (user(), Some("ada"), Some("ada")),
        (both("s-1", user()), None, Some("ada")),
        (both("s-1", bob), Some("bob"), Some("bob")),
        (both("s-2", user()), Some("ada"), Some("ada")),
        (session("s-1"), None, None),
        (json!({ "format": "jwt_id", "iss": IDP, "jti": "t-1" }), None, None),
        (json!({ "format": "email", "email": "a@b.test" }), Some("a@b.test"), Some("a@b.test")),
        (json!({ "format": "phone_number", "phone_number": "+1" }), None, None),
    ] {
        let told = issuer.told(&format!("{CAEP}/credential-change"), json!({}), subject.clone()).unwrap().ended;
        assert_eq!((issuer.ends(subject.clone()).user(), told.user()), (ended, refreshed), "{subject}");
    }
}

#[test]
fn s19_a_refresh_refuses_the_access_tokens_of_its_user_and_no_session() {
    let issuer = issuer(|rules| rules);
    let uri = format!("{CAEP}/credential-change");
    let changed = json!({ "change_type": "update", "event_timestamp": 1_799_999_000 });
    let session = json!({ "format": "opaque", "id": "s-1" });
    let both = json!({ "format": "complex", "session": session.clone(), "user": user() });
    for (subject, wanted, is_known) in [
        (user(), Target::refreshed(IDP, "ada"), true),
        (both, Target::refreshed(IDP, "ada"), true),
        (session, Target::refreshed_session(IDP, "s-1"), false),
    ] {
        let told = issuer.told(&uri, changed.clone(), subject).unwrap();
        assert_eq!(told.effect, EventEffect::Refresh);
        let Ended::Tokens { entry, also: None, is_sure, .. } = told.ended else { panic!("{told:?}") };
        assert_eq!((entry.target, is_sure), (wanted, is_known));
        // S22: the time of the report, so a later login lives, however often the event comes.
        assert_eq!(entry.effect, Effect::NotBefore(Timestamp::from_secs(1_800_000_000)));
    }
}

#[test]
fn n51_an_event_whose_key_the_published_set_lacks_is_undecided_for_minutes_and_then_refused() {
    let live = LiveKeys::fetched(FetchRules { cooldown: Duration::from_secs(30), timeout: Duration::from_secs(5) });
    let issuer = issuer(|rules| IssuerRules { keys: Keys::Live(Arc::clone(&live)), ..rules });
    let fetch = |at| {
        let attempt = live.begin(at, at);
        let published = jwks(std::slice::from_ref(&issuer.key)).to_string();
        live.set(IssuerKeys::from_jwks(published.as_bytes(), None).unwrap(), Validity::ENDLESS);
        attempt.succeed();
    };
    let (next, refused) = (SigningKey::generate(Algorithm::Es256).unwrap(), Denial::RefusedEvent(EventFlaw::Key));
    fetch(NOW);
    for after in [0, 1, 29, 299] {
        let denial = issuer.told_by(&next, NOW.plus(Duration::from_secs(after)));
        assert!(matches!(denial, Denial::KeysUnavailable(_)), "{after}: {denial:?}");
        fetch(NOW.plus(Duration::from_secs(after)));
    }
    assert_eq!(issuer.told_by(&next, NOW.plus(Duration::from_secs(301))), refused);
    // Neither clock is years ahead.
    assert_eq!(issuer.told_by(&next, NOW.minus(Duration::from_secs(301))), refused);
    // So is one under a known name that another key signed: the issuer may have put that key under the name.
    let told = |after| issuer.told_as(issuer.key.kid(), &next, NOW.plus(Duration::from_secs(after)));
    assert!(matches!(told(299), Denial::KeysUnavailable(_)) && !live.is_wanted());
    assert_eq!(told(301), refused);
    assert!(matches!(told(329), Denial::KeysUnavailable(_)) && live.is_wanted(), "asks after the cooldown");
}

#[test]
fn s19_k4_the_end_of_an_account_ends_the_keys_of_its_user_for_as_long_as_a_key_lives() {
    let (issuer, at) = (issuer(|rules| rules), Timestamp::from_secs(1_800_000_000));
    for (base, word, with_keys) in [
        (RISC, "account-disabled", true),
        (RISC, "account-purged", true),
        (RISC, "sessions-revoked", false),
        (RISC, "credential-compromise", false),
        (CAEP, "session-revoked", false),
    ] {
        let told = issuer.told(&format!("{base}/{word}"), json!({}), user()).unwrap();
        let Ended::Tokens { entry, .. } = told.ended else { panic!("{word}") };
        assert_eq!(entry.effect, Effect::not_before(at, with_keys), "{word}");
        assert_eq!(entry.until >= at.plus(LONGEST_KEY), with_keys, "{word}");
    }
}
