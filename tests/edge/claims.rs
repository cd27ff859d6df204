//! Claims of other issuers against the real binary: scopes and roles on routes, in headers, in introspection; what is
//! refused, and what is logged of it.

use serde_json::{Value, json};

use super::isolation::{introspect, secret};
use super::issuer::{Issuer, claims};
use support::Place;
use support::stub::{Edge, HEAD};

const CONFIG_OF_CLAIMS: &str = r#"
[[issuers]]
name = "kc"
url = "https://idp.test/"
preset = "keycloak"
audience = ["api"]
jwks_file = "kc.json"
scopes = ["read", "list"]
scope_map = { "access_as_user" = "read", "write" = ["list"] }
claims = { roles = ["realm_access.roles", "groups"], account = "org.id" }
require = { azp = ["their-client", "other-client"] }
subject_prefix = "kc|"
[[issuers]]
name = "ci"
url = "https://ci.test/"
preset = "github-actions"
audience = ["api"]
jwks_file = "ci.json"
require = { repository_owner_id = "65" }
scopes = "any"
[[clients]]
id = "svc"
secret_hash = "@hash@"
grants = ["client_credentials"]
scopes = ["read"]
[[routes]]
path = "/roles/{*rest}"
issuers = ["self", "kc"]
roles = ["kc:admin", "kc:a,b", "self:boss"]
upstream = "app"
[[routes]]
path = "/bare/{*rest}"
issuers = ["kc"]
roles = ["admin", "clerk"]
upstream = "app"
[[routes]]
path = "/any/{*rest}"
issuers = ["self", "kc"]
scopes = ["read"]
any_scope = ["list", "drop"]
upstream = "app"
[[routes]]
path = "/order/{*rest}"
issuers = ["kc"]
audiences = ["orders"]
scopes = ["read"]
roles = ["admin"]
upstream = "app"
[[routes]]
path = "/ci/{*rest}"
issuers = ["ci"]
upstream = "app"
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/{*rest}"
issuers = ["self", "kc"]
upstream = "app"
"#;

struct World {
    edge: Edge,
    kc: Issuer,
    ci: Issuer,
    secret: String,
}

fn world() -> World {
    let (kc, ci) = (Issuer::new(1), Issuer::new(2));
    let (secret, hash) = secret();
    let sets = [("kc.json", &kc), ("ci.json", &ci)]
        .map(|(file, issuer)| (file, json!({ "keys": [issuer.jwk("k1")] }).to_string()));
    let config = format!("{HEAD}{CONFIG_OF_CLAIMS}").replace("@hash@", &hash);
    let files = |place: &Place| sets.iter().for_each(|(file, set)| std::fs::write(place.path(file), set).unwrap());
    World { edge: Edge::with(&config, files, |_| {}), kc, ci, secret }
}

impl World {
    /// A token of Keycloak's shape, with some claims changed.
    fn token(&self, changes: &Value) -> String {
        let mut all =
            json!({ "typ": "Bearer", "azp": "their-client", "client_id": null, "scope": "access_as_user profile" });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.kc.token(&all)
    }

    fn status(&self, token: &str, path: &str) -> u16 {
        let reply = self.edge.ask_as(token, &format!("GET {path}"), &[]);
        assert_eq!(self.edge.stub.take().len(), usize::from(reply.status == 200), "{path}");
        reply.status
    }

    fn challenge(&self, token: &str, path: &str) -> String {
        self.edge.ask_as(token, &format!("GET {path}"), &[]).header("www-authenticate").to_owned()
    }
}

#[test]
fn i17_a_role_opens_a_route_by_the_claim_of_its_own_issuer_only() {
    let world = world();
    let own = world.edge.login().access;
    let table = [
        (json!({ "realm_access": { "roles": ["admin"] } }), [200, 200]),
        (json!({ "groups": ["admin"] }), [200, 200]),
        (json!({ "groups": "admin" }), [200, 200]),
        (json!({ "realm_access": { "roles": ["clerk"] } }), [403, 200]),
        (json!({ "groups": ["a,b"] }), [200, 403]),
        (json!({ "groups": ["boss", "kc:admin", "Admin", "adm", "admin "] }), [403, 403]),
        // The same text in another claim is not a role.
        (
            json!({ "roles": ["admin"], "scope": "admin", "resource_access": { "x": { "roles": ["admin"] } } }),
            [403, 403],
        ),
        (json!({}), [403, 403]),
    ];
    for (changes, expected) in table {
        let token = world.token(&changes);
        // Twice: the second time from the cache.
        for _ in 0..2 {
            assert_eq!([world.status(&token, "/roles/x"), world.status(&token, "/bare/x")], expected, "{changes}");
        }
    }
    assert_eq!([world.status(&own, "/roles/x"), world.status(&own, "/bare/x")], [403, 401]);
    // No scope would help, so the challenge names no scope.
    assert_eq!(world.challenge(&own, "/roles/x"), r#"Bearer error="access_denied""#);
    assert!(world.edge.gate.log().contains("missing_role"));
}

#[test]
fn i18_groups_that_the_provider_left_out_are_another_refusal_than_a_missing_role() {
    let world = world();
    let left_out = json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": {} } });
    let token = world.token(&left_out);
    assert_eq!([world.status(&token, "/bare/x"), world.status(&token, "/x")], [403, 200]);
    assert!(world.edge.gate.log().contains("roles_overage"));
    let mut with_admin = left_out;
    with_admin["realm_access"] = json!({ "roles": ["admin"] });
    let with_admin = world.token(&with_admin);
    assert_eq!(world.edge.ask_as(&with_admin, "GET /bare/x", &[]).status, 200, "a role that is there is there");
    assert_eq!(world.edge.stub.one().all("x-auth-roles"), Vec::<&str>::new(), "the list would not be whole");
}

#[test]
fn i17_the_order_of_denials_is_issuer_audience_scope_role() {
    let world = world();
    let own = world.edge.login().access;
    assert!(world.challenge(&own, "/order/x").contains("invalid_token"), "the issuer");
    let mut asked = json!({ "aud": "api" });
    assert!(world.challenge(&world.token(&asked), "/order/x").contains("invalid_token"), "the audience");
    asked = json!({ "aud": "orders", "scope": "profile" });
    assert_eq!(world.challenge(&world.token(&asked), "/order/x"), r#"Bearer error="insufficient_scope", scope="read""#);
    asked["scope"] = json!("access_as_user");
    assert_eq!(world.challenge(&world.token(&asked), "/order/x"), r#"Bearer error="access_denied""#);
    asked["groups"] = json!("admin");
    assert_eq!(world.status(&world.token(&asked), "/order/x"), 200);
    let log = world.edge.gate.log();
    for reason in ["wrong_issuer", "wrong_audience", "insufficient_scope", "missing_role"] {
        assert!(log.contains(reason), "{reason}");
    }
}

#[test]
fn i14_the_effective_scope_is_the_same_on_routes_in_headers_and_in_introspection() {
    let world = world();
    for (theirs, ours, any) in [
        ("access_as_user profile", "read", 403),
        ("access_as_user write", "read list", 200),
        ("read list", "read list", 200),
        ("write profile", "list", 403),
        ("drop admin openid", "", 403),
    ] {
        let token = world.token(&json!({ "scope": theirs }));
        assert_eq!(world.status(&token, "/any/x"), any, "{theirs}");
        assert_eq!(world.edge.ask_as(&token, "GET /x", &[]).status, 200);
        let received = world.edge.stub.one();
        assert_eq!(received.all("x-auth-scope"), [ours], "{theirs}");
        let said = introspect(&world.edge, "/connect/introspect", &world.secret, &token);
        assert_eq!((&said["active"], &said["scope"]), (&json!(true), &json!(ours)), "{theirs}");
        assert_eq!((&said["client_id"], &said["account"]), (&json!("their-client"), &json!(null)));
    }
    let refused = world.challenge(&world.token(&json!({})), "/any/x");
    assert_eq!(refused, r#"Bearer error="insufficient_scope", scope="read list drop""#);
    // Unset lists nothing; `any` must be written.
    let workflow = |owner: &str| {
        let changes =
            json!({ "iss": "https://ci.test/", "repository_owner_id": owner, "sub": "repo:a/b:environment:My Env" });
        world.ci.sign(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": "k1" }), &claims(&changes))
    };
    assert_eq!([world.status(&workflow("66"), "/ci/x"), world.status(&workflow("65"), "/ci/x")], [401, 200]);
    assert_eq!(world.edge.ask_as(&workflow("65"), "GET /ci/x", &[]).status, 200);
    let received = world.edge.stub.one();
    assert_eq!(received.all("x-auth-subject"), ["repo:a/b:environment:My Env"]);
    assert_eq!(received.all("x-auth-client"), Vec::<&str>::new());
}

#[test]
fn i15_t3_roles_and_issuer_reach_the_upstream_from_the_gate_alone() {
    let world = world();
    let lies = [
        "X-Auth-Roles: forged",
        "x_auth_roles: forged",
        "X-Auth.Roles: forged",
        "x-auth-roles-bin: forged",
        "X-Auth-Issuer: forged",
        "X-Auth-Account: forged",
    ];
    let token = world.token(&json!({ "groups": ["b", "a,c", "größe", "50%"], "org": { "id": "acme" } }));
    assert_eq!(world.edge.ask_as(&token, "GET /x", &lies).status, 200);
    let received = world.edge.stub.one();
    assert_eq!(received.confusable("x-auth-roles"), ["50%25,a%2Cc,b,gr%C3%B6%C3%9Fe"]);
    assert_eq!(received.confusable("x-auth-issuer"), ["https://idp.test/"]);
    assert_eq!(received.confusable("x-auth-account"), ["kc:acme"]);
    assert_eq!(received.all("x-auth-subject"), ["kc|user-1"]);
    let own = world.edge.login().access;
    for (token, path) in [(Some(&own), "/x"), (None, "/public/x")] {
        let line = format!("GET {path}");
        let reply = token.map_or_else(|| world.edge.ask(&line, &lies), |token| world.edge.ask_as(token, &line, &lies));
        assert_eq!(reply.status, 200, "{path}");
        let received = world.edge.stub.one();
        assert_eq!(received.confusable("x-auth-roles"), Vec::<&str>::new(), "{path}");
        assert!(!received.headers.iter().any(|(_, value)| value.contains("forged")), "{path}");
    }
}

#[test]
fn i18_a_mapped_claim_of_another_type_is_401_and_named_in_the_log_alone() {
    let world = world();
    for changes in [
        json!({ "realm_access": { "roles": "admin", "x": 1 }, "groups": 7 }),
        json!({ "groups": { "admin": true } }),
        json!({ "org": { "id": 7 } }),
        json!({ "azp": ["their-client"] }),
        json!({ "azp": "third-client" }),
        json!({ "typ": "ID" }),
        json!({ "typ": null }),
        json!({ "scope": 7 }),
    ] {
        let reply = world.edge.ask_as(&world.token(&changes), "GET /x", &[]);
        assert_eq!(reply.status, 401, "{changes}");
        assert!(!reply.text().contains("groups") && !reply.text().contains("claim"), "{changes}: {reply:?}");
        assert!(world.edge.stub.take().is_empty(), "{changes}");
    }
    let log = world.edge.gate.log();
    assert!(log.contains("bad_claim"), "{log}");
    for claim in ["groups", "org.id", "azp", "scope"] {
        let said = log.lines().find(|line| line.contains("WARN") && line.contains(&format!("claim={claim}")));
        assert!(
            said.is_some_and(|said| said.contains("issuer=\"kc\"") || said.contains("issuer=kc")),
            "{claim}: {log}"
        );
    }
    // Once for each kind: `typ` is a required claim as `azp` is.
    assert_eq!(
        log.lines().filter(|line| line.contains("WARN") && line.contains("because of this claim")).count(),
        4,
        "{log}"
    );
    // No claim of a token is a label.
    assert!(!world.edge.metrics().contains("groups"));
}
