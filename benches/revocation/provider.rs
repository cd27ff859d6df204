//! Tokens of an identity provider, whose logout reaches the gate by each channel.

use std::fs;
use std::time::Instant;

use ::support::Gate;
use ::support::pki::write_private;
use http::Method;
use serde_json::{Value, json};

use crate::gates::block_on;
use crate::issuer::{Issuer, URL, claims};
use crate::probe::{Column, EVERY, Latency, Verifier};
use crate::scene::{Scene, Server};
use crate::{Table, tokens};

const TRANSMITTER: &str = "the-token-of-the-transmitter";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const EVENTS: &str = "https://gate.test/events";
const CLIENT: &str = "our-client";

fn config() -> String {
    format!(
        r#"
[[issuers]]
name = "idp"
url = "{URL}"
audience = ["api"]
jwks_file = "idp.json"
scopes = ["read"]
everywhere = true
backchannel_logout = {{ path = "/logout/idp", audience = ["{CLIENT}"] }}
events = {{ path = "/events/idp", audience = ["{EVENTS}"], token_file = "events.token" }}
global_revocation = {{ path = "/revoke/idp", client_id = "{CLIENT}" }}
"#
    )
}

async fn post(gate: &Gate, (path, kind): (&str, &str), bearer: &str, body: &str) {
    let authorization = format!("Bearer {bearer}");
    let headers = [("content-type", kind), ("authorization", authorization.as_str())];
    let answer = gate.call(Method::POST, path, &headers, body).await;
    assert!(answer.status.is_success(), "{path}: {answer:?}");
}

/// The channels by which a provider tells the gate that a session has ended.
#[derive(Clone, Copy)]
enum Channel {
    BackChannelLogout,
    PushedEvent,
    GlobalRevocation,
}

impl Channel {
    const ALL: [Self; 3] = [Self::BackChannelLogout, Self::PushedEvent, Self::GlobalRevocation];

    fn name(self) -> &'static str {
        match self {
            Self::BackChannelLogout => "back-channel logout",
            Self::PushedEvent => "an event that it pushes",
            Self::GlobalRevocation => "global token revocation",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::BackChannelLogout => "logout",
            Self::PushedEvent => "pushed",
            Self::GlobalRevocation => "global",
        }
    }

    /// Tells the gate, and returns the moment of the gate's response.
    async fn tell(self, gate: &Gate, issuer: &Issuer, subject: &str) -> Instant {
        let now = claims(&json!({}))["iat"].clone();
        let sign = |typ: &str, claims: &Value| issuer.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": typ }), claims);
        let user = json!({ "format": "iss_sub", "iss": URL, "sub": subject });
        let later = now.as_u64().unwrap() + 120;
        let jti = format!("{}-{subject}", self.kind());
        let (path, kind, body) = match self {
            Self::BackChannelLogout => {
                let token = json!({
                    "iss": URL, "aud": CLIENT, "iat": now, "exp": later, "jti": jti, "sub": subject,
                    "events": { LOGOUT: {} },
                });
                let form = format!("logout_token={}", sign("logout+jwt", &token));
                ("/logout/idp", "application/x-www-form-urlencoded", form)
            }
            Self::GlobalRevocation => {
                let jwt = json!({
                    "iss": URL, "aud": "http://gate.test/revoke/idp", "iat": now, "exp": later, "jti": jti,
                    "sub": CLIENT,
                });
                let bearer = sign("global-token-revocation+jwt", &jwt);
                post(gate, ("/revoke/idp", "application/json"), &bearer, &json!({ "sub_id": user }).to_string()).await;
                return Instant::now();
            }
            Self::PushedEvent => {
                let event = json!({
                    "iss": URL, "aud": EVENTS, "iat": now, "jti": jti, "sub_id": user,
                    "events": { REVOKED: { "event_timestamp": now } },
                });
                ("/events/idp", "application/secevent+jwt", sign("secevent+jwt", &event))
            }
        };
        post(gate, (path, kind), TRANSMITTER, &body).await;
        Instant::now()
    }
}

/// The gate that gets the notice, and another gate.
pub(crate) fn run(table: &mut Table) {
    block_on(async {
        let scene = Scene::new(Server::redis(), &config()).await;
        let issuer = Issuer::new(7);
        let set = json!({ "keys": [issuer.jwk("k1")] }).to_string();
        fs::write(scene.place.path("idp.json"), set).unwrap();
        write_private(&scene.place.path("events.token"), TRANSMITTER);
        let (first, second) = (scene.gate(), scene.gate());
        for channel in Channel::ALL {
            for (which, verifier, goal) in [("this gate", &first, 0), ("another gate", &second, 50)] {
                let verifier = Verifier::new(verifier.address);
                let mut sample: Vec<Latency> = Vec::new();
                for number in 0..tokens(200) {
                    let subject = format!("{}-{which}-{number}", channel.kind()).replace(' ', "-");
                    // The token is of an earlier second, because an event does not end a token of its own second.
                    let issued = claims(&json!({}))["iat"].as_u64().unwrap() - 10;
                    let token = issuer.token(&json!({ "sub": subject, "iat": issued, "jti": subject }));
                    verifier.accepts(&token).await;
                    let column = Column::new(&verifier, std::slice::from_ref(&token));
                    let told = async { vec![channel.tell(&first, &issuer, &subject).await] };
                    sample.extend(column.run(EVERY, told).await);
                }
                let name = format!("{which}, told by its provider: {}", channel.name());
                table.add(&name, &sample, Some(std::time::Duration::from_millis(goal)));
            }
        }
    });
}
