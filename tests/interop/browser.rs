//! A real provider where browsers log in: `oidc-provider` (Node), with its own pages for login and consent. The browser is a
//! client with a cookie jar.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use support::{Answer, CONFIG, Place, keep_secret, send, until};

use super::page::{chromium, installed};
use super::relay::Provider;
use support::server::free_port;

const SECRET: &str = "a-secret-of-the-client-web-of-forty-characters";

/// The cookies of a browser, for each server.
#[derive(Default)]
struct Browser(HashMap<(String, String), String>);

impl Browser {
    /// Sends a request to a URL of the provider, or of the gate.
    async fn send(&mut self, gate: &str, method: Method, url: &str, form: &[(&str, &str)]) -> Answer {
        let is_gate = url.starts_with("https://gate.test");
        let at = url.replacen("https://gate.test", gate, 1);
        let server = at.split('/').nth(2).unwrap().to_owned();
        let of_server = self.0.iter().filter(|((known, _), _)| *known == server);
        let cookies: Vec<_> = of_server.map(|((_, name), value)| format!("{name}={value}")).collect();
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = Request::builder().method(method.clone()).uri(&at);
        if is_gate {
            request = request.header(HOST, "gate.test");
        }
        if method == Method::POST {
            let origin = if is_gate { "https://gate.test".to_owned() } else { format!("http://{server}") };
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").header(ORIGIN, origin);
        }
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let answer = send(request.body(Full::from(Bytes::from(body))).unwrap()).await;
        for set in answer.headers.get_all(SET_COOKIE) {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            let key = (server.clone(), name.to_owned());
            if value.is_empty() {
                self.0.remove(&key);
            } else {
                self.0.insert(key, value.to_owned());
            }
        }
        answer
    }

    /// The state of the session at the gate.
    async fn state(&self, gate: &str) -> Value {
        let mut same = Self(self.0.clone());
        same.send(gate, Method::GET, "https://gate.test/auth/session", &[]).await.json()
    }

    /// Goes to a URL, through the pages of the provider, and back. Returns the last URL and its answer.
    async fn log_in(&mut self, gate: &str, url: &str, stops: &str) -> (String, Answer) {
        let (mut url, mut form) = (url.to_owned(), Vec::new());
        for _ in 0..20 {
            let method = if form.is_empty() { Method::GET } else { Method::POST };
            let answer = self.send(gate, method, &url, &form).await;
            form.clear();
            if let Some(next) = answer.headers.get(LOCATION) {
                let next = next.to_str().unwrap();
                let base = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
                url = if next.starts_with('/') { format!("{base}{next}") } else { next.to_owned() };
                if url.starts_with(stops) {
                    return (url, answer);
                }
                continue;
            }
            let page = String::from_utf8_lossy(&answer.body).into_owned();
            if page.contains("name=\"prompt\" value=\"login\"") {
                form = vec![("prompt", "login"), ("login", "ada"), ("password", "any")];
            } else if page.contains("name=\"prompt\" value=\"consent\"") {
                form = vec![("prompt", "consent")];
            } else {
                return (url, answer);
            }
        }
        panic!("the login does not end");
    }
}

fn config(provider: &str, keys: &str) -> String {
    let lines = format!(
        "[[issuers]]\nname = \"op\"\nurl = \"{provider}\"\naudience = [\"api\"]\npreset = \"oidc\"\ndiscovery = true\n\
         subject_prefix = \"op|\"\nclaims = {{ roles = [\"groups\"] }}\n\
         backchannel_logout = {{ path = \"/logout/op\", audience = [\"web\"] }}\n\
         [[endpoints]]\ndialect = \"browser\"\npath = \"/auth\"\nprovider = \"op\"\n\
         client = {{ id = \"web\", secret_file = \"op.secret\" }}\nscopes = [\"profile\"]\n{keys}\n[[upstreams]]"
    );
    let config = CONFIG.replacen("[[upstreams]]", &lines, 1).replace("http://gate.test", "https://gate.test");
    config.replace("path = \"/{*rest}\"\n", "path = \"/{*rest}\"\ncredentials = [\"token\", \"session\"]\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b28_b33_b37_b42_b43_a_real_provider_logs_a_browser_in_and_out() {
    let provider = Provider::start("browser").await;
    keep_secret(SECRET);
    for keys in ["", "par = true"] {
        let place = Place::new(&config(&provider.url, keys));
        std::fs::write(place.path("op.secret"), SECRET).unwrap();
        std::fs::set_permissions(place.path("op.secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let gate = place.start();
        let base = gate.url("").trim_end_matches('/').to_owned();
        let client = json!({
            "client_id": "web", "client_secret": SECRET, "redirect_uris": ["https://gate.test/auth/callback"],
            "post_logout_redirect_uris": ["https://gate.test/"], "backchannel_logout_uri": format!("{base}/logout/op"),
            "backchannel_logout_session_required": true, "require_pushed_authorization_requests": !keys.is_empty(),
        });
        let client: String =
            percent_encoding::utf8_percent_encode(&client.to_string(), percent_encoding::NON_ALPHANUMERIC).to_string();
        provider.ask(&format!("/test/client?{client}")).await;
        let mut browser = Browser::default();
        let before = provider.requests().await;
        let (end, answer) =
            browser.log_in(&base, "https://gate.test/auth/login?to=/app%23x", "https://gate.test/app").await;
        assert_eq!(end, "https://gate.test/app#x", "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(provider.requests().await - before, 1);
        let state = browser.state(&base).await;
        assert_eq!((&state["authenticated"], &state["subject"]), (&json!(true), &json!("op|ada")), "{state}");
        let app = browser.send(&base, Method::GET, "https://gate.test/app", &[]).await;
        assert_eq!((app.status.as_u16(), app.echoed("x-auth-subject")), (200, vec!["op|ada".to_owned()]));
        assert_eq!(app.echoed("x-auth-issuer").join(","), provider.url);
        // A second login asks for no password, and the session of the first one is over.
        let first = Browser(browser.0.clone());
        let (end, _) = browser.log_in(&base, "https://gate.test/auth/login?to=/again", "https://gate.test/again").await;
        assert_eq!(end, "https://gate.test/again");
        // Requests with the old cookie pass for a moment.
        support::until("the end of the first session", async || first.state(&base).await["authenticated"] == false)
            .await;
        assert_eq!(browser.state(&base).await["authenticated"], true);
        // The user logs out at the provider, which tells the gate.
        let out = format!("{}/session/end", provider.url);
        let page = browser.send(&base, Method::GET, &out, &[]).await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let secret = page.split("name=\"xsrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let form = [("xsrf", secret), ("logout", "yes")];
        browser.send(&base, Method::POST, &format!("{}/session/end/confirm", provider.url), &form).await;
        until("the session is over", async || browser.state(&base).await["authenticated"] == false).await;
        drop(gate);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b40_b41_b43_a_provider_that_takes_each_refresh_token_once_goes_on_and_its_token_is_forwarded() {
    let provider = Provider::start("browser").await;
    keep_secret(SECRET);
    let keys = "parameters = { prompt = \"consent\" }";
    let config = config(&provider.url, keys).replace("[\"profile\"]", "[\"profile\", \"offline_access\"]");
    let place = Place::new(&config.replace("\"session\"]\n", "\"session\"]\nforward_token = true\n"));
    std::fs::write(place.path("op.secret"), SECRET).unwrap();
    std::fs::set_permissions(place.path("op.secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let gate = place.start();
    let base = gate.url("").trim_end_matches('/').to_owned();
    let client = json!({
        "client_id": "web", "client_secret": SECRET, "redirect_uris": ["https://gate.test/auth/callback"],
        "post_logout_redirect_uris": ["https://gate.test/"], "grant_types": ["authorization_code", "refresh_token"],
    });
    let client: String =
        percent_encoding::utf8_percent_encode(&client.to_string(), percent_encoding::NON_ALPHANUMERIC).to_string();
    provider.ask(&format!("/test/client?{client}")).await;
    let mut browser = Browser::default();
    let (end, answer) = browser.log_in(&base, "https://gate.test/auth/login?to=/app", "https://gate.test/app").await;
    assert_eq!(end, "https://gate.test/app", "{}", String::from_utf8_lossy(&answer.body));
    // Each access token is good for three seconds.
    let (mut tokens, mut refreshes) = (std::collections::HashSet::new(), 0);
    until("three refreshes", async || {
        let app = browser.send(&base, Method::GET, "https://gate.test/app", &[]).await;
        assert_eq!(app.status.as_u16(), 200, "{}", String::from_utf8_lossy(&app.body));
        tokens.insert(app.echoed("authorization"));
        refreshes = provider.requests().await - 1;
        refreshes >= 3
    })
    .await;
    assert!(tokens.len() >= 3 && tokens.iter().all(|token| token.len() == 1), "{}", tokens.len());
    assert_eq!(browser.state(&base).await["authenticated"], true);
    // The provider ends its login without a question, because of the hint.
    let out = browser.send(&base, Method::POST, "https://gate.test/auth/logout", &[]).await;
    assert!(String::from_utf8_lossy(&out.body).contains("id_token_hint=ey"));
    assert_eq!(browser.state(&base).await["authenticated"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b9_b29_b30_b36_chromium_with_ten_tabs_reloads_goes_back_and_fetches_ahead_at_a_provider() {
    keep_secret(SECRET);
    let provider = Provider::start("browser").await;
    let port = free_port();
    let url = format!("http://localhost:{port}");
    // The session is renewed every two seconds.
    let keys = "profile = { access_ttl = \"2s\", grace = \"1s\", lost_response_window = \"1s\" }";
    let config = config(&provider.url, keys).replace("https://gate.test", &url);
    let place = Place::new(&config.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1));
    std::fs::write(place.path("op.secret"), SECRET).unwrap();
    std::fs::set_permissions(place.path("op.secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let gate = place.start();
    let client = json!({
        "client_id": "web", "client_secret": SECRET, "redirect_uris": [format!("{url}/auth/callback")],
        "post_logout_redirect_uris": [format!("{url}/")],
    });
    let client =
        percent_encoding::utf8_percent_encode(&client.to_string(), percent_encoding::NON_ALPHANUMERIC).to_string();
    provider.ask(&format!("/test/client?{client}")).await;
    let scene = json!({ "url": url, "chromium": chromium(), "provider": provider.url.as_str() });
    drive("tabs.mjs", &scene, || gate.log());
}

const LOGO: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 48 48\" width=\"48\" height=\"48\">\
                    <rect width=\"48\" height=\"48\" rx=\"12\" fill=\"#0f766e\"/>\
                    <path d=\"M12 34 24 12l12 22h-7l-5-10-5 10z\" fill=\"#fff\"/></svg>";

/// The gate's own pages, by mouse and by keyboard, without script, light and dark, on small and wide screens.
/// `WRITE_DOCS=1` writes the images of docs/images, and `ROTOGATE_SHOTS` is a folder for all pictures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b65_b66_the_pages_of_the_gate_in_chromium_for_everybody() {
    let port = free_port();
    let url = format!("http://localhost:{port}");
    let away = format!("http://127.0.0.1:{}", free_port());
    let pages = format!(
        "[[endpoints]]\ndialect = \"browser\"\npath = \"/auth\"\n[endpoints.page]\ntitle = \"Acme Bank\"\nlogo = \"acme.svg\"\n\
         color = \"#0f766e\"\nhelp = \"Questions? Call 4711, or write to help@acme.example.\"\nprivacy = \"/privacy\"\n\
         [[upstreams]]\nname = \"away\"\nurls = [\"{away}\"]\n\
         [[routes]]\npath = \"/away/{{*rest}}\"\ncredentials = [\"session\"]\nupstream = \"away\"\n\
         [[routes]]\npath = \"/closed/{{*rest}}\"\ncredentials = [\"session\"]\nscopes = [\"admin\"]\nupstream = \"app\"\n\
         [[upstreams]]\n"
    );
    let config = CONFIG.replacen("[[upstreams]]\n", &pages, 1).replace("http://gate.test", &url);
    let config = config.replace("path = \"/{*rest}\"\n", "path = \"/app\"\ncredentials = [\"token\", \"session\"]\n");
    let place = Place::new(&config.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1));
    std::fs::write(place.path("acme.svg"), LOGO).unwrap();
    let gate = place.start();
    let images = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/images"));
    let scene = json!({
        "url": url,
        "password": gate.password,
        "chromium": chromium(),
        "images": std::env::var_os("WRITE_DOCS").map(|_| images),
        "shots": std::env::var("ROTOGATE_SHOTS").ok(),
    });
    drive("pages.mjs", &scene, || gate.log());
}

/// Runs a script of tests/interop/browser, which says "done".
fn drive(script: &str, scene: &Value, log: impl FnOnce() -> String) {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop/browser")).join(script);
    let mut driver = Command::new("node");
    driver.arg(script).env("MODULES", installed());
    let child = driver.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("node is missing: install Node.js 20 or later");
    child.stdin.take().unwrap().write_all(scene.to_string().as_bytes()).unwrap();
    let output = tokio::task::block_in_place(|| child.wait_with_output()).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("done"), "{said}\n{}", log());
}
