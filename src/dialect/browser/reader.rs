//! Decides whether a person in front of a browser reads a refusal, and not a script or a client of an API.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::page::Pages;
use super::texts::{Language, Text, weighted};

/// The person who reads a page instead of a problem document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) language: Language,
    /// Whether a link may send the request again.
    may_retry: bool,
}

/// The headers of a forwarded request that decide about its [`Reader`] if the upstream fails. Copying them costs less
/// than reading them.
#[derive(Debug)]
pub(crate) struct ReaderHeaders {
    accept: HeaderValue,
    language: Option<HeaderValue>,
    may_retry: bool,
}

impl ReaderHeaders {
    /// Returns `None` for a request with a token, because it comes from a client of an API.
    pub(crate) fn of_request(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let accept = headers.get(ACCEPT).filter(|_| !headers.contains_key(AUTHORIZATION))?.clone();
        Some(Self { accept, language: headers.get(ACCEPT_LANGUAGE).cloned(), may_retry: *method == Method::GET })
    }

    pub(crate) fn reader(&self) -> Option<Reader> {
        let language = Language::of_header(self.language.as_ref());
        prefers_html(&self.accept).then_some(Reader { language, may_retry: self.may_retry })
    }
}

impl Reader {
    // Requirement B65.
    pub(crate) fn of_request(method: &Method, headers: &HeaderMap) -> Option<Self> {
        ReaderHeaders::of_request(method, headers)?.reader()
    }
}

/// Returns whether the client accepts HTML, and does not prefer JSON. `*/*` does not suffice, because scripts send it.
fn prefers_html(accept: &HeaderValue) -> bool {
    let (mut html, mut json) = (0, 0);
    for (range, weight) in weighted(accept.to_str().unwrap_or_default()) {
        if range.eq_ignore_ascii_case("text/html") {
            html = html.max(weight);
        } else if ["application/json", "application/problem+json"].iter().any(|it| range.eq_ignore_ascii_case(it)) {
            json = json.max(weight);
        }
    }
    html > 0 && html >= json
}

/// What a refusal means for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageCause {
    /// The status says enough.
    Status,
    /// A page of another origin sent the request.
    Foreign,
}

impl PageCause {
    const fn texts(self, status: StatusCode) -> (Text, Text) {
        match (self, status.as_u16()) {
            (Self::Foreign, _) => (Text::NoAccess, Text::ForeignAdvice),
            (Self::Status, 403) => (Text::NoAccess, Text::NoAccessAdvice),
            (Self::Status, 404) => (Text::NotFound, Text::NotFoundAdvice),
            (Self::Status, 413) => (Text::BadRequest, Text::TooLargeAdvice),
            (Self::Status, 429) => (Text::TooMany, Text::TooManyAdvice),
            (Self::Status, 502..=504) => (Text::Unavailable, Text::UnavailableAdvice),
            (Self::Status, 500..) => (Text::BadRequest, Text::FaultAdvice),
            (Self::Status, _) => (Text::BadRequest, Text::BadRequestAdvice),
        }
    }
}

/// Returns the page that takes the place of a problem document, and sets its headers. Status, challenges and
/// `Retry-After` stay. Nothing of the request is in the page.
pub(crate) fn show(
    pages: Pages<'_>,
    reader: Reader,
    cause: PageCause,
    (status, headers): (StatusCode, &mut HeaderMap),
) -> Bytes {
    let (title, text) = cause.texts(status);
    let seconds = headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()).unwrap_or("60");
    let text = pages.text(text).replace("{seconds}", seconds);
    let link = match status.as_u16() {
        403 | 404 => Some(("/", Text::StartPage)),
        // The address of the page itself (RFC 3986 §4.4).
        429 | 500.. if reader.may_retry => Some(("", Text::TryAgain)),
        _ => None,
    };
    let logout = (status == StatusCode::FORBIDDEN && cause == PageCause::Status).then(|| pages.logout_link());
    let html = pages.refusal(title, &text, link, logout.as_deref());
    headers.append(VARY, HeaderValue::from_static("accept, accept-language"));
    pages.head(headers);
    html.into()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn reader(method: &str, pairs: &[(&str, &str)]) -> Option<Reader> {
        let mut request = Request::builder().method(method);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Reader::of_request(&parts.method, &parts.headers)
    }

    #[test]
    fn b65_a_person_is_who_accepts_html_and_sends_no_token() {
        let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        let person = Reader { language: Language::En, may_retry: true };
        for accept in [chromium, "text/html", "Text/HTML;q=0.2", "application/json;q=0.1, text/html;level=1;q=0.4"] {
            assert_eq!(reader("GET", &[("accept", accept)]), Some(person), "{accept}");
        }
        let german = Reader { language: Language::De, may_retry: false };
        assert_eq!(reader("POST", &[("accept", chromium), ("accept-language", "de")]), Some(german));
        for accept in [
            "*/*",
            "application/json",
            "text/*",
            "text/html;q=0",
            "text/html;q=x",
            "text/html-fragment",
            "application/json, text/html;q=0.9",
            "application/problem+json, text/html;q=0.9",
            "\u{e9}text/html",
            "",
        ] {
            assert_eq!(reader("GET", &[("accept", accept)]), None, "{accept}");
        }
        assert_eq!(reader("GET", &[]), None);
        assert_eq!(reader("GET", &[("accept", chromium), ("authorization", "Bearer x")]), None);
    }
}
