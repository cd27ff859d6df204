//! `exchange` of `[[clients]]`.

use super::{PHC, said};

const RULES: &str = "exchange = { as = [\"api\"], to = [\"billing\"] }\n";

fn client(keys: &str) -> String {
    format!("[[clients]]\nid = \"orders\"\nsecret_hash = \"{PHC}\"\n{keys}")
}

fn with_grant(keys: &str) -> String {
    client(&format!("grants = [\"token-exchange\"]\n{keys}"))
}

#[test]
fn d1_rules_for_exchanges_that_contradict_others_are_refused_at_start() {
    assert_eq!(said(&with_grant(RULES)), Vec::<String>::new());
    let issuer = |keys: &str| {
        format!(
            "[[issuers]]\nname = \"kc\"\nurl = \"https://kc.test\"\naudience = [\"api\"]\n{keys}jwks_file = \"kc.json\"\n"
        )
    };
    let of_kc = RULES.replace(" }", ", issuers = [\"self\", \"kc\"] }");
    let asserted = "[identity]\nassertion = { header = \"x-a\" }\n[[upstreams]]\nname = \"billing\"\nurls = [\"echo:\"]\n\
                    [[routes]]\npath = \"/b/{*rest}\"\nupstream = \"billing\"\n";
    for (config, wanted) in [
        (with_grant(""), "needs `exchange ="),
        (client(RULES), "has no effect without"),
        (
            with_grant(RULES).replace(&format!("secret_hash = \"{PHC}\"\n"), ""),
            "is only for confidential clients (RFC 8693",
        ),
        (with_grant("exchange = { as = [\"api\"] }\n"), "does not name an audience"),
        (with_grant(&RULES.replace(" }", ", depth = 9 }")), "depth"),
        (with_grant(&RULES.replace(" }", ", issuers = [\"nobody\"] }")), "there is no issuer"),
        (format!("{}{}", with_grant(&of_kc), issuer("")), "has no `subject_prefix`"),
        (format!("{}{asserted}", with_grant(RULES)), "is an audience of assertions"),
    ] {
        let lines = said(&config);
        assert!(lines.iter().any(|line| line.contains(wanted)), "{wanted}: {lines:?}");
    }
}

#[test]
fn d11_an_exchange_beside_what_would_forward_another_token_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("gate.secret");
    std::fs::write(&secret, "s").unwrap();
    let config = |provider: &str, exchange: &str, route: &str| {
        format!(
            "[[issuers]]\nname = \"kc\"\nurl = \"https://kc.test\"\naudience = [\"api\"]\njwks_file = \"kc.json\"\n\
             [[providers]]\nname = \"kc\"\nissuer = \"kc\"\n{provider}\
             [[upstreams]]\nname = \"graph\"\nurls = [\"echo:\"]\nexchange = {exchange}\n\
             [[routes]]\npath = \"/g/{{*rest}}\"\nupstream = \"graph\"\n{route}"
        )
    };
    let provider = &format!(
        "token_url = \"https://kc.test/token\"\nclient = {{ id = \"gate\", secret_file = \"{}\" }}\n",
        secret.display()
    );
    let (good, of_kc) = ("{ provider = \"kc\", audience = \"graph\" }", "issuers = [\"kc\"]\n");
    assert_eq!(said(&config(provider, good, of_kc)), Vec::<String>::new());
    // A certificate proves the client as a secret does, and may stand beside one.
    for provider in [
        provider.replace("secret_file", "client_cert"),
        provider.replace("id = \"gate\"", "id = \"gate\", client_cert = \"gate.pem\""),
    ] {
        assert_eq!(said(&config(&provider, good, of_kc)), Vec::<String>::new());
    }
    for (config, wanted) in [
        (config(provider, &format!("{good}\nauthorization_file = \"a.secret\""), of_kc), "authorization_file"),
        (config("client = { id = \"gate\" }\n", good, of_kc), "token endpoint"),
        (config("token_url = \"https://kc.test/t\"\nclient = { id = \"gate\" }\n", good, of_kc), "confidential client"),
        (config("token_url = \"https://kc.test/t\"\n", good, of_kc), "client: is missing"),
        (config(provider, "{ provider = \"nobody\" }", of_kc), "there is no provider"),
        (config(provider, "{ provider = \"kc\", form = \"entra\" }", of_kc), "scope: is missing"),
        (
            config(provider, "{ provider = \"kc\", form = \"entra\", scope = [\"a\"], audience = \"x\" }", of_kc),
            "is not a parameter",
        ),
        (
            config(provider, "{ provider = \"kc\", form = \"id-jag\", audience = \"a\" }", of_kc),
            "authorization_server: is missing",
        ),
        (
            config(provider, "{ provider = \"kc\", authorization_server = \"kc\" }", of_kc),
            "only applies with `form = \"id-jag\"`",
        ),
        (
            config(
                provider,
                "{ provider = \"kc\", form = \"id-jag\", audience = \"a\", authorization_server = \"kc\" }",
                "credentials = [\"session\"]\n",
            ),
            "no endpoint with `dialect = \"browser\"` logs in users at kc",
        ),
        (config(provider, "{ provider = \"wiki\" }", of_kc), "there is no provider"),
        (config(provider, good, "issuers = [\"self\", \"kc\"]\n"), "accepts those of self"),
        (config(provider, good, &format!("{of_kc}forward_token = true\n")), "replaces the caller's token"),
        (config(provider, good, "auth = \"none\"\n"), "does not require one"),
        (config(provider, good, &format!("{of_kc}auth = \"optional\"\n")), "does not require one"),
    ] {
        let lines = said(&config);
        assert!(lines.iter().any(|line| line.contains(wanted)), "{wanted}: {lines:?}");
    }
}
