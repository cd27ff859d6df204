use super::*;

const ONE: &str = "[[authorizers]]\nkind = \"nginx\"\nlisten = \"127.0.0.1:8082\"\n";
const TRUSTED: &str = "trusted_proxies = [\"127.0.0.1/32\"]\n";

#[test]
fn n3_an_authorizer_names_who_may_ask() {
    let none = said(ONE);
    assert!(
        none[0].contains("authorizers[0].trusted_proxies: is missing, and so is `server.trusted_proxies`"),
        "{none:?}"
    );
    let tls = |auth: &str| format!("{ONE}tls = {{ cert = \"a\", key = \"b\", client_ca = \"c\"{auth} }}\n");
    assert_eq!(said(&tls("")), Vec::<String>::new(), "its certificate says who asks");
    assert_eq!(said(&tls(", client_auth = \"optional\"")).len(), 1, "a certificate that may be missing proves nothing");
    assert_eq!(said(&format!("{ONE}trusted_proxies = []\n")).len(), 1);
    assert_eq!(said(&format!("{ONE}{TRUSTED}")), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_an_authorizer_is_said_where_it_stands() {
    let with = |from: &str, to: &str| said(&format!("{ONE}{TRUSTED}").replace(from, to));
    for (from, to, expected) in [
        (
            "kind = \"nginx\"\n",
            "",
            "authorizers[0].kind: missing; expected the proxy that sends the authorization requests",
        ),
        ("\"nginx\"", "\"ngnix\"", "did you mean \"nginx\"?"),
        ("kind = \"nginx\"", "kind = \"nginx\"\nneighbour = \"nginx\"", "authorizers[0].neighbour: was removed: "),
        ("listen = \"127.0.0.1:8082\"\n", "", "authorizers[0].listen: missing"),
        ("8082", "8080", "authorizers[0].listen: 127.0.0.1:8080 is already used by `server.listen`"),
        ("8082", "8081", "authorizers[0].listen: 127.0.0.1:8081 is already used by `admin.listen`"),
        ("listen", "address", "authorizers[0].address: "),
    ] {
        let lines = with(from, to);
        assert!(lines.iter().any(|line| line.contains(expected)), "{to}: {lines:?}");
    }
    let twice = said(&format!("{ONE}{TRUSTED}{ONE}{TRUSTED}"));
    assert!(
        twice[0].contains("authorizers[1].listen: 127.0.0.1:8082 is already used by `authorizers[0].listen`"),
        "{twice:?}"
    );
}

#[test]
fn a_route_needs_no_upstream_where_other_proxies_ask() {
    let route = "[[routes]]\npath = \"/alone\"\n";
    assert!(said(route)[0].contains("upstream: missing"));
    assert_eq!(said(&format!("{ONE}{TRUSTED}{route}")), Vec::<String>::new());
}

#[test]
fn m23_what_would_bypass_or_refuse_each_call_of_a_resource_is_an_error() {
    let resource = |mcp: &str, route: &str| {
        format!(
            "[api_keys]\nprefix = \"acme\"\n[[upstreams]]\nname = \"app\"\nurls = [\"http://127.0.0.1:1\"]\n[[resources]]\npath = \"/mcp\"\nauthorization_servers = [\"https://id.example\"]\n{mcp}\n\
             [[routes]]\npath = \"/mcp\"\nresource = \"/mcp\"\nupstream = \"app\"\n{route}\n"
        )
    };
    let asking = format!("{ONE}{TRUSTED}");
    for (config, expected) in [
        (resource("mcp = {}", "upgrade = true"), ".upgrade: cannot be combined with a resource that has `mcp`"),
        (
            resource("mcp = {}", "credentials = [\"token\", \"key\"]"),
            ".credentials: contains \"key\", but a resource with `mcp`",
        ),
        (format!("{asking}{}", resource("mcp = {}", "")), "resources[0].mcp: checks calls by their bodies"),
    ] {
        let lines = said(&config);
        assert!(lines.len() == 1 && lines[0].contains(expected), "{lines:?}");
    }
    for good in [
        resource("mcp = {}", ""),
        resource("", "upgrade = true"),
        resource("", "credentials = [\"token\", \"key\"]"),
        format!("{asking}{}", resource("mcp = { check = \"headers\" }", "")),
        format!("{asking}{}", resource("", "")),
    ] {
        assert_eq!(said(&good), Vec::<String>::new(), "{good}");
    }
}
