//! A gRPC client over HTTP/2 in clear, and the gate that it talks to.

use std::net::SocketAddr;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use rotogate::program::knox::{
    AuthToken, AuthnWithPasswordRequest, AuthnWithPasswordResponse, GetMeRequest, GetMeResponse,
    RefreshAccessTokenRequest, RefreshAccessTokenResponse, User,
};
use tonic::Status;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use support::{CONFIG, Gate, Place};

pub(crate) const AUTHN: &str = "/user_api.v1.UserApiService/AuthnWithPassword";
pub(crate) const REFRESH: &str = "/user_api.v1.UserApiService/RefreshAccessToken";
pub(crate) const GET_ME: &str = "/user_api.v1.UserApiService/GetMe";

/// The usual configuration with the dialect, and further settings of a test.
pub(crate) fn config(more: &str) -> String {
    format!("{CONFIG}\n[[clients]]\nid = \"knox\"\n[[endpoints]]\ndialect = \"knox\"\n{more}")
}

/// A gate with the dialect. The folder is removed at the end of the test.
pub(crate) fn gate(more: &str) -> (Place, Gate) {
    let place = Place::new(&config(more));
    let gate = place.start();
    (place, gate)
}

pub(crate) fn http2<B>() -> Client<HttpConnector, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

pub(crate) fn grpc(address: SocketAddr) -> Grpc<Client<HttpConnector, tonic::body::Body>> {
    Grpc::with_origin(http2(), format!("http://{address}").parse::<Uri>().unwrap())
}

/// A unary call.
pub(crate) async fn call<Q, A>(
    address: SocketAddr,
    path: &'static str,
    request: tonic::Request<Q>,
) -> Result<tonic::Response<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = grpc(address);
    grpc.ready().await.unwrap();
    grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await
}

pub(crate) async fn authn(gate: &Gate, email: &str, password: &str) -> Result<(User, AuthToken), Status> {
    let request = AuthnWithPasswordRequest { email: email.to_owned(), password: password.to_owned() };
    let answer: AuthnWithPasswordResponse = call(gate.address, AUTHN, tonic::Request::new(request)).await?.into_inner();
    Ok((answer.user.unwrap(), answer.auth_token.unwrap()))
}

/// Logs `demo` in.
pub(crate) async fn login(gate: &Gate) -> AuthToken {
    authn(gate, "demo", &gate.password).await.unwrap().1
}

pub(crate) async fn refresh(gate: &Gate, refresh_token: &str) -> Result<(User, AuthToken), Status> {
    let request = RefreshAccessTokenRequest { refresh_token: refresh_token.to_owned() };
    let answer: RefreshAccessTokenResponse =
        call(gate.address, REFRESH, tonic::Request::new(request)).await?.into_inner();
    Ok((answer.user.unwrap(), answer.auth_token.unwrap()))
}

pub(crate) async fn get_me(gate: &Gate, access_token: &str) -> Result<User, Status> {
    get_me_with(gate, &[("authorization", &format!("Bearer {access_token}"))]).await
}

/// With these metadata.
pub(crate) async fn get_me_with(gate: &Gate, metadata: &[(&'static str, &str)]) -> Result<User, Status> {
    let mut request = tonic::Request::new(GetMeRequest {});
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let answer: GetMeResponse = call(gate.address, GET_ME, request).await?.into_inner();
    Ok(answer.user.unwrap())
}

/// A message in its frame.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat().into()
}

/// A request that no gRPC library sends. Returns the head, the body and the trailers of the answer.
pub(crate) async fn send(request: Request<Full<Bytes>>) -> (Response<Bytes>, Option<http::HeaderMap>) {
    let (parts, body) = http2().request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    (Response::from_parts(parts, body.to_bytes()), trailers)
}
