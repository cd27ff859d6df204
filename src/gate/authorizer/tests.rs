use http::header::HOST;
use http::{HeaderMap, Method, Request};

use super::*;
use crate::Gate;
use crate::route::{Route, RoutePolicy};
use crate::token::keyring::Keyring;

const FAMILIES: [Neighbour; 4] = [Neighbour::Nginx, Neighbour::Traefik, Neighbour::Caddy, Neighbour::Haproxy];

async fn gate() -> Gate {
    let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
    let open = RoutePolicy { auth: crate::route::Auth::None, ..RoutePolicy::default() };
    let gate = gate.route(Route::new("/public/{*rest}", open)).route(Route::catch_all(RoutePolicy::default()));
    gate.trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]).build().await.unwrap()
}

/// A question as this neighbour asks it, with these changes of its headers: an empty value removes one.
fn question(neighbour: Neighbour, changes: &[(&str, &str)]) -> Parts {
    let stated: &[(&str, &str)] = match neighbour {
        Neighbour::IngressNginx => &[
            ("x-original-method", "GET"),
            ("x-original-url", "https://gate.test/public/a?b=c"),
            ("x-forwarded-for", "10.0.0.1, 192.0.2.7"),
        ],
        Neighbour::Envoy => {
            &[("host", "gate.test"), ("x-forwarded-proto", "https"), ("x-forwarded-for", "10.0.0.1, 192.0.2.7")]
        }
        Neighbour::Nginx | Neighbour::Traefik | Neighbour::Caddy | Neighbour::Haproxy => &[
            ("x-forwarded-method", "GET"),
            ("x-forwarded-host", "gate.test"),
            ("x-forwarded-uri", "/public/a?b=c"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "192.0.2.7"),
        ],
    };
    let target = if neighbour == Neighbour::Envoy { "/public/a?b=c" } else { "/" };
    let (mut parts, ()) =
        Request::get(target).extension(Peer::new([127, 0, 0, 1].into(), false)).body(()).unwrap().into_parts();
    for (name, value) in stated.iter().chain(changes) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        match *value {
            "" => drop(parts.headers.remove(name)),
            value => match value.strip_prefix("+") {
                Some(second) => drop(parts.headers.append(name, second.parse().unwrap())),
                None => drop(parts.headers.insert(name, value.parse().unwrap())),
            },
        }
    }
    parts
}

async fn judged(neighbour: Neighbour, changes: &[(&str, &str)]) -> Result<Parts, Denial> {
    gate().await.authorizer(neighbour).head(&question(neighbour, changes))
}

#[tokio::test]
async fn n1_each_neighbour_states_the_facts_in_its_own_headers() {
    let gate = gate().await;
    for neighbour in Neighbour::ALL {
        // Those of the others say something else, and count for nothing.
        let others: &[(&str, &str)] = match neighbour {
            Neighbour::IngressNginx => &[
                ("x-forwarded-method", "DELETE"),
                ("x-forwarded-host", "other.test"),
                ("x-forwarded-uri", "/other"),
                ("x-forwarded-proto", "http"),
            ],
            Neighbour::Envoy => &[
                ("x-forwarded-method", "DELETE"),
                ("x-forwarded-host", "other.test"),
                ("x-forwarded-uri", "/other"),
                ("x-original-url", "http://other.test/other"),
                ("x-envoy-original-path", "/other"),
            ],
            _ => &[
                ("x-original-method", "DELETE"),
                ("x-original-url", "http://other.test/other"),
                ("x-original-uri", "/other"),
                ("x-forwarded-prefix", "/other"),
                ("x-forwarded-port", "1"),
                ("x-envoy-original-path", "/other"),
            ],
        };
        let head = gate.authorizer(neighbour).head(&question(neighbour, others)).unwrap();
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("GET", "/public/a?b=c"), "{neighbour:?}");
        assert_eq!(head.headers[HOST], "gate.test", "{neighbour:?}");
        let peer = head.extensions.get::<Peer>().unwrap();
        assert_eq!((peer.address().to_string().as_str(), peer.scheme()), ("192.0.2.7", "https"), "{neighbour:?}");
        assert!(!peer.may_forward(), "{neighbour:?}");
    }
}

#[tokio::test]
async fn n2_a_fact_that_is_missing_repeated_a_list_or_malformed_refuses() {
    let gate = gate().await;
    for neighbour in Neighbour::ALL {
        let names: &[&str] = match neighbour {
            Neighbour::IngressNginx => &["x-original-method", "x-original-url", "x-forwarded-for"],
            Neighbour::Envoy => &["host", "x-forwarded-proto", "x-forwarded-for"],
            _ => &["x-forwarded-method", "x-forwarded-host", "x-forwarded-uri", "x-forwarded-proto", "x-forwarded-for"],
        };
        for name in names {
            for value in ["", "+GET", "+/public/a", "+gate.test", "+https", "+192.0.2.7"] {
                let asked = question(neighbour, &[(name, value)]);
                assert!(gate.authorizer(neighbour).head(&asked).is_err(), "{neighbour:?} {name}: {value}");
            }
        }
    }
    let bad = [
        ("x-forwarded-method", "GET, POST"),
        ("x-forwarded-method", "G T"),
        ("x-forwarded-host", "gate.test,other.test"),
        ("x-forwarded-host", "user@gate.test"),
        ("x-forwarded-uri", "public/a"),
        ("x-forwarded-uri", "https://gate.test/public/a"),
        ("x-forwarded-uri", "*"),
        ("x-forwarded-uri", "/public/a#/../b"),
        ("x-forwarded-proto", "ftp"),
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-for", "192.0.2.7, 192.0.2.8"),
        ("x-forwarded-for", "unknown"),
        ("x-forwarded-for", "192.0.2.7:80"),
    ];
    for neighbour in FAMILIES {
        for change in bad {
            assert!(
                gate.authorizer(neighbour).head(&question(neighbour, &[change])).is_err(),
                "{neighbour:?} {change:?}"
            );
        }
    }
    for url in [
        "/public/a",
        "https:///public/a",
        "https://gate.test",
        "https://gate.test?a=/b",
        "https://gate.test/a#b",
        "ftp://gate.test/a",
        "https://user@gate.test/a",
        "http://hosthttp://gate.test/a",
    ] {
        assert!(judged(Neighbour::IngressNginx, &[("x-original-url", url)]).await.is_err(), "{url}");
    }
}

#[tokio::test]
async fn n3_only_a_trusted_peer_may_ask() {
    let gate = gate().await;
    for neighbour in Neighbour::ALL {
        let authorizer = gate.authorizer(neighbour);
        let mut asked = question(neighbour, &[]);
        assert_eq!(authorizer.decide(authorizer.head(&asked)).await.status(), 200, "{neighbour:?}");
        for peer in [Some(Peer::new([192, 0, 2, 1].into(), true)), None] {
            asked.extensions.clear();
            asked.extensions.extend(
                peer.map(|peer| {
                    let mut one = http::Extensions::new();
                    one.insert(peer);
                    one
                })
                .unwrap_or_default(),
            );
            let reply = authorizer.decide(authorizer.head(&asked)).await;
            assert_eq!((reply.status().as_u16(), reply.headers().contains_key("x-auth-subject")), (403, false));
        }
    }
}

#[tokio::test]
async fn n4_the_question_itself_means_nothing() {
    let mut asked = question(Neighbour::Nginx, &[]);
    asked.method = Method::DELETE;
    asked.uri = "/private/x?access_token=1".parse().unwrap();
    asked.headers.insert(HOST, "gate".parse().unwrap());
    let head = gate().await.authorizer(Neighbour::Nginx).head(&asked).unwrap();
    assert_eq!((head.method.as_str(), head.uri.path(), head.uri.query()), ("GET", "/public/a", Some("b=c")));
}

#[tokio::test]
async fn n5_n22_a_target_that_is_not_canonical_is_refused() {
    let gate = gate().await;
    for neighbour in FAMILIES {
        let authorizer = gate.authorizer(neighbour);
        for (target, status) in [
            ("/public/a", 200),
            ("/public/a?x=/../private", 200),
            ("/public/a?b?c", 200),
            ("/public//a", 400),
            ("/public/./a", 400),
            ("/public/%2e%2e/private", 400),
            ("/public/%61", 400),
            ("/public/a%2Fb", 400),
            ("/public/a%5cb", 400),
            ("/public/a%00", 400),
            ("/public/%252e%252e/a", 400),
            ("/private?/public/a", 401),
        ] {
            let asked = question(neighbour, &[("x-forwarded-uri", target)]);
            let reply = authorizer.decide(authorizer.head(&asked)).await;
            let stated = if status == 400 {
                reply.headers()[&answer::STATUS].to_str().unwrap().parse().unwrap()
            } else {
                reply.status().as_u16()
            };
            assert_eq!(stated, status, "{neighbour:?} {target}");
        }
    }
}

#[tokio::test]
async fn n9_a_disguised_name_is_refused_or_removed_by_the_spelling_it_came_in() {
    let gate = gate().await;
    for name in
        ["x_auth_subject", "x.auth.subject", "x-auth_subject", "x_forwarded_user", "x_original_url", "content_length"]
    {
        for neighbour in Neighbour::ALL {
            let authorizer = gate.authorizer(neighbour);
            let reply = authorizer.decide(authorizer.head(&question(neighbour, &[(name, "admin")]))).await;
            if neighbour == Neighbour::Envoy {
                let removed = reply.headers()["x-envoy-auth-headers-to-remove"].to_str().unwrap();
                assert!(reply.status() == 200 && removed.split(", ").any(|one| one == name), "{name}: {removed}");
            } else {
                assert_eq!(reply.headers()[&answer::STATUS], "400", "{neighbour:?} {name}");
            }
        }
    }
    // The neighbour overwrites the canonical spelling.
    assert!(judged(Neighbour::Nginx, &[("x-auth-subject", "admin"), ("my_header", "1")]).await.is_ok());
}

#[tokio::test]
async fn n8_n7_an_open_route_has_no_identity_and_what_each_neighbour_needs_instead() {
    let gate = gate().await;
    for neighbour in Neighbour::ALL {
        let authorizer = gate.authorizer(neighbour);
        let reply = authorizer.decide(authorizer.head(&question(neighbour, &[("cookie", "a=b")]))).await;
        let headers = reply.headers();
        assert_eq!((reply.status().as_u16(), reply.body().data().len()), (200, 0));
        assert_eq!(headers["cache-control"], "no-store");
        assert!(!headers.contains_key("set-cookie") && !headers.contains_key("x-auth-expires"), "{neighbour:?}");
        let subject = headers.get("x-auth-subject").map(|value| value.to_str().unwrap());
        match neighbour {
            Neighbour::Traefik => assert_eq!(subject, None),
            Neighbour::Envoy => {
                let removed = headers["x-envoy-auth-headers-to-remove"].to_str().unwrap();
                assert_eq!(subject, None);
                assert!(removed.contains("x-auth-subject") && removed.contains("authorization"), "{removed}");
            }
            _ => assert_eq!(subject, Some("")),
        }
    }
}

#[tokio::test]
async fn n11_n12_each_neighbour_gets_a_status_that_it_can_hand_on() {
    let gate = gate().await;
    for neighbour in Neighbour::ALL {
        let is_nginx = matches!(neighbour, Neighbour::Nginx | Neighbour::IngressNginx);
        let authorizer = gate.authorizer(neighbour);
        let stated = answer::stated(neighbour, crate::reply::problem(http::StatusCode::SERVICE_UNAVAILABLE, None));
        assert_eq!(
            (stated.status().as_u16(), &stated.headers()[&answer::STATUS]),
            (503, &"503".parse::<HeaderValue>().unwrap())
        );
        for real in [400, 404, 405, 413, 421] {
            let status = http::StatusCode::from_u16(real).unwrap();
            let stated = answer::stated(neighbour, crate::reply::problem(status, None));
            assert_eq!(stated.status().as_u16(), if is_nginx { 403 } else { real }, "{neighbour:?}");
            assert_eq!(stated.headers()[&answer::STATUS], real.to_string().as_str());
        }
        // A gRPC status is a 200 to everybody else, and a 200 is a permit here.
        let passing = crate::refusal::denied_grpc(Denial::NoCredential);
        assert_eq!(answer::stated(neighbour, passing).status(), 503, "{neighbour:?}");
        let target = [("x-forwarded-uri", "/private"), ("x-original-url", "https://gate.test/private")];
        let mut asked = question(neighbour, if neighbour == Neighbour::Envoy { &[] } else { &target });
        if neighbour == Neighbour::Envoy {
            asked.uri = "/private".parse().unwrap();
        }
        asked.headers.insert("content-type", "application/grpc".parse().unwrap());
        let reply = authorizer.decide(authorizer.head(&asked)).await;
        assert_eq!(
            (reply.status().as_u16(), &reply.headers()["www-authenticate"]),
            (401, &"Bearer".parse::<HeaderValue>().unwrap())
        );
    }
}

#[tokio::test]
async fn n18_connection_cannot_name_a_fact_away() {
    for name in ["X-Forwarded-Uri", "keep-alive, x-auth-subject", "authorization"] {
        assert!(judged(Neighbour::Nginx, &[("connection", name)]).await.is_err(), "{name}");
    }
    assert!(judged(Neighbour::Nginx, &[("connection", "keep-alive")]).await.is_ok());
}

#[tokio::test]
async fn n16_n14_a_handshake_stays_one_and_a_body_is_not_announced_to_the_judge() {
    let head =
        judged(Neighbour::Nginx, &[("sec-websocket-key", "x"), ("content-length", "7"), ("expect", "100-continue")])
            .await;
    let head = head.unwrap();
    assert_eq!(head.headers["upgrade"], "websocket");
    assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("expect"));
    let mut reply = HeaderMap::new();
    let announced = [(http::header::CONTENT_LENGTH, "7".parse().unwrap())].into_iter().collect();
    Authorizer::close_after_body((Version::HTTP_11, &announced), &mut reply);
    assert_eq!(reply["connection"], "close");
}

#[cfg(feature = "grpc")]
mod grpc {
    use http_body_util::{BodyExt, Full};
    use prost::Message;

    use super::super::grpc::Checks;
    use super::super::grpc::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
    use super::super::grpc::proto::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress, address};
    use super::super::grpc::proto::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
    use super::super::grpc::proto::envoy::service::auth::v3::check_response::HttpResponse;
    use super::super::grpc::proto::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
    use super::*;

    fn check(change: impl FnOnce(&mut HttpRequest)) -> CheckRequest {
        let mut http = HttpRequest {
            method: "GET".into(),
            host: "gate.test".into(),
            path: "/public/a?b=c".into(),
            scheme: "https".into(),
            ..HttpRequest::default()
        };
        change(&mut http);
        let socket = SocketAddress { address: "192.0.2.7".into() };
        let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
        let attributes =
            AttributeContext { source: Some(Peer { address }), request: Some(Request { http: Some(http) }) };
        CheckRequest { attributes: Some(attributes) }
    }

    fn raw(pairs: &[(&str, &[u8])]) -> Option<HeaderMap> {
        let one = |(key, value): &(&str, &[u8])| HeaderValue {
            key: (*key).into(),
            raw_value: value.to_vec(),
            value: String::new(),
        };
        Some(HeaderMap { headers: pairs.iter().map(one).collect() })
    }

    #[tokio::test]
    async fn n21_n22_n27_attributes_are_the_facts_and_headers_never() {
        let authorizer = gate().await.authorizer(Neighbour::Envoy);
        let head = authorizer.head_of_check(check(|http| {
            let forged = [
                (":path", "/other"),
                ("x-envoy-original-path", "/other"),
                ("x-forwarded-for", "10.9.9.9"),
                (":authority", "other.test"),
                ("x-forwarded-uri", "/other"),
                (":method", "DELETE"),
            ];
            http.headers = forged.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        }));
        let head = head.unwrap();
        assert_eq!((head.method.as_str(), head.uri.path(), head.uri.query()), ("GET", "/public/a", Some("b=c")));
        assert_eq!(head.headers[HOST], "gate.test");
        assert_eq!(head.extensions.get::<crate::headers::Peer>().unwrap().address().to_string(), "192.0.2.7");
        let empty: [fn(&mut HttpRequest); 4] = [
            |http| http.method.clear(),
            |http| http.host.clear(),
            |http| http.path.clear(),
            |http| http.scheme.clear(),
        ];
        for clear in empty {
            assert!(authorizer.head_of_check(check(clear)).is_err());
        }
        assert!(authorizer.head_of_check(CheckRequest::default()).is_err());
        let mut nobody = check(|_| {});
        nobody.attributes.as_mut().unwrap().source = None;
        assert!(authorizer.head_of_check(nobody).is_err());
        assert!(authorizer.head_of_check(check(|http| http.path = "/a#b".into())).is_err());
    }

    #[tokio::test]
    async fn n13_n23_merged_and_raw_headers_have_one_verdict() {
        let authorizer = gate().await.authorizer(Neighbour::Envoy);
        let two = authorizer.head_of_check(check(|http| {
            http.path = "/private".into();
            http.headers.insert("authorization".into(), "Bearer a,Bearer b".into());
        }));
        assert_eq!(two.unwrap_err(), Denial::TwoCredentials);
        let two = authorizer.head_of_check(check(|http| {
            http.path = "/private".into();
            // The list counts alone.
            http.headers.insert("authorization".into(), "Bearer one".into());
            http.header_map = raw(&[("authorization", b"Bearer a"), ("authorization", b"Bearer b")]);
        }));
        assert_eq!(authorizer.decide(two).await.status(), 400);
        let binary = authorizer.head_of_check(check(|http| http.header_map = raw(&[("x-name", b"\xff")])));
        assert_eq!(binary.unwrap().headers["x-name"].as_bytes(), b"\xff");
    }

    /// The reply to a call, with its whole body.
    async fn called(authorizer: &Authorizer, path: &str, message: &[u8]) -> (http::StatusCode, Vec<u8>) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let framed = bytes::Bytes::from([&[0], &length[..], message].concat());
        let peer = crate::headers::Peer::new([127, 0, 0, 1].into(), false);
        let call = http::Request::post(path).header("content-type", "application/grpc").extension(peer);
        let (call, ()) = call.body(()).unwrap().into_parts();
        let checks = Checks::default();
        let reply = checks.answer(authorizer, &call, Full::new(framed), |head| authorizer.decide(head)).await;
        let (parts, body) = reply.into_parts();
        let bytes = match body.stream {
            Some(stream) => stream.collect().await.unwrap().to_bytes(),
            None => body.data,
        };
        (parts.status, bytes.get(5..).unwrap_or_default().to_vec())
    }

    async fn verdict(authorizer: &Authorizer, question: &CheckRequest) -> CheckResponse {
        let path = "/envoy.service.auth.v3.Authorization/Check";
        let (_, bytes) = called(authorizer, path, &question.encode_to_vec()).await;
        CheckResponse::decode(bytes.as_slice()).unwrap()
    }

    #[tokio::test]
    async fn n25_n21_an_allowed_request_loses_what_only_the_gate_sets_by_the_spelling_it_came_in() {
        let authorizer = gate().await.authorizer(Neighbour::Envoy);
        let sent = ["x_auth_subject", "x-auth-subject", "authorization", "x-http-method-override", "x-original-url"];
        let question = check(|http| {
            let pairs: Vec<(&str, &[u8])> = sent.iter().map(|name| (*name, b"root".as_slice())).collect();
            http.header_map = raw(&pairs);
            http.headers.insert("x-kept".into(), "1".into());
        });
        let answered = verdict(&authorizer, &question).await;
        assert_eq!(answered.status.unwrap().code, 0);
        let Some(HttpResponse::OkResponse(ok)) = answered.http_response else { panic!("denied") };
        for name in sent {
            assert!(ok.headers_to_remove.iter().any(|removed| removed == name), "{name}: {:?}", ok.headers_to_remove);
        }
        assert!(!ok.headers_to_remove.iter().any(|removed| removed == "x-kept"));
        assert!(ok.headers.is_empty() && answered.dynamic_metadata.is_none(), "nobody asked");
    }

    #[tokio::test]
    async fn n26_n24_a_refusal_and_a_fault_are_denials_with_a_status_and_headers_overwrite() {
        let authorizer = gate().await.authorizer(Neighbour::Envoy);
        let stranger = gate().await.authorizer(Neighbour::Envoy).trusting(Vec::new());
        let private = check(|http| {
            http.path = "/private".into();
            http.headers.insert("content-type".into(), "application/grpc".into());
        });
        for (authorizer, question, code, status) in [
            (&authorizer, private.clone(), 16, 401),
            (&authorizer, check(|http| http.host.clear()), 7, 400),
            (&authorizer, CheckRequest::default(), 7, 400),
            (&stranger, check(|_| {}), 7, 403),
        ] {
            let answered = verdict(authorizer, &question).await;
            assert_eq!(answered.status.unwrap().code, code);
            let Some(HttpResponse::DeniedResponse(denied)) = answered.http_response else { panic!("allowed") };
            assert_eq!(denied.status.unwrap().code, status);
            for header in &denied.headers {
                assert_eq!(header.append_action, HeaderAppendAction::OverwriteIfExistsOrAdd as i32);
            }
            let has = |name: &str| denied.headers.iter().any(|header| header.header.as_ref().unwrap().key == name);
            assert_eq!(has("www-authenticate"), status == 401);
        }
        let mut fault = crate::reply::problem(http::StatusCode::SERVICE_UNAVAILABLE, None);
        let Some(HttpResponse::DeniedResponse(denied)) = super::super::grpc::spoken(&mut fault).http_response else {
            panic!("allowed")
        };
        assert_eq!(denied.status.unwrap().code, 503);
        // Both challenges of a route that takes both schemes arrive, in their order.
        let mut both = crate::reply::problem(http::StatusCode::UNAUTHORIZED, None);
        for challenge in ["Bearer", "DPoP algs=\"ES256\""] {
            both.headers_mut().append("www-authenticate", challenge.parse().unwrap());
        }
        let Some(HttpResponse::DeniedResponse(denied)) = super::super::grpc::spoken(&mut both).http_response else {
            panic!("allowed")
        };
        let challenges: Vec<_> = denied
            .headers
            .iter()
            .filter_map(|header| Some((header.header.as_ref()?, header.append_action)))
            .filter(|(header, _)| header.key == "www-authenticate")
            .map(|(header, action)| (header.value.as_str(), action))
            .collect();
        let [overwrite, append] = [HeaderAppendAction::OverwriteIfExistsOrAdd, HeaderAppendAction::AppendIfExistsOrAdd];
        assert_eq!(challenges, [("Bearer", overwrite as i32), ("DPoP algs=\"ES256\"", append as i32)]);
        // A permit is made by a verdict alone, not by a status.
        let passing = super::super::grpc::spoken(&mut Reply::default());
        assert_ne!(passing.status.unwrap().code, 0);
    }

    #[tokio::test]
    async fn n28_health_and_reflection_are_served() {
        let authorizer = gate().await.authorizer(Neighbour::Envoy);
        let health = |service: &str| tonic_health::pb::HealthCheckRequest { service: service.into() }.encode_to_vec();
        let path = "/grpc.health.v1.Health/Check";
        // Field 1, the status, is SERVING.
        for service in ["", "envoy.service.auth.v3.Authorization"] {
            assert_eq!(called(&authorizer, path, &health(service)).await.1, [8, 1], "{service}");
        }
        assert!(called(&authorizer, path, &health("other")).await.1.is_empty());
        let list = [0x3a, 1, b'*'];
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let (_, services) = called(&authorizer, path, &list).await;
        let services = String::from_utf8_lossy(&services).into_owned();
        assert!(services.contains("envoy.service.auth.v3.Authorization"), "{services}");
    }
}
