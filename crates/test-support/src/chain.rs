//! A client with one session. After a crash of the gate, the client checks that the gate kept its guarantees.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, timeout};

use crate::random::Random;
use crate::{Answer, Tokens};

/// The maximum wait for a reply, even on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The grace period (60 s) minus [`PATIENCE`].
const SURELY_IN_GRACE: Duration = Duration::from_secs(30);
const KEPT: usize = 3;

#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    password: String,
    pace: Option<Pace>,
}

/// The maximum request rate of all clients that share this value.
pub type Pace = Arc<Mutex<Interval>>;

impl Http {
    pub fn new(address: SocketAddr, password: &str) -> Self {
        // The client library must not repeat a request that may have been sent.
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
        Self { client, address, password: password.to_owned(), pace: None }
    }

    pub fn at_pace(self, pace: &Pace) -> Self {
        Self { pace: Some(Arc::clone(pace)), ..self }
    }

    /// Sends a request. `None` if there was no complete reply.
    async fn send(&self, request: Request<Full<Bytes>>) -> Option<Answer> {
        if let Some(pace) = &self.pace {
            pace.lock().await.tick().await;
        }
        let exchange = async {
            let (parts, body) = self.client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Answer { status: parts.status, headers: parts.headers, body })
        };
        timeout(PATIENCE, exchange).await.expect("a reply, or the end of the process")
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Option<Answer> {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", "web")
            .extend_pairs(fields)
            .finish();
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Full::from(body)).unwrap()).await
    }

    async fn refresh(&self, token: &str) -> Option<Answer> {
        self.form("/connect/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn call(&self, access: &str) -> Option<Answer> {
        let request = Request::get(format!("http://{}/hello", self.address));
        self.send(request.header("authorization", format!("Bearer {access}")).body(Full::default()).unwrap()).await
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The gate lost an acknowledged pair or revocation.
    Lost(String),
    /// A generation has two successors, or a superseded token is accepted.
    Fork(String),
    Strange(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    None,
    /// The request got no reply.
    Asked,
    Acknowledged,
}

pub struct Chain {
    random: Random,
    last: Tokens,
    /// The credential that was exchanged for `last`.
    before: Option<String>,
    /// When `last` was requested.
    asked: Instant,
    in_doubt: bool,
    end: End,
    access: Vec<String>,
}

/// The work of a client during one run of the gate.
pub struct Worked {
    pub chains: Vec<Chain>,
    pub wrong: Vec<Wrong>,
}

/// Sends requests until the gate stops or responds wrongly. After the end of a session, the client logs in again.
pub async fn work(http: Http, chain: Option<Chain>, mut random: Random, replies: &AtomicU64) -> Worked {
    let mut worked = Worked { chains: Vec::new(), wrong: Vec::new() };
    let mut next = chain;
    loop {
        let mut chain = match next.take() {
            Some(chain) => chain,
            None => match Chain::log_in(&http, random.fork()).await {
                Ok(Some(chain)) => chain,
                Ok(None) => return worked,
                Err(wrong) => {
                    worked.wrong.push(wrong);
                    return worked;
                }
            },
        };
        let went_on = loop {
            match chain.act(&http).await {
                Ok(true) => {
                    replies.fetch_add(1, Ordering::Relaxed);
                    if chain.end == End::Acknowledged {
                        break true;
                    }
                }
                Ok(false) => break false,
                Err(wrong) => {
                    worked.wrong.push(wrong);
                    break false;
                }
            }
        };
        worked.chains.push(chain);
        if !went_on {
            return worked;
        }
    }
}

impl Chain {
    async fn log_in(http: &Http, random: Random) -> Result<Option<Self>, Wrong> {
        let asked = Instant::now();
        let fields = [("grant_type", "password"), ("username", "demo"), ("password", &http.password)];
        let Some(answer) = http.form("/connect/token", &fields).await else { return Ok(None) };
        if answer.status != StatusCode::OK {
            return Err(Wrong::Strange(format!("login: {answer:?}")));
        }
        let last = answer.tokens();
        let access = vec![last.access.clone()];
        Ok(Some(Self { random, last, before: None, asked, in_doubt: false, end: End::None, access }))
    }

    pub fn is_over(&self) -> bool {
        self.end == End::Acknowledged
    }

    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt || self.end == End::Asked
    }

    /// Makes one random request. Returns `Ok(false)` if there was no reply.
    async fn act(&mut self, http: &Http) -> Result<bool, Wrong> {
        match self.random.below(64) {
            0 => self.log_out(http).await,
            1..=14 => self.call(http).await,
            15..=24 => self.refresh_twice(http).await,
            _ => Ok(self.refresh(http).await?.is_some()),
        }
    }

    async fn call(&self, http: &Http) -> Result<bool, Wrong> {
        match http.call(&self.last.access).await {
            None => Ok(false),
            Some(answer) if answer.status == StatusCode::OK => Ok(true),
            Some(answer) => Err(Wrong::Lost(format!("the last access token is refused: {answer:?}"))),
        }
    }

    /// Exchanges the last refresh token. If there is no reply, the client keeps its token.
    async fn refresh(&mut self, http: &Http) -> Result<Option<()>, Wrong> {
        let asked = Instant::now();
        let Some(answer) = http.refresh(&self.last.refresh).await else {
            self.in_doubt = true;
            return Ok(None);
        };
        if answer.status != StatusCode::OK {
            return Err(Wrong::Lost(format!("the last refresh token is refused: {answer:?}")));
        }
        let pair = answer.tokens();
        if pair.refresh == self.last.refresh {
            return Err(Wrong::Strange("a refresh token is its own successor".into()));
        }
        self.before = Some(std::mem::replace(&mut self.last, pair).refresh);
        self.asked = asked;
        self.in_doubt = false;
        self.access.push(self.last.access.clone());
        if self.access.len() > KEPT {
            self.access.remove(0);
        }
        Ok(Some(()))
    }

    /// Repeats a refresh, as if the first reply was lost.
    async fn refresh_twice(&mut self, http: &Http) -> Result<bool, Wrong> {
        if self.refresh(http).await?.is_none() {
            return Ok(false);
        }
        self.repeat(http).await
    }

    /// Presents the predecessor again, and expects the same pair.
    async fn repeat(&self, http: &Http) -> Result<bool, Wrong> {
        let Some(before) = self.recent_predecessor() else { return Ok(true) };
        let Some(answer) = http.refresh(before).await else { return Ok(false) };
        if answer.status != StatusCode::OK {
            return Err(Wrong::Lost(format!(
                "the previous token was refused before its grace period ended: {answer:?}"
            )));
        }
        if answer.tokens() != self.last {
            return Err(Wrong::Fork("the predecessor got another pair than the acknowledged one".into()));
        }
        Ok(true)
    }

    fn recent_predecessor(&self) -> Option<&str> {
        self.before.as_deref().filter(|_| self.asked.elapsed() < SURELY_IN_GRACE)
    }

    async fn log_out(&mut self, http: &Http) -> Result<bool, Wrong> {
        self.end = End::Asked;
        let Some(answer) = http.form("/connect/revocation", &[("token", &self.last.refresh)]).await else {
            return Ok(false);
        };
        if answer.status != StatusCode::OK {
            return Err(Wrong::Strange(format!("revocation: {answer:?}")));
        }
        self.end = End::Acknowledged;
        Ok(true)
    }

    /// Checks the gate's guarantees after a restart. Each request gets a reply.
    pub async fn check(&mut self, http: &Http) -> Result<(), Wrong> {
        match self.end {
            End::Acknowledged => self.check_over(http).await,
            End::Asked => {
                let answer = http.call(&self.last.access).await.ok_or_else(silent)?;
                if answer.status == StatusCode::UNAUTHORIZED {
                    self.end = End::Acknowledged;
                    return self.check_over(http).await;
                }
                self.end = End::None;
                self.check_live(http).await
            }
            End::None => self.check_live(http).await,
        }
    }

    async fn check_over(&self, http: &Http) -> Result<(), Wrong> {
        for access in &self.access {
            let answer = http.call(access).await.ok_or_else(silent)?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Err(Wrong::Lost(format!("an access token of an ended session: {answer:?}")));
            }
        }
        let answer = http.refresh(&self.last.refresh).await.ok_or_else(silent)?;
        if !is_invalid_grant(&answer) {
            return Err(Wrong::Lost(format!("a refresh token of an ended session: {answer:?}")));
        }
        Ok(())
    }

    async fn check_live(&mut self, http: &Http) -> Result<(), Wrong> {
        if self.random.one_in(2) && !self.call(http).await? {
            return Err(silent());
        }
        if self.random.one_in(8) && self.check_predecessor(http).await? {
            return Ok(());
        }
        let before = self.before.clone();
        // If a reply was lost, this repeats the request.
        self.refresh(http).await?.ok_or_else(silent)?;
        if self.random.one_in(3) && !self.repeat(http).await? {
            return Err(silent());
        }
        match before {
            // After a refresh, `before` is two generations old.
            Some(oldest) if self.random.one_in(12) => {
                let answer = http.refresh(&oldest).await.ok_or_else(silent)?;
                if !is_invalid_grant(&answer) {
                    return Err(Wrong::Fork(format!("a token two generations old was not refused: {answer:?}")));
                }
                self.end = End::Acknowledged;
                self.check_over(http).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that the predecessor still gets the last pair. Returns `Ok(true)` if the check ended the session.
    async fn check_predecessor(&mut self, http: &Http) -> Result<bool, Wrong> {
        let Some(before) = self.recent_predecessor() else { return Ok(false) };
        let answer = http.refresh(before).await.ok_or_else(silent)?;
        if answer.status == StatusCode::OK {
            return if answer.tokens() == self.last {
                Ok(false)
            } else {
                Err(Wrong::Fork("after the restart, the predecessor got another pair than the acknowledged one".into()))
            };
        }
        if !self.in_doubt {
            return Err(Wrong::Lost(format!(
                "the previous token was refused before its grace period ended: {answer:?}"
            )));
        }
        self.end = End::Acknowledged;
        self.check_over(http).await?;
        Ok(true)
    }
}

fn is_invalid_grant(answer: &Answer) -> bool {
    answer.status == StatusCode::BAD_REQUEST && answer.error() == "invalid_grant"
}

fn silent() -> Wrong {
    Wrong::Strange("a process that nobody killed did not reply".into())
}
