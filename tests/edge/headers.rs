//! T3 to T6, T14: which headers of a client reach the upstream, and which are ours alone.

use serde_json::json;

use super::issuer::{Issuer, URL};
use support::stub::{Edge, HEAD, ROUTES};
use support::with;

/// Spellings of headers that only the gate may set, as a client would send them.
const FORGED: [&str; 24] = [
    "X-Auth-Subject: forged",
    "x-auth-subject: forged",
    "X-AUTH-SUBJECT: forged",
    "X_Auth_Subject: forged",
    "x-auth_subject: forged",
    "x.auth.subject: forged",
    "X-Auth.Subject: forged",
    "x~auth~subject: forged",
    "X-Auth-Scope: forged",
    "X-Auth-Account: forged",
    "X_AUTH_CLIENT: forged",
    "X-Auth-Session: forged",
    "X-Auth-Request-User: forged",
    "X-Auth-Email: forged",
    "X-User-Id: forged",
    "X_USER_ROLES: forged",
    "X-Remote-User: forged",
    "Remote-User: forged",
    "Remote_User: forged",
    "X-Forwarded-User: forged",
    "x_forwarded_email: forged",
    "X.Forwarded.Groups: forged",
    "X-Forwarded-Access-Token: forged",
    "X-Forwarded-Client-Cert: forged",
];

/// Headers in which other products name the caller.
const OF_PRODUCTS: [&str; 34] = [
    "Client-Cert: forged",
    "Client-Cert-Chain: forged",
    "client_cert: forged",
    "X-Forwarded-Client-Cert: forged",
    "X-Forwarded-Tls-Client-Cert-Info: forged",
    "X-Amzn-Oidc-Identity: forged",
    "x_amzn_oidc_data: forged",
    "X-Amzn-Mtls-Clientcert-Subject: forged",
    "X-Goog-Authenticated-User-Email: forged",
    "X-Goog-Iap-Jwt-Assertion: forged",
    "x.goog.iap.jwt.assertion: forged",
    "X-Apigateway-Api-Userinfo: forged",
    "X-Ms-Client-Principal: forged",
    "X-Ms-Client-Principal-Name: forged",
    "X-Ms-Token-Aad-Id-Token: forged",
    "Cf-Access-Jwt-Assertion: forged",
    "CF_ACCESS_AUTHENTICATED_USER_EMAIL: forged",
    "X-Pomerium-Claim-Email: forged",
    "X-Auth-Request-Email: forged",
    "Remote-User: forged",
    "X-Remote-Group: forged",
    "X-Authenticated-Userid: forged",
    "X-Webauth-User: forged",
    "Ssl-Client-S-Dn: forged",
    "X-Ssl-Client-Verify: forged",
    "X-Vouch-User: forged",
    "X-Authentik-Username: forged",
    "X-Envoy-Internal: forged",
    "Tailscale-User-Login: forged",
    "X-Consumer-Username: forged",
    "OIDC_CLAIM_sub: forged",
    "Impersonate-User: forged",
    "X-Spiffe-Id: forged",
    "Shib-Identity-Provider: forged",
];

#[test]
fn t24_headers_of_other_products_pass_in_no_spelling_unless_they_are_kept() {
    let edge = Edge::new(ROUTES);
    for path in ["/public/x", "/open/x"] {
        assert_eq!(edge.ask(&format!("GET {path}"), &OF_PRODUCTS).status, 200);
        assert_eq!(says_forged(&edge.stub.one().headers), Vec::<&(String, String)>::new(), "{path}");
    }
    // The headers do not arrive as trailers either.
    let mut wire = edge.wire();
    wire.head("POST /public/x", &["Host: gate.test", "Transfer-Encoding: chunked"]);
    wire.send("1\r\na\r\n0\r\nX-Amzn-Oidc-Identity: forged\r\nClient-Cert: forged\r\nX-Other: kept\r\n\r\n");
    assert_eq!(wire.reply().status, 200);
    let trailers = edge.stub.one().trailers;
    assert_eq!(says_forged(&trailers), Vec::<&(String, String)>::new());

    let identity = "[identity]\nstrip = [\"x-tenant\", \"x-acme-*\"]\nkeep = [\"cf-access-*\", \"client-cert\"]\n";
    let edge = Edge::with(&format!("{HEAD}{identity}{ROUTES}"), |_| {}, |_| {});
    let more = ["X-Tenant: forged", "x_tenant: forged", "X-Acme-User: forged", "X.Acme.Role: forged", "X-Acme: kept"];
    assert_eq!(edge.ask("GET /public/x", &[&OF_PRODUCTS[..], &more[..]].concat()).status, 200);
    let received = edge.stub.one();
    // `keep` lets a header pass only in the exact spelling.
    let mut kept: Vec<String> =
        says_forged(&received.headers).iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    kept.sort();
    assert_eq!(kept, ["cf-access-jwt-assertion", "client-cert"]);
    assert_eq!(received.all("x-acme"), ["kept"]);
}

fn says_forged(headers: &[(String, String)]) -> Vec<&(String, String)> {
    headers.iter().filter(|(_, value)| value.contains("forged")).collect()
}

#[test]
fn t3_forged_identity_headers_pass_on_no_route() {
    let edge = Edge::new(ROUTES);
    let tokens = edge.login();
    let twice = [&FORGED[..], &FORGED[..]].concat();
    for path in ["/public/x", "/open/x"] {
        assert_eq!(edge.ask(&format!("GET {path}"), &twice).status, 200);
        let received = edge.stub.one();
        assert_eq!(says_forged(&received.headers), Vec::<&(String, String)>::new(), "{path}");
        let identity = received.headers.iter().find(|(name, _)| name.to_ascii_lowercase().starts_with("x-auth"));
        assert_eq!(identity, None, "nobody's request says who it is of");
    }
    for path in ["/open/x", "/private"] {
        assert_eq!(edge.ask_as(&tokens.access, &format!("GET {path}"), &twice).status, 200);
        let received = edge.stub.one();
        assert_eq!(says_forged(&received.headers), Vec::<&(String, String)>::new(), "{path}");
        for name in ["x-auth-subject", "x-auth-client", "x-auth-scope", "x-auth-session"] {
            assert_eq!(received.confusable(name).len(), 1, "{path} {name}: set exactly once");
        }
        assert_eq!(received.all("x-auth-client"), ["web"]);
        // A public route has no caller, even with a token.
        assert_eq!(edge.ask_as(&tokens.access, "GET /public/x", &twice).status, 200);
        assert_eq!(edge.stub.one().confusable("x-auth-subject"), Vec::<&str>::new());
    }
}

#[test]
fn t3_t4_a_route_that_keeps_underscores_keeps_no_forged_identity() {
    let routes = r#"
[[routes]]
path = "/strict/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/lax/{*rest}"
auth = "none"
upstream = "app"
keep_headers = ["underscore", "override"]
"#;
    let edge = Edge::new(routes);
    let more = ["Content_Length: 5", "Transfer_Encoding: chunked", "Host_: x", "X_Mine: yes", "Authorization_: x"];
    assert_eq!(edge.ask("GET /lax/x", &[&FORGED[..], &more[..]].concat()).status, 200);
    let lax = edge.stub.one();
    assert_eq!(says_forged(&lax.headers), Vec::<&(String, String)>::new());
    assert_eq!(lax.all("x_mine"), ["yes"]);
    assert_eq!(lax.confusable("content-length"), Vec::<&str>::new());
    assert_eq!(lax.confusable("transfer-encoding"), Vec::<&str>::new());
    assert_eq!(edge.ask("GET /strict/x", &more).status, 200);
    assert!(edge.stub.one().headers.iter().all(|(name, _)| !name.contains('_')));
}

#[test]
fn t3_t4_t5_configured_names_are_protected_and_claims_cannot_break_a_header() {
    let config = format!(
        r#"{HEAD}{ROUTES}
[identity]
headers = {{ subject = "remote-user", account = "", client = "", scope = "", session = "" }}
claims = {{ "X-Email" = "email", "x-level" = "level" }}
[[issuers]]
url = "{URL}"
audience = ["api"]
jwks_file = "idp.json"
everywhere = true
"#
    );
    let issuer = Issuer::new(1);
    let jwks = json!({ "keys": [issuer.jwk("k1")] }).to_string();
    let edge = Edge::with(&config, |place| std::fs::write(place.path("idp.json"), jwks).unwrap(), |_| {});
    let forged = [
        "x-email: forged",
        "X_Email: forged",
        "x.level: forged",
        "Remote_User: forged",
        "Connection: x-email, remote-user",
    ];
    let table = [
        (json!("a@b.test"), Some("a@b.test")),
        (json!("a\r\nX-Auth-Subject: admin"), Some("a%0D%0AX-Auth-Subject: admin")),
        (json!("a\nb"), Some("a%0Ab")),
        (json!("a\u{0}b\u{1b}[31m\u{7f}"), Some("a%00b%1B[31m%7F")),
        (json!("Zoë"), Some("Zo%C3%AB")),
        (json!(" padded "), Some("%20padded%20")),
        (json!("100%25"), Some("100%2525")),
        (json!(""), Some("")),
        (json!(7), Some("7")),
        (json!(true), Some("true")),
        (json!(["a"]), None),
        (json!({ "a": 1 }), None),
    ];
    for (claim, expected) in table {
        let token = issuer.token(&json!({ "email": claim }));
        assert_eq!(edge.ask_as(&token, "GET /private", &forged).status, 200, "{claim}");
        let received = edge.stub.one();
        assert_eq!(received.confusable("x-email"), expected.into_iter().collect::<Vec<_>>(), "{claim}");
        assert_eq!(received.confusable("x-level"), Vec::<&str>::new());
        assert_eq!(received.confusable("remote-user"), ["user-1"]);
        assert_eq!(received.confusable("x-auth-subject"), Vec::<&str>::new());
        assert_eq!(received.confusable("host").len(), 1);
    }
    // A subject becomes a header. A control character in it is refused (J9), and what is no ASCII is encoded.
    for subject in ["a\r\nb", "a\u{0}b", ""] {
        let token = issuer.token(&json!({ "sub": subject }));
        assert_eq!(edge.ask_as(&token, "GET /private", &[]).status, 401, "{subject:?}");
    }
    assert!(edge.stub.take().is_empty());
    for (subject, encoded) in [("a b", "a b"), ("é", "%C3%A9"), ("a%20b", "a%2520b")] {
        let token = issuer.token(&json!({ "sub": subject }));
        assert_eq!(edge.ask_as(&token, "GET /private", &[]).status, 200, "{subject:?}");
        assert_eq!(edge.stub.one().confusable("remote-user"), [encoded]);
    }
}

#[test]
fn t5_connection_can_remove_nothing_that_is_ours_and_changes_no_framing() {
    let edge = Edge::new(&format!("{ROUTES}\nforward_token = true\n"));
    let tokens = edge.login();
    for named in [
        "x-auth-subject",
        "X-Auth-Subject, x-auth-scope, x-auth-session, x-auth-client",
        "authorization",
        "host",
        "content-length",
        "transfer-encoding",
        "x-forwarded-for, x-forwarded-host, x-forwarded-proto",
        "close, x-auth-subject",
        "keep-alive, X_Auth_Subject",
        "content-type",
        "cookie",
    ] {
        let authorization = format!("Authorization: Bearer {}", tokens.access);
        let connection = format!("Connection: {named}");
        let mut wire = edge.wire();
        let headers = [
            "Host: gate.test",
            &authorization,
            &connection,
            "Content-Length: 5",
            "Content-Type: text/plain",
            "Cookie: a=1",
            "X-Custom: 1",
        ];
        wire.head("POST /private", &headers);
        wire.send("hello");
        assert_eq!(wire.reply().status, 200, "{named}");
        let received = edge.stub.one();
        assert_eq!(received.body, b"hello", "{named}");
        for (name, expected) in [("content-length", "5"), ("content-type", "text/plain"), ("cookie", "a=1")] {
            assert_eq!(received.all(name), [expected], "{named}");
        }
        assert_eq!(received.all("authorization"), [authorization.trim_start_matches("Authorization: ")], "{named}");
        assert_eq!(received.all("host"), [edge.stub.address.to_string()], "{named}");
        assert_eq!(received.all("x-forwarded-host"), ["gate.test"], "{named}");
        assert_eq!(received.all("x-forwarded-for"), ["127.0.0.1"], "{named}");
        for name in ["x-auth-subject", "x-auth-client", "x-auth-scope", "x-auth-session"] {
            assert_eq!(received.confusable(name).len(), 1, "{named}: {name}");
        }
        assert_eq!(received.all("x-custom"), ["1"], "{named}");
        assert_eq!(received.all("connection"), Vec::<&str>::new(), "{named}");
    }
}

#[test]
fn t5_hop_by_hop_headers_and_those_that_connection_names_stay_here() {
    let edge = Edge::new(ROUTES);
    let headers = [
        "Connection: x-one, x-two",
        "X-One: 1",
        "X-Two: 2",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eDp5",
        "TE: gzip, trailers",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
        "Proxy: http://evil.test",
        "Trailer: x",
    ];
    assert_eq!(edge.ask("GET /public/store", &headers).status, 200);
    let received = edge.stub.one();
    for name in ["x-one", "x-two", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "proxy"] {
        assert_eq!(received.all(name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(received.all("proxy-authorization"), Vec::<&str>::new());
    assert_eq!(received.all("te"), ["trailers"]);

    let reply = edge.ask("GET /public/store", &[]);
    assert_eq!(reply.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!((reply.header("x-kept"), reply.all("x-gone")), ("yes", vec![]));
}

const OVERRIDES: [&str; 14] = [
    "X-Original-URL: /public/x",
    "X-Rewrite-URL: /public/x",
    "X-Original-URI: /public/x",
    "X-Forwarded-Uri: /public/x",
    "X-Forwarded-Path: /public/x",
    "X-Forwarded-Prefix: /public",
    "X-Forwarded-Method: DELETE",
    "X-HTTP-Method-Override: DELETE",
    "X-HTTP-Method: DELETE",
    "X-Method-Override: DELETE",
    "X_HTTP_Method_Override: DELETE",
    "X-Forwarded-Host: public.test",
    "Forwarded: for=10.0.0.1;host=public.test;proto=https",
    "X-Forwarded-For: 127.0.0.1",
];

#[test]
fn t6_no_header_changes_what_a_route_asks() {
    let routes = r#"
[[routes]]
path = "/public/{*rest}"
auth = "none"
methods = ["GET"]
upstream = "app"
[[routes]]
path = "/{*rest}"
hosts = ["public.test"]
auth = "none"
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;
    let edge = Edge::new(routes);
    let more = ["User-Agent: kube-probe/1.30", "X-Forwarded-User: admin", "X-Forwarded-Proto: https"];
    let headers = [&OVERRIDES[..], &more[..]].concat();
    for line in ["GET /private", "OPTIONS /private", "HEAD /private"] {
        let mut wire = edge.wire();
        wire.head(line, &[&["Host: gate.test"], &headers[..]].concat());
        let reply = if line.starts_with("HEAD") { wire.reply_to_head() } else { wire.reply() };
        assert_eq!(reply.status, 401, "{line}");
    }
    assert_eq!(edge.ask("POST /public/x", &["X-HTTP-Method-Override: GET"]).status, 405);
    assert!(edge.stub.take().is_empty());

    assert_eq!(edge.ask("GET /public/x", &headers).status, 200);
    let received = edge.stub.one();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("GET", "/public/x"));
    for header in OVERRIDES.iter().take(11).chain(["Forwarded: x"].iter()) {
        let name = header.split(':').next().unwrap();
        assert_eq!(received.confusable(name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(received.all("x-forwarded-host"), ["gate.test"]);
    assert_eq!(received.all("x-forwarded-proto"), ["http"]);
    assert_eq!(received.all("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn t6_only_a_trusted_proxy_says_where_a_request_came_from() {
    let trusting =
        format!("{HEAD}{ROUTES}").replace("drain_timeout", "trusted_proxies = [\"127.0.0.0/8\"]\ndrain_timeout");
    let edge = Edge::with(&with(&trusting, "server", "hosts = [\"app.example.com\"]"), |_| {}, |_| {});
    let headers = [
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: app.example.com",
        "Forwarded: for=6.6.6.6",
        "X-Real-IP: 6.6.6.6",
    ];
    assert_eq!(edge.ask("GET /public/x", &headers).status, 200);
    let received = edge.stub.one();
    assert_eq!(received.all("x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
    assert_eq!(received.all("x-forwarded-proto"), ["https"]);
    assert_eq!(received.all("x-forwarded-host"), ["app.example.com"]);
    assert_eq!(received.all("forwarded"), Vec::<&str>::new());
    assert_eq!(received.all("x-real-ip"), Vec::<&str>::new());
    // T23: the proxy hands a client's header on.
    let unserved = "X-Forwarded-Host: evil.test";
    for bad in ["X-Forwarded-Host: a b", "X-Forwarded-Host: evil.test/x", unserved, "X-Forwarded-Proto: javascript"] {
        assert_eq!(edge.ask("GET /public/x", &[bad]).status, 200);
        let received = edge.stub.one();
        assert_eq!(
            (received.all("x-forwarded-host"), received.all("x-forwarded-proto")),
            (vec!["gate.test"], vec!["http"])
        );
    }
}

#[test]
fn t14_credentials_reach_the_upstream_only_where_the_route_says_so() {
    let routes = format!(
        r#"
[[routes]]
path = "/told/{{*rest}}"
upstream = "app"
forward_token = true
[[routes]]
path = "/preflighted/{{*rest}}"
upstream = "app"
forward_token = true
preflight = "upstream"
{ROUTES}"#
    );
    let edge = Edge::new(&routes);
    let tokens = edge.login();
    let proxy = ["Proxy-Authorization: Basic eDp5", "Proxy-Authorization: Basic eDp6"];
    for (path, expected) in [("/told/x", 1), ("/private", 0), ("/open/x", 0), ("/public/x", 0)] {
        assert_eq!(edge.ask_as(&tokens.access, &format!("GET {path}"), &proxy).status, 200);
        let received = edge.stub.one();
        assert_eq!(received.confusable("authorization").len(), expected, "{path}");
        assert_eq!(received.confusable("proxy-authorization"), Vec::<&str>::new(), "{path}");
    }
    // An unverified token is not forwarded as if it had been verified.
    let preflight = ["Origin: https://a.test", "Access-Control-Request-Method: GET"];
    assert_eq!(edge.ask_as("forged", "OPTIONS /preflighted/x", &preflight).status, 200);
    assert_eq!(edge.stub.one().confusable("authorization"), Vec::<&str>::new());
}

#[test]
fn t14_no_answer_of_a_token_endpoint_is_stored() {
    let edge = Edge::new(ROUTES);
    let good = edge.try_login(&[], "demo", &edge.gate.password);
    assert_eq!(good.status, 200);
    let refresh = good.json()["refresh_token"].as_str().unwrap().to_owned();
    let revoked = edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", "x")]);
    let replies = [
        good,
        edge.refresh(&[], &refresh),
        edge.refresh(&[], "rg1_unknown"),
        edge.try_login(&[], "demo", "wrong"),
        edge.token(&[], &[]),
        revoked,
        edge.ask("GET /connect/token", &[]),
        edge.ask("POST /Connect/token", &["Content-Length: 0"]),
        edge.ask("GET /private", &[]),
    ];
    for reply in replies {
        assert_eq!(reply.header("cache-control"), "no-store", "{reply:?}");
    }
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t28_forwarding_headers_of_an_unlisted_peer_are_ignored_and_reported_once() {
    let edge = Edge::new(ROUTES);
    for _ in 0..3 {
        edge.ask("GET /public/x", &["X-Forwarded-For: 6.6.6.6"]);
        assert_eq!(edge.stub.one().all("x-forwarded-for"), ["127.0.0.1"]);
    }
    let log = edge.gate.log();
    let reported = log.lines().filter(|line| line.contains("is not in trusted_proxies")).count();
    assert_eq!(reported, 1, "{log}");
    assert!(log.contains("peer=127.0.0.1"), "{log}");
}
