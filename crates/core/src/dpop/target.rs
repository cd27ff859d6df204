//! The URL of a proof. The URL is compared without query and fragment, after normalisation (RFC 3986 §6.2.2, §6.2.3).

use http::Uri;

use crate::route::path::CanonicalPath;

/// A normalised URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUri {
    scheme: HttpScheme,
    authority: String,
    path: String,
}

/// A URL scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpScheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl HttpScheme {
    /// Parses a scheme in any letter case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("https") {
            Some(Self::Https)
        } else if text.eq_ignore_ascii_case("http") {
            Some(Self::Http)
        } else {
            None
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }

    const fn default_port(self) -> &'static str {
        match self {
            Self::Http => "80",
            Self::Https => "443",
        }
    }
}

impl TargetUri {
    /// Builds a URL from a scheme, a `host[:port]` and a path. Returns `None` for an invalid path.
    pub fn new(scheme: HttpScheme, authority: &str, path: &str) -> Option<Self> {
        let mut authority = authority.to_ascii_lowercase();
        if let Some((host, port)) = authority.rsplit_once(':')
            // The colons of an IPv6 address are inside brackets.
            && !port.ends_with(']')
            && (port.is_empty() || port == scheme.default_port())
        {
            authority.truncate(host.len());
        }
        let path = if path.is_empty() { "/" } else { path };
        let path = CanonicalPath::parse(path).ok()?.as_str().to_owned();
        Some(Self { scheme, authority, path })
    }

    pub(crate) fn is_in(&self, htu: &str) -> bool {
        let rest = htu.strip_prefix(self.scheme.prefix());
        let rest = rest.and_then(|rest| rest.strip_prefix(&*self.authority)?.strip_prefix(&*self.path));
        rest.is_some_and(str::is_empty) || Self::parse(htu).as_ref() == Some(self)
    }

    pub(crate) fn parse(htu: &str) -> Option<Self> {
        let end = htu.find(['?', '#']).unwrap_or(htu.len());
        let uri: Uri = htu.get(..end)?.parse().ok()?;
        let authority = uri.authority()?.as_str();
        if authority.contains('@') {
            return None;
        }
        Self::new(HttpScheme::parse(uri.scheme_str()?)?, authority, uri.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n30_a_url_is_compared_after_normalisation_without_query_and_fragment() {
        let here = TargetUri::new(HttpScheme::Https, "api.example", "/a/b~c").unwrap();
        for same in [
            "https://api.example/a/b~c",
            "HTTPS://API.Example:443/a/b~c",
            "https://api.example:/a/b~c",
            "https://api.example/a/b%7Ec?x=1#y",
            "https://api.example/a/b%7ec",
        ] {
            assert!(here.is_in(same), "{same}");
            assert_eq!(TargetUri::parse(same).as_ref(), Some(&here), "{same}");
        }
        for other in [
            "http://api.example/a/b~c",
            "https://api.example:8443/a/b~c",
            "https://api.example:80/a/b~c",
            "https://api.example/A/b~c",
            "https://api.example/a/b~c/",
            "https://api.example/a%2Fb~c",
            "https://api.example/a/b~c/d",
            "https://api.example.evil/a/b~c",
            "https://other.example/a/b~c",
            "https://user@api.example/a/b~c",
            "https://api.example",
            "//api.example/a/b~c",
            "/a/b~c",
            "https:/a/b~c",
            "wss://api.example/a/b~c",
            "https://api.example/x/../a/b~c",
            "https://api.example/a/b~c\n",
            "",
        ] {
            assert!(!here.is_in(other), "{other}");
        }
        let port = TargetUri::new(HttpScheme::Http, "[::1]:8080", "/").unwrap();
        assert_eq!(TargetUri::parse("http://[::1]:8080"), Some(port));
        let bare = TargetUri::new(HttpScheme::Http, "[::1]:80", "").unwrap();
        assert_eq!(TargetUri::parse("http://[::1]/"), Some(bare));
        assert_eq!(TargetUri::new(HttpScheme::Http, "a", "/x/../y"), None);
    }
}
