//! A raw connection to the gate.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The time limit of a read, which only a hanging gate exceeds.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Wire {
    reader: BufReader<TcpStream>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The output must not contain tokens.
        let shown = if self.text().contains("rg1") { "(tokens)".to_owned() } else { self.text() };
        write!(f, "{} {:?} {shown}", self.status, self.headers)
    }
}

impl Reply {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// Returns a header that occurs exactly once.
    pub fn header(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {self:?}");
        all[0]
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    /// Removes headers that differ from request to request.
    pub fn without_date(mut self) -> Self {
        self.headers.retain(|(name, _)| !["date", "x-request-id"].contains(&name.to_ascii_lowercase().as_str()));
        self
    }
}

impl Wire {
    pub fn open(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    pub fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// Writes raw bytes. The gate may have closed the connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }

    /// Writes a request's head. `line` is the request line without the version, such as `GET /x`.
    pub fn head(&mut self, line: &str, headers: &[&str]) {
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(format!("{line} HTTP/1.1\r\n{headers}\r\n"));
    }

    pub fn reply(&mut self) -> Reply {
        self.try_reply(false).expect("the gate closed the connection without an answer")
    }

    /// Reads the next response, to a `HEAD` request.
    pub fn reply_to_head(&mut self) -> Reply {
        self.try_reply(true).expect("the gate closed the connection without an answer")
    }

    /// Reads the next response without its body.
    pub fn reply_head(&mut self) -> Reply {
        self.read_head().expect("the gate closed the connection without an answer")
    }

    pub fn chunk(&mut self) -> Vec<u8> {
        let mut size = String::new();
        self.reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        chunk
    }

    /// Reads until the gate closes the connection.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Reads the next response, or `None` if the gate closed the connection.
    pub fn try_reply(&mut self, to_head: bool) -> Option<Reply> {
        let mut reply = self.read_head()?;
        if !to_head && !matches!(reply.status, 100..=199 | 204 | 304) {
            reply.body = match (reply.all("content-length").as_slice(), reply.all("transfer-encoding").as_slice()) {
                ([length], []) => {
                    let mut body = vec![0; length.parse().unwrap()];
                    self.reader.read_exact(&mut body).unwrap();
                    body
                }
                ([], ["chunked"]) => {
                    std::iter::from_fn(|| Some(self.chunk()).filter(|c| !c.is_empty())).flatten().collect()
                }
                other => panic!("an answer without one framing: {other:?}"),
            };
        }
        Some(reply)
    }

    fn read_head(&mut self) -> Option<Reply> {
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
        let status = status.get(..3)?.parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Some(Reply { status, headers, body: Vec::new() })
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        // A reset also ends the connection. A timeout means that the gate hangs.
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end_matches("\r\n").to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns whether the gate closed the connection without more bytes.
    pub fn is_closed(&mut self) -> bool {
        self.line().is_none()
    }
}
