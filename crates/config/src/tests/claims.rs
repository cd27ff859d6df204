//! Claims of other issuers: the claims that are read, the required values, and their mapping.

use super::*;
use rotogate_core::claim::ClaimPath;
use rotogate_core::session::Scope;
use rotogate_core::token::verify::{ClaimMapping, RequiredClaim, WantedClaim};
use serde_json::{Value, json};

const ISSUER: &str =
    "[[issuers]]\nurl = \"https://idp.test/\"\naudience = \"x\"\njwks_file = \"idp.json\"\neverywhere = true\n";

fn mapping(more: &str) -> ClaimMapping {
    read(&format!("{MINIMAL}{ISSUER}{more}")).unwrap().issuers.remove(0).claims
}

fn paths(paths: &[&str]) -> Vec<ClaimPath> {
    ClaimPath::list(paths.iter().copied()).unwrap()
}

fn wants(path: &str, values: &[Value]) -> RequiredClaim {
    RequiredClaim { path: ClaimPath::parse(path).unwrap(), wanted: WantedClaim::OneOf(values.to_vec()) }
}

#[test]
fn i14_i17_the_keys_of_a_mapping_are_read_and_printed() {
    assert_eq!(mapping(""), ClaimMapping { encodes_subject: true, ..ClaimMapping::default() });
    let text = r#"
claims = { scope = ["scope", "scp"], client = "azp", roles = ['"https://example.com/roles"', "realm.roles", 'a."b c"{}'], account = "tid", subject = ["oid", "sub"] }
scope_map = { access_as_user = "read", "api:write" = ["write", "read"] }
require = { token_use = "access", "org.id" = [1, true], '"kubernetes.io".namespace' = ["a", "b"] }
"#;
    let scope = |text: &str| Scope::parse(text).unwrap();
    let read_mapping = mapping(text);
    let expected = ClaimMapping {
        scope: paths(&["scope", "scp"]),
        client: paths(&["azp"]),
        roles: paths(&["\"https://example.com/roles\"", "realm.roles", "a.\"b c\"{}"]),
        account: paths(&["tid"]),
        subject: paths(&["oid", "sub"]),
        encodes_subject: true,
        audience: None,
        scope_map: vec![("access_as_user".into(), scope("read")), ("api:write".into(), scope("write read"))],
        // A table has its own order.
        require: vec![
            wants("\"kubernetes.io\".namespace", &[json!("a"), json!("b")]),
            wants("org.id", &[json!(1), json!(true)]),
            wants("token_use", &[json!("access")]),
        ],
    };
    assert_eq!(read_mapping, expected);
    let printed = read(&format!("{MINIMAL}{ISSUER}{text}")).unwrap().to_toml();
    assert_eq!(read(&printed).unwrap().issuers[0].claims, expected, "{printed}");
}

#[test]
fn i45_a_mapping_that_cannot_be_meant_is_refused_with_its_key() {
    for (text, expected) in [
        ("claims = { roles = \"groups[0]\" }", "claims.roles: the claim path \"groups[0]\": use dots to separate"),
        ("claims = { roles = [\"a\", \"b.*\"] }", "claims.roles[1]: the claim path \"b.*\""),
        ("claims = { client = \"azp{}\" }", "claims.client: `{}` selects several names"),
        ("claims = { subject = [] }", "claims.subject: is empty"),
        ("claims = { subject = 7 }", "claims.subject: expected a string"),
        ("claims = { role = \"groups\" }", "claims.role: unknown key; did you mean roles?"),
        ("claims = { roles = \"user_metadata.roles\" }", "claims.roles: users can set `user_metadata` themselves"),
        ("claims = \"roles\"", "claims: expected"),
        ("scope_map = { \"a b\" = \"read\" }", "scope_map.a b: is not a scope"),
        ("scope_map = { a = 7 }", "scope_map.a: expected a string"),
        ("scope_map = { a = \"caf\u{e9}\" }", "scope_map.a: "),
        ("require = { typ = [] }", "require.typ: is empty"),
        ("require = { typ = 1.5 }", "require.typ: expected a string, a whole number, true or false, found 1.5"),
        ("require = { typ = { a = 1 } }", "require.typ: expected a string"),
        ("require = { \"a.*\" = 1 }", "require.a.*: the claim path"),
    ] {
        let found = said(&format!("{ISSUER}{text}\n"));
        let fits = found.len() == 1 && found[0].contains(&format!("issuers[0].{expected}"));
        assert!(fits, "{text}: {found:?}");
    }
}

/// Routes with two issuers: `kc` has a claim of roles, `okta` does not.
fn routes(more: &str) -> String {
    let issuer = |name: &str, more: &str| {
        format!(
            "[[issuers]]\nname = \"{name}\"\nurl = \"https://{name}.test/\"\naudience = \"x\"\njwks_file = \"k.json\"\n{more}"
        )
    };
    let taken = "[[routes]]\npath = \"/taken\"\nupstream = \"app\"\nissuers = [\"kc\", \"okta\"]\n";
    let upstream = "[[upstreams]]\nname = \"app\"\nurls = [\"echo:\"]\n";
    let kc = issuer("kc", "claims = { roles = \"groups\" }\n");
    format!("{kc}{}{upstream}{taken}[[routes]]\npath = \"/x\"\nupstream = \"app\"\n{more}", issuer("okta", ""))
}

#[test]
fn a_text_of_scopes_is_the_list_of_them() {
    let policy = |keys: &str| read(&format!("{MINIMAL}{}", routes(keys))).unwrap().routes.remove(1).policy;
    let text = policy("scopes = \"read write\"\nany_scope = \"a b\"\n");
    assert_eq!(text, policy("scopes = [\"read\", \"write\"]\nany_scope = [\"a\", \"b\"]\n"));
    assert_eq!(text.scopes.as_str(), "read write");
}

#[test]
fn i17_i45_a_role_of_a_route_has_one_issuer_that_the_route_takes_and_that_has_roles() {
    for good in [
        "roles = [\"admin\"]\n",
        "roles = [\"self:admin\"]\n",
        "issuers = [\"kc\"]\nroles = [\"admin\", \"kc:clerk\", \"urn:x:boss\"]\n",
        "issuers = [\"self\", \"kc\"]\nroles = [\"kc:admin\"]\nany_scope = [\"a\", \"b\"]\nscopes = [\"c\"]\n",
        "issuers = [\"self\", \"kc\"]\nroles = [\"kc:admin\", \"self:boss\"]\nall_roles = [\"kc:a\", \"kc:b\"]\n",
    ] {
        let text = format!("{MINIMAL}{}", routes(good));
        let policy = read(&text).unwrap().routes.remove(1).policy;
        let printed = read(&text).unwrap().to_toml();
        assert_eq!(read(&printed).unwrap().routes.remove(1).policy, policy, "{printed}");
    }
    for (bad, expected) in [
        ("issuers = [\"self\", \"kc\"]\nroles = [\"admin\"]\n", "roles[0]: \"admin\" needs the name of its issuer"),
        (
            "issuers = [\"kc\", \"okta\"]\nroles = [\"kc:admin\"]\n",
            "roles: the route accepts the tokens of \"okta\", but that entry",
        ),
        ("issuers = [\"okta\"]\nroles = [\"admin\"]\n", "roles: the route accepts the tokens of \"okta\""),
        (
            "roles = [\"kc:admin\"]\n",
            "roles[0]: \"kc:admin\" belongs to an issuer whose tokens the route does not accept",
        ),
        ("roles = []\n", "roles: is empty"),
        ("all_roles = []\n", "all_roles: is empty"),
        (
            "issuers = [\"self\", \"kc\"]\nall_roles = [\"self:a\", \"b\"]\n",
            "all_roles[1]: \"b\" needs the name of its issuer",
        ),
        (
            "issuers = [\"self\", \"kc\"]\nall_roles = [\"self:a\", \"kc:a\"]\n",
            "all_roles: \"self:a\" and a role of another issuer",
        ),
        ("auth = \"none\"\nall_roles = [\"admin\"]\n", "all_roles: has no effect, because `auth"),
        ("any_scope = []\n", "any_scope: is empty"),
        ("any_scope = 7\n", "any_scope: expected a list"),
        ("any_scope = \"\"\n", "any_scope: expected a string"),
        ("scopes = \"a\\\"b\"\n", "scopes: "),
        ("auth = \"none\"\nroles = [\"admin\"]\n", "roles: has no effect, because `auth"),
        ("auth = \"none\"\nupgrade = true\n", "upgrade: cannot be combined with `auth = \"none\"`"),
        ("auth = \"none\"\nany_scope = [\"a\"]\n", "any_scope: has no effect, because `auth"),
    ] {
        let found = said(&routes(bad));
        let fits = found.len() == 1 && found[0].contains(&format!("routes[1].{expected}"));
        assert!(fits, "{bad}: {found:?}");
    }
}

#[test]
fn i17_the_header_of_roles_is_sent_where_another_issuer_has_roles() {
    let header = |more: &str, issuer: &str| {
        let identity = format!("[identity]\nheaders = {{ {more} }}\n");
        read(&format!("{MINIMAL}{identity}{issuer}")).unwrap().identity.headers.roles.0
    };
    let name = |name: &'static str| Some(http::HeaderName::from_static(name));
    let with_roles = format!("{ISSUER}claims = {{ roles = \"groups\" }}\n");
    assert_eq!(header("", ISSUER), None);
    assert_eq!(header("", &with_roles), name("x-auth-roles"));
    assert_eq!(header("roles = \"\"", &with_roles), None);
    assert_eq!(header("roles = \"x-roles\"", ""), name("x-roles"));
    let twice = said("[identity]\nheaders = { roles = \"x-auth-scope\" }\n");
    assert!(twice.len() == 1 && twice[0].contains("already carries another value"), "{twice:?}");
}

#[test]
fn i19_i45_a_preset_gives_what_is_not_written_and_says_what_must_be() {
    use rotogate_core::token::verify::Preset;
    let kc = read(&format!("{MINIMAL}{ISSUER}preset = \"keycloak\"\n")).unwrap().issuers.remove(0);
    let expected = ClaimMapping { encodes_subject: true, ..Preset::Keycloak.claims() };
    assert_eq!((kc.preset, &kc.claims), (Some(Preset::Keycloak), &expected));
    assert_eq!(kc.typ, ["JWT", "at+jwt"]);
    let own = "preset = \"keycloak\"\nclaims = { roles = \"groups\" }\ntyp = \"JWT\"\nmax_lifetime = \"5m\"\nrequire = { azp = \"web\" }\n";
    let own = read(&format!("{MINIMAL}{ISSUER}{own}")).unwrap().issuers.remove(0);
    assert_eq!((own.typ, own.max_lifetime), (vec!["JWT".to_owned()], Duration::from_secs(300)));
    assert_eq!((own.claims.roles, &own.claims.client), (paths(&["groups"]), &kc.claims.client));
    assert_eq!(own.claims.require, [wants("typ", &[json!("Bearer"), json!("DPoP")]), wants("azp", &[json!("web")])]);
    for preset in Preset::ALL {
        let required = match preset {
            Preset::GithubActions => "require = { repository_owner_id = \"65\" }\n",
            Preset::Google => "require = { hd = \"acme.test\" }\n",
            _ => "",
        };
        let text = format!("{MINIMAL}{ISSUER}preset = \"{}\"\n{required}", preset.word());
        let config = read(&text).unwrap();
        let printed = config.to_toml();
        assert_eq!(read(&printed).unwrap().issuers, config.issuers, "{printed}");
    }
    let found = said(&format!("{ISSUER}preset = \"github-actions\"\n"));
    assert!(found.len() == 1 && found[0].contains("issuers[0].require: needs repository_owner_id"), "{found:?}");
    let found = said(&format!("{ISSUER}preset = \"github-actions\"\nrequire = {{ repository_owner_id = 65 }}\n"));
    assert!(found.len() == 1 && found[0].contains("repository_owner_id: is a string in the tokens"), "{found:?}");
    let found = said(&format!("{ISSUER}preset = \"keyclock\"\n"));
    assert!(found.len() == 1 && found[0].contains("did you mean \"keycloak\"?"), "{found:?}");
    // Entra publishes keys without `alg`.
    let keys = |more: &str| read(&format!("{MINIMAL}{ISSUER}{more}")).unwrap().issuers.remove(0).keys;
    let of = |algorithm| KeySource::File(PathBuf::from("/etc/rotogate/idp.json"), algorithm);
    assert_eq!(keys("preset = \"entra-v2\"\n"), of(Some(rotogate_core::token::Algorithm::Rs256)));
    assert_eq!(
        keys("preset = \"entra-v2\"\nalgorithm = \"ES256\"\n"),
        of(Some(rotogate_core::token::Algorithm::Es256))
    );
    assert_eq!(keys("preset = \"keycloak\"\n"), of(None));
}

#[test]
fn i53_google_serves_everybody_so_a_domain_a_client_or_an_address_must_be_named() {
    let with = |require: &str| said(&format!("{ISSUER}preset = \"google\"\n{require}"));
    for require in ["", "require = { email_verified = true }\n", "require = { azp = [] }\n"] {
        let found = with(require);
        assert!(found.len() == 1 && found[0].contains("issuers[0].require"), "{require}: {found:?}");
    }
    assert!(with("")[0].contains("needs hd or azp or email"), "{:?}", with(""));
    for one in
        ["hd = \"acme.test\"", "azp = [\"1234\", \"5678\"]", "email = \"ada@acme.test\"", "azp = \"1\", hd = \"x\""]
    {
        assert_eq!(with(&format!("require = {{ {one} }}\n")), Vec::<String>::new(), "{one}");
    }
}

#[test]
fn i60_an_issuer_that_serves_everybody_is_known_by_its_url() {
    let warned = |url: &str, keys: &str| {
        let text = format!("{MINIMAL}{}{keys}", ISSUER.replace("https://idp.test/", url));
        let warnings = read(&text).unwrap().warnings;
        warnings.into_iter().filter(|warning| warning.message.contains("anybody can have an account")).count()
    };
    let require = |claim: &str| format!("require = {{ {claim} = \"x\" }}\n");
    for (url, preset, claims) in [
        ("https://accounts.google.com", "google", &["hd", "azp", "email"][..]),
        ("https://token.actions.githubusercontent.com", "github-actions", &["repository_owner_id"]),
    ] {
        for other in ["", "preset = \"oidc\"\n"] {
            assert_eq!(warned(url, other), 1, "{url} {other}");
            assert_eq!(warned(&format!("{url}/"), &format!("{other}{}", require("sub"))), 1, "{url} {other}");
            for claim in claims {
                assert_eq!(warned(url, &format!("{other}{}", require(claim))), 0, "{url} {claim}");
            }
        }
        assert_eq!(warned(url, &format!("preset = \"{preset}\"\n{}", require(claims[0]))), 0);
    }
    assert_eq!(warned("https://accounts.google.com.test", ""), 0);
}

#[test]
fn i45_an_issuer_over_plain_http_is_on_this_machine() {
    let url = |url: &str| said(&ISSUER.replace("https://idp.test/", url));
    for good in [
        "http://localhost:8080/realms/x",
        "http://127.0.0.1/",
        "http://127.8.0.1/",
        "http://[::1]:9/",
        "https://idp.test",
    ] {
        assert_eq!(url(good), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "http://idp.test/",
        "http://10.0.0.7/",
        "http://localhost.idp.test/",
        "http://127.0.0.1.idp.test/",
        "HTTP://idp.test/",
    ] {
        let found = url(bad);
        assert!(found.len() == 1 && found[0].contains("issuers[0].url: uses http"), "{bad}: {found:?}");
    }
}
