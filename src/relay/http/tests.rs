use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use rotogate_core::http_client::{Allowed, Tls};

/// Says `text` to each connection once it sent anything, and closes it.
async fn server(text: &'static str) -> (String, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut buffer = vec![0; 64 << 10];
            let mut read = 0;
            while !String::from_utf8_lossy(&buffer[..read]).ends_with("refresh_token=T") {
                read += stream.read(&mut buffer[read..]).await.unwrap();
            }
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    (url, count, task)
}

fn provider(url: &str) -> OAuthProvider {
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut tls = Tls::default();
    tls.ca = Some(authority.cert.pem());
    let caller = HttpCaller::new(HttpClient::with_tls(&tls).unwrap(), Duration::from_secs(5));
    let target = |url: &str| FetchTarget::parse(url, Allowed::by_operator()).unwrap();
    OAuthProvider::new(caller, ProviderUrls::fixed(target(url), Some(target(url))))
}

fn request() -> ProviderRequest {
    let body = Zeroizing::new(b"grant_type=refresh_token&refresh_token=T".to_vec());
    ProviderRequest { body, ..ProviderRequest::default() }
}

#[tokio::test]
async fn i35_a_whole_reply_is_read_with_what_belongs_to_it() {
    let text = "HTTP/1.1 401 Unauthorized\r\nretry-after: 7\r\nwww-authenticate: DPoP\r\ndpop-nonce: n\r\n\
                content-length: 26\r\n\r\n{\"error\":\"use_dpop_nonce\"}";
    let (url, count, _server) = server(text).await;
    let reply = provider(&url).send(&request()).await.unwrap();
    assert_eq!(
        (reply.status, reply.retry_after, reply.challenge.as_deref(), reply.dpop_nonce.as_deref()),
        (401, Some(Duration::from_secs(7)), Some("DPoP"), Some("n"))
    );
    assert_eq!(&**reply.body, b"{\"error\":\"use_dpop_nonce\"}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn i35_without_a_connection_nothing_was_sent_and_without_a_whole_reply_it_is_lost_after_one_attempt() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let unreachable = provider(&format!("http://{free}/token")).send(&request()).await;
    assert!(matches!(unreachable, Err(SendError::NotSent(_))), "{unreachable:?}");
    let unknown = ProviderUrls { token: Arc::new(|| None), revocation: None };
    let unknown = OAuthProvider { urls: unknown, ..provider("http://127.0.0.1:1/") };
    assert!(matches!(unknown.send(&request()).await, Err(SendError::NotSent(_))));
    for text in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
        "HTTP/1.1 302 Found\r\nlocation: https://other.example/\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 65537\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx",
    ] {
        let (url, count, _server) = server(text).await;
        let lost = provider(&url).send(&request()).await;
        assert!(matches!(lost, Err(SendError::Lost(_))), "{text:?}: {lost:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{text:?}");
    }
}

#[tokio::test]
async fn i41_a_revocation_is_accepted_by_200_alone_and_no_page_of_an_intermediary_is_passed_on() {
    for (text, accepted, status, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", true, 200, ""),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n<html>", false, 502, ""),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy", false, 503, ""),
        (
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 34\r\n\r\n{\"error\":\"unsupported_token_type\"}",
            false,
            400,
            "{\"error\":\"unsupported_token_type\"}",
        ),
    ] {
        let (url, _, _server) = server(text).await;
        let (took, reply) = provider(&url).revoke(&request()).await.unwrap();
        assert_eq!((took, reply.status, &**reply.body), (accepted, status, body.as_bytes()), "{text:?}");
    }
}
