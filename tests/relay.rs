//! The relay in front of a provider that rotates refresh tokens strictly: a repeated token ends the login.

mod answers;
mod configured;
mod lost;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod nodes;
mod once;
mod provider;
mod replay;
mod wires;

use support::{Answer, CONFIG, Gate, Place};

use crate::edge::issuer::Issuer;
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

/// The same, with an entry of `[[issuers]]` for the provider's access tokens.
pub(crate) fn place_with_issuer(provider: &Provider, lines: &str, store: &str) -> Place {
    provider.sign_as(Issuer::new(1));
    let lines = format!("issuer = \"idp\"\n{lines}");
    let config = config(provider, &lines).replacen("[[upstreams]]", ISSUER, 1);
    let place = Place::new(&format!("{config}{store}"));
    std::fs::write(place.path("ca.pem"), support::pki::Pki::new().root_pem()).unwrap();
    let jwks = serde_json::json!({ "keys": [Issuer::new(1).jwk("k1")] }).to_string();
    std::fs::write(place.path("idp.json"), jwks).unwrap();
    place
}

/// An entry for the provider's access tokens, and the begin of the table before which it stands.
pub(crate) const ISSUER: &str = "[[issuers]]\nname = \"idp\"\nurl = \"https://idp.test/\"\naudience = [\"api\"]\n\
                                 jwks_file = \"idp.json\"\neverywhere = true\nscopes = \"any\"\n[[upstreams]]";

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
