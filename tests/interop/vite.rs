//! A page of a Vite project: built, and served by Vite, which hands requests for the API and the login to the gate. Chromium
//! logs in there, fetches, opens a WebSocket and logs out. `tests/interop/vite/install.sh` installs Vite and playwright-core.

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use support::server::free_port;
use support::{CONFIG, Place, until};

use super::page::chromium;
use crate::upstreams::server::Server;

/// The project, with its packages.
fn installed() -> PathBuf {
    support::clients::installed("interop/vite")
}

fn vite(project: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg("node_modules/vite/bin/vite.js").args(arguments).current_dir(project);
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b20_b36_a_page_of_a_vite_project_logs_in_through_its_development_server() {
    let project = installed();
    let built = vite(&project, &["build", "--logLevel", "warn"]).output().expect("node is missing: install Node.js 20");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let page = std::fs::read_to_string(project.join("dist/index.html")).unwrap();
    assert!(page.contains("/assets/index-"), "{page}");

    let upstream = Server::plain().await;
    let port = free_port();
    let url = format!("http://localhost:{port}");
    let more = format!(
        "[[endpoints]]\ndialect = \"browser\"\npath = \"/auth\"\n[[upstreams]]\nname = \"api\"\nurls = [\"http://{}\"]\n\
         [[routes]]\npath = \"/app/{{*rest}}\"\ncredentials = [\"session\"]\nupgrade = true\nlogin = \"never\"\n\
         upstream = \"api\"\n",
        upstream.address
    );
    let place = Place::new(&format!("{}{more}", CONFIG.replace("http://gate.test", &url)));
    let gate = place.start();
    let mut server = vite(&project, &["--port", &port.to_string(), "--strictPort", "--host", "127.0.0.1"]);
    server.env("GATE", format!("http://{}", gate.address)).stdin(Stdio::null()).stdout(Stdio::null());
    let _server = Running(server.spawn().unwrap());
    until("Vite listens", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;

    let scene = json!({ "url": url, "chromium": chromium(), "username": "demo", "password": gate.password });
    let mut driver = Command::new("node");
    driver.arg("drive.mjs").current_dir(&project);
    let child = driver.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("node is missing: install Node.js 20 or later");
    child.stdin.take().unwrap().write_all(scene.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("done"), "{said}");
}
