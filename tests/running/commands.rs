//! `rotogate reload`, `upgrade`, `events` and `config show`: an operator's commands on a running gate.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use http::{Method, StatusCode};
use serde_json::Value;
use support::{Gate, Place};

use super::successor::on_free_ports;

const ROUTE: &str = "\n[[routes]]\npath = \"/added\"\nauth = \"none\"\nupstream = \"app\"\n";

fn started() -> (Place, Gate) {
    let place = Place::new(&on_free_ports());
    let gate = place.start();
    (place, gate)
}

fn config_of(place: &Place) -> String {
    std::fs::read_to_string(place.path("gateway.toml")).unwrap()
}

/// A good configuration that names a bad file.
fn token_that_is_too_short(place: &Place) -> &'static str {
    std::fs::write(place.path("short"), "too short").unwrap();
    std::fs::set_permissions(place.path("short"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    "[[admin.tokens]]\nname = \"ada\"\nrole = \"viewer\"\nfile = \"short\"\n"
}

async fn added(gate: &Gate) -> StatusCode {
    gate.call(Method::GET, "/added", &[], "").await.status
}

/// The value that `config show` has of a key.
fn value<'a>(values: &'a [Value], key: &str) -> Option<&'a Value> {
    values.iter().find(|value| value["key"] == key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_by_command_takes_a_route_and_says_what_it_took_or_where_the_file_is_wrong() {
    let (place, gate) = started();
    let good = config_of(&place);
    place.write_config(&format!("{good}{ROUTE}"));
    let said = place.json(&["reload"], "");
    assert!(
        said["applied"].as_array().unwrap().iter().any(|key| key.as_str().unwrap().starts_with("routes[")),
        "{said}"
    );
    assert_eq!(said["restart_needed"].as_array().unwrap().len(), 0, "{said}");
    assert_eq!(added(&gate).await, StatusCode::OK);

    // Mistakes that a command finds itself, and mistakes that only the gate finds, which reads the files.
    place.write_config(&format!("{good}\n[[routes]]\npath = \"/x\"\nupstream = \"nowhere\"\n"));
    let ran = place.run(&["reload"], "");
    let line = good.lines().count() + 4;
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains(&format!("gateway.toml:{line}:12: routes[2].upstream")), "{ran:?}");
    assert!(ran.stderr.ends_with("\nnothing was reloaded: the old configuration stays in use\n"), "{ran:?}");
    place.write_config(&format!("{good}{}", token_that_is_too_short(&place)));
    let said = place.fails(&["reload"], "");
    assert!(said.contains("the configuration is invalid, so the old configuration stays in use"), "{said}");
    assert!(said.contains(&format!("gateway.toml:{line}: admin.tokens[0].file: ")), "{said}");
    assert_eq!(added(&gate).await, StatusCode::OK, "nothing has changed");

    let (listen, other) = (format!("listen = \"{}\"", gate.address), "listen = [\"127.0.0.1:0\"]");
    place.write_config(&format!("{}{ROUTE}", good.replacen(&listen, other, 1)));
    let said = place.done(&["reload"], "").stdout;
    assert!(said.contains("these keys take effect after `rotogate upgrade`: server.listen"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_by_command_is_done_when_the_command_is_and_a_refused_one_says_why() {
    let (place, gate) = started();
    let good = config_of(&place);
    let tokens = gate.login().await;
    place.write_config(&format!("{good}{ROUTE}"));
    let said = place.json(&["upgrade"], "");
    assert_eq!((&said["upgraded"], &said["pid"]), (&true.into(), &gate.child.id().into()), "{said}");
    assert_eq!(added(&gate).await, StatusCode::OK, "the new program serves, with the new file");
    assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK);

    // The command can read the configuration, but only a start reads the files that it names.
    place.write_config(&format!("{good}{}", token_that_is_too_short(&place)));
    let said = place.fails(&["upgrade"], "");
    assert!(said.contains("the previous program keeps running") && said.contains("fewer than 32 characters"), "{said}");
    let [refused] = &place.json_lines(&["events", "--action", "process.upgrade_refused"])[..] else { panic!("one") };
    assert!(refused["reason"].as_str().unwrap().contains("fewer than 32 characters"), "{refused}");
    assert_eq!(added(&gate).await, StatusCode::OK, "the old program serves on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_shown_filtered_and_followed() {
    let (place, gate) = started();
    gate.login().await;
    let all = place.json_lines(&["events"]);
    assert_eq!(all.first().unwrap()["event.action"], "process.start");
    let [login] = &place.json_lines(&["events", "--action", "session.start"])[..] else { panic!("one login") };
    assert_eq!(login["user.name"], "demo");
    let text = place.done(&["events", "--action", "session.start"], "").stdout;
    assert!(text.contains("  session.start  success  ") && text.contains("user.name=demo"), "{text}");

    let mut command = place.command();
    command.args(["events", "--action", "session.end", "--follow", "--json"]);
    let mut follow = command.stdout(Stdio::piped()).spawn().unwrap();
    let tokens = gate.login().await;
    gate.revoke(&tokens.refresh).await;
    let mut line = String::new();
    BufReader::new(follow.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ended["event.action"], "session.end");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_is_shown_with_the_source_of_each_value_and_without_secrets() {
    let (place, gate) = started();
    let set = place.json_lines(&["config", "show"]);
    assert!(set.iter().all(|value| value["source"] != "default"), "{set:?}");
    let url = value(&set, "server.public_url").unwrap();
    assert_eq!(url["source"], "file");
    let line = usize::try_from(url["line"].as_u64().unwrap()).unwrap();
    assert!(config_of(&place).lines().nth(line - 1).unwrap().starts_with("public_url = "), "{url}");
    let effective = place.json_lines(&["config", "show", "--effective"]);
    assert_eq!(value(&effective, "server.max_requests").unwrap()["source"], "default");
    assert!(effective.len() > set.len());
    let text = place.done(&["config", "show"], "").stdout;
    assert!(text.contains(&format!("gateway.toml:{line}\n")), "{text}");

    // The file may have changed since.
    place.write_config(&config_of(&place).replacen("[server]", "[server]\nmax_connections = 77", 1));
    assert_eq!(value(&place.json_lines(&["config", "show"]), "server.max_connections").unwrap()["value"], 77);
    let running = place.json_lines(&["config", "show", "--running", "--effective"]);
    assert_eq!(value(&running, "server.max_connections").unwrap()["source"], "default");
    drop(gate);
}
