//! One attempt to fetch keys. If necessary, the discovery document is fetched first.

use std::time::Duration;

use http::header::ETAG;
use http::{HeaderValue, StatusCode};

use super::answer::{self, FetchFailure, Metadata};
use super::client::FetchClient;
use super::schedule::Schedule;
use super::settings::{KeyLocation, RemoteIssuer};
use rotogate_core::http_client::{Allowed, Document, FetchTarget, HttpClient};
use rotogate_core::token::verify::IssuerKeys;

#[derive(Debug)]
pub(super) enum Fetched {
    New(Box<IssuerKeys>),
    /// The issuer responded with 304.
    Unchanged,
}

#[derive(Clone)]
struct KeyUrl {
    url: String,
    target: FetchTarget,
}

pub(super) struct Fetcher {
    issuer: RemoteIssuer,
    client: FetchClient,
    pub(super) schedule: Schedule,
    metadata: Option<Metadata>,
    /// `etag` belongs to this URL.
    place: Option<KeyUrl>,
    etag: Option<HeaderValue>,
}

impl Fetcher {
    pub(super) fn new(issuer: RemoteIssuer) -> Self {
        let client = FetchClient::new(&issuer);
        let schedule = Schedule::new(&issuer.fetch);
        Self { issuer, client, schedule, metadata: None, place: None, etag: None }
    }

    pub(super) fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Forgets the ETag, so that the next request is unconditional.
    pub(super) fn forget(&mut self) {
        self.etag = None;
    }

    pub(super) async fn attempt(&mut self, now: Duration) -> Result<(Fetched, Duration), FetchFailure> {
        let result = self.try_once(now).await;
        self.schedule.fetched(result.is_ok());
        result
    }

    async fn try_once(&mut self, now: Duration) -> Result<(Fetched, Duration), FetchFailure> {
        let (client, authorization) = self.client.current()?;
        let authorization = authorization.as_ref();
        let place = self.place(&client, authorization, now).await?;
        match client.get_document(&place.target, self.etag.as_ref(), authorization).await? {
            Document::Unchanged { headers, .. } => {
                Ok((Fetched::Unchanged, answer::fresh_for(&headers, &self.issuer.fetch)))
            }
            Document::New { headers, body, .. } => {
                let keys = answer::keys(&body, &self.issuer.algorithms)?;
                self.etag = headers.get(ETAG).cloned();
                Ok((Fetched::New(Box::new(keys)), answer::fresh_for(&headers, &self.issuer.fetch)))
            }
        }
    }

    async fn place(
        &mut self,
        client: &HttpClient,
        authorization: Option<&HeaderValue>,
        now: Duration,
    ) -> Result<KeyUrl, FetchFailure> {
        let found = match &self.issuer.location {
            KeyLocation::JwksUrl(url) => KeyUrl { url: url.clone(), target: by_operator(url)? },
            KeyLocation::Discovery | KeyLocation::DiscoveryAt(_) => match &self.place {
                Some(place) if !self.schedule.discovery_is_due(now) => place.clone(),
                known => {
                    let known = known.clone();
                    match (self.discover(client, authorization).await, known) {
                        (Ok((metadata, place)), _) => {
                            self.schedule.discovered(now);
                            self.metadata = Some(metadata);
                            place
                        }
                        // The known URL may still work if discovery failed.
                        (Err(failure), Some(known)) if !failure.is_grave() => {
                            tracing::debug!(
                                issuer = %self.issuer.name,
                                %failure,
                                "the issuer's discovery document could not be read again"
                            );
                            known
                        }
                        (Err(failure), _) => return Err(failure),
                    }
                }
            },
        };
        if self.place.as_ref().is_none_or(|known| known.url != found.url) {
            // The stored ETag belongs to the previous URL.
            self.etag = None;
            self.place = Some(found.clone());
        }
        Ok(found)
    }

    async fn discover(
        &self,
        client: &HttpClient,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Metadata, KeyUrl), FetchFailure> {
        let [openid, rfc_8414] = answer::discovery_urls(&self.issuer.issuer);
        let (first, second) = match &self.issuer.location {
            KeyLocation::DiscoveryAt(url) => (url.clone(), None),
            KeyLocation::Discovery | KeyLocation::JwksUrl(_) => (openid, Some(rfc_8414)),
        };
        let mut target = by_operator(&first)?;
        let mut document = client.get_document(&target, None, authorization).await;
        if let (Err(error), Some(second)) = (&document, second)
            && error.status() == Some(StatusCode::NOT_FOUND)
        {
            target = by_operator(&second)?;
            document = client.get_document(&target, None, authorization).await;
        }
        let body = match document? {
            Document::New { body, .. } => body,
            Document::Unchanged { .. } => bytes::Bytes::new(),
        };
        let mut metadata = Metadata::parse(&body, &self.issuer.issuer)?;
        let allowed = Allowed::by_issuer(target.host(), &client.addresses(&target).await?);
        metadata.allowed = allowed;
        let url = metadata.jwks_uri.clone();
        let target = FetchTarget::parse(&url, allowed).map_err(|why| {
            let shown = answer::shown(&url);
            FetchFailure::refused_address(format!("the discovery document has the `jwks_uri` \"{shown}\": {why}"))
        })?;
        Ok((metadata, KeyUrl { url, target }))
    }
}

/// Parses a configured URL, or a URL derived from one.
fn by_operator(url: &str) -> Result<FetchTarget, FetchFailure> {
    FetchTarget::parse(url, Allowed::by_operator())
        .map_err(|why| FetchFailure::refused_address(format!("\"{}\": {why}", answer::shown(url))))
}
