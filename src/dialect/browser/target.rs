//! The target of a login, from the parameter `to`. Any website can set this parameter. Only paths of the gate and URLs
//! of listed origins are accepted.

use super::long_target::LONGEST;
use rotogate_core::route::path::CanonicalPath;

/// Percent-encoded characters that a later parser could read as a separator, a line break or a host.
const ESCAPES: [&str; 6] = ["%09", "%0a", "%0b", "%0d", "%5c", "%2f%2f"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoginTargets {
    pub(crate) origin: String,
    /// The endpoint's path. A login never leads to a path below the endpoint.
    pub(crate) path: String,
    /// Further accepted origins, in the form that a browser sends.
    pub(crate) listed: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginTarget<'a> {
    /// A path of the gate, with query and fragment.
    Own(&'a str),
    Listed(&'a str),
}

impl<'a> LoginTarget<'a> {
    /// The default target, if a login names no accepted target.
    pub(crate) const ROOT: Self = Self::Own("/");

    pub(crate) const fn as_str(self) -> &'a str {
        match self {
            Self::Own(to) | Self::Listed(to) => to,
        }
    }
}

impl LoginTargets {
    /// Returns the target that `to` names, or the root path if `to` is not accepted.
    // Requirement B35.
    pub(crate) fn admit<'a>(&self, to: &'a str) -> LoginTarget<'a> {
        if to.len() > LONGEST || !to.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'\\') {
            return LoginTarget::ROOT;
        }
        // `to` may be the absolute URL of a page of this gate, as in `location.href`.
        let to = to.strip_prefix(&*self.origin).filter(|path| path.starts_with('/')).unwrap_or(to);
        if self.is_own(to) {
            LoginTarget::Own(to)
        } else if self.listed.iter().any(|origin| is_of_origin(to, origin)) {
            LoginTarget::Listed(to)
        } else {
            LoginTarget::ROOT
        }
    }

    /// Returns the absolute URL, for `Location` and `Refresh`.
    pub(crate) fn url(&self, target: LoginTarget<'_>) -> String {
        match target {
            LoginTarget::Own(path) => format!("{}{path}", self.origin),
            LoginTarget::Listed(url) => url.to_owned(),
        }
    }

    fn is_own(&self, to: &str) -> bool {
        let path = to.split(['?', '#']).next().unwrap_or_default();
        if !path.starts_with('/') || path.starts_with("//") {
            return false;
        }
        let folded = path.to_ascii_lowercase();
        if ESCAPES.iter().any(|escape| folded.contains(escape)) {
            return false;
        }
        // Compares loose forms, because the gate responds with 404 to paths that resemble the endpoint's path.
        let (Ok(path), Ok(endpoint)) = (CanonicalPath::parse(path), CanonicalPath::parse(&self.path)) else {
            return false;
        };
        let (path, endpoint) = (path.loose(), endpoint.loose());
        path.strip_prefix(&*endpoint).is_none_or(|rest| !(rest.is_empty() || rest.starts_with('/')))
    }
}

/// Returns whether a URL has exactly this origin.
fn is_of_origin(url: &str, origin: &str) -> bool {
    let rest = url.strip_prefix(origin);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> LoginTargets {
        LoginTargets {
            origin: "https://gate.example".to_owned(),
            path: "/auth".to_owned(),
            listed: vec!["https://app.example".into(), "http://localhost:5173".into()],
        }
    }

    fn url(to: &str) -> String {
        let targets = targets();
        targets.url(targets.admit(to))
    }

    #[test]
    fn b35_a_path_of_the_gate_is_kept_with_query_and_fragment() {
        for to in [
            "/",
            "/x",
            "/a/b?c=d&e=%2F#/f?g",
            "/authors",
            "/x?to=//evil.example",
            "/#/route",
            "/x?u=https://evil",
            "/a//b",
        ] {
            assert_eq!(url(to), format!("https://gate.example{to}"));
            assert_eq!(url(&format!("https://gate.example{to}")), format!("https://gate.example{to}"));
        }
        for to in
            ["https://app.example", "https://app.example/x?y#z", "http://localhost:5173/", "https://app.example#x"]
        {
            assert_eq!(url(to), to);
        }
        let longest = format!("/{}", "x".repeat(LONGEST - 1));
        assert_eq!(targets().admit(&longest), LoginTarget::Own(&longest));
    }

    #[test]
    fn b35_anything_else_leads_to_the_beginning() {
        let long = format!("/{}", "x".repeat(LONGEST));
        for to in [
            "",
            "x",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "/%09/evil.example",
            "/%0a/evil",
            "/%0B/evil",
            "/%0d%0aSet-Cookie:x",
            "/%5Cevil.example",
            "/%2f%2fevil.example",
            "/%2F%2fevil.example",
            "javascript:alert(1)",
            "https://evil.example",
            "http://app.example/",
            "https://app.example.evil/",
            "https://app.example@evil/",
            "https://gate.example",
            "https://gate.example.evil/x",
            "https://gate.example@evil/",
            "https://gate.example//evil.example",
            "https://gate.example/auth/logout",
            "https://gate.examplehttps://gate.example/x",
            "https://app.example:444/",
            "https:app.example",
            "HTTPS://APP.EXAMPLE/",
            "/auth",
            "/auth/logout",
            "/auth/",
            "/AUTH/logout",
            "/%61uth/logout",
            "/auth;x/logout",
            "//auth/logout",
            "/x\r\nSet-Cookie: a=b",
            "/x y",
            "/x\t",
            "/\u{e9}",
            "/x\u{7f}",
            "/../auth/logout",
            "/x%",
            "/%00",
            "data:text/html,x",
            " /x",
            "?x",
            "#x",
            &long,
        ] {
            assert_eq!(targets().admit(to), LoginTarget::ROOT, "{to:?}");
            assert_eq!(url(to), "https://gate.example/");
        }
    }

    #[test]
    fn b35_whatever_is_admitted_begins_with_an_origin_of_ours() {
        bolero::check!().with_type::<String>().for_each(|to| {
            let targets = targets();
            let url = targets.url(targets.admit(to));
            let known = std::iter::once(targets.origin.as_str()).chain(targets.listed.iter().map(AsRef::as_ref));
            assert!(known.into_iter().any(|origin| is_of_origin(&url, origin)), "{url:?}");
            assert!(http::HeaderValue::try_from(&url).is_ok() && !url.contains('\\'));
            // The browser stays at our origin.
            let rest = url.strip_prefix("https://gate.example").unwrap_or("/");
            assert!(!rest.starts_with("//"));
        });
    }
}
