//! Requests of a browser, and their replies, without an engine.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::ExposeSecret;

use super::*;
use rotogate_core::claim::OwnClaims;
use rotogate_core::clock::Timestamp;
use rotogate_core::fault::Fault;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn dialect() -> BrowserDialect {
    let targets = LoginTargets {
        origin: "https://gate.example".to_owned(),
        path: "/auth".to_owned(),
        listed: vec!["https://app.example".into()],
    };
    BrowserDialect {
        look: Arc::new(Look::new(super::look::PageSettings::default(), &targets)),
        targets,
        page: LoginPage::BuiltIn,
        after_logout: None,
        has_provider: false,
        binds_devices: false,
    }
}

fn at(page: &str) -> BrowserDialect {
    BrowserDialect { page: LoginPage::At(page.to_owned()), ..dialect() }
}

fn called<T>(
    operation: &'static str,
    method: &Method,
    (media, query, body): (&str, &str, &str),
    run: impl FnOnce(&Call<'_>) -> T,
) -> T {
    let mut headers = HeaderMap::new();
    if !media.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(media).unwrap());
    }
    called_with(operation, method, (&headers, query, body), run)
}

fn called_with<T>(
    operation: &'static str,
    method: &Method,
    (headers, query, body): (&HeaderMap, &str, &str),
    run: impl FnOnce(&Call<'_>) -> T,
) -> T {
    let body = Bytes::copy_from_slice(body.as_bytes());
    run(&Call {
        operation,
        params: &[],
        method,
        headers,
        path: "/auth/login",
        query: (!query.is_empty()).then_some(query),
        body: &body,
        address: None,
        from_own_origin: true,
    })
}

fn read(media: &str, body: &str) -> Result<SentLogin, Denial> {
    called(LOGIN, &Method::POST, (media, "", body), |call| dialect().read_login(call))
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body().data().to_vec()).unwrap()
}

fn value(reply: &Reply) -> Value {
    serde_json::from_slice(reply.body().data()).unwrap()
}

#[test]
fn a_login_is_read_from_json_and_from_a_form() {
    let json = read(JSON, r#"{"username":"ada","password":"p&w","account":"acme","to":"/x","other":1}"#)
        .unwrap_or_else(|e| panic!("{e}"));
    let form = read(&format!("{FORM}; charset=utf-8"), "username=ada&password=p%26w&account=acme&to=%2Fx")
        .unwrap_or_else(|e| panic!("{e}"));
    for login in [json, form] {
        assert_eq!((&*login.username, login.password.expose_secret()), ("ada", "p&w"));
        assert_eq!((login.account.as_deref(), login.to.as_deref()), (Some("acme"), Some("/x")));
    }
    let least = read(JSON, r#"{"username":"ada","password":"x","account":null}"#).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((least.account, least.to), (None, None));
}

#[test]
fn b25_what_a_form_of_any_site_could_send_as_another_media_type_is_415() {
    let body = r#"{"username":"ada","password":"x"}"#;
    for media in
        ["text/plain", "", "multipart/form-data; boundary=x", "application/jsonx", "text/plain; application/json"]
    {
        let denial = read(media, body).err().unwrap();
        assert_eq!(denial, words::NOT_A_LOGIN, "{media}");
        let reply =
            called(LOGIN, &Method::POST, (media, "", body), |call| words::denied(&dialect(), call, &denial.into()));
        assert_eq!((reply.status().as_u16(), value(&reply)["error"].as_str()), (415, Some("unsupported_media_type")));
    }
}

#[test]
fn a_login_that_is_not_complete_is_malformed() {
    for body in [
        "",
        "[]",
        "null",
        "{}",
        r#"{"username":"ada"}"#,
        r#"{"username":"ada","password":""}"#,
        r#"{"username":1,"password":"x"}"#,
        r#"{"username":"ada","password":["x"]}"#,
        r#"{"username":"ada","username":"bob","password":"x"}"#,
        r#"{"username":"ada","password":"x","to":1}"#,
    ] {
        assert!(matches!(read(JSON, body), Err(Denial::MalformedRequest(_))), "{body}");
    }
    for body in ["", "username=ada", "username=ada&password=", "username=ada&username=bob&password=x"] {
        assert!(matches!(read(FORM, body), Err(Denial::MalformedRequest(_))), "{body}");
    }
}

#[test]
fn no_body_brings_the_reader_down() {
    bolero::check!().with_type::<(bool, String)>().for_each(|(is_form, body)| {
        let _ = read(if *is_form { FORM } else { JSON }, body);
    });
}

#[test]
fn b35_a_form_leads_to_its_target_and_json_says_who_it_is() {
    let expires = Timestamp::from_secs(1_800_000_000);
    let logged_in = |media, to: Option<&str>| {
        called(LOGIN, &Method::POST, (media, "", ""), |call| dialect().logged_in(call, to, "u-1", expires))
    };
    let json = logged_in(JSON, Some("/x"));
    assert_eq!(json.status(), 200);
    assert_eq!(value(&json), serde_json::json!({ "authenticated": true, "subject": "u-1", "expires": 1_800_000_000 }));
    for (to, location) in [
        (Some("/x?y#z"), "https://gate.example/x?y#z"),
        (Some("//evil.example"), "https://gate.example/"),
        (None, "https://gate.example/"),
    ] {
        let form = logged_in(FORM, to);
        assert_eq!((form.status().as_u16(), form.headers()["location"].to_str().unwrap()), (303, location));
    }
    // The policy of the form forbids a redirect to another origin.
    let listed = logged_in(FORM, Some("https://app.example/x"));
    assert_eq!(
        (listed.status().as_u16(), &listed.headers()["refresh"]),
        (200, &HeaderValue::from_static("0;url=https://app.example/x"))
    );
    for reply in [json, listed] {
        assert_eq!(reply.headers()["cache-control"], "no-store");
        assert_eq!(reply.headers()["referrer-policy"], "same-origin");
        assert_eq!(reply.headers()["x-content-type-options"], "nosniff");
    }
}

#[test]
fn the_state_of_a_session_has_its_times_and_no_session_names_the_login() {
    let mut claims = OwnClaims::new();
    claims.insert("roles", ["editor"]).unwrap();
    let live = dialect().live("u-1", &claims, [Timestamp::from_secs(20), Timestamp::from_secs(10)], false);
    assert_eq!(
        value(&live),
        serde_json::json!({
            "authenticated": true, "subject": "u-1", "claims": { "roles": ["editor"] }, "expires": 20, "idle_expires": 10,
            "device_bound": false,
        })
    );
    assert_eq!(value(&dialect().none()), serde_json::json!({ "authenticated": false, "login": "/auth/login" }));
}

#[test]
fn b25_each_failure_has_its_status_and_code() {
    let wait = Duration::from_secs(7);
    let cases: [(Error, u16, &str); 9] = [
        (Denial::WrongPassword.into(), 401, "invalid_credentials"),
        (Denial::NoAccount.into(), 401, "invalid_credentials"),
        (Denial::MalformedRequest("x").into(), 400, "invalid_request"),
        (Denial::BodyTooLarge.into(), 400, "invalid_request"),
        (Denial::TwoCredentials.into(), 400, "invalid_request"),
        (Denial::CrossOrigin.into(), 403, "cross_origin"),
        (Denial::TooManySessions.into(), 403, "too_many_sessions"),
        (Denial::RateLimited("login_per_user", wait).into(), 429, "too_many_requests"),
        (Fault::Clock.into(), 503, "temporarily_unavailable"),
    ];
    for (error, status, code) in cases {
        let reply = called(LOGIN, &Method::POST, (JSON, "", ""), |call| words::denied(&dialect(), call, &error));
        assert_eq!((reply.status().as_u16(), value(&reply)["error"].as_str()), (status, Some(code)), "{error}");
        assert_eq!(reply.headers()["content-type"], "application/problem+json");
        assert_eq!(reply.headers()["cache-control"], "no-store");
        assert_eq!(reply.headers().contains_key("retry-after"), matches!(status, 429 | 503));
        assert_eq!(reply.headers().contains_key("www-authenticate"), status == 401);
        // A form gets a page, with the same status.
        let page = called(LOGIN, &Method::POST, (FORM, "", "username=ada&to=%2Fx"), |call| {
            words::denied(&dialect(), call, &error)
        });
        assert_eq!(
            (page.status().as_u16(), &page.headers()["x-frame-options"]),
            (status, &HeaderValue::from_static("DENY"))
        );
        let keeps = !matches!(error, Error::Denied(Denial::CrossOrigin));
        assert_eq!(text(&page).contains("name=\"to\" value=\"/x\""), keeps, "{error}");
        // The name stays, but for the sender of another site.
        assert_eq!(text(&page).contains("value=\"ada\""), keeps, "{error}");
    }
}

#[test]
fn b26_the_login_page_keeps_a_good_target_alone() {
    let shown = |query| called(LOGIN, &Method::GET, ("", query, ""), |call| dialect().login_page(call));
    for (query, to) in [
        ("to=%2Fx%23y", "/x#y"),
        ("to=//evil", "/"),
        ("", "/"),
        ("to=%2Fa&to=%2Fb", "/a"),
        ("to=%2Fauth%2Flogout", "/"),
    ] {
        let html = text(&shown(query));
        assert!(html.contains(&format!("name=\"to\" value=\"{to}\"")), "{query}: {html}");
        assert!(html.contains("action=\"/auth/login\""));
    }
}

#[test]
fn a_page_of_the_application_replaces_the_form() {
    let led = |page: &str, query| {
        let reply = called(LOGIN, &Method::GET, ("", query, ""), |call| at(page).login_page(call));
        assert_eq!(reply.status(), 303);
        reply.headers()["location"].to_str().unwrap().to_owned()
    };
    assert_eq!(led("/signin", ""), "https://gate.example/signin");
    assert_eq!(led("/signin", "to=%2Fx%3Fy"), "https://gate.example/signin?to=%2Fx%3Fy");
    assert_eq!(led("/signin?lang=en", "to=%2Fx"), "https://gate.example/signin?lang=en&to=%2Fx");
    let failed = called(LOGIN, &Method::POST, (FORM, "", "username=ada&password=x&to=%2Fx"), |call| {
        words::denied(&at("/signin"), call, &Denial::WrongPassword.into())
    });
    let location = "https://gate.example/signin?error=invalid_credentials&to=%2Fx";
    assert_eq!((failed.status().as_u16(), failed.headers()["location"].to_str().unwrap()), (303, location));
    let none = BrowserDialect { page: LoginPage::None, ..dialect() };
    assert_eq!(called(LOGIN, &Method::GET, ("", "", ""), |call| none.login_page(call)).status(), 404);
    // A target that is too long for a URL leads to its page.
    let query = format!("to=%2Fx%3F{}", "y".repeat(8000));
    assert_eq!(led("/signin", &query), "https://gate.example/signin?to=%2Fx");
}

#[test]
fn b36_the_login_leads_back_to_the_page_that_was_asked_for() {
    let led = |to: &str| dialect().lead_to_login(to, &AskedLogin::default());
    let login = "https://gate.example/auth/login";
    assert_eq!(led("/x?y=z").headers()["location"], format!("{login}?to=%2Fx%3Fy%3Dz"));
    assert_eq!(led("/").headers()["location"], login);
    assert_eq!(led(&format!("/{}", "x".repeat(8192))).headers()["location"], login, "longer than any target");
    // What is too long for the URL of the login, the browser keeps in cookies.
    let long = format!("/x?{}", "y%20".repeat(1500));
    let reply = led(&long);
    let (url, query) = reply.headers()["location"].to_str().unwrap().split_once('?').unwrap();
    assert_eq!((url, query.starts_with("to=%2Fx&rest=")), (login, true), "{query}");
    let cookies: Vec<_> = reply.headers().get_all("set-cookie").iter().map(|set| set.to_str().unwrap()).collect();
    let cookies = cookies.iter().filter_map(|set| set.split("; ").next()).collect::<Vec<_>>().join("; ");
    let target =
        |headers: &HeaderMap| called_with(LOGIN, &Method::GET, (headers, query, ""), BrowserDialect::target_of);
    let mut headers = HeaderMap::new();
    assert_eq!(target(&headers).as_deref(), Some("/x"), "without its cookies");
    headers.insert("cookie", cookies.parse().unwrap());
    assert_eq!(target(&headers), Some(long));
}

#[test]
fn b62_a_logout_by_a_form_leads_on_and_one_by_a_script_says_so() {
    let out = |dialect: &BrowserDialect, media| {
        called(LOGOUT, &Method::POST, (media, "", ""), |call| dialect.logged_out(call, None))
    };
    assert_eq!(value(&out(&dialect(), "")), serde_json::json!({ "logout": null }));
    assert_eq!(value(&out(&dialect(), JSON)), serde_json::json!({ "logout": null }));
    // Back shows nothing of the session.
    for media in ["", JSON, FORM] {
        assert_eq!(out(&dialect(), media).headers()["clear-site-data"], "\"cache\"", "{media}");
    }
    let page = out(&dialect(), FORM);
    assert_eq!((page.status().as_u16(), page.headers().contains_key("refresh")), (200, false));
    assert!(
        text(&page).contains("You are logged out") && text(&page).contains("href=\"/auth/login\">Log in again</a>")
    );
    for (to, url) in [("/", "https://gate.example/"), ("https://app.example/bye", "https://app.example/bye")] {
        let reply = out(&BrowserDialect { after_logout: Some(to.to_owned()), ..dialect() }, FORM);
        assert_eq!(
            (reply.status().as_u16(), reply.headers()["refresh"].to_str().unwrap()),
            (200, &*format!("0;url={url}"))
        );
    }
    let page = called(LOGOUT, &Method::GET, ("", "", ""), |call| dialect().logout_page(call));
    assert!(text(&page).contains("<form method=\"post\" action=\"/auth/logout\">"));
}

#[test]
fn a_refusal_for_a_script_names_the_login() {
    let plain = rotogate_core::reply::problem(StatusCode::UNAUTHORIZED, None);
    let reply = words::with_login(plain, "/auth/login");
    assert_eq!((value(&reply)["status"].as_u64(), value(&reply)["login"].as_str()), (Some(401), Some("/auth/login")));
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
}
