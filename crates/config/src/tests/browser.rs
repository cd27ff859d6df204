//! The endpoint of browsers, and the routes that take its sessions.

use super::*;
use crate::PageKey;

const ENDPOINT: &str = "[[endpoints]]\ndialect = \"browser\"\n";
const UPSTREAM: &str = "[[upstreams]]\nname = \"app\"\nurls = [\"echo:\"]\n";
const ROUTE: &str = "[[routes]]\npath = \"/app/{*rest}\"\ncredentials = [\"token\", \"session\"]\nupstream = \"app\"\n";

fn with(keys: &str) -> Vec<String> {
    said(&format!("{ENDPOINT}{keys}{UPSTREAM}{ROUTE}"))
}

#[test]
fn b54_an_endpoint_of_browsers_needs_only_its_dialect() {
    let config = read(&format!("{MINIMAL}{ENDPOINT}{UPSTREAM}{ROUTE}")).unwrap();
    let [endpoint] = &config.endpoints[..] else { panic!("one endpoint") };
    assert_eq!(endpoint.path, "/auth");
    let browser = endpoint.browser.as_ref().unwrap();
    assert_eq!((&browser.page, &browser.after_logout, browser.persistent), (&PageKey::default(), &None, true));
    let profile = endpoint.profile.over(&config.sessions.profile);
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!((profile.access_ttl, profile.idle_ttl, profile.session_ttl), (hours(1) / 6, hours(8), hours(7 * 24)));
    // The printed configuration means the same when it is read again.
    let again = read(&config.to_toml()).unwrap();
    assert_eq!(again.endpoints, config.endpoints);
}

#[test]
fn b54_settings_that_no_browser_could_use_are_refused_where_they_stand() {
    for (keys, expected) in [
        ("path = \"/{account}/auth\"\n", "endpoints[0].path: expected a path without parameters"),
        ("page = \"signin\"\n", "endpoints[0].page: expected \"built-in\", \"none\", a path such as"),
        (
            "page = \"/auth/login\"\n",
            "endpoints[0].page: expected a path that this gate serves outside of this endpoint",
        ),
        ("page = \"//evil\"\n", "endpoints[0].page: expected a path that this gate serves"),
        ("page = \"/app/signin\"\n", "endpoints[0].page: leads to the route /app/{*rest}, which requires a login"),
        (
            "after_logout = \"https://evil.example/\"\n",
            "endpoints[0].after_logout: expected a path that this gate serves",
        ),
        ("same_site = \"none\"\n", "endpoints[0].same_site: "),
        ("same_site = \"strict\"\n", "routes[0].login: "),
        ("device_bound = \"always\"\n", "endpoints[0].device_bound: "),
        (
            "device_bound = \"required\"\n",
            "endpoints[0].device_bound: is \"required\", but `server.public_url` does not begin",
        ),
        ("csrf_header = \"accept\"\n", "endpoints[0].csrf_header: expected the name of a header that begins with x-"),
        ("csrf_header = \"x csrf\"\n", "endpoints[0].csrf_header: "),
        ("profile = { idle_ttl = \"15m\" }\n", "endpoints[0].profile.idle_ttl: must be at least twice `access_ttl`"),
        ("clients = [\"web\"]\n", "endpoints[0].clients: "),
        ("accepts = [\"oauth2\"]\n", "endpoints[0].accepts: "),
    ] {
        let lines = with(keys);
        assert!(lines.len() == 1 && lines[0].contains(expected), "{keys}: {lines:?}");
    }
    let none = said(&format!("{UPSTREAM}{ROUTE}"));
    assert!(
        none.len() == 1 && none[0].contains("routes[0].credentials: contains \"session\", but there is no entry of"),
        "{none:?}"
    );
    let cookie = ROUTE.replace("upstream", "cookie = \"app\"\nupstream");
    let beside = said(&format!("{ENDPOINT}{UPSTREAM}{cookie}"));
    assert!(beside.len() == 1 && beside[0].contains("routes[0].cookie: names the cookie of a token"), "{beside:?}");
    let twice = with(&format!("{ENDPOINT}path = \"/other\"\n"));
    assert!(twice.len() == 1 && twice[0].contains("endpoints[1].dialect: another endpoint also has"), "{twice:?}");
    let unused = format!("{MINIMAL}{ENDPOINT}{UPSTREAM}{}", ROUTE.replace("credentials", "# credentials"));
    let warned = |text: &str| {
        let warnings = read(text).unwrap().warnings;
        warnings.iter().filter(|warning| warning.message.contains("no route accepts its sessions")).count()
    };
    assert_eq!([warned(&unused), warned(&unused.replace("# ", ""))], [1, 0]);
    let users = said(&format!("{ENDPOINT}{UPSTREAM}{ROUTE}[directory]\nkind = \"none\"\n"));
    assert!(users.len() == 1 && users[0].contains("endpoints[0].dialect: \"browser\" logs in users"), "{users:?}");
    let plain =
        read(&format!("{MINIMAL}{ENDPOINT}").replace("127.0.0.1:8080", "gate.example")).unwrap_err().to_string();
    assert!(plain.contains("needs a `server.public_url` that begins with https://"), "{plain}");
}

#[test]
fn b54_what_fits_is_accepted() {
    for keys in [
        "page = \"none\"\n",
        "device_bound = \"optional\"\n",
        "page = \"/signin\"\nafter_logout = \"/bye?x\"\npersistent = false\n",
        "csrf_header = \"X-CSRF\"\naccount = \"acme\"\n",
        "profile = { access_ttl = \"1m\", idle_ttl = \"2m\" }\n",
    ] {
        assert_eq!(with(keys), Vec::<String>::new(), "{keys}");
    }
    let never = ROUTE.replace("upstream", "login = \"never\"\nupstream");
    assert_eq!(said(&format!("{ENDPOINT}same_site = \"strict\"\n{UPSTREAM}{never}")), Vec::<String>::new());
    let listed = "[cors]\norigins = [\"https://app.example\"]\nallow_credentials = true\n";
    let leads = format!("{listed}{ENDPOINT}after_logout = \"https://app.example/bye\"\n");
    assert_eq!(said(&leads), Vec::<String>::new());
    let lines = said(&leads.replace("allow_credentials = true\n", ""));
    assert!(lines[0].contains("endpoints[0].after_logout"), "{lines:?}");
}

const ISSUER: &str = "[[issuers]]\nname = \"kc\"\nurl = \"https://id.example\"\naudience = [\"api\"]\ndiscovery = true\n\
                      subject_prefix = \"kc|\"\n";

/// A login at a provider, with further keys of the endpoint.
fn at_provider(keys: &str) -> Vec<String> {
    with_issuer(ISSUER, keys)
}

fn with_issuer(issuer: &str, keys: &str) -> Vec<String> {
    let keys = format!("provider = \"kc\"\nclient = {{ id = \"web\" }}\n{keys}");
    said(&format!("{issuer}{ENDPOINT}{keys}{UPSTREAM}{ROUTE}"))
}

#[test]
fn b39_b54_a_provider_that_cannot_log_in_browsers_is_refused() {
    assert_eq!(at_provider(""), Vec::<String>::new());
    assert_eq!(
        at_provider("scopes = [\"a\"]\nparameters = { prompt = \"login\" }\npar = true\n"),
        Vec::<String>::new()
    );
    for (keys, expected) in [
        ("page = \"/signin\"\n", "endpoints[0].page: only applies to a login with a password"),
        ("account = \"acme\"\n", "endpoints[0].account: only applies to a login with a password"),
        ("scopes = [\"a b\"]\n", "expected a scope such as \"profile\""),
        ("parameters = { nonce = \"x\" }\n", "endpoints[0].parameters.nonce: is a parameter that the gate sets itself"),
        ("parameters = { redirect_uri = \"x\" }\n", "endpoints[0].parameters.redirect_uri: is a parameter"),
        ("profile = { idle_ttl = \"4d\" }\n", "endpoints[0].profile.idle_ttl: must be at most 3d"),
    ] {
        let lines = at_provider(keys);
        assert!(lines.len() == 1 && lines[0].contains(expected), "{keys}: {lines:?}");
    }
    let own = with("scopes = [\"profile\"]\npar = true\n");
    assert!(own.len() == 2 && own[0].contains("only applies to a login at a provider"), "{own:?}");
    let unknown = with("provider = \"kc\"\nclient = { id = \"web\" }\n");
    assert!(unknown[0].contains("endpoints[0].provider"), "{unknown:?}");
    let nobody = said(&format!("{ISSUER}{ENDPOINT}provider = \"kc\"\n{UPSTREAM}{ROUTE}"));
    assert!(nobody.iter().any(|line| line.contains("endpoints[0].client: is missing")), "{nobody:?}");
    let fixed = with_issuer(&ISSUER.replace("discovery = true", "jwks_url = \"https://id.example/keys\""), "");
    assert!(fixed[0].contains("endpoints[0].provider: expected an issuer with `discovery`"), "{fixed:?}");
    // With `forward_token`, the upstream gets the provider's access token.
    let forwarding = ROUTE.replace("upstream =", "forward_token = true\nupstream =");
    let keys = "provider = \"kc\"\nclient = { id = \"web\" }\n";
    let lines = said(&format!("{ISSUER}{ENDPOINT}{keys}{UPSTREAM}{forwarding}"));
    assert_eq!(lines, Vec::<String>::new());
}

/// An issuer without keys of its own in a file, with further keys.
fn issuer(name: &str, keys: &str) -> String {
    format!(
        "[[issuers]]\nname = \"{name}\"\nurl = \"https://{name}.example\"\naudience = [\"api\"]\ndiscovery = true\n{keys}"
    )
}

#[test]
fn b39_i67_sources_of_users_whose_subjects_can_meet_are_refused() {
    const NOBODY: &str = "[directory]\nkind = \"none\"\n";
    let login = format!("{ENDPOINT}provider = \"kc\"\nclient = {{ id = \"web\" }}\n{UPSTREAM}{ROUTE}");
    let clients = format!(
        "[[clients]]\nid = \"wiki\"\nsecret_hash = \"{PHC}\"\ngrants = [\"jwt-bearer\", \"token-exchange\"]\n\
         exchange = {{ as = [\"api\"], to = [\"b\"], issuers = [\"self\", \"ex\"] }}\n"
    );
    let prefix = |prefix: &str| format!("subject_prefix = \"{prefix}\"\n");
    let jag = "id_jag = { clients = [\"wiki\"] }\n";
    let (exchanged, at_kc) = (issuer("ex", &prefix("ex|")), issuer("kc", ""));
    // One source alone, with or without a prefix, and sources with prefixes beside each other.
    for good in [
        format!("{at_kc}{login}{NOBODY}"),
        format!("{}{login}", issuer("kc", &prefix("kc|"))),
        format!("{}{exchanged}{clients}{login}", issuer("kc", &format!("{}{jag}", prefix("kc|")))),
        format!("{}{}", issuer("a", ""), issuer("b", "")),
        format!("{exchanged}{}{clients}", issuer("b", "")),
    ] {
        let lines: Vec<_> = said(&good).into_iter().filter(|line| line.contains("prefix")).collect();
        assert_eq!(lines, Vec::<String>::new(), "{good}");
    }
    for (bad, expected) in [
        (format!("{at_kc}{login}"), "issuers[0].subject_prefix: is missing: through the browser login"),
        (format!("{at_kc}{login}[api_keys]\nprefix = \"acme\"\n"), "users of `[directory]` could have the same"),
        (
            format!("{}{exchanged}{clients}", issuer("okta", jag)),
            "issuers[0].subject_prefix: is missing: through `id_jag`",
        ),
        (format!("{at_kc}{exchanged}{clients}{login}{NOBODY}"), "users of ex could have the same"),
        (format!("{}{exchanged}{clients}", issuer("b", &prefix("ex|"))), "begins like that of another issuer"),
        (format!("{}{exchanged}{clients}", issuer("b", &prefix("ex|a|"))), "begins like that of another issuer"),
        (format!("{}{exchanged}{clients}", issuer("b", &prefix("b"))), "ends without a separator"),
        (issuer("b", &prefix("client:")), "conflicts with client:"),
        (issuer("b", &prefix("c")), "conflicts with client:"),
    ] {
        let lines = said(&bad);
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected}: {lines:?}\n{bad}");
    }
}

#[cfg(feature = "ldap")]
const LDAP: &str = "[directory]\nkind = \"ldap\"\nurl = \"ldaps://l.test\"\nbase = \"dc=x\"\nfilter = \"(uid={username})\"\n\
                    claims = { team = \"ou\" }\n";
const RESOURCE: &str = "[[resources]]\npath = \"/mcp\"\nauthorization_servers = [\"https://id.example\"]\nmcp = {}\n";

/// The warnings of demands that no session of a browser meets.
fn unmet(text: &str) -> Vec<ConfigError> {
    let warnings = read(text).unwrap_or_else(|errors| panic!("{text}: {errors}")).warnings;
    warnings.into_iter().filter(|one| one.message.contains("every request with a browser session is refused")).collect()
}

/// `text` with `from` replaced by `to`.
fn mended(text: &str, (from, to): (&str, &str)) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}: {text}");
    text.replace(from, to)
}

/// One warning about `key`, at its line, with a remedy that removes it.
fn is_warned_until(text: &str, key: &str, remedy: &str, by: (&str, &str)) {
    let found = unmet(text);
    let [warning] = &found[..] else { panic!("{text}: {found:?}") };
    assert!(warning.key == key && warning.message.contains(remedy), "{warning:?}");
    let (line, _) = warning.position.expect("it names its line");
    let named = key.rsplit_once('.').map_or(key, |(_, name)| name);
    let line = text.lines().nth(line - 1).unwrap_or_default();
    assert!(line.starts_with(&format!("{named} = ")), "{warning:?}: {line}");
    assert_eq!(unmet(&mended(text, by)).len(), 0, "{remedy}: {by:?}");
}

#[test]
fn b54_a_route_that_no_session_of_a_browser_passes_is_warned_of_until_it_is_mended() {
    // Each demand, the key of the warning, a part of it, and what the remedy changes.
    type Case = [&'static str; 5];
    let at_kc: &[Case] = &[
        ["issuers = [\"self\"]", "issuers", "add \"kc\"", "[\"self\"]", "[\"self\", \"kc\"]"],
        ["dpop = \"required\"", "dpop", "write \"optional\"", "required", "optional"],
        ["certificate_bound = \"required\"", "certificate_bound", "write \"optional\"", "required", "optional"],
        ["audiences = [\"x\"]", "audiences", "write `audiences = [\"api\"]`", "[\"x\"]", "[\"api\"]"],
        [
            "any_scope = [\"y\"]",
            "any_scope",
            "add the scope to `scopes` of its `[[issuers]]` entry",
            "[\"read\"]",
            "[\"read\", \"y\"]",
        ],
        [
            "scopes = [\"y\"]",
            "scopes",
            "add the scope to `scopes` of its `[[issuers]]` entry",
            "[\"read\"]",
            "[\"read\", \"y\"]",
        ],
        [
            "roles = [\"admin\"]",
            "roles",
            "write `issuers = [\"kc\"]` if no other issuer's tokens are used here",
            "roles = [\"admin\"]",
            "roles = [\"admin\"]\nissuers = [\"kc\"]",
        ],
        [
            "issuers = [\"self\", \"kc\"]\nroles = [\"self:a\"]",
            "roles",
            "or add a role of that issuer",
            "self:a",
            "kc:a",
        ],
        ["issuers = [\"self\", \"kc\"]\nall_roles = [\"self:a\"]", "all_roles", "write roles of", "self:a", "kc:a"],
        [
            "resource = \"/mcp\"",
            "resource",
            "write `audiences = [\"api\"]`",
            "resource = \"/mcp\"",
            "resource = \"/mcp\"\naudiences = [\"api\"]",
        ],
    ];
    let of_client = "add the scope to `scopes` of that client";
    let own: &[Case] = &[
        ["issuers = [\"kc\"]  # s", "issuers", "add \"self\"", "[\"kc\"]  # s", "[\"kc\", \"self\"]"],
        ["scopes = [\"y\"]", "scopes", of_client, "[\"write\"]", "[\"write\", \"y\"]"],
        ["any_scope = [\"y\"]", "any_scope", of_client, "[\"write\"]", "[\"write\", \"y\"]"],
    ];
    let issuer = format!("{ISSUER}scopes = [\"read\"]\nclaims = {{ roles = \"groups\" }}\n");
    let listener = "[[server.listeners]]\naddress = \"127.0.0.1:1\"\n\
                    tls = { cert = \"c.pem\", key = \"k.pem\", client_ca = \"ca.pem\" }\n";
    let client = "[[clients]]\nid = \"browser\"\nscopes = [\"write\"]\n";
    let head = format!("{MINIMAL}{listener}{client}{issuer}{RESOURCE}");
    let other = "[[routes]]\npath = \"/other\"\nissuers = [\"kc\"]\nupstream = \"app\"\n";
    for (provider, cases) in [("provider = \"kc\"\nclient = { id = \"web\" }\n", at_kc), ("", own)] {
        let with = |demand: &str| format!("{head}{ENDPOINT}{provider}{UPSTREAM}{ROUTE}{demand}\n{other}");
        for [demand, key, says, from, to] in cases {
            let (text, key) = (with(demand), format!("routes[0].{key}"));
            is_warned_until(&text, &key, says, (from, to));
            is_warned_until(&text, &key, "remove \"session\" from `credentials`", (", \"session\"", ""));
        }
        for met in ["step_up = { max_age = \"5m\" }", "step_up = { acr = [\"gold\"], max_age = \"5m\" }"] {
            assert_eq!(unmet(&with(met)).len(), 0, "{provider}{met}");
        }
    }
    // Calls of a resource come to the route of its path first, and by tokens if it takes tokens.
    let path = ROUTE.replace("[[routes]]\n", "[[routes]]\nid = \"app\"\n").replace("\"token\", ", "");
    let rule = "[[routes]]\nresource = \"/mcp\"\ncalls = [\"*\"]\nissuers = [\"self\"]\n";
    let calls = format!(
        "{head}{ENDPOINT}provider = \"kc\"\nclient = {{ id = \"web\" }}\n{UPSTREAM}{path}\
         resource = \"/mcp\"\naudiences = [\"api\"]\n{rule}"
    );
    is_warned_until(&calls, "routes[1].issuers", "add \"kc\"", ("[\"self\"]", "[\"self\", \"kc\"]"));
    let says = "remove \"session\" from `credentials` of the route for its path";
    is_warned_until(&calls, "routes[1].issuers", says, ("[\"session\"]", "[\"token\"]"));
    assert_eq!(unmet(&mended(&calls, ("[\"session\"]", "[\"token\", \"session\"]"))).len(), 0);
}

#[cfg(feature = "ldap")]
#[test]
fn b54_a_route_that_asks_a_login_with_a_password_for_an_acr_is_warned_of_until_the_directory_has_one() {
    let demand = "step_up = { acr = [\"gold\"] }\n";
    let text = format!("{MINIMAL}{LDAP}{ISSUER}everywhere = true\n{ENDPOINT}{UPSTREAM}{ROUTE}{demand}");
    let provider = format!("{ENDPOINT}provider = \"kc\"\nclient = {{ id = \"web\" }}\n");
    for by in [(ENDPOINT, &*provider), (demand, ""), ("team = ", "acr = ")] {
        is_warned_until(&text, "routes[0].step_up", "set `provider` in the endpoint for browsers, or remove `acr`", by);
    }
}
