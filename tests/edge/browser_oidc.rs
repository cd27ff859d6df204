//! Browsers that log in at a provider, at the real binary. The provider says what the test puts there: also lies. The
//! numbers of the attacks are those of the design.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::client_assertions::{KIND, reload};
use super::issuer::{Issuer, claims};
use support::documents::Documents;
use support::stub::{Edge, HEAD};
use support::wire::Reply;
use support::{Place, keep_secret, until};

const SECRET: &str = "secret-of-our-client";
pub(crate) const SAME_ORIGIN: &str = "Sec-Fetch-Site: same-origin";
pub(crate) const OWN: &str = "Origin: https://gate.test";
const TRANSMITTER: &str = "token-of-the-provider-at-the-gate";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

const CONFIG: &str = r#"
[[issuers]]
name = "kc"
url = "@provider@"
audience = ["api"]
preset = "keycloak"
discovery = true
scopes = ["read"]
subject_prefix = "kc|"
backchannel_logout = { path = "/logout/kc", audience = ["web"] }
events = { path = "/events/kc", audience = ["https://gate.test/events"], token_file = "events.token" }
[[endpoints]]
dialect = "browser"
path = "/auth"
provider = "kc"
client = { id = "web", secret_file = "kc.secret" }
scopes = ["profile", "read"]
parameters = { ui_locales = "de" }
@keys@
[[routes]]
path = "/{*rest}"
credentials = ["token", "session"]
login = "@login@"
upstream = "app"
"#;

/// A gate, and the provider where its browsers log in.
pub(crate) struct World {
    pub(crate) provider: Documents,
    pub(crate) key: Issuer,
    pub(crate) edge: Edge,
}

/// A login under way in a browser.
pub(crate) struct Begun {
    /// The parameters of the authorization request.
    pub(crate) asked: HashMap<String, String>,
    /// The cookie of the login, as the browser sends it.
    pub(crate) cookie: String,
}

pub(crate) fn document(provider: &Documents, further: &Value) -> Value {
    let mut document = json!({
        "issuer": provider.url(), "jwks_uri": provider.at("/keys"), "token_endpoint": provider.at("/token"),
        "authorization_endpoint": provider.at("/authorize"), "end_session_endpoint": provider.at("/end"),
        "pushed_authorization_request_endpoint": provider.at("/par"),
        "authorization_response_iss_parameter_supported": true,
    });
    document.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    document
}

pub(crate) fn world_with(keys: &str, further: &Value) -> World {
    world_on(MEMORY, keys, further)
}

/// The store of most tests.
const MEMORY: &str = "kind = \"memory\"";

pub(crate) fn world_on(store: &str, keys: &str, further: &Value) -> World {
    world_beside(store, keys, further, |_| {})
}

/// As above, after `files` has put files beside the configuration.
pub(crate) fn world_beside(store: &str, keys: &str, further: &Value, files: impl FnOnce(&Place)) -> World {
    let (provider, key) = (Documents::start(), Issuer::new(21));
    provider.document("/.well-known/openid-configuration", &document(&provider, further));
    provider.document("/keys", &json!({ "keys": [key.jwk("k1")] }));
    keep_secret(SECRET);
    keep_secret(TRANSMITTER);
    let secret = |place: &Place| {
        files(place);
        for (file, secret) in [("kc.secret", SECRET), ("events.token", TRANSMITTER)] {
            std::fs::write(place.path(file), secret).unwrap();
            std::fs::set_permissions(place.path(file), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
    };
    let config = CONFIG.replace("@provider@", &provider.url()).replace("@keys@", keys);
    let config = config.replace("@login@", if keys.contains("strict") { "never" } else { "auto" });
    let head = HEAD.replace("http://gate.test", "https://gate.test").replace(MEMORY, store);
    let edge = Edge::with(&format!("{head}{config}"), secret, |_| {});
    World { provider, key, edge }
}

/// A public page with an API behind it.
fn world_strict() -> World {
    world_with("par = true\nsame_site = \"strict\"", &json!({}))
}

fn world() -> World {
    world_with("", &json!({}))
}

pub(crate) fn query(url: &str) -> HashMap<String, String> {
    form_urlencoded::parse(url.split_once('?').unwrap().1.as_bytes()).into_owned().collect()
}

/// The cookies that a reply sets: name, value, attributes.
pub(crate) fn set_cookies(reply: &Reply) -> Vec<(String, String, String)> {
    let parts = |set: &&str| {
        let (pair, attributes) = set.split_once("; ").unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned(), attributes.to_owned())
    };
    reply.all("set-cookie").iter().map(parts).collect()
}

/// The session cookie that a reply sets.
pub(crate) fn session(reply: &Reply) -> String {
    let (name, value, _) = set_cookies(reply).into_iter().find(|(name, ..)| name == "__Host-Http-rg").unwrap();
    assert!(value.starts_with("rc1_"), "cleared");
    format!("Cookie: {name}={value}")
}

impl World {
    pub(crate) fn begin(&self, to: &str) -> Begun {
        let reply = self.edge.ask(&format!("GET /auth/login?to={to}"), &[]);
        assert_eq!(reply.status, 303, "{reply:?}");
        let asked = query(reply.header("location"));
        let set = set_cookies(&reply);
        let [(name, value, attributes)] = set.as_slice() else { panic!("{set:?}") };
        assert!(name.starts_with("__Host-Http-rg-tx-") && name.len() == 26, "{name}");
        assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600");
        for secret in ["state", "nonce"].into_iter().filter_map(|name| asked.get(name)) {
            assert!(!value.contains(secret.as_str()));
        }
        Begun { cookie: format!("Cookie: {name}={value}"), asked }
    }

    /// The token endpoint answers with this ID token.
    pub(crate) fn answer_with(&self, id_token: &str) {
        keep_secret(id_token);
        let access_token = "access-token-of-the-provider";
        keep_secret(access_token);
        let reply = json!({
            "access_token": access_token, "id_token": id_token, "token_type": "Bearer", "scope": "openid read write",
        });
        self.provider.document("/token", &reply);
    }

    /// A good ID token for a login, changed.
    pub(crate) fn id_token(&self, begun: &Begun, header: &Value, changes: &Value) -> String {
        let mut all = json!({ "iss": self.provider.url(), "aud": "web", "sub": "ada", "nonce": begun.asked["nonce"],
            "sid": "s-1", "typ": "ID", "client_id": null, "scope": null, "realm_access": { "roles": ["boss"] } });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut head = json!({ "alg": "EdDSA", "typ": "JWT", "kid": "k1" });
        head.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
        self.key.sign(&head, &claims(&all))
    }

    fn good(&self, begun: &Begun) {
        self.answer_with(&self.id_token(begun, &json!({}), &json!({})));
    }

    fn come_back(&self, begun: &Begun, further: &str, headers: &[&str]) -> Reply {
        let line = format!("GET /auth/callback?state={}{further}", begun.asked["state"]);
        self.edge.ask(&line, &[&[begun.cookie.as_str()], headers].concat())
    }

    /// `iss`, as a parameter of the callback.
    fn iss(&self) -> String {
        let url: String = form_urlencoded::byte_serialize(self.provider.url().as_bytes()).collect();
        format!("&iss={url}")
    }

    pub(crate) fn come_back_with_code(&self, begun: &Begun) -> Reply {
        self.come_back(begun, &format!("&code=the-code{}", self.iss()), &[])
    }

    /// A session that the provider knows by this id.
    fn log_in(&self, sid: &str) -> String {
        let begun = self.begin("/");
        self.answer_with(&self.id_token(&begun, &json!({}), &json!({ "sid": sid })));
        session(&self.come_back_with_code(&begun))
    }

    /// The provider ends the login of this user or session.
    fn log_out_there(&self, named: &Value) {
        let mut notice = json!({ "iss": self.provider.url(), "aud": "web", "sub": "ada", "jti": "l-1", "sid": "s-1",
            "events": { LOGOUT: {} }, "client_id": null, "scope": null });
        notice.as_object_mut().unwrap().extend(named.as_object().unwrap().clone());
        let token = self.key.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": "logout+jwt" }), &claims(&notice));
        let told = self.edge.form("/logout/kc", &[], &[("logout_token", &token)]);
        assert_eq!(told.status, 200, "{}", told.text());
    }

    /// The provider pushes a CAEP event: it revoked the sessions of this user.
    pub(crate) fn revoke_there(&self, subject: &str) {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let user = json!({ "format": "iss_sub", "iss": self.provider.url(), "sub": subject });
        let event = json!({ "iss": self.provider.url(), "aud": "https://gate.test/events", "iat": now, "jti": "e-1",
            "sub_id": user, "events": { REVOKED: { "event_timestamp": now } } });
        let token = self.key.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": "secevent+jwt" }), &event);
        let authorization = format!("Authorization: Bearer {TRANSMITTER}");
        let length = format!("Content-Length: {}", token.len());
        let kind = "Content-Type: application/secevent+jwt";
        let mut wire = self.edge.wire();
        wire.head("POST /events/kc", &["Host: gate.test", &length, kind, &authorization]);
        wire.send(&token);
        let told = wire.reply();
        assert_eq!(told.status, 202, "{}", told.text());
    }

    pub(crate) fn state(&self, cookie: &str) -> Value {
        self.edge.ask("GET /auth/session", &[cookie, SAME_ORIGIN]).json()
    }

    pub(crate) fn exchanges(&self) -> usize {
        self.provider.times("/token")
    }
}

/// A page that says why there is no login, from which the user may begin again.
#[track_caller]
fn is_page(reply: &Reply, status: u16, text: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert!(reply.text().contains(text), "{}", reply.text());
    assert!(reply.text().contains("<h1>Not logged in</h1>") && reply.text().contains("Request ID: <code>"));
    assert!(reply.text().contains("href=\"/auth/login\"") && reply.header("x-frame-options") == "DENY");
    assert!(reply.all("location").is_empty() && reply.all("refresh").is_empty(), "never by itself");
    assert!(!set_cookies(reply).iter().any(|(name, ..)| name == "__Host-Http-rg"));
}

#[test]
fn b2_b28_b34_b35_a_browser_logs_in_at_the_provider_and_comes_back_to_where_it_was() {
    let world = world();
    let begun = world.begin("%2Fapp%3Fx%3Dy%23z");
    let asked = &begun.asked;
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "web"),
        ("redirect_uri", "https://gate.test/auth/callback"),
        ("scope", "openid profile read"),
        ("code_challenge_method", "S256"),
        ("ui_locales", "de"),
    ] {
        assert_eq!(asked[name], value);
    }
    assert!(["state", "nonce", "code_challenge"].iter().all(|name| asked[*name].len() == 43), "256 bits each");
    world.good(&begun);
    let reply = world.come_back_with_code(&begun);
    assert_eq!((reply.status, reply.header("location")), (303, "https://gate.test/app?x=y#z"), "{}", reply.text());
    assert_eq!((reply.header("cache-control"), reply.header("referrer-policy")), ("no-store", "same-origin"));
    let (form, authorization) = world.provider.form("/token");
    assert_eq!((&*form["grant_type"], &*form["code"]), ("authorization_code", "the-code"));
    assert_eq!(form["redirect_uri"], asked["redirect_uri"]);
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, form["code_verifier"].as_bytes()));
    assert_eq!(challenge, asked["code_challenge"]);
    assert_eq!(authorization.unwrap(), "Basic d2ViOnNlY3JldC1vZi1vdXItY2xpZW50");
    let set = set_cookies(&reply);
    assert_eq!(set.len(), 2);
    let cleared = set.iter().find(|(name, ..)| name.contains("-tx-")).unwrap();
    assert_eq!((&*cleared.1, &*cleared.2), ("", "Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
    let live = world.state(&session(&reply));
    assert_eq!((&live["authenticated"], &live["subject"]), (&json!(true), &json!("kc|ada")));
    assert_eq!(live["claims"], json!({ "roles": ["boss"] }));
    // Tokens of the provider go nowhere; what the upstream gets is the user.
    let cookies = format!("{}; {}; app=1", session(&reply), begun.cookie.trim_start_matches("Cookie: "));
    assert_eq!(world.edge.ask("GET /x", &[&cookies, SAME_ORIGIN]).status, 200);
    let received = world.edge.stub.one();
    assert_eq!(received.all("x-auth-subject"), ["kc|ada"]);
    assert_eq!(received.all("x-auth-scope"), ["read"]);
    assert_eq!((received.all("cookie"), received.all("authorization").len()), (vec!["app=1"], 0));
    assert_eq!(world.edge.series("rotogate_browser_logins_total{result=\"ok\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn d24_the_gate_proves_its_key_for_the_code_of_a_login() {
    let (world, key) = (world(), Issuer::new(35));
    support::pki::write_private(&world.edge.place.path("gate.pem"), &key.private_pem());
    let config = std::fs::read_to_string(world.edge.place.path("gateway.toml")).unwrap();
    let by_key = format!("key_file = \"gate.pem\", assertion_audience = \"{}\"", world.provider.url());
    world.edge.place.write_config(&config.replace("secret_file = \"kc.secret\"", &by_key));
    reload(&world.edge, 1).await;
    let begun = world.begin("/");
    world.good(&begun);
    assert_eq!(world.come_back_with_code(&begun).status, 303);
    let (form, authorization) = world.provider.form("/token");
    assert!(authorization.is_none() && !form.contains_key("client_secret"), "{form:?}");
    assert_eq!(form["client_assertion_type"], KIND);
    key.proved(&form["client_assertion"], "web", &world.provider.url());
}

#[tokio::test(flavor = "multi_thread")]
async fn b55_a_reload_applies_provider_client_and_scopes_to_the_next_login() {
    let (world, other) = (world(), Documents::start());
    other.document("/.well-known/openid-configuration", &document(&other, &json!({})));
    other.document("/keys", &json!({ "keys": [Issuer::new(22).jwk("k2")] }));
    let get = |held: &str| world.edge.ask("GET /x", &[held, SAME_ORIGIN]).status;
    let [held, second] = ["s-1", "s-2"].map(|sid| world.log_in(sid));
    let mut config = std::fs::read_to_string(world.edge.place.path("gateway.toml")).unwrap();
    for (old, new) in [
        ("id = \"web\"", "id = \"pages\""),
        ("scopes = [\"profile\", \"read\"]", "scopes = [\"email\"]\nafter_logout = \"/bye\""),
        ("ui_locales = \"de\"", "ui_locales = \"fr\""),
    ] {
        assert!(config.contains(old), "{old}");
        config = config.replace(old, new);
    }
    world.edge.place.write_config(&config);
    reload(&world.edge, 1).await;
    let asked = world.begin("/").asked;
    let now = ["client_id", "scope", "ui_locales"].map(|name| asked[name].as_str());
    assert_eq!(now, ["pages", "openid email", "fr"]);
    assert_eq!(get(&held), 200, "the session goes on");
    let out = world.edge.ask("POST /auth/logout", &["Content-Length: 0", OWN, &held]).json();
    assert_eq!(query(out["logout"].as_str().unwrap())["post_logout_redirect_uri"], "https://gate.test/bye");
    // Another provider.
    let entry =
        format!("[[issuers]]\nname = \"new\"\nurl = \"{}\"\naudience = [\"api\"]\ndiscovery = true\n", other.url());
    let moved = config.replace("provider = \"kc\"", "provider = \"new\"");
    let moved = moved.replace("name = \"kc\"", "name = \"kc\"\neverywhere = true");
    world.edge.place.write_config(&format!("{moved}{entry}subject_prefix = \"new|\"\n"));
    reload(&world.edge, 2).await;
    let login = || world.edge.ask("GET /auth/login?to=/", &[]);
    until("the document of the other provider is there", async || login().status == 303).await;
    assert!(login().header("location").starts_with(&other.at("/authorize?")));
    assert_eq!(get(&second), 401, "a session of the provider before is over once the gate reads it again");
}

#[test]
fn b18_b40_without_the_provider_a_gate_starts_live_sessions_pass_and_a_login_is_503() {
    let mut world = world_on("kind = \"redb\"\npath = \"data/rotogate.redb\"", "", &json!({}));
    let held = world.log_in("s-1");
    for path in ["/.well-known/openid-configuration", "/keys", "/token"] {
        world.provider.answer(path, "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned());
    }
    world.edge.gate.kill();
    std::fs::remove_dir_all(world.edge.place.path("data/issuers")).unwrap();
    world.edge.gate = world.edge.place.start();
    let get = |line: &str| world.edge.ask(line, &[&held, SAME_ORIGIN]);
    assert_eq!((get("GET /x").status, &world.state(&held)["authenticated"]), (200, &json!(true)));
    let login = get("GET /auth/login");
    is_page(&login, 503, "the provider is unavailable");
    assert_eq!(login.all("retry-after").len(), 1);
}

#[test]
fn b29_a_callback_without_its_login_is_a_page_and_no_exchange() {
    let world = world();
    let (mine, other) = (world.begin("/"), world.begin("/"));
    world.good(&mine);
    let code = format!("&code=c{}", world.iss());
    // Attacks 8 and 9.
    let alone = format!("GET /auth/callback?state={}{code}", mine.asked["state"]);
    is_page(&world.edge.ask(&alone, &[]), 400, "this browser did not start this login");
    is_page(&world.edge.ask(&alone, &[&other.cookie]), 400, "this browser did not start this login");
    let renamed = format!("{}={}", mine.cookie.split_once('=').unwrap().0, other.cookie.split_once('=').unwrap().1);
    is_page(&world.edge.ask(&alone, &[&renamed]), 400, "this browser did not start this login");
    for (query, flaw) in [
        (String::new(), "no `state`"),
        (format!("code=c{}", world.iss()), "no `state`"),
        (format!("state={0}&state={0}{code}", mine.asked["state"]), "twice"),
        (format!("state={}{code}&code=d", mine.asked["state"]), "twice"),
        (format!("state={}{code}&error=x", mine.asked["state"]), "both `code` and `error`"),
        (format!("state={}", mine.asked["state"]), "neither `code` nor `error`"),
        (format!("state=%00%ff{code}"), "this browser did not start this login"),
    ] {
        is_page(&world.edge.ask(&format!("GET /auth/callback?{query}"), &[&mine.cookie]), 400, flaw);
    }
    assert_eq!(world.exchanges(), 0);
    // None of that has ended the login.
    assert_eq!(world.come_back_with_code(&mine).status, 303);
    // Attack 10: history and reload.
    let held = session(&world.come_back_with_code(&{
        world.good(&other);
        other
    }));
    let again = world.come_back(&mine, &code, &[&held]);
    assert_eq!((again.status, again.header("location")), (303, "https://gate.test/"));
    is_page(&world.come_back(&mine, &code, &[]), 400, "this browser did not start this login");
    assert_eq!(world.exchanges(), 2);
}

#[test]
fn b32_the_answer_must_name_the_provider_that_was_asked_before_the_code_leaves() {
    // Attack 11.
    let world = world();
    for (iss, flaw) in [
        (String::new(), "Exclude Issuer From Authentication Response"),
        ("&iss=https%3A%2F%2Fevil.example".to_owned(), "`iss` names another provider"),
        (format!("{}%2F", world.iss()), "`iss` names another provider"),
        (format!("{0}{0}", world.iss()), "twice"),
    ] {
        let begun = world.begin("/");
        is_page(&world.come_back(&begun, &format!("&code=c{iss}"), &[]), 400, flaw);
    }
    assert_eq!(world.exchanges(), 0);
    let silent = world_with("", &json!({ "authorization_response_iss_parameter_supported": false }));
    let begun = silent.begin("/");
    silent.good(&begun);
    assert_eq!(silent.come_back(&begun, "&code=c", &[]).status, 303);
    let lying = silent.begin("/");
    is_page(
        &silent.come_back(&lying, "&code=c&iss=https%3A%2F%2Fevil.example", &[]),
        400,
        "`iss` names another provider",
    );
}

#[test]
fn b33_an_id_token_that_is_not_the_answer_to_this_login_is_refused() {
    let world = world();
    let stranger = Issuer::new(22);
    // Attacks 12 and 13.
    for (header, changes) in [
        (json!({}), json!({ "nonce": "another" })),
        (json!({}), json!({ "nonce": null })),
        (json!({}), json!({ "aud": "other" })),
        (json!({}), json!({ "aud": ["web", "other"] })),
        (json!({}), json!({ "azp": "other" })),
        (json!({}), json!({ "iss": "https://evil.example" })),
        (json!({}), json!({ "exp": 1000 })),
        (json!({}), json!({ "iat": 1000 })),
        (json!({}), json!({ "at_hash": "AAAA" })),
        (json!({ "alg": "none" }), json!({})),
        (json!({ "alg": "HS256" }), json!({})),
        (json!({ "typ": "at+jwt" }), json!({})),
        (json!({ "typ": "logout+jwt" }), json!({ "events": { LOGOUT: {} } })),
    ] {
        let begun = world.begin("/");
        world.answer_with(&world.id_token(&begun, &header, &changes));
        let reply = world.come_back_with_code(&begun);
        assert_eq!((reply.status, reply.all("location").len()), (400, 0), "{header} {changes}");
        assert_eq!(set_cookies(&reply).len(), 1, "the login is over, and no session began");
    }
    let begun = world.begin("/");
    let forged = json!({ "iss": world.provider.url(), "aud": "web", "sub": "ada", "nonce": begun.asked["nonce"] });
    world.answer_with(&stranger.sign(&json!({ "alg": "EdDSA", "kid": "k1" }), &claims(&forged)));
    is_page(&world.come_back_with_code(&begun), 400, "it was not signed with a key of the issuer");
    assert_eq!(world.edge.series("rotogate_sessions_started_total{dialect=\"browser\"}"), 0);
    let log = world.edge.gate.log();
    assert!(log.contains("session.start_refused") && log.contains("`nonce` is not the nonce of this login"), "{log}");
}

#[test]
fn b29_b34_b44_each_failure_at_the_provider_has_its_page() {
    let world = world();
    let error = |code: &str| format!("&error={code}&error_description=%3Cb%3Eprovider-text{}", world.iss());
    for (code, status, text) in [
        ("access_denied", 403, "You cancelled the login, or your account may not use this application."),
        ("login_required", 400, "the provider returned an error"),
        ("%3Cscript%3E", 400, "the provider returned an error"),
        ("temporarily_unavailable", 503, "The login service does not answer at the moment. Try again in a minute."),
    ] {
        let begun = world.begin("/");
        let reply = world.come_back(&begun, &error(code), &[]);
        is_page(&reply, status, text);
        assert!(!reply.text().contains("provider-text") && !reply.text().contains("script>"));
    }
    assert_eq!(world.exchanges(), 0);
    // Attack 14: the provider knows the verifier of another login.
    let answers = [
        (
            "400 Bad Request",
            r#"{"error":"invalid_grant","error_description":"words-about-a-code"}"#,
            400,
            "the provider refused the code",
        ),
        ("401 Unauthorized", r#"{"error":"invalid_client"}"#, 503, "the provider is unavailable"),
        ("500 Oh", "", 503, "the provider is unavailable"),
    ];
    for (line, body, status, text) in answers {
        let begun = world.begin("/");
        let answer = format!("HTTP/1.1 {line}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        world.provider.answer("/token", answer);
        let before = world.exchanges();
        let reply = world.come_back_with_code(&begun);
        is_page(&reply, status, text);
        assert!(!reply.text().contains("words-about-a-code"));
        assert_eq!(reply.all("retry-after").len(), usize::from(status == 503));
        assert_eq!(world.exchanges() - before, 1);
        // The code is not sent again.
        is_page(&world.come_back_with_code(&begun), 400, "this browser did not start this login");
        assert_eq!(world.exchanges() - before, 1);
    }
    // The operator can find out why, and a stranger without a login under way writes nothing.
    let log = world.edge.gate.log();
    for said in ["login_required: <b>provider-text", "invalid_grant: words-about-a-code"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let stranger = world.edge.ask("GET /auth/callback?state=s&error=stranger", &[]);
    is_page(&stranger, 400, "this browser did not start this login");
    assert!(!world.edge.gate.log().contains("stranger"), "{}", world.edge.gate.log());
    let unknown = world_with("", &json!({ "authorization_endpoint": null }));
    let reply = unknown.edge.ask("GET /auth/login", &[]);
    is_page(&reply, 503, "the provider is unavailable");
}

#[test]
fn b30_b31_b38_ten_tabs_begin_and_ten_finish_and_nothing_is_stored_before() {
    let world = world();
    let mut jar: HashMap<String, String> = HashMap::new();
    let cookies = |jar: &HashMap<String, String>| {
        let pairs: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("Cookie: {}", pairs.join("; "))
    };
    let store = |jar: &mut HashMap<String, String>, reply: &Reply| {
        for (name, value, attributes) in set_cookies(reply) {
            if attributes.ends_with("Max-Age=0") {
                jar.remove(&name)
            } else {
                jar.insert(name, value)
            };
        }
    };
    let begin = |jar: &mut HashMap<String, String>, to: &str| {
        let reply = world.edge.ask(&format!("GET /auth/login?to={to}"), &[&cookies(jar)]);
        store(jar, &reply);
        Begun { asked: query(reply.header("location")), cookie: String::new() }
    };
    let tabs: Vec<_> = (0..10).map(|tab| begin(&mut jar, &format!("/tab/{tab}"))).collect();
    for (tab, begun) in tabs.iter().enumerate().rev() {
        world.good(begun);
        let line = format!("GET /auth/callback?code=c&state={}{}", begun.asked["state"], world.iss());
        let reply = world.edge.ask(&line, &[&cookies(&jar)]);
        assert_eq!(reply.header("location"), format!("https://gate.test/tab/{tab}"), "{}", reply.text());
        store(&mut jar, &reply);
    }
    assert_eq!((jar.len(), world.exchanges()), (1, 10));
    // Attack 18: the sessions before the last one have ended.
    let held = format!("Cookie: __Host-Http-rg={}", jar["__Host-Http-rg"]);
    assert_eq!(world.state(&held)["authenticated"], true);
    let next = world.begin("/");
    world.good(&next);
    let reply = world.come_back(&next, &format!("&code=c{}", world.iss()), &[&held]);
    assert_ne!(session(&reply), held);
    // The old session ends after `grace`, because the user is the same.
    let is_over = |_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        world.state(&held)["authenticated"] == false
    };
    assert!((0..600).any(is_over));
    // Attack 17. Each start may ask the provider, so an address has as many as it has refreshes; of a thousand, the
    // others are refused. Neither kind leaves anything but the cookies of the last twelve.
    let started = || -> Vec<String> {
        let metrics = world.edge.metrics();
        metrics.lines().filter(|line| line.starts_with("rotogate_sessions_started_total{")).map(str::to_owned).collect()
    };
    let before = started();
    let (mut begun, mut refused) = (0, 0);
    for _ in 0..1000 {
        let reply = world.edge.ask("GET /auth/login?to=/", &[&cookies(&jar)]);
        store(&mut jar, &reply);
        match reply.status {
            303 => begun += 1,
            429 => {
                assert!(reply.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
                assert!(set_cookies(&reply).is_empty());
                refused += 1;
            }
            other => panic!("{other}: {}", reply.text()),
        }
        assert!(jar.len() <= 13, "twelve logins, and the session");
    }
    assert!(begun > 100 && refused > 0, "{begun} begun, {refused} refused");
    assert_eq!(jar.keys().filter(|name| name.starts_with("__Host-Http-rg-tx-")).count(), 12);
    assert_eq!(started(), before, "by no dialect");
}

#[test]
fn b64_a_deep_link_of_8_kib_survives_the_login_at_a_provider() {
    let world = world();
    // Percent signs treble in the parameter of a URL.
    for query_text in ["q=".to_owned() + &"a".repeat(4000), "q=".to_owned() + &"%C3%A4".repeat(1360)] {
        let mut jar: HashMap<String, String> = HashMap::new();
        let cookies = |jar: &HashMap<String, String>| {
            let pairs: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("Cookie: {}", pairs.join("; "))
        };
        let store = |jar: &mut HashMap<String, String>, reply: &Reply| {
            let set = set_cookies(reply).into_iter().filter(|(_, _, attributes)| !attributes.ends_with("Max-Age=0"));
            jar.extend(set.map(|(name, value, _)| (name, value)));
        };
        let link = format!("/app/page?{query_text}");
        let led = world.edge.ask(&format!("GET {link}"), &["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"]);
        store(&mut jar, &led);
        let login = led.header("location").strip_prefix("https://gate.test").unwrap().to_owned();
        let begun = world.edge.ask(&format!("GET {login}"), &[&cookies(&jar)]);
        store(&mut jar, &begun);
        let begun = Begun { asked: query(begun.header("location")), cookie: String::new() };
        world.good(&begun);
        let callback = format!("GET /auth/callback?code=c&state={}{}", begun.asked["state"], world.iss());
        let back = world.edge.ask(&callback, &[&cookies(&jar)]);
        assert_eq!(back.header("location"), format!("https://gate.test{link}"), "{}", link.len());
    }
}

#[test]
fn b28_b35_neither_host_nor_target_of_a_request_leads_elsewhere() {
    let world = world();
    // Attack 15.
    let bad = ["//evil", "/%5Cevil", "/%2509/evil", "/%252f%252fevil", "javascript:a", "https://evil", "/auth/logout"];
    for to in bad {
        let begun = world.begin(to);
        world.good(&begun);
        assert_eq!(world.come_back_with_code(&begun).header("location"), "https://gate.test/", "{to}");
    }
    // Attack 16.
    let poisoned =
        world.edge.ask("GET /auth/login", &["X-Forwarded-Host: evil.example", "Forwarded: host=evil.example"]);
    assert_eq!(query(poisoned.header("location"))["redirect_uri"], "https://gate.test/auth/callback");
    for path in ["/auth/login", "/auth/callback?state=x&code=y"] {
        let mut wire = world.edge.wire();
        wire.head(&format!("GET {path}"), &["Host: evil.example"]);
        assert_eq!(wire.reply().status, 421);
    }
    // There is no login with a password, and a look at the head begins nothing.
    let form = world.edge.form("/auth/login", &[OWN], &[("username", "demo"), ("password", &world.edge.gate.password)]);
    assert_eq!(form.status, 405);
    for path in ["/auth/login", "/auth/callback?state=x&code=y"] {
        let head = world.edge.ask(&format!("HEAD {path}"), &[]);
        assert_eq!((head.status, head.all("set-cookie").len()), (204, 0));
    }
}

#[test]
fn b35_b37_a_strict_cookie_comes_with_a_page_and_parameters_are_pushed_where_asked() {
    let strict = world_strict();
    strict.provider.document("/par", &json!({ "request_uri": "urn:x:1", "expires_in": 60 }));
    let begun = strict.begin("/x");
    assert_eq!((begun.asked.len(), &*begun.asked["request_uri"]), (2, "urn:x:1"));
    let (pushed, authorization) = strict.provider.form("/par");
    assert!(authorization.is_some() && pushed["code_challenge_method"] == "S256");
    let begun = Begun { asked: pushed, ..begun };
    strict.good(&begun);
    let reply = strict.come_back_with_code(&begun);
    assert_eq!((reply.status, reply.header("refresh")), (200, "0;url=https://gate.test/x"));
    assert!(set_cookies(&reply).iter().any(|(_, _, attributes)| attributes.contains("SameSite=Strict")));
}

#[test]
fn b42_b43_a_logout_here_leads_to_the_providers_and_one_there_ends_the_session() {
    let world = world();
    let held = world.log_in("s-0");
    let length = "Content-Length: 0";
    let mut wire = world.edge.wire();
    wire.head("POST /auth/logout", &["Host: gate.test", length, OWN, &held]);
    let out = wire.reply();
    let expected = "/end?client_id=web&post_logout_redirect_uri=https%3A%2F%2Fgate.test%2F";
    let hinted = format!("{}&id_token_hint=ey", world.provider.at(expected));
    let body = out.json();
    assert!(out.status == 200 && body["logout"].as_str().is_some_and(|url| url.starts_with(&hinted)), "{body}");
    assert_eq!(world.state(&held)["authenticated"], false);
    let form = world.edge.form("/auth/logout", &[OWN], &[]);
    assert_eq!(form.header("refresh"), format!("0;url={}", world.provider.at(expected)));
    // Attack 23: the provider ends the login there.
    for named in [json!({ "sub": null, "sid": "s-1" }), json!({ "sid": null })] {
        let held = world.log_in(named["sid"].as_str().unwrap_or("s-2"));
        assert_eq!(world.edge.ask("GET /x", &[&held, SAME_ORIGIN]).status, 200);
        world.log_out_there(&named);
        let over = world.edge.ask("GET /x", &[&held, SAME_ORIGIN]);
        assert_eq!(over.status, 401, "{named}");
        assert_eq!(world.state(&held)["authenticated"], false);
    }
}

#[test]
fn b42_an_event_of_the_provider_ends_the_sessions_of_its_user_at_the_next_request() {
    let world = world();
    let log_in = |subject: &str| {
        let begun = world.begin("/");
        world.answer_with(&world.id_token(&begun, &json!({}), &json!({ "sub": subject, "sid": subject })));
        session(&world.come_back_with_code(&begun))
    };
    let [ada, bob] = ["ada", "bob"].map(log_in);
    let get = |held: &str| world.edge.ask("GET /x", &[held, SAME_ORIGIN]);
    assert_eq!([&ada, &bob].map(|held| get(held).status), [200, 200]);
    world.revoke_there("ada");
    let over = get(&ada);
    assert_eq!((over.status, world.state(&ada)["authenticated"].clone()), (401, json!(false)));
    assert!(set_cookies(&over).iter().any(|(name, value, _)| name == "__Host-Http-rg" && value.is_empty()));
    assert_eq!(get(&bob).status, 200, "the session of another user goes on");
}

#[test]
fn b42_a_logout_at_the_provider_during_the_login_ends_the_session_before_its_cookie_goes_out() {
    let world = world();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for (sid, iat, status) in [("s-1", now - 5, 400), ("s-2", now - 5, 303)] {
        let begun = world.begin("/");
        world.answer_with(&world.id_token(&begun, &json!({}), &json!({ "sid": sid, "iat": iat })));
        world.log_out_there(&json!({ "iat": now - 4 }));
        let reply = world.come_back_with_code(&begun);
        match status {
            400 => is_page(&reply, 400, "the user was logged out after `iat`"),
            _ => assert_eq!(world.state(&session(&reply))["authenticated"], true),
        }
    }
    assert_eq!(world.edge.series("rotogate_browser_logins_total{result=\"ok\"}"), 1);
}
