//! HTTP/2, and gRPC over it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use hyper::http::request::Builder;
use hyper::{HeaderMap, Request, Response};
use prost::Message;
use rotogate::program::grpc::proto::envoy::config::core::v3::{
    Address, HeaderMap as WireHeaders, HeaderValue as WireHeader, SocketAddress, address,
};
use rotogate::program::grpc::proto::envoy::service::auth::v3::attribute_context::{
    HttpRequest, Peer, Request as Asked,
};
use rotogate::program::grpc::proto::envoy::service::auth::v3::check_response::HttpResponse;
use rotogate::program::grpc::proto::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};

use super::{HOST, Speech, Target};
use crate::serve::BODY;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Before each message of a call: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// A status of gRPC.
const UNAUTHENTICATED: &[u8] = b"16";

/// One of the streams of a connection.
pub struct Client {
    sender: SendRequest<Bytes>,
    target: Arc<Target>,
}

impl Client {
    /// Opens a connection with this many streams at a time.
    pub async fn open(target: &Arc<Target>, streams: usize) -> Result<Vec<Self>> {
        let wire = target.wire().await?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake::<_, Bytes>(wire)
            .await?;
        tokio::spawn(connection);
        let sender = sender.ready().await?;
        Ok((0..streams).map(|_| Self { sender: sender.clone(), target: Arc::clone(target) }).collect())
    }

    pub async fn ask(&mut self, token: Option<&str>) -> Result<u16> {
        match self.target.speech {
            Speech::Checks(_) => self.check(token).await,
            Speech::Calls(_) => self.greet(token).await,
            _ => self.get(token).await,
        }
    }

    async fn get(&mut self, token: Option<&str>) -> Result<u16> {
        let scheme = if self.target.tls.is_some() { "https" } else { "http" };
        let request = Request::get(format!("{scheme}://{HOST}{}", self.target.path))
            .header("user-agent", "bench/1")
            .header("accept", "application/json")
            .header("accept-encoding", "gzip, br");
        let mut sender = self.sender.clone().ready().await?;
        let (answer, _) = sender.send_request(with(request, token).body(())?, true)?;
        let (head, body, _) = whole(answer.await?).await?;
        let status = head.status().as_u16();
        ensure!((status == 200) == (body == BODY[..]), "{status} with another body");
        Ok(status)
    }

    /// A call that goes to the upstream.
    async fn greet(&mut self, token: Option<&str>) -> Result<u16> {
        let message = BODY[..64].to_vec();
        let path = self.target.path.clone();
        let (head, body, trailers) = self.call(&path, token, &message).await?;
        let status = head.status().as_u16();
        if status != 200 {
            return Ok(status);
        }
        // A gateway that knows gRPC refuses in its way.
        match trailers.get("grpc-status").context("a call without a status")?.as_bytes() {
            b"0" => ensure!(body.get(PREFIX..) == Some(&BODY[..]), "another message"),
            UNAUTHENTICATED => return Ok(401),
            other => anyhow::bail!("a call failed with {}", String::from_utf8_lossy(other)),
        }
        Ok(200)
    }

    /// The question of Envoy about a request.
    async fn check(&mut self, token: Option<&str>) -> Result<u16> {
        let question = question(&self.target.path, token);
        let (head, body, trailers) = self.call(CHECK, None, &question).await?;
        ensure!(head.status() == 200, "{} to a call", head.status());
        let status = trailers.get("grpc-status").context("a call without a status")?;
        ensure!(status == "0", "a call failed: {status:?}");
        let verdict = CheckResponse::decode(body.get(PREFIX..).context("a message")?)?;
        let code = verdict.status.context("a verdict")?.code;
        Ok(match verdict.http_response.context("a verdict with its answer")? {
            HttpResponse::OkResponse(changes) => {
                ensure!(code == 0, "permitted with the code {code}");
                ensure!(!changes.headers.is_empty(), "permitted without an identity");
                200
            }
            HttpResponse::DeniedResponse(answer) => {
                ensure!(code != 0, "refused with the code 0");
                answer.status.context("a refusal with a status")?.code.try_into()?
            }
        })
    }

    /// A call of gRPC. Returns the head, the message with its prefix, and the trailers.
    async fn call(
        &mut self,
        path: &str,
        token: Option<&str>,
        message: &impl Message,
    ) -> Result<(Response<()>, BytesMut, HeaderMap)> {
        let request = Request::post(format!("http://{HOST}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut body = BytesMut::with_capacity(PREFIX + message.encoded_len());
        body.put_u8(0);
        body.put_u32(message.encoded_len().try_into()?);
        message.encode(&mut body)?;
        let mut sender = self.sender.clone().ready().await?;
        let (answer, mut stream) = sender.send_request(with(request, token).body(())?, false)?;
        stream.send_data(body.freeze(), true)?;
        whole(answer.await?).await
    }
}

fn with(request: Builder, token: Option<&str>) -> Builder {
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}

/// Reads an answer to its end. One without a body has its trailers in its head.
async fn whole(answer: Response<h2::RecvStream>) -> Result<(Response<()>, BytesMut, HeaderMap)> {
    let (head, mut stream) = answer.into_parts();
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_else(|| head.headers.clone());
    Ok((Response::from_parts(head, ()), body, trailers))
}

/// As Envoy asks with `encode_raw_headers`.
fn question(path: &str, token: Option<&str>) -> CheckRequest {
    let header = |key: &'static str, value: String| WireHeader {
        key: key.into(),
        raw_value: value.into(),
        ..WireHeader::default()
    };
    let mut headers: Vec<_> = [
        (":authority", HOST),
        (":path", path),
        (":method", "GET"),
        (":scheme", "http"),
        ("user-agent", "bench/1"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "0b9f3d52-1b6a-4e0e-9c54-0b6c3c6f3a11"),
    ]
    .map(|(key, value)| header(key, value.to_owned()))
    .into();
    headers.extend(token.map(|token| header("authorization", format!("Bearer {token}"))));
    let client = SocketAddress { address: "127.0.0.1".into() };
    let http = HttpRequest {
        method: "GET".into(),
        path: path.to_owned().into(),
        host: HOST.into(),
        scheme: "http".into(),
        header_map: Some(WireHeaders { headers }),
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(Address { address: Some(address::Address::SocketAddress(client)) }) }),
            request: Some(Asked { http: Some(http) }),
        }),
    }
}
