//! The dialects, as their clients speak them.

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::json;

use crate::grpc;
use crate::kuzzle;
use support::{Answer, Gate, Tokens};

/// A dialect from the view of its clients.
#[async_trait]
pub(crate) trait Speaks: Sync {
    /// The name in `gateway.toml`.
    fn name(&self) -> &'static str;

    /// The lines of the endpoint between `dialect` and `profile`. The sessions belong to the client `web`.
    fn endpoint(&self) -> &'static str;

    /// Does the dialect have refresh tokens? If an access token is exchanged for the next, [`Tokens::refresh`] is
    /// empty.
    fn has_refresh_tokens(&self) -> bool {
        true
    }

    /// Logs `demo` in.
    async fn login(&self, gate: &Gate) -> Tokens;

    /// Presents the dialect's credential for the next pair. `None` for a refusal, whose words are checked.
    async fn refresh(&self, gate: &Gate, held: &Tokens) -> Option<Tokens>;

    /// Presents the held credential while no decision is possible. Returns whether the reply asks, in the protocol's
    /// words, to try again later.
    async fn is_undecided(&self, gate: &Gate, held: &Tokens) -> bool;

    /// Ends the session of the held pair, by RFC 7009 if the dialect has no logout.
    async fn revoke(&self, gate: &Gate, held: &Tokens) {
        assert_eq!(gate.revoke(presented(held)).await.status, StatusCode::OK);
    }
}

/// The credential that the holder presents for a refresh: the access token, if there was no refresh token.
pub(crate) fn presented(held: &Tokens) -> &str {
    if held.refresh.is_empty() { &held.access } else { &held.refresh }
}

/// Whether two replies have the same pair, as far as both contain it.
pub(crate) fn is_same(one: &Tokens, other: &Tokens) -> bool {
    let both_refresh = !one.refresh.is_empty() && !other.refresh.is_empty();
    one.access == other.access && (!both_refresh || one.refresh == other.refresh)
}

pub(crate) fn dialects() -> Vec<&'static dyn Speaks> {
    vec![&OAuth2, &Envelope, &Kuzzle, &Knox]
}

fn is_to_be_tried_again(answer: &Answer) -> bool {
    answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.headers.contains_key("retry-after")
}

pub(crate) struct OAuth2;

#[async_trait]
impl Speaks for OAuth2 {
    fn name(&self) -> &'static str {
        "oauth2"
    }

    fn endpoint(&self) -> &'static str {
        "path = \"/{account}/connect/token\""
    }

    async fn login(&self, gate: &Gate) -> Tokens {
        gate.login().await
    }

    async fn refresh(&self, gate: &Gate, held: &Tokens) -> Option<Tokens> {
        let answer = gate.refresh(presented(held)).await;
        if answer.status == StatusCode::OK {
            return Some(answer.tokens());
        }
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
        None
    }

    async fn is_undecided(&self, gate: &Gate, held: &Tokens) -> bool {
        is_to_be_tried_again(&gate.refresh(presented(held)).await)
    }
}

pub(crate) struct Envelope;

impl Envelope {
    async fn ask(gate: &Gate, method: Method, body: serde_json::Value) -> Option<Tokens> {
        let answer = gate.call(method, "/api/v2/auth/token", &[], &body.to_string()).await;
        let json = answer.json();
        if answer.status == StatusCode::OK {
            let field = |name: &str| json["content"][0][name].as_str().unwrap().to_owned();
            return Some(Tokens { access: field("token"), refresh: field("refreshToken") });
        }
        assert_eq!((answer.status, &json["errorCode"]), (StatusCode::UNAUTHORIZED, &json!("AUTH_1002")));
        None
    }
}

#[async_trait]
impl Speaks for Envelope {
    fn name(&self) -> &'static str {
        "envelope"
    }

    fn endpoint(&self) -> &'static str {
        "path = \"/api/v2/auth/token\"\nclient = \"web\""
    }

    async fn login(&self, gate: &Gate) -> Tokens {
        let body = json!({ "username": "demo", "password": gate.password });
        Self::ask(gate, Method::POST, body).await.unwrap()
    }

    async fn refresh(&self, gate: &Gate, held: &Tokens) -> Option<Tokens> {
        Self::ask(gate, Method::PUT, json!({ "token": held.access, "refreshToken": presented(held) })).await
    }

    async fn is_undecided(&self, gate: &Gate, held: &Tokens) -> bool {
        let body = json!({ "token": held.access, "refreshToken": presented(held) });
        is_to_be_tried_again(&gate.call(Method::PUT, "/api/v2/auth/token", &[], &body.to_string()).await)
    }
}

pub(crate) struct Kuzzle;

#[async_trait]
impl Speaks for Kuzzle {
    fn name(&self) -> &'static str {
        "kuzzle"
    }

    fn endpoint(&self) -> &'static str {
        "client = \"web\""
    }

    fn has_refresh_tokens(&self) -> bool {
        false
    }

    async fn login(&self, gate: &Gate) -> Tokens {
        let result = kuzzle::client::Client { gate }.login("").await;
        Tokens { access: kuzzle::client::jwt(&result).to_owned(), refresh: String::new() }
    }

    async fn refresh(&self, gate: &Gate, held: &Tokens) -> Option<Tokens> {
        let answer = kuzzle::client::Client { gate }.refresh(&held.access).await;
        if answer.status == StatusCode::OK {
            let result = kuzzle::client::result(&answer);
            return Some(Tokens { access: kuzzle::client::jwt(&result).to_owned(), refresh: String::new() });
        }
        assert_eq!(kuzzle::client::error(&answer), kuzzle::client::invalid());
        None
    }

    async fn is_undecided(&self, gate: &Gate, held: &Tokens) -> bool {
        is_to_be_tried_again(&kuzzle::client::Client { gate }.refresh(&held.access).await)
    }

    async fn revoke(&self, gate: &Gate, held: &Tokens) {
        log_out(gate, "/_logout", held).await;
    }
}

/// Kuzzle's words for the end of a session.
pub(crate) async fn log_out(gate: &Gate, path: &str, held: &Tokens) {
    let answer = kuzzle::client::Client { gate }.post(path, Some(&held.access), "").await;
    assert_eq!(kuzzle::client::result(&answer), json!({ "acknowledged": true }));
}

pub(crate) struct Knox;

#[async_trait]
impl Speaks for Knox {
    fn name(&self) -> &'static str {
        "knox"
    }

    fn endpoint(&self) -> &'static str {
        "client = \"web\""
    }

    async fn login(&self, gate: &Gate) -> Tokens {
        let token = grpc::client::login(gate).await;
        Tokens { access: token.token, refresh: token.refresh_token }
    }

    async fn refresh(&self, gate: &Gate, held: &Tokens) -> Option<Tokens> {
        match grpc::client::refresh(gate, presented(held)).await {
            Ok((_, token)) => Some(Tokens { access: token.token, refresh: token.refresh_token }),
            Err(status) => {
                let said = (status.code(), status.message());
                assert_eq!(said, (tonic::Code::Unauthenticated, "the refresh token is invalid"));
                None
            }
        }
    }

    async fn is_undecided(&self, gate: &Gate, held: &Tokens) -> bool {
        let answer = grpc::client::refresh(gate, presented(held)).await;
        answer.is_err_and(|status| status.code() == tonic::Code::Unavailable)
    }
}
