//! A stand-in for a transmitter of security events, written from the examples of the specifications (OpenID SSF 1.0 §7 and
//! §8, RFC 8935, RFC 8936): it has one stream, which is polled or pushed, and false answers where a test wants these.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

/// The type of verification events.
pub const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
/// How long a poll without events waits for its answer.
const HOLD: Duration = Duration::from_secs(3);

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub authorization: String,
    /// `null` if the body is not JSON.
    pub body: Value,
    pub text: String,
}

impl Asked {
    pub(crate) fn read(stream: &TcpStream) -> std::io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (method, target) = line.split_once(' ').map(|(a, b)| (a, b.split(' ').next().unwrap())).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (mut length, mut authorization) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "authorization" => value.trim().clone_into(&mut authorization),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            authorization,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            text: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

pub(crate) fn respond(mut stream: &TcpStream, status: u16, answer: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n");
    let location = if status == 302 { format!("Location: {answer}\r\n") } else { String::new() };
    write!(stream, "{head}{location}Content-Length: {}\r\n\r\n{answer}", answer.len())
}

/// The answer that a test sets: a status, and a body.
pub type Lie = Box<dyn FnMut(&Asked) -> Option<(u16, String)> + Send>;
/// The placeholder for the `state` of a request.
pub type Verifies = Box<dyn Fn(&str) -> Value + Send>;
/// Makes a token of claims, which have no `iat` yet.
pub type Sign = Box<dyn Fn(&Value) -> String + Send + Sync>;

#[derive(Default)]
pub struct State {
    /// The stream, once a request has created it.
    pub stream: Option<Value>,
    pub status: String,
    /// The events that are not acknowledged.
    pub waiting: BTreeMap<String, String>,
    /// The acknowledged events, in order.
    pub acknowledged: Vec<String>,
    /// The refused events, with the error.
    pub refused: BTreeMap<String, Value>,
    /// All requests, oldest first.
    pub asked: Vec<Asked>,
    /// The `state` of verification events. `None`: no verification event is sent.
    pub verifies: Option<Verifies>,
    pub lie: Option<Lie>,
    /// The address for pushed events, if the host of their URL is a name of a test.
    pub push_to: Option<SocketAddr>,
    /// The largest number of concurrent polls.
    pub most_polling: usize,
    polling: usize,
    verifications: usize,
}

/// The transmitter.
pub struct Transmitter {
    pub url: String,
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    iss: String,
    audience: String,
    token: String,
    sign: Sign,
    state: Mutex<State>,
    changed: Condvar,
}

impl Transmitter {
    /// A transmitter at a port of this machine, of the issuer `iss`, for a receiver of this audience with this token.
    pub fn start(iss: &str, audience: &str, token: &str, sign: Sign) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}/ssf");
        let state =
            State { status: "enabled".into(), verifies: Some(Box::new(|state| state.into())), ..State::default() };
        let shared = Arc::new(Shared {
            url: url.clone(),
            iss: iss.to_owned(),
            audience: audience.to_owned(),
            token: token.to_owned(),
            sign,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&served);
                std::thread::spawn(move || drop(shared.serve(&stream.unwrap())));
            }
        });
        Self { url, address, shared }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Sends an event.
    pub fn send(&self, jti: &str, sub_id: &Value, events: &Value) {
        self.shared.send(jti, sub_id, events);
    }

    /// Sends a token as it is.
    pub fn send_text(&self, jti: &str, token: &str) {
        self.state().waiting.insert(jti.to_owned(), token.to_owned());
        self.shared.changed.notify_all();
    }

    /// The number of requests for a path with this method.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.state().asked.iter().filter(|asked| asked.method == method && asked.path == path).count()
    }

    /// Waits for a condition, for at most a minute.
    pub fn until<T>(&self, what: &str, mut found: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = self.state();
        for _ in 0..600 {
            if let Some(found) = found(&mut state) {
                return found;
            }
            state = self.shared.changed.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
        }
        panic!("{what}: {:#?}", state.asked.iter().rev().take(5).collect::<Vec<_>>());
    }
}

impl Shared {
    fn event(&self, jti: &str, sub_id: &Value, events: &Value) -> Value {
        json!({ "iss": self.iss, "aud": self.audience, "jti": jti, "sub_id": sub_id, "events": events })
    }

    fn send(&self, jti: &str, sub_id: &Value, events: &Value) {
        let token = (self.sign)(&self.event(jti, sub_id, events));
        let mut state = self.state.lock().unwrap();
        let delivery = state.stream.as_ref().map(|stream| stream["delivery"].clone()).unwrap_or_default();
        match delivery["method"].as_str() {
            Some("urn:ietf:rfc:8935") => {
                let to = state.push_to;
                drop(state);
                let (status, body) = push(&delivery, &token, to);
                let mut state = self.state.lock().unwrap();
                match status {
                    202 => state.acknowledged.push(jti.to_owned()),
                    _ => drop(state.refused.insert(jti.to_owned(), body)),
                }
            }
            _ => drop(state.waiting.insert(jti.to_owned(), token)),
        }
        self.changed.notify_all();
    }

    fn serve(self: &Arc<Self>, stream: &TcpStream) -> std::io::Result<()> {
        let asked = Asked::read(stream)?;
        let (status, answer) = self.answer(&asked);
        respond(stream, status, &answer)
    }

    fn answer(self: &Arc<Self>, asked: &Asked) -> (u16, String) {
        let mut state = self.state.lock().unwrap();
        state.asked.push(asked.clone());
        self.changed.notify_all();
        if let Some(mut lie) = state.lie.take() {
            let answer = lie(asked);
            state.lie = Some(lie);
            if let Some(answer) = answer {
                return answer;
            }
        }
        let is_open = asked.path.starts_with("/.well-known/") || asked.path == "/token";
        if !is_open && asked.authorization != format!("Bearer {}", self.token) {
            return (401, json!({ "error": "invalid_token" }).to_string());
        }
        let (status, body) = match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/.well-known/ssf-configuration/ssf") => (200, self.metadata()),
            ("POST", "/token") => {
                (200, json!({ "access_token": self.token, "token_type": "Bearer", "expires_in": 300 }))
            }
            (method, "/streams") => self.stream(&mut state, method, &asked.body),
            (method, "/status") => {
                if method == "POST" {
                    state.status = asked.body["status"].as_str().unwrap().to_owned();
                }
                (200, json!({ "stream_id": "f67e39a0", "status": state.status }))
            }
            ("POST", "/verify") => {
                state.verifications += 1;
                let jti = format!("verification-{}", state.verifications);
                if let Some(verifies) = &state.verifies {
                    let said = verifies(asked.body["state"].as_str().unwrap());
                    let (sub_id, events) =
                        (json!({ "format": "opaque", "id": "f67e39a0" }), json!({ VERIFICATION: { "state": said } }));
                    let is_pushed =
                        state.stream.as_ref().is_some_and(|stream| stream["delivery"]["method"] == "urn:ietf:rfc:8935");
                    if is_pushed {
                        let shared = Arc::clone(self);
                        std::thread::spawn(move || shared.send(&jti, &sub_id, &events));
                    } else {
                        // The event arrives before the answer to this request.
                        let token = (self.sign)(&self.event(&jti, &sub_id, &events));
                        state.waiting.insert(jti, token);
                        self.changed.notify_all();
                    }
                }
                return (204, String::new());
            }
            ("POST", "/poll") => (200, self.poll(state, &asked.body)),
            _ => (404, json!({})),
        };
        (status, body.to_string())
    }

    fn metadata(&self) -> Value {
        let base = self.url.trim_end_matches("/ssf");
        json!({
            "spec_version": "1_0", "issuer": self.url, "jwks_uri": format!("{base}/jwks.json"),
            "delivery_methods_supported": ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"],
            "configuration_endpoint": format!("{base}/streams"), "status_endpoint": format!("{base}/status"),
            "verification_endpoint": format!("{base}/verify"),
            "authorization_schemes": [{ "spec_urn": "urn:ietf:rfc:6749" }], "default_subjects": "ALL", "critical_subject_members": ["tenant"],
        })
    }

    fn stream(&self, state: &mut State, method: &str, body: &Value) -> (u16, Value) {
        let configured = |body: &Value| {
            let mut delivery = body["delivery"].clone();
            if delivery["method"] == "urn:ietf:rfc:8936" {
                delivery["endpoint_url"] = format!("{}/poll", self.url.trim_end_matches("/ssf")).into();
            }
            json!({
                "stream_id": "f67e39a0", "iss": self.iss, "aud": [self.audience], "delivery": delivery,
                "events_requested": body["events_requested"], "events_delivered": body["events_requested"],
            })
        };
        match (method, &state.stream) {
            ("GET", None) => (200, json!([])),
            ("GET", Some(stream)) => (200, json!([stream])),
            ("POST", Some(_)) => (409, json!({ "error": "stream exists" })),
            ("POST", None) => (201, state.stream.insert(configured(body)).clone()),
            ("PATCH", Some(_)) if body["stream_id"] == "f67e39a0" => {
                (200, state.stream.insert(configured(body)).clone())
            }
            ("DELETE", Some(_)) => {
                state.stream = None;
                (204, json!({}))
            }
            _ => (404, json!({})),
        }
    }

    fn poll(&self, mut state: MutexGuard<'_, State>, body: &Value) -> Value {
        for jti in body["ack"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            state.waiting.remove(jti);
            state.acknowledged.push(jti.to_owned());
        }
        for (jti, why) in body["setErrs"].as_object().into_iter().flatten() {
            state.waiting.remove(jti);
            state.refused.insert(jti.clone(), why.clone());
        }
        self.changed.notify_all();
        if body["returnImmediately"] != true {
            state.polling += 1;
            state.most_polling = state.most_polling.max(state.polling);
            let may_wait = |state: &mut State| state.waiting.is_empty();
            state = self.changed.wait_timeout_while(state, HOLD, may_wait).unwrap().0;
            state.polling -= 1;
        }
        let most = usize::try_from(body["maxEvents"].as_u64().unwrap()).unwrap();
        let sets: BTreeMap<_, _> = state.waiting.iter().take(most).collect();
        json!({ "sets": sets, "moreAvailable": state.waiting.len() > most })
    }
}

/// Pushes an event (RFC 8935). Returns the status and the body.
fn push(delivery: &Value, token: &str, to: Option<SocketAddr>) -> (u16, Value) {
    let rest = delivery["endpoint_url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (authority, path) = rest.split_at(rest.find('/').unwrap());
    let mut stream = match to {
        Some(address) => TcpStream::connect(address).unwrap(),
        None => TcpStream::connect(authority).unwrap(),
    };
    let authorization = delivery["authorization_header"].as_str().unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: {authorization}\r\nConnection: close\r\n\
         Content-Type: application/secevent+jwt\r\nContent-Length: {}\r\n\r\n{token}",
        token.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or_default())
}
