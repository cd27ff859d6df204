//! Questions of other proxies: facts in headers, and Envoy's checks.

use std::sync::LazyLock;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request};
use prost::Message;
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::gate::{Authorizer, Neighbour};
use rotogate::program::grpc::head_of_check;
use rotogate::program::grpc::proto::envoy::service::auth::v3::CheckRequest;
use rotogate_core::headers::Peer;
use rotogate_core::token::keyring::Keyring;

use crate::headers::headers;
use crate::input::target;

static GATE: LazyLock<Gate> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gate = Gate::builder().issuer("https://api.test").keys(Keyring::ephemeral().unwrap());
    runtime.block_on(gate.client(Client::public("web")).build()).unwrap()
});

fn authorizer(neighbour: Neighbour) -> Authorizer {
    Authorizer::new(&GATE, neighbour).trusting(vec!["127.0.0.1/32".parse().unwrap()])
}

fn question(headers: HeaderMap) -> Parts {
    let (mut parts, ()) = Request::get("/").body(()).unwrap().into_parts();
    parts.headers = headers;
    parts.extensions.insert(Peer::new("127.0.0.1".parse().unwrap(), false));
    parts
}

/// The only value of a header.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let all: Vec<_> = headers.get_all(name).iter().collect();
    let [one] = all[..] else { panic!("{name} is there {} times", all.len()) };
    one.to_str().unwrap()
}

target!(
    /// N1, N2, N5: what is judged is what the headers of the neighbour say, each there once, to the byte. Headers of other
    /// families change nothing, and none of a fact is among the headers of the judged request.
    questions,
    &[
        "x-forwarded-method: GET\n", "x-forwarded-host: a.test\n", "x-forwarded-uri: /a\n", "x-forwarded-proto: https\n",
        "x-forwarded-for: 192.0.2.7\n", "x-forwarded-prefix: /x\n",
        "connection: x-forwarded-uri\n", "authorization: Bearer x\n", "x_auth_subject: root\n", "//", "%2F", "?", "#", ",", "\\", " ", ":443",
        "@", "\n", "http://", "2001:db8::1", "sec-websocket-key: x\n", "TRACE", "\u{80}",
    ],
    |input| {
        let sent = headers(input);
        for neighbour in Neighbour::ALL {
            let Ok(head) = authorizer(neighbour).head(&mut question(sent.clone())) else { continue };
            let target = head.uri.path_and_query().unwrap().as_str();
            assert!(target.starts_with('/') && head.uri.authority().is_none(), "{neighbour:?}");
            match neighbour {
                // The request line, which is `GET /`.
                Neighbour::Envoy => assert_eq!((head.method.as_str(), target), ("GET", "/")),
                _ => {
                    assert_eq!(head.method, only(&sent, "x-forwarded-method"));
                    assert_eq!(target, only(&sent, "x-forwarded-uri"));
                    assert_eq!(head.headers[HOST], only(&sent, "x-forwarded-host"));
                }
            }
            for name in ["x-forwarded-uri", "x-forwarded-method", "x-forwarded-for"] {
                assert!(!head.headers.contains_key(name), "{name}");
            }
            // The same headers without those that the neighbour does not set.
            let mut bare = sent.clone();
            if neighbour == Neighbour::Envoy {
                for name in ["x-forwarded-method", "x-forwarded-host", "x-forwarded-uri"] {
                    bare.remove(name);
                }
            }
            let again = authorizer(neighbour).head(&mut question(bare)).expect("other families count for nothing");
            assert_eq!((&head.method, &head.uri, &head.headers), (&again.method, &again.uri, &again.headers));
        }
    }
);

target!(
    /// N21, N22, N27: a check that is understood has its facts from attributes, with the target to the byte, and no header
    /// of a pseudo-header's name. All other input is refused.
    checks,
    &[
        "GET", "a.test", "/a?b=c", "https", "192.0.2.7", ":path", "x-envoy-original-path", "authorization", "Bearer x", ",", "\n", "\u{12}", "\u{1a}",
        "\"", "\u{8}", "x_auth_subject", "//", "%2F", "#",
    ],
    |input| {
        let Ok(question) = CheckRequest::decode(input) else { return };
        let http = question.attributes.as_ref().and_then(|of| of.request.as_ref()?.http.clone());
        let Ok(head) = head_of_check(&authorizer(Neighbour::Envoy), question) else { return };
        let http = http.expect("facts come from attributes");
        assert_eq!(head.uri.path_and_query().unwrap().as_str(), http.path);
        assert_eq!((head.method.as_str().as_bytes(), head.headers[HOST].as_bytes()), (&*http.method, &*http.host));
        assert!(head.headers.keys().all(|name: &HeaderName| !name.as_str().starts_with(':')));
    }
);
