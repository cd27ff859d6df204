//! The messages of `kuzzle`, over its routes and in envelopes. A frame of a WebSocket is read by the same function as the
//! body of `/_query`; what is around it is the library's.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method};
use rotogate::denial::Denial;
use rotogate::dialect::kuzzle::Kuzzle;
use rotogate::dialect::{Call, Command, Dialect, Outcome};
use rotogate::fault::Error;
use rotogate::program::{Answer, CommandHandler, Protocol};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::dialects::plain;
use crate::input::target;
use crate::json::{members, names_members_once};

/// Remembers what it is asked, and grants nothing.
#[derive(Default)]
struct Gate(Mutex<Vec<Command>>);

#[async_trait]
impl CommandHandler for Gate {
    async fn execute(&self, command: Command) -> Result<Outcome, Error> {
        self.0.lock().unwrap().push(command);
        Err(Denial::WrongPassword.into())
    }
}

fn answer(operation: &'static str, method: &Method, query: Option<&str>, body: &[u8]) -> (Answer, Vec<Command>) {
    let params = [("strategy".to_owned(), "local".to_owned())];
    let gate = Gate::default();
    let call = Call {
        operation,
        params: &params,
        method,
        headers: &HeaderMap::new(),
        path: "/x",
        query,
        body: &Bytes::copy_from_slice(body),
        address: None,
        from_own_origin: true,
    };
    let answer = Kuzzle::default().answer(&call, &gate).now_or_never().expect("an answer at once");
    (answer, gate.0.into_inner().unwrap())
}

/// A reply of the protocol says its status twice, and is an object.
fn holds(answer: &Answer) {
    let Answer::Reply(reply, _) = answer else { return };
    let body: Value = serde_json::from_slice(reply.body().data()).expect("a reply is JSON");
    assert_eq!(body["status"], reply.status().as_u16());
    assert!(body["requestId"].is_string() && body["volatile"].is_object());
}

target!(
    /// R13: one message is at most one command; what is passed on has no credential left in it, and is passed on the same
    /// way when it comes back.
    kuzzle_message,
    &[
        "{", "}", "\"jwt\":\"t\",", "\"jwt\":null,", "\"jwt\":1,", "\"controller\":\"auth\",", "\"action\":\"refreshToken\",",
        "\"action\":\"login\",", "\"strategy\":\"local\",", "\"body\":{\"username\":\"u\",\"password\":\"p\"},",
        "\"controller\":\"document\",", "\"volatile\":{\"sdkName\":\"jvm@1\"},", "\"requestId\":\"r\",", "\"expiresIn\":\"1h\",",
        "\"expiresIn\":-1,", "\"\\u006awt\":\"u\",", "[[[[[[[[[[[[[[[[[", "\"index\":1,", ",", "\"", "\\ud800", "\u{feff}",
    ],
    |input| {
        let (came, asked) = answer("_query", &Method::POST, None, input);
        holds(&came);
        assert!(asked.len() <= 1, "{} commands of one message", asked.len());
        assert!(asked.is_empty() || names_members_once(input), "R11");
        let Answer::Forward(forward) = came else { return };
        assert!(asked.is_empty(), "carried out and passed on");
        let (sent, passed) = (members(input).expect("R11"), members(&forward.body).expect("R11"));
        // Only the upstream reads the body of a forwarded call.
        assert!(sent.iter().all(|(name, text)| name == "body" || names_members_once(text.as_bytes())), "R11");
        // `null` counts as absent throughout.
        assert!(passed.get("jwt").is_none_or(|text| text == "null"), "a credential is passed on");
        let token = sent.get("jwt").and_then(|text| serde_json::from_str::<Option<String>>(text).expect("a text"));
        assert_eq!(forward.credential.as_ref().map(|token| token.expose_secret()), token.as_deref());
        let without = |message: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            message.clone().into_iter().filter(|(name, _)| name != "jwt").collect()
        };
        assert_eq!(without(&passed), without(&sent), "another message is passed on");

        let (again, _) = answer("_query", &Method::POST, None, &forward.body);
        let Answer::Forward(again) = again else { panic!("not passed on again") };
        assert!(again.credential.is_none());
        assert_eq!(again.body, forward.body);
    }
);

target!(
    /// Any query and any body at any route of an action: one command at most, and the same one for the same query, encoded
    /// again.
    kuzzle_route,
    &[
        "\n", "jwt=t", "&", "=", "expiresIn=1h", "global=1", "cookieAuth=true", "username=u", "password=p", "{", "}", "%", "%00",
        "\"username\":\"u\"", ",\"password\":\"p\"", "\"token\":\"t\"", "null", "[",
    ],
    |input| {
        let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
        let (query, body) = (&input[..at], input.get(at + 1..).unwrap_or_default());
        // A request target is ASCII.
        let Some(query) = std::str::from_utf8(query).ok().filter(|query| query.is_ascii()) else { return };
        let encoded = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form_urlencoded::parse(query.as_bytes()))
            .finish();
        for served in Kuzzle::default().serves("/").iter().filter(|served| !Kuzzle::default().upgrades(served.operation)) {
            for method in served.methods {
                let (came, asked) = answer(served.operation, method, Some(query), body);
                holds(&came);
                assert!(asked.len() <= 1, "{} commands of one call", asked.len());
                let (_, again) = answer(served.operation, method, Some(&encoded), body);
                let plain = |commands: &[Command]| commands.iter().map(plain).collect::<Vec<_>>();
                assert_eq!(plain(&again), plain(&asked));
            }
        }
    }
);

fn asked_for(text: &str) -> Option<Option<Duration>> {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("expiresIn", text).finish();
    let body = br#"{"username":"u","password":"p"}"#;
    let (_, mut asked) = answer("login", &Method::POST, Some(&query), body);
    match asked.pop() {
        Some(Command::Login { access_ttl, .. }) => Some(access_ttl),
        Some(other) => panic!("a login asks for {}", plain(&other)),
        None => None,
    }
}

target!(
    /// A duration that is taken is at least a second, and the same when it is written in milliseconds.
    kuzzle_expiry,
    &[
        "ms", "s", "m", "h", "d", "w", "y", " ", "-", ".", "1", "0", "99999999999999999999", "msecs", "YEARS", "e3", "inf",
        "nan", "-1", "0.5", "\u{a0}",
    ],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Some(ttl) = asked_for(text) else { return };
        let Some(ttl) = ttl else { panic!("a duration is taken for none") };
        assert!(ttl >= Duration::from_secs(1));
        assert!(!text.parse::<f64>().is_ok_and(|millis| millis < 1.0), "{text}: less than a millisecond");
        // The range that a double represents exactly.
        let millis = (ttl.as_secs_f64() * 1000.0).round();
        if millis < 1e15 {
            let again = asked_for(&format!("{millis} ms")).flatten().expect("milliseconds are taken");
            assert!(again.abs_diff(ttl) <= Duration::from_millis(1), "{text}: {ttl:?}, {again:?}");
        }
    }
);
