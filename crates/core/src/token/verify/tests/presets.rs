//! I19: for each provider, a token and a key set of the shape that its documentation shows, made and signed here. The token
//! for requests passes, and the provider's other tokens do not.

use std::sync::LazyLock;

use super::*;
use crate::claim::ClaimPath;

/// The key that signs for all providers but Supabase: to make one takes long.
static RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Rs256).unwrap());
static EC: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).unwrap());

/// A provider as a gate knows it.
struct Provider {
    key: &'static SigningKey,
    url: &'static str,
    audience: &'static str,
    header: Value,
    verifier: Verifier,
}

/// A provider with this preset, and with a key set to which `publish` gives the shape that the provider's has.
fn provider(
    preset: Preset,
    url: &'static str,
    audience: &'static str,
    publish: impl FnOnce(&mut Vec<Value>),
    more: impl FnOnce(IssuerRules) -> IssuerRules,
) -> Provider {
    let key: &'static SigningKey = if preset == Preset::Supabase { &EC } else { &RSA };
    let published = jwks(std::slice::from_ref(key))["keys"].clone();
    let Value::Array(mut keys) = published else { panic!("{published}") };
    publish(&mut keys);
    let set = json!({ "keys": keys }).to_string();
    let keys = IssuerKeys::from_jwks(set.as_bytes(), preset.algorithm()).unwrap();
    let rules = IssuerRules::external(url, vec![audience.into()], keys).preset(preset).scopes(None);
    let verifier = Verifier::new(vec![more(rules)]).unwrap();
    let header = json!({ "alg": key.algorithm().name(), "typ": "JWT", "kid": key.kid() });
    Provider { key, url, audience, header, verifier }
}

impl Provider {
    /// The token if it passes: verified, and for the audience.
    fn token(&self, header: Value, claims: Value) -> Option<AccessToken> {
        let claims = with(json!({ "iss": self.url, "iat": 1_800_000_000, "exp": 1_800_000_300 }), claims);
        let token = forge(self.key, with(self.header.clone(), header).to_string(), claims.to_string());
        self.verifier.verify(&token, NOW, NOW).ok().filter(|token| token.is_for(&[self.audience]))
    }

    fn passes(&self, claims: Value) -> AccessToken {
        self.token(json!({}), claims).expect("it passes")
    }

    fn refuses(&self, what: &str, claims: Value) {
        assert!(self.token(json!({}), claims).is_none(), "{what}");
    }
}

fn roles(token: &AccessToken) -> Vec<&str> {
    token.roles().names().iter().map(|name| &**name).collect()
}

fn scope(token: &AccessToken) -> &str {
    token.scope.as_str()
}

/// A key set as it is.
fn plain(_: &mut Vec<Value>) {}

#[test]
fn i19_each_preset_has_data_that_can_be_used_and_a_name_of_its_own() {
    for (at, preset) in Preset::ALL.into_iter().enumerate() {
        assert!(Preset::ALL[..at].iter().all(|other| other.word() != preset.word()), "{}", preset.word());
        assert_eq!(preset.word() == "oidc", preset == Preset::Oidc, "it is in the table");
        let claims = preset.claims();
        let asks = claims.require.iter().any(|one| one.wanted == WantedClaim::OneOf(vec![]));
        assert_eq!(claims.problem().is_some(), asks, "{}", preset.word());
        assert_eq!(asks, [Preset::GithubActions, Preset::Google].contains(&preset), "everybody is its user");
        assert!(preset.typ().next().is_some());
    }
    // A path that cannot be parsed would be left out.
    let count = |preset: Preset| {
        let ClaimMapping { scope, client, roles, require, .. } = preset.claims();
        scope.len() + client.len() + roles.len() + require.len()
    };
    assert_eq!(Preset::ALL.map(count), [5, 9, 9, 6, 7, 4, 4, 1, 1, 7, 10, 7, 3, 1, 7, 8]);
}

#[test]
fn i19_keycloak() {
    let encryption = |keys: &mut Vec<Value>| {
        // Keycloak publishes a key for encryption, too.
        let other = with(keys[0].clone(), json!({ "kid": "enc", "use": "enc", "alg": "RSA-OAEP", "x5c": ["MII"] }));
        keys.insert(0, other);
    };
    let kc = provider(Preset::Keycloak, "https://kc.test/realms/x", "api", encryption, |rules| rules);
    let claims = json!({
        "jti": "onrtac:9c5f7b3a", "aud": ["api", "account"], "sub": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "typ": "Bearer",
        "azp": "web", "sid": "65f0", "acr": "1", "allowed-origins": ["https://app.test"],
        "realm_access": { "roles": ["offline_access", "admin"] },
        "resource_access": { "account": { "roles": ["view-profile"] } }, "scope": "openid profile", "email_verified": true,
    });
    let token = kc.passes(claims.clone());
    assert_eq!((roles(&token), scope(&token)), (vec!["admin", "offline_access"], "openid profile"));
    assert_eq!(token.client.as_deref(), Some("web"));
    let with = |changes| with(claims.clone(), changes);
    kc.refuses("ID token", with(json!({ "typ": "ID", "aud": "web", "at_hash": "x", "nonce": "n" })));
    kc.refuses("ID token for an audience that is a client, too", with(json!({ "typ": "ID" })));
    kc.refuses("refresh token", with(json!({ "typ": "Refresh", "aud": "https://kc.test/realms/x" })));
    kc.refuses("offline token", with(json!({ "typ": "Offline" })));
    kc.refuses("neither", with(json!({ "typ": null })));
}

#[test]
fn i52_tokens_of_keycloak_that_are_bound_by_dpop_pass_and_keep_their_key() {
    let kc = provider(Preset::Keycloak, "https://kc.test/realms/x", "api", plain, |rules| rules);
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let claims = json!({
        "jti": "onrtdp:9c5f7b3a", "aud": "api", "sub": "f81d4fae", "typ": "DPoP", "azp": "web", "scope": "openid",
        "cnf": { "jkt": jkt },
    });
    let token = kc.passes(claims.clone());
    assert_eq!(token.bound_to().map(|key| key.to_string()).as_deref(), Some(jkt));
    kc.refuses("another word", with(claims, json!({ "typ": "dpop" })));
}

/// The key set of Entra: without `alg`, with certificates and an issuer in each key.
fn entra(keys: &mut Vec<Value>) {
    for key in keys {
        *key = with(
            key.clone(),
            json!({ "alg": null, "x5c": ["MII"], "x5t": "x", "issuer": "https://login.microsoftonline.com/T/v2.0" }),
        );
    }
}

#[test]
fn i19_i18_entra_v2() {
    let url = "https://login.microsoftonline.com/T/v2.0";
    let v2 = provider(Preset::EntraV2, url, "6e74172b", entra, |rules| rules);
    let claims = json!({
        "aud": "6e74172b", "aio": "AXQ", "azp": "ce4a", "azpacr": "1", "name": "Ada", "oid": "690222be", "rh": "0.AX",
        "scp": "access_as_user read", "sub": "HKZpfaHyWadeOouYlitjrI", "tid": "T", "uti": "u", "ver": "2.0",
        "roles": ["Admin"], "groups": ["1d6e"], "xms_ftd": "x",
    });
    let token = v2.passes(claims.clone());
    assert_eq!((roles(&token), scope(&token)), (vec!["1d6e", "Admin"], "access_as_user read"));
    assert_eq!(token.client.as_deref(), Some("ce4a"));
    let of = |changes| with(claims.clone(), changes);
    // An application has roles and no scope.
    assert_eq!(scope(&v2.passes(of(json!({ "scp": null, "idtyp": "app" })))), "");
    let many = v2.passes(of(json!({ "groups": null, "_claim_names": { "groups": "src1" }, "_claim_sources": {} })));
    assert!(many.roles().are_left_out() && many.roles().contains("Admin"));
    // The API may be registered together with its client: then both tokens have the same audience.
    let id = json!({ "azp": null, "azpacr": null, "scp": null, "nonce": "n", "preferred_username": "ada@x.test" });
    v2.refuses("ID token", of(id.clone()));
    v2.refuses("ID token without nonce", of(with(id, json!({ "nonce": null }))));
    v2.refuses("ID token of an implicit flow", of(json!({ "at_hash": "x" })));
    v2.refuses("token of version 1.0", of(json!({ "ver": "1.0" })));
    v2.refuses("another API's token", of(json!({ "aud": "00000003-0000-0000-c000-000000000000" })));
}

#[test]
fn i19_entra_v1() {
    let v1 = provider(Preset::EntraV1, "https://sts.windows.net/T/", "api://orders", entra, |rules| rules);
    let claims = json!({
        "aud": "api://orders", "acr": "1", "aio": "AXQ", "amr": ["pwd"], "appid": "ce4a", "appidacr": "0", "ipaddr": "::1",
        "oid": "690222be", "scp": "access_as_user", "sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA", "tid": "T",
        "unique_name": "ada@x.test", "uti": "u", "ver": "1.0",
    });
    let token = v1.token(json!({ "x5t": "x" }), claims.clone()).unwrap();
    assert_eq!((token.client.as_deref(), scope(&token)), (Some("ce4a"), "access_as_user"));
    let id = json!({ "appid": null, "appidacr": null, "scp": null, "nonce": "n" });
    v1.refuses("ID token", with(claims.clone(), id));
    v1.refuses("token of version 2.0", with(claims, json!({ "ver": "2.0" })));
}

#[test]
fn i19_auth0() {
    let auth0 = provider(Preset::Auth0, "https://acme.auth0.com/", "https://api.acme.test", plain, |rules| rules);
    let claims = json!({
        "sub": "auth0|507f1f77bcf86cd799439011", "aud": ["https://api.acme.test", "https://acme.auth0.com/userinfo"],
        "azp": "my_client_id", "scope": "openid profile read:orders", "permissions": ["read:orders"],
        "https://acme.test/roles": ["admin"],
    });
    let token = auth0.passes(claims.clone());
    assert_eq!((token.client.as_deref(), scope(&token)), (Some("my_client_id"), "openid profile read:orders"));
    assert_eq!(roles(&token), Vec::<&str>::new(), "a namespace is each application's own");
    // The profile of RFC 9068, and an application in its own name.
    let rfc = with(claims.clone(), json!({ "azp": null, "client_id": "my_client_id", "jti": "x" }));
    assert_eq!(auth0.token(json!({ "typ": "at+jwt" }), rfc).unwrap().client.as_deref(), Some("my_client_id"));
    auth0.passes(with(
        claims.clone(),
        json!({ "sub": "id@clients", "aud": "https://api.acme.test", "gty": "client-credentials" }),
    ));
    auth0.refuses("ID token", with(claims.clone(), json!({ "aud": "my_client_id", "nonce": "n" })));
    auth0.refuses("ID token of a client with the API's name", with(claims, json!({ "nonce": "n", "scope": null })));
}

#[test]
fn i19_okta() {
    let okta = provider(Preset::Okta, "https://acme.okta.com/oauth2/default", "api://default", plain, |rules| rules);
    let untyped = json!({ "typ": null });
    let claims = json!({
        "ver": 1, "jti": "AT.0mP4", "aud": "api://default", "cid": "nmdP1fcyvdVO11AL7ECm", "uid": "00ugrenMeqvYla4HW0g3",
        "scp": ["openid", "orders.read"], "auth_time": 1_799_999_000, "sub": "ada@acme.test", "groups": ["Everyone", "Admins"],
    });
    let token = okta.token(untyped.clone(), claims.clone()).unwrap();
    assert_eq!((scope(&token), token.client.as_deref()), ("openid orders.read", Some("nmdP1fcyvdVO11AL7ECm")));
    assert_eq!(roles(&token), ["Admins", "Everyone"]);
    let id = json!({
        "jti": "ID.4eA", "cid": null, "uid": null, "scp": null, "amr": ["pwd"], "idp": "00o", "at_hash": "x",
        "aud": "nmdP1fcyvdVO11AL7ECm",
    });
    for (what, changes) in
        [("ID token", id.clone()), ("for this audience", with(id, json!({ "aud": null, "at_hash": null })))]
    {
        let mut id = with(claims.clone(), changes);
        id.as_object_mut().unwrap().entry("aud").or_insert(json!("api://default"));
        assert!(okta.token(untyped.clone(), id).is_none(), "{what}");
    }
    let org = with(claims, json!({ "iss": "https://acme.okta.com", "aud": "https://acme.okta.com" }));
    assert!(
        okta.token(json!({ "typ": "application/okta-internal-at+jwt" }), org).is_none(),
        "a token of the org server"
    );
}

#[test]
fn i19_cognito() {
    let url = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbC";
    let cognito = provider(Preset::Cognito, url, "1example23456789", plain, |rules| rules);
    let untyped = json!({ "typ": null });
    let claims = json!({
        "sub": "aaaaaaaa-bbbb-cccc-dddd-example", "cognito:groups": ["admins"], "client_id": "1example23456789",
        "origin_jti": "x", "event_id": "x", "token_use": "access", "scope": "orders/read openid", "auth_time": 1_800_000_000,
        "jti": "j", "username": "ada",
    });
    let token = cognito.token(untyped.clone(), claims.clone()).unwrap();
    assert_eq!((roles(&token), scope(&token)), (vec!["admins"], "orders/read openid"));
    let refuses = |what: &str, changes| {
        assert!(cognito.token(untyped.clone(), with(claims.clone(), changes)).is_none(), "{what}");
    };
    let id = json!({ "token_use": "id", "client_id": null, "aud": "1example23456789", "at_hash": "x" });
    refuses("ID token", id);
    refuses("ID token with the client", json!({ "token_use": "id" }));
    refuses("another client's token", json!({ "client_id": "other", "aud": "1example23456789" }));
}

#[test]
fn i19_google() {
    let client = "1234987819200.apps.googleusercontent.com";
    let domain = |rules: IssuerRules| rules.require("hd", ["acme.test"]).unwrap();
    let google = provider(Preset::Google, "https://accounts.google.com", client, plain, domain);
    let claims = json!({
        "azp": client, "aud": client, "sub": "10769150350006150715113082367", "at_hash": "HK6E", "hd": "acme.test",
        "email": "ada@acme.test", "email_verified": true, "nonce": "0394852-3190485-2490358", "exp": 1_800_003_600,
    });
    let token = google.passes(claims.clone());
    assert_eq!((token.client.as_deref(), scope(&token), roles(&token)), (Some(client), "", vec![]));
    google.refuses(
        "another client's ID token",
        with(claims.clone(), json!({ "aud": "other.apps.googleusercontent.com" })),
    );
    google.refuses("a token of another lifetime", with(claims.clone(), json!({ "exp": 1_800_010_800 })));
    // Any service account can get a token for any audience.
    let account =
        json!({ "azp": "1129", "hd": null, "at_hash": null, "nonce": null, "email": "x@p.iam.gserviceaccount.com" });
    google.refuses("another customer's service account", with(claims, account));
    assert!(google.verifier.verify("ya29.a0AfH6SMBx", NOW, NOW).is_err(), "access tokens are opaque");
}

#[test]
fn i19_github_actions() {
    let (url, audience) = ("https://token.actions.githubusercontent.com", "https://github.com/acme");
    let owner = |rules: IssuerRules| rules.require("repository_owner_id", ["65"]).unwrap();
    let github = provider(Preset::GithubActions, url, audience, plain, owner);
    let claims = json!({
        "jti": "example-id", "sub": "repo:acme/x:environment:My Env", "environment": "My Env", "aud": audience,
        "ref": "refs/heads/main", "sha": "x", "repository": "acme/x", "repository_owner": "acme", "actor_id": "12",
        "repository_visibility": "private", "repository_id": "74", "repository_owner_id": "65", "run_id": "x",
        "runner_environment": "github-hosted", "actor": "ada", "workflow": "w", "head_ref": "", "event_name": "push",
        "ref_type": "branch", "job_workflow_ref": "acme/x/.github/workflows/w.yml@refs/heads/main", "nbf": 1_799_999_400,
    });
    let token = github.token(json!({ "x5t": "x" }), claims.clone()).unwrap();
    assert_eq!(token.token_subject(), "repo:acme/x:environment:My Env");
    assert_eq!(&*token.subject, "repo:acme/x:environment:My%20Env");
    github.refuses("a workflow of another owner", with(claims.clone(), json!({ "repository_owner_id": "66" })));
    github.refuses("the same as a number", with(claims.clone(), json!({ "repository_owner_id": 65 })));
    github.refuses("a token for AWS", with(claims, json!({ "aud": "sts.amazonaws.com" })));
    // The preset alone would accept every user.
    let keys = IssuerKeys::from_jwks(jwks(std::slice::from_ref(&*RSA)).to_string().as_bytes(), None).unwrap();
    let alone = IssuerRules::external(url, vec![audience.into()], keys).preset(Preset::GithubActions);
    assert!(matches!(Verifier::new(vec![alone]), Err(RulesError::Rule { .. })));
}

#[test]
fn i19_kubernetes() {
    let url = "https://kubernetes.default.svc.cluster.local";
    let namespace = |rules: IssuerRules| rules.require("\"kubernetes.io\".namespace", ["prod"]).unwrap();
    let cluster = provider(Preset::Kubernetes, url, "api", plain, namespace);
    let untyped = json!({ "typ": null });
    let claims = json!({
        "aud": ["api"], "exp": 1_800_003_607, "jti": "x", "nbf": 1_800_000_000, "sub": "system:serviceaccount:prod:web",
        "kubernetes.io": {
            "namespace": "prod", "node": { "name": "n", "uid": "1" }, "pod": { "name": "web-0", "uid": "2" },
            "serviceaccount": { "name": "web", "uid": "3" }, "warnafter": 1_800_003_000,
        },
    });
    let token = cluster.token(untyped.clone(), claims.clone()).unwrap();
    assert_eq!(&*token.subject, "system:serviceaccount:prod:web");
    let refuses = |what: &str, changes| {
        assert!(cluster.token(untyped.clone(), with(claims.clone(), changes)).is_none(), "{what}");
    };
    refuses("a token for the API server", json!({ "aud": [url], "exp": 1_831_536_000 }));
    refuses("a token of a year", json!({ "exp": 1_831_536_000 }));
    refuses(
        "another namespace",
        json!({ "kubernetes.io": { "namespace": "dev", "serviceaccount": { "name": "web" } } }),
    );
    let old =
        json!({ "iss": "kubernetes/serviceaccount", "exp": null, "kubernetes.io/serviceaccount/namespace": "prod" });
    refuses("the token of a secret, which has no end", old);
}

#[test]
fn i19_hydra() {
    let hydra = provider(Preset::Hydra, "https://hydra.test/", "api", plain, |rules| rules);
    let claims = json!({
        "aud": ["api"], "client_id": "web", "ext": { "tenant": "acme" }, "jti": "x", "nbf": 1_800_000_000,
        "scp": ["openid", "orders.read"], "sub": "ada",
    });
    let token = hydra.passes(claims.clone());
    assert_eq!((scope(&token), token.client.as_deref()), ("openid orders.read", Some("web")));
    // With `scope_claim: string`.
    assert_eq!(scope(&hydra.passes(with(claims.clone(), json!({ "scp": null, "scope": "a b" })))), "a b");
    hydra.refuses("a token for nobody", with(claims.clone(), json!({ "aud": [] })));
    let id = json!({ "client_id": null, "scp": null, "ext": null, "at_hash": "x", "rat": 1_800_000_000, "sid": "s", "aud": ["web"] });
    hydra.refuses("ID token", with(claims.clone(), id.clone()));
    hydra.refuses("ID token for this audience", with(with(claims, id), json!({ "aud": ["api"], "at_hash": null })));
    assert!(
        hydra.verifier.verify("ory_at_x.y", NOW, NOW).is_err()
            && hydra.verifier.verify("ory_rt_x.y", NOW, NOW).is_err()
    );
}

#[test]
fn i19_zitadel() {
    let zitadel = provider(Preset::Zitadel, "https://acme.zitadel.cloud", "69234237810729019", plain, |rules| rules);
    let claims = json!({
        "aud": ["69234237810729234@acme", "69234237810729019"], "azp": "69234237810729234@acme",
        "client_id": "69234237810729234@acme", "exp": 1_800_043_200, "jti": "69234237813329048", "nbf": 1_800_000_000,
        "sub": "77776025198584418",
        "urn:zitadel:iam:org:project:roles": { "admin": { "63494265": "acme.test" }, "clerk": { "63494265": "acme.test" } },
    });
    let token = zitadel.passes(claims.clone());
    assert_eq!((roles(&token), token.client.as_deref()), (vec!["admin", "clerk"], Some("69234237810729234@acme")));
    // The ID token has the same audience, and the roles.
    let id =
        json!({ "jti": null, "acr": "x", "amr": ["pwd"], "auth_time": 1_800_000_000, "sid": "V1_x", "at_hash": "x" });
    zitadel.refuses("ID token", with(claims.clone(), id.clone()));
    zitadel.refuses("ID token with an id", with(with(claims, id), json!({ "jti": "x", "at_hash": null })));
}

#[test]
fn i19_authentik() {
    let authentik = provider(Preset::Authentik, "https://auth.test/application/o/x/", "web", plain, |rules| rules);
    let claims = json!({
        "sub": "b1c7", "aud": "web", "auth_time": 1_800_000_000, "acr": "goauthentik.io/providers/oauth2/default",
        "amr": ["pwd"], "sid": "x", "nonce": "n", "email": "ada@x.test", "groups": ["admins"], "azp": "web", "uid": "JkX",
        "scope": "openid profile",
    });
    let token = authentik.passes(claims.clone());
    assert_eq!((roles(&token), token.client.as_deref()), (vec!["admins"], Some("web")));
    // The two tokens differ only in the additional claims of the access token.
    authentik
        .refuses("ID token", with(claims.clone(), json!({ "azp": null, "uid": null, "scope": null, "at_hash": "x" })));
    authentik.refuses("ID token without hash", with(claims.clone(), json!({ "uid": null, "scope": null })));
    // Without a signing key, authentik signs with the client's secret, which the client knows.
    let hs256 = json!({ "alg": "HS256", "kid": null });
    assert!(authentik.token(hs256, claims).is_none());
}

#[test]
fn i19_supabase() {
    let supabase = provider(Preset::Supabase, "https://ref.supabase.co/auth/v1", "authenticated", plain, |rules| rules);
    let claims = json!({
        "aud": "authenticated", "sub": "a1b2c3d4", "role": "authenticated", "aal": "aal1", "session_id": "x", "email": "a@x.test",
        "phone": "", "is_anonymous": false, "app_metadata": { "provider": "email", "roles": ["boss"] },
        "user_metadata": { "roles": ["root"], "role": "root" }, "amr": [{ "method": "password", "timestamp": 1_800_000_000 }],
    });
    let token = supabase.passes(claims.clone());
    assert_eq!(roles(&token), ["authenticated"], "users write user_metadata themselves");
    supabase.refuses("a key of the project", json!({ "iss": "supabase", "ref": "ref", "role": "service_role" }));
    supabase.refuses("a token without session", with(claims.clone(), json!({ "session_id": null })));
    supabase.refuses("a token for another audience", with(claims.clone(), json!({ "aud": "anon" })));
    let legacy = json!({ "alg": "HS256", "kid": null });
    assert!(supabase.token(legacy, claims).is_none(), "the legacy secret");
}

#[test]
fn i19_firebase() {
    let firebase = provider(Preset::Firebase, "https://securetoken.google.com/acme", "acme", plain, |rules| {
        rules.roles(["admin_of"]).unwrap()
    });
    let claims = json!({
        "aud": "acme", "auth_time": 1_800_000_000, "user_id": "u1", "sub": "u1", "exp": 1_800_003_600, "admin_of": ["shop"],
        "email": "a@x.test", "firebase": { "identities": { "email": ["a@x.test"] }, "sign_in_provider": "password" },
    });
    assert_eq!(roles(&firebase.passes(claims.clone())), ["shop"]);
    firebase.refuses("another project's token", with(claims.clone(), json!({ "aud": "other" })));
    firebase
        .refuses("session cookie", with(claims.clone(), json!({ "iss": "https://session.firebase.google.com/acme" })));
    let custom = json!({
        "iss": "firebase-adminsdk@acme.iam.gserviceaccount.com", "firebase": null, "uid": "u1",
        "aud": "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit",
    });
    firebase.refuses("custom token", with(claims, custom));
}

#[test]
fn i19_clerk() {
    let clerk = provider(Preset::Clerk, "https://clerk.acme.test", "https://app.acme.test", plain, |rules| rules);
    let claims = json!({
        "azp": "https://app.acme.test", "exp": 1_800_000_060, "fva": [7, -1], "jti": "1234567890", "nbf": 1_799_999_990,
        "sid": "sess_123", "sub": "user_123", "v": 2, "pla": "u:free,o:pro", "fea": "o:dashboard", "sts": "active",
        "o": { "id": "org_123", "slg": "acme", "rol": "admin", "per": "read,manage", "fpm": "3" },
    });
    // `cat` is the category of a session token.
    let passes = |changes| clerk.token(json!({ "cat": "cl_B7d4PD111AAA" }), with(claims.clone(), changes));
    let token = passes(json!({})).unwrap();
    assert_eq!((roles(&token), scope(&token)), (vec!["admin"], ""));
    assert_eq!(token.client.as_deref(), Some("https://app.acme.test"));
    assert_eq!(roles(&passes(json!({ "o": null })).unwrap()), Vec::<&str>::new(), "no organization is active");
    let refuses = |what, changes| clerk.refuses(what, with(claims.clone(), changes));
    refuses("another application's token", json!({ "azp": "https://evil.test" }));
    refuses("a token without origin, whatever its aud", json!({ "azp": null, "aud": "https://app.acme.test" }));
    refuses("a session that is pending", json!({ "sts": "pending" }));
    refuses("a token of version 1", json!({ "sts": null, "v": null, "o": null, "org_role": "org:admin" }));
    refuses("a token of a template", json!({ "sid": null, "sts": null, "v": null, "exp": 1_800_000_060 }));
    refuses("a token of a long life", json!({ "exp": 1_800_010_000 }));
    refuses("ID token", json!({ "nonce": "n" }));
    assert!(clerk.token(json!({ "typ": "at+jwt" }), claims).is_none(), "an access token of its OAuth server");
}

#[test]
fn i19_oidc() {
    let oidc = provider(Preset::Oidc, "https://op.test", "api", plain, |rules| rules);
    let claims = json!({ "sub": "ada", "aud": "api", "client_id": "web", "scope": "openid read", "jti": "x" });
    let token = oidc.token(json!({ "typ": "at+jwt" }), claims.clone()).unwrap();
    assert_eq!((scope(&token), token.client.as_deref()), ("openid read", Some("web")));
    assert_eq!(scope(&oidc.passes(with(claims.clone(), json!({ "scope": null, "scp": ["read"] })))), "read");
    for id in [json!({ "nonce": "n" }), json!({ "at_hash": "x" }), json!({ "c_hash": "x" })] {
        oidc.refuses("ID token", with(claims.clone(), id));
    }
    oidc.refuses("ID token without either", with(claims.clone(), json!({ "aud": "web" })));
    oidc.refuses("refresh token", with(claims, json!({ "aud": "https://op.test" })));
}

#[test]
fn i19_a_preset_is_where_rules_begin_and_each_key_replaces_its_own_part() {
    let keys = IssuerKeys::from_jwks(jwks(std::slice::from_ref(&*RSA)).to_string().as_bytes(), None).unwrap();
    let rules = IssuerRules::external("https://kc.test", vec!["api".into()], keys).preset(Preset::Keycloak);
    let rules = rules.roles(["groups"]).unwrap().require("azp", ["web"]).unwrap();
    assert_eq!(rules.claims.roles, ClaimPath::list(["groups"]).unwrap());
    assert_eq!(rules.claims.client, Preset::Keycloak.claims().client);
    let asked: Vec<_> = rules.claims.require.iter().map(|one| one.path.to_string()).collect();
    assert_eq!(asked, ["typ", "azp"], "what the preset requires is required besides");
    let rules = rules.require("typ", ["Bearer", "DPoP"]).unwrap();
    assert_eq!(rules.claims.require.len(), 2);
}
