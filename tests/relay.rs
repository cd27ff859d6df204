//! The relay in front of a provider that rotates refresh tokens strictly: a repeated token ends the login.

mod answers;
mod configured;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod nodes;
mod once;
mod provider;
mod replay;
mod wires;

use support::{Answer, CONFIG, Gate, Place};

use provider::Provider;

/// A gate in front of a provider, with more lines for the endpoint.
pub(crate) fn config(provider: &Provider, lines: &str) -> String {
    let url = provider.url();
    let endpoint = format!(
        "[[endpoints]]\ndialect = \"relay\"\npath = \"/auth/token\"\ntoken_url = \"{url}/token\"\n\
         revocation_url = \"{url}/revoke\"\nrevocation_path = \"/auth/revoke\"\nca = \"ca.pem\"\n{lines}\n"
    );
    CONFIG.replacen("[[upstreams]]", &format!("{endpoint}[[upstreams]]"), 1)
}

pub(crate) fn place(provider: &Provider, lines: &str) -> Place {
    let place = Place::new(&config(provider, lines));
    std::fs::write(place.path("ca.pem"), support::pki::Pki::new().root_pem()).unwrap();
    place
}

/// Exchanges a refresh token as the client `spa`.
pub(crate) async fn refresh(gate: &Gate, token: &str) -> Answer {
    refresh_with(gate, token, &[("client_id", "spa")]).await
}

pub(crate) async fn refresh_with(gate: &Gate, token: &str, fields: &[(&str, &str)]) -> Answer {
    let mut all = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
    all.extend_from_slice(fields);
    gate.form("/auth/token", &all).await
}

/// Access and refresh token of an answer.
#[track_caller]
pub(crate) fn pair(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}
