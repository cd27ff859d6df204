//! The protocol over HTTP: its routes, the list of actions, and the cookie.

use std::time::{Duration, UNIX_EPOCH};

use http::header::SET_COOKIE;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::super::{ConsultResult, Reply, ServedPath};
use super::message::{Action, Message};
use super::words::Problem;
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::Denial;

pub(super) const PARAMETER: &str = "jwt";
/// The cookie that may contain a token.
pub const COOKIE: &str = "authToken";
/// The token cookie with the prefix `__Host-`. A browser accepts the cookie only from exactly this host over https, and
/// sends it only to this host (RFC 10017 §4.1.3.2).
pub const HOST_COOKIE: &str = "__Host-authToken";
/// The operation that accepts an envelope with any call.
pub(super) const QUERY: &str = "_query";

/// The operation that opens a WebSocket.
pub(super) const SOCKET: &str = "websocket";

struct OwnRoute {
    operation: &'static str,
    action: Action,
    methods: &'static [Method],
    template: &'static str,
}

impl OwnRoute {
    const fn new(operation: &'static str, action: Action, methods: &'static [Method], template: &'static str) -> Self {
        Self { operation, action, methods, template }
    }
}

const ROUTES: &[OwnRoute] = &[
    OwnRoute::new("login", Action::Login, &[Method::POST, Method::GET], "/_login/{strategy}"),
    OwnRoute::new("refreshToken", Action::RefreshToken, &[Method::POST], "/_refreshToken"),
    OwnRoute::new("logout", Action::Logout, &[Method::POST], "/_logout"),
    OwnRoute::new("checkToken", Action::CheckToken, &[Method::POST], "/_checkToken"),
    OwnRoute::new("getCurrentUser", Action::GetCurrentUser, &[Method::GET], "/_me"),
    OwnRoute::new("getCurrentUser (deprecated)", Action::GetCurrentUser, &[Method::GET], "/users/_me"),
    OwnRoute::new("getStrategies", Action::GetStrategies, &[Method::GET], "/strategies"),
    OwnRoute::new("publicApi", Action::PublicApi, &[Method::GET], "/_publicApi"),
];

/// Returns the paths of an endpoint. `executes` selects the actions that the gate executes.
pub(super) fn served(base: &str, executes: impl Fn(Action) -> bool) -> Vec<ServedPath> {
    let base = base.trim_end_matches('/');
    let serve = |operation, template: &str, methods| ServedPath::new(operation, format!("{base}{template}"), methods);
    let own = ROUTES.iter().filter(|route| executes(route.action));
    let mut all: Vec<ServedPath> = own.map(|route| serve(route.operation, route.template, route.methods)).collect();
    all.push(serve(QUERY, super::QUERY_PATH, &[Method::POST]));
    if cfg!(feature = "kuzzle") {
        all.push(serve(SOCKET, if base.is_empty() { "/" } else { "" }, &[Method::GET]));
    }
    all
}

/// Returns an operation's action. `None` for [`QUERY`], whose envelope names the action.
pub(super) fn action(operation: &str) -> Option<Action> {
    ROUTES.iter().find(|route| route.operation == operation).map(|route| route.action)
}

/// The list of actions, which SDKs fetch when they connect. The SDK for the JVM reads `path`, and the SDK for
/// JavaScript reads `url`. `own` is the path of this request.
pub(super) fn public_api(own: &str) -> Value {
    let base = own.strip_suffix("/_publicApi").unwrap_or_default();
    let mut controllers: Map<String, Value> = Map::new();
    for route in ROUTES {
        let (controller, action) = route.action.names();
        let entries = route.methods.iter().map(|method| {
            // The protocol writes a colon before a path parameter.
            let url = format!("{base}{}", route.template.replace('{', ":").replace('}', ""));
            json!({ "url": url, "path": url, "verb": method.as_str() })
        });
        let actions = controllers.entry(controller).or_insert_with(|| json!({}));
        let described = json!({ "controller": controller, "action": action, "http": [] });
        let described = actions.as_object_mut().map(|actions| actions.entry(action).or_insert(described));
        if let Some(http) = described.and_then(|described| described.get_mut("http")).and_then(Value::as_array_mut) {
            http.extend(entries);
        }
    }
    Value::Object(controllers)
}

/// Returns the upstream's list with the gate's own actions. If the upstream fails, the result is an error instead of a
/// shorter list, because the JavaScript SDK can use only listed actions.
pub(super) fn overlaid(own: Value, said: ConsultResult, asked: &Message) -> Result<Value, Problem> {
    let (status, body) = match said {
        ConsultResult::NoService | ConsultResult::Refused(Denial::NoRoute | Denial::MethodNotAllowed) => {
            return Ok(own);
        }
        // After this error, the SDK uses its built-in list.
        ConsultResult::Refused(denial) => return Err(Problem::of_denial(denial, asked)),
        ConsultResult::Failed => return Err(Problem::unexpected(StatusCode::BAD_GATEWAY, "Bad Gateway")),
        ConsultResult::Said(status, body) => (status, body),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Problem::unauthorized(asked)),
        _ if status.is_server_error() => return Err(Problem::unexpected(status, "the upstream failed")),
        _ => {}
    }
    let said = serde_json::from_slice::<ActionList>(&body).ok().filter(|_| status == StatusCode::OK);
    let (Some(ActionList { result: mut all }), Value::Object(own)) = (said, &own) else { return Ok(own) };
    for (controller, actions) in own {
        match (all.get_mut(controller), actions) {
            (Some(Value::Object(there)), Value::Object(actions)) => there.extend(actions.clone()),
            _ => drop(all.insert(controller.clone(), actions.clone())),
        }
    }
    Ok(Value::Object(all))
}

#[derive(serde::Deserialize)]
struct ActionList {
    result: Map<String, Value>,
}

/// Sets a cookie that scripts cannot read.
pub(super) fn set_cookie(reply: &mut Reply, name: &str, token: &str, expires: Timestamp, secure: bool) {
    let expires = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(expires.as_secs().min(LAST_SECOND)));
    insert(reply, &format!("{name}={token}; Path=/; Expires={expires}; HttpOnly; SameSite=Strict"), secure);
}

pub(super) fn clear_cookie(reply: &mut Reply, name: &str, secure: bool) {
    insert(reply, &format!("{name}=null; Path=/; HttpOnly; SameSite=Strict"), secure);
}

/// The last second of the year 9999. A cookie's date cannot express later years.
const LAST_SECOND: u64 = 253_402_300_799;

fn insert(reply: &mut Reply, cookie: &str, secure: bool) {
    let cookie = if secure { format!("{cookie}; Secure") } else { cookie.to_owned() };
    if let Ok(mut value) = HeaderValue::try_from(cookie) {
        value.set_sensitive(true);
        reply.headers_mut().insert(SET_COOKIE, value);
    }
}
