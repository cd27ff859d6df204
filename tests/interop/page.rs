//! The admin page in Chromium, driven by playwright-core, with axe-core (requirements P56, P72): by the mouse, by the keyboard
//! alone, without script, in light and in dark, on small and wide screens. `WRITE_DOCS=1` writes the images of docs/images.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::StatusCode;
use serde_json::json;
use support::{CONFIG, Place, keep_secret, until};

/// Markup as the name of a user, and as the id of a route.
const USER: &str = "<img src=x onerror=alert(1)>";
/// The name of a user in the images.
const READER: &str = "Ada Lovelace";
const ROUTE: &str = "[[routes]]\nid = \"<img src=x>\"\npath = \"/public/{*rest}\"";
/// An upstream address without a server.
const DEAD: &str = "[[upstreams]]\nname = \"orders\"\nurls = [\"http://ADDRESS\"]\n\
                    [[routes]]\npath = \"/orders/{*rest}\"\nauth = \"none\"\nupstream = \"orders\"\n";

/// The folder of playwright-core and axe-core.
pub(super) fn installed() -> PathBuf {
    support::clients::installed_with("interop/page", &["page.mjs"])
}

/// The path of Chromium.
pub(super) fn chromium() -> String {
    let found = Command::new("sh").args(["-c", "command -v chromium || command -v chromium-browser"]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    assert!(!path.is_empty(), "chromium is missing. Is it installed? (apt install chromium)");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p56_p70_p72_the_page_does_its_job_in_chromium_for_everybody() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = CONFIG.replace("[[routes]]\npath = \"/public/{*rest}\"", ROUTE);
    let config = config + &DEAD.replace("ADDRESS", &address.to_string());
    let config = support::with(&config, "api_keys", "prefix = \"acme\"\n");
    assert!(config.contains(ROUTE));
    let place = Place::new(&config);
    let gate = place.start();
    let password = "the password of a user with a name";
    keep_secret(password);
    let _ = place.done(&["user", "add", USER], password);
    let _ = place.done(&["user", "add", READER], password);
    until("the user can log in", async || gate.log_in(READER, password).await.status == StatusCode::OK).await;
    let token = fs::read_to_string(place.path("data/admin.token")).unwrap().trim().to_owned();
    let images = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/images"));
    let scene = json!({
        "page": format!("http://{}", gate.admin),
        "gate": format!("http://{}", gate.address),
        "token": token,
        "username": USER,
        "reader": READER,
        "password": password,
        "chromium": chromium(),
        "images": std::env::var_os("WRITE_DOCS").map(|_| images),
    });
    let cache = installed();
    let mut command = Command::new("node");
    let _ = command.arg(cache.join("page.mjs")).env("MODULES", &cache).current_dir(&cache);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("node is missing: install Node.js 20 or later to drive Chromium");
    child.stdin.take().unwrap().write_all(scene.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("done"), "{said}");
    assert!(!gate.log().contains(&token), "the token is in the log");
}
