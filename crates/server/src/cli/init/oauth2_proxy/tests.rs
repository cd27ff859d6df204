use std::fs;

use secrecy::ExposeSecret;

use super::*;
use rotogate_config::{Config, ProcessEnv};
use rotogate_core::route::Auth;

/// The value that no output of the tests below may show.
const SECRET: &str = "b2F1dGgyLXByb3h5LWNsaWVudC1zZWNyZXQK";

struct Case {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    has_redis: bool,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = files.iter().map(|(name, text)| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        });
        let files = files.collect();
        Self { folder, files, flags: Vec::new(), variables: Vec::new(), has_redis: true }
    }

    fn flags(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self
    }

    fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self
    }

    fn import(&self) -> Result<Imported, String> {
        import(&SettingSources {
            flags: &self.flags,
            variables: &self.variables,
            files: &self.files,
            has_redis: self.has_redis,
        })
    }

    /// The import, and the configuration that a start would read from it.
    fn good(&self) -> (Imported, Config) {
        let imported = self.import().unwrap();
        let path = self.folder.path().join("gateway.toml");
        let checked = imported.without_feature.as_ref().unwrap_or(&imported.text);
        let config = rotogate_config::parse(checked, &path, &ProcessEnv);
        let config = config.unwrap_or_else(|errors| panic!("{errors}\n{}", imported.text));
        assert!(!imported.text.contains(SECRET), "{}", imported.text);
        assert!(imported.remarks.iter().all(|remark| !remark.setting.contains(SECRET) && !remark.why.contains(SECRET)));
        (imported, config)
    }
}

fn why<'a>(imported: &'a Imported, setting: &str) -> &'a str {
    let found = imported.remarks.iter().find(|remark| remark.setting.starts_with(setting));
    found.map_or_else(|| panic!("{setting}: {:?}", imported.remarks), |remark| &remark.why)
}

fn paths(config: &Config) -> Vec<(&str, Auth, bool)> {
    config
        .routes
        .iter()
        .map(|route| (route.path.as_str(), route.policy.auth, route.policy.never_leads_to_login))
        .collect()
}

/// The configuration of oauth2-proxy's local environment with Dex.
const DEX: &str = r#"
http_address="0.0.0.0:4180"
cookie_secret="b2F1dGgyLXByb3h5LWNsaWVudC1zZWNyZXQK"
email_domains="example.com"
cookie_secure="false"
upstreams="http://httpbin"
cookie_domains=[".localtest.me"] # for all subdomains
whitelist_domains=[".localtest.me"]
client_secret="b2F1dGgyLXByb3h5LWNsaWVudC1zZWNyZXQK"
client_id="oauth2-proxy"
redirect_url="http://oauth2-proxy.localtest.me:4180/oauth2/callback"
oidc_issuer_url="http://dex.localtest.me:5556/dex"
provider="oidc"
provider_display_name="Dex"
"#;

#[test]
fn b54_a_file_of_settings_becomes_a_configuration_that_starts() {
    let (imported, config) = Case::new(&[("old.cfg", &DEX.replace("http://dex", "https://dex"))]).good();
    assert_eq!(config.server.public_url.to_string(), "https://oauth2-proxy.localtest.me:4180/");
    assert_eq!(config.endpoints[0].path, "/oauth2", "the redirect URI stays");
    let provider = &config.issuers[0];
    assert_eq!(provider.url, "https://dex.localtest.me:5556/dex");
    assert_eq!(paths(&config), [("/{*rest}", Auth::Required, false)]);
    let secrets: Vec<_> = imported.secrets.iter().map(|(name, secret)| (*name, secret.expose_secret())).collect();
    assert_eq!(secrets, [("idp.secret", SECRET)]);
    // A restriction that no key of the configuration can express must admit no user, instead of all users.
    assert!(imported.text.contains("email_domain = [\"example.com\"]"), "{}", imported.text);
    assert!(why(&imported, "email_domains").contains("NO USER CAN LOG IN"));
    for setting in ["cookie_secret", "cookie_secure", "cookie_domains", "whitelist_domains", "provider_display_name"] {
        assert!(!why(&imported, setting).is_empty());
        assert!(imported.text.contains(&format!("# - {setting} in ")), "{}", imported.text);
        let top = imported.text.split("\n[").next().unwrap();
        assert!(top.contains(&format!("# - {setting} in ")), "{setting} has no line of its own: {top}");
    }
    assert!(why(&imported, "redirect_url").contains("https"));
}

#[test]
fn b54_alpha_configuration_is_read() {
    let core = "cookie_secret=\"x\"\nemail_domains=\"*\"\nredirect_url=\"https://app.example/oauth2/callback\"\n";
    let alpha = r#"
server:
  bindAddress: "0.0.0.0:4180"
upstreamConfig:
  proxyRawPath: true
  upstreams:
    - id: httpbin
      path: /
      uri: http://httpbin
    - id: api
      path: /api/
      uri: http://api:8080/ignored
      passHostHeader: true
      timeout: 45s
    - id: old
      path: ^/old/(.*)$
      rewriteTarget: /$1
      uri: http://old
injectRequestHeaders:
  - name: X-Forwarded-User
    values:
      - claimSource:
          claim: user
providers:
  - id: oidc
    provider: oidc
    clientSecret: ${CLIENT_SECRET}
    clientID: oauth2-proxy
    allowedGroups: [staff, admins]
    loginURLParameters:
      - name: prompt
    oidcConfig:
      issuerURL: https://dex.localtest.me:5556/dex
      groupsClaim: teams
      insecureSkipNonce: false
"#;
    let case = Case::new(&[("core.cfg", core), ("alpha.yaml", alpha)]).variables(&[("CLIENT_SECRET", SECRET)]);
    let (imported, config) = case.good();
    let (required, auto) = (Auth::Required, false);
    assert_eq!(paths(&config), [("/{*rest}", required, auto), ("/api/{*rest}", required, auto)]);
    assert_eq!(config.upstreams.len(), 2);
    let roles: Vec<_> = config.routes[0].policy.roles.iter().map(ToString::to_string).collect();
    assert_eq!(roles, ["idp:staff", "idp:admins"]);
    assert!(imported.text.contains("roles = [\"teams\"]"), "{}", imported.text);
    assert_eq!(imported.secrets[0].1.expose_secret(), SECRET);
    assert_eq!(
        why(&imported, "rewriteTarget of upstreams[2]"),
        "the gate does not rewrite paths: let http://old serve the path that clients request, then add its \
         `[[upstreams]]` and `[[routes]]` entries"
    );
    assert!(why(&imported, "injectRequestHeaders").contains("[identity]"));
    assert!(why(&imported, "insecureSkipNonce of oidcConfig of providers[0]").contains("always"));
    assert!(why(&imported, "proxyRawPath").contains("encoded_slash"));
    // Before version 7.3.
    let older = alpha.replace("upstreamConfig:\n  proxyRawPath: true\n  upstreams:", "upstreams:");
    let case = Case::new(&[("core.cfg", core), ("alpha.yaml", &older)]).variables(&[("CLIENT_SECRET", SECRET)]);
    assert_eq!(case.good().1.upstreams.len(), 2);
}

/// Each key of the reference of alpha configuration of oauth2-proxy 7.15.
const REFERENCE: &str = r#"
upstreamConfig:
  proxyRawPath: false
  upstreams:
    - { id: app, path: /, uri: "http://${HOST:-app}:8080", static: false, staticCode: 200, flushInterval: 1s,
        passHostHeader: false, proxyWebSockets: false, timeout: 45s, disableKeepAlives: false, insecureSkipTLSVerify: false }
    - { id: live, path: /live/, uri: "http://${LIVE}:${PORT}" }
injectRequestHeaders: [ { name: X-User, values: [ { claimSource: { claim: user } } ] } ]
injectResponseHeaders: []
metricsServer: { bindAddress: ":9100" }
server:
  bindAddress: ":4180"
  secureBindAddress: ":4443"
  tls:
    key: { value: "", fromEnv: KEY, fromFile: /tls.key }
    cert: { value: "", fromEnv: CERT, fromFile: /tls.crt }
    minVersion: TLS1.3
    cipherSuites: []
providers:
  - id: kc
    provider: keycloak-oidc
    name: Keycloak
    clientID: web
    clientSecret: ${CLIENT_SECRET}
    clientSecretFile: ""
    caFiles: []
    useSystemTrustStore: true
    loginURL: https://id.example/auth
    loginURLParameters:
      - { name: organization, default: [ myorg ] }
      - { name: prompt, default: [ login ], allow: [ { value: consent } ] }
      - { name: state, default: [ fixed ] }
    authRequestResponseMode: ""
    redeemURL: https://id.example/token
    profileURL: https://id.example/userinfo
    skipClaimsFromProfileURL: false
    resource: ""
    validateURL: ""
    scope: openid email
    allowedGroups: []
    code_challenge_method: S256
    additionalClaims: []
    backendLogoutURL: ""
    keycloakConfig: { groups: [], roles: [ editor ] }
    azureConfig: { tenant: "", graphGroupField: "" }
    microsoftEntraIDConfig: { allowedTenants: [], federatedTokenAuth: false }
    ADFSConfig: { skipScope: false }
    bitbucketConfig: { team: "", repository: "" }
    githubConfig: { org: "", team: "", repo: "", token: "", users: [] }
    gitlabConfig: { group: [], projects: [] }
    googleConfig: { group: [], adminEmail: "", serviceAccountJson: "", useApplicationDefaultCredentials: false,
        targetPrincipal: "", useOrganizationID: false, adminAPIUserScope: "" }
    oidcConfig: { issuerURL: "https://id.example/realms/x", insecureAllowUnverifiedEmail: false,
        insecureSkipIssuerVerification: false, insecureSkipNonce: false, skipDiscovery: false, jwksURL: "",
        publicKeyFiles: [], emailClaim: email, groupsClaim: groups, userIDClaim: sub, audienceClaims: [ aud ],
        extraAudiences: [ api ], enabledSigningAlgs: [] }
    loginGovConfig: { jwtKey: "", jwtKeyFile: "", pubjwkURL: "" }
"#;

#[test]
fn b54_each_key_of_alpha_configuration_is_written_or_named() {
    let core = "email_domains=\"*\"\nredirect_url=\"https://app.example/oauth2/callback\"\n";
    let files = [("core.cfg", core), ("alpha.yaml", REFERENCE)];
    let variables = [("CLIENT_SECRET", SECRET), ("LIVE", "live"), ("PORT", "81")];
    let (imported, config) = Case::new(&files).variables(&variables).good();
    let unknown: Vec<_> = imported.remarks.iter().filter(|remark| remark.why.contains("not known")).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    for written in
        ["organization = \"myorg\"", "\"http://app:8080\"", "\"http://live:81\"", "head_timeout = \"45000ms\""]
    {
        assert!(imported.text.contains(written), "{written}: {}", imported.text);
    }
    // Parameters that a link could change, and parameters that the gate sets itself.
    assert!(!imported.text.contains("prompt =") && !imported.text.contains("fixed\""), "{}", imported.text);
    assert!(!why(&imported, "loginURLParameters").is_empty());
    // The keys of one upstream are its own.
    let text: Table = imported.text.parse().unwrap();
    let of = |section: &str, key: &str| -> Vec<_> {
        let entries = text[section].as_array().unwrap();
        entries.iter().map(|entry| entry.get(key).and_then(Value::as_bool)).collect()
    };
    assert_eq!(of("upstreams", "preserve_host"), [Some(false), Some(true)]);
    assert_eq!(of("routes", "upgrade"), [None, Some(true)]);
    assert!(imported.text.contains("listen = \"0.0.0.0:4443\""), "{}", imported.text);
    assert_eq!(config.issuers.len(), 1);
}

#[test]
fn b54_a_list_of_users_that_no_claim_has_admits_no_user() {
    let text = DEX.replace("http://dex", "https://dex").replace("\"example.com\"", "\"*\"");
    for (setting, values) in [
        ("google_groups", "[\"a\"]"),
        ("gitlab_group", "\"b,c\""),
        ("github_org", "\"d\""),
        ("gitlab_projects", "[\"e\"]"),
    ] {
        let (imported, _) = Case::new(&[("old.cfg", &format!("{text}{setting}={values}\n"))]).good();
        assert!(imported.text.contains(&format!("\n{setting}")), "{setting}: {}", imported.text);
        assert!(why(&imported, setting).contains("NO USER CAN LOG IN"), "{setting}");
    }
    // Of several tenants, the ID token names the one. Tokens of further issuers meet the same rules.
    let further = "entra_id_allowed_tenants=[\"t1\"]\nskip_jwt_bearer_tokens=true\nextra_jwt_issuers=\"https://two.example=api\"\n";
    let (imported, config) = Case::new(&[("old.cfg", &format!("{text}{further}"))]).good();
    assert_eq!(imported.text.matches("tid = [\"t1\"]").count(), 2, "{}", imported.text);
    assert_eq!(config.issuers.len(), 2);
}

#[test]
fn b54_flags_and_variables_are_read_and_flags_count_first() {
    let flags = "\
--http-address=:4180
--provider=keycloak-oidc
- \"--oidc-issuer-url=https://id.example/realms/x\"
--email-domain=*
--scope=\"openid email\" \\
--reverse-proxy --trusted-proxy-ip 10.0.0.0/8
--upstream=http://one:3000/ --upstream=http://two:3000/two/
--allowed-role=editor
";
    let case = Case::new(&[("args", flags), ("proxy.env", "export OAUTH2_PROXY_CLIENT_ID='from-file'\n")])
        .flags(&["--redirect-url=https://app.example/oauth2/callback", "--cookie-expire", "12h0m0s"])
        .variables(&[
            ("OAUTH2_PROXY_CLIENT_ID", "web"),
            ("OAUTH2_PROXY_CLIENT_SECRET", SECRET),
            ("OAUTH2_PROXY_REDIRECT_URL", "https://other.example/oauth2/callback"),
            ("OAUTH2_PROXY_SKIP_AUTH_ROUTES", "GET=^/probe$,^/static/,^/metrics,\\.png$,POST!=^/x"),
            ("OAUTH2_PROXY_API_ROUTES", "^/two/api"),
            ("OAUTH2_PROXY_NEW_THING", "x"),
            ("PATH", "/bin"),
        ]);
    let (imported, config) = case.good();
    assert_eq!(config.server.public_url.to_string(), "https://app.example/");
    assert_eq!(config.server.trusted_proxies.len(), 1);
    let (none, required) = (Auth::None, Auth::Required);
    let (auto, never) = (false, true);
    let routes = [
        ("/probe", none, auto),
        ("/static/{*rest}", none, auto),
        ("/metrics", none, auto),
        ("/metrics/{*rest}", none, auto),
        ("/two/api", required, never),
        ("/two/api/{*rest}", required, never),
        ("/{*rest}", required, auto),
        ("/two/{*rest}", required, auto),
        ("/probe", required, auto),
    ];
    assert_eq!(paths(&config), routes);
    assert!(why(&imported, "OAUTH2_PROXY_SKIP_AUTH_ROUTES").contains("still need a login"));
    assert!(why(&imported, "OAUTH2_PROXY_NEW_THING").contains("not known"));
    assert!(imported.text.contains("realm_access.roles") && imported.text.contains("\"12h\""), "{}", imported.text);
    assert!(imported.text.contains("id = \"web\""), "{}", imported.text);
}

#[test]
fn b54_other_stores_and_proxies_that_ask_are_written() {
    let text = DEX.replace("\"http://httpbin\"", "\"static://202\"").replace("http://dex", "https://dex")
        + "session_store_type=\"redis\"\nredis_connection_url=\"redis://:b2F1dGgyLXByb3h5LWNsaWVudC1zZWNyZXQK@redis:6379/1\"\n\
           reverse_proxy=true\nset_xauthrequest=true\nemail_domain=\"*\"\n";
    let (imported, config) = Case::new(&[("nginx.cfg", &text)]).good();
    assert_eq!(config.authorizers.len(), 1);
    assert!(config.upstreams.is_empty());
    assert!(imported.text.contains("urls = [\"redis://redis:6379/1\"]"), "{}", imported.text);
    assert!(imported.text.contains("\"x-auth-request-user\""));
    let names: Vec<_> = imported.secrets.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["redis.secret", "idp.secret"]);
    assert!(why(&imported, "reverse_proxy").contains("trusted_proxies"));
}

#[test]
fn b54_a_comma_in_a_list_is_part_of_a_pattern() {
    let text = format!("{DEX}skip_auth_routes=[\"^/x,y$\", \"^/z$\"]\n").replace("http://dex", "https://dex");
    let (imported, config) = Case::new(&[("old.cfg", &text)]).good();
    assert_eq!(paths(&config), [("/z", Auth::None, false), ("/{*rest}", Auth::Required, false)]);
    assert!(why(&imported, "skip_auth_routes").contains("still need a login"));
}

#[test]
fn b54_an_address_that_nobody_verified_is_refused_as_before_and_the_access_token_is_forwarded() {
    let text = DEX.replace("http://dex", "https://dex").replace("email_domains=\"example.com\"", "email_domains=\"*\"");
    let with = |text: &str, more: &str| Case::new(&[("old.cfg", &format!("{text}{more}"))]).good();
    let (imported, config) = with(&text, "");
    assert!(imported.text.contains("email_verified = true"), "{}", imported.text);
    assert!(why(&imported, "email_verified").contains("remove it from `require`"));
    assert!(!config.routes[0].policy.forward_token);
    for more in ["insecure_oidc_allow_unverified_email=true\n", "scope=\"openid groups\"\n"] {
        assert!(!with(&text, more).0.text.contains("email_verified"), "{more}");
    }
    let entra = text.replace("provider=\"oidc\"", "provider=\"entra-id\"");
    assert!(!with(&entra, "").0.text.contains("email_verified"));
    let (imported, config) =
        with(&text, "pass_access_token=true\napi_routes=\"^/api/\"\nskip_auth_routes=\"^/open$\"\n");
    assert!(why(&imported, "pass_access_token").contains("Authorization"));
    let forwards: Vec<_> = config.routes.iter().map(|route| (&*route.path, route.policy.forward_token)).collect();
    assert_eq!(forwards, [("/open", false), ("/api/{*rest}", true), ("/{*rest}", true)]);
}

#[test]
fn b54_users_are_admitted_by_the_claim_that_had_their_address() {
    let dex = DEX.replace("http://dex", "https://dex").replace("\"example.com\"", "\"*\"") + "set_xauthrequest=true\n";
    let with = |provider: &str, more: &str| {
        let text = format!("{}{more}", dex.replace("provider=\"oidc\"", &format!("provider=\"{provider}\"")));
        let case = Case::new(&[("admins", "a@example.com\n"), ("old.cfg", "")]);
        let file = format!("authenticated_emails_file={:?}\n", case.files[0]);
        fs::write(&case.files[1], text + &file).unwrap();
        let (imported, _) = Case { files: vec![case.files[1].clone()], ..case }.good();
        let config: Table = imported.text.parse().unwrap();
        let header =
            config["identity"]["claims"].get("x-auth-request-email").map(|claim| claim.as_str().unwrap().to_owned());
        let require = config["issuers"][0]["require"].as_table().unwrap();
        (require.keys().cloned().collect::<Vec<_>>(), header, imported)
    };
    for (provider, more, path, header) in [
        ("entra-id", "oidc_email_claim=\"upn\"", "upn", Some("upn")),
        ("oidc", "user_id_claim=\"upn\"", "upn", Some("upn")),
        ("oidc", "oidc_email_claim=\"mail\"\nuser_id_claim=\"upn\"", "mail", Some("mail")),
        (
            "oidc",
            "oidc_email_claim=\"https://x.example/mail\"",
            "\"https://x.example/mail\"",
            Some("https://x.example/mail"),
        ),
        ("oidc", "oidc_email_claim=\"user.mail\"", "user.mail", None),
    ] {
        let (require, named, imported) = with(provider, &format!("{more}\n"));
        assert_eq!((require, named.as_deref()), (vec![path.to_owned()], header), "{more}");
        assert!(imported.remarks.iter().any(|remark| remark.why.contains("email_verified")), "{more}");
    }
    let (require, named, _) = with("oidc", "oidc_email_claim=\"email\"\nuser_id_claim=\"email\"\n");
    assert_eq!((require, named.as_deref()), (vec!["email".to_owned(), "email_verified".to_owned()], Some("email")));
}

#[test]
fn b54_no_value_is_lost_without_a_remark() {
    let dex = DEX.replace("http://dex", "https://dex");
    let with = |more: &str| Case::new(&[("old.cfg", &format!("{dex}{more}"))]).good().0;
    let redis = "session_store_type=\"redis\"\nredis_connection_url=\"redis://a%40b:p%2Fw%3Aord%25@redis:6379\"\n";
    let imported = with(redis);
    assert_eq!(imported.secrets[0].1.expose_secret(), "p/w:ord%");
    assert!(imported.text.contains("username = \"a@b\""), "{}", imported.text);
    assert!(why(&with("provider_ca_files=[\"/a.pem\", \"/b.pem\"]\n"), "provider_ca_files").contains("one file"));
    assert!(with("upstream_timeout=\"1.5s\"\n").text.contains("head_timeout = \"1500ms\""));
    for odd in ["soon", "0"] {
        let imported = with(&format!("upstream_timeout=\"{odd}\"\n"));
        assert!(why(&imported, "upstream_timeout").contains("the default applies"), "{odd}");
    }
    assert!(with("cookie_expire=\"1.5h\"\n").text.contains("session_ttl = \"1h 30m\""));
    let both = dex.replace("\"http://httpbin\"", "[\"http://httpbin\", \"static://200\"]");
    assert!(why(&Case::new(&[("old.cfg", &both)]).good().0, "upstreams").contains("static://"));
}

#[test]
fn b54_durations_are_gos() {
    for (text, millis) in [
        ("0", 0),
        ("168h", 604_800_000),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("12h0m0s", 43_200_000),
        ("2m.5s", 120_500),
        ("15ms", 15),
        ("3000µs", 3),
    ] {
        assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for bad in ["", "5", "s", "-1h", "1d", "1.2.3s", "1h 30m", "1e3s", "99999999999999999999h"] {
        assert_eq!(go_duration(bad), None, "{bad}");
    }
}

#[test]
fn b54_what_would_open_more_than_before_is_refused_or_stays_closed() {
    let error = Case::new(&[("old.cfg", DEX)]).import().map(drop).unwrap_err();
    assert!(error.starts_with("`oidc_issuer_url` is an http URL"), "{error}");
    let dex = DEX.replace("http://dex", "https://dex");
    let with = |text: &str| Case::new(&[("old.cfg", &format!("{dex}{text}"))]).import();
    assert!(with("").is_ok());
    // A provider without OpenID Connect; two rules that both must hold.
    let gitea =
        DEX.replace("oidc_issuer_url=\"http://dex.localtest.me:5556/dex\"\nprovider=\"oidc\"", "provider=\"github\"");
    let error = Case::new(&[("gitea.cfg", &gitea)]).import().map(drop).unwrap_err();
    assert!(error.contains("github") && error.contains("Dex"), "{error}");
    assert!(with("allowed_groups=[\"a\"]\nallowed_roles=[\"b\"]\n").is_err());
    assert!(with("cookie_expire=\"soon\"\n").is_err());
    // An error must not show a line of the file.
    let error = Case::new(&[("old.cfg", &format!("{DEX}\nclient_secret={SECRET}"))]).import().map(drop).unwrap_err();
    assert!(error.contains("old.cfg") && !error.contains(SECRET), "{error}");
    let error = Case::new(&[("a.yaml", &format!("providers: [\n  {SECRET}: : ["))]).import().map(drop).unwrap_err();
    assert!(error.contains("a.yaml") && !error.contains(SECRET), "{error}");
}

#[test]
fn b54_a_pattern_becomes_a_route_only_if_the_route_matches_no_more() {
    let paths = |pattern| routes::paths(pattern).unwrap_or_default();
    assert_eq!(paths("^/a$"), ["/a"]);
    assert_eq!(paths("^/a\\.txt$"), ["/a.txt"]);
    assert_eq!(paths("^/a/.*$"), ["/a/{*rest}"]);
    assert_eq!(paths("^/a"), ["/a", "/a/{*rest}"]);
    for pattern in [
        "/a", "^/a|/b", "^/a.b$", "^/(a|b)$", "^/[a]", "^/a?", "^", "^/a//b", "^/%41$", "^/a%2eb$", "a$", "^/{x}$",
        "^/a+$",
    ] {
        assert!(paths(pattern).is_empty(), "{pattern}");
    }
}

/// The remarks above the first line that begins so.
fn above<'a>(text: &'a str, line: &str) -> Vec<&'a str> {
    let lines: Vec<_> = text.lines().collect();
    let at = lines.iter().position(|written| written.starts_with(line)).unwrap_or_else(|| panic!("{line}: {text}"));
    lines[..at].iter().rev().take_while(|line| line.starts_with("# - ")).copied().collect()
}

#[test]
fn b54_what_an_import_drops_is_named_above_the_line_that_it_is_about() {
    let dex = DEX.replace("http://dex", "https://dex");
    let upstreams =
        "[\"http://app/\", \"file:///var/www#/files/\", \"ftp://u:b2F1dGgyLXByb3h5LWNsaWVudC1zZWNyZXQK@old/\"]";
    let (imported, _) = Case::new(&[("old.cfg", &dex.replace("\"http://httpbin\"", upstreams))]).good();
    let text = &imported.text;
    let left_out = above(text, "[[upstreams]]");
    for uri in ["file:///var/www#/files/ was not imported", "ftp://old/ was not imported"] {
        assert!(left_out.iter().any(|line| line.contains(uri)), "{uri}: {left_out:?}");
    }
    // Each URL of oauth2-proxy, with the one that has its part here.
    let urls = above(text, "[[endpoints]]");
    for (url, counterpart) in [
        ("/oauth2/sign_in", "/oauth2/login?to="),
        ("/oauth2/start?rd=", "/oauth2/login?to="),
        ("/oauth2/sign_out", "POST /oauth2/logout"),
        ("/oauth2/userinfo", "GET /oauth2/session"),
        ("/oauth2/auth", "[[authorizers]]"),
        ("/oauth2/static/", "no counterpart"),
        ("/ping, /ready", "`/livez` and `/readyz`"),
        ("/robots.txt", "no counterpart"),
    ] {
        assert!(urls.iter().any(|line| line.contains(url) && line.contains(counterpart)), "{url}: {urls:?}");
    }
    // The default of cookie_expire is a week.
    assert!(above(text, "idle_ttl =")[0].contains("3d without a request"), "{text}");
    let short = Case::new(&[("old.cfg", &format!("{dex}cookie_expire=\"12h\"\n"))]).good().0;
    assert!(above(&short.text, "idle_ttl =").is_empty(), "{}", short.text);
    assert!(above(text, "public_url =")[0].contains("https"), "{text}");
    assert!(above(text, "[issuers.require]").iter().any(|line| line.contains("NO USER CAN LOG IN")), "{text}");
    // The sections have the order of `rotogate init`.
    let places = ["[server]", "[admin]", "[issuer]", "[store]", "[directory]", "[[issuers]]", "[[endpoints]]"];
    let places =
        places.map(|section| text.find(&format!("\n{section}\n")).unwrap_or_else(|| panic!("{section}: {text}")));
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn b54_a_path_that_no_upstream_served_gets_no_route() {
    let dex = DEX.replace("http://dex", "https://dex");
    let two = dex.replace("\"http://httpbin\"", "[\"http://one:9001/admin/\", \"http://two:9002/app/\"]");
    let more = "skip_auth_routes=[\"^/status\", \"^/$\", \"^/app/open\"]\napi_routes=[\"^/none\", \"^/admin/api\"]\n";
    let (imported, config) = Case::new(&[("old.cfg", &(two + more))]).good();
    let (none, required, auto, never) = (Auth::None, Auth::Required, false, true);
    let routes = [
        ("/app/open", none, auto),
        ("/app/open/{*rest}", none, auto),
        ("/admin/api", required, never),
        ("/admin/api/{*rest}", required, never),
        ("/admin/{*rest}", required, auto),
        ("/app/{*rest}", required, auto),
    ];
    assert_eq!(paths(&config), routes);
    for path in ["/status", "/", "/none"] {
        let why = format!("no upstream serves {path}, so this path has no route");
        assert!(imported.remarks.iter().any(|remark| remark.why == why), "{path}: {:?}", imported.remarks);
    }
}

#[test]
fn b54_without_a_rule_of_addresses_no_user_is_admitted() {
    for (provider, claim) in [("oidc", "email_domain"), ("google", "hd")] {
        let text = DEX.replace("http://dex", "https://dex").replace("email_domains=\"example.com\"\n", "");
        let text = text.replace("provider=\"oidc\"", &format!("provider=\"{provider}\""));
        let (imported, _) = Case::new(&[("old.cfg", &text)]).good();
        assert!(why(&imported, "email_domains").contains("NO USER CAN LOG IN"), "{provider}");
        assert!(imported.text.contains(&format!("\n{claim} = ")), "{}", imported.text);
    }
}

#[test]
fn b54_an_injected_access_token_is_forwarded() {
    let core = "email_domains=\"*\"\nredirect_url=\"https://app.example/oauth2/callback\"\n";
    let alpha = |headers: &str| {
        let provider = "providers: [ { id: a, provider: oidc, clientID: web, oidcConfig: { issuerURL: \"https://id.example\" } } ]";
        let upstreams = "upstreamConfig: { upstreams: [ { id: app, path: /, uri: \"http://app\" } ] }";
        let text = format!("injectRequestHeaders: [ {headers} ]\n{upstreams}\n{provider}\n");
        let (imported, config) = Case::new(&[("core.cfg", core), ("alpha.yaml", &text)]).good();
        (config.routes[0].policy.forward_token, imported)
    };
    let token = "{ name: authorization, values: [ { claimSource: { claim: access_token, prefix: \"Bearer \" } } ] }";
    let user = "{ name: X-User, values: [ { claim: user } ] }";
    let (forwards, imported) = alpha(token);
    assert!(forwards && !imported.text.contains("injectRequestHeaders"), "{}", imported.text);
    let older = "{ name: Authorization, values: [ { claim: access_token, prefix: \"Bearer \" } ] }";
    let (forwards, imported) = alpha(&format!("{older}, {user}"));
    assert!(forwards && why(&imported, "injectRequestHeaders (X-User)").contains("[identity]"));
    for other in [
        user.to_owned(),
        token.replace("access_token", "id_token"),
        token.replace("Bearer ", ""),
        token.replace("authorization", "X-Token"),
    ] {
        let (forwards, imported) = alpha(&other);
        assert!(!forwards && !why(&imported, "injectRequestHeaders").is_empty(), "{other}");
    }
}

#[test]
fn b54_a_program_without_redis_writes_the_file_and_names_the_feature() {
    let text = DEX.replace("http://dex", "https://dex")
        + "session_store_type=\"redis\"\nredis_connection_url=\"redis://redis:6379/1\"\n";
    let (imported, _) = Case { has_redis: false, ..Case::new(&[("old.cfg", &text)]) }.good();
    assert!(imported.text.contains("kind = \"redis\""), "{}", imported.text);
    let named = above(&imported.text, "[store]");
    assert!(named.iter().any(|line| line.contains("needs the feature redis")), "{named:?}");
    assert!(imported.without_feature.is_some_and(|text| !text.contains("redis://")));
    assert!(Case::new(&[("old.cfg", &text)]).good().0.without_feature.is_none());
}
