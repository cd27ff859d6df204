//! Browser sessions of an application with its own login page.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::BrowserEndpoint;
use crate::gate::browser_request::session_cookie;
use crate::gate::to_its_end::to_its_end;
use crate::gate::{Gate, Inner, NewSession};
use rotogate_core::denial::Denial;
use rotogate_core::engine::{ApplicationLogin, BrowserLogin, Origin};
use rotogate_core::fault::Error;
use rotogate_core::limit::Source;
use rotogate_core::policy::Permitted;
use rotogate_core::route::RoutePolicy;
use rotogate_core::token::session_cookie::SessionCookie;

/// Begins and ends browser sessions for the application: see [`Gate::browser`].
///
/// ```
/// use http::HeaderMap;
/// use http::request::Parts;
/// use rotogate::Gate;
/// use rotogate::fault::Error;
/// use rotogate::gate::NewSession;
///
/// /// Serves `POST /login`, once the application knows the user. The headers set the cookie.
/// async fn login(gate: &Gate, request: &Parts, user: &str) -> Result<HeaderMap, Error> {
///     gate.browser().begin(request, NewSession::new(user, "browser")).await
/// }
///
/// /// Serves `POST /logout`. After an error the cookie stays, so that the browser can try again.
/// async fn logout(gate: &Gate, request: &Parts) -> Result<HeaderMap, Error> {
///     gate.browser().revoke(request).await
/// }
/// ```
// Requirement B53.
#[derive(Clone, Debug)]
pub struct BrowserSessions(Gate);

impl Gate {
    /// Begins and ends browser sessions for an application with its own login page. The gate needs a
    /// [`Browser`](super::Browser), whose path, cookie and profile apply.
    pub fn browser(&self) -> BrowserSessions {
        BrowserSessions(self.clone())
    }
}

impl BrowserSessions {
    /// Begins a session for the browser that sent this request, after the application has logged the user in. Returns
    /// the headers of the reply. Ends the browser's previous session.
    ///
    /// As with [`Sessions::start`](crate::gate::Sessions::start), the gate does not look up the user in a directory.
    /// The application must limit login attempts itself.
    ///
    /// # Errors
    /// [`Denial::CrossOrigin`] if the request does not prove that it comes from our own origin or an allowed origin.
    /// [`Denial::NoRoute`] without a [`Browser`](super::Browser). The errors of
    /// [`Sessions::start`](crate::gate::Sessions::start).
    pub async fn begin(&self, request: &Parts, new: NewSession) -> Result<HeaderMap, Error> {
        let (gate, browser) = self.asked(request)?;
        let presented = presented_to_handler(gate, request)?;
        let own = gate.endpoints.browser_client().filter(|client| client.id == new.client);
        if own.is_none() && gate.clients.get(&new.client).is_none() {
            tracing::warn!(
                client = %new.client,
                "session not started, because its client is not registered: register the client with \
                 `GateBuilder::client`"
            );
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

    /// Durably ends the session of the browser that sent this request. Returns the headers that clear the cookie.
    ///
    /// # Errors
    /// [`Denial::CrossOrigin`] and [`Denial::NoRoute`] as for [`Self::begin`]. After a fault, this gate refuses the
    /// session, but the reply must not clear the cookie.
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

    fn asked(&self, request: &Parts) -> Result<(&Arc<Inner>, &BrowserEndpoint), Denial> {
        let gate = &self.0.0;
        let browser = gate.browser.as_deref().ok_or(Denial::NoRoute)?;
        if gate.origins.asked_for_session(&request.headers) { Ok((gate, browser)) } else { Err(Denial::CrossOrigin) }
    }
}

impl Inner {
    /// Ends the session of a cookie, first at the gate and then at its provider. Returns the hint for the provider's
    /// logout page. A refresh in progress revokes its new tokens itself.
    ///
    /// # Errors
    /// See [`Engine::end_browser`](rotogate_core::engine::Engine::end_browser).
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

/// A cookie that was not made with one of this gate's secrets is ignored, and counts as forged.
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
    /// Ends the browser's earlier session after the same user has logged in again. The delay lets parallel requests
    /// finish. If the gate stops first, the session expires by itself.
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
            // A fault is logged, and the gate stores the revocation later.
            let _ = gate.engine.end_browser(&cookie, &origin).await;
            #[cfg(feature = "browser-oidc")]
            if let Some(vaults) = gate.vaults() {
                vaults.remove(&cookie).await;
            }
        });
    }
}

/// The cookie that a layer has removed from a request. `Debug` does not print it.
#[derive(Clone)]
struct RemovedCookie(Result<Arc<Zeroizing<Vec<u8>>>, Denial>);

/// Keeps the session cookie for [`BrowserSessions`] before a layer removes it.
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

/// Like [`presented`], but also finds a cookie that a layer has already removed.
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

fn of_caller<'a>(gate: &Inner, request: &'a Parts) -> Option<&'a str> {
    let permitted = request.extensions.get::<Permitted>().filter(|permitted| permitted.by().gate == gate.id)?;
    permitted.caller()?.session_cookie().map(AsRef::as_ref)
}

fn not_stored() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}
