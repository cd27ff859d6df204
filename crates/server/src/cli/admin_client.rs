//! A client for the admin listener of the running gate.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{At, Failure};
use crate::server::AdminToken;
use crate::server::operate::admin::health;
use rotogate_config::AdminAccess;
use rotogate_core::fault::Chain;

/// Returns `None` if no gate responds.
pub(super) async fn send(
    gate: &AdminAccess,
    method: Method,
    path_and_query: &str,
) -> Result<Option<Response<Incoming>>, Failure> {
    send_with(gate, method, path_and_query, None, None).await
}

async fn send_with(
    gate: &AdminAccess,
    method: Method,
    path_and_query: &str,
    json: Option<Vec<u8>>,
    accept: Option<&'static str>,
) -> Result<Option<Response<Incoming>>, Failure> {
    let Some(file) = &gate.token_file else {
        return Err(Failure::Usage(
            "--token-file FILE is missing; FILE must contain an admin token of that gate".to_owned(),
        ));
    };
    // A file in an inaccessible folder does not count as missing.
    if file.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return match probe(gate, Method::GET, "/livez").await {
            Err(Unanswered::NoGate) => Ok(None),
            Err(Unanswered::Failed(failure)) => Err(failure),
            Ok((_, body)) if body != health::ALIVE => Ok(None),
            Ok(_) => Err(Failure::Failed(format!(
                "a gate runs on {}, but the file of its admin token is missing: {} (`admin.token_file`). Write a \
                 token of at least 32 characters to this file, and let only the gate's user read the file. The gate \
                 reads it within a second",
                gate.address,
                file.display()
            ))),
        };
    }
    let token = AdminToken::load(file).map_err(Failure::Failed)?;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{}{path_and_query}", gate.address))
        .header(AUTHORIZATION, format!("Bearer {}", token.expose()));
    if json.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(media) = accept {
        request = request.header(ACCEPT, media);
    }
    let request = request.body(Full::from(json.unwrap_or_default())).map_err(Failure::failed)?;
    let response = match client.request(request).await {
        Ok(response) => response,
        Err(error) if is_refused(&error) => return Ok(None),
        Err(error) => return Err(unreachable(gate, &error)),
    };
    match response.status() {
        status if status.is_success() => Ok(Some(response)),
        StatusCode::NOT_FOUND
        | StatusCode::BAD_REQUEST
        | StatusCode::BAD_GATEWAY
        | StatusCode::CONFLICT
        | StatusCode::UNPROCESSABLE_ENTITY => Ok(Some(response)),
        status @ StatusCode::UNAUTHORIZED if !is_admin(gate).await => Err(elsewhere(gate, status)),
        StatusCode::UNAUTHORIZED => Err(Failure::Failed(format!(
            "a gate runs on {}, but the token in {} is not one of its admin tokens (`admin.token_file`, \
             `admin.tokens`). Use a file that the gate reads",
            gate.address,
            file.display()
        ))),
        status => {
            let why =
                problem(response).await?.map_or_else(|| "see the gate's log".to_owned(), |problem| problem.detail);
            Err(Failure::Failed(format!("the gate on {} responded with {status}: {why}", gate.address)))
        }
    }
}

async fn is_admin(gate: &AdminAccess) -> bool {
    matches!(probe(gate, Method::GET, "/livez").await, Ok((_, body)) if body == health::ALIVE)
}

/// Returns the error if another program responds at the admin address.
pub(super) fn elsewhere(gate: &AdminAccess, status: StatusCode) -> Failure {
    let address = &gate.address;
    Failure::Failed(format!(
        "{address} is not the admin listener of a gate: it returned {status}; use the address in admin.listen"
    ))
}

pub(super) enum Unanswered {
    NoGate,
    /// Any other failure. A gate may still be running.
    Failed(Failure),
}

fn is_refused(error: &hyper_util::client::legacy::Error) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |&error| error.source());
    let mut kinds = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    // A connection to port 0 fails with `AddrNotAvailable`.
    error.is_connect()
        && kinds
            .any(|kind| matches!(kind, std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::AddrNotAvailable))
}

fn unreachable(gate: &AdminAccess, error: &hyper_util::client::legacy::Error) -> Failure {
    Failure::Failed(format!("the request to the gate on {} failed: {:?}", gate.address, Chain(error)))
}

/// Responses with any status are returned.
///
/// # Errors
/// No gate responded.
pub(super) async fn probe(gate: &AdminAccess, method: Method, path: &str) -> Result<(StatusCode, Bytes), Unanswered> {
    let failed = |failure| Unanswered::Failed(failure);
    let request = Request::builder().method(method).uri(format!("http://{}{path}", gate.address));
    let request = request.body(Full::<Bytes>::default()).map_err(|error| failed(Failure::failed(error)))?;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.map_err(|error| match is_refused(&error) {
        true => Unanswered::NoGate,
        false => failed(unreachable(gate, &error)),
    })?;
    let status = response.status();
    Ok((status, read_body(response).await.map_err(failed)?))
}

async fn read_body(response: Response<Incoming>) -> Result<Bytes, Failure> {
    Ok(response.into_body().collect().await.map_err(Failure::failed)?.to_bytes())
}

pub(super) async fn read<T: DeserializeOwned>(
    gate: &AdminAccess,
    response: Option<Response<Incoming>>,
) -> Result<T, Failure> {
    let response = answered(gate, response).await?;
    serde_json::from_slice(&read_body(response).await?).map_err(Failure::failed)
}

/// Sends a GET request to the running gate.
///
/// # Errors
/// No gate runs, or it refuses the request.
pub(super) async fn request<T: DeserializeOwned>(
    gate: &AdminAccess,
    method: Method,
    path_and_query: &str,
) -> Result<T, Failure> {
    read(gate, send(gate, method, path_and_query).await?).await
}

/// Sends a GET request, and returns the lines of the response as they arrive.
///
/// # Errors
/// No gate runs, or it refuses the request.
pub(super) async fn lines(
    gate: &AdminAccess,
    method: Method,
    path_and_query: &str,
    accept: Option<&'static str>,
) -> Result<Lines, Failure> {
    let response = send_with(gate, method, path_and_query, None, accept).await?;
    Ok(Lines { body: answered(gate, response).await?.into_body(), text: Vec::new() })
}

#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    text: Vec<u8>,
}

impl Lines {
    /// Returns the next line with its line break, or `None` at the end.
    ///
    /// # Errors
    /// The connection was closed before the response was complete.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.text.drain(..=end).collect()));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let data = frame.map_err(|_| cut_short())?.into_data();
            self.text.extend(data.unwrap_or_default());
        }
    }
}

pub(super) fn cut_short() -> Failure {
    Failure::Failed("the gate's response ended early; see the gate's log. You can run the command again".to_owned())
}

/// Sends a JSON body to the running gate.
///
/// # Errors
/// No gate runs, or it refuses the request.
pub(super) async fn post<T: DeserializeOwned>(
    gate: &AdminAccess,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    read(gate, Some(posted(gate, path, body).await?)).await
}

pub(super) async fn posted(
    gate: &AdminAccess,
    path: &str,
    body: &impl Serialize,
) -> Result<Response<Incoming>, Failure> {
    let json = serde_json::to_vec(body).map_err(Failure::failed)?;
    answered(gate, send_with(gate, Method::POST, path, Some(json), None).await?).await
}

async fn answered(gate: &AdminAccess, response: Option<Response<Incoming>>) -> Result<Response<Incoming>, Failure> {
    let response = response.ok_or_else(|| nobody(gate))?;
    match response.status().is_success() {
        true => Ok(response),
        false => Err(refused(gate, response).await?),
    }
}

pub(super) fn nobody(gate: &AdminAccess) -> Failure {
    Failure::Failed(format!(
        "no gate responds on {} (admin.listen): start it, because this command works only through a running gate",
        gate.address
    ))
}

pub(super) async fn refused(gate: &AdminAccess, response: Response<Incoming>) -> Result<Failure, Failure> {
    Ok(match problem(response).await? {
        None => Failure::Failed(format!("the program that responds on {} is not rotogate", gate.address)),
        Some(ProblemReply { detail, errors }) if errors.is_empty() => Failure::Failed(detail),
        Some(ProblemReply { detail, errors }) => Failure::Refused { what: detail, at: errors },
    })
}

async fn problem(response: Response<Incoming>) -> Result<Option<ProblemReply>, Failure> {
    let body = read_body(response).await?;
    Ok(serde_json::from_slice(&body).ok())
}

#[derive(Deserialize)]
struct ProblemReply {
    detail: String,
    #[serde(default)]
    errors: Vec<At>,
}

/// Escapes a name for use as a path segment of the admin API.
pub(super) fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
