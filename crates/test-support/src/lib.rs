//! What the tests of the real binary share: a gate in a process of its own, a small HTTP client, upstreams, raw sockets,
//! certificates.
//!
//! Everything that a gate prints goes to `target/test-output/`, where `tests/all.sh` looks for secrets afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test that cannot go on has failed, and the documentation is for authors of tests"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;

pub mod chain;
pub mod frames;
pub mod pki;
pub mod random;
pub mod server;
pub mod stub;
pub mod tls_client;
pub mod wire;

/// The folder of this build's results, `target/debug` say: tests run in its folder `deps`.
fn build_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).expect("a test is in target/*/deps").to_owned()
}

/// The binary under test, which cargo builds for the tests of its package.
pub fn binary() -> PathBuf {
    build_folder().join("rotogate")
}

/// The configuration of most tests: ports of the system's choice, an echo upstream, a public and a protected route.
pub const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
drain_timeout = "2s"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[limits]
login_per_address = "1000/1s"
login_per_account = "1000/1s"
login_per_client = "1000/1s"
refresh_per_session = "1000/1s"
refresh_per_address = "100000/1s"
forged_per_address = "100000/1s"
[[clients]]
id = "web"
[[endpoints]]
dialect = "oauth2"
path = "/{account}/connect/token"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

/// A configuration with these keys in a section. Keys that the section has get the new value; a section that is missing is
/// added before the first array of tables.
///
/// ```
/// use support::{CONFIG, with};
///
/// let config = with(&with(CONFIG, "server", "max_requests = 1\ndrain_timeout = \"1h\""), "store", "cache_size = \"1MiB\"");
/// assert!(config.contains("[server]\nmax_requests = 1\ndrain_timeout = \"1h\"\nlisten"));
/// ```
pub fn with(config: &str, section: &str, keys: &str) -> String {
    let head = format!("[{section}]");
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let set: Vec<_> = keys.lines().map(name).collect();
    let mut lines: Vec<String> = Vec::new();
    let mut is_inside = false;
    let mut is_set = false;
    let is_there = config.lines().any(|line| line == head);
    for line in config.lines() {
        if line.starts_with("[[") && !is_there && !is_set {
            lines.extend([head.clone(), keys.trim_end().to_owned()]);
            is_set = true;
        }
        if line.starts_with('[') {
            is_inside = line == head;
        } else if is_inside && set.contains(&name(line)) {
            continue;
        }
        lines.push(line.to_owned());
        if line == head {
            lines.push(keys.trim_end().to_owned());
            is_set = true;
        }
    }
    if !is_set {
        lines.extend([head, keys.trim_end().to_owned()]);
    }
    lines.join("\n") + "\n"
}

/// A folder with a `gateway.toml`, outliving the processes that use it.
pub struct Place {
    folder: TempDir,
}

impl Place {
    /// A new folder with this configuration.
    pub fn new(config: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write_config(config);
        place
    }

    /// Makes commands find the admin listener of a gate that was started here.
    pub fn point_commands_at(&self, gate: &Gate) {
        let config = fs::read_to_string(self.path("gateway.toml")).unwrap();
        let anywhere = "[admin]\nlisten = \"127.0.0.1:0\"";
        assert!(config.contains(anywhere), "the configuration has another admin listener");
        self.write_config(&config.replace(anywhere, &format!("[admin]\nlisten = \"{}\"", gate.admin)));
    }

    pub fn write_config(&self, config: &str) {
        fs::write(self.path("gateway.toml"), config).unwrap();
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the binary in this folder, for users who may not look elsewhere.
    pub fn copy_of_binary(&self) -> PathBuf {
        let copy = self.path("rotogate-copy");
        fs::copy(binary(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        copy
    }

    /// The binary, to be run in this folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("--config").arg(self.path("gateway.toml")).current_dir(self.folder.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROTOGATE_")) {
            command.env_remove(name);
        }
        command
    }

    /// Starts a gate.
    pub fn start(&self) -> Gate {
        self.start_with(|_| {})
    }

    /// Starts a gate whose command was changed first.
    pub fn start_with(&self, change: impl FnOnce(&mut Command)) -> Gate {
        let mut command = self.command();
        let (log, path) = output_file("gate");
        command.arg("--json").env("ROTOGATE_LOG", "debug").stdout(Stdio::piped()).stderr(log);
        change(&mut command);
        self.launch(command, path)
    }

    /// Starts a gate from a shell; see [`in_shell`].
    pub fn start_in_shell(&self, script: &str) -> Gate {
        let mut command = self.command();
        let (log, path) = output_file("gate");
        command.arg("--json").env("ROTOGATE_LOG", "debug");
        in_shell(script)(&mut command);
        command.stdout(Stdio::piped()).stderr(log);
        self.launch(command, path)
    }

    /// Starts a gate that is passed these sockets to listen on, as systemd does it.
    pub fn start_with_sockets(&self, sockets: Vec<OwnedFd>) -> Gate {
        let mut command = self.command();
        let (log, path) = output_file("gate");
        command.arg("--json").env("ROTOGATE_LOG", "debug");
        in_shell(&format!("LISTEN_PID=$$ LISTEN_FDS={} exec \"$@\"", sockets.len()))(&mut command);
        command.stdout(Stdio::piped()).stderr(log);
        let mapped = sockets.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mapped.collect()).unwrap();
        self.launch(command, path)
    }

    fn launch(&self, mut command: Command, path: PathBuf) -> Gate {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the gate did not start; see target/test-output");
        let greeting: Value = serde_json::from_str(&line).unwrap();
        let address = |value: &Value| value.as_str().unwrap().parse().unwrap();
        let first = greeting.get("first_user");
        if let Some(first) = first {
            // Only for later starts in the same place.
            let password = first["password"].as_str().unwrap();
            keep_secret(password);
            fs::write(self.path("password"), password).unwrap();
        }
        self.keep_secrets();
        let password = fs::read_to_string(self.path("password")).unwrap_or_default();
        Gate {
            child,
            address: address(&greeting["listening"][0]),
            addresses: greeting["listening"].as_array().unwrap().iter().map(address).collect(),
            admin: address(&greeting["admin"]),
            password,
            log: path,
        }
    }

    /// Makes a user with a password that is shorter than `rotogate user add` takes one: it is from a protocol's
    /// document. Before the first start.
    pub fn user_of_a_document(&self, username: &str, subject: &str, password: &str) {
        let made = self.run(&["--json", "client", "secret", "--stdin"], &format!("{password}\n"));
        let made: Value = serde_json::from_str(&made.stdout).unwrap();
        let (hash, path) = (made["secret_hash"].as_str().unwrap(), self.path("data/users.toml"));
        fs::create_dir_all(self.path("data")).unwrap();
        let user = format!(
            "[[users]]\nsubject = \"{subject}\"\nusername = \"{username}\"\npassword = \"{hash}\"\nactive = true\n"
        );
        fs::write(&path, user).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Remembers the admin token and the keys that a gate or a command has made here.
    fn keep_secrets(&self) {
        let keys = fs::read_dir(self.path("data/keys")).into_iter().flatten().map(|entry| entry.unwrap().path());
        let keys = keys.filter(|path| path.extension().is_some_and(|kind| kind == "pem" || kind == "secret"));
        for path in keys.chain([self.path("data/admin.token")]) {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().filter(|line| !line.starts_with("-----")).for_each(keep_secret);
        }
    }

    /// Starts a gate that must not start, and gives what it says. It ended with exit code 1, or 2 where the configuration
    /// or a file that it names is wrong.
    pub fn refused(&self) -> String {
        self.refused_with(|_| {})
    }

    /// The same, with a command that was changed first.
    pub fn refused_with(&self, change: impl FnOnce(&mut Command)) -> String {
        let mut command = self.command();
        change(&mut command);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        for _ in 0..600 {
            if child.try_wait().unwrap().is_some() {
                let output = child.wait_with_output().unwrap();
                let said = String::from_utf8(output.stderr).unwrap();
                self.keep_secrets();
                output_file("refused").0.write_all(said.as_bytes()).unwrap();
                assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {said}", output.status);
                return said;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("the gate started");
    }

    /// Runs a command to its end, with something on its standard input.
    pub fn run(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let ran = Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        self.keep_secrets();
        let (mut output, _) = output_file("command");
        output.write_all(ran.stderr.as_bytes()).unwrap();
        // A token or a secret is what these commands are asked for.
        if !arguments.contains(&"mint") && !arguments.contains(&"secret") {
            output.write_all(ran.stdout.as_bytes()).unwrap();
        }
        ran
    }

    /// A command that must succeed.
    pub fn done(&self, arguments: &[&str], input: &str) -> Ran {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran
    }

    /// The same with `--json`.
    pub fn json(&self, arguments: &[&str], input: &str) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.done(&arguments, input).stdout).unwrap()
    }

    /// A command that must fail with exit code 1, and what it says.
    pub fn fails(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stdout, "", "errors go to standard error");
        ran.stderr
    }
}

/// Has a command run by a shell that says something first, about the limits of the process, say: `"$@"` is the command.
pub fn in_shell(script: &str) -> impl FnOnce(&mut Command) {
    move |command| {
        let mut shell = Command::new("bash");
        shell.args(["-c", script, "bash"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        *command = shell;
    }
}

/// A user id without a name and without any rights.
pub const NOBODY: u32 = 4242;

/// A command that runs the binary in a place as a user with access to its configuration and none of its secrets, and whether that
/// is another user: only root can switch users. Without root, the secrets are made unreadable for every user. A copy of
/// the binary is made, because that user may not see ours.
pub fn of_another_user(place: &Place) -> (Command, bool) {
    let is_root = rustix::process::geteuid().is_root();
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
        command.arg(place.copy_of_binary());
        command
    } else {
        fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o000)).unwrap();
        Command::new(binary())
    };
    command.arg("--config").arg(place.path("gateway.toml")).current_dir(place.path(""));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROTOGATE_")) {
        command.env_remove(name);
    }
    (command, is_root)
}

/// What a command said.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A gate in a process of its own; killed when dropped.
pub struct Gate {
    pub child: Child,
    /// The first of its listeners.
    pub address: SocketAddr,
    pub addresses: Vec<SocketAddr>,
    pub admin: SocketAddr,
    /// The password of the user `demo`.
    pub password: String,
    /// What it logs.
    pub log: PathBuf,
}

impl Gate {
    /// SIGKILL, as a power cut would do to the process.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// What it logged so far: lines are written by a thread of their own, so something is done that is logged, and waited
    /// for. Of a gate that is gone, what there is.
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

    /// Asks the admin listener for something that is not there.
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

    /// Logs a user in.
    pub async fn log_in(&self, username: &str, password: &str) -> Answer {
        self.token(&[("grant_type", "password"), ("username", username), ("password", password)]).await
    }

    /// Waits until the access token is refused, and sees that it is refused as RFC 6750 says.
    pub async fn until_refused(&self, access: &str) {
        until("the access token is refused", async || self.get("/", access).await.status == StatusCode::UNAUTHORIZED)
            .await;
        let answer = self.get("/", access).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"), "{answer:?}");
    }

    /// Asks the admin listener, with a token if there is one.
    pub async fn admin(&self, method: Method, path: &str, token: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.admin));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        try_send(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap()
    }

    /// Logs `demo` in.
    pub async fn login(&self) -> Tokens {
        let answer =
            self.token(&[("grant_type", "password"), ("username", "demo"), ("password", &self.password)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.tokens()
    }

    /// Exchanges a refresh token.
    pub async fn refresh(&self, refresh_token: &str) -> Answer {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await
    }

    /// Revokes a token.
    pub async fn revoke(&self, token: &str) -> Answer {
        self.form("/connect/revocation", &[("client_id", "web"), ("token", token)]).await
    }

    /// Asks the token endpoint as the client `web`.
    pub async fn token(&self, fields: &[(&str, &str)]) -> Answer {
        let mut all = vec![("client_id", "web")];
        all.extend_from_slice(fields);
        self.form("/connect/token", &all).await
    }

    /// Sends a form.
    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(self.url(path)).header("content-type", "application/x-www-form-urlencoded");
        send(request.body(Full::from(body)).unwrap()).await
    }

    /// A `GET` with an access token.
    pub async fn get(&self, path: &str, access_token: &str) -> Answer {
        self.call(Method::GET, path, &[("authorization", &format!("Bearer {access_token}"))], "").await
    }

    /// What the admin listener says to a `GET`.
    pub async fn admin_get(&self, path: &str) -> Answer {
        send(Request::get(format!("http://{}{path}", self.admin)).body(Full::default()).unwrap()).await
    }

    /// The value of a series of `/metrics`; 0 where there is none.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = String::from_utf8(self.admin_get("/metrics").await.body.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Any request.
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

/// A pair of tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl std::fmt::Debug for Tokens {
    /// A failed assertion must not put tokens into the output that is searched for them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

/// An answer, read whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = if self.body.windows(3).any(|w| w == b"rg1") {
            "(tokens)".into()
        } else {
            String::from_utf8_lossy(&self.body)
        };
        write!(f, "{} {body}", self.status)
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn tokens(&self) -> Tokens {
        let json = self.json();
        let field = |name: &str| json[name].as_str().unwrap().to_owned();
        Tokens { access: field("access_token"), refresh: field("refresh_token") }
    }

    /// The RFC 6749 error code.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    /// A header of the request, as the echo upstream saw it.
    pub fn echoed(&self, name: &str) -> Vec<String> {
        let json = self.json();
        let headers = json["headers"].as_array().unwrap();
        headers.iter().filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
    }
}

/// Sends a request over a connection of its own.
pub async fn send(request: Request<Full<Bytes>>) -> Answer {
    try_send(request).await.unwrap()
}

/// The same, where the gate may be gone.
pub async fn try_send(request: Request<Full<Bytes>>) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let response = client.request(request).await?;
    let (parts, body) = response.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
}

/// Asks again until the answer is yes, for at most half a minute: for what a running gate does a moment later.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("never happened: {what}");
}

/// Writes bytes to a socket as they are and reads to the end: for requests that no HTTP library would send. The request
/// must end the connection (`Connection: close`), or be one that the gate ends it for.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Remembers a secret that no process may print: `tests/all.sh` looks for it in all output, in each of the spellings
/// that it may have there. The forms of tokens are known anyway.
pub fn keep_secret(secret: &str) {
    assert!(secret.len() >= 8, "too short to be looked for");
    let escaped = serde_json::to_string(secret).unwrap();
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let lines = format!("{secret}\n{}\n{encoded}\n", escaped.trim_matches('"'));
    let name = format!("{}.txt", std::process::id());
    let file = OpenOptions::new().create(true).append(true).open(target_folder("test-secrets").join(name));
    // One write, so that tests side by side do not mix their lines.
    file.unwrap().write_all(lines.as_bytes()).unwrap();
}

/// A folder in `target`, made if it is missing.
pub fn target_folder(name: &str) -> PathBuf {
    let folder = build_folder().parent().unwrap().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A new file for what a process prints.
fn output_file(what: &str) -> (File, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{what}-{}-{}.log", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = target_folder("test-output").join(name);
    (OpenOptions::new().create(true).append(true).open(&path).unwrap(), path)
}
