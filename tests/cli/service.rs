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
