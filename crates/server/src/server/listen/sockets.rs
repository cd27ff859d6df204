//! The listening sockets: newly bound, or passed by a parent program (systemd's `sd_listen_fds(3)`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket};

use crate::server::error::{KeyFault, ServerError};
use rotogate_config::Config;

#[derive(Debug)]
pub(crate) struct Sockets {
    passed: Vec<std::net::TcpListener>,
    spare: Vec<std::net::TcpListener>,
}

/// Returns the passed sockets. A process can call this function only once.
///
/// # Errors
/// A passed socket is not a TCP socket.
pub fn passed() -> Result<Vec<std::net::TcpListener>, ServerError> {
    let mut fds = ListenFd::from_env();
    let mut passed = Vec::new();
    for index in 0..fds.len() {
        let socket = fds.take_tcp_listener(index).map_err(|error| ServerError::PassedSocket { index, error })?;
        passed.extend(socket);
    }
    Ok(passed)
}

impl Sockets {
    pub(crate) const fn with(passed: Vec<std::net::TcpListener>) -> Self {
        Self { passed, spare: Vec::new() }
    }

    /// `key` is the configuration key of the address.
    pub(crate) async fn listener_at(
        &mut self,
        config: &Config,
        address: SocketAddr,
        key: &str,
    ) -> Result<TcpListener, ServerError> {
        let failed = |error: io::Error| ServerError::at(config, KeyFault::new(key, bind_error(address, &error)));
        let passed = self.passed.iter().position(|socket| socket.local_addr().is_ok_and(|at| at == address));
        let socket = match passed.map(|index| self.passed.swap_remove(index)) {
            Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
            None => TcpListener::bind(address).await,
        };
        let socket = socket.map_err(failed)?;
        self.spare.push(socket.as_fd().try_clone_to_owned().map_err(failed)?.into());
        Ok(socket)
    }

    /// Closes the passed sockets that are not configured. Returns a second handle for each configured socket.
    pub(crate) fn into_spare(self) -> Vec<std::net::TcpListener> {
        for socket in self.passed {
            let address = socket.local_addr().map(tracing::field::display).ok();
            tracing::warn!(
                address,
                "passed socket closed: gateway.toml does not name its address. Add the address to `server.listen`, or \
                 remove it from the socket unit"
            );
        }
        self.spare
    }
}

/// Binds the addresses that are missing in `spare`, before an in-place upgrade. The next program binds addresses with
/// port 0.
///
/// # Errors
/// An address cannot be bound. The new sockets are then closed again.
pub(crate) fn open_missing(
    spare: &[std::net::TcpListener],
    wanted: &[SocketAddr],
) -> Result<Vec<std::net::TcpListener>, String> {
    let is_there = |address: &SocketAddr| spare.iter().any(|socket| socket.local_addr().is_ok_and(|at| at == *address));
    wanted
        .iter()
        .filter(|address| address.port() != 0 && !is_there(address))
        .map(|address| std::net::TcpListener::bind(address).map_err(|error| bind_error(*address, &error)))
        .collect()
}

pub(crate) struct UnavailableAddress {
    pub(crate) key: String,
    pub(crate) address: SocketAddr,
    /// Whether only a missing privilege prevents the bind.
    pub(crate) is_denied: bool,
    pub(crate) is_in_use: bool,
    pub(crate) message: String,
}

/// Returns the configured addresses that cannot be bound now, except those in `held`. The check does not listen, so it
/// cannot accept a client's connection.
pub(crate) fn unavailable_addresses(config: &Config, held: &[SocketAddr]) -> Vec<UnavailableAddress> {
    config
        .addresses()
        .filter(|(address, _)| address.port() != 0 && !held.contains(address))
        .filter_map(|(address, key)| {
            let error = try_bind(address).err()?;
            Some(UnavailableAddress {
                key: key.to_owned(),
                address,
                is_denied: error.kind() == io::ErrorKind::PermissionDenied,
                is_in_use: error.kind() == io::ErrorKind::AddrInUse,
                message: bind_error(address, &error),
            })
        })
        .collect()
}

fn try_bind(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

fn bind_error(address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there, perhaps another rotogate; stop it, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; choose a higher port, or grant `CAP_NET_BIND_SERVICE`"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => "see the error",
    };
    format!("cannot listen on {address}: {error}: {hint}")
}
