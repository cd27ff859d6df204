//! Both outputs of the program during a start, a reload, an upgrade and a stop.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use http::{Request, StatusCode};
use serde_json::Value;
use support::server::free_port;
use support::{CONFIG, Place, until};

/// A gate whose outputs are files of its place: standard output has the first user's password.
struct Running<'a> {
    place: &'a Place,
    child: Child,
    address: SocketAddr,
}

impl<'a> Running<'a> {
    fn start(place: &'a Place, address: SocketAddr) -> Self {
        let file = |name| File::create(place.path(name)).unwrap();
        let mut command = place.command();
        command.env("ROTOGATE_LOG", "debug").stdout(file("stdout")).stderr(file("stderr"));
        Self { place, child: command.spawn().unwrap(), address }
    }

    fn lines(&self, output: &str) -> Vec<String> {
        let text = fs::read_to_string(self.place.path(output)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn said(&self, text: &str, times: usize) {
        until(text, async || self.lines("stderr").iter().filter(|line| line.contains(text)).count() >= times).await;
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }

    async fn serves(&self, path: &str, status: StatusCode) {
        until(path, async || {
            let asked = Request::get(format!("http://{}{path}", self.address)).body(Default::default()).unwrap();
            support::try_send(asked).await.is_ok_and(|answer| answer.status == status)
        })
        .await;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does this text look like a value in Rust's `Debug` form? Searches for characters that no message of the gate has.
fn is_debug(text: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let opens = |end| text.split_once(end).is_some_and(|(name, _)| is_name(name));
    text.starts_with(['"', '[', '{'])
        || text == "None"
        || text == "()"
        || (text.ends_with(')') && opens("("))
        || (text.ends_with('}') && opens(" {"))
}

#[test]
fn p29_the_search_for_debug_text_finds_it() {
    for text in ["Some(1)", "None", "\"x\"", "[1, 2]", "Closed { by: 1 }", "{}", "()"] {
        assert!(is_debug(text), "{text}");
    }
    for text in ["127.0.0.1:80", "Firefox (X11)", "passed", "/x", "None of them", "2026-01-31T00:00:00Z"] {
        assert!(!is_debug(text), "{text}");
    }
}

#[tokio::test]
async fn p16_a_terminal_shows_the_admin_page_whom_to_log_in_as_and_a_short_line_for_each_request() {
    let [address, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let config = CONFIG.replacen("127.0.0.1:0", &address.to_string(), 1).replacen("127.0.0.1:0", &admin.to_string(), 1);
    let place = Place::new(&config);
    let on_terminal = |output: &str| {
        // The time limit ends the gate even if the test fails.
        let gate = format!("echo $$ >pid; exec timeout --foreground 100 {}", support::binary().display());
        let mut command = Command::new("script");
        command.args(["-qefc", &gate, output]).current_dir(place.path("")).stdin(Stdio::null()).stdout(Stdio::null());
        Running { place: &place, child: command.spawn().unwrap(), address }
    };
    let ended = |mut gate: Running<'_>, output: &str| {
        assert!(
            Command::new("sh").args(["-c", "kill $(cat pid)"]).current_dir(place.path("")).status().unwrap().success()
        );
        gate.child.wait().unwrap();
        gate.lines(output).join("\n")
    };
    let gate = on_terminal("first");
    gate.serves("/private?q=in-the-query", StatusCode::UNAUTHORIZED).await;
    gate.serves("/public/a", StatusCode::OK).await;
    // The terminal writes the greeting to the file some time later.
    let password =
        || gate.lines("first").iter().find_map(|line| Some(line.trim().strip_prefix("password  ")?.to_owned()));
    until("the greeting shows the password", async || password().is_some()).await;
    let password = password().unwrap();
    let form = format!("grant_type=password&client_id=web&username=demo&password={password}");
    let login = Request::post(format!("http://{address}/connect/token"));
    let login = login.header("content-type", "application/x-www-form-urlencoded").body(form.into()).unwrap();
    assert_eq!(support::send(login).await.status, StatusCode::OK);
    let first = ended(gate, "first");
    let page = format!("admin page  http://{admin}/ui/\n    sign in     with the token: cat data/admin.token\n");
    assert!(first.contains(&page) && !first.contains("is lost") && !first.contains("in-the-query"), "{first}");
    for (begin, end) in [
        ("GET /private 401 no_credential ", " ms"),
        ("GET /public/a 200 passed ", " ms"),
        ("POST /connect/token 200 answered web ", " ms"),
    ] {
        let took = first.lines().filter_map(|line| line.strip_prefix(begin)?.strip_suffix(end)?.parse::<u64>().ok());
        assert_eq!(took.count(), 1, "{begin}: {first}");
    }
    // Without the user of the first start, the lines are for another user.
    place.done(&["user", "add", "ada"], "correct horse");
    for name in ["demo", "ada", "NAME"] {
        let gate = on_terminal(name);
        gate.serves("/public/a", StatusCode::OK).await;
        let said = ended(gate, name);
        let advice = match name {
            "NAME" => "To add a user: rotogate user add NAME".to_owned(),
            name => format!("If the password of {name} is lost, set a new one: rotogate user passwd {name}\n"),
        };
        let username = if name == "NAME" { "USERNAME" } else { name };
        assert!(said.contains(&advice) && said.contains(&format!("username={username} ")), "{said}");
        if name != "NAME" {
            place.done(&["user", "remove", name], "");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_with_json_each_line_of_either_output_is_json_at_start_reload_upgrade_and_stop() {
    let [public, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    for output in ["stderr", "stdout"] {
        let config =
            CONFIG.replacen("127.0.0.1:0", &public.to_string(), 1).replacen("127.0.0.1:0", &admin.to_string(), 1);
        let config = format!("{config}[log]\nformat = \"json\"\n[access_log]\noutput = \"{output}\"\n");
        let place = Place::new(&config);
        let mut gate = Running::start(&place, public);
        gate.serves("/public/a", StatusCode::OK).await;
        gate.serves("/private", StatusCode::UNAUTHORIZED).await;
        // A refused reload, with a name that must be escaped, and a successful reload.
        place.write_config(&config.replace("[issuer]", "[\"is\\\"suer\"]"));
        gate.signal("HUP");
        gate.said("configuration invalid", 1).await;
        place.write_config(&format!("{config}[cors]\norigins = [\"https://a.test\"]\n"));
        gate.signal("HUP");
        gate.said("configuration reloaded", 1).await;
        // Upgrades: a refused one, one after which the old program returns, and two that succeed.
        place.write_config(&config.replace("[issuer]", "[isuer]"));
        gate.signal("USR2");
        gate.said("this program keeps running", 1).await;
        let broken = place.path("data/broken.redb");
        fs::write(&broken, "no store").unwrap();
        fs::set_permissions(&broken, fs::Permissions::from_mode(0o600)).unwrap();
        place.write_config(&config.replace("[issuer]", "[store]\npath = \"data/broken.redb\"\n[issuer]"));
        gate.signal("USR2");
        gate.said("process.upgrade_refused", 1).await;
        gate.serves("/public/b", StatusCode::OK).await;
        for round in 1..=2 {
            let path = format!("/more{round}");
            let route = format!("[[routes]]\npath = \"{path}\"\nauth = \"none\"\nupstream = \"app\"\n");
            place.write_config(&format!("{config}{route}"));
            gate.signal("USR2");
            gate.serves(&path, StatusCode::OK).await;
        }
        gate.signal("TERM");
        assert!(gate.child.wait().unwrap().success());

        let mut access = 0;
        for name in ["stdout", "stderr"] {
            for line in gate.lines(name) {
                let value: Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
                let fields = value.as_object().unwrap_or_else(|| panic!("{name}: no object: {line}"));
                access += usize::from(value["event.dataset"] == "rotogate.access");
                // A start prints its result like a command, as with --json.
                if name == "stdout" && fields.contains_key("listening") && !fields.contains_key("level") {
                    continue;
                }
                for (key, value) in fields {
                    assert!(value.is_string() || value.is_number() || value.is_boolean(), "{key}: {line}");
                    assert!(value.as_str().is_none_or(|text| !text.is_empty() && !is_debug(text)), "{key}: {line}");
                }
            }
        }
        assert!(access >= 5, "{access}");
        assert!(gate.lines("stderr").iter().any(|line| line.contains("\"stopped\"")));
    }
}
