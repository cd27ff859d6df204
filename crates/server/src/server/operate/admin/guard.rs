//! Access checks of the admin listener: host, origin and token.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{FORWARDED, ORIGIN};
use http::request::Parts;
use http::{Method, Uri};

use super::AdminState;
use super::operations::Access;
use super::problem::{Code, Refusal};
use super::seats::Seat;
use crate::log;
use crate::server::build::admin_tokens::{AdminToken, Holder};
use rotogate_config::AdminRole;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::context::Actor;
use rotogate_core::credential;
use rotogate_core::limit::Failures;
use rotogate_core::route::authority;

const TARGET: &str = "rotogate::audit";
/// The limit on wrong tokens from one address within [`FAILURES_WITHIN`].
const MAX_FAILURES: u32 = 10;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn failures() -> Failures {
    let time: Arc<dyn TimeSource> = Arc::new(SystemTime::new());
    Failures::new(MAX_FAILURES, FAILURES_WITHIN, &time)
}

/// Refuses a foreign host, because a web page could rebind its DNS name to this address (requirement O25).
pub(super) fn host(parts: &Parts, hosts: &[String]) -> Result<(), Refusal> {
    let authority = authority::check(parts).map_err(|_| {
        Refusal::new(Code::BadRequest, "the `Host` header or the request target is missing or malformed")
    })?;
    if is_own_host(authority.host(), hosts) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::ForeignHost,
        "this listener does not serve the host in the request: use an IP address or localhost, or add the name to \
         `admin.hosts`",
    ))
}

/// Returns whether `host` is an IP address, `localhost` or a configured name. A page that uses DNS rebinding has
/// another host.
fn is_own_host(host: &str, hosts: &[String]) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
}

/// Refuses a change that a page of another origin requests (requirement P50). Only browsers send the checked headers.
pub(super) fn origin(parts: &Parts) -> Result<(), Refusal> {
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let own = authority::check(parts).ok().map(authority::Authority::as_str);
    let is_own = |origin: &http::HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        let of_origin = origin.as_ref().and_then(Uri::authority);
        of_origin.zip(own).is_some_and(|(origin, own)| origin.as_str().eq_ignore_ascii_case(own))
    };
    match parts.headers.get_all(ORIGIN).iter().all(is_own) {
        true => is_own_site(parts),
        false => Err(foreign()),
    }
}

fn is_own_site(parts: &Parts) -> Result<(), Refusal> {
    let is_own = |site: &http::HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    match parts.headers.get_all("sec-fetch-site").iter().all(is_own) {
        true => Ok(()),
        false => Err(foreign()),
    }
}

fn foreign() -> Refusal {
    Refusal::new(Code::ForeignOrigin, "a web page of another origin must not change anything here")
}

pub(super) fn access<'a>(
    state: &'a AdminState,
    access: Access,
    peer: IpAddr,
    parts: &Parts,
) -> Result<Option<&'a Holder>, Refusal> {
    let role = match access {
        Access::Anyone => return Ok(None),
        Access::LocalOrViewer if is_local(peer, parts) => return Ok(None),
        Access::LocalOrViewer => AdminRole::Viewer,
        Access::Role(role) => role,
    };
    let unauthorised = || {
        let what = "send the token in `admin.token_file`, or one of `admin.tokens`, as `Authorization: Bearer …`";
        Refusal::new(Code::Unauthorized, what)
    };
    let holder = match credential::extract(&parts.headers, None) {
        Ok(Some(presented)) => state.tokens.holder(presented.token()),
        Ok(None) => return Err(unauthorised()),
        Err(_) => None,
    };
    let Some(holder) = holder else {
        refuse_login(state, peer)?;
        return Err(unauthorised());
    };
    hold_seat(parts);
    has_role(holder, role, parts)?;
    Ok(Some(holder))
}

/// Keeps the connection's seat, because the peer has a valid admin token (requirement A26).
pub(super) fn hold_seat(parts: &Parts) {
    if let Some(seat) = parts.extensions.get::<Arc<Seat>>() {
        seat.hold();
    }
}

/// Returns whether the request comes from this machine. The peer address alone is not enough, because a local proxy
/// also has a loopback address.
fn is_local(peer: IpAddr, parts: &Parts) -> bool {
    let is_forwarded = parts
        .headers
        .keys()
        .any(|name| name.as_str().starts_with("x-forwarded-") || name == FORWARDED || name == "x-real-ip");
    let is_named = authority::check(parts).is_ok_and(|authority| !is_own_host(authority.host(), &[]));
    peer.to_canonical().is_loopback() && !is_forwarded && !is_named
}

/// Counts and logs a wrong token. Returns a refusal if the address has exceeded the limit.
///
/// The token is compared before the limit is applied. Otherwise a user with the operator's address could lock the
/// operator out (requirement P50). The tokens have at least 32 characters, so guessing is hopeless without a limit.
fn refuse_login(state: &AdminState, peer: IpAddr) -> Result<(), Refusal> {
    if let Some(wait) = state.failures.wait(peer) {
        let what = format!("{peer} sent more than {MAX_FAILURES} wrong tokens within a minute; wait");
        return Err(Refusal::new(Code::TooManyFailures, what).retry_after(wait));
    }
    state.failures.count(peer);
    tracing::warn!(target: TARGET, event = "admin_login_refused", "admin token refused");
    Ok(())
}

pub(super) fn has_role(holder: &Holder, role: AdminRole, parts: &Parts) -> Result<(), Refusal> {
    if holder.role < role {
        let (name, own, needed) = (&holder.actor.name, holder.role.word(), role.word());
        let what = format!(
            "the token {name} has the role {own}, but this operation needs the role {needed} (`admin.tokens` in the \
             configuration)"
        );
        let path = log::without_secrets(parts.uri.path());
        tracing::warn!(
            target: TARGET,
            event = "admin_denied",
            rotogate.actor = &**name,
            rotogate.actor.role = own,
            method = %parts.method,
            path,
            "operation refused, because the operator's role does not allow it"
        );
        return Err(Refusal::new(Code::Forbidden, what));
    }
    Ok(())
}

pub(super) fn sign_in(
    state: &AdminState,
    peer: IpAddr,
    presented: &str,
) -> Result<Option<(Holder, Arc<AdminToken>)>, Refusal> {
    let Some((holder, token)) = state.tokens.entry(presented) else {
        refuse_login(state, peer)?;
        return Ok(None);
    };
    let Actor { name, role, .. } = &holder.actor;
    tracing::info!(
        target: TARGET,
        event = "admin_login",
        rotogate.actor = &**name,
        rotogate.actor.role = *role,
        rotogate.actor.via = "page",
        "operator signed in"
    );
    Ok(Some((holder.clone(), token)))
}

/// Refuses a form from another origin. With `Referrer-Policy: no-referrer`, a browser sends `Origin: null` (Fetch,
/// «append a request Origin header»). Then the CSRF token decides.
pub(super) fn origin_of_form(parts: &Parts) -> Result<(), Refusal> {
    let mut origins = parts.headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(only), None) if only == "null" => is_own_site(parts),
        _ => origin(parts),
    }
}
