//! A server of documents, such as an issuer's metadata and keys.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// It says what the test puts at a path, and 404 otherwise.
pub struct Documents {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, String>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Documents {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, answers: Arc::default(), seen: Arc::default() };
        let (answers, seen) = (Arc::clone(&server.answers), Arc::clone(&server.seen));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let answer = answers.lock().unwrap().get(&path).cloned();
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

    /// A whole answer, head included.
    pub fn answer(&self, path: &str, answer: String) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub fn document(&self, path: &str, document: &Value) {
        let body = document.to_string();
        self.answer(path, format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    }

    /// How often a path was asked for.
    pub fn times(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| *seen == path).count()
    }
}
