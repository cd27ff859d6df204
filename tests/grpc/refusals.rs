//! Refusals of the dialect, and their form.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rotogate::program::knox::{GetMeRequest, RefreshAccessTokenRequest};
use tonic::Code;
use tonic_types::StatusExt;

use super::client::{GET_ME, REFRESH, authn, framed, gate, get_me_with, login, refresh, send};
use support::{CONFIG, Place};

#[tokio::test]
async fn an_empty_field_is_an_invalid_argument_that_is_named() {
    let (_place, gate) = gate("");
    for (status, field) in [
        (refresh(&gate, "").await.unwrap_err(), "refresh_token"),
        (authn(&gate, "", "x").await.unwrap_err(), "email"),
        (authn(&gate, "demo", "").await.unwrap_err(), "password"),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_token_are_unauthenticated() {
    let (_place, gate) = gate("");
    let wrong = authn(&gate, "demo", "not this").await.unwrap_err();
    let unknown = authn(&gate, "nobody", "not this").await.unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthenticated);
    assert_eq!((wrong.code(), wrong.message()), (unknown.code(), unknown.message()));
    assert_eq!(refresh(&gate, "rg1_x").await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn t17_authorization_metadata_are_held_to_the_rules_of_the_header() {
    let (_place, gate) = gate("");
    let token = login(&gate).await.token;
    let good = format!("Bearer {token}");
    assert!(get_me_with(&gate, &[("authorization", &good)]).await.is_ok());
    assert!(get_me_with(&gate, &[("authorization", &format!("bearer  {token}"))]).await.is_ok());
    for (metadata, code) in [
        (vec![], Code::Unauthenticated),
        (vec![("authorization", format!("Basic {token}"))], Code::Unauthenticated),
        (vec![("authorization", format!("Bearer {token}, Bearer {token}"))], Code::Unauthenticated),
        (vec![("authorization", "Bearer ".to_owned())], Code::Unauthenticated),
        (vec![("authorization", token.clone())], Code::Unauthenticated),
        (vec![("authorization", good.clone()), ("authorization", good.clone())], Code::InvalidArgument),
        (vec![("authorization", good.clone()), ("authorization", "Basic eDp5".to_owned())], Code::InvalidArgument),
        (vec![("x-auth-subject", "demo".to_owned())], Code::Unauthenticated),
    ] {
        let metadata: Vec<_> = metadata.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(get_me_with(&gate, &metadata).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn t17_binary_metadata_are_no_credential() {
    let (_place, gate) = gate("");
    let token = login(&gate).await.token;
    let request = Request::post(gate.url(GET_ME))
        .header("content-type", "application/grpc")
        .header("authorization-bin", format!("Bearer {token}"))
        .body(Full::new(framed(&GetMeRequest {})));
    let (answer, _) = send(request.unwrap()).await;
    assert_eq!(answer.headers()["grpc-status"], "16");
}

#[tokio::test]
async fn t17_a_refusal_is_trailers_alone_with_http_200() {
    let (_place, gate) = gate("");
    let request = RefreshAccessTokenRequest { refresh_token: "rg1_x".to_owned() };
    let request = Request::post(gate.url(REFRESH))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(Full::new(framed(&request)));
    let (answer, trailers) = send(request.unwrap()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/grpc"));
    assert!(answer.body().is_empty() && trailers.is_none(), "the head is all there is");
}

#[tokio::test]
async fn what_is_not_grpc_is_refused_plainly() {
    let (_place, gate) = gate("");
    for (method, media, status) in
        [("POST", "application/json", 415), ("POST", "application/grpc-web", 415), ("GET", "text/plain", 405)]
    {
        let request = Request::builder().method(method).uri(gate.url(REFRESH)).header("content-type", media);
        assert_eq!(send(request.body(Full::default()).unwrap()).await.0.status(), status, "{method} {media}");
    }
    // A client that announces gRPC gets a gRPC answer.
    let request = Request::get(gate.url(REFRESH)).header("content-type", "application/grpc");
    let (answer, _) = send(request.body(Full::default()).unwrap()).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["grpc-status"].to_str().unwrap()), (200, "12"));
    // No message, half a message, a too long message, and bytes that are not a message.
    for (body, code) in [
        (Bytes::new(), "13"),
        (Bytes::from_static(&[0, 0, 0, 0, 9, 1]), "13"),
        (Bytes::from(vec![0; 40_000]), "8"),
        (Bytes::from_static(&[0, 0, 0, 0, 2, 255, 255]), "13"),
    ] {
        let request = Request::post(gate.url(REFRESH)).header("content-type", "application/grpc");
        let (answer, _) = send(request.body(Full::new(body.clone())).unwrap()).await;
        assert_eq!(answer.headers()["grpc-status"], code, "{} bytes", body.len());
    }
}

#[tokio::test]
async fn too_many_logins_are_told_when_to_come_again() {
    let config = support::with(CONFIG, "limits", "login_per_account = \"2/1h\"");
    let place = Place::new(&format!("{config}\n[[endpoints]]\ndialect = \"knox\"\n"));
    let gate = place.start();
    let mut last = None;
    for _ in 0..3 {
        last = authn(&gate, "demo", "not this").await.err();
    }
    let status = last.unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(wait.as_secs() > 0, "{wait:?}");
}
