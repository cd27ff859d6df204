use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, Entry, SET_COOKIE, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::Inner;
use super::to_its_end::to_its_end;
use crate::dialect::Reply;
use crate::dialect::browser::navigation::is_prefetch;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{APPLICATION, BrowserRules, PresentedDevice, RenewWhen, SessionProvider};
use rotogate_core::fault::Error;
use rotogate_core::lease::Lease;
use rotogate_core::overload::Holder;
use rotogate_core::route::RoutePolicy;
use rotogate_core::session::Session;
use rotogate_core::session::expiry::OnExpiry;
use rotogate_core::token::session_cookie::is_of_browser;
pub(super) use rotogate_core::token::session_cookie::session_cookie;
use rotogate_core::verify_cache::{SessionAnswer, SessionMiss, Verified};

/// How long a request waits for its session. The session continues to load afterwards.
const MAX_WAIT: Duration = Duration::from_secs(10);
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Inner {
    /// The rules of the browser endpoint apply even if the application started the session.
    pub(in crate::gate) fn browser_rules(&self, session: &Session) -> Result<BrowserRules, Denial> {
        let of_endpoint = self.endpoints.client_of(session).or_else(|| self.endpoints.browser_client());
        let of_endpoint = of_endpoint.filter(|client| client.id == session.client).map(Arc::clone);
        let client = of_endpoint.or_else(|| self.clients.get(&session.client));
        let client = client.ok_or(Denial::SessionOver("the session's client is no longer registered"))?;
        let begun_by_application = *session.dialect == *APPLICATION;
        let own = begun_by_application.then(|| self.endpoints.browser_profile().unwrap_or(&self.profile));
        let profile = self.endpoints.profile_for(session).or(own);
        let profile = profile.ok_or(Denial::SessionOver("no endpoint of this gate serves the session"))?;
        Ok(BrowserRules { profile: client.profile.over(profile), client })
    }

    pub(in crate::gate) fn session_miss<'a>(
        &'a self,
        address: Option<IpAddr>,
        answer: Option<&'a SessionAnswer>,
    ) -> SessionMiss<'a> {
        SessionMiss { miss: self.shown(address), keyring: self.engine.keyring(), answer }
    }

    /// A browser's prefetch does not renew its session, because the user may never open the page.
    // Requirement B11.
    pub(super) fn renewal_of(&self, parts: &Parts) -> RenewWhen {
        match is_prefetch(&parts.headers) {
            true => RenewWhen::Never,
            false => RenewWhen::OverBy(self.presented_device(&parts.headers)),
        }
    }

    /// Returns the session of the cookie in a request to an endpoint. If the session is bound to a device, the request
    /// must also prove possession of the device's key.
    ///
    /// # Errors
    /// [`Denial::DeviceProofMissing`], and the errors of
    /// [`TokenChecker::check_session`](rotogate_core::verify_cache::TokenChecker::check_session).
    // Requirement B48.
    pub(in crate::gate) async fn checked_session(
        self: &Arc<Self>,
        value: &str,
        device: PresentedDevice,
        address: Option<IpAddr>,
    ) -> Result<Arc<Verified>, Denial> {
        let verified = self.found_session(value, device, address).await?;
        self.device_proved(|| device.cookie(), &verified)?;
        Ok(verified)
    }

    async fn found_session(
        self: &Arc<Self>,
        value: &str,
        device: PresentedDevice,
        address: Option<IpAddr>,
    ) -> Result<Arc<Verified>, Denial> {
        let check = |answer| {
            let miss = || self.session_miss(address, answer);
            self.checker.check_session(value.as_bytes(), miss, &mut ())
        };
        let first = check(None);
        let Err(Denial::SessionUnavailable(_)) = first else { return first };
        let Ok(_place) = self.running.overload.unverified.enter(address.map(Holder::address)) else { return first };
        let answer = self.loaded_session(value.into(), RenewWhen::OverBy(device)).await;
        answer.record(self.engine.limits(), address.into());
        check(Some(&answer))
    }

    pub(super) fn session_provider(&self) -> Option<Box<dyn SessionProvider + '_>> {
        #[cfg(feature = "browser-oidc")]
        return self.vaults().map(|vaults| Box::new(vaults) as _);
        #[cfg(not(feature = "browser-oidc"))]
        None
    }

    /// Asks the directory and the provider about browser sessions with open streams, and ends the streams of disabled
    /// users.
    pub(in crate::gate) async fn ask_about_browsers(&self) {
        self.engine.ask_about_browsers(self.session_provider().as_deref()).await;
    }

    pub(in crate::gate) async fn loaded_session(self: &Arc<Self>, cookie: Arc<str>, when: RenewWhen) -> SessionAnswer {
        let loading = self.session_loaded(Arc::clone(&cookie), when);
        let outcome = match tokio::time::timeout(MAX_WAIT, loading).await {
            Ok(Ok(verified)) => Ok(verified),
            Ok(Err(Error::Denied(denial))) => Err(denial),
            // A fault does not show whether the session is valid.
            Ok(Err(Error::Failed(fault))) => Err(Denial::SessionUnavailable(fault.retry_after())),
            Err(_) => Err(Denial::SessionUnavailable(TRY_AGAIN)),
        };
        SessionAnswer { cookie, outcome }
    }

    async fn session_loaded(self: &Arc<Self>, cookie: Arc<str>, when: RenewWhen) -> Result<Arc<Verified>, Error> {
        let gate = Arc::clone(self);
        to_its_end(async move {
            let rules = |session: &Session| gate.browser_rules(session);
            let provider = gate.session_provider();
            let loaded = gate.engine.load_session(&gate.checker, &cookie, (&rules, provider.as_deref()), when).await;
            gate.running.faults.tell(&loaded, || gate.engine.clock().source().monotonic());
            loaded
        })
        .await
    }

    /// Returns the result for this session cookie, without side effects. Returns `None` without a cookie of this gate,
    /// or if the session must be renewed first.
    // Requirement B54.
    pub(in crate::gate) async fn foreseen_session(&self, parts: &Parts) -> Option<SessionAnswer> {
        let value = std::str::from_utf8(session_cookie(&parts.headers).ok()??).ok()?;
        self.engine.session_cookie(value)?;
        let cookie: Arc<str> = value.into();
        let rules = |session: &Session| self.browser_rules(session);
        let provider = self.session_provider();
        let outcome = match self.engine.foresee_session(&self.checker, &cookie, (&rules, provider.as_deref())).await {
            Ok(verified) => Ok(verified?),
            Err(Error::Denied(denial)) => Err(denial),
            Err(Error::Failed(fault)) => Err(Denial::SessionUnavailable(fault.retry_after())),
        };
        Some(SessionAnswer { cookie, outcome })
    }

    /// Renews the session in the background if its token expires soon.
    // Requirement B9.
    pub(in crate::gate) fn renew_ahead(self: &Arc<Self>, caller: &Verified, parts: &Parts) {
        let Some(cookie) = caller.session_cookie() else { return };
        if !caller.takes_renewal(|| self.engine.clock().now(), || !is_prefetch(&parts.headers)) {
            return;
        }
        self.renew_in_background(Arc::clone(cookie));
    }

    fn renew_in_background(self: &Arc<Self>, cookie: Arc<str>) {
        // Without a tokio runtime, the first request after the token's expiry renews the session.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let gate = Arc::clone(self);
        runtime.spawn(async move {
            // A fault is logged, and the next request tries again.
            let _ = gate.session_loaded(cookie, RenewWhen::Due).await;
        });
    }

    /// Data that the client sends in the tunnel renews the browser's session.
    pub(in crate::gate) fn tunnel_lease(
        self: &Arc<Self>,
        caller: Option<&Arc<Verified>>,
        on_expiry: OnExpiry,
    ) -> Lease {
        let lease = Lease::for_caller(&self.leases, caller, on_expiry);
        let Some(cookie) = caller.and_then(|caller| caller.session_cookie()).map(Arc::clone) else { return lease };
        let gate = Arc::clone(self);
        lease.renewed_by(Arc::new(move || {
            gate.successor().as_ref().unwrap_or(&gate).renew_in_background(Arc::clone(&cookie));
        }))
    }

    /// Clears the session's cookies only if the session has ended.
    // Requirement B18.
    pub(in crate::gate) fn clear_session(&self, parts: &Parts, denial: Denial, reply: &mut Reply) {
        if let Denial::SessionOver(_) = denial {
            self.append_clearing(reply.headers_mut());
        }
        self.ask_for_device(parts, denial, reply.headers_mut());
    }

    pub(in crate::gate) fn append_clearing(&self, headers: &mut HeaderMap) {
        if let Some(browser) = &self.browser {
            browser.clear_cookies(headers);
        }
    }

    /// Prevents shared caches from storing the service's reply.
    // Requirement B27.
    pub(in crate::gate) fn adapt_reply(&self, headers: &mut HeaderMap) {
        adapt_reply(headers);
        self.keep_binding(headers);
    }
}

/// Returns `None` if the route does not forward the token.
///
/// # Errors
/// See [`token_for_service`].
pub(super) fn forwarded_token(
    gate: &Inner,
    policy: &RoutePolicy,
    caller: &Verified,
) -> Result<Option<HeaderValue>, Denial> {
    if !policy.forward_token {
        return Ok(None);
    }
    let token = match caller.token().is_at_provider() {
        true => Some(caller.provider_token(gate.engine.clock().now())?.ok_or(Denial::ProviderTokenOver)?),
        false => None,
    };
    let token = token.as_ref().map(|token| token.as_str()).or_else(|| caller.session_token());
    let header = token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
    let mut header = header.transpose().map_err(|_| Denial::ProviderTokenOver)?;
    header.iter_mut().for_each(|header| header.set_sensitive(true));
    Ok(header)
}

/// Passes a session's access token to the service. After a login at a provider, this is the provider's token. A handler
/// reads the token from the extensions. The returned header carries the token to the upstream, if the route forwards
/// the token.
///
/// # Errors
/// [`Denial::ProviderTokenOver`] or [`Denial::SessionUnavailable`] if the token is not available. The request must then
/// not be forwarded.
// Requirement B40.
pub(super) fn token_for_service(
    gate: &Inner,
    parts: &mut Parts,
    policy: &RoutePolicy,
    caller: &Verified,
) -> Result<Option<HeaderValue>, Denial> {
    let header = forwarded_token(gate, policy, caller)?;
    #[cfg(feature = "browser-oidc")]
    if caller.token().is_at_provider() {
        let at_provider = caller.provider_token(gate.engine.clock().now());
        super::ProviderToken::give(&mut parts.extensions, at_provider);
    }
    #[cfg(not(feature = "browser-oidc"))]
    let _ = parts;
    Ok(header)
}

fn adapt_reply(headers: &mut HeaderMap) {
    let is_stored = match headers.entry(CACHE_CONTROL) {
        Entry::Vacant(place) => {
            place.insert(HeaderValue::from_static("private"));
            true
        }
        Entry::Occupied(all) => !has_no_store(all.iter()),
    };
    if is_stored {
        headers.append(VARY, HeaderValue::from_static("Cookie"));
    }
}

fn has_no_store<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> bool {
    let directives = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    directives.map(<[u8]>::trim_ascii).any(|directive| directive.eq_ignore_ascii_case(b"no-store"))
}

/// Removes the `Set-Cookie` headers of session and login cookies, unless `may_stay` returns true.
pub(super) fn strip_set_cookie(headers: &mut HeaderMap, mut may_stay: impl FnMut(&HeaderValue) -> bool) {
    let is_ours = |value: &HeaderValue| {
        let name = value.as_bytes().split(|byte| matches!(byte, b'=' | b';')).next().unwrap_or_default();
        is_of_browser(name.trim_ascii())
    };
    if headers.get_all(SET_COOKIE).iter().any(is_ours) {
        let all = headers.get_all(SET_COOKIE).iter();
        let kept: Vec<_> = all.filter(|value| !is_ours(value) || may_stay(value)).cloned().collect();
        headers.remove(SET_COOKIE);
        for value in kept {
            headers.append(SET_COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests;
