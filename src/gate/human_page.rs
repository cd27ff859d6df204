//! Pages for people who cannot read a problem document: on routes that accept browser sessions, and where there is no route.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};

use super::{Inner, respond};
use crate::dialect::Reply;
use crate::dialect::browser::page::Pages;
use crate::dialect::browser::reader::{PageCause, Reader, show};
use rotogate_core::denial::{Class, Denial};
use rotogate_core::reply;
use rotogate_core::route::RoutePolicy;

impl Inner {
    /// Makes the reply to a refused request without a dialect: the application's own, a page, or a problem document.
    pub(super) fn worded(&self, parts: &Parts, policy: Option<&RoutePolicy>, denial: Denial, plain: Reply) -> Reply {
        match &self.refusals {
            Some(hook) => respond::hooked(Some(hook), parts, denial, plain),
            None => self.for_person((&parts.method, &parts.headers), policy, Some(denial), plain),
        }
    }

    /// Returns the page that takes the place of a problem document, or the document itself. `policy` is `None` if there is
    /// no route.
    // Requirement B65.
    pub(super) fn for_person(
        &self,
        (method, headers): (&Method, &HeaderMap),
        policy: Option<&RoutePolicy>,
        denial: Option<Denial>,
        plain: Reply,
    ) -> Reply {
        let is_for_people = match policy {
            Some(policy) => policy.credentials.session,
            None => plain.status() == StatusCode::NOT_FOUND,
        };
        if !is_for_people || self.browser.is_none() || reply::is_grpc(headers) {
            return plain;
        }
        let Some(reader) = Reader::of_request(method, headers) else { return plain };
        let (mut head, body) = plain.into_parts();
        let cause = match denial.map(|denial| denial.class()) {
            Some(Class::CrossOrigin) => PageCause::Foreign,
            _ => PageCause::Status,
        };
        match self.page(reader, cause, (head.status, &mut head.headers)) {
            Some(page) => Reply::from_parts(head, page.into()),
            None => Reply::from_parts(head, body),
        }
    }

    /// Returns the page for a refusal, and sets its headers. A 401 stays a problem document, because a script reads the path
    /// of the login in it.
    pub(super) fn page(
        &self,
        reader: Reader,
        cause: PageCause,
        (status, headers): (StatusCode, &mut HeaderMap),
    ) -> Option<Bytes> {
        let look = &self.browser.as_ref()?.dialect.look;
        let is_shown = status.is_client_error() || status.is_server_error();
        (is_shown && status != StatusCode::UNAUTHORIZED)
            .then(|| show(Pages::new(look, reader.language), reader, cause, (status, headers)))
    }
}
