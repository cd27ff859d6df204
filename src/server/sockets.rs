//! The sockets that a gate listens on: opened here, or passed by whoever started it (systemd's `sd_listen_fds(3)`), with
//! the connections that wait there already.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use listenfd::ListenFd;
use tokio::net::TcpListener;

use super::ServerError;

/// See the module.
#[derive(Debug)]
pub(super) struct Sockets {
    passed: Vec<std::net::TcpListener>,
    kept: Vec<OwnedFd>,
}

impl Sockets {
    /// With those that were passed, if any were.
    pub(super) fn passed() -> Result<Self, ServerError> {
        let mut fds = ListenFd::from_env();
        let mut passed = Vec::new();
        for place in 0..fds.len() {
            let socket = fds.take_tcp_listener(place).map_err(|error| {
                ServerError::new(format!("of the sockets passed in LISTEN_FDS, number {place} is not for TCP: {error}"))
            })?;
            passed.extend(socket);
        }
        Ok(Self { passed, kept: Vec::new() })
    }

    /// The socket for an address, which `key` of gateway.toml names.
    pub(super) async fn at(&mut self, address: SocketAddr, key: &str) -> Result<TcpListener, ServerError> {
        let passed = self.passed.iter().position(|socket| socket.local_addr().is_ok_and(|at| at == address));
        let socket = match passed.map(|place| self.passed.swap_remove(place)) {
            Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
            None => TcpListener::bind(address).await,
        };
        let socket = socket.map_err(|error| cannot(address, key, &error))?;
        self.kept.push(socket.as_fd().try_clone_to_owned().map_err(|error| cannot(address, key, &error))?);
        Ok(socket)
    }

    /// Closes what was passed for no address of ours, and gives each of the others once more.
    pub(super) fn end(self) -> Vec<OwnedFd> {
        for socket in self.passed {
            let address = socket.local_addr().map(tracing::field::display).ok();
            tracing::warn!(address, "a socket was passed that gateway.toml does not name; it is closed");
        }
        self.kept
    }
}

fn cannot(address: SocketAddr, key: &str, error: &io::Error) -> ServerError {
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
    ServerError::new(format!("cannot listen on {address} ({key} in gateway.toml): {error}: {hint}"))
}
