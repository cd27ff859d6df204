use proptest::prelude::*;

use super::*;

fn reply(status: u16, body: &str) -> ProviderReply {
    ProviderReply { status, body: Zeroizing::new(body.as_bytes().to_vec()), ..ProviderReply::default() }
}

const FULL: &str = r#"{"access_token":"A", "expires_in" : 300 ,"refresh_token":"R","nested":{"expires_in":9}}"#;

#[test]
fn i39_only_a_whole_and_strict_200_is_a_grant() {
    let lifetime = Some(Duration::from_secs(300));
    assert_eq!(read("T", &reply(200, FULL)), Meaning::Granted { rotates: true, lifetime });
    assert_eq!(read("R", &reply(200, FULL)), Meaning::Granted { rotates: false, lifetime }, "the same one again");
    let alone = Meaning::Granted { rotates: false, lifetime: None };
    assert_eq!(read("T", &reply(200, r#"{"access_token":"A","refresh_token":""}"#)), alone);
    let large = format!(r#"{{"access_token":"A","x":"{}"}}"#, "x".repeat(MAX_BODY));
    let unclear = [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":7}"#,
        r#"{"access_token":"A"} x"#,
        r#"{"access_token":"A","access_token":"B"}"#,
        "access_token=A",
        "\u{feff}{\"access_token\":\"A\"}",
        &large,
        &FULL[..FULL.len() - 1],
    ];
    for body in unclear {
        assert_eq!(read("T", &reply(200, body)), Meaning::Unclear, "{}", &body[..body.len().min(60)]);
    }
}

/// What providers document, and what browser sessions and the relay make of it.
#[test]
fn i70_the_answers_of_real_providers_are_refusals_or_outages() {
    use Meaning::{Again, Busy, Dead, Refused, Unclear};
    for (provider, status, body, meaning) in [
        ("Auth0", 403, r#"{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}"#, Dead),
        ("Auth0", 403, r#"{"error":"mfa_required","mfa_token":"x"}"#, Refused),
        ("Auth0", 429, r#"{"error":"too_many_attempts"}"#, Busy),
        ("Entra ID", 400, r#"{"error":"invalid_grant","error_codes":[70008]}"#, Dead),
        (
            "Entra ID",
            400,
            r#"{"error":"interaction_required","error_codes":[50076],"suberror":"basic_action"}"#,
            Refused,
        ),
        ("Entra ID", 400, r#"{"error":"login_required"}"#, Refused),
        ("Entra ID", 400, r#"{"error":"consent_required"}"#, Refused),
        ("Entra ID", 401, r#"{"error":"invalid_client","error_codes":[7000215]}"#, Refused),
        ("Entra ID", 400, r#"{"error":"temporarily_unavailable"}"#, Busy),
        ("GitHub", 200, r#"{"error":"bad_refresh_token"}"#, Dead),
        ("GitHub", 200, r#"{"error":"incorrect_client_credentials"}"#, Refused),
        ("Slack", 200, r#"{"ok":false,"error":"invalid_refresh_token"}"#, Dead),
        ("Slack", 200, r#"{"ok":false,"error":"ratelimited"}"#, Busy),
        ("Slack", 200, r#"{"ok":false,"error":"fatal_error"}"#, Unclear),
        ("Okta", 400, r#"{"error":"invalid_grant"}"#, Dead),
        ("Okta", 403, r#"{"errorCode":"E0000005"}"#, Unclear),
        ("Keycloak", 400, r#"{"error":"invalid_grant","error_description":"Session not active"}"#, Dead),
        ("Keycloak", 400, r#"{"error":"unauthorized_client"}"#, Refused),
        ("Cognito", 400, r#"{"error":"invalid_grant"}"#, Dead),
        ("Cognito", 400, r#"{"error":"invalid_client"}"#, Refused),
        ("Google", 400, r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#, Dead),
        ("Google", 400, r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#, Dead),
        ("RFC 9449", 400, r#"{"error":"use_dpop_nonce"}"#, Again),
        ("a new word", 422, r#"{"error":"the_moon_is_full"}"#, Refused),
        ("no word", 403, r#"{"error":7}"#, Unclear),
        ("no token", 200, r#"{"error":""}"#, Unclear),
        ("a server", 400, r#"{"error":"server_error"}"#, Unclear),
    ] {
        let usual = with_usual_status(reply(status, body));
        assert_eq!(read("T", &usual), meaning, "{provider} {status} {body}");
        // No client takes a refusal for a success.
        assert_eq!(usual.status == 200, status == 200 && meaning == Unclear && error(&usual).is_none(), "{body}");
    }
    let created = with_usual_status(reply(201, FULL));
    assert!(matches!(read("T", &created), Meaning::Granted { rotates: true, .. }) && created.status == 200);
    // A grant beside a word is a grant.
    let both = with_usual_status(reply(200, r#"{"access_token":"A","error":"none"}"#));
    assert!(matches!(read("T", &both), Meaning::Granted { .. }));
}

#[test]
fn i39_each_status_is_read_as_what_it_says_of_a_rotation() {
    let dead = r#"{"error":"invalid_grant","error_description":"used"}"#;
    for status in [400, 401] {
        assert_eq!(read("T", &reply(status, dead)), Meaning::Dead);
        assert_eq!(read("T", &reply(status, r#"{"error":"invalid_client"}"#)), Meaning::Refused);
        for step in ["use_dpop_nonce", "authorization_pending", "slow_down"] {
            assert_eq!(read("T", &reply(status, &format!(r#"{{"error":"{step}"}}"#))), Meaning::Again);
        }
        assert_eq!(read("T", &reply(status, "<html>")), Meaning::Unclear, "some other server");
        assert_eq!(
            read("T", &reply(status, r#"{"error":"invalid_client","error":"invalid_grant"}"#)),
            Meaning::Unclear
        );
    }
    for status in [429, 501, 503] {
        assert_eq!(read("T", &reply(status, dead)), Meaning::Busy);
    }
    for status in [100, 201, 204, 301, 302, 307, 403, 404, 408, 413, 500, 502, 504, 599, 0] {
        assert_eq!(read("T", &reply(status, FULL)), Meaning::Unclear, "{status}");
    }
}

#[test]
fn a_later_answer_lives_for_less_and_is_else_the_same_to_the_byte() {
    let after = |body: &str, secs: u64| {
        let aged = aged(reply(200, body), Duration::from_millis(secs * 1000 + 999));
        String::from_utf8(aged.body.to_vec()).unwrap()
    };
    assert_eq!(after(FULL, 0), FULL);
    assert_eq!(after(FULL, 12), FULL.replace("300", "288"));
    assert_eq!(after(FULL, 301), FULL.replace("300", "0"));
    assert_eq!(after(r#"{"expires_in":"60","a":"300"}"#, 12), r#"{"expires_in":"48","a":"300"}"#);
    assert_eq!(after(r#"{"expires_in":59.9}"#, 12), r#"{"expires_in":47}"#);
    for other in
        [r#"{"expires_in":-5}"#, r#"{"expires_in":null}"#, r#"{"expires_in":"soon"}"#, r#"{"a":1e999}"#, "x", ""]
    {
        assert_eq!(after(other, 12), other);
    }
}

proptest! {
    #[test]
    fn no_body_brings_the_reader_down(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..200), secs in any::<u64>()) {
        let reply = ProviderReply { status, body: Zeroizing::new(body), ..ProviderReply::default() };
        read("T", &reply);
        access_token(&reply);
        aged(reply, Duration::from_secs(secs));
    }

    #[test]
    fn a_kept_reply_reads_back_the_same(status in any::<u16>(), challenge in any::<Option<String>>(), dpop_nonce in any::<Option<String>>(), body in any::<Vec<u8>>()) {
        let reply = ProviderReply { status, challenge, dpop_nonce, retry_after: None, body: Zeroizing::new(body) };
        prop_assert_eq!(ProviderReply::decode(&reply.encode().unwrap()), Some(reply));
    }
}
