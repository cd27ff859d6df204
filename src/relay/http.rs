//! A provider at URLs. Each request uses its own connection, and its reply has at most 64 KiB.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use zeroize::Zeroizing;

use super::oauth;
use super::provider::{DPOP_NONCE, Meaning, Provider, ProviderReply, ProviderRequest, Renewal, SendError};
use rotogate_core::http_client::{ClientCredentials, FetchError, FetchTarget, HttpClient, retry_after};

/// Returns the current URL of a provider's endpoint, or `None` as long as it is unknown.
pub type UrlSource = Arc<dyn Fn() -> Option<FetchTarget> + Send + Sync>;

/// The URLs of a provider.
#[derive(Clone)]
pub struct ProviderUrls {
    /// The token endpoint.
    pub token: UrlSource,
    /// The revocation endpoint (RFC 7009), if revocations are passed on.
    pub revocation: Option<UrlSource>,
}

rotogate_core::debug_with!(ProviderUrls);

impl ProviderUrls {
    /// URLs that never change.
    pub fn fixed(token: FetchTarget, revocation: Option<FetchTarget>) -> Self {
        let fixed = |target: FetchTarget| -> UrlSource { Arc::new(move || Some(target.clone())) };
        Self { token: fixed(token), revocation: revocation.map(fixed) }
    }
}

/// Sends requests to a provider.
#[derive(Clone, Debug)]
pub struct HttpCaller {
    http: HttpClient,
}

impl HttpCaller {
    /// Makes a caller that sends over this client. A reply must arrive within `timeout`.
    pub fn new(http: HttpClient, timeout: Duration) -> Self {
        // The timeout is a little shorter than the relay's own timeout, so that it expires first. Only this caller
        // knows whether anything was sent.
        let timeout = timeout - timeout / 20;
        Self { http: http.with_timeout(timeout).with_max_size(oauth::MAX_BODY) }
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// The URL is unknown, or no complete reply arrived.
    pub async fn send(
        &self,
        url: &UrlSource,
        method: Method,
        headers: HeaderMap,
        body: &[u8],
    ) -> Result<ProviderReply, SendError> {
        let target = url().ok_or_else(|| SendError::NotSent("the provider's URL is not known yet".to_owned()))?;
        let sent = self.http.send(&target, method, headers, Bytes::copy_from_slice(body)).await;
        sent.map(|answer| oauth::with_usual_status(reply(answer))).map_err(|error| send_error(&error))
    }
}

pub(crate) fn send_error(error: &FetchError) -> SendError {
    if error.not_sent() { SendError::NotSent(error.to_string()) } else { SendError::Lost(error.to_string()) }
}

pub(crate) fn reply(response: Response<Bytes>) -> ProviderReply {
    let (parts, body) = response.into_parts();
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    ProviderReply {
        status: parts.status.as_u16(),
        retry_after: retry_after(&parts.headers),
        challenge: text(WWW_AUTHENTICATE),
        dpop_nonce: text(DPOP_NONCE),
        body: Zeroizing::new(body.to_vec()),
    }
}

/// A provider that speaks RFC 6749.
#[derive(Debug)]
pub struct OAuthProvider {
    caller: HttpCaller,
    urls: ProviderUrls,
    client: Option<ClientCredentials>,
}

impl OAuthProvider {
    /// Makes a provider at these URLs.
    pub const fn new(caller: HttpCaller, urls: ProviderUrls) -> Self {
        Self { caller, urls, client: None }
    }

    /// Adds the credentials of this client to each request.
    #[must_use]
    pub fn with_client(mut self, client: Option<ClientCredentials>) -> Self {
        self.client = client;
        self
    }

    async fn post(&self, url: &UrlSource, request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        let mut headers = request.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut body = request.body.clone();
        if let Some(client) = &self.client {
            let added = client.add_to(&mut headers, &mut body);
            added
                .ok_or_else(|| SendError::NotSent("the client's id, secret or assertion cannot be sent".to_owned()))?;
        }
        self.caller.send(url, Method::POST, headers, &body).await
    }
}

#[async_trait]
impl Provider for OAuthProvider {
    fn proof_url(&self) -> Option<String> {
        (self.urls.token)().map(|target| target.to_string())
    }

    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        self.post(&self.urls.token, request).await
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        oauth::read(token, reply)
    }

    fn aged(&self, reply: ProviderReply, passed: Duration) -> ProviderReply {
        oauth::aged(reply, passed)
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        oauth::access_token(reply)
    }

    fn renewal(&self, request: &ProviderRequest, reply: &ProviderReply) -> Option<Renewal> {
        oauth::renewal(request, reply)
    }

    async fn revoke(&self, request: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        let url = self.urls.revocation.as_ref();
        let url = url.ok_or_else(|| SendError::NotSent("the provider has no revocation URL".to_owned()))?;
        let reply = self.post(url, request).await?;
        // The status is 200, even for an unknown token (RFC 7009 §2.2).
        if reply.status == StatusCode::OK {
            return Ok((true, ProviderReply { body: Zeroizing::default(), ..reply }));
        }
        match oauth::read("", &reply) {
            Meaning::Dead | Meaning::Refused | Meaning::Again => Ok((false, reply)),
            // The client gets an error status, but not the provider's body.
            Meaning::Granted { .. } | Meaning::Busy | Meaning::Unclear => {
                let status = StatusCode::BAD_GATEWAY.as_u16().max(reply.status);
                Ok((false, ProviderReply { status, body: Zeroizing::default(), ..reply }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
