//! Health checks, and server reflection in both versions. The libraries of these services respond before the request
//! body is complete.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tonic::Status;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::server::Builder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::calls::refusal;
use crate::dialect::{Reply, ReplyBody, StreamedBody};
use rotogate_core::bounds::MAX_KNOX_MESSAGE;

const WATCH_TIMEOUT: Duration = Duration::from_secs(60);

type Service = BoxCloneSyncService<Request<tonic::body::Body>, Response<tonic::body::Body>, Infallible>;

/// The reflection and health services of every gRPC server.
#[derive(Clone)]
pub(crate) struct Streams {
    v1: Option<Service>,
    v1alpha: Option<Service>,
    health: Service,
}

rotogate_core::debug_with!(Streams);

impl Streams {
    /// Makes reflection services for these descriptors, and a health service for `service`.
    pub(crate) fn new(descriptors: &'static [u8], service: &'static str) -> Self {
        let builder = || {
            Builder::configure()
                .register_encoded_file_descriptor_set(descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // The descriptors are compiled in, and a test decodes them, so this cannot fail.
        let v1 = builder().build_v1().ok();
        let v1alpha = builder().build_v1alpha().ok();
        Self {
            v1: v1.map(|server| BoxCloneSyncService::new(server.max_decoding_message_size(MAX_KNOX_MESSAGE))),
            v1alpha: v1alpha.map(|server| BoxCloneSyncService::new(server.max_decoding_message_size(MAX_KNOX_MESSAGE))),
            health: BoxCloneSyncService::new(
                HealthServer::new(Alive(service)).max_decoding_message_size(MAX_KNOX_MESSAGE),
            ),
        }
    }

    pub(crate) async fn answer(&self, path: &str, headers: &HeaderMap, body: StreamedBody) -> Reply {
        let service = match path {
            REFLECTION_V1 => self.v1.clone(),
            REFLECTION_V1_ALPHA => self.v1alpha.clone(),
            HEALTH_CHECK | HEALTH_WATCH => Some(self.health.clone()),
            _ => None,
        };
        let Some(service) = service else { return refusal(&Status::unimplemented("no such method")) };
        let mut request = Request::new(tonic::body::Body::new(body));
        *request.headers_mut() = headers.clone();
        match http::Uri::try_from(path) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return refusal(&Status::unimplemented("no such method")),
        }
        match service.oneshot(request).await {
            Ok(response) => response.map(|body| ReplyBody::streamed(Unfailing(body).boxed_unsync())),
            Err(never) => match never {},
        }
    }
}

pub(crate) const REFLECTION_V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub(crate) const REFLECTION_V1_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
pub(crate) const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
pub(crate) const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Reports a service's failure in trailers. Other failures end the stream without a status, and clients treat that as a
/// failure.
struct Unfailing(tonic::body::Body);

impl Body for Unfailing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx).map(|frame| frame.and_then(Result::ok).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// A stream that never yields.
fn quiet<T: Send + 'static>() -> BoxStream<'static, T> {
    stream::once(tokio::time::sleep(WATCH_TIMEOUT)).filter_map(|()| std::future::ready(None)).boxed()
}

/// The health service, which reports `SERVING` whenever the gate can respond.
#[derive(Clone, Copy, Debug)]
struct Alive(&'static str);

impl Alive {
    fn health_of(self, service: &str) -> Option<HealthCheckResponse> {
        // The empty name means the whole server.
        let is_known = service.is_empty() || service == self.0;
        is_known.then(|| HealthCheckResponse { status: ServingStatus::Serving.into() })
    }
}

#[tonic::async_trait]
impl Health for Alive {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let health = self.health_of(&request.get_ref().service);
        health.map(tonic::Response::new).ok_or_else(|| Status::not_found("no such service"))
    }

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
        let health = self.health_of(&request.get_ref().service).unwrap_or(unknown);
        // The status never changes while the gate can respond.
        let watched = stream::once(async move { Ok(health) }).chain(quiet());
        Ok(tonic::Response::new(watched.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a10_who_watches_is_left_after_a_minute() {
        let request = tonic::Request::new(HealthCheckRequest::default());
        let mut watched = Alive("").watch(request).await.unwrap().into_inner();
        let begun = tokio::time::Instant::now();
        assert!(watched.next().await.unwrap().is_ok());
        assert!(begun.elapsed().is_zero());
        assert!(watched.next().await.is_none());
        assert_eq!(begun.elapsed(), WATCH_TIMEOUT);
    }

    #[test]
    fn the_descriptors_can_be_told_by_both_versions() {
        let streams = Streams::new(super::super::proto::DESCRIPTORS, super::super::SERVICE);
        assert!(streams.v1.is_some() && streams.v1alpha.is_some());
    }
}
