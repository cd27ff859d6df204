//! HTTP/1.1 and HTTP/2 on one port, for every route.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;

use super::client::{gate, get_me, login, send};

type Heads = Arc<Mutex<Vec<http::request::Parts>>>;

/// An upstream for both versions, which records the heads of requests.
async fn noting() -> (SocketAddr, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Heads::default();
    let notes = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let notes = Arc::clone(&notes);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    notes.lock().unwrap().push(request.into_parts().0);
                    async { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"ok")))) }
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn both_versions_are_served_on_one_port() {
    let (_place, gate) = gate("");
    let tokens = login(&gate).await;
    assert_eq!(gate.get("/hello", &tokens.token).await.status, 200);
    assert!(get_me(&gate, &tokens.token).await.is_ok());
    for (path, token, status) in [
        ("/hello", Some(&tokens.token), 200),
        ("/hello", None, 401),
        ("/public/x", None, 200),
        ("/.well-known/jwks.json", None, 200),
        ("/Connect/Token", None, 404),
    ] {
        let mut request = Request::get(gate.url(path));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (answer, _) = send(request.body(Full::default()).unwrap()).await;
        assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, status), "{path}");
    }
    let form = format!("grant_type=password&client_id=web&username=demo&password={}", gate.password);
    let request = Request::post(gate.url("/connect/token")).header("content-type", "application/x-www-form-urlencoded");
    let (answer, _) = send(request.body(Full::new(form.into())).unwrap()).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn an_http2_request_reaches_an_http1_upstream_as_http1() {
    let (upstream, heads) = noting().await;
    let more = format!(
        "[[upstreams]]\nname = \"h1\"\nurls = [\"http://{upstream}\"]\npreserve_host = true\n\
         [[routes]]\npath = \"/h1/{{*rest}}\"\nupstream = \"h1\"\nauth = \"none\"\n"
    );
    let (_place, gate) = gate(&more);
    let request = Request::post(gate.url("/h1/x?y=1"))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"hello")));
    let (answer, _) = send(request.unwrap()).await;
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"ok"[..]));
    let heads = heads.lock().unwrap();
    let head = &heads[0];
    assert_eq!((head.version, head.uri.to_string().as_str()), (Version::HTTP_11, "/h1/x?y=1"));
    assert_eq!(head.headers["host"], gate.address.to_string(), "from :authority");
    assert_eq!(head.headers["cookie"], "a=1; b=2");
    assert_eq!(head.headers["content-length"], "5");
    assert_eq!(head.headers["te"], "trailers");
}

#[tokio::test]
async fn an_http1_request_reaches_an_h2c_upstream_as_http2() {
    let (upstream, heads) = noting().await;
    let more = format!(
        "[[upstreams]]\nname = \"h2\"\nurls = [\"h2c://{upstream}\"]\n\
         [[routes]]\npath = \"/h2/{{*rest}}\"\nupstream = \"h2\"\nauth = \"none\"\n"
    );
    let (_place, gate) = gate(&more);
    let headers = [("connection", "x-gone, keep-alive"), ("x-gone", "1"), ("keep-alive", "timeout=5")];
    for _ in 0..2 {
        let answer = gate.call(http::Method::POST, "/h2/x?y=1", &headers, "hello").await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]));
    }
    let heads = heads.lock().unwrap();
    let head = &heads[0];
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.uri.to_string(), format!("http://{upstream}/h2/x?y=1"));
    assert_eq!(head.headers["x-forwarded-host"], gate.address.to_string());
    assert_eq!(head.headers["content-length"], "5");
    for gone in ["connection", "x-gone", "keep-alive", "transfer-encoding", "host"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn t11_a_host_that_contradicts_the_authority_is_refused() {
    let (_place, gate) = gate("");
    for (host, status) in [(gate.address.to_string(), 200), ("elsewhere.test".to_owned(), 400)] {
        let request = Request::get(gate.url("/public/x")).header("host", &host).body(Full::default()).unwrap();
        assert_eq!(send(request).await.0.status(), status, "{host}");
    }
}

#[tokio::test]
async fn an_http2_request_is_shown_to_the_echo_upstream_like_any_other() {
    let (_place, gate) = gate("");
    let (answer, _) = send(Request::get(gate.url("/public/x")).body(Full::default()).unwrap()).await;
    let echo: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(echo["path"], "/public/x");
}
