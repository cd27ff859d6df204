//! A PostgreSQL server that a test starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::pki::Pki;
use crate::server::{Process, done, folder, free_port, program, unprivileged, write};

pub const ADMIN_PASSWORD: &str = "postgres-admin-password";

pub struct Postgres {
    process: Option<Process>,
    pub port: u16,
    folder: TempDir,
    pub bin: PathBuf,
    settings: Vec<String>,
}

impl Postgres {
    /// Starts a server with additional settings. By default, the server does not wait for the disk.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_in(folder(), settings.iter().map(|setting| (*setting).to_owned()).collect())
    }

    pub fn start_with_tls(pki: &Pki) -> Self {
        let folder = folder();
        let pair = pki.issue(&["localhost"]);
        for (name, text) in [("cert.pem", &pair.cert), ("key.pem", &pair.key), ("ca.pem", &pki.root_pem())] {
            write(&folder.path().join(name), text);
        }
        let file = |option: &str, name: &str| format!("{option}={}", folder.path().join(name).display());
        let settings = vec![
            "ssl=on".to_owned(),
            file("ssl_cert_file", "cert.pem"),
            file("ssl_key_file", "key.pem"),
            file("ssl_ca_file", "ca.pem"),
        ];
        Self::start_in(folder, settings)
    }

    fn start_in(folder: TempDir, settings: Vec<String>) -> Self {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .map(|version| version.unwrap().path().join("bin"))
            .collect();
        versions.sort();
        let bin = program("initdb", &versions).canonicalize().unwrap().parent().unwrap().to_owned();
        let secret = folder.path().join("password");
        write(&secret, ADMIN_PASSWORD);
        done(
            unprivileged(&bin.join("initdb"))
                .args(["--username=postgres", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"])
                .arg(format!("--pwfile={}", secret.display()))
                .arg(format!("--pgdata={}", folder.path().join("data").display())),
        );
        let mut server = Self { process: None, port: 0, folder, bin, settings };
        server.start_elsewhere();
        server
    }

    fn serve(&self) -> Option<Process> {
        let mut command = unprivileged(&self.bin.join("postgres"));
        command.arg("-D").arg(self.data());
        command.args(["-c", "listen_addresses=localhost", "-c", &format!("port={}", self.port)]);
        let defaults =
            ["fsync=off".to_owned(), "unix_socket_directories=".to_owned(), "max_connections=300".to_owned()];
        for setting in defaults.iter().chain(&self.settings) {
            command.args(["-c", setting]);
        }
        Process::start(&mut command, || {
            let mut asked = Command::new(self.bin.join("pg_isready"));
            asked.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).status().unwrap().success()
        })
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder for further files of the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn psql(&self, statement: &str) -> Command {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        let mut command = Command::new(self.bin.join("psql"));
        command.env("PGPASSWORD", ADMIN_PASSWORD).args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", statement]);
        command
    }

    /// Runs a statement as an operator does.
    pub fn sql(&self, statement: &str) -> String {
        done(&mut self.psql(statement)).trim().to_owned()
    }

    pub fn kill(&mut self) {
        // The first process ends all others.
        let process = self.process.take().unwrap();
        process.signal("QUIT");
        process.wait();
    }

    /// Starts the server again, with the same port and folder.
    pub fn start_again(&mut self) {
        self.process = self.serve();
        assert!(self.process.is_some(), "PostgreSQL does not start again");
    }

    pub fn copy(&mut self) -> PathBuf {
        let copy = self.folder.path().join("copy");
        self.kill();
        done(unprivileged(Path::new("cp")).arg("-a").args([&self.data(), &copy]));
        self.start_again();
        copy
    }

    /// Simulates a crash. The server continues with an older copy of its data, like a promoted standby that lagged
    /// behind.
    pub fn fail_over_to(&mut self, copy: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        std::fs::rename(copy, self.data()).unwrap();
        done(unprivileged(Path::new("touch")).arg(self.data().join("standby.signal")));
        self.start_again();
        self.promote();
    }

    pub fn promote(&self) {
        done(unprivileged(&self.bin.join("pg_ctl")).arg("promote").arg("-D").arg(self.data()));
    }

    pub fn standby(&self) -> Self {
        let (bin, settings) = (self.bin.clone(), self.settings.clone());
        let mut standby = Self { process: None, port: 0, folder: folder(), bin, settings };
        standby.copy_of(self);
        standby.start_elsewhere();
        standby
    }

    /// Restarts a killed server as a standby with `primary`'s data.
    pub fn follow(&mut self, primary: &Self) {
        std::fs::remove_dir_all(self.data()).unwrap();
        self.copy_of(primary);
        self.start_again();
    }

    fn copy_of(&self, primary: &Self) {
        let mut command = unprivileged(&self.bin.join("pg_basebackup"));
        command.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-h", "127.0.0.1", "-U", "postgres"]);
        command.args(["-p", &primary.port.to_string(), "-D"]).arg(self.data());
        done(command.env("PGPASSWORD", ADMIN_PASSWORD));
    }

    /// Makes commits wait until a standby has them on disk.
    pub fn waits_for_a_standby(&self) {
        self.sql("alter system set synchronous_standby_names = '*'");
        self.sql("select pg_reload_conf()");
    }

    /// Kills a server process of the user `gate`. The server then ends all other processes and recovers.
    pub fn kill_a_backend(&self) {
        self.until_it_answers();
        let pid = self.sql("select pid from pg_stat_activity where usename = 'gate' order by random() limit 1");
        if !pid.is_empty() {
            done(Command::new("kill").args(["-s", "KILL", &pid]));
        }
    }

    fn until_it_answers(&self) {
        for _ in 0..600 {
            if self.psql("select 1").output().unwrap().status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("PostgreSQL does not recover");
    }

    pub fn start_elsewhere(&mut self) {
        for _ in 0..5 {
            self.port = free_port();
            self.process = self.serve();
            if self.process.is_some() {
                return;
            }
        }
        panic!("PostgreSQL does not start");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // After SIGKILL, the server's other processes would continue for a moment.
        if self.process.is_some() {
            self.kill();
        }
    }
}
