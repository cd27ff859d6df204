//! Reading and writing, without an engine: requests become commands, and outcomes become replies of RFC 6749.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use secrecy::ExposeSecret;

use super::*;
use rotogate_core::fault::Fault;
use rotogate_core::session::rotation::SessionEnd;

const FORM: &str = "application/x-www-form-urlencoded";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn call<'a>(operation: &'static str, headers: &'a HeaderMap, body: &'a Bytes) -> Call<'a> {
    Call {
        operation,
        params: &[],
        method: &Method::POST,
        headers,
        path: "/t",
        query: None,
        body,
        address: None,
        from_own_origin: true,
    }
}

fn read_at(operation: &'static str, headers: &HeaderMap, body: &str) -> Result<Command, Denial> {
    OAuth2.read(&call(operation, headers, &Bytes::copy_from_slice(body.as_bytes())))
}

fn read(body: &str) -> Result<Command, Denial> {
    read_at(TOKEN, &headers(&[]), body)
}

#[test]
fn meshydb_requests_with_all_seven_fields_are_read() {
    let login = "client_id=K&client_secret=&grant_type=password&username=U&password=P%2B+x\
                 &scope=meshy.api%20offline_access%20openid&refresh_token=";
    let Ok(Command::Login { client: Some(client), username, password, scope, .. }) = read(login) else {
        panic!("not a login")
    };
    assert_eq!((client.id.as_str(), client.secret.is_none()), ("K", true));
    assert_eq!((username.as_str(), password.expose_secret()), ("U", "P+ x"));
    assert_eq!(scope.unwrap().as_str(), "meshy.api offline_access openid");

    let refresh = "client_id=K&client_secret=&grant_type=refresh_token&username=&password=\
                   &scope=meshy.api+offline_access+openid&refresh_token=R";
    let Ok(Command::Refresh { credential: RefreshCredential::Refresh(token), .. }) = read(refresh) else {
        panic!("not a refresh")
    };
    assert_eq!(token.expose_secret(), "R");
}

#[test]
fn r11_a_parameter_sent_twice_is_refused_even_an_unknown_one() {
    for body in [
        "grant_type=refresh_token&refresh_token=a&refresh_token=b&client_id=K",
        "grant_type=refresh_token&refresh_token=a&refresh_token=&client_id=K",
        "grant_type=refresh_token&refresh_token=a&client_id=K&x=1&x=1",
        "grant_type=refresh_token&grant%5Ftype=password&refresh_token=a&client_id=K",
    ] {
        assert_eq!(read(body).unwrap_err(), Denial::MalformedRequest("a parameter was sent twice"), "{body}");
    }
}

/// `first` with further parameters, so that there are `count`.
fn padded(first: &str, count: usize) -> String {
    let more = (first.split('&').count()..count).map(|n| format!("&p{n}=1"));
    first.to_owned() + &more.collect::<String>()
}

#[test]
fn a23_a_form_has_so_many_parameters_and_as_many_as_that_are_read() {
    let many = Denial::MalformedRequest("the body has more than 64 parameters");
    for (operation, first) in [
        (TOKEN, "grant_type=refresh_token&refresh_token=a&client_id=K"),
        (REVOCATION, "token=a&client_id=K"),
        (INTROSPECTION, "token=a&client_id=K"),
    ] {
        assert!(read_at(operation, &headers(&[]), &padded(first, form::MAX_PARAMETERS)).is_ok(), "{operation}");
        for count in [form::MAX_PARAMETERS + 1, 5000] {
            assert_eq!(read_at(operation, &headers(&[]), &padded(first, count)).unwrap_err(), many, "{operation}");
        }
    }
    // A parameter that may be repeated counts each time.
    let resources = "&resource=https%3A%2F%2Fa.test".repeat(form::MAX_PARAMETERS);
    let body = format!("grant_type=refresh_token&refresh_token=a&client_id=K{resources}");
    assert_eq!(read(&body).unwrap_err(), many);
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    for (body, expected) in [
        ("client_id=K", Denial::MalformedRequest("grant_type is missing")),
        ("client_id=K&grant_type=", Denial::MalformedRequest("grant_type is missing")),
        ("client_id=K&grant_type=authorization_code", Denial::UnsupportedGrantType),
        ("client_id=K&grant_type=refresh_token", Denial::MalformedRequest("refresh_token is missing")),
        ("client_id=K&grant_type=password&password=x", Denial::MalformedRequest("username is missing")),
        ("client_id=K&grant_type=password&username=x", Denial::MalformedRequest("password is missing")),
        ("grant_type=refresh_token&refresh_token=a", Denial::InvalidClient),
        ("client_id=K&grant_type=password&username=x&password=y&scope=a%22b", Denial::InvalidScope),
    ] {
        assert_eq!(read(body).unwrap_err(), expected, "{body}");
    }
}

#[test]
fn the_body_must_be_a_form_and_the_query_empty() {
    let body = "grant_type=refresh_token&refresh_token=a&client_id=K";
    let mut other = HeaderMap::new();
    for media in ["application/json", "text/plain", "application/x-www-form-urlencodedx"] {
        other.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        assert!(read_at(TOKEN, &other, body).is_err(), "{media}");
    }
    other.insert(CONTENT_TYPE, HeaderValue::from_static("Application/X-WWW-Form-Urlencoded; charset=utf-8"));
    assert!(read_at(TOKEN, &other, body).is_ok());
    let bytes = Bytes::from_static(body.as_bytes());
    let mut with_query = call(TOKEN, &other, &bytes);
    with_query.query = Some("client_id=K");
    assert!(OAuth2.read(&with_query).is_err());
}

#[test]
fn a_client_comes_by_basic_or_by_the_body_but_not_by_both() {
    // `Basic base64("a b:p%:")`, each part form-encoded first (RFC 6749 §2.3.1).
    let basic = headers(&[("authorization", "basic YStiOnAlMjUlM0E=")]);
    let body = "grant_type=refresh_token&refresh_token=x";
    let Ok(Command::Refresh { client: Some(client), .. }) = read_at(TOKEN, &basic, body) else { panic!("not read") };
    assert_eq!((client.id.as_str(), client.secret.unwrap().expose_secret()), ("a b", "p%:"));

    // golang/oauth2 sends a public client as `Basic base64("id:")`.
    let public = headers(&[("authorization", "Basic d2ViOg==")]);
    let Ok(Command::Refresh { client: Some(client), .. }) = read_at(TOKEN, &public, body) else { panic!("not read") };
    assert_eq!((client.id.as_str(), client.secret.is_none()), ("web", true));

    for more in ["&client_secret=s", "&client_id=other"] {
        let both = format!("{body}{more}");
        assert!(matches!(read_at(TOKEN, &public, &both), Err(Denial::MalformedRequest(_))), "{more}");
    }
    for bad in ["Basic", "Basic !", "Basic d2Vi", "Basic /w=="] {
        let bad_headers = headers(&[("authorization", bad)]);
        assert_eq!(read_at(TOKEN, &bad_headers, body).unwrap_err(), Denial::InvalidClient, "{bad}");
    }
    for second in ["Basic d2ViOg==", "Bearer abc"] {
        let twice = headers(&[("authorization", "Basic d2ViOg=="), ("authorization", second)]);
        assert_eq!(read_at(TOKEN, &twice, body).unwrap_err(), Denial::TwoCredentials);
    }
}

#[test]
fn an_authorization_that_is_no_client_authentication_says_nothing_of_the_client() {
    let body = "grant_type=refresh_token&refresh_token=x";
    for sent in ["Bearer abc", "Bearer null", "bearer", "", "DPoP abc", "Basically x"] {
        let sent = headers(&[("authorization", sent)]);
        assert_eq!(read_at(TOKEN, &sent, body).unwrap_err(), Denial::InvalidClient, "no client is named");
        let named = format!("{body}&client_id=web");
        let Ok(Command::Refresh { client: Some(client), .. }) = read_at(TOKEN, &sent, &named) else {
            panic!("not read")
        };
        assert_eq!((client.id.as_str(), client.secret.is_none()), ("web", true));
        let with_secret = format!("{named}&client_secret=s");
        let Ok(Command::Refresh { client: Some(client), .. }) = read_at(TOKEN, &sent, &with_secret) else {
            panic!("not read")
        };
        assert_eq!(client.secret.unwrap().expose_secret(), "s");
    }
}

#[test]
fn n68_who_asks_about_a_token_without_credentials_is_401_with_a_challenge() {
    for (sent, body, read_as) in [
        (&[][..], "token=x", Some(Denial::InvalidClient)),
        (&[], "client_id=web&token=x", None),
        (&[("authorization", "Bearer x")], "token=x", Some(Denial::InvalidClient)),
    ] {
        let form = headers(sent);
        assert_eq!(read_at(INTROSPECTION, &form, body).err(), read_as, "{body}");
        let refused =
            |operation| OAuth2.write(&call(operation, &form, &Bytes::new()), Err(Error::Denied(Denial::InvalidClient)));
        let reply = refused(INTROSPECTION);
        assert_eq!(
            (reply.status().as_u16(), &reply.headers()[WWW_AUTHENTICATE]),
            (401, &"Basic realm=\"rotogate\"".parse::<HeaderValue>().unwrap())
        );
        assert_eq!(refused(REVOCATION).status(), StatusCode::BAD_REQUEST, "RFC 6749 §5.2");
    }
}

#[test]
fn revocation_and_introspection_take_a_token_of_any_kind() {
    let body = "token=abc&token_type_hint=refresh_token&client_id=K";
    let form = headers(&[]);
    assert!(matches!(read_at(REVOCATION, &form, body), Ok(Command::Revoke { .. })));
    assert!(matches!(read_at(INTROSPECTION, &form, body), Ok(Command::Introspect { .. })));
    assert!(matches!(read_at(REVOCATION, &form, "client_id=K&token="), Err(Denial::MalformedRequest(_))));
}

#[test]
fn a_capital_token_is_taken_for_a_sign_out_and_for_nothing_else() {
    let form = headers(&[]);
    let sign_out = "Token=R&token_type_hint=refresh_token&client_id=K";
    let Ok(Command::Revoke { token, .. }) = read_at(REVOCATION, &form, sign_out) else { panic!("not a sign-out") };
    assert_eq!(token.expose_secret(), "R");
    assert!(matches!(read_at(INTROSPECTION, &form, sign_out), Err(Denial::MalformedRequest(_))));
    for both in ["Token=R&token=R&client_id=K", "token=R&Token=S&client_id=K"] {
        assert!(matches!(read_at(REVOCATION, &form, both), Err(Denial::MalformedRequest(_))), "{both}");
    }
    // An empty parameter counts as absent.
    assert!(read_at(REVOCATION, &form, "Token=&token=R&client_id=K").is_ok());
}

#[test]
fn the_double_slash_of_the_sign_out_is_a_spelling_of_the_documented_path_alone() {
    let spellings = |base: &str| -> Vec<(String, &'static [&'static str])> {
        let spelt = OAuth2.serves(base).into_iter().filter(|served| !served.spellings.is_empty());
        spelt.map(|served| (served.template, served.spellings)).collect()
    };
    assert_eq!(
        spellings("/{account}/connect/token"),
        [
            ("/{account}/connect/revocation".to_owned(), &["/{account}//connect/revocation"][..]),
            ("/connect/revocation".to_owned(), &["//connect/revocation"][..]),
        ]
    );
    assert_eq!(spellings("/oauth/token"), []);
}

fn written(denial: Denial, authorization: Option<&str>) -> (StatusCode, serde_json::Value, HeaderMap) {
    let pairs: Vec<_> = authorization.map(|value| (AUTHORIZATION.as_str(), value)).into_iter().collect();
    let headers = headers(&pairs.iter().map(|(_, value)| ("authorization", *value)).collect::<Vec<_>>());
    let reply = OAuth2.write(&call(TOKEN, &headers, &Bytes::new()), Err(Error::Denied(denial)));
    let (parts, body) = reply.into_parts();
    (parts.status, serde_json::from_slice(body.data()).unwrap(), parts.headers)
}

#[test]
fn r7_every_bad_refresh_token_gets_one_indistinguishable_answer() {
    let reuse = Denial::Reuse { generations_old: 3, superseded_for: Some(Duration::from_secs(9)) };
    let expected = written(Denial::UnknownRefreshToken, None);
    assert_eq!(expected.0, StatusCode::BAD_REQUEST);
    assert_eq!(expected.1["error"], "invalid_grant");
    for denial in [
        Denial::OtherClient,
        Denial::OtherAccount,
        Denial::OtherDialect,
        Denial::SessionRevoked(SessionEnd::Record),
        Denial::SessionRevoked(SessionEnd::UserInactive),
        Denial::SessionIdle,
        Denial::Ahead,
        reuse,
    ] {
        assert_eq!(written(denial, None), expected, "{denial:?}");
    }
}

#[test]
fn refusals_are_those_of_rfc_6749_5_2() {
    let cases = [
        (Denial::InvalidClient, None, 400, "invalid_client"),
        (Denial::InvalidClient, Some("Basic x"), 401, "invalid_client"),
        (Denial::UnauthorizedClient, Some("Basic x"), 400, "unauthorized_client"),
        (Denial::UnsupportedGrantType, None, 400, "unsupported_grant_type"),
        (Denial::InvalidScope, None, 400, "invalid_scope"),
        (Denial::InvalidTarget, None, 400, "invalid_target"),
        (Denial::WrongPassword, Some("Basic x"), 400, "invalid_grant"),
        (Denial::MalformedRequest("x"), None, 400, "invalid_request"),
        (Denial::RateLimited("login_per_address", Duration::from_millis(1200)), None, 429, "too_many_requests"),
    ];
    for (denial, authorization, status, error) in cases {
        let (got, body, headers) = written(denial, authorization);
        assert_eq!((got.as_u16(), body["error"].as_str()), (status, Some(error)), "{denial:?}");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers.contains_key(WWW_AUTHENTICATE), status == 401, "{denial:?}");
        assert_eq!(headers.get(RETRY_AFTER).map(|v| v.to_str().unwrap()), (status == 429).then_some("2"));
    }
}

#[test]
fn a_fault_says_that_nothing_was_changed_and_when_to_try_again() {
    let form = headers(&[]);
    let reply = OAuth2.write(&call(TOKEN, &form, &Bytes::new()), Err(Error::Failed(Fault::Clock)));
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.headers().contains_key(RETRY_AFTER));
}

#[test]
fn an_account_in_the_first_segment_may_be_left_out() {
    let templates = |base: &str| -> Vec<String> { OAuth2.serves(base).into_iter().map(|s| s.template).collect() };
    assert_eq!(
        templates("/{account}/connect/token"),
        [
            "/{account}/connect/token",
            "/{account}/connect/revocation",
            "/{account}/connect/introspect",
            "/connect/token",
            "/connect/revocation",
            "/connect/introspect",
        ]
    );
    assert_eq!(templates("/oauth/token"), ["/oauth/token", "/oauth/revocation", "/oauth/introspect"]);
}
