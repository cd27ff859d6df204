//! A real provider behind a relay: `oidc-provider` (Node), which rotates the refresh tokens of public clients and revokes a
//! grant whose token comes twice. `tests/interop/relay/install.sh` installs it, pinned, into `target/interop-cache`.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::{Answer, CONFIG, Place, keep_secret, send};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub(crate) struct Provider {
    pub(crate) url: String,
    _process: Child,
}

impl Provider {
    /// Starts the provider; `of` is the folder of its program.
    pub(crate) async fn start(of: &str) -> Self {
        let cache = tokio::task::spawn_blocking(|| support::clients::installed("interop/relay")).await.unwrap();
        let source =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop")).join(of).join("provider.mjs");
        let program = cache.join(format!("{of}.mjs"));
        support::clients::put(&source, &program);
        let mut process = Command::new("node")
            .arg(&program)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node is missing: install Node.js 20 or newer");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().expect("the provider did not start");
        // The program prints further lines, and ends if a write fails.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { url, _process: process }
    }

    pub(crate) async fn ask(&self, path: &str) -> String {
        let request = Request::get(format!("{}{path}", self.url)).body(Full::default()).unwrap();
        String::from_utf8(send(request).await.body.to_vec()).unwrap()
    }

    async fn login(&self) -> String {
        let token = self.ask("/test/login").await;
        keep_secret(&token);
        token
    }

    pub(crate) async fn requests(&self) -> usize {
        self.ask("/test/requests").await.parse().unwrap()
    }
}

/// Exchanges a token as a public client.
async fn refresh(url: &str, token: &str) -> Answer {
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "spa")];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = Request::post(url).header("content-type", "application/x-www-form-urlencoded");
    send(request.body(Full::from(Bytes::from(body))).unwrap()).await
}

/// The next refresh token.
#[track_caller]
fn next(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let token = answer.json()["refresh_token"].as_str().unwrap().to_owned();
    keep_secret(&token);
    token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i33_i34_i36_a_real_provider_sees_each_token_once_and_its_detection_works_after_grace() {
    let provider = Provider::start("relay").await;
    let direct = format!("{}/token", provider.url);
    // The provider is strict: two tabs that refresh at the provider itself lose the login.
    let token = provider.login().await;
    let first = next(&refresh(&direct, &token).await);
    assert_eq!(refresh(&direct, &token).await.error(), "invalid_grant");
    assert_eq!(refresh(&direct, &first).await.error(), "invalid_grant");

    let endpoint = |grace: &str| {
        let lines = format!(
            "[[endpoints]]\ndialect = \"relay\"\npath = \"/auth/token\"\ntoken_url = \"{direct}\"\nca = \"ca.pem\"\n\
             grace = \"{grace}\"\n[[upstreams]]"
        );
        CONFIG.replacen("[[upstreams]]", &lines, 1)
    };
    let place = Place::new(&endpoint("30s"));
    std::fs::write(place.path("ca.pem"), support::pki::Pki::new().root_pem()).unwrap();
    let mut gate = place.start();
    let url = Arc::new(gate.url("/auth/token"));
    let before = provider.requests().await;
    let mut token = provider.login().await;
    // Rounds of ten tabs. Each round refreshes the token of the previous round.
    for _ in 0..5 {
        let tabs: Vec<_> = (0..10)
            .map(|_| {
                let (url, token) = (Arc::clone(&url), token.clone());
                tokio::spawn(async move { next(&refresh(&url, &token).await) })
            })
            .collect();
        let mut got = Vec::new();
        for tab in tabs {
            got.push(tab.await.unwrap());
        }
        got.dedup();
        assert_eq!(got.len(), 1, "one pair for all");
        token = got.remove(0);
    }
    assert_eq!(provider.requests().await - before, 5, "a request for each token");
    // A crash between the answer and the client.
    let lost = next(&refresh(&url, &token).await);
    gate.kill();
    let gate = place.start();
    let url = gate.url("/auth/token");
    assert_eq!(next(&refresh(&url, &token).await), lost);
    assert_eq!(provider.requests().await - before, 6);
    drop(gate);
    // Without grace, the provider detects a reuse as without a gate.
    place.write_config(&endpoint("0s"));
    let gate = place.start();
    let url = gate.url("/auth/token");
    let new = next(&refresh(&url, &lost).await);
    assert_eq!(refresh(&url, &lost).await.error(), "invalid_grant");
    assert_eq!(refresh(&url, &new).await.error(), "invalid_grant", "the provider ended the login");
}
