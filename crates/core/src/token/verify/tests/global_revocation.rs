//! Requests of another issuer to end everything of a user: each rule refuses alone.

use super::events::{Issuer, issuer};
use super::*;
use crate::denial::EventFlaw;
use crate::revocation::{Effect, LONGEST_KEY, Target};
use crate::token::verify::{AskedRevocation, RevokedUser, SentGlobalRevocation, UserName, UserNameForm};

const URL: &str = "https://gate.example/revoke/idp";

fn claims() -> Value {
    json!({ "iss": IDP, "sub": "0oa1", "aud": URL, "jti": "r-1", "iat": 1_800_000_000, "exp": 1_800_000_300 })
}

fn body() -> Value {
    json!({ "sub_id": { "format": "iss_sub", "iss": IDP, "sub": "ada" } })
}

impl Issuer {
    fn asked(&self, header: Value, changes: Value, body: &str) -> Result<AskedRevocation, EventFlaw> {
        self.asked_at(NOW, header, changes, body)
    }

    fn asked_at(
        &self,
        engine_now: Timestamp,
        header: Value,
        changes: Value,
        body: &str,
    ) -> Result<AskedRevocation, EventFlaw> {
        let header =
            with(json!({ "alg": "ES256", "typ": "global-token-revocation+jwt", "kid": self.key.kid() }), header);
        let token = forge(&self.key, header.to_string(), with(claims(), changes).to_string());
        let sent = SentGlobalRevocation {
            issuer: "idp",
            client_id: "0oa1",
            audience: URL,
            token: &token,
            body: body.as_bytes(),
        };
        self.verifier.asked_revocation(sent, engine_now, NOW).map_err(|denial| match denial {
            Denial::RefusedEvent(flaw) => flaw,
            other => panic!("{other:?}"),
        })
    }

    fn named(&self, body: &Value) -> Result<RevokedUser, EventFlaw> {
        self.asked(json!({}), json!({}), &body.to_string()).map(|asked| asked.user)
    }
}

fn served() -> Issuer {
    issuer(|mut rules| {
        rules.user_names = vec![UserNameForm::Email, UserNameForm::Opaque];
        rules
    })
}

#[test]
fn s14_each_rule_of_the_jwt_refuses_alone_before_the_body_is_read() {
    let issuer = served();
    let good = issuer.asked(json!({}), json!({}), &body().to_string()).unwrap();
    assert_eq!((&*good.once.id, good.once.kind), ("r-1", "global token revocation"));
    assert_eq!(good.once.until, Timestamp::from_secs(1_800_000_360), "as long as it could pass");
    let long = "j".repeat(257);
    for (header, changes) in [
        (json!({ "typ": "JWT" }), json!({})),
        (json!({ "typ": null }), json!({})),
        (json!({ "typ": "at+jwt" }), json!({})),
        (json!({ "kid": "unknown" }), json!({})),
        (json!({ "alg": "RS256" }), json!({})),
        (json!({}), json!({ "iss": "https://other.example/" })),
        (json!({}), json!({ "sub": "another-app" })),
        (json!({}), json!({ "sub": null })),
        (json!({}), json!({ "aud": "https://gate.example/revoke/other" })),
        (json!({}), json!({ "aud": "https://gate.example" })),
        (json!({}), json!({ "aud": [URL, "https://another.example/revoke"] })),
        (json!({}), json!({ "aud": null })),
        (json!({}), json!({ "jti": null })),
        (json!({}), json!({ "jti": long })),
        (json!({}), json!({ "exp": null })),
        (json!({}), json!({ "exp": 1_799_999_900 })),
        (json!({}), json!({ "exp": 1_800_000_631 })),
        (json!({}), json!({ "iat": null })),
        (json!({}), json!({ "iat": 1_800_000_031 })),
    ] {
        // A stranger learns nothing of the body.
        for body in [body().to_string(), "no body".to_owned()] {
            let flaw = issuer.asked(header.clone(), changes.clone(), &body).unwrap_err();
            assert!(matches!(flaw, EventFlaw::Credential(_)), "{header} {changes}: {flaw:?}");
        }
    }
    assert!(issuer.asked(json!({}), json!({ "aud": [URL], "exp": 1_800_000_630 }), &body().to_string()).is_ok());
    let stranger = served();
    let flaw = Issuer { key: stranger.key, verifier: issuer.verifier }.named(&body()).unwrap_err();
    assert!(matches!(flaw, EventFlaw::Credential(_)), "another key: {flaw:?}");
}

#[test]
fn s15_everything_of_the_user_that_began_by_either_clock_ends_with_the_keys() {
    let issuer = served();
    for ahead in [0, 20] {
        let engine_now = NOW.plus(Duration::from_secs(ahead));
        let asked = issuer.asked_at(engine_now, json!({}), json!({}), &body().to_string()).unwrap();
        let RevokedUser::Subject { entry, .. } = asked.user else { panic!("a user of the issuer") };
        assert_eq!(entry.effect, Effect::not_before(engine_now, true));
        assert!(entry.until >= engine_now.plus(LONGEST_KEY));
    }
}

#[test]
fn s13_the_body_names_one_user_of_the_issuer_or_of_the_directory() {
    let issuer = served();
    let RevokedUser::Subject { subject, entry, .. } = issuer.named(&body()).unwrap() else {
        panic!("a user of the issuer")
    };
    assert_eq!((&*subject, entry.target), ("ada", Target::Subject { issuer: IDP.into(), subject: "ada".into() }));
    let named = |sub_id: Value| issuer.named(&json!({ "sub_id": sub_id }));
    let email = named(json!({ "format": "email", "email": "ada@example.com" }));
    assert_eq!(email, Ok(RevokedUser::Named(UserName::Email("ada@example.com".into()))));
    let opaque = named(json!({ "format": "opaque", "id": "u-17" }));
    assert_eq!(opaque, Ok(RevokedUser::Named(UserName::Opaque("u-17".into()))));
    let other = named(json!({ "format": "iss_sub", "iss": "https://other.example/", "sub": "ada" }));
    assert_eq!(other, Err(EventFlaw::Issuer));
    for wrong in [
        json!({ "format": "iss_sub", "iss": IDP }),
        json!({ "format": "iss_sub", "iss": IDP, "sub": "" }),
        json!({ "format": "iss_sub", "iss": IDP, "sub": 7 }),
        json!({ "format": "iss_sub", "iss": IDP, "sub": "ada", "more": 1 }),
        json!({ "format": "email", "email": "ada@example.com", "id": "u-17" }),
        json!({ "format": "phone_number", "phone_number": "+12065550100" }),
        json!({ "iss": IDP, "sub": "ada" }),
        json!("ada"),
    ] {
        assert!(matches!(named(wrong.clone()), Err(EventFlaw::Request(_))), "{wrong}");
    }
    for wrong in ["", "[]", "{}", r#"{"sub_id":{},"sub_id":{}}"#, r#"{"sub_id":{"format":"email"},"more":1}"#] {
        let flaw = issuer.asked(json!({}), json!({}), wrong).unwrap_err();
        assert!(matches!(flaw, EventFlaw::Request(_)), "{wrong}: {flaw:?}");
    }
    // Without `user_names`, a name that the directory would resolve names no user.
    let plain = self::issuer(|rules| rules);
    let flaw = plain.named(&json!({ "sub_id": { "format": "email", "email": "ada@example.com" } })).unwrap_err();
    assert!(matches!(flaw, EventFlaw::Request(_)));
}
