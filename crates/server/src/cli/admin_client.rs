//! The client of a running gate's admin listener.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::config::Config;
use crate::server::admin::AdminToken;

/// Sends a request with the admin token. `None` if no gate answers.
pub(super) async fn send(
    config: &Config,
    method: Method,
    path_and_query: &str,
) -> Result<Option<Response<Incoming>>, Failure> {
    send_with(config, method, path_and_query, None).await
}

/// The same, with a body of JSON if there is one.
async fn send_with(
    config: &Config,
    method: Method,
    path_and_query: &str,
    json: Option<Vec<u8>>,
) -> Result<Option<Response<Incoming>>, Failure> {
    let file = &config.admin.token_file;
    // A token file that this user may not see is not the same as a missing one.
    if file.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let token = AdminToken::load(file).map_err(Failure::Failed)?;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{}{path_and_query}", config.admin.listen))
        .header(AUTHORIZATION, format!("Bearer {}", token.expose()));
    if json.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::from(json.unwrap_or_default())).map_err(Failure::of)?;
    let response = match client.request(request).await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Ok(None),
        Err(error) => return Err(Failure::of(error)),
    };
    match response.status() {
        status if status.is_success() => Ok(Some(response)),
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::BAD_GATEWAY | StatusCode::CONFLICT => {
            Ok(Some(response))
        }
        status => {
            let why = detail(response).await?.unwrap_or_else(|| "see its log".to_owned());
            Err(Failure::Failed(format!("the gate on {} answered {status}: {why}", config.admin.listen)))
        }
    }
}

/// Asks for what needs no token: a probe. Any status is an answer.
///
/// # Errors
/// No gate answers.
pub(super) async fn probe(config: &Config, method: Method, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let listen = config.admin.listen;
    let request = Request::builder().method(method).uri(format!("http://{listen}{path}"));
    let request = request.body(Full::<Bytes>::default()).map_err(Failure::of)?;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.map_err(|error| match error.is_connect() {
        true => Failure::Failed(format!("no gate answers on {listen} (admin.listen)")),
        false => Failure::of(error),
    })?;
    let status = response.status();
    Ok((status, read_body(response).await?))
}

/// The whole response body.
pub(super) async fn read_body(response: Response<Incoming>) -> Result<Bytes, Failure> {
    Ok(response.into_body().collect().await.map_err(Failure::of)?.to_bytes())
}

/// The answer of a gate that must run.
///
/// # Errors
/// No gate runs, or it refuses the request.
pub(super) async fn request(config: &Config, method: Method, path_and_query: &str) -> Result<Bytes, Failure> {
    let response = ask(config, method, path_and_query).await?;
    read_body(response).await
}

/// The body of such an answer, which comes step by step.
///
/// # Errors
/// No gate runs, or it refuses the request.
pub(super) async fn stream(config: &Config, method: Method, path_and_query: &str) -> Result<Incoming, Failure> {
    ask(config, method, path_and_query).await.map(Response::into_body)
}

/// The answer of a gate that must run, to a request with a body of JSON.
///
/// # Errors
/// No gate runs, or it refuses the request.
pub(super) async fn post(config: &Config, path: &str, body: &impl Serialize) -> Result<Bytes, Failure> {
    let json = serde_json::to_vec(body).map_err(Failure::of)?;
    let response = answered(config, send_with(config, Method::POST, path, Some(json)).await?).await?;
    read_body(response).await
}

async fn ask(config: &Config, method: Method, path_and_query: &str) -> Result<Response<Incoming>, Failure> {
    answered(config, send(config, method, path_and_query).await?).await
}

async fn answered(config: &Config, response: Option<Response<Incoming>>) -> Result<Response<Incoming>, Failure> {
    let Some(response) = response else {
        return Err(Failure::Failed(format!(
            "no gate answers on {} (admin.listen): start it; sessions, fetched keys and stores are listed and changed through it",
            config.admin.listen
        )));
    };
    if response.status().is_success() {
        return Ok(response);
    }
    let why = detail(response).await?;
    Err(Failure::Failed(
        why.unwrap_or_else(|| format!("the program that answers on {} is not rotogate", config.admin.listen)),
    ))
}

/// What a problem document says.
async fn detail(response: Response<Incoming>) -> Result<Option<String>, Failure> {
    let body = read_body(response).await?;
    Ok(serde_json::from_slice::<Problem>(&body).ok().and_then(|problem| problem.detail))
}

#[derive(Deserialize)]
struct Problem {
    detail: Option<String>,
}
