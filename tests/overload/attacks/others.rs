//! Clients that do not attack.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use support::keep_secret;

/// A time limit that only a hang reaches. A full backlog drops attempts to connect, and the fifth repetition is after 31 s.
const PATIENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);

/// A connection from an address of this machine.
pub(super) async fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// An upstream that takes requests and never answers.
pub(super) async fn hanging() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move { while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {} });
        }
    });
    address
}

/// A client with its own address and its own user.
pub(super) struct Client {
    from: [u8; 4],
    gate: SocketAddr,
    user: String,
    password: &'static str,
    connection: Option<SendRequest<Full<Bytes>>>,
    access: String,
    refresh: String,
    asked: usize,
}

/// Clients that have logged in from their address before, like returning users.
pub(super) async fn prepare(gate: SocketAddr, users: &[String], password: &'static str) -> Vec<Client> {
    let mut clients = Vec::new();
    for (user, last) in users.iter().zip(1..) {
        let mut client = Client {
            from: [127, 0, 1, last],
            gate,
            user: user.clone(),
            password,
            connection: None,
            access: String::new(),
            refresh: String::new(),
            asked: 0,
        };
        client.login().await.unwrap();
        clients.push(client);
    }
    clients
}

type Came = Result<(), String>;

impl Client {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), String> {
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => {
                let stream = connect(self.from, self.gate).await.map_err(|error| error.to_string())?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
                tokio::spawn(connection);
                sender
            }
        };
        connection.ready().await.map_err(|error| error.to_string())?;
        let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        self.connection = Some(connection);
        Ok((status, body))
    }

    async fn token(&mut self, form: String) -> Came {
        let request = Request::post("/connect/token")
            .header("host", "gate.test")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from(form))
            .unwrap();
        let (status, body) = self.send(request).await?;
        if status != 200 {
            return Err(format!("{status} of the token endpoint"));
        }
        let json: serde_json::Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let field = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        (self.access, self.refresh) = (field("access_token"), field("refresh_token"));
        for token in [&self.access, &self.refresh] {
            keep_secret(token);
        }
        Ok(())
    }

    async fn login(&mut self) -> Came {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("grant_type", "password"), ("client_id", "web")])
            .extend_pairs([("username", self.user.as_str()), ("password", self.password)])
            .finish();
        self.token(form).await
    }

    async fn exchange(&mut self) -> Came {
        let form = format!("grant_type=refresh_token&client_id=web&refresh_token={}", self.refresh);
        self.token(form).await
    }

    async fn read(&mut self) -> Came {
        let request = Request::get("/private")
            .header("host", "gate.test")
            .header("authorization", format!("Bearer {}", self.access))
            .body(Full::default())
            .unwrap();
        match self.send(request).await? {
            (200, _) => Ok(()),
            (status, body) => {
                let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                Err(format!("{status} of the upstream's route: {}", problem["detail"]))
            }
        }
    }

    /// Mostly reads, and sometimes the other requests of an SDK.
    async fn ask(&mut self) -> (&'static str, Came) {
        self.asked += 1;
        match self.asked % 200 {
            0 => ("login", self.login().await),
            50 | 150 => ("refresh", self.exchange().await),
            _ => ("read", self.read().await),
        }
    }
}

/// The observations of the other clients.
#[derive(Debug, Default)]
pub(super) struct Seen {
    reads: Vec<Duration>,
    right: usize,
    pub(super) wrong: BTreeMap<String, usize>,
}

impl Seen {
    /// The part of requests with the right answer.
    pub(super) fn right(&self) -> f64 {
        let wrong: usize = self.wrong.values().sum();
        self.right as f64 / (self.right + wrong).max(1) as f64
    }

    /// The latency of reads, because logins and refreshes take longer in any case.
    pub(super) fn p99(&self) -> Duration {
        let mut reads = self.reads.clone();
        reads.sort_unstable();
        reads.get(reads.len() * 99 / 100).copied().unwrap_or_default()
    }

    fn add(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.right += other.right;
        for (what, times) in other.wrong {
            *self.wrong.entry(what).or_default() += times;
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong: usize = self.wrong.values().sum();
        write!(f, "others: {} right, {wrong} wrong, p99 {:.1} ms", self.right, self.p99().as_secs_f64() * 1000.0)
    }
}

/// The other clients while they send requests.
pub(super) struct Others {
    tasks: JoinSet<(Seen, Client)>,
    ending: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
}

impl Others {
    pub(super) fn start(clients: Vec<Client>) -> Self {
        let (mut tasks, ending) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        let answers = Arc::new(AtomicUsize::new(0));
        for mut client in clients {
            let (ending, answers) = (Arc::clone(&ending), Arc::clone(&answers));
            tasks.spawn(async move {
                let mut seen = Seen::default();
                while !ending.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let (what, came) = tokio::time::timeout(PATIENCE, client.ask())
                        .await
                        .unwrap_or_else(|_| ("any", Err("no answer".to_owned())));
                    answers.fetch_add(1, Ordering::Relaxed);
                    match came {
                        Ok(()) => seen.right += 1,
                        Err(why) => *seen.wrong.entry(format!("{what}: {why}")).or_default() += 1,
                    }
                    if what == "read" {
                        seen.reads.push(begun.elapsed());
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                (seen, client)
            });
        }
        Self { tasks, ending, answers }
    }

    /// The number of answers so far, right or wrong.
    pub(super) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    pub(super) async fn end(self) -> (Seen, Vec<Client>) {
        self.ending.store(true, Ordering::Relaxed);
        let (mut all, mut clients) = (Seen::default(), Vec::new());
        for (seen, client) in self.tasks.join_all().await {
            all.add(seen);
            clients.push(client);
        }
        (all, clients)
    }
}
