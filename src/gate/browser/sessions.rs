//! Sessions of browsers that the application begins, behind a login page of its own.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::BrowserEndpoint;
use crate::gate::browser_request::session_cookie;
use crate::gate::endpoint::to_its_end;
use crate::gate::{Gate, Inner, NewSession};
use rotogate_core::denial::Denial;
use rotogate_core::engine::{ApplicationLogin, BrowserLogin, Origin};
use rotogate_core::fault::Error;
use rotogate_core::limit::Source;
use rotogate_core::policy::Permitted;
use rotogate_core::route::RoutePolicy;
use rotogate_core::token::session_cookie::SessionCookie;

/// Begins and ends sessions of browsers from the application: see [`Gate::browser`].
///
/// ```
/// use http::HeaderMap;
/// use http::request::Parts;
/// use rotogate::Gate;
/// use rotogate::fault::Error;
/// use rotogate::gate::NewSession;
///
/// /// `POST /login`, once the application knows the user. The headers set the cookie.
/// async fn login(gate: &Gate, request: &Parts, user: &str) -> Result<HeaderMap, Error> {
///     gate.browser().begin(request, NewSession::new(user, "browser")).await
/// }
///
/// /// `POST /logout`. After an error the cookie stays, so that the browser can try again.
/// async fn logout(gate: &Gate, request: &Parts) -> Result<HeaderMap, Error> {
///     gate.browser().revoke(request).await
/// }
/// ```
// Requirement B53.
#[derive(Clone, Debug)]
pub struct BrowserSessions(Gate);

impl Gate {
    /// Begins and ends sessions of browsers behind a login page of the application. The gate needs a
    /// [`Browser`](super::Browser): its path, cookie and profile apply to these sessions, too.
    pub fn browser(&self) -> BrowserSessions {
        BrowserSessions(self.clone())
    }
}

impl BrowserSessions {
    /// Begins a session for the browser that sent this request, for a user whom the application has logged in. Returns
    /// the headers of the reply. The session that the browser presented ends.
    ///
    /// The gate asks no directory about the user, as with [`Sessions::start`](crate::gate::Sessions::start). The
    /// application must limit the attempts to log in.
    ///
    /// # Errors
    /// [`Denial::CrossOrigin`] without proof that a page of our own or of an allowed origin sent the request;
    /// [`Denial::NoRoute`] without a [`Browser`](super::Browser); the errors of
    /// [`Sessions::start`](crate::gate::Sessions::start).
    pub async fn begin(&self, request: &Parts, new: NewSession) -> Result<HeaderMap, Error> {
        let (gate, browser) = self.asked(request)?;
        let presented = presented_to_handler(gate, request)?;
        let own = gate.endpoints.browser_client().filter(|client| client.id == new.client);
        if own.is_none() && gate.clients.get(&new.client).is_none() {
            tracing::warn!(client = %new.client, "session not begun: call GateBuilder::client to register its client");
            return Err(Denial::InvalidClient.into());
        }
        let agent = request.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let origin = Origin {
            address: new.origin.address.or_else(|| gate.client_address(request)),
            user_agent: agent.map(|agent| agent.chars().take(256).collect::<String>().into()),
            ..Origin::default()
        };
        let start = ApplicationLogin {
            subject: &new.subject,
            account: new.account.as_deref(),
            client: &new.client,
            scope: new.scope,
            claims: new.claims,
            vouched_by: new.vouched_by,
            profile: new.profile.as_ref().or_else(|| gate.endpoints.browser_profile()).unwrap_or(&gate.profile),
            origin: &origin,
        };
        let begun = gate.engine.start_browser(start, presented.as_ref()).await?;
        gate.end_presented_later(&begun, presented, origin);
        let mut headers = not_stored();
        browser.put_begun(&gate.engine, &begun, &mut headers);
        gate.running.given_cookies.note(&headers);
        Ok(headers)
    }

    /// Ends the session of the browser that sent this request, durably, as the other `revoke…` do. Returns the headers of the reply, which clear the
    /// cookie.
    ///
    /// # Errors
    /// [`Denial::CrossOrigin`] and [`Denial::NoRoute`] as [`Self::begin`]; a fault, after which the session is refused at
    /// this gate and its cookie must stay.
    pub async fn revoke(&self, request: &Parts) -> Result<HeaderMap, Error> {
        let (gate, browser) = self.asked(request)?;
        gate.origins.judge_session(request, &RoutePolicy::default())?;
        if let Some(cookie) = presented_to_handler(gate, request)? {
            let origin = Origin { address: gate.client_address(request), ..Origin::default() };
            let gate = Arc::clone(gate);
            to_its_end(async move { gate.log_browser_out(&cookie, &origin).await }).await?;
        }
        let mut headers = not_stored();
        browser.clear_cookies(&mut headers);
        gate.running.given_cookies.note(&headers);
        Ok(headers)
    }

    /// The gate and its browser endpoint, if the request proves its origin.
    fn asked(&self, request: &Parts) -> Result<(&Arc<Inner>, &BrowserEndpoint), Denial> {
        let gate = &self.0.0;
        let browser = gate.browser.as_deref().ok_or(Denial::NoRoute)?;
        if gate.origins.asked_for_session(&request.headers) { Ok((gate, browser)) } else { Err(Denial::CrossOrigin) }
    }
}

impl Inner {
    /// Ends the session of a cookie, first at the gate and then at its provider. Returns the hint for the provider's
    /// logout page. A refresh of the provider's tokens that is under way revokes its new tokens itself.
    ///
    /// # Errors
    /// As [`Engine::end_browser`](rotogate_core::engine::Engine::end_browser).
    // Requirement B43.
    pub(in crate::gate) async fn log_browser_out(
        &self,
        cookie: &SessionCookie,
        origin: &Origin,
    ) -> Result<Option<Zeroizing<String>>, Error> {
        self.engine.end_browser(cookie, origin).await?;
        #[cfg(feature = "browser-oidc")]
        if let Some(vaults) = self.vaults() {
            return Ok(vaults.close(cookie).await);
        }
        Ok(None)
    }
}

/// The cookie that a request from this address presents. A cookie that no key of this gate made is ignored, and counts
/// as forged.
// Requirement B3.
pub(in crate::gate) fn presented(
    gate: &Inner,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Result<Option<SessionCookie>, Denial> {
    Ok(session_cookie(headers)?.and_then(|value| authenticated(gate, value, address)))
}

fn authenticated(gate: &Inner, value: &[u8], address: Option<IpAddr>) -> Option<SessionCookie> {
    let cookie = std::str::from_utf8(value).ok().and_then(|value| gate.engine.session_cookie(value));
    if cookie.is_none() {
        gate.engine.limits().record_forged(Source::from(address));
    }
    cookie
}

impl Inner {
    /// Ends the session that a browser presented at a login of the same user, once its parallel requests have passed.
    /// If this gate stops before, the record's own expiry ends the session at that time.
    // Requirement B8.
    pub(in crate::gate) fn end_presented_later(
        self: &Arc<Self>,
        begun: &BrowserLogin,
        presented: Option<SessionCookie>,
        origin: Origin,
    ) {
        let (Some(wait), Some(cookie)) = (begun.presented_ends_in, presented) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let gate = Arc::clone(self);
        runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            // After a fault, the end is owed to the store and logged.
            let _ = gate.engine.end_browser(&cookie, &origin).await;
            #[cfg(feature = "browser-oidc")]
            if let Some(vaults) = gate.vaults() {
                vaults.remove(&cookie).await;
            }
        });
    }
}

/// The value of the cookie that a layer has removed from a request. Does not print.
#[derive(Clone)]
struct RemovedCookie(Result<Arc<Zeroizing<Vec<u8>>>, Denial>);

/// Keeps the session cookie of a request for [`BrowserSessions`], before a layer removes it: a handler of the application
/// ends the session.
pub(in crate::gate) fn keep_cookie(gate: &Inner, parts: &mut Parts) {
    if gate.browser.is_none() {
        return;
    }
    let found = session_cookie(&parts.headers).map(|found| {
        let found = found.or_else(|| of_caller(gate, parts).map(str::as_bytes));
        found.map(|value| Arc::new(Zeroizing::new(value.to_vec())))
    });
    if let Some(found) = found.transpose() {
        parts.extensions.insert(RemovedCookie(found));
    }
}

/// Like [`presented`], for a handler or a layer that may be behind a layer.
pub(in crate::gate) fn presented_to_handler(gate: &Inner, request: &Parts) -> Result<Option<SessionCookie>, Denial> {
    let address = gate.client_address(request);
    match request.extensions.get::<RemovedCookie>() {
        Some(RemovedCookie(Ok(value))) => Ok(authenticated(gate, value, address)),
        Some(RemovedCookie(Err(denial))) => Err(*denial),
        None => match of_caller(gate, request) {
            Some(value) => Ok(authenticated(gate, value.as_bytes(), address)),
            None => presented(gate, &request.headers, address),
        },
    }
}

/// The session cookie of the caller whom a layer of this gate let pass.
fn of_caller<'a>(gate: &Inner, request: &'a Parts) -> Option<&'a str> {
    let permitted = request.extensions.get::<Permitted>().filter(|permitted| permitted.by().gate == gate.id)?;
    permitted.caller()?.session_cookie().map(AsRef::as_ref)
}

fn not_stored() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}
