#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use rotogate_core::clock::{ManualTime, Timestamp};

use super::ask::MAX_ANSWER;
use super::*;

const SECRETS: LoginSecrets<'_> = LoginSecrets { state: "S", nonce: "N", verifier: "V" };
const BACK: &str = "https://gate.example/auth/callback";

/// A provider that gives each of these answers once, and records the requests.
struct Stub {
    url: String,
    received: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    async fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = Vec::new();
                loop {
                    let mut piece = [0; 4096];
                    let count = stream.read(&mut piece).await.unwrap();
                    read.extend_from_slice(&piece[..count]);
                    let text = String::from_utf8_lossy(&read);
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                        break;
                    }
                }
                kept.lock().push(String::from_utf8(read).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { url, received }
    }

    fn provider(&self, further: &str) -> LoginProvider {
        let url = &self.url;
        let document = format!(
            r#"{{"issuer":"{url}","jwks_uri":"{url}/keys","authorization_endpoint":"{url}/authorize?tenant=1",
            "token_endpoint":"{url}/token","end_session_endpoint":"{url}/end",
            "pushed_authorization_request_endpoint":"{url}/par"{further}}}"#
        );
        let metadata = Arc::new(Metadata::parse(document.as_bytes(), url).unwrap());
        let issuer = RemoteIssuer::new("kc", url.as_str());
        LoginProvider::with_metadata(&issuer, "web", Arc::new(move || Some(Arc::clone(&metadata))))
    }

    /// The form of the only request, and its `Authorization`.
    fn form(&self) -> (HashMap<String, String>, Option<String>) {
        let received = self.received.lock();
        let [request] = received.as_slice() else { panic!("{} requests", received.len()) };
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let authorization = head.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned);
        (form_urlencoded::parse(body.as_bytes()).into_owned().collect(), authorization)
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn query(url: &str) -> HashMap<String, String> {
    form_urlencoded::parse(url.split_once('?').unwrap().1.as_bytes()).into_owned().collect()
}

#[tokio::test]
async fn b28_an_authorization_request_has_state_nonce_and_pkce_and_no_parameter_overwrites_ours() {
    let stub = Stub::start(Vec::new()).await;
    let mut provider = stub.provider("").scopes(["profile", "openid"]).parameter("prompt", "consent");
    for name in OWN_PARAMETERS {
        provider = provider.parameter(name, "evil");
    }
    let url = provider.login_url(BACK, SECRETS, &[]).await.unwrap();
    assert!(url.starts_with(&format!("{}/authorize?tenant=1&client_id=web&", stub.url)), "{url}");
    // RFC 7636: the base64url of SHA-256 of "V".
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, b"V"));
    let expected = [
        ("tenant", "1"),
        ("client_id", "web"),
        ("response_type", "code"),
        ("redirect_uri", BACK),
        ("scope", "openid profile"),
        ("state", "S"),
        ("nonce", "N"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
    ];
    assert_eq!(query(&url), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    // Each parameter occurs once.
    assert_eq!(url.matches('=').count(), expected.len());
}

#[tokio::test]
async fn b37_parameters_are_pushed_where_the_provider_or_the_operator_asks() {
    let pushed = || answer("201 Created", r#"{"request_uri":"urn:x:1","expires_in":60}"#);
    for (further, by_operator) in [(r#","require_pushed_authorization_requests":true"#, false), ("", true)] {
        let stub = Stub::start(vec![pushed()]).await;
        let provider = stub.provider(further).secret("p:w".to_owned().into());
        let provider = if by_operator { provider.pushed() } else { provider };
        let url = provider.login_url(BACK, SECRETS, &[]).await.unwrap();
        let (form, authorization) = stub.form();
        assert_eq!((form["state"].as_str(), form["code_challenge_method"].as_str()), ("S", "S256"));
        assert_eq!((form["client_id"].as_str(), authorization.as_deref()), ("web", Some("Basic d2ViOnAlM0F3")));
        assert_eq!(url, format!("{}/authorize?tenant=1&client_id=web&request_uri=urn%3Ax%3A1", stub.url));
    }
    let stub = Stub::start(vec![pushed()]).await;
    let in_form = stub.provider("").secret_in_form("p:w".to_owned().into()).pushed();
    in_form.login_url(BACK, SECRETS, &[]).await.unwrap();
    assert_eq!(stub.received.lock()[0].matches("client_id=").count(), 1, "once");
    let refusing = Stub::start(vec![answer("400 Bad Request", r#"{"error":"invalid_request"}"#)]).await;
    assert!(refusing.provider("").pushed().login_url(BACK, SECRETS, &[]).await.is_err());
}

#[tokio::test]
async fn b34_a_provider_that_asks_for_a_pause_gets_neither_a_code_nor_a_refresh_token_until_then() {
    let tokens = r#"{"access_token":"A","id_token":"I","token_type":"Bearer"}"#;
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n".to_owned();
    let stub = Stub::start(vec![busy, answer("200 OK", tokens)]).await;
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let provider = LoginProvider { time: Arc::<ManualTime>::clone(&time), ..stub.provider("") };
    let pause = |asked: Result<ExchangedTokens, LoginFailure>| match asked {
        Err(LoginFailure::Busy(left)) => left.as_secs(),
        Err(other) => panic!("{other}"),
        Ok(_) => 0,
    };
    assert_eq!(pause(provider.exchange(BACK, "one", "V").await), 30);
    time.advance(Duration::from_secs(10));
    assert_eq!(pause(provider.exchange(BACK, "two", "V").await), 20);
    let refreshed = provider.ask_for_tokens(b"refresh_token=r", TIMEOUT).await;
    assert!(matches!(refreshed, Err(LoginFailure::Busy(left)) if left.as_secs() == 20));
    assert_eq!(stub.received.lock().len(), 1);
    time.advance(Duration::from_secs(20));
    assert_eq!(pause(provider.exchange(BACK, "two", "V").await), 0);
}

#[tokio::test]
async fn b34_a_code_is_exchanged_once_with_its_verifier_and_the_secret_where_it_belongs() {
    let tokens = r#"{"access_token":"A","id_token":"I","token_type":"Bearer","scope":"openid read"}"#;
    let stub = Stub::start(vec![answer("200 OK", tokens)]).await;
    let provider = stub.provider("").secret_in_form("p:w".to_owned().into());
    let exchanged = provider.exchange(BACK, "C&x", "V").await.unwrap();
    assert_eq!((&**exchanged.id_token, &**exchanged.access_token, &*exchanged.scope), ("I", "A", "openid read"));
    let (form, authorization) = stub.form();
    let expected = [
        ("grant_type", "authorization_code"),
        ("code", "C&x"),
        ("redirect_uri", BACK),
        ("code_verifier", "V"),
        ("client_id", "web"),
        ("client_secret", "p:w"),
    ];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(authorization, None);
    assert_eq!(format!("{exchanged:?}"), "ExchangedTokens(…)");
}

#[tokio::test]
async fn b34_no_other_answer_is_one_and_none_is_asked_for_again() {
    let long = format!(r#"{{"access_token":"A","id_token":"{}"}}"#, "x".repeat(MAX_ANSWER));
    for (status, body, expected) in [
        ("400 Bad Request", r#"{"error":"invalid_grant","error_description":"<b>"}"#, "the provider refused the code"),
        ("401 Unauthorized", r#"{"error":"invalid_client"}"#, "the provider rejects the gate's client"),
        ("500 Internal Server Error", "{}", "the provider failed"),
        ("200 OK", r#"{"access_token":"A"}"#, "no `id_token`"),
        ("200 OK", r#"{"id_token":"I"}"#, "no `access_token`"),
        ("200 OK", r#"{"id_token":"I","id_token":"J","access_token":"A"}"#, "not a JSON object"),
        ("200 OK", "<html>", "not a JSON object"),
        ("200 OK", &long, "longer than 65536 bytes"),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", "", "redirects are not followed"),
    ] {
        let stub = Stub::start(vec![answer(status, body), answer("200 OK", "{}")]).await;
        let failure = stub.provider("").exchange(BACK, "C", "V").await.unwrap_err();
        assert!(failure.to_string().contains(expected), "{status} {failure}");
        assert!(!failure.to_string().contains("<b>"));
        assert_eq!(stub.received.lock().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn b43_a_logout_leads_to_the_provider_if_it_has_a_page_for_it() {
    let stub = Stub::start(Vec::new()).await;
    let provider = stub.provider("");
    let logout_url = |hint| provider.logout_url("https://gate.example/", hint).unwrap();
    let url = logout_url(None);
    let expected = "/end?client_id=web&post_logout_redirect_uri=https%3A%2F%2Fgate.example%2F";
    assert_eq!(url, format!("{}{expected}", stub.url));
    assert_eq!(logout_url(Some("e.y.J")), format!("{}{expected}&id_token_hint=e.y.J", stub.url));
    // A longer hint is left out, because servers refuse longer URLs.
    assert_eq!(logout_url(Some(&"e".repeat(MAX_LOGOUT_URL))), url);
    let issuer = RemoteIssuer::new("kc", stub.url.as_str());
    let silent = LoginProvider::with_metadata(&issuer, "web", Arc::new(|| None));
    assert_eq!(silent.logout_url("https://gate.example/", None), None);
    let unknown = silent.login_url(BACK, SECRETS, &[]).await.unwrap_err();
    assert!(matches!(unknown, LoginFailure::Unknown(..)), "{unknown}");
}
