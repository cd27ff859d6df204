//! A replay of the SDK for the JVM, whose packages are not available where these tests run. The requests are those that
//! its source makes, over each of its three ways: `POST /_query` alone, as the documented version sends everything (and
//! a later one until it has the routes), the routes that a later one builds from `_publicApi`, and a WebSocket.

use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::kuzzle::client::jwt;
use support::{Gate, Place, until};

enum Way {
    Query,
    /// The routes by controller and action: verb and path.
    Routes(Map<String, Value>),
    Socket(Box<WebSocketStream<TcpStream>>),
}

/// The state of the SDK.
struct Jvm<'a> {
    gate: &'a Gate,
    way: Way,
    instance: String,
    authentication_token: Value,
    /// Messages for which no call waited.
    told: Vec<Value>,
}

impl<'a> Jvm<'a> {
    fn new(gate: &'a Gate, way: Way) -> Self {
        let instance = Uuid::new_v4().to_string();
        Self { gate, way, instance, authentication_token: Value::Null, told: Vec::new() }
    }

    /// The SDK over HTTP: whether it may use `_query`, and the address of the actions.
    async fn http(gate: &'a Gate) -> Value {
        let json = [("content-type", "application/json")];
        let status = gate.call(Method::POST, "/_query", &json, "{}").await.status;
        assert!(![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status), "the SDK gives up at {status}");
        let api = gate.call(Method::GET, "/_publicApi", &json, "{}").await;
        assert_eq!(api.status, StatusCode::OK);
        api.json()["result"].take()
    }

    async fn query(gate: &'a Gate) -> Self {
        Self::http(gate).await;
        Self::new(gate, Way::Query)
    }

    async fn routes(gate: &'a Gate) -> Self {
        let api = Self::http(gate).await;
        let mut routes = Map::new();
        for action in api.as_object().unwrap().values().flat_map(|actions| actions.as_object().unwrap().values()) {
            let name = |field: &str| action[field].as_str().unwrap();
            let choices = action["http"].as_array().unwrap();
            let length = |route: &&Value| route["path"].as_str().unwrap().len();
            let shortest = choices.iter().min_by_key(length).unwrap();
            // The choice of the SDK's source: the shortest route, or the GET route if no route is shorter than the
            // first.
            let route = match choices.iter().rfind(|route| route["verb"] == "GET") {
                Some(get) if length(&shortest) == length(&&choices[0]) => get,
                _ => shortest,
            };
            routes.insert(format!("{}:{}", name("controller"), name("action")), route.clone());
        }
        Self::new(gate, Way::Routes(routes))
    }

    async fn socket(gate: &'a Gate) -> Self {
        let stream = TcpStream::connect(gate.address).await.unwrap();
        let url = format!("ws://{}/", gate.address);
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        Self::new(gate, Way::Socket(Box::new(socket)))
    }

    /// Sends a call with the SDK's present token, whatever the call.
    fn envelope(&self, mut query: Value) -> Value {
        query["requestId"] = json!(Uuid::new_v4().to_string());
        query["volatile"] = json!({ "sdkInstanceId": self.instance, "sdkName": "jvm@1" });
        if !self.authentication_token.is_null() {
            query["jwt"] = self.authentication_token.clone();
        }
        query
    }

    /// Each absent value is sent as `null`.
    async fn call(&mut self, query: Value) -> Value {
        let query = self.envelope(query);
        let reply = match &mut self.way {
            Way::Socket(socket) => {
                socket.send(Message::text(query.to_string())).await.unwrap();
                loop {
                    // The SDK reads only text frames. The gate closes the connection if the token ends during a call.
                    let text = match socket.next().await {
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        _ => {
                            self.way = Self::socket(self.gate).await.way;
                            break json!({ "requestId": query["requestId"], "error": { "id": "reconnected" } });
                        }
                    };
                    let reply: Value = serde_json::from_str(&text).unwrap();
                    if reply["requestId"].is_string() {
                        assert_eq!(reply["room"], reply["requestId"]);
                        break reply;
                    }
                    self.told.push(reply);
                }
            }
            Way::Query => self.request(Method::POST, "/_query", &query, &query.to_string()).await,
            Way::Routes(routes) => {
                let name = format!("{}:{}", query["controller"].as_str().unwrap(), query["action"].as_str().unwrap());
                let (verb, path) = (routes[&name]["verb"].clone(), routes[&name]["path"].clone());
                let (path, body) = address(&verb, path.as_str().unwrap(), &query);
                self.request(verb.as_str().unwrap().parse().unwrap(), &path, &query, &body).await
            }
        };
        assert_eq!(reply["requestId"], query["requestId"]);
        reply
    }

    async fn request(&self, method: Method, path: &str, query: &Value, body: &str) -> Value {
        let volatile = query["volatile"].to_string();
        let id = query["requestId"].as_str().unwrap();
        let bearer = query["jwt"].as_str().map(|jwt| format!("Bearer {jwt}"));
        let mut headers = vec![("content-type", "application/json"), ("x-kuzzle-volatile", &volatile)];
        headers.push(("x-kuzzle-request-id", id));
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let answer = self.gate.call(method, path, &headers, body).await;
        let mut reply = answer.json();
        if reply["node"].is_null() {
            // The upstream's echo, which is no envelope: the SDK goes by the id that it asked with.
            reply["requestId"] = json!(id);
        } else {
            assert_eq!(answer.headers["x-kuzzle-request-id"], id);
            assert_eq!(reply["status"], answer.status.as_u16());
        }
        reply
    }

    async fn auth(&mut self, action: &str, more: Value) -> Value {
        let mut query = json!({ "controller": "auth", "action": action });
        query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.call(query).await
    }

    /// The SDK keeps the token of both answers.
    async fn login(&mut self, password: &str, expires_in: Option<&str>) -> Value {
        let mut query = json!({ "strategy": "local", "body": { "username": "demo", "password": password } });
        if let Some(expires_in) = expires_in {
            query["expiresIn"] = json!(expires_in);
        }
        let reply = self.auth("login", query).await;
        self.keep(reply)
    }

    async fn refresh(&mut self, expires_in: Option<&str>) -> Value {
        let reply = self.auth("refreshToken", json!({ "expiresIn": expires_in })).await;
        self.keep(reply)
    }

    fn keep(&mut self, mut reply: Value) -> Value {
        let result = good(&mut reply);
        assert!(result["_id"].is_string(), "or the login has failed");
        assert!(result["expiresAt"].as_u64().unwrap() > 1_700_000_000_000, "milliseconds");
        self.authentication_token = json!(jwt(&result));
        result
    }

    /// A call that the gate forwards. The test writes the request itself for a route that the SDK does not know.
    async fn document(&mut self) -> Value {
        let query = json!({ "controller": "document", "action": "get", "index": "i", "collection": "c", "_id": "d" });
        match &self.way {
            Way::Routes(_) => self.request(Method::GET, "/i/c/d", &self.envelope(query), "").await,
            Way::Query | Way::Socket(_) => self.call(query).await,
        }
    }
}

/// The path and the body of a call, by the SDK's route.
fn address(verb: &Value, template: &str, query: &Value) -> (String, String) {
    let fields = query.as_object().unwrap();
    let mut path = template.to_owned();
    let mut arguments = form_urlencoded::Serializer::new(String::new());
    let in_body = fields.get("body").and_then(Value::as_object).filter(|_| verb == "GET");
    for (name, value) in fields.iter().chain(in_body.into_iter().flatten()) {
        let Some(value) = value.as_str() else { continue };
        path = path.replace(&format!(":{name}"), value);
        // Parameters of the path are sent in the query, too.
        if !["controller", "action", "jwt", "requestId"].contains(&name.as_str()) {
            arguments.append_pair(name, value);
        }
    }
    let body = if verb == "GET" { String::new() } else { fields.get("body").unwrap_or(&json!({})).to_string() };
    match arguments.finish() {
        none if none.is_empty() => (path, body),
        arguments => (format!("{path}?{arguments}"), body),
    }
}

fn good(reply: &mut Value) -> Value {
    assert_eq!((&reply["status"], &reply["error"]), (&json!(200), &Value::Null));
    reply["result"].take()
}

/// The SDK's error for a refusal. Only `security.token.expired` becomes an event.
fn refusal(reply: &Value) -> &str {
    assert!(reply["result"].is_null() && reply["error"]["status"] == reply["status"]);
    assert!(reply["error"]["message"].is_string());
    reply["error"]["id"].as_str().unwrap()
}

/// The caller that the upstream got.
fn subject(reply: &Value) -> Vec<&Value> {
    let headers = reply["headers"].as_array().unwrap();
    headers.iter().filter(|pair| pair[0] == "x-auth-subject").map(|pair| &pair[1]).collect()
}

async fn lives(sdk: &mut Jvm<'_>) {
    let password = sdk.gate.password.clone();
    let wrong = json!({ "strategy": "local", "body": { "username": "demo", "password": "wrong-password" } });
    assert_eq!(refusal(&sdk.auth("login", wrong).await), "plugin.strategy.missing_user");
    assert_eq!(refusal(&sdk.auth("refreshToken", json!({ "expiresIn": null })).await), "security.rights.unauthorized");

    let first = sdk.login(&password, None).await;
    assert_eq!(first["ttl"], 3_600_000);
    assert_eq!(subject(&sdk.document().await), [&first["_id"]]);
    let me = good(&mut sdk.auth("getCurrentUser", json!({})).await);
    assert_eq!(me["_id"], first["_id"]);
    assert_eq!(good(&mut sdk.auth("getStrategies", json!({})).await), json!(["local"]));

    // The SDK sends `null` for a value that the caller omits.
    let second = sdk.refresh(None).await;
    assert_eq!((&second["_id"], &second["ttl"]), (&first["_id"], &first["ttl"]));
    assert_eq!(subject(&sdk.document().await), [&first["_id"]]);

    // The answer is lost: the SDK still has the old token, which opens nothing, and exchanges it again.
    sdk.authentication_token = first["jwt"].clone();
    assert_eq!(refusal(&sdk.document().await), "security.token.invalid");
    let again = sdk.refresh(None).await;
    assert!(again["jwt"] == second["jwt"], "the same successor");
    assert_eq!(sdk.refresh(Some("2h")).await["ttl"], 7_200_000);
    let check = good(&mut sdk.auth("checkToken", json!({ "body": { "token": sdk.authentication_token } })).await);
    assert_eq!((&check["valid"], &check["kuid"]), (&json!(true), &first["_id"]));
    sdk.authentication_token = first["jwt"].clone();
    let late = sdk.auth("refreshToken", json!({ "expiresIn": null })).await;
    assert_eq!(refusal(&late), "security.token.invalid");
    let check = good(&mut sdk.auth("checkToken", json!({ "body": { "token": first["jwt"] } })).await);
    assert_eq!(check, json!({ "valid": false, "state": "Invalid token." }));

    // The SDK sends its present token with a login, too, which is revoked here.
    sdk.login(&password, Some("1s")).await;
    until("the token has expired", async || {
        let reply = sdk.document().await;
        reply["error"]["id"] == "security.token.expired"
    })
    .await;
    sdk.login(&password, None).await;
    let last = sdk.authentication_token.clone();
    assert_eq!(good(&mut sdk.auth("logout", json!({})).await), json!({ "acknowledged": true }));
    assert_eq!(refusal(&sdk.document().await), "security.token.invalid");
    assert_eq!(refusal(&sdk.auth("getCurrentUser", json!({})).await), "security.token.invalid");
    let check = good(&mut sdk.auth("checkToken", json!({ "body": { "token": last } })).await);
    assert_eq!(check["valid"], false);
    let expired = |told: &Value| told["type"] == "TokenExpired";
    assert!(sdk.told.iter().all(expired), "no message but the one kind that it can do nothing with");
}

fn config(more: &str) -> String {
    let routes =
        super::config("").replace("audience = [\"api\"]", "audience = [\"api\"]\nfor_tests = { leeway = \"0s\" }");
    format!("{routes}{more}")
}

#[tokio::test]
async fn the_jvm_sdk_lives_a_whole_life_through_one_route() {
    let place = Place::new(&config(""));
    let gate = place.start();
    lives(&mut Jvm::query(&gate).await).await;
}

#[tokio::test]
async fn the_jvm_sdk_lives_a_whole_life_by_the_routes_that_it_is_told() {
    let place = Place::new(&config(""));
    let gate = place.start();
    lives(&mut Jvm::routes(&gate).await).await;
}

#[tokio::test]
async fn the_jvm_sdk_lives_a_whole_life_over_a_websocket() {
    let upstream = upstream().await;
    let place = Place::new(&config(&format!(
        "[[upstreams]]\nname = \"kuzzle\"\nurls = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/\"\ndialect = \"kuzzle\"\nupgrade = true\nupstream = \"kuzzle\"\n"
    )));
    let gate = place.start();
    lives(&mut Jvm::socket(&gate).await).await;
}

/// Answers over a WebSocket with the request, and with the headers of the connection.
#[expect(clippy::result_large_err, reason = "the library's own type")]
async fn upstream() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut headers = json!([]);
                let look = |request: &http::Request<()>, response| {
                    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                        json!([name.as_str(), value.to_str().unwrap()])
                    };
                    headers = request.headers().iter().map(pair).collect();
                    Ok(response)
                };
                let mut socket = tokio_tungstenite::accept_hdr_async(stream, look).await.unwrap();
                while let Some(Ok(Message::Text(text))) = socket.next().await {
                    let asked: Value = serde_json::from_str(&text).unwrap();
                    assert!(asked.get("jwt").is_none(), "the token stays at the gate");
                    let reply =
                        json!({ "requestId": asked["requestId"], "status": 200, "error": null, "headers": headers });
                    socket.send(Message::text(reply.to_string())).await.unwrap();
                }
            });
        }
    });
    address
}
