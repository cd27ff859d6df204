//! Reading and writing, without an engine: the SDKs' requests become commands, and outcomes become envelopes.

use std::sync::Mutex;
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::super::oauth2::form::MAX_PARAMETERS;
use super::super::{Command, ConsultResult, RefreshCredential, Superseded};
use super::*;
use rotogate_core::fault::Fault;
use rotogate_core::session::rotation::SessionEnd;

/// Accepts one command, and returns the given outcome.
struct Engine {
    says: Mutex<Option<Result<Outcome, Error>>>,
    asked: Mutex<Option<Command>>,
}

#[async_trait]
impl CommandHandler for Engine {
    async fn execute(&self, command: Command) -> Result<Outcome, Error> {
        assert!(self.asked.lock().unwrap().replace(command).is_none(), "one command a call");
        self.says.lock().unwrap().take().unwrap()
    }
}

#[derive(Clone, Default)]
struct Request<'a> {
    operation: &'static str,
    strategy: Option<&'a str>,
    method: Method,
    headers: &'a [(&'static str, &'a str)],
    query: Option<&'a str>,
    body: &'a str,
    /// Without a media type, unless `headers` has one.
    bare: bool,
    /// From a page of another site, or from no page.
    foreign: bool,
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).fold(
        HeaderMap::new(),
        |mut all, (name, value)| {
            all.append(name, value);
            all
        },
    )
}

async fn answer(request: &Request<'_>, says: Result<Outcome, Error>) -> (Answer, Option<Command>) {
    let engine = Engine { says: Mutex::new(Some(says)), asked: Mutex::new(None) };
    let params: Vec<_> = request.strategy.map(|name| ("strategy".to_owned(), name.to_owned())).into_iter().collect();
    let body = Bytes::copy_from_slice(request.body.as_bytes());
    let mut sent = headers(request.headers);
    if !request.bare && !sent.contains_key(CONTENT_TYPE) {
        sent.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let call = Call {
        operation: request.operation,
        params: &params,
        method: &request.method,
        headers: &sent,
        path: "/x/_publicApi",
        query: request.query,
        body: &body,
        address: None,
        from_own_origin: !request.foreign,
    };
    let answer = Kuzzle { secure_cookies: true, ..Kuzzle::default() }.answer(&call, &engine).await;
    (answer, engine.asked.into_inner().unwrap())
}

fn body(reply: &Reply) -> Value {
    assert_eq!(reply.headers()[CONTENT_TYPE], "application/json");
    let body: Value = serde_json::from_slice(reply.body().data()).unwrap();
    assert_eq!(body["status"], reply.status().as_u16());
    if !body["error"].is_null() {
        assert_eq!(body["error"]["status"], body["status"]);
        assert!(body["result"].is_null());
    }
    body
}

fn reply(answer: Answer) -> Reply {
    let Answer::Reply(reply, _) = answer else { panic!("no reply: {answer:?}") };
    reply
}

/// The command that a request becomes.
async fn command(request: &Request<'_>) -> Command {
    answer(request, Ok(Outcome::Revoked)).await.1.expect("a command")
}

/// The error of a request that never reaches the engine.
async fn refused(request: &Request<'_>) -> (u16, String) {
    let (came, asked) = answer(request, Ok(Outcome::Revoked)).await;
    assert!(asked.is_none());
    let body = body(&reply(came));
    let status = body["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap();
    (status, body["error"]["id"].as_str().unwrap().to_owned())
}

/// A request with a call in an envelope.
fn envelope(body: &str) -> Request<'_> {
    Request { operation: "_query", method: Method::POST, body, ..Request::default() }
}

const LOGIN: &str = r#"{"username":"u","password":"p"}"#;

fn login<'a>(query: Option<&'a str>, body: &'a str) -> Request<'a> {
    Request { operation: "login", strategy: Some("local"), method: Method::POST, query, body, ..Request::default() }
}

#[tokio::test]
async fn a24_a_call_has_so_many_arguments_in_its_query_and_as_many_as_that_are_read() {
    for (before, expected) in [(MAX_PARAMETERS - 1, Some(Duration::from_secs(3600))), (MAX_PARAMETERS, None)] {
        let query = format!("{}expiresIn=1h", "more&".repeat(before));
        let Command::Login { access_ttl, .. } = command(&login(Some(&query), LOGIN)).await else { panic!() };
        assert_eq!(access_ttl, expected, "{before} before it");
    }
}

#[tokio::test]
async fn a_login_is_read_with_arguments_that_nobody_knows() {
    let asked = command(&login(Some("expiresIn=1h&verb=POST&verb=GET"), LOGIN)).await;
    let Command::Login { client: None, username, password, scope: None, access_ttl, resource: None } = asked else {
        panic!()
    };
    assert_eq!((username.as_str(), password.expose_secret()), ("u", "p"));
    assert_eq!(access_ttl, Some(Duration::from_secs(3600)));

    let text = r#"{"controller":"auth","action":"login","strategy":"local","expiresIn":null,"jwt":null,"volatile":null,
                   "body":{"username":"u","password":"p"},"more":[1]}"#;
    let Command::Login { access_ttl: None, .. } = command(&envelope(text)).await else { panic!() };

    let get = Request { method: Method::GET, query: Some("username=u&password=p"), ..login(None, "") };
    let Command::Login { username, .. } = command(&get).await else { panic!() };
    assert_eq!(username, "u");
}

#[tokio::test]
async fn a_login_that_cannot_be_is_refused_by_its_id() {
    let strategy = Request { strategy: Some("github"), ..login(None, LOGIN) };
    assert_eq!(refused(&strategy).await, (400, "security.credentials.unknown_strategy".into()));
    for (query, body, id) in [
        (None, "{}", "api.assert.missing_argument"),
        (None, "", "api.assert.missing_argument"),
        (None, r#"{"username":"u","password":""}"#, "api.assert.missing_argument"),
        (None, r#"{"username":1,"password":"p"}"#, "api.assert.invalid_type"),
        (None, "[]", "network.http.body_parse_failed"),
        (None, r#"{"username":"u","username":"v","password":"p"}"#, "network.http.body_parse_failed"),
        (Some("expiresIn=abc"), LOGIN, "api.assert.invalid_argument"),
        (Some("expiresIn=0"), LOGIN, "api.assert.invalid_argument"),
        (Some("expiresIn="), LOGIN, "api.assert.invalid_argument"),
        (Some("expiresIn=-1"), LOGIN, "security.token.ttl_exceeded"),
        // A password in the query does not count if a body is required.
        (Some("username=u&password=p"), "", "api.assert.missing_argument"),
    ] {
        assert_eq!(refused(&login(query, body)).await, (400, id.to_owned()), "{query:?} {body}");
    }
    let volatile = Request { headers: &[("x-kuzzle-volatile", "{")], ..login(None, LOGIN) };
    assert_eq!(refused(&volatile).await, (400, "network.http.volatile_parse_failed".into()));
}

#[tokio::test]
async fn an_envelope_says_what_it_wants() {
    for (text, id) in [
        ("{}", "api.assert.missing_argument"),
        ("", "api.assert.missing_argument"),
        (r#"{"controller":"auth"}"#, "api.assert.missing_argument"),
        (r#"{"controller":null,"action":"login"}"#, "api.assert.missing_argument"),
        (r#"{"controller":"auth","action":"login","jwt":1}"#, "api.assert.invalid_type"),
        (r#"{"controller":"auth","action":"login","body":[]}"#, "api.assert.invalid_type"),
        (r#"{"controller":"auth","action":"login","volatile":"x"}"#, "api.assert.invalid_type"),
        ("nothing", "network.http.body_parse_failed"),
        (r#"{"jwt":"a","jwt":"b","controller":"a","action":"b"}"#, "network.http.body_parse_failed"),
    ] {
        assert_eq!(refused(&envelope(text)).await, (400, id.to_owned()), "{text}");
    }
}

#[tokio::test]
async fn t1_a_token_is_taken_from_each_of_its_places_and_never_beside_a_cookie() {
    let refresh = |headers, query| Request {
        operation: "refreshToken",
        method: Method::POST,
        headers,
        query,
        ..Request::default()
    };
    let cookie = [("cookie", "a=b; authToken=C")];
    // A token in the URL must not have expired.
    type Case<'a> = (&'a [(&'static str, &'a str)], Option<&'a str>, (&'a str, bool));
    let cases: [Case<'_>; 5] = [
        (&[("authorization", "Bearer H")], None, ("H", true)),
        (&[("authorization", "bEARER H")], Some("expiresIn=1h"), ("H", true)),
        (&[], Some("jwt=Q"), ("Q", false)),
        (&[("authorization", "Bearer H")], Some("jwt=Q"), ("H", true)),
        (&cookie, None, ("C", true)),
    ];
    for (headers, query, expected) in cases {
        let Command::Refresh { credential: RefreshCredential::Access { access, may_have_expired }, .. } =
            command(&refresh(headers, query)).await
        else {
            panic!()
        };
        assert_eq!((access.expose_secret(), may_have_expired), expected);
    }
    let both = [("authorization", "Bearer H"), ("cookie", "authToken=C")];
    assert_eq!(refused(&refresh(&both, None)).await, (500, "security.token.verification_error".into()));
    let deleted = [("cookie", "authToken=null")];
    assert_eq!(refused(&refresh(&deleted, None)).await, (401, "security.rights.unauthorized".into()));
    assert_eq!(refused(&refresh(&[], None)).await, (401, "security.rights.unauthorized".into()));

    let text = r#"{"controller":"auth","action":"refreshToken","jwt":"B","expiresIn":60000}"#;
    let in_body = Request { headers: &[("authorization", "Bearer H")], ..envelope(text) };
    let Command::Refresh {
        credential: RefreshCredential::Access { access, may_have_expired: true }, access_ttl, ..
    } = command(&in_body).await
    else {
        panic!()
    };
    assert_eq!((access.expose_secret(), access_ttl), ("B", Some(Duration::from_secs(60))));
    let with_cookie = Request { headers: &cookie, ..envelope(text) };
    assert_eq!(refused(&with_cookie).await, (500, "security.token.verification_error".into()));
}

#[tokio::test]
async fn a_logout_ends_one_token_or_all_and_takes_the_cookie_back() {
    let logout =
        |headers, query| Request { operation: "logout", method: Method::POST, headers, query, ..Request::default() };
    let bearer = [("authorization", "Bearer H")];
    for (query, all) in [(None, false), (Some("global"), true), (Some("global=false"), true)] {
        let Command::Logout { everywhere, .. } = command(&logout(&bearer, query)).await else { panic!() };
        assert_eq!(everywhere, all, "{query:?}");
    }
    let text = r#"{"controller":"auth","action":"logout","jwt":"B","global":false}"#;
    let Command::Logout { everywhere: false, .. } = command(&envelope(text)).await else { panic!() };
    assert_eq!(refused(&logout(&[], None)).await, (401, "security.rights.unauthorized".into()));

    let cookie = [("cookie", "authToken=C")];
    for says in [Ok(Outcome::Revoked), Err(Denial::TokenRevoked.into())] {
        let (came, _) = answer(&logout(&cookie, Some("cookieAuth")), says).await;
        let reply = reply(came);
        assert_eq!(reply.headers()[SET_COOKIE], "authToken=null; Path=/; HttpOnly; SameSite=Strict; Secure");
        assert_eq!(body(&reply)["result"], json!({ "acknowledged": true }));
    }
    let (came, asked) = answer(&logout(&[], Some("cookieAuth")), Ok(Outcome::Revoked)).await;
    assert!(asked.is_none() && reply(came).headers().contains_key(SET_COOKIE));
    let (came, _) = answer(&logout(&bearer, None), Err(Denial::TokenRevoked.into())).await;
    assert_eq!(reply(came).status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_is_checked_where_it_is_asked_about_and_nobody_is_somebody() {
    let check = |headers, query, body| Request {
        operation: "checkToken",
        method: Method::POST,
        headers,
        query,
        body,
        ..Request::default()
    };
    let Command::Check { access, superseded: Superseded::Any } = command(&check(&[], None, r#"{"token":"T"}"#)).await
    else {
        panic!()
    };
    assert_eq!(access.expose_secret(), "T");
    let cookie = [("cookie", "authToken=C")];
    let Command::Check { access, .. } = command(&check(&cookie, Some("cookieAuth"), "{}")).await else { panic!() };
    assert_eq!(access.expose_secret(), "C");

    let bearer = [("authorization", "Bearer H")];
    for text in ["", "{}", r#"{"token":null}"#] {
        let (came, asked) = answer(&check(&bearer, None, text), Ok(Outcome::Revoked)).await;
        assert!(asked.is_none());
        assert_eq!(body(&reply(came))["result"], json!({ "valid": true, "expiresAt": -1, "kuid": "-1" }));
    }
    let dead = Ok(Outcome::Checked(Err(Denial::TokenRevoked)));
    let (came, _) = answer(&check(&[], None, r#"{"token":"T"}"#), dead).await;
    assert_eq!(body(&reply(came))["result"], json!({ "valid": false, "state": "Invalid token." }));
}

#[tokio::test]
async fn every_field_of_the_envelope_is_there() {
    let text = r#"{"controller":"auth","action":"checkToken","requestId":"R","volatile":{"a":1},"index":"i"}"#;
    let (came, _) = answer(&envelope(text), Ok(Outcome::Revoked)).await;
    let reply = reply(came);
    assert_eq!(reply.headers()["x-kuzzle-request-id"], "R");
    let mut body = body(&reply);
    assert!(body["node"].take().is_string());
    let expected = json!({
        "requestId": "R", "status": 200, "error": null, "controller": "auth", "action": "checkToken",
        "collection": null, "index": "i", "volatile": {"a": 1}, "deprecations": [], "headers": {}, "node": null,
        "result": {"valid": true, "expiresAt": -1, "kuid": "-1"},
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn each_sdk_hears_of_an_expired_token_in_its_own_words() {
    for (sdk, id, code) in
        [("js@7.17.1", "security.token.invalid", 117_506_049), ("jvm@1", "security.token.expired", 117_506_054)]
    {
        let volatile = json!({ "sdkName": sdk }).to_string();
        let headers = headers(&[("x-kuzzle-volatile", &volatile), ("x-kuzzle-request-id", "R")]);
        let reply = Kuzzle::default().refuse(&headers, Denial::TokenExpired).unwrap();
        let body = body(&reply);
        assert_eq!((&body["error"]["id"], &body["error"]["code"]), (&json!(id), &json!(code)));
        assert_eq!((&body["volatile"]["sdkName"], &body["requestId"]), (&json!(sdk), &json!("R")));
        assert_eq!(reply.headers()["x-kuzzle-request-id"], "R");
    }
}

#[test]
fn r7_refusals_have_the_ids_of_the_protocol() {
    let wait = Duration::from_millis(1500);
    let table = [
        (Denial::NoCredential, 401, "security.rights.unauthorized", 117_637_121),
        (Denial::InsufficientScope, 403, "security.rights.forbidden", 117_637_122),
        (Denial::TwoCredentials, 500, "security.token.verification_error", 117_506_055),
        (Denial::TtlExceeded, 400, "security.token.ttl_exceeded", 117_506_052),
        (Denial::WrongPassword, 401, "plugin.strategy.missing_user", 67_305_492),
        (Denial::NoRoute, 404, "network.http.url_not_found", 50_397_191),
        (Denial::RateLimited("login_per_address", wait), 429, "api.process.too_many_requests", 33_685_512),
        (Denial::BodyTooLarge, 413, "network.http.request_too_large", 50_397_185),
        (Denial::SessionIdle, 401, "security.token.invalid", 117_506_049),
        (Denial::SessionRevoked(SessionEnd::Record), 401, "security.token.invalid", 117_506_049),
        (Denial::Reuse { generations_old: 2, superseded_for: None }, 401, "security.token.invalid", 117_506_049),
        (Denial::TokenRevoked, 401, "security.token.invalid", 117_506_049),
    ];
    for (denial, status, id, code) in table {
        let reply = Kuzzle::default().refuse(&HeaderMap::new(), denial).unwrap();
        let body = body(&reply);
        assert_eq!(body["status"], status, "{denial:?}");
        assert_eq!((&body["error"]["id"], &body["error"]["code"]), (&json!(id), &json!(code)), "{denial:?}");
    }
    let reply = Kuzzle::default().refuse(&HeaderMap::new(), Denial::RateLimited("login_per_address", wait)).unwrap();
    assert_eq!(reply.headers()[RETRY_AFTER], "2");
}

#[tokio::test]
async fn a_fault_says_that_nothing_was_changed() {
    let bearer = [("authorization", "Bearer H")];
    let refresh = Request { operation: "refreshToken", method: Method::POST, headers: &bearer, ..Request::default() };
    let (came, _) = answer(&refresh, Err(Fault::Clock.into())).await;
    let reply = reply(came);
    assert_eq!(reply.headers()[RETRY_AFTER], "5");
    assert_eq!(body(&reply)["error"]["id"], "api.process.overloaded");
}

#[tokio::test]
async fn any_other_action_is_passed_on_without_its_token() {
    let text = r#"{"controller":"document","action":"get","jwt":"B","requestId":"R","index":"i","a":{"jwt":"mine"}}"#;
    let (came, asked) = answer(&envelope(text), Ok(Outcome::Revoked)).await;
    assert!(asked.is_none());
    let Answer::Forward(forward) = came else { panic!("answered") };
    assert_eq!(forward.credential.unwrap().expose_secret(), "B");
    let passed: Value = serde_json::from_slice(&forward.body).unwrap();
    let expected = json!({"controller":"document","action":"get","requestId":"R","index":"i","a":{"jwt":"mine"}});
    assert_eq!(passed, expected);
    let refusal = body(&(forward.refused)(Denial::TokenRevoked));
    assert_eq!((&refusal["requestId"], &refusal["controller"]), (&json!("R"), &json!("document")));
    assert_eq!(refusal["index"], "i");

    let without = "{ \"controller\":\"document\", \"action\":\"get\"\n}";
    let Answer::Forward(forward) = answer(&envelope(without), Ok(Outcome::Revoked)).await.0 else { panic!("answered") };
    assert!(forward.credential.is_none());
    assert_eq!(forward.body, without, "byte for byte");
}

#[tokio::test]
async fn the_description_of_the_api_suits_both_sdks() {
    let request = Request { operation: "publicApi", method: Method::GET, body: "{}", ..Request::default() };
    let asking = async |said| {
        let Answer::Consult(consult) = answer(&request, Ok(Outcome::Revoked)).await.0 else { panic!("answered") };
        body(&(consult.then)(said).0)
    };
    let mut api = asking(ConsultResult::NoService).await["result"].take();
    let expected = json!([
        {"url": "/x/_login/:strategy", "path": "/x/_login/:strategy", "verb": "POST"},
        {"url": "/x/_login/:strategy", "path": "/x/_login/:strategy", "verb": "GET"},
    ]);
    assert_eq!(api["auth"]["login"], json!({"controller": "auth", "action": "login", "http": expected}));
    for action in ["refreshToken", "logout", "checkToken", "getCurrentUser", "getStrategies"] {
        assert!(api["auth"][action]["http"][0]["url"].is_string(), "{action}");
    }
    assert_eq!(api["server"]["publicApi"]["http"][0]["url"], "/x/_publicApi");

    // An upstream that is no Kuzzle has no list.
    let said =
        |status: u16, text: &str| ConsultResult::Said(StatusCode::from_u16(status).unwrap(), text.to_owned().into());
    for other in [
        said(200, "hello"),
        said(200, r#"{"result":null}"#),
        said(404, r#"{"result":{"a":{}}}"#),
        ConsultResult::Refused(Denial::NoRoute),
    ] {
        assert_eq!(asking(other).await["result"], api);
    }
    let kuzzle = json!({ "result": {
        "auth": { "login": "theirs", "createToken": 1 }, "server": 7, "document": { "get": 2 },
    } });
    let all = asking(said(200, &kuzzle.to_string())).await;
    api["auth"]["createToken"] = json!(1);
    api["document"] = json!({ "get": 2 });
    assert_eq!(all["result"], api);
    // No list is returned if it would be incomplete.
    for (said, status) in [
        (ConsultResult::Refused(Denial::NoCredential), 401),
        (ConsultResult::Refused(Denial::InsufficientScope), 403),
        (said(403, "{}"), 401),
        (said(503, "{}"), 503),
        (ConsultResult::Failed, 502),
    ] {
        assert_eq!(asking(said).await["error"]["status"], status);
    }
}

#[test]
fn a_prefix_stands_before_every_route() {
    let templates = |base| Kuzzle::default().serves(base).into_iter().map(|s| s.template).collect::<Vec<_>>();
    let bare = templates("/");
    assert!(bare.contains(&"/_login/{strategy}".to_owned()) && bare.contains(&"/_query".to_owned()));
    let under: Vec<_> = bare.iter().map(|template| format!("/k{}", template.trim_end_matches('/'))).collect();
    assert_eq!(templates("/k"), under);
    // Every served operation has an answer.
    for served in Kuzzle::default().serves("/") {
        assert!(["_query", "websocket"].contains(&served.operation) || self::http::action(served.operation).is_some());
    }
}

#[tokio::test]
async fn t25_a_cookie_is_set_and_taken_back_by_a_post_of_json_from_a_page_that_may() {
    let pair = r#"{"username":"ada","password":"x"}"#;
    let cookie = [("cookie", "authToken=C")];
    let bearer = [("authorization", "Bearer H")];
    let post = |operation, headers, body| Request {
        operation,
        method: Method::POST,
        strategy: (operation == "login").then_some("local"),
        headers,
        query: Some("cookieAuth=true"),
        body,
        ..Request::default()
    };
    let all: [Request<'_>; 5] = [
        post("login", &[], pair),
        post("refreshToken", &cookie, ""),
        Request { query: None, ..post("refreshToken", &cookie, "") },
        post("logout", &cookie, ""),
        post("logout", &bearer, ""),
    ];
    for good in &all {
        assert!(answer(good, Ok(Outcome::Revoked)).await.1.is_some(), "{} is carried out", good.operation);
    }
    for good in all {
        let asked = (good.operation, good.headers, good.query);
        let text: Vec<_> = good.headers.iter().copied().chain([("content-type", "text/plain")]).collect();
        let method =
            Request { method: Method::GET, query: Some("cookieAuth&username=ada&password=x"), body: "", ..good };
        let bad = [
            (Request { foreign: true, ..good.clone() }, 403),
            (Request { bare: true, ..good.clone() }, 400),
            (Request { headers: &text, ..good.clone() }, 400),
            // By GET only a login is served; the others are 405 before this.
            (method, 400),
        ];
        for (bad, status) in bad {
            if bad.method == Method::GET && bad.operation != "login" {
                continue;
            }
            let (came, command) = answer(&bad, Ok(Outcome::Revoked)).await;
            let reply = reply(came);
            assert!(command.is_none(), "{asked:?}: nothing was done");
            assert_eq!(reply.status(), status, "{asked:?}");
            assert!(!reply.headers().contains_key(SET_COOKIE));
        }
    }
    // Without a cookie none of this is required, but text and forms are not JSON.
    let plain = Request { foreign: true, bare: true, query: None, ..post("login", &[], pair) };
    assert!(answer(&plain, Ok(Outcome::Revoked)).await.1.is_some());
    let utf7 = "application/json; charset=utf-7";
    for media in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "*/*", utf7] {
        let headers = [("content-type", media)];
        assert_eq!(refused(&Request { headers: &headers, ..plain.clone() }).await.0, 400, "{media}");
    }
    for media in ["application/json", "Application/JSON; charset=utf-8", "application/json ;charset=utf-8"] {
        let headers = [("content-type", media)];
        assert!(
            answer(&Request { headers: &headers, ..plain.clone() }, Ok(Outcome::Revoked)).await.1.is_some(),
            "{media}"
        );
    }
}

#[tokio::test]
async fn t25_the_envelope_of_any_action_asks_for_the_same() {
    let text = r#"{"controller":"auth","action":"login","strategy":"local","cookieAuth":true,"body":{"username":"a","password":"b"}}"#;
    assert!(answer(&envelope(text), Ok(Outcome::Revoked)).await.1.is_some());
    assert_eq!(refused(&Request { foreign: true, ..envelope(text) }).await.0, 403);
    assert_eq!(refused(&Request { bare: true, ..envelope(text) }).await.0, 400);
    // The rules also apply to a call that is forwarded with the cookie.
    let other = r#"{"controller":"document","action":"get"}"#;
    let cookie = [("cookie", "authToken=C")];
    assert_eq!(refused(&Request { bare: true, headers: &cookie, ..envelope(other) }).await.0, 400);
}

#[tokio::test]
async fn r13_a_call_that_is_passed_on_has_one_token_too() {
    let text = r#"{"controller":"document","action":"get","jwt":"B"}"#;
    let cookie = [("cookie", "a=1; authToken=C")];
    let both = Request { headers: &cookie, ..envelope(text) };
    assert_eq!(refused(&both).await, (500, "security.token.verification_error".into()));
}
