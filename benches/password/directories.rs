//! Refused logins of real gates with each kind of directory (A2, I49).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use ::support::server::{self, Process};
use ::support::{CONFIG, Gate, Place, with};
use http::StatusCode;
use rotogate_core::password::{Cost, hash_with};
use tempfile::TempDir;

use crate::support::{measures, quantile};

const BASE: &str = "dc=example,dc=com";
/// Cheap enough for some hundred checks, but measurable.
const COST: Cost = Cost { memory_kib: 8 * 1024, passes: 2, lanes: 1 };
const NAMES: [&str; 3] = ["ada", "gone", "nobody"];

fn hash() -> String {
    hash_with(&"correct horse battery".to_owned().into(), COST).unwrap()
}

/// A file with `ada`, and with `gone`, who is disabled.
fn file() -> Place {
    let place = Place::new(CONFIG);
    let user = |name: &str, active: bool| {
        format!(
            "[[users]]\nsubject = \"{name}\"\nusername = \"{name}\"\nactive = {active}\npassword = \"{}\"\n",
            hash()
        )
    };
    std::fs::create_dir(place.path("data")).unwrap();
    std::fs::set_permissions(place.path("data"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let text = user("ada", true) + &user("gone", false);
    rotogate_core::private_file::write_private_atomic(&place.path("data/users.toml"), text.as_bytes()).unwrap();
    place
}

/// The same users in SQLite.
fn sql() -> Place {
    let columns = "SELECT name AS subject, hash AS password_hash, active FROM users WHERE name =";
    let keys = format!(
        "kind = \"sql\"\nurl = \"sqlite:users.db\"\nauthenticate = \"{columns} {{username}}\"\nlookup = \"{columns} {{subject}}\"\n"
    );
    let place = Place::new(&with(CONFIG, "directory", &keys));
    let users = rusqlite::Connection::open(place.path("users.db")).unwrap();
    users.execute_batch("CREATE TABLE users (name TEXT, hash TEXT, active INTEGER)").unwrap();
    for (name, active) in [("ada", 1), ("gone", 0)] {
        users.execute("INSERT INTO users VALUES (?1, ?2, ?3)", (name, hash(), active)).unwrap();
    }
    place
}

/// The same users in a slapd that hashes with argon2.
fn ldap() -> (Place, (Process, TempDir)) {
    let slapd = server::program("slapd", &["/usr/sbin".into(), "/usr/libexec".into()]);
    let folder = server::folder();
    let file = |name: &str| folder.path().join(name);
    std::fs::create_dir(file("db")).unwrap();
    server::give(&file("db"));
    let config = format!(
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
         include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
         moduleload argon2\ndatabase mdb\nsuffix \"{BASE}\"\nrootdn \"cn=admin,{BASE}\"\nrootpw secret\n\
         directory {}\ndbnosync\n",
        file("db").display()
    );
    server::write(&file("slapd.conf"), &config);
    let person = |name: &str, kind: &str| {
        format!(
            "dn: uid={name},{BASE}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\nemployeeType: {kind}\n\
             userPassword: {{ARGON2}}{}\n\n",
            hash()
        )
    };
    let head = format!("dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: example\n\n");
    std::fs::write(file("users.ldif"), head + &person("ada", "staff") + &person("gone", "disabled")).unwrap();
    let port = server::free_port();
    let url = format!("ldap://127.0.0.1:{port}");
    let mut command = server::unprivileged(&slapd);
    command.args(["-d", "0", "-h", &url, "-f"]).arg(file("slapd.conf"));
    let ready = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let process = Process::start(&mut command, ready).expect("slapd starts");
    let mut add = Command::new(server::program("ldapadd", &[]));
    add.args(["-x", "-H", &url, "-D", &format!("cn=admin,{BASE}"), "-w", "secret", "-f"]).arg(file("users.ldif"));
    server::done(&mut add);
    let keys = format!(
        "kind = \"ldap\"\nurl = \"{url}\"\ndangerous_plaintext = true\nbase = \"{BASE}\"\nfilter = \"(uid={{username}})\"\n\
         active = \"(!(employeeType=disabled))\"\n"
    );
    (Place::new(&with(CONFIG, "directory", &keys)), (process, folder))
}

/// A hook that takes 10 ms for a user, and no time for an unknown name.
fn hook() -> Place {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                length = line.strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().unwrap());
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            if !String::from_utf8_lossy(&body).contains("nobody") {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"active\":false}");
        }
    });
    let keys = format!("kind = \"http\"\nurl = \"http://127.0.0.1:{port}/hook\"\n");
    Place::new(&with(CONFIG, "directory", &keys))
}

/// The median of each name, in milliseconds.
fn medians(runtime: &tokio::runtime::Runtime, gate: &Gate) -> [f64; 3] {
    let mut times = [const { Vec::new() }; 3];
    for round in 0..if measures() { 101 } else { 1 } {
        // The cases alternate, in the reverse order in the next round, so that other load slows all cases.
        for index in if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] } {
            let begun = Instant::now();
            let answer = runtime.block_on(gate.log_in(NAMES[index], "wrong password"));
            times[index].push(begun.elapsed().as_secs_f64() * 1e3);
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        }
    }
    times.map(|times| quantile(&times, 0.5))
}

/// A row for each kind of directory. Returns whether all goals are met.
pub(crate) fn measure(runtime: &tokio::runtime::Runtime) -> bool {
    println!("\nA2, I49: a refused login with each kind of directory, to be alike within 10 %");
    println!("{:<12} {:>12} {:>12} {:>12} {:>9}", "directory", "known ms", "disabled ms", "unknown ms", "spread");
    let (ldap, _slapd) = ldap();
    let mut are_all_met = true;
    for (kind, place) in [("file", file()), ("SQL", sql()), ("LDAP", ldap), ("HTTP", hook())] {
        let gate = place.start();
        let [known, disabled, unknown] = medians(runtime, &gate);
        let (least, most) = (known.min(disabled).min(unknown), known.max(disabled).max(unknown));
        let spread = most / least - 1.0;
        // A single round is only a test of the bench.
        let is_met = spread <= 0.1 || !measures();
        are_all_met &= is_met;
        let met = if is_met { "met" } else { "NOT MET" };
        println!("{kind:<12} {known:>12.2} {disabled:>12.2} {unknown:>12.2} {:>8.1}% {met}", spread * 100.0);
    }
    are_all_met
}
