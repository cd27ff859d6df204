//! Calls of the Model Context Protocol while many others are under way: how many bytes of bodies the gate keeps, and which
//! streams a revocation ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::routing::any;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rotogate::Gate;
use rotogate::gate::{Bound, Bounds, NewSession, Whose};
use rotogate::route::{Mcp, Resource, Route, RoutePolicy};
use support::until;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use crate::builder;
use crate::client::Server;

type Client = hyper_util::client::legacy::Client<HttpConnector, Body>;

fn client() -> Client {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

/// The longest message, and how many of them the gate may keep.
const MESSAGE: usize = 1 << 20;
const KEPT: usize = 4;
const CALLERS: usize = 16;

async fn gate(buffered: Bound) -> Gate {
    let policy = || RoutePolicy {
        audiences: vec!["https://api.test".into()],
        resource: Some("/mcp".into()),
        ..RoutePolicy::default()
    };
    let mcp = Mcp { max_message: MESSAGE as u64, ..Mcp::default() };
    let mut bounds = Bounds::default();
    bounds.buffered = buffered;
    builder()
        .bounds(bounds)
        .resource(Resource { mcp: Some(mcp), ..Resource::new("/mcp") })
        .route(Route::new("/mcp", policy()))
        .route(Route::mcp_rule(["*"], policy()).unwrap())
        .build()
        .await
        .unwrap()
}

async fn token(gate: &Gate, user: &str) -> String {
    let issued = gate.sessions().start(NewSession::new(user, "web")).await.unwrap();
    issued.access_token.expose().to_owned()
}

fn call(server: Server, token: &str, user: &str, method: &str, body: Body) -> http::Request<Body> {
    let request = server.request("/mcp").method(Method::POST).header("authorization", format!("Bearer {token}"));
    let request = request.header("content-type", "application/json").header("x-listener", user);
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
    request.body(body).unwrap()
}

fn message(method: &str, padding: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"a":"{}"}}}}"#, "x".repeat(padding))
}

/// A body that comes in pieces, for as long as its sender is there.
fn in_pieces() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, pieces) = mpsc::channel(1);
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), pieces))
    });
    (sender, Body::from_stream(pieces))
}

/// A call whose last byte comes when `finish` says so.
fn hold(
    client: &Client,
    server: Server,
    token: String,
    mut finish: watch::Receiver<bool>,
) -> JoinHandle<Option<Response<Incoming>>> {
    let client = client.clone();
    tokio::spawn(async move {
        let mut text = message("tools/list", MESSAGE - 128).into_bytes();
        let last = text.split_off(text.len() - 1);
        let (sender, body) = in_pieces();
        let sending = async move {
            for piece in text.chunks(1 << 16) {
                // Of a call that was refused, no more is read.
                let _ = sender.send(Bytes::copy_from_slice(piece)).await;
            }
            let _ = finish.wait_for(|finish| *finish).await;
            let _ = sender.send(last.into()).await;
            drop(sender);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // The connection of a refused call is closed, perhaps before its answer is read.
            answer = client.request(call(server, &token, "", "tools/list", body)) => answer.ok(),
            () = sending => None,
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn m17_bodies_of_many_callers_at_once_take_no_more_than_the_bound_and_leave_nothing() {
    let gate = gate(Bound { all: KEPT * MESSAGE, each: MESSAGE }).await;
    let app = Router::new().route("/mcp", any(|| async { "done" })).layer(gate.layer().forward_buffered());
    let (server, client) = (Server::axum(app).await, client());
    let kept = || gate.overload().buffered.now();
    let (finish, finishing) = watch::channel(false);
    let mut calls = Vec::new();
    for caller in 0..CALLERS {
        let token = token(&gate, &format!("user-{caller}")).await;
        calls.push(hold(&client, server, token, finishing.clone()));
    }
    // Each is refused, or has all but its last byte with the gate.
    let each = message("tools/list", MESSAGE - 128).len() - 1;
    until("each call is refused or kept", async || {
        let (now, refused) = (kept(), calls.iter().filter(|call| call.is_finished()).count());
        assert!(now <= KEPT * MESSAGE, "{now} bytes are kept");
        now.is_multiple_of(each) && refused + now / each == CALLERS
    })
    .await;
    let held = kept() / each;
    assert!((1..=KEPT).contains(&held), "{held} bodies are kept");
    finish.send(true).unwrap();
    let mut passed = 0;
    for call in calls {
        match call.await.unwrap() {
            Some(answer) if answer.status() == StatusCode::OK => passed += 1,
            Some(answer) => {
                assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
                assert!(answer.headers().contains_key("retry-after"));
            }
            None => {}
        }
    }
    assert_eq!(passed, held);
    until("nothing is kept", async || kept() == 0).await;
    // A caller that leaves frees its bytes, too.
    let (sender, body) = in_pieces();
    let token = token(&gate, "ada").await;
    let leaving = tokio::spawn(client.request(call(server, &token, "", "tools/list", body)));
    sender.send(Bytes::from(vec![b' '; 1 << 16])).await.unwrap();
    until("its bytes are kept", async || kept() == 1 << 16).await;
    leaving.abort();
    drop(sender);
    until("its bytes are free", async || kept() == 0).await;
    let whole = Body::from(message("tools/list", MESSAGE - 128));
    let answer = client.request(call(server, &token, "", "tools/list", whole)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

/// Says on its end whose stream it was.
struct Listener {
    user: String,
    gone: mpsc::UnboundedSender<String>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.gone.send(self.user.clone());
    }
}

const USERS: usize = 32;
const STREAMS: usize = 4;

/// Answers a subscription by events until it ends, and another call at once.
async fn serve(headers: HeaderMap, events: broadcast::Sender<Bytes>, gone: mpsc::UnboundedSender<String>) -> Body {
    if headers["mcp-method"] != "subscriptions/listen" {
        return Body::from("done");
    }
    let listener = Listener { user: headers["x-listener"].to_str().unwrap().to_owned(), gone };
    let events = futures_util::stream::unfold((events.subscribe(), listener), |(mut events, listener)| async {
        let event = events.recv().await.ok()?;
        Some((Ok::<_, std::io::Error>(event), (events, listener)))
    });
    let first = futures_util::stream::once(async { Ok(Bytes::from_static(b"data: 1\n\n")) });
    Body::from_stream(first.chain(events))
}

async fn event(stream: &mut Incoming) -> Option<Bytes> {
    stream.frame().await?.ok()?.into_data().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn m16_of_many_streams_beside_calls_those_of_the_revoked_session_end_and_no_other() {
    let gate = gate(Bounds::default().buffered).await;
    let (events, (gone, mut left)) = (broadcast::channel(4).0, mpsc::unbounded_channel());
    let handler = {
        let events = events.clone();
        move |headers: HeaderMap| serve(headers, events.clone(), gone.clone())
    };
    let app = Router::new().route("/mcp", any(handler)).layer(gate.layer().forward_buffered());
    let (server, client) = (Server::axum(app).await, client());
    let mut streams = BTreeMap::new();
    for user in (0..USERS).map(|user| format!("user-{user}")) {
        let token = token(&gate, &user).await;
        let mut its = Vec::new();
        for _ in 0..STREAMS {
            let body = Body::from(message("subscriptions/listen", 0));
            let answer = client.request(call(server, &token, &user, "subscriptions/listen", body)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let mut stream = answer.into_body();
            assert_eq!(event(&mut stream).await.unwrap(), "data: 1\n\n");
            its.push(stream);
        }
        streams.insert(user, its);
    }
    // Calls go on all the time, and none of them is refused.
    let (stop, stopped) = watch::channel(false);
    let caller = Arc::new(token(&gate, "caller").await);
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (client, caller, stopped) = (client.clone(), Arc::clone(&caller), stopped.clone());
            tokio::spawn(async move {
                let mut number = 0;
                while !*stopped.borrow() {
                    let body = Body::from(message("tools/list", 512));
                    let answer = client.request(call(server, &caller, "caller", "tools/list", body)).await.unwrap();
                    assert_eq!(answer.status(), StatusCode::OK);
                    answer.into_body().collect().await.unwrap();
                    number += 1;
                }
                number
            })
        })
        .collect();
    gate.sessions().revoke_all(Whose::Subject("user-0")).await.unwrap();
    for mut stream in streams.remove("user-0").unwrap() {
        assert_eq!(event(&mut stream).await, None, "the stream is cut off");
    }
    // A client leaves by itself.
    drop(streams.remove("user-1"));
    let mut ended = Vec::new();
    for _ in 0..2 * STREAMS {
        ended.push(left.recv().await.unwrap());
    }
    ended.sort();
    assert_eq!(ended, ["user-0", "user-1"].map(|user| vec![user; STREAMS]).concat());
    // The others get the next event, and then end.
    events.send(Bytes::from_static(b"data: 2\n\n")).unwrap();
    for stream in streams.values_mut().flatten() {
        assert_eq!(event(stream).await.unwrap(), "data: 2\n\n");
    }
    assert!(left.try_recv().is_err(), "another stream ended");
    for user in streams.keys() {
        gate.sessions().revoke_all(Whose::Subject(user)).await.unwrap();
    }
    for stream in streams.values_mut().flatten() {
        assert_eq!(event(stream).await, None);
        left.recv().await.unwrap();
    }
    stop.send(true).unwrap();
    for call in calls {
        assert!(call.await.unwrap() > 0);
    }
}
