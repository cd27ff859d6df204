//! Session cookies in a service's replies. A service can only set session cookies that it got from the gate.
//!
//! The application gets a session cookie from [`BrowserSessions`](super::BrowserSessions). The gate remembers the
//! cookie until the reply that sets it passes the gate.

use std::collections::VecDeque;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use parking_lot::Mutex;

use crate::gate::Inner;
use crate::gate::browser_request::strip_set_cookie;
use rotogate_core::policy::{self, By, Permitted};
use rotogate_core::route::Route;

/// The maximum number of remembered cookies. If more replies are pending, the oldest reply does not set its cookie, and
/// its user has to log in again.
const REMEMBERED: usize = 4096;

/// Digests of the session cookies that the application has received, but not yet sent to a browser.
#[derive(Debug, Default)]
pub(crate) struct GivenCookies(Mutex<VecDeque<[u8; 32]>>);

#[derive(Clone)]
struct PassedCookies(Vec<HeaderValue>);

impl GivenCookies {
    pub(super) fn note(&self, headers: &HeaderMap) {
        let mut given = self.0.lock();
        for digest in headers.get_all(SET_COOKIE).iter().filter_map(digest_of) {
            if given.len() >= REMEMBERED {
                given.pop_front();
            }
            given.push_back(digest);
        }
    }

    /// Forgets this cookie, and returns whether it was remembered.
    fn take(&self, cookie: &HeaderValue) -> bool {
        let Some(digest) = digest_of(cookie) else { return false };
        let mut given = self.0.lock();
        let at = given.iter().position(|known| *known == digest);
        at.and_then(|at| given.remove(at)).is_some()
    }
}

fn digest_of(cookie: &HeaderValue) -> Option<[u8; 32]> {
    digest(&SHA256, cookie.as_bytes()).as_ref().first_chunk().copied()
}

pub(in crate::gate) fn note_own<B>(reply: &mut Response<B>) {
    if reply.headers().contains_key(SET_COOKIE) {
        let own = reply.headers().get_all(SET_COOKIE).iter().cloned().collect();
        reply.extensions_mut().insert(PassedCookies(own));
    }
}

impl Inner {
    /// Returns `None` if an outer layer adapts the reply.
    pub(in crate::gate) fn adapts_alone(&self, parts: &Parts, route: &Arc<Route>) -> Option<Permitted> {
        self.browser.as_ref()?;
        match parts.extensions.get::<Permitted>().filter(|known| known.by().gate == self.id) {
            Some(known) if known.by().layer => None,
            Some(known) if known.caller().is_some_and(|caller| caller.session_cookie().is_some()) => {
                Some(known.clone())
            }
            Some(_) | None => {
                let by = By { gate: self.id, layer: false, defers: false };
                Some(policy::permit_own(route, by).into_permitted())
            }
        }
    }

    /// Removes session and login cookies from a service's reply, for every caller.
    // Requirement B27.
    pub(in crate::gate) fn strip_cookies<B>(&self, reply: &mut Response<B>) {
        if self.browser.is_none() || !reply.headers().contains_key(SET_COOKIE) {
            return;
        }
        let before = reply.extensions_mut().remove::<PassedCookies>();
        let mut passed = Vec::new();
        strip_set_cookie(reply.headers_mut(), |cookie| {
            let has_passed = before.as_ref().is_some_and(|before| before.0.contains(cookie));
            let may_pass = has_passed || self.running.given_cookies.take(cookie);
            passed.extend(may_pass.then(|| cookie.clone()));
            may_pass
        });
        if !passed.is_empty() {
            reply.extensions_mut().insert(PassedCookies(passed));
        }
    }
}
