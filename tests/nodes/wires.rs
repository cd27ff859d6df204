//! The protocols that clients of several gates speak, beside OAuth 2.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use prost::Message;
use rotogate::program::knox::{
    AuthToken, AuthnWithPasswordRequest, AuthnWithPasswordResponse, RefreshAccessTokenRequest,
    RefreshAccessTokenResponse,
};
use serde_json::{Value, json};
use support::history::{At, OAuth2, Refreshed, Rules, Wire, is_acknowledged, is_unknown, send};
use support::{Answer, Tokens};
use tonic::Code;

use crate::{grpc, kuzzle};

/// After this time, a client gives up.
const PATIENCE: Duration = Duration::from_secs(8);

/// The endpoints of these protocols, for a configuration with OAuth 2.
pub(super) const ENDPOINTS: &str = r#"
[[endpoints]]
dialect = "envelope"
path = "/api/v2/auth/token"
client = "web"
[[endpoints]]
dialect = "kuzzle"
client = "web"
[[endpoints]]
dialect = "knox"
client = "web"
"#;

/// Every protocol, with what its own profile changes in these rules.
pub(super) fn wires(rules: Rules) -> Vec<(Arc<dyn Wire>, Rules)> {
    vec![
        (Arc::new(OAuth2), rules),
        (Arc::new(Envelope), rules),
        (Arc::new(Kuzzle), Rules { reuse_ends: false, ends_previous: true, ..rules }),
        (Arc::new(Knox), rules),
    ]
}

async fn ask(at: At, method: &str, path: &str, jwt: Option<&str>, body: &Value) -> Option<Answer> {
    let mut request = Request::builder().method(method).uri(format!("http://{}{path}", at.address));
    request = request.header("content-type", "application/json");
    if let Some(jwt) = jwt {
        request = request.header("authorization", format!("Bearer {jwt}"));
    }
    send(request.body(Full::from(Bytes::from(body.to_string()))).unwrap()).await
}

struct Envelope;

fn in_envelope(answer: &Answer) -> Tokens {
    let json = answer.json();
    let field = |name: &str| json["content"][0][name].as_str().unwrap().to_owned();
    Tokens { access: field("token"), refresh: field("refreshToken") }
}

#[async_trait]
impl Wire for Envelope {
    async fn log_in(&self, at: At, password: &str) -> Option<Tokens> {
        let body = json!({ "username": "demo", "password": password });
        let answer = ask(at, "POST", "/api/v2/auth/token", None, &body).await?;
        (answer.status == StatusCode::OK).then(|| in_envelope(&answer))
    }

    async fn refresh(&self, at: At, held: &Tokens) -> Refreshed {
        let body = json!({ "token": held.access, "refreshToken": held.refresh });
        match ask(at, "PUT", "/api/v2/auth/token", None, &body).await {
            Some(answer) if answer.status == StatusCode::OK => Refreshed::Issued(in_envelope(&answer)),
            Some(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                assert_eq!(answer.json()["errorCode"], "AUTH_1002");
                Refreshed::Refused
            }
            other => is_unknown(other.as_ref()),
        }
    }

    async fn log_out(&self, at: At, held: &Tokens) -> Option<bool> {
        OAuth2.log_out(at, held).await
    }
}

/// The access token is the refresh token.
struct Kuzzle;

fn in_result(answer: &Answer) -> Tokens {
    let result = kuzzle::client::result(answer);
    let jwt = kuzzle::client::jwt(&result).to_owned();
    Tokens { access: jwt.clone(), refresh: jwt }
}

#[async_trait]
impl Wire for Kuzzle {
    async fn log_in(&self, at: At, password: &str) -> Option<Tokens> {
        let body = json!({ "username": "demo", "password": password });
        let answer = ask(at, "POST", "/_login/local", None, &body).await?;
        (answer.status == StatusCode::OK).then(|| in_result(&answer))
    }

    async fn refresh(&self, at: At, held: &Tokens) -> Refreshed {
        match ask(at, "POST", "/_refreshToken", Some(&held.refresh), &json!({})).await {
            Some(answer) if answer.status == StatusCode::OK => Refreshed::Issued(in_result(&answer)),
            Some(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                assert_eq!(kuzzle::client::error(&answer), kuzzle::client::invalid());
                Refreshed::Refused
            }
            other => is_unknown(other.as_ref()),
        }
    }

    async fn log_out(&self, at: At, held: &Tokens) -> Option<bool> {
        let answer = ask(at, "POST", "/_logout", Some(&held.refresh), &json!({})).await;
        if answer.as_ref().is_some_and(|answer| answer.status == StatusCode::UNAUTHORIZED) {
            return Some(false);
        }
        is_acknowledged(answer.as_ref())
    }
}

struct Knox;

/// `None`: the outcome is unknown.
async fn call<Q, A>(at: At, path: &'static str, message: Q) -> Option<Result<A, tonic::Status>>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let answer = grpc::client::call(at.address, path, tonic::Request::new(message));
    match tokio::time::timeout(PATIENCE, answer).await.ok()? {
        Ok(answer) => Some(Ok(answer.into_inner())),
        Err(status) if status.code() == Code::Unauthenticated => Some(Err(status)),
        // The gate says so, or the connection was lost.
        Err(status) => {
            let unknown = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
            assert!(unknown, "{status:?}");
            None
        }
    }
}

fn in_message(token: Option<AuthToken>) -> Tokens {
    let token = token.unwrap();
    Tokens { access: token.token, refresh: token.refresh_token }
}

#[async_trait]
impl Wire for Knox {
    async fn log_in(&self, at: At, password: &str) -> Option<Tokens> {
        let request = AuthnWithPasswordRequest { email: "demo".to_owned(), password: password.to_owned() };
        let answer: AuthnWithPasswordResponse = call(at, grpc::client::AUTHN, request).await?.ok()?;
        Some(in_message(answer.auth_token))
    }

    async fn refresh(&self, at: At, held: &Tokens) -> Refreshed {
        let request = RefreshAccessTokenRequest { refresh_token: held.refresh.clone() };
        match call::<_, RefreshAccessTokenResponse>(at, grpc::client::REFRESH, request).await {
            Some(Ok(answer)) => Refreshed::Issued(in_message(answer.auth_token)),
            Some(Err(_)) => Refreshed::Refused,
            None => Refreshed::InDoubt,
        }
    }

    async fn log_out(&self, at: At, held: &Tokens) -> Option<bool> {
        OAuth2.log_out(at, held).await
    }
}
