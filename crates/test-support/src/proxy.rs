//! A proxy in front of a server, which can cut, delay, hold or refuse connections.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Reads a test's clock.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Returns a port whose listener has a full queue, like a host that does not respond.
pub async fn unreachable() -> (u16, impl Sized) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (address.port(), (listener, waiting))
}

pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// The number of reply bytes that are still forwarded. A negative number means all.
    left: AtomicI64,
    /// Each change of this value silences all open connections.
    silent: watch::Sender<()>,
    time: Option<Clock>,
    passed: Mutex<Vec<Duration>>,
    /// The reply to each command. The proxy does not forward the command.
    error: Mutex<Option<String>>,
    /// Whether the proxy closes open connections, and forwards nothing on new ones.
    away: watch::Sender<bool>,
    accepted: Mutex<Vec<Instant>>,
    delay: Mutex<Duration>,
    /// Replies with this text are dropped.
    lost: Mutex<Option<String>>,
    /// Whether the proxy delays all data.
    held: watch::Sender<bool>,
}

impl State {
    async fn pass(&self) {
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let _ = self.held.subscribe().wait_for(|held| !*held).await;
    }
}

impl Proxy {
    pub async fn to(port: u16) -> Self {
        Self::with(port, None).await
    }

    /// Makes a proxy that uses this clock to record when requests pass.
    pub async fn timed(port: u16, time: Clock) -> Self {
        Self::with(port, Some(time)).await
    }

    pub fn passed(&self) -> Vec<Duration> {
        self.state.passed.lock().unwrap().clone()
    }

    async fn with(port: u16, time: Option<Clock>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(State { time, ..State::default() });
        state.left.store(-1, Ordering::SeqCst);
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                shared.accepted.lock().unwrap().push(Instant::now());
                if *shared.away.borrow() {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        Self { port: own, state, task }
    }

    /// Closes the connection after this many further reply bytes. Later connections are not affected.
    pub fn cut_after(&self, bytes: usize) {
        self.state.left.store(i64::try_from(bytes).unwrap(), Ordering::SeqCst);
    }

    pub fn has_cut(&self) -> bool {
        self.state.left.swap(-1, Ordering::SeqCst) < 0
    }

    /// Replies to every command with this error. `None` forwards commands again. `ROLE` still reports a primary.
    pub fn answer(&self, error: Option<&str>) {
        *self.state.error.lock().unwrap() = error.map(str::to_owned);
    }

    pub fn go_away(&self, away: bool) {
        self.state.away.send_replace(away);
    }

    /// Ends the connection before a reply with this text. The server has executed the command.
    pub fn lose(&self, text: Option<&str>) {
        *self.state.lost.lock().unwrap() = text.map(str::to_owned);
    }

    pub fn delay(&self, delay: Duration) {
        *self.state.delay.lock().unwrap() = delay;
    }

    /// Holds all data until the test releases it, like an unplugged cable.
    pub fn hold(&self, held: bool) {
        self.state.held.send_replace(held);
    }

    pub fn accepted(&self) -> Vec<Instant> {
        self.state.accepted.lock().unwrap().clone()
    }

    /// Silences the open connections, as if the other machine had vanished.
    pub fn silence(&self) {
        self.state.silent.send_replace(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let (mut from_client, to_client) = client.into_split();
    let to_client = tokio::sync::Mutex::new(to_client);
    let (mut from_server, mut to_server) = server.into_split();
    let mut silent = state.silent.subscribe();
    silent.mark_unchanged();
    let mut away = state.away.subscribe();
    let requests = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            if let Some(time) = &state.time {
                state.passed.lock().unwrap().push(time());
            }
            let error = state.error.lock().unwrap().clone();
            if let Some(error) = error {
                if to_client.lock().await.write_all(answers(&bytes[..read], &error).as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            state.pass().await;
            if to_server.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    let replies = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            state.pass().await;
            let lost = state.lost.lock().unwrap().clone();
            if lost.is_some_and(|text| bytes[..read].windows(text.len()).any(|part| part == text.as_bytes())) {
                return;
            }
            let left = state.left.load(Ordering::SeqCst);
            let passed = usize::try_from(left).map_or(read, |left| left.min(read));
            if to_client.lock().await.write_all(&bytes[..passed]).await.is_err() {
                return;
            }
            if left >= 0 {
                if passed < read {
                    state.left.store(-1, Ordering::SeqCst);
                    return;
                }
                state.left.store(left - i64::try_from(passed).unwrap(), Ordering::SeqCst);
            }
        }
    };
    let gone = async { drop(away.wait_for(|away| *away).await) };
    let quiet = async {
        let _ = silent.changed().await;
    };
    tokio::select! {
        () = requests => {}
        () = replies => {}
        () = quiet => std::future::pending().await,
        () = gone => {}
    }
}

/// Returns a reply to each command of a pipeline.
fn answers(pipeline: &[u8], error: &str) -> String {
    let text = String::from_utf8_lossy(pipeline);
    let mut lines = text.split("\r\n");
    let mut answers = String::new();
    // A command begins with `*` and a number. No script or record contains such a line.
    while let Some(line) = lines.next() {
        if line.strip_prefix('*').is_none_or(|number| number.parse::<u32>().is_err()) {
            continue;
        }
        match lines.nth(1) {
            Some("ROLE") => answers.push_str("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            _ => answers.push_str(&format!("-{error}\r\n")),
        }
    }
    answers
}
