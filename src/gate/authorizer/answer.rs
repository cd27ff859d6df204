//! Step 8 for a request that another proxy forwards. The answer has that proxy's format.

use std::sync::Arc;

use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, COOKIE, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

#[cfg(feature = "grpc")]
use super::grpc::Allowed;
#[cfg(feature = "grpc")]
use super::kept;
use super::{Disguises, Neighbour, QuestionForm};
use crate::gate::Inner;
use crate::gate::browser_request::forwarded_token;
use crate::gate::exchange::ClaimsChallenge;
use crate::gate::layer::withhold;
use crate::gate::limits::OverQuota;
use crate::gate::overloaded::overloaded as in_words_of;
use crate::gate::signed_out::Led;
use crate::gate::verdict::Verdict;
use rotogate_core::denial::Denial;
use rotogate_core::headers::withheld;
use rotogate_core::overload::Refusal;
use rotogate_core::policy::Permitted;
use rotogate_core::reason::Reason;
use rotogate_core::refusal;
use rotogate_core::reply::{self, Reply};
use rotogate_core::route::Route;
use rotogate_core::token::session_cookie::is_of_browser;

pub(super) const EXPIRES: HeaderName = HeaderName::from_static("x-auth-expires");
/// This header repeats the status of a refusal, because some proxies change the status line.
pub(super) const STATUS: HeaderName = HeaderName::from_static("x-auth-status");
/// Describes what is wrong with the request head, because some proxies do not forward the reply's body.
pub(super) const DETAIL: HeaderName = HeaderName::from_static("x-auth-detail");
const LOGIN: HeaderName = HeaderName::from_static("x-auth-login");
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// Identity headers that the gate sends only for some issuers.
static SOMETIMES_SENT: [HeaderName; 2] =
    [HeaderName::from_static("x-auth-issuer"), HeaderName::from_static("x-auth-roles")];

const FEW_HEADERS: usize = 16;

#[derive(Clone, Debug, Default)]
pub(super) struct Mutations {
    pub(super) set: HeaderMap,
    /// The names are spelt as in the request.
    pub(super) remove: Vec<HeaderName>,
}

impl Mutations {
    #[cfg(feature = "grpc")]
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

fn of_the_request(gate: &Inner, parts: &mut Parts, permitted: &Permitted) -> (Mutations, QuestionForm) {
    let policy = &permitted.route().policy;
    let mut set = HeaderMap::new();
    let Disguises { names: mut remove, form } = parts.extensions.remove::<Disguises>().unwrap_or_default();
    gate.strip(|names| {
        // Envoy itself removes the `x-envoy-` headers that a client sends.
        let goes = |name: &&HeaderName| !names.passes(name, policy) && !name.as_str().starts_with("x-envoy-");
        remove.extend(parts.headers.keys().filter(goes).cloned());
    });
    remove.extend(gate.key_headers(parts, policy.credentials.key));
    match cookies_left(gate, parts, permitted) {
        CookiesLeft::All => {}
        CookiesLeft::These(rest) => drop(set.insert(COOKIE, rest)),
        CookiesLeft::None => remove.push(COOKIE),
    }
    (Mutations { set, remove }, form)
}

enum CookiesLeft {
    All,
    These(HeaderValue),
    None,
}

/// Removes the cookies of credentials, sessions and logins from the head, and returns the remaining cookies.
// Requirements N69 and B15.
fn cookies_left(gate: &Inner, parts: &mut Parts, permitted: &Permitted) -> CookiesLeft {
    let sent: Vec<HeaderValue> = parts.headers.get_all(COOKIE).iter().cloned().collect();
    if sent.is_empty() {
        return CookiesLeft::All;
    }
    let places = gate.places(&permitted.route().policy);
    withhold(parts, places);
    let stays_here = |name: &[u8]| {
        is_of_browser(name) || places.cookies.into_iter().flatten().any(|cookie| cookie.as_bytes() == name)
    };
    match parts.headers.get(COOKIE) {
        // Cookies that were joined with commas cannot be separated.
        Some(_) if has_joined(&parts.headers, stays_here) => CookiesLeft::None,
        Some(_) if parts.headers.get_all(COOKIE).iter().eq(&sent) => CookiesLeft::All,
        Some(rest) => CookiesLeft::These(rest.clone()),
        None => CookiesLeft::None,
    }
}

/// Returns whether `is_one` accepts any cookie. Over HTTP, Envoy joins `Cookie` headers with commas in the check
/// request, but forwards the original headers.
fn has_joined(headers: &HeaderMap, is_one: impl Fn(&[u8]) -> bool) -> bool {
    let is_it = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().filter(|name| name.len() < pair.len());
        name.is_some_and(|name| is_one(name.trim_ascii()))
    };
    headers.get_all(COOKIE).iter().any(|cookies| cookies.as_bytes().split(|byte| b",;".contains(byte)).any(is_it))
}

/// The proxy cannot remove single cookies, so the response states the `Cookie` header that remains.
fn state_cookies(neighbour: Neighbour, sent: &HeaderMap, left: CookiesLeft, headers: &mut HeaderMap) {
    let rest = match left {
        CookiesLeft::These(rest) => Some(rest),
        CookiesLeft::None => None,
        CookiesLeft::All => {
            let all: Vec<&[u8]> = sent.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&all.join(&b"; "[..])).ok().filter(|all| !all.is_empty())
        }
    };
    // Without the header, Caddy would forward a variable name. Traefik would forward an empty header.
    if let Some(rest) = rest.or_else(|| (neighbour != Neighbour::Traefik).then(|| HeaderValue::from_static(""))) {
        headers.insert(COOKIE, rest);
    }
}

/// Returns the changes that the proxy makes to a permitted request.
///
/// # Errors
/// [`Denial::AssertionUnavailable`].
fn mutations(
    gate: &Inner,
    of_the_request: Mutations,
    permitted: &Permitted,
    audience: Option<&Arc<str>>,
) -> Result<Mutations, Denial> {
    let Mutations { mut set, mut remove } = of_the_request;
    add_identity(gate, permitted, audience, &mut set)?;
    let mut goes = |name: HeaderName| {
        // Both lists are short, so a search is cheaper than a hash.
        if !remove.contains(&name) {
            remove.push(name);
        }
    };
    withheld(&permitted.route().policy).for_each(|name| goes(name.clone()));
    gate.checker.each_identity_name(|name| goes(name.clone()));
    remove.retain(|name| !set.keys().any(|kept| kept == name));
    Ok(Mutations { set, remove })
}

/// Adds headers that identify the caller to the upstream.
///
/// # Errors
/// [`Denial::AssertionUnavailable`]; the errors of [`forwarded_token`].
fn add_identity(
    gate: &Inner,
    permitted: &Permitted,
    audience: Option<&Arc<str>>,
    headers: &mut HeaderMap,
) -> Result<(), Denial> {
    let Some(caller) = permitted.caller() else { return Ok(()) };
    if let Some(token) = forwarded_token(gate, &permitted.route().policy, caller)? {
        headers.insert(AUTHORIZATION, token);
    }
    headers.extend(caller.headers().map(|(name, value)| (name.clone(), value.clone())));
    headers.insert(EXPIRES, caller.token().expires.as_secs().into());
    if let Some(audience) = audience
        && let Some((name, value)) = caller.assertion(&gate.engine, audience)?
    {
        headers.insert(name.clone(), value);
    }
    Ok(())
}

/// Makes the 200 response, after which the proxy forwards the request.
///
/// # Errors
/// [`Denial::AssertionUnavailable`].
pub(super) fn allowed(
    neighbour: Neighbour,
    gate: &Inner,
    parts: &mut Parts,
    permitted: &Permitted,
    audience: Option<&Arc<str>>,
) -> Result<Reply, Denial> {
    let mut reply = Reply::default();
    match neighbour {
        Neighbour::Envoy => match of_the_request(gate, parts, permitted) {
            (changes, QuestionForm::Headers) => {
                let changes = mutations(gate, changes, permitted, audience)?;
                reply.headers_mut().extend(changes.set);
                let list = changes.remove.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
                reply.headers_mut().extend(HeaderValue::try_from(list).ok().map(|list| (TO_REMOVE, list)));
            }
            #[cfg(feature = "grpc")]
            (changes, QuestionForm::Message) => {
                // An assertion expires before its token, so a response with an assertion is not cached.
                let is_usual = changes.is_empty() && audience.is_none();
                let caller = permitted.caller().filter(|_| is_usual);
                let allowed = match caller.and_then(|caller| kept::find(caller, permitted.route())) {
                    Some(answer) => Allowed::Kept(answer),
                    None => Allowed::Made {
                        changes: mutations(gate, changes, permitted, audience)?,
                        caller: permitted.caller().cloned(),
                        keep_for: is_usual.then(|| Arc::clone(permitted.route())),
                    },
                };
                reply.extensions_mut().insert(allowed);
            }
        },
        Neighbour::Nginx | Neighbour::Caddy | Neighbour::Haproxy | Neighbour::Traefik => {
            let headers = reply.headers_mut();
            headers.reserve(FEW_HEADERS);
            add_identity(gate, permitted, audience, headers)?;
            let left = cookies_left(gate, parts, permitted);
            state_cookies(neighbour, &parts.headers, left, headers);
            // These proxies overwrite a client's header only if the response contains the same header. Traefik removes
            // the client's copy itself, and would forward an empty header.
            if neighbour != Neighbour::Traefik {
                let mut state = |name: &HeaderName| {
                    headers.entry(name).or_insert_with(|| HeaderValue::from_static(""));
                };
                gate.checker.each_identity_name(&mut state);
                // The shipped configuration files list these headers even if the gate has no other issuers.
                SOMETIMES_SENT.iter().for_each(state);
            }
        }
    }
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

pub(super) fn passed(mut reply: Reply, permitted: Permitted) -> Reply {
    reply.extensions_mut().insert(Verdict::passed(permitted.into_parts()));
    reply
}

/// Makes a refusal in the gate's own format. Other formats may use the status 200, which a proxy treats as permission.
pub(super) fn refused(
    neighbour: Neighbour,
    gate: &Inner,
    parts: Option<&Parts>,
    denial: Denial,
    route: Option<&Arc<Route>>,
) -> Reply {
    let at = parts.zip(route);
    let mut asked = at.map(|(parts, route)| gate.asked_by(&route.policy, &parts.headers)).unwrap_or_default();
    if let Some((parts, route)) = at {
        gate.ask_of_call(&mut asked, &route.policy, parts);
    }
    let reason = Reason::denied(&denial);
    reason.tell();
    let who = parts.zip(route).and_then(|(parts, route)| {
        OverQuota::who(parts, denial).or_else(|| gate.refused_token(parts, &denial, &route.policy))
    });
    let plain = match (denial, at) {
        (Denial::BadCall(flaw), Some((parts, route))) => gate.bad_call(flaw, &route.policy, parts),
        _ => refusal::denied(denial, &asked),
    };
    let mut reply = match at {
        Some((parts, route)) => match gate.led_to_login(parts, denial, &route.policy, plain) {
            Led::Shown(reply) if reply.status() == StatusCode::SEE_OTHER => {
                led(neighbour, &reply, refusal::denied(denial, &asked))
            }
            Led::Shown(reply) | Led::Plain(reply) => stated(neighbour, reply),
        },
        None => stated(neighbour, plain),
    };
    gate.give_nonce(denial, &mut reply);
    gate.state_quota(denial, &mut reply);
    if let Some(parts) = parts {
        ClaimsChallenge::state(parts, &mut reply);
        gate.ask_for_device(parts, denial, reply.headers_mut());
        reply.headers_mut().remove(SET_COOKIE);
    }
    let detail = refusal::fault_of_head(&denial).map(|detail| (DETAIL, HeaderValue::from_static(detail)));
    reply.headers_mut().extend(detail);
    reply.extensions_mut().insert(Verdict { route: route.cloned(), who, ..Verdict::new(reason) });
    reply
}

pub(super) fn wrong_method(neighbour: Neighbour, gate: &Inner, said: &Reply) -> Reply {
    let mut reply = refused(neighbour, gate, None, Denial::MethodNotAllowed, None);
    reply.headers_mut().extend(said.headers().get(ALLOW).map(|allow| (ALLOW, allow.clone())));
    reply
}

pub(super) fn overloaded(neighbour: Neighbour, refusal: Refusal, route: Option<&Arc<Route>>) -> Reply {
    let reason = Reason::shed(refusal);
    reason.tell();
    let mut reply = stated(neighbour, in_words_of(refusal, None, &HeaderMap::new()));
    reply.extensions_mut().insert(Verdict { route: route.cloned(), ..Verdict::new(reason) });
    reply
}

/// Refuses a browser without a session. The response redirects to the login if the proxy passes redirects on.
// Requirement B45.
fn led(neighbour: Neighbour, redirect: &Reply, plain: Reply) -> Reply {
    let mut reply = stated(neighbour, plain);
    let url = redirect.headers().get(LOCATION).cloned();
    if let (Some(url), true) = (&url, neighbour.passes_redirects()) {
        *reply.status_mut() = StatusCode::SEE_OTHER;
        reply.headers_mut().insert(LOCATION, url.clone());
    }
    reply.headers_mut().extend(url.map(|url| (LOGIN, url)));
    reply
}

/// Gives a refusal a status that the proxy can pass on, and the real status in a header.
pub(super) fn stated(neighbour: Neighbour, mut reply: Reply) -> Reply {
    let status = reply.status();
    let status = if status.is_client_error() || status.is_server_error() {
        status
    } else {
        reply = reply::problem(StatusCode::SERVICE_UNAVAILABLE, None);
        StatusCode::SERVICE_UNAVAILABLE
    };
    *reply.status_mut() = spoken(neighbour, status);
    let headers = reply.headers_mut();
    headers.remove(SET_COOKIE);
    headers.insert(STATUS, status.as_u16().into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn spoken(neighbour: Neighbour, status: StatusCode) -> StatusCode {
    match neighbour {
        // nginx turns any other status into 500. A fault keeps its status, because 403 would mean that the gate has
        // denied the request.
        Neighbour::Nginx => match status {
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => status,
            StatusCode::NOT_IMPLEMENTED => StatusCode::FORBIDDEN,
            _ if status.is_client_error() => StatusCode::FORBIDDEN,
            _ => status,
        },
        Neighbour::Traefik | Neighbour::Caddy | Neighbour::Haproxy | Neighbour::Envoy => status,
    }
}
