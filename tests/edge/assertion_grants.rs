//! Assertions of other issuers as grants: about users (ID-JAG), and about workloads (RFC 7523).

use std::process::Command;

use serde_json::{Value, json};

use super::issuer::{Issuer, URL, claims};
use super::long_replies::{begun, is_cut};
use support::documents::Documents;
use support::stub::{Edge, HEAD};
use support::wire::Reply;
use support::{Place, until, with};

/// The transmitter's token, for scenes with security events.
pub(super) const TRANSMITTER: &str = "transmitter-token-of-assertion-scenes";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const GATE: &str = "http://gate.test";
const CONFIG: &str = r#"
[[issuers]]
name = "okta"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
scopes = ["read", "write"]
scope_map = { "wiki.read" = "read" }
subject_prefix = "okta|"
require = { tenant = "acme" }
id_jag = { for_tests = { max_age = "5m" }, clients = ["wiki", "bound"] }
backchannel_logout = { path = "/logout/idp", audience = ["our-client"] }
[[issuers]]
name = "off"
url = "https://off.test/"
audience = ["api"]
jwks_file = "idp.json"
everywhere = true
[[issuers]]
name = "ci"
url = "https://ci.test/"
audience = ["unused"]
jwks_file = "ci.json"
jwt_bearer = { subjects = ["repo:acme/app:ref:refs/heads/main"], as_client = "deploy" }
[[clients]]
id = "wiki"
keys = { jwks_file = "wiki.json" }
grants = ["jwt-bearer"]
scopes = ["read"]
[[clients]]
id = "unlisted"
keys = { jwks_file = "wiki.json" }
grants = ["jwt-bearer"]
[[clients]]
id = "bound"
keys = { jwks_file = "wiki.json" }
grants = ["jwt-bearer"]
dpop = "optional"
[[clients]]
id = "deploy"
grants = ["jwt-bearer"]
scopes = ["deploy"]
[[resources]]
path = "/wiki"
[[resources]]
path = "/files"
[[routes]]
path = "/wiki/{*rest}"
resource = "/wiki"
upstream = "app"
[[routes]]
path = "/write/{*rest}"
scopes = ["write"]
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

pub(crate) struct Scene {
    pub(crate) edge: Edge,
    pub(super) idp: Issuer,
    ci: Issuer,
    wiki: Issuer,
}

pub(crate) fn scene_with(change: impl FnOnce(String) -> String) -> Scene {
    scene_by(change, |_| {})
}

/// With a changed configuration, and a changed command.
pub(super) fn scene_by(change: impl FnOnce(String) -> String, command: impl FnOnce(&mut Command)) -> Scene {
    let (idp, ci, wiki) = (Issuer::new(51), Issuer::new(52), Issuer::new(53));
    let files = |place: &Place| {
        for (file, key) in [("idp.json", &idp), ("ci.json", &ci), ("wiki.json", &wiki)] {
            std::fs::write(place.path(file), json!({ "keys": [key.jwk("k1")] }).to_string()).unwrap();
        }
        let token = place.path("events.token");
        std::fs::write(&token, TRANSMITTER).unwrap();
        std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    let edge = Edge::with(&change(format!("{HEAD}{CONFIG}")), files, command);
    Scene { edge, idp, ci, wiki }
}

fn scene() -> Scene {
    scene_with(|config| config)
}

fn now() -> u64 {
    claims(&json!({}))["iat"].as_u64().unwrap()
}

/// A good identity assertion, with changes.
fn jag(changes: &Value) -> Value {
    let mut said = json!({
        "aud": GATE, "sub": "u-1", "client_id": "wiki", "jti": uuid::Uuid::new_v4(), "tenant": "acme", "sid": "s-1",
        "scope": "wiki.read write admin", "exp": now() + 300,
    });
    for (name, value) in changes.as_object().unwrap() {
        said[name] = value.clone();
    }
    claims(&said)
}

fn head(typ: &str) -> Value {
    json!({ "alg": "EdDSA", "kid": "k1", "typ": typ })
}

const TYP: &str = "oauth-id-jag+jwt";

impl Scene {
    pub(crate) fn signed(&self, changes: &Value) -> String {
        self.idp.sign(&head(TYP), &jag(changes))
    }

    fn present_as(&self, client: &str, assertion: &str, further: &[(&str, &str)]) -> Reply {
        self.present_with(client, assertion, &[], further)
    }

    /// With these headers, too.
    pub(crate) fn present_with(
        &self,
        client: &str,
        assertion: &str,
        headers: &[&str],
        further: &[(&str, &str)],
    ) -> Reply {
        self.present_at("/connect/token", client, assertion, headers, further)
    }

    /// At the endpoint of an account.
    fn present_at(
        &self,
        path: &str,
        client: &str,
        assertion: &str,
        headers: &[&str],
        further: &[(&str, &str)],
    ) -> Reply {
        let said = json!({
            "iss": client, "sub": client, "aud": GATE, "jti": uuid::Uuid::new_v4(), "client_id": null, "scope": null,
        });
        let own = self.wiki.sign(&json!({ "alg": "EdDSA", "kid": "k1" }), &claims(&said));
        let fields = [
            ("grant_type", GRANT),
            ("assertion", assertion),
            ("client_assertion_type", KIND),
            ("client_assertion", own.as_str()),
        ];
        self.edge.form(path, headers, &[&fields[..], further].concat())
    }

    pub(super) fn present(&self, assertion: &str) -> Reply {
        self.present_as("wiki", assertion, &[])
    }

    pub(super) fn status(&self, token: &str, path: &str) -> u16 {
        self.edge.ask_as(token, &format!("GET {path}"), &[]).status
    }

    fn workload(&self, changes: &Value) -> String {
        let mut said = json!({
            "iss": "https://ci.test/", "aud": GATE, "sub": "repo:acme/app:ref:refs/heads/main",
            "jti": uuid::Uuid::new_v4(), "scope": null, "client_id": null,
        });
        for (name, value) in changes.as_object().unwrap() {
            said[name] = value.clone();
        }
        self.ci.sign(&head("JWT"), &claims(&said))
    }

    fn bare(&self, assertion: &str) -> Reply {
        self.edge.form("/connect/token", &[], &[("grant_type", GRANT), ("assertion", assertion)])
    }

    fn log_out(&self, sid: &str, at: u64) {
        self.log_out_of(&json!({ "sid": sid }), at);
    }

    fn log_out_of(&self, named: &Value, at: u64) {
        let said = json!({
            "iss": URL, "aud": "our-client", "iat": at, "exp": at + 120, "jti": uuid::Uuid::new_v4(),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        let said = merged(said, named);
        let told = self.idp.sign(&head("logout+jwt"), &said);
        let reply = self.edge.form("/logout/idp", &[], &[("logout_token", &told)]);
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

fn error(reply: &Reply) -> String {
    assert_eq!(reply.status, 400, "{reply:?}");
    reply.json()["error"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn access(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    let said = reply.json();
    assert_eq!(said.get("refresh_token"), None);
    said["access_token"].as_str().unwrap().to_owned()
}

fn payload(token: &str) -> Value {
    use base64::Engine as _;
    let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&part).unwrap()
}

#[test]
fn d18_an_identity_assertion_is_good_and_each_rule_alone_refuses_one() {
    let scene = scene();
    let granted = scene.present(&scene.signed(&json!({})));
    let token = access(&granted);
    // The issuer's scopes are mapped; the client may have one of them.
    assert_eq!(granted.json()["scope"], "read");
    assert_eq!(scene.status(&token, "/x"), 200);
    let received = scene.edge.stub.one();
    assert_eq!((received.all("x-auth-subject"), received.all("x-auth-client")), (vec!["okta|u-1"], vec!["wiki"]));
    let said = payload(&token);
    assert_eq!(
        (&said["origin_iss"], &said["origin_sub"], &said["origin_sid"]),
        (&json!(URL), &json!("u-1"), &json!("s-1"))
    );
    assert_eq!(scene.status(&token, "/write/x"), 403);
    access(&scene.present(&scene.signed(&json!({ "aud": [GATE] }))));
    let refused = |changes: Value| {
        assert_eq!(error(&scene.present(&scene.signed(&changes))), "invalid_grant", "{changes}");
    };
    // 1: type, issuer, and the required claims.
    for typ in ["JWT", "at+jwt", "logout+jwt"] {
        assert_eq!(error(&scene.present(&scene.idp.sign(&head(typ), &jag(&json!({}))))), "invalid_grant", "{typ}");
    }
    for head in [json!({ "alg": "none", "typ": TYP }), json!({ "alg": "HS256", "kid": "k1", "typ": TYP })] {
        assert_eq!(error(&scene.present(&scene.idp.sign(&head, &jag(&json!({}))))), "invalid_grant", "{head}");
    }
    refused(json!({ "iss": "https://off.test/" }));
    refused(json!({ "iss": "https://unknown.test/" }));
    for name in ["iss", "aud", "sub", "client_id", "jti", "exp", "iat"] {
        refused(json!({ name: null }));
    }
    assert_eq!(error(&scene.present(&scene.ci.sign(&head(TYP), &jag(&json!({}))))), "invalid_grant", "another key");
    // 2: our issuer, alone.
    for aud in
        [json!("https://other.test"), json!([GATE, "https://other.test"]), json!("http://gate.test/connect/token")]
    {
        refused(json!({ "aud": aud }));
    }
    // 3: the client that presents it, and listed.
    refused(json!({ "client_id": "unlisted" }));
    let unlisted = scene.signed(&json!({ "client_id": "unlisted" }));
    assert_eq!(error(&scene.present_as("unlisted", &unlisted, &[])), "invalid_grant");
    assert_eq!(
        error(&scene.present_as("unlisted", &scene.signed(&json!({})), &[])),
        "invalid_grant",
        "of another client"
    );
    let bare = [("grant_type", GRANT), ("assertion", &*scene.signed(&json!({ "client_id": "deploy" })))];
    let public = scene.edge.form("/connect/token", &[], &[&bare[..], &[("client_id", "deploy")]].concat());
    assert_eq!(public.status, 400, "a public client");
    // 4: its age, and its time.
    refused(json!({ "iat": now() - 400 }));
    refused(json!({ "iat": now() + 120 }));
    refused(json!({ "nbf": now() + 120 }));
    refused(json!({ "exp": now() - 60 }));
    // 5: a restriction that would be dropped.
    refused(json!({ "authorization_details": [] }));
    // 6: bound to a key without a proof; by a method that the gate cannot check.
    refused(json!({ "cnf": { "jkt": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" } }));
    refused(json!({ "cnf": { "x5t#S256": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" } }));
    refused(json!({ "cnf": {} }));
    // 9: the tenant.
    refused(json!({ "tenant": "other" }));
    refused(json!({ "tenant": null }));
    let ours = scene.edge.login();
    assert_eq!(error(&scene.present(&ours.access)), "invalid_grant", "a token of this gate");
}

#[test]
fn d18_the_resource_becomes_the_audience_and_scopes_only_narrow() {
    let scene = scene();
    let ask = |changes: Value, further: &[(&str, &str)]| scene.present_as("wiki", &scene.signed(&changes), further);
    let (wiki, files) = ("http://gate.test/wiki", "http://gate.test/files");
    let one = access(&ask(json!({ "resource": wiki }), &[]));
    assert_eq!(payload(&one)["aud"], wiki);
    assert_eq!([scene.status(&one, "/wiki/x"), scene.status(&one, "/x")], [200, 401]);
    assert_eq!(error(&ask(json!({ "resource": [wiki, files] }), &[])), "invalid_target", "the request picks one");
    let picked = access(&ask(json!({ "resource": [wiki, files] }), &[("resource", files)]));
    assert_eq!(payload(&picked)["aud"], files);
    assert_eq!(error(&ask(json!({ "resource": wiki }), &[("resource", files)])), "invalid_target");
    assert_eq!(
        error(&ask(json!({ "resource": [wiki, "https://other.test"] }), &[("resource", wiki)])),
        "invalid_target"
    );
    assert_eq!(error(&ask(json!({ "resource": 7 }), &[])), "invalid_grant");
    // 8: no claim, no scope.
    assert_eq!(ask(json!({ "scope": null }), &[]).json().get("scope"), None);
    assert_eq!(error(&ask(json!({ "scope": null }), &[("scope", "read")])), "invalid_scope");
    assert_eq!(error(&ask(json!({}), &[("scope", "read write")])), "invalid_scope", "beyond the client's");
}

#[test]
fn d19_d21_an_assertion_has_one_session_and_an_ended_one_is_never_revived() {
    let mut scene = scene_with(|config| {
        with(&config, "store", "kind = \"redb\"\npath = \"data/sessions.db\"").replace("kind = \"memory\"\n", "")
    });
    let assertion = scene.signed(&json!({}));
    let (first, second) = (access(&scene.present(&assertion)), access(&scene.present(&assertion)));
    assert_ne!(payload(&first)["jti"], payload(&second)["jti"]);
    assert_eq!(payload(&first)["sid"], payload(&second)["sid"]);
    // Another assertion, and the same assertion of another client, have separate sessions.
    let other = access(&scene.present(&scene.signed(&json!({}))));
    assert_ne!(payload(&other)["sid"], payload(&first)["sid"]);
    // The client ends the session, by one of its tokens.
    let said = json!({ "iss": "wiki", "sub": "wiki", "aud": GATE, "jti": "revoke", "client_id": null, "scope": null });
    let own = scene.wiki.sign(&json!({ "alg": "EdDSA", "kid": "k1" }), &claims(&said));
    let fields = [("token", first.as_str()), ("client_assertion_type", KIND), ("client_assertion", own.as_str())];
    assert_eq!(scene.edge.form("/connect/revocation", &[], &fields).status, 200);
    assert_eq!([&first, &second, &other].map(|token| scene.status(token, "/x")), [401, 401, 200]);
    assert_eq!(error(&scene.present(&assertion)), "invalid_grant");
    // Over a roll of all keys, and over kill -9.
    let next = scene.edge.place.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned();
    scene.edge.place.done(&["keys", "promote", &next, "--force"], "");
    scene.edge.gate.kill();
    scene.edge.gate = scene.edge.place.start();
    assert_eq!(error(&scene.present(&assertion)), "invalid_grant");
    let _ = access(&scene.present(&scene.signed(&json!({}))));
}

#[tokio::test(flavor = "multi_thread")]
async fn d20_a_logout_at_the_issuer_a_revocation_and_an_operator_end_it_at_the_next_request() {
    let scene = scene();
    let at = now() - 20;
    let session = |sid: &str| scene.signed(&json!({ "sid": sid, "sub": format!("u-{sid}"), "iat": at }));
    let (ended, goes_on) = (session("s-7"), session("s-8"));
    let (token, other) = (access(&scene.present(&ended)), access(&scene.present(&goes_on)));
    let stream = begun(&scene.edge, "/events/parts", &token);
    assert_eq!(scene.status(&token, "/x"), 200);
    scene.log_out("s-7", at + 10);
    assert_eq!([scene.status(&token, "/x"), scene.status(&other, "/x")], [401, 200]);
    is_cut(stream);
    scene.edge.stub.push(b"");
    // An assertion from before the logout, used or not, and an assertion from after the logout.
    assert_eq!(error(&scene.present(&ended)), "invalid_grant");
    assert_eq!(error(&scene.present(&session("s-7"))), "invalid_grant");
    let anew = scene.signed(&json!({ "sid": "s-7", "sub": "u-s-7", "iat": at + 12 }));
    let anew = access(&scene.present(&anew));
    assert_eq!(scene.status(&anew, "/x"), 200);
    // The end of all sessions, by an operator.
    let place = &scene.edge.place;
    place.point_commands_at(&scene.edge.gate);
    place.done(&["session", "revoke", "--all"], "");
    assert_eq!([scene.status(&anew, "/x"), scene.status(&other, "/x")], [401, 401]);
    assert_eq!(error(&scene.present(&goes_on)), "invalid_grant");
}

#[test]
fn d22_a_token_for_a_workload_is_used_once_with_an_id_or_without_and_over_a_restart() {
    let mut scene = scene_with(|config| {
        with(&config, "store", "kind = \"redb\"\npath = \"data/sessions.db\"").replace("kind = \"memory\"\n", "")
    });
    let (named, unnamed) = (scene.workload(&json!({})), scene.workload(&json!({ "jti": null })));
    let token = access(&scene.bare(&named));
    assert_eq!(scene.status(&token, "/x"), 200);
    let received = scene.edge.stub.one();
    assert_eq!(
        (received.all("x-auth-subject"), received.all("x-auth-client")),
        (vec!["client:deploy"], vec!["deploy"])
    );
    assert_eq!(payload(&token)["scope"], "deploy");
    let _ = access(&scene.bare(&unnamed));
    for used in [&named, &unnamed] {
        assert_eq!(error(&scene.bare(used)), "invalid_grant");
    }
    for (grant, result, number) in
        [("jwt-bearer", "granted", 2), ("jwt-bearer", "refused", 2), ("token-exchange", "granted", 0)]
    {
        let grant = format!("urn:ietf:params:oauth:grant-type:{grant}");
        let series = format!("rotogate_grants_total{{grant=\"{grant}\",result=\"{result}\"}}");
        assert_eq!(scene.edge.series(&series), number, "{series}");
    }
    scene.edge.gate.kill();
    scene.edge.gate = scene.edge.place.start();
    for used in [&named, &unnamed] {
        assert_eq!(error(&scene.bare(used)), "invalid_grant", "after kill -9");
    }
    assert_eq!(scene.status(&token, "/x"), 200);
}

#[test]
fn d23_d24_subjects_are_compared_to_the_byte_and_each_rule_alone_refuses_a_workload() {
    let scene = scene();
    for aud in [json!(GATE), json!([GATE]), json!("http://gate.test/connect/token")] {
        let _ = access(&scene.bare(&scene.workload(&json!({ "aud": aud }))));
    }
    let refused = |changes: Value| {
        assert_eq!(error(&scene.bare(&scene.workload(&changes))), "invalid_grant", "{changes}");
    };
    let main = "repo:acme/app:ref:refs/heads/main";
    for sub in
        [format!("{main} "), main.to_uppercase(), "repo:acme/app:ref:refs/heads/mai".to_owned(), format!("{main}2")]
    {
        refused(json!({ "sub": sub }));
    }
    refused(json!({ "sub": null }));
    refused(json!({ "aud": "https://other.test" }));
    refused(json!({ "aud": [GATE, "https://other.test"] }));
    refused(json!({ "aud": "http://gate.test/connect/token/" }));
    refused(json!({ "exp": now() + 700 }));
    refused(json!({ "iat": null }));
    refused(json!({ "exp": now() - 60, "iat": now() - 100 }));
    refused(json!({ "jti": 7 }));
    refused(json!({ "iss": "https://off.test/" }));
    let typ = scene.ci.sign(&head("at+jwt"), &claims(&json!({ "iss": "https://ci.test/", "aud": GATE, "sub": main })));
    assert_eq!(error(&scene.bare(&typ)), "invalid_grant", "an access token");
    // Another client cannot present the assertion.
    assert_eq!(error(&scene.present_as("wiki", &scene.workload(&json!({})), &[])), "invalid_grant");
    let nothing = scene.edge.form("/connect/token", &[], &[("grant_type", GRANT)]);
    assert_eq!(error(&nothing), "invalid_request");
}

#[test]
fn d18_an_operator_asks_why_an_assertion_is_refused_and_the_question_uses_nothing() {
    let scene = scene();
    scene.edge.place.point_commands_at(&scene.edge.gate);
    let explain = |assertion: &str, further: &[&str]| -> Value {
        let ran = scene.edge.place.run(&[&["explain", "--assertion", "--json"], further].concat(), assertion);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
    };
    let passes = |assertion: &str| {
        let said = explain(assertion, &[]);
        assert_eq!((&said["kind"], &said["decision"]), (&json!("assertion"), &json!("passed")), "{said}");
        said
    };
    let refused = |assertion: &str, further: &[&str]| {
        let said = explain(assertion, further);
        assert_eq!((&said["decision"], &said["outcome"]), (&json!("refused"), &json!("grant_assertion")), "{said}");
        assert!(said["advice"].as_str().unwrap().contains("id_jag"), "{said}");
        said["detail"].as_str().unwrap().to_owned()
    };
    let assertion = scene.signed(&json!({}));
    assert_eq!(passes(&assertion)["token"]["session"], Value::Null);
    let token = access(&scene.present(&assertion));
    assert_eq!(passes(&assertion)["token"]["session"], payload(&token)["sid"], "the session that it has by now");
    let workload = scene.workload(&json!({}));
    for _ in 0..2 {
        assert_eq!(passes(&workload)["token"]["client"], "deploy");
    }
    access(&scene.bare(&workload));
    assert_eq!(refused(&workload, &[]), "it was used before");
    // Each flaw has a different text.
    let flaws = [
        json!({ "aud": "https://other.test" }),
        json!({ "client_id": "unlisted" }),
        json!({ "iat": now() - 400 }),
        json!({ "exp": now() - 60 }),
        json!({ "authorization_details": [] }),
        json!({ "tenant": "other" }),
    ];
    let mut words: Vec<String> = flaws.iter().map(|flaw| refused(&scene.signed(flaw), &[])).collect();
    words.push(refused(&assertion, &["--client", "bound"]));
    words.push(refused(&scene.ci.sign(&head(TYP), &jag(&json!({}))), &[]));
    assert!(words.iter().all(|why| !why.is_empty()), "{words:?}");
    words.sort();
    words.dedup();
    assert!(words.len() >= 6, "{words:?}");
    scene.log_out("s-1", now());
    assert!(refused(&assertion, &[]).contains("its session has ended"));
    // One from before the logout that was never presented has no session yet.
    assert!(refused(&scene.signed(&json!({ "iat": now() - 20 })), &[]).contains("its session has ended"));
    assert_eq!(error(&scene.present(&assertion)), "invalid_grant");
}

#[test]
fn d27_the_metadata_name_the_grant_and_the_profile_and_no_issuer() {
    let scene = scene();
    let said = scene.edge.ask("GET /.well-known/oauth-authorization-server", &[]).json();
    assert_eq!(said["authorization_grant_profiles_supported"], json!(["urn:ietf:params:oauth:grant-profile:id-jag"]));
    assert!(said["grant_types_supported"].as_array().unwrap().contains(&json!(GRANT)));
    assert!(!said.to_string().contains("idp.test"), "{said}");
    let without = Edge::new("[[routes]]\npath = \"/{*rest}\"\nupstream = \"app\"\n");
    let said = without.ask("GET /.well-known/oauth-authorization-server", &[]).json();
    assert_eq!(said.get("authorization_grant_profiles_supported"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn d29_a_reload_takes_grants_away_and_sessions_go_on() {
    let scene = scene();
    let assertion = scene.signed(&json!({}));
    let token = access(&scene.present(&assertion));
    let config = std::fs::read_to_string(scene.edge.place.path("gateway.toml")).unwrap();
    let jag = "id_jag = { for_tests = { max_age = \"5m\" }, clients = [\"wiki\", \"bound\"] }\n";
    scene.edge.place.write_config(&config.replace(jag, "everywhere = true\n"));
    scene.edge.gate.signal("HUP");
    until("the gate reloads", async || scene.edge.gate.log().contains("configuration reloaded")).await;
    assert_eq!(error(&scene.present(&assertion)), "invalid_grant");
    assert_eq!(scene.status(&token, "/x"), 200);
}

#[test]
fn d18_the_directory_names_the_user_of_an_identity_assertion() {
    let hook = Documents::start();
    let user = json!({ "active": true, "subject": "u-17", "account": "acme", "scopes": ["read"] });
    hook.document("/hook/lookup", &user);
    let scene = scene_with(|config| {
        let by_directory =
            config.replace("[\"wiki\", \"bound\"] }", "[\"wiki\", \"bound\"], subject = \"directory\" }");
        let by_directory = by_directory.replace("name = \"off\"", "name = \"off\"\nsubject_prefix = \"ex|\"");
        format!("{by_directory}[directory]\nkind = \"http\"\nurl = \"{}\"\n", hook.at("/hook"))
    });
    scene.edge.place.point_commands_at(&scene.edge.gate);
    let explained = |assertion: &str| -> Value {
        let ran = scene.edge.place.run(&["explain", "--assertion", "--json"], assertion);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
    };
    let foreseen = explained(&scene.signed(&json!({})));
    assert_eq!((&foreseen["decision"], &foreseen["token"]["subject"]), (&json!("passed"), &json!("u-17")));
    // Requirement R21: the user's account has an endpoint of its own.
    let present = |account: &str| {
        let path = format!("{account}/connect/token");
        scene.present_at(&path, "wiki", &scene.signed(&json!({})), &[], &[])
    };
    for other in ["", "/globex"] {
        assert_eq!(error(&present(other)), "invalid_grant", "{other}");
    }
    let token = access(&present("/acme"));
    let said = payload(&token);
    assert_eq!((&said["sub"], &said["account"], &said["origin_sub"]), (&json!("u-17"), &json!("acme"), &json!("u-1")));
    let (asked, _) = hook.form("/hook/lookup");
    let asked: Value = serde_json::from_str(asked.keys().next().unwrap()).unwrap();
    assert_eq!(asked, json!({ "v": 1, "subject": "u-1", "issuer": URL }));
    // An unknown user, and a user whose sessions were ended since the assertion.
    hook.document("/hook/lookup", &json!({ "active": false }));
    let foreseen = explained(&scene.signed(&json!({})));
    assert_eq!((&foreseen["decision"], &foreseen["outcome"]), (&json!("refused"), &json!("grant_assertion")));
    assert_eq!(error(&present("/acme")), "invalid_grant");
    hook.document("/hook/lookup", &merged(user.clone(), &json!({ "valid_from": "2099-01-01T00:00:00Z" })));
    assert_eq!(error(&present("/acme")), "invalid_grant");
    // Requirement I67: a user of the directory has no subject of another issuer.
    hook.document("/hook/lookup", &merged(user, &json!({ "subject": "ex|u-17" })));
    assert_eq!(error(&present("/acme")), "invalid_grant");
}

#[test]
fn s31_a_notice_names_sub_also_where_the_subject_is_another_claim() {
    let scene = scene_with(|config| {
        let mapped = "subject_prefix = \"okta|\"\nclaims = { subject = \"oid\" }\neverywhere = true";
        config.replace("subject_prefix = \"okta|\"", mapped)
    });
    let at = now() - 20;
    let of_session = |user: &str| {
        let said = json!({ "sub": user, "oid": format!("o-{user}"), "sid": null, "iat": at });
        access(&scene.present(&scene.signed(&said)))
    };
    let own = |user: &str| {
        let said = json!({ "sub": user, "oid": format!("o-{user}"), "tenant": "acme", "iat": at, "exp": at + 300 });
        scene.idp.token(&said)
    };
    let all = [of_session("a"), of_session("b"), own("a"), own("b"), own("c")];
    let status = || all.each_ref().map(|token| scene.status(token, "/x"));
    assert_eq!(status(), [200; 5]);
    let told: Vec<_> = scene.edge.stub.take().iter().map(|one| one.all("x-auth-subject").join("")).collect();
    assert_eq!(told, ["okta|o-a", "okta|o-b", "okta|o-a", "okta|o-b", "okta|o-c"]);
    scene.log_out_of(&json!({ "sub": "a" }), at + 10);
    assert_eq!(status(), [401, 200, 401, 200, 200]);
    // A name that the subject has, as from an operator.
    scene.log_out_of(&json!({ "sub": "o-c" }), at + 10);
    assert_eq!(status(), [401, 200, 401, 200, 401]);
}

#[test]
fn i67_a_user_of_an_assertion_is_the_issuers_for_upstreams_roles_and_routes() {
    let scene = scene_with(|config| {
        let config =
            config.replace("subject_prefix = \"okta|\"", "subject_prefix = \"okta|\"\nclaims = { roles = \"roles\" }");
        let routes =
            [("own", "\"self\"", "self"), ("theirs", "\"okta\"", "okta"), ("both", "\"self\", \"okta\"", "okta")];
        let routes = routes.map(|(path, issuers, role)| {
            format!(
                "[[routes]]\npath = \"/{path}/{{*rest}}\"\nissuers = [{issuers}]\nroles = [\"{role}:admin\"]\nupstream = \"app\"\n\
                 [[routes]]\npath = \"/any-{path}/{{*rest}}\"\nissuers = [{issuers}]\nupstream = \"app\"\n"
            )
        });
        format!("{config}{}", routes.concat())
    });
    let token = access(&scene.present(&scene.signed(&json!({ "roles": ["admin"], "sub": "root" }))));
    let met =
        ["/x", "/any-own/x", "/own/x", "/any-theirs/x", "/theirs/x", "/both/x"].map(|at| scene.status(&token, at));
    assert_eq!(met, [200, 401, 401, 200, 200, 200]);
    let received = scene.edge.stub.take();
    assert_eq!(received.len(), 4);
    for one in &received {
        assert_eq!((one.all("x-auth-subject"), one.all("x-auth-issuer")), (vec!["okta|root"], vec![URL]));
    }
    // Users of the gate are its own, as before.
    let own = scene.edge.login().access;
    let met = ["/x", "/any-own/x", "/any-theirs/x", "/theirs/x"].map(|at| scene.status(&own, at));
    assert_eq!(met, [200, 200, 401, 401]);
    assert_eq!(scene.edge.stub.take()[0].all("x-auth-issuer"), [GATE]);
}

pub(super) fn merged(mut into: Value, from: &Value) -> Value {
    into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    into
}
