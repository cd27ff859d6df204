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
        (with_grant(""), "needs exchange ="),
        (client(RULES), "has no effect without"),
        (with_grant(RULES).replace(&format!("secret_hash = \"{PHC}\"\n"), ""), "is for confidential clients (RFC 8693"),
        (with_grant("exchange = { as = [\"api\"] }\n"), "names no audience"),
        (with_grant(&RULES.replace(" }", ", depth = 9 }")), "depth"),
        (with_grant(&RULES.replace(" }", ", issuers = [\"nobody\"] }")), "there is no issuer"),
        (format!("{}{}", with_grant(&of_kc), issuer("")), "has no subject_prefix"),
        (format!("{}{asserted}", with_grant(RULES)), "is the audience of assertions"),
    ] {
        let lines = said(&config);
        assert!(lines.iter().any(|line| line.contains(wanted)), "{wanted}: {lines:?}");
    }
}
