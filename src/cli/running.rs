//! The gate that runs, asked through its admin listener.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::Failure;
use crate::admin::AdminToken;
use crate::config::Config;

/// Sends a request with the admin token. `None` if no gate answers.
pub(super) async fn ask(
    config: &Config,
    method: Method,
    path_and_query: &str,
) -> Result<Option<Response<Incoming>>, Failure> {
    if !config.admin.token_file.exists() {
        return Ok(None);
    }
    let token = AdminToken::load(&config.admin.token_file).map_err(Failure::Failed)?;
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{}{path_and_query}", config.admin.listen))
        .header(AUTHORIZATION, format!("Bearer {}", token.expose()))
        .body(Empty::new())
        .map_err(Failure::of)?;
    match client.request(request).await {
        Ok(response) if response.status().is_success() || response.status() == StatusCode::NOT_FOUND => {
            Ok(Some(response))
        }
        Ok(response) => Err(Failure::Failed(format!(
            "the gate on {} answered {}; see its log",
            config.admin.listen,
            response.status()
        ))),
        Err(error) if error.is_connect() => Ok(None),
        Err(error) => Err(Failure::of(error)),
    }
}

/// The whole of an answer.
pub(super) async fn read(response: Response<Incoming>) -> Result<Bytes, Failure> {
    Ok(response.into_body().collect().await.map_err(Failure::of)?.to_bytes())
}
