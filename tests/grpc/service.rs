//! The dialect `knox`: login, refresh, introspection of the caller's token; reflection and health.

use std::collections::BTreeMap;
use std::fs;

use futures_util::StreamExt;
use http::uri::PathAndQuery;
use prost::Message;
use prost_types::FileDescriptorProto;
use rotogate::program::knox::{GetMeRequest, Role};
use tokio::sync::mpsc;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::client::{authn, call, config, gate, get_me, grpc, login, refresh};
use crate::edge::exchange::{ACCESS, GRANT};
use support::{Place, keep_secret, until};

#[tokio::test]
async fn a_user_logs_in_refreshes_and_asks_who_it_is() {
    let (_place, gate) = gate("");
    let (user, first) = authn(&gate, "demo", &gate.password).await.unwrap();
    assert_eq!((first.token_type.as_str(), first.expires_in > 0), ("Bearer", true));
    assert_eq!(get_me(&gate, &first.token).await.unwrap(), user);

    let (same, second) = refresh(&gate, &first.refresh_token).await.unwrap();
    assert_eq!(same, user);
    assert!(second.token != first.token && second.refresh_token != first.refresh_token);
    assert_eq!(get_me(&gate, &second.token).await.unwrap(), user);

    // A repetition, as after a lost reply.
    let (_, again) = refresh(&gate, &first.refresh_token).await.unwrap();
    assert!(again.token == second.token && again.refresh_token == second.refresh_token, "a repeat gets the same pair");
    // Data routes accept the token like any other.
    let answer = gate.get("/hello", &second.token).await;
    assert_eq!((answer.status.as_u16(), answer.echoed("x-auth-client")), (200, vec!["knox".to_owned()]));
}

#[tokio::test]
async fn a_refresh_token_that_comes_back_late_ends_the_session() {
    let (_place, gate) = gate("");
    let first = login(&gate).await;
    let (_, second) = refresh(&gate, &first.refresh_token).await.unwrap();
    let (_, third) = refresh(&gate, &second.refresh_token).await.unwrap();
    assert_eq!(refresh(&gate, &first.refresh_token).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(refresh(&gate, &third.refresh_token).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(get_me(&gate, &third.token).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_session_that_was_revoked_elsewhere_is_gone() {
    let (_place, gate) = gate("");
    let tokens = login(&gate).await;
    let revoked = gate.form("/connect/revocation", &[("client_id", "knox"), ("token", &tokens.refresh_token)]).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(get_me(&gate, &tokens.token).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(refresh(&gate, &tokens.refresh_token).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_of_another_dialect_is_not_refreshed_here() {
    let (_place, gate) = gate("");
    let tokens = gate.login().await;
    assert_eq!(refresh(&gate, &tokens.refresh).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(gate.refresh(&tokens.refresh).await.status, 200);
}

#[tokio::test]
async fn the_user_is_as_the_directory_knows_it() {
    let place = Place::new(&config(""));
    drop(place.start());
    let password = format!("pw-{}", uuid::Uuid::new_v4());
    keep_secret(&password);
    let ran = place.run(&["user", "add", "ada@example.com", "--account", "acme", "--subject", "u-1"], &password);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let users = place.path("data/users.toml");
    let mut text = fs::read_to_string(&users).unwrap();
    text.push_str(
        "[users.profile]\nfirst_name = \"Ada\"\nlast_name = \"L\"\nemail = \"ada@example.com\"\nrole = \"admin\"\n\
         avatar = \"https://a/b\"\nphone = \"+1\"\ndids = [\"did:a:1\"]\nexternal_ids = { crm = \"7\" }\n\
         metadata = { level = 3 }\n",
    );
    fs::write(&users, text).unwrap();
    place.write_config(&config("path = \"/{account}/user_api.v1.UserApiService\"\n"));
    let gate = place.start();
    // The account comes from the path.
    let request = rotogate::program::knox::AuthnWithPasswordRequest {
        email: "ada@example.com".to_owned(),
        password: password.clone(),
    };
    let answer: rotogate::program::knox::AuthnWithPasswordResponse =
        call(gate.address, "/acme/user_api.v1.UserApiService/AuthnWithPassword", tonic::Request::new(request))
            .await
            .unwrap()
            .into_inner();
    let user = answer.user.unwrap();
    assert_eq!((user.uuid.as_str(), user.account.as_str()), ("u-1", "acme"));
    assert_eq!((user.first_name.as_str(), user.email.as_str()), ("Ada", "ada@example.com"));
    assert_eq!(user.role(), Role::Admin);
    assert_eq!(user.dids, ["did:a:1"]);
    assert_eq!(user.external_ids, BTreeMap::from([("crm".to_owned(), "7".to_owned())]));
    let level = user.metadata.unwrap().fields["level"].kind.clone();
    assert_eq!(level, Some(prost_types::value::Kind::NumberValue(3.0)));
}

#[tokio::test]
async fn reflection_answers_each_request_before_the_next_one_is_sent() {
    let (_place, gate) = gate("");
    let (ask, mut asked) = mpsc::channel(1);
    let requests = futures_util::stream::poll_fn(move |cx| asked.poll_recv(cx));
    let mut grpc = grpc(gate.address);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let mut answers = grpc.streaming(tonic::Request::new(requests), path, codec).await.unwrap().into_inner();
    let request = |what| ServerReflectionRequest { host: String::new(), message_request: Some(what) };

    ask.send(request(MessageRequest::ListServices(String::new()))).await.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for expected in ["user_api.v1.UserApiService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.contains(&expected), "{names:?}");
    }

    let symbol = "user_api.v1.UserApiService".to_owned();
    ask.send(request(MessageRequest::FileContainingSymbol(symbol))).await.unwrap();
    let Some(MessageResponse::FileDescriptorResponse(files)) = answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("no file")
    };
    let file = FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap();
    let methods: Vec<&str> = file.service[0].method.iter().map(|method| method.name()).collect();
    assert_eq!(methods, ["AuthnWithPassword", "RefreshAccessToken", "GetMe"]);
    drop(ask);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a10_health_is_told_at_once_and_watched_by_so_many_of_one_address() {
    let config = support::with(
        &config(""),
        "server",
        "for_tests.max_own_streams = 3\nfor_tests.max_own_streams_per_address = 2",
    );
    let place = Place::new(&config);
    let gate = place.start();
    let check = |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        call::<_, HealthCheckResponse>(gate.address, "/grpc.health.v1.Health/Check", tonic::Request::new(request))
    };
    for service in ["", "user_api.v1.UserApiService"] {
        assert_eq!(check(service).await.unwrap().into_inner().status, 1, "{service}");
    }
    assert_eq!(check("no.such.Service").await.unwrap_err().code(), Code::NotFound);

    let mut grpc = grpc(gate.address);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = tonic::Request::new(HealthCheckRequest::default());
    let mut watched = grpc.server_streaming(request, path, codec).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status, 1);

    // Watches of one address delay neither another address nor a login.
    let watch = async || {
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let mut grpc = grpc.clone();
        grpc.ready().await.unwrap();
        grpc.server_streaming(tonic::Request::new(HealthCheckRequest::default()), path, codec).await
    };
    let mut second = watch().await.unwrap().into_inner();
    assert_eq!(second.next().await.unwrap().unwrap().status, 1);
    assert_eq!(gate.metric("rotogate_own_streams").await, 2);
    assert_eq!(watch().await.unwrap_err().code(), Code::Unavailable);
    let refused = "rotogate_requests_total{route=\"_endpoint\",outcome=\"streams_overloaded\",code=\"200\"}";
    assert_eq!(gate.metric(refused).await, 1);
    assert_eq!(gate.get("/public/x", "").await.status, 200);
    drop(watched);
    until("its place is free", async || gate.metric("rotogate_own_streams").await == 1).await;
    assert_eq!(check("").await.unwrap().into_inner().status, 1);
}

#[tokio::test]
async fn a_method_that_the_service_has_not_is_unimplemented() {
    let (_place, gate) = gate("");
    for path in [
        "/user_api.v1.UserApiService/getMe",
        "/user_api.v1.UserApiService/GetMe/",
        "/user_api.v1.userapiservice/GetMe",
        "//user_api.v1.UserApiService/GetMe",
        "/user_api.v1.UserApiService/%47etMe",
    ] {
        let request = tonic::Request::new(GetMeRequest {});
        let answer = call::<_, rotogate::program::knox::GetMeResponse>(gate.address, path, request).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn d10_an_exchanged_token_is_no_credential_of_this_dialect() {
    let secret = uuid::Uuid::new_v4().to_string();
    keep_secret(&secret);
    let made = Place::new(support::CONFIG).json(&["client", "secret", "--stdin"], &secret);
    let (_place, gate) = gate(&format!(
        "[[clients]]\nid = \"orders\"\nsecret_hash = {}\ngrants = [\"token-exchange\"]\n\
         exchange = {{ as = [\"api\"], to = [\"ledger\"] }}\n",
        made["secret_hash"]
    ));
    let tokens = login(&gate).await;
    let fields = [
        ("client_id", "orders"),
        ("client_secret", &*secret),
        ("grant_type", GRANT),
        ("subject_token", &*tokens.token),
        ("subject_token_type", ACCESS),
    ];
    let answer = gate.form("/connect/token", &fields).await.json();
    let exchanged = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    keep_secret(exchanged);
    assert_eq!(get_me(&gate, exchanged).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(refresh(&gate, exchanged).await.unwrap_err().code(), Code::Unauthenticated);
    get_me(&gate, &tokens.token).await.unwrap();
    refresh(&gate, &tokens.refresh_token).await.unwrap();
}
