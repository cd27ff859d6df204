//! The gate's own pages for browsers, without scripts and frames. The policy allows their style sheet by its hash.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, REFRESH, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::look::{Logo, Look};
use super::texts::{Language, Text};
use rotogate_core::reply::{Reply, ReplyBody};

/// The media type of the pages.
pub const HTML: &str = "text/html; charset=utf-8";
/// The program replaces this comment, which contains the label, by the id of the request.
const REQUEST_ID: (&str, &str) = ("<!--request-id:", "-->\n");

/// Sets the security headers of the endpoint's responses. With `no-referrer`, forms would send `Origin: null`.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// What the login form shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoginForm<'a> {
    /// Where the browser sends the form.
    pub(super) action: &'a str,
    /// Where the login leads.
    pub(super) to: &'a str,
    pub(super) message: Option<&'a str>,
    /// What the user typed before.
    pub(super) username: &'a str,
    pub(super) account: &'a str,
}

impl<'a> LoginForm<'a> {
    pub(super) fn new(action: &'a str, to: &'a str) -> Self {
        Self { action, to, message: None, username: "", account: "" }
    }
}

/// The pages in the reader's language.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages<'a> {
    look: &'a Look,
    language: Language,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(look: &'a Look, language: Language) -> Self {
        Self { look, language: look.settings.language.unwrap_or(language) }
    }

    /// The text, which is not HTML if the configuration replaces it.
    pub(crate) fn text(&self, text: Text) -> &'a str {
        let own = self.look.settings.texts.get(text.name()).and_then(|own| own.text(self.language));
        own.unwrap_or_else(|| text.in_language(self.language))
    }

    fn html_text(&self, text: Text) -> String {
        escaped(self.text(text))
    }

    pub(crate) fn logout_link(&self) -> String {
        self.look.logout_url()
    }

    /// `body` is HTML.
    fn html(&self, title: &str, body: &str) -> String {
        let (look, code, title) = (self.look, self.language.code(), escaped(title));
        let (name, style, brand, footer) = (escaped(look.title()), &look.style, self.brand(), self.footer());
        format!(
            "<!doctype html>\n<html lang=\"{code}\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title} · {name}</title>\n\
             <style>{style}</style>\n</head>\n<body>\n<main>\n{brand}<h1>{title}</h1>\n{body}</main>\n{footer}</body>\n\
             </html>\n"
        )
    }

    /// The logo and the name. A logo alone has the name as its text.
    fn brand(&self) -> String {
        let (name, has_name) = (escaped(self.look.title()), self.look.settings.title.is_some());
        let image = self
            .look
            .logo_url()
            .map(|url| format!("<img src=\"{}\" alt=\"{}\">", escaped(&url), if has_name { "" } else { &name }));
        let name = if has_name || image.is_none() { &*name } else { "" };
        format!("<div class=\"brand\">{}{name}</div>\n", image.unwrap_or_default())
    }

    fn footer(&self) -> String {
        let settings = &self.look.settings;
        let help = settings.help.text(self.language).map(|help| format!("<p>{}</p>\n", escaped(help)));
        let privacy = settings
            .privacy
            .as_ref()
            .map(|url| format!("<p><a href=\"{}\">{}</a></p>\n", escaped(url), self.html_text(Text::Privacy)));
        match (help, privacy) {
            (None, None) => String::new(),
            (help, privacy) => {
                format!("<footer>\n{}{}</footer>\n", help.unwrap_or_default(), privacy.unwrap_or_default())
            }
        }
    }

    /// Sets the headers of a page.
    // Requirement B26.
    pub(crate) fn head(&self, headers: &mut HeaderMap) {
        harden(headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(HTML));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        if let Ok(policy) = HeaderValue::try_from(&self.look.policy) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
    }

    fn page(&self, status: StatusCode, title: Text, body: &str) -> Reply {
        let html = self.html(self.text(title), body);
        let mut reply = Response::new(ReplyBody::from(html.into_bytes()));
        *reply.status_mut() = status;
        self.head(reply.headers_mut());
        reply
    }

    /// The login form. A field that is filled already does not get the focus.
    pub(super) fn login(&self, status: StatusCode, form: &LoginForm<'_>) -> Reply {
        let LoginForm { action, to, message, username, account } = *form;
        let mut body = String::new();
        if let Some(message) = message {
            let _ = writeln!(body, "<p class=\"bad\" role=\"alert\">{}</p>", escaped(message));
        }
        let (action, to) = (escaped(action), escaped(to));
        let _ = writeln!(
            body,
            "<form method=\"post\" action=\"{action}\">\n<input type=\"hidden\" name=\"to\" value=\"{to}\">"
        );
        let plain = "autocapitalize=\"none\" spellcheck=\"false\"";
        let mut fields = vec![
            (Text::Username, "username", format!("autocomplete=\"username\" {plain}"), username),
            (Text::Password, "password", "type=\"password\" autocomplete=\"current-password\"".to_owned(), ""),
        ];
        if self.look.settings.account {
            fields.insert(0, (Text::Account, "account", format!("autocomplete=\"organization\" {plain}"), account));
        }
        let focused = fields.iter().position(|(.., value)| value.is_empty());
        for (at, (label, name, attributes, value)) in fields.into_iter().enumerate() {
            let (label, value) = (self.html_text(label), escaped(value));
            let focus = if focused == Some(at) { " autofocus" } else { "" };
            let value = if value.is_empty() { value } else { format!(" value=\"{value}\"") };
            let _ = writeln!(
                body,
                "<label for=\"{name}\">{label}</label>\n<input id=\"{name}\" name=\"{name}\" {attributes}{value} \
                 required{focus}>"
            );
        }
        let _ = writeln!(body, "<button>{}</button>\n</form>", self.html_text(Text::LogIn));
        self.page(status, Text::LogIn, &body)
    }

    /// The logo. Nothing in it runs, even if a browser shows it as a page of its own.
    // Requirement B66.
    pub(crate) fn logo(&self) -> Option<Reply> {
        let Logo { media, bytes } = self.look.settings.logo.as_ref()?;
        let mut reply = Response::new(ReplyBody::from(bytes.clone()));
        let headers = reply.headers_mut();
        harden(headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=86400"));
        let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'";
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        Some(reply)
    }

    /// The page with the logout button. Without the button, a mere link or image could end a session.
    pub(super) fn logout(&self, action: &str) -> Reply {
        let (action, [text, log_out]) =
            (escaped(action), [Text::LogOutAdvice, Text::LogOut].map(|text| self.html_text(text)));
        let body =
            format!("<p>{text}</p>\n<form method=\"post\" action=\"{action}\">\n<button>{log_out}</button>\n</form>\n");
        self.page(StatusCode::OK, Text::LogOut, &body)
    }

    /// The page after a logout, with a way back.
    pub(super) fn logged_out(&self, back: &str) -> Reply {
        let text = self.html_text(Text::LoggedOutAdvice);
        let body = format!("<p role=\"status\">{text}</p>\n<p>{}</p>\n", self.link(back, Text::LogInAgain));
        self.page(StatusCode::OK, Text::LoggedOut, &body)
    }

    /// Returns the response to a form that redirects to another URL, possibly of another origin.
    pub(crate) fn onwards(&self, title: Text, url: &str) -> Reply {
        let body = format!("<p>{}</p>\n", self.link(url, Text::Continue));
        let mut reply = self.page(StatusCode::OK, title, &body);
        if let Ok(value) = HeaderValue::try_from(format!("0;url={url}")) {
            reply.headers_mut().insert(REFRESH, value);
        }
        reply
    }

    /// A page that says what went wrong, with an id for whoever helps.
    pub(super) fn message(&self, status: StatusCode, title: Text, text: &str, link: Option<(&str, Text)>) -> Reply {
        self.page(status, title, &self.said(text, link, None))
    }

    /// The page after a failed login at a provider. `detail` is for whoever helps the user.
    #[cfg(feature = "browser-oidc")]
    pub(super) fn begin_again(&self, status: StatusCode, text: &str, detail: &str, login: &str) -> Reply {
        let (details, detail) = (self.html_text(Text::Details), escaped(detail));
        let details = format!("<details>\n<summary>{details}</summary>\n<p>{detail}</p>\n</details>\n");
        let said = self.said(text, Some((login, Text::LogInAgain)), None);
        let body = said.replacen(REQUEST_ID.0, &(details + REQUEST_ID.0), 1);
        self.page(status, Text::NotLoggedIn, &body)
    }

    /// The HTML of a page about a refused request.
    pub(super) fn refusal(&self, title: Text, text: &str, link: Option<(&str, Text)>, logout: Option<&str>) -> String {
        self.html(self.text(title), &self.said(text, link, logout))
    }

    fn said(&self, text: &str, link: Option<(&str, Text)>, logout: Option<&str>) -> String {
        let mut body = format!("<p role=\"alert\">{}</p>\n", escaped(text));
        if let Some((url, text)) = link {
            let _ = writeln!(body, "<p>{}</p>", self.link(url, text));
        }
        if let Some(url) = logout {
            let _ = writeln!(body, "<p><a href=\"{}\">{}</a></p>", escaped(url), self.html_text(Text::LogOut));
        }
        let (begin, end) = REQUEST_ID;
        let _ = write!(body, "{begin}{}{end}", self.html_text(Text::RequestId));
        body
    }

    fn link(&self, url: &str, text: Text) -> String {
        format!("<a class=\"button\" href=\"{}\">{}</a>", escaped(url), self.html_text(text))
    }

    /// The page for a form that was not forwarded. If `is_live` is false, the session has ended. Otherwise the route
    /// requires another login.
    pub(crate) fn not_sent(&self, login: &str, is_live: bool) -> Reply {
        let (title, why) = match is_live {
            true => (Text::LogInAgain, Text::NotSentStronger),
            false => (Text::LoggedOut, Text::NotSent),
        };
        self.message(StatusCode::UNAUTHORIZED, title, self.text(why), Some((login, Text::LogIn)))
    }
}

/// Writes the id of the request into a page of the gate that has room for one.
#[doc(hidden)]
pub fn put_request_id(page: &mut Bytes, id: &str) {
    let Some((before, after)) = std::str::from_utf8(page).ok().and_then(|html| html.split_once(REQUEST_ID.0)) else {
        return;
    };
    let Some((label, after)) = after.split_once(REQUEST_ID.1) else { return };
    *page = format!("{before}<p class=\"id\">{label}: <code>{}</code></p>\n{after}", escaped(id)).into();
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
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::super::look::{Localized, PageSettings};
    use super::super::target::LoginTargets;
    use super::*;

    fn html(reply: &Reply) -> String {
        String::from_utf8(reply.body().data().to_vec()).unwrap()
    }

    fn look() -> Look {
        look_of(PageSettings::default())
    }

    fn look_of(settings: PageSettings) -> Look {
        let origin = "https://gate.example".to_owned();
        Look::new(settings, &LoginTargets { origin, path: "/auth".to_owned(), listed: Vec::new() })
    }

    fn all_pages(pages: &Pages<'_>) -> [Reply; 5] {
        [
            pages.login(StatusCode::OK, &LoginForm { message: Some("no"), ..LoginForm::new("/auth/login", "/x") }),
            pages.logout("/auth/logout"),
            pages.onwards(Text::LoggedOut, "https://gate.example/"),
            pages.message(StatusCode::FORBIDDEN, Text::NoAccess, "no", Some(("/", Text::StartPage))),
            pages.not_sent("https://gate.example/auth/login", false),
        ]
    }

    #[test]
    fn b26_each_page_has_the_documented_headers_no_script_and_the_style_that_its_policy_names() {
        let look = look();
        let pages = Language::ALL.map(|(_, language)| all_pages(&Pages::new(&look, language)));
        for reply in pages.into_iter().flatten() {
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
            for forbidden in ["<script", "javascript:", "<iframe", " style=", "<img", "@import"] {
                assert!(!folded.contains(forbidden), "{forbidden}: {html}");
            }
            let has_handler = folded.match_indices(" on").any(|(at, _)| {
                folded[at + 3..].trim_start_matches(|letter: char| letter.is_ascii_alphabetic()).starts_with('=')
            });
            assert!(!has_handler, "{html}");
            assert!(html.lines().count() <= 32, "{html}");
        }
    }

    #[test]
    fn b26_the_form_keeps_its_target_and_shows_a_message_as_text() {
        let look = look();
        let pages = Pages::new(&look, Language::En);
        let form = LoginForm { message: Some("<i>wrong</i>"), ..LoginForm::new("/auth/login", "/x?a=\"><b&'c'#d") };
        let reply = pages.login(StatusCode::UNAUTHORIZED, &form);
        assert_eq!(reply.status(), 401);
        let html = html(&reply);
        assert!(html.contains("name=\"to\" value=\"/x?a=&quot;&gt;&lt;b&amp;&#39;c&#39;#d\">"), "{html}");
        assert!(html.contains("<p class=\"bad\" role=\"alert\">&lt;i&gt;wrong&lt;/i&gt;</p>"), "{html}");
        assert!(html.contains("<form method=\"post\" action=\"/auth/login\">"));
        let quiet = pages.login(StatusCode::OK, &LoginForm::new("/auth/login", "/"));
        assert!(!self::html(&quiet).contains("role="));
    }

    #[test]
    fn b26_a_form_leads_to_another_origin_by_a_page() {
        let look = look();
        let reply = Pages::new(&look, Language::En).onwards(Text::LoggedOut, "https://app.example/?a=b&c");
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["refresh"], "0;url=https://app.example/?a=b&c");
        assert!(html(&reply).contains("href=\"https://app.example/?a=b&amp;c\""));
    }

    #[test]
    fn b65_the_id_of_the_request_is_text_and_stands_in_a_page_that_has_room_for_it() {
        let look = look();
        let pages = Pages::new(&look, Language::De);
        let shown = |reply: Reply| {
            let mut page = reply.body().data().clone();
            put_request_id(&mut page, "<b>-17");
            String::from_utf8(page.to_vec()).unwrap()
        };
        let page = shown(pages.message(StatusCode::FORBIDDEN, Text::NoAccess, "no", None));
        assert!(page.contains("<p class=\"id\">Anfragenummer: <code>&lt;b&gt;-17</code></p>\n</main>"), "{page}");
        let form = pages.login(StatusCode::OK, &LoginForm::new("/auth/login", "/"));
        let unchanged = html(&form);
        assert_eq!(shown(form), unchanged);
        let mut upstream = Bytes::from_static(b"<html>\xff<!--request-id:x-->\n");
        put_request_id(&mut upstream, "17");
        assert!(upstream.ends_with(b"<!--request-id:x-->\n"), "not UTF-8, and not ours");
    }

    #[test]
    fn b66_a_form_keeps_the_name_and_the_account_and_focuses_the_first_empty_field() {
        let look = look_of(PageSettings { account: true, ..PageSettings::default() });
        let pages = Pages::new(&look, Language::En);
        let shown = |username, account| {
            html(&pages.login(StatusCode::OK, &LoginForm { username, account, ..LoginForm::new("/auth/login", "/") }))
        };
        let focused = |html: &str| {
            let field = html.lines().find(|line| line.contains(" autofocus")).unwrap().to_owned();
            field.split('"').nth(1).unwrap().to_owned()
        };
        let page = shown("\"><script>", "a&b");
        assert!(page.contains("value=\"&quot;&gt;&lt;script&gt;\" required>"), "{page}");
        assert!(
            page.contains("value=\"a&amp;b\" required>") && page.contains("<label for=\"account\">Account</label>")
        );
        assert_eq!(
            [shown("", ""), shown("", "a"), shown("ada", ""), page].map(|page| focused(&page)),
            ["account", "username", "account", "password"]
        );
        for needed in
            ["autocomplete=\"organization\"", "autocomplete=\"username\"", "autocomplete=\"current-password\""]
        {
            assert!(shown("", "").contains(needed), "{needed}");
        }
        let own = self::look();
        let page = html(&Pages::new(&own, Language::En).login(StatusCode::OK, &LoginForm::new("/auth/login", "/")));
        assert!(!page.contains("account") && focused(&page) == "username", "{page}");
    }

    #[test]
    fn b66_settings_are_text_and_never_html() {
        let all = |text: &str| Localized { everywhere: Some(text.to_owned()), ..Localized::default() };
        let evil = "<img src=x onerror=alert(1)>\"'";
        let settings = PageSettings {
            title: Some(evil.to_owned()),
            help: all(evil),
            privacy: Some("https://x/?\"><b>".to_owned()),
            texts: super::super::look::text_names().map(|name| (name, all(evil))).collect(),
            ..PageSettings::default()
        };
        let look = look_of(settings);
        let pages = Pages::new(&look, Language::Fr);
        let mut replies: Vec<_> = all_pages(&pages).iter().map(html).collect();
        replies.push(pages.refusal(
            Text::NoAccess,
            pages.text(Text::NoAccessAdvice),
            Some(("/", Text::StartPage)),
            Some("/x"),
        ));
        for page in replies {
            assert!(!page.contains("<img") && !page.contains("<b>"), "{page}");
            assert!(page.matches("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;").count() >= 4, "{page}");
        }
    }

    #[test]
    fn b66_the_logo_is_inert_and_the_policy_of_the_pages_names_its_origin() {
        let logo = Logo { media: "image/svg+xml", bytes: Bytes::from_static(b"<svg/>") };
        let look = look_of(PageSettings { logo: Some(logo), language: Some(Language::De), ..PageSettings::default() });
        let pages = Pages::new(&look, Language::Es);
        let logo = pages.logo().unwrap();
        let header = |name: &str| logo.headers()[name].to_str().unwrap();
        assert_eq!((header("content-type"), header("x-content-type-options")), ("image/svg+xml", "nosniff"));
        assert!(
            header("content-security-policy").starts_with("default-src 'none'")
                && header("content-security-policy").contains("sandbox")
        );
        let page = pages.login(StatusCode::OK, &LoginForm::new("/auth/login", "/"));
        assert!(html(&page).contains("<img src=\"https://gate.example/auth/logo?v="), "{}", html(&page));
        assert!(html(&page).contains("alt=\"gate.example\"") && html(&page).contains("<html lang=\"de\">"));
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("; img-src https://gate.example; "), "{policy}");
        assert!(Pages::new(&self::look(), Language::En).logo().is_none());
    }
}
