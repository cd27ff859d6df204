//! Kuzzle's authentication over HTTP, for its SDKs for JavaScript and the JVM. An access token is its own refresh
//! credential, and a refresh ends the old token.
//!
//! | path | action |
//! |---|---|
//! | `POST`, `GET /_login/{strategy}` | `auth:login`; the only strategy is `local` |
//! | `POST /_refreshToken` | `auth:refreshToken` |
//! | `POST /_logout` | `auth:logout` |
//! | `POST /_checkToken` | `auth:checkToken` |
//! | `GET /_me`, `/users/_me` | `auth:getCurrentUser` |
//! | `GET /strategies` | `auth:getStrategies` |
//! | `GET /_publicApi` | `server:publicApi`: the paths of all actions of the gate and the upstream |
//! | `GET /` | a WebSocket, if the request asks for one (feature `kuzzle`) |
//! | `POST /_query` | any of the `auth` actions in an envelope; all other calls are forwarded to the upstream |
//!
//! For the SDKs, unknown arguments are ignored, an empty body is accepted, and `null` means that a member is absent.
//!
//! ```
//! use rotogate::dialect::kuzzle::Kuzzle;
//! use rotogate::gate::Endpoint;
//!
//! let endpoint = Endpoint::new(Kuzzle::default());
//! # let _ = endpoint;
//! ```

use std::borrow::Cow;
use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode};
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use self::message::{Action, Message};
use self::perform::{ActionResult, Cookie};
use self::words::Problem;
use super::{Answer, Call, CommandHandler, Dialect, Forward, Outcome, Protocol, Reply, ServedPath, Sources, said_json};
use rotogate_core::bounds::MAX_MESSAGE;
use rotogate_core::credential::{self, Found, Places, Scheme};
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::session::profile::{OnReuse, ProfileOverride};
use rotogate_core::token::claims::TokenStyle;

pub(crate) mod actions;
mod expiry;
pub(crate) mod http;
mod message;
mod perform;
mod raw;
mod relayed;
#[cfg(feature = "kuzzle")]
mod socket;
mod words;

#[cfg(test)]
mod tests;

/// The name of this dialect.
pub(crate) const NAME: &str = "kuzzle";
const MALFORMED: Reason = Reason::denied(&Denial::MalformedRequest("the message is not a call of the Kuzzle protocol"));
const QUERY_PATH: &str = "/_query";

/// The dialect `kuzzle`, with its options.
///
/// ```
/// use rotogate::dialect::kuzzle::Kuzzle;
/// use rotogate::gate::Endpoint;
///
/// // The public URL is https, so the cookie can be restricted to exactly this host.
/// let dialect = Kuzzle { secure_cookies: true, host_cookie: true, ..Kuzzle::default() };
/// let builder = rotogate::Gate::builder().endpoint(Endpoint::new(dialect));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kuzzle {
    /// Whether cookies are `Secure`. Set this if the public URL is https.
    pub secure_cookies: bool,
    /// Whether the cookie is `__Host-authToken`, which no other host of the domain can set. This option needs
    /// `secure_cookies`.
    pub host_cookie: bool,
    /// Whether a Kuzzle server behind the gate issues the tokens. The endpoint then needs a relay in front of this server.
    pub relay: bool,
}

impl Dialect for Kuzzle {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_path(&self) -> &'static str {
        "/"
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        self::http::served(base, |action| self.executes(action))
    }

    fn client(&self) -> Option<&'static str> {
        (!self.relay).then_some(NAME)
    }

    fn profile(&self) -> ProfileOverride {
        if self.relay {
            return ProfileOverride::default();
        }
        ProfileOverride {
            access_ttl: Some(Duration::from_secs(3600)),
            on_reuse: Some(OnReuse::Deny),
            revoke_previous_after: Some(Duration::ZERO),
            ..ProfileOverride::default()
        }
    }

    fn refreshes_by_access(&self) -> bool {
        !self.relay
    }

    fn sources(&self) -> Sources {
        Sources { query: Some(self::http::PARAMETER), cookie: Some(self.cookie()), session: false }
    }

    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        let (mut asked, _) = Message::of_head(call.headers);
        if let Some((controller, action)) = self::http::action(call.operation).map(Action::names) {
            (asked.controller, asked.action) = (Some(controller.to_owned()), Some(action.to_owned()));
        }
        let came = match outcome {
            Ok(_) => Ok(Value::Null),
            Err(error) => Err(Problem::of_error(&error, &asked)),
        };
        words::reply(&asked, &came)
    }

    /// Recognises both SDKs by the headers that they send on every call.
    fn knows(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(words::VOLATILE) || headers.contains_key(words::REQUEST_ID)
    }

    fn refuse(&self, headers: &HeaderMap, denial: Denial) -> Option<Reply> {
        let (asked, _) = Message::of_head(headers);
        let problem = Problem::of_denial(denial, &asked);
        Some(words::reply(&asked, &Err(problem)))
    }
}

#[async_trait]
impl Protocol for Kuzzle {
    fn token_style(&self) -> TokenStyle {
        TokenStyle { subject_claim: Some("_id"), plain_base64: true }
    }

    fn max_body(&self, operation: &str) -> Option<usize> {
        (operation == self::http::QUERY).then_some(MAX_MESSAGE)
    }

    fn token_in(&self, operation: &str, begun: &[u8]) -> Option<SecretString> {
        (operation == self::http::QUERY).then(|| raw::text_of(begun, message::JWT)).flatten().map(SecretString::from)
    }

    fn upgrades(&self, operation: &str) -> bool {
        operation == self::http::SOCKET
    }

    fn is_envelope(&self, operation: &str) -> bool {
        operation == self::http::SOCKET || operation == self::http::QUERY
    }

    fn consults(&self, operation: &str) -> bool {
        self::http::action(operation) == Some(Action::PublicApi)
    }

    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        if call.operation == self::http::SOCKET {
            return self.open(call);
        }
        let json = said_json(call.headers);
        let with_cookie = credential::cookies(call.headers, self.cookie()).next().is_some();
        if *call.method == Method::POST && !json.unwrap_or(!with_cookie) {
            let (asked, _) = Message::of_head(call.headers);
            return malformed(&asked, Problem::invalid_argument("content-type", "application/json"));
        }
        let (asked, action) = match self::http::action(call.operation) {
            Some(action) => match Message::of_route(call, action) {
                (asked, Ok(())) if action == Action::PublicApi => return consult(asked, call.path),
                (asked, Ok(())) => (asked, action),
                (asked, Err(problem)) => return malformed(&asked, problem),
            },
            None => {
                let (mut asked, head) = Message::of_head(call.headers);
                if let Err(problem) = head.and_then(|()| asked.of_envelope(call.body)) {
                    return malformed(&asked, problem);
                }
                let ours = asked.ours().filter(|action| self.executes(*action));
                match (ours, &asked.controller, &asked.action) {
                    (Some(action), _, _) => (asked, action),
                    (None, None, _) => return malformed(&asked, Problem::missing_argument("controller")),
                    (None, Some(_), None) => return malformed(&asked, Problem::missing_argument("action")),
                    (None, Some(_), Some(_)) => return self.forward(asked, call),
                }
            }
        };
        let credential = self.credential_of(call.headers, call.query, &asked);
        let by_cookie = asked.flag("cookieAuth")
            || matches!(&credential, Ok(Some(found)) if found.by_cookie)
            || self.relay && asked.may_set_cookie_at_server(call.query);
        if by_cookie
            && action.sets_cookie()
            && let Err(answer) = may_set_cookie(call, &asked, json)
        {
            return *answer;
        }
        let done = if self.relay {
            let done = relayed::perform(&asked, action, credential, gate).await;
            // The server executes what the relay cannot answer.
            let Some(done) = done else { return self.forward(asked, call) };
            done
        } else {
            perform::perform(&asked, action, credential, call.path, gate).await
        };
        self.reply(&asked, done)
    }

    fn failed(&self, status: StatusCode, why: &'static str) -> Option<Reply> {
        let (asked, _) = Message::of_head(&HeaderMap::new());
        Some(words::reply(&asked, &Err(Problem::unexpected(status, why))))
    }
}

impl Kuzzle {
    const fn cookie(self) -> &'static str {
        if self.host_cookie { self::http::HOST_COOKIE } else { self::http::COOKIE }
    }

    /// Returns a call's token from the envelope, `Authorization` or the query, in this order. If there is also a
    /// cookie, a token in one of these places is rejected.
    fn credential_of<'a>(
        self,
        headers: &'a HeaderMap,
        query: Option<&str>,
        asked: &'a Message,
    ) -> Result<Option<Found<Cow<'a, str>>>, Denial> {
        let cookie = self.cookie();
        let Some(jwt) = &asked.jwt else {
            let places = Places { query: Some(self::http::PARAMETER), cookies: [Some(cookie), None], dpop: false };
            return credential::extract_from(headers, query, places);
        };
        if credential::cookies(headers, cookie).next().is_some() {
            return Err(Denial::TwoCredentials);
        }
        let token = Cow::Borrowed(jwt.expose_secret());
        Ok(Some(Found { token, scheme: Scheme::Bearer, by_cookie: false, by_query: false }))
    }

    /// Opens a WebSocket if the request asks for one.
    fn open(self, call: &Call<'_>) -> Answer {
        let (asked, _) = Message::of_head(call.headers);
        #[cfg(feature = "kuzzle")]
        {
            // The gate has already checked the origin of a cookie (requirement T9).
            let found = self.credential_of(call.headers, call.query, &asked);
            let linked = match found {
                Ok(found) => found.map(|found| (found.token.into_owned().into(), found.by_cookie)),
                Err(denial) => return denied(&asked, denial),
            };
            if let Some(reply) = socket::accept(call.headers) {
                let prefix = call.path.to_owned();
                let serve = move |client, gate| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
                    Box::pin(socket::serve(client, gate, linked, (prefix, self)))
                };
                return Answer::Upgrade(super::Upgrade { reply, serve: Box::new(serve) });
            }
        }
        malformed(&asked, Problem::invalid_argument("upgrade", "a WebSocket of version 13"))
    }

    /// Returns whether the gate executes this action, instead of the server behind it.
    const fn executes(self, action: Action) -> bool {
        match action {
            // The server executes a login. The gate only decides whether the reply may set a cookie.
            Action::Login | Action::RefreshToken | Action::Logout | Action::CheckToken => true,
            Action::GetCurrentUser | Action::GetStrategies | Action::PublicApi => !self.relay,
        }
    }

    fn forward(self, mut asked: Message, call: &Call<'_>) -> Answer {
        let called = match call.path.strip_suffix(QUERY_PATH) {
            Some(prefix) => asked.called(prefix),
            // The call has its own path.
            None => asked.called_at(call),
        };
        let called = match called {
            Ok(called) => called,
            Err(problem) => return malformed(&asked, problem),
        };
        if let (Some(_), Err(denial)) = (&asked.jwt, self.credential_of(call.headers, call.query, &asked)) {
            // The gate's own actions also reject a request with a cookie and another token.
            return denied(&asked, denial);
        }
        let as_it_came = call.body;
        let ours = asked.ours();
        // The server does not need a token for a login, and must not refuse one because of an old token.
        let is_anonymous = self.relay && ours == Some(Action::Login);
        let credential = asked.jwt.take().filter(|_| !is_anonymous);
        let may_clear = self.relay
            && ours == Some(Action::Logout)
            && !asked.flag("global")
            && (asked.flag("cookieAuth") || credential::cookies(call.headers, self.cookie()).next().is_some());
        let body = match &credential {
            None => as_it_came.clone(),
            Some(_) if self.relay => as_it_came.clone(),
            Some(_) => raw::rewrite(as_it_came, message::JWT, None).unwrap_or_default().into(),
        };
        let refused = move |denial: Denial| {
            if may_clear && denial.is_dead() {
                // The token is dead already. The browser can only remove the cookie.
                let mut reply = words::reply(&asked, &Ok(perform::acknowledged()));
                self::http::clear_cookie(&mut reply, self.cookie(), self.secure_cookies);
                return reply;
            }
            let problem = Problem::of_denial(denial, &asked);
            words::reply(&asked, &Err(problem))
        };
        let (keeps_credential, refused) = (self.relay, Box::new(refused));
        Answer::Forward(Forward { credential, body, called, is_anonymous, keeps_credential, refused })
    }

    fn reply(self, asked: &Message, done: ActionResult) -> Answer {
        let mut reply = words::reply(asked, &done.came);
        match done.cookie {
            Cookie::Leave => {}
            Cookie::Set(token, expires) => {
                let (name, token) = (self.cookie(), token.expose_secret());
                self::http::set_cookie(&mut reply, name, token, expires, self.secure_cookies);
            }
            Cookie::Clear => self::http::clear_cookie(&mut reply, self.cookie(), self.secure_cookies),
        }
        Answer::Reply(reply, done.reason)
    }
}

/// Returns the upstream's list of actions, in which the gate's own actions replace the upstream's.
fn consult(asked: Message, path: &str) -> Answer {
    let own = self::http::public_api(path);
    let then = move |said| {
        let came = self::http::overlaid(own, said, &asked);
        let reason = if came.is_ok() { Reason::ANSWERED } else { Reason::NOT_DESCRIBED };
        (words::reply(&asked, &came), reason)
    };
    Answer::Consult(super::Consult { then: Box::new(then) })
}

/// Checks whether the reply may set a cookie (requirement T25). Setting a cookie requires the same proof as using a
/// cookie: a JSON `POST` from the gate's own or a listed origin.
fn may_set_cookie(call: &Call<'_>, asked: &Message, json: Option<bool>) -> Result<(), Box<Answer>> {
    if *call.method != Method::POST {
        // Any site can make a browser send a GET, and logs and histories store the query.
        return Err(Box::new(malformed(asked, Problem::invalid_argument("cookieAuth", "a POST request"))));
    }
    if json != Some(true) {
        let problem = Problem::invalid_argument("content-type", "application/json");
        return Err(Box::new(malformed(asked, problem)));
    }
    if !call.from_own_origin {
        return Err(Box::new(denied(asked, Denial::CrossOrigin)));
    }
    Ok(())
}

fn denied(asked: &Message, denial: Denial) -> Answer {
    Answer::Reply(words::reply(asked, &Err(Problem::of_denial(denial, asked))), denial.into())
}

fn malformed(asked: &Message, problem: Problem) -> Answer {
    Answer::Reply(words::reply(asked, &Err(problem)), MALFORMED)
}
