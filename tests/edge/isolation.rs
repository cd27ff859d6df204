//! Several issuers at one gate: the routes that accept their tokens, and the limits of these tokens. Also the isolation of
//! accounts between endpoints.

use serde_json::{Value, json};

use super::issuer::{Issuer, URL, claims};
use support::stub::{Edge, HEAD, tokens};
use support::wire::Reply;
use support::{CONFIG, Place, Tokens, keep_secret};

const CONFIG_OF_ISSUERS: &str = r#"
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
scopes = ["read"]
[[issuers]]
name = "kc"
url = "https://kc.test/"
audience = ["kc-api"]
jwks_file = "kc.json"
everywhere = true
subject_prefix = "kc|"
[[clients]]
id = "svc"
secret_hash = "@hash@"
grants = ["client_credentials"]
scopes = ["read"]
[[endpoints]]
dialect = "kuzzle"
client = "web"
[[endpoints]]
dialect = "envelope"
client = "web"
[[routes]]
path = "/partner/{*rest}"
issuers = ["idp"]
scopes = ["read"]
upstream = "app"
[[routes]]
path = "/both/{*rest}"
issuers = ["self", "idp"]
upstream = "app"
[[routes]]
path = "/write/{*rest}"
issuers = ["idp", "self"]
scopes = ["write"]
kuzzle = ["document:*"]
upstream = "app"
[[routes]]
path = "/reports/{*rest}"
issuers = ["idp"]
audiences = ["reports"]
upstream = "app"
[[routes]]
kuzzle = ["*"]
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

struct World {
    edge: Edge,
    idp: Issuer,
    kc: Issuer,
    secret: String,
}

/// The hash of a new client secret.
pub(crate) fn secret() -> (String, String) {
    let secret = uuid::Uuid::new_v4().to_string();
    keep_secret(&secret);
    let made = Place::new(CONFIG).run(&["client", "secret", "--stdin", "--json"], &secret).stdout;
    let made: Value = serde_json::from_str(&made).unwrap();
    (secret, made["secret_hash"].as_str().unwrap().to_owned())
}

fn world() -> World {
    let (idp, kc) = (Issuer::new(1), Issuer::new(2));
    let (secret, hash) = secret();
    let sets = [("idp.json", &idp), ("kc.json", &kc)].map(|(file, issuer)| {
        let set = json!({ "keys": [issuer.jwk("k1")] }).to_string();
        (file, set)
    });
    let config = format!("{HEAD}{CONFIG_OF_ISSUERS}").replace("@hash@", &hash);
    let files = |place: &Place| sets.iter().for_each(|(file, set)| std::fs::write(place.path(file), set).unwrap());
    World { edge: Edge::with(&config, files, |_| {}), idp, kc, secret }
}

impl World {
    fn status(&self, token: &str, path: &str) -> u16 {
        let reply = self.edge.ask_as(token, &format!("GET {path}"), &[]);
        assert_eq!(self.edge.stub.take().len(), usize::from(reply.status == 200), "{path}");
        reply.status
    }

    fn statuses<const N: usize>(&self, token: &str, paths: [&str; N]) -> [u16; N] {
        paths.map(|path| self.status(token, path))
    }

    fn json(&self, line: &str, headers: &[&str], body: &Value) -> Reply {
        let body = body.to_string();
        let length = format!("Content-Length: {}", body.len());
        let mut wire = self.edge.wire();
        let own = ["Host: gate.test", "Content-Type: application/json", length.as_str()];
        wire.head(line, &[&own[..], headers].concat());
        wire.send(body);
        wire.reply()
    }

    fn introspect(&self, token: &str) -> Value {
        introspect(&self.edge, "/connect/introspect", &self.secret, token)
    }

    /// A token with this subject, which poses as a user of the gate.
    fn posing(&self, sub: &str, audience: &str) -> String {
        self.idp.token(&json!({ "sub": sub, "aud": audience, "client_id": "web", "scope": "read write admin" }))
    }
}

pub(crate) fn introspect(edge: &Edge, path: &str, secret: &str, token: &str) -> Value {
    let reply = edge.form(path, &[], &[("client_id", "svc"), ("client_secret", secret), ("token", token)]);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn subject(token: &str) -> String {
    use base64::Engine as _;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    claims["sub"].as_str().unwrap().to_owned()
}

#[test]
fn j18_j19_i15_i16_a_token_of_another_issuer_counts_where_it_is_let_in_with_the_scopes_that_are_listed() {
    let world = world();
    let own = world.edge.login();
    let idp = world.idp.token(&json!({ "scope": "read write admin" }));
    let kc = |changes: Value| {
        let mut all = json!({ "iss": "https://kc.test/", "aud": "kc-api", "scope": "read" });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        world.kc.token(&all)
    };
    // Twice: the second time from the cache.
    for _ in 0..2 {
        let paths = ["/x", "/both/x", "/partner/x", "/write/x"];
        assert_eq!(world.statuses(&own.access, paths), [200, 200, 401, 200]);
        assert_eq!(world.statuses(&idp, paths), [401, 200, 200, 403]);
        assert_eq!(world.statuses(&kc(json!({})), paths), [200, 401, 401, 401]);
    }
    // Issuer before audience before scope.
    assert_eq!(world.status(&world.posing("demo", "elsewhere"), "/write/x"), 401);
    let reply = world.edge.ask_as(&own.access, "GET /partner/x", &[]);
    assert!(reply.header("www-authenticate").contains("invalid_token"), "{reply:?}");
    world.edge.stub.take();
    // The upstream gets the issuer of the subject, from the gate only.
    let lies =
        ["X-Auth-Issuer: http://gate.test", "x_auth_issuer: http://gate.test", "X-Auth.Issuer: http://gate.test"];
    for (token, path, issuer, sub, scope) in [
        (&own.access, "/both/x", "http://gate.test", None, None),
        (&idp, "/both/x", URL, Some("user-1"), Some("read")),
        (&kc(json!({ "sub": "demo" })), "/x", "https://kc.test/", Some("kc|demo"), Some("")),
    ] {
        assert_eq!(world.edge.ask_as(token, &format!("GET {path}"), &lies).status, 200);
        let received = world.edge.stub.one();
        assert_eq!(received.confusable("x-auth-issuer"), [issuer]);
        if let (Some(sub), Some(scope)) = (sub, scope) {
            assert_eq!((received.all("x-auth-subject"), received.all("x-auth-scope")), (vec![sub], vec![scope]));
        }
    }
}

#[test]
fn j19_i16_an_issuer_that_a_route_does_not_take_costs_no_signature() {
    let world = world();
    // More forged tokens than an address has.
    for n in 0..120 {
        let forged = Issuer::new(9).token(&json!({ "jti": n.to_string() }));
        assert_eq!(world.status(&forged, "/x"), 401);
    }
    assert_eq!(world.status(&world.idp.token(&json!({})), "/both/x"), 200, "nothing was verified so far");
    // On a slow machine the bound fills up meanwhile.
    let is_refused_after = |round: i32| {
        for n in 0..120 {
            let forged = Issuer::new(9).token(&json!({ "jti": format!("{round} {n}") }));
            world.edge.ask_as(&forged, "GET /both/x", &[]);
        }
        world.status(&world.idp.token(&json!({ "jti": format!("new {round}") })), "/both/x") == 429
    };
    assert!((0..5).any(is_refused_after), "this is what they cost");
}

#[test]
fn r19_i13_a_foreign_token_ends_continues_and_reaches_nothing_of_ours() {
    let world = world();
    let own = world.edge.login();
    let sub = subject(&own.access);
    for audience in ["api", "some-other-service"] {
        let foreign = world.posing(&sub, audience);
        let bearer = format!("Authorization: Bearer {foreign}");
        let cookie = format!("Cookie: authToken={foreign}");
        let from_cookie = [cookie.as_str(), "Origin: http://gate.test"];
        for path in ["/_logout", "/_logout?global=true", "/_refreshToken"] {
            for headers in [&[bearer.as_str()][..], &from_cookie] {
                let reply = world.json(&format!("POST {path}"), headers, &json!({}));
                assert_eq!((reply.status, reply.all("set-cookie").len()), (401, 0), "{path} {reply:?}");
            }
            let action = if path.contains("refresh") { "refreshToken" } else { "logout" };
            let envelope = json!({ "controller": "auth", "action": action, "jwt": foreign, "global": true });
            assert_eq!(world.json("POST /_query", &[], &envelope).status, 401);
        }
        let pair = json!({ "token": foreign, "refreshToken": own.refresh });
        assert_eq!(world.json("PUT /api/v2/auth/token", &[], &pair).json()["errorCode"], "AUTH_1002");
        assert_eq!(
            world.edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &foreign)]).status,
            200
        );
        let reply = world.edge.refresh(&[], &foreign);
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_grant"));
        assert_eq!(world.status(&own.access, "/x"), 200, "the user of the same name was ended by {audience}");
    }
    assert_eq!(world.status(&world.posing(&sub, "api"), "/both/x"), 200, "and the foreign one is where it was");
    let next = tokens(&world.edge.refresh(&[], &own.refresh));
    // Our own logout affects our own user only.
    let bearer = format!("Authorization: Bearer {}", next.access);
    // An oauth2 session is ended by kuzzle's logout, too.
    assert_eq!(world.json("POST /_logout?global=true", &[&bearer], &json!({})).status, 200);
    assert_eq!(world.status(&next.access, "/x"), 401);
    assert_eq!(world.status(&world.posing(&sub, "api"), "/both/x"), 200);
}

#[test]
fn j20_our_own_endpoints_judge_the_audience_and_print_it() {
    let world = world();
    let check = |token: &str| {
        let me = world.json("GET /_me", &[&format!("Authorization: Bearer {token}")], &json!({})).status;
        let valid = world.json("POST /_checkToken", &[], &json!({ "token": token })).json()["result"]["valid"].clone();
        (me, valid == true, world.introspect(token)["active"] == true)
    };
    let own = world.edge.login().access;
    assert_eq!(check(&own), (200, true, true));
    let said = world.introspect(&own);
    assert_eq!(
        (&said["aud"], &said["token_type"], &said["iss"]),
        (&json!("api"), &json!("Bearer"), &json!("http://gate.test"))
    );
    assert!(said["jti"].is_string() && said["nbf"].is_null());
    for (audience, good) in [("api", true), ("reports", true), ("some-other-service", false), ("kc-api", false)] {
        let token = world.posing("demo", audience);
        let expected = if good { (200, true, true) } else { (401, false, false) };
        assert_eq!(check(&token), expected, "{audience}");
        if !good {
            assert_eq!(world.introspect(&token), json!({ "active": false }));
        }
    }
    let changes = json!({ "aud": ["api", "x"], "nbf": claims(&json!({}))["iat"], "scope": "read write admin" });
    let said = world.introspect(&world.idp.token(&changes));
    assert_eq!((&said["iss"], &said["aud"], &said["jti"]), (&json!(URL), &json!(["api", "x"]), &json!("t-1")));
    assert_eq!((&said["scope"], &said["nbf"]), (&json!("read"), &changes["nbf"]), "what counts, not what it says");
}

#[test]
fn r21_a_client_s_own_token_is_no_user_s() {
    let world = world();
    let fields = [("grant_type", "client_credentials"), ("client_id", "svc"), ("client_secret", &world.secret)];
    let reply = world.edge.form("/connect/token", &[], &fields);
    let token = reply.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(world.edge.ask_as(&token, "GET /x", &[]).status, 200);
    let received = world.edge.stub.one();
    assert_eq!((received.all("x-auth-subject"), received.all("x-auth-client")), (vec!["client:svc"], vec!["svc"]));
    let password = uuid::Uuid::new_v4().to_string();
    keep_secret(&password);
    let ran = world.edge.place.run(&["user", "add", "eve", "--subject", "client:svc"], &password);
    assert!(ran.code == Some(1) && ran.stderr.contains("must not begin with client:"), "{ran:?}");
}

const ACCOUNTS: &str = r#"
[[clients]]
id = "svc"
secret_hash = "@hash@"
grants = ["client_credentials"]
[[endpoints]]
dialect = "oauth2"
path = "/bound/token"
account = "acme"
[[endpoints]]
dialect = "kuzzle"
path = "/k"
client = "web"
account = "acme"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

#[test]
fn r21_an_endpoint_of_one_account_knows_nothing_of_the_others() {
    let (secret, hash) = secret();
    let password = uuid::Uuid::new_v4().to_string();
    keep_secret(&password);
    let edge = Edge::with(
        &format!("{HEAD}{ACCOUNTS}").replace("@hash@", &hash),
        |place| {
            for account in ["acme", "other"] {
                let user = ["user", "add", "ada", "--account", account, "--subject", account];
                assert_eq!(place.run(&user, &password).code, Some(0));
            }
            std::fs::write(place.path("password"), &password).unwrap();
        },
        |_| {},
    );
    let login = |path: &str| {
        edge.form(
            path,
            &[],
            &[("client_id", "web"), ("grant_type", "password"), ("username", "ada"), ("password", &password)],
        )
    };
    let (acme, other): (Tokens, Tokens) =
        (tokens(&login("/acme/connect/token")), tokens(&login("/other/connect/token")));
    assert_eq!(subject(&tokens(&login("/bound/token")).access), "acme", "who logs in here belongs to it");
    let of_client = edge.form(
        "/bound/token",
        &[],
        &[("grant_type", "client_credentials"), ("client_id", "svc"), ("client_secret", &secret)],
    );
    let of_client = of_client.json()["access_token"].as_str().unwrap().to_owned();
    for path in ["/bound/introspect", "/acme/connect/introspect"] {
        assert_eq!(introspect(&edge, path, &secret, &acme.access)["sub"], "acme");
        assert_eq!(introspect(&edge, path, &secret, &other.access), json!({ "active": false }), "{path}");
        assert_eq!(introspect(&edge, path, &secret, &of_client)["sub"], "client:svc");
    }
    let as_web =
        |path: &str, fields: &[(&str, &str)]| edge.form(path, &[], &[&[("client_id", "web")], fields].concat());
    for token in [&other.refresh, &other.access] {
        let reply = as_web("/bound/revocation", &[("token", token)]);
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_grant"));
    }
    let refresh = |path: &str, token: &str| as_web(path, &[("grant_type", "refresh_token"), ("refresh_token", token)]);
    assert_eq!(refresh("/bound/token", &other.refresh).error(), "invalid_grant");
    let bearer = format!("Authorization: Bearer {}", other.access);
    for line in ["POST /k/_logout", "POST /k/_logout?global", "GET /k/_me", "POST /k/_refreshToken"] {
        assert_eq!(edge.ask(line, &[&bearer, "Content-Length: 0"]).status, 401, "{line}");
    }
    assert_eq!(edge.ask_as(&other.access, "GET /x", &[]).status, 200, "and it goes on");
    tokens(&refresh("/other/connect/token", &other.refresh));
    tokens(&refresh("/bound/token", &acme.refresh));
}

const DELEGATION: &str = r#"
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
subject_prefix = "idp|"
claims = { account = "org" }
scopes = ["read"]
id_jag = { clients = ["svc"] }
[[endpoints]]
dialect = "oauth2"
path = "/acme/token"
account = "acme"
[[endpoints]]
dialect = "oauth2"
path = "/of-idp/token"
account = "idp:acme"
[[endpoints]]
dialect = "oauth2"
path = "/any/token"
[[clients]]
id = "svc"
secret_hash = "@hash@"
grants = ["token-exchange", "jwt-bearer", "client_credentials"]
exchange = { as = ["api"], to = ["billing"], issuers = ["self", "idp"] }
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

#[test]
fn r21_an_endpoint_of_one_account_exchanges_nothing_of_others_and_begins_no_session_there() {
    let (secret, hash) = secret();
    let (idp, password) = (Issuer::new(31), uuid::Uuid::new_v4().to_string());
    keep_secret(&password);
    let edge = Edge::with(
        &format!("{HEAD}{DELEGATION}").replace("@hash@", &hash),
        |place| {
            std::fs::write(place.path("idp.json"), json!({ "keys": [idp.jwk("k1")] }).to_string()).unwrap();
            for account in ["acme", "globex"] {
                let user = ["user", "add", "ada", "--account", account, "--subject", account, "--scopes", "read"];
                assert_eq!(place.run(&user, &password).code, Some(0));
            }
            std::fs::write(place.path("password"), &password).unwrap();
        },
        |_| {},
    );
    let form = |path: &str, fields: &[(&str, &str)]| {
        let client = [("client_id", "svc"), ("client_secret", secret.as_str())];
        edge.form(path, &[], &[&client[..], fields].concat())
    };
    let exchange = |path: &str, token: &str| {
        form(
            path,
            &[
                ("grant_type", super::exchange::GRANT),
                ("subject_token_type", super::exchange::ACCESS),
                ("subject_token", token),
            ],
        )
    };
    let login = |account: &str| {
        let fields = [("client_id", "web"), ("grant_type", "password"), ("username", "ada"), ("password", &*password)];
        tokens(&edge.form(&format!("/{account}/connect/token"), &[], &fields)).access
    };
    let (acme, globex) = (login("acme"), login("globex"));
    let theirs = |org: &str| idp.token(&json!({ "org": org, "scope": "read" }));
    let of_client =
        form("/any/token", &[("grant_type", "client_credentials")]).json()["access_token"].as_str().unwrap().to_owned();
    for (path, token, status) in [
        ("/acme/token", &acme, 200),
        ("/acme/token", &globex, 400),
        ("/acme/connect/token", &globex, 400),
        ("/connect/token", &globex, 400),
        ("/globex/connect/token", &globex, 200),
        ("/any/token", &globex, 200),
        ("/acme/token", &theirs("acme"), 400),
        ("/of-idp/token", &theirs("acme"), 200),
        ("/of-idp/token", &theirs("globex"), 400),
        ("/any/token", &theirs("globex"), 200),
    ] {
        let reply = exchange(path, token);
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    // The client that acts has no account.
    let actor = [
        ("grant_type", super::exchange::GRANT),
        ("subject_token_type", super::exchange::ACCESS),
        ("subject_token", &*acme),
        ("actor_token_type", super::exchange::ACCESS),
        ("actor_token", &*of_client),
    ];
    assert_eq!(form("/acme/token", &actor).status, 200);
    let now = claims(&json!({}))["iat"].as_u64().unwrap();
    let asserted = |path: &str, org: &str| {
        let said = json!({
            "aud": "http://gate.test", "sub": "u-1", "client_id": "svc", "jti": uuid::Uuid::new_v4(), "org": org,
            "scope": "read", "exp": now + 300,
        });
        let token = idp.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": "oauth-id-jag+jwt" }), &claims(&said));
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        form(path, &[("grant_type", grant), ("assertion", &token)])
    };
    for (path, org, status) in [
        ("/of-idp/token", "acme", 200),
        ("/of-idp/token", "globex", 400),
        ("/acme/token", "acme", 400),
        ("/connect/token", "acme", 400),
        ("/any/token", "globex", 200),
    ] {
        let reply = asserted(path, org);
        assert_eq!(reply.status, status, "{path} {org}: {reply:?}");
        if status == 400 {
            assert_eq!(reply.error(), "invalid_grant");
        }
    }
}

/// A confidential client of the name that a dialect would take for its own.
#[test]
fn r20_an_endpoint_that_names_no_client_does_not_go_around_the_entry_of_its_own() {
    let (_, hash) = secret();
    let entry = |more: &str| format!("[[clients]]\nid = \"kuzzle\"\n{more}[[endpoints]]\ndialect = \"kuzzle\"\n");
    let place = Place::new(&format!("{CONFIG}{}", entry(&format!("secret_hash = \"{hash}\"\nscopes = [\"read\"]\n"))));
    let checked = place.run(&["check"], "");
    assert!(checked.code == Some(2) && checked.stderr.contains("endpoints[1].client: missing"), "{checked:?}");
    // A public client of that name counts, with its grants and its scopes.
    let login = |more: &str| {
        let edge = Edge::with(
            &format!("{HEAD}{}[[routes]]\npath = \"/{{*rest}}\"\nupstream = \"app\"\n", entry(more)),
            |place| {
                let password = uuid::Uuid::new_v4().to_string();
                keep_secret(&password);
                assert_eq!(place.run(&["user", "add", "ada", "--scopes", "read admin"], &password).code, Some(0));
                std::fs::write(place.path("password"), &password).unwrap();
            },
            |_| {},
        );
        let body = json!({ "username": "ada", "password": edge.gate.password }).to_string();
        let length = format!("Content-Length: {}", body.len());
        let mut wire = edge.wire();
        wire.head("POST /_login/local", &["Host: gate.test", "Content-Type: application/json", &length]);
        wire.send(body);
        let reply = wire.reply();
        let token = reply.json()["result"]["jwt"].as_str().map(str::to_owned);
        token.map(|token| {
            assert_eq!(edge.ask_as(&token, "GET /x", &[]).status, 200);
            edge.stub.one().all("x-auth-scope").join("")
        })
    };
    assert_eq!(login("scopes = [\"read\"]\n"), Some("read".to_owned()));
    assert_eq!(login(""), Some("read admin".to_owned()));
    assert_eq!(login("grants = [\"refresh_token\"]\n"), None);
}
