//! The gateways that are measured, and how each is started.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rotogate::token::algorithm::{Algorithm, Family};

use crate::keys::{self, AUDIENCE, ISSUER};
use crate::process::Process;
use crate::serve::{Kind, LEEWAY};
use crate::template::Template;
use crate::tokens::Bad;

/// The gateway's processor: nothing else runs on it.
pub const GATEWAY: usize = 0;
/// The processor of load and upstream.
pub const LOAD: usize = 1;

/// A path that requires a token at every gateway, and a public one of rotogate's.
const GUARDED: &str = "/orders/4711/lines?page=2";
const PUBLIC: &str = "/public/4711/lines?page=2";

/// A gateway that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// One of the servers of this program.
    Rust(Kind),
    Haproxy {
        jwt: bool,
    },
    /// nginx, with an auth server of that kind.
    Nginx {
        auth: Option<Kind>,
    },
    /// The release binary.
    Rotogate {
        guarded: bool,
        access_log: bool,
    },
}

use Contender::{Haproxy, Nginx, Rotogate, Rust};

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Rust(Kind::Relay) => "raw byte relay, parses nothing (floor)",
            Rust(Kind::Hyper) => "plain hyper proxy, no auth",
            Rust(Kind::Jsonwebtoken) => "plain hyper proxy + jsonwebtoken",
            Rust(Kind::JwtAuthorizer) => "axum + hyper proxy + jwt-authorizer",
            Rust(Kind::AxumJwtAuth) => "axum + hyper proxy + axum-jwt-auth",
            Rust(Kind::ResourceServer) => "axum + hyper proxy + tower-oauth2-resource-server",
            Rust(Kind::Auth | Kind::AuthCached) => "auth server",
            Haproxy { jwt: false } => "HAProxy, no auth",
            Haproxy { jwt: true } => "HAProxy, jwt_verify",
            Nginx { auth: None } => "nginx, no auth",
            Nginx { auth: Some(Kind::AuthCached) } => "nginx, auth_request, auth server that remembers",
            Nginx { auth: Some(_) } => "nginx, auth_request, auth server that verifies",
            Rotogate { guarded: false, access_log: false } => "rotogate, route without auth",
            Rotogate { guarded: false, access_log: true } => "rotogate, route without auth, access log to a file",
            Rotogate { guarded: true, access_log: false } => "rotogate",
            Rotogate { guarded: true, access_log: true } => "rotogate, access log to a file",
        }
    }

    pub const fn is_rotogate(self) -> bool {
        matches!(self, Rotogate { .. })
    }

    /// Does it require a token?
    pub const fn checks(self) -> bool {
        match self {
            Rust(kind) => !matches!(kind, Kind::Relay | Kind::Hyper),
            Haproxy { jwt } => jwt,
            Nginx { auth } => auth.is_some(),
            Rotogate { guarded, .. } => guarded,
        }
    }

    /// The status of a refusal. axum-jwt-auth answers an unknown `alg` with 500, which is a refusal too.
    pub fn refuses_with(self, what: Bad) -> u16 {
        match (self, what) {
            (Rust(Kind::AxumJwtAuth), Bad::Unsigned | Bad::NoAlgorithm) => 500,
            _ => 401,
        }
    }

    pub const fn path(self) -> &'static str {
        match self {
            Rotogate { guarded: false, .. } => PUBLIC,
            Rotogate { guarded: true, .. } | Rust(_) | Haproxy { .. } | Nginx { .. } => GUARDED,
        }
    }
}

/// The parts of the bench that all gateways share.
pub struct Stage {
    /// This program.
    pub program: PathBuf,
    pub rotogate: PathBuf,
    /// The public keys.
    pub keys: PathBuf,
    pub upstream: SocketAddr,
}

/// A running contender, in a folder that is removed with it.
pub struct Running {
    pub contender: Contender,
    pub address: SocketAddr,
    /// Dropped, and so ended, before the folder is removed.
    processes: Vec<Process>,
    folder: tempfile::TempDir,
}

impl Running {
    /// Starts it. It may not answer yet.
    /// `behind`: it believes what the load says of where requests come from.
    pub fn start(
        stage: &Stage,
        contender: Contender,
        algorithm: Algorithm,
        template: &Template,
        behind: bool,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("peer-").tempdir_in(stage.keys.join(".."))?;
        let address = free_address()?;
        let mut running = Self { contender, address, processes: Vec::new(), folder };
        running.launch(stage, algorithm, template, behind).with_context(|| contender.name().to_owned())?;
        Ok(running)
    }

    fn launch(&mut self, stage: &Stage, algorithm: Algorithm, template: &Template, behind: bool) -> Result<()> {
        let (address, folder) = (self.address, self.folder.path().to_owned());
        match self.contender {
            Rust(kind) => self.spawn(&stage.server(kind, address, algorithm))?,
            Haproxy { jwt } => {
                let file = folder.join("haproxy.cfg");
                fs::write(&file, haproxy(address, stage.upstream, jwt.then_some((algorithm, stage.keys.as_path())))?)?;
                self.spawn(Command::new("haproxy").arg("-db").arg("-f").arg(file))?;
            }
            Nginx { auth } => {
                let auth = auth.map(|kind| Ok::<_, anyhow::Error>((kind, free_address()?))).transpose()?;
                if let Some((kind, auth)) = auth {
                    self.spawn(&stage.server(kind, auth, algorithm))?;
                }
                let file = folder.join("nginx.conf");
                fs::write(&file, nginx(&folder, address, stage.upstream, auth.map(|(_, auth)| auth)))?;
                self.spawn(Command::new("nginx").arg("-p").arg(&folder).arg("-e").arg("stderr").arg("-c").arg(file))?;
            }
            Rotogate { access_log, .. } => {
                let place = folder.join("place");
                template.copy_to(&place, address, free_address()?, stage.upstream)?;
                let mut command = Command::new(&stage.rotogate);
                command.arg("--config").arg(place.join("gateway.toml"));
                if behind {
                    command.env("ROTOGATE_SERVER__TRUSTED_PROXIES", "127.0.0.1");
                }
                // With all fields, into a file beside its other files.
                command.env("ROTOGATE_ACCESS_LOG__ENABLED", access_log.to_string());
                command.env("ROTOGATE_ACCESS_LOG__FORMAT", "json");
                command.env("ROTOGATE_ACCESS_LOG__OUTPUT", place.join("access.log"));
                self.spawn(&command)?;
            }
        }
        Ok(())
    }

    fn spawn(&mut self, command: &Command) -> Result<()> {
        self.processes.push(Process::start(command, GATEWAY, &self.log())?);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The processes whose CPU time counts; for nginx with `auth_request` also the auth server.
    pub fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// Has one of them ended?
    pub fn check(&mut self) -> Result<()> {
        if self.processes.iter_mut().any(Process::is_over) {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let end = log.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
            bail!("{} has ended:\n{}", self.contender.name(), &log[end..]);
        }
        Ok(())
    }
}

impl Stage {
    /// One of the servers of this program.
    pub fn server(&self, kind: Kind, listen: SocketAddr, algorithm: Algorithm) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["serve", &kind.name(), "--listen", &listen.to_string()]);
        command.args(["--upstream", &self.upstream.to_string(), "--algorithm", algorithm.name()]);
        command.arg("--keys").arg(&self.keys);
        command
    }
}

/// An address that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// One thread, keep-alive on both sides. With a key, it also checks the claims that `jwt_verify` ignores.
fn haproxy(listen: SocketAddr, upstream: SocketAddr, jwt: Option<(Algorithm, &Path)>) -> Result<String> {
    let rules = match jwt {
        None => String::new(),
        Some((algorithm, folder)) => {
            let key = match algorithm.family() {
                Family::Hmac => keys::secret().to_owned(),
                Family::Rsa | Family::Ecdsa => keys::public_pem(folder, algorithm).display().to_string(),
                Family::Edwards => bail!("jwt_verify knows no EdDSA"),
            };
            format!(
                r#"    http-request set-var(txn.token) http_auth_bearer
    http-request set-var(txn.alg) var(txn.token),jwt_header_query('$.alg')
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str {algorithm} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify(txn.alg,"{key}") 1 }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.iss') -m str {ISSUER} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.aud') -m str {AUDIENCE} }}
    http-request set-var(txn.now) date(-{LEEWAY})
    http-request set-var(txn.left) var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now)
    http-request deny deny_status 401 unless {{ var(txn.left) -m int gt 0 }}
    http-request set-header x-auth-subject %[var(txn.token),jwt_payload_query('$.sub')]
"#
            )
        }
    };
    Ok(format!(
        r"global
    nbthread 1
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    option http-keep-alive
    http-reuse always
frontend gateway
    bind {listen}
{rules}    default_backend app
backend app
    server app {upstream}
"
    ))
}

/// One worker, keep-alive on both sides and to the auth server.
fn nginx(folder: &Path, listen: SocketAddr, upstream: SocketAddr, auth: Option<SocketAddr>) -> String {
    let folder = folder.display();
    // By default root's nginx runs its workers as another user, which has no access to our folder.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (server, rule, ask) = match auth {
        None => Default::default(),
        Some(auth) => (
            format!("upstream auth {{ server {auth}; keepalive 64; keepalive_requests 1000000000; }}"),
            "auth_request /auth;",
            // A header set here removes the inherited ones, `Connection` included, and with it keep-alive.
            r#"location = /auth {
            internal;
            proxy_pass http://auth;
            proxy_pass_request_body off;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
        }"#,
        ),
    };
    format!(
        r#"{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream app {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
    {server}
    server {{
        listen {listen};
        location / {{
            {rule}
            proxy_pass http://app;
        }}
        {ask}
    }}
}}
"#
    )
}
