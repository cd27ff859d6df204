//! examples/f5-nginx-ingress as the nginx.conf that F5's NGINX Ingress Controller writes, for an nginx without the controller.

const TEMPLATE: &str = include_str!("f5.conf");

/// The lines of an annotation.
fn annotation(yaml: &str, name: &str) -> String {
    let begin = format!("    nginx.org/{name}: |");
    let lines = yaml.lines().skip_while(|line| *line != begin).skip(1);
    let value: Vec<_> = lines.take_while(|line| line.starts_with("      ")).collect();
    assert!(!value.is_empty(), "no {name}");
    value.join("\n")
}

/// The configuration of nginx.
pub(super) fn rendered(yaml: &str) -> String {
    assert!(yaml.contains("nginx.org/websocket-services: \"app\""), "Upgrade and Connection in the template");
    TEMPLATE
        .replace("@server-snippets@", &annotation(yaml, "server-snippets"))
        .replace("@location-snippets@", &annotation(yaml, "location-snippets"))
        .replace("rotogate.auth.svc.cluster.local", "127.0.0.1")
}
