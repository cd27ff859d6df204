//! Requests to a provider, limited by its `Retry-After`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use zeroize::Zeroizing;

use super::{LoginFailure, LoginProvider};
pub(super) use rotogate_core::bounds::MAX_PROVIDER_ANSWER as MAX_ANSWER;
use rotogate_core::http_client::FetchTarget;
use rotogate_core::pause::ServiceAnswer;

pub(super) fn declined(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok();
    let is_declined = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    seconds.map(Duration::from_secs).filter(|_| is_declined)
}

impl LoginProvider {
    /// Sends a form once, unless the provider requested a pause.
    pub(super) async fn ask(
        &self,
        target: &FetchTarget,
        form: &[u8],
        within: Duration,
    ) -> Result<Response<Bytes>, LoginFailure> {
        self.pauses.admit(form, self.time.monotonic()).map_err(LoginFailure::Busy)?;
        let sent = self.send(target, form, within).await;
        let said = sent.as_ref().map_or(ServiceAnswer::Failed, |answer| {
            let status = answer.status();
            match declined(status, answer.headers()) {
                None if status.is_success() || status.is_client_error() => ServiceAnswer::Answered,
                wait => ServiceAnswer::fault(wait, status != StatusCode::SERVICE_UNAVAILABLE),
            }
        });
        self.pauses.note(form, said, self.time.monotonic());
        sent
    }

    pub(super) async fn send(
        &self,
        target: &FetchTarget,
        form: &[u8],
        within: Duration,
    ) -> Result<Response<Bytes>, LoginFailure> {
        let http = self.http.lock().current().map_err(|failure| LoginFailure::Client(failure.message))?.0;
        let http = http.with_timeout(within).with_max_size(MAX_ANSWER);
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        let mut body = Zeroizing::new(form.to_vec());
        let added = self.client.add_to(&mut headers, &mut body);
        added.ok_or_else(|| LoginFailure::Client("the client's id, secret or assertion cannot be sent".to_owned()))?;
        Ok(http.send(target, Method::POST, headers, Bytes::copy_from_slice(&body)).await?)
    }
}
