//! Issuers with their scopes and names, and the sessions and clients that an endpoint accepts.

use super::*;

#[test]
fn r17_a_protocol_that_exchanges_access_tokens_accepts_no_session_that_has_refresh_tokens() {
    let kuzzle = "[[endpoints]]\ndialect = \"kuzzle\"\n";
    for other in ["oauth2", "envelope", "application"] {
        let found = said(&format!("{kuzzle}accepts = [\"{other}\"]\n"));
        let expected =
            format!("3: endpoints[0].accepts[0]: sessions of \"{other}\" use refresh tokens, but \"kuzzle\"");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
    }
    assert_eq!(
        said("[[endpoints]]\ndialect = \"oauth2\"\naccepts = [\"kuzzle\", \"envelope\"]\n"),
        Vec::<String>::new()
    );
}

#[test]
fn r20_a_confidential_client_is_no_endpoint_s_own_whether_it_is_written_or_not() {
    let hash = rotogate_core::password::hash(&secrecy::SecretString::from("secret")).unwrap();
    for dialect in ["kuzzle", "envelope"] {
        let client = |secret: &str| format!("[[clients]]\nid = \"{dialect}\"\n{secret}");
        let endpoint = format!("[[endpoints]]\ndialect = \"{dialect}\"\n");
        let confidential = client(&format!("secret_hash = \"{hash}\"\n"));
        let found = said(&format!("{confidential}{endpoint}"));
        let expected =
            format!("endpoints[0].client: missing, so its sessions would belong to the client \"{dialect}\"");
        assert!(found.len() == 1 && found[0].contains(&expected), "{found:?}");
        let found = said(&format!("{confidential}{endpoint}client = \"{dialect}\"\n"));
        assert!(found.len() == 1 && found[0].contains("names a confidential client"), "{found:?}");
        for good in [client(""), String::new(), format!("{confidential}[[clients]]\nid = \"web\"\n")] {
            let named = if good.contains("web") { "client = \"web\"\n" } else { "" };
            assert_eq!(said(&format!("{good}{endpoint}{named}")), Vec::<String>::new());
        }
    }
}

/// A route that accepts the tokens of `issuers`.
fn route(issuers: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"app\"\nurls = [\"echo:\"]\n[[routes]]\npath = \"/x\"\nupstream = \"app\"\n{issuers}"
    )
}

fn issuer(url: &str, more: &str) -> String {
    format!("[[issuers]]\nurl = \"{url}\"\naudience = \"x\"\njwks_file = \"idp.json\"\n{more}")
}

#[test]
fn j19_an_issuer_has_a_name_by_which_routes_take_its_tokens() {
    let idp = issuer("https://idp.test:8443/x", "");
    let by = |named: &str, issuers: &str| said(&format!("{idp}{named}{}", route(issuers)));
    let config = read(&format!("{MINIMAL}{idp}{}", route("issuers = [\"self\", \"idp.test\"]\n"))).unwrap();
    assert_eq!(config.issuers[0].name, "idp.test");
    assert_eq!(config.routes[0].policy.issuers, ["self", "idp.test"]);
    assert_eq!(by("name = \"kc\"\n", "issuers = [\"kc\"]\n"), Vec::<String>::new());
    // An issuer that no route accepts was probably forgotten.
    let found = by("name = \"kc\"\n", "");
    assert!(
        found.len() == 1 && found[0].contains("no route accepts its tokens; write `issuers = [\"self\", \"kc\"]`"),
        "{found:?}"
    );
    assert_eq!(by("everywhere = true\n", ""), Vec::<String>::new());
    let found = by("everywhere = true\n", "issuers = [\"self\", \"idp.tset\"]\n");
    assert!(found.iter().any(|said| said.contains("did you mean \"idp.test\"?")), "{found:?}");
    let found = by("everywhere = true\n", "issuers = []\n");
    assert!(
        found.iter().any(|said| said.contains("routes[0].issuers: is empty, so no token would be accepted")),
        "{found:?}"
    );
    let found = by("everywhere = true\n", "auth = \"none\"\nissuers = [\"self\"]\n");
    assert!(found.iter().any(|said| said.contains("has no effect, because `auth")), "{found:?}");
    for (name, why) in [("self", "own issuer"), ("a b", "visible ASCII"), ("", "visible ASCII")] {
        let found = by(&format!("everywhere = true\nname = \"{name}\"\n"), "");
        assert!(found.iter().any(|said| said.contains(why)), "{found:?}");
    }
    let twice = format!("{idp}everywhere = true\n{}everywhere = true\n", issuer("https://idp.test/y", ""));
    let found = said(&twice);
    assert!(
        found.len() == 1
            && found[0].contains("\"idp.test\" is listed twice, because the name is by default the host of `url`"),
        "{found:?}"
    );
}

#[test]
fn j18_another_issuer_s_scopes_count_where_they_are_listed() {
    use crate::sections::AllowedScopes;
    let scopes = |more: &str| {
        let text =
            format!("{MINIMAL}{}{}", issuer("https://idp.test/", &format!("everywhere = true\n{more}")), route(""));
        read(&text).unwrap().issuers.remove(0).scopes
    };
    let only = |text: &str| AllowedScopes::Only(rotogate_core::session::Scope::parse(text).unwrap());
    assert_eq!(scopes(""), only(""));
    assert_eq!(scopes("scopes = [\"read\", \"write\"]\n"), only("read write"));
    assert_eq!(scopes("scopes = \"any\"\n"), AllowedScopes::Any);
    assert!(!said(&issuer("https://idp.test/", "everywhere = true\nscopes = \"all\"\n")).is_empty());
    // With several issuers, upstreams must get the issuer of a subject.
    let header = |more: &str, issuers: &str| {
        let identity = format!("[identity]\nheaders = {{ {more} }}\n");
        read(&format!("{MINIMAL}{identity}{issuers}{}", route(""))).unwrap().identity.headers.issuer.0
    };
    let idp = issuer("https://idp.test/", "everywhere = true\n");
    let name = |name: &'static str| Some(http::HeaderName::from_static(name));
    assert_eq!(header("", ""), None);
    assert_eq!(header("", &idp), name("x-auth-issuer"));
    assert_eq!(header("issuer = \"x-idp\"", ""), name("x-idp"));
    assert_eq!(header("issuer = \"\"", &idp), None);
}

#[test]
fn r21_an_endpoint_is_for_one_account_by_its_path_or_by_its_key() {
    let endpoint =
        |path: &str| said(&format!("[[endpoints]]\ndialect = \"oauth2\"\npath = \"{path}\"\naccount = \"acme\"\n"));
    assert_eq!(endpoint("/connect/token"), Vec::<String>::new());
    assert!(endpoint("/{account}/connect/token")[0].contains("remove one of the two"));
    let long = "c".repeat(250);
    let hash = rotogate_core::password::hash(&secrecy::SecretString::from("secret")).unwrap();
    let found =
        said(&format!("[[clients]]\nid = \"{long}\"\ngrants = [\"client_credentials\"]\nsecret_hash = \"{hash}\"\n"));
    assert!(found.len() == 1 && found[0].contains("too long for `client_credentials`"), "{found:?}");
}
