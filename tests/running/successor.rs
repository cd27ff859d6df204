//! SIGUSR2 and socket handover: another program replaces the gate, and no connection is refused.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

use support::server::free_port;
use support::{CONFIG, Gate, Place, until};

/// A folder whose gate gets its sockets from this process, which does not keep them open.
fn place_with_sockets(config: &str) -> (Place, Gate) {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [public, admin] = [0, 1].map(|place: usize| sockets[place].local_addr().unwrap().to_string());
    let config = config.replacen("127.0.0.1:0", &public, 1).replacen("127.0.0.1:0", &admin, 1);
    let place = Place::new(&config);
    let gate = place.start_with_sockets(sockets.map(Into::into).into());
    assert_eq!(gate.address.to_string(), public);
    assert_eq!(gate.admin.to_string(), admin);
    (place, gate)
}

/// Addresses that a successor keeps.
pub(super) fn on_free_ports() -> String {
    let [public, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    CONFIG.replacen("127.0.0.1:0", &public, 1).replacen("127.0.0.1:0", &admin, 1)
}

/// A request on a new connection.
async fn ask(address: SocketAddr) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/public/x").header("host", "gate.test").header("connection", "close");
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

fn more_routes(place: &Place) {
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    let more = "[[routes]]\npath = \"/more/{*rest}\"\nauth = \"none\"\nupstream = \"app\"\n";
    place.write_config(&format!("{config}{more}"));
}

async fn is_started_anew(gate: &Gate) {
    until("the successor answers", async || {
        let asked = Request::get(gate.url("/more/x")).body(http_body_util::Full::default()).unwrap();
        support::try_send(asked).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_takes_over_and_no_connection_is_refused() {
    let (place, gate) = place_with_sockets(CONFIG);
    let tokens = gate.login().await;
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = gate.address;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(ask(address).await.unwrap(), StatusCode::OK);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    until("clients come", async || asked.load(Ordering::SeqCst) > 100).await;
    more_routes(&place);
    gate.signal("USR2");
    is_started_anew(&gate).await;
    // More requests than one client could have had in flight without an answer.
    let before = asked.load(Ordering::SeqCst);
    until("clients still come", async || asked.load(Ordering::SeqCst) > before + 100).await;
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);

    // Another upgrade, and then a stop: nothing of the earlier processes remains.
    gate.signal("USR2");
    let stopped = |line: &&str| line.ends_with("stopped");
    until("the first successor is gone", async || gate.log().lines().filter(stopped).count() == 2).await;
    is_started_anew(&gate).await;
    assert_eq!(gate.stop(), Some(0));
    assert!(TcpStream::connect(address).is_err(), "after a stop nobody listens");
}

/// An upstream that sends one event and then nothing.
async fn silent_events(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = [0; 4096];
    assert_ne!(stream.read(&mut head).await.unwrap(), 0);
    let begun =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    stream.write_all(begun.as_bytes()).await.unwrap();
    while stream.read(&mut head).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_an_upgrade_under_load_refuses_no_request_and_waits_for_no_event_stream() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let events = format!(
        "{}[[upstreams]]\nname = \"events\"\nurls = [\"http://{}\"]\n\
         [[routes]]\npath = \"/events\"\nauth = \"none\"\nupstream = \"events\"\n",
        support::with(CONFIG, "server", "drain_timeout = \"10m\""),
        listener.local_addr().unwrap()
    );
    let upstream = tokio::spawn(silent_events(listener));
    let (place, gate) = place_with_sockets(&events);
    let mut stream = tokio::net::TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: gate.test\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: 1\n\n\r\n") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    }

    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = gate.address;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while !over.load(Ordering::SeqCst) {
                    let began = tokio::time::Instant::now();
                    assert_eq!(ask(address).await.unwrap(), StatusCode::OK);
                    longest = longest.max(began.elapsed());
                    asked.fetch_add(1, Ordering::SeqCst);
                }
                longest
            })
        })
        .collect();
    until("clients come", async || asked.load(Ordering::SeqCst) > 100).await;
    more_routes(&place);
    gate.signal("USR2");
    stream.read_to_end(&mut seen).await.unwrap();
    let ended = String::from_utf8(seen).unwrap();
    assert!(ended.ends_with("data: 1\n\n\r\n0\r\n\r\n"), "a whole reply, so that the client connects again: {ended}");
    is_started_anew(&gate).await;
    over.store(true, Ordering::SeqCst);
    for client in clients {
        let longest = client.await.unwrap();
        support::figure::print_time(
            "P4 a request beside an event stream at an upgrade",
            longest,
            Duration::from_secs(1),
        );
    }
    let line = |line: &&str| line.contains("url.path=/events") && line.contains("rotogate.end=shutdown");
    assert_eq!(gate.log().lines().filter(line).count(), 1, "{}", gate.log());
    upstream.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_comes_while_a_takeover_waits_for_requests_is_a_stop() {
    let (_place, gate) = place_with_sockets(&support::with(CONFIG, "server", "drain_timeout = \"5m\""));
    let mut slow = TcpStream::connect(gate.address).unwrap();
    slow.write_all(b"POST /public/x HTTP/1.1\r\nhost: gate.test\r\ncontent-length: 10\r\n\r\nhalf ").unwrap();
    let series = "rotogate_requests_in_flight";
    until("the request is under way", async || gate.metric(series).await > 0).await;
    gate.signal("USR2");
    until("the takeover waits for it", async || gate.log().contains("stopping: no new connections")).await;
    gate.signal("TERM");
    until("the stop is heard", async || {
        gate.log().contains("in-place upgrade cancelled, because the gate is stopping")
    })
    .await;
    slow.write_all(b"done.").unwrap();
    let address = gate.address;
    until("the gate has stopped", async || gate.log().lines().any(|line| line.ends_with(" stopped"))).await;
    assert_eq!(gate.stop(), Some(0));
    assert!(TcpStream::connect(address).is_err(), "after a stop nobody listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_not_start_leaves_the_gate_as_it_is() {
    let (place, gate) = place_with_sockets(CONFIG);
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&config.replace("[issuer]", "[isuer]"));
    gate.signal("USR2");
    until("the mistake is in the log", async || gate.log().contains("isuer: unknown key")).await;
    assert_eq!(gate.call(Method::GET, "/public/x", &[], "").await.status, StatusCode::OK);
    place.write_config(&config);
    more_routes(&place);
    gate.signal("USR2");
    is_started_anew(&gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_wait_at_a_passed_socket_from_one_gate_to_the_next() {
    // Like a service manager that keeps the sockets open.
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [public, admin] = [0, 1].map(|place: usize| sockets[place].local_addr().unwrap());
    let config = CONFIG.replacen("127.0.0.1:0", &public.to_string(), 1).replacen("127.0.0.1:0", &admin.to_string(), 1);
    let place = Place::new(&config);
    let passed = || sockets.each_ref().map(|socket| socket.try_clone().unwrap().into()).into();
    let gate = place.start_with_sockets(passed());
    let tokens = gate.login().await;
    assert_eq!(gate.stop(), Some(0));
    let waiting = tokio::spawn(async move { ask(public).await.unwrap() });
    let gate = place.start_with_sockets(passed());
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
    assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK);
    // The log reports a socket that the configuration does not name.
    assert_eq!(gate.stop(), Some(0));
    let stray = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut passed: Vec<std::os::fd::OwnedFd> = passed();
    passed.push(stray.into());
    let gate = place.start_with_sockets(passed);
    assert!(gate.log().contains("passed socket closed: gateway.toml does not name its address"));
    assert_eq!(ask(public).await.unwrap(), StatusCode::OK);
}

/// The old gate serves as before, with its routes and sessions.
async fn goes_on(gate: &Gate, tokens: &support::Tokens) {
    until("the gate goes on", async || {
        let asked = Request::get(gate.url("/public/x")).body(http_body_util::Full::default()).unwrap();
        support::try_send(asked).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
    assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK);
}

/// The id of the serving process, by its own answer.
async fn process(place: &Place, gate: &Gate) -> u64 {
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    let asked = Request::get(format!("http://{}/v1/status", gate.admin));
    let asked = asked.header("authorization", format!("Bearer {}", token.trim()));
    let answer = support::send(asked.body(http_body_util::Full::default()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.json()["pid"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_o13_what_check_would_refuse_leaves_the_gate_as_it_is() {
    let (place, gate) = place_with_sockets(CONFIG);
    let tokens = gate.login().await;
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    let users = place.path("data/users.toml");
    let mode = |mode| std::fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let overlapping = "[[routes]]\npath = \"/{*any}\"\nauth = \"none\"\nupstream = \"app\"\n";
    let missing = "[[issuers]]\nurl = \"https://idp.test\"\naudience = [\"api\"]\njwks_file = \"missing.json\"\neverywhere = true\n";
    let wrong = [
        ("USR2", format!("{config}{overlapping}"), 0o600, "serves the same host, path and method as"),
        ("HUP", format!("{config}{overlapping}"), 0o600, "serves the same host, path and method as"),
        ("USR2", config.clone(), 0o644, "its mode 644 gives others access"),
        ("HUP", config.clone(), 0o644, "its mode 644 gives others access"),
        ("USR2", config.replacen(&gate.address.to_string(), &taken, 1), 0o600, "cannot listen on"),
        ("USR2", format!("{config}{missing}"), 0o600, "missing.json: cannot be read"),
        ("HUP", format!("{config}{missing}"), 0o600, "missing.json: cannot be read"),
    ];
    for (refusals, (signal, config, bits, said)) in (1..).zip(wrong) {
        mode(bits);
        place.write_config(&config);
        gate.signal(signal);
        until("it is refused", async || {
            let log = gate.log();
            let words = ["this program keeps running", "the old one stays in force"];
            log.lines().filter(|line| words.iter().any(|word| line.contains(word))).count() == refusals
        })
        .await;
        assert!(gate.log().contains(said), "{said}: {}", gate.log());
        goes_on(&gate, &tokens).await;
    }
    mode(0o600);
    assert!(!gate.log().contains("stopping: no new connections"), "nothing was given up");
    place.write_config(&config);
    more_routes(&place);
    gate.signal("USR2");
    is_started_anew(&gate).await;
    assert_eq!(process(&place, &gate).await, u64::from(gate.child.id()));
    assert_eq!(gate.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_o13_a_successor_that_fails_at_its_start_gives_the_process_back() {
    let (place, gate) = place_with_sockets(CONFIG);
    let tokens = gate.login().await;
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    // A mistake that only the start itself can find.
    let broken = place.path("data/broken.redb");
    std::fs::write(&broken, "no store").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for round in 1..=2 {
        place.write_config(&config.replace("[issuer]", "[store]\npath = \"data/broken.redb\"\n[issuer]"));
        // A reload reads the new file before: the former program still starts from the configuration of its start.
        if round == 2 {
            gate.signal("HUP");
            until("it is read", async || gate.log().contains("restart needed for changed keys")).await;
        }
        gate.signal("USR2");
        until("it is given back", async || gate.log().matches("process.upgrade_refused").count() == round).await;
        assert!(gate.log().contains("is not a store of rotogate"), "{}", gate.log());
        goes_on(&gate, &tokens).await;
        assert_eq!(gate.refresh(&gate.login().await.refresh).await.status, StatusCode::OK);
        assert_eq!(process(&place, &gate).await, u64::from(gate.child.id()));
        let name = std::fs::read_to_string(format!("/proc/{}/comm", gate.child.id())).unwrap();
        assert_eq!(name.trim_end(), "rotogate");
    }
    // From that point on the program runs as after any start.
    place.write_config(&config);
    more_routes(&place);
    gate.signal("USR2");
    is_started_anew(&gate).await;
    assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(gate.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o13_a_new_address_is_served_by_the_successor() {
    let (place, gate) = place_with_sockets(CONFIG);
    let more = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    let both = format!("listen = [\"{}\", \"{more}\"]", gate.address);
    place.write_config(&config.replacen(&format!("listen = \"{}\"", gate.address), &both, 1));
    gate.signal("USR2");
    until("both are served", async || ask(more).await.is_ok_and(|status| status == StatusCode::OK)).await;
    assert_eq!(ask(gate.address).await.unwrap(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o14_the_program_is_the_one_of_the_start_and_is_never_looked_up() {
    let place = Place::new(&on_free_ports());
    // A program with the gate's name is where a look-up would find it, in PATH and in this folder.
    for folder in ["", "bin"] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
        let trap = place.path(folder).join("rotogate");
        std::fs::write(&trap, format!("#!/bin/sh\ntouch {}\n", place.path("trapped").display())).unwrap();
        std::fs::set_permissions(&trap, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let script = format!("PATH={}:$PATH; exec -a rotogate \"$@\"", place.path("bin").display());
    let gate = place.start_in_shell(&script);
    more_routes(&place);
    gate.signal("USR2");
    is_started_anew(&gate).await;
    assert!(!place.path("trapped").exists(), "another program was run");
    assert_eq!(gate.stop(), Some(0));
}

/// Waits for the nth refusal of an upgrade. The last refusal must contain this text, and the same process must serve.
async fn upgrade_is_refused(place: &Place, gate: &Gate, nth: usize, said: &str) {
    gate.signal("USR2");
    let refusals = || gate.log().lines().filter(|line| line.contains("in-place upgrade refused")).count();
    until("it is refused", async || refusals() == nth).await;
    let log = gate.log();
    let last = log.lines().rfind(|line| line.contains("in-place upgrade refused")).unwrap();
    assert!(last.contains(said), "{said}: {last}");
    assert_eq!(process(place, gate).await, u64::from(gate.child.id()));
    assert!(!log.contains("stopping: no new connections"), "nothing was given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_program_that_cannot_run_or_is_not_ours_does_not_take_over() {
    let place = Place::new(&on_free_ports());
    let program = place.copy_of_binary();
    let gate = place.start_program(&program);
    let tokens = gate.login().await;
    let put = |content: &[u8], mode| {
        let new = place.path("new");
        std::fs::write(&new, content).unwrap();
        std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        std::fs::rename(new, &program).unwrap();
    };
    let ours = std::fs::read(&program).unwrap();
    std::fs::remove_file(&program).unwrap();
    upgrade_is_refused(&place, &gate, 1, "cannot be run: No such file").await;
    put(&ours, 0o644);
    upgrade_is_refused(&place, &gate, 2, "cannot be run: Permission denied").await;
    // Without debug information, half of the file has all code.
    put(&ours[..64 * 1024], 0o755);
    upgrade_is_refused(&place, &gate, 3, "rotogate-copy").await;
    put(b"no program", 0o755);
    upgrade_is_refused(&place, &gate, 4, "cannot be run: Exec format error").await;
    put(b"#!/bin/sh\necho broken >&2\nexit 3\n", 0o755);
    upgrade_is_refused(&place, &gate, 5, "check: broken").await;
    // A program that succeeds for any arguments.
    put(b"#!/bin/sh\n", 0o755);
    upgrade_is_refused(&place, &gate, 6, "is not rotogate").await;
    put(b"#!/bin/sh\necho '{}'\n", 0o755);
    upgrade_is_refused(&place, &gate, 7, "is not rotogate").await;
    goes_on(&gate, &tokens).await;
    put(&ours, 0o755);
    gate.signal("USR2");
    until("the successor has started", async || gate.log().contains("in-place upgrade started")).await;
    goes_on(&gate, &tokens).await;
    assert_eq!(process(&place, &gate).await, u64::from(gate.child.id()));
    assert_eq!(gate.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_store_that_has_failed_keeps_the_gate_that_has_it() {
    let place = Place::new(&format!("{CONFIG}[access_log]\nenabled = false\n"));
    // The log must stay below the limit, because a write past the limit would end the process.
    let gate = place.start_in_shell("trap '' XFSZ; ROTOGATE_LOG=error exec \"$@\"");
    let tokens = gate.login().await;
    let limit = |bytes: &str| {
        let arguments = [format!("--pid={}", gate.child.id()), format!("--fsize={bytes}:")];
        assert!(std::process::Command::new("prlimit").args(arguments).status().unwrap().success());
    };
    limit("16384");
    assert!(gate.refresh(&tokens.refresh).await.is_fault());
    // Either the check has no space to write, or the gate cannot open the store.
    gate.signal("USR2");
    until("it is refused", async || gate.log().contains("in-place upgrade refused")).await;
    assert!(gate.log().contains("the store is not writable"), "{}", gate.log());
    goes_on(&gate, &tokens).await;
    assert_eq!(process(&place, &gate).await, u64::from(gate.child.id()));
    limit("unlimited");
    until("the store is written again", async || !gate.refresh(&tokens.refresh).await.is_fault()).await;
    assert_eq!(gate.stop(), Some(0));
}
