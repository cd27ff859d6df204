//! Executes browsers' requests: logins, state queries, logouts, and device proofs.

use std::sync::Arc;

use http::Method;
use http::request::Parts;

mod device;
#[cfg(feature = "browser-oidc")]
mod provider;

use super::execute::{EndpointCommand, accounts};
use super::handler::EndpointHandler;
#[cfg(feature = "browser-oidc")]
use crate::dialect::browser::CALLBACK;
use crate::dialect::browser::{DEVICE, LOGIN, LOGO, LOGOUT, SESSION, SentLogin, words};
use crate::dialect::{Call, Reply};
use crate::gate::Inner;
use crate::gate::browser::{BrowserEndpoint, presented};
use crate::gate::to_its_end::to_its_end;
use crate::gate::verdict::{Recipient, Who};
use rotogate_core::client::Grant;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{Arrival, BrowserLogin, BrowserSession, Login, Origin};
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::route::{RoutePolicy, authority};
use rotogate_core::session::Session;
use rotogate_core::token::session_cookie::SessionCookie;

/// Checks the host and the origin of a request before its body is read.
///
/// # Errors
/// [`Denial::UnknownHost`], [`Denial::CrossOrigin`].
// Requirements B7 and B25.
pub(super) fn admit(gate: &Inner, browser: &BrowserEndpoint, operation: &str, parts: &Parts) -> Result<(), Denial> {
    let admitted = foresee(gate, browser, operation, parts);
    if admitted == Err(Denial::CrossOrigin) && (operation, &parts.method) == (LOGIN, &Method::POST) {
        gate.running.browser_logins.count(Some(&Denial::CrossOrigin.into()));
    }
    admitted
}

/// Like [`admit`], but does not count the request.
///
/// # Errors
/// See [`admit`].
pub(super) fn foresee(gate: &Inner, browser: &BrowserEndpoint, operation: &str, parts: &Parts) -> Result<(), Denial> {
    let host = authority::check(parts)?.host();
    if !host.eq_ignore_ascii_case(&browser.host) {
        return Err(Denial::UnknownHost);
    }
    let may_use_session = || gate.origins.admit_session(parts, &RoutePolicy::default());
    let is_good = match (operation, &parts.method) {
        (LOGIN, &Method::POST) => gate.origins.asked_for_session(&parts.headers),
        (LOGOUT, &Method::POST) => gate.origins.asked_for_session(&parts.headers) && may_use_session(),
        (SESSION, _) => may_use_session(),
        // The browser itself sends this request, without the header that scripts must send.
        (DEVICE, _) => gate.origins.asked_for_session(&parts.headers),
        // A page with a form or a button does not change anything.
        _ => true,
    };
    if is_good { Ok(()) } else { Err(Denial::CrossOrigin) }
}

pub(super) async fn answer(
    browser: &BrowserEndpoint,
    call: &Call<'_>,
    handler: &EndpointHandler<'_>,
) -> (Reply, Reason) {
    let dialect = &browser.dialect;
    #[cfg(feature = "browser-oidc")]
    if let Some(provider) = &browser.provider {
        match (call.operation, call.method) {
            (LOGIN, &Method::GET) => return provider::begin(browser, provider, call, handler).await,
            (CALLBACK, &Method::GET) => return provider::finish(browser, provider, call, handler).await,
            // A HEAD request neither begins a login nor completes it.
            (LOGIN | CALLBACK, _) => return (words::nothing(), Reason::ANSWERED),
            _ => {}
        }
    }
    if call.operation == DEVICE {
        return device::answer(browser, call, handler).await;
    }
    let answered: Result<Reply, Error> = match (call.operation, call.method) {
        (LOGIN, &Method::POST) => log_in(browser, call, handler).await,
        (LOGIN, _) => Ok(dialect.login_page(call)),
        (LOGOUT, &Method::POST) => log_out(browser, call, handler).await,
        (LOGOUT, _) => Ok(dialect.logout_page(call)),
        (SESSION, _) => state(browser, call, handler).await,
        (LOGO, _) => dialect.pages(call.headers).logo().ok_or_else(|| Denial::NoRoute.into()),
        _ => Err(Denial::NoRoute.into()),
    };
    match answered {
        Ok(reply) => (reply, Reason::ANSWERED),
        Err(error) => (words::denied(dialect, call, &error), Reason::from(&error)),
    }
}

async fn log_in(browser: &BrowserEndpoint, call: &Call<'_>, handler: &EndpointHandler<'_>) -> Result<Reply, Error> {
    let began = begin(browser, call, handler).await;
    handler.gate.running.browser_logins.count(began.as_ref().err());
    let (login, to) = began?;
    told_recipient(handler, &login.session);
    let BrowserLogin { session, .. } = &login;
    let mut reply = browser.dialect.logged_in(call, to.as_deref(), &session.subject, session.expires);
    browser.put_begun(&handler.gate.engine, &login, reply.headers_mut());
    Ok(reply)
}

fn told_recipient(handler: &EndpointHandler<'_>, session: &Session) {
    let recipient =
        Recipient { subject: session.subject.clone(), session: Some(session.id), client: Some(session.client.clone()) };
    let _ = handler.recipient.set(Who::Issued(Box::new(recipient)));
}

async fn begin(
    browser: &BrowserEndpoint,
    call: &Call<'_>,
    handler: &EndpointHandler<'_>,
) -> Result<(BrowserLogin, Option<String>), Error> {
    let mut login = browser.dialect.read_login(call)?;
    let to = login.to.take();
    let presented = presented(handler.gate, call.headers, handler.origin.address)?;
    let (gate, index) = (Arc::clone(handler.gate), handler.endpoint);
    let (origin, arrived) = (handler.origin.clone(), handler.arrived);
    let beginning = async move { begin_session(&gate, index, login, presented, &origin, arrived).await };
    let begun = to_its_end(beginning).await;
    handler.tell(&begun);
    Ok((begun?, to))
}

async fn begin_session(
    gate: &Arc<Inner>,
    index: usize,
    login: SentLogin,
    presented: Option<SessionCookie>,
    origin: &Origin,
    arrived: Arrival,
) -> Result<BrowserLogin, Error> {
    let endpoint = gate.endpoints.get(index).ok_or(Denial::NoRoute)?;
    let (account, of_account) = accounts(endpoint, login.account.as_deref());
    let at = EndpointCommand { gate, endpoint, origin, account: of_account };
    let client = at.client(None, Some(Grant::Password)).await?;
    let login = Login {
        client: &client,
        account,
        username: &login.username,
        password: &login.password,
        scope: None,
        access_ttl: None,
        resource: None,
        profile: &client.profile.over(&endpoint.profile),
        dialect: endpoint.dialect.name(),
        proof: None,
        certificate: None,
        arrived,
        origin,
    };
    let begun = gate.engine.begin_browser(login, presented.as_ref()).await?;
    gate.end_presented_later(&begun, presented, origin.clone());
    Ok(begun)
}

async fn log_out(browser: &BrowserEndpoint, call: &Call<'_>, handler: &EndpointHandler<'_>) -> Result<Reply, Error> {
    let mut hint = None;
    if let Some(cookie) = presented(handler.gate, call.headers, handler.origin.address)? {
        let (gate, origin) = (Arc::clone(handler.gate), handler.origin.clone());
        let ended = to_its_end(async move { gate.log_browser_out(&cookie, &origin).await }).await;
        handler.tell(&ended);
        // After a fault, the cookie stays, so that the browser can try again.
        hint = ended?;
    }
    let at_provider = browser.logout_at_provider(hint.as_ref().map(|hint| hint.as_str()));
    let mut reply = browser.dialect.logged_out(call, at_provider.as_deref());
    browser.clear_cookies(reply.headers_mut());
    Ok(reply)
}

/// A request for the state does not keep the session alive.
async fn state(browser: &BrowserEndpoint, call: &Call<'_>, handler: &EndpointHandler<'_>) -> Result<Reply, Error> {
    let gate = handler.gate;
    let Some(cookie) = presented(gate, call.headers, handler.origin.address)? else {
        return Ok(browser.dialect.none());
    };
    let found = gate.engine.browser_session(&cookie, &|session| gate.browser_rules(session)).await;
    handler.tell(&found);
    match found {
        // Somebody with a copied cookie must not learn anything about the session's user.
        Ok(live) if !gate.engine.admits_device(&live.session, handler.device) => Ok(browser.dialect.none()),
        Ok(BrowserSession { session, expires, idle_expires }) => {
            let is_bound = session.browser.is_some_and(|browser| browser.device.is_some());
            Ok(browser.dialect.live(&session.subject, &session.claims, [expires, idle_expires], is_bound))
        }
        Err(Error::Denied(denial)) if !denial.is_undecided() => Ok(browser.dialect.none()),
        Err(error) => Err(error),
    }
}
