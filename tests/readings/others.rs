//! Real servers in other languages, each in its own process.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::Readings;

/// Starts a program, or panics with the name of a missing one.
fn start(command: &mut Command, package: &str) -> Child {
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; is it there? (apt install {package})"))
}

/// Python's servers.
pub(crate) fn python(targets: &[Vec<u8>]) -> Vec<Readings> {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/readings/server.py");
    by_lines(Command::new("python3").arg(script), "python3", targets)
}

/// Go's server.
pub(crate) fn go(targets: &[Vec<u8>]) -> Vec<Readings> {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/readings/go/main.go");
    let cache = support::target_folder("tmp/go");
    let mut command = Command::new("go");
    command.arg("run").arg(source).env("GOCACHE", &cache).env("GO111MODULE", "off").env("GOTOOLCHAIN", "local");
    by_lines(&mut command, "golang-go", targets)
}

/// Sends all targets, one on each line, and reads one line for each.
fn by_lines(command: &mut Command, package: &str, targets: &[Vec<u8>]) -> Vec<Readings> {
    let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()), package);
    let mut input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let readings: Vec<Readings> = std::thread::scope(|scope| {
        scope.spawn(move || {
            for target in targets {
                let hex: String = target.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(input, "{hex}").unwrap();
            }
        });
        output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(readings.len(), targets.len());
    readings
}

/// nginx, with and without merging of slashes.
pub(crate) struct Nginx {
    child: Child,
    folder: TempDir,
}

impl Nginx {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = include_str!("nginx.conf").replace("@folder@", folder.path().to_str().unwrap());
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        // Debian has it where only root looks.
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).args(["-c", "nginx.conf", "-e", "error.log", "-p"]).arg(folder.path());
        Self { child: start(&mut command, "nginx-light"), folder }
    }

    /// The server listens a moment after its start.
    fn connect(&self, socket: &str) -> UnixStream {
        for _ in 0..600 {
            if let Ok(stream) = UnixStream::connect(self.folder.path().join(socket)) {
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                return stream;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("nginx did not start");
    }

    pub(crate) fn read(&self, targets: &[Vec<u8>]) -> Vec<Readings> {
        let merged = self.read_by("merged.sock", targets);
        let unmerged = self.read_by("unmerged.sock", targets);
        merged.into_iter().zip(unmerged).map(|(merged, unmerged)| [merged, unmerged].concat()).collect()
    }

    fn read_by(&self, socket: &str, targets: &[Vec<u8>]) -> Vec<Readings> {
        let mut kept: Option<BufReader<UnixStream>> = None;
        let mut ask = |target: &[u8]| {
            let mut stream = kept.take().unwrap_or_else(|| BufReader::new(self.connect(socket)));
            stream.get_mut().write_all(&[b"GET ", target, b" HTTP/1.1\r\nHost: gate.test\r\n\r\n"].concat()).unwrap();
            let (status, length, closes) = head(&mut stream);
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            kept = Some(stream).filter(|_| !closes);
            let uri = String::from_utf8_lossy(&body).into_owned();
            match status {
                200 => vec![uri],
                201 => vec![uri, "/private/".to_owned()],
                _ => vec![],
            }
        };
        targets.iter().map(|target| ask(target)).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status, length of the body, and whether the connection ends with it.
fn head(stream: &mut BufReader<UnixStream>) -> (u16, usize, bool) {
    let (mut status, mut length, mut closes) = (0, 0, false);
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "nginx closed the connection");
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once([':', ' ']) {
            None => return (status, length, closes),
            Some(("http/1.1", rest)) => status = rest[..3].parse().unwrap(),
            Some(("content-length", value)) => length = value.trim().parse().unwrap(),
            Some(("connection", value)) => closes = value.trim() == "close",
            Some(_) => {}
        }
    }
}
