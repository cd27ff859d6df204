//! The layer around services other than axum's: readiness, errors, bodies, types.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::poll;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rotogate::Identity;
use rotogate::gate::{GateBody, GateLayer, GateService, Require, RequireLayer, ResponseFuture};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::client::Server;
use crate::{gate, tokens};

fn request(token: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::builder().uri("/x").header("host", "api.test");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_plain_hyper_service_stands_behind_the_gate() {
    let gate = gate().await;
    let service = gate.layer().layer(service_fn(async |request: Request<hyper::body::Incoming>| {
        let subject = Identity::from_extensions(request.extensions()).unwrap().subject().to_owned();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(subject)))
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let (access, refresh) = tokens(&gate, "read").await;
    assert_eq!(server.get("/").await.status, StatusCode::UNAUTHORIZED);
    let answer = server.get_with("/", &access).await;
    assert_eq!(
        (answer.body.as_str(), &answer.headers["content-length"]),
        ("ada", &http::HeaderValue::from_static("3"))
    );
    assert_eq!(server.refresh("/token", &refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn t47_no_answer_of_the_layer_to_head_has_a_body() {
    let gate = gate().await;
    let inner = service_fn(async |_: Request<Empty<Bytes>>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    let (access, _) = tokens(&gate, "read").await;
    for (path, token) in [
        ("/x", None),
        ("/%00", None),
        ("/x", Some("junk")),
        ("/.well-known/jwks.json", None),
        ("/token", None),
        ("/Token", None),
    ] {
        let asked = async |method: &str| {
            let mut asked = request(token);
            (*asked.method_mut(), *asked.uri_mut()) = (method.parse().unwrap(), path.parse().unwrap());
            let (parts, body) = gate.layer().layer(inner).oneshot(asked).await.unwrap().into_parts();
            (parts, body.collect().await.unwrap().to_bytes())
        };
        let ((head, none), (_, whole)) = (asked("HEAD").await, asked("GET").await);
        assert!(none.is_empty(), "{path}: {none:?}");
        if let Some(length) = head.headers.get("content-length").filter(|_| path != "/token") {
            assert_eq!(length.to_str().unwrap().parse(), Ok(whole.len()), "{path}");
        }
    }
    // That of a `require()`, too.
    let denied = gate.require().scope("admin").layer(inner);
    let mut asked = request(Some(&access));
    *asked.method_mut() = http::Method::HEAD;
    let reply = gate.layer().layer(denied).oneshot(asked).await.unwrap();
    assert_eq!(reply.status(), StatusCode::FORBIDDEN);
    assert!(reply.collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn readiness_is_that_of_the_service_inside() {
    let gate = gate().await;
    let (access, _) = tokens(&gate, "read").await;
    let go_on = Arc::new(Notify::new());
    let inner = {
        let go_on = Arc::clone(&go_on);
        service_fn(move |_: Request<Empty<Bytes>>| {
            let go_on = Arc::clone(&go_on);
            async move {
                go_on.notified().await;
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("done")))
            }
        })
    };
    // A service for one request at a time, which panics if it is called before it is ready.
    let mut service = ServiceBuilder::new().layer(gate.layer()).layer(ConcurrencyLimitLayer::new(1)).service(inner);
    let mut first = Box::pin(service.ready().await.unwrap().call(request(Some(&access))));
    assert!(poll!(&mut first).is_pending());

    let mut other = service.clone();
    assert!(poll!(pin!(other.ready())).is_pending(), "the only place is taken");
    go_on.notify_one();
    assert_eq!(first.await.unwrap().status(), StatusCode::OK);
    // A refused request gives its place back.
    for _ in 0..3 {
        let refused = other.ready().await.unwrap().call(request(None)).await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
    go_on.notify_one();
    let answer = other.ready().await.unwrap().call(request(Some(&access))).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "done");
}

#[tokio::test]
async fn t9_a_watched_stream_ends_when_the_gate_closes_its_connections_and_not_with_the_tunnels_alone() {
    let gate = gate().await;
    let (access, _) = tokens(&gate, "read").await;
    let events = service_fn(async |_: Request<Empty<Bytes>>| {
        let never = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
        Ok::<_, Infallible>(Response::new(StreamBody::new(never)))
    });
    let reply = gate.layer().layer(events).oneshot(request(Some(&access))).await.unwrap();
    let mut body = pin!(reply.into_body());
    assert!(poll!(body.frame()).is_pending());
    gate.close_tunnels();
    // Beyond the next check of the stream.
    let patience = std::time::Duration::from_millis(1500);
    assert!(tokio::time::timeout(patience, body.frame()).await.is_err(), "a server drains it");
    gate.close_connections();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), body.frame()).await.unwrap();
    assert_eq!(ended.unwrap().unwrap_err().to_string(), "the gate ended the response early: closing");
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("mine {0}")]
struct Mine(u32);

#[tokio::test]
async fn errors_of_the_service_inside_pass_untouched() {
    let gate = gate().await;
    let (access, _) = tokens(&gate, "read").await;
    let inner = service_fn(async |_: Request<Empty<Bytes>>| Err::<Response<Full<Bytes>>, _>(Mine(7)));
    assert_eq!(gate.layer().layer(inner).oneshot(request(Some(&access))).await.unwrap_err(), Mine(7));
    assert_eq!(gate.require().layer(inner).oneshot(request(Some(&access))).await.unwrap_err(), Mine(7));
    // A refusal is an answer, not an error.
    assert_eq!(gate.layer().layer(inner).oneshot(request(None)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[derive(Clone)]
struct NotReady;

impl Service<Request<Empty<Bytes>>> for NotReady {
    type Response = Response<Full<Bytes>>;
    type Error = Mine;
    type Future = Ready<Result<Self::Response, Mine>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Mine>> {
        Poll::Ready(Err(Mine(1)))
    }

    fn call(&mut self, _: Request<Empty<Bytes>>) -> Self::Future {
        ready(Err(Mine(2)))
    }
}

#[tokio::test]
async fn an_error_of_readiness_passes_untouched() {
    assert_eq!(gate().await.layer().layer(NotReady).ready().await.err(), Some(Mine(1)));
}

/// Data that is not `Bytes`.
#[derive(Debug, PartialEq)]
struct Chunk(Bytes);

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }

    fn advance(&mut self, n: usize) {
        self.0.advance(n);
    }
}

/// A body type that is `!Unpin` and has its own error type.
#[derive(Default)]
struct Own(Option<Chunk>, std::marker::PhantomPinned);

impl Body for Own {
    type Data = Chunk;
    type Error = Mine;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Mine>>> {
        Poll::Ready(self.0.is_none().then(|| Err(Mine(3))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_some()
    }
}

#[tokio::test]
async fn any_body_passes_as_it_is() {
    let gate = gate().await;
    let (access, _) = tokens(&gate, "read").await;
    let inner = service_fn(async |_: Request<Empty<Bytes>>| Ok::<_, Infallible>(Response::new(Own::default())));
    let passed = gate.layer().layer(inner).oneshot(request(Some(&access))).await.unwrap();
    let failed = passed.into_body().collect().await.unwrap_err();
    assert_eq!(*failed.downcast::<Mine>().unwrap(), Mine(3));
    let refused = gate.layer().layer(inner).oneshot(request(None)).await.unwrap();
    let mut body = pin!(refused.into_body());
    let Chunk(data) = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&data).unwrap()["status"], 401);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn what_passes_is_boxed_nowhere() {
    type Inner = fn(Request<Empty<Bytes>>) -> Ready<Result<Response<Full<Bytes>>, Infallible>>;
    let inner: Inner = |_| ready(Ok(Response::new(Full::from("inside"))));
    let gate = gate().await;
    let (access, _) = tokens(&gate, "read").await;
    // The type names show that the service's own future and body are inside, not behind a pointer.
    let mut service: GateService<_> = gate.layer().layer(service_fn(inner));
    let future: ResponseFuture<Ready<Result<Response<Full<Bytes>>, Infallible>>> = service.call(request(Some(&access)));
    let response: Response<GateBody<Full<Bytes>>> = future.await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(6));
    let mut service: Require<_> = gate.require().layer(service_fn(inner));
    let future: ResponseFuture<Ready<Result<Response<Full<Bytes>>, Infallible>>> = service.call(request(Some(&access)));
    let _: Response<GateBody<Full<Bytes>>> = future.await.unwrap();
    // A large future would show behind a pointer.
    type Large = [u8; 4096];
    assert!(size_of::<ResponseFuture<Large>>() >= size_of::<Large>());
    assert!(size_of::<GateBody<Large>>() >= size_of::<Large>());
}

#[test]
fn every_error_is_one_that_question_marks_take() {
    fn is<T: std::error::Error + Send + Sync + 'static>() {}
    is::<rotogate::denial::Denial>();
    is::<rotogate::fault::Error>();
    is::<rotogate::fault::Fault>();
    is::<rotogate::gate::BuildError>();
    is::<rotogate::gate::NoIdentity>();
    is::<rotogate::store::StoreError>();
    is::<rotogate::directory::DirectoryError>();
    is::<rotogate::InvalidValue>();
    is::<rotogate::denial::PathError>();
    is::<rotogate::token::KeyError>();
    is::<rotogate::token::RulesError>();
}

#[test]
fn layers_services_and_futures_go_between_threads() {
    fn clone_send_sync<T: Clone + Send + Sync + 'static>() {}
    fn send<T: Send + 'static>() {}
    clone_send_sync::<rotogate::Gate>();
    clone_send_sync::<GateLayer>();
    clone_send_sync::<GateService<axum::Router>>();
    clone_send_sync::<RequireLayer>();
    clone_send_sync::<Require<axum::Router>>();
    clone_send_sync::<Identity>();
    send::<ResponseFuture<Ready<Result<Response<Full<Bytes>>, Infallible>>>>();
    send::<GateBody<Full<Bytes>>>();
    fn is_future<F: Future>() {}
    is_future::<ResponseFuture<Ready<Result<Response<Full<Bytes>>, Infallible>>>>();
}

#[tokio::test]
async fn an_error_that_an_axum_handler_returns_is_a_refusal_only_if_something_was_decided() {
    use axum::routing::get;
    use rotogate::denial::Denial;
    use rotogate::fault::{Error, Fault};

    let wait = std::time::Duration::from_secs(7);
    for (path, error, status, retry_after) in [
        ("/fault", (|| Fault::Clock.into()) as fn() -> Error, 503, Some("5")),
        ("/limit", || Denial::RateLimited("login", std::time::Duration::from_secs(7)).into(), 429, Some("7")),
        ("/undecided", || Denial::KeysUnavailable(std::time::Duration::from_secs(7)).into(), 503, Some("7")),
        ("/password", || Denial::WrongPassword.into(), 401, None),
        ("/reuse", || Denial::UnknownRefreshToken.into(), 401, None),
        ("/client", || Denial::InvalidClient.into(), 401, None),
        ("/origin", || Denial::CrossOrigin.into(), 403, None),
        ("/sessions", || Denial::TooManySessions.into(), 403, None),
    ] {
        assert_eq!(error().status(), status, "{path}");
        assert!(error().retry_after().is_none_or(|after| after <= wait), "{path}");
        let app = axum::Router::new().route(path, get(async move || Err::<String, Error>(error())));
        let answer = Server::axum(app).await.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers.get("retry-after").map(|value| value.to_str().unwrap()), retry_after, "{path}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "{path}");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
}
