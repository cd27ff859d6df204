//! wrk and h2load, and their output.

use std::fmt;
use std::process::Stdio;

use tokio::process::Command;

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) served: u64,
    pub(crate) refused: u64,
    seconds: u64,
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        self.served as f64 / self.seconds as f64
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = self.refused as f64 / self.seconds as f64;
        write!(f, "{:.0} served and {refused:.0} refused a second", self.per_second())
    }
}

/// Sequential requests on each of this many HTTP/1.1 connections.
pub(crate) async fn wrk(url: &str, token: &str, connections: usize, seconds: u64) -> Load {
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--timeout", "30s"]);
    let said = run(command.args(["-H", &format!("Authorization: Bearer {token}"), url]), "wrk").await;
    let all = number_before(&said, " requests in ");
    let refused = said.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    let refused = refused.map_or(0, |count| count.trim().parse().unwrap());
    Load { served: all - refused, refused, seconds }
}

/// This many HTTP/2 connections with this rate of requests in total, as far as their hundred streams permit.
pub(crate) async fn h2load(url: &str, token: &str, connections: usize, per_second: f64, seconds: u64) -> Load {
    let each = (per_second / connections as f64).ceil();
    let mut command = Command::new("h2load");
    command.args(["-t1", "-m100", &format!("-c{connections}"), &format!("-D{seconds}"), &format!("--rps={each}")]);
    let said = run(command.args(["-H", &format!("Authorization: Bearer {token}"), url]), "nghttp2-client").await;
    Load { served: number_before(&said, " 2xx,"), refused: number_before(&said, " 5xx"), seconds }
}

/// This many requests over this many connections, with this many in flight on each: over HTTP/2, or over HTTP/1.1 if it
/// is one.
pub(crate) async fn requests(url: &str, token: &str, number: usize, connections: usize, streams: usize) -> Load {
    let mut command = Command::new("h2load");
    command.args(["-t1", &format!("-n{number}"), &format!("-c{connections}"), &format!("-m{streams}")]);
    if streams == 1 {
        command.arg("--h1");
    }
    let said = run(command.args(["-H", &format!("Authorization: Bearer {token}"), url]), "nghttp2-client").await;
    let served = number_before(&said, " 2xx,");
    Load { served, refused: number as u64 - served, seconds: 1 }
}

async fn run(command: &mut Command, package: &str) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.unwrap_or_else(|error| panic!("{error}: apt install {package}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{package}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The number before a text.
fn number_before(said: &str, text: &str) -> u64 {
    let (before, _) = said.split_once(text).unwrap_or_else(|| panic!("no {text:?} in {said}"));
    before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}
