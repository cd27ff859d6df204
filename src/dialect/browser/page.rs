//! The gate's own pages for browsers, without scripts and frames. The policy allows their style sheet by its hash.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, REFRESH, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use rotogate_core::reply::{Reply, ReplyBody};

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;margin:10vh auto;max-width:20rem;padding:0 1rem}\
label,input,button{display:block;width:100%;box-sizing:border-box;font:inherit}\
input{margin:.2rem 0 1rem;padding:.5rem}button{padding:.6rem;cursor:pointer}\
[role=alert]{border-left:.3rem solid #b00020;padding-left:.7rem}";

/// Because of `form-action 'self'`, a form's response cannot redirect to another origin. [`onwards`] makes a page that
/// opens such a URL.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
});

/// Sets the security headers of the endpoint's responses. With `no-referrer`, forms would send `Origin: null`.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// `body` is HTML.
// Requirement B26.
fn page(status: StatusCode, title: &str, body: &str) -> Reply {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    );
    let mut reply = Response::new(ReplyBody::from(html.into_bytes()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    harden(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if let Ok(policy) = HeaderValue::try_from(POLICY.as_str()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    reply
}

/// The login form. The browser sends the form to `action`, and the login leads to `to`.
pub(super) fn login(status: StatusCode, action: &str, to: &str, message: Option<&str>) -> Reply {
    let mut body = String::new();
    if let Some(message) = message {
        let _ = writeln!(body, "<p role=\"alert\">{}</p>", escaped(message));
    }
    let (action, to) = (escaped(action), escaped(to));
    let _ = write!(
        body,
        "<form method=\"post\" action=\"{action}\">\n<input type=\"hidden\" name=\"to\" value=\"{to}\">\n\
         <label for=\"username\">User name</label>\n\
         <input id=\"username\" name=\"username\" autocomplete=\"username\" autocapitalize=\"none\" required autofocus>\n\
         <label for=\"password\">Password</label>\n\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required>\n\
         <button>Log in</button>\n</form>\n"
    );
    page(status, "Log in", &body)
}

/// The page with the logout button. Without the button, a mere link or image could end a session.
pub(super) fn logout(action: &str) -> Reply {
    let body = format!("<form method=\"post\" action=\"{}\">\n<button>Log out</button>\n</form>\n", escaped(action));
    page(StatusCode::OK, "Log out", &body)
}

/// Returns the response to a form that redirects to another URL, possibly of another origin.
pub(crate) fn onwards(title: &str, url: &str) -> Reply {
    let mut reply = page(StatusCode::OK, title, &format!("<p><a href=\"{}\">Continue</a></p>\n", escaped(url)));
    if let Ok(value) = HeaderValue::try_from(format!("0;url={url}")) {
        reply.headers_mut().insert(REFRESH, value);
    }
    reply
}

pub(super) fn message(status: StatusCode, title: &str, text: &str) -> Reply {
    page(status, title, &format!("<p role=\"alert\">{}</p>\n", escaped(text)))
}

#[cfg(feature = "browser-oidc")]
pub(super) fn begin_again(status: StatusCode, text: &str, login: &str) -> Reply {
    let (text, login) = (escaped(text), escaped(login));
    let body = format!("<p role=\"alert\">{text}</p>\n<p><a href=\"{login}\">Log in again</a></p>\n");
    page(status, "Not logged in", &body)
}

/// The page for a form that was not forwarded. If `is_live` is false, the session has ended. Otherwise the route
/// requires another login.
pub(crate) fn not_sent(login: &str, is_live: bool) -> Reply {
    let (title, why) = match is_live {
        true => ("Log in again", "This page requires another login."),
        false => ("Signed out", "You are signed out."),
    };
    let body = format!(
        "<p role=\"alert\">{why} Your entry was not sent.</p>\n<p><a href=\"{}\">Log in</a>, then send it \
         again.</p>\n",
        escaped(login)
    );
    page(StatusCode::UNAUTHORIZED, title, &body)
}

/// Escapes a string for HTML, including attributes in double quotes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(reply: &Reply) -> String {
        String::from_utf8(reply.body().data().to_vec()).unwrap()
    }

    fn pages() -> [Reply; 5] {
        [
            login(StatusCode::OK, "/auth/login", "/x", Some("no")),
            logout("/auth/logout"),
            onwards("Logged out", "https://gate.example/"),
            message(StatusCode::FORBIDDEN, "Refused", "no"),
            not_sent("https://gate.example/auth/login", false),
        ]
    }

    #[test]
    fn b26_each_page_has_the_documented_headers_no_script_and_the_style_that_its_policy_names() {
        for reply in pages() {
            let header = |name: &str| reply.headers().get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!(header("cache-control"), "no-store");
            assert_eq!(header("referrer-policy"), "same-origin");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("x-frame-options"), "DENY");
            assert_eq!(header("content-type"), "text/html; charset=utf-8");
            let html = html(&reply);
            let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
            let hash = STANDARD.encode(digest(&SHA256, style.as_bytes()));
            assert_eq!(
                header("content-security-policy"),
                format!(
                    "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri \
                     'none'"
                )
            );
            let folded = html.to_ascii_lowercase();
            for forbidden in ["<script", "javascript:", " on", "<iframe", " style=", "<img", "@import"] {
                assert!(!folded.contains(forbidden), "{forbidden}: {html}");
            }
            assert!(html.lines().count() <= 32, "{html}");
        }
    }

    #[test]
    fn b26_the_form_keeps_its_target_and_shows_a_message_as_text() {
        let reply = login(StatusCode::UNAUTHORIZED, "/auth/login", "/x?a=\"><b&'c'#d", Some("<i>wrong</i>"));
        assert_eq!(reply.status(), 401);
        let html = html(&reply);
        assert!(html.contains("name=\"to\" value=\"/x?a=&quot;&gt;&lt;b&amp;&#39;c&#39;#d\">"), "{html}");
        assert!(html.contains("<p role=\"alert\">&lt;i&gt;wrong&lt;/i&gt;</p>"), "{html}");
        assert!(html.contains("<form method=\"post\" action=\"/auth/login\">"));
        let quiet = login(StatusCode::OK, "/auth/login", "/", None);
        assert!(!self::html(&quiet).contains("<p role"));
    }

    #[test]
    fn b26_a_form_leads_to_another_origin_by_a_page() {
        let reply = onwards("Logged out", "https://app.example/?a=b&c");
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["refresh"], "0;url=https://app.example/?a=b&c");
        assert!(html(&reply).contains("href=\"https://app.example/?a=b&amp;c\""));
    }
}
