//! Closing a connection so that what was written last arrives. A socket that is closed while bytes of its peer wait to be
//! read is reset, and a reset takes with it what the peer had not read yet.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long a peer may go on.
const TIME: Duration = Duration::from_secs(5);
/// How many bytes more it may send.
const BYTES: u64 = 16 * 1024 * 1024;

/// Says that nothing more comes, and drops what the peer still sends, until it ends its side; for five seconds and 16 MiB
/// at most.
pub(crate) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let dropped = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(BYTES), &mut tokio::io::sink()).await
    };
    // However it ends, the connection is closed next.
    let _ = tokio::time::timeout(TIME, dropped).await;
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
            assert_eq!(begin.elapsed(), Duration::ZERO, "it is told at once");
        };
        tokio::join!(linger(&mut near), told);
        assert_eq!(begin.elapsed(), TIME);

        let (mut near, mut far) = tokio::io::duplex(1024);

        let begin = Instant::now();
        let flooding = tokio::spawn(async move { while far.write_all(&[0; 1000]).await.is_ok() {} });
        linger(&mut near).await;
        drop(near);
        flooding.await.unwrap();
        assert!(begin.elapsed() < TIME, "{:?}", begin.elapsed());
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
