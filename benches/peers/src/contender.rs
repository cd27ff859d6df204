//! The gateways that are measured, and how each is started.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rotogate_core::token::algorithm::Algorithm;

use crate::client::Speech;
use crate::config::{self, Common};
use crate::process::Process;
use crate::serve::Kind;
use crate::template::{Place, Template};
use crate::tokens::Bad;

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
    /// nginx, with `auth_request`.
    Nginx {
        auth: Option<NginxAuth>,
    },
    Envoy {
        auth: Option<EnvoyAuth>,
    },
    /// The release binary as a proxy.
    Rotogate {
        guarded: bool,
    },
    /// Its authorizer alone, asked by the load.
    Authorizer(Question),
}

/// Whom nginx asks about each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NginxAuth {
    /// A server of that kind.
    Server(Kind),
    /// rotogate.
    Gate,
}

/// How Envoy checks tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvoyAuth {
    /// By itself.
    Jwt { cache: bool },
    /// It asks rotogate.
    Gate,
}

/// How an authorizer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    ForwardAuth,
    ExtAuthz,
}

use Contender::{Authorizer, Envoy, Haproxy, Nginx, Rotogate, Rust};

impl Contender {
    pub const fn name(self) -> &'static str {
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
            Nginx { auth: Some(NginxAuth::Server(Kind::AuthCached)) } => {
                "nginx, auth_request, auth server that remembers"
            }
            Nginx { auth: Some(NginxAuth::Server(_)) } => "nginx, auth_request, auth server that verifies",
            Nginx { auth: Some(NginxAuth::Gate) } => "nginx, auth_request, rotogate",
            Envoy { auth: None } => "Envoy, no auth",
            Envoy { auth: Some(EnvoyAuth::Jwt { cache: true }) } => "Envoy, jwt_authn that remembers",
            Envoy { auth: Some(EnvoyAuth::Jwt { cache: false }) } => "Envoy, jwt_authn",
            Envoy { auth: Some(EnvoyAuth::Gate) } => "Envoy, ext_authz, rotogate",
            Rotogate { guarded: false } => "rotogate, route without auth",
            Rotogate { guarded: true } => "rotogate",
            Authorizer(Question::ForwardAuth) => "rotogate, verdict of forward-auth",
            Authorizer(Question::ExtAuthz) => "rotogate, verdict of ext_authz",
        }
    }

    pub const fn is_rotogate(self) -> bool {
        matches!(
            self,
            Rotogate { .. }
                | Authorizer(_)
                | Nginx { auth: Some(NginxAuth::Gate) }
                | Envoy { auth: Some(EnvoyAuth::Gate) }
        )
    }

    /// Does it require a token?
    pub const fn checks(self) -> bool {
        match self {
            Rust(kind) => !matches!(kind, Kind::Relay | Kind::Hyper),
            Haproxy { jwt } => jwt,
            Nginx { auth } => auth.is_some(),
            Envoy { auth } => auth.is_some(),
            Rotogate { guarded } => guarded,
            Authorizer(_) => true,
        }
    }

    /// The status of a refusal. axum-jwt-auth answers an unknown `alg` with 500, which is a refusal too.
    pub fn refuses_with(self, what: Bad) -> u16 {
        match (self, what) {
            (Rust(Kind::AxumJwtAuth), Bad::Unsigned | Bad::NoAlgorithm) => 500,
            _ => 401,
        }
    }

    /// What is asked for when clients speak so.
    pub fn path(self, speech: Speech) -> String {
        let guarded = !matches!(self, Rotogate { guarded: false });
        match speech {
            Speech::Calls(_) => "/orders.Orders/Find".to_owned(),
            _ if guarded => GUARDED.to_owned(),
            _ => PUBLIC.to_owned(),
        }
    }
}

/// The parts of the bench that all gateways share.
pub struct Stage {
    /// This program.
    pub program: PathBuf,
    pub rotogate: PathBuf,
    pub envoy: PathBuf,
    /// The public keys.
    pub keys: PathBuf,
}

/// How one is started.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    pub algorithm: Algorithm,
    pub template: &'a Template,
    /// The same application, once or several times. Only rotogate is given more than one.
    pub upstreams: &'a [SocketAddr],
    pub workers: usize,
    /// It believes what the load says of where requests come from.
    pub behind: bool,
    /// It writes an access log.
    pub logs: bool,
    pub tls: bool,
    pub speech: Speech,
}

/// A running contender, in a folder that is removed with it.
pub struct Running {
    pub contender: Contender,
    pub address: SocketAddr,
    /// Dropped, and so ended, before the folder is removed.
    processes: Vec<Process>,
    /// The number of its processors, the first ones.
    processors: usize,
    folder: tempfile::TempDir,
}

impl Running {
    /// Starts it. It may not answer yet.
    pub fn start(stage: &Stage, contender: Contender, setup: Setup<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("peer-").tempdir_in(stage.keys.join(".."))?;
        let address = free_address()?;
        let mut running = Self { contender, address, processes: Vec::new(), processors: setup.workers, folder };
        running.launch(stage, setup).with_context(|| contender.name().to_owned())?;
        Ok(running)
    }

    fn launch(&mut self, stage: &Stage, setup: Setup<'_>) -> Result<()> {
        let (address, folder) = (self.address, self.folder.path().to_owned());
        let Setup { algorithm, upstreams, logs, tls, speech, .. } = setup;
        let upstream = *upstreams.first().context("an upstream")?;
        let common = Common { listen: address, upstream, folder: &folder, keys: &stage.keys, logs, tls, speech };
        match self.contender {
            Rust(kind) => self.spawn(&stage.server(kind, address, upstream, algorithm))?,
            Haproxy { jwt } => {
                let file = folder.join("haproxy.cfg");
                fs::write(&file, config::haproxy(common, jwt.then_some(algorithm))?)?;
                self.spawn(Command::new("haproxy").arg("-db").arg("-f").arg(file))?;
            }
            Nginx { auth } => {
                let asked = match auth {
                    None => None,
                    Some(NginxAuth::Server(kind)) => {
                        let auth = free_address()?;
                        self.spawn(&stage.server(kind, auth, upstream, algorithm))?;
                        Some(config::Asked::Server(auth))
                    }
                    Some(NginxAuth::Gate) => {
                        let asked = free_address()?;
                        self.gate(stage, setup, (free_address()?, Some((Question::ForwardAuth, asked))))?;
                        Some(config::Asked::Gate(asked))
                    }
                };
                let file = folder.join("nginx.conf");
                fs::write(&file, config::nginx(common, asked))?;
                self.spawn(Command::new("nginx").arg("-p").arg(&folder).arg("-e").arg("stderr").arg("-c").arg(file))?;
            }
            Envoy { auth } => {
                let asked = (auth == Some(EnvoyAuth::Gate)).then(free_address).transpose()?;
                if let Some(asked) = asked {
                    self.gate(stage, setup, (free_address()?, Some((Question::ExtAuthz, asked))))?;
                }
                let file = folder.join("envoy.json");
                fs::write(&file, config::envoy(common, auth, asked)?)?;
                let mut command = Command::new(&stage.envoy);
                command.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "warn"]);
                self.spawn(&command)?;
            }
            Rotogate { .. } => self.gate(stage, setup, (address, None))?,
            Authorizer(question) => self.gate(stage, setup, (free_address()?, Some((question, address))))?,
        }
        Ok(())
    }

    /// Starts a gate that listens there, and there for questions.
    fn gate(
        &mut self,
        stage: &Stage,
        setup: Setup<'_>,
        (listen, asked): (SocketAddr, Option<(Question, SocketAddr)>),
    ) -> Result<()> {
        let folder = self.folder.path().join("place");
        let place = Place {
            listen,
            admin: free_address()?,
            upstreams: setup.upstreams,
            workers: setup.workers,
            asked,
            tls: setup.tls.then_some(&stage.keys),
            speech: setup.speech,
        };
        setup.template.copy_to(&folder, &place)?;
        let mut command = Command::new(&stage.rotogate);
        command.arg("--config").arg(folder.join("gateway.toml"));
        if setup.behind {
            command.env("ROTOGATE_SERVER__TRUSTED_PROXIES", "127.0.0.1");
        }
        // With all fields, into a file beside its other files.
        command.env("ROTOGATE_ACCESS_LOG__ENABLED", setup.logs.to_string());
        command.env("ROTOGATE_LOG__FORMAT", "json");
        command.env("ROTOGATE_ACCESS_LOG__OUTPUT", folder.join("access.log"));
        self.spawn(&command)
    }

    fn spawn(&mut self, command: &Command) -> Result<()> {
        self.processes.push(Process::start(command, self.processors, &self.log())?);
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
    fn server(&self, kind: Kind, listen: SocketAddr, upstream: SocketAddr, algorithm: Algorithm) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["serve", &kind.name(), "--listen", &listen.to_string()]);
        command.args(["--upstream", &upstream.to_string(), "--algorithm", algorithm.name()]);
        command.arg("--keys").arg(&self.keys);
        command
    }
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
