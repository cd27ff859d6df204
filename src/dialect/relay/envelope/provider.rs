//! A provider that speaks the envelope protocol.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method};
use secrecy::SecretString;
use serde_json::Value;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::super::super::envelope;
use super::{LOGIN, REFRESH, object, pair, tokens};
use crate::relay::{HttpCaller, Meaning, Provider, ProviderReply, ProviderRequest, ProviderUrls, Renewal, SendError};

/// A provider that speaks the envelope protocol.
#[derive(Debug)]
pub struct EnvelopeProvider {
    caller: HttpCaller,
    urls: ProviderUrls,
}

impl EnvelopeProvider {
    /// Makes a provider at these URLs.
    pub const fn new(caller: HttpCaller, urls: ProviderUrls) -> Self {
        Self { caller, urls }
    }
}

#[async_trait]
impl Provider for EnvelopeProvider {
    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        let mut headers = request.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let method = if request.call == LOGIN { Method::POST } else { Method::PUT };
        self.caller.send(&self.urls.token, method, headers, &request.body).await
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        if matches!(reply.status, 429 | 501 | 503) {
            return Meaning::Busy;
        }
        let (Some(object), 200..=499) = (object(reply), reply.status) else { return Meaning::Unclear };
        match object.get("errorCode").and_then(Value::as_str) {
            Some("") if reply.status == 200 => match tokens(reply) {
                Some((_, refresh)) => {
                    let rotates = !refresh.is_empty() && *refresh != *token;
                    Meaning::Granted { rotates, lifetime: validity(&reply.body).map(|(_, _, seconds)| seconds) }
                }
                None => Meaning::Unclear,
            },
            // In a refusal, `content` is an empty string.
            Some(code) if object.get("content").and_then(Value::as_str) == Some("") => match code {
                envelope::BAD_TOKEN | envelope::BAD_CREDENTIALS => Meaning::Dead,
                _ => Meaning::Refused,
            },
            Some(_) | None => Meaning::Unclear,
        }
    }

    fn aged(&self, mut reply: ProviderReply, passed: Duration) -> ProviderReply {
        if let Some((from, to, lifetime)) = validity(&reply.body)
            && let (Some(head), Some(tail)) = (reply.body.get(..from), reply.body.get(to..))
        {
            let left = lifetime.as_secs().saturating_sub(passed.as_secs()).to_string();
            reply.body = Zeroizing::new([head, left.as_bytes(), tail].concat());
        }
        reply
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        tokens(reply).map(|(access, _)| access)
    }

    fn renewal(&self, _: &ProviderRequest, reply: &ProviderReply) -> Option<Renewal> {
        let (access, refresh) = tokens(reply).filter(|(_, refresh)| !refresh.is_empty())?;
        let body = Zeroizing::new(Value::Object(pair(&access, &refresh)).to_string().into_bytes());
        let request = ProviderRequest { call: REFRESH, body, ..ProviderRequest::default() };
        let [credential, token] = [access, refresh].map(|text| SecretString::from(text.as_str()));
        Some(Renewal { token, credential: Some(credential), request })
    }

    async fn revoke(&self, _: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        Err(SendError::NotSent("the protocol does not support revocation".to_owned()))
    }
}

/// Returns the start and end of the value of `content[0].validityTime`, and the value in seconds.
fn validity(body: &[u8]) -> Option<(usize, usize, Duration)> {
    type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
    let members: Members<'_> = serde_json::from_slice(body).ok()?;
    let content: Vec<&RawValue> = serde_json::from_str(members.get("content")?.get()).ok()?;
    let one: Members<'_> = serde_json::from_str(content.first()?.get()).ok()?;
    let raw = one.get("validityTime")?.get();
    let from = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    Some((from, from + raw.len(), Duration::from_secs(raw.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rotogate_core::http_client::{Allowed, FetchTarget, HttpClient};

    const FULL: &str = r#"{"errorCode":"","errorMessage":"","content":[{"token":"A","refreshToken":"R","validityTime" : 3600}],"pageable":{}}"#;

    fn provider() -> EnvelopeProvider {
        let target = FetchTarget::parse("http://127.0.0.1:1/api/v2/auth/token", Allowed::by_operator()).unwrap();
        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut tls = rotogate_core::http_client::Tls::default();
        tls.ca = Some(authority.cert.pem());
        let caller = HttpCaller::new(HttpClient::with_tls(&tls).unwrap(), Duration::from_secs(1));
        EnvelopeProvider::new(caller, ProviderUrls::fixed(target, None))
    }

    fn said(status: u16, body: &str) -> ProviderReply {
        ProviderReply { status, body: Zeroizing::new(body.as_bytes().to_vec()), ..ProviderReply::default() }
    }

    #[test]
    fn i39_each_reply_is_read_as_what_it_says_of_a_rotation() {
        let provider = provider();
        let lifetime = Some(Duration::from_secs(3600));
        assert_eq!(provider.read("T", &said(200, FULL)), Meaning::Granted { rotates: true, lifetime });
        assert_eq!(provider.read("R", &said(200, FULL)), Meaning::Granted { rotates: false, lifetime });
        let refusal = |code: &str| format!(r#"{{"errorCode":"{code}","errorMessage":"x","content":"","pageable":""}}"#);
        for status in [200, 400, 401] {
            assert_eq!(provider.read("T", &said(status, &refusal("AUTH_1002"))), Meaning::Dead);
            assert_eq!(provider.read("T", &said(status, &refusal("AUTH_1000"))), Meaning::Refused);
        }
        for (status, body) in [
            (200, "".to_owned()),
            (200, "<html>".to_owned()),
            (200, r#"{"errorCode":"","content":[]}"#.to_owned()),
            (200, r#"{"errorCode":"","errorCode":"","content":[{"token":"A"}]}"#.to_owned()),
            (200, r#"{"content":[{"token":"A"}]}"#.to_owned()),
            (401, FULL.to_owned()),
            (500, refusal("AUTH_1002")),
            (502, refusal("AUTH_1002")),
        ] {
            assert_eq!(provider.read("T", &said(status, &body)), Meaning::Unclear, "{status} {body}");
        }
        assert_eq!(provider.read("T", &said(503, "")), Meaning::Busy);
    }

    #[test]
    fn a_later_answer_lives_for_less_and_is_else_the_same_to_the_byte() {
        let provider = provider();
        let aged = provider.aged(said(200, FULL), Duration::from_secs(60));
        assert_eq!(std::str::from_utf8(&aged.body).unwrap(), FULL.replace("3600", "3540"));
        assert_eq!(provider.access_token(&aged).unwrap().as_str(), "A");
    }
}
