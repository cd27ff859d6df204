//! The gate as a service: its notifications to the service manager, and the files that the package installs.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{CONFIG, Place};

#[test]
fn the_manager_is_told_when_the_gate_listens_and_when_it_stops() {
    let place = Place::new(CONFIG);
    let path = place.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let gate = place.start_with(|command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(hear().trim_end(), "READY=1");
    assert_eq!(gate.stop(), Some(0));
    assert_eq!(hear().trim_end(), "STOPPING=1");
}

#[test]
fn p60_the_watchdog_of_the_manager_hears_of_a_gate_that_serves() {
    let place = Place::new(CONFIG);
    let path = place.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let gate = place.start_with(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    });
    let mut reports = 0;
    while reports < 3 {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        reports += usize::from(message[..length].trim_ascii_end() == b"WATCHDOG=1");
    }
    assert_eq!(gate.stop(), Some(0));
}

/// The health check of the container image.
#[test]
fn status_is_0_while_the_gate_is_ready_and_1_otherwise() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let admin = gate.admin.to_string();
    let status = |arguments: &[&str]| {
        let mut command = Command::new(support::binary());
        command.current_dir(place.path("")).env("ROTOGATE_ADMIN__LISTEN", &admin).args(arguments);
        let ran = command.output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap())
    };
    assert_eq!(status(&["status"]), (Some(0), "ready\n".to_owned(), String::new()));
    assert_eq!(
        status(&["status", "--json"]).1,
        "{\"ready\":true,\"state\":\"ready\",\"problems\":[],\"detail\":\"ready\"}\n"
    );
    assert_eq!(gate.stop(), Some(0));
    let (code, out, error) = status(&["status"]);
    assert!(code == Some(1) && out.is_empty() && error.contains("no gate responds on"), "{code:?} {out} {error}");
}

#[test]
fn a_manager_that_is_gone_stops_nothing() {
    let place = Place::new(CONFIG);
    let gate = place.start_with(|command| {
        command.env("NOTIFY_SOCKET", "/nowhere/at/all");
    });
    assert_eq!(gate.stop(), Some(0));
}

#[test]
fn the_packaged_configuration_is_a_good_one_and_writes_to_the_folder_of_the_service_alone() {
    let packaging = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("packaging");
    let config = packaging.join("gateway.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    for file in ["admin.token", "keys", "rotogate.redb", "users.toml"] {
        assert!(text.contains(&format!("= \"/var/lib/rotogate/{file}\"")), "{file}");
    }
    let unit = std::fs::read_to_string(packaging.join("rotogate.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/rotogate ")).unwrap();
    let arguments = start.replace("/etc/rotogate/gateway.toml", config.to_str().unwrap());
    let arguments: Vec<_> = arguments.split(' ').map(|word| if word == "serve" { "check" } else { word }).collect();
    let checked = Command::new(support::binary()).args(arguments).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
