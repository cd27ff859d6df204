//! The admin page without a browser: sign-in, cookies, CSRF, roles, headers, and its whole job by plain forms (requirement
//! P56). `interop/page.rs` has it in Chromium.

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use support::{Answer, Gate, Place, keep_secret, try_send, until};

use super::{Ask, admin_token, events, with_tokens, write_token};

pub(super) const VIEWER: &str = "the-viewer-token-of-the-page-00001";
pub(super) const OPERATOR: &str = "the-operator-token-of-the-page-001";
const VIEWS: [&str; 9] = [
    "/ui/",
    "/ui/refused",
    "/ui/sessions",
    "/ui/users",
    "/ui/keys",
    "/ui/api-keys",
    "/ui/routes",
    "/ui/config",
    "/ui/events",
];

/// A browser without script: it keeps cookies, and sends forms unchanged.
pub(crate) struct Browser<'a> {
    gate: &'a Gate,
    cookies: Vec<(String, String)>,
    /// The name of the folder of the sign-in, which paths here do not have.
    place: Option<String>,
    pub(super) headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Browser<'a> {
    fn new(gate: &'a Gate) -> Self {
        Self { gate, cookies: Vec::new(), place: None, headers: Vec::new() }
    }

    pub(crate) async fn signed_in(gate: &'a Gate, token: &str) -> Self {
        let mut browser = Self::new(gate);
        let answer = browser.sign_in(token).await;
        assert_eq!((answer.status, &answer.headers["location"]), (StatusCode::SEE_OTHER, &"/ui/".parse().unwrap()));
        browser
    }

    async fn sign_in(&mut self, token: &str) -> Answer {
        let csrf = csrf(&self.get("/ui/sign-in").await);
        self.post("/ui/sign-in", &[("csrf", &csrf), ("token", token)]).await
    }

    async fn send(&mut self, method: Method, path: &str, body: String) -> Answer {
        let folder = self.place.as_ref().map_or("/ui/".to_owned(), |place| format!("/ui/{place}/"));
        let path = match path.strip_prefix("/ui/") {
            Some(view) if view != "sign-in" => format!("{folder}{view}"),
            _ => path.to_owned(),
        };
        let mut request = Request::builder().method(&method).uri(format!("http://{}{path}", self.gate.admin));
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        if method == Method::POST {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        let mut answer = try_send(request.body(Full::from(body)).unwrap()).await.unwrap();
        for set in answer.headers.get_all("set-cookie") {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            let (value, attributes) = rest.split_once(';').unwrap();
            assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Strict"), "{name}: {attributes}");
            let path = attributes.split("Path=").nth(1).unwrap().split(';').next().unwrap();
            if name == "rotogate-admin" {
                let place = path.strip_prefix("/ui/").and_then(|path| path.strip_suffix('/')).unwrap();
                assert_eq!(place.len(), 43, "{path}");
                keep_secret(place);
                self.place = Some(place.to_owned());
            } else {
                assert_eq!(path, "/ui/", "{name}");
            }
            self.cookies.retain(|(known, _)| known != name);
            if !attributes.contains("Max-Age=0") {
                keep_secret(value);
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        // The path without the folder's name.
        if let Some(place) = &self.place {
            let folder = format!("/ui/{place}/");
            if let Some(location) =
                answer.headers.get("location").map(|it| it.to_str().unwrap().replace(&folder, "/ui/"))
            {
                answer.headers.insert("location", location.parse().unwrap());
            }
            answer.body = String::from_utf8_lossy(&answer.body).replace(&folder, "/ui/").into();
        }
        answer
    }

    /// The HTML of a view.
    async fn send_raw(&self, path: &str) -> String {
        let (name, value) = self.cookies.iter().find(|(name, _)| name == "rotogate-admin").unwrap();
        let request =
            Request::get(format!("http://{}{path}", self.gate.admin)).header("cookie", format!("{name}={value}"));
        text(&try_send(request.body(Full::from(String::new())).unwrap()).await.unwrap())
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, String::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(Method::POST, path, body).await
    }
}

pub(super) fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// The value that the first form of a view has.
pub(crate) fn csrf(view: &Answer) -> String {
    let text = text(view);
    let value = text.split("name=\"csrf\" value=\"").nth(1).unwrap_or_else(|| panic!("no form: {text}"));
    let value = value.split('"').next().unwrap().to_owned();
    keep_secret(&value);
    value
}

pub(super) fn place() -> Place {
    let place = Place::new(&with_tokens(&[("vera", "viewer", "vera.token"), ("grace", "operator", "grace.token")]));
    write_token(&place, "vera.token", VIEWER);
    write_token(&place, "grace.token", OPERATOR);
    place
}

fn id_of(place: &Place, tokens: &support::Tokens) -> String {
    place.json(&["token", "inspect"], &tokens.refresh)["session"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn p56_every_view_needs_a_sign_in_and_has_its_headers() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let mut stranger = Browser::new(&gate);
    for path in ["/", "/ui"] {
        let answer = stranger.get(path).await;
        assert_eq!((answer.status, &answer.headers["location"]), (StatusCode::SEE_OTHER, &"/ui/".parse().unwrap()));
    }
    for view in VIEWS.into_iter().chain(["/ui/explain", "/ui/events/stream", "/ui/sessions/x"]) {
        let answer = stranger.get(view).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{view}");
        assert_eq!(answer.headers["location"], "/ui/sign-in", "{view}");
    }
    assert_eq!(stranger.post("/ui/revocations", &[("user", "demo")]).await.headers["location"], "/ui/sign-in");

    let mut browser = Browser::signed_in(&gate, &token).await;
    for view in VIEWS.into_iter().chain(["/ui/explain", "/ui/sign-in", "/ui/nowhere", "/ui/page.js", "/ui/page.css"]) {
        let answer = browser.get(view).await;
        let policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
        for (name, value) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.headers[name], value, "{view}");
        }
        assert!(!text(&answer).contains(&token), "{view}: the token");
        assert!(browser.cookies.iter().all(|(_, value)| *value != token));
    }
    assert_eq!(browser.get("/ui/nowhere").await.status, StatusCode::NOT_FOUND);
    // The cookie is safe from other servers of this host because no other user can learn its path.
    let folder = browser.place.clone().unwrap();
    gate.admin(Method::GET, &format!("//ui/{folder}"), None).await;
    let log = gate.log();
    assert!(log.contains("\"/ui/…/nowhere\"") && log.contains("\"//ui/…\""), "{log}");
    assert!(!log.contains(&folder));
    // The name of a page that was rebound to this address.
    browser.headers = vec![("host", "evil.example")];
    assert_eq!(browser.get("/ui/").await.status, StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn p56_a_wrong_token_signs_nobody_in_and_guessing_ends() {
    let place = place();
    let gate = place.start();
    let mut browser = Browser::new(&gate);
    let answer = browser.post("/ui/sign-in", &[("token", OPERATOR)]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "without the value of the form");
    for _ in 0..10 {
        assert_eq!(browser.sign_in("a wrong token").await.status, StatusCode::UNAUTHORIZED);
    }
    let answer = browser.sign_in("a wrong token").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!browser.cookies.iter().any(|(name, _)| name == "rotogate-admin"));
    // The guesses of another user of this machine do not keep the operator out (P50).
    Browser::signed_in(&gate, OPERATOR).await;
}

#[tokio::test]
async fn p56_a_change_needs_the_value_of_the_form_and_an_origin_of_ours() {
    let place = place();
    let gate = place.start();
    let user = gate.login().await;
    let path = format!("/ui/sessions/{}/revoke", id_of(&place, &user));
    let mut browser = Browser::signed_in(&gate, OPERATOR).await;
    let own = csrf(&browser.get("/ui/").await);
    let other = csrf(&Browser::signed_in(&gate, OPERATOR).await.get("/ui/").await);
    for fields in [&[][..], &[("csrf", "")], &[("csrf", &other)]] {
        assert_eq!(browser.post(&path, fields).await.status, StatusCode::FORBIDDEN);
    }
    let foreign = [
        ("origin", "http://evil.example"),
        ("origin", "http://127.0.0.1:1"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for header in foreign {
        browser.headers = vec![header];
        assert_eq!(browser.post(&path, &[("csrf", &own)]).await.status, StatusCode::FORBIDDEN, "{header:?}");
        browser.headers = vec![("origin", "null"), header];
        assert_eq!(browser.post(&path, &[("csrf", &own)]).await.status, StatusCode::FORBIDDEN, "{header:?}");
    }
    assert_eq!(gate.get("/x", &user.access).await.status, StatusCode::OK, "nothing changed");
    // The request of a browser with `Referrer-Policy: no-referrer`.
    browser.headers = vec![("origin", "null"), ("sec-fetch-site", "same-origin")];
    assert_eq!(browser.post(&path, &[("csrf", &own)]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(gate.get("/x", &user.access).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p56_a_viewer_has_no_button_and_may_change_nothing() {
    let place = place();
    let gate = place.start();
    let user = gate.login().await;
    let id = id_of(&place, &user);
    let mut browser = Browser::signed_in(&gate, VIEWER).await;
    let pages = ["/ui/sessions?user=demo".to_owned(), format!("/ui/sessions/{id}")];
    for path in &pages {
        let answer = browser.get(path).await;
        let shown = text(&answer);
        assert_eq!(answer.status, StatusCode::OK, "{path} {shown}");
        assert!(shown.contains(&id) && shown.contains("vera (viewer)"), "{path} {shown}");
        for nothing in ["Revoke", "/revoke", "/ui/explain", "<dialog"] {
            assert!(!shown.contains(nothing), "{path}: {nothing}");
        }
    }
    let own = csrf(&browser.get("/ui/").await);
    let revoke = format!("/ui/sessions/{id}/revoke");
    for path in [revoke.as_str(), "/ui/explain", "/ui/revocations?user=demo"] {
        assert_eq!(browser.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    for path in [revoke.as_str(), "/ui/explain", "/ui/revocations"] {
        let answer = browser.post(path, &[("csrf", &own), ("user", "demo"), ("path", "/x")]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(gate.get("/x", &user.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn p56_p53_the_page_does_its_job_by_plain_forms() {
    let place = place();
    let gate = place.start();
    let (first, second) = (gate.login().await, gate.login().await);
    let id = id_of(&place, &first);
    let mut browser = Browser::signed_in(&gate, OPERATOR).await;

    // Explain: the token is in the form, and not in the answer.
    let own = csrf(&browser.get("/ui/explain").await);
    let asked = [("csrf", own.as_str()), ("method", "GET"), ("path", "/orders"), ("token", &first.access)];
    let shown = text(&browser.post("/ui/explain", &asked).await);
    assert!(shown.contains(">This request passes</h2>") && shown.contains(">Rule by rule</h2>"), "{shown}");
    assert!(!shown.contains("passed: passed"), "{shown}");
    let (applied, skipped) = shown.split_once("skipped rules</summary>").unwrap();
    assert!(applied.contains("<span class=\"whole\">gateway.toml:"), "a line number is not broken off: {shown}");
    assert!(!applied.contains(">skip<") && skipped.contains("<dt>"), "{shown}");
    assert!(!shown.contains(&first.access));
    let shown = text(&browser.post("/ui/explain", &[("csrf", &own), ("path", "/orders"), ("token", "x.y.z")]).await);
    assert!(shown.contains("malformed_token"), "{shown}");

    // Find, confirm and revoke one session.
    let shown = text(&browser.get("/ui/sessions?user=demo&status=live").await);
    assert!(shown.contains(&id) && shown.contains("Revoke all 2 sessions"), "{shown}");
    let shown = browser.get(&format!("/ui/sessions/{id}/revoke")).await;
    let (own, path) = (csrf(&shown), format!("/ui/sessions/{id}/revoke"));
    assert!(text(&shown).contains("Its tokens are refused from the next request on"));
    assert_eq!(gate.get("/x", &first.access).await.status, StatusCode::OK, "only asked");
    let back = "/ui/sessions?user=demo";
    let answer = browser.post(&path, &[("csrf", &own), ("back", back)]).await;
    assert_eq!((answer.status, &answer.headers["location"]), (StatusCode::SEE_OTHER, &back.parse().unwrap()));
    assert_eq!(gate.get("/x", &first.access).await.status, StatusCode::UNAUTHORIZED);
    let shown = text(&browser.get(back).await);
    assert!(shown.contains(&format!("Session {id} revoked")), "{shown}");
    assert!(!text(&browser.get(back).await).contains("revoked:"), "said once");
    // A form cannot redirect to another site.
    let answer = browser.post(&path, &[("csrf", &own), ("back", "https://evil.example/")]).await;
    assert_eq!(answer.headers["location"], "/ui/sessions");

    // The page shows the reason and the author of the end.
    let shown = text(&browser.get(&format!("/ui/sessions/{id}")).await);
    assert!(shown.contains("<strong>operator</strong>, by grace (operator)"), "{shown}");
    let lines = events(&gate, VIEWER, &format!("action=revocation&session={id}")).await;
    let actor = |name: &str| lines[0][name].as_str().unwrap().to_owned();
    assert_eq!((actor("rotogate.actor"), actor("rotogate.actor.via")), ("grace".to_owned(), "page".to_owned()));

    // All sessions of a user.
    let shown = browser.get("/ui/revocations?user=demo").await;
    assert!(text(&shown).contains("Revoke all 1 live session of demo?"), "{}", text(&shown));
    let answer = browser.post("/ui/revocations", &[("csrf", &csrf(&shown)), ("user", "demo")]).await;
    assert_eq!((answer.status, &answer.headers["location"]), (StatusCode::SEE_OTHER, &back.parse().unwrap()));
    assert_eq!(gate.get("/x", &second.access).await.status, StatusCode::UNAUTHORIZED);
    assert!(text(&browser.get(back).await).contains("1 session of demo revoked"));

    // The page says beside the form that a search found no user.
    let shown = text(&browser.get("/ui/sessions?user=nobody").await);
    assert!(shown.contains("no user has the name nobody"), "{shown}");

    // After a sign-out, the cookie is invalid.
    let cookies = browser.cookies.clone();
    let answer = browser.post("/ui/sign-out", &[("csrf", &own)]).await;
    assert_eq!(answer.headers["location"], "/ui/sign-in");
    browser.cookies = cookies;
    assert_eq!(browser.get("/ui/").await.headers["location"], "/ui/sign-in");
}

#[tokio::test]
async fn o30_o31_a_dead_upstream_of_one_address_is_failing_everywhere_and_writes_one_line_a_minute() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    let place = place();
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&format!(
        "{config}[[upstreams]]\nname = \"one\"\nurls = [\"http://{address}\"]\n\
         [[routes]]\npath = \"/one/{{*rest}}\"\nauth = \"none\"\nupstream = \"one\"\n"
    ));
    drop(port);
    let gate = place.start();
    for _ in 0..50 {
        assert_eq!(gate.call(Method::GET, "/one/x", &[], "").await.status, StatusCode::BAD_GATEWAY);
    }
    for (state, number) in [("failing", 1), ("up", 0)] {
        let series = format!("rotogate_upstream_addresses{{upstream=\"one\",state=\"{state}\"}}");
        assert_eq!(gate.metric(&series).await, number, "{state}");
    }
    let listed = Ask::with(&gate, VIEWER).get("/v1/upstreams").await.json();
    let one = listed["upstreams"].as_array().unwrap().iter().find(|upstream| upstream["name"] == "one").unwrap();
    assert_eq!(one["addresses"][0]["state"], "failing", "{one}");
    let shown = text(&Browser::signed_in(&gate, VIEWER).await.get("/ui/routes").await);
    assert!(shown.contains("failing"), "{shown}");
    let log = gate.log();
    let lines = log.lines().filter(|line| line.contains("not forwarded") && line.contains(&address)).count();
    assert_eq!(lines, 1, "{log}");
}

/// The page of a gate whose upstream does not answer. The gate reads the counters every five seconds.
#[tokio::test]
async fn p70_p71_the_overview_of_a_gate_whose_requests_fail_says_so_and_leads_to_the_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let place = place();
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&format!(
        "{config}[[upstreams]]\nname = \"dead\"\nurls = [\"http://{address}\"]\n\
         [[routes]]\npath = \"/dead/{{*rest}}\"\nauth = \"none\"\nupstream = \"dead\"\n"
    ));
    drop(listener);
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, VIEWER).await;
    let state = |shown: &str| shown.split("class=\"state ").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert_eq!(state(&text(&browser.get("/ui/").await)), "good\">ready");
    // The first reading has no predecessor to compare with.
    until("the overview says that requests fail", async || {
        assert_eq!(gate.call(Method::GET, "/dead/x", &[], "").await.status, StatusCode::BAD_GATEWAY);
        text(&browser.get("/ui/").await).contains("upstream_unreachable")
    })
    .await;
    until("there are enough of them", async || {
        gate.call(Method::GET, "/dead/x", &[], "").await;
        state(&text(&browser.get("/ui/").await)) == "bad\">failing"
    })
    .await;
    let shown = text(&browser.get("/ui/").await);
    for part in [
        "of the requests of the last minute failed (5xx)",
        "upstream dead: no address is up",
        "Failures of dead per second",
        "<dt>Memory</dt>",
        "lines written, 0 dropped",
        "or correct <code>urls</code> of this upstream",
        "minute old",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let link = "/ui/outcome?word=upstream_unreachable";
    assert!(shown.contains(&format!("href=\"{link}\"")), "{shown}");
    let explained = text(&browser.get(link).await);
    assert!(explained.contains("<dt>What to do</dt>") && explained.contains("502"), "{explained}");
    assert_eq!(browser.get("/ui/outcome?word=nothing").await.status, StatusCode::NOT_FOUND);
    for view in VIEWS {
        assert_eq!(state(&text(&browser.get(view).await)), "bad\">failing", "{view}");
    }
    // Every other place tells the same.
    place.point_commands_at(&gate);
    let problems = ["of the requests of the last minute failed (5xx)", "upstream dead: no address is up"];
    let status = place.json(&["status"], "");
    assert_eq!((&status["ready"], &status["state"]), (&true.into(), &"failing".into()), "{status}");
    let ready = gate.admin_get("/readyz").await;
    let ready = String::from_utf8_lossy(&ready.body).into_owned();
    assert!(ready.starts_with("failing\n"), "{ready}");
    let whole = Ask::with(&gate, VIEWER).get("/v1/status").await.json();
    assert_eq!((&whole["ready"], &whole["state"]), (&true.into(), &"failing".into()), "{whole}");
    for problem in problems {
        assert!(status["problems"].to_string().contains(problem), "{problem}: {status}");
        assert!(ready.contains(problem), "{problem}: {ready}");
        assert!(whole["problems"].to_string().contains(problem), "{problem}: {whole}");
    }
    let explained = place.run(&["explain", "--path", "/dead/x"], "");
    assert!(
        explained
            .stdout
            .starts_with("PASSED\nHowever, the client would get 502 or 503 (upstream dead: no address is up)."),
        "{explained:?}"
    );
    let explained = place.json(&["explain", "--path", "/public/x"], "");
    assert!(explained["problem"].is_null(), "{explained}");
}

#[tokio::test]
async fn p70_keys_of_an_issuer_that_cannot_be_fetched_are_a_reason() {
    let issuer = "[[issuers]]\nname = \"away\"\nurl = \"http://127.0.0.1:1\"\naudience = [\"api\"]\n\
                  jwks_url = \"http://127.0.0.1:1/jwks\"\neverywhere = true\n";
    let place = Place::new(&format!("{}{issuer}", with_tokens(&[("vera", "viewer", "vera.token")])));
    write_token(&place, "vera.token", VIEWER);
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, VIEWER).await;
    let shown = text(&browser.get("/ui/").await);
    assert!(shown.contains("class=\"state bad\">ready, with problems"), "{shown}");
    assert!(shown.contains("keys of issuer away: empty"), "{shown}");
    assert!(shown.contains("when retired"), "the end of an own key: {shown}");
}

#[tokio::test]
async fn p56_several_sessions_end_at_once_and_the_search_stays() {
    let place = place();
    let gate = place.start();
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(gate.login().await);
    }
    let ids: Vec<_> = all.iter().map(|tokens| id_of(&place, tokens)).collect();
    let mut browser = Browser::signed_in(&gate, OPERATOR).await;
    let search = "/ui/sessions?user=demo&status=live&client=web";
    let shown = text(&browser.get(search).await);
    let places: Vec<_> = ids.iter().map(|id| shown.find(&format!("/ui/sessions/{id}\"")).unwrap()).collect();
    assert!(places[2] < places[1] && places[1] < places[0], "the newest first");
    let back = form_urlencoded::byte_serialize(search.as_bytes()).collect::<String>();
    let confirm = browser.get(&format!("/ui/sessions/revoke?id={}&id={}&back={back}", ids[0], ids[2])).await;
    assert!(text(&confirm).contains("Revoke 2 selected sessions?"), "{}", text(&confirm));
    let form = [("csrf", &*csrf(&confirm)), ("id", &ids[0]), ("id", &ids[2]), ("back", search)];
    let answer = browser.post("/ui/sessions/revoke", &form).await;
    assert_eq!((answer.status, &answer.headers["location"]), (StatusCode::SEE_OTHER, &search.parse().unwrap()));
    assert!(text(&browser.get(search).await).contains("2 selected sessions revoked"));
    for (tokens, status) in all.iter().zip([StatusCode::UNAUTHORIZED, StatusCode::OK, StatusCode::UNAUTHORIZED]) {
        assert_eq!(gate.get("/x", &tokens.access).await.status, status);
    }
    assert_eq!(browser.get("/ui/sessions/revoke").await.status, StatusCode::SEE_OTHER);
    assert!(text(&browser.get("/ui/sessions").await).contains("No session was selected"));
    // A viewer gets 403.
    let mut viewer = Browser::signed_in(&gate, VIEWER).await;
    let own = csrf(&viewer.get("/ui/").await);
    let answer = viewer.post("/ui/sessions/revoke", &[("csrf", &own), ("id", &ids[1])]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(gate.get("/x", &all[1].access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn p56_events_have_links_and_pages() {
    let place = place();
    let gate = place.start();
    let user = gate.login().await;
    let id = id_of(&place, &user);
    let mut browser = Browser::signed_in(&gate, VIEWER).await;
    // Each sign-in is a line.
    for _ in 0..110 {
        Browser::signed_in(&gate, VIEWER).await;
    }
    let first = text(&browser.get("/ui/events").await);
    let lines = |shown: &str| shown.matches("<tr id=\"line-").count();
    assert_eq!(lines(&first), 60);
    let older = first.split("<a href=\"/ui/events?before=").nth(1).unwrap().split('"').next().unwrap();
    let second = text(&browser.get(&format!("/ui/events?before={older}")).await);
    assert!(lines(&second) > 10 && !second.contains("data-stream") && !second.contains("rel=\"next\""), "{second}");
    for link in [format!("/ui/sessions/{id}"), "/ui/events?action=session.start".to_owned()] {
        assert!(second.contains(&format!("<a href=\"{link}\"")), "{link}: {second}");
    }
    assert!(!first.lines().any(|line| second.contains(line) && line.starts_with("<tr id")), "each line once");
    // A title in words, and the fields of the line behind it.
    for part in [">session began</span>", "<code>session.start</code>", "<dt>event.code</dt><dd>RG1001I</dd>"] {
        assert!(second.contains(part), "{part}: {second}");
    }
}

#[tokio::test]
async fn o49_the_page_says_who_ended_all_sessions_finds_by_account_and_has_the_age_of_keys() {
    let place = place();
    let gate = place.start();
    let tokens = gate.login().await;
    let id = id_of(&place, &tokens);
    let mut browser = Browser::signed_in(&gate, OPERATOR).await;
    let shown = text(&browser.get(&format!("/ui/sessions/{id}")).await);
    assert!(shown.contains("live</span>") && !shown.contains("Ended:"), "{shown}");
    assert!(shown.contains("never refreshed"), "{shown}");
    // Users by account: "none" finds users without an account.
    for (account, is_found) in [("none", true), ("acme", false)] {
        let shown = text(&browser.get(&format!("/ui/sessions?user=demo&status=any&account={account}")).await);
        assert!(shown.contains(&format!("value=\"user:demo account:{account}\"")), "{shown}");
        assert_eq!(shown.contains(&id), is_found, "{account}: {shown}");
    }
    let form = browser.get("/ui/revocations?user=demo").await;
    browser.post("/ui/revocations", &[("csrf", &csrf(&form)), ("user", "demo")]).await;
    let shown = text(&browser.get(&format!("/ui/sessions/{id}")).await);
    assert!(shown.contains("by grace (operator)"), "{shown}");
    let shown = text(&browser.get("/ui/keys").await);
    assert_eq!(shown.matches("minute old").count(), 2, "a key and a secret: {shown}");
}

#[tokio::test]
async fn p56_a_sign_in_ends_when_its_token_leaves_the_file() {
    let place = place();
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, OPERATOR).await;
    let mut other = Browser::signed_in(&gate, VIEWER).await;
    write_token(&place, "grace.token", "another-token-of-the-operator-0001");
    until("the sign-in ends", async || browser.get("/ui/").await.status == StatusCode::SEE_OTHER).await;
    assert_eq!(other.get("/ui/").await.status, StatusCode::OK, "another token's");
}

#[tokio::test]
async fn p56_the_cookie_is_for_https_alone_behind_a_proxy_with_tls_and_works_without_one() {
    let place = place();
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, OPERATOR).await;
    for (headers, is_secure) in [(vec![], false), (vec![("x-forwarded-proto", "https")], true)] {
        browser.headers = headers;
        let own = csrf(&browser.get("/ui/").await);
        let answer = browser.post("/ui/sign-out", &[("csrf", &own)]).await;
        let set = answer.headers["set-cookie"].to_str().unwrap();
        assert_eq!(set.contains("; Secure"), is_secure, "{set}");
        assert_eq!(browser.sign_in(OPERATOR).await.status, StatusCode::SEE_OTHER);
    }
}

#[tokio::test]
async fn n71_the_cookie_of_a_sign_in_is_good_in_its_own_folder_alone() {
    let place = place();
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, OPERATOR).await;
    let mut other = Browser::signed_in(&gate, OPERATOR).await;
    let (own, others) = (browser.place.clone().unwrap(), other.place.clone().unwrap());
    assert_ne!(own, others, "nobody can know it");
    let shown = browser.get("/ui/").await;
    assert_eq!(shown.status, StatusCode::OK);
    // Each link, form and file of a view is in the folder, so the browser never leaves it.
    let raw = browser.send_raw(&format!("/ui/{own}/sessions")).await;
    assert!(
        raw.contains(&format!("\"/ui/{own}/keys\""))
            && !raw.contains("href=\"/ui/keys")
            && !raw.contains("src=\"/ui/page")
    );
    // The cookie alone, as a web server on another port has it, opens nothing.
    for path in
        ["/ui/".to_owned(), "/ui/sessions".to_owned(), format!("/ui/{others}/"), format!("/ui/{}/", "x".repeat(43))]
    {
        browser.place = None;
        let answer = browser.get(&path).await;
        assert_eq!(
            (answer.status, &answer.headers["location"]),
            (StatusCode::SEE_OTHER, &"/ui/sign-in".parse().unwrap()),
            "{path}"
        );
    }
    browser.place = Some(own);
    assert_eq!(browser.get("/ui/sessions").await.status, StatusCode::OK);
    assert_eq!(other.get("/ui/sessions").await.status, StatusCode::OK);
}

#[tokio::test]
async fn k8_the_page_makes_a_key_that_it_shows_once_and_rotates_and_revokes_it() {
    let config = with_tokens(&[("vera", "viewer", "vera.token"), ("grace", "operator", "grace.token")]);
    let route = "path = \"/{*rest}\"\nupstream = \"app\"\n";
    let config = config.replacen(route, &format!("{route}credentials = [\"token\", \"key\"]\n"), 1);
    let place = Place::new(&support::with(&config, "api_keys", "prefix = \"acme\"\n"));
    write_token(&place, "vera.token", VIEWER);
    write_token(&place, "grace.token", OPERATOR);
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, &admin_token(&place)).await;
    let own = csrf(&browser.get("/ui/api-keys").await);
    let key_in = |answer: &Answer| -> String {
        let text = text(answer);
        let key = text.split("<code class=\"long\">").nth(1).and_then(|rest| rest.split('<').next());
        let key = key.unwrap_or_else(|| panic!("no key: {text}")).to_owned();
        keep_secret(&key);
        key
    };
    let form =
        |name: &'static str, owner: &'static str| [("csrf", &*own), ("name", name), ("kind", "user"), ("owner", owner)];
    let answer = browser.post("/ui/api-keys", &form("nightly", "demo")).await;
    assert_eq!((answer.status, &answer.headers["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()));
    let first = key_in(&answer);
    let second = key_in(&browser.post("/ui/api-keys", &form("weekly", "demo")).await);
    let refused = text(&browser.post("/ui/api-keys", &form("x", "nobody")).await);
    assert!(refused.contains("role=\"alert\"") && refused.contains("weekly"), "{refused}");
    let status = async |key: &str| gate.call(Method::GET, "/hello", &[("x-api-key", key)], "").await.status;
    assert_eq!((status(&first).await, status(&second).await), (StatusCode::OK, StatusCode::OK));
    let id = first.trim_start_matches("acme_k1_")[..12].to_owned();
    let listed = text(&browser.get("/ui/api-keys").await);
    assert!(listed.find("weekly").unwrap() < listed.find("nightly").unwrap(), "the newest first: {listed}");
    assert!(!listed.contains(&first) && listed.contains(&id));
    let subject = listed
        .split("data-label=\"Owner\" class=\"long\">demo <span class=\"below\"><span class=\"id\" title=\"")
        .nth(1)
        .unwrap();
    let subject = subject.split('"').next().unwrap().to_owned();
    assert!(text(&browser.get(&format!("/ui/api-keys?subject={subject}")).await).contains("2 keys"));
    assert!(text(&browser.get("/ui/api-keys?subject=client:x").await).contains("0 keys"));
    // A viewer sees the entries, without a form. An operator may end keys, but gets none.
    for (token, may_revoke) in [(VIEWER, false), (OPERATOR, true)] {
        let mut holder = Browser::signed_in(&gate, token).await;
        let shown = text(&holder.get("/ui/api-keys").await);
        assert!(shown.contains(&id) && !shown.contains("Create key") && !shown.contains("Rotate"), "{shown}");
        assert_eq!(shown.contains("Revoke"), may_revoke, "{shown}");
        let csrf = csrf(&holder.get("/ui/").await);
        for path in ["/ui/api-keys".to_owned(), format!("/ui/api-keys/{id}/rotate")] {
            let form = [("csrf", &*csrf), ("name", "x"), ("kind", "user"), ("owner", "demo")];
            assert_eq!(holder.post(&path, &form).await.status, StatusCode::FORBIDDEN, "{path}");
        }
        let last = text(&holder.get("/ui/api-keys?subject=").await).matches("data-label=\"Id\"").count();
        assert_eq!(last, 2);
        let confirm = holder.get(&format!("/ui/api-keys/{id}/revoke")).await.status;
        assert_eq!(confirm, if may_revoke { StatusCode::OK } else { StatusCode::FORBIDDEN });
        if !may_revoke {
            let answer = holder.post(&format!("/ui/api-keys/{id}/revoke"), &[("csrf", &csrf)]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN);
        }
    }
    for what in ["rotate", "revoke"] {
        let confirm = text(&browser.get(&format!("/ui/api-keys/{id}/{what}")).await);
        assert!(confirm.contains("action=\"/ui/") && confirm.contains(&id), "{confirm}");
    }
    let next = key_in(&browser.post(&format!("/ui/api-keys/{id}/rotate"), &[("csrf", &own)]).await);
    let back = [("csrf", &*own), ("back", "/ui/api-keys")];
    let answer = browser.post(&format!("/ui/api-keys/{id}/revoke"), &back).await;
    assert_eq!((answer.status, &answer.headers["location"]), (StatusCode::SEE_OTHER, &"/ui/api-keys".parse().unwrap()));
    assert_eq!((status(&first).await, status(&next).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
}

#[tokio::test]
async fn p56_one_field_finds_sessions_and_shows_names_beside_ids() {
    let place = place();
    let gate = place.start();
    let (first, second) = (gate.login().await, gate.login().await);
    let (old, new) = (id_of(&place, &first), id_of(&place, &second));
    gate.refresh(&second.refresh).await;
    let mut browser = Browser::signed_in(&gate, OPERATOR).await;
    let listed = text(&browser.get("/ui/sessions").await);
    let subject = listed.split("<span class=\"id\" title=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(listed.matches("<a href=\"/ui/sessions/").count(), 2, "{listed}");
    assert_eq!(listed.matches("\">demo</a>").count(), 2, "the name, and not the subject: {listed}");
    assert_eq!(listed.matches("never refreshed").count(), 1, "{listed}");
    assert!(!listed.contains("generation"), "{listed}");
    // A name, a subject, a client and a status are words of the one field.
    for (words, number) in [
        ("demo".to_owned(), 2),
        (subject.clone(), 2),
        (format!("subject:{subject} client:web"), 2),
        ("demo client:other".to_owned(), 0),
        ("user:demo status:logout".to_owned(), 0),
    ] {
        let query = form_urlencoded::byte_serialize(words.as_bytes()).collect::<String>();
        let shown = text(&browser.get(&format!("/ui/sessions?q={query}")).await);
        let found =
            [&old, &new].into_iter().filter(|id| shown.contains(&format!("href=\"/ui/sessions/{id}\""))).count();
        assert_eq!(found, number, "{words}: {shown}");
        assert!(shown.contains(&format!("type=\"search\" value=\"{words}\"")), "{words}: {shown}");
    }
    // A session's id leads to the session.
    let answer = browser.get(&format!("/ui/sessions?q={old}")).await;
    assert_eq!(answer.headers["location"], format!("/ui/sessions/{old}"));
    let shown = text(&browser.get(&format!("/ui/sessions/{old}")).await);
    assert!(shown.contains("Session of demo</h1>") && shown.contains("never refreshed"), "{shown}");
    let shown = text(&browser.get(&format!("/ui/sessions/{new}")).await);
    assert!(shown.contains("refreshed once; the new tokens are not used yet"), "{shown}");
    let shown = text(&browser.get("/ui/sessions?q=nobody").await);
    assert!(shown.contains("no user has the name nobody, and no session here has this subject"), "{shown}");
    // A search by name offers to revoke all sessions of the user, and only those.
    assert!(text(&browser.get("/ui/sessions?q=demo").await).contains("Revoke all 2 sessions"));
    assert!(!listed.contains("Revoke all"), "{listed}");
    // Events show the name beside the subject.
    let shown = text(&browser.get("/ui/events?action=session.start").await);
    assert!(shown.contains("\">demo</a> <span class=\"below\"><span class=\"id\""), "{shown}");
}

#[tokio::test]
async fn p56_the_sign_in_says_where_the_token_is() {
    let place = Place::new(support::CONFIG);
    let gate = place.start();
    let mut browser = Browser::new(&gate);
    let shown = text(&browser.get("/ui/sign-in").await);
    let command = shown.split("<pre><code>").nth(1).unwrap().split("</code>").next().unwrap();
    let file = command.strip_prefix("cat ").unwrap();
    assert_eq!(std::fs::read_to_string(place.path(file)).unwrap().trim(), admin_token(&place), "{command}");
    assert!(!shown.contains("admin.tokens"), "{shown}");
    let other = self::place();
    let gate = other.start();
    assert!(text(&Browser::new(&gate).get("/ui/sign-in").await).contains("<code>admin.tokens</code>"));
}

#[tokio::test]
async fn p71_the_charts_have_their_figures_as_a_table_for_a_browser_without_script() {
    let place = place();
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, VIEWER).await;
    let mut chart = String::new();
    let cell = |chart: &str| chart.split("data-label=\"all\">").nth(1)?.split('<').next().map(str::to_owned);
    until("the chart has figures", async || {
        gate.call(Method::GET, "/public/x", &[], "").await;
        let shown = text(&browser.get("/ui/").await);
        chart =
            shown.split("<figure id=\"chart-requests\"").nth(1).unwrap().split("</figure>").next().unwrap().to_owned();
        cell(&chart).is_some_and(|cell| !cell.starts_with("0.0 "))
    })
    .await;
    for part in [
        "<path class=\"first\" d=\"M",
        "<ol class=\"ticks\"><li>",
        "<li>0</li></ol>",
        "<summary>Figures as a table</summary>",
    ] {
        assert!(chart.contains(part), "{part}: {chart}");
    }
    let cell = cell(&chart).unwrap();
    assert!(
        chart.contains("last minute</th>")
            && chart.contains(&format!("all <b>{}</b>", cell.trim_end_matches(" req/s"))),
        "the legend and the table agree: {chart}"
    );
}
