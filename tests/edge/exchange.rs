//! Token exchange at the gate (RFC 8693), against the real binary: which client may act for which user, for how long, and where.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::client_assertions::reload;
use super::isolation::secret;
use super::issuer::{Issuer, URL, claims};
use super::long_replies::{begun, is_cut};
use super::remote_keys::admin_token;
use support::stub::{Edge, HEAD, tokens};
use support::wire::{Reply, Wire};
use support::{Place, keep_secret, until};

pub(crate) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

const CONFIG_OF_EXCHANGES: &str = r#"
[api_keys]
prefix = "acme"
[identity]
headers = { actor = "x-auth-actor" }
assertion = { header = "x-auth-assertion" }
[[issuers]]
name = "kc"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "kc.json"
typ = ["at+jwt", "JWT"]
scopes = ["read", "write"]
subject_prefix = "kc|"
backchannel_logout = { path = "/logout/kc", audience = ["our-client"] }
[[issuers]]
name = "stranger"
url = "https://stranger.test/"
audience = ["api"]
jwks_file = "stranger.json"
[[clients]]
id = "orders"
secret_hash = "@hash@"
grants = ["token-exchange", "client_credentials"]
exchange = { as = ["api", "orders-api"], to = ["billing", "https://ledger.test/v1"], issuers = ["self", "kc"], scopes = ["read"], depth = 2 }
[[clients]]
id = "billing"
secret_hash = "@hash@"
grants = ["token-exchange"]
exchange = { as = ["billing"], to = ["ledger"], depth = 2 }
[[clients]]
id = "ledger"
secret_hash = "@hash@"
grants = ["token-exchange"]
exchange = { as = ["ledger"], to = ["archive"], depth = 2 }
[[clients]]
id = "other"
secret_hash = "@hash@"
grants = ["client_credentials"]
[[endpoints]]
dialect = "kuzzle"
client = "web"
[[endpoints]]
dialect = "envelope"
client = "web"
accepts = ["oauth2"]
[[endpoints]]
dialect = "my-sessions"
path = "/mine"
[[endpoints]]
dialect = "my-keys"
path = "/account/keys"
[[routes]]
path = "/billing/{*rest}"
audiences = ["billing"]
upstream = "app"
[[routes]]
path = "/ledger/{*rest}"
audiences = ["ledger"]
upstream = "app"
[[routes]]
path = "/stranger/{*rest}"
issuers = ["stranger"]
upstream = "app"
[[routes]]
kuzzle = ["*"]
[[routes]]
path = "/{*rest}"
issuers = ["self", "kc"]
upstream = "app"
"#;

pub(crate) struct World {
    pub(crate) edge: Edge,
    kc: Issuer,
    pub(crate) secret: String,
}

pub(crate) fn world() -> World {
    world_of(HEAD)
}

fn world_of(head: &str) -> World {
    let (kc, (secret, hash)) = (Issuer::new(21), secret());
    let config = format!("{head}{CONFIG_OF_EXCHANGES}").replace("@hash@", &hash);
    let files = |place: &Place| {
        for (file, issuer) in [("kc.json", &kc), ("stranger.json", &Issuer::new(22))] {
            std::fs::write(place.path(file), json!({ "keys": [issuer.jwk("k1")] }).to_string()).unwrap();
        }
    };
    World { edge: Edge::with(&config, files, |_| {}), kc, secret }
}

fn now() -> u64 {
    claims(&json!({}))["iat"].as_u64().unwrap()
}

/// The claims of a token, without a check of its signature.
fn said(token: &str) -> Value {
    keep_secret(token);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

impl World {
    /// Exchanges as a client, with changed fields; an empty text takes one away.
    fn ask(&self, client: &str, subject: &str, changes: &[(&str, &str)]) -> Reply {
        let mut fields = vec![
            ("grant_type", GRANT),
            ("client_id", client),
            ("client_secret", &self.secret),
            ("subject_token", subject),
            ("subject_token_type", ACCESS),
            ("audience", "billing"),
        ];
        fields.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        fields.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        self.edge.form("/connect/token", &[], &fields)
    }

    fn exchanged(&self, client: &str, subject: &str, changes: &[(&str, &str)]) -> String {
        let reply = self.ask(client, subject, changes);
        assert_eq!(reply.status, 200, "{reply:?}");
        let token = reply.json()["access_token"].as_str().unwrap().to_owned();
        keep_secret(&token);
        token
    }

    fn refused(&self, client: &str, subject: &str, changes: &[(&str, &str)], error: &str) {
        let reply = self.ask(client, subject, changes);
        assert_eq!((reply.status, reply.error().as_str()), (400, error), "{client} {changes:?}: {reply:?}");
        assert_eq!(reply.header("cache-control"), "no-store");
    }

    fn status(&self, token: &str, path: &str) -> u16 {
        let status = self.edge.ask_as(token, &format!("GET {path}"), &[]).status;
        assert_eq!(self.edge.stub.take().len(), usize::from(status == 200));
        status
    }

    fn own_token(&self, client: &str) -> String {
        let fields = [("grant_type", "client_credentials"), ("client_id", client), ("client_secret", &self.secret)];
        let reply = self.edge.form("/connect/token", &[], &fields);
        reply.json()["access_token"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
    }

    /// A token of the other issuer, of an earlier second.
    fn theirs(&self, changes: &Value) -> String {
        let mut all = json!({ "iat": now() - 10, "sid": "s-1" });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.kc.token(&all)
    }

    fn log_out(&self, changes: &Value) {
        let mut told = json!({
            "iss": URL, "aud": "our-client", "iat": now() - 5, "exp": now() + 120, "jti": "l-1", "sub": "user-1",
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        told.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = self.kc.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": "logout+jwt" }), &told);
        assert_eq!(self.edge.form("/logout/kc", &[], &[("logout_token", &token)]).status, 200);
    }
}

#[test]
fn d1_each_row_of_the_table_grants_or_refuses() {
    let world = world();
    let held = world.edge.login();
    let user = held.access.as_str();
    let ok = |changes: &[(&str, &str)]| world.exchanged("orders", user, changes);
    let no = |changes: &[(&str, &str)], error: &str| world.refused("orders", user, changes, error);
    ok(&[]);
    ok(&[("subject_token_type", JWT)]);
    ok(&[("requested_token_type", ACCESS)]);
    ok(&[("audience", ""), ("resource", "https://ledger.test/v1")]);
    ok(&[("actor_token", &world.own_token("orders")), ("actor_token_type", ACCESS)]);
    // The client: confidential, listed.
    no(&[("client_secret", "wrong")], "invalid_client");
    world.refused("other", user, &[], "unauthorized_client");
    world.refused("web", user, &[("client_secret", "")], "unauthorized_client");
    // The subject token.
    for changes in [
        &[("subject_token", "")][..],
        &[("subject_token_type", "")],
        &[("subject_token_type", "urn:ietf:params:oauth:token-type:id_token")],
        &[("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token")],
        &[("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")],
        &[("subject_token", &held.refresh)],
        &[("subject_token", &world.own_token("other"))],
        &[("subject_token", &world.own_token("orders"))],
        &[("subject_token", &format!("{}x", &user[..user.len() - 4]))],
        &[("subject_token", &world.theirs(&json!({ "exp": now() - 100 })))],
        &[("subject_token", &world.theirs(&json!({ "aud": "some-other-service" })))],
        // The id of a client at another issuer names no client of this gate.
        &[("subject_token", &world.theirs(&json!({ "aud": "x", "client_id": "orders" })))],
        &[("subject_token", &Issuer::new(22).token(&json!({ "iss": "https://stranger.test/" })))],
        &[("subject_token", &Issuer::new(9).token(&json!({})))],
        // The actor token.
        &[("actor_token", &world.own_token("orders"))],
        &[("actor_token_type", ACCESS)],
        &[("actor_token", &world.own_token("other")), ("actor_token_type", ACCESS)],
        &[("actor_token", user), ("actor_token_type", ACCESS)],
        &[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")],
        // A parameter is there once. None is dropped.
        &[("subject_token", user), ("subject_token", user)],
        &[("subject_token_type", ACCESS), ("subject_token_type", ACCESS)],
        &[("scope", "read"), ("scope", "read")],
        &[("requested_token_type", ACCESS), ("requested_token_type", ACCESS)],
    ] {
        no(changes, "invalid_request");
    }
    // The target must be one permitted audience, byte for byte. If two are permitted, a request must name one.
    for changes in [
        &[("audience", "")][..],
        &[("audience", "ledger")],
        &[("audience", "Billing")],
        &[("audience", "billing "), ("scope", "read")],
        &[("resource", "https://ledger.test/v1/")],
        &[("audience", "billing"), ("audience", "billing")],
        &[("audience", "billing"), ("resource", "https://ledger.test/v1")],
    ] {
        no(changes, "invalid_target");
    }
    assert_eq!(said(&world.exchanged("billing", &ok(&[]), &[("audience", "")]))["aud"], "ledger", "the only one");
    // The scope.
    for scope in ["write", "read write", "admin", "read  read\u{e4}"] {
        no(&[("scope", scope)], "invalid_scope");
    }
    // Other grants take no second audience.
    let twice = [("grant_type", "client_credentials"), ("audience", "a"), ("audience", "b"), ("client_id", "x")];
    assert_eq!(world.edge.form("/connect/token", &[], &twice).error(), "invalid_request");
}

#[test]
fn d2_d3_what_is_minted_is_exchanged_and_opens_the_other_service() {
    let world = world();
    let user = world.edge.login().access;
    let reply = world.ask("orders", &user, &[]);
    assert_eq!((reply.status, reply.header("cache-control")), (200, "no-store"));
    let mut words = reply.json();
    let token = words["access_token"].take().as_str().unwrap().to_owned();
    let expires = words["expires_in"].take().as_u64().unwrap();
    assert!(expires <= said(&user)["exp"].as_u64().unwrap() - now() + 1);
    assert_eq!(
        words,
        json!({ "access_token": null, "expires_in": null, "token_type": "Bearer", "scope": "read", "issued_token_type": ACCESS })
    );
    let (new, old) = (said(&token), said(&user));
    for claim in ["iss", "sub", "sid", "gen"] {
        assert_eq!(new[claim], old[claim], "{claim}");
    }
    assert_eq!((&new["aud"], &new["client_id"]), (&json!("billing"), &json!("orders")));
    assert_eq!((world.status(&token, "/billing/x"), world.status(&user, "/billing/x")), (200, 401));
    assert_eq!((world.status(&token, "/x"), world.status(&user, "/x")), (401, 200), "it is for one service alone");
    // A bad token under either name, and bad credentials by Basic, get the words of RFC 6749 §5.2.
    let bad = world.ask("orders", "x", &[]).json();
    assert_eq!(bad, world.ask("billing", &user, &[("audience", "ledger")]).json(), "no reason");
    assert_eq!(bad["error"], "invalid_request");
    let metadata = world.edge.ask("GET /.well-known/oauth-authorization-server", &[]).json();
    assert!(metadata["grant_types_supported"].as_array().unwrap().contains(&json!(GRANT)), "{metadata}");
    let log = world.edge.gate.log();
    assert!(log.contains("event.action=token.exchange event.code=RG1103I"), "{log}");
    assert_eq!(world.edge.series("rotogate_session_events_total{event=\"token_exchange\"}"), 1);
}

#[test]
fn d4_the_actor_is_named_to_everyone_and_a_client_cannot_say_who_acts() {
    let world = world();
    let user = world.edge.login().access;
    let first = world.exchanged("orders", &user, &[]);
    assert_eq!(said(&first)["act"], json!({ "sub": "client:orders" }));
    let call = |token: &str, path: &str| {
        let forged = ["X-Auth-Actor: client:root", "x_auth_actor: client:root"];
        assert_eq!(world.edge.ask_as(token, &format!("GET {path}"), &forged).status, 200);
        let received = world.edge.stub.one();
        let actors: Vec<String> = received.confusable("x-auth-actor").into_iter().map(str::to_owned).collect();
        (actors, said(received.all("x-auth-assertion")[0])["act"].clone())
    };
    assert_eq!(call(&first, "/billing/x"), (vec!["client:orders".to_owned()], json!({ "sub": "client:orders" })));
    assert_eq!(call(&user, "/x"), (vec![], Value::Null), "nobody acts");
    let second = world.exchanged("billing", &first, &[("audience", "ledger")]);
    let act = json!({ "sub": "client:billing", "act": { "sub": "client:orders" } });
    assert_eq!(call(&second, "/ledger/x"), (vec!["client:billing".to_owned()], act));
    // Two act, and a third is too many.
    world.refused("ledger", &second, &[("audience", "archive")], "invalid_request");
    // `may_act` must match in every member, and the new token keeps it.
    let may = |may_act: Value| world.theirs(&json!({ "may_act": may_act }));
    for wrong in [
        json!({}),
        json!("client:orders"),
        json!({ "sub": "client:other" }),
        json!({ "sub": "client:orders", "iss": "https://idp.test/" }),
        json!({ "sub": "client:orders", "more": true }),
    ] {
        world.refused("orders", &may(wrong), &[], "invalid_request");
    }
    let token = may(json!({ "sub": "client:orders", "iss": "http://gate.test", "client_id": "orders" }));
    let token = world.exchanged("orders", &token, &[]);
    world.refused("billing", &token, &[("audience", "ledger")], "invalid_request");
    // An actor from another issuer keeps its name, and the length of the chain is bounded.
    let act = json!({ "sub": "client:root", "act": { "sub": "x" } });
    world.refused("orders", &world.theirs(&json!({ "act": act })), &[], "invalid_request");
    let long = json!({ "sub": "x", "note": "n".repeat(1100) });
    world.refused("orders", &world.theirs(&json!({ "act": long })), &[], "invalid_request");
    let token = world.exchanged("orders", &world.theirs(&json!({ "act": { "sub": "client:root" } })), &[]);
    let act = json!({ "sub": "client:orders", "act": { "sub": "client:root", "iss": URL } });
    assert_eq!(said(&token)["act"], act);
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_the_audit_log_names_who_acts() {
    let world = world_of(&format!("{HEAD}[audit_log]\noutput = \"./audit.log\"\n"));
    let first = world.exchanged("orders", &world.edge.login().access, &[]);
    world.exchanged("billing", &first, &[("audience", "ledger")]);
    let acts = || -> Vec<Value> {
        let lines = super::audit_schema::lines(&world.edge.place.path("audit.log"));
        let exchanged = lines.iter().filter(|line| line["event.action"] == "token.exchange");
        exchanged.map(|line| serde_json::from_str(line["act"].as_str().unwrap()).unwrap()).collect()
    };
    until("all are written", async || acts().len() == 2).await;
    let of_orders = json!({ "sub": "client:orders" });
    assert_eq!(acts(), [of_orders.clone(), json!({ "sub": "client:billing", "act": of_orders })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_d9_it_ends_with_its_session_and_nothing_was_written_for_it() {
    let mut world = world_of(&HEAD.replace("[store]\nkind = \"memory\"\n", ""));
    let held = world.edge.login();
    let commits = async |world: &World| world.edge.gate.metric("rotogate_store_commits_total{result=\"ok\"}").await;
    let user = world.exchanged("orders", &held.access, &[]);
    let before = commits(&world).await;
    for _ in 0..20 {
        world.exchanged("orders", &held.access, &[]);
        world.exchanged("orders", &world.theirs(&json!({})), &[]);
    }
    assert_eq!(commits(&world).await, before, "an exchange wrote something");
    let next = world.exchanged("billing", &user, &[("audience", "ledger")]);
    let stream = begun(&world.edge, "/billing/parts", &user);
    world.edge.stub.take();
    assert_eq!((world.status(&user, "/billing/x"), world.status(&next, "/ledger/x")), (200, 200));
    assert_eq!(world.edge.gate.revoke(&held.refresh).await.status, 200);
    assert_eq!((world.status(&user, "/billing/x"), world.status(&next, "/ledger/x")), (401, 401));
    is_cut(stream);
    world.edge.stub.push(b"");
    world.refused("orders", &held.access, &[], "invalid_request");
    // After a crash, too.
    world.edge.gate.kill();
    world.edge.gate = world.edge.place.start();
    assert_eq!((world.status(&user, "/billing/x"), world.status(&next, "/ledger/x")), (401, 401));
}

#[test]
fn d5_a_rotation_and_a_revocation_of_the_client_end_it_and_no_stream_outlives_it() {
    let head = format!("{HEAD}[sessions]\nrevoke_previous_after = \"0s\"\n");
    let world = world_of(&head);
    let held = world.edge.login();
    let token = world.exchanged("orders", &held.access, &[]);
    let stream = begun(&world.edge, "/billing/parts", &token);
    world.edge.stub.take();
    let next = tokens(&world.edge.refresh(&[], &held.refresh));
    assert_eq!(world.status(&token, "/billing/x"), 401, "of an earlier generation");
    is_cut(stream);
    world.edge.stub.push(b"");
    let token = world.exchanged("orders", &next.access, &[]);
    let foreign = world.exchanged("orders", &world.theirs(&json!({})), &[]);
    assert_eq!((world.status(&token, "/billing/x"), world.status(&foreign, "/billing/x")), (200, 200));
    let admin = format!("Authorization: Bearer {}", admin_token(&world.edge));
    let mut wire = Wire::open(world.edge.gate.admin);
    let body = r#"{"client":"orders"}"#;
    let length = format!("Content-Length: {}", body.len());
    let host = format!("Host: {}", world.edge.gate.admin);
    wire.head("POST /v1/revocations", &[&host, "Content-Type: application/json", &admin, &length]);
    wire.send(body);
    assert_eq!(wire.reply().status, 200);
    assert_eq!((world.status(&token, "/billing/x"), world.status(&foreign, "/billing/x")), (401, 401));
    assert_eq!(world.status(&next.access, "/x"), 200, "the user's own session goes on");
}

#[test]
fn d6_it_is_never_wider_than_what_was_exchanged() {
    let world = world();
    let narrow = world.theirs(&json!({ "scope": "write" }));
    world.refused("orders", &narrow, &[], "invalid_scope");
    let short = world.theirs(&json!({ "exp": now() + 40 }));
    let token = world.exchanged("orders", &short, &[]);
    assert!(said(&token)["exp"].as_u64().unwrap() <= said(&short)["exp"].as_u64().unwrap());
    let again = world.exchanged("billing", &token, &[("audience", "ledger")]);
    assert!(said(&again)["exp"].as_u64().unwrap() <= said(&token)["exp"].as_u64().unwrap());
    assert_eq!((&said(&again)["scope"], &said(&again)["aud"]), (&json!("read"), &json!("ledger")));
    world.refused("billing", &token, &[("audience", "ledger"), ("scope", "read write")], "invalid_scope");
    // The client is neither an audience of the token nor its issuer's client.
    world.refused("ledger", &token, &[("audience", "archive")], "invalid_request");
}

#[test]
fn d8_a_notice_of_the_issuer_ends_what_came_of_an_earlier_token() {
    for (told, claims, is_chained) in [
        (json!({}), json!({ "sid": null }), false),
        (json!({}), json!({}), true),
        (json!({ "sid": "s-1" }), json!({}), false),
    ] {
        let world = world();
        // The notice names a moment after the token's `iat` and before the exchange, whose own `iat` is later.
        let subject = world.theirs(&claims);
        let token = world.exchanged("orders", &subject, &[]);
        let later = world.exchanged("orders", &world.theirs(&json!({ "iat": now() - 2, "jti": "t-2" })), &[]);
        let new = said(&token);
        assert_eq!((&new["origin_iss"], &new["origin_sub"]), (&json!(URL), &json!("user-1")));
        assert_eq!((&new["origin_jti"], &new["origin_iat"]), (&json!("t-1"), &said(&subject)["iat"]));
        assert_eq!((&new["sub"], new.get("sid"), new.get("gen")), (&json!("kc|user-1"), None, None));
        assert_eq!((world.status(&token, "/billing/x"), world.status(&later, "/billing/x")), (200, 200));
        let chained = world.exchanged("billing", &token, &[("audience", "ledger")]);
        assert_eq!(world.status(&chained, "/ledger/x"), 200);
        let stream = match is_chained {
            true => begun(&world.edge, "/ledger/parts", &chained),
            false => begun(&world.edge, "/billing/parts", &token),
        };
        world.edge.stub.take();
        world.log_out(&told);
        is_cut(stream);
        assert_eq!((world.status(&token, "/billing/x"), world.status(&chained, "/ledger/x")), (401, 401), "{told}");
        assert_eq!(world.status(&later, "/billing/x"), 200, "{told}: a later login goes on");
        world.refused("orders", &subject, &[], "invalid_request");
    }
    let world = world();
    let token = world.kc.token(&json!({ "iat": null }));
    world.refused("orders", &token, &[], "invalid_request");
}

#[test]
fn d10_it_is_no_credential_at_our_endpoints() {
    let world = world();
    let json = |token: &str, line: &str, body: &Value| {
        let body = body.to_string();
        let length = format!("Content-Length: {}", body.len());
        let bearer = format!("Authorization: Bearer {token}");
        let mut wire = world.edge.wire();
        wire.head(line, &["Host: gate.test", "Content-Type: application/json", &length, &bearer]);
        wire.send(body);
        wire.reply()
    };
    let login = json!({ "username": "demo", "password": world.edge.gate.password });
    let held = json("x", "POST /_login/local", &login).json()["result"]["jwt"].as_str().unwrap().to_owned();
    for path in ["/_me", "/mine", "/account/keys"] {
        assert_eq!(json(&held, &format!("GET {path}"), &json!({})).status, 200, "{path}");
    }
    let token = world.exchanged("orders", &held, &[]);
    let no_bearer = |line: &str, body: &Value| {
        let body = body.to_string();
        let length = format!("Content-Length: {}", body.len());
        let mut wire = world.edge.wire();
        wire.head(line, &["Host: gate.test", "Content-Type: application/json", &length]);
        wire.send(body);
        wire.reply()
    };
    let json = |line: &str, body: &Value| json(&token, line, body);
    let by = |path: &str| {
        let fields = [("client_id", "orders"), ("client_secret", world.secret.as_str()), ("token", token.as_str())];
        world.edge.form(path, &[], &fields)
    };
    assert_eq!(json("POST /_refreshToken", &json!({})).status, 401);
    assert_eq!(json("POST /_logout", &json!({})).status, 401);
    assert_eq!(json("POST /_logout?global=true", &json!({})).status, 401);
    assert_eq!(json("GET /_me", &json!({})).status, 401);
    assert_eq!(json("POST /_checkToken", &json!({ "token": token })).json()["result"]["valid"], false);
    assert_eq!(json("GET /mine", &json!({})).status, 401);
    assert_eq!(json("DELETE /mine?others", &json!({})).status, 401);
    assert_eq!(json("GET /account/keys", &json!({})).status, 401);
    assert_eq!(json("POST /account/keys", &json!({ "name": "n" })).status, 401);
    for action in ["refreshToken", "logout"] {
        let query = json!({ "controller": "auth", "action": action, "jwt": token, "global": true });
        assert_eq!(no_bearer("POST /_query", &query).status, 401, "{action}");
    }
    let own = world.edge.login();
    let of_own = world.exchanged("orders", &own.access, &[]);
    for (access, refresh) in [(&of_own, &own.refresh), (&own.access, &of_own)] {
        let pair = json!({ "token": access, "refreshToken": refresh });
        assert_eq!(no_bearer("PUT /api/v2/auth/token", &pair).json()["errorCode"], "AUTH_1002");
    }
    let pair = json!({ "token": own.access, "refreshToken": own.refresh });
    assert_eq!(no_bearer("PUT /api/v2/auth/token", &pair).status, 200);
    assert_eq!(world.edge.refresh(&[], &token).error(), "invalid_grant");
    assert_eq!(by("/connect/revocation").status, 200, "an unknown token (RFC 7009)");
    assert_eq!((world.status(&token, "/billing/x"), world.status(&held, "/x")), (200, 200), "nothing has ended");
    // Introspection names the actor.
    let told = by("/connect/introspect").json();
    assert_eq!((&told["active"], &told["act"]), (&json!(true), &json!({ "sub": "client:orders" })));
    assert_eq!((&told["aud"], &told["client_id"]), (&json!("billing"), &json!("orders")));
}

#[tokio::test(flavor = "multi_thread")]
async fn d29_a_reload_changes_what_a_client_exchanges_and_its_tokens_go_on() {
    let world = world();
    let held = world.edge.login();
    let token = world.exchanged("orders", &held.access, &[]);
    let config = std::fs::read_to_string(world.edge.place.path("gateway.toml")).unwrap();
    let target = "to = [\"billing\", \"https://ledger.test/v1\"]";
    world.edge.place.write_config(&config.replace(target, "to = [\"ledger\"]"));
    reload(&world.edge, 1).await;
    world.refused("orders", &held.access, &[], "invalid_target");
    assert_eq!(said(&world.exchanged("orders", &held.access, &[("audience", "ledger")]))["aud"], json!("ledger"));
    assert_eq!((world.status(&token, "/billing/x"), world.status(&held.access, "/x")), (200, 200));
    let exchange = "exchange = { as = [\"api\"";
    let without = config.replace("\"token-exchange\", \"client_credentials\"", "\"client_credentials\"");
    let without: Vec<_> = without.lines().filter(|line| !line.starts_with(exchange)).collect();
    world.edge.place.write_config(&without.join("\n"));
    reload(&world.edge, 2).await;
    world.refused("orders", &held.access, &[], "unauthorized_client");
    assert_eq!(world.status(&token, "/billing/x"), 200);
}
