//! The settings of the gate's own pages: `[endpoints.page]`.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::target::LoginTargets;
use super::texts::{Language, Text};
use super::{LOGO, LOGOUT};

const STYLE: &str = include_str!("page.css");

/// The settings of the gate's own pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSettings {
    /// The name of the application or company. The default is the host of the public URL.
    pub title: Option<String>,
    /// The logo.
    pub logo: Option<Logo>,
    /// The colour of buttons, as red, green and blue.
    pub color: Option<[u8; 3]>,
    /// A line below each page.
    pub help: Localized,
    /// A link below each page: a path, or a URL that begins with https://.
    pub privacy: Option<String>,
    /// The language of all pages. `None`: the language that the browser prefers.
    pub language: Option<Language>,
    /// Whether the login form asks for the account.
    pub account: bool,
    /// Other texts, by name.
    pub texts: BTreeMap<&'static str, Localized>,
}

/// A text in some or all languages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Localized {
    /// The text in languages without a text of their own.
    pub everywhere: Option<String>,
    /// The texts in the order of [`Language::ALL`].
    pub each: [Option<String>; Language::ALL.len()],
}

impl Localized {
    pub(crate) fn text(&self, language: Language) -> Option<&str> {
        let own = Language::ALL.iter().zip(&self.each).find(|((_, of), _)| *of == language);
        own.and_then(|(_, text)| text.as_deref()).or(self.everywhere.as_deref())
    }
}

/// A picture that the gate serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    /// The media type.
    pub media: &'static str,
    /// The file.
    pub bytes: Bytes,
}

/// The names of all texts that [`PageSettings::texts`] can replace.
pub fn text_names() -> impl Iterator<Item = &'static str> {
    Text::ALL.iter().map(|(name, _)| *name)
}

/// How the pages look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    pub(super) settings: PageSettings,
    pub(super) style: String,
    pub(super) policy: String,
    host: String,
    /// The URL of the endpoint.
    base: String,
}

impl Look {
    pub(crate) fn new(settings: PageSettings, targets: &LoginTargets) -> Self {
        let color = settings.color.map(colors).unwrap_or_default();
        let style = STYLE.replace('\n', "") + &color;
        let hash = STANDARD.encode(digest(&SHA256, style.as_bytes()));
        // The pages may be shown at another host than the logo.
        let images = settings.logo.as_ref().map(|_| format!("img-src {}; ", targets.origin)).unwrap_or_default();
        // Because of `form-action 'self'`, a form's response cannot redirect to another origin. `Pages::onwards` makes a
        // page that opens such a URL.
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; {images}form-action 'self'; frame-ancestors 'none'; \
             base-uri 'none'"
        );
        let host = targets.origin.split_once("://").map_or("", |(_, host)| host);
        Self { settings, style, policy, host: host.to_owned(), base: format!("{}{}", targets.origin, targets.path) }
    }

    pub(super) fn title(&self) -> &str {
        self.settings.title.as_deref().unwrap_or(&self.host)
    }

    pub(super) fn logout_url(&self) -> String {
        format!("{}/{LOGOUT}", self.base)
    }

    /// The URL of the logo. It changes with the file, because browsers cache the logo.
    pub(super) fn logo_url(&self) -> Option<String> {
        let logo = self.settings.logo.as_ref()?;
        let version: String =
            digest(&SHA256, &logo.bytes).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{}/{LOGO}?v={version}", self.base))
    }
}

/// The rule for the colour of buttons. Their text is black or white, whichever has more contrast (WCAG 2.2 §1.4.3).
fn colors(rgb: [u8; 3]) -> String {
    let linear = rgb.map(|part| {
        let part = f64::from(part) / 255.0;
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    });
    let luminance: f64 = linear.iter().zip([0.2126, 0.7152, 0.0722]).map(|(part, weight)| part * weight).sum();
    let [with_white, with_black] = [1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05];
    let text = if with_white >= with_black { "#fff" } else { "#000" };
    let [red, green, blue] = rgb;
    format!(":root{{--accent:#{red:02x}{green:02x}{blue:02x};--on:{text}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b66_the_text_of_a_button_can_be_read_on_each_colour() {
        for (rgb, text) in [([0, 0, 0], "#fff"), ([29, 78, 216], "#fff"), ([255, 204, 0], "#000"), ([255; 3], "#000")] {
            assert!(colors(rgb).ends_with(&format!("--on:{text}}}")), "{rgb:?}");
        }
        assert_eq!(colors([1, 35, 255]), ":root{--accent:#0123ff;--on:#fff}");
    }

    #[test]
    fn a_text_of_a_language_comes_before_the_one_for_all() {
        let [de, all] = ["Hilfe", "Help"].map(str::to_owned);
        let help = Localized { everywhere: Some(all), each: [None, Some(de), None, None] };
        assert_eq!((help.text(Language::De), help.text(Language::Fr)), (Some("Hilfe"), Some("Help")));
        assert_eq!(Localized::default().text(Language::En), None);
    }
}
