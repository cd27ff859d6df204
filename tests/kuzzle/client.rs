//! A Kuzzle client over HTTP: the requests of the SDKs, and the parts of answers that they read.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use support::{Answer, Gate};

/// A client.
pub(crate) struct Client<'a> {
    pub(crate) gate: &'a Gate,
}

impl Client<'_> {
    pub(crate) async fn post(&self, path: &str, jwt: Option<&str>, body: &str) -> Answer {
        self.send(Method::POST, path, jwt, body).await
    }

    /// The request of the JavaScript SDK, which has JSON even without a body.
    pub(crate) async fn send(&self, method: Method, path: &str, jwt: Option<&str>, body: &str) -> Answer {
        let bearer = jwt.map(|jwt| format!("Bearer {jwt}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|value| ("authorization", value)));
        self.gate.call(method, path, &headers, body).await
    }

    pub(crate) async fn login(&self, query: &str) -> Value {
        let body = json!({ "username": "demo", "password": self.gate.password }).to_string();
        result(&self.post(&format!("/_login/local?{query}"), None, &body).await)
    }

    pub(crate) async fn refresh(&self, jwt: &str) -> Answer {
        self.post("/_refreshToken", Some(jwt), "").await
    }

    /// `POST /_query`, as the SDK for the JVM sends everything.
    pub(crate) async fn query(&self, envelope: &Value) -> Answer {
        self.post("/_query", None, &envelope.to_string()).await
    }

    pub(crate) async fn is_valid(&self, jwt: &str) -> Value {
        result(&self.post("/_checkToken", None, &json!({ "token": jwt }).to_string()).await)
    }
}

pub(crate) fn result(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    let mut json = answer.json();
    assert_eq!((&json["status"], &json["error"]), (&json!(200), &Value::Null));
    json["result"].take()
}

pub(crate) fn jwt(result: &Value) -> &str {
    result["jwt"].as_str().unwrap()
}

/// Status and id of an error, in an envelope with the same status.
pub(crate) fn error(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(json["status"], answer.status.as_u16());
    assert_eq!(json["error"]["status"], answer.status.as_u16());
    (answer.status.as_u16(), json["error"]["id"].as_str().unwrap().to_owned())
}

pub(crate) fn invalid() -> (u16, String) {
    (401, "security.token.invalid".to_owned())
}
