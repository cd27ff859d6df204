//! Bound tokens at the endpoints that know no proofs: each refuses them in its own words, and nothing changes.

use http::Method;
use serde_json::json;
use support::stub::HEAD;

use super::*;
use crate::grpc::client::{get_me, refresh as grpc_refresh};
use crate::kuzzle::client::{Client, error};

const ENDPOINTS: &str = r#"
[[clients]]
id = "bound"
dpop = "optional"
[[endpoints]]
dialect = "envelope"
path = "/envelope"
client = "bound"
[[endpoints]]
dialect = "kuzzle"
path = "/kuzzle"
client = "bound"
[[endpoints]]
dialect = "knox"
client = "bound"
[[endpoints]]
dialect = "my-sessions"
path = "/sessions"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn n31_n35_n38_endpoints_without_proofs_refuse_bound_tokens_in_their_own_words() {
    let (edge, holder) = (edge_on(&format!("{HEAD}{ENDPOINTS}")), Holder::new(1));
    let gate = &edge.gate;
    let tokens = log_in(&edge, "bound", &[&holder.for_tokens()]);
    let (access, credential) = (field(&tokens, "access_token"), field(&tokens, "refresh_token"));
    let bearer = format!("Bearer {access}");
    let json_body = ("content-type", "application/json");

    let pair = json!({ "token": access, "refreshToken": credential }).to_string();
    let envelope = gate.call(Method::PUT, "/envelope", &[json_body], &pair).await;
    assert_eq!((envelope.status.as_u16(), &envelope.json()["errorCode"]), (401, &"AUTH_1002".into()), "{envelope:?}");

    let kuzzle = Client { gate };
    let checked = kuzzle.post("/kuzzle/_checkToken", None, &json!({ "token": access }).to_string()).await;
    assert_eq!(checked.json()["result"]["valid"], false, "{checked:?}");
    for path in ["/kuzzle/_refreshToken", "/kuzzle/users/_me"] {
        let method = if path.ends_with("_me") { Method::GET } else { Method::POST };
        let refused = kuzzle.send(method, path, Some(&access), "").await;
        assert_eq!(error(&refused), (401, "security.token.invalid".to_owned()), "{path}: {refused:?}");
    }

    assert_eq!(get_me(gate, &access).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    assert_eq!(grpc_refresh(gate, &credential).await.unwrap_err().code(), tonic::Code::Unauthenticated);

    let proof = holder.for_path("/sessions", &access);
    let scheme = format!("DPoP {access}");
    let proved = [("authorization", scheme.as_str()), ("dpop", proof.strip_prefix("DPoP: ").unwrap())];
    for headers in [&[("authorization", bearer.as_str())][..], &proved] {
        let refused = gate.call(Method::GET, "/sessions", headers, "").await;
        assert_eq!(refused.status.as_u16(), 401, "{refused:?}");
        assert_eq!(refused.headers["content-type"], "application/problem+json");
        assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{refused:?}");
    }

    // None of it ended or moved the session.
    assert_eq!(ask(&edge, "/x", &access, &holder.for_path("/x", &access)).status, 200);
    assert_eq!(field(&refresh(&edge, "bound", &[&holder.for_tokens()], &credential), "token_type"), "DPoP");
    // A logout takes no proof, as a revocation.
    assert_eq!(kuzzle.post("/kuzzle/_logout", Some(&access), "").await.status.as_u16(), 200);
    assert_eq!(ask(&edge, "/x", &access, &holder.for_path("/x", &access)).status, 401);
}
