//! The advice of `rotogate check` against wider access than intended (requirement P67): the attack behind each warning
//! reaches the upstream, and each remedy in the message stops the attack.

use http::{Method, StatusCode};
use rotogate_core::route::WarningKind;
use serde_json::json;

use crate::edge::issuer::Issuer;
use support::{CONFIG, Place};

/// A route that asks for a scope which the user of the tests lacks.
const ADMIN: &str = "[[routes]]\npath = \"/admin/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"app\"\n";

struct Case {
    kind: WarningKind,
    /// A part of the message.
    says: &'static str,
    /// The attack: a path and a host.
    attack: (&'static str, &'static str),
    /// The token of the attack. `None`: a token of the gate itself.
    token: Option<String>,
    /// A request that must pass, with a token of the gate's own, before and after.
    honest: (&'static str, &'static str),
    routes: String,
    /// Each remedy in the words of the message, and the routes with the remedy.
    remedies: Vec<(&'static str, String)>,
}

fn cases() -> Vec<Case> {
    let help = "[[routes]]\npath = \"/Admin/help\"\nauth = \"none\"\nupstream = \"app\"\n";
    let bare = "[[routes]]\npath = \"/admin\"\nscopes = [\"admin\"]\nupstream = \"app\"\n";
    let spelt = "[[routes]]\npath = \"/Admin/{*rest}\"\nauth = \"none\"\nupstream = \"app\"\n";
    let lax = "[[routes]]\npath = \"/files/{*rest}\"\nauth = \"none\"\nupstream = \"app\"\n";
    let strict = "[[routes]]\npath = \"/files/secret/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"app\"\n";
    let any = "[[routes]]\npath = \"/{name}\"\nloose_match = false\nupstream = \"app\"\n";
    let files = "[[routes]]\npath = \"/files/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"app\"\n";
    let mine = ("/mine", "gate.test");
    vec![
        Case {
            kind: WarningKind::Beside,
            says: "is less strict than /admin/{*rest}, but servers",
            attack: ("/Admin/help", "gate.test"),
            token: None,
            honest: mine,
            routes: format!("{ADMIN}{bare}{help}"),
            remedies: vec![
                ("remove it", format!("{ADMIN}{bare}")),
                (
                    "write the rules of /admin/{*rest} here",
                    format!("{ADMIN}{bare}{}", help.replace("auth = \"none\"", "scopes = [\"admin\"]")),
                ),
            ],
        },
        Case {
            kind: WarningKind::AnySpelling,
            says: "loose_match = false lets every spelling of that path pass",
            attack: ("/Admin/x", "gate.test"),
            token: None,
            honest: mine,
            routes: format!("{ADMIN}{bare}{spelt}loose_match = false\n"),
            remedies: vec![("remove loose_match", format!("{ADMIN}{bare}{spelt}"))],
        },
        Case {
            kind: WarningKind::Uncovered,
            says: "does not cover /admin, which the less strict route /admin serves",
            attack: ("/admin", "gate.test"),
            token: None,
            honest: mine,
            routes: format!("{ADMIN}{}", bare.replace("scopes = [\"admin\"]\n", "")),
            remedies: vec![("replace it by a route for /admin with the same rules", format!("{ADMIN}{bare}"))],
        },
        Case {
            kind: WarningKind::Uncovered,
            says: "does not cover /files, which the less strict route /{name} serves",
            attack: ("/files", "gate.test"),
            token: None,
            honest: mine,
            routes: format!("{any}{files}"),
            remedies: vec![(
                "write a route for /files with the same rules",
                format!("{any}{files}{}", files.replace("/{*rest}", "")),
            )],
        },
        Case {
            kind: WarningKind::OtherHosts,
            says: "serves only a.test, but under any other host the less strict route /files/{*rest} serves the same",
            attack: ("/files/secret/x", "gate.test"),
            token: None,
            honest: mine,
            routes: format!("{lax}{strict}hosts = [\"a.test\"]\n"),
            remedies: vec![("remove hosts here", format!("{lax}{strict}"))],
        },
        of_resource(),
        of_everybody("https://accounts.google.com", "hd", "acme.test"),
        of_users(),
        of_everybody("https://token.actions.githubusercontent.com", "repository_owner_id", "65"),
    ]
}

/// An issuer, and a route for its tokens.
fn other(url: &str, keys: &str, route: &str) -> String {
    format!(
        "[[issuers]]\nname = \"idp\"\nurl = \"{url}\"\njwks_file = \"idp.json\"\n{keys}\
         [[routes]]\npath = \"/open/{{*rest}}\"\nissuers = [\"idp\"]\nupstream = \"app\"\n{route}"
    )
}

/// A token for a resource opens another route.
fn of_resource() -> Case {
    let config = |audience: &str, route: &str| {
        let resource = "[[resources]]\npath = \"/mcp\"\nauthorization_servers = [\"https://idp.test/\"]\n\
                        [[routes]]\npath = \"/mcp/{*rest}\"\nresource = \"/mcp\"\nissuers = [\"idp\"]\nupstream = \"app\"\n";
        format!("{}{resource}", other("https://idp.test/", &format!("audience = [{audience}]\n"), route))
    };
    let both = "\"api\", \"http://gate.test/mcp\"";
    Case {
        kind: WarningKind::OfResource,
        says: "this route accepts tokens for the resource /mcp",
        attack: ("/open/x", "gate.test"),
        token: Some(Issuer::new(3).token(&json!({ "aud": "http://gate.test/mcp" }))),
        honest: ("/mine", "gate.test"),
        routes: config(both, ""),
        remedies: vec![
            ("Remove http://gate.test/mcp there", config("\"api\"", "")),
            ("write `audiences` here", config(both, "audiences = [\"api\"]\n")),
        ],
    }
}

/// A user has written the claim that a route asks for.
fn of_users() -> Case {
    let config = |when: &str| {
        let keys = "audience = [\"api\"]\npreset = \"oidc\"\n";
        other("https://idp.test/", keys, &format!("when = {when}\n"))
    };
    Case {
        kind: WarningKind::ClaimOfUsers,
        says: "users of \"idp\" (oidc) can set the claim `nickname` themselves",
        attack: ("/open/x", "gate.test"),
        token: Some(Issuer::new(3).token(&json!({ "iss": "https://idp.test/", "nickname": "admin" }))),
        honest: ("/mine", "gate.test"),
        routes: config("{ nickname = \"admin\" }"),
        remedies: vec![(
            "name a claim that only the issuer's administrators can set",
            config("{ groups = { has = \"admin\" } }"),
        )],
    }
}

/// A token of another user of a provider at which any person can have an account.
fn of_everybody(url: &'static str, claim: &'static str, value: &str) -> Case {
    let config = |require: &str| other(url, &format!("audience = [\"api\"]\n{require}"), "");
    Case {
        kind: WarningKind::Everybody,
        says: "anybody can have an account at this issuer",
        attack: ("/open/x", "gate.test"),
        token: Some(Issuer::new(3).token(&json!({ "iss": url, claim: "somebody else's" }))),
        honest: ("/mine", "gate.test"),
        routes: config(""),
        remedies: vec![(claim, config(&format!("require = {{ {claim} = \"{value}\" }}\n")))],
    }
}

#[tokio::test]
async fn p67_each_remedy_of_a_warning_stops_the_attack_that_it_warns_of() {
    let cases = cases();
    let is_tried = |kind| cases.iter().any(|case| case.kind == kind);
    for kind in WarningKind::ALL.iter().copied() {
        assert_eq!(is_tried(kind), kind.is_wider_access(), "{kind:?} needs a case here if it warns of wider access");
    }
    for case in cases {
        let Case { kind, says, attack, token, honest, routes, remedies } = case;
        let place = Place::new(&format!("{CONFIG}{routes}"));
        std::fs::write(place.path("idp.json"), json!({ "keys": [Issuer::new(3).jwk("k1")] }).to_string()).unwrap();
        let message = place.done(&["check"], "").stdout;
        let line = message.lines().find(|line| line.contains(says)).unwrap_or_else(|| panic!("{kind:?}: {message}"));
        // The case covers each printed remedy; the remedies follow the last colon.
        let advice = line.rsplit_once(": ").map_or("", |(_, advice)| advice);
        let printed = advice.split(", or ").map(|one| one.split(", unless").next().unwrap_or(one)).collect::<Vec<_>>();
        let printed = printed.iter().flat_map(|one| one.split("; ").last()).collect::<Vec<_>>();
        for remedy in &printed {
            assert!(remedies.iter().any(|(known, _)| remedy.contains(known)), "{kind:?}: {remedy:?} is not tried");
        }
        let reached = async |routes: &str, token: &Option<String>, (path, host): (&str, &str)| {
            place.write_config(&format!("{CONFIG}{routes}"));
            let gate = place.start();
            let token = token.clone().unwrap_or(gate.login().await.access.clone());
            let token = format!("Bearer {token}");
            let headers = [("authorization", token.as_str()), ("host", host)];
            gate.call(Method::GET, path, &headers, "").await.status == StatusCode::OK
        };
        assert!(reached(&routes, &token, attack).await, "{kind:?}: the attack is no attack");
        assert!(reached(&routes, &None, honest).await, "{kind:?}");
        for (remedy, routes) in &remedies {
            assert!(line.contains(remedy), "{kind:?} does not say {remedy:?}: {line}");
            assert!(!reached(routes, &token, attack).await, "{kind:?}: {remedy:?} does not stop the attack");
            assert!(reached(routes, &None, honest).await, "{kind:?}: {remedy:?} refuses what it need not");
            let said = place.done(&["check"], "").stdout;
            assert!(!said.contains(says), "{kind:?}: {remedy:?} does not silence the warning: {said}");
        }
    }
}
