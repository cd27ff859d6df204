//! The endpoint of browsers at a reload.

use http::Method;
use support::stub::HEAD;
use support::{Gate, Place};

use super::reload::reload;

fn config(keys: &str) -> String {
    let head = HEAD.replace("http://gate.test", "https://gate.test").replace("http://@upstream@", "echo:");
    format!(
        "{head}[[endpoints]]\ndialect = \"browser\"\n{keys}[[routes]]\npath = \"/{{*rest}}\"\n\
         credentials = [\"session\"]\nupstream = \"app\"\n"
    )
}

async fn log_in(gate: &Gate, path: &str) -> (u16, String, bool) {
    let headers = [("host", "gate.test"), ("origin", "https://gate.test"), ("content-type", "application/json")];
    let body = serde_json::json!({ "username": "demo", "password": gate.password }).to_string();
    let reply = gate.call(Method::POST, path, &headers, &body).await;
    let set = reply.headers.get("set-cookie").map(|set| set.to_str().unwrap().to_owned()).unwrap_or_default();
    (reply.status.as_u16(), set, reply.headers.contains_key("secure-session-registration"))
}

#[tokio::test]
async fn b55_a_reload_applies_each_key_and_sessions_go_on() {
    let place = Place::new(&config(""));
    let gate = place.start();
    let (status, set, is_device_asked) = log_in(&gate, "/auth/login").await;
    assert_eq!((status, set.contains("SameSite=Lax; Max-Age=604800"), is_device_asked), (200, true, false));
    let held = set.split(';').next().unwrap().to_owned();
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let all = [&[("host", "gate.test"), ("cookie", held.as_str())], headers].concat();
        gate.call(Method::GET, path, &all, "").await.status.as_u16()
    };
    let script = [("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")];
    assert_eq!((get("/x", &script).await, get("/auth/login", &[]).await), (200, 200));
    let keys = "page = \"none\"\npersistent = false\ncsrf_header = \"x-csrf\"\nprofile = { session_ttl = \"1d\" }\n";
    reload(&place, &gate, &config(keys)).await;
    assert_eq!((get("/x", &script).await, get("/auth/login", &[]).await), (403, 404));
    assert_eq!(get("/x", &[&script[..], &[("x-csrf", "1")]].concat()).await, 200, "the session goes on");
    assert!(log_in(&gate, "/auth/login").await.1.ends_with("SameSite=Lax"));
    let keys = "path = \"/in\"\nsame_site = \"strict\"\ndevice_bound = \"optional\"\nafter_logout = \"/bye\"\n";
    reload(&place, &gate, &config(keys).replace("upstream =", "login = \"never\"\nupstream =")).await;
    assert_eq!(log_in(&gate, "/auth/login").await.0, 401, "a path of the service now");
    let (status, set, is_device_asked) = log_in(&gate, "/in/login").await;
    assert_eq!((status, set.contains("SameSite=Strict; Max-Age=604800"), is_device_asked), (200, true, true));
    assert_eq!(get("/x", &script).await, 200, "the session goes on");
    let form = [
        ("host", "gate.test"),
        ("cookie", held.as_str()),
        ("origin", "https://gate.test"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let out = gate.call(Method::POST, "/in/logout", &form, "").await;
    assert_eq!((out.status.as_u16(), out.headers["refresh"].to_str().unwrap()), (200, "0;url=https://gate.test/bye"));
    assert_eq!(get("/x", &script).await, 401);
}
