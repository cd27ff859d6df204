//! A gate in a separate process.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;

use crate::{Answer, Tokens, send, try_send, until};

/// A gate in a separate process, which is killed on drop.
pub struct Gate {
    pub child: Child,
    pub address: SocketAddr,
    pub addresses: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub password: String,
    pub log: PathBuf,
}

impl Gate {
    /// Sends SIGKILL, which ends the process like a power cut.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        if name == "STOP" {
            let stopped = (0..10_000).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                self.stands_still()
            });
            assert!(stopped, "the gate does not stop");
        }
    }

    /// Returns whether all threads have stopped. The kernel stops the threads one after the other.
    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().all(|thread| {
            let state = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the process name, which is in parentheses.
            state.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        })
    }

    /// Returns the log so far, or the complete log of an ended gate. A separate thread writes the log, so this function
    /// waits for the line of its own request.
    pub fn log(&self) -> String {
        static MARKS: AtomicU32 = AtomicU32::new(0);
        let mark = format!("/mark-{}-{}", self.admin.port(), MARKS.fetch_add(1, Ordering::Relaxed));
        let is_asked = self.ask_admin(&mark).is_ok();
        let mut text = fs::read_to_string(&self.log).unwrap();
        for _ in 0..200 {
            if !is_asked || text.contains(&mark) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            text = fs::read_to_string(&self.log).unwrap();
        }
        text
    }

    fn ask_admin(&self, path: &str) -> std::io::Result<()> {
        let limit = std::time::Duration::from_secs(1);
        let mut stream = std::net::TcpStream::connect_timeout(&self.admin, limit)?;
        stream.set_read_timeout(Some(limit))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n")?;
        let mut line = String::new();
        match BufReader::new(stream).read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn log_in(&self, username: &str, password: &str) -> Answer {
        self.token(&[("grant_type", "password"), ("username", username), ("password", password)]).await
    }

    /// Waits until the gate rejects the access token, as RFC 6750 requires.
    pub async fn until_refused(&self, access: &str) {
        until("the access token is refused", async || self.get("/", access).await.status == StatusCode::UNAUTHORIZED)
            .await;
        let answer = self.get("/", access).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"), "{answer:?}");
    }

    /// Sends a request to the admin listener, optionally with a token.
    pub async fn admin(&self, method: Method, path: &str, token: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.admin));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        try_send(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap()
    }

    pub async fn login(&self) -> Tokens {
        let answer =
            self.token(&[("grant_type", "password"), ("username", "demo"), ("password", &self.password)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.tokens()
    }

    pub async fn refresh(&self, refresh_token: &str) -> Answer {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await
    }

    pub async fn revoke(&self, token: &str) -> Answer {
        self.form("/connect/revocation", &[("client_id", "web"), ("token", token)]).await
    }

    pub async fn token(&self, fields: &[(&str, &str)]) -> Answer {
        let mut all = vec![("client_id", "web")];
        all.extend_from_slice(fields);
        self.form("/connect/token", &all).await
    }

    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(self.url(path)).header("content-type", "application/x-www-form-urlencoded");
        send(request.body(Full::from(body)).unwrap()).await
    }

    pub async fn get(&self, path: &str, access_token: &str) -> Answer {
        self.call(Method::GET, path, &[("authorization", &format!("Bearer {access_token}"))], "").await
    }

    pub async fn admin_get(&self, path: &str) -> Answer {
        send(Request::get(format!("http://{}{path}", self.admin)).body(Full::default()).unwrap()).await
    }

    /// Returns a series of `/metrics`, or 0 if the series does not exist.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = String::from_utf8(self.admin_get("/metrics").await.body.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request.body(Full::from(body.to_owned())).unwrap()).await
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.kill();
    }
}
