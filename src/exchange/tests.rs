use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;

use super::*;
use rotogate_core::http_client::{HttpClient, SecretPlace};

fn exchanger(form: ExchangeForm) -> HttpExchanger {
    HttpExchanger {
        caller: HttpCaller::new(HttpClient::new().unwrap(), Duration::from_secs(1)),
        url: Arc::new(|| None),
        place: "kc".to_owned(),
        client: ClientCredentials {
            id: "gate".to_owned(),
            secret: Some((SecretString::from("of the gate"), SecretPlace::Form)),
            assertions: None,
        },
        form,
        audience: None,
        resource: None,
        scope: Scope::parse("https://graph.microsoft.com/User.Read").unwrap(),
        then: None,
    }
}

fn reply(status: u16, body: &str) -> ProviderReply {
    ProviderReply {
        status,
        retry_after: None,
        challenge: None,
        dpop_nonce: None,
        body: Zeroizing::new(body.as_bytes().to_vec()),
    }
}

#[test]
fn d17_entra_is_asked_with_the_fields_that_msal_sends() {
    let entra = exchanger(ExchangeForm::Entra);
    let (mut headers, mut body) = (HeaderMap::new(), entra.body("ey.J.x"));
    entra.client.add_to(&mut headers, &mut body).unwrap();
    // msal 1.39, `acquire_token_on_behalf_of`, without `client_info`, which asks for a user's account.
    assert_eq!(
        std::str::from_utf8(&body).unwrap(),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey.J.x\
         &requested_token_use=on_behalf_of&scope=https%3A%2F%2Fgraph.microsoft.com%2FUser.Read\
         &client_id=gate&client_secret=of+the+gate"
    );
    assert!(headers.is_empty());
    // An app alone has no user.
    let token = |claims: &Value| {
        format!("e30.{}.x", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string()))
    };
    assert!(has_delegated_scope(&token(&json!({ "scp": "access_as_user" }))));
    assert!(!has_delegated_scope(&token(&json!({ "roles": ["app"] }))) && !has_delegated_scope("x"));
}

#[test]
fn d12_each_answer_of_a_provider_has_its_meaning() {
    let kc = HttpExchanger { scope: Scope::parse("g.read g.list").unwrap(), ..exchanger(ExchangeForm::Rfc8693) };
    let good = json!({
        "access_token": "t", "token_type": "bearer", "issued_token_type": ACCESS_TOKEN, "expires_in": 300,
        "scope": "g.read", "refresh_token": "never read",
    });
    let token = kc.read(&reply(200, &good.to_string())).unwrap();
    assert_eq!((token.token.as_str(), token.expires_in), ("t", Some(Duration::from_secs(300))));
    let word =
        |status: u16, body: &str| kc.read(&reply(status, body)).map(|_| "ok").unwrap_or_else(|fault| fault.word());
    for (name, value) in [
        ("token_type", json!("DPoP")),
        ("token_type", Value::Null),
        ("issued_token_type", json!("urn:ietf:params:oauth:token-type:refresh_token")),
        ("issued_token_type", Value::Null),
        ("scope", json!("g.read admin")),
        ("scope", json!(["admin"])),
        ("access_token", json!("")),
        ("access_token", json!("a b")),
        ("access_token", json!("x".repeat(MAX_TOKEN + 1))),
        ("expires_in", json!("soon")),
    ] {
        let mut lies = good.clone();
        lies[name] = value;
        assert_eq!(word(200, &lies.to_string()), "unavailable", "{name}: {lies}");
    }
    let said = |error: &str| json!({ "error": error }).to_string();
    for (status, body, meaning) in [
        (200, "no JSON".to_owned(), "unavailable"),
        (200, "{\"access_token\":\"a\",\"access_token\":\"b\"}".to_owned(), "unavailable"),
        (429, said("invalid_grant"), "unavailable"),
        (500, said("invalid_grant"), "unavailable"),
        (400, said("something_new"), "refused"),
        (400, said("temporarily_unavailable"), "unavailable"),
        (400, said("server_error"), "unavailable"),
        (403, said("invalid_grant"), "refused"),
        (404, String::new(), "unavailable"),
        (400, said("invalid_grant"), "refused"),
        (400, said("consent_required"), "refused"),
        (403, said("access_denied"), "refused"),
        (400, said("interaction_required"), "refused"),
        (400, said("invalid_request"), "refused"),
        (401, said("invalid_token"), "refused"),
        (401, said("invalid_client"), "client_refused"),
        (400, said("unauthorized_client"), "client_refused"),
        (400, said("invalid_target"), "client_refused"),
        (400, said("invalid_scope"), "client_refused"),
        (401, said("insufficient_user_authentication"), "step_up"),
    ] {
        assert_eq!(word(status, &body), meaning, "{status} {body}");
    }
    let claims = json!({ "error": "interaction_required", "claims": "{\"access_token\":{}}" }).to_string();
    let ExchangeFault::StepUp(challenge) = kc.read(&reply(400, &claims)).unwrap_err() else { panic!("no step-up") };
    assert_eq!(&*challenge, "Bearer error=\"insufficient_claims\", claims=\"eyJhY2Nlc3NfdG9rZW4iOnt9fQ==\"");
    let long = json!({ "error": "interaction_required", "claims": "x".repeat(MAX_CLAIMS) }).to_string();
    assert_eq!(word(400, &long), "refused", "no challenge is longer");
}

#[test]
fn d31_an_identity_assertion_is_asked_for_and_presented_with_these_fields() {
    let scope = Scope::parse("read").unwrap();
    let jag = HttpExchanger {
        scope: scope.clone(),
        audience: Some("https://as.test".into()),
        ..exchanger(ExchangeForm::IdJag)
    };
    let text = |exchanger: &HttpExchanger| String::from_utf8(exchanger.body("ey.J.x").to_vec()).unwrap();
    assert_eq!(
        text(&jag),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=ey.J.x\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token\
         &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid-jag&audience=https%3A%2F%2Fas.test&scope=read"
    );
    let then = HttpExchanger { scope, ..exchanger(ExchangeForm::JwtBearer) };
    let expected = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey.J.x";
    assert_eq!(text(&then), expected, "the scope is in the assertion");
    // Each form refuses tokens of the other form, and both refuse a wider scope.
    let answer = |kind: &str, issued: Option<&str>, scope: &str| {
        json!({ "access_token": "t", "token_type": kind, "issued_token_type": issued, "scope": scope }).to_string()
    };
    let takes = |exchanger: &HttpExchanger, answer: &str| exchanger.read(&reply(200, answer)).is_ok();
    assert!(takes(&jag, &answer("N_A", Some(ID_JAG), "read")) && takes(&then, &answer("Bearer", None, "read")));
    for bad in [
        answer("Bearer", Some(ID_JAG), "read"),
        answer("N_A", Some(ACCESS_TOKEN), "read"),
        answer("N_A", Some(ID_JAG), "a"),
    ] {
        assert!(!takes(&jag, &bad), "{bad}");
    }
    for bad in [answer("N_A", None, "read"), answer("Bearer", None, "read write")] {
        assert!(!takes(&then, &bad), "{bad}");
    }
}
