//! Refusals on routes that accept sessions. A browser tab is redirected to the login. A script gets a refusal with the
//! login path.

use http::StatusCode;
use http::header::{AUTHORIZATION, REFERER};
use http::request::Parts;

use super::Inner;
use super::browser::presented_to_handler;
#[cfg(feature = "axum")]
use super::nested;
use crate::dialect::Reply;
use crate::dialect::browser::navigation::SignedOut;
use crate::dialect::browser::step_up::AskedLogin;
use crate::dialect::browser::{LoginPage, words};
use rotogate_core::denial::{Class, Denial};
use rotogate_core::reply;
use rotogate_core::route::RoutePolicy;

pub(super) enum Led {
    /// The plain refusal, with the path of the login if another login would help.
    Plain(Reply),
    Shown(Reply),
}

impl Inner {
    // Requirement B36.
    pub(super) fn led_to_login(&self, parts: &Parts, denial: Denial, policy: &RoutePolicy, plain: Reply) -> Led {
        let Some(browser) = self.browser.as_ref().filter(|_| policy.credentials.session) else {
            return Led::Plain(plain);
        };
        if plain.status() != StatusCode::UNAUTHORIZED
            || parts.headers.contains_key(AUTHORIZATION)
            || reply::is_grpc(&parts.headers)
            || !would_help(denial, policy, browser.dialect.has_provider)
            || (!browser.dialect.has_provider && self.was_in_vain(parts, denial, policy))
        {
            return Led::Plain(plain);
        }
        let dialect = &browser.dialect;
        let form = match policy.never_leads_to_login {
            true => SignedOut::Problem,
            _ if dialect.page == LoginPage::None => SignedOut::Problem,
            _ => SignedOut::of_request(&parts.method, &parts.headers),
        };
        let mut step_up = AskedLogin::of_route(policy.step_up.as_ref().filter(|_| dialect.has_provider));
        if dialect.has_provider && (denial.class() != Class::NoCredential || denial == Denial::ProviderTokenOver) {
            step_up = step_up.after(denial.reason());
        }
        match form {
            SignedOut::Login => Led::Shown(dialect.lead_to_login(&asked(parts), &step_up)),
            SignedOut::Page => {
                let is_live = matches!(
                    denial,
                    Denial::InsufficientAuthentication | Denial::DeviceProofMissing | Denial::ProviderTokenOver
                );
                // After the login, the browser returns to the page with the form.
                let from = parts.headers.get(REFERER).and_then(|referer| referer.to_str().ok()).unwrap_or_default();
                Led::Shown(challenged(
                    dialect.pages(&parts.headers).not_sent(&dialect.login_link(from, &step_up), is_live),
                    &plain,
                ))
            }
            SignedOut::Problem => Led::Plain(words::with_login(plain, &dialect.login_path(&step_up))),
        }
    }
}

impl Inner {
    /// Returns whether a recent login already failed to satisfy `max_age`. This happens if another issuer confirmed the
    /// user, and the login at that issuer is too old.
    // Requirement N46.
    fn was_in_vain(&self, parts: &Parts, denial: Denial, policy: &RoutePolicy) -> bool {
        let max_age = policy.step_up.as_ref().and_then(|step_up| step_up.max_age);
        let Some(max_age) = max_age.filter(|_| denial == Denial::InsufficientAuthentication) else { return false };
        let cookie = presented_to_handler(self, parts).ok().flatten();
        cookie.is_some_and(|cookie| self.engine.clock().now().since(cookie.session().created()) <= max_age)
    }
}

/// Returns whether a new login could help. A login with a password never has an `acr`, but a login at a provider may
/// have the required one.
fn would_help(denial: Denial, policy: &RoutePolicy, at_provider: bool) -> bool {
    let needs_acr = match denial {
        Denial::InsufficientAuthentication => policy.step_up.as_ref().is_some_and(|step_up| !step_up.acr.is_empty()),
        _ => false,
    };
    at_provider || !needs_acr
}

fn asked(parts: &Parts) -> String {
    #[cfg(feature = "axum")]
    if let Some(whole) = nested::whole(parts)
        && let Some(path) = whole.path_and_query()
    {
        return path.to_string();
    }
    parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default()
}

/// Adds the challenges to a page (RFC 9110 §15.5.2).
fn challenged(mut page: Reply, plain: &Reply) -> Reply {
    for challenge in plain.headers().get_all(http::header::WWW_AUTHENTICATE) {
        page.headers_mut().append(http::header::WWW_AUTHENTICATE, challenge.clone());
    }
    page
}
