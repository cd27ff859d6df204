//! An LDAP server that answers as a test wants, and records the requests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use support::{Gate, Place};

use super::super::guesses::guesses;
use super::{BASE, KEYS, PASSWORD};

/// The operations (RFC 4511 §4): the tag of the request.
const BIND: u8 = 0x60;
const SEARCH: u8 = 0x63;

/// An element in BER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ ..=127) => bytes.push(short),
        _ => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

fn text(content: &[u8]) -> Vec<u8> {
    element(0x04, content)
}

/// A result: code, matched name, message.
fn result(tag: u8, code: u8) -> Vec<u8> {
    element(tag, &[element(0x0a, &[code]), text(b""), text(b"")].concat())
}

fn bound(code: u8) -> Vec<u8> {
    result(0x61, code)
}

fn search_done(code: u8) -> Vec<u8> {
    result(0x65, code)
}

/// An entry with these attributes.
fn entry(dn: &[u8], attributes: &[(&str, &[u8])]) -> Vec<u8> {
    let lists: Vec<(&str, Vec<&[u8]>)> = attributes.iter().map(|(name, value)| (*name, vec![*value])).collect();
    entry_with_lists(dn, &lists)
}

/// An entry with attributes of several values.
fn entry_with_lists(dn: &[u8], attributes: &[(&str, Vec<&[u8]>)]) -> Vec<u8> {
    let attribute = |(name, values): &(&str, Vec<&[u8]>)| {
        let values: Vec<u8> = values.iter().flat_map(|value| text(value)).collect();
        element(0x30, &[text(name.as_bytes()), element(0x31, &values)].concat())
    };
    let attributes: Vec<u8> = attributes.iter().flat_map(attribute).collect();
    element(0x64, &[text(dn), element(0x30, &attributes)].concat())
}

fn user(dn: &[u8]) -> Vec<u8> {
    entry(dn, &[("entryUUID", b"0b2f1c1e-0000-4000-8000-000000000001"), ("pwdChangedTime", b"20200101000000Z")])
}

fn reference() -> Vec<u8> {
    element(0x73, &text(b"ldap://other.example.com/dc=example,dc=com"))
}

fn intermediate() -> Vec<u8> {
    element(0x79, &element(0x80, b"1.3.6.1.4.1.4203.1.9.1.4"))
}

/// A request: the connection, the tag, and everything in it.
#[derive(Clone, Debug)]
struct Asked {
    connection: usize,
    operation: u8,
    content: Vec<u8>,
}

impl Asked {
    fn contains(&self, part: &str) -> bool {
        self.content.windows(part.len()).any(|window| window == part.as_bytes())
    }
}

/// The answer: protocol operations, or `None` for no answer.
type Script = dyn Fn(&Asked) -> Option<Vec<Vec<u8>>> + Send + Sync;

struct Liar {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Mutex<Arc<Script>>>,
}

impl Liar {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(honest)));
        let (seen, said) = (Arc::clone(&asked), Arc::clone(&script));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (seen, said) = (Arc::clone(&seen), Arc::clone(&said));
                std::thread::spawn(move || serve(stream.unwrap(), connection, &seen, &said));
            }
        });
        Self { port, asked, script }
    }

    fn says(&self, script: impl Fn(&Asked) -> Option<Vec<Vec<u8>>> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// The requests since the last call.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn gate(&self) -> (Place, Gate) {
        self.gate_with("")
    }

    /// A configuration with a bound on wrong passwords that a test reaches.
    fn gate_with_limit(&self) -> (Place, Gate) {
        let place = self.place("");
        let text = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
        place.write_config(&support::with(&text, "limits", "login_per_account = \"5/1h\""));
        let gate = place.start();
        (place, gate)
    }

    fn gate_with(&self, more: &str) -> (Place, Gate) {
        let place = self.place(more);
        let gate = place.start();
        (place, gate)
    }

    fn place(&self, more: &str) -> Place {
        let (keys, _) = KEYS.split_once("groups =").unwrap();
        let keys = format!(
            "{keys}url = \"ldap://127.0.0.1:{}\"\ndangerous_plaintext = true\ntimeout = \"1s\"\n{more}",
            self.port
        );
        super::place(&keys)
    }
}

fn serve(mut stream: TcpStream, connection: usize, seen: &Mutex<Vec<Asked>>, script: &Mutex<Arc<Script>>) {
    while let Some(message) = read_message(&mut stream) {
        // The message id, then the operation.
        let id_end = 2 + usize::from(message[1]);
        let (id, operation) = message.split_at(id_end);
        let asked = Asked { connection, operation: operation[0], content: operation.to_vec() };
        seen.lock().unwrap().push(asked.clone());
        let script = Arc::clone(&script.lock().unwrap());
        for answer in script(&asked).unwrap_or_default() {
            if stream.write_all(&element(0x30, &[id, &answer].concat())).is_err() {
                return;
            }
        }
    }
}

/// The content of the next message. `None` at the end.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut length = usize::from(head[1]);
    if length > 127 {
        let mut bytes = vec![0; length - 128];
        stream.read_exact(&mut bytes).ok()?;
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    }
    let mut content = vec![0; length];
    stream.read_exact(&mut content).ok()?;
    Some(content)
}

/// One user, whose password is right, and references beside the entry.
fn honest(asked: &Asked) -> Option<Vec<Vec<u8>>> {
    Some(match asked.operation {
        BIND => vec![bound(0)],
        SEARCH => {
            vec![reference(), intermediate(), user(format!("uid=demo,{BASE}").as_bytes()), reference(), search_done(0)]
        }
        _ => Vec::new(),
    })
}

fn search(answers: Vec<Vec<u8>>) -> impl Fn(&Asked) -> Option<Vec<Vec<u8>>> {
    move |asked| if asked.operation == SEARCH { Some(answers.clone()) } else { honest(asked) }
}

#[tokio::test]
async fn i27_references_beside_the_entry_are_skipped_and_never_followed() {
    let liar = Liar::start();
    let (_place, gate) = liar.gate();
    let held = gate.log_in("demo", PASSWORD).await.tokens();
    gate.refresh(&held.refresh).await.tokens();
    liar.says(search(vec![reference(), search_done(0)]));
    assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::BAD_REQUEST, "references alone are no entry");
}

#[tokio::test]
async fn i26_empty_and_nul_passwords_never_reach_the_wire_and_a_bound_connection_never_searches() {
    let liar = Liar::start();
    let (_place, gate) = liar.gate();
    for password in ["", "\0", "correct\0", &"x".repeat(1025)] {
        let status = gate.log_in("demo", password).await.status;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{} bytes", password.len());
    }
    for name in ["demo\0", " demo", "de  mo", ""] {
        assert_eq!(gate.log_in(name, PASSWORD).await.status, StatusCode::BAD_REQUEST, "{name:?}");
    }
    assert!(liar.asked().is_empty(), "nothing was sent");
    for _ in 0..3 {
        let held = gate.log_in("demo", PASSWORD).await.tokens();
        gate.refresh(&held.refresh).await.tokens();
    }
    let asked = liar.asked();
    let of_users = asked.iter().filter(|asked| asked.operation == BIND && asked.contains("uid=demo"));
    let bound: Vec<usize> = of_users.map(|asked| asked.connection).collect();
    assert!(bound.len() >= 3, "{bound:?}");
    let searches = asked.iter().filter(|asked| asked.operation == SEARCH);
    assert!(searches.clone().count() >= 9 && searches.clone().all(|asked| !bound.contains(&asked.connection)));
    // The name goes into the filter as one value.
    liar.says(search(vec![search_done(0)]));
    gate.log_in("a*)(uid=\\", PASSWORD).await;
    assert!(liar.asked().iter().any(|asked| asked.contains("a*)(uid=\\")), "one value, not a filter of its own");
}

#[tokio::test]
async fn a_new_password_file_opens_the_connections_that_search_again() {
    let liar = Liar::start();
    let (place, gate) = liar.gate();
    let mut held = gate.log_in("demo", PASSWORD).await.tokens();
    liar.asked();
    held = gate.refresh(&held.refresh).await.tokens();
    assert!(liar.asked().iter().all(|asked| asked.operation == SEARCH), "the connection is kept");
    support::keep_secret("another-gate-password");
    let file = place.path("ldap.pw");
    let before = file.metadata().unwrap().modified().unwrap();
    support::pki::write_private(&place.path("new.pw"), "another-gate-password\n");
    let new = std::fs::File::options().append(true).open(place.path("new.pw")).unwrap();
    new.set_modified(before + std::time::Duration::from_secs(1)).unwrap();
    std::fs::rename(place.path("new.pw"), file).unwrap();
    gate.refresh(&held.refresh).await.tokens();
    let asked = liar.asked();
    let first = asked.first().expect("a request");
    assert!(first.operation == BIND && first.contains("cn=gate") && first.contains("another-gate-password"));
}

#[tokio::test]
async fn i22_no_lie_of_the_server_is_a_verdict() {
    let liar = Liar::start();
    let dn = format!("uid=demo,{BASE}");
    let dn = dn.as_bytes();
    let other = entry(dn, &[("entryUUID", b"another")]);
    let lies: Vec<(&str, Box<Script>)> = vec![
        ("a referral in place of a result", Box::new(search(vec![search_done(10)]))),
        ("an error of its own", Box::new(search(vec![search_done(80)]))),
        ("two entries", Box::new(search(vec![user(dn), user(dn), search_done(0)]))),
        ("more than it returned", Box::new(search(vec![user(dn), search_done(4)]))),
        ("a name that is not UTF-8", Box::new(search(vec![user(b"uid=\xff"), search_done(0)]))),
        ("an entry without attributes", Box::new(search(vec![element(0x64, &text(dn)), search_done(0)]))),
        ("an entry that is none", Box::new(search(vec![element(0x64, b""), search_done(0)]))),
        ("another user", Box::new(search(vec![other, search_done(0)]))),
        ("no subject", Box::new(search(vec![entry(dn, &[]), search_done(0)]))),
        (
            "a wrong time",
            Box::new(search(vec![entry(dn, &[("entryUUID", b"x"), ("pwdChangedTime", b"now")]), search_done(0)])),
        ),
        ("no end", Box::new(search(vec![user(dn)]))),
        ("nothing", Box::new(|_| None)),
        ("noise", Box::new(|_| Some(vec![vec![0xff; 64]]))),
        ("a result for a bind", Box::new(search(vec![bound(0)]))),
    ];
    for (lie, script) in lies {
        // A separate gate, because consecutive faults would open the circuit.
        let (_place, gate) = liar.gate();
        liar.says(honest);
        let held = gate.log_in("demo", PASSWORD).await.tokens();
        liar.says(script);
        let answer = gate.refresh(&held.refresh).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{lie}: {answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{lie}");
        if lie != "another user" {
            assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE, "{lie}");
        }
        liar.says(honest);
        let answer = gate.refresh(&held.refresh).await;
        assert_eq!(answer.status, StatusCode::OK, "{lie}: the same token works afterwards: {answer:?}");
    }
}

/// A user in these groups, each named by its number.
fn with_groups(attribute: &'static str, groups: Vec<Vec<u8>>) -> impl Fn(&Asked) -> Option<Vec<Vec<u8>>> {
    move |asked| {
        if asked.operation != SEARCH {
            return honest(asked);
        }
        let group = groups.iter().find(|dn| !dn.is_empty() && asked.content.windows(dn.len()).any(|part| part == **dn));
        Some(match group {
            Some(dn) => vec![reference(), entry(dn, &[("cn", b"staff")]), search_done(0)],
            None => {
                let uuid: &[u8] = b"0b2f1c1e-0000-4000-8000-000000000001";
                let lists = [("entryUUID", vec![uuid]), (attribute, groups.iter().map(Vec::as_slice).collect())];
                vec![entry_with_lists(format!("uid=demo,{BASE}").as_bytes(), &lists), search_done(0)]
            }
        })
    }
}

fn group(number: usize) -> Vec<u8> {
    format!("cn=g{number:04},{BASE}").into_bytes()
}

#[tokio::test]
async fn i22_groups_that_an_attribute_names_in_part_or_wrongly_are_a_fault_and_never_a_loss() {
    let liar = Liar::start();
    let keys = "groups = { attribute = \"memberOf\", scopes = { staff = [\"list\"] } }\n";
    let good = || with_groups("memberOf", vec![group(1), group(2), group(1)]);
    let answered_for_a_group = |answers: Vec<Vec<u8>>| -> Box<Script> {
        Box::new(move |asked| if asked.contains("cn=g0001") { Some(answers.clone()) } else { good()(asked) })
    };
    let dn = group(1);
    let lies: Vec<(&str, Box<Script>)> = vec![
        ("a part of the list", Box::new(with_groups("memberOf;range=0-1", vec![group(1), group(2)]))),
        ("the end of the list", Box::new(with_groups("memberof;Range=2-*", vec![group(1)]))),
        ("too many", Box::new(with_groups("memberOf", (0..1001).map(group).collect()))),
        ("an empty name", Box::new(with_groups("memberOf", vec![Vec::new()]))),
        ("a name that is not UTF-8", Box::new(with_groups("memberOf", vec![b"cn=\xff".to_vec()]))),
        ("two entries of one name", answered_for_a_group(vec![entry(&dn, &[]), entry(&dn, &[]), search_done(0)])),
        ("a referral", answered_for_a_group(vec![search_done(10)])),
        ("an error", answered_for_a_group(vec![search_done(50)])),
        (
            "a group that is called by no text",
            answered_for_a_group(vec![entry(&dn, &[("cn", b"\xff")]), search_done(0)]),
        ),
        ("no answer", answered_for_a_group(Vec::new())),
    ];
    for (lie, script) in lies {
        let (_place, gate) = liar.gate_with(keys);
        liar.says(good());
        let held = gate.log_in("demo", PASSWORD).await.tokens();
        assert_eq!(gate.get("/x", &held.access).await.echoed("x-auth-scope"), ["read list"]);
        liar.says(script);
        let answer = gate.refresh(&held.refresh).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{lie}: {answer:?}");
        assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE, "{lie}");
        liar.says(good());
        let answer = gate.refresh(&held.refresh).await;
        assert_eq!(answer.status, StatusCode::OK, "{lie}: the same token works afterwards: {answer:?}");
        let scope = gate.get("/x", &answer.tokens().access).await.echoed("x-auth-scope");
        assert_eq!(scope, ["read list"], "{lie}");
    }
}

#[tokio::test]
async fn i25_groups_that_an_attribute_names_are_read_once_each_on_one_connection() {
    let liar = Liar::start();
    let (_place, gate) = liar.gate_with("groups = { attribute = \"memberOf\", nested = 3 }\n");
    // Each group is in the next one, and the last one in the first.
    liar.says(|asked| {
        let number = (0..4).find(|number| asked.contains(&format!("cn=g{number:04}")));
        match (asked.operation, number) {
            (SEARCH, Some(number)) => {
                let next: Vec<u8> = group((number + 1) % 4);
                Some(vec![entry(&group(number), &[("cn", b"staff"), ("memberOf", &next)]), search_done(0)])
            }
            _ => with_groups("memberOf", vec![group(0)])(asked),
        }
    });
    gate.log_in("demo", PASSWORD).await.tokens();
    let asked = liar.asked();
    let read: Vec<_> = asked.iter().filter(|asked| asked.contains("cn=g0")).collect();
    // The login reads the user twice: for the password, and for the session.
    assert!(read.len() % 4 == 0 && read.len() <= 8, "{}", read.len());
    for login in read.chunks(4) {
        assert!(login.iter().all(|asked| asked.connection == login[0].connection));
    }
}

#[tokio::test]
async fn i28_what_the_server_says_of_a_bind_decides_or_is_a_fault() {
    let liar = Liar::start();
    for (code, expected) in [
        (0, StatusCode::OK),
        (19, StatusCode::BAD_REQUEST),
        (32, StatusCode::BAD_REQUEST),
        (48, StatusCode::BAD_REQUEST),
        (49, StatusCode::BAD_REQUEST),
        (53, StatusCode::BAD_REQUEST),
        (8, StatusCode::SERVICE_UNAVAILABLE),
        (50, StatusCode::SERVICE_UNAVAILABLE),
        (51, StatusCode::SERVICE_UNAVAILABLE),
        (80, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let (_place, gate) = liar.gate();
        liar.says(move |asked| match asked.operation {
            BIND if asked.contains("uid=demo") => Some(vec![bound(code)]),
            _ => honest(asked),
        });
        assert_eq!(gate.log_in("demo", PASSWORD).await.status, expected, "{code}");
    }
    // A bind with an empty name would be anonymous, whatever the password.
    let (_place, gate) = liar.gate();
    liar.says(search(vec![user(b""), search_done(0)]));
    assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn i46_what_the_server_has_of_one_user_is_503_for_that_user_alone() {
    let liar = Liar::start();
    let (_place, gate) = liar.gate();
    let demo = gate.log_in("demo", PASSWORD).await.tokens();
    let eve = user(format!("uid=eve,{BASE}").as_bytes());
    let entries: Vec<(&str, Vec<Vec<u8>>, u8)> = vec![
        ("two entries", vec![eve.clone(), eve.clone(), search_done(0)], 0),
        ("a value that the server does not search for", vec![search_done(53)], 0),
        ("a bind that it may not decide", vec![eve, search_done(0)], 50),
    ];
    for (what, found, code) in entries {
        liar.says(move |asked| match asked.operation {
            BIND if asked.contains("uid=eve") => Some(vec![bound(code)]),
            SEARCH if asked.contains("eve") => Some(found.clone()),
            _ => honest(asked),
        });
        // More often than faults of the server open the circuit.
        for _ in 0..8 {
            assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE, "{what}");
        }
        assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::OK, "{what}");
    }
    assert_eq!(gate.refresh(&demo.refresh).await.status, StatusCode::OK);
    // A server that is away is not asked after five attempts.
    liar.says(|asked| Some(if asked.operation == SEARCH { vec![search_done(52)] } else { vec![bound(0)] }));
    for _ in 0..5 {
        assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    liar.asked();
    assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(liar.asked().is_empty(), "the circuit is open");
}

#[tokio::test]
async fn i63_a_disabled_user_is_answered_as_nobody_and_takes_as_many_guesses_whatever_the_server_calls_it() {
    for code in [49, 53, 19] {
        let liar = Liar::start();
        let (_place, gate) = liar.gate_with_limit();
        // 389 Directory Server says 53 of an account that is disabled, whatever the password.
        liar.says(move |asked| match asked.operation {
            BIND if asked.contains("uid=") => Some(vec![bound(code)]),
            SEARCH if asked.contains("nobody") => Some(vec![search_done(0)]),
            _ => honest(asked),
        });
        let answers = [gate.log_in("demo", PASSWORD).await, gate.log_in("nobody", PASSWORD).await];
        let told = answers.map(|answer| (answer.status, answer.error()));
        assert_eq!(told[0], told[1], "{code}");
        // One attempt was counted already.
        assert_eq!(guesses(&gate, ["demo", "nobody"]).await, [4; 2], "{code}");
    }
}

#[tokio::test]
async fn i49_an_answer_to_the_name_of_nobody_decides_nothing() {
    let liar = Liar::start();
    for (code, expected) in [
        (0, StatusCode::BAD_REQUEST),
        (50, StatusCode::BAD_REQUEST),
        (53, StatusCode::BAD_REQUEST),
        (52, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let (_place, gate) = liar.gate();
        liar.says(move |asked| match asked.operation {
            BIND if asked.contains("rotogate-unknown-user") => Some(vec![bound(code)]),
            SEARCH => Some(vec![search_done(0)]),
            _ => honest(asked),
        });
        assert_eq!(gate.log_in("nobody", PASSWORD).await.status, expected, "{code}");
    }
}

#[tokio::test]
async fn i25_a_directory_that_hangs_delays_no_request_that_does_not_need_it() {
    let liar = Liar::start();
    let (_place, gate) = liar.gate();
    let held = gate.log_in("demo", PASSWORD).await.tokens();
    liar.says(|_| None);
    let mut logins = Vec::new();
    for _ in 0..40 {
        let url = gate.url("/connect/token");
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("client_id", "web"),
                ("grant_type", "password"),
                ("username", "demo"),
                ("password", PASSWORD),
            ])
            .finish();
        let request = http::Request::post(url).header("content-type", "application/x-www-form-urlencoded");
        logins.push(tokio::spawn(support::send(request.body(body.into()).unwrap())));
    }
    // Waiting logins hold all connections for searches.
    support::until("the directory is asked", async || liar.asked.lock().unwrap().len() > 8).await;
    let mut done = 0;
    while !logins.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(gate.get("/x", &held.access).await.status, StatusCode::OK);
        done += 1;
    }
    assert!(done > 8, "data requests were answered while logins waited: {done}");
    for login in logins {
        assert_eq!(login.await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
