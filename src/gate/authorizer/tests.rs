use http::header::HOST;
use http::{Method, Request};

use tower::ServiceExt;

use super::*;
use crate::Gate;
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::token::keyring::Keyring;

#[cfg(feature = "grpc")]
pub(in crate::gate) mod grpc;
mod sessions;

const FAMILIES: [Neighbour; 4] = [Neighbour::Nginx, Neighbour::Traefik, Neighbour::Caddy, Neighbour::Haproxy];

async fn gate() -> Gate {
    let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
    let open = RoutePolicy { auth: rotogate_core::route::Auth::None, ..RoutePolicy::default() };
    let gate = gate.route(Route::new("/public/{*rest}", open)).route(Route::catch_all(RoutePolicy::default()));
    gate.trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]).build().await.unwrap()
}

/// A question as this neighbour asks it, with these changes of its headers: an empty value removes one.
pub(in crate::gate) fn question(neighbour: Neighbour, changes: &[(&str, &str)]) -> Parts {
    let stated: &[(&str, &str)] = match neighbour {
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
    Authorizer::new(&gate().await, neighbour).head(&mut question(neighbour, changes))
}

#[tokio::test]
async fn n1_each_neighbour_states_the_facts_in_its_own_headers() {
    let gate = gate().await;
    for neighbour in Neighbour::ALL {
        // Other neighbours' headers contradict, and have no effect.
        let others: &[(&str, &str)] = match neighbour {
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
        let head = Authorizer::new(&gate, neighbour).head(&mut question(neighbour, others)).unwrap();
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
            Neighbour::Envoy => &["host", "x-forwarded-proto", "x-forwarded-for"],
            _ => &["x-forwarded-method", "x-forwarded-host", "x-forwarded-uri", "x-forwarded-proto", "x-forwarded-for"],
        };
        for name in names {
            for value in ["", "+GET", "+/public/a", "+gate.test", "+https", "+192.0.2.7"] {
                let asked = question(neighbour, &[(name, value)]);
                assert!(
                    Authorizer::new(&gate, neighbour).head(&mut asked.clone()).is_err(),
                    "{neighbour:?} {name}: {value}"
                );
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
                Authorizer::new(&gate, neighbour).head(&mut question(neighbour, &[change])).is_err(),
                "{neighbour:?} {change:?}"
            );
        }
    }
}

#[tokio::test]
async fn n3_only_a_trusted_peer_may_ask() {
    let gate = gate().await;
    for neighbour in Neighbour::ALL {
        let authorizer = Authorizer::new(&gate, neighbour);
        let mut asked = question(neighbour, &[]);
        assert_eq!(authorizer.decide(authorizer.head(&mut asked.clone())).await.status(), 200, "{neighbour:?}");
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
            let reply = authorizer.decide(authorizer.head(&mut asked.clone())).await;
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
    let head = Authorizer::new(&gate().await, Neighbour::Nginx).head(&mut asked.clone()).unwrap();
    assert_eq!((head.method.as_str(), head.uri.path(), head.uri.query()), ("GET", "/public/a", Some("b=c")));
}

#[tokio::test]
async fn n5_n22_a_target_that_is_not_canonical_is_refused() {
    let gate = gate().await;
    for neighbour in FAMILIES {
        let authorizer = Authorizer::new(&gate, neighbour);
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
            let reply = authorizer.decide(authorizer.head(&mut asked.clone())).await;
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
            let authorizer = Authorizer::new(&gate, neighbour);
            let reply = authorizer.decide(authorizer.head(&mut question(neighbour, &[(name, "admin")]))).await;
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
        let authorizer = Authorizer::new(&gate, neighbour);
        let reply = authorizer.decide(authorizer.head(&mut question(neighbour, &[("cookie", "a=b")]))).await;
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
        let is_nginx = neighbour == Neighbour::Nginx;
        let authorizer = Authorizer::new(&gate, neighbour);
        let stated =
            answer::stated(neighbour, rotogate_core::reply::problem(http::StatusCode::SERVICE_UNAVAILABLE, None));
        assert_eq!(
            (stated.status().as_u16(), &stated.headers()[&answer::STATUS]),
            (503, &"503".parse::<HeaderValue>().unwrap())
        );
        for real in [400, 404, 405, 413, 421] {
            let status = http::StatusCode::from_u16(real).unwrap();
            let stated = answer::stated(neighbour, rotogate_core::reply::problem(status, None));
            assert_eq!(stated.status().as_u16(), if is_nginx { 403 } else { real }, "{neighbour:?}");
            assert_eq!(stated.headers()[&answer::STATUS], real.to_string().as_str());
        }
        // A gRPC status has the HTTP status 200, which would be a permit here.
        let passing = rotogate_core::refusal::denied_grpc(Denial::NoCredential);
        assert_eq!(answer::stated(neighbour, passing).status(), 503, "{neighbour:?}");
        let target = [("x-forwarded-uri", "/private")];
        let mut asked = question(neighbour, if neighbour == Neighbour::Envoy { &[] } else { &target });
        if neighbour == Neighbour::Envoy {
            asked.uri = "/private".parse().unwrap();
        }
        asked.headers.insert("content-type", "application/grpc".parse().unwrap());
        let reply = authorizer.decide(authorizer.head(&mut asked.clone())).await;
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
async fn n70_connection_cannot_name_a_header_of_the_identity_away_whatever_its_name_is() {
    let fields = vec![(HeaderName::from_static("e-mail"), crate::gate::IdentityField::Subject)];
    let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
    let gate = gate.identity_headers(fields).trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]);
    let gate = gate.build().await.unwrap();
    for neighbour in Neighbour::ALL {
        let head = |options: &str| {
            Authorizer::new(&gate, neighbour).head(&mut question(neighbour, &[("connection", options)]))
        };
        for named in ["e-mail", "close, E-Mail", "keep-alive,e_mail", "dpop", "x-user", "remote-user"] {
            assert!(head(named).is_err(), "{neighbour:?} {named}");
        }
        for plain in ["keep-alive", "Upgrade, HTTP2-Settings", "x-requested-with"] {
            assert!(head(plain).is_ok(), "{neighbour:?} {plain}");
        }
    }
}

#[tokio::test]
async fn n65_this_machine_may_be_named_at_a_listener_on_loopback_and_another_host_is_refused_with_the_reason() {
    let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
    let open = RoutePolicy { auth: rotogate_core::route::Auth::None, ..RoutePolicy::default() };
    let gate = gate.route(Route::catch_all(open)).hosts(["gate.test"]);
    let gate = gate.trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]).build().await.unwrap();
    for neighbour in Neighbour::ALL {
        for (host, is_here, status) in [
            ("gate.test", false, "200"),
            ("127.0.0.1:8000", true, "200"),
            ("localhost", true, "200"),
            ("127.0.0.1:8000", false, "421"),
            ("other.test", true, "421"),
        ] {
            let name = if neighbour == Neighbour::Envoy { "host" } else { "x-forwarded-host" };
            let mut asked = question(neighbour, &[(name, host)]);
            asked.extensions.insert(Peer::new([127, 0, 0, 1].into(), false).at_loopback(is_here));
            let authorizer = Authorizer::new(&gate, neighbour);
            let reply = authorizer.decide(authorizer.head(&mut asked)).await;
            let stated = reply.headers().get(&answer::STATUS).map_or("200", |it| it.to_str().unwrap());
            assert_eq!(stated, status, "{neighbour:?} {host} {is_here}");
            let detail = reply.headers().get(&answer::DETAIL).map(|it| it.to_str().unwrap());
            let expected = "this gate does not serve the host that the request names";
            assert_eq!(detail, (status == "421").then_some(expected), "{neighbour:?} {host}");
        }
    }
}

/// A gate whose open route may have a token in a cookie.
async fn gate_with_a_cookie() -> Gate {
    let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
    let open =
        RoutePolicy { auth: rotogate_core::route::Auth::None, cookie: Some("token".into()), ..RoutePolicy::default() };
    let own = RoutePolicy { forward_token: true, ..open.clone() };
    let gate = gate.route(Route::new("/own/{*rest}", own)).route(Route::catch_all(open));
    gate.trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]).build().await.unwrap()
}

#[tokio::test]
async fn n69_b46_all_cookies_of_the_credential_and_the_proof_stay_with_the_gate_behind_envoy() {
    let authorizer = Authorizer::new(&gate_with_a_cookie().await, Neighbour::Envoy);
    for (sent, left) in [
        (&["theme=dark", "+token=a.b.c"][..], Some("theme=dark")),
        (&["token=a.b.c", "+theme=dark"], Some("theme=dark")),
        (&["theme=dark", "+token=a.b.c; x=1", "+token=d.e.f"], Some("theme=dark; x=1")),
        (&["token=a.b.c", "+token=d.e.f"], None),
        (&["theme=dark", "+x=1"], Some("")),
        // Envoy over HTTP joins cookie headers with a comma.
        (&["theme=dark,token=a.b.c"], None),
        // Nor does the cookie of a session or of a login, joined or not.
        (&["theme=dark; __Host-Http-rg=rc1_x", "+__host-http-rg-tx-a=b"], Some("theme=dark")),
        (&["theme=dark,__Host-Http-rg=rc1_x"], None),
        (&["theme=dark,x=1; y=a,tokens=2"], Some("")),
    ] {
        let mut changes: Vec<_> = sent.iter().map(|cookie| ("cookie", *cookie)).collect();
        changes.push(("dpop", "a.b.c"));
        let reply = authorizer.decide(authorizer.head(&mut question(Neighbour::Envoy, &changes))).await;
        let headers = reply.headers();
        let removed: Vec<_> = headers["x-envoy-auth-headers-to-remove"].to_str().unwrap().split(", ").collect();
        let set = headers.get("cookie").map_or("", |set| set.to_str().unwrap());
        assert_eq!((set, removed.contains(&"cookie")), (left.unwrap_or_default(), left.is_none()), "{sent:?}");
        assert!(["authorization", "proxy-authorization", "dpop"].iter().all(|name| removed.contains(name)));
    }
    let mut own = question(Neighbour::Envoy, &[("dpop", "a.b.c")]);
    own.uri = "/own/a".parse().unwrap();
    let reply = authorizer.decide(authorizer.head(&mut own)).await;
    let removed = reply.headers()["x-envoy-auth-headers-to-remove"].to_str().unwrap();
    let credentials =
        ["authorization", "dpop", "proxy-authorization"].map(|name| removed.split(", ").any(|it| it == name));
    assert_eq!(credentials, [false, false, true], "{removed}");
}

#[tokio::test]
async fn n16_n14_a_handshake_stays_one_and_a_body_is_not_announced_to_the_judge() {
    let head =
        judged(Neighbour::Nginx, &[("sec-websocket-key", "x"), ("content-length", "7"), ("expect", "100-continue")])
            .await;
    let head = head.unwrap();
    assert_eq!(head.headers["upgrade"], "websocket");
    assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("expect"));
    for (length, expected) in [("7", Some("close")), ("0", None)] {
        let announced = question(Neighbour::Nginx, &[("content-length", length)]);
        let reply =
            Authorizer::new(&gate().await, Neighbour::Nginx).oneshot(Request::from_parts(announced, ())).await.unwrap();
        assert_eq!(
            (reply.status().as_u16(), reply.headers().get("connection").map(|it| it.to_str().unwrap())),
            (200, expected)
        );
    }
    let mut announced = question(Neighbour::Envoy, &[("content-length", "7")]);
    announced.version = Version::HTTP_2;
    assert_eq!(Authorizer::closing(&announced), None, "HTTP/2 has streams");
}
