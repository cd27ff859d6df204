//! The target of a login: the parameter `to`, which any page may write. Only a path of the gate or a URL of a listed
//! origin is accepted, so a login never leads to a foreign page.

use super::long_target::LONGEST;
use rotogate_core::route::path::CanonicalPath;

/// Escapes that a later parser could interpret as a separator, a line break or the start of a host name.
const ESCAPES: [&str; 6] = ["%09", "%0a", "%0b", "%0d", "%5c", "%2f%2f"];

/// The targets that a login may redirect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoginTargets {
    /// The origin of the public URL.
    pub(crate) origin: String,
    /// The path of the endpoint. A login never leads to a path below it.
    pub(crate) path: String,
    /// Additional accepted origins, as a browser writes them.
    pub(crate) listed: Vec<Box<str>>,
}

/// A target that the rules accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginTarget<'a> {
    /// A path of the gate, with query and fragment.
    Own(&'a str),
    /// A URL of a listed origin.
    Listed(&'a str),
}

impl<'a> LoginTarget<'a> {
    /// The root path, which is the target if a login does not name an accepted target.
    pub(crate) const ROOT: Self = Self::Own("/");

    /// Returns the target as it is written in the parameter `to`.
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

    /// Returns the absolute URL of a target, for `Location` and `Refresh`.
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
        // Compares the loose forms, because a path that only resembles the endpoint's path is not a useful target
        // either. The gate responds to it with 404.
        let (Ok(path), Ok(endpoint)) = (CanonicalPath::parse(path), CanonicalPath::parse(&self.path)) else {
            return false;
        };
        let (path, endpoint) = (path.loose(), endpoint.loose());
        path.strip_prefix(&*endpoint).is_none_or(|rest| !(rest.is_empty() || rest.starts_with('/')))
    }
}

/// Returns whether a URL has this origin. An origin that is longer and only begins with this origin is a different
/// origin.
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
            // A browser that resolves the target against our page stays at our origin.
            let rest = url.strip_prefix("https://gate.example").unwrap_or("/");
            assert!(!rest.starts_with("//"));
        });
    }
}
