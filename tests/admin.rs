//! The admin API of the running gate: its authentication, what each operation does, and whether its document is right.

mod crowd;
mod document;
mod guard;
mod manage;
mod operations;
pub(crate) mod page;
mod paging;
mod probes;
mod refused;

use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use support::pki::write_private;
use support::{Answer, CONFIG, Gate, Place, keep_secret, try_send};

/// A request to the admin listener.
struct Ask<'a> {
    gate: &'a Gate,
    token: Option<&'a str>,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Ask<'a> {
    fn with(gate: &'a Gate, token: &'a str) -> Self {
        Self { gate, token: Some(token), headers: Vec::new() }
    }

    fn without(gate: &'a Gate) -> Self {
        Self { gate, token: None, headers: Vec::new() }
    }

    fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let uri = format!("http://{}{path}", self.gate.admin);
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !body.is_empty() && !self.headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        try_send(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body).await
    }
}

/// The token of `admin.token_file`.
fn admin_token(place: &Place) -> String {
    std::fs::read_to_string(place.path("data/admin.token")).unwrap().trim().to_owned()
}

/// A configuration with these entries of `[[admin.tokens]]`: name, role, file.
fn with_tokens(tokens: &[(&str, &str, &str)]) -> String {
    let entry = |(name, role, file): &(&str, &str, &str)| {
        format!("[[admin.tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nfile = \"{file}\"\n")
    };
    CONFIG.replace("[issuer]\n", &format!("{}[issuer]\n", tokens.iter().map(entry).collect::<String>()))
}

/// Writes a new token into a file.
fn write_token(place: &Place, file: &str, token: &str) {
    keep_secret(token);
    write_private(&place.path(file), &format!("{token}\n"));
}

/// `code` of a problem.
fn code(answer: &Answer) -> String {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status.as_u16(), "{problem}");
    assert_eq!(problem["request_id"], answer.headers["x-request-id"].to_str().unwrap(), "{problem}");
    let code = problem["code"].as_str().unwrap().to_owned();
    assert_eq!(problem["type"], format!("docs/admin.md#{code}"));
    code
}

/// The audit trail so far, as the listener has it.
async fn events(gate: &Gate, token: &str, query: &str) -> Vec<Value> {
    let answer = Ask::with(gate, token).get(&format!("/v1/events?limit=1000&{query}")).await;
    answer.json()["events"].as_array().unwrap().clone()
}
