//! A gate with a TLS listener, and programs that speak to it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use support::pki::Pki;
use support::{CONFIG, Gate, Place};

/// Of the gate; no other name is in its certificate.
pub(crate) const HOSTS: [&str; 3] = ["gate.test", "rpc-clear.test", "rpc-tls.test"];

pub(crate) struct Scene {
    pub(crate) gate: Gate,
    pub(crate) place: Place,
}

impl Scene {
    /// A gate with these upstreams and routes. `ca.pem` in its folder is the authority of all certificates.
    pub(crate) fn new(pki: &Pki, more: &str) -> Self {
        let listener =
            "[[server.listeners]]\naddress = \"127.0.0.1:0\"\ntls = { cert = \"server.pem\", key = \"server.key\" }\n";
        let config = CONFIG.replace("http://gate.test", "https://gate.test");
        let place = Place::new(&format!("{config}{listener}{more}"));
        pki.issue(&HOSTS).write(&place, "server");
        fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
        Self { gate: place.start(), place }
    }

    /// The address of the gate's TLS listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.gate.addresses[1]
    }
}

/// A program that must be there; asks no proxy for what is on this machine.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

/// Panics with the package of a program that could not be started.
pub(crate) fn missing(name: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("{name} could not be started: {error}. Is it installed? (apt install {package})")
}
