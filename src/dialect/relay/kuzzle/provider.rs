//! A Kuzzle server.

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

use super::{new_tokens, request, server_error};
use crate::relay::{HttpCaller, Meaning, Provider, ProviderReply, ProviderRequest, ProviderUrls, Renewal, SendError};

/// A Kuzzle server. The token URL is that of `/_query`.
#[derive(Debug)]
pub struct KuzzleProvider {
    caller: HttpCaller,
    urls: ProviderUrls,
}

impl KuzzleProvider {
    /// Makes a provider at these URLs.
    pub const fn new(caller: HttpCaller, urls: ProviderUrls) -> Self {
        Self { caller, urls }
    }
}

fn token_of(reply: &ProviderReply) -> Option<Zeroizing<String>> {
    match new_tokens(reply)?.remove("jwt")? {
        Value::String(token) => Some(Zeroizing::new(token)),
        _ => None,
    }
}

#[async_trait]
impl Provider for KuzzleProvider {
    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        let mut headers = request.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.caller.send(&self.urls.token, Method::POST, headers, &request.body).await
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        let Some(new) = token_of(reply) else {
            let error = server_error(reply);
            let id = error.as_ref().and_then(|error| error.get("id")?.as_str());
            return match (reply.status, id) {
                (429 | 501 | 503, _) => Meaning::Busy,
                (401, Some("security.token.invalid" | "security.token.expired")) => Meaning::Dead,
                (400..=499, Some(_)) => Meaning::Refused,
                _ => Meaning::Unclear,
            };
        };
        let lifetime = ttl(&reply.body).map(|(_, _, lifetime)| lifetime);
        Meaning::Granted { rotates: *new != *token, lifetime }
    }

    fn aged(&self, mut reply: ProviderReply, passed: Duration) -> ProviderReply {
        if let Some((from, to, lifetime)) = ttl(&reply.body)
            && let (Some(head), Some(tail)) = (reply.body.get(..from), reply.body.get(to..))
        {
            let left = lifetime.saturating_sub(passed).as_millis().to_string();
            reply.body = Zeroizing::new([head, left.as_bytes(), tail].concat());
        }
        reply
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        token_of(reply)
    }

    fn renewal(&self, sent: &ProviderRequest, reply: &ProviderReply) -> Option<Renewal> {
        let token = SecretString::from(token_of(reply)?.as_str());
        let call = serde_json::from_slice(&sent.body).ok()?;
        Some(Renewal { request: request(call, &token), token, credential: None })
    }

    async fn revoke(&self, request: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        let reply = self.send(request).await?;
        // A token that is already dead needs no logout.
        let is_dead = self.read("", &reply) == Meaning::Dead;
        let reply = if is_dead { ProviderReply { status: 200, ..reply } } else { reply };
        Ok((reply.status == 200, reply))
    }
}

/// Returns the start and end of the value of `result.ttl`, and the value. A token without an end has a negative number.
fn ttl(body: &[u8]) -> Option<(usize, usize, Duration)> {
    type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
    let members: Members<'_> = serde_json::from_slice(body).ok()?;
    let result: Members<'_> = serde_json::from_str(members.get("result")?.get()).ok()?;
    let raw = result.get("ttl")?.get();
    let from = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    Some((from, from + raw.len(), Duration::from_millis(raw.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::super::presented;
    use super::*;
    use rotogate_core::http_client::{Allowed, FetchTarget, HttpClient};
    use secrecy::ExposeSecret;
    use serde_json::json;

    const FULL: &str =
        r#"{"status":200,"error":null,"result":{"_id":"ada","jwt":"J1","expiresAt":9000000,"ttl" : 3600000}}"#;

    fn provider() -> KuzzleProvider {
        let target = FetchTarget::parse("http://127.0.0.1:1/_query", Allowed::by_operator()).unwrap();
        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut tls = rotogate_core::http_client::Tls::default();
        tls.ca = Some(authority.cert.pem());
        let caller = HttpCaller::new(HttpClient::with_tls(&tls).unwrap(), Duration::from_secs(1));
        KuzzleProvider::new(caller, ProviderUrls::fixed(target, None))
    }

    fn said(status: u16, body: &str) -> ProviderReply {
        ProviderReply { status, body: Zeroizing::new(body.as_bytes().to_vec()), ..ProviderReply::default() }
    }

    #[test]
    fn i77_each_reply_is_read_as_what_it_says_of_a_rotation() {
        let provider = provider();
        let lifetime = Some(Duration::from_secs(3600));
        assert_eq!(provider.read("J0", &said(200, FULL)), Meaning::Granted { rotates: true, lifetime });
        assert_eq!(
            provider.read("J1", &said(200, FULL)),
            Meaning::Granted { rotates: false, lifetime },
            "in one second"
        );
        let refused = |status: u16, id: &str| {
            let body =
                json!({ "status": status, "error": { "id": id, "status": status, "message": "x" }, "result": null });
            provider.read("J0", &said(status, &body.to_string()))
        };
        assert_eq!(refused(401, "security.token.invalid"), Meaning::Dead);
        assert_eq!(refused(401, "security.token.expired"), Meaning::Dead);
        assert_eq!(refused(401, "security.token.refresh_forbidden"), Meaning::Refused, "the token stays valid");
        assert_eq!(refused(403, "security.rights.forbidden"), Meaning::Refused);
        assert_eq!(refused(429, "api.process.too_many_requests"), Meaning::Busy);
        assert_eq!(refused(503, "api.process.overloaded"), Meaning::Busy);
        assert_eq!(refused(500, "core.fatal.unexpected_error"), Meaning::Unclear);
        for (status, body) in [
            (200, "".to_owned()),
            (200, "<html>".to_owned()),
            (200, r#"{"result":{"jwt":""}}"#.to_owned()),
            (200, r#"{"result":{"jwt":7}}"#.to_owned()),
            (401, FULL.to_owned()),
            (401, "<html>".to_owned()),
            (502, FULL.to_owned()),
        ] {
            assert_eq!(provider.read("J0", &said(status, &body)), Meaning::Unclear, "{status} {body}");
        }
    }

    #[test]
    fn i77_a_later_answer_lives_for_less_and_is_else_the_same_to_the_byte() {
        let provider = provider();
        let aged = provider.aged(said(200, FULL), Duration::from_secs(60));
        assert_eq!(std::str::from_utf8(&aged.body).unwrap(), FULL.replace("3600000", "3540000"));
        let endless = FULL.replace("3600000", "-1");
        assert_eq!(
            std::str::from_utf8(&provider.aged(said(200, &endless), Duration::from_secs(60)).body).unwrap(),
            endless
        );
    }

    #[test]
    fn i77_a_kept_token_is_exchanged_with_the_same_lifetime() {
        let sent = presented(&SecretString::from("J0"), Some(&json!("2h"))).request;
        let call: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(call, json!({ "controller": "auth", "action": "refreshToken", "expiresIn": "2h", "jwt": "J0" }));
        let renewal = provider().renewal(&sent, &said(200, FULL)).unwrap();
        assert_eq!(renewal.token.expose_secret(), "J1");
        let call: Value = serde_json::from_slice(&renewal.request.body).unwrap();
        assert_eq!(call, json!({ "controller": "auth", "action": "refreshToken", "expiresIn": "2h", "jwt": "J1" }));
    }
}
