//! The sockets that a gate listens on: opened here, or passed by whoever started it (systemd's `sd_listen_fds(3)`), with
//! the connections that wait there already.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket};

use super::ServerError;
use crate::config::Config;

/// See the module.
#[derive(Debug)]
pub(super) struct Sockets {
    passed: Vec<std::net::TcpListener>,
    kept: Vec<std::net::TcpListener>,
}

/// The sockets that were passed, if any were. They are given once in the life of a process.
///
/// # Errors
/// What was passed is no socket for TCP.
pub fn passed() -> Result<Vec<std::net::TcpListener>, ServerError> {
    let mut fds = ListenFd::from_env();
    let mut passed = Vec::new();
    for place in 0..fds.len() {
        let socket = fds.take_tcp_listener(place).map_err(|error| {
            ServerError::new(format!("of the sockets passed in LISTEN_FDS, number {place} is not for TCP: {error}"))
        })?;
        passed.extend(socket);
    }
    Ok(passed)
}

impl Sockets {
    pub(super) const fn with(passed: Vec<std::net::TcpListener>) -> Self {
        Self { passed, kept: Vec::new() }
    }

    /// The socket for an address, which `key` of the configuration names.
    pub(super) async fn at(
        &mut self,
        config: &Config,
        address: SocketAddr,
        key: &str,
    ) -> Result<TcpListener, ServerError> {
        let failed = |error: io::Error| ServerError::new(config.blame(key, cannot(address, &error)).to_string());
        let passed = self.passed.iter().position(|socket| socket.local_addr().is_ok_and(|at| at == address));
        let socket = match passed.map(|place| self.passed.swap_remove(place)) {
            Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
            None => TcpListener::bind(address).await,
        };
        let socket = socket.map_err(failed)?;
        self.kept.push(socket.as_fd().try_clone_to_owned().map_err(failed)?.into());
        Ok(socket)
    }

    /// Closes what was passed for no address of ours, and gives each of the others once more.
    pub(super) fn end(self) -> Vec<std::net::TcpListener> {
        for socket in self.passed {
            let address = socket.local_addr().map(tracing::field::display).ok();
            tracing::warn!(address, "a socket was passed that gateway.toml does not name; it is closed");
        }
        self.kept
    }
}

/// Opens a socket for each of these addresses that none of `kept` is at: for the program that comes next, while this one
/// still serves. An address without a port is its own affair.
///
/// # Errors
/// One cannot be had; then none is kept open.
pub(super) fn open_more(
    kept: &[std::net::TcpListener],
    wanted: &[SocketAddr],
) -> Result<Vec<std::net::TcpListener>, String> {
    let is_there = |address: &SocketAddr| kept.iter().any(|socket| socket.local_addr().is_ok_and(|at| at == *address));
    wanted
        .iter()
        .filter(|address| address.port() != 0 && !is_there(address))
        .map(|address| std::net::TcpListener::bind(address).map_err(|error| cannot(*address, &error)))
        .collect()
}

/// An address that could not be listened on now.
pub(crate) struct Taken {
    /// The key that names it.
    pub(crate) key: String,
    pub(crate) address: SocketAddr,
    /// For want of a right alone?
    pub(crate) is_denied: bool,
    /// Does somebody else listen there?
    pub(crate) is_in_use: bool,
    pub(crate) message: String,
}

/// Which addresses of a configuration could not be listened on now, those besides that are `held` already. Nothing is
/// listened on: a client that comes at this very moment is refused as it was before.
pub(crate) fn taken(config: &Config, held: &[SocketAddr]) -> Vec<Taken> {
    let admin = (config.admin.listen, "admin.listen");
    let listeners = config.server.listeners.iter().map(|listener| (listener.address, listener.key.as_str()));
    listeners
        .chain([admin])
        .filter(|(address, _)| address.port() != 0 && !held.contains(address))
        .filter_map(|(address, key)| {
            let error = try_at(address).err()?;
            Some(Taken {
                key: key.to_owned(),
                address,
                is_denied: error.kind() == io::ErrorKind::PermissionDenied,
                is_in_use: error.kind() == io::ErrorKind::AddrInUse,
                message: cannot(address, &error),
            })
        })
        .collect()
}

fn try_at(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

fn cannot(address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there, perhaps another rotogate; stop it, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; choose a higher one, or grant CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => "see the error",
    };
    format!("cannot listen on {address}: {error}: {hint}")
}
