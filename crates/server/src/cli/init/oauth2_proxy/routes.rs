//! Upstreams and routes from an oauth2-proxy configuration.

use http::Uri;
use toml::{Table, Value};

use super::{Import, Remark, SentTo, go_duration, table, texts};

struct ServedTarget {
    name: String,
    /// A path with a trailing slash is a prefix.
    path: String,
    upgrades: Option<bool>,
}

/// Writes `upstreams` and `routes`, or `authorizers` if there is no upstream.
pub(super) fn write(import: &mut Import, config: &mut Table, roles: (&[String], &[String])) -> Result<(), String> {
    let mut sent = std::mem::take(&mut import.settings.upstreams);
    let named = import.settings.list("upstreams").into_iter();
    let named = named.map(|uri| SentTo { place: "upstreams".to_owned(), uri: uri.to_owned(), ..SentTo::default() });
    sent.extend(named.collect::<Vec<_>>());
    let (mut upstreams, mut destinations, mut has_fixed) = (Vec::new(), Vec::new(), false);
    for SentTo { place, path, uri, odd, preserves_host, upgrades, timeout } in sent {
        let line = Some("[[upstreams]]");
        if let Some(setting) = odd {
            let why = format!(
                "the gate does not rewrite paths: let {} serve the path that clients request, then add its \
                 `[[upstreams]]` and `[[routes]]` entries",
                without_password(&uri)
            );
            import.imported.remarks.push(Remark { setting, why, key: None, line });
            continue;
        }
        let url = uri.parse::<Uri>().ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
        let Some(url) = url else {
            // oauth2-proxy itself responds to `static://` upstreams, so they need no HTTP server.
            if uri.starts_with("static://") {
                has_fixed = true;
            } else {
                let why = format!(
                    "{} was not imported, because it is a file server, a socket or an invalid URL. Put an HTTP server \
                     in front of it",
                    without_password(&uri)
                );
                import.imported.remarks.push(Remark { setting: place, why, key: None, line });
            }
            continue;
        };
        let name = if upstreams.is_empty() { "app".to_owned() } else { format!("app{}", upstreams.len() + 1) };
        let origin =
            format!("{}://{}", url.scheme_str().unwrap_or("http"), url.authority().map_or("", |host| host.as_str()));
        let mut upstream = table([
            ("name", name.as_str().into()),
            ("urls", texts([&*origin])),
            ("preserve_host", preserves_host.unwrap_or(import.settings.is_on("pass_host_header", true)).into()),
        ]);
        upstream.extend(head_timeout(import, timeout.as_deref()).map(|time| ("head_timeout".to_owned(), time)));
        upstreams.push(Value::Table(upstream));
        let path = path.unwrap_or_else(|| url.path().to_owned());
        destinations.push(ServedTarget { name, path, upgrades });
    }
    if destinations.is_empty() {
        config.insert("authorizers".to_owned(), Value::Array(vec![authorizer(import).into()]));
        destinations.push(ServedTarget { name: String::new(), path: "/".to_owned(), upgrades: None });
    } else {
        config.insert("upstreams".to_owned(), upstreams.into());
        if has_fixed {
            import
                .remark("upstreams", "`static://` has no counterpart: its path leads to another upstream, or gets 404");
        }
    }
    let mut routes = Vec::new();
    for name in ["skip_auth_routes", "skip_auth_regex"] {
        open(import, name, &destinations, &mut routes);
    }
    let login = login_keys(import, roles);
    api(import, &destinations, &login, &mut routes);
    for destination in &destinations {
        let mut keys = login.clone();
        match destination.upgrades {
            Some(true) => drop(keys.insert("upgrade".to_owned(), true.into())),
            Some(false) => drop(keys.remove("upgrade")),
            None => {}
        }
        routes.push((route_path(&destination.path), None, &*destination.name, keys));
    }
    let with_method = routes.iter().filter(|(_, method, ..)| method.is_some());
    // Otherwise, a path that is open for one method would respond to others with 405, not with a login.
    let others: Vec<_> =
        with_method.map(|(path, _, upstream, _)| (path.clone(), None, *upstream, login.clone())).collect();
    routes.extend(others);
    config.insert("routes".to_owned(), tables(routes).into());
    Ok(())
}

/// For each path and method, the first route wins.
fn tables(routes: Vec<NewRoute<'_>>) -> Vec<Value> {
    let mut written: Vec<Value> = Vec::new();
    for (path, method, upstream, mut keys) in routes {
        keys.insert("path".to_owned(), path.into());
        if !upstream.is_empty() {
            keys.insert("upstream".to_owned(), upstream.into());
        }
        if let Some(method) = method {
            keys.insert("methods".to_owned(), texts([&*method]));
        }
        let is_there =
            |other: &Value| other.get("path") == keys.get("path") && other.get("methods") == keys.get("methods");
        if !written.iter().any(is_there) {
            written.push(keys.into());
        }
    }
    written
}

fn head_timeout(import: &mut Import, own: Option<&str>) -> Option<Value> {
    let millis = go_duration(own.or(import.settings.get("upstream_timeout"))?).map_or(0, |time| time.as_millis());
    if millis == 0 {
        import.remark("upstream_timeout", "is not a positive duration such as 30s, so the default applies");
        return None;
    }
    Some(format!("{millis}ms").into())
}

type NewRoute<'a> = (String, Option<String>, &'a str, Table);

fn authorizer(import: &mut Import) -> Table {
    import.fill_in(
        "authorizers[0].kind",
        "upstreams",
        "there is no upstream, so another proxy will ask the gate to authorize its requests. Set `kind` to the kind \
         of this proxy, and `trusted_proxies` to its address: see docs/forward-auth.md",
    );
    let proxies = import.settings.list("trusted_proxy_ips");
    let proxies = if proxies.is_empty() { texts(["127.0.0.1/32"]) } else { texts(proxies) };
    table([("kind", "nginx".into()), ("listen", "127.0.0.1:8082".into()), ("trusted_proxies", proxies)])
}

/// Without an issuer's name, a role would apply to the gate's own users.
fn login_keys(import: &mut Import, (issuers, roles): (&[String], &[String])) -> Table {
    let tokens = import.settings.is_on("skip_jwt_bearer_tokens", false).then_some("token");
    let mut keys = table([("credentials", texts(tokens.into_iter().chain(["session"])))]);
    if !roles.is_empty() {
        keys.insert("issuers".to_owned(), texts(issuers.iter().map(String::as_str)));
        let named: Vec<String> =
            issuers.iter().flat_map(|name| roles.iter().map(move |role| format!("{name}:{role}"))).collect();
        keys.insert("roles".to_owned(), texts(named.iter().map(String::as_str)));
    }
    if import.settings.is_on("proxy_websockets", true) {
        keys.insert("upgrade".to_owned(), true.into());
    }
    let asked = import.settings.is_on("pass_access_token", false);
    if asked || import.settings.sends_token {
        keys.insert("forward_token".to_owned(), true.into());
    }
    if asked {
        import.remark(
            "pass_access_token",
            "services get the token in `Authorization`, not in `X-Forwarded-Access-Token`",
        );
    }
    keys
}

fn open<'a>(import: &mut Import, name: &str, all: &'a [ServedTarget], routes: &mut Vec<NewRoute<'a>>) {
    let patterns: Vec<String> = import.settings.list(name).into_iter().map(str::to_owned).collect();
    for pattern in patterns {
        let (method, path) = match pattern.split_once('=') {
            Some((method, path)) => (Some(method), path),
            None => (None, &*pattern),
        };
        let is_method = method.is_none_or(|method| method.bytes().all(|byte| byte.is_ascii_uppercase()));
        match paths(path).filter(|_| is_method) {
            Some(paths) => {
                for (path, upstream) in served(import, name, all, paths) {
                    routes.push((path, method.map(str::to_owned), upstream, table([("auth", "none".into())])));
                }
            }
            None => import.remark(
                name,
                "a route cannot express one of the patterns, so its paths still need a login; write routes for these \
                 paths",
            ),
        }
    }
}

/// Adds routes that respond with 401 instead of a redirect to the login.
fn api<'a>(import: &mut Import, all: &'a [ServedTarget], login: &Table, routes: &mut Vec<NewRoute<'a>>) {
    let patterns: Vec<String> = import.settings.list("api_routes").into_iter().map(str::to_owned).collect();
    for pattern in patterns {
        let Some(paths) = paths(&pattern) else {
            import.remark(
                "api_routes",
                "a route cannot express one of the patterns, so its paths redirect to the login; write routes for \
                 these paths",
            );
            continue;
        };
        for (path, upstream) in served(import, "api_routes", all, paths) {
            let mut keys = login.clone();
            keys.insert("login".to_owned(), "never".into());
            routes.push((path, None, upstream, keys));
        }
    }
}

/// Returns the served paths with their upstreams. oauth2-proxy responds to other paths with 404.
fn served<'a>(import: &mut Import, name: &str, all: &'a [ServedTarget], paths: Vec<String>) -> Vec<(String, &'a str)> {
    let first = paths.first().cloned().unwrap_or_default();
    let served: Vec<_> =
        paths.into_iter().filter_map(|path| Some(destination(all, &path)?).map(|upstream| (path, upstream))).collect();
    if served.is_empty() {
        import.remark(name, format!("no upstream serves {first}, so this path has no route"));
    }
    served
}

fn without_password(uri: &str) -> String {
    match uri.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)),
        None => uri.rsplit_once('@').map_or(uri, |(_, host)| host).to_owned(),
    }
}

fn destination<'a>(all: &'a [ServedTarget], path: &str) -> Option<&'a str> {
    let is_for = |one: &&ServedTarget| match one.path.as_str() {
        "" | "/" => true,
        beginning if beginning.ends_with('/') => path.starts_with(beginning),
        exact => path == exact,
    };
    all.iter().filter(is_for).max_by_key(|one| one.path.len()).map(|one| &*one.name)
}

fn route_path(path: &str) -> String {
    match path {
        "" | "/" => "/{*rest}".to_owned(),
        beginning if beginning.ends_with('/') => format!("{beginning}{{*rest}}"),
        exact => exact.to_owned(),
    }
}

/// Translates a regular expression to path patterns that match the same paths, or fewer. `None` if the expression is
/// not a plain path.
pub(super) fn paths(pattern: &str) -> Option<Vec<String>> {
    let path = pattern.strip_prefix('^')?;
    let (path, is_whole) = path.strip_suffix('$').map_or((path, false), |path| (path, true));
    let (path, is_rest) = match path.strip_suffix("(.*)").or_else(|| path.strip_suffix(".*")) {
        Some(path) => (path, true),
        None => (path, !is_whole),
    };
    // An escaped dot or slash is a literal character.
    let path = path.replace("\\.", "\u{1}").replace("\\/", "/");
    let is_literal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'~' | 1);
    if !path.starts_with('/') || !path.bytes().all(is_literal) || path.contains("//") {
        return None;
    }
    let path = path.replace('\u{1}', ".");
    Some(match (is_rest, path.ends_with('/')) {
        (false, _) => vec![path],
        (true, true) => vec![format!("{path}{{*rest}}")],
        (true, false) => vec![path.clone(), format!("{path}/{{*rest}}")],
    })
}
