//! The client of a running gate's admin listener.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};

use super::{At, Failure};
use crate::config::Config;
use crate::server::admin::AdminToken;

/// Sends a request with the admin token. `None` if no gate answers.
pub(super) async fn send(
    config: &Config,
    method: Method,
    path_and_query: &str,
) -> Result<Option<Response<Incoming>>, Failure> {
    send_with(config, method, path_and_query, None, None).await
}

/// The same, with a body of JSON and with what to accept, if there is such a thing.
async fn send_with(
    config: &Config,
    method: Method,
    path_and_query: &str,
    json: Option<Vec<u8>>,
    accept: Option<&'static str>,
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
    if let Some(media) = accept {
        request = request.header(ACCEPT, media);
    }
    let request = request.body(Full::from(json.unwrap_or_default())).map_err(Failure::of)?;
    let response = match client.request(request).await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Ok(None),
        Err(error) => return Err(Failure::of(error)),
    };
    match response.status() {
        status if status.is_success() => Ok(Some(response)),
        StatusCode::NOT_FOUND
        | StatusCode::BAD_REQUEST
        | StatusCode::BAD_GATEWAY
        | StatusCode::CONFLICT
        | StatusCode::UNPROCESSABLE_ENTITY => Ok(Some(response)),
        status => {
            let why = problem(response).await?.map_or_else(|| "see its log".to_owned(), |problem| problem.detail);
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

/// The lines of such an answer, which come one by one.
///
/// # Errors
/// No gate runs, or it refuses the request.
pub(super) async fn lines(
    config: &Config,
    method: Method,
    path_and_query: &str,
    accept: Option<&'static str>,
) -> Result<Lines, Failure> {
    let response = send_with(config, method, path_and_query, None, accept).await?;
    Ok(Lines { body: answered(config, response).await?.into_body(), text: Vec::new() })
}

/// The lines of an answer.
#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    text: Vec<u8>,
}

impl Lines {
    /// The next line, with its end; `None` at the end of the answer.
    ///
    /// # Errors
    /// The answer is cut short.
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

/// An answer without its end.
pub(super) fn cut_short() -> Failure {
    Failure::Failed("the gate's answer was cut short: see its log. The command can be run again".to_owned())
}

/// The answer of a gate that must run, to a request with a body of JSON.
///
/// # Errors
/// No gate runs, or it refuses the request.
pub(super) async fn post(config: &Config, path: &str, body: &impl Serialize) -> Result<Bytes, Failure> {
    let json = serde_json::to_vec(body).map_err(Failure::of)?;
    let response = answered(config, send_with(config, Method::POST, path, Some(json), None).await?).await?;
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
    Err(match problem(response).await? {
        None => Failure::Failed(format!("the program that answers on {} is not rotogate", config.admin.listen)),
        Some(Problem { detail, errors }) if errors.is_empty() => Failure::Failed(detail),
        Some(Problem { detail, errors }) => Failure::Refused { what: detail, at: errors },
    })
}

/// What a problem document says, if it is one.
async fn problem(response: Response<Incoming>) -> Result<Option<Problem>, Failure> {
    let body = read_body(response).await?;
    Ok(serde_json::from_slice(&body).ok())
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    errors: Vec<At>,
}
