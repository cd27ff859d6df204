//! The origin of a request, and the cookies that an upstream sees.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use ipnet::IpNet;
use rotogate::Gate;
use rotogate::gate::NewSession;
use rotogate::route::{Route, RoutePolicy};
use rotogate_core::headers::{Peer, client_ip, forwarded};
use rotogate_core::token::keyring::Keyring;
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt, service_fn};

use crate::input::target;

const PEERS: [&str; 4] = ["10.0.0.1", "203.0.113.9", "::ffff:10.0.0.1", "2001:db8::1"];
const US: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 255, 255, 1));

/// Lines of `name: value`; those that no header can be are left out.
pub(crate) fn headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..at]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[at + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

target!(
    /// T6: forwarding headers of an untrusted peer are ignored. The upstream gets each such header once, and reads the
    /// same client in it if it trusts the gate and its proxies.
    forwarding,
    &[
        "x-forwarded-for: ", "x-forwarded-proto: ", "x-forwarded-host: ", "forwarded: ", "for=", "10.0.0.2", "203.0.113.7", ", ",
        ",", "[2001:db8::2]:80", "203.0.113.7:1234", "::ffff:203.0.113.8", "unknown", "\n", "https", "http", "example.com", "a@b",
        "fe80::1%eth0", "010.0.0.1", "10.0.0.1, 10.0.0.1", "\t", "x-real-ip: ", "\u{80}",
    ],
    |input| {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let before = headers(input);
        for peer in PEERS {
            let peer: IpAddr = peer.parse().unwrap();
            let client = client_ip(&before, peer, &trusted);
            let is_trusted = trusted.iter().any(|net| net.contains(&peer.to_canonical()));
            assert!(is_trusted || client == peer.to_canonical(), "a stranger is believed");

            let mut after = before.clone();
            let host = HeaderValue::from_static("gate.test");
            forwarded(&mut after, &Peer::new(peer, false), Some(&host), &trusted);
            for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"] {
                assert_eq!(after.get_all(name).iter().count(), 1, "{name}");
            }
            assert!(!after.contains_key("forwarded"));
            assert!(["http", "https"].iter().any(|scheme| after["x-forwarded-proto"] == *scheme));
            assert_eq!(client_ip(&after, US, &trusted), client, "the upstream reads another client");

            let mut again = after.clone();
            forwarded(&mut again, &Peer::new(US, false), Some(&host), &trusted);
            assert_eq!(client_ip(&again, US, &trusted), client, "a second gate reads another client");
        }
    }
);

/// A gate with two routes that look for a token in a cookie, and an access token for it.
static GATE: LazyLock<(Runtime, Gate, String)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (gate, token) = runtime.block_on(async {
        let cookie = Some("token".to_owned());
        let open = RoutePolicy { cookie: cookie.clone(), ignores_bad_credential: true, ..RoutePolicy::optional() };
        let gate = Gate::builder()
            .issuer("https://api.test")
            .keys(Keyring::ephemeral().unwrap())
            .client(rotogate::client::Client::public("web"))
            .route(Route::new("/open", open))
            .route(Route::new("/closed", RoutePolicy { cookie, ..RoutePolicy::default() }))
            .build()
            .await
            .unwrap();
        let issued = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
        (gate, issued.access_token.expose().to_owned())
    });
    (runtime, gate, token)
});

/// Stands for a good token in the corpus.
const PLACEHOLDER: u8 = b'@';

/// As servers read them.
fn pairs(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let lines = headers.get_all(COOKIE).iter();
    let all = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';').map(|pair| pair.trim_ascii().to_vec()));
    all.filter(|pair| !pair.is_empty()).collect()
}

fn name(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

target!(
    /// T18: whatever else stands in the cookies, an upstream never sees the one that holds a token, and sees all others;
    /// a closed route takes one good token, alone.
    cookies,
    &["@", "token=", "token=@", "; ", ";", "=", "\n", "cookie: ", "token", " token = ", "Token=@", "token=null", "a=b", "\t", ",", "\""],
    |input| {
        let (runtime, gate, token) = &*GATE;
        let lines: Vec<u8> = input
            .iter()
            .flat_map(|byte| if *byte == PLACEHOLDER { token.as_bytes().to_vec() } else { vec![*byte] })
            .collect();
        let mut sent = HeaderMap::new();
        for value in headers(&lines).get_all(COOKIE) {
            sent.append(COOKIE, value.clone());
        }
        let before = pairs(&sent);
        for path in ["/open", "/closed"] {
            let mut request = Request::get(path).header("host", "api.test").body(Empty::<Bytes>::new()).unwrap();
            request.headers_mut().extend(sent.clone());
            let inner = service_fn(|request: Request<Empty<Bytes>>| async move {
                let seen = pairs(request.headers()).join(&b'\n');
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(seen))))
            });
            let reply = runtime.block_on(gate.layer().layer(inner).oneshot(request)).unwrap();
            if reply.status() != 200 {
                continue;
            }
            let body = runtime.block_on(reply.into_body().collect()).unwrap().to_bytes();
            let seen: Vec<&[u8]> = body.split(|byte| *byte == b'\n').filter(|pair| !pair.is_empty()).collect();
            let others: Vec<&[u8]> = before.iter().map(Vec::as_slice).filter(|pair| name(pair) != b"token").collect();
            assert_eq!(seen, others, "{path}");
            if path == "/closed" {
                let tokens: Vec<_> = before.iter().filter(|pair| name(pair) == b"token").collect();
                assert!(tokens.iter().any(|pair| pair.ends_with(token.as_bytes())), "a closed route let a stranger in");
            }
        }
    }
);
