//! Headers and endpoints behind each example: every name that only the gate may set, the gate's own values, and its
//! endpoints.

use std::fs;
use std::path::Path;
use std::process::Command;

use rotogate_core::headers::not_from_clients;
use serde_json::json;
use support::wire::Reply;
use support::{Place, with};

use super::before::{ALL, Before, HAPROXY, Program};
use super::scene::bearer;
use crate::edge::issuer::{Issuer, URL};

/// No example uses this value.
const FORGED: &str = "forged-by-the-client";

/// A change of gateway.toml alone.
fn in_config(change: impl Fn(String) -> String) -> impl Fn(String) -> String {
    move |text| if text.contains("[[authorizers]]") { change(text) } else { text }
}

fn with_issuer(config: &str) -> String {
    let issuer = format!(
        "[[issuers]]\nname = \"idp\"\nurl = \"{URL}\"\naudience = [\"api\"]\njwks_file = \"idp.json\"\neverywhere = true\n\
         scopes = \"any\"\nclaims = {{ roles = [\"groups\"] }}\n"
    );
    format!("{config}\n{issuer}")
}

fn behind_with_issuer(program: &Program, idp: &Issuer) -> Before {
    let jwks = json!({ "keys": [idp.jwk("k1")] }).to_string();
    let files = |folder: &Path| fs::write(folder.join("idp.json"), &jwks).unwrap();
    Before::start_changed("kind = \"memory\"", program, &in_config(|config| with_issuer(&config)), &files)
}

#[test]
fn n61_each_header_of_the_identity_arrives_from_the_gate_and_never_from_a_client() {
    let idp = Issuer::new(1);
    for program in ALL {
        let before = behind_with_issuer(program, &idp);
        let lies: Vec<String> =
            ["subject", "account", "client", "scope", "session", "issuer", "roles", "expires", "detail"]
                .map(|field| format!("X-Auth-{field}: {FORGED}"))
                .into();
        let sent = |credential: Option<&str>, target: &str| {
            before.stub.take();
            let lines: Vec<&str> = credential.into_iter().chain(lies.iter().map(String::as_str)).collect();
            let reply = before.ask(&format!("GET {target}"), &lines);
            assert_eq!(reply.status, 200, "{} {target}: {reply:?}", program.name);
            before.stub.one()
        };
        let token = idp.token(&json!({ "groups": ["b", "a,c"] }));
        let received = sent(Some(&format!("Authorization: Bearer {token}")), "/private/a");
        let arrived =
            |name: &str| received.confusable(name).into_iter().filter(|value| !value.is_empty()).collect::<Vec<_>>();
        assert_eq!(arrived("x-auth-subject"), ["user-1"], "{}: {received:?}", program.name);
        assert_eq!(arrived("x-auth-client"), ["their-client"], "{}: {received:?}", program.name);
        assert_eq!(arrived("x-auth-issuer"), [URL], "{}: {received:?}", program.name);
        assert_eq!(arrived("x-auth-roles"), ["a%2Cc,b"], "{}: {received:?}", program.name);
        let own = before.login();
        for (credential, target) in [(Some(&own), "/private/a"), (None, "/public/a")] {
            let received = sent(credential.map(bearer).as_deref(), target);
            assert!(!format!("{received:?}").contains(FORGED), "{} {target}: {received:?}", program.name);
            let has = |name: &str| received.confusable(name).iter().any(|value| !value.is_empty());
            for name in ["x-auth-subject", "x-auth-session", "x-auth-issuer"] {
                assert_eq!(has(name), credential.is_some(), "{} {target} {name}: {received:?}", program.name);
            }
            assert!(!has("x-auth-roles"), "{}: {received:?}", program.name);
        }
    }
}

#[test]
fn n62_no_name_that_a_client_must_not_choose_arrives_behind_any_example() {
    for program in ALL {
        let before = Before::start(program);
        let good = bearer(&before.login());
        before.stub.take();
        let mut arrived = Vec::new();
        for pattern in not_from_clients() {
            // Envoy's own headers are not the client's: it removes those that a client sent.
            let name = match (pattern, program.name.starts_with("envoy")) {
                ("x-envoy-*", true) => "x-envoy-external-address".to_owned(),
                _ => pattern.replace('*', "z"),
            };
            for (credential, target) in [(Some(&*good), "/private/a"), (None, "/public/a")] {
                // A credential of the client's is refused beside another one.
                if pattern == "authorization" && credential.is_some() {
                    continue;
                }
                let lie = format!("{name}: {FORGED}");
                let lines: Vec<&str> = credential.into_iter().chain([&*lie, "X-Requested-With: a-page"]).collect();
                let reply = before.ask(&format!("GET {target}"), &lines);
                assert_eq!(reply.status, 200, "{} {name}: {reply:?}", program.name);
                let received = before.stub.one();
                assert_eq!(received.all("x-requested-with"), ["a-page"], "{}", program.name);
                let token = good.split(' ').next_back().unwrap();
                assert!(
                    !received.headers.iter().any(|(_, value)| value.contains(token)),
                    "{}: the token",
                    program.name
                );
                let told =
                    received.headers.into_iter().filter(|(_, value)| value.contains(FORGED)).map(|(name, _)| name);
                arrived.extend(told);
            }
        }
        arrived.sort_unstable();
        arrived.dedup();
        assert_eq!(arrived, Vec::<String>::new(), "behind {}", program.name);
    }
}

#[test]
fn n62_the_page_lists_each_name_that_a_proxy_must_remove_and_no_other() {
    let page = include_str!("../../docs/forward-auth.md");
    let section = page.split("## What the proxy must remove or overwrite").nth(1).unwrap();
    let lists = section.split("How each example does it").next().unwrap().split_once("- Each header").unwrap().1;
    let mut listed: Vec<&str> = lists.split('`').skip(1).step_by(2).filter(|name| *name != "[identity]").collect();
    let mut known: Vec<&str> = not_from_clients().collect();
    for list in [&mut listed, &mut known] {
        list.sort_unstable();
        list.dedup();
    }
    assert_eq!(listed, known);
}

/// A form, as a client without a secret sends it.
fn posted(before: &Before, path: &str, fields: &[(&str, &str)], more: &[&str]) -> Reply {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let length = format!("Content-Length: {}", body.len());
    let mut lines = vec!["Content-Type: application/x-www-form-urlencoded", &length];
    lines.extend(more);
    before.ask_with_body(&format!("POST {path}"), &lines, &body)
}

#[test]
fn n63_the_gates_endpoints_and_documents_answer_behind_each_example() {
    let change = in_config(|config| {
        let config = with(&config, "limits", "login_per_address = \"8/10m\"");
        config.replace("[[clients]]", "[[resources]]\npath = \"/files\"\n\n[[clients]]")
    });
    for program in ALL {
        let before = Before::start_changed("kind = \"memory\"", program, &change, &|_| {});
        let name = program.name;
        let document = |path: &str| {
            let reply = before.ask(&format!("GET {path}"), &[]);
            assert_eq!(reply.status, 200, "{name} {path}: {reply:?}");
            reply.json()
        };
        let metadata = document("/.well-known/oauth-authorization-server");
        assert_eq!(document("/.well-known/openid-configuration"), metadata, "{name}");
        assert!(document("/.well-known/oauth-protected-resource/files")["resource"].is_string(), "{name}");
        // Each path that the metadata name.
        let path_of = |what: &str| {
            let url = metadata[what].as_str().unwrap().to_owned();
            url.strip_prefix("http://localhost:8000").unwrap_or_else(|| panic!("{url}")).to_owned()
        };
        assert!(document(&path_of("jwks_uri"))["keys"].is_array(), "{name}");
        let fields = [
            ("grant_type", "password"),
            ("client_id", "web"),
            ("username", "demo"),
            ("password", &*before.gate.password),
        ];
        let tokens = posted(&before, &path_of("token_endpoint"), &fields, &[]);
        assert_eq!(tokens.status, 200, "{name}: {tokens:?}");
        let tokens = tokens.json();
        let [access, refresh] = ["access_token", "refresh_token"].map(|token| tokens[token].as_str().unwrap());
        for secret in [access, refresh] {
            support::keep_secret(secret);
        }
        let good = format!("Authorization: Bearer {access}");
        assert_eq!(before.ask("GET /private/a", &[&good]).status, 200, "{name}");
        // An answer of the gate, which no application gives.
        let introspected = posted(&before, &path_of("introspection_endpoint"), &[("token", access)], &[]);
        assert!(introspected.error().contains("client"), "{name}: {introspected:?}");
        let revocation = path_of("revocation_endpoint");
        assert_eq!(
            posted(&before, &revocation, &[("client_id", "web"), ("token", refresh)], &[]).status,
            200,
            "{name}"
        );
        assert_eq!(before.ask("GET /private/a", &[&good]).status, 401, "{name}");
        before.stub.take();

        // A client cannot choose its address: the limits count the real one. Envoy appends that address to the client's
        // list, and here it is the address of a trusted proxy.
        if name.starts_with("envoy") {
            continue;
        }
        let mut statuses = Vec::new();
        for number in 0..12 {
            let forged = [format!("X-Forwarded-For: 192.0.2.{number}"), format!("Forwarded: for=192.0.2.{number}")];
            let user = format!("user-{number}");
            let fields =
                [("grant_type", "password"), ("client_id", "web"), ("username", &*user), ("password", "wrong")];
            let forged = [&*forged[0], &*forged[1]];
            statuses.push(posted(&before, &path_of("token_endpoint"), &fields, &forged).status);
        }
        assert_eq!(statuses.last(), Some(&429), "{name}: {statuses:?}");
        assert!(before.stub.take().is_empty(), "{name}");
    }
}

#[test]
fn n64_no_tool_warns_of_a_configuration_that_we_ship() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut checked = 0;
    for folder in fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(config) = fs::read_to_string(folder.join("gateway.toml")) else { continue };
        let place = Place::new(&config);
        let ran = place.run(&["check"], "");
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", folder.display());
        assert!(!ran.stdout.contains("warning"), "{}: {}", folder.display(), ran.stdout);
        checked += 1;
    }
    assert_eq!(checked, ALL.len());
    let before = Before::start(&HAPROXY);
    assert!(!before.output().contains("WARNING"), "{}", before.output());
    let mut haproxy = Command::new("haproxy");
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    haproxy.env("PATH", path).args(["-c", "-f", "haproxy.cfg"]).current_dir(root.join("examples/haproxy"));
    let ran = haproxy.output().expect("haproxy is missing: bash tests/setup.sh");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && !said.contains("WARNING"), "{said}");
}

#[test]
fn n64_n65_this_machine_may_be_named_behind_each_example_and_another_host_is_refused_with_the_reason() {
    for program in ALL {
        let before = Before::start(program);
        let good = bearer(&before.login());
        for host in ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"] {
            assert_eq!(before.ask_at(host, "GET /private/a", &[&good]).status, 200, "{} {host}", program.name);
        }
        before.stub.take();
        let refused = before.ask_at("other.test", "GET /private/a", &[&good]);
        assert!((400..500).contains(&refused.status) && before.stub.take().is_empty(), "{}: {refused:?}", program.name);
        assert!(refused.text().contains("does not serve the host"), "{}: {refused:?}", program.name);
    }
}

#[test]
fn n70_connection_takes_no_identity_off_behind_any_example_whatever_its_header_is_called() {
    let change = |text: String| {
        let text = match text.contains("[[authorizers]]") {
            true => with(&text, "identity", "headers = { subject = \"acme-person\" }"),
            false => text,
        };
        // Replaces the subject's header in the example by this one.
        text.replace("X-Auth-Subject", "Acme-Person")
            .replace("x-auth-subject", "acme-person")
            .replace("upstream_http_x_auth_subject", "upstream_http_acme_person")
            .replace("{ prefix: x-auth- }", "{ prefix: acme- }")
    };
    for program in ALL {
        let before = Before::start_changed("kind = \"memory\"", program, &change, &|_| {});
        let tokens = before.login();
        let (good, subject) =
            (bearer(&tokens), crate::dpop::claims(&tokens.access)["sub"].as_str().unwrap().to_owned());
        before.stub.take();
        let lie = format!("Acme-Person: {FORGED}");
        for more in [
            &[][..],
            &["Connection: acme-person"],
            &["Connection: close, Acme-Person"],
            &["Connection: keep-alive", "Connection: acme-person"],
        ] {
            let lines: Vec<&str> = [&*good, &*lie].into_iter().chain(more.iter().copied()).collect();
            let reply = before.ask("GET /private/a", &lines);
            match &before.stub.take()[..] {
                [] => assert!(reply.status >= 400 && !more.is_empty(), "{} {more:?}: {reply:?}", program.name),
                [received] => {
                    assert_eq!(
                        received.confusable("acme-person"),
                        [&*subject],
                        "{} {more:?}: {received:?}",
                        program.name
                    );
                    let connection = received.confusable("connection").join(",").to_ascii_lowercase();
                    assert!(!connection.contains("acme"), "{} {more:?}: {connection}", program.name);
                }
                several => panic!("{}: {several:?}", program.name),
            }
        }
    }
}

/// The routes of the examples take the credential from a cookie, too.
fn with_cookie(config: &str) -> String {
    let config = config.replace("credentials = [\"token\", \"session\"]\n", "");
    let config = ["/{*rest}", "/public/{*rest}"].iter().fold(config, |config, path| {
        config.replace(&format!("path = \"{path}\"\n"), &format!("path = \"{path}\"\ncookie = \"token\"\n"))
    });
    config.replace("cookie = \"token\"\nauth = \"none\"", "cookie = \"token\"\nauth = \"optional\"")
}

#[test]
fn n76_the_cookie_of_the_credential_stays_before_the_upstream_behind_each_example() {
    let change = in_config(|config| with_cookie(&config));
    for program in ALL {
        let before = Before::start_changed("kind = \"memory\"", program, &change, &|_| {});
        let token = before.login().access;
        before.stub.take();
        for cookies in [
            format!("token={token}; theme=dark"),
            format!("theme=dark; token={token}"),
            format!("theme=dark;token={token};x=1"),
        ] {
            for target in ["/private/a", "/public/a"] {
                let reply = before.ask(&format!("GET {target}"), &[&format!("Cookie: {cookies}")]);
                assert_eq!(reply.status, 200, "{} {target}: {reply:?}", program.name);
                let arrived = before.stub.one();
                assert!(!format!("{arrived:?}").contains(&token), "{} {target}: the token", program.name);
                let kept = arrived.all("cookie");
                assert!(kept.iter().any(|cookie| cookie.contains("theme=dark")), "{}: {kept:?}", program.name);
            }
        }
        // Several headers: the gate takes no credential from them, and the upstream gets no such header.
        let twice = format!("Cookie: token={token}; theme=dark; token={token}");
        before.ask("GET /public/a", &[&twice]);
        assert!(!format!("{:?}", before.stub.take()).contains(&token), "{}", program.name);
    }
}

#[test]
fn n69_the_cookie_of_the_credential_stays_with_the_gate_behind_envoy_in_whatever_header_it_came() {
    let change = in_config(|config| with_cookie(&config));
    for program in [&super::before::ENVOY, &super::before::ENVOY_HTTP] {
        let before = Before::start_changed("kind = \"memory\"", program, &change, &|_| {});
        let token = before.login().access;
        before.stub.take();
        let credential = format!("Cookie: token={token}");
        let both = format!("Cookie: theme=dark; token={token}; x=1");
        for cookies in [
            &[&*both][..],
            &["Cookie: theme=dark", &credential],
            &[&credential, "Cookie: theme=dark"],
            &["Cookie: theme=dark", &credential, "Cookie: z=3"],
        ] {
            for target in ["/private/a", "/public/a"] {
                let case = format!("{} {target} {}", program.name, cookies.len());
                let reply = before.ask(&format!("GET {target}"), cookies);
                let arrived = before.stub.take();
                assert!(!format!("{arrived:?}").contains(&token), "{case}: the token");
                // Over HTTP Envoy joins the cookies for the gate: then no cookie is a credential, and no cookie
                // arrives.
                let is_joined = program.name == "envoy-http" && cookies.len() > 1;
                // On a route without a required token, an unusable credential may pass as anonymous or be refused.
                if !is_joined || target == "/private/a" {
                    assert_eq!(reply.status, if is_joined { 401 } else { 200 }, "{case}: {reply:?}");
                }
                let kept =
                    arrived.iter().flat_map(|received| received.all("cookie")).any(|it| it.contains("theme=dark"));
                assert_eq!(kept, !is_joined, "{case}: {arrived:?}");
            }
        }
    }
}
