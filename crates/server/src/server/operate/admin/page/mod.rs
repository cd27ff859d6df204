//! The admin page at `/ui/` (requirement P56). Views and forms call the functions of `/v1`. The page works without
//! JavaScript.
//!
//! Signing in with an admin token sets a random cookie ([`sign_ins`]). Each form contains a CSRF value. After a change,
//! the browser is redirected to a view.
//!
//! A browser sends a cookie to every port of a host (RFC 6265 §8.5), and so to other users' servers. Each sign-in
//! therefore has a secret path, `/ui/{place}/`. [`below`] inserts the secret folder into paths.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use askama::Template;
use bytes::Bytes;
use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::problem::{Code, Refusal};
use super::{AdminState, Body, body_of, full, guard, may_change, operations, reply};
use crate::log;
use request::Request;
use rotogate_core::context::{Actor, Context};
use rotogate_core::credential;
use rotogate_core::random::{NoRandomness, are_equal};
use sign_ins::SignedIn;
use view::FormFields;

mod advice;
mod api_keys;
mod charts;
mod config;
mod confirmation;
mod documents;
mod frame;
mod keys;
mod overview;
mod refused;
mod reload;
mod request;
mod search;
mod sessions;
mod sign_ins;
mod users;
pub(super) mod view;

pub(crate) use sign_ins::SignIns;

/// Without `unsafe-*`, injected markup cannot run a script.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
const SIGN_IN: &str = "rotogate-admin";
const FORM: &str = "rotogate-admin-form";
const FORM_MEDIA: &str = "application/x-www-form-urlencoded";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const FILES: [(&str, &str, &str); 8] = [
    ("look.css", CSS, include_str!("look.css")),
    ("page.css", CSS, include_str!("page.css")),
    ("page.js", SCRIPT, include_str!("page.js")),
    ("charts.js", SCRIPT, include_str!("charts.js")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("uPlot.css", CSS, include_str!("uplot/uPlot.min.css")),
    ("uPlot.js", SCRIPT, include_str!("uplot/uPlot.iife.min.js")),
    ("uPlot-LICENSE.txt", "text/plain; charset=utf-8", include_str!("uplot/LICENSE")),
];

type Shown = Result<Response<Body>, Refusal>;

pub(super) fn is_at(path: &str) -> bool {
    path == "/" || path == "/ui" || path.starts_with("/ui/")
}

fn place_of(path: &str) -> Option<(&str, &str)> {
    let (place, rest) = path.strip_prefix("/ui/")?.split_once('/')?;
    log::is_secret_folder(place).then_some((place, rest))
}

async fn below(place: &str, mut response: Response<Body>) -> Response<Body> {
    let folder = format!("/ui/{place}/");
    let view = response.headers().get(LOCATION).and_then(|path| path.to_str().ok()?.strip_prefix("/ui/"));
    let path = view.filter(|view| *view != "sign-in").map(|view| HeaderValue::try_from(format!("{folder}{view}")));
    if let Some(Ok(path)) = path {
        response.headers_mut().insert(LOCATION, path);
    }
    if !response.headers().get(CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(b"text/html")) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = in_folder(String::from_utf8_lossy(&text).into_owned(), &folder);
    Response::from_parts(parts, full(text))
}

/// Replaces `/ui/` in links. Quotes in values are escaped, so only the templates' own markup matches.
fn in_folder(text: String, folder: &str) -> String {
    ["href", "action", "src", "data-post", "data-stream"].into_iter().fold(text, |text, attribute| {
        text.replace(&format!(" {attribute}=\"/ui/"), &format!(" {attribute}=\"{folder}"))
    })
}

pub(super) async fn answer(state: &Arc<AdminState>, peer: SocketAddr, parts: &Parts, body: Incoming) -> Response<Body> {
    let response = match route(state, peer, parts, body).await {
        Ok(response) => response,
        Err(refusal) => problem(refusal),
    };
    let mut response = match place_of(parts.uri.path()) {
        Some((place, _)) => below(place, response).await,
        None => response,
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn route(state: &Arc<AdminState>, peer: SocketAddr, parts: &Parts, body: Incoming) -> Shown {
    let path = parts.uri.path();
    let Some(rest) = path.strip_prefix("/ui/") else { return Ok(lead_to("/ui/")) };
    let (place, rest) = place_of(path).map_or((None, rest), |(place, rest)| (Some(place), rest));
    let segments: Vec<&str> = rest.split('/').collect();
    let is_get = match parts.method {
        Method::GET | Method::HEAD => true,
        Method::POST => false,
        _ => return Err(Refusal::method_not_allowed(vec![Method::GET, Method::HEAD, Method::POST])),
    };
    if let ([name], true) = (&segments[..], is_get)
        && let Some((_, media, text)) = FILES.iter().find(|(file, ..)| file == name)
    {
        return Ok(reply(media, full(text.as_bytes())));
    }
    if !is_get {
        guard::origin_of_form(parts)?;
    }
    if place.is_none() && segments == ["sign-in"] {
        return match is_get {
            true => sign_in_view(state, parts, None),
            false => sign_in(state, peer, parts, body).await,
        };
    }
    let cookie = cookie(parts, SIGN_IN);
    let caller = cookie.and_then(|cookie| state.sign_ins.find(&cookie, &state.tokens));
    // The cookie is valid only under its own path. A server on another port therefore cannot use the cookie.
    let is_own = |caller: &SignedIn| place.is_some_and(|place| are_equal(place.as_bytes(), caller.place.as_bytes()));
    let Some(caller) = caller.filter(is_own) else {
        return Ok(lead_to("/ui/sign-in"));
    };
    guard::hold_seat(parts);
    let request = Request { state, parts, caller };
    let actor = Actor { via: "page", ..request.caller.holder.actor.clone() };
    let work = async {
        match is_get {
            true => request.view(&segments).await,
            false => {
                let form = FormFields::parse(&body_of(FORM_MEDIA, parts, body).await?);
                if !is_own_form(&form, &request.caller.csrf) {
                    return Err(Refusal::new(
                        Code::ForeignOrigin,
                        "this form belongs to another sign-in: load the form again",
                    ));
                }
                if needs_audit_log(&segments) {
                    may_change()?;
                }
                let changed = request.change(&segments, form).await;
                log::flush_audit().await;
                changed
            }
        }
    };
    match Context::current() {
        Some(context) => context.acted_by(actor).scope(work).await,
        None => work.await,
    }
}

/// Returns whether the `/v1` operation of a form needs the audit log.
fn needs_audit_log(segments: &[&str]) -> bool {
    let is_free = matches!(segments, ["sign-out"] | ["sessions", "revoke"]);
    let path = format!("/v1/{}", segments.join("/"));
    let row = operations::at(&path).and_then(|(rows, _)| rows.iter().find(|row| row.serves(&Method::POST)));
    !is_free && row.is_none_or(|row| row.needs_audit_log())
}

fn is_own_form(form: &FormFields, csrf: &str) -> bool {
    form.get("csrf").is_some_and(|sent| are_equal(sent.as_bytes(), csrf.as_bytes()))
}

fn sign_in_view(state: &AdminState, parts: &Parts, problem: Option<String>) -> Shown {
    let csrf = sign_ins::secret().map_err(no_randomness)?;
    let cookie = cookie_header(parts, (FORM, "/ui/"), &csrf, "");
    let status = if problem.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    let admin = &state.config.load().admin;
    let (command, has_more) = (command_for(&admin.token_file), !admin.tokens.is_empty());
    let mut response = html(&view::SignInView { csrf, command, has_more, problem })?;
    *response.status_mut() = status;
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

/// The command that prints the token in `file`.
fn command_for(file: &Path) -> String {
    let file = file.display().to_string();
    let is_plain = file.chars().all(|c| c.is_alphanumeric() || "/._-+@%:,=".contains(c));
    if is_plain { format!("cat {file}") } else { format!("cat '{}'", file.replace('\'', "'\\''")) }
}

async fn sign_in(state: &AdminState, peer: SocketAddr, parts: &Parts, body: Incoming) -> Shown {
    let form = FormFields::parse(&body_of(FORM_MEDIA, parts, body).await?);
    if !cookie(parts, FORM).is_some_and(|sent| is_own_form(&form, &sent)) {
        return sign_in_view(
            state,
            parts,
            Some("The form was too old, or the browser does not store cookies: try again.".to_owned()),
        );
    }
    let Some((holder, token)) = guard::sign_in(state, peer.ip(), form.text("token"))? else {
        return sign_in_view(
            state,
            parts,
            Some("The token that you entered is not an admin token of this gate.".to_owned()),
        );
    };
    let (cookie, place) = state.sign_ins.begin(holder, &token).map_err(no_randomness)?;
    let folder = format!("/ui/{place}/");
    let mut response = lead_to(&folder);
    response.headers_mut().append(SET_COOKIE, cookie_header(parts, (SIGN_IN, &folder), &cookie, ""));
    response.headers_mut().append(SET_COOKIE, cookie_header(parts, (FORM, "/ui/"), "", "; Max-Age=0"));
    Ok(response)
}

/// Builds the value of `Set-Cookie` for one path. Scripts and other sites cannot use the cookie.
///
/// The cookie is `Secure` if a proxy reports TLS. A browser may reject a `Secure` cookie over clear text. A forged
/// header affects only the client's own cookie.
fn cookie_header(parts: &Parts, (name, folder): (&str, &str), value: &str, more: &str) -> HeaderValue {
    let is_https = parts.headers.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path={folder}; HttpOnly; SameSite=Strict{secure}{more}");
    // Names and values consist of base64 characters.
    let mut cookie = HeaderValue::try_from(cookie).unwrap_or(HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

/// Returns the cookie's value, if the cookie occurs exactly once.
fn cookie(parts: &Parts, name: &str) -> Option<String> {
    let mut found = credential::cookies(&parts.headers, name);
    match (found.next(), found.next()) {
        (Some(only), None) if parts.headers.contains_key(COOKIE) => String::from_utf8(only.to_vec()).ok(),
        _ => None,
    }
}

fn no_randomness(error: NoRandomness) -> Refusal {
    Refusal::new(Code::Internal, error.to_string())
}

fn lead_to(path: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(path) = HeaderValue::try_from(path) {
        response.headers_mut().insert(LOCATION, path);
    }
    response
}

fn html(view: &impl Template) -> Shown {
    let text = view.render().map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    Ok(reply("text/html; charset=utf-8", full(text)))
}

fn problem(refusal: Refusal) -> Response<Body> {
    let (code, detail) = (refusal.code, refusal.detail.clone());
    let plain = refusal.into_response();
    let request = Context::current().map(|context| context.id().clone());
    let shown = view::ProblemView {
        title: code.status().canonical_reason().unwrap_or("Error"),
        detail: &detail,
        code: code.word(),
        request: request.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
    };
    let Ok(mut response) = html(&shown) else { return plain };
    *response.status_mut() = plain.status();
    for (name, value) in plain.headers().iter().filter(|(name, _)| **name != CONTENT_TYPE) {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p56_the_page_is_small_and_has_nothing_inline_and_nothing_from_elsewhere() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/page");
        let views = std::fs::read_dir(folder).unwrap();
        let views: Vec<String> = views.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
        let (vendored, own): (Vec<(&str, &str, &str)>, Vec<_>) =
            FILES.iter().partition(|(name, ..)| name.starts_with("uPlot"));
        let bytes: usize = views.iter().map(String::len).chain(own.iter().map(|(.., text)| text.len())).sum();
        assert!(bytes < 100_000, "{bytes}");
        assert!(vendored.iter().map(|(.., text)| text.len()).sum::<usize>() < 60_000);
        for (name, _, script) in own.iter().filter(|(_, media, _)| *media == SCRIPT) {
            assert!(script.len() < 10_000, "{name}: {}", script.len());
        }
        for view in &views {
            for inline in
                ["style=", "<style", "onclick", "onload", "javascript:", "|safe", "http://", "https://", "<script>"]
            {
                assert!(!view.contains(inline), "{inline}");
            }
        }
        assert!(!POLICY.contains("unsafe"));
        for (name, _, text) in FILES.iter().filter(|(_, media, _)| *media == CSS) {
            assert!(!text.contains("url(") && !text.contains("@import"), "{name}");
        }
    }

    #[test]
    fn p56_the_command_for_the_token_can_be_pasted() {
        assert_eq!(command_for(Path::new("/var/lib/rotogate/admin.token")), "cat /var/lib/rotogate/admin.token");
        assert_eq!(command_for(Path::new("/a b/it's")), r"cat '/a b/it'\''s'");
    }
}
