//! The configuration of a gate under test.

/// The configuration of most tests: an echo upstream, a public and a protected route, and ports that the system
/// chooses.
pub const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
drain_timeout = "2s"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[limits]
login_per_address = "1000/1s"
login_per_account = "1000/1s"
for_tests.login_per_client = "1000/1s"
refresh_per_session = "1000/1s"
refresh_per_address = "100000/1s"
for_tests.forged_per_address = "100000/1s"
[[clients]]
id = "web"
[[endpoints]]
dialect = "oauth2"
path = "/{account}/connect/token"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

/// Returns a configuration with these keys in a section. Existing keys get the new value. A missing section is added
/// before the first array of tables.
///
/// ```
/// use support::{CONFIG, with};
///
/// let config = with(&with(CONFIG, "server", "max_requests = 1\ndrain_timeout = \"1h\""), "store", "cache_size = \"1MiB\"");
/// assert!(config.contains("[server]\nmax_requests = 1\ndrain_timeout = \"1h\"\nlisten"));
/// ```
pub fn with(config: &str, section: &str, keys: &str) -> String {
    let head = format!("[{section}]");
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let set: Vec<_> = keys.lines().map(name).collect();
    let mut lines: Vec<String> = Vec::new();
    let mut is_inside = false;
    let mut is_set = false;
    let is_there = config.lines().any(|line| line == head);
    for line in config.lines() {
        if line.starts_with("[[") && !is_there && !is_set {
            lines.extend([head.clone(), keys.trim_end().to_owned()]);
            is_set = true;
        }
        if line.starts_with('[') {
            is_inside = line == head;
        } else if is_inside && set.contains(&name(line)) {
            continue;
        }
        lines.push(line.to_owned());
        if line == head {
            lines.push(keys.trim_end().to_owned());
            is_set = true;
        }
    }
    if !is_set {
        lines.extend([head, keys.trim_end().to_owned()]);
    }
    lines.join("\n") + "\n"
}
