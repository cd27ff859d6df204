//! Closes a connection so that the last response still arrives. If unread bytes are waiting at the close, the kernel
//! resets the connection, and the peer may lose the response. Some clients (curl 7.88) also drop the response if an
//! HTTP/2 stream is reset with `NO_ERROR` (RFC 9113 §8.1).

use std::time::Duration;

use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: u64 = 16 * 1024 * 1024;

/// Shuts down the write side of the connection. Discards what the peer still sends, for at most two seconds and 16 MiB.
pub async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let dropped = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MAX_LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, dropped).await;
}

/// Discards the remaining request body, for at most two seconds and 16 MiB.
pub async fn drop_rest<B: Body + Unpin>(mut body: B) {
    let dropped = async {
        let mut left = usize::try_from(MAX_LINGER_BYTES).unwrap_or(usize::MAX);
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, bytes::Buf::remaining);
            let Some(rest) = left.checked_sub(length) else { break };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, dropped).await;
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_its_time_and_its_bytes_and_no_more() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let begin = Instant::now();
        let told = async {
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(begin.elapsed(), Duration::ZERO, "our side ends at once");
        };
        tokio::join!(linger(&mut near), told);
        assert_eq!(begin.elapsed(), LINGER_TIMEOUT);

        let (mut near, mut far) = tokio::io::duplex(1024);

        let begin = Instant::now();
        let flooding = tokio::spawn(async move { while far.write_all(&[0; 1000]).await.is_ok() {} });
        linger(&mut near).await;
        drop(near);
        flooding.await.unwrap();
        assert!(begin.elapsed() < LINGER_TIMEOUT, "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_body_has_the_same_bounds() {
        let (mut says, body) = http_body_util::channel::Channel::<bytes::Bytes>::new(1);
        let dropping = tokio::spawn(drop_rest(body));
        let piece = bytes::Bytes::from_static(&[0; 64 * 1024]);
        let mut taken = 0;
        while says.send_data(piece.clone()).await.is_ok() {
            taken += 1;
        }
        dropping.await.unwrap();
        assert!((256..260).contains(&taken), "{taken}");

        let (_silent, body) = http_body_util::channel::Channel::<bytes::Bytes>::new(1);
        let begin = Instant::now();
        drop_rest(body).await;
        assert_eq!(begin.elapsed(), LINGER_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_ends_its_side_is_not_waited_for() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let begin = Instant::now();
        far.write_all(b"what is under way").await.unwrap();
        far.shutdown().await.unwrap();
        linger(&mut near).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
