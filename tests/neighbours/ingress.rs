//! examples/ingress-nginx in the form that the controller renders, for an nginx without the controller.

use std::fmt::Write as _;

const TEMPLATE: &str = include_str!("ingress.conf");
/// The directives of each location of an Ingress.
const PROXY: &str = "proxy_set_header Host $best_http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Request-ID $req_id;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $best_http_host;
      proxy_set_header X-Forwarded-Port $pass_port;
      proxy_set_header X-Forwarded-Proto $pass_access_scheme;
      proxy_set_header X-Forwarded-Scheme $pass_access_scheme;
      proxy_set_header X-Scheme $pass_access_scheme;
      proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
      proxy_set_header Proxy \"\";
      proxy_http_version 1.1;";

/// The value of an annotation on one line, or the lines below one that ends with `|`.
fn annotation<'y>(yaml: &'y str, name: &str) -> Vec<&'y str> {
    let begin = format!("    nginx.ingress.kubernetes.io/{name}: ");
    let mut lines = yaml.lines().skip_while(|line| !line.starts_with(&begin));
    let value = lines.next().unwrap_or_else(|| panic!("no {name}"))[begin.len()..].trim_matches('"');
    match value {
        "|" => lines.take_while(|line| line.starts_with("      ")).map(str::trim).collect(),
        value => value.split(',').collect(),
    }
}

/// The configuration of nginx.
pub(super) fn rendered(yaml: &str) -> String {
    assert!(annotation(yaml, "auth-url")[0].ends_with(":8082/"));
    let mut headers = String::new();
    for (number, name) in annotation(yaml, "auth-response-headers").into_iter().enumerate() {
        let variable = name.to_ascii_lowercase().replace('-', "_");
        writeln!(headers, "auth_request_set $authHeader{number} $upstream_http_{variable};").unwrap();
        writeln!(headers, "proxy_set_header '{name}' $authHeader{number};").unwrap();
    }
    let mut endpoints = String::new();
    let paths = yaml.lines().filter_map(|line| line.trim().strip_prefix("- { path: "));
    for (path, rest) in
        paths.filter_map(|line| line.split_once(", ")).filter(|(_, rest)| rest.contains("name: rotogate"))
    {
        let locations = match rest.starts_with("pathType: Prefix") {
            true => vec![format!("= {path}"), format!("{path}/")],
            false => vec![format!("= {path}")],
        };
        for location in locations {
            writeln!(endpoints, "location {location} {{ {PROXY} proxy_pass http://127.0.0.1:8080; }}").unwrap();
        }
    }
    TEMPLATE
        .replace("@auth-response-headers@", &headers)
        .replace("@proxy@", PROXY)
        .replace("@configuration-snippet@", &annotation(yaml, "configuration-snippet").join("\n      "))
        .replace("@server-snippet@", &annotation(yaml, "server-snippet").join("\n      "))
        .replace("@endpoints@", &endpoints)
}
