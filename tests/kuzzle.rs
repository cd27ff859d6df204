//! Kuzzle's clients on the real binary: the requests that their SDKs send, in their order.

pub(crate) mod client;
mod lasting;
mod socket;

mod jvm;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use client::{Client, error, invalid, jwt, result};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Answer, CONFIG, Gate, Place};

const KUZZLE: &str = r#"
[[routes]]
path = "/_publicApi"
auth = "none"
dialect = "kuzzle"
upstream = "app"
[[endpoints]]
dialect = "kuzzle"
"#;

/// [`CONFIG`] with Kuzzle's endpoints, and protected routes that refuse in its words.
fn config(endpoint: &str) -> String {
    let routes = CONFIG.replace("path = \"/{*rest}\"", "dialect = \"kuzzle\"\npath = \"/{*rest}\"");
    format!("{routes}{KUZZLE}{endpoint}")
}

#[tokio::test]
async fn j17_who_asks_for_two_seconds_gets_two_and_no_leeway() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let now = || u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    for asked in ["2s", "2000", "1.5s"] {
        let before = now();
        let login = client.login(&format!("expiresIn={asked}")).await;
        let expires = login["expiresAt"].as_u64().unwrap();
        let payload = jwt(&login).split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&STANDARD_NO_PAD.decode(payload).unwrap()).unwrap();
        assert_eq!(claims["exp"].as_u64().unwrap() * 1000, expires);
        let millis = if asked == "1.5s" { 1500 } else { 2000 };
        assert!(expires >= before + millis && expires < now() + millis + 1000, "rounded up to a second");
        let ttl = login["ttl"].as_u64().unwrap();
        assert!(ttl + 1000 > millis && ttl <= expires - before, "what is left of it: {ttl}");
        assert_eq!(gate.get("/hello", jwt(&login)).await.status, StatusCode::OK);
        support::until("it expires", async || {
            let late = now();
            let good = gate.get("/hello", jwt(&login)).await.status == StatusCode::OK;
            assert!(!good || late < expires, "it outlived its exp");
            !good
        })
        .await;
        assert!(now() >= expires, "it ended before its exp");
        assert_eq!(client.is_valid(jwt(&login)).await["valid"], false);
        assert_eq!(client.refresh(jwt(&login)).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn r1_the_javascript_sequence_refreshes_and_the_old_token_is_refused_at_once() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let api = result(&client.send(Method::GET, "/_publicApi", None, "").await);
    assert_eq!(api["auth"]["refreshToken"]["http"][0]["url"], "/_refreshToken");
    let nobody = result(&client.post("/_checkToken", None, "{}").await);
    assert_eq!(nobody, json!({ "valid": true, "expiresAt": -1, "kuid": "-1" }));

    let first = client.login("expiresIn=1h&verb=POST").await;
    assert_eq!(first["ttl"], 3_600_000);
    let kuid = first["_id"].as_str().unwrap();
    assert!(first["expiresAt"].as_u64().unwrap() > 1_700_000_000_000, "milliseconds");
    // The claims as the SDK reads them: plain base64, with Kuzzle's names.
    let payload = jwt(&first).split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&STANDARD_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(
        (&claims["_id"], claims["exp"].as_u64().unwrap() * 1000),
        (&json!(kuid), first["expiresAt"].as_u64().unwrap())
    );

    let hello = gate.get("/hello", jwt(&first)).await;
    assert_eq!((hello.status, hello.echoed("x-auth-subject")), (StatusCode::OK, vec![kuid.to_owned()]));
    let me = result(&client.send(Method::GET, "/_me", Some(jwt(&first)), "").await);
    assert_eq!((&me["_id"], &me["strategies"]), (&json!(kuid), &json!(["local"])));

    let second = result(&client.refresh(jwt(&first)).await);
    assert_ne!(jwt(&first), jwt(&second), "a token of its own even within the second");
    assert_eq!(second["_id"], kuid);
    assert_eq!(gate.get("/hello", jwt(&second)).await.status, StatusCode::OK);
    assert_eq!(error(&gate.get("/hello", jwt(&first)).await), invalid());
    assert_eq!(error(&client.send(Method::GET, "/_me", Some(jwt(&first)), "").await), invalid());
    // Concurrent tabs converge, and no tab gets the error for a revoked token meanwhile.
    assert_eq!(jwt(&result(&client.refresh(jwt(&first)).await)), jwt(&second));
    assert_eq!(client.is_valid(jwt(&first)).await["valid"], true);

    let third = result(&client.refresh(jwt(&second)).await);
    assert_eq!(error(&client.refresh(jwt(&first)).await), invalid());
    assert_eq!(client.is_valid(jwt(&first)).await["valid"], false);
    assert_eq!(gate.get("/hello", jwt(&third)).await.status, StatusCode::OK, "a reuse ends nothing else");

    let gone = result(&client.post("/_logout", Some(jwt(&third)), "").await);
    assert_eq!(gone, json!({ "acknowledged": true }));
    for dead in [&second, &third] {
        assert_eq!(error(&gate.get("/hello", jwt(dead)).await), invalid());
        assert_eq!(error(&client.refresh(jwt(dead)).await), invalid());
        assert_eq!(client.is_valid(jwt(dead)).await, json!({ "valid": false, "state": "Invalid token." }));
    }
}

/// Grace by the endpoint alone would let `checkToken` call a token valid that the refresh refuses.
#[tokio::test]
async fn check_token_and_refresh_obey_the_same_grace() {
    for (of_client, of_endpoint, is_good) in [("0s", "30s", false), ("30s", "0s", true)] {
        let profile = |grace: &str| format!("profile = {{ grace = \"{grace}\", lost_response_window = \"0s\" }}\n");
        let client = format!("[[clients]]\nid = \"web\"\n{}", profile(of_client));
        let endpoint = format!("client = \"web\"\n{}", profile(of_endpoint));
        let config = config(&endpoint);
        assert!(config.contains("[[clients]]\nid = \"web\"\n"));
        let place = Place::new(&config.replace("[[clients]]\nid = \"web\"\n", &client));
        let gate = place.start();
        let client = Client { gate: &gate };
        let first = client.login("").await;
        result(&client.refresh(jwt(&first)).await);
        assert_eq!(client.is_valid(jwt(&first)).await["valid"], is_good, "{of_client}");
        assert_eq!(client.refresh(jwt(&first)).await.status == StatusCode::OK, is_good, "{of_client}");
    }
}

#[tokio::test]
async fn the_jvm_sequence_goes_through_one_route() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    assert_eq!(error(&client.query(&json!({})).await), (400, "api.assert.missing_argument".into()));
    let api = client.send(Method::GET, "/_publicApi", None, "{}").await;
    assert_eq!(result(&api)["auth"]["login"]["http"][0]["path"], "/_login/:strategy");

    let volatile = json!({ "sdkName": "jvm@1" });
    let login = json!({
        "controller": "auth", "action": "login", "strategy": "local", "requestId": "1", "jwt": null, "expiresIn": null,
        "volatile": volatile, "body": { "username": "demo", "password": gate.password },
    });
    let answer = client.query(&login).await;
    let first = result(&answer);
    assert_eq!((&answer.json()["requestId"], &answer.json()["volatile"]), (&json!("1"), &volatile));
    assert_eq!(answer.headers["x-kuzzle-request-id"], "1");

    // Tokens in both places: the envelope's token wins.
    let refresh = json!({
        "controller": "auth", "action": "refreshToken", "jwt": jwt(&first), "expiresIn": null, "volatile": volatile,
    });
    let second = result(&client.post("/_query", Some("stale"), &refresh.to_string()).await);
    assert_eq!(error(&gate.get("/hello", jwt(&first)).await), invalid());

    let call = |token: &Value| json!({ "controller": "document", "action": "get", "_id": "d", "requestId": "2", "jwt": token, "volatile": volatile });
    let passed = client.query(&call(&second["jwt"])).await;
    assert_eq!(passed.status, StatusCode::OK, "{passed:?}");
    assert_eq!(passed.echoed("x-auth-subject"), [first["_id"].as_str().unwrap()]);
    assert_eq!(passed.echoed("authorization"), Vec::<String>::new());
    let body = passed.json()["body"].as_str().unwrap().to_owned();
    assert_eq!(passed.echoed("content-length"), [body.len().to_string()]);
    let mut expected = call(&Value::Null);
    expected.as_object_mut().unwrap().remove("jwt");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);

    // The header's token counts if the envelope has no token.
    let passed = client.post("/_query", Some(jwt(&second)), &call(&Value::Null).to_string()).await;
    assert_eq!(passed.status, StatusCode::OK, "{passed:?}");
    let refused = client.query(&call(&first["jwt"])).await;
    assert_eq!((error(&refused), &refused.json()["requestId"]), (invalid(), &json!("2")));
    let nobody = client.query(&call(&Value::Null)).await;
    assert_eq!(error(&nobody), (401, "security.rights.unauthorized".into()));
    assert_eq!(client.query(&call(&json!("a\r\nb"))).await.json()["error"]["id"], "security.token.invalid");

    let logout = json!({ "controller": "auth", "action": "logout", "global": true, "jwt": second["jwt"] });
    result(&client.query(&logout).await);
    assert_eq!(error(&client.query(&call(&second["jwt"])).await), invalid());
}

#[tokio::test]
async fn t22_a_call_in_an_envelope_obeys_the_rules_of_its_own_path() {
    let rules = "[[routes]]\npath = \"/users/{*rest}\"\nscopes = [\"admin\"]\nkuzzle = [\"some-plugin:*\"]\n\
                 dialect = \"kuzzle\"\nupstream = \"app\"\n\
                 [[routes]]\npath = \"/secret/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"app\"\n\
                 [[routes]]\nkuzzle = [\"some-plugin:open\", \"security:getUser\", \"*\"]\n";
    let place = Place::new(&config(rules));
    let gate = place.start();
    let client = Client { gate: &gate };
    let first = client.login("").await;
    let token = jwt(&first);
    let direct = client.send(Method::POST, "/users/evil/_create", Some(token), "{}").await;
    assert_eq!(error(&direct), (403, "security.rights.forbidden".into()));
    let call = async |name: &str, more: Value| {
        let (controller, action) = name.split_once(':').unwrap();
        let mut envelope = json!({ "controller": controller, "action": action, "jwt": token });
        envelope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        client.query(&envelope).await
    };
    let forbidden = (403, "security.rights.forbidden".to_owned());
    for (name, more) in [
        ("security:createUser", json!({ "_id": "evil" })),
        ("security:createUser", json!({})),
        ("security:deleteUser", json!({ "_id": "ada" })),
        ("document:get", json!({ "index": "secret", "collection": "c", "_id": "1" })),
        ("document:create", json!({ "index": "users", "collection": "c", "_id": "1" })),
        ("some-plugin:action", json!({})),
    ] {
        assert_eq!(error(&call(name, more).await), forbidden, "{name}");
    }
    let not_found = (404, "network.http.url_not_found".to_owned());
    let ambiguous = json!({ "index": "Secret", "collection": "c", "_id": "1" });
    assert_eq!(error(&call("document:get", ambiguous).await), not_found);
    let other = json!({ "index": ["secret"], "collection": "c", "_id": "1" });
    assert_eq!(error(&call("document:get", other).await), (400, "api.assert.invalid_type".to_owned()));
    // Calls that their own path permits, calls with a rule, and calls with neither.
    for (name, more) in [
        ("document:get", json!({ "index": "open", "collection": "c", "_id": "1" })),
        ("document:search", json!({ "index": "open", "collection": "c" })),
        ("server:now", json!({})),
        ("security:getUser", json!({ "_id": "ada" })),
        ("some-plugin:open", json!({})),
        ("realtime:subscribe", json!({ "index": "open", "collection": "c" })),
    ] {
        assert_eq!(call(name, more).await.status, StatusCode::OK, "{name}");
    }
}

#[tokio::test]
async fn t22_a_call_whose_path_no_route_serves_is_not_served_in_an_envelope_either() {
    let kuzzle = "[[endpoints]]\ndialect = \"kuzzle\"\n[[routes]]\npath = \"/_query\"\nauth = \"none\"\nupstream = \"app\"\n\
                  [[routes]]\npath = \"/{index}/{collection}/{*rest}\"\nkuzzle = [\"x:y\"]\nupstream = \"app\"\n";
    let everything = "[[routes]]\npath = \"/{*rest}\"\nupstream = \"app\"\n";
    let place = Place::new(&format!("{}{kuzzle}", CONFIG.replace(everything, "")));
    let gate = place.start();
    let client = Client { gate: &gate };
    let reset = json!({ "controller": "admin", "action": "resetDatabase" });
    assert_eq!(error(&client.query(&reset).await), (404, "network.http.url_not_found".into()));
    // The envelope's route is public, but the call's own path is not: the token counts, and the upstream gets the
    // caller.
    let get = |token: Option<&str>| {
        let args = json!({ "index": "i", "collection": "c", "_id": "1" });
        let mut envelope = json!({ "controller": "document", "action": "get", "jwt": token });
        envelope.as_object_mut().unwrap().extend(args.as_object().unwrap().clone());
        envelope
    };
    assert_eq!(error(&client.query(&get(None)).await), (401, "security.rights.unauthorized".into()));
    assert_eq!(error(&client.query(&get(Some("bad"))).await), invalid());
    let first = client.login("").await;
    let passed = client.query(&get(Some(jwt(&first)))).await;
    assert_eq!((passed.status, passed.echoed("x-auth-subject").len()), (StatusCode::OK, 1), "{passed:?}");
}

#[tokio::test]
async fn numbers_in_an_envelope_pass_as_they_were_written() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let token = client.login("").await;
    let rest =
        r#""controller":"document","action":"create","body":{"a":123456789012345678901234567890,"b":1.10,"c":1E2}}"#;
    let envelope = format!(r#"{{"jwt":"{}",{rest}"#, jwt(&token));
    let passed = client.post("/_query", None, &envelope).await;
    assert_eq!(passed.json()["body"], json!(format!("{{{rest}")));
    let twice = format!(r#"{{"jwt":"{}","jw\u0074":"x",{rest}"#, jwt(&token));
    assert_eq!(error(&client.post("/_query", None, &twice).await), (400, "network.http.body_parse_failed".into()));
}

/// The Java and the Kotlin example of the SDK's documentation: a login as foo, then `refreshToken("1h")`.
#[tokio::test]
async fn the_example_of_the_jvm_document_runs_as_printed() {
    let place = Place::new(&config(""));
    place.user_of_a_document("foo", "foo-1", "bar");
    let gate = place.start();
    let client = Client { gate: &gate };
    let call = |action: &str, more: Value| {
        let mut envelope =
            json!({ "controller": "auth", "action": action, "requestId": "1", "volatile": { "sdkName": "jvm@1" } });
        envelope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        envelope
    };
    let credentials = json!({ "strategy": "local", "body": { "username": "foo", "password": "bar" } });
    let first = result(&client.query(&call("login", credentials)).await);
    let asked = json!({ "jwt": jwt(&first), "expiresIn": "1h" });
    let second = result(&client.query(&call("refreshToken", asked)).await);
    // «The provided authentication token is revoked», «a new authentication token is generated and returned».
    assert_eq!(error(&gate.get("/hello", jwt(&first)).await), invalid());
    assert_eq!(gate.get("/hello", jwt(&second)).await.status, StatusCode::OK);
    let mut names: Vec<_> = second.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["_id", "expiresAt", "jwt", "ttl"]);
    assert_eq!(second["_id"], first["_id"]);
    let ttl = second["ttl"].as_i64().unwrap();
    assert!((3_590_000..=3_600_000).contains(&ttl), "{ttl} ms");
    assert_eq!(second["expiresAt"].to_string().len(), 13, "Epoch-millis");
    // «A valid, non-expired authentication must be provided.»
    assert_eq!(client.query(&call("refreshToken", json!({}))).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn r13_every_message_is_a_decision_of_its_own_and_a_second_credential_goes_nowhere() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let (good, over) = (client.login("").await, client.login("").await);
    assert_eq!(client.post("/_logout", Some(jwt(&over)), "").await.status, StatusCode::OK);
    let call = |token: Option<&str>, body: Value| {
        let mut call = json!({ "controller": "document", "action": "create", "requestId": "1", "body": body });
        if let Some(token) = token {
            call["jwt"] = token.into();
        }
        call.to_string()
    };
    // The envelope's token decides, and neither reaches the upstream.
    for header in [None, Some(jwt(&over)), Some("nonsense")] {
        let passed = client.post("/_query", header, &call(Some(jwt(&good)), json!({}))).await;
        assert_eq!(passed.status, StatusCode::OK, "{passed:?}");
        assert_eq!(passed.echoed("authorization"), Vec::<String>::new());
        assert!(!passed.json()["body"].as_str().unwrap().contains("jwt"));
    }
    for token in [jwt(&over), "nonsense", ""] {
        let refused = client.post("/_query", Some(jwt(&good)), &call(Some(token), json!({}))).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
    }
    // Deeper members are data: they authorise nothing, even if they look like an action.
    let inside =
        json!({ "jwt": jwt(&good), "requests": [{ "controller": "auth", "action": "logout", "jwt": jwt(&good) }] });
    let refused = client.post("/_query", None, &call(None, inside.clone())).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
    assert_eq!(client.post("/_query", Some(jwt(&good)), &call(None, inside)).await.status, StatusCode::OK);
    assert_eq!(gate.get("/hello", jwt(&good)).await.status, StatusCode::OK, "nobody logged out");
    // A repeated member has two readings.
    let twice = format!("{{\"jwt\":\"x\",{}", &call(Some(jwt(&good)), json!({}))[1..]);
    assert_eq!(client.post("/_query", None, &twice).await.status, StatusCode::BAD_REQUEST);
    // A superseded token: refused at once on every route; only the exchange accepts it.
    let next = result(&client.refresh(jwt(&good)).await);
    let refused = client.post("/_query", None, &call(Some(jwt(&good)), json!({}))).await;
    assert_eq!(error(&refused), invalid());
    assert!(result(&client.refresh(jwt(&good)).await)["jwt"] == next["jwt"]);
}

#[tokio::test]
async fn a11_a_large_document_passes_from_who_is_known_and_one_beyond_the_bound_does_not() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let token = client.login("").await;
    let body =
        |size: usize| format!(r#""controller":"document","action":"create","body":{{"text":"{}"}}"#, "x".repeat(size));
    // The token may be in the head, in a cookie, or near the beginning of the envelope.
    let first = |jwt: &str, size| format!(r#"{{"jwt":"{jwt}",{}}}"#, body(size));
    let last = |jwt: &str, size| format!(r#"{{{},"jwt":"{jwt}"}}"#, body(size));
    let jwt = jwt(&token);
    for (header, envelope) in [(None, first(jwt, 500_000)), (Some(jwt), last(jwt, 500_000)), (None, last(jwt, 10_000))]
    {
        let passed = client.post("/_query", header, &envelope).await;
        assert_eq!(passed.status, StatusCode::OK, "{:?}", passed.json()["error"]);
        assert_eq!(passed.json()["truncated"] == true, envelope.len() > 100_000);
    }
    let cookie = format!("authToken={jwt}");
    let headers = [("content-type", "application/json"), ("cookie", cookie.as_str()), ("origin", "http://gate.test")];
    let envelope = format!("{{{}}}", body(500_000));
    assert_eq!(gate.call(Method::POST, "/_query", &headers, &envelope).await.status, StatusCode::OK);
    // No valid token in the examined bytes, and a longer body than any caller may send.
    let too_large = (413, "network.http.request_too_large".to_owned());
    let forged = format!("{}x", &jwt[..jwt.len() - 1]);
    for (header, envelope) in [
        (None, format!("{{{}}}", body(40_000))),
        (None, last(jwt, 40_000)),
        (None, first(&forged, 40_000)),
        (Some(forged.as_str()), format!("{{{}}}", body(40_000))),
        (None, first(jwt, 1_100_000)),
    ] {
        assert_eq!(error(&client.post("/_query", header, &envelope).await), too_large);
    }
}

#[tokio::test]
async fn a_global_logout_ends_every_session_of_the_user() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let (first, second) = (client.login("").await, client.login("").await);
    result(&client.post("/_logout?global", Some(jwt(&first)), "").await);
    assert_eq!(error(&gate.get("/hello", jwt(&second)).await), invalid());
    let third = client.login("").await;
    let fourth = client.login("").await;
    result(&client.post("/_logout", Some(jwt(&third)), "").await);
    assert_eq!(gate.get("/hello", jwt(&fourth)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn t18_t25_with_a_cookie_no_script_ever_sees_the_token() {
    let text = config("").replace("http://gate.test", "https://gate.test");
    let place = Place::new(&text);
    let gate = place.start();
    let client = Client { gate: &gate };
    let body = json!({ "username": "demo", "password": gate.password }).to_string();
    let json = ("content-type", "application/json");
    let own = ("origin", "https://gate.test");
    let path = "/_login/local?cookieAuth=true";
    // Setting the cookie logs the browser in, so it takes the same proof of origin as using it (requirement T25).
    for (headers, status) in [
        (&[json, ("origin", "https://evil.test")][..], StatusCode::FORBIDDEN),
        (&[json], StatusCode::FORBIDDEN),
        (&[own, ("content-type", "text/plain")], StatusCode::BAD_REQUEST),
        (&[own], StatusCode::BAD_REQUEST),
    ] {
        let refused = gate.call(Method::POST, path, headers, &body).await;
        assert_eq!(refused.status, status, "{headers:?}");
        assert!(!refused.headers.contains_key("set-cookie"));
    }
    let query = format!("{path}&username=demo&password={}", gate.password);
    let by_get = gate.call(Method::GET, &query, &[own, json], "").await;
    assert_eq!((by_get.status, by_get.headers.contains_key("set-cookie")), (StatusCode::BAD_REQUEST, false));
    let login = gate.call(Method::POST, path, &[own, json], &body).await;
    assert!(result(&login).get("jwt").is_none() && result(&login)["_id"].is_string());
    let cookie_of = |answer: &Answer| {
        let set = answer.headers["set-cookie"].to_str().unwrap().to_owned();
        let (cookie, attributes) = set.split_once("; ").unwrap();
        support::keep_secret(cookie.rsplit('.').next().unwrap());
        let attributes: Vec<_> = attributes.split("; ").filter(|text| !text.starts_with("Expires=")).collect();
        assert_eq!(attributes, ["Path=/", "HttpOnly", "SameSite=Strict", "Secure"]);
        cookie.to_owned()
    };
    let cookie = cookie_of(&login);
    let with = |cookie: String| async move { gate_call(client.gate, Method::GET, "/hello", &cookie).await };
    let hello = with(format!("a=1; {cookie}")).await;
    assert_eq!((hello.status, hello.echoed("cookie")), (StatusCode::OK, vec!["a=1".to_owned()]));

    for from in ["https://evil.test", "null"] {
        let headers = [("cookie", cookie.as_str()), ("origin", from), json];
        let refused = gate.call(Method::POST, "/_refreshToken?cookieAuth", &headers, "").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{from}");
        assert!(!refused.headers.contains_key("set-cookie"));
    }
    let refreshed = gate_call(&gate, Method::POST, "/_refreshToken?cookieAuth", &cookie).await;
    assert!(result(&refreshed).get("jwt").is_none());
    let renewed = cookie_of(&refreshed);
    assert_eq!(error(&gate_call(&gate, Method::GET, "/hello", &cookie).await), invalid());
    let token = renewed.strip_prefix("authToken=").unwrap();
    let both = [("cookie", renewed.as_str()), ("authorization", &format!("Bearer {token}"))];
    let both = gate.call(Method::GET, "/hello", &both, "").await;
    assert_eq!(error(&both), (500, "security.token.verification_error".into()));

    let gone = gate_call(&gate, Method::POST, "/_logout?cookieAuth", &renewed).await;
    assert!(gone.headers["set-cookie"].to_str().unwrap().starts_with("authToken=null; "));
    assert_eq!(error(&gate_call(&gate, Method::GET, "/hello", &renewed).await), invalid());
}

async fn gate_call(gate: &Gate, method: Method, path: &str, cookie: &str) -> Answer {
    let json = ("content-type", "application/json");
    gate.call(method, path, &[("cookie", cookie), ("sec-fetch-site", "same-origin"), json], "").await
}

/// As in Kuzzle, an anonymous caller is a user, too, and may ask for the current user and little else.
#[tokio::test]
async fn whoever_is_not_logged_in_is_the_anonymous_user() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let source = json!({ "profileIds": ["anonymous"], "name": "Anonymous" });
    let nobody = json!({ "_id": "-1", "_source": source, "strategies": [] });
    let by_query = json!({ "controller": "auth", "action": "getCurrentUser" });
    for answer in [client.send(Method::GET, "/_me", None, "").await, client.query(&by_query).await] {
        assert_eq!(result(&answer), nobody);
    }
    // A bad token does not make a caller anonymous.
    assert_eq!(error(&client.send(Method::GET, "/_me", Some("stale"), "").await), invalid());
}

#[tokio::test]
async fn a_token_in_the_query_is_good_and_goes_no_further() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let token = Client { gate: &gate }.login("").await;
    let path = format!("/hello?a=1&jwt={}&b=2", jwt(&token));
    let answer = gate.call(Method::GET, &path, &[], "").await;
    assert_eq!((answer.status, &answer.json()["query"]), (StatusCode::OK, &json!("a=1&b=2")));
}

#[tokio::test]
async fn lifetimes_have_the_limits_of_the_profile() {
    let place = Place::new(&config("profile = { max_access_ttl = \"2h\" }"));
    let gate = place.start();
    let client = Client { gate: &gate };
    for (asked, ttl) in [("2h", 7_200_000), ("90000", 90_000), ("1%20minute", 60_000)] {
        assert_eq!(client.login(&format!("expiresIn={asked}")).await["ttl"], ttl, "{asked}");
    }
    let token = client.login("").await;
    for (asked, id) in [
        ("-1", "security.token.ttl_exceeded"),
        ("3h", "security.token.ttl_exceeded"),
        ("0", "api.assert.invalid_argument"),
        ("abc", "api.assert.invalid_argument"),
    ] {
        let answer = client.post(&format!("/_refreshToken?expiresIn={asked}"), Some(jwt(&token)), "").await;
        assert_eq!(error(&answer), (400, id.to_owned()), "{asked}");
    }
    let renewed = client.post("/_refreshToken?expiresIn=5m", Some(jwt(&token)), "").await;
    assert_eq!(result(&renewed)["ttl"], 300_000, "what was refused consumed nothing");
}

#[tokio::test]
async fn t17_every_refusal_is_in_the_words_of_the_protocol() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let unauthorized = (401, "security.rights.unauthorized".to_owned());
    assert_eq!(error(&gate.call(Method::GET, "/hello", &[], "").await), unauthorized);
    assert_eq!(error(&client.refresh("").await), invalid());
    assert_eq!(error(&client.post("/_refreshToken", None, "").await), unauthorized);
    assert_eq!(error(&client.post("/_logout", None, "").await), unauthorized);
    let wrong = json!({ "username": "demo", "password": "wrong-password" }).to_string();
    let login = client.post("/_login/local", None, &wrong).await;
    assert_eq!(error(&login), (401, "plugin.strategy.missing_user".into()));
    let other = client.post("/_login/github", None, "{}").await;
    assert_eq!(error(&other), (400, "security.credentials.unknown_strategy".into()));
    let large = client.post("/_login/local", None, &" ".repeat(100_000)).await;
    assert_eq!(error(&large), (413, "network.http.request_too_large".into()));
    // A token of another dialect is not exchanged here.
    let foreign = gate.login().await;
    assert_eq!(error(&client.refresh(&foreign.access).await), invalid());
    assert_eq!(gate.get("/hello", &foreign.access).await.status, StatusCode::OK, "and has not been");
}

/// The SDK for JavaScript reads only the body's `error`: a refusal in other words would look like a success.
#[tokio::test]
async fn t17_r12_a_call_that_is_near_an_endpoint_or_nowhere_is_refused_in_the_words_of_the_protocol() {
    let lone = r#"
[[routes]]
path = "/lone"
methods = ["GET"]
dialect = "kuzzle"
upstream = "app"
[[upstreams]]
name = "gone"
urls = ["http://127.0.0.1:1"]
[[routes]]
path = "/gone"
auth = "none"
dialect = "kuzzle"
upstream = "gone"
"#;
    let place = Place::new(&config(lone).replace("path = \"/{*rest}\"", "path = \"/hello\""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let lost = (404, "network.http.url_not_found".to_owned());
    for near in ["/_Login/local", "/_refreshtoken", "/_logout/", "//_me", "/_ME", "/USERS/_me", "/_query/"] {
        assert_eq!(error(&client.post(near, None, "{}").await), lost, "{near}");
    }
    let wrong = (405, "network.http.unsupported_verb".to_owned());
    for (method, path, allow) in [
        (Method::PUT, "/_me", "GET"),
        (Method::DELETE, "/_login/local", "POST, GET"),
        (Method::GET, "/_query", "POST"),
        (Method::POST, "/lone", "GET, HEAD"),
    ] {
        let refused = client.send(method, path, None, "{}").await;
        assert_eq!((error(&refused), refused.headers["allow"].to_str().unwrap()), (wrong.clone(), allow), "{path}");
    }
    // Cases in which only the request names the client.
    let nowhere = |name| async move { gate_call_with(client.gate, name).await };
    let refused = nowhere("x-kuzzle-volatile").await;
    assert_eq!((error(&refused), &refused.json()["volatile"]), (lost.clone(), &json!({ "sdkName": "js@7" })));
    assert_eq!(error(&nowhere("x-kuzzle-request-id").await), lost);
    let plain = nowhere("x-other").await;
    assert_eq!(
        (plain.status, &plain.headers["content-type"]),
        (StatusCode::NOT_FOUND, &"application/problem+json".parse().unwrap())
    );

    let failed = client.send(Method::GET, "/gone", None, "").await;
    assert_eq!(error(&failed), (502, "network.http.unexpected_error".into()));
}

async fn gate_call_with(gate: &Gate, header: &str) -> Answer {
    gate.call(Method::GET, "/nowhere", &[(header, r#"{"sdkName":"js@7"}"#)], "").await
}

#[tokio::test]
async fn a_prefix_moves_every_route() {
    let place = Place::new(&config("path = \"/api\""));
    let gate = place.start();
    let client = Client { gate: &gate };
    let body = json!({ "username": "demo", "password": gate.password }).to_string();
    let token = result(&client.post("/api/_login/local", None, &body).await);
    let api = result(&client.send(Method::GET, "/api/_publicApi", Some(jwt(&token)), "").await);
    assert_eq!(api["auth"]["logout"]["http"][0]["url"], "/api/_logout");
    let refused = client.send(Method::GET, "/api/_publicApi", None, "").await;
    assert_eq!(error(&refused), (401, "security.rights.unauthorized".into()), "its route is not for everyone");
}

/// A host of the same domain cannot plant a cookie of this name: browsers accept it only from the gate itself.
#[tokio::test]
async fn t25_the_cookie_can_be_for_this_host_alone() {
    let text = config("cookie = \"__Host-authToken\"\n").replace("http://gate.test", "https://gate.test");
    let place = Place::new(&text);
    let gate = place.start();
    let body = json!({ "username": "demo", "password": gate.password }).to_string();
    let headers = [("content-type", "application/json"), ("origin", "https://gate.test")];
    let login = gate.call(Method::POST, "/_login/local?cookieAuth", &headers, &body).await;
    let set = login.headers["set-cookie"].to_str().unwrap();
    let (cookie, attributes) = set.split_once("; ").unwrap();
    support::keep_secret(cookie.rsplit('.').next().unwrap());
    assert!(cookie.starts_with("__Host-authToken="));
    // RFC 10017 §4.1.3.2: Secure, the whole path, and no Domain.
    assert!(attributes.contains("; Secure") || attributes.ends_with("Secure"), "{attributes}");
    assert!(attributes.contains("Path=/;") && !attributes.contains("Domain"), "{attributes}");
    let hello = gate_call(&gate, Method::GET, "/hello", &format!("a=1; {cookie}")).await;
    assert_eq!((hello.status, hello.echoed("cookie")), (StatusCode::OK, vec!["a=1".to_owned()]));
    // The other name is not a credential here.
    let planted = cookie.replacen("__Host-", "", 1);
    assert_eq!(gate_call(&gate, Method::GET, "/hello", &planted).await.status, StatusCode::UNAUTHORIZED);
    let gone = gate_call(&gate, Method::POST, "/_logout?cookieAuth", cookie).await;
    assert!(gone.headers["set-cookie"].to_str().unwrap().starts_with("__Host-authToken=null; "));
}

/// The upstream never sees another token of the protocol besides the envelope's, whatever the route says.
#[tokio::test]
async fn t26_the_token_that_loses_to_an_envelopes_own_is_not_passed_on() {
    let place = Place::new(&format!("{CONFIG}{KUZZLE}"));
    let gate = place.start();
    let client = Client { gate: &gate };
    let (winner, loser) = (client.login("").await, client.login("").await);
    let call = json!({ "controller": "document", "action": "get", "jwt": jwt(&winner) }).to_string();
    let json = ("content-type", "application/json");
    let bearer = format!("Bearer {}", jwt(&loser));
    let path = format!("/_query?a=1&jwt={}&b=2", jwt(&loser));
    let answer = gate.call(Method::POST, &path, &[json, ("authorization", &bearer)], &call).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(!String::from_utf8_lossy(&answer.body).contains(jwt(&loser)), "the upstream saw the other token");
    assert_eq!(answer.json()["query"], "a=1&b=2");
    // Without a token in the envelope, the token in Authorization wins, and the upstream does not get the token in the
    // query.
    let call = json!({ "controller": "document", "action": "get" }).to_string();
    let answer = gate.call(Method::POST, &path, &[json, ("authorization", &bearer)], &call).await;
    assert!(!String::from_utf8_lossy(&answer.body).contains(jwt(&loser)));
    // A cookie besides the token gets 400: two tokens.
    let call = json!({ "controller": "document", "action": "get", "jwt": jwt(&winner) }).to_string();
    let cookie = format!("authToken={}", jwt(&loser));
    let answer =
        gate.call(Method::POST, "/_query", &[json, ("cookie", &cookie), ("origin", "http://gate.test")], &call).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{answer:?}");
}

/// A known sender may send more. A token that a limiter keeps from verification is not a bad token.
#[tokio::test]
async fn r15_a_large_envelope_whose_token_was_not_looked_at_is_429_and_not_413() {
    let limits =
        config("").replace("for_tests.forged_per_address = \"100000/1s\"", "for_tests.forged_per_address = \"1/1h\"");
    let place = Place::new(&limits);
    let gate = place.start();
    let client = Client { gate: &gate };
    let token = client.login("").await;
    let (signed, signature) = jwt(&token).rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", "A".repeat(signature.len()));
    for _ in 0..2 {
        assert_eq!(gate.get("/hello", &forged).await.status, StatusCode::UNAUTHORIZED);
    }
    let text = "x".repeat(100_000);
    let call = json!({ "controller": "document", "action": "create", "body": { "text": text } }).to_string();
    let answer = client.post("/_query", Some(jwt(&token)), &call).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"));
    // Without any token the answer is as before.
    assert_eq!(client.post("/_query", None, &call).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}
