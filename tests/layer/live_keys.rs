//! Keys of another issuer that change while the gate runs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use rotogate::clock::Timestamp;
use rotogate::gate::BuildError;
use rotogate::{Gate, Identity};
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::live_keys::{FetchRules, LiveKeys, Validity};
use rotogate_core::token::verify::{IssuerKeys, IssuerRules, Keys};

use crate::claims::foreign;
use crate::client::Server;
use crate::{builder, tokens};

const ISSUER: &str = "https://kc.test";

fn published(keys: &Keyring) -> IssuerKeys {
    IssuerKeys::from_jwks(keys.jwks().to_string().as_bytes(), None).unwrap()
}

fn rules(keys: IssuerKeys) -> IssuerRules {
    IssuerRules::external(ISSUER, vec!["https://api.test".into()], keys).named("kc").everywhere()
}

async fn server_with(rules: IssuerRules) -> (Gate, Server) {
    let gate = builder().trusted_issuer(rules).build().await.unwrap();
    let app = Router::new().route("/", get(async || "ok")).layer(gate.layer());
    (gate, Server::axum(app).await)
}

#[tokio::test]
async fn i1_i2_i4_an_application_sets_the_keys_of_an_issuer_and_nothing_else_changes() {
    let [first, second] = [(); 2].map(|()| Keyring::ephemeral().unwrap());
    let (gate, server) = server_with(rules(IssuerKeys::unknown())).await;
    let (own, _) = tokens(&gate, "").await;
    let [of_first, of_second] = [&first, &second].map(|keys| foreign(keys, ISSUER, &[]));
    let status = async |token: &str| server.get_with("/", token).await.status;
    let refused = server.get_with("/", &of_first).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(status(&own).await, StatusCode::OK);

    gate.set_trusted("kc", published(&first)).unwrap();
    assert_eq!([status(&of_first).await, status(&of_second).await], [StatusCode::OK, StatusCode::UNAUTHORIZED]);
    let error = gate.set_trusted("other", published(&second)).unwrap_err();
    assert!(matches!(error, BuildError::UnknownIssuer(name) if name == "other"));

    // The token is in the cache of verified tokens, and ends with its key.
    gate.set_trusted("kc", published(&second)).unwrap();
    assert_eq!([status(&of_first).await, status(&of_second).await], [StatusCode::UNAUTHORIZED, StatusCode::OK]);
    assert_eq!(status(&own).await, StatusCode::OK);
    // A change of all keys keeps the present keys of an issuer without new ones.
    gate.set_trusted("kc", published(&first)).unwrap();
    assert_eq!([status(&of_first).await, status(&of_second).await], [StatusCode::OK, StatusCode::UNAUTHORIZED]);
}

#[tokio::test]
async fn i1_a_request_with_an_unknown_kid_waits_for_the_keys_at_the_layer_and_at_require() {
    let keys = Keyring::ephemeral().unwrap();
    let cooldown = Duration::from_secs(3600);
    for at_layer in [true, false] {
        let live = LiveKeys::fetched(FetchRules { cooldown, timeout: Duration::from_secs(60) });
        let mut rules = rules(IssuerKeys::unknown());
        rules.keys = Keys::Live(Arc::clone(&live));
        let gate = builder().trusted_issuer(rules).build().await.unwrap();
        let app = Router::new().route("/", get(async |caller: Identity| caller.subject().to_owned()));
        let app = if at_layer { app.layer(gate.layer()) } else { app.layer(gate.require().issuer("kc")) };
        let server = Server::axum(app).await;
        let good = foreign(&keys, ISSUER, &[]);
        let unknown = foreign(&Keyring::ephemeral().unwrap(), ISSUER, &[]);
        let fetching = async {
            while live.waiting() < 2 {
                tokio::task::yield_now().await;
            }
            let now = Timestamp::from_millis(rotogate_core::clock::wall_micros() / 1000);
            let attempt = live.begin(now, now);
            live.set(published(&keys), Validity::ENDLESS);
            attempt.succeed();
        };
        let (good, unknown, ()) = tokio::join!(server.get_with("/", &good), server.get_with("/", &unknown), fetching);
        assert_eq!((good.status, &*good.body), (StatusCode::OK, "ada"), "at the layer: {at_layer}");
        assert_eq!(unknown.status, StatusCode::UNAUTHORIZED, "the issuer answered, and does not have the key");
        // The token is newer than the answer, so its key may be, too; the issuer is not asked again before the time.
        let newer = foreign(&Keyring::ephemeral().unwrap(), ISSUER, &[]);
        let newer = server.get_with("/", &newer).await;
        assert_eq!(newer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(newer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 3500);
    }
}
