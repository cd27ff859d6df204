//! A call of the protocol, which arrives at its own route, in `POST /_query`, or over a WebSocket.

use http::Method;
use secrecy::SecretString;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::super::oauth2::form::MAX_PARAMETERS;
use super::super::{Call, EnclosedCall};
use super::actions;
use super::words::{self, Problem};
use rotogate_core::strict_json::{members_of_depth, object_of_depth};

/// The maximum nesting depth of the JSON. Kuzzle's queries have less depth.
const MAX_DEPTH: usize = 64;

pub(super) const JWT: &str = "jwt";

/// The document in an envelope. It is usually large, so it is not parsed if the upstream serves the call.
const BODY: &str = "body";

/// Whether the envelope is only a ping. See [`Message::of_envelope`].
type IsPing = bool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Login,
    RefreshToken,
    Logout,
    CheckToken,
    GetCurrentUser,
    GetStrategies,
    PublicApi,
}

impl Action {
    /// Returns the action, if the gate executes it in an envelope.
    pub(super) fn parse(controller: &str, action: &str) -> Option<Self> {
        const IN_ENVELOPES: [Action; 6] = [
            Action::Login,
            Action::RefreshToken,
            Action::Logout,
            Action::CheckToken,
            Action::GetCurrentUser,
            Action::GetStrategies,
        ];
        IN_ENVELOPES.into_iter().find(|known| known.names() == (controller, action))
    }

    /// Returns whether the action's reply sets the cookie that a caller requests.
    pub(super) const fn sets_cookie(self) -> bool {
        match self {
            Self::Login | Self::RefreshToken | Self::Logout => true,
            Self::CheckToken | Self::GetCurrentUser | Self::GetStrategies | Self::PublicApi => false,
        }
    }

    pub(super) const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Login => ("auth", "login"),
            Self::RefreshToken => ("auth", "refreshToken"),
            Self::Logout => ("auth", "logout"),
            Self::CheckToken => ("auth", "checkToken"),
            Self::GetCurrentUser => ("auth", "getCurrentUser"),
            Self::GetStrategies => ("auth", "getStrategies"),
            Self::PublicApi => ("server", "publicApi"),
        }
    }
}

/// Where the arguments of a call are. In a query, a flag is set if it is present, whatever its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arguments {
    Query,
    Envelope,
}

/// A call. A member with the value `null` counts as absent.
pub(super) struct Message {
    pub(super) controller: Option<String>,
    pub(super) action: Option<String>,
    pub(super) request_id: String,
    /// The value is an object.
    pub(super) volatile: Value,
    pub(super) jwt: Option<SecretString>,
    pub(super) index: Option<String>,
    pub(super) collection: Option<String>,
    arguments: Arguments,
    args: Map<String, Value>,
    body: Map<String, Value>,
}

// Arguments and body may contain credentials, and every member comes from the caller.
rotogate_core::debug_with!(Message);

impl Message {
    /// Reads the parts of a call that are in the head of a request.
    pub(super) fn of_head(headers: &http::HeaderMap) -> (Self, Result<(), Problem>) {
        let id = headers.get(words::REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
        let mut message = Self {
            controller: None,
            action: None,
            request_id: id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned),
            volatile: Value::Object(Map::new()),
            jwt: None,
            index: None,
            collection: None,
            arguments: Arguments::Query,
            args: Map::new(),
            body: Map::new(),
        };
        let volatile = match headers.get(words::VOLATILE).map(|text| object_of_depth(text.as_bytes(), MAX_DEPTH)) {
            None => Ok(()),
            Some(Ok(volatile)) => {
                message.volatile = Value::Object(volatile);
                Ok(())
            }
            Some(Err(why)) => Err(Problem::bad_volatile(why)),
        };
        (message, volatile)
    }

    /// Reads a call at an action's route. The arguments are in the query and the path, and the body is not an envelope.
    pub(super) fn of_route(call: &Call<'_>, action: Action) -> (Self, Result<(), Problem>) {
        let (mut message, mut good) = Self::of_head(call.headers);
        let (controller, name) = action.names();
        (message.controller, message.action) = (Some(controller.to_owned()), Some(name.to_owned()));
        for (name, value) in form_urlencoded::parse(call.query.unwrap_or_default().as_bytes()).take(MAX_PARAMETERS) {
            // The first value of a known argument is used. Unknown and excess arguments are ignored (requirement A24).
            message.args.entry(name.into_owned()).or_insert_with(|| Value::String(value.into_owned()));
        }
        for (name, value) in call.params {
            message.args.insert(name.clone(), Value::String(value.clone()));
        }
        if good.is_ok() {
            good = read_object(call.body).map(|body| message.body = body);
        }
        // A login by GET has its credentials in the query.
        if *call.method == Method::GET && action == Action::Login {
            for name in ["username", "password"] {
                if let (false, Some(value)) = (message.body.contains_key(name), message.args.remove(name)) {
                    message.body.insert(name.to_owned(), value);
                }
            }
        }
        (message, good)
    }

    /// Reads a call in an envelope. Returns whether the envelope is only a ping.
    pub(super) fn of_envelope(&mut self, bytes: &[u8]) -> Result<IsPing, Problem> {
        let mut envelope = if is_blank(bytes) {
            Map::new()
        } else {
            members_of_depth(bytes, MAX_DEPTH, &[BODY]).map_err(Problem::bad_body)?
        };
        self.arguments = Arguments::Envelope;
        let is_ping = envelope.len() == 1 && envelope.get("p").and_then(Value::as_u64) == Some(1);
        let jwt = envelope.remove(JWT);
        let text = |name: &str| envelope.get(name).and_then(Value::as_str).map(str::to_owned);
        self.controller = text("controller");
        self.action = text("action");
        self.index = text("index");
        self.collection = text("collection");
        if let Some(id) = text("requestId").filter(|id| !id.is_empty()) {
            self.request_id = id;
        }
        match envelope.get("volatile") {
            None | Some(Value::Null) => {}
            Some(volatile @ Value::Object(_)) => self.volatile = volatile.clone(),
            Some(_) => return Err(Problem::invalid_type("volatile", "object")),
        }
        match jwt {
            None | Some(Value::Null) => {}
            Some(Value::String(token)) => self.jwt = Some(SecretString::from(token)),
            Some(_) => return Err(Problem::invalid_type("jwt", "string")),
        }
        if self.is_ours() {
            match read_object(bytes)?.remove(BODY) {
                None | Some(Value::Null) => {}
                Some(Value::Object(body)) => self.body = body,
                Some(_) => return Err(Problem::invalid_type("body", "object")),
            }
        }
        self.args = envelope;
        Ok(is_ping)
    }

    fn is_ours(&self) -> bool {
        self.ours().is_some()
    }

    pub(super) fn ours(&self) -> Option<Action> {
        Action::parse(self.controller.as_deref()?, self.action.as_deref()?)
    }

    /// The SDK for the JVM expects another error id for an expired token.
    pub(super) fn is_jvm(&self) -> bool {
        self.volatile.get("sdkName").and_then(Value::as_str).is_some_and(|name| name.starts_with("jvm@"))
    }

    /// Returns the enclosed call, if the upstream serves it. The rules of the routes apply to this call.
    pub(super) fn called(&self, prefix: &str) -> Result<EnclosedCall, Problem> {
        let (controller, action) = (self.controller.as_deref(), self.action.as_deref());
        actions::called(controller.unwrap_or_default(), action.unwrap_or_default(), prefix, &self.args)
    }

    /// Returns the call of a request to the action's own path.
    pub(super) fn called_at(&self, call: &Call<'_>) -> Result<EnclosedCall, Problem> {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let name = format!("{}:{}", name(&self.controller), name(&self.action));
        Ok(EnclosedCall { name, requests: vec![(call.method.clone(), call.path.to_owned())] })
    }

    pub(super) fn argument(&self, name: &str) -> Option<&Value> {
        self.args.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.arguments {
            Arguments::Query => self.args.contains_key(name),
            Arguments::Envelope => self.args.get(name) == Some(&Value::Bool(true)),
        }
    }

    /// Returns whether a Kuzzle server may set a cookie in its reply. Over HTTP, the argument `cookieAuth` counts whatever its
    /// value is, and so may one in the query of an envelope, or in the prototype of its object.
    pub(super) fn may_set_cookie_at_server(&self, query: Option<&str>) -> bool {
        let counts = |name: &str| matches!(name, "cookieAuth" | "__proto__");
        self.args.keys().any(|name| counts(name))
            || form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(name, _)| counts(&name))
    }

    pub(super) fn text_in_body(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::invalid_type(&format!("body.{name}"), "string")),
        }
    }
}

/// Returns whether the bytes consist only of JSON white space (RFC 8259 §2).
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| b" \t\n\r".contains(byte))
}

/// Parses an object. An empty body is treated as an empty object, because the SDKs declare an empty body to be JSON.
fn read_object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    if is_blank(bytes) {
        return Ok(Map::new());
    }
    object_of_depth(bytes, MAX_DEPTH).map_err(Problem::bad_body)
}
