//! A gate with a listener for questions.

use std::net::{SocketAddr, TcpListener};

use http::Method;
use support::stub::{HEAD, Stub};
use support::wire::{Reply, Wire};
use support::{Gate, Place, Tokens};

/// The keys of an authorizer that nginx asks.
pub(super) const NGINX: &str = "kind = \"nginx\"\ntrusted_proxies = [\"127.0.0.1/32\"]";

/// A gate, its authorizer's address, and the upstream of its public listener.
pub(super) struct Scene {
    pub(super) gate: Gate,
    pub(super) asked: SocketAddr,
    pub(super) stub: Stub,
    pub(super) place: Place,
}

/// The facts that a neighbour with `X-Forwarded-…` states of `GET target`.
pub(super) fn facts(method: &str, target: &str) -> Vec<String> {
    vec![
        format!("X-Forwarded-Method: {method}"),
        format!("X-Forwarded-Uri: {target}"),
        "X-Forwarded-Host: gate.test".to_owned(),
        "X-Forwarded-Proto: http".to_owned(),
        "X-Forwarded-For: 192.0.2.7".to_owned(),
    ]
}

impl Scene {
    /// With these keys of the authorizer, and these routes.
    pub(super) fn new(keys: &str, routes: &str) -> Self {
        Self::on(HEAD, keys, routes)
    }

    /// With this configuration before them.
    pub(super) fn on(head: &str, keys: &str, routes: &str) -> Self {
        let stub = Stub::start();
        // The listening socket is passed on, so that no other program takes the port.
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = socket.local_addr().unwrap();
        let head = head.replace("@upstream@", &stub.address.to_string());
        let place = Place::new(&format!("{head}[[authorizers]]\nlisten = \"{asked}\"\n{keys}\n{routes}"));
        let gate = place.start_with_sockets(vec![socket.into()]);
        Self { gate, asked, stub, place }
    }

    /// A request for a page at the public listener with this `Authorization`, and more headers.
    pub(super) fn get(&self, path: &str, authorization: &str, more: &[(&str, &str)]) -> support::Answer {
        let headers: Vec<_> = more.iter().copied().chain([("authorization", authorization)]).collect();
        run(self.gate.call(Method::GET, path, &headers, ""))
    }

    /// The status of a call of the document controller in Kuzzle's envelope.
    pub(super) fn call_kuzzle(&self, authorization: &str, action: &str, index: &str, id: &str) -> u16 {
        let body = serde_json::json!({
            "controller": "document", "action": action, "index": index, "collection": "c", "_id": id,
        });
        let headers = [("authorization", authorization), ("content-type", "application/json")];
        run(self.gate.call(Method::POST, "/_query", &headers, &body.to_string())).status.as_u16()
    }

    /// Asks with exactly these headers.
    pub(super) fn ask(&self, line: &str, headers: &[String]) -> Reply {
        let mut wire = Wire::open(self.asked);
        let host = "Host: authorizer".to_owned();
        let lines: Vec<&str> = std::iter::once(&host).chain(headers).map(String::as_str).collect();
        wire.head(line, &lines);
        wire.reply()
    }

    /// Asks about a request with these headers, as a neighbour with `X-Forwarded-…`.
    pub(super) fn about(&self, method: &str, target: &str, headers: &[&str]) -> Reply {
        let mut all = facts(method, target);
        all.extend(headers.iter().map(|line| (*line).to_owned()));
        self.ask("GET /", &all)
    }

    /// Tokens of `demo`.
    pub(super) fn login(&self) -> Tokens {
        run(self.gate.login())
    }
}

/// Runs a future to its end.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The header line of a token.
pub(super) fn bearer(tokens: &Tokens) -> String {
    format!("Authorization: Bearer {}", tokens.access)
}
