//! Answers of providers to an exchange towards an upstream.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rotogate::program::HttpExchanger;
use rotogate::relay::{HttpCaller, ProviderReply};
use rotogate_core::exchange::{ExchangeFault, ExchangeForm};
use rotogate_core::http_client::{ClientCredentials, HttpClient};
use rotogate_core::session::Scope;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::input::target;
use crate::json::names_members_once;

const ASKED: [&str; 2] = ["g.read", "g.list"];

static FORMS: LazyLock<[HttpExchanger; 3]> = LazyLock::new(|| {
    [ExchangeForm::Rfc8693, ExchangeForm::Entra, ExchangeForm::IdJag].map(|form| HttpExchanger {
        caller: HttpCaller::new(HttpClient::new().unwrap(), Duration::from_secs(1)),
        url: Arc::new(|| None),
        place: "kc".to_owned(),
        client: ClientCredentials { id: "gate".to_owned(), secret: None, assertions: None },
        form,
        audience: None,
        resource: None,
        scope: Scope::parse(&ASKED.join(" ")).unwrap(),
        then: None,
    })
});

target!(
    /// D12, D30: a token for an upstream is a bearer token that the answer names once, with no scope that was not asked for. A
    /// challenge has no byte that a header cannot have.
    exchange_answer,
    &[
        "\"access_token\":\"t\",", "\"token_type\":\"Bearer\",", "\"token_type\":\"DPoP\",", "\"token_type\":\"N_A\",",
        "\"issued_token_type\":\"urn:ietf:params:oauth:token-type:access_token\",",
        "\"issued_token_type\":\"urn:ietf:params:oauth:token-type:id-jag\",", "\"expires_in\":300,", "\"expires_in\":-1,",
        "\"scope\":\"g.read\",", "\"scope\":\"admin\",", "\"scope\":[\"admin\"],", "\"error\":\"invalid_grant\",",
        "\"error\":\"interaction_required\",", "\"claims\":\"{}\",", "\"error\":\"invalid_client\",", "acc\\u0065ss_token", "null",
        "1e9", "{", "}", "[", "]", ",", ":", "\"", "\\ud800", "\\r\\n", "\u{feff}", "<html>",
    ],
    |input| {
        let retry_after = Some(Duration::from_secs(7));
        for (exchanger, status) in FORMS.iter().flat_map(|form| [200, 400, 401, 429, 503].map(|status| (form, status))) {
            let body = Zeroizing::new(input.to_vec());
            let reply = ProviderReply { status, retry_after, challenge: None, dpop_nonce: None, body };
            let read = exchanger.read(&reply);
            if status == 429 || status >= 500 || !names_members_once(input) {
                let after = match read {
                    Err(ExchangeFault::Unavailable(after, _)) if status == 503 => after,
                    Err(ExchangeFault::TooMany(after, _)) if status != 503 => Some(after),
                    other => panic!("{other:?}"),
                };
                assert_eq!(after, retry_after);
                continue;
            }
            match read {
                Ok(exchanged) => {
                    let said: Map<String, Value> = serde_json::from_slice(input).unwrap();
                    assert_eq!((status, said["access_token"].as_str()), (200, Some(exchanged.token.as_str())));
                    let is_jag = exchanger.form == ExchangeForm::IdJag;
                    let kind = if is_jag { "n_a" } else { "bearer" };
                    assert!(said["token_type"].as_str().unwrap().eq_ignore_ascii_case(kind));
                    assert!(!exchanged.token.is_empty() && exchanged.token.bytes().all(|byte| byte.is_ascii_graphic()));
                    let lasts = said.get("expires_in").map(|seconds| Duration::from_secs(seconds.as_u64().unwrap()));
                    assert_eq!(exchanged.expires_in, lasts);
                    if exchanger.form != ExchangeForm::Entra {
                        let kind = said["issued_token_type"].as_str().unwrap().rsplit(':').next().unwrap();
                        let known: &[&str] = if is_jag { &["id-jag"] } else { &["access_token", "jwt"] };
                        assert!(known.contains(&kind), "{kind}");
                        let scope = said.get("scope").filter(|scope| !scope.is_null());
                        let scope = scope.map_or("", |scope| scope.as_str().unwrap());
                        assert!(scope.split(' ').all(|one| one.is_empty() || ASKED.contains(&one)), "{scope}");
                    }
                }
                Err(ExchangeFault::StepUp(challenge)) => {
                    assert_eq!(status / 100, 4);
                    assert!(http::HeaderValue::from_str(&challenge).is_ok() && challenge.len() < 4200, "{challenge}");
                    assert!(challenge.starts_with("Bearer error=\"insufficient_"), "{challenge}");
                }
                Err(ExchangeFault::Refused | ExchangeFault::Ours(_) | ExchangeFault::NotGranted(_)) => assert_eq!(status / 100, 4),
                Err(ExchangeFault::Unavailable(..) | ExchangeFault::TooMany(..)) => {}
            }
        }
    }
);
