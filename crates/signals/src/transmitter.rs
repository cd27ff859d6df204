//! The requests to a transmitter. Its metadata names the URLs. These must be on the transmitter's own host, or on a
//! host that the operator lists. They must not lead to a less public address than the transmitter's own. No redirect is
//! followed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::access::Authorizer;
use super::wire::{self, Configuration, MAX_EVENTS, Metadata, Polled};
use super::{StreamError, StreamPlan, StreamSettings};
use rotogate_core::http_client::{Allowed, Document, FetchTarget, HttpClient};

/// The time limit of a request that the transmitter answers at once.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of a poll, which the transmitter answers when it has an event, or after a while.
const POLL_TIMEOUT: Duration = Duration::from_secs(75);
/// The longest answer to a poll, in bytes: events of 16 KiB with their names.
const MAX_POLLED: usize = MAX_EVENTS * (17 << 10);

/// The transmitter of one stream.
pub(crate) struct Transmitter {
    settings: StreamSettings,
    http: HttpClient,
    authorizer: Authorizer,
    /// The transmitter's metadata, and the addresses to which its URLs may lead.
    known: Option<(Metadata, Allowed)>,
}

/// The acknowledgements of earlier events in a poll.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// The events whose effect is durable.
    pub(crate) taken: Vec<String>,
    /// The refused events, each with the reason (RFC 8936 §2.2).
    pub(crate) refused: Map<String, Value>,
}

impl Transmitter {
    pub(crate) fn new(plan: StreamPlan) -> Self {
        let StreamPlan { settings, access, http, .. } = plan;
        Self { settings, http: http.with_timeout(TIMEOUT), authorizer: Authorizer::new(access), known: None }
    }

    /// The metadata, which is read for each use of the stream, and after failures.
    pub(crate) async fn discover(&mut self) -> Result<Metadata, StreamError> {
        let url = wire::metadata_url(&self.settings.transmitter).unwrap_or_default();
        let refused = |why: String| StreamError::Answer { place: url.clone(), why };
        let target = FetchTarget::parse(&url, Allowed::by_operator()).map_err(|why| refused(why.to_string()))?;
        let body = match self.http.get_document(&target, None, None).await? {
            Document::New { body, .. } => body,
            Document::Unchanged { .. } => Bytes::new(),
        };
        let metadata = Metadata::parse(&body, &self.settings).map_err(refused)?;
        let allowed = Allowed::by_issuer(target.host(), &self.http.addresses(&target).await?);
        self.known = Some((metadata.clone(), allowed));
        Ok(metadata)
    }

    /// A URL of the transmitter, if the gate may send its credential to it.
    // Attack: the transmitter names another host, or an internal address.
    fn target(&self, url: &str) -> Result<FetchTarget, StreamError> {
        let refused = |why: String| {
            let place =
                format!("\"{}\" of the transmitter", wire::shown(url.split(['?', '#']).next().unwrap_or_default()));
            StreamError::Answer { place, why }
        };
        let own = authority(&self.settings.transmitter);
        let named = authority(url).ok_or_else(|| refused("is no URL".to_owned()))?;
        if own.as_deref() != Some(&*named) && !self.settings.hosts.iter().any(|host| **host == *named) {
            return Err(refused("is on another host; if it is right, list the host in stream.hosts".to_owned()));
        }
        let allowed = self.known.as_ref().map_or_else(|| Allowed::by_issuer("", &[]), |(_, allowed)| *allowed);
        FetchTarget::parse(url, allowed).map_err(|why| refused(why.to_string()))
    }

    async fn call(
        &mut self,
        http: &HttpClient,
        (method, url): (Method, &str),
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes, FetchTarget), StreamError> {
        let target = self.target(url)?;
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        headers.insert(AUTHORIZATION, self.authorizer.header(&self.http).await?);
        let body = match body {
            Some(body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let (head, body) = http.send(&target, method, headers, body).await?.into_parts();
        if head.status == StatusCode::UNAUTHORIZED {
            self.authorizer.forget();
        }
        Ok((head.status, body, target))
    }

    async fn manage(
        &mut self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes, FetchTarget), StreamError> {
        let http = self.http.clone();
        self.call(&http, (method, url), body).await
    }

    fn metadata(&self) -> Result<&Metadata, StreamError> {
        let missing = || StreamError::Access("the transmitter's metadata is not known".to_owned());
        self.known.as_ref().map(|(metadata, _)| metadata).ok_or_else(missing)
    }

    /// Continues the stream with this id, or creates one. An existing stream is changed to the configured settings.
    // Requirement S16.
    pub(crate) async fn stream(&mut self, known: Option<&str>) -> Result<Configuration, StreamError> {
        let stream = self.found(known).await?;
        stream.poll_url.as_deref().map(|url| self.target(url)).transpose()?;
        Ok(stream)
    }

    async fn found(&mut self, known: Option<&str>) -> Result<Configuration, StreamError> {
        let url = self.metadata()?.configuration_endpoint.clone();
        if let Some(id) = known
            && let Some(stream) = self.changed(&url, id).await?
        {
            return Ok(stream);
        }
        let asked = Configuration::asked(&self.settings, None);
        let (status, body, at) = self.manage(Method::POST, &url, Some(&asked)).await?;
        match status {
            StatusCode::CREATED => match Configuration::parse(&body, &self.settings) {
                Ok(stream) => Ok(stream),
                Err(why) => {
                    self.remove(&url, &body).await;
                    Err(answer(&at, why))
                }
            },
            StatusCode::CONFLICT => {
                let (status, body, at) = self.manage(Method::GET, &url, None).await?;
                let stream = expect(&at, status, StatusCode::OK)
                    .and_then(|()| Configuration::of_list(&body, &self.settings).map_err(|why| answer(&at, why)))?;
                let changed = self.changed(&url, &stream.stream_id).await?;
                changed.ok_or_else(|| answer(&at, "the stream that it lists does not exist".to_owned()))
            }
            status => Err(unexpected(&at, status)),
        }
    }

    /// Changes the stream with this id to the configured settings. `None` if it does not exist.
    async fn changed(&mut self, url: &str, id: &str) -> Result<Option<Configuration>, StreamError> {
        let asked = Configuration::asked(&self.settings, Some(id));
        let (status, body, at) = self.manage(Method::PATCH, url, Some(&asked)).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        expect(&at, status, StatusCode::OK)?;
        Configuration::parse(&body, &self.settings).map(Some).map_err(|why| answer(&at, why))
    }

    /// Removes a new stream that does not have the requested settings. If the removal fails, no gate uses the stream.
    async fn remove(&mut self, url: &str, created: &[u8]) {
        let document = rotogate_core::token::verify::strict_object(created).unwrap_or_default();
        if let Some(id) = document.get("stream_id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            let _ = self.manage(Method::DELETE, &with_id(url, id), None).await;
        }
    }

    /// The status of a stream. `None` if the stream does not exist.
    pub(crate) async fn status(&mut self, id: &str) -> Result<Option<(&'static str, Option<String>)>, StreamError> {
        let url = with_id(&self.metadata()?.status_endpoint, id);
        let (status, body, at) = self.manage(Method::GET, &url, None).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        expect(&at, status, StatusCode::OK)?;
        wire::status(&body, id).map(Some).map_err(|why| answer(&at, why))
    }

    /// Requests to enable the stream. Returns its status afterwards.
    pub(crate) async fn enable(&mut self, id: &str) -> Result<&'static str, StreamError> {
        let url = self.metadata()?.status_endpoint.clone();
        let asked = json!({ "stream_id": id, "status": "enabled" });
        let (status, body, at) = self.manage(Method::POST, &url, Some(&asked)).await?;
        expect(&at, status, StatusCode::OK)?;
        wire::status(&body, id).map(|(word, _)| word).map_err(|why| answer(&at, why))
    }

    /// Requests a verification event with this `state`.
    pub(crate) async fn ask_verification(&mut self, id: &str, state: &str) -> Result<(), StreamError> {
        let url = self.metadata()?.verification_endpoint.clone();
        let asked = json!({ "stream_id": id, "state": state });
        let (status, _, at) = self.manage(Method::POST, &url, Some(&asked)).await?;
        // The status should be 204 (SSF 1.0 §8.1.4.2), but some transmitters answer 200 or 202.
        if status.is_success() { Ok(()) } else { Err(unexpected(&at, status)) }
    }

    /// Fetches events (RFC 8936 §2.2). `None` if the stream does not exist.
    pub(crate) async fn poll(&mut self, url: &str, said: &Acknowledged) -> Result<Option<Polled>, StreamError> {
        let mut body = json!({ "maxEvents": MAX_EVENTS, "returnImmediately": false });
        if !said.taken.is_empty() {
            body["ack"] = said.taken.as_slice().into();
        }
        if !said.refused.is_empty() {
            body["setErrs"] = said.refused.clone().into();
        }
        let http = self.http.clone().with_timeout(POLL_TIMEOUT).with_max_size(MAX_POLLED);
        let (status, body, at) = self.call(&http, (Method::POST, url), Some(&body)).await?;
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        expect(&at, status, StatusCode::OK)?;
        Polled::parse(&body).map(Some).map_err(|why| answer(&at, why))
    }
}

/// Asks a transmitter once, for `check --online`. Creates and changes nothing. Returns a line for each answer.
///
/// # Errors
/// The transmitter does not answer, or its answers contradict the configuration.
pub async fn inspect(plan: StreamPlan) -> Result<Vec<String>, StreamError> {
    let mut at = Transmitter::new(plan);
    let metadata = at.discover().await?;
    let keys = metadata.jwks_uri.as_deref().map(wire::shown).unwrap_or_else(|| "no jwks_uri".to_owned());
    let mut lines = vec![format!("transmitter {} answers; it signs with the keys at {keys}", at.settings.transmitter)];
    let (status, body, place) = at.manage(Method::GET, &metadata.configuration_endpoint, None).await?;
    if status == StatusCode::NOT_FOUND {
        lines.push("no stream yet: the gate creates it at its start".to_owned());
        return Ok(lines);
    }
    expect(&place, status, StatusCode::OK)?;
    match Configuration::of_list(&body, &at.settings) {
        Ok(stream) => {
            let found = at.status(&stream.stream_id).await?;
            let (word, reason) = found.unwrap_or(("unknown", None));
            let reason = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
            lines.push(format!("stream {} is {word}{reason}", wire::shown(&stream.stream_id)));
        }
        Err(why) => lines.push(format!("no stream of this gate yet ({why}): the gate creates it at its start")),
    }
    Ok(lines)
}

/// Host and port of a URL in the form of `hosts`: the usual port is left out.
fn authority(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.to_ascii_lowercase();
    let usual = match uri.scheme_str()? {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    Some(match uri.port_u16() {
        Some(port) if port != usual => format!("{host}:{port}"),
        Some(_) | None => host,
    })
}

fn with_id(url: &str, id: &str) -> String {
    let before = if url.contains('?') { '&' } else { '?' };
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    format!("{url}{before}stream_id={id}")
}

fn answer(at: &FetchTarget, why: String) -> StreamError {
    StreamError::Answer { place: at.to_string(), why }
}

fn unexpected(at: &FetchTarget, status: StatusCode) -> StreamError {
    answer(at, format!("answered {status}"))
}

fn expect(at: &FetchTarget, found: StatusCode, expected: StatusCode) -> Result<(), StreamError> {
    if found == expected { Ok(()) } else { Err(unexpected(at, found)) }
}
