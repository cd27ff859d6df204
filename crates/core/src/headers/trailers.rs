//! Request trailers, which arrive after the authorisation decision (RFC 9110 §6.5).

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_RANGE, COOKIE, EXPECT, RANGE, SET_COOKIE, TE, TRAILER, UPGRADE};
use http::{HeaderMap, HeaderName};

use super::{HeaderVerdict, ProtectedNames, names};

/// These fields are not allowed in trailers (RFC 9110 §6.5.1).
const NEVER: [HeaderName; 10] =
    [ACCEPT, CONTENT_ENCODING, CONTENT_RANGE, COOKIE, EXPECT, RANGE, SET_COOKIE, TE, TRAILER, UPGRADE];

impl ProtectedNames {
    /// Removes forbidden fields from the trailers of a request (T3 to T6). Otherwise a client could set forbidden
    /// headers at an upstream that merges trailers into headers.
    pub fn strip_trailers(&self, trailers: &mut HeaderMap) {
        let gone: Vec<HeaderName> = trailers.keys().filter(|name| !self.may_trail(name)).cloned().collect();
        for name in gone {
            trailers.remove(name);
        }
    }

    fn may_trail(&self, name: &HeaderName) -> bool {
        self.judge(name.as_str()) == HeaderVerdict::Pass
            && !names::is_ours_or_protocol(name.as_str())
            && !NEVER.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn t3_t5_only_what_says_nothing_of_caller_or_framing_may_trail() {
        let protected = ProtectedNames::new(["x-tenant"]);
        for name in [
            "x-auth-subject",
            "x_auth_subject",
            "x-tenant",
            "x.tenant",
            "x-tenant-bin",
            "remote-user",
            "authorization",
            "proxy-authorization",
            "cookie",
            "host",
            "content-length",
            "content_length",
            "transfer-encoding",
            "connection",
            "x-forwarded-for",
            "forwarded",
            "x-real-ip",
            "x-http-method-override",
            "x-original-url",
            "te",
            "trailer",
            "upgrade",
            "keep-alive",
            "x_other",
        ] {
            let mut trailers = HeaderMap::new();
            for name in [name, "x-checksum", "grpc-status"] {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                trailers.append(name.clone(), HeaderValue::from_static("1"));
                trailers.append(name, HeaderValue::from_static("2"));
            }
            protected.strip_trailers(&mut trailers);
            let left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
            assert_eq!((left.len(), left.contains(&"x-checksum")), (2, true), "{name}: {left:?}");
            assert_eq!(trailers.get_all("grpc-status").iter().count(), 2, "{name}");
        }
    }
}
