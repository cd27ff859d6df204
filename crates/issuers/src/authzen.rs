//! Asks a decision point over HTTP: the access evaluation of AuthZEN 1.0, and its metadata.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::decision::{DecisionFault, DecisionPoint, MAX_ANSWER, PolicyDecision};
use rotogate_core::http_client::{Allowed, Document, FetchTarget, HttpClient, bearer};
use rotogate_core::random::parts_digest;
use rotogate_core::token::verify::strict_object;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long fetched metadata is used before it is fetched again.
const METADATA_FOR: Duration = Duration::from_secs(3600);
/// The shortest time between two attempts to fetch it again.
const METADATA_RETRY: Duration = Duration::from_secs(60);
/// The path of an evaluation, unless the metadata name another (AuthZEN 1.0 §10.1).
const EVALUATION: &str = "/access/v1/evaluation";
const WELL_KNOWN: &str = "/.well-known/authzen-configuration";

/// The location of the evaluation endpoint.
#[derive(Clone, Debug)]
pub enum EvaluationPlace {
    /// At this URL.
    Url(FetchTarget),
    /// At the URL in the metadata of the decision point with this identifier.
    Metadata(String),
}

/// A decision point that is asked over HTTP.
pub struct HttpDecisionPoint {
    client: HttpClient,
    place: EvaluationPlace,
    authorization: Option<HeaderValue>,
    identity: Box<[u8]>,
    discovered: Arc<Mutex<Option<Discovered>>>,
    time: Arc<dyn TimeSource>,
}

/// The evaluation endpoint that the metadata named last.
struct Discovered {
    target: FetchTarget,
    /// When the last attempt to fetch the metadata began, and when the next one is due, by monotonic time.
    began: Duration,
    due: Duration,
}

rotogate_core::debug_with!(HttpDecisionPoint { place });

impl HttpDecisionPoint {
    /// A decision point at this place, which gets the token as `Authorization: Bearer`. The client's timeout bounds
    /// each decision.
    ///
    /// # Errors
    /// The token cannot be in a header.
    pub fn new(client: HttpClient, place: EvaluationPlace, token: Option<&SecretString>) -> Result<Self, &'static str> {
        let authorization = match token {
            Some(token) => Some(bearer(token).ok_or("the token has a character that no header may have")?),
            None => None,
        };
        let shown = match &place {
            EvaluationPlace::Url(target) => target.to_string(),
            EvaluationPlace::Metadata(url) => format!("metadata of {url}"),
        };
        let secret = token.map_or("", |token| token.expose_secret());
        let identity = parts_digest(&[shown.as_bytes(), secret.as_bytes()]).into();
        Ok(Self {
            client: client.with_max_size(MAX_ANSWER).kept_alive(),
            place,
            authorization,
            identity,
            discovered: Arc::default(),
            time: Arc::new(SystemTime::new()),
        })
    }

    /// The evaluation endpoint, from the configuration or from the metadata. An endpoint that is known stays in use while
    /// the metadata are fetched again, in a task of its own.
    ///
    /// # Errors
    /// The endpoint is not known yet, and the metadata cannot be fetched, or belong to another decision point.
    pub async fn evaluation(&self) -> Result<FetchTarget, DecisionFault> {
        let url = match &self.place {
            EvaluationPlace::Url(target) => return Ok(target.clone()),
            EvaluationPlace::Metadata(url) => url,
        };
        let mut discovered = self.discovered.lock().await;
        let began = self.time.monotonic();
        let found = move |target| Discovered { target, began, due: began + METADATA_FOR };
        let fetch = || discover(self.client.clone(), url.clone(), self.authorization.clone());
        let Some(known) = &mut *discovered else {
            let target = fetch().await?;
            *discovered = Some(found(target.clone()));
            return Ok(target);
        };
        let target = known.target.clone();
        if began >= known.due {
            (known.began, known.due) = (began, began + METADATA_RETRY);
            let (fetch, discovered) = (fetch(), Arc::clone(&self.discovered));
            tokio::spawn(async move {
                // After a fault, the endpoint that is known stays in use.
                if let Ok(target) = fetch.await {
                    *discovered.lock().await = Some(found(target));
                }
            });
        }
        Ok(target)
    }

    /// Notes that the endpoint did not decide: it may have moved.
    fn doubt(&self) {
        // The lock is held by a request that fetches the metadata, or looks at them.
        if let Ok(mut discovered) = self.discovered.try_lock()
            && let Some(known) = &mut *discovered
        {
            known.due = known.due.min(known.began + METADATA_RETRY);
        }
    }

    async fn ask(&self, question: &[u8], id: &str) -> Result<PolicyDecision, DecisionFault> {
        let target = self.evaluation().await?;
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, json.clone()), (ACCEPT, json)]);
        headers.extend(HeaderValue::try_from(id).ok().map(|id| (REQUEST_ID, id)));
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        let sent = self.client.send(&target, Method::POST, headers, Bytes::copy_from_slice(question)).await;
        let (head, body) = sent.map_err(DecisionFault::new)?.into_parts();
        if head.status != StatusCode::OK {
            let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let retry_after = retry_after.map(Duration::from_secs);
            let of_asker = head.status != StatusCode::SERVICE_UNAVAILABLE;
            let fault = DecisionFault::new(format!("it answered {}", head.status));
            return Err(DecisionFault { retry_after, of_asker, ..fault });
        }
        let kind = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            return Err(DecisionFault::new("the answer is not application/json"));
        }
        PolicyDecision::read(&body).map_err(DecisionFault::new)
    }
}

/// The evaluation endpoint in the metadata of the decision point with this identifier.
async fn discover(
    client: HttpClient,
    url: String,
    authorization: Option<HeaderValue>,
) -> Result<FetchTarget, DecisionFault> {
    let place = metadata_url(&url).ok_or_else(|| DecisionFault::new("its URL is invalid"))?;
    let place = FetchTarget::parse(&place, Allowed::by_operator()).map_err(DecisionFault::new)?;
    let document = client.get_document(&place, None, authorization.as_ref()).await;
    match document.map_err(DecisionFault::new)? {
        Document::New { body, .. } => evaluation_of(&url, &body).map_err(DecisionFault::new),
        Document::Unchanged { .. } => Err(DecisionFault::new("the metadata did not come")),
    }
}

/// The URL of the metadata: the well-known path is inserted between host and path.
fn metadata_url(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let path = uri.path().trim_end_matches('/');
    Some(format!("{}://{}{WELL_KNOWN}{path}", uri.scheme()?, uri.authority()?))
}

/// The evaluation endpoint in the metadata. The metadata must belong to this decision point, and the endpoint must be
/// on its host, so that a document cannot direct the gate elsewhere.
fn evaluation_of(url: &str, body: &[u8]) -> Result<FetchTarget, String> {
    let metadata = strict_object(body).map_err(|_| "the metadata are no JSON object".to_owned())?;
    let text = |name: &str| metadata.get(name).and_then(serde_json::Value::as_str);
    if text("policy_decision_point") != Some(url) {
        return Err(format!("policy_decision_point of the metadata is not {url}, byte for byte"));
    }
    let endpoint = match text("access_evaluation_endpoint") {
        Some(endpoint) => endpoint.to_owned(),
        None if metadata.contains_key("access_evaluation_endpoint") => {
            return Err("access_evaluation_endpoint of the metadata is no text".to_owned());
        }
        None => format!("{}{EVALUATION}", url.trim_end_matches('/')),
    };
    let origin = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        Some((uri.scheme()?.clone(), uri.authority()?.clone()))
    };
    if origin(&endpoint).is_none() || origin(&endpoint) != origin(url) {
        return Err(
            "access_evaluation_endpoint of the metadata is at another host; write evaluation_url if it is right"
                .to_owned(),
        );
    }
    FetchTarget::parse(&endpoint, Allowed::by_operator()).map_err(|error| error.to_string())
}

#[async_trait]
impl DecisionPoint for HttpDecisionPoint {
    async fn decide(&self, question: &[u8], id: &str) -> Result<PolicyDecision, DecisionFault> {
        // Requests wait for the first metadata together, so the limit is for the wait, too.
        let timeout = self.client.timeout();
        let asked = tokio::time::timeout(timeout, self.ask(question, id)).await;
        let answer = asked.unwrap_or_else(|_| Err(DecisionFault::new(format!("no decision after {timeout:?}"))));
        answer.inspect_err(|_| self.doubt())
    }

    fn identity(&self) -> Box<[u8]> {
        self.identity.clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use support::documents::Documents;

    use super::*;
    use rotogate_core::clock::{ManualTime, Timestamp};
    use rotogate_core::http_client::Tls;

    fn point(pdp: &Documents, timeout: Duration) -> (Arc<ManualTime>, HttpDecisionPoint) {
        let client = HttpClient::with_tls(&Tls::default()).unwrap().with_timeout(timeout);
        let point = HttpDecisionPoint::new(client, EvaluationPlace::Metadata(pdp.url()), None).unwrap();
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        (Arc::clone(&time), HttpDecisionPoint { time, ..point })
    }

    fn json(body: &str) -> String {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn publish(pdp: &Documents, path: &str) {
        let (url, endpoint) = (pdp.url(), pdp.at(path));
        let named = format!("{{\"policy_decision_point\":\"{url}\",\"access_evaluation_endpoint\":\"{endpoint}\"}}");
        pdp.answer(WELL_KNOWN, json(&named));
        pdp.answer(path, json("{\"decision\":true}"));
    }

    async fn fetched(pdp: &Documents, times: usize) {
        while pdp.times(WELL_KNOWN) < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn k26_decisions_go_on_without_the_metadata_and_follow_an_endpoint_that_moves() {
        let pdp = Documents::start();
        let (time, point) = point(&pdp, Duration::from_secs(20));
        let decided = async || point.decide(b"{}", "id").await;
        publish(&pdp, EVALUATION);
        assert_eq!(decided().await.unwrap(), PolicyDecision::Permit);
        // Neither a fault of the metadata nor metadata that do not come stop a decision; one attempt a minute.
        pdp.answer(WELL_KNOWN, "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
        time.advance(METADATA_FOR);
        for _ in 0..3 {
            assert_eq!(decided().await.unwrap(), PolicyDecision::Permit);
        }
        fetched(&pdp, 2).await;
        pdp.be_silent(WELL_KNOWN);
        time.advance(METADATA_RETRY);
        for _ in 0..3 {
            assert_eq!(decided().await.unwrap(), PolicyDecision::Permit);
        }
        fetched(&pdp, 3).await;
        assert_eq!(pdp.times(WELL_KNOWN), 3);
        // The endpoint moves within the hour.
        publish(&pdp, "/other");
        pdp.answer(EVALUATION, "HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
        time.advance(METADATA_RETRY);
        assert!(decided().await.is_err(), "the old endpoint, while the metadata are fetched");
        fetched(&pdp, 4).await;
        while decided().await.is_err() {
            tokio::task::yield_now().await;
        }
        publish(&pdp, "/third");
        pdp.answer("/other", "HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
        time.advance(METADATA_RETRY);
        assert!(decided().await.is_err(), "the metadata are fresh");
        while decided().await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    /// On a stopped clock, which advances to the next timeout.
    #[tokio::test(start_paused = true)]
    async fn k26_requests_that_wait_for_the_first_metadata_end_together() {
        let pdp = Documents::start();
        pdp.be_silent(WELL_KNOWN);
        let timeout = Duration::from_millis(500);
        let (_, point) = point(&pdp, timeout);
        let begun = tokio::time::Instant::now();
        let all = join_all((0..8).map(|_| point.decide(b"{}", "id"))).await;
        assert!(all.iter().all(Result::is_err) && begun.elapsed() < timeout * 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn k26_the_metadata_are_those_of_the_decision_point_and_lead_nowhere_else() {
        assert_eq!(metadata_url("https://pdp.test").unwrap(), "https://pdp.test/.well-known/authzen-configuration");
        assert_eq!(metadata_url("https://pdp.test/").unwrap(), "https://pdp.test/.well-known/authzen-configuration");
        assert_eq!(
            metadata_url("https://pdp.test:8443/tenant").unwrap(),
            "https://pdp.test:8443/.well-known/authzen-configuration/tenant"
        );
        let read = |body: &str| evaluation_of("https://pdp.test", body.as_bytes()).map(|target| target.to_string());
        let named = |endpoint: &str| {
            format!("{{\"policy_decision_point\":\"https://pdp.test\",\"access_evaluation_endpoint\":{endpoint}}}")
        };
        assert_eq!(read(&named("\"https://pdp.test/x\"")).unwrap(), "https://pdp.test/x");
        let only = "{\"policy_decision_point\":\"https://pdp.test\"}";
        assert_eq!(read(only).unwrap(), "https://pdp.test/access/v1/evaluation");
        for bad in [
            "<html>",
            "[]",
            "{}",
            "{\"policy_decision_point\":\"https://pdp.test/\"}",
            "{\"policy_decision_point\":\"https://PDP.test\"}",
            &named("7"),
            &named("\"/access/v1/evaluation\""),
            &named("\"https://evil.test/x\""),
            &named("\"https://pdp.test:444/x\""),
            &named("\"http://pdp.test/x\""),
            &named("\"https://user@pdp.test/x\""),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
