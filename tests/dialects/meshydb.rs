//! The requests of MeshyDB's JavaScript and C# clients, byte for byte as they send them.

use http::StatusCode;
use serde_json::Value;

use support::{Gate, Place, keep_secret, raw, until};

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
hosts = ["auth.meshydb.com"]
drain_timeout = "0s"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[store]
kind = "memory"
[[clients]]
id = "publickey"
[[clients]]
id = "acme"
[[endpoints]]
dialect = "oauth2"
path = "/{account}/connect/token"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/private/{*rest}"
upstream = "app"
[[routes]]
path = "/{*rest}"
auth = "none"
upstream = "app"
"#;

/// The form of a client's requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sdk {
    JavaScript,
    CSharp,
}

const SDKS: [Sdk; 2] = [Sdk::JavaScript, Sdk::CSharp];

impl Sdk {
    fn scope(self) -> &'static str {
        match self {
            Self::JavaScript => "meshy.api%20offline_access%20openid",
            Self::CSharp => "meshy.api+offline_access+openid",
        }
    }

    fn login(self, password: &str) -> String {
        format!(
            "client_id=publickey&client_secret=&grant_type=password&username=meshy&password={password}&scope={}\
             &refresh_token=",
            self.scope()
        )
    }

    fn refresh(self, token: &str) -> String {
        format!(
            "client_id=publickey&client_secret=&grant_type=refresh_token&username=&password=&scope={}\
             &refresh_token={token}",
            self.scope()
        )
    }

    /// The path and the body of a sign-out.
    fn sign_out(self, token: &str) -> (&'static str, String) {
        let (path, field) = match self {
            Self::JavaScript => ("/acme/connect/revocation", "token"),
            Self::CSharp => ("/acme//connect/revocation", "Token"),
        };
        (path, format!("{field}={token}&token_type_hint=refresh_token&client_id=publickey"))
    }

    fn post(self, gate: &Gate, path: &str, body: &str) -> Said {
        let accept = match self {
            Self::JavaScript => "Accept: */*",
            Self::CSharp => "Accept: application/json",
        };
        let media = match self {
            Self::JavaScript => "application/x-www-form-urlencoded",
            Self::CSharp => "application/x-www-form-urlencoded; charset=utf-8",
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: auth.meshydb.com\r\ntenant: customers\r\n{accept}\r\n\
             Content-Type: {media}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        Said::read(&raw(gate.address, request.as_bytes()))
    }
}

/// An answer.
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The pair, as these clients store it.
    fn pair(&self) -> (String, String) {
        assert_eq!(self.status, 200);
        let json = self.json();
        assert!(json["expires_in"].is_u64(), "C# reads an int, JavaScript adds it");
        assert_eq!(json["token_type"], "Bearer");
        assert_eq!(json.get("id_token"), None, "openid forces none");
        let field = |name: &str| json[name].as_str().unwrap().to_owned();
        (field("access_token"), field("refresh_token"))
    }

    fn error(&self) -> (u16, String) {
        assert!(!self.head.contains("www-authenticate"), "a 400 carries no challenge");
        (self.status, self.json()["error"].as_str().unwrap().to_owned())
    }
}

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

/// A gate with the user `meshy` of the account `acme`, and the user's password.
fn start() -> (Place, Gate, String) {
    let place = Place::new(CONFIG);
    let password = uuid::Uuid::new_v4().simple().to_string();
    keep_secret(&password);
    let scopes = "meshy.api offline_access openid";
    let added = place.run(&["user", "add", "meshy", "--account", "acme", "--scopes", scopes], &format!("{password}\n"));
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let gate = place.start();
    (place, gate, password)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clients_log_in_refresh_by_hand_and_sign_out() {
    let (_place, gate, password) = start();
    for sdk in SDKS {
        let (access, refresh) = sdk.post(&gate, "/acme/connect/token", &sdk.login(&password)).pair();
        let seen = gate.get("/private/meshes/person", &access).await;
        assert_eq!(seen.status, StatusCode::OK);
        assert_eq!(seen.echoed("x-auth-account"), ["acme"]);
        // RetrieveRefreshToken, later LoginWithRefresh. C# takes no lock: two threads send the same token.
        let second = sdk.post(&gate, "/acme/connect/token", &sdk.refresh(&refresh)).pair();
        assert!(sdk.post(&gate, "/acme/connect/token", &sdk.refresh(&refresh)).pair() == second);
        assert_eq!(gate.get("/private/x", &second.0).await.status, StatusCode::OK);

        let (path, body) = sdk.sign_out(&second.1);
        assert_eq!(sdk.post(&gate, path, &body).status, 200, "{path}");
        assert_eq!(sdk.post(&gate, "/acme/connect/token", &sdk.refresh(&second.1)).error(), invalid_grant());
        assert_eq!(gate.get("/private/x", &second.0).await.status, StatusCode::UNAUTHORIZED);
        // A repeated sign-out, and a sign-out with an unknown token, succeed.
        assert_eq!(sdk.post(&gate, path, &body).status, 200);
        assert_eq!(sdk.post(&gate, path, &sdk.sign_out("ab23cd3343e9328g").1).status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_own_requests_are_answered_as_it_says() {
    let (_place, gate, password) = start();
    let js = Sdk::JavaScript;
    let (_, token) = js.post(&gate, "/acme/connect/token", &js.login(&password)).pair();
    let refresh = format!("client_id=publickey&grant_type=refresh_token&refresh_token={token}");
    let said = js.post(&gate, "/acme/connect/token", &refresh);
    let (_, token) = said.pair();
    assert!(said.head.contains("cache-control: no-store"));

    let cases = [
        ("client_id=publickey&grant_type=refresh_token&refresh_token=ab23cd3343e9328g".to_owned(), "invalid_grant"),
        (format!("client_id=nobody&grant_type=refresh_token&refresh_token={token}"), "invalid_client"),
        (format!("client_id=publickey&grant_type=refresh&refresh_token={token}"), "unsupported_grant_type"),
        (js.login("wrong"), "invalid_grant"),
    ];
    for (body, error) in &cases {
        assert_eq!(js.post(&gate, "/acme/connect/token", body).error(), (400, (*error).to_owned()));
    }
    // These refusals did not change the session; the path of another account is refused.
    let other = js.post(&gate, "/other/connect/token", &js.refresh(&token));
    assert_eq!(other.error(), invalid_grant());
    js.post(&gate, "/acme/connect/token", &js.refresh(&token)).pair();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_other_failures_are_400_and_429_too() {
    let (place, gate, password) = start();
    let js = Sdk::JavaScript;
    let token = |gate: &Gate| js.post(gate, "/acme/connect/token", &js.login(&password)).pair().1;

    // «User is no longer active.»
    let held = token(&gate);
    assert_eq!(place.run(&["user", "disable", "meshy", "--account", "acme"], "").code, Some(0));
    until("the user is out", async || {
        let said = js.post(&gate, "/acme/connect/token", &js.refresh(&held));
        said.status == 400 && said.error() == invalid_grant()
    })
    .await;
    assert_eq!(place.run(&["user", "enable", "meshy", "--account", "acme"], "").code, Some(0));
    drop(gate);

    // «Refresh token is expired.»
    place.write_config(&CONFIG.replace(
        "[store]",
        "[sessions]\naccess_ttl = \"1s\"\nsession_ttl = \"2s\"\nidle_ttl = \"1s\"\ngrace = \"0s\"\n\
         lost_response_window = \"0s\"\n[limits]\nrefresh_per_session = \"1000/1s\"\n[store]",
    ));
    let gate = place.start();
    let held = token(&gate);
    let mut latest = held.clone();
    until("the session has ended", async || {
        let said = js.post(&gate, "/acme/connect/token", &js.refresh(&latest));
        if said.status == 200 {
            latest = said.pair().1;
        }
        said.status != 200
    })
    .await;
    assert_eq!(js.post(&gate, "/acme/connect/token", &js.refresh(&latest)).error(), invalid_grant());
    drop(gate);

    // «You have either hit your API or Database limit.»
    place.write_config(&format!("{CONFIG}[limits]\nrefresh_per_session = \"2/1h\"\n"));
    let gate = place.start();
    let mut held = token(&gate);
    for _ in 0..2 {
        held = js.post(&gate, "/acme/connect/token", &js.refresh(&held)).pair().1;
    }
    let said = js.post(&gate, "/acme/connect/token", &js.refresh(&held));
    assert_eq!(said.status, 429);
    assert!(said.head.contains("retry-after: "), "{}", said.head);
    assert!(said.json()["error"].is_string(), "JSON, as its clients print it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_sign_out_names_the_account_as_client_and_ends_no_other_clients_session() {
    let (_place, gate, password) = start();
    let js = Sdk::JavaScript;
    let (access, token) = js.post(&gate, "/acme/connect/token", &js.login(&password)).pair();
    let form = |client: &str, token: &str| format!("client_id={client}&grant_type=refresh_token&token={token}");
    for path in ["/acme/connect/revocation", "/acme//connect/revocation", "//connect/revocation", "/connect/revocation"]
    {
        assert_eq!(js.post(&gate, path, &form("acme", "ab23cd3343e9328g")).status, 200, "{path}");
        assert_eq!(js.post(&gate, path, &form("acme", &token)).error(), invalid_grant(), "{path}");
        assert_eq!(js.post(&gate, path, &form("nobody", &token)).error().1, "invalid_client", "{path}");
        assert_eq!(js.post(&gate, path, &form("acme", "")).error().1, "invalid_request", "{path}");
        assert_eq!(gate.get("/private/x", &access).await.status, StatusCode::OK, "it lives on");
    }
    assert_eq!(js.post(&gate, "/acme//connect/revocation", &form("publickey", &token)).status, 200);
    assert_eq!(gate.get("/private/x", &access).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_the_double_slash_is_taken_in_one_place_and_a_near_miss_everywhere_else() {
    let (_place, gate, _) = start();
    for path in [
        "/acme//connect/token",
        "//connect/token",
        "/acme/connect//revocation",
        "//acme/connect/revocation",
        "//acme//connect/revocation",
        "/acme///connect/revocation",
        "///connect/revocation",
        "/acme//Connect/revocation",
        "/acme//connect/revocation/",
        "/acme//connect/introspect",
        "/acme//connect/%72evocation",
        "/%61cme//connect/revocation",
    ] {
        let said = Sdk::CSharp.post(&gate, path, "Token=x&client_id=publickey");
        assert_eq!(said.status, 404, "{path}");
    }
}
