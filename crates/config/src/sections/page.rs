//! `[endpoints.page]`: the looks and the texts of the gate's own pages for browsers.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Value;

use super::super::declare::section;
use super::super::print::{self, Print};
use super::super::value;
use rotogate::program::{Language, Localized, LoginPage, Logo, PageSettings, text_names};
use rotogate_kit::config::{Node, Section, Value as Raw, nearest};

/// The most bytes of a logo.
const MAX_LOGO: u64 = 64 << 10;
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Elements of an SVG that run code, or that show other documents.
const ACTIVE: [&str; 8] = ["script", "foreignobject", "iframe", "object", "embed", "handler", "listener", "audio"];

section! {
    /// `[endpoints.page]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PageConfig, read by read_keys(section, dir: &Path) {
        /// Name of your company or application, above each page. Default: the host of `server.public_url`.
        reload title: Option<String> = get(short),
        /// File with your logo: a PNG, or an SVG without scripts, of at most 64 KiB. Unset: no logo.
        reload logo: Option<LogoFile> = by { read_logo(section, dir) },
        /// Colour of the buttons. Default: `"#1d4ed8"`.
        reload color: Option<Color> = get(color),
        /// Line of plain text below each page, such as whom to ask for a new password; a table such as `{ en = "…", de =
        /// "…" }` has a line for each language. Unset: no line.
        reload help: Option<LocalizedText> = get(localized),
        /// Link to your privacy notice: a path, or a URL that begins with `https://`. Unset: no link.
        reload privacy: Option<String> = get(link),
        /// Language of the pages: `"en"`, `"de"`, `"fr"` or `"es"`. Default: the one that the browser prefers.
        reload language: Option<Language> = get(value::word(&Language::ALL, &[])),
        /// true: the login form asks for the account. Set it if your users have accounts. Default: `false`.
        reload account as some: bool = get_or(value::boolean, false),
        /// Other texts in place of the gate's own, by name (docs/browser.md). A value is like that of `help`.
        reload texts as some: BTreeMap<String, LocalizedText> = by { read_texts(section) },
    }
}

/// `page`: a word, a path, or a table for the gate's own pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageKey {
    /// A form of the application, or none.
    Form(LoginPage),
    /// The gate's own pages.
    BuiltIn(Box<PageConfig>),
}

impl Default for PageKey {
    fn default() -> Self {
        Self::Form(LoginPage::BuiltIn)
    }
}

impl Print for PageKey {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = PageConfig::KEYS;

    fn print(&self) -> Value {
        match self {
            Self::BuiltIn(page) => page.print(),
            Self::Form(LoginPage::At(path)) => path.as_str().into(),
            Self::Form(LoginPage::None) => "none".into(),
            Self::Form(_) => "built-in".into(),
        }
    }
}

/// A logo and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoFile(PathBuf, Logo);

impl Print for LogoFile {
    fn print(&self) -> Value {
        self.0.print()
    }
}

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color([u8; 3]);

impl Print for Color {
    fn print(&self) -> Value {
        let [red, green, blue] = self.0;
        format!("#{red:02x}{green:02x}{blue:02x}").into()
    }
}

/// A text, or one for each language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalizedText(Localized);

impl Print for LocalizedText {
    fn print(&self) -> Value {
        let Localized { everywhere, each } = &self.0;
        if let Some(text) = everywhere {
            return text.as_str().into();
        }
        let each = Language::ALL.iter().zip(each);
        Value::Table(each.filter_map(|((code, _), text)| Some(((*code).to_owned(), text.as_deref()?.into()))).collect())
    }
}

impl print::Words for Language {
    const WORDS: &'static [(&'static str, Self)] = &Self::ALL;
}

/// Reads the key `page` of an endpoint.
pub(super) fn read(section: &Section<'_>, dir: &Path) -> PageKey {
    if section.get("page", |v| Ok(matches!(v, Raw::Table(_)))) == Some(true) {
        return PageKey::BuiltIn(Box::new(section.inner("page", |section| read_keys(section, dir))));
    }
    section.get_or("page", form, PageKey::default())
}

fn form(v: &Raw) -> Result<PageKey, String> {
    let page = match v.as_text() {
        Some("built-in") => LoginPage::BuiltIn,
        Some("none") => LoginPage::None,
        Some(path) if path.starts_with('/') => LoginPage::At(value::text(v)?),
        _ => {
            return value::unexpected(
                "\"built-in\", \"none\", a path such as \"/signin\", or a table such as { title = \"Acme\" }",
                v,
            );
        }
    };
    Ok(PageKey::Form(page))
}

impl PageKey {
    /// Whether the gate shows its own form.
    pub(super) fn form(&self) -> &LoginPage {
        match self {
            Self::Form(page) => page,
            Self::BuiltIn(_) => &LoginPage::BuiltIn,
        }
    }

    /// The settings of the gate's own pages.
    pub(super) fn settings(&self) -> PageSettings {
        let Self::BuiltIn(page) = self else { return PageSettings::default() };
        let PageConfig { title, logo, color, help, privacy, language, account, texts } = &**page;
        let by_name = |name: &'static str| Some((name, texts.get(name)?.0.clone()));
        PageSettings {
            title: title.clone(),
            logo: logo.as_ref().map(|LogoFile(_, logo)| logo.clone()),
            color: color.map(|Color(rgb)| rgb),
            help: help.as_ref().map(|LocalizedText(help)| help.clone()).unwrap_or_default(),
            privacy: privacy.clone(),
            language: *language,
            account: *account,
            texts: text_names().filter_map(by_name).collect(),
        }
    }
}

fn short(v: &Raw) -> Result<String, String> {
    value::fitting(v, "a text of at most 80 characters", |text| text.chars().count() <= 80)
}

fn color(v: &Raw) -> Result<Color, String> {
    let hex = |text: &str| {
        let digits = text
            .strip_prefix('#')
            .filter(|digits| digits.len() == 6 && digits.bytes().all(|it| it.is_ascii_hexdigit()))?;
        let [_, red, green, blue] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
        Some(Color([red, green, blue]))
    };
    value::parsed(v, "a colour such as \"#1d4ed8\"", hex)
}

fn link(v: &Raw) -> Result<String, String> {
    let fits = |text: &str| {
        let is_path = text.starts_with('/') && !text.starts_with("//");
        let is_https = text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) && text.len() > 8;
        (is_path || is_https) && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'\\')
    };
    value::matching(v, "a path such as \"/privacy\", or a URL that begins with https://", fits)
}

fn localized(v: &Raw) -> Result<LocalizedText, String> {
    let line = |v: &Raw| value::fitting(v, "a text of at most 300 characters", |text| text.chars().count() <= 300);
    let Raw::Table(table) = v else {
        return Ok(LocalizedText(Localized { everywhere: Some(line(v)?), ..Localized::default() }));
    };
    let mut text = Localized::default();
    for (code, Node { value, .. }) in table {
        let Some(at) = Language::ALL.iter().position(|(known, _)| known == code) else {
            return Err(format!("has no language \"{code}\"; expected \"en\", \"de\", \"fr\" or \"es\""));
        };
        if let Some(place) = text.each.get_mut(at) {
            *place = Some(line(value)?);
        }
    }
    Ok(LocalizedText(text))
}

fn read_texts(section: &Section<'_>) -> BTreeMap<String, LocalizedText> {
    let table = section.section("texts");
    let mut texts = BTreeMap::new();
    let known: Vec<_> = text_names().collect();
    for (name, v) in table.free() {
        if !known.contains(&name) {
            let meant = nearest(name, &known).map(|meant| format!("; did you mean \"{meant}\"?")).unwrap_or_default();
            table.blame(name, format!("is not a text of the gate's pages{meant}"));
            continue;
        }
        match localized(v) {
            Ok(text) => drop(texts.insert(name.to_owned(), text)),
            Err(message) => table.blame(name, message),
        }
    }
    texts
}

fn read_logo(section: &Section<'_>, dir: &Path) -> Option<LogoFile> {
    let mut file = PathBuf::new();
    let logo = section.get_file("logo", value::path_in(dir), |path| {
        path.clone_into(&mut file);
        logo(path).map_err(|problem| format!("{}: {problem}", path.display()))
    })?;
    Some(LogoFile(file, logo))
}

fn logo(path: &Path) -> Result<Logo, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_LOGO + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_LOGO {
        return Err("is larger than 64 KiB. Save it smaller, for example 400 pixels wide".to_owned());
    }
    if bytes.starts_with(PNG) {
        return Ok(Logo { media: "image/png", bytes: bytes.into() });
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "is neither a PNG nor an SVG".to_owned())?;
    inert(text)?;
    Ok(Logo { media: "image/svg+xml", bytes: bytes.into() })
}

/// Checks that an SVG contains nothing that runs, and loads nothing.
// Requirement B66.
fn inert(text: &str) -> Result<(), String> {
    // Without a document type, there are no entities, which could hide a script.
    let document =
        roxmltree::Document::parse(text).map_err(|error| format!("is neither a PNG nor a valid SVG: {error}"))?;
    let root = document.root_element();
    if root.tag_name().name() != "svg" || root.tag_name().namespace() != Some("http://www.w3.org/2000/svg") {
        return Err(
            "is neither a PNG nor an SVG (its root is not `<svg xmlns=\"http://www.w3.org/2000/svg\">`)".to_owned()
        );
    }
    for node in document.descendants() {
        if node.pi().is_some() {
            return Err("contains a processing instruction, such as `<?xml-stylesheet …?>`. Remove it".to_owned());
        }
        let name = node.tag_name().name();
        if ACTIVE.contains(&&*name.to_ascii_lowercase()) {
            return Err(format!(
                "contains the element `<{name}>`, which can run code. Export it without scripts, as a plain SVG"
            ));
        }
        for attribute in node.attributes() {
            let (key, said) = (attribute.name().to_ascii_lowercase(), folded(attribute.value()));
            if key.starts_with("on") {
                return Err(format!("contains the event handler `{key}`. Export it without scripts, as a plain SVG"));
            }
            if said.contains("javascript:") {
                return Err(format!("contains `javascript:` in `{key}`. Export it without scripts, as a plain SVG"));
            }
            let is_link = key == "href" || key == "src";
            if is_link
                && !(said.starts_with('#') || said.starts_with("data:image/png") || said.starts_with("data:image/jpeg"))
            {
                return Err(format!("loads another file by `{key}`. Embed it, or remove it"));
            }
        }
    }
    Ok(())
}

/// Browsers ignore white space and control characters in a URL's scheme.
fn folded(value: &str) -> String {
    value.chars().filter(|it| !it.is_whitespace() && !it.is_control()).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">
<style>.a{fill:#123}</style><defs><linearGradient id="g"><stop offset="0"/></linearGradient></defs>
<title>Acme &amp; friends</title><path class="a" d="M0 0h9v9z" fill="url(#g)"/><use xlink:href="#g"/></svg>"##;

    fn read(bytes: &[u8]) -> Result<Logo, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logo");
        std::fs::write(&path, bytes).unwrap();
        logo(&path)
    }

    #[test]
    fn b66_a_logo_is_a_png_or_an_svg_without_anything_that_runs() {
        assert_eq!(read(CLEAN.as_bytes()).unwrap().media, "image/svg+xml");
        assert_eq!(read(&[PNG, &[0; 100]].concat()).unwrap().media, "image/png");
        // As large as allowed, and a byte more.
        assert!(read(&[PNG, &vec![0; (64 << 10) - PNG.len()]].concat()).is_ok());
        let large = read(&[PNG, &vec![0; (64 << 10) + 1 - PNG.len()]].concat()).unwrap_err();
        assert!(large.contains("is larger than 64 KiB"), "{large}");
        let with = |from: &str, to: &str| {
            let text = CLEAN.replacen(from, to, 1);
            assert_ne!(text, CLEAN, "{from}");
            read(text.as_bytes()).unwrap_err()
        };
        let path = "<path ";
        for (to, says) in [
            ("<script>alert(1)</script><path ", "<script>"),
            ("<SCRIPT href=\"#a\"/><path ", "<SCRIPT>"),
            ("<x:script xmlns:x=\"http://www.w3.org/2000/svg\"/><path ", "<script>"),
            ("<foreignObject><p xmlns=\"http://www.w3.org/1999/xhtml\"/></foreignObject><path ", "<foreignObject>"),
            ("<path onload=\"alert(1)\" ", "the event handler `onload`"),
            ("<path ONCLICK=\"alert(1)\" ", "the event handler `onclick`"),
            ("<a href=\" java&#10;script:alert(1)\"/><path ", "`javascript:`"),
            ("<set attributeName=\"href\" to=\"javascript:alert(1)\"/><path ", "`javascript:` in `to`"),
            ("<image href=\"https://evil.example/x.png\"/><path ", "loads another file"),
            ("<image xlink:href=\"data:image/svg+xml;base64,AAAA\"/><path ", "loads another file"),
            ("<?xml-stylesheet href=\"https://evil.example/x.css\"?><path ", "processing instruction"),
        ] {
            let problem = with(path, to);
            assert!(problem.contains(says), "{to}: {problem}");
        }
        // Entities could hide a script, or grow without end.
        let entities = format!("<!DOCTYPE svg [<!ENTITY a \"<script/>\">]>{}", CLEAN.split_once("?>").unwrap().1);
        assert!(read(entities.as_bytes()).unwrap_err().contains("neither a PNG nor a valid SVG"));
        for other in
            [&b"GIF89a"[..], b"", b"\xff\xd8\xff", b"<html/>", b"<svg/>", b"<svg xmlns=\"http://www.w3.org/2000/svg\">"]
        {
            assert!(read(other).unwrap_err().contains("neither a PNG nor"), "{other:?}");
        }
        assert!(logo(Path::new("/does/not/exist.png")).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn b66_a_deep_svg_brings_its_reader_down_no_more_than_a_large_one() {
        let deep = |depth: usize| {
            let [open, close] = ["<g>", "</g>"].map(|tag| tag.repeat(depth));
            format!("<svg xmlns=\"http://www.w3.org/2000/svg\">{open}{close}</svg>")
        };
        assert!(read(deep(500).as_bytes()).is_ok());
        let _ = read(deep(9000).as_bytes());
    }

    #[test]
    fn b66_a_link_is_a_path_or_https() {
        let read = |text: &str| link(&Raw::String(text.to_owned()));
        for good in ["/privacy", "/a?b#c", "https://www.example.com/privacy", "HTTPS://x"] {
            assert_eq!(read(good).unwrap(), good);
        }
        for bad in [
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "//evil.example",
            "/\\evil.example",
            "http://x",
            "https://",
            "data:text/html,x",
            "privacy",
            "",
            "/a b",
            "/\"onclick=x ",
            "mailto:a@b",
            " https://x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn b66_a_color_is_six_digits() {
        let read = |text: &str| color(&Raw::String(text.to_owned()));
        assert_eq!(read("#0aB1ff").unwrap().print(), Value::from("#0ab1ff"));
        for bad in ["red", "#fff", "#12345g", "123456", "#1234567", "#+12345", "#fff;}*{display:none", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
