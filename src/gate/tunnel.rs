//! Copies the bytes of an upgraded connection (RFC 9110 §7.8) while its [`Lease`] is valid.

use std::io;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};

use rotogate_core::lease::{Lease, LeaseEnd};
use websocket::WebSocket;

mod frame_copy;
mod frames;
mod websocket;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Returns the protocol of an upgrade. Returns `None` for several protocols, and for HTTP protocols: their requests
/// would bypass the gate.
pub fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    if !asks.map(str::trim).any(|option| option.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let mut values = headers.get_all(UPGRADE).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let name = value.to_str().ok()?.trim().to_ascii_lowercase();
    let is_token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b));
    let is_http = ["h2", "http", "tls", "connect-"].iter().any(|prefix| name.starts_with(prefix));
    (is_token && !is_http).then(|| value.clone())
}

/// Copies bytes in both directions until both sides close or the lease ends. Returns why the lease ended.
pub async fn carry<C, S>(client: C, server: S, is_websocket: bool, lease: &Lease) -> Option<LeaseEnd>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    if is_websocket {
        let mut socket = WebSocket::new(client, server);
        let ending = until_ended(socket.carry(|| lease.has_ended(), || lease.note_activity()), lease).await?;
        socket.end(&ending).await;
        Some(ending)
    } else {
        let (mut client, mut server) = (client, server);
        let copied = tokio::io::copy_bidirectional(&mut client, &mut server);
        until_ended(async { copied.await.map(|_| None) }, lease).await
    }
}

async fn until_ended(carried: impl Future<Output = io::Result<Option<LeaseEnd>>>, lease: &Lease) -> Option<LeaseEnd> {
    let ending = tokio::select! {
        ended = carried => match ended {
            Ok(Some(ending)) => ending,
            Ok(None) => return None,
            Err(error) => {
                tracing::debug!(%error, "upgraded connection closed");
                return None;
            }
        },
        ending = lease.ended(LOOK_EVERY) => ending,
    };
    let reason = ending.reason();
    tracing::info!(
        target: "rotogate::denial",
        reason,
        session.id = lease.session().map(tracing::field::display),
        "the gate ended an upgraded connection, because the connection is no longer permitted"
    );
    Some(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(connection: &str, upgrade: &[&str]) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_str(connection).unwrap());
        for protocol in upgrade {
            headers.append(UPGRADE, HeaderValue::from_str(protocol).unwrap());
        }
        protocol(&headers)
    }

    #[test]
    fn t9_one_protocol_passes_that_is_not_http_in_disguise() {
        assert_eq!(asked("keep-alive, Upgrade", &["WebSocket"]).unwrap(), "WebSocket");
        for (connection, upgrade) in [
            ("keep-alive", &["websocket"][..]),
            ("upgrade", &[]),
            ("upgrade", &["h2c"]),
            ("upgrade", &["H2C"]),
            ("upgrade", &["HTTP/2.0"]),
            ("upgrade", &["TLS/1.2"]),
            ("upgrade", &["connect-udp"]),
            ("upgrade", &["websocket, h2c"]),
            ("upgrade", &["websocket", "h2c"]),
            ("upgrade", &["websocket", "websocket"]),
            ("upgrade", &[""]),
        ] {
            assert_eq!(asked(connection, upgrade), None, "{connection} {upgrade:?}");
        }
    }
}
