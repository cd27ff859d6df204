//! `examples/providers`: each program and each configuration, in front of a stand-in for its provider. Both accept the
//! provider's access tokens, and refuse its other tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::error::Error;
use std::fs;
use std::path::Path;

use axum::Router;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use support::stub::Edge;
use support::{Answer, Place, send, with};
use tokio::net::TcpListener;

use keys::{Key, Signed};
use stand_in::{FIRST, Other, Provider, SECOND, StandIn, now, other};

mod auth0;
mod clerk;
mod cognito;
mod entra;
mod firebase;
mod google;
mod keycloak;
mod keycloak_page;
mod keys;
mod okta;
mod stand_in;
mod supabase;
mod zitadel;

/// The program of a provider, in a process of the test.
struct Program(std::net::SocketAddr);

impl Program {
    async fn start(app: Result<Router, Box<dyn Error>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = app.unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self(address)
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let mut request = Request::get(format!("http://{}{path}", self.0));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        send(request.body(Full::<Bytes>::default()).unwrap()).await
    }
}

/// The configuration of a provider's folder.
fn configuration(provider: &Provider) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join("examples/providers").join(provider.name).join("gateway.toml")).unwrap()
}

/// The gate with this configuration in front of an upstream, on free ports, with the stand-in as the issuer.
fn gate(stand_in: &StandIn) -> Edge {
    let written = configuration(&stand_in.provider);
    assert!(written.contains(&format!("url = \"{}\"", stand_in.provider.issuer)), "{written}");
    let config = stand_in.here(&written.replace("127.0.0.1:3000", "@upstream@"));
    let config =
        with(&config, "server", "listen = \"127.0.0.1:0\"\npublic_url = \"http://gate.test\"\ndrain_timeout = \"0s\"");
    let config = with(&config, "admin", "listen = \"127.0.0.1:0\"");
    Edge::with(&config, |_| {}, |_| {})
}

/// Both ways to accept a provider's tokens, side by side.
struct Both {
    stand_in: StandIn,
    program: Program,
    edge: Edge,
    refused: Vec<(String, &'static str)>,
    /// The failed expectations, so that one run names all.
    wrong: Vec<String>,
}

impl Both {
    /// The statuses of both, and a check of the request at the upstream, if it arrived.
    async fn statuses(&self, path: &str, token: &str) -> [StatusCode; 2] {
        let program = self.program.get(path, Some(token)).await.status;
        let gate = self.edge.ask_as(token, &format!("GET {path}"), &[]).status;
        let arrived = self.edge.stub.take().len();
        assert_eq!(arrived, usize::from(gate == 200), "{path}");
        [program, StatusCode::from_u16(gate).unwrap()]
    }

    async fn refuse(&mut self, what: &str, outcome: &'static str, token: &str) {
        // A unique path finds the line of the access log.
        let path = format!("/refused/{}", self.refused.len());
        let statuses = self.statuses(&path, token).await;
        if statuses != [StatusCode::UNAUTHORIZED; 2] {
            self.wrong.push(format!("{what}: {statuses:?}"));
        }
        self.refused.push((format!("{what}: {path}"), outcome));
    }

    /// Each token was refused for its own flaw, and not for another one.
    fn check_outcomes(mut self) {
        let log = self.edge.gate.log();
        for (what, outcome) in &self.refused {
            let path = what.rsplit(' ').next().unwrap();
            let line = log.lines().find(|line| line.contains(&format!("path={path} ")) && line.contains("outcome="));
            let line = line.unwrap_or_else(|| panic!("{what}: no line"));
            if !line.contains(&format!("outcome={outcome} ")) {
                self.wrong.push(format!("{what}: {line}"));
            }
        }
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

/// The checks for every provider.
async fn trial(stand_in: StandIn, app: Result<Router, Box<dyn Error>>) {
    check(&stand_in);
    let (program, edge) = (Program::start(app).await, gate(&stand_in));
    let mut both = Both { stand_in, program, edge, refused: Vec::new(), wrong: Vec::new() };
    accepts(&both).await;
    refuses_others(&mut both).await;
    refuses_forgeries(&mut both).await;
    takes_up_a_new_key(&mut both).await;
    both.check_outcomes();
}

/// `check` reports nothing about the configuration, with the provider and with the stand-in.
fn check(stand_in: &StandIn) {
    let written = configuration(&stand_in.provider);
    for config in [stand_in.here(&written), written] {
        let ran = Place::new(&config).run(&["check"], "");
        assert_eq!((ran.code, ran.stderr.as_str(), ran.stdout.lines().count()), (Some(0), "", 1), "{}", ran.stdout);
        assert!(ran.stdout.ends_with("gateway.toml: valid\n"), "{}", ran.stdout);
    }
}

async fn accepts(both: &Both) {
    let provider = &both.stand_in.provider;
    let token = both.stand_in.token(&json!({}));
    let subject = provider.identity.iter().find(|(name, _)| *name == "x-auth-subject").unwrap().1;
    let me = both.program.get("/me", Some(&token)).await;
    assert_eq!((me.status, &*me.body), (StatusCode::OK, subject.as_bytes()));
    assert_eq!(both.program.get("/me", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(both.edge.ask("GET /me", &[]).status, 401);
    assert!(both.edge.stub.take().is_empty());
    let lies = ["X-Auth-Subject: root", "X-Auth-Roles: admin", "X-Auth-Scope: admin", "X-Auth-Account: root"];
    assert_eq!(both.edge.ask_as(&token, "GET /me", &lies).status, 200);
    let received = both.edge.stub.one();
    for (name, value) in provider.identity {
        assert_eq!(received.confusable(name), [*value], "{name}");
    }
    assert_eq!(received.all("x-auth-issuer"), [both.stand_in.issuer()]);
    assert!(!received.headers.iter().any(|(_, value)| value == "root"));
    for (path, without) in &provider.restricted {
        assert_eq!(both.statuses(path, &token).await, [StatusCode::OK; 2], "{path}");
        let less = both.stand_in.token(without);
        assert_eq!(both.statuses("/me", &less).await[0], StatusCode::OK, "{path}");
        assert_eq!(both.statuses(path, &less).await, [StatusCode::FORBIDDEN; 2], "{path}");
    }
}

async fn refuses_others(both: &mut Both) {
    let others = std::mem::take(&mut both.stand_in.provider.others);
    let lifetime = both.stand_in.provider.lifetime;
    let of_every_provider = [
        other("another issuer", "unknown_issuer", json!({ "iss": both.stand_in.provider.other_issuer })),
        other("an expired token", "token_expired", json!({ "iat": now() - 60 - lifetime, "exp": now() - 60 })),
        other("a token of the future", "token_not_yet_valid", json!({ "iat": now() + 120, "exp": now() + 150 })),
        other("a token without a subject", "bad_claim", json!({ "sub": null, "oid": null })),
        other("a token without end", "bad_claim", json!({ "exp": null })),
    ];
    for Other { what, outcome, header, claims } in others.into_iter().chain(of_every_provider) {
        let key = &both.stand_in.provider.key;
        let token = both.stand_in.signed_by(key, FIRST, Signed::AsDocumented, &header, &claims);
        both.refuse(what, outcome, &token).await;
    }
}

async fn refuses_forgeries(both: &mut Both) {
    let signed_by = |both: &Both, key: &Key, kid, signed, claims: &Value| {
        both.stand_in.signed_by(key, kid, signed, &json!({}), claims)
    };
    let is_rsa = matches!(both.stand_in.provider.key, Key::Rsa(_));
    let algorithms = [Signed::WithPublicKey, Signed::Not].into_iter().chain(is_rsa.then_some(Signed::Pss));
    for signed in algorithms {
        let token = signed_by(both, &both.stand_in.provider.key, FIRST, signed, &json!({}));
        both.refuse("another algorithm", "wrong_algorithm", &token).await;
    }
    let foreign = both.stand_in.provider.key.another();
    // The token is older than the key set, so its key cannot be newer.
    let old = json!({ "iat": now() - 600, "exp": now() + 30 });
    let token = signed_by(both, &foreign, FIRST, Signed::AsDocumented, &old);
    both.refuse("another key with the name of the provider's", "bad_signature", &token).await;
    let token = signed_by(both, &foreign, "key-unknown", Signed::AsDocumented, &old);
    both.refuse("a key that the provider does not publish", "unknown_key", &token).await;
}

/// The first token of a new key makes both fetch the set.
async fn takes_up_a_new_key(both: &mut Both) {
    let new = both.stand_in.provider.key.another();
    both.stand_in.publish(&[(&new, SECOND)]);
    let before = both.stand_in.fetches();
    let token = both.stand_in.signed_by(&new, SECOND, Signed::AsDocumented, &json!({}), &json!({}));
    assert_eq!(both.statuses("/me", &token).await, [StatusCode::OK; 2], "the token of the new key");
    assert_eq!(both.stand_in.fetches(), before + 2, "one fetch each");
    // The old key has left the set.
    let old = both.stand_in.token(&json!({ "iat": now() - 600, "exp": now() + 30 }));
    both.refuse("a key that left the set", "unknown_key", &old).await;
}
