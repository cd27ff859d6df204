//! Another issuer's requests to end all sessions and tokens of a user.

use secrecy::ExposeSecret;

use super::Inner;
use crate::dialect::global_revocation::GlobalRevocation;
use rotogate_core::denial::{Denial, EventFlaw};
use rotogate_core::engine::{NoticeResult, Origin};
use rotogate_core::fault::Error;
use rotogate_core::token::verify::{AskedRevocation, EventEffect, EventKind, SentGlobalRevocation};

const GLOBAL_REVOCATION: &str = "global-revocation";

impl Inner {
    // Requirements S13 to S15.
    pub(super) async fn revoke_globally(&self, request: &GlobalRevocation, origin: &Origin) -> Result<(), Error> {
        let done = self.revoked_globally(request, origin).await;
        let result = done.as_ref().map(|(_, _, result)| *result);
        self.engine.record_notice(&request.issuer, GLOBAL_REVOCATION, result, origin);
        let (id, user, result) = done?;
        let event = (EventKind::GlobalRevocation, EventEffect::End, &*id);
        self.engine.record_event((&request.issuer, Some(&user)), event, result, origin);
        Ok(())
    }

    /// Returns the JWT's `jti`, the user and the result. The user is looked up first, so that a failure of the
    /// directory does not use up the request.
    async fn revoked_globally(
        &self,
        request: &GlobalRevocation,
        origin: &Origin,
    ) -> Result<(Box<str>, Box<str>, NoticeResult), Error> {
        let asked = self.proved_revocation(request, origin)?;
        let own = self.engine.user_of_revocation(&asked).await?;
        let replayed = Denial::RefusedEvent(EventFlaw::Credential("it was used before"));
        self.use_once(&asked.once, &format!("issuer:{}", request.issuer), replayed).await?;
        let (id, user) = (asked.once.id.clone(), asked.user.text().into());
        let result = self.engine.revoke_globally(asked, own.as_deref()).await?;
        Ok((id, user, result))
    }

    fn proved_revocation(&self, request: &GlobalRevocation, origin: &Origin) -> Result<AskedRevocation, Denial> {
        let text = request.token.as_ref().map_or("", ExposeSecret::expose_secret);
        self.judge_notice(origin, text, || {
            let token = request.token.as_ref().map_err(|what| Denial::RefusedEvent(EventFlaw::Credential(what)))?;
            self.checker.verify_global_revocation(SentGlobalRevocation {
                issuer: &request.issuer,
                client_id: &request.client_id,
                audience: &request.audience,
                token: token.expose_secret(),
                body: &request.body,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use bytes::Bytes;
    use ed25519_dalek::Signer as _;
    use http::{Request, Response};
    use http_body_util::Full;
    use serde_json::json;
    use tower::{Layer as _, ServiceExt as _};

    use crate::Gate;
    use crate::dialect::global_revocation::GlobalRevocations;
    use crate::gate::Endpoint;
    use rotogate_core::clock::{ManualTime, Timestamp};
    use rotogate_core::store::MemoryStore;
    use rotogate_core::token::keyring::Keyring;
    use rotogate_core::token::{IssuerKeys, IssuerRules};

    const IDP: &str = "https://idp.test";
    const URL: &str = "https://gate.test/revoke";

    #[tokio::test]
    async fn s13_an_issuer_with_too_many_good_requests_waits() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(key.verifying_key().as_bytes()), "kid": "k1",
                          "alg": "EdDSA", "use": "sig" });
        let keys = IssuerKeys::from_jwks(json!({ "keys": [jwk] }).to_string().as_bytes(), None).unwrap();
        let begun = Timestamp::from_secs(1_800_000_000);
        let (time, store) =
            (ManualTime::at(begun), Arc::new(MemoryStore::new("https://gate.test", Gate::DEFAULT_LEEWAY)));
        let gate = Gate::builder()
            .issuer("https://gate.test")
            .keys(Keyring::ephemeral().unwrap())
            .trusted_issuer(IssuerRules::external(IDP, vec!["api".into()], keys).named("idp"))
            .endpoint(Endpoint::new(GlobalRevocations::new("idp", "0oa1", URL)).path("/revoke"))
            .shared_store(Arc::<MemoryStore>::clone(&store))
            .row_store(store)
            .time(Arc::<ManualTime>::clone(&time))
            .build()
            .await
            .unwrap();
        let ask = async |id: &str| {
            let header = json!({ "alg": "EdDSA", "typ": "global-token-revocation+jwt", "kid": "k1" });
            let now = begun.as_secs();
            let claims = json!({ "iss": IDP, "sub": "0oa1", "aud": URL, "iat": now, "exp": now + 300, "jti": id });
            let signed = [header, claims].map(|part| encoded(part.to_string().as_bytes())).join(".");
            let token = format!("{signed}.{}", encoded(&key.sign(signed.as_bytes()).to_bytes()));
            let body = json!({ "sub_id": { "format": "iss_sub", "iss": IDP, "sub": "ada" } }).to_string();
            let request =
                Request::post("/revoke").header("host", "gate.test").header("content-type", "application/json");
            let request = request.header("authorization", format!("Bearer {token}")).body(Full::from(body)).unwrap();
            let service = tower::service_fn(|_: Request<Full<Bytes>>| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            });
            let reply = gate.layer().layer(service).oneshot(request).await.unwrap();
            (reply.status().as_u16(), reply.headers().contains_key("retry-after"))
        };
        assert_eq!(ask("first").await, (204, false));
        // Exhausts the rate limit for the issuer's assertions.
        let taken = (0..2000).take_while(|_| gate.0.engine.limits().assertion("issuer:idp").is_ok()).count();
        assert_eq!(taken, 999);
        assert_eq!(ask("later").await, (429, true));
        time.advance(Duration::from_millis(50));
        assert_eq!(ask("later").await, (204, false), "the refusal did not use it up");
    }
}
