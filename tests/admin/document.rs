//! `/v1/openapi.json` describes the answers of the gate.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::{Answer, Place, keep_secret, with};

use super::{Ask, admin_token, with_tokens, write_token};

const VIEWER: &str = "the-viewer-token-of-the-document-1";

/// A request to an operation: the method, the path template, the path, and a body.
struct Case {
    method: &'static str,
    path: &'static str,
    asked: String,
    body: &'static str,
}

fn case(method: &'static str, path: &'static str, asked: impl Into<String>, body: &'static str) -> Case {
    Case { method, path, asked: asked.into(), body }
}

/// The document, against which answers are checked.
struct Document(Value);

impl Document {
    fn operations(&self) -> BTreeSet<(String, String)> {
        let items = self.0["paths"].as_object().unwrap().iter();
        items
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()))
            })
            .collect()
    }

    /// Fails if the document does not describe the answer. Returns its status.
    fn check(&self, case: &Case, answer: &Answer) -> u16 {
        let Case { method, path, asked, .. } = case;
        let responses = &self.0["paths"][path][method.to_lowercase()]["responses"];
        let status = answer.status.as_u16();
        let described = [status.to_string(), format!("{}XX", status / 100)];
        let described = described.iter().find_map(|status| responses.get(status));
        let described = described.unwrap_or_else(|| panic!("{method} {asked}: {status} is not described: {answer:?}"));
        let Some(content) = described.get("content") else {
            assert!(answer.body.is_empty(), "{method} {asked}: {answer:?}");
            return status;
        };
        let media = answer.headers["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let schema = content.get(&media).unwrap_or_else(|| panic!("{method} {asked}: {media} is not described"));
        if !matches!(&*media, "application/json" | "application/problem+json") {
            return status;
        }
        let mut schema = schema["schema"].clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let document = answer.json();
        let wrong: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{method} {asked}: {wrong:?}: {document}");
        status
    }
}

#[tokio::test]
async fn o45_p49_every_operation_answers_as_the_document_says_errors_too() {
    let tokens = with_tokens(&[("vera", "viewer", "vera.token")]);
    // An issuer that never answers.
    let issuer = "[[issuers]]\nname = \"away\"\nurl = \"http://127.0.0.1:1\"\naudience = [\"api\"]\njwks_url = \"http://127.0.0.1:1/jwks\"\neverywhere = true\n";
    let place = Place::new(&format!("{}{issuer}", with(&tokens, "api_keys", "prefix = \"acme\"")));
    write_token(&place, "vera.token", VIEWER);
    let gate = place.start();
    let token = admin_token(&place);
    let session =
        place.json(&["token", "inspect"], &gate.login().await.refresh)["session"].as_str().unwrap().to_owned();
    let document = Ask::without(&gate).get("/v1/openapi.json").await;
    let checked_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    assert_eq!(document.json(), serde_json::from_slice::<Value>(&std::fs::read(checked_in).unwrap()).unwrap());
    let document = Document(document.json());
    let key = "{\"name\":\"nightly\",\"user\":\"demo\"}";
    let made = Ask::with(&gate, &token).post("/v1/api-keys", key).await.json();
    keep_secret(made["key"].as_str().unwrap());
    let id = made["id"].as_str().unwrap();

    let cases = [
        case("GET", "/livez", "/livez", ""),
        case("GET", "/readyz", "/readyz", ""),
        case("GET", "/metrics", "/metrics", ""),
        case("GET", "/v1/openapi.json", "/v1/openapi.json", ""),
        case("GET", "/v1/status", "/v1/status", ""),
        case("GET", "/v1/sessions", "/v1/sessions?limit=1", ""),
        case("GET", "/v1/sessions/{id}", format!("/v1/sessions/{session}"), ""),
        case("GET", "/v1/revocations", "/v1/revocations", ""),
        case("GET", "/v1/keys", "/v1/keys", ""),
        case("GET", "/v1/api-keys", "/v1/api-keys", ""),
        case("POST", "/v1/api-keys", "/v1/api-keys", key),
        case("POST", "/v1/api-keys/{id}/rotate", format!("/v1/api-keys/{id}/rotate"), "{}"),
        case("POST", "/v1/api-keys/{id}/revoke", format!("/v1/api-keys/{id}/revoke"), ""),
        case("POST", "/v1/api-keys/leaked", "/v1/api-keys/leaked", "{\"keys\":[\"junk\"]}"),
        case("GET", "/v1/routes", "/v1/routes", ""),
        case("GET", "/v1/upstreams", "/v1/upstreams", ""),
        case("GET", "/v1/issuers", "/v1/issuers", ""),
        case("GET", "/v1/config", "/v1/config", ""),
        case("GET", "/v1/events", "/v1/events", ""),
        case("GET", "/v1/refused", "/v1/refused?limit=1", ""),
        case("POST", "/v1/explain", "/v1/explain", "{\"path\":\"/x\"}"),
        case("POST", "/v1/config/check", "/v1/config/check", ""),
        case("POST", "/v1/config/reload", "/v1/config/reload", ""),
        case("POST", "/v1/users/reload", "/v1/users/reload", ""),
        case("POST", "/v1/issuers/{name}/drop", "/v1/issuers/away/drop", ""),
        case("POST", "/v1/sessions/{id}/revoke", format!("/v1/sessions/{session}/revoke"), ""),
        case("POST", "/v1/revocations", "/v1/revocations", "{\"all\":true}"),
        case("GET", "/v1/users", "/v1/users?name=dem&limit=1", ""),
        case("POST", "/v1/users", "/v1/users", "{\"user\":\"ada\",\"scopes\":\"read\"}"),
        case("POST", "/v1/users/password", "/v1/users/password", "{\"user\":\"demo\"}"),
        case("POST", "/v1/users/enable", "/v1/users/enable", "{\"user\":\"demo\"}"),
        case("POST", "/v1/users/disable", "/v1/users/disable", "{\"user\":\"demo\"}"),
        // A key that is retired by force takes along what was not written with the newer one.
        case("POST", "/v1/keys/rotate", "/v1/keys/rotate", "{\"refresh\":true}"),
        case("POST", "/v1/keys/{kid}/promote", "/v1/keys/refresh-2/promote", "{}"),
        case("POST", "/v1/keys/{kid}/retire", "/v1/keys/refresh-1/retire", "{\"force\":true}"),
        case("POST", "/v1/store/backup", "/v1/store/backup", ""),
    ];
    let mut answered: BTreeMap<(String, String), BTreeSet<u16>> = BTreeMap::new();
    let mut note = |case: &Case, status: u16| {
        answered.entry((case.method.to_owned(), case.path.to_owned())).or_default().insert(status);
    };
    for case in &cases {
        let answer = Ask::with(&gate, &token).send(case.method, &case.asked, case.body).await;
        let status = document.check(case, &answer);
        assert!(matches!(status, 200 | 202 | 204), "{} {}: {answer:?}", case.method, case.asked);
        note(case, status);
    }
    // A name that may be ambiguous is refused everywhere, and the document says so (requirement O45).
    for case in &cases {
        let answer =
            Ask::with(&gate, &token).header("host", "evil.example").send(case.method, &case.asked, case.body).await;
        assert_eq!(document.check(case, &answer), 421, "{} {}", case.method, case.asked);
    }
    // Errors: without a token, with an insufficient role, of another origin, with a bad parameter or body, of an unknown
    // object.
    let others = [
        case("POST", "/v1/issuers/{name}/refresh", "/v1/issuers/away/refresh", ""),
        case("POST", "/v1/issuers/{name}/refresh", "/v1/issuers/nobody/refresh", ""),
        case("POST", "/v1/issuers/{name}/drop", "/v1/issuers/nobody/drop", ""),
        case("GET", "/v1/sessions/{id}", "/v1/sessions/nobody", ""),
        case("POST", "/v1/sessions/{id}/revoke", "/v1/sessions/nobody/revoke", ""),
        case("POST", "/v1/revocations", "/v1/revocations", "{\"client\":\"nobody\"}"),
        case("POST", "/v1/revocations", "/v1/revocations", "{}"),
        case("GET", "/v1/events", "/v1/events?limit=0", ""),
    ];
    for case in &others {
        let answer = Ask::with(&gate, &token).send(case.method, &case.asked, case.body).await;
        assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{}: {answer:?}", case.asked);
        note(case, document.check(case, &answer));
    }
    for case in
        cases.iter().chain(&others).filter(|case| case.path.starts_with("/v1/") && case.path != "/v1/openapi.json")
    {
        let unknown = Case { asked: format!("{}?nosuch=1", case.path.replace(['{', '}'], "")), ..*case };
        let asks = [
            (Ask::without(&gate), case, 401),
            (Ask::with(&gate, VIEWER), case, 403),
            (Ask::with(&gate, &token).header("origin", "http://evil.example"), case, 403),
            (Ask::with(&gate, &token).header("host", "evil.example"), case, 421),
            (Ask::with(&gate, &token), &unknown, 400),
        ];
        let is_view = case.method == "GET";
        for (ask, case, expected) in asks.into_iter().filter(|(.., expected)| !(is_view && *expected == 403)) {
            let answer = ask.send(case.method, &case.asked, case.body).await;
            let status = document.check(case, &answer);
            assert_eq!(status, expected, "{} {}: {answer:?}", case.method, case.asked);
            note(case, status);
        }
        // A method that the path does not serve.
        let answer = Ask::with(&gate, &token).send("DELETE", &case.asked, "").await;
        assert_eq!(answer.status.as_u16(), 405);
        assert!(answer.headers["allow"].to_str().unwrap().contains(case.method), "{answer:?}");
    }
    // A broken configuration, and a broken users file.
    place.write_config("[server]\nlisten = 1\n");
    std::fs::write(place.path("data/users.toml"), "broken").unwrap();
    for broken in ["/v1/config/reload", "/v1/users/reload"] {
        let case = case("POST", broken, broken, "");
        let answer = Ask::with(&gate, &token).post(broken, "").await;
        assert!(answer.status.is_client_error(), "{answer:?}");
        note(&case, document.check(&case, &answer));
    }
    assert_eq!(answered.keys().cloned().collect::<BTreeSet<_>>(), document.operations(), "each was asked");
    for ((method, path), statuses) in answered.iter().filter(|((_, path), _)| path.starts_with("/v1/")) {
        let has_error = statuses.iter().any(|status| *status >= 400);
        assert!(has_error || path == "/v1/openapi.json", "{method} {path}: {statuses:?}");
    }
    assert_eq!(document.0["openapi"], json!("3.1.0"));
}
