//! A server for documents, such as an issuer's metadata and keys.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

const SILENCE: &str = "silence";

/// A server with the documents that the test sets. Other paths return 404.
pub struct Documents {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, String>>>,
    seen: Arc<Mutex<Vec<String>>>,
    /// The head and body of the last request with a body, by path.
    sent: Arc<Mutex<HashMap<String, (String, String)>>>,
    waiting: Arc<Mutex<Vec<(String, TcpStream)>>>,
}

impl Documents {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, waiting) = (Arc::default(), Arc::default());
        let server = Self { address, answers: Arc::default(), seen, sent: Arc::default(), waiting };
        let (answers, seen, sent) = (Arc::clone(&server.answers), Arc::clone(&server.seen), Arc::clone(&server.sent));
        let waiting = Arc::clone(&server.waiting);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let length = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if let Some(length) = length.filter(|length| *length > 0) {
                    let mut body = vec![0; length];
                    let _ = stream.read_exact(&mut body);
                    sent.lock().unwrap().insert(path.clone(), (head.clone(), String::from_utf8(body).unwrap()));
                }
                let answer = answers.lock().unwrap().get(&path).cloned();
                if answer.as_deref() == Some(SILENCE) {
                    waiting.lock().unwrap().push((path.clone(), stream));
                    seen.lock().unwrap().push(path);
                    continue;
                }
                seen.lock().unwrap().push(path);
                let none = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
                let _ = stream.write_all(answer.unwrap_or(none).as_bytes());
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url())
    }

    /// Sets the complete response for a path, including the head.
    pub fn answer(&self, path: &str, answer: String) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// Requests for this path wait without a response.
    pub fn be_silent(&self, path: &str) {
        self.answer(path, SILENCE.to_owned());
    }

    /// Sets the document for a path, and sends it to waiting requests.
    pub fn end_silence(&self, path: &str, document: &Value) {
        self.document(path, document);
        let answer = self.answers.lock().unwrap()[path].clone();
        for (_, mut stream) in self.waiting.lock().unwrap().extract_if(.., |(of, _)| of == path) {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    }

    pub fn document(&self, path: &str, document: &Value) {
        let body = document.to_string();
        self.answer(path, format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    }

    pub fn form(&self, path: &str) -> (HashMap<String, String>, Option<String>) {
        let sent = self.sent.lock().unwrap();
        let (head, body) = sent.get(path).expect("no form came");
        let authorization = head.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned);
        (form_urlencoded::parse(body.as_bytes()).into_owned().collect(), authorization)
    }

    pub fn body(&self, path: &str) -> String {
        self.sent.lock().unwrap().get(path).expect("no body came").1.clone()
    }

    pub fn times(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| *seen == path).count()
    }
}
