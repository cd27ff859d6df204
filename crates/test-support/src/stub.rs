//! An upstream that records requests, behind a gate.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::wire::{Reply, Wire};
use crate::{Gate, Place, Tokens};

/// A request that the upstream received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub method: String,
    pub target: String,
    /// The names are as the sender wrote them.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The number of the connection, in the order of arrival.
    pub connection: usize,
}

impl Received {
    /// Returns the values of a header. Letter case is ignored.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// Returns the values of every header that a CGI-like upstream would read as `name`.
    pub fn confusable(&self, name: &str) -> Vec<&str> {
        let fold = |text: &str| text.to_ascii_lowercase().replace(['_', '.', ' '], "-");
        self.headers.iter().filter(|(n, _)| fold(n) == fold(name)).map(|(_, v)| v.as_str()).collect()
    }
}

/// The stub. The last segment of a request's path determines the response:
///
/// | last segment | response |
/// |---|---|
/// | `reset` | closes the connection without a response |
/// | `garbage` | sends something that is not HTTP |
/// | `silent` | never responds |
/// | `parts` | a chunked body with a chunk for each call of [`Stub::push`], which ends with an empty chunk |
/// | `endless` | a chunked body without end |
/// | `store` | 200 with a response header of every kind |
/// | `early` | 200 before the body arrives; the body is not parsed as a request |
/// | `hints` | 100, 103 twice, and then 200 |
/// | `trailers` | a chunked body with trailers |
/// | `cut` | a body that is shorter than its content length, because the connection is closed |
/// | `cut-chunk` | a chunked body that is not complete when the connection is closed |
/// | `empty` | 204 |
/// | `same` | 304 with the length of the body that is not sent |
/// | `both` | a wrong content length, and chunks |
/// | `status-` and a number | this status without a body |
/// | anything else | 200, `ok` |
pub struct Stub {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    arriving: Mutex<Receiver<Vec<u8>>>,
    parts: Sender<Vec<u8>>,
    pages: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

struct Shared {
    pages: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    received: Arc<Mutex<Vec<Received>>>,
    arriving: Sender<Vec<u8>>,
    parts: Mutex<Receiver<Vec<u8>>>,
}

impl Stub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let ((arriving, arrived), (parts, to_send)) = (channel(), channel());
        let pages = Arc::default();
        let shared =
            Shared { pages: Arc::clone(&pages), received: Arc::clone(&received), arriving, parts: Mutex::new(to_send) };
        let shared = Arc::new(shared);
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(serve(&shared, &stream.unwrap(), connection)));
            }
        });
        Self { address, received, arriving: Mutex::new(arrived), parts, pages }
    }

    /// Sets the page and header lines for a path.
    pub fn put(&self, path: &str, lines: &str, page: &[u8]) {
        let head =
            format!("HTTP/1.1 200 OK\r\n{lines}Content-Type: text/html\r\nContent-Length: {}\r\n\r\n", page.len());
        self.pages.lock().unwrap().insert(path.to_owned(), [head.as_bytes(), page].concat());
    }

    /// Returns the requests since the last call, oldest first.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.received.lock().unwrap())
    }

    /// Asserts that there was exactly one request since the last call, and returns it.
    pub fn one(&self) -> Received {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }

    pub fn piece(&self) -> Vec<u8> {
        self.arriving.lock().unwrap().recv().unwrap()
    }

    /// Sends the next chunk of `parts`. An empty chunk ends the body.
    pub fn push(&self, chunk: &[u8]) {
        self.parts.send(chunk.to_vec()).unwrap();
    }
}

fn serve(shared: &Shared, stream: &TcpStream, connection: usize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.trim_end_matches("\r\n").split(' ');
        let mut request = Received {
            method: words.next().unwrap().to_owned(),
            target: words.next().unwrap().to_owned(),
            connection,
            ..Received::default()
        };
        assert_eq!(words.collect::<Vec<_>>(), ["HTTP/1.1"]);
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line)?;
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(line.ends_with("\r\n"), "a torn head: {line:?}");
            let line = line.trim_end_matches("\r\n");
            let Some((name, value)) = line.split_once(':') else { break };
            request.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        if request.target.ends_with("/early") {
            shared.received.lock().unwrap().push(request);
            let mut out = stream;
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            std::io::copy(&mut reader, &mut std::io::sink())?;
            return Ok(());
        }
        body(shared, &mut reader, &mut request)?;
        let target = request.target.clone();
        let is_head = request.method == "HEAD";
        shared.received.lock().unwrap().push(request);
        let path = target.split('?').next().unwrap();
        let mut out = stream;
        if let Some(page) = shared.pages.lock().unwrap().get(path) {
            out.write_all(page)?;
            continue;
        }
        match path.rsplit('/').next().unwrap() {
            "reset" => return Ok(()),
            "garbage" => return out.write_all(b"SSH-2.0-stub secret-internal-detail\r\n\r\n"),
            "silent" => {
                let _ = reader.read(&mut [0]);
                return Ok(());
            }
            "parts" => {
                out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                loop {
                    let chunk = shared.parts.lock().unwrap().recv().unwrap();
                    write!(out, "{:x}\r\n", chunk.len())?;
                    out.write_all(&chunk)?;
                    out.write_all(b"\r\n")?;
                    if chunk.is_empty() {
                        break;
                    }
                }
            }
            "endless" => {
                out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
                loop {
                    out.write_all(&chunk)?;
                }
            }
            "store" => out.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: Accept\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                  X-Kept: yes\r\nConnection: x-gone\r\nX-Gone: 1\r\n\r\nok",
            )?,
            "hints" => out.write_all(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                  HTTP/1.1 103 Early Hints\r\nX-Auth-Subject: hint\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            )?,
            "trailers" => out.write_all(
                b"HTTP/1.1 200 OK\r\nTrailer: x-checksum, x-more\r\nTransfer-Encoding: chunked\r\n\r\n\
                  2\r\nok\r\n0\r\nX-Checksum: abc\r\nX-More: 1\r\nContent-Length: 7\r\nX-Unsaid: 1\r\n\r\n",
            )?,
            "cut" => return out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            "cut-chunk" => {
                return out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            }
            "empty" => out.write_all(b"HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n")?,
            "same" => out.write_all(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n")?,
            "both" => out.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            )?,
            status if status.starts_with("status-") => {
                write!(out, "HTTP/1.1 {} Any\r\nContent-Length: 0\r\n\r\n", &status["status-".len()..])?;
            }
            _ if is_head => out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")?,
            _ => out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
        }
    }
}

fn body(shared: &Shared, reader: &mut impl BufRead, request: &mut Received) -> std::io::Result<()> {
    let (lengths, codings) = (request.all("content-length"), request.all("transfer-encoding"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => {}
        ([length], []) => {
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body)?;
            request.body = body;
        }
        ([], ["chunked"]) => loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            if size == 0 {
                let mut line = String::new();
                while reader.read_line(&mut line)? > 2 {
                    let (name, value) = line.split_once(':').unwrap();
                    request.trailers.push((name.to_owned(), value.trim().to_owned()));
                    line.clear();
                }
                // A request with an incomplete body is not recorded.
                if line != "\r\n" {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                break;
            }
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            chunk.truncate(size);
            request.body.extend(&chunk);
            let _ = shared.arriving.send(chunk);
        },
        other => panic!("an ambiguous request reached the upstream: {other:?}"),
    }
    Ok(())
}

const UPSTREAM: &str = "@upstream@";

/// The configuration of most tests, without routes.
pub const HEAD: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
drain_timeout = "0s"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[store]
kind = "memory"
[[clients]]
id = "web"
[[endpoints]]
dialect = "oauth2"
path = "/{account}/connect/token"
[[upstreams]]
name = "app"
urls = ["http://@upstream@"]
"#;

pub const ROUTES: &str = r#"
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/open/{*rest}"
auth = "optional"
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

/// A gate in front of a stub. The gate ends on drop.
pub struct Edge {
    pub gate: Gate,
    pub stub: Stub,
    pub place: Place,
}

impl Edge {
    pub fn new(routes: &str) -> Self {
        Self::with(&format!("{HEAD}{routes}"), |_| {}, |_| {})
    }

    /// Starts a gate. Before that, `files` can write into its folder, and `change` can modify the command.
    pub fn with(config: &str, files: impl FnOnce(&Place), change: impl FnOnce(&mut Command)) -> Self {
        let stub = Stub::start();
        let place = Place::new(&config.replace(UPSTREAM, &stub.address.to_string()));
        files(&place);
        let gate = place.start_with(change);
        Self { gate, stub, place }
    }

    pub fn metrics(&self) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(self.gate.admin_get("/metrics"));
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// Returns a series, or 0 if the series does not exist.
    pub fn series(&self, name: &str) -> u64 {
        let metrics = self.metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub fn wire(&self) -> Wire {
        Wire::open(self.gate.address)
    }

    pub fn ask(&self, line: &str, headers: &[&str]) -> Reply {
        let mut wire = self.wire();
        wire.head(line, &[&["Host: gate.test"], headers].concat());
        wire.reply()
    }

    pub fn ask_as(&self, token: &str, line: &str, headers: &[&str]) -> Reply {
        let authorization = format!("Authorization: Bearer {token}");
        self.ask(line, &[headers, &[authorization.as_str()]].concat())
    }

    pub fn form(&self, path: &str, headers: &[&str], fields: &[(&str, &str)]) -> Reply {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let length = format!("Content-Length: {}", body.len());
        let own = ["Host: gate.test", "Content-Type: application/x-www-form-urlencoded", &length];
        let mut wire = self.wire();
        wire.head(&format!("POST {path}"), &[&own[..], headers].concat());
        wire.send(body);
        wire.reply()
    }

    pub fn token(&self, headers: &[&str], fields: &[(&str, &str)]) -> Reply {
        self.form("/connect/token", headers, &[&[("client_id", "web")], fields].concat())
    }

    pub fn try_login(&self, headers: &[&str], username: &str, password: &str) -> Reply {
        self.token(headers, &[("grant_type", "password"), ("username", username), ("password", password)])
    }

    pub fn login(&self) -> Tokens {
        tokens(&self.try_login(&[], "demo", &self.gate.password))
    }

    pub fn refresh(&self, headers: &[&str], token: &str) -> Reply {
        self.token(headers, &[("grant_type", "refresh_token"), ("refresh_token", token)])
    }
}

pub fn tokens(reply: &Reply) -> Tokens {
    assert_eq!(reply.status, 200, "{reply:?}");
    let json = reply.json();
    let field = |name: &str| json[name].as_str().unwrap().to_owned();
    Tokens { access: field("access_token"), refresh: field("refresh_token") }
}
