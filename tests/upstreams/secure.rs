//! `https://` upstreams: which certificates are trusted, which HTTP version is used, and the gate's client certificate.

use http::{Method, StatusCode};
use rcgen::date_time_ymd;

use super::server::Server;
use crate::grpc::upstream::{CHAT, UNARY};
use support::pki::Pki;
use support::{CONFIG, Gate, Place};

const BOTH: &[&str] = &["h2", "http/1.1"];

/// An upstream with these lines, and a public route below its name.
pub(super) fn upstream(name: &str, url: &str, lines: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"{name}\"\nurls = [\"{url}\"]\n{lines}\n\
         [[routes]]\npath = \"/{name}/{{*rest}}\"\nauth = \"none\"\nupstream = \"{name}\"\n"
    )
}

/// A folder with the authority's certificate in `ca.pem`.
pub(super) fn place(pki: &Pki, more: &str) -> Place {
    let place = Place::new(&format!("{CONFIG}{more}"));
    std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
    place
}

async fn get(gate: &Gate, path: &str) -> support::Answer {
    gate.call(Method::GET, path, &[("te", "trailers"), ("connection", "te")], "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t16_an_upstream_that_does_not_prove_who_it_is_gets_no_request() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let good = Server::secure(&pki.issue(&["app.test"]), BOTH).await;
    let foreign = Server::secure(&stranger.issue(&["app.test"]), BOTH).await;
    let other = Server::secure(&pki.issue(&["other.test"]), BOTH).await;
    let expired = pki.issue_with(&["app.test"], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    });
    let expired = Server::secure(&expired, BOTH).await;
    let clear = Server::plain().await;
    let named = "server_name = \"app.test\"";
    let own = format!("ca = \"ca.pem\"\n{named}");
    let url = |server: &Server| format!("https://{}", server.address);
    let more = [
        upstream("good", &url(&good), &own),
        upstream("foreign", &url(&foreign), &own),
        upstream("other", &url(&other), &own),
        upstream("expired", &url(&expired), &own),
        upstream("unnamed", &url(&good), "ca = \"ca.pem\""),
        upstream("system", &url(&good), named),
        upstream("clear", &url(&clear), &own),
    ];
    let place = place(&pki, &more.concat());
    let gate = place.start();
    let answer = get(&gate, "/good/x").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        (&answer.headers["x-alpn"], &answer.headers["x-sni"]),
        (&"h2".parse().unwrap(), &"app.test".parse().unwrap())
    );
    for path in ["/foreign/x", "/other/x", "/expired/x", "/unnamed/x", "/system/x", "/clear/x"] {
        let answer = get(&gate, path).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{path}");
        let body = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
        assert!(!body.contains("cert") && !body.contains("127.0.0.1"), "{body}");
    }
    assert_eq!(good.state.requests(), 1);
    for server in [foreign, other, expired, clear] {
        assert_eq!(server.state.requests(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upstream_chooses_the_version_and_the_host_is_said_once() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost", "127.0.0.1"]);
    let (both, old, silent) = (
        Server::secure(&pair, BOTH).await,
        Server::secure(&pair, &["http/1.1"]).await,
        Server::secure(&pair, &[]).await,
    );
    let by_name = |server: &Server| format!("https://localhost:{}", server.address.port());
    let ca = "ca = \"ca.pem\"";
    let more = [
        upstream("both", &by_name(&both), ca),
        upstream("old", &by_name(&old), ca),
        upstream("silent", &format!("https://{}", silent.address), ca),
        upstream("kept", &by_name(&both), &format!("{ca}\npreserve_host = true")),
    ];
    let place = place(&pki, &more.concat());
    let gate = place.start();
    let gate_host = gate.address.to_string();
    let at = |server: &Server, host: &str| format!("{host}:{}", server.address.port());
    for (path, alpn, version, sni, host, authority) in [
        ("/both/x", "h2", "HTTP/2.0", "localhost", String::new(), at(&both, "localhost")),
        ("/old/x", "http/1.1", "HTTP/1.1", "localhost", at(&old, "localhost"), String::new()),
        ("/silent/x", "", "HTTP/1.1", "", at(&silent, "127.0.0.1"), String::new()),
        ("/kept/x", "http/1.1", "HTTP/1.1", "localhost", gate_host, String::new()),
    ] {
        let answer = gate.call(Method::POST, path, &[("te", "trailers"), ("connection", "te")], "hello").await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"hello"[..]), "{path}");
        let said = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        assert_eq!(
            (
                said("x-alpn").as_str(),
                said("x-version").as_str(),
                said("x-sni").as_str(),
                said("x-host"),
                said("x-authority")
            ),
            (alpn, version, sni, host, authority),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_asks_for_a_certificate_gets_ours() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let server = Server::mutual(&pki.issue(&["127.0.0.1"]), &clients).await;
    let url = format!("https://{}", server.address);
    let own = "ca = \"ca.pem\"\nclient_cert = { cert = \"gate.pem\", key = \"gate.key\" }";
    let more = [upstream("known", &url, own), upstream("nobody", &url, "ca = \"ca.pem\"")];
    let place = place(&pki, &more.concat());
    clients.issue(&["gate"]).write(&place, "gate");
    let gate = place.start();
    let answer = get(&gate, "/known/x").await;
    assert_eq!((answer.status, &answer.headers["x-client-cert"]), (StatusCode::OK, &"true".parse().unwrap()));
    assert_eq!(get(&gate, "/nobody/x").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(server.state.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_over_tls_keeps_its_trailers() {
    use futures_util::StreamExt;
    use tonic::Code;

    let pki = Pki::new();
    let server = Server::secure(&pki.issue(&["127.0.0.1"]), BOTH).await;
    let more = format!(
        "[[upstreams]]\nname = \"rpc\"\nurls = [\"https://{}\"]\nca = \"ca.pem\"\n\
         [[routes]]\npath = \"/test.Echo/{{method}}\"\nauth = \"none\"\nupstream = \"rpc\"\n",
        server.address
    );
    let place = place(&pki, &more);
    let gate = place.start();
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<tonic::body::Body>();
    let mut grpc = tonic::client::Grpc::with_origin(client, format!("http://{}", gate.address).parse().unwrap());
    let codec = tonic_prost::ProstCodec::<String, String>::default;
    grpc.ready().await.unwrap();
    let request = tonic::Request::new("hello".to_owned());
    let answer = grpc.unary(request, http::uri::PathAndQuery::from_static(UNARY), codec()).await.unwrap();
    assert!(answer.get_ref().starts_with("hello\n") && answer.get_ref().contains("\nte: trailers\n"), "{answer:?}");
    grpc.ready().await.unwrap();
    let messages = tonic::Request::new(futures_util::stream::iter(["a", "b"].map(str::to_owned)));
    let answer = grpc.streaming(messages, http::uri::PathAndQuery::from_static(CHAT), codec()).await.unwrap();
    let mut answers = answer.into_inner();
    for expected in ["re: a", "re: b"] {
        assert_eq!(answers.next().await.unwrap().unwrap(), expected);
    }
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.metadata().get("x-tail").unwrap()), (Code::DataLoss, &"7".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t27_a_connection_over_tls_carries_as_many_requests_as_it_may_and_http_2_is_not_concerned() {
    let pki = Pki::new();
    let pair = pki.issue(&["app.test"]);
    let servers = [
        Server::secure(&pair, &["http/1.1"]).await,
        Server::secure(&pair, &["http/1.1"]).await,
        Server::secure(&pair, &["h2"]).await,
    ];
    let lines = ["for_tests.max_requests_per_connection = 2", "reuse = \"never\"", "reuse = \"never\""];
    let entry = |(index, lines): (usize, &&str)| {
        let url = format!("https://{}", servers[index].address);
        upstream(&format!("u{index}"), &url, &format!("ca = \"ca.pem\"\nserver_name = \"app.test\"\n{lines}"))
    };
    let more: String = lines.iter().enumerate().map(entry).collect();
    let place = place(&pki, &more);
    // Each thread has its own connections.
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    std::fs::write(place.path("gateway.toml"), support::with(&config, "server", "workers = 1")).unwrap();
    let gate = place.start();
    for (index, expected) in [(0, 2), (1, 4), (2, 1)] {
        for _ in 0..4 {
            assert_eq!(get(&gate, &format!("/u{index}/x")).await.status, StatusCode::OK);
        }
        assert_eq!(servers[index].state.connections(), expected, "{}", lines[index]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t51_no_request_follows_one_that_authenticated_its_connection() {
    let pki = Pki::new();
    let secure = Server::secure(&pki.issue(&["app.test"]), &["http/1.1"]).await;
    let lines = "ca = \"ca.pem\"\nserver_name = \"app.test\"";
    let more = upstream("u", &format!("https://{}", secure.address), lines);
    let more = more.replace("auth = \"none\"", "auth = \"none\"\nforward_token = true");
    let place = place(&pki, &more);
    // Each thread has its own connections.
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    std::fs::write(place.path("gateway.toml"), support::with(&config, "server", "workers = 1")).unwrap();
    let gate = place.start();
    // A request goes over a kept connection, which is closed after one that authenticates it.
    for (credential, connections) in
        [("Basic YTpi", 1), ("Negotiate YWxpY2U=", 1), ("Basic YTpi", 2), ("ntlm TlRMTVNTUAAB", 2), ("Basic YTpi", 3)]
    {
        let answer = gate.call(Method::GET, "/u/x", &[("authorization", credential)], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{credential}");
        assert_eq!(secure.state.connections(), connections, "{credential}");
    }
}
