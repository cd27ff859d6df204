//! Input that any page may send to the login of browsers: its target, the query with which a browser returns from a
//! provider, and the cookie of the login under way. The endpoint itself reads the input.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, HOST, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use rotogate::Gate;
use rotogate::gate::{Browser, LoginProvider, Peer};
use rotogate::remote_keys::{Metadata, RemoteIssuer};
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};
use rotogate_core::store::MemoryStore;
use rotogate_core::token::{IssuerKeys, IssuerRules, Keyring};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt};

use crate::input::target;

const PROVIDER: &str = "https://id.test";
const LISTED: &str = "https://app.test";
/// Each answer of the provider must name the provider, and no answer here does: no code leaves, and nothing is sent to
/// a network.
const DOCUMENT: &str = r#"{"issuer": "https://id.test", "jwks_uri": "https://id.test/keys", "token_endpoint": "https://id.test/token",
    "authorization_endpoint": "https://id.test/authorize", "authorization_response_iss_parameter_supported": true}"#;

struct World {
    runtime: Runtime,
    gate: Gate,
}

/// A login under way: what its browser holds.
struct Login {
    world: World,
    state: String,
    /// The name of its cookie, and the value.
    cookie: (String, String),
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    page: String,
}

impl World {
    fn new(browser: Browser) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        // The clock stands still: no input ends a login by its age.
        let time: Arc<dyn TimeSource> = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let mut rules = IssuerRules::external(PROVIDER, vec!["api".into()], IssuerKeys::unknown());
        rules.name = "id".into();
        let vaults = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
        let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap()).time(time);
        let gate = gate.trusted_issuer(rules).allowed_origins([LISTED]).row_store(vaults).browser(browser);
        let gate = runtime.block_on(gate.build()).unwrap();
        Self { runtime, gate }
    }

    /// `None` for a target that is invalid in HTTP.
    fn get(&self, target: &str, cookie: Option<&[u8]>) -> Option<Answered> {
        let mut request = Request::get(target).header(HOST, "gate.test");
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let peer = Peer::new([192, 0, 2, 7].into(), true);
        let request = request.extension(peer).body(Full::<Bytes>::default()).ok()?;
        let service = tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
        let answering = async {
            let (head, body) = self.gate.layer().layer(service).oneshot(request).await.unwrap().into_parts();
            let page = body.collect().await.unwrap_or_else(|_| panic!("a whole page")).to_bytes();
            let page = String::from_utf8(page.to_vec()).unwrap();
            Answered { status: head.status, headers: head.headers, page }
        };
        Some(self.runtime.block_on(answering))
    }
}

impl Answered {
    fn cookies(&self) -> impl Iterator<Item = &str> {
        self.headers.get_all(SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap())
    }
}

static OWN: LazyLock<World> = LazyLock::new(|| World::new(Browser::own("/auth").page("/signin")));

static LOGIN: LazyLock<Login> = LazyLock::new(|| {
    let metadata = Arc::new(Metadata::parse(DOCUMENT.as_bytes(), PROVIDER).unwrap());
    let issuer = RemoteIssuer::new("id", PROVIDER);
    let provider = LoginProvider::with_metadata(&issuer, "web", Arc::new(move || Some(Arc::clone(&metadata))));
    let world = World::new(Browser::provider("/auth", provider));
    let begun = world.get("/auth/login?to=/x", None).unwrap();
    let query = begun.headers[LOCATION].to_str().unwrap().split_once('?').unwrap().1.to_owned();
    let state = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "state").unwrap().1.into_owned();
    let cookie = begun.cookies().next().unwrap().split(';').next().unwrap().split_once('=').unwrap();
    let cookie = (cookie.0.to_owned(), cookie.1.to_owned());
    Login { world, state, cookie }
});

/// Stands for what the login under way has: its state, or the value of its cookie …
const PLACEHOLDER: char = '@';
/// … and this for the value without its last character.
const SHORTENED: char = '~';

target!(
    /// B35: a target is kept byte for byte, a target of our origin without the origin, or not at all. A kept target is a path of the gate
    /// outside its endpoint, or a URL of a listed origin. It contains no `\`, tab or line end, because browsers read these as other
    /// characters.
    login_target,
    &[
        "/", "//", "\\", "/auth", "/auth/logout", "%2f", "%5c", "%09", "%0d%0a", "..", ".", ";", "#", "?", "@", ":", "https://app.test",
        "https://gate.test", "https://evil.test", "javascript:", "\t", "\r\n", " ", "\u{e9}",
    ],
    |input| {
        let Ok(to) = std::str::from_utf8(input) else { return };
        let query: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
        let Some(reply) = OWN.get(&format!("/auth/login?to={query}"), None) else { return };
        let Some(location) = reply.headers.get(LOCATION) else {
            assert!(reply.status.is_client_error(), "{}", reply.status);
            return;
        };
        let location = location.to_str().unwrap();
        let Some(query) = location.strip_prefix("https://gate.test/signin?") else {
            assert_eq!(location, "https://gate.test/signin");
            return;
        };
        let to = to.strip_prefix("https://gate.test").filter(|path| path.starts_with('/')).unwrap_or(to);
        let kept: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        assert_eq!((kept.len(), &*kept[0].0, &*kept[0].1), (1, "to", to));
        assert!(to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{to:?}");
        let of_listed = to.strip_prefix(LISTED).map(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
        let is_own = to.starts_with('/') && !to.starts_with("//");
        assert!(of_listed.unwrap_or(is_own), "{to:?}");
        let path = to.split(['?', '#']).next().unwrap().to_ascii_lowercase();
        assert!(path != "/auth" && !path.starts_with("/auth/"), "{to:?}");
    }
);

target!(
    /// B29, B44: no query leads a browser on, begins a session or is shown; only one with one `state`, which is that of the
    /// login of this browser, ends that login.
    callback_query,
    &["@", "state=@", "code=", "error=", "iss=", "&", "=", "%26", "access_denied", "<script>", "+", "%00", "%ff", "state=", "\u{e9}"],
    |input| {
        let Ok(query) = std::str::from_utf8(input) else { return };
        let Login { world, state, cookie: (name, value) } = &*LOGIN;
        let query = query.replace(PLACEHOLDER, state);
        let held = format!("{name}={value}");
        let Some(reply) = world.get(&format!("/auth/callback?{query}"), Some(held.as_bytes())) else { return };
        assert!(reply.status.is_client_error() || reply.status.is_server_error(), "{}", reply.status);
        assert!(!reply.headers.contains_key(LOCATION) && !reply.headers.contains_key("refresh"));
        assert!(!reply.page.contains("<script") && !reply.page.contains(state.as_str()));
        let set: Vec<_> = reply.cookies().collect();
        if !set.is_empty() {
            let sent = query.split('#').next().unwrap();
            let states: Vec<_> = form_urlencoded::parse(sent.as_bytes()).filter(|(name, _)| name == "state").collect();
            assert!(states.len() == 1 && states[0].1 == *state, "{query:?}");
            assert!(set.len() == 1 && set[0].starts_with(&format!("{name}=;")), "{set:?}");
        }
    }
);

target!(
    /// B29: the cookie of a login under way has one spelling, and nothing else is one.
    login_cookie,
    &["@", "~", "A", "AA", "=", "-", "_", "+", "/", ".", "rc1_"],
    |input| {
        let Login { world, state, cookie: (name, ours) } = &*LOGIN;
        let Ok(text) = std::str::from_utf8(input) else { return };
        // Another cookie may stand beside it.
        if text.contains(';') {
            return;
        }
        let text = text.replace(PLACEHOLDER, ours).replace(SHORTENED, &ours[..ours.len() - 1]);
        let target = format!("/auth/callback?state={state}&error=access_denied&iss=https%3A%2F%2Fid.test");
        let Some(reply) = world.get(&target, Some(format!("{name}={text}").as_bytes())) else { return };
        let expected = if text.trim_matches([' ', '\t']) == ours { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
        assert_eq!(reply.status, expected, "{text:?}");
        assert_eq!(reply.cookies().count(), usize::from(expected == StatusCode::FORBIDDEN));
    }
);
