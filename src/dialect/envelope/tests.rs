//! Reading and writing, without an engine.

use bytes::Bytes;
use http::HeaderMap;
use secrecy::ExposeSecret;

use super::*;
use rotogate_core::engine::tokens_for_test;
use rotogate_core::fault::Fault;
use rotogate_core::session::rotation::SessionEnd;

fn call<'a>(method: &'a Method, headers: &'a HeaderMap, body: &'a Bytes) -> Call<'a> {
    Call {
        operation: "token",
        params: &[],
        method,
        headers,
        path: "/api/v2/auth/token",
        query: None,
        body,
        address: None,
        from_own_origin: true,
    }
}

fn read(method: &Method, body: &str) -> Result<Command, Denial> {
    Envelope::default().read(&call(method, &HeaderMap::new(), &Bytes::copy_from_slice(body.as_bytes())))
}

fn written(dialect: Envelope, method: &Method, outcome: Result<Outcome, Error>) -> (StatusCode, String, HeaderMap) {
    let reply = dialect.write(&call(method, &HeaderMap::new(), &Bytes::new()), outcome);
    let (parts, body) = reply.into_parts();
    (parts.status, String::from_utf8(body.data().to_vec()).unwrap(), parts.headers)
}

#[test]
fn a_success_is_the_documented_body_with_an_array_of_one() {
    let issued = tokens_for_test("aaa.bbb.ccc", "rg1_x", 3600);
    let (status, body, headers) = written(Envelope::default(), &Method::PUT, Ok(Outcome::Issued(Box::new(issued))));
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        r#"{"errorCode":"","errorMessage":"","content":[{"token":"aaa.bbb.ccc","refreshToken":"rg1_x","validityTime":3600}],"pageable":{"page":0,"size":10,"totalPages":1,"totalElements":1}}"#
    );
    assert_eq!(
        (&headers["content-type"], &headers["cache-control"]),
        (&"application/json".parse().unwrap(), &"no-store".parse().unwrap())
    );
}

#[test]
fn r7_every_token_that_is_not_good_gets_the_documented_failure_with_empty_texts() {
    let reuse = Denial::Reuse { generations_old: 3, superseded_for: Some(Duration::from_secs(9)) };
    for denial in [
        Denial::UnknownRefreshToken,
        Denial::MismatchedPair,
        Denial::OtherClient,
        Denial::OtherAccount,
        Denial::OtherDialect,
        Denial::SessionRevoked(SessionEnd::Record),
        Denial::SessionIdle,
        Denial::Ahead,
        reuse,
        Denial::TokenExpired,
        Denial::TokenRevoked,
        Denial::BadSignature,
        Denial::MalformedToken("x"),
    ] {
        let (status, body, headers) = written(Envelope::default(), &Method::PUT, Err(denial.into()));
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{denial:?}");
        assert_eq!(
            body, r#"{"errorCode":"AUTH_1002","errorMessage":"Invalid token","content":"","pageable":""}"#,
            "{denial:?}"
        );
        assert_eq!(headers[WWW_AUTHENTICATE], "Bearer");
    }
}

#[test]
fn a_failure_may_be_a_200_for_clients_that_read_nothing_but_the_code() {
    let lenient = Envelope { failure_status: StatusCode::OK, ..Envelope::default() };
    let (status, body, headers) = written(lenient, &Method::PUT, Err(Denial::UnknownRefreshToken.into()));
    assert_eq!((status, headers.contains_key(WWW_AUTHENTICATE)), (StatusCode::OK, false));
    assert!(body.contains("AUTH_1002"));
    // A failure beyond the protocol keeps its status.
    let (status, ..) = written(lenient, &Method::PUT, Err(Denial::MalformedRequest("x").into()));
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, ..) = written(lenient, &Method::PUT, Err(Error::Failed(Fault::Clock)));
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn a_login_that_fails_and_a_request_that_is_none_have_codes_of_their_own() {
    let cases = [
        (Denial::WrongPassword, 401, "AUTH_1001"),
        (Denial::UnauthorizedClient, 401, "AUTH_1001"),
        (Denial::MalformedRequest("x"), 400, "AUTH_1000"),
        (Denial::BodyTooLarge, 413, "AUTH_1000"),
        (Denial::RateLimited("login_per_address", Duration::from_millis(1200)), 429, "AUTH_1000"),
    ];
    for (denial, status, code) in cases {
        let (got, body, headers) = written(Envelope::default(), &Method::POST, Err(denial.into()));
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((got.as_u16(), body["errorCode"].as_str()), (status, Some(code)), "{denial:?}");
        assert_eq!((body["content"].as_str(), body["pageable"].as_str()), (Some(""), Some("")));
        assert_eq!(headers.contains_key("retry-after"), status == 429);
    }
}

#[test]
fn a_refresh_takes_both_tokens_and_a_login_name_and_password() {
    let Ok(Command::Refresh {
        client: None,
        credential: RefreshCredential::Pair { access, refresh, expired_for_at_most },
        ..
    }) = read(&Method::PUT, "{\"token\": \"a\",\n\"refreshToken\":\n\"r\", \"more\": [1]}")
    else {
        panic!("not a refresh")
    };
    assert_eq!((access.expose_secret(), refresh.expose_secret(), expired_for_at_most), ("a", "r", Duration::ZERO));
    let Ok(Command::Login { client: None, username, password, .. }) =
        read(&Method::POST, r#"{"username":"u","password":"p"}"#)
    else {
        panic!("not a login")
    };
    assert_eq!((username.as_str(), password.expose_secret()), ("u", "p"));
}

#[test]
fn r11_a_member_that_stands_twice_is_refused_wherever_it_stands() {
    for body in [
        r#"{"token":"a","token":"a","refreshToken":"r"}"#,
        r#"{"token":"a","refreshToken":"r","\u0074oken":"b"}"#,
        r#"{"token":"a","refreshToken":"r","x":1,"x":1}"#,
        r#"{"token":"a","refreshToken":"r","x":{"y":1,"y":2}}"#,
    ] {
        assert!(matches!(read(&Method::PUT, body), Err(Denial::MalformedRequest(_))), "{body}");
    }
}

#[test]
fn what_is_mandatory_is_a_text_that_is_not_empty() {
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "{\"token\":\"a\"",
        r#"{"token":"a"}"#,
        r#"{"refreshToken":"r"}"#,
        r#"{"token":"","refreshToken":"r"}"#,
        r#"{"token":"a","refreshToken":""}"#,
        r#"{"token":1,"refreshToken":"r"}"#,
        r#"{"token":["a"],"refreshToken":"r"}"#,
        r#"{"Token":"a","refreshtoken":"r"}"#,
        r#"{"token":"a","refreshToken":"r"}x"#,
        "token=a&refreshToken=r",
    ] {
        assert!(matches!(read(&Method::PUT, body), Err(Denial::MalformedRequest(_))), "{body}");
        assert!(matches!(read(&Method::POST, body), Err(Denial::MalformedRequest(_))), "{body}");
    }
}

proptest::proptest! {
    #[test]
    fn no_body_brings_the_reader_down(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let (headers, body) = (HeaderMap::new(), Bytes::from(body));
        for method in [Method::PUT, Method::POST] {
            let _ = Envelope::default().read(&call(&method, &headers, &body));
        }
    }
}
