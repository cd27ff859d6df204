//! `rotogate explain`, and what the gate then does.

use http::{Method, StatusCode};
use serde_json::Value;

use crate::edge::issuer::{Issuer, claims};
use support::{CONFIG, Gate, Place, Tokens, keep_secret};

const ROUTES: &str = r#"
[[routes]]
id = "admin"
path = "/admin/{*rest}"
scopes = ["admin"]
upstream = "app"
[[routes]]
id = "browser"
path = "/browser"
cookie = "token"
upstream = "app"
[[routes]]
id = "office"
path = "/office"
roles = ["boss", "deputy"]
all_roles = ["clerk"]
upstream = "app"
[[routes]]
id = "read"
path = "/read"
methods = ["GET"]
upstream = "app"
[[routes]]
path = "/all-scopes"
scopes = ["delete"]
any_scope = ["read"]
upstream = "app"
[[routes]]
path = "/any-scope"
scopes = ["write"]
any_scope = ["list", "drop"]
upstream = "app"
[[routes]]
path = "/when"
when = { client_id = "batch" }
when_any = [{ client_id = "web" }]
upstream = "app"
[[routes]]
path = "/when-any"
when = { client_id = "web" }
when_any = [{ client_id = "other" }]
upstream = "app"
[[routes]]
path = "/proof"
dpop = "required"
upstream = "app"
[[routes]]
path = "/login"
upstream = "app"
[routes.step_up]
max_age = "1h"
acr = ["gold"]
"#;

fn config() -> String {
    format!("{CONFIG}{ROUTES}")
        .replace("[[clients]]\nid = \"web\"", "[[clients]]\nid = \"web\"\nscopes = [\"read\", \"write\"]")
}

/// The line of a text in the configuration.
fn line_of(text: &str) -> usize {
    let config = config();
    config[..config.find(text).unwrap()].matches('\n').count() + 1
}

struct World {
    place: Place,
    gate: Gate,
    tokens: Tokens,
}

async fn world() -> World {
    let place = Place::new(&config());
    let gate = place.start();
    place.point_commands_at(&gate);
    let tokens = gate.login().await;
    keep_secret(&tokens.access);
    keep_secret(&tokens.refresh);
    World { place, gate, tokens }
}

impl World {
    /// The output of `explain`, and its exit code.
    fn explain(&self, arguments: &[&str], token: &str) -> (Value, Option<i32>) {
        let ran = self.place.run(&[&["--json", "explain"], arguments].concat(), token);
        assert_eq!(ran.stderr, "", "{arguments:?}");
        assert!(token.is_empty() || !ran.stdout.contains(token), "the token is repeated");
        (serde_json::from_str(&ran.stdout).unwrap(), ran.code)
    }
}

/// The rule that failed first.
fn failed(said: &Value) -> &Value {
    said["rules"].as_array().unwrap().iter().find(|rule| rule["result"] == "fail").unwrap()
}

#[tokio::test]
async fn p58_what_is_explained_is_what_the_gate_answers() {
    let world = world().await;
    let World { gate, tokens, .. } = &world;
    let forged = format!("{}.{}", tokens.access.rsplit_once('.').unwrap().0, "A".repeat(86));
    let ended = gate.login().await;
    assert_eq!(gate.revoke(&ended.refresh).await.status, StatusCode::OK);
    let foreign = Issuer::new(9).sign(&crate::edge::issuer::header(), &claims(&serde_json::json!({})));
    let cookie = format!("token={}", tokens.access);
    type Header<'a> = (&'a str, &'a str);
    let table: Vec<(&str, &str, Vec<Header<'_>>, &str, &str)> = vec![
        ("GET", "/x", vec![], &tokens.access, "passed"),
        ("GET", "/read?page=2", vec![], &tokens.access, "passed"),
        ("GET", "/public/x", vec![], "", "passed"),
        ("GET", "/browser", vec![("cookie", &cookie)], "", "passed"),
        ("POST", "/browser", vec![("cookie", &cookie), ("origin", "http://gate.test")], "", "passed"),
        ("POST", "/browser", vec![("cookie", &cookie), ("origin", "https://evil.test")], "", "cross_origin"),
        ("GET", "/browser", vec![("cookie", &cookie)], &tokens.access, "two_credentials"),
        ("GET", "/admin/x", vec![], &tokens.access, "insufficient_scope"),
        ("GET", "/office", vec![], &tokens.access, "missing_role"),
        ("GET", "/ADMIN/x", vec![], &tokens.access, "ambiguous_path"),
        ("GET", "/x", vec![], "", "no_credential"),
        ("GET", "/x", vec![], "junk", "malformed_token"),
        ("GET", "/x", vec![], &forged, "bad_signature"),
        ("GET", "/x", vec![], &ended.access, "token_revoked"),
        ("GET", "/x", vec![], &foreign, "unknown_issuer"),
        ("POST", "/read", vec![], &tokens.access, "method_not_allowed"),
        ("GET", "/a%00", vec![], &tokens.access, "bad_path"),
        ("GET", "/x?access_token=y", vec![], "", "unusable_credential"),
        ("GET", "/Connect/token", vec![], "", "near_miss"),
    ];
    for (method, path, headers, token, outcome) in table {
        let written: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut arguments = vec!["--path", path, "--method", method];
        arguments.extend(written.iter().flat_map(|header| ["--header", header]));
        let (said, code) = world.explain(&arguments, token);
        let bearer = format!("Bearer {token}");
        let mut sent = headers.clone();
        sent.extend((!token.is_empty()).then_some(("authorization", bearer.as_str())));
        let answer = gate.call(method.parse::<Method>().unwrap(), path, &sent, "").await;
        assert_eq!(said["outcome"], outcome, "{method} {path}: {said}");
        if outcome == "passed" {
            assert_eq!((&said["decision"], code), (&Value::from("passed"), Some(0)), "{said}");
            assert_eq!((&said["status"], answer.status), (&Value::Null, StatusCode::OK), "{path}");
        } else {
            assert_eq!((&said["decision"], code), (&Value::from("refused"), Some(1)), "{said}");
            assert_eq!(said["status"], answer.status.as_u16(), "{method} {path}: {said}");
            let challenge = answer.headers.get("www-authenticate").map(|value| value.to_str().unwrap());
            assert_eq!(said["challenge"].as_str(), challenge, "{method} {path}: {said}");
            let advice = said["advice"].as_str().unwrap();
            assert_eq!(advice.contains("one of `roles`, and all of `all_roles`"), outcome == "missing_role", "{said}");
        }
    }
}

#[tokio::test]
async fn p58_an_explanation_points_at_the_key_that_refuses() {
    let world = world().await;
    for (path, rule, key) in [
        ("/office", "role", "all_roles = [\"clerk\"]"),
        ("/all-scopes", "scope", "scopes = [\"delete\"]"),
        ("/any-scope", "scope", "any_scope = [\"list\""),
        ("/when", "condition", "when = { client_id = \"batch\""),
        ("/when-any", "condition", "when_any = [{ client_id = \"other\""),
        ("/proof", "proof", "dpop = "),
        ("/login", "step_up", "acr = [\"gold\"]"),
    ] {
        let (said, _) = world.explain(&["--path", path], &world.tokens.access);
        let failed = failed(&said);
        assert_eq!(
            (&failed["rule"], &failed["config"]["line"]),
            (&rule.into(), &line_of(key).into()),
            "{path}: {said}"
        );
    }
    // An issuer without an entry is none of [issuer].
    let foreign = Issuer::new(9).sign(&crate::edge::issuer::header(), &claims(&serde_json::json!({})));
    let (said, _) = world.explain(&["--path", "/x"], &foreign);
    assert_ne!(failed(&said)["config"]["line"], line_of("[issuer]"), "{said}");
}

#[tokio::test]
async fn p58_an_explanation_names_rule_line_and_remedy_changes_nothing_and_is_in_the_audit_log() {
    let world = world().await;
    let World { place, gate, tokens } = &world;
    let figures = async || {
        let text = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
        let counted =
            ["rotogate_requests_total", "rotogate_verif", "rotogate_session", "rotogate_revocations", "rotogate_rate"];
        let mut lines: Vec<_> =
            text.lines().filter(|line| counted.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = figures().await;
    assert!(before.len() > 5, "{before:?}");
    let (said, _) = world.explain(&["--path", "/admin/users?secret=1"], &tokens.access);
    let rule = failed(&said);
    assert_eq!(rule["rule"], "scope");
    assert_eq!(rule["detail"], "the route requires admin; the token has read write");
    let file = place.path("gateway.toml").display().to_string();
    assert_eq!(rule["config"], serde_json::json!({ "file": file, "line": line_of("scopes = [\"admin\"]") }));
    assert_eq!(said["route"]["id"], "admin");
    assert_eq!(said["route"]["line"], line_of("id = \"admin\"") - 1, "{said}");
    assert_eq!(said["route"]["also_matched"], serde_json::json!(["/{*rest}"]));
    let advice = said["advice"].as_str().unwrap();
    assert!(advice.contains("rotogate user add-scope demo admin"), "{advice}");
    assert!(advice.contains("for the client web") && advice.contains("a refresh keeps the scope"), "{advice}");
    assert_eq!(said["token"]["user"], "demo");

    let ran = place.run(&["explain", "--path", "/admin/users"], &tokens.access);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    assert!(ran.stdout.starts_with("REFUSED 403 insufficient_scope\n"), "{}", ran.stdout);
    let line = line_of("scopes = [\"admin\"]");
    let expected = format!("  FAIL  scope       the route requires admin; the token has read write ({file}:{line})\n");
    assert!(ran.stdout.contains(&expected), "{}", ran.stdout);
    assert!(ran.stdout.contains("\nWhat to do: "), "{}", ran.stdout);
    assert!(!ran.stdout.contains(&tokens.access), "the token is repeated");
    let passed = place.run(&["explain", "--path", "/x"], &tokens.access);
    assert!(
        passed.stdout.starts_with("PASSED\n") && passed.stdout.contains("  x-auth-scope: read write"),
        "{}",
        passed.stdout
    );

    // A refresh token: twice, and then it still works.
    for _ in 0..2 {
        let (said, code) = world.explain(&[], &tokens.refresh);
        assert_eq!((&said["kind"], code), (&Value::from("refresh"), Some(0)), "{said}");
        assert_eq!(
            said["rules"][3]["detail"],
            "the token has the current generation, so the request would get a new pair of tokens"
        );
    }
    assert_eq!(figures().await, before, "something was counted");
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
    let log = gate.log();
    let audited: Vec<_> = log.lines().filter(|line| line.contains("RG1701I")).collect();
    assert_eq!(audited.len(), 5, "{log}");
    assert!(audited[0].contains("/admin/users") && audited[0].contains("insufficient_scope"), "{audited:?}");
    assert!(!audited[0].contains("secret"), "a query is in the audit log: {audited:?}");
    assert!(
        ![&tokens.access, &tokens.refresh].into_iter().any(|token| log.contains(token.as_str())),
        "a token is logged"
    );
}

#[tokio::test]
async fn p58_a_question_that_is_none_is_refused_and_says_how_to_ask() {
    let world = world().await;
    let World { place, gate, tokens } = &world;
    let ran = place.run(&["explain"], &tokens.access);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("--path is missing"), "{}", ran.stderr);
    let ran = place.run(&["explain", "--path", "/x", "--header", "origin"], "");
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    for (arguments, said) in [(["--path", "/a b"], "path: "), (["--path", "orders"], "must begin with a slash")] {
        let ran = place.run(&[&["explain"][..], &arguments].concat(), "");
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    // The command needs the operator's token.
    for token in [None, Some(tokens.access.as_str())] {
        assert_eq!(gate.admin(Method::POST, "/v1/explain", token).await.status, StatusCode::UNAUTHORIZED);
    }
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    assert_eq!(
        gate.admin(Method::POST, "/v1/explain", Some(token.trim())).await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    assert_eq!(gate.admin(Method::GET, "/v1/explain", Some(token.trim())).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn p58_what_is_advised_about_a_scope_and_a_path_can_be_done_as_it_is_written() {
    let place = Place::new(&format!("{CONFIG}{ROUTES}"));
    let gate = place.start();
    place.point_commands_at(&gate);
    let password = "correct horse battery staple";
    let (user, account) = ("ada of 'B'", "acme");
    place.done(&["user", "add", user, "--account", account, "--stdin"], password);
    place.done(&["user", "add", user, "--stdin"], password);
    let fields = [("grant_type", "password"), ("client_id", "web"), ("username", user), ("password", password)];
    let log_in = async || gate.form("/acme/connect/token", &fields).await.tokens();
    let tokens = log_in().await;
    let explain = |path: &str, token: &str| place.run(&["explain", "--path", path], token).stdout;

    // The token may come with its scheme, as in a header.
    let said = explain("/admin/x", &format!("Bearer {}\n", tokens.access));
    let command = said.split_once("(rotogate ").and_then(|(_, rest)| rest.split_once(") and")).unwrap().0;
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(place.path("")).arg("-c").arg(format!("{} {command}", support::binary().display()));
    assert!(shell.status().unwrap().success(), "{command}");
    let tokens = log_in().await;
    assert_eq!(gate.get("/admin/x", &tokens.access).await.status, StatusCode::OK, "{said}");

    let other = gate.login().await;
    let said = explain("/ADMIN/x", &other.access);
    assert!(said.contains("`loose_match = false` on this route"), "{said}");
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&config.replace("path = \"/{*rest}\"\n", "path = \"/{*rest}\"\nloose_match = false\n"));
    place.done(&["reload"], "");
    assert_eq!(gate.get("/ADMIN/x", &other.access).await.status, StatusCode::OK);

    let ran = place.run(&["explain", "--path", "/x", "--host", "other.test"], &other.access);
    assert!(ran.stdout.contains("neither a route nor `public_url` has the host other.test"), "{}", ran.stdout);
}

const ENDPOINTS: &str = r#"
[api_keys]
prefix = "acme"
header = "x-api-key"
[[clients]]
id = "ios"
[[clients]]
id = "own"
scopes = ["read"]
grants = ["client_credentials"]
secret_hash = "SECRET"
[[endpoints]]
dialect = "envelope"
path = "/api/v2/auth/token"
client = "web"
[[endpoints]]
dialect = "my-sessions"
[[endpoints]]
dialect = "my-keys"
"#;

/// A gate with many endpoints, and the secret of its client `own`.
async fn many() -> (World, String) {
    let place = Place::new(CONFIG);
    let made = place.json(&["client", "secret"], "");
    let more = ENDPOINTS.replace("SECRET", made["secret_hash"].as_str().unwrap());
    place.write_config(&format!("{CONFIG}{more}{ROUTES}"));
    let gate = place.start();
    place.point_commands_at(&gate);
    let tokens = gate.login().await;
    (World { place, gate, tokens }, made["client_secret"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn p58_what_the_head_decides_at_an_endpoint_is_explained_and_the_rest_is_called_undecided() {
    let (world, _) = many().await;
    let World { place, gate, tokens } = &world;
    let key = place.json(&["api-key", "create", "nightly", "--user", "demo"], "")["key"].as_str().unwrap().to_owned();
    keep_secret(&key);
    let table = [
        ("GET", "/connect/token", "", "method_not_allowed"),
        ("GET", "/api/v2/auth/token", "", "method_not_allowed"),
        ("POST", "/.well-known/jwks.json", "", "method_not_allowed"),
        ("GET", "/.well-known/jwks.json", "", "answered"),
        ("GET", "/sessions", "", "no_credential"),
        ("POST", "/sessions", &tokens.access, "method_not_allowed"),
        ("GET", "/sessions", &key, "unusable_credential"),
        ("GET", "/sessions", &tokens.access, "answered"),
        ("GET", "/keys", "", "no_credential"),
        ("POST", "/keys", "", "no_credential"),
        ("GET", "/keys?all", &tokens.access, "malformed_request"),
        ("GET", "/keys", &tokens.access, "answered"),
    ];
    for (method, path, token, outcome) in table {
        let (said, code) = world.explain(&["--path", path, "--method", method], token);
        let bearer = format!("Bearer {token}");
        let sent = [("authorization", bearer.as_str())];
        let sent = if token.is_empty() { &sent[..0] } else { &sent[..] };
        let answer = gate.call(method.parse::<Method>().unwrap(), path, sent, "").await;
        assert_eq!(said["outcome"], outcome, "{method} {path}: {said}");
        let status = if outcome == "answered" { Value::Null } else { answer.status.as_u16().into() };
        assert_eq!((&said["status"], answer.status.is_success()), (&status, outcome == "answered"), "{said}");
        assert_eq!(code, Some(if outcome == "answered" { 0 } else { 1 }), "{said}");
    }
    let ran = place.run(&["explain", "--path", "/connect/token"], "");
    let expected = "FAIL  route       the gate itself responds: oauth2.token serves POST, not GET; ";
    assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    for (path, token) in [("/connect/token", ""), ("/keys", tokens.access.as_str())] {
        let ran = place.run(&["explain", "--path", path, "--method", "POST"], token);
        assert!(ran.stdout.starts_with("UNDECIDED: the endpoint's decision depends on"), "{}", ran.stdout);
        assert_eq!(ran.code, Some(1), "{path}");
    }
}

#[tokio::test]
async fn p58_a_refresh_token_is_explained_at_the_endpoint_of_the_path_as_this_endpoint_answers() {
    let (world, _) = many().await;
    let World { place, gate, tokens } = &world;
    let password = "correct horse battery staple";
    place.done(&["user", "add", "ada", "--account", "acme", "--stdin"], password);
    let fields = [("grant_type", "password"), ("client_id", "web"), ("username", "ada"), ("password", password)];
    let of_acme = gate.form("/acme/connect/token", &fields).await.tokens();
    let body = serde_json::json!({ "username": "demo", "password": gate.password }).to_string();
    let json = [("content-type", "application/json")];
    let pair = gate.call(Method::POST, "/api/v2/auth/token", &json, &body).await.json();
    let of_envelope = pair["content"][0]["refreshToken"].as_str().unwrap().to_owned();
    [&of_acme.refresh, &of_envelope].into_iter().for_each(|token| keep_secret(token));
    let table: [(&str, &str, &str, &str); 7] = [
        ("/connect/token", "web", &tokens.refresh, "answered"),
        ("/connect/token", "ios", &tokens.refresh, "other_client"),
        ("/connect/token", "nope", &tokens.refresh, "invalid_client"),
        ("/connect/token", "nope", "rg1_junk", "invalid_client"),
        ("/connect/token", "web", &of_envelope, "other_dialect"),
        ("/other/connect/token", "web", &of_acme.refresh, "other_account"),
        ("/acme/connect/token", "web", &of_acme.refresh, "answered"),
    ];
    for (path, client, token, outcome) in table {
        let (said, code) = world.explain(&["--path", path, "--method", "POST", "--client", client], token);
        assert_eq!((&said["outcome"], &said["kind"]), (&outcome.into(), &"refresh".into()), "{path}: {said}");
        let fields = [("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)];
        let answer = gate.form(path, &fields).await;
        let is_good = outcome == "answered";
        assert_eq!((answer.status.is_success(), code), (is_good, Some(i32::from(!is_good))), "{path}: {answer:?}");
        let status = if is_good { Value::Null } else { answer.status.as_u16().into() };
        assert_eq!(said["status"], status, "{path} {client}: {said}");
    }
    // The head is judged first; on a route the token is no access token.
    for (path, method, outcome) in [
        ("/connect/token", "GET", "method_not_allowed"),
        ("/Connect/token", "POST", "near_miss"),
        ("/x", "GET", "malformed_token"),
    ] {
        assert_eq!(world.explain(&["--path", path, "--method", method], &of_envelope).0["outcome"], outcome, "{path}");
    }
}

#[tokio::test]
async fn p58_what_is_advised_about_a_scope_fits_the_owner_of_the_token() {
    let (world, secret) = many().await;
    let World { place, gate, .. } = &world;
    let advice = |token: &str| world.explain(&["--path", "/admin/x"], token).0["advice"].as_str().unwrap().to_owned();
    let key = |owner: [&str; 2]| {
        let made = place.json(&[&["api-key", "create", "nightly"][..], &owner].concat(), "");
        made["key"].as_str().unwrap().to_owned()
    };
    place.write_config(
        &std::fs::read_to_string(place.path("gateway.toml"))
            .unwrap()
            .replace("scopes = [\"admin\"]\n", "scopes = [\"admin\"]\ncredentials = [\"token\", \"key\"]\n"),
    );
    place.done(&["reload"], "");
    let of_demo = key(["--user", "demo"]);
    let said = advice(&of_demo);
    assert!(
        said.starts_with("Give demo the scope admin (rotogate user add-scope demo admin). Make another API key: "),
        "{said}"
    );
    // The key row says that a key has no signature, and nothing is called unverified.
    let ran = place.run(&["explain", "--path", "/admin/x"], &of_demo);
    assert!(ran.stdout.contains("skip  key         an API key has no signature"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("unverified"), "{}", ran.stdout);
    // A user who has the scope meanwhile, with a token and with a key of before.
    let before = gate.login().await;
    place.done(&["user", "add-scope", "demo", "admin"], "");
    let said = advice(&before.access);
    assert!(
        said.contains("demo has the scope admin: log in again, with scope=") && !said.contains("add-scope"),
        "{said}"
    );
    let narrow = place.json(&["api-key", "create", "narrow", "--user", "demo", "--scopes", "read"], "");
    let said = advice(narrow["key"].as_str().unwrap());
    let command =
        said.strip_prefix("Make another API key: rotogate ").and_then(|rest| rest.split_once("; ")).unwrap().0;
    let mut shell = std::process::Command::new("sh");
    let script = format!("{} {}", support::binary().display(), command.replace("NAME", "wide"));
    shell.current_dir(place.path("")).arg("-c").arg(script);
    assert!(shell.status().unwrap().success(), "{command}");
    // A client for itself.
    let fields = [("grant_type", "client_credentials"), ("client_id", "own"), ("client_secret", &secret)];
    let own = gate.form("/connect/token", &fields).await.json()["access_token"].as_str().unwrap().to_owned();
    let said = advice(&own);
    assert!(said.starts_with("Allow admin for the client own, which may have read ("), "{said}");
    assert!(said.ends_with("Request the token with scope=read admin."), "{said}");
    let said = advice(&key(["--client", "own"]));
    assert!(said.starts_with("Allow read admin for the client own"), "{said}");
    assert!(said.contains("rotogate api-key create NAME --client own --scopes 'read admin'"), "{said}");
}

#[tokio::test]
async fn p58_an_api_key_where_none_is_taken_is_called_so_and_a_refused_request_has_no_upstream() {
    let (world, _) = many().await;
    let place = &world.place;
    let made = place.json(&["api-key", "create", "nightly", "--user", "demo"], "");
    let key = made["key"].as_str().unwrap();
    let header = format!("x-api-key: {key}");
    for (arguments, token, name, outcome) in [
        (&["--path", "/x"][..], key, "authorization", "unusable_credential"),
        (&["--path", "/x", "--header", &header], "", "x-api-key", "no_credential"),
    ] {
        let (said, _) = world.explain(arguments, token);
        assert_eq!(said["outcome"], outcome, "{said}");
        assert_eq!(failed(&said)["detail"], format!("the API key is in {name}, but the route accepts token"), "{said}");
        assert!(said["advice"].as_str().unwrap().starts_with("Add \"key\" to the route's `credentials`"), "{said}");
    }
    let ran = place.run(&["explain", "--path", "/ADMIN/x"], &world.tokens.access);
    assert!(ran.stdout.starts_with("REFUSED 404 ambiguous_path\n"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("The upstream gets"), "{}", ran.stdout);
}

#[tokio::test]
async fn p58_an_unknown_listener_and_an_unknown_member_of_a_question_are_named() {
    let world = world().await;
    let World { place, gate, tokens } = &world;
    let ran = place.run(&["explain", "--path", "/x", "--listener", "public"], &tokens.access);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("there is no listener public; known listeners: none, because no listener has a `name`"),
        "{}",
        ran.stderr
    );
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let ask = async |body: &str| {
        let request = http::Request::post(format!("http://{}/v1/explain", gate.admin));
        let request = request.header("authorization", &bearer).header("content-type", "application/json");
        support::send(request.body(body.to_owned().into()).unwrap()).await
    };
    for (body, expected) in [
        (r#"{"tokn": "geheim"}"#, "unknown member tokn: expected one of `path`, `method`"),
        (r#"{"headers": "geheim"}"#, "expected a sequence"),
        (r#"{"kind": "geheim"}"#, "expected one of `access`, `refresh`, `assertion`"),
        (r#"{"path": geheim}"#, "line 1, column "),
    ] {
        let answer = ask(body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.contains(expected) && !text.contains("geheim"), "{body}: {text}");
    }
}

#[tokio::test]
async fn p58_a_session_that_ended_with_others_is_not_called_live() {
    let world = world().await;
    let World { place, gate, tokens } = &world;
    let (said, _) = world.explain(&["--path", "/x"], &tokens.access);
    let session = said["token"]["session"].as_str().unwrap().to_owned();
    place.done(&["session", "revoke", "--user", "demo"], "");
    let detail = |said: &Value, name: &str| {
        let rules = said["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["rule"] == name).unwrap()["detail"].as_str().unwrap().to_owned()
    };
    let (said, _) = world.explain(&["--path", "/x"], &tokens.access);
    assert!(detail(&said, "revocation").starts_with(&format!("session {session} not-before, ")), "{said}");
    let (said, _) = world.explain(&[], &tokens.refresh);
    assert!(detail(&said, "session").starts_with("not-before, "), "{said}");
    assert_eq!(place.json(&["session", "show", &session], "")["status"], "not-before");
    // The end of this session alone is durable when it is acknowledged, whatever else is under way.
    assert_eq!(
        place.done(&["session", "revoke", &session], "").stdout,
        format!("session {session} had already ended\n")
    );
    assert_eq!(place.json(&["session", "show", &session], "")["status"], "operator");
    // A disabled user.
    let tokens = gate.login().await;
    place.done(&["user", "disable", "demo"], "");
    let (said, _) = world.explain(&[], &tokens.refresh);
    if said["outcome"] == "user_inactive" {
        assert_eq!(said["advice"], "Enable the user with `rotogate user enable demo`, then log in again.", "{said}");
    } else {
        panic!("{said}");
    }
}

const CALLS: &str = r#"
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["http://gate.test/mcp"]
jwks_file = "idp.json"
scopes = ["mcp", "files.write"]
[[resources]]
path = "/mcp"
authorization_servers = ["https://idp.test/"]
mcp = { check = "headers" }
[[routes]]
path = "/mcp"
resource = "/mcp"
issuers = ["idp"]
scopes = ["mcp"]
upstream = "app"
[[routes]]
resource = "/mcp"
calls = ["tools/call:delete_*"]
scopes = ["files.write"]
[[routes]]
resource = "/mcp"
calls = ["*"]
"#;

#[tokio::test]
async fn m20_what_is_explained_of_a_call_is_what_the_gate_answers() {
    let (place, idp) = (Place::new(&format!("{CONFIG}{CALLS}")), Issuer::new(5));
    std::fs::write(place.path("idp.json"), serde_json::json!({ "keys": [idp.jwk("k1")] }).to_string()).unwrap();
    let gate = place.start();
    place.point_commands_at(&gate);
    let token = idp.token(&serde_json::json!({ "aud": "http://gate.test/mcp", "scope": "mcp" }));
    keep_secret(&token);
    for (name, outcome) in [("read_file", "passed"), ("delete_all", "insufficient_scope")] {
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", name)];
        let written = headers.map(|(header, value)| format!("{header}: {value}"));
        let mut arguments = vec!["--json", "explain", "--path", "/mcp", "--method", "POST"];
        arguments.extend(written.iter().flat_map(|header| ["--header", header]));
        let ran = place.run(&arguments, &token);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(
            (&said["outcome"], ran.code),
            (&Value::from(outcome), Some(i32::from(outcome != "passed"))),
            "{said}"
        );
        let message =
            serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": name } });
        let bearer = format!("Bearer {token}");
        let sent = [&headers[..], &[("authorization", &bearer), ("content-type", "application/json")]].concat();
        let answer = gate.call(Method::POST, "/mcp", &sent, &message.to_string()).await;
        match outcome {
            "passed" => assert_eq!((&said["status"], answer.status), (&Value::Null, StatusCode::OK)),
            _ => assert_eq!(said["status"], answer.status.as_u16(), "{said}"),
        }
    }
}
