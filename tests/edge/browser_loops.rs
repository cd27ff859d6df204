//! Browsers that a route would lead from one login to the next without end, at the real binary: at most the logins that
//! differ, then a page that names what was asked.

use serde_json::{Value, json};

use super::browser::{OWN, config as own_login, cookie, credentials, post_json};
use super::browser_oidc::{Begun, SAME_ORIGIN, World, query, set_cookies, world_with};
use super::browser_vault::FORWARDING;
use support::stub::Edge;
use support::wire::Reply;

/// A browser with its cookies.
struct Browser<'a> {
    world: &'a World,
    cookies: Vec<(String, String)>,
}

impl Browser<'_> {
    fn get(&mut self, line: &str) -> Reply {
        let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookie = format!("Cookie: {}", pairs.join("; "));
        let navigation = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", SAME_ORIGIN, &cookie];
        let reply = self.world.edge.ask(&format!("GET {line}"), &navigation[..if pairs.is_empty() { 3 } else { 4 }]);
        for (name, value, attributes) in set_cookies(&reply) {
            self.cookies.retain(|(known, _)| *known != name);
            if !attributes.ends_with("Max-Age=0") {
                self.cookies.push((name, value));
            }
        }
        reply
    }

    /// Opens a page, and logs in wherever the page leads. `claims` are those of the ID token for what was asked. Returns
    /// the last answer, and what was asked of the provider.
    fn open(&mut self, page: &str, claims: impl Fn(&str) -> Value) -> (Reply, Vec<String>) {
        let mut logins = Vec::new();
        loop {
            let reply = self.get(page);
            if reply.status != 303 {
                return (reply, logins);
            }
            let led = self.get(reply.header("location").strip_prefix("https://gate.test").unwrap());
            if led.status != 303 {
                return (led, logins);
            }
            let asked = query(led.header("location"));
            let acr = asked.get("acr_values").cloned().unwrap_or_default();
            let begun = Begun { asked, cookie: String::new() };
            let id_token = self.world.id_token(&begun, &json!({}), &claims(&acr));
            let tokens = json!({ "access_token": "first-access-token", "id_token": id_token, "expires_in": 0 });
            self.world.grant(&tokens);
            logins.push(acr);
            assert!(logins.len() < 6, "led in a circle: {logins:?}");
            let issuer: String = form_urlencoded::byte_serialize(self.world.provider.url().as_bytes()).collect();
            let back = self.get(&format!("/auth/callback?state={}&code=c&iss={issuer}", begun.asked["state"]));
            if back.status != 303 {
                return (back, logins);
            }
        }
    }
}

fn browser(world: &World) -> Browser<'_> {
    Browser { world, cookies: Vec::new() }
}

/// A route at /gold with these keys.
fn route(keys: &str) -> String {
    FORWARDING.replace("/api/", "/gold/").replace("forward_token = true", keys)
}

#[test]
fn b36_a_session_that_a_route_refuses_after_each_login_is_led_to_one_more() {
    for (keys, page, outcome) in [
        ("issuers = [\"self\"]", "/gold/x", "wrong_issuer"),
        ("dpop = \"required\"", "/gold/x", "unbound_token"),
        // The provider's access token is over at once, and there is no refresh token.
        ("forward_token = true", "/gold/x", "provider_token_over"),
    ] {
        let world = world_with(&route(keys), &json!({}));
        let mut browser = browser(&world);
        let (reply, logins) = browser.open(page, |_| json!({}));
        assert_eq!((reply.status, logins.len()), (403, 2), "{keys}: {}", reply.text());
        assert!(reply.text().contains("this page needs a login that your account does not have"), "{}", reply.text());
        assert!(world.edge.gate.log().contains(&format!("refused={outcome}")), "{outcome}");
        // Another page is served, and a login that the user asks for by the link of the page.
        assert_eq!(browser.get("/x").status, 200);
        assert_eq!(browser.get("/auth/login").status, 303);
    }
}

#[test]
fn b36_a_login_that_is_older_than_the_route_takes_or_of_the_future_is_a_page_at_once() {
    let world = world_with(&route("step_up = { max_age = \"10s\" }"), &json!({}));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for at in [now - 30, now + 3600] {
        let (reply, logins) = browser(&world).open("/gold/x", |_| json!({ "auth_time": at }));
        assert_eq!((reply.status, logins.len()), (400, 1), "{}", reply.text());
        assert!(reply.text().contains("does not meet the requirements of this page"), "{}", reply.text());
    }
    let (reply, logins) = browser(&world).open("/gold/x", |_| json!({ "auth_time": now }));
    assert_eq!((reply.status, logins.len()), (200, 1), "{}", reply.text());
}

#[test]
fn b54_check_says_before_which_route_no_session_passes_and_its_remedy_opens_the_route() {
    let roles = "roles = [\"admin\"]\n";
    for (keys, says, mended) in [
        ("issuers = [\"self\"]".to_owned(), "issuers: does not name \"kc\"", "issuers = [\"self\", \"kc\"]".to_owned()),
        ("dpop = \"required\"".to_owned(), "dpop: is \"required\", but a session", "dpop = \"optional\"".to_owned()),
        ("audiences = [\"x\"]".to_owned(), "audiences: does not contain", "audiences = [\"x\", \"api\"]".to_owned()),
        (roles.to_owned(), "roles: does not name a role of \"kc\"", format!("{roles}issuers = [\"kc\"]")),
    ] {
        for (keys, status) in [(&keys, 403), (&mended, 200)] {
            let world = world_with(&route(keys), &json!({}));
            let said = world.edge.place.done(&["check"], "").stdout;
            let warned = said
                .lines()
                .any(|line| line.contains(says) && line.contains("every request with a browser session is refused"));
            assert_eq!(warned, status == 403, "{keys}: {said}");
            let claims = json!({ "realm_access": { "roles": ["admin"] } });
            let (reply, _) = browser(&world).open("/gold/x", |_| claims.clone());
            assert_eq!(reply.status, status, "{keys}: {}", reply.text());
        }
    }
}

#[test]
fn b54_check_online_says_which_login_the_provider_does_not_offer() {
    let says = "step_up: requires an `acr` that kc does not list in `acr_values_supported`";
    for (asked, listed, is_warned) in [
        (r#"["gold", "platinum"]"#, json!(["silver", "1"]), true),
        (r#"["gold", "platinum"]"#, json!(["silver", "gold"]), false),
        (r#"["gold", "platinum"]"#, json!([]), false),
        (r#"["1"]"#, json!(["silver", "1"]), false),
    ] {
        let further = json!({ "acr_values_supported": listed });
        let world = world_with(&route(&format!("step_up = {{ acr = {asked} }}")), &further);
        let said = world.edge.place.done(&["check", "--online"], "").stdout;
        let line = said.lines().find(|line| line.contains(says)).unwrap_or_default();
        assert_eq!((!line.is_empty(), line.contains("Write one of silver, 1")), (is_warned, is_warned), "{said}");
        assert!(said.contains("issuer kc: register the redirect URI https://gate.test/auth/callback there"), "{said}");
    }
}

#[test]
fn b54_check_online_says_how_the_provider_lets_its_clients_authenticate() {
    let says = "client.secret_in: is client_secret_basic, but kc lists only client_secret_post in";
    for (listed, is_warned) in [
        (json!(["client_secret_post"]), true),
        (json!(["client_secret_post", "client_secret_basic"]), false),
        (json!([]), false),
    ] {
        let world = world_with("", &json!({ "token_endpoint_auth_methods_supported": listed }));
        let said = world.edge.place.done(&["check", "--online"], "").stdout;
        let line = said.lines().find(|line| line.contains(says)).unwrap_or_default();
        assert_eq!((!line.is_empty(), line.contains("write secret_in = \"form\"")), (is_warned, is_warned), "{said}");
    }
}

#[test]
fn b36_n46_a_login_with_a_password_is_as_old_as_its_session_and_a_second_one_opens_the_route_again() {
    let fresh = route("step_up = { max_age = \"3s\" }").replace("/gold/", "/fresh/");
    let routes = format!("{fresh}{}", route("step_up = { acr = [\"gold\"], max_age = \"1h\" }"));
    let edge = Edge::with(&own_login("", &routes), |_| {}, |_| {});
    let log_in = || cookie(&post_json(&edge, &[OWN], &credentials(&edge)));
    let navigation = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", SAME_ORIGIN];
    let open = |cookie: &str, page: &str| edge.ask(&format!("GET {page}"), &[&navigation[..], &[cookie]].concat());
    let session = log_in();
    assert_eq!(open(&session, "/fresh/x").status, 200);
    // The login ages at each request, and other routes do not mind.
    let mut led = open(&session, "/fresh/x");
    while led.status == 200 {
        led = open(&session, "/fresh/x");
    }
    assert_eq!((led.status, led.header("location")), (303, "https://gate.test/auth/login?to=%2Ffresh%2Fx"));
    assert_eq!(open(&session, "/x").status, 200);
    assert_eq!(open(&log_in(), "/fresh/x").status, 200);
    // No login with a password has an `acr`, so none is asked for.
    assert_eq!(open(&session, "/gold/x").status, 401);
    // A provider may have logged its user in long ago.
    let world = world_with(&route("step_up = { max_age = \"1h\" }"), &json!({}));
    let session = world.log_in_with(&json!({}));
    assert_eq!([world.get("/x", &session).status, world.get("/gold/x", &session).status], [200, 401]);
}
