//! An upstream that speaks gRPC: one method for each kind of call. Its messages are texts.

use std::net::SocketAddr;

use futures_util::StreamExt;
use futures_util::stream;
use http::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tonic::metadata::MetadataMap;
use tonic::server::Grpc;
use tonic::{Code, Response, Status, Streaming};
use tonic_prost::ProstCodec;

pub(crate) const UNARY: &str = "/test.Echo/Unary";
pub(crate) const COUNT: &str = "/test.Echo/Count";
pub(crate) const CHAT: &str = "/test.Echo/Chat";

/// The number of messages of `Count`.
pub(crate) const MANY: usize = 2_000;

pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener);
    address
}

pub(crate) fn serve(listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request| async { Ok::<_, std::convert::Infallible>(answer(request).await) });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
}

pub(crate) async fn answer<B>(request: Request<B>) -> http::Response<tonic::body::Body>
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut grpc = Grpc::new(ProstCodec::<String, String>::default());
    match request.uri().path() {
        UNARY => grpc.unary(tower::service_fn(unary), request).await,
        COUNT => grpc.server_streaming(tower::service_fn(count), request).await,
        CHAT => grpc.streaming(tower::service_fn(chat), request).await,
        _ => Status::unimplemented("the upstream knows no such method").into_http(),
    }
}

/// Answers with the received metadata, one line each.
async fn unary(request: tonic::Request<String>) -> Result<Response<String>, Status> {
    let headers = request.metadata().clone().into_headers();
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    let mut response = Response::new(format!("{}\n{}", request.get_ref(), lines.collect::<String>()));
    response.metadata_mut().insert("x-first", "said".parse().unwrap());
    response.metadata_mut().insert_bin("x-first-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
    Ok(response)
}

async fn count(
    request: tonic::Request<String>,
) -> Result<Response<impl futures_util::Stream<Item = Result<String, Status>>>, Status> {
    let text = request.into_inner();
    Ok(Response::new(stream::iter((0..MANY).map(move |n| Ok(format!("{n} {text}"))))))
}

/// Answers each message at once, and ends with a status that has metadata.
async fn chat(
    request: tonic::Request<Streaming<String>>,
) -> Result<Response<impl futures_util::Stream<Item = Result<String, Status>>>, Status> {
    let answers = request.into_inner().map(|message| message.map(|text| format!("re: {text}")));
    let mut metadata = MetadataMap::new();
    metadata.insert("x-tail", "7".parse().unwrap());
    let end = Status::with_metadata(Code::DataLoss, "100 % über", metadata);
    Ok(Response::new(answers.chain(stream::once(async { Err(end) }))))
}
