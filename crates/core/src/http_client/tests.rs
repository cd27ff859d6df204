//! The client against servers that lie.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Method, StatusCode};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// Long enough for an answer that comes, short enough to wait for one that does not.
const SOON: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(30);

/// Answers each connection by `answer`, and counts them.
struct Liar {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Liar {
    async fn new<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(stream));
            }
        });
        Self { address, connections, task }
    }

    /// Says this to every request, and closes.
    async fn saying(text: impl Into<Vec<u8>>) -> Self {
        let text = Arc::new(text.into());
        Self::new(move |mut stream| {
            let text = Arc::clone(&text);
            async move {
                head(&mut stream).await;
                stream.write_all(&text).await.unwrap();
            }
        })
        .await
    }

    fn target(&self) -> FetchTarget {
        FetchTarget::parse(&format!("http://{}/keys?a=secret", self.address), Allowed::by_operator()).unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads the head of a request, and what came with it.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    while !read.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut read).await.unwrap_or_default() == 0 {
            break;
        }
    }
    String::from_utf8(read).unwrap()
}

fn client() -> HttpClient {
    let pem = authority().0;
    let tls = Tls { ca: Some(pem), ..Tls::default() };
    HttpClient::with_tls(&tls).unwrap().with_timeout(LONG).with_max_size(1000)
}

fn authority() -> (String, rcgen::CertifiedIssuer<'static, rcgen::KeyPair>) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    (issuer.as_ref().pem(), issuer)
}

async fn get(client: &HttpClient, liar: &Liar) -> Result<Document, FetchError> {
    client.get_document(&liar.target(), None, None).await
}

#[tokio::test]
async fn a_kept_connection_is_used_again_and_its_end_is_no_answer() {
    let liar = Liar::new(|mut stream| async move {
        for _ in 0..2 {
            if head(&mut stream).await.is_empty() {
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
        // Closes without an answer.
        head(&mut stream).await;
    })
    .await;
    let ask = async |client: &HttpClient| {
        for _ in 0..5 {
            let answer = client.send(&liar.target(), Method::GET, HeaderMap::new(), Bytes::new()).await.unwrap();
            assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"ok"[..]));
        }
        liar.connections.swap(0, Ordering::SeqCst)
    };
    assert_eq!(ask(&client()).await, 5);
    assert_eq!(ask(&client().kept_alive()).await, 3, "each takes two");
}

/// The error that this answer is.
async fn refused(text: impl Into<Vec<u8>>) -> FetchError {
    let liar = Liar::saying(text).await;
    let error = get(&client(), &liar).await.unwrap_err();
    assert!(!error.not_sent(), "{error}");
    assert!(error.to_string().contains(&liar.address.to_string()) && !error.to_string().contains("secret"), "{error}");
    assert_eq!(liar.connections(), 1, "{error}");
    error
}

#[tokio::test]
async fn a_document_is_read_and_asked_for_again_by_its_tag() {
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let liar = Liar::new(move |mut stream| {
        let heads = heads.clone();
        async move {
            let head = head(&mut stream).await;
            let unchanged = head.contains("if-none-match: \"1\"\r\n");
            heads.send(head).unwrap();
            let answer: &[u8] = match unchanged {
                true => b"HTTP/1.1 304 Not Modified\r\ncache-control: max-age=5\r\n\r\n",
                false => b"HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 2\r\n\r\n{}",
            };
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let token = bearer(&SecretString::from("abc")).unwrap();
    assert!(!format!("{token:?}").contains("abc"));
    let first = client().get_document(&liar.target(), None, Some(&token)).await.unwrap();
    let Document::New { headers, body } = first else { panic!("{first:?}") };
    assert_eq!(body, "{}");
    let sent = seen.recv().await.unwrap();
    let host = format!("host: {}\r\n", liar.address);
    for line in
        ["GET /keys?a=secret HTTP/1.1\r\n", &host, "accept-encoding: identity\r\n", "authorization: Bearer abc\r\n"]
    {
        assert!(sent.contains(line), "{sent}");
    }
    let second = client().get_document(&liar.target(), headers.get("etag"), None).await.unwrap();
    let Document::Unchanged { headers } = second else { panic!("{second:?}") };
    assert_eq!(headers["cache-control"], "max-age=5");
}

#[tokio::test]
async fn a_request_with_a_body_gets_every_status_for_its_caller_to_judge() {
    let liar = Liar::new(|mut stream| async move {
        let mut read = head(&mut stream).await;
        while !read.ends_with("token=x") {
            read.push(char::from(stream.read_u8().await.unwrap()));
        }
        assert!(read.starts_with("POST ") && read.contains("content-length: 7\r\n") && read.contains("x-a: 1\r\n"));
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 3\r\n\r\nno!").await.unwrap();
    })
    .await;
    let headers = HeaderMap::from_iter([("x-a".parse().unwrap(), HeaderValue::from_static("1"))]);
    let answer = client().send(&liar.target(), Method::POST, headers, Bytes::from("token=x")).await.unwrap();
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::UNAUTHORIZED, &b"no!"[..]));
}

#[tokio::test]
async fn i5_no_other_status_is_a_document() {
    for status in
        ["201 Created", "204 No Content", "206 Partial Content", "304 Not Modified", "404 Not Found", "500 Oh"]
    {
        let error = refused(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(error.word(), "status", "{error}");
        assert!(error.to_string().contains(&status[..3]), "{error}");
    }
}

#[tokio::test]
async fn i5_i6_no_redirect_is_followed() {
    for status in [300, 301, 302, 303, 307, 308] {
        let location = "http://user:secret@169.254.169.254/latest/meta-data?x=secret";
        let error =
            refused(format!("HTTP/1.1 {status} See\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(error.word(), "redirect");
        assert!(error.to_string().contains("169.254.169.254"), "{error}");
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut writer, body).unwrap();
    writer.finish().unwrap()
}

async fn body_of(answer: Vec<u8>) -> Bytes {
    let server = Liar::saying(answer).await;
    match get(&client(), &server).await.unwrap() {
        Document::New { body, .. } => body,
        unchanged => panic!("{unchanged:?}"),
    }
}

fn coded(coding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn i5_an_answer_that_a_cache_compressed_is_read_within_the_same_bound() {
    let text = b"{\"keys\":[]}";
    for (answer, what) in [
        (coded("identity", text), "no coding"),
        (coded("gzip", &gzip(text)), "gzip"),
        (coded("X-GZIP", &gzip(text)), "its old name"),
        (coded("identity, gzip", &gzip(text)), "both"),
        (coded("gzip", &[gzip(&text[..4]), gzip(&text[4..])].concat()), "two members"),
        (coded("", &["\u{feff}".as_bytes(), text].concat()), "a byte order mark"),
        (coded("gzip", &gzip(&["\u{feff}".as_bytes(), text].concat())), "the mark within"),
    ] {
        assert_eq!(body_of(answer).await, text.as_slice(), "{what}");
    }
    for (answer, word) in [
        (coded("br", text), "encoding"),
        (coded("gzip, gzip", &gzip(&gzip(text))), "encoding"),
        (coded("gzip", text), "encoding"),
        (coded("gzip", b"\x1f\x8b"), "encoding"),
        (coded("gzip", &gzip(text)[..12]), "encoding"),
        (coded("gzip", &gzip(&[b' '; 1001])), "too_large"),
        (coded("gzip", &gzip(&[b' '; 500_000])), "too_large"),
    ] {
        let error = refused(answer).await;
        assert_eq!(error.word(), word, "{error}");
    }
    assert_eq!(body_of(coded("gzip", &gzip(&[b' '; 1000]))).await.len(), 1000);
}

#[tokio::test]
async fn i5_a_body_is_read_up_to_its_bound_and_the_connection_closed() {
    // A body of the maximum length.
    let body = "x".repeat(1000);
    let exact = Liar::saying(format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{body}")).await;
    assert!(get(&client(), &exact).await.is_ok());
    // The length alone is refused, before the body arrives.
    let error = refused("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n").await;
    assert_eq!(error.word(), "too_large");
    let error = refused(format!("HTTP/1.1 200 OK\r\ncontent-length: {}0\r\n\r\n", u64::MAX)).await;
    assert_eq!(error.word(), "http", "{error}");
    // Without an end: what the server could write is what was read, and the rest of two buffers of the system.
    let (ended, end) = tokio::sync::oneshot::channel();
    let ended = Arc::new(std::sync::Mutex::new(Some(ended)));
    let endless = Liar::new(move |mut stream| {
        let ended = Arc::clone(&ended);
        async move {
            head(&mut stream).await;
            let mut result = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while result.is_ok() {
                result = stream.write_all(b"4\r\nabcd\r\n").await;
            }
            ended.lock().unwrap().take().unwrap().send(()).unwrap();
        }
    })
    .await;
    assert_eq!(get(&client(), &endless).await.unwrap_err().word(), "too_large");
    tokio::time::timeout(LONG, end).await.unwrap().unwrap();
}

#[tokio::test]
async fn i5_a_head_is_bounded() {
    let long = |length: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\n{{}}", "y".repeat(length));
    let ten = Liar::saying(long(10_000)).await;
    assert!(get(&client(), &ten).await.is_ok());
    assert_eq!(refused(long(100_000)).await.word(), "too_large");
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\n{{}}", "a: b\r\n".repeat(200));
    assert_eq!(refused(many).await.word(), "too_large");
}

#[tokio::test]
async fn i5_one_time_bounds_head_and_body_together() {
    // Each piece arrives in time, but the whole does not.
    for start in ["", "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n"] {
        let slow = Liar::new(move |mut stream| async move {
            head(&mut stream).await;
            let mut result = stream.write_all(start.as_bytes()).await;
            let mut tick = tokio::time::interval(SOON / 10);
            let piece: &[u8] = if start.is_empty() { b"\r\n" } else { b"x" };
            while result.is_ok() {
                tick.tick().await;
                result = stream.write_all(piece).await;
            }
        })
        .await;
        let error = get(&client().with_timeout(SOON), &slow).await.unwrap_err();
        assert_eq!((error.word(), error.not_sent()), ("timeout", false), "{start:?} {error}");
        assert_eq!(slow.connections(), 1);
    }
}

#[tokio::test]
async fn i5_what_ends_in_the_middle_or_is_not_http_is_no_answer() {
    for text in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ] {
        assert_eq!(refused(text).await.word(), "http", "{text:?}");
    }
    // The server resets the connection.
    let resetting = Liar::new(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(get(&client(), &resetting).await.unwrap_err().word(), "http");
}

/// Gives these addresses for every name, and counts.
struct Lying(Vec<&'static str>, AtomicUsize);

impl Lookup for Lying {
    fn addresses(&self, _: &str) -> LookupFuture {
        self.1.fetch_add(1, Ordering::SeqCst);
        let addresses: Vec<IpAddr> = self.0.iter().map(|text| text.parse().unwrap()).collect();
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

fn lying(addresses: &[&'static str]) -> (HttpClient, Arc<Lying>) {
    let lookup = Arc::new(Lying(addresses.to_vec(), AtomicUsize::new(0)));
    (client().with_lookup(Arc::clone(&lookup) as _), lookup)
}

#[tokio::test]
async fn i6_a_public_name_that_resolves_here_is_not_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let public = Allowed::by_issuer("id.example.com", &["203.0.113.7".parse().unwrap()]);
    for addresses in [
        &["127.0.0.1"][..],
        &["::ffff:127.0.0.1"],
        &["10.0.0.1", "127.0.0.1"],
        &["169.254.169.254"],
        &["::ffff:169.254.169.254"],
        &["64:ff9b::a9fe:a9fe"],
    ] {
        let target = FetchTarget::parse(&format!("https://rebound.example.com:{port}/"), public).unwrap();
        let error = lying(addresses).0.get_document(&target, None, None).await.unwrap_err();
        assert_eq!((error.word(), error.not_sent()), ("refused_address", true), "{error}");
        assert!(error.to_string().contains(addresses[0]), "{error}");
    }
    // The client opened no connection: the next one accepted is our own.
    let own = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().1, own.local_addr().unwrap());
    // A URL of the operator reaches every address but those that no URL may reach.
    let target = FetchTarget::parse(&format!("https://hook.internal:{port}/"), Allowed::by_operator()).unwrap();
    let error = lying(&["169.254.169.254"]).0.get_document(&target, None, None).await.unwrap_err();
    assert_eq!(error.word(), "refused_address", "{error}");
}

#[tokio::test]
async fn i6_only_the_permitted_ones_of_several_addresses_are_connected_to() {
    let liar = Liar::new(|mut stream| async move {
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    })
    .await;
    let target =
        FetchTarget::parse(&format!("https://hook.internal:{}/", liar.address.port()), Allowed::by_operator()).unwrap();
    let (client, lookup) = lying(&["169.254.169.254", "127.0.0.1"]);
    let error = client.get_document(&target, None, None).await.unwrap_err();
    // The server was reached, although it speaks no TLS; and the name was resolved once.
    assert_eq!((error.word(), error.not_sent()), ("tls", true), "{error}");
    assert_eq!((liar.connections(), lookup.1.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn i6_proxy_variables_have_no_effect() {
    let name = "http_client::tests::i6_proxy_variables_have_no_effect";
    if std::env::var_os("ALL_PROXY").is_some() {
        // This is the process started below, with the variables.
        let liar = Liar::saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        assert!(get(&client(), &liar).await.is_ok());
        assert_eq!(liar.connections(), 1);
        return;
    }
    // A process cannot change its own variables safely, so another one runs this test with them.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let variables = names.map(|name| (name, format!("http://{address}")));
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name]).envs(variables).env_remove("NO_PROXY").output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let own = TcpStream::connect(address).await.unwrap();
    assert_eq!(proxy.accept().await.unwrap().1, own.local_addr().unwrap());
}

#[tokio::test]
async fn i6_localhost_in_clear_stays_on_this_machine() {
    let target = FetchTarget::parse("http://localhost:1/", Allowed::by_operator()).unwrap();
    for address in ["10.0.0.1", "1.1.1.1"] {
        let error = lying(&[address]).0.get_document(&target, None, None).await.unwrap_err();
        assert_eq!(error.word(), "refused_address", "{error}");
    }
}

#[test]
fn i6_a_url_that_must_not_be_asked_is_none() {
    let parse = |text| FetchTarget::parse(text, Allowed::by_operator()).map(|target| target.to_string());
    for text in ["http://id.example.com/", "http://10.0.0.1/", "ftp://localhost/", "http://localhost.example.com/"] {
        assert_eq!(parse(text), Err(BadTarget::Scheme), "{text}");
    }
    for text in ["https://169.254.169.254/", "https://[fe80::1]/", "https://[::ffff:a9fe:a9fe]/", "https://0.0.0.0/"] {
        assert_eq!(parse(text), Err(BadTarget::Address), "{text}");
    }
    for text in ["https://user@id.example.com/", "https://a:b@id.example.com/", "https://id.example.com/#x"] {
        assert_eq!(parse(text), Err(BadTarget::Extra), "{text}");
    }
    for text in [
        "",
        "/keys",
        "id.example.com",
        "https://",
        "https:///x",
        "https://a:0/",
        "https://a:x/",
        "https://a:/",
        "https://a:65536/",
        "https://a b/",
        "https://[::1/",
        "https://a..b/",
    ] {
        assert_eq!(parse(text), Err(BadTarget::Malformed), "{text}");
    }
    for text in
        ["https://id.example.com/a@b", "http://localhost:80/", "http://127.9.9.9/", "http://[::1]:1/", "https://a_b/"]
    {
        assert_eq!(parse(text).as_deref(), Ok(text));
    }
    assert_eq!(parse("https://h/p?token=secret").as_deref(), Ok("https://h/p"));
    let public = Allowed::by_issuer("id.example.com", &[]);
    for text in
        ["http://localhost/", "http://127.0.0.1/", "https://127.0.0.1/", "https://192.168.0.1/", "https://[::1]/"]
    {
        assert_eq!(FetchTarget::parse(text, public).unwrap_err(), BadTarget::Address, "{text}");
    }
}

/// A resolver with an error, or without an end.
struct Failing(bool);

impl Lookup for Failing {
    fn addresses(&self, _: &str) -> LookupFuture {
        let ends = self.0;
        Box::pin(async move { if ends { Err(io::Error::other("no such name")) } else { std::future::pending().await } })
    }
}

#[tokio::test]
async fn i5_what_fails_before_a_connection_was_not_sent() {
    let target = FetchTarget::parse("https://id.example.com/", Allowed::by_operator()).unwrap();
    let fails = async |client: HttpClient, target: &FetchTarget| {
        let error = client.get_document(target, None, None).await.unwrap_err();
        assert!(error.not_sent(), "{error}");
        assert!(error.to_string().starts_with(error.host()), "{error}");
        error.word()
    };
    assert_eq!(fails(client().with_lookup(Arc::new(Failing(true))), &target).await, "dns");
    assert_eq!(fails(lying(&[]).0, &target).await, "dns");
    assert_eq!(fails(client().with_lookup(Arc::new(Failing(false))).with_timeout(SOON), &target).await, "timeout");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The server does not answer.
    let silent = FetchTarget::parse(&format!("https://{address}/"), Allowed::by_operator()).unwrap();
    assert_eq!(fails(client().with_timeout(SOON), &silent).await, "timeout");
    assert_eq!(fails(client().with_timeout(LONG).with_connect_timeout(SOON), &silent).await, "timeout");
    drop(listener);
    let closed = FetchTarget::parse(&format!("http://{address}/"), Allowed::by_operator()).unwrap();
    assert_eq!(fails(client(), &closed).await, "connect");
}

/// Speaks TLS with a certificate for these names, and says this to each request.
async fn secure(issuer: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, names: &[&str]) -> Liar {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, issuer).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    Liar::new(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // A client that does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            head(&mut stream).await;
            let kind = stream.get_ref().1.handshake_kind().unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nx-kind: {kind:?}\r\ncontent-length: 2\r\n\r\n{{}}");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_tls_session_is_resumed_by_the_next_connection() {
    let (pem, issuer) = authority();
    let liar = secure(&issuer, &["localhost"]).await;
    let client = HttpClient::with_tls(&Tls { ca: Some(pem), ..Tls::default() }).unwrap();
    let url = format!("https://localhost:{}/", liar.address.port());
    let target = FetchTarget::parse(&url, Allowed::by_operator()).unwrap();
    for expected in ["Full", "Resumed"] {
        let answer = client.send(&target, Method::GET, HeaderMap::new(), Bytes::new()).await.unwrap();
        assert_eq!(answer.headers()["x-kind"], expected);
    }
    assert_eq!(liar.connections(), 2);
}

#[tokio::test]
async fn i5_i6_a_server_is_believed_by_its_name_and_a_known_authority_alone() {
    let (pem, issuer) = authority();
    let trusting = || HttpClient::with_tls(&Tls { ca: Some(pem.clone()), ..Tls::default() }).unwrap();
    let here = Arc::new(Lying(vec!["127.0.0.1"], AtomicUsize::new(0)));
    let at = |liar: &Liar| {
        FetchTarget::parse(&format!("https://id.example.com:{}/", liar.address.port()), Allowed::by_operator()).unwrap()
    };
    let good = secure(&issuer, &["id.example.com"]).await;
    let body = trusting().with_lookup(here.clone()).get_document(&at(&good), None, None).await.unwrap();
    assert!(matches!(body, Document::New { .. }));
    let wrong_name = secure(&issuer, &["other.example.com"]).await;
    let unknown = secure(&authority().1, &["id.example.com"]).await;
    for liar in [wrong_name, unknown] {
        let error = trusting().with_lookup(here.clone()).get_document(&at(&liar), None, None).await.unwrap_err();
        assert_eq!((error.word(), error.not_sent()), ("tls", true), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
        assert_eq!(liar.connections(), 1);
    }
}

/// A proxy that passes each connection on to `server`, whatever it is asked for. Returns its URL, and what it was asked.
async fn passing_proxy(server: SocketAddr, status: &'static str) -> (Proxy, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            heads.lock().unwrap().push(String::from_utf8(head).unwrap());
            client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            if status.starts_with("200") {
                let mut server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    (Proxy::parse(&url).unwrap(), asked)
}

#[tokio::test]
async fn i6_a_proxy_that_is_set_passes_connections_on_and_tls_is_with_the_server() {
    let (pem, issuer) = authority();
    let trusting = || HttpClient::with_tls(&Tls { ca: Some(pem.clone()), ..Tls::default() }).unwrap();
    // The name is never resolved here.
    let nowhere = Arc::new(Lying(vec![], AtomicUsize::new(0)));
    let target = FetchTarget::parse("https://id.example.com/keys", Allowed::by_operator()).unwrap();
    let good = secure(&issuer, &["id.example.com"]).await;
    let (proxy, asked) = passing_proxy(good.address, "200 OK").await;
    let client = trusting().with_lookup(nowhere.clone()).with_proxy(Some(proxy));
    let answer = client.get_document(&target, None, None).await.unwrap();
    assert!(matches!(answer, Document::New { .. }));
    let asked = asked.lock().unwrap().clone();
    assert!(asked[0].starts_with("CONNECT id.example.com:443 HTTP/1.1\r\n"), "{asked:?}");
    assert_eq!(nowhere.1.load(Ordering::SeqCst), 0);

    // A proxy that leads elsewhere is not believed, one that refuses is no answer of the server, and this machine is
    // asked directly.
    let other = secure(&issuer, &["other.example.com"]).await;
    let (elsewhere, _) = passing_proxy(other.address, "200 OK").await;
    let (refusing, asked) = passing_proxy(good.address, "407 Proxy Authentication Required").await;
    for (proxy, word) in [(elsewhere, "tls"), (refusing.clone(), "connect")] {
        let error = trusting().with_proxy(Some(proxy)).get_document(&target, None, None).await.unwrap_err();
        assert_eq!((error.word(), error.not_sent()), (word, true), "{error}");
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
    let here = Liar::saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let direct = trusting().with_proxy(Some(refusing));
    direct.get_document(&here.target(), None, None).await.unwrap();
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn only_a_plain_http_url_with_a_port_names_a_proxy() {
    assert_eq!(Proxy::parse("http://[::1]:3128/").unwrap().to_string(), "http://[::1]:3128");
    for bad in [
        "proxy.example.com:3128",
        "https://proxy.example.com:3128",
        "http://proxy.example.com",
        "http://u:p@proxy.example.com:3128",
        "http://proxy.example.com:3128/path",
        "http://proxy.example.com:0",
        "http://proxy.example.com:3128#x",
        "",
    ] {
        assert_eq!(Proxy::parse(bad), Err(BadProxy), "{bad}");
    }
}

#[test]
fn settings_of_tls_that_cannot_be_used_say_which() {
    let bad = |tls: Tls| HttpClient::with_tls(&tls).unwrap_err();
    assert_eq!(bad(Tls { ca: Some("nothing".to_owned()), ..Tls::default() }).key, "ca");
    let (pem, _) = authority();
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let pair = |cert: &str, key: &str| Tls {
        ca: Some(pem.clone()),
        client_cert: Some((cert.to_owned(), SecretString::from(key.to_owned()))),
        ..Tls::default()
    };
    for tls in [pair(&pem, &key), pair(&pem, "none"), pair("none", &key)] {
        assert!(!format!("{tls:?}").contains("PRIVATE"));
        assert_eq!(bad(tls).key, "client_cert");
    }
}
