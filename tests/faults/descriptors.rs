//! No file descriptor left.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::StatusCode;

use super::{Acknowledged, config, readyz};
use support::{Gate, Place, until};

const DESCRIPTORS: usize = 64;

/// A connection that is kept open.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(gate: &Gate) -> Self {
        let stream = TcpStream::connect(gate.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a refresh over the connection, and returns the JSON of the reply.
    fn refresh(&mut self, token: &str) -> serde_json::Value {
        let body = format!("grant_type=refresh_token&client_id=web&refresh_token={token}");
        let head = format!(
            "POST /connect/token HTTP/1.1\r\nHost: gate.test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            assert!(!line.is_empty(), "the connection ended");
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_without_file_descriptors_nobody_new_gets_in_and_everybody_inside_goes_on() {
    // Idle connections stay for as long as the test needs them.
    let place = Place::new(&support::with(&config(), "server", "head_timeout = \"120s\""));
    let gate = place.start_in_shell(&format!("ulimit -n {DESCRIPTORS}; exec \"$@\""));
    let tokens = gate.login().await;
    let mut inside = Kept::open(&gate);
    let answer = inside.refresh(&tokens.refresh);

    // The system accepts the connections; the gate has no descriptor for the last ones.
    let idle: Vec<_> = (0..2 * DESCRIPTORS).map(|_| TcpStream::connect(gate.address).unwrap()).collect();
    until("the log says so", async || gate.log().contains("connection not accepted")).await;
    let refresh = answer["refresh_token"].as_str().expect("tokens").to_owned();
    let answer = inside.refresh(&refresh);
    let access = answer["access_token"].as_str().expect("a refresh is served without a new descriptor").to_owned();
    let refresh = answer["refresh_token"].as_str().unwrap().to_owned();

    drop(idle);
    until("others get in again", async || gate.get("/x", &access).await.status == StatusCode::OK).await;
    assert_eq!(readyz(&gate).await.status, StatusCode::OK);
    let mut kept = Acknowledged { live: vec![gate.login().await], over: Vec::new() };
    kept.live.push(super::Tokens { access, refresh });
    kept.over.push(gate.login().await);
    assert_eq!(gate.revoke(&kept.over[0].refresh).await.status, StatusCode::OK);
    assert_eq!(gate.stop(), Some(0));
    kept.holds(&place.start()).await;
}
