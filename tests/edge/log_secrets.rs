//! P38: no output holds a secret.

use std::fs::{self, File};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use serde_json::json;

use super::issuer::{Issuer, URL};
use support::keep_secret;
use support::stub::{Edge, HEAD, ROUTES, tokens};

/// A secret to search for, and its description.
struct Secret {
    what: &'static str,
    text: String,
}

/// The encodings in which an output may contain a text.
fn spellings(text: &str) -> Vec<String> {
    let json = serde_json::to_string(text).unwrap();
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let bytes = format!("{:?}", text.as_bytes());
    // The part of base64 that does not depend on the preceding bytes.
    let base64 = (0..3).map(|offset| {
        let encoded = STANDARD.encode([&vec![b' '; offset][..], text.as_bytes()].concat());
        encoded.trim_end_matches('=')[(offset * 8).div_ceil(6)..].to_owned()
    });
    // The part must not depend on the following bytes either.
    let base64: Vec<String> = base64.map(|text| text[..text.len() - 2].to_owned()).collect();
    let url = base64.iter().map(|text| text.replace('+', "-").replace('/', "_"));
    [
        text.to_owned(),
        json.trim_matches('"').to_owned(),
        form_urlencoded::byte_serialize(text.as_bytes()).collect(),
        hex,
        bytes.trim_matches(['[', ']']).to_owned(),
    ]
    .into_iter()
    .chain(url)
    .chain(base64.clone())
    .collect()
}

/// The secrets that an output contains.
fn found<'a>(output: &str, secrets: &'a [Secret]) -> Vec<&'a str> {
    let is_in = |secret: &&Secret| {
        assert!(secret.text.len() >= 12, "{} is too short to be looked for", secret.what);
        spellings(&secret.text).iter().any(|spelling| output.contains(spelling))
    };
    secrets.iter().filter(is_in).map(|secret| secret.what).collect()
}

#[test]
fn p38_the_search_finds_a_secret_in_each_spelling() {
    let secrets = [Secret { what: "it", text: "s3cr\"t/and+more?".to_owned() }];
    let text = &secrets[0].text;
    let basic = STANDARD.encode(format!("svc:{text}"));
    for spelling in spellings(text).into_iter().chain([basic, URL_SAFE_NO_PAD.encode(format!("ab{text}c"))]) {
        assert_eq!(found(&format!("before {spelling} after"), &secrets), ["it"], "{spelling}");
    }
    assert!(found("before s3cr after", &secrets).is_empty());
}

#[test]
fn p38_no_output_holds_a_secret_whatever_is_done_with_it() {
    let folder = support::target_folder("test-output");
    let file = |name: &str| folder.join(format!("log-secrets-{name}-{}.log", std::process::id()));
    let (stderr, access) = (file("stderr"), file("access"));
    let issuer = Issuer::new(1);
    let jwks = json!({ "keys": [issuer.jwk("k1")] });
    // The hash comes from the command line, as an operator makes it.
    let maker = support::Place::new(&format!("{HEAD}{ROUTES}"));
    let made = maker.run(&["--json", "client", "secret"], "");
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let (service, hash) =
        (made["client_secret"].as_str().unwrap().to_owned(), made["secret_hash"].as_str().unwrap().to_owned());
    keep_secret(&service);
    let config = format!(
        "{}{ROUTES}cookie = \"token\"\n[log]\nformat = \"json\"\nlevel = \"trace\"\n[access_log]\noutput = \"{}\"\n\
         [[clients]]\nid = \"svc\"\ngrants = [\"client_credentials\"]\nsecret_hash = \"{hash}\"\n\
         [[issuers]]\nurl = \"{URL}\"\naudience = [\"api\"]\njwks_file = \"idp.json\"\neverywhere = true\n",
        HEAD.replace("[store]\nkind = \"memory\"\n", ""),
        access.display(),
    );
    let edge = Edge::with(
        &config,
        |place| fs::write(place.path("idp.json"), jwks.to_string()).unwrap(),
        |command| {
            command.env("ROTOGATE_LOG", "trace").stderr(File::create(&stderr).unwrap());
        },
    );
    let mut secrets = Vec::new();
    let mut add = |what, text: &str| {
        keep_secret(text);
        secrets.push(Secret { what, text: text.to_owned() });
    };
    let signature = |token: &str| token.rsplit_once('.').unwrap().1.to_owned();
    let mut said = Vec::new();

    // Passwords, right, wrong, and typed into the wrong field.
    let first = edge.login();
    let (wrong, typed) = ("wrong-password-0815", "typed-into-the-wrong-field");
    said.push(edge.try_login(&[], "demo", wrong));
    said.push(edge.try_login(&[], typed, wrong));
    add("the password", &edge.gate.password);
    add("a wrong password", wrong);
    add("a password in the place of the name", typed);
    // Tokens, in every place and state.
    let second = tokens(&edge.refresh(&[], &first.refresh));
    said.push(edge.ask_as(&second.access, "GET /private/bearer", &[]));
    said.push(edge.ask("GET /private/cookie", &[&format!("Cookie: token={}", second.access)]));
    said.push(edge.ask(&format!("GET /private/query?access_token={}", second.access), &[]));
    said.push(edge.ask(&format!("GET /private?password={typed}&code=authorization-code-4711"), &[]));
    said.push(edge.ask("GET /private", &["Cookie: session=cookie-of-an-application"]));
    said.push(
        edge.ask("GET /public/x", &["X-Api-Key: key-of-an-application", "Cookie: session=cookie-of-an-application"]),
    );
    said.push(edge.ask_as(&format!("{}x", second.access), "GET /private/forged", &[]));
    let foreign = issuer.token(&json!({ "scope": "other" }));
    said.push(edge.ask_as(&foreign, "GET /private/foreign", &[]));
    said.push(edge.ask_as(&issuer.token(&json!({ "exp": 1 })), "GET /private/expired", &[]));
    said.push(edge.refresh(&[], "rg1_never-issued-by-anybody-0123456789"));
    said.push(edge.form("/connect/introspect", &[], &[("token", &second.access)]));
    for (what, token) in
        [("an access token", &first.access), ("a second access token", &second.access), ("a foreign token", &foreign)]
    {
        add(what, token);
        add(what, &signature(token));
    }
    add("a refresh token", &first.refresh);
    add("a second refresh token", &second.refresh);
    add("a refresh token of nobody", "rg1_never-issued-by-anybody-0123456789");
    add("a query", "authorization-code-4711");
    add("a cookie", "cookie-of-an-application");
    add("a header", "key-of-an-application");
    // Clients with a secret, in both places, right and wrong.
    let basic = |secret: &str| format!("Authorization: Basic {}", STANDARD.encode(format!("svc:{secret}")));
    let grant = [("grant_type", "client_credentials")];
    let granted = edge.form("/connect/token", &[&basic(&service)], &grant);
    assert_eq!(granted.status, 200, "{granted:?}");
    add("a token of a client", granted.json()["access_token"].as_str().unwrap());
    said.push(edge.form("/connect/token", &[&basic("wrong-client-secret")], &grant));
    said.push(edge.form(
        "/connect/token",
        &[],
        &[("client_id", "svc"), ("client_secret", "wrong-client-secret"), grant[0]],
    ));
    add("a client's secret", &service);
    add("a wrong client's secret", "wrong-client-secret");
    add("a client's hash", &hash);
    // Bodies, small and refused.
    let mut wire = edge.wire();
    wire.head("POST /private", &["Host: gate.test", "Content-Length: 21"]);
    wire.send(b"the-body-of-a-request");
    said.push(wire.reply());
    add("a body", "the-body-of-a-request");
    // The operator's token.
    let token = fs::read_to_string(edge.place.path("data/admin.token")).unwrap();
    add("the admin token", token.trim());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (token, path) in
        [(token.trim(), "/v1/sessions"), ("no-token-of-any-admin", "/v1/sessions"), (token.trim(), "/v1/nothing")]
    {
        runtime.block_on(edge.gate.admin(Method::GET, path, Some(token)));
    }
    add("a wrong admin token", "no-token-of-any-admin");
    for entry in fs::read_dir(edge.place.path("data/keys")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "pem" || kind == "secret") {
            let text = fs::read_to_string(path).unwrap();
            text.lines()
                .filter(|line| !line.starts_with("-----") && line.len() >= 12)
                .for_each(|line| add("a key", line));
        }
    }
    let users = fs::read_to_string(edge.place.path("data/users.toml")).unwrap();
    let hash = users.lines().find_map(|line| line.strip_prefix("password = ")).unwrap();
    add("a password's hash", hash.trim_matches('"'));
    // Reuse and revocation, a reload, and the end.
    said.push(edge.refresh(&[], &second.refresh));
    said.push(edge.refresh(&[], &first.refresh));
    said.push(edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &second.refresh)]));
    edge.place
        .write_config(&fs::read_to_string(edge.place.path("gateway.toml")).unwrap().replace("[issuer]", "[isuer]"));
    edge.gate.signal("HUP");
    let mut outputs = vec![edge.metrics()];
    let Edge { gate, .. } = edge;
    let log = fs::read_to_string(&stderr).unwrap();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the levels that say most");
    assert_eq!(gate.stop(), Some(0));
    outputs.extend([&stderr, &access].map(|path| fs::read_to_string(path).unwrap()));
    assert!(outputs.iter().all(|output| output.lines().count() > 20));
    let refused = said.into_iter().filter(|reply| reply.status >= 400);
    outputs.extend(refused.map(|reply| format!("{:?}{}", reply.headers, reply.text())));
    assert!(secrets.len() > 20);
    let found: Vec<_> = outputs.iter().flat_map(|output| found(output, &secrets)).collect();
    assert!(found.is_empty(), "{found:?}");
}
