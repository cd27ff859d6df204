//! The PROXY protocol, version 2, in which a TCP proxy names its client.
//!
//! A listener that expects the header closes a connection if the header is missing or does not name a client.
//! Otherwise, the proxy itself would be treated as the client, and forwarding headers would be trusted.

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature, command, family, and the length of the rest.
const FIXED_HEADER_BYTES: usize = 16;
/// Addresses take 36 bytes. Extensions take a few hundred bytes and are ignored.
const MAX_REST_BYTES: usize = 4096;

/// Reads only the header. With the command `LOCAL`, as in health checks, the proxy itself is the client.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin), peer: SocketAddr) -> io::Result<SocketAddr> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the PROXY header {what}"));
    let mut header = vec![0; FIXED_HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let rest = match header.as_slice() {
        [signature @ .., _, _, high, low] if signature == PROTOCOL_PREFIX => {
            usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => return Err(refused("is missing, or is not version 2")),
    };
    if rest > MAX_REST_BYTES {
        return Err(refused("is too long"));
    }
    header.resize(FIXED_HEADER_BYTES + rest, 0);
    stream.read_exact(header.get_mut(FIXED_HEADER_BYTES..).unwrap_or_default()).await?;
    let header = Header::try_from(header.as_slice()).map_err(|error| refused(&format!("is malformed: {error}")))?;
    match (header.command, header.protocol, header.addresses) {
        (Command::Local, _, _) => Ok(peer),
        (Command::Proxy, Protocol::Stream, Addresses::IPv4(ip)) => Ok((ip.source_address, ip.source_port).into()),
        (Command::Proxy, Protocol::Stream, Addresses::IPv6(ip)) => Ok((ip.source_address, ip.source_port).into()),
        (Command::Proxy, Protocol::Stream, Addresses::Unix(_) | Addresses::Unspecified)
        | (Command::Proxy, Protocol::Unspecified | Protocol::Datagram, _) => {
            Err(refused("does not contain the address of the client"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1:5";
    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 1, 187];

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [PROTOCOL_PREFIX, &[version_command, family], &length, rest].concat()
    }

    async fn client_of(bytes: &[u8]) -> io::Result<String> {
        let mut stream = bytes;
        let address = read(&mut stream, PEER.parse().unwrap()).await?;
        assert_eq!(stream, b"", "all of the header and nothing more was taken");
        Ok(address.to_string())
    }

    #[tokio::test]
    async fn the_client_is_who_the_header_says() {
        assert_eq!(client_of(&header(0x21, 0x11, &V4)).await.unwrap(), "203.0.113.7:4660");
        // The header may have an extension, such as the ALPN protocol `h2`.
        assert_eq!(
            client_of(&header(0x21, 0x11, &[&V4[..], &[1, 0, 2, b'h', b'2']].concat())).await.unwrap(),
            "203.0.113.7:4660"
        );
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        (v6[15], v6[33]) = (7, 80);
        assert_eq!(client_of(&header(0x21, 0x21, &v6)).await.unwrap(), "[2001:db8::7]:80");
        let mut stream: &[u8] = &[&header(0x21, 0x11, &V4)[..], b"GET /"].concat();
        read(&mut stream, PEER.parse().unwrap()).await.unwrap();
        assert_eq!(stream, b"GET /");
    }

    #[tokio::test]
    async fn a_proxy_may_speak_for_itself() {
        for bytes in [header(0x20, 0x00, &[]), header(0x20, 0x11, &V4), header(0x20, 0x00, &[0; 84])] {
            assert_eq!(client_of(&bytes).await.unwrap(), PEER);
        }
    }

    #[tokio::test]
    async fn what_is_not_a_sound_header_of_version_2_is_refused() {
        let mut other_signature = header(0x21, 0x11, &V4);
        other_signature[11] ^= 1;
        for bytes in [
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            other_signature,
            header(0x11, 0x11, &V4),
            header(0x22, 0x11, &V4),
            header(0x21, 0x41, &V4),
            header(0x21, 0x13, &V4),
            // The length is too short for the address family, truncated, or too long.
            header(0x21, 0x11, &V4[..11]),
            header(0x21, 0x21, &V4),
            header(0x21, 0x11, &V4)[..20].to_vec(),
            header(0x21, 0x11, &[0; 4097]),
            Vec::new(),
            header(0x21, 0x00, &[]),
            header(0x21, 0x01, &V4),
            header(0x21, 0x10, &V4),
            header(0x21, 0x12, &V4),
            header(0x21, 0x31, &[0; 216]),
        ] {
            assert!(client_of(&bytes).await.is_err(), "{bytes:x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_bring_it_down(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let bytes = [PROTOCOL_PREFIX, &tail].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read_any(&bytes));
        }
    }

    async fn read_any(mut bytes: &[u8]) -> io::Result<SocketAddr> {
        read(&mut bytes, PEER.parse().unwrap()).await
    }
}
