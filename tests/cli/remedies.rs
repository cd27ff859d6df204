//! What `rotogate check` advises against wider access than was meant (requirement P67): for each of its warnings, the attack
//! that it warns of reaches the upstream, and no longer does with any remedy that the message names.

use http::{Method, StatusCode};
use rotogate::route::WarningKind;

use support::{CONFIG, Place};

/// A route that asks for a scope which the user of the tests lacks.
const ADMIN: &str = "[[routes]]\npath = \"/admin/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"app\"\n";

struct Case {
    kind: WarningKind,
    /// A part of the message.
    says: &'static str,
    /// The attack: a path and a host.
    attack: (&'static str, &'static str),
    /// A request that must pass, with a token, before and after.
    honest: (&'static str, &'static str),
    routes: String,
    /// Each remedy as the message has it, and the routes with it.
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
            says: "is less strict than /admin/{*rest}, and servers",
            attack: ("/Admin/help", "gate.test"),
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
            honest: mine,
            routes: format!("{ADMIN}{bare}{spelt}loose_match = false\n"),
            remedies: vec![("remove loose_match", format!("{ADMIN}{bare}{spelt}"))],
        },
        Case {
            kind: WarningKind::Uncovered,
            says: "does not cover /admin, which the less strict /admin serves",
            attack: ("/admin", "gate.test"),
            honest: mine,
            routes: format!("{ADMIN}{}", bare.replace("scopes = [\"admin\"]\n", "")),
            remedies: vec![("replace it by a route for /admin with the same rules", format!("{ADMIN}{bare}"))],
        },
        Case {
            kind: WarningKind::Uncovered,
            says: "does not cover /files, which the less strict /{name} serves",
            attack: ("/files", "gate.test"),
            honest: mine,
            routes: format!("{any}{files}"),
            remedies: vec![(
                "write a route for /files with the same rules",
                format!("{any}{files}{}", files.replace("/{*rest}", "")),
            )],
        },
        Case {
            kind: WarningKind::OtherHosts,
            says: "serves only a.test: under any other host the less strict /files/{*rest} serves the same path",
            attack: ("/files/secret/x", "gate.test"),
            honest: mine,
            routes: format!("{lax}{strict}hosts = [\"a.test\"]\n"),
            remedies: vec![("remove hosts here", format!("{lax}{strict}"))],
        },
    ]
}

#[tokio::test]
async fn p67_each_remedy_of_a_warning_stops_the_attack_that_it_warns_of() {
    let cases = cases();
    let is_tried = |kind| cases.iter().any(|case| case.kind == kind);
    for kind in WarningKind::ALL {
        assert_eq!(is_tried(kind), kind.is_wider_access(), "{kind:?} needs a case here if it warns of wider access");
    }
    for case in cases {
        let Case { kind, says, attack, honest, routes, remedies } = case;
        let place = Place::new(&format!("{CONFIG}{routes}"));
        let message = place.done(&["check"], "").stdout;
        let line = message.lines().find(|line| line.contains(says)).unwrap_or_else(|| panic!("{kind:?}: {message}"));
        // Each remedy that is printed is one of the case's: they stand after the last colon.
        let advice = line.rsplit_once(": ").map_or("", |(_, advice)| advice);
        let printed = advice.split(", or ").map(|one| one.split(", unless").next().unwrap_or(one)).collect::<Vec<_>>();
        let printed = printed.iter().flat_map(|one| one.split("; ").last()).collect::<Vec<_>>();
        for remedy in &printed {
            assert!(remedies.iter().any(|(known, _)| remedy.contains(known)), "{kind:?}: {remedy:?} is not tried");
        }
        let reached = async |routes: &str, (path, host): (&str, &str)| {
            place.write_config(&format!("{CONFIG}{routes}"));
            let gate = place.start();
            let token = format!("Bearer {}", gate.login().await.access);
            let headers = [("authorization", token.as_str()), ("host", host)];
            gate.call(Method::GET, path, &headers, "").await.status == StatusCode::OK
        };
        assert!(reached(&routes, attack).await, "{kind:?}: the attack is no attack");
        assert!(reached(&routes, honest).await, "{kind:?}");
        for (remedy, routes) in &remedies {
            assert!(line.contains(remedy), "{kind:?} does not say {remedy:?}: {line}");
            assert!(!reached(routes, attack).await, "{kind:?}: {remedy:?} does not stop the attack");
            assert!(reached(routes, honest).await, "{kind:?}: {remedy:?} refuses what it need not");
            let said = place.done(&["check"], "").stdout;
            assert!(!said.contains(says), "{kind:?}: {remedy:?} does not silence the warning: {said}");
        }
    }
}
