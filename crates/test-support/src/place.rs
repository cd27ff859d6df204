//! A gate's folder, with its files and the commands that run in it.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Gate, binary, keep_secret, output_file};

/// Copies a folder with its permissions.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            let _ = fs::copy(&from, &to).unwrap();
        }
    }
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}

/// Returns the file name of a signing key. The id may begin with a hyphen, but the file name must not.
pub fn key_file(kid: &str) -> String {
    if kid.starts_with('-') { format!("key{kid}.pem") } else { format!("{kid}.pem") }
}

/// A folder with a `gateway.toml`.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new(config: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write_config(config);
        place
    }

    /// Sets the address of this gate's admin listener in the configuration, so that commands find it.
    pub fn point_commands_at(&self, gate: &Gate) {
        let config = fs::read_to_string(self.path("gateway.toml")).unwrap();
        let anywhere = "[admin]\nlisten = \"127.0.0.1:0\"";
        assert!(config.contains(anywhere), "the configuration has another admin listener");
        self.write_config(&config.replace(anywhere, &format!("[admin]\nlisten = \"{}\"", gate.admin)));
    }

    pub fn write_config(&self, config: &str) {
        fs::write(self.path("gateway.toml"), config).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Copies what another gate of the same store needs: keys, users, and so on.
    pub fn copy_data_from(&self, first: &Self) {
        copy_folder(&first.path("data"), &self.path("data"));
        let _ = fs::copy(first.path("password"), self.path("password")).unwrap();
    }

    /// Copies the keys, and then `keyring.toml`.
    pub fn copy_keys_from(&self, first: &Self) {
        let keys = |place: &Self| place.path("data/keys");
        for entry in fs::read_dir(keys(first)).unwrap().map(Result::unwrap) {
            let name = entry.file_name();
            if name != "keyring.toml" && !name.as_encoded_bytes().starts_with(b".") {
                let _ = fs::copy(entry.path(), keys(self).join(name)).unwrap();
            }
        }
        let _ = fs::copy(keys(first).join("keyring.toml"), keys(self).join("keyring.toml")).unwrap();
    }

    /// Copies the binary into this folder, for a user who may not read other folders.
    pub fn copy_of_binary(&self) -> PathBuf {
        let copy = self.path("rotogate-copy");
        // A separate process writes the copy. Otherwise, a child of another test could inherit the open file. A file
        // that is open for writing cannot be executed.
        assert!(Command::new("cp").args([&binary(), &copy]).status().unwrap().success());
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        copy
    }

    pub fn command(&self) -> Command {
        self.command_of(&binary())
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("--config").arg(self.path("gateway.toml")).current_dir(self.folder.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROTOGATE_")) {
            command.env_remove(name);
        }
        command
    }

    pub fn start(&self) -> Gate {
        self.start_with(|_| {})
    }

    /// Starts a gate. `change` may modify the command.
    pub fn start_with(&self, change: impl FnOnce(&mut Command)) -> Gate {
        self.start_command(self.command(), change)
    }

    pub fn start_program(&self, program: &Path) -> Gate {
        self.start_command(self.command_of(program), |_| {})
    }

    fn start_command(&self, mut command: Command, change: impl FnOnce(&mut Command)) -> Gate {
        let (log, path) = output_file("gate");
        command.arg("--json").env("ROTOGATE_LOG", "debug").stdout(Stdio::piped()).stderr(log);
        change(&mut command);
        self.launch(command, path)
    }

    /// Starts a gate from a shell (see [`in_shell`]).
    pub fn start_in_shell(&self, script: &str) -> Gate {
        let mut command = self.command();
        let (log, path) = output_file("gate");
        command.arg("--json").env("ROTOGATE_LOG", "debug");
        in_shell(script)(&mut command);
        command.stdout(Stdio::piped()).stderr(log);
        self.launch(command, path)
    }

    /// Starts a gate with these listening sockets, as systemd does.
    pub fn start_with_sockets(&self, sockets: Vec<OwnedFd>) -> Gate {
        let mut command = self.command();
        let (log, path) = output_file("gate");
        command.arg("--json").env("ROTOGATE_LOG", "debug");
        in_shell(&format!("LISTEN_PID=$$ LISTEN_FDS={} exec \"$@\"", sockets.len()))(&mut command);
        command.stdout(Stdio::piped()).stderr(log);
        let mapped = sockets.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mapped.collect()).unwrap();
        self.launch(command, path)
    }

    fn launch(&self, mut command: Command, path: PathBuf) -> Gate {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the gate did not start: {}", fs::read_to_string(&path).unwrap_or_default());
        let greeting: Value = serde_json::from_str(&line).unwrap();
        assert!(greeting.get("error").is_none(), "the gate did not start: {line}");
        let address = |value: &Value| value.as_str().unwrap().parse().unwrap();
        let first = greeting.get("first_user");
        if let Some(first) = first {
            // This password applies only to later starts in this folder.
            let password = first["password"].as_str().unwrap();
            keep_secret(password);
            fs::write(self.path("password"), password).unwrap();
        }
        self.keep_secrets();
        let password = fs::read_to_string(self.path("password")).unwrap_or_default();
        Gate {
            child,
            address: address(&greeting["listening"][0]),
            addresses: greeting["listening"].as_array().unwrap().iter().map(address).collect(),
            admin: address(&greeting["admin"]),
            password,
            log: path,
        }
    }

    /// Adds a user whose password is too short for `rotogate user add`. Call this before the first start.
    pub fn user_of_a_document(&self, username: &str, subject: &str, password: &str) {
        let made = self.run(&["--json", "client", "secret", "--stdin"], &format!("{password}\n"));
        let made: Value = serde_json::from_str(&made.stdout).unwrap();
        let (hash, path) = (made["secret_hash"].as_str().unwrap(), self.path("data/users.toml"));
        fs::create_dir_all(self.path("data")).unwrap();
        let user = format!(
            "[[users]]\nsubject = \"{subject}\"\nusername = \"{username}\"\npassword = \"{hash}\"\nactive = true\n"
        );
        fs::write(&path, user).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn keep_secrets(&self) {
        let keys = fs::read_dir(self.path("data/keys")).into_iter().flatten().map(|entry| entry.unwrap().path());
        let keys = keys.filter(|path| path.extension().is_some_and(|kind| kind == "pem" || kind == "secret"));
        for path in keys.chain([self.path("data/admin.token")]) {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().filter(|line| !line.starts_with("-----")).for_each(keep_secret);
        }
    }

    /// Starts a gate that must fail, and returns its output. The exit code is 2 for an invalid configuration or file,
    /// otherwise 1.
    pub fn refused(&self) -> String {
        self.refused_with(|_| {})
    }

    /// Like [`Self::refused`]. `change` may modify the command.
    pub fn refused_with(&self, change: impl FnOnce(&mut Command)) -> String {
        let mut command = self.command();
        change(&mut command);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        for _ in 0..600 {
            if child.try_wait().unwrap().is_some() {
                let output = child.wait_with_output().unwrap();
                let said = String::from_utf8(output.stderr).unwrap();
                self.keep_secrets();
                output_file("refused").0.write_all(said.as_bytes()).unwrap();
                assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {said}", output.status);
                return said;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("the gate started");
    }

    pub fn run(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that rejects its arguments does not read its input.
        if let Err(error) = child.stdin.take().unwrap().write_all(input.as_bytes()) {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        }
        let output = child.wait_with_output().unwrap();
        let ran = Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        self.keep_secrets();
        let (mut output, _) = output_file("command");
        output.write_all(ran.stderr.as_bytes()).unwrap();
        // These commands print a token or secret intentionally.
        if !["mint", "secret", "api-key"].iter().any(|word| arguments.contains(word)) {
            output.write_all(ran.stdout.as_bytes()).unwrap();
        }
        ran
    }

    pub fn done(&self, arguments: &[&str], input: &str) -> Ran {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran
    }

    pub fn json(&self, arguments: &[&str], input: &str) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.done(&arguments, input).stdout).unwrap()
    }

    pub fn json_lines(&self, arguments: &[&str]) -> Vec<Value> {
        let said = self.done(&[arguments, &["--json"]].concat(), "").stdout;
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a command that must fail with exit code 1. Returns its output.
    pub fn fails(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stdout, "", "errors go to standard error");
        ran.stderr
    }
}

/// Wraps a command in a shell script, in which `"$@"` is the command.
pub fn in_shell(script: &str) -> impl FnOnce(&mut Command) {
    move |command| {
        let mut shell = Command::new("bash");
        shell.args(["-c", script, "bash"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        *command = shell;
    }
}

pub const NOBODY: u32 = 4242;

/// Makes a command for a user who can read the configuration but no secrets. The second value is false if the test
/// does not run as root. In that case, no user can read the secrets.
pub fn of_another_user(place: &Place) -> (Command, bool) {
    let is_root = rustix::process::geteuid().is_root();
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
        command.arg(place.copy_of_binary());
        command
    } else {
        fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o000)).unwrap();
        Command::new(binary())
    };
    command.arg("--config").arg(place.path("gateway.toml")).current_dir(place.path(""));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROTOGATE_")) {
        command.env_remove(name);
    }
    (command, is_root)
}

#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}
