//! Step 8 for a request that another proxy forwards. The response is the verdict, in the form that this proxy
//! understands.

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

/// The expiry of the token, in Unix seconds.
pub(super) const EXPIRES: HeaderName = HeaderName::from_static("x-auth-expires");
/// A header that repeats the status of a refusal, because some proxies change the status line.
pub(super) const STATUS: HeaderName = HeaderName::from_static("x-auth-status");
/// The flaw in the head of a refused request. It is also in the body, but some proxies do not pass the body on.
pub(super) const DETAIL: HeaderName = HeaderName::from_static("x-auth-detail");
/// The URL of the login page, to which a browser tab without a session should be redirected.
const LOGIN: HeaderName = HeaderName::from_static("x-auth-login");
/// The list of headers that Envoy should remove from the request.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// The default names of the identity headers that the gate sends only for some issuers.
static SOMETIMES_SENT: [HeaderName; 2] =
    [HeaderName::from_static("x-auth-issuer"), HeaderName::from_static("x-auth-roles")];

/// The initial capacity for the headers of a response.
const FEW_HEADERS: usize = 16;

/// The changes that the proxy makes to the forwarded request.
#[derive(Clone, Debug, Default)]
pub(super) struct Mutations {
    /// Headers that the proxy overwrites.
    pub(super) set: HeaderMap,
    /// Headers that the proxy removes, in the spelling of the request.
    pub(super) remove: Vec<HeaderName>,
}

impl Mutations {
    #[cfg(feature = "grpc")]
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// Returns the changes that a permitted request needs because of the client's own headers and cookies, and the form of
/// the response.
fn of_the_request(gate: &Inner, parts: &mut Parts, permitted: &Permitted) -> (Mutations, QuestionForm) {
    let policy = &permitted.route().policy;
    let mut set = HeaderMap::new();
    let Disguises { names: mut remove, form } = parts.extensions.remove::<Disguises>().unwrap_or_default();
    gate.strip(|names| {
        // Envoy's own headers in the check request do not come from the client, because Envoy removes the client's
        // copies.
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

/// The cookies of a permitted request that the upstream may see.
enum CookiesLeft {
    All,
    These(HeaderValue),
    None,
}

/// Removes the cookies that carry the credential, sessions and logins from the head, and returns the cookies that
/// remain.
// Requirements N69 and B15.
fn cookies_left(gate: &Inner, parts: &mut Parts, permitted: &Permitted) -> CookiesLeft {
    // All `Cookie` headers, because a client may send several.
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
        // Cookies that were joined with commas cannot be separated, so none of them is passed on.
        Some(_) if has_joined(&parts.headers, stays_here) => CookiesLeft::None,
        Some(_) if parts.headers.get_all(COOKIE).iter().eq(&sent) => CookiesLeft::All,
        // A single header contains the remaining cookies.
        Some(rest) => CookiesLeft::These(rest.clone()),
        None => CookiesLeft::None,
    }
}

/// Returns whether a cookie that `is_one` accepts follows a comma. Over HTTP, Envoy joins several `Cookie` headers with
/// commas in the check request, but forwards them unjoined.
fn has_joined(headers: &HeaderMap, is_one: impl Fn(&[u8]) -> bool) -> bool {
    let is_it = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().filter(|name| name.len() < pair.len());
        name.is_some_and(|name| is_one(name.trim_ascii()))
    };
    headers.get_all(COOKIE).iter().any(|cookies| cookies.as_bytes().split(|byte| b",;".contains(byte)).any(is_it))
}

/// Adds the cookies that the proxy copies from the response, because the proxy cannot remove single cookies itself.
fn state_cookies(neighbour: Neighbour, sent: &HeaderMap, left: CookiesLeft, headers: &mut HeaderMap) {
    let rest = match left {
        CookiesLeft::These(rest) => Some(rest),
        CookiesLeft::None => None,
        CookiesLeft::All => {
            let all: Vec<&[u8]> = sent.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&all.join(&b"; "[..])).ok().filter(|all| !all.is_empty())
        }
    };
    // Without the header, Caddy would forward the name of its variable. With an empty value, Traefik would forward an
    // empty header.
    if let Some(rest) = rest.or_else(|| (neighbour != Neighbour::Traefik).then(|| HeaderValue::from_static(""))) {
        headers.insert(COOKIE, rest);
    }
}

/// The changes that the proxy makes to a permitted request: it adds the gate's identity headers, and removes the
/// client's copies.
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
        // Both lists are short, so a search is cheaper than hashing each name.
        if !remove.contains(&name) {
            remove.push(name);
        }
    };
    withheld(&permitted.route().policy).for_each(|name| goes(name.clone()));
    gate.checker.each_identity_name(|name| goes(name.clone()));
    remove.retain(|name| !set.keys().any(|kept| kept == name));
    Ok(Mutations { set, remove })
}

/// Adds the headers that name the caller to the upstream. If the request has no caller, adds nothing.
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
                // A `HeaderName` is a token, so the joined list is a valid header value.
                let list = changes.remove.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
                reply.headers_mut().extend(HeaderValue::try_from(list).ok().map(|list| (TO_REMOVE, list)));
            }
            #[cfg(feature = "grpc")]
            (changes, QuestionForm::Message) => {
                // An assertion expires before its token does, so a response with an assertion is not cached.
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
            // These proxies overwrite a client's header only if the response has it, so the response has an empty
            // header. Traefik removes the client's copy itself, and would forward the empty header.
            if neighbour != Neighbour::Traefik {
                let mut state = |name: &HeaderName| {
                    headers.entry(name).or_insert_with(|| HeaderValue::from_static(""));
                };
                gate.checker.each_identity_name(&mut state);
                // The shipped configuration files list these headers, even for a gate without other issuers.
                SOMETIMES_SENT.iter().for_each(state);
            }
        }
    }
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

/// The reply to a permitted request, with its verdict.
pub(super) fn passed(mut reply: Reply, permitted: Permitted) -> Reply {
    reply.extensions_mut().insert(Verdict::passed(permitted));
    reply
}

/// Makes the refusal. The refusal never has the format of a dialect or of the application, because some of these
/// formats use the status 200, which a proxy would take for a permit.
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

/// Makes the refusal if no route at this path serves the method.
pub(super) fn wrong_method(neighbour: Neighbour, gate: &Inner, said: &Reply) -> Reply {
    let mut reply = refused(neighbour, gate, None, Denial::MethodNotAllowed, None);
    reply.headers_mut().extend(said.headers().get(ALLOW).map(|allow| (ALLOW, allow.clone())));
    reply
}

/// Makes the response to a check request that the gate did not judge because it exceeds a bound.
pub(super) fn overloaded(neighbour: Neighbour, refusal: Refusal, permitted: Option<&Permitted>) -> Reply {
    let reason = Reason::shed(refusal);
    reason.tell();
    let mut reply = stated(neighbour, in_words_of(refusal, None, &HeaderMap::new()));
    reply
        .extensions_mut()
        .insert(Verdict { route: permitted.map(|it| Arc::clone(it.route())), ..Verdict::new(reason) });
    reply
}

/// Refuses a browser tab without a session. The response names the URL of the login page. It is a redirect if the proxy
/// passes redirects on to its client.
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

/// Makes a refusal with a status that the proxy can pass on, and with the real status in a header.
pub(super) fn stated(neighbour: Neighbour, mut reply: Reply) -> Reply {
    let status = reply.status();
    // A refusal must have an error status, because the proxy takes any other status for a permit.
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

/// Returns the status that this proxy can pass on for a refusal with this status.
fn spoken(neighbour: Neighbour, status: StatusCode) -> StatusCode {
    match neighbour {
        // nginx turns any other status into 500. A fault keeps its status, because 403 would claim that the gate had
        // decided.
        Neighbour::Nginx => match status {
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => status,
            StatusCode::NOT_IMPLEMENTED => StatusCode::FORBIDDEN,
            _ if status.is_client_error() => StatusCode::FORBIDDEN,
            _ => status,
        },
        Neighbour::Traefik | Neighbour::Caddy | Neighbour::Haproxy | Neighbour::Envoy => status,
    }
}
