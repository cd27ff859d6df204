//! Descriptions of the gate against the real binary: documents of resources, challenges, audiences, step-up, metadata.

use serde_json::{Value, json};

use super::issuer::{Issuer, claims};
use support::Place;
use support::stub::{Edge, HEAD};
use support::wire::Reply;

const CONFIG_OF_RESOURCES: &str = r#"
[cors]
origins = ["https://page.test"]
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
scopes = ["read", "write"]
[[resources]]
path = "/mcp"
name = "Tools \"of\" the trade"
authorization_servers = ["https://idp.test/"]
scopes = ["read", "write"]
[[resources]]
path = "/"
[[resources]]
path = "/files/v1"
scopes = ["files"]
[[routes]]
path = "/mcp/admin"
resource = "/mcp"
issuers = ["idp"]
scopes = ["write"]
audiences = ["mcp-admin"]
upstream = "app"
[[routes]]
path = "/mcp/{*rest}"
resource = "/mcp"
issuers = ["idp"]
upstream = "app"
[[routes]]
path = "/files/v1/{*rest}"
resource = "/files/v1"
roles = ["self:clerk"]
upstream = "app"
[[routes]]
path = "/pay/{*rest}"
issuers = ["idp"]
step_up = { acr = ["gold", "platinum"], max_age = "5m" }
upstream = "app"
[[routes]]
path = "/strong/{*rest}"
issuers = ["idp"]
resource = "/mcp"
audiences = ["api"]
step_up = { acr = "gold" }
upstream = "app"
[[routes]]
path = "/{*rest}"
issuers = ["self", "idp"]
upstream = "app"
"#;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn edge(idp: &Issuer) -> Edge {
    let set = json!({ "keys": [idp.jwk("k1")] }).to_string();
    let config = format!("{HEAD}{CONFIG_OF_RESOURCES}");
    Edge::with(&config, |place| std::fs::write(place.path("idp.json"), set).unwrap(), |_| {})
}

fn challenge(reply: &Reply) -> &str {
    let all = reply.all("www-authenticate");
    assert_eq!(all.len(), 1, "{reply:?}");
    all[0]
}

#[test]
fn n41_n43_n48_each_resource_has_a_document_that_any_page_may_read_and_no_request_changes() {
    let edge = edge(&Issuer::new(3));
    let mcp = json!({
        "resource": "http://gate.test/mcp",
        "authorization_servers": ["https://idp.test/"],
        "scopes_supported": ["read", "write"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Tools \"of\" the trade",
    });
    let root = json!({
        "resource": "http://gate.test/",
        "authorization_servers": ["http://gate.test"],
        "bearer_methods_supported": ["header"],
    });
    for (path, document) in [("/mcp", &mcp), ("", &root)] {
        for headers in [
            &[][..],
            &["Origin: https://page.test"],
            &["Origin: https://anyone.test", "X-Forwarded-Host: evil.test", "X-Forwarded-Proto: https"],
            &["Forwarded: host=evil.test;proto=https", "X-Forwarded-Prefix: /evil"],
        ] {
            let reply = edge.ask(&format!("GET {WELL_KNOWN}{path}"), headers);
            assert_eq!((reply.status, &reply.json()), (200, document), "{headers:?}");
            assert_eq!(reply.header("content-type"), "application/json");
            assert_eq!(reply.header("cache-control"), "max-age=300");
            assert_eq!(reply.all("access-control-allow-origin"), ["*"], "{headers:?}");
        }
    }
    // Another Host than those that are served is refused, and says nothing; a head has no body.
    let mut wire = edge.wire();
    wire.head(&format!("GET {WELL_KNOWN}/mcp"), &["Host: evil.test"]);
    assert_eq!(wire.reply().status, 421);
    let mut wire = edge.wire();
    wire.head(&format!("HEAD {WELL_KNOWN}/mcp"), &["Host: gate.test"]);
    assert_eq!(wire.reply_to_head().status, 200);

    // The preflight of the MCP SDK, from any origin.
    for origin in ["https://page.test", "https://anyone.test"] {
        let origin = format!("Origin: {origin}");
        let asks = "Access-Control-Request-Headers: mcp-protocol-version";
        let preflight = ["Access-Control-Request-Method: GET", asks, &origin];
        let reply = edge.ask(&format!("OPTIONS {WELL_KNOWN}/mcp"), &preflight);
        assert_eq!(reply.status, 204);
        assert_eq!(reply.all("access-control-allow-origin"), ["*"]);
        assert_eq!(reply.header("access-control-allow-headers"), "mcp-protocol-version");
    }
    assert_eq!(edge.ask(&format!("POST {WELL_KNOWN}/mcp"), &["Content-Length: 0"]).status, 405);
    // No other path has a document, not even a similar one.
    for path in ["/other", "/mcp/", "/MCP", "/mcp/admin", "/files", "//mcp"] {
        let reply = edge.ask(&format!("GET {WELL_KNOWN}{path}"), &[]);
        assert!(matches!(reply.status, 404 | 401), "{path}: {reply:?}");
        assert!(!reply.text().contains("authorization_servers"), "{path}");
    }
    assert!(edge.stub.take().is_empty());
    // RFC 8414 with RFC 9728 §4: the resources whose tokens we issue.
    let metadata = edge.ask("GET /.well-known/oauth-authorization-server", &["X-Forwarded-Host: evil.test"]).json();
    assert_eq!(metadata["issuer"], "http://gate.test");
    assert_eq!(metadata["protected_resources"], json!(["http://gate.test/", "http://gate.test/files/v1"]));
    assert!(!metadata.to_string().contains("evil"));
}

#[test]
fn n42_n44_a_resource_says_where_its_tokens_come_from_and_takes_those_for_itself_alone() {
    let idp = Issuer::new(3);
    let edge = edge(&idp);
    let token = |changes: Value| idp.token(&changes);
    let says = r#"resource_metadata="http://gate.test/.well-known/oauth-protected-resource/mcp""#;

    let reply = edge.ask("GET /mcp/x", &["X-Forwarded-Host: evil.test"]);
    assert_eq!((reply.status, challenge(&reply)), (401, &*format!(r#"Bearer {says}, scope="read write""#)));
    let reply = edge.ask("GET /mcp/admin", &[]);
    assert_eq!(challenge(&reply), format!(r#"Bearer {says}, scope="write""#));
    // The audience of the API, which the resource does not accept; and garbage.
    for bad in [token(json!({})), "x.y.z".to_owned(), edge.login().access] {
        let reply = edge.ask_as(&bad, "GET /mcp/x", &[]);
        assert_eq!(reply.status, 401);
        let said = challenge(&reply);
        assert!(said.starts_with(r#"Bearer error="invalid_token", error_description=""#), "{said}");
        assert!(said.ends_with(&format!(r#", {says}, scope="read write""#)), "{said}");
    }
    let reader = token(json!({ "aud": "http://gate.test/mcp", "scope": "read" }));
    assert_eq!(edge.ask_as(&reader, "GET /mcp/x", &[]).status, 200);
    let reply = edge.ask_as(&reader, "GET /mcp/admin", &[]);
    assert_eq!(reply.status, 403);
    assert_eq!(challenge(&reply), format!(r#"Bearer error="insufficient_scope", {says}, scope="write""#));
    // The audience is compared byte for byte, opens no other route, and a route may name more audiences.
    for (aud, path, status) in [
        (json!("http://gate.test/mcp/"), "/mcp/x", 401),
        (json!("http://GATE.test/mcp"), "/mcp/x", 401),
        (json!("https://gate.test/mcp"), "/mcp/x", 401),
        (json!(["x", "http://gate.test/mcp"]), "/mcp/x", 200),
        (json!("mcp-admin"), "/mcp/x", 401),
        (json!("mcp-admin"), "/mcp/admin", 200),
        (json!("http://gate.test/mcp"), "/mcp/admin", 200),
        (json!("http://gate.test/mcp"), "/x", 401),
        (json!("http://gate.test/"), "/mcp/x", 401),
        (json!("http://gate.test/mcp"), "/files/v1/x", 401),
    ] {
        let reply = edge.ask_as(&token(json!({ "aud": aud })), &format!("GET {path}"), &[]);
        assert_eq!(reply.status, status, "{aud} {path}");
    }
    // Upstreams never see the token, and routes without a resource answer as before.
    assert!(edge.stub.take().iter().all(|received| received.all("authorization").is_empty()));
    assert_eq!(challenge(&edge.ask("GET /x", &[])), "Bearer");
}

const OPEN_ROUTE: &str = "[[routes]]\npath = \"/{*rest}\"\nissuers = [\"idp\"]\nupstream = \"app\"\n";

/// A resource, whose tokens the issuer is trusted for by this audience, and another route.
fn beside_a_resource(audience: &str, route: &str) -> String {
    format!(
        "{HEAD}[[issuers]]\nname = \"idp\"\nurl = \"https://idp.test/\"\naudience = [\"{audience}\"]\njwks_file = \"idp.json\"\n\
         [[resources]]\npath = \"/mcp\"\nauthorization_servers = [\"https://idp.test/\"]\n\
         [[routes]]\npath = \"/mcp/{{*rest}}\"\nresource = \"/mcp\"\nissuers = [\"idp\"]\nupstream = \"app\"\n{route}"
    )
}

#[test]
fn n67_check_warns_of_a_route_that_tokens_of_a_resource_open_and_each_remedy_closes_it() {
    let idp = Issuer::new(3);
    let set = json!({ "keys": [idp.jwk("k1")] }).to_string();
    let token = idp.token(&json!({ "aud": "http://gate.test/mcp" }));
    let narrowed = OPEN_ROUTE.replace("upstream", "audiences = [\"api\"]\nupstream");
    for (audience, route, is_open) in [
        ("http://gate.test/mcp", OPEN_ROUTE, true),
        // The configuration that the warning is about.
        ("api", OPEN_ROUTE, false),
        ("http://gate.test/mcp", &narrowed, false),
    ] {
        let config = beside_a_resource(audience, route);
        let place = Place::new(&config.replace("@upstream@", "127.0.0.1:9"));
        std::fs::write(place.path("idp.json"), &set).unwrap();
        let ran = place.run(&["check"], "");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(said.contains("this route accepts tokens for the resource /mcp"), is_open, "{said}");
        if is_open {
            let remedy = "`issuers[0].audience` contains its URL. Remove http://gate.test/mcp there";
            assert!(said.contains(remedy) && said.contains("or write `audiences` here"), "{said}");
        }
        let edge = Edge::with(&config, |place| std::fs::write(place.path("idp.json"), &set).unwrap(), |_| {});
        assert_eq!(edge.ask_as(&token, "GET /mcp/x", &[]).status, 200);
        assert_eq!(edge.ask_as(&token, "GET /x", &[]).status, if is_open { 200 } else { 401 }, "{audience}");
    }
    // The example of the page, with another route.
    let page = include_str!("../../docs/resources.md");
    let block = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let head = HEAD.replace("http://gate.test", "https://gate.example.com").replace("@upstream@", "127.0.0.1:9");
    let ran = Place::new(&format!("{head}{block}{OPEN_ROUTE}")).run(&["check"], "");
    assert!(
        ran.code == Some(0)
            && !format!("{}{}", ran.stdout, ran.stderr).contains("this route accepts tokens for the resource"),
        "{ran:?}"
    );
}

#[test]
fn n68_two_credentials_have_a_challenge_and_a_resource_says_how_proofs_are_signed() {
    let edge = edge(&Issuer::new(3));
    let two = ["Authorization: Bearer a.b.c", "Authorization: Bearer d.e.f"];
    let reply = edge.ask("GET /x", &two);
    let says = r#"Bearer error="invalid_request", error_description="send exactly one credential""#;
    assert_eq!((reply.status, challenge(&reply)), (400, says));
    let reply = edge.ask("GET /mcp/x", &two);
    let document = r#"resource_metadata="http://gate.test/.well-known/oauth-protected-resource/mcp""#;
    assert_eq!((reply.status, challenge(&reply)), (400, &*format!("{says}, {document}")));
    assert!(edge.stub.take().is_empty());
    let document = |edge: &Edge| edge.ask(&format!("GET {WELL_KNOWN}/mcp"), &[]).json();
    assert_eq!(document(&edge).get("dpop_signing_alg_values_supported"), None, "no proofs at this gate");
    let dpop = "[[clients]]\nid = \"bound\"\ndpop = \"optional\"\n[[resources]]\npath = \"/mcp\"\n";
    let route = "[[routes]]\npath = \"/mcp/{*rest}\"\nresource = \"/mcp\"\nupstream = \"app\"\n";
    let of_clients = document(&Edge::new(&format!("{dpop}{route}")));
    let of_routes = Edge::new(&format!("[[resources]]\npath = \"/mcp\"\n{route}dpop = \"required\"\n"));
    let of_routes = document(&of_routes);
    for said in [&of_clients, &of_routes] {
        let algorithms = json!(["ES256", "EdDSA", "Ed25519", "ES384", "RS256", "PS256"]);
        assert_eq!(said["dpop_signing_alg_values_supported"], algorithms, "{said}");
    }
    assert_eq!(of_routes["dpop_bound_access_tokens_required"], true);
}

#[test]
fn n46_a_login_must_be_strong_and_recent_enough_at_each_request() {
    let idp = Issuer::new(3);
    let edge = edge(&idp);
    let now = claims(&json!({}))["iat"].as_u64().unwrap();
    let token = |login: Value| idp.token(&login);
    for (login, status) in [
        (json!({ "acr": "gold", "auth_time": now }), 200),
        (json!({ "acr": "platinum", "auth_time": now - 200 }), 200),
        (json!({ "acr": "gold", "auth_time": now - 400 }), 401),
        (json!({ "acr": "gold", "auth_time": now + 400 }), 401),
        (json!({ "acr": "silver", "auth_time": now }), 401),
        (json!({ "acr": "Gold", "auth_time": now }), 401),
        (json!({ "acr": ["gold"], "auth_time": now }), 401),
        (json!({ "acr": "gold", "auth_time": now.to_string() }), 401),
        (json!({ "acr": "gold" }), 401),
        (json!({ "auth_time": now }), 401),
        (json!({}), 401),
    ] {
        // Twice: a cached token is judged like a new one.
        let token = token(login.clone());
        for path in ["/pay/x", "/pay/x"] {
            let reply = edge.ask_as(&token, &format!("GET {path}"), &[]);
            assert_eq!(reply.status, status, "{login}");
            if status == 401 {
                assert_eq!(
                    challenge(&reply),
                    r#"Bearer error="insufficient_user_authentication", error_description="another login is needed", acr_values="gold platinum", max_age="300""#
                );
            }
        }
        assert_eq!(edge.ask_as(&token, "GET /x", &[]).status, 200, "other routes ask for nothing");
    }
    let reply = edge.ask_as(&token(json!({ "acr": "silver" })), "GET /strong/x", &[]);
    assert!(challenge(&reply).contains(r#"acr_values="gold", resource_metadata="http://gate.test/"#), "{reply:?}");
    // The age of the login is judged at each request, even with a cached token.
    let ageing = token(json!({ "acr": "gold", "auth_time": now - 298 }));
    let first = edge.ask_as(&ageing, "GET /pay/x", &[]).status;
    let mut last = first;
    while last == 200 {
        last = edge.ask_as(&ageing, "GET /pay/x", &[]).status;
    }
    assert_eq!((first, last), (200, 401));
    assert_eq!(edge.ask_as(&ageing, "GET /x", &[]).status, 200);
}

#[test]
fn n44_mistakes_in_resources_are_told() {
    let config = format!("{HEAD}{CONFIG_OF_RESOURCES}").replace("@upstream@", "127.0.0.1:9");
    let checked = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        let place = Place::new(&config.replacen(from, to, 1));
        std::fs::write(place.path("idp.json"), json!({ "keys": [Issuer::new(3).jwk("k1")] }).to_string()).unwrap();
        place.run(&["check"], "")
    };
    for (from, to, said) in [
        ("resource = \"/mcp\"", "resource = \"/mpc\"", "did you mean \"/mcp\"?"),
        ("resource = \"/mcp\"", "resource = \"/mcp\"\nforward_token = true", "forbids token passthrough"),
        ("path = \"/mcp\"", "path = \"/mcp/\"", "no slash at its end"),
        ("path = \"/mcp\"", "path = \"/mcp?x\"", "letters, digits"),
        ("path = \"/files/v1\"", "path = \"/mcp\"", "listed twice"),
        ("\"https://idp.test/\"]", "\"idp\"]", "the URL of an issuer"),
        ("acr = [\"gold\", \"platinum\"], max_age = \"5m\"", "", "does not require anything"),
        ("acr = [\"gold\", \"platinum\"]", "acr = \"a b\"", "not allowed in a challenge"),
        (
            "path = \"/pay/{*rest}\"\nissuers = [\"idp\"]",
            "path = \"/pay/{*rest}\"\nauth = \"none\"",
            "has no effect, because `auth",
        ),
        (
            "path = \"/pay/{*rest}\"",
            "path = \"/pay/{*rest}\"\nforward_token = \"dangerous\"",
            "only applies to a route with `resource`",
        ),
    ] {
        let ran = checked(from, to);
        assert!(ran.code == Some(2) && ran.stderr.contains(said), "{to}: {ran:?}");
    }
    let dangerous = "resource = \"/mcp\"\nforward_token = \"dangerous\"";
    assert_eq!(checked("resource = \"/mcp\"", dangerous).code, Some(0));
    let ran = checked("authorization_servers = [\"https://idp.test/\"]\n", "");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.code == Some(0) && said.contains("no authorization endpoint"), "{ran:?}");
    assert!(said.contains("no route belongs to this resource"), "{ran:?}");
    // A page that may call and may not read the answer.
    for (origin, is_warned) in [("https://other.test", true), ("https://page.test", false)] {
        let ran = checked("path = \"/mcp\"", &format!("path = \"/mcp\"\nmcp = {{ origins = [\"{origin}\"] }}"));
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!((ran.code, said.contains("would not let these pages read")), (Some(0), is_warned), "{said}");
    }
}

const CONFIG_OF_TOKENS: &str = r#"
[[clients]]
id = "service"
secret_hash_file = "service.hash"
grants = ["client_credentials"]
scopes = ["read"]
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
[[resources]]
path = "/files"
[[resources]]
path = "/other"
[[resources]]
path = "/mcp"
authorization_servers = ["https://idp.test/"]
[[routes]]
path = "/files/{*rest}"
resource = "/files"
upstream = "app"
[[routes]]
path = "/other/{*rest}"
resource = "/other"
upstream = "app"
[[routes]]
path = "/mcp/{*rest}"
resource = "/mcp"
issuers = ["self", "idp"]
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;
const FILES: &str = "http://gate.test/files";

fn hash_secret(place: &Place, file: &str, secret: &str) {
    support::keep_secret(secret);
    let made = Place::new(HEAD).json(&["client", "secret", "--stdin"], secret);
    let path = place.path(file);
    std::fs::write(&path, made["secret_hash"].as_str().unwrap()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn n45_a_token_is_for_the_resource_of_its_login_whatever_happens_between() {
    let secret = "s3cret-of-the-service";
    let set = json!({ "keys": [Issuer::new(3).jwk("k1")] }).to_string();
    let config = format!("{HEAD}{CONFIG_OF_TOKENS}").replace("kind = \"memory\"", "path = \"sessions.redb\"");
    let files = |place: &Place| {
        std::fs::write(place.path("idp.json"), set).unwrap();
        hash_secret(place, "service.hash", secret);
    };
    let mut edge = Edge::with(&config, files, |_| {});
    let ask = |edge: &Edge, fields: &[(&str, &str)]| edge.form("/connect/token", &[], fields);
    let password = edge.gate.password.clone();
    let login =
        [("grant_type", "password"), ("client_id", "web"), ("username", "demo"), ("password", password.as_str())];
    let log_in = |edge: &Edge, more: &[(&str, &str)]| ask(edge, &[&login[..], more].concat());
    let refresh = |edge: &Edge, token: &str, more: &[(&str, &str)]| {
        let fields = [("grant_type", "refresh_token"), ("client_id", "web"), ("refresh_token", token)];
        ask(edge, &[&fields[..], more].concat())
    };
    let as_service = [("client_id", "service"), ("client_secret", secret)];
    let of_service = |edge: &Edge, more: &[(&str, &str)]| {
        ask(edge, &[&[("grant_type", "client_credentials")], &as_service[..], more].concat())
    };
    let audience = |edge: &Edge, token: &str| {
        let reply = edge.form("/connect/introspect", &[], &[&[("token", token)], &as_service[..]].concat());
        reply.json()["aud"].clone()
    };
    let part = |reply: &Reply, name: &str| {
        assert_eq!(reply.status, 200, "{reply:?}");
        let token = reply.json()[name].as_str().unwrap().to_owned();
        support::keep_secret(&token);
        token
    };
    let opens = |edge: &Edge, token: &str| {
        ["/files/x", "/other/x", "/mcp/x", "/x"].map(|path| edge.ask_as(token, &format!("GET {path}"), &[]).status)
    };
    // An unknown resource, a resource of another issuer, a relative one, one with a fragment, a similar one, and
    // several.
    let wrong: &[&[(&str, &str)]] = &[
        &[("resource", "http://gate.test/none")],
        &[("resource", "http://gate.test/mcp")],
        &[("resource", "/files")],
        &[("resource", "http://gate.test/files#x")],
        &[("resource", "http://gate.test/files/")],
        &[("resource", "HTTP://gate.test/files")],
        &[("resource", FILES), ("resource", "http://gate.test/other")],
        &[("resource", FILES), ("resource", FILES)],
    ];
    for more in wrong {
        for reply in [log_in(&edge, more), of_service(&edge, more)] {
            assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid_target")), "{more:?}");
        }
    }
    // An empty parameter counts as absent (RFC 6749 §3.2): the audience is that of the gate.
    let plain = log_in(&edge, &[("resource", "")]);
    let (access, token) = (part(&plain, "access_token"), part(&plain, "refresh_token"));
    assert_eq!((audience(&edge, &access), opens(&edge, &access)), (json!("api"), [401, 401, 401, 200]));
    assert_eq!(refresh(&edge, &token, &[("resource", FILES)]).json()["error"], "invalid_target", "it was not granted");
    part(&refresh(&edge, &token, &[]), "access_token");

    let own = part(&of_service(&edge, &[("resource", FILES)]), "access_token");
    assert_eq!((audience(&edge, &own), opens(&edge, &own)), (json!(FILES), [200, 401, 401, 401]));

    let mut last = log_in(&edge, &[("resource", FILES)]);
    let document = edge.ask(&format!("GET {WELL_KNOWN}/files"), &[]).json();
    for round in 0..3 {
        let (access, token) = (part(&last, "access_token"), part(&last, "refresh_token"));
        assert_eq!((audience(&edge, &access), opens(&edge, &access)), (json!(FILES), [200, 401, 401, 401]));
        assert_eq!(document["resource"], FILES);
        // A request for another resource, or for several, consumes nothing.
        for more in wrong {
            assert_eq!(refresh(&edge, &token, more).json()["error"], "invalid_target", "{more:?}");
        }
        let other = [("resource", "http://gate.test/other")];
        assert_eq!(refresh(&edge, &token, &other).json()["error"], "invalid_target");
        let named: &[(&str, &str)] = if round % 2 == 0 { &[] } else { &[("resource", FILES)] };
        let next = refresh(&edge, &token, named);
        let pair = |reply: &Reply| (part(reply, "access_token"), part(reply, "refresh_token"));
        edge.gate.kill();
        edge.gate = edge.place.start();
        // The reply was lost: the same pair again, whether the resource is named or not, and no other one.
        assert_eq!(pair(&refresh(&edge, &token, &[])), pair(&next));
        assert_eq!(pair(&refresh(&edge, &token, &[("resource", FILES)])), pair(&next));
        assert_eq!(refresh(&edge, &token, &other).json()["error"], "invalid_target");
        last = next;
    }
}

#[test]
fn n48_each_token_endpoint_with_a_path_of_its_own_has_a_document() {
    let more = r#"
[[endpoints]]
dialect = "oauth2"
path = "/partners/oauth/token"
clients = ["partner"]
[[clients]]
id = "partner"
secret_hash_file = "partner.hash"
grants = ["client_credentials"]
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;
    let secret = |place: &Place| hash_secret(place, "partner.hash", "s3cret-of-the-partner");
    let head = HEAD.replace("[issuer]\n", "[issuer]\nauthorization_endpoint = \"https://idp.test/authorize?p=x\"\n");
    let edge = Edge::with(&format!("{head}{more}"), secret, |_| {});
    let read = |path: &str| {
        let reply = edge.ask(&format!("GET {path}"), &["X-Forwarded-Host: evil.test"]);
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{path}");
        reply.json()
    };
    let first = read("/.well-known/oauth-authorization-server");
    assert_eq!(
        (&first["issuer"], &first["token_endpoint"]),
        (&json!("http://gate.test"), &json!("http://gate.test/connect/token"))
    );
    assert_eq!(first["authorization_endpoint"], "https://idp.test/authorize?p=x", "as it is written");
    let second = read("/.well-known/oauth-authorization-server/partners/oauth");
    assert_eq!(second.get("authorization_endpoint"), None, "which is another issuer");
    assert_eq!(second, read("/partners/oauth/.well-known/openid-configuration"));
    assert_eq!(second["issuer"], "http://gate.test/partners/oauth");
    assert_eq!(second["token_endpoint"], "http://gate.test/partners/oauth/token");
    assert_eq!(second["revocation_endpoint"], "http://gate.test/partners/oauth/revocation");
    assert_eq!(second["introspection_endpoint"], "http://gate.test/partners/oauth/introspect");
    assert_eq!(second["jwks_uri"], first["jwks_uri"]);
    assert_eq!(second["grant_types_supported"], json!(["client_credentials"]), "of its clients alone");
    // No similar path.
    for path in ["/partners", "/partners/oauth/", "/connect", "/Partners/oauth"] {
        let reply = edge.ask(&format!("GET /.well-known/oauth-authorization-server{path}"), &[]);
        assert!(!reply.text().contains("issuer\""), "{path}: {reply:?}");
    }
}

#[test]
fn m6_check_online_finds_a_server_that_does_not_compare_what_headers_and_body_say() {
    let more = r#"
[[upstreams]]
name = "away"
urls = ["http://127.0.0.1:@port@"]
[[resources]]
path = "/mcp"
mcp = { check = "headers" }
[[resources]]
path = "/body"
mcp = {}
[[routes]]
path = "/mcp"
resource = "/mcp"
upstream = "app"
[[routes]]
path = "/body"
resource = "/body"
upstream = "away"
"#;
    let config = format!("{HEAD}{more}").replace("@port@", &support::server::free_port().to_string());
    let edge = Edge::with(&config, |_| {}, |_| {});
    edge.place.done(&["check"], "");
    let ran = edge.place.run(&["check", "--online"], "");
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let expected =
        "resources[0].mcp.check: the upstream app accepted a call whose header `Mcp-Method` differs from its body";
    assert!(ran.stderr.contains(expected) && ran.stderr.contains("Use `check = \"body\"`"), "{}", ran.stderr);
    let [agreed, differing] = <[_; 2]>::try_from(edge.stub.take()).unwrap();
    assert!(agreed.body == differing.body && agreed.target == "/mcp", "{agreed:?}");
    assert_eq!([agreed.all("mcp-method"), differing.all("mcp-method")], [["server/discover"], ["tools/list"]]);
    // An upstream that does not answer is neither good nor bad, and the remedy's configuration is good.
    let text = config.replace("@upstream@", &edge.stub.address.to_string());
    edge.place.write_config(&text.replacen("upstream = \"app\"", "upstream = \"away\"", 1));
    let ran = edge.place.run(&["check", "--online"], "");
    let expected = "resources[0].mcp.check: not checked: the upstream away does not respond: ";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    edge.place.write_config(&text.replace("\"headers\"", "\"body\""));
    edge.place.done(&["check", "--online"], "");
}
