//! The cost of the access log for a request (requirement P34): CPU time of the program with a line for each request in a
//! real file, with `sample = 0`, and without the log.
//!
//!     cargo bench --bench logs
//!
//! The cases alternate, and the least time of each case counts, because other load on the machine can only add time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use support::measures;
use support::program::{self, free_port, goal, rotogate};

/// The goals, in microseconds of CPU time.
const LINE_MICROS: f64 = 1.5;
const LEFT_OUT_MICROS: f64 = 0.1;
/// Requests that are sent before their replies are read.
const AT_ONCE: usize = 50;

struct Running {
    child: Child,
    connection: TcpStream,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(access_log: &str) -> Self {
        let port = free_port();
        let config = program::CONFIG
            .replace("127.0.0.1:0\"", &format!("127.0.0.1:{port}\"\nworkers = 1"))
            .replace("ADMIN", &free_port().to_string())
            .replace("path = \"/{*rest}\"", "path = \"/{*rest}\"\nauth = \"none\"");
        let folder = program::folder(|_| format!("{config}[log]\nformat = \"json\"\n[access_log]\n{access_log}\n"));
        let mut child =
            rotogate(folder.path()).arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        Self { child, connection, _folder: folder }
    }

    /// User and system CPU time so far, in seconds.
    fn cpu(&self) -> f64 {
        // The sum over all threads, in nanoseconds. The figures in `stat` have steps of 10 ms.
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten();
        let nanos = |text: String| text.split(' ').next().and_then(|number| number.parse::<f64>().ok());
        let times = tasks.filter_map(|task| nanos(fs::read_to_string(task.path().join("schedstat")).ok()?));
        times.sum::<f64>() / 1e9
    }

    /// CPU time of a request, in microseconds.
    fn micros(&mut self, requests: usize) -> f64 {
        let request =
            "GET /api/orders/4711 HTTP/1.1\r\nhost: gate.test\r\nuser-agent: bench/1.0\r\n\r\n".repeat(AT_ONCE);
        let before = self.cpu();
        let (mut bytes, rounds) = (vec![0; 1 << 16], requests / AT_ONCE);
        for _ in 0..rounds {
            self.connection.write_all(request.as_bytes()).unwrap();
            let (mut replies, mut tail) = (0, Vec::new());
            while replies < AT_ONCE {
                let length = self.connection.read(&mut bytes).unwrap();
                assert!(length > 0, "the gate closed the connection");
                tail.extend_from_slice(&bytes[..length]);
                let found = tail.windows(9).filter(|window| window == b"HTTP/1.1 ").count();
                replies += found;
                // The buffer may end with the beginning of a mark.
                let kept = tail.len().saturating_sub(8);
                tail.drain(..kept);
            }
        }
        (self.cpu() - before) * 1e6 / (rounds * AT_ONCE) as f64
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    let (rounds, requests) = if measures() { (15, 100_000) } else { (1, 1000) };
    let cases = ["enabled = false", "output = \"./access.log\"\nsample = 0", "output = \"./access.log\""];
    let mut gates = cases.map(Running::start);
    let mut least = [f64::INFINITY; 3];
    for _ in 0..rounds {
        for (gate, least) in gates.iter_mut().zip(&mut least) {
            *least = gate.micros(requests).min(*least);
        }
    }
    let [without, left_out, line] = least;
    println!("a request without the access log                           {without:>8.2} us");
    goal("P34: a line in a file", line - without, LINE_MICROS, "us");
    goal("P34: with sample = 0", left_out - without, LEFT_OUT_MICROS, "us");
    println!("with a line, times as much                                 {:>8.2} x", line / without);
}
