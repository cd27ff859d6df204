//! `rotogate init --from-oauth2-proxy`: converts an oauth2-proxy configuration.
//!
//! The new configuration never permits more than the old one. A restriction that cannot be expressed becomes a rule
//! that refuses every user.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use serde::Serialize;
use toml::{Table, Value};

mod fates;
mod routes;
mod settings;
mod users;

#[cfg(test)]
mod tests;

use fates::Fate;
use rotogate_core::claim::ClaimPath;
use rotogate_core::clock;
use rotogate_core::route::hosts::is_loopback;
use settings::{SentTo, Settings};

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Remark {
    /// The name of the setting and its source, without its value.
    pub(super) setting: String,
    pub(super) why: String,
    #[serde(skip)]
    pub(super) key: Option<&'static str>,
    /// The start of the remark's configuration line.
    #[serde(skip)]
    line: Option<&'static str>,
}

#[derive(Default)]
pub(super) struct Imported {
    pub(super) text: String,
    /// The configuration without an unavailable feature, or `None` if all features are available.
    pub(super) without_feature: Option<String>,
    /// The names and contents of files with secrets.
    pub(super) secrets: Vec<(&'static str, SecretString)>,
    pub(super) remarks: Vec<Remark>,
}

/// Flags take precedence over variables, and variables over files.
pub(super) struct SettingSources<'a> {
    pub(super) flags: &'a [String],
    pub(super) variables: &'a [(String, String)],
    pub(super) files: &'a [PathBuf],
    pub(super) has_redis: bool,
}

pub(super) fn import(sources: &SettingSources<'_>) -> Result<Imported, String> {
    let mut settings = Settings::default();
    settings.read_flags(sources.flags.iter().cloned(), "the command line")?;
    let variables = sources.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
    settings.read_variables(variables, "the environment");
    if sources.files.is_empty() && settings.all().next().is_none() {
        return Err(
            "found no settings of oauth2-proxy: name its configuration files, or set the `OAUTH2_PROXY_*` variables \
             of its container"
                .to_owned(),
        );
    }
    let variable =
        |name: &str| sources.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    for file in sources.files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        settings.read_file(file, &text, &variable)?;
    }
    Import { settings, imported: Imported::default(), has_redis: sources.has_redis }.write()
}

struct Import {
    settings: Settings,
    imported: Imported,
    has_redis: bool,
}

const PROVIDER: &str = "idp";
const EMAIL: &str = "email";
/// The maximum `idle_ttl` of sessions with a provider login, in seconds.
const IDLE: u64 = 3 * 86_400;

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(values.into_iter().map(Value::from).collect())
}

impl Import {
    fn remark(&mut self, setting: &str, why: impl Into<String>) {
        let place = self.settings.all().find(|(name, _)| *name == setting).map(|(_, setting)| setting.place.clone());
        let line = fates::line(setting);
        self.imported.remarks.push(Remark {
            setting: place.unwrap_or_else(|| setting.to_owned()),
            why: why.into(),
            key: None,
            line,
        });
    }

    fn fill_in(&mut self, key: &'static str, setting: &str, why: impl Into<String>) {
        self.remark(setting, why);
        if let Some(remark) = self.imported.remarks.last_mut() {
            remark.key = Some(key);
        }
    }

    fn write(mut self) -> Result<Imported, String> {
        let fates = self.settings.all().filter_map(|(name, setting)| {
            let why = match fates::of_setting(name) {
                Fate::Written => return None,
                Fate::None(why) => why,
                Fate::Unknown => "is not known to this version of rotogate, so it was ignored",
            };
            Some(Remark { setting: setting.place.clone(), why: why.to_owned(), key: None, line: None })
        });
        self.imported.remarks = fates.collect();
        let (public_url, path) = self.public_url();
        let mut config = table([
            ("server", self.server(&public_url).into()),
            ("admin", table([("listen", "127.0.0.1:8081".into())]).into()),
            // The provider stores the users.
            ("directory", table([("kind", "none".into())]).into()),
            ("issuer", table([("audience", texts(["api"])), ("keys", "data/keys".into())]).into()),
            ("store", self.store()?.into()),
            ("identity", self.identity().into()),
        ]);
        let (issuers, roles) = self.issuers()?;
        let names =
            issuers.iter().filter_map(|issuer| Some(issuer.get("name")?.as_str()?.to_owned())).collect::<Vec<_>>();
        config.insert("issuers".to_owned(), issuers.into());
        let endpoint = self.endpoint(&path)?;
        config.insert("endpoints".to_owned(), Value::Array(vec![endpoint.into()]));
        routes::write(&mut self, &mut config, (&names, &roles))?;
        if !self.has_redis && config["store"].get("kind").is_some() {
            let embedded = table([("path", "data/rotogate.redb".into())]);
            let mut without = config.clone();
            without.insert("store".to_owned(), embedded.into());
            self.imported.without_feature = Some(written(without, &[])?);
        }
        self.imported.text = written(config, &self.imported.remarks)?;
        Ok(self.imported)
    }

    /// Returns a gate URL and browser path that preserve oauth2-proxy's redirect URI.
    fn public_url(&mut self) -> (String, String) {
        let prefix = self.settings.get("proxy_prefix").unwrap_or("/oauth2").to_owned();
        let url = self.settings.get("redirect_url").and_then(|url| url.parse::<Uri>().ok());
        let Some((url, authority)) = url.as_ref().and_then(|url| Some((url, url.authority()?))) else {
            let why = "is missing or is not an absolute URL: set `public_url` to the URL that browsers show";
            self.fill_in("server.public_url", "redirect_url", why);
            return (format!("http://localhost:{}", self.listen().map_or(4180, |at| at.port())), prefix);
        };
        let path = url.path().strip_suffix("/callback").map_or(prefix, str::to_owned);
        let mut scheme = url.scheme_str().unwrap_or("https");
        if scheme == "http" && !is_loopback(authority.host()) {
            scheme = "https";
            let why = "browsers store the cookie only over https: set up TLS here, or at a proxy in front of the gate";
            self.fill_in("server.tls", "redirect_url", why);
        }
        (format!("{scheme}://{authority}"), path)
    }

    /// Returns oauth2-proxy's HTTPS address if it has a certificate, otherwise its HTTP address.
    fn listen(&self) -> Option<SocketAddr> {
        let name = if self.settings.get("tls_cert_file").is_some() { "https_address" } else { "http_address" };
        let default = if name == "https_address" { ":443" } else { "127.0.0.1:4180" };
        let address = self.settings.get(name).unwrap_or(default);
        let address = address.trim_start_matches("https://").trim_start_matches("http://");
        let address = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
        address.replace("localhost", "127.0.0.1").parse().ok()
    }

    fn server(&mut self, public_url: &str) -> Table {
        let listen = self.listen().unwrap_or_else(|| {
            self.fill_in("server.listen", "http_address", "is not an IP address with a port: set `listen`");
            SocketAddr::from(([127, 0, 0, 1], 4180))
        });
        let mut server = table([("listen", listen.to_string().into()), ("public_url", public_url.into())]);
        if let (Some(cert), Some(key)) = (self.settings.get("tls_cert_file"), self.settings.get("tls_key_file")) {
            let tls = table([("cert", absolute(cert).into()), ("key", absolute(key).into())]);
            server.insert("tls".to_owned(), tls.into());
        }
        let proxies = self.settings.list("trusted_proxy_ips");
        if !proxies.is_empty() {
            server.insert("trusted_proxies".to_owned(), texts(proxies));
        } else if self.settings.is_on("reverse_proxy", false) {
            let why = "trusts every client: set `trusted_proxies` to the addresses of your proxies";
            self.fill_in("server.trusted_proxies", "reverse_proxy", why);
        }
        if let Some(name) = self.settings.get("request_id_header") {
            server.insert("request_id_header".to_owned(), name.to_ascii_lowercase().into());
        }
        server
    }

    fn store(&mut self) -> Result<Table, String> {
        if self.settings.get("session_store_type") != Some("redis") {
            return Ok(table([("path", "data/rotogate.redb".into())]));
        }
        let url = self.settings.get("redis_connection_url");
        let Some(url) = url.and_then(|url| url.parse::<Uri>().ok()) else {
            let why = "a Redis cluster or Sentinels cannot be imported: fill in `[store]` as docs/redis.md describes";
            self.fill_in("store.kind", "session_store_type", why);
            return Ok(table([("path", "data/rotogate.redb".into())]));
        };
        let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (name, in_url) = user.split_once(':').unwrap_or((user, ""));
        let decoded = |text: &'_ str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        let [name, in_url] = [decoded(name), decoded(in_url)]
            .map(|text| text.map_err(|_| "redis_connection_url: user and password must be UTF-8 in percent-encoding"));
        let (name, in_url) = (name?, in_url?);
        let address = format!("{}://{host}{}", url.scheme_str().unwrap_or("redis"), url.path().trim_end_matches('/'));
        let mut store = table([("kind", "redis".into()), ("urls", texts([&*address]))]);
        let password = self.settings.get("redis_password").unwrap_or(&in_url);
        if !password.is_empty() {
            self.imported.secrets.push(("redis.secret", password.into()));
            store.insert("password_file".to_owned(), "redis.secret".into());
            if !name.is_empty() {
                store.insert("username".to_owned(), name.into());
            }
        }
        if let Some(ca) = self.settings.get("redis_ca_path") {
            store.insert("ca".to_owned(), absolute(ca).into());
        }
        self.remark("session_store_type", "gates that share a store need the same key folder: see docs/nodes.md");
        if !self.has_redis {
            let needs = rotogate_config::value::needs_feature("\"redis\"", "redis");
            self.fill_in(
                "store.kind",
                "session_store_type",
                format!("{needs}. Or remove the keys of `[store]`; the gate then keeps its store in a file"),
            );
        }
        Ok(store)
    }

    fn identity(&mut self) -> Table {
        let (asked, passed) =
            (self.settings.is_on("set_xauthrequest", false), self.settings.is_on("pass_user_headers", true));
        if !asked && !passed {
            return Table::new();
        }
        if !asked {
            let why = "names such as `x-forwarded-user` have another meaning, so let the services read \
                       `x-auth-request-user`, `-email`, `-groups` and `-preferred-username`";
            self.remark("pass_user_headers", why);
        }
        let named = |name: &str| Value::from(format!("x-auth-request-{name}"));
        let headers = table([("subject", named("user")), ("roles", named("groups"))]);
        let address = self.address_claim().to_owned();
        // A header can only be filled from a top-level claim.
        let is_inner = address.contains('.') && ClaimPath::parse(&address).is_ok();
        if is_inner {
            self.remark(
                "oidc_email_claim",
                "services do not get `x-auth-request-email`, because the claim is nested in another claim",
            );
        }
        let email = (!is_inner).then_some(("email", &*address));
        let claims = email.into_iter().chain([("preferred-username", "preferred_username")]);
        let claims = claims.map(|(name, claim)| (format!("x-auth-request-{name}"), Value::from(claim)));
        table([("headers", headers.into()), ("claims", claims.collect::<Table>().into())])
    }

    /// Adds remarks about changed URLs.
    fn urls(&mut self, path: &str) {
        let old = self.settings.get("proxy_prefix").unwrap_or("/oauth2").to_owned();
        let login = format!("use {path}/login?to=PAGE instead");
        for (url, why) in [
            (format!("{old}/sign_in"), login.clone()),
            (format!("{old}/start?rd=PAGE"), login),
            (format!("{old}/sign_out"), format!("POST {path}/logout ends the session; GET shows a page with a button")),
            (format!("{old}/userinfo"), format!("GET {path}/session returns the user")),
            (
                format!("{old}/auth"),
                "a proxy sends its authorization requests to the listener of `[[authorizers]]`: see \
                 docs/forward-auth.md"
                    .to_owned(),
            ),
            (format!("{old}/static/"), "has no counterpart".to_owned()),
            ("/ping, /ready".to_owned(), "use the probes `/livez` and `/readyz` of the `[admin]` listener".to_owned()),
            ("/robots.txt".to_owned(), "has no counterpart; the gate forwards the request to the upstream".to_owned()),
        ] {
            let line = Some("[[endpoints]]");
            self.imported.remarks.push(Remark { setting: format!("URL {url}"), why, key: None, line });
        }
    }

    fn endpoint(&mut self, path: &str) -> Result<Table, String> {
        let settings = &self.settings;
        let mut client = table([("id", settings.get("client_id").unwrap_or_default().into())]);
        if let Some(file) = settings.get("client_secret_file") {
            client.insert("secret_file".to_owned(), absolute(file).into());
        } else if let Some(secret) = settings.get("client_secret") {
            self.imported.secrets.push(("idp.secret", secret.into()));
            client.insert("secret_file".to_owned(), "idp.secret".into());
        }
        let scopes = settings.get("scope").unwrap_or("openid email profile").split(' ');
        let mut endpoint = table([
            ("dialect", "browser".into()),
            ("path", path.into()),
            ("provider", PROVIDER.into()),
            ("client", client.into()),
            ("scopes", texts(scopes.filter(|scope| !scope.is_empty() && *scope != "openid"))),
        ]);
        let parameters = ["prompt", "acr_values", "approval_prompt"];
        let parameters =
            parameters.iter().filter_map(|name| Some(((*name).to_owned(), settings.get(name)?.to_owned())));
        let parameters = parameters.chain(settings.parameters.iter().cloned());
        let parameters: Table = parameters.map(|(name, value)| (name, value.into())).collect();
        if !parameters.is_empty() {
            endpoint.insert("parameters".to_owned(), parameters.into());
        }
        let expire = settings.get("cookie_expire").unwrap_or("168h");
        // A value below one second must not be rounded to zero, because zero means a session cookie.
        let life = go_duration(expire).filter(|life| life.is_zero() || life.as_secs() > 0);
        let life = life.ok_or("cookie_expire: expected a duration such as 168h")?.as_secs();
        if life == 0 {
            endpoint.insert("persistent".to_owned(), false.into());
        } else {
            let idle = life.min(IDLE);
            let of = |seconds| Value::from(clock::written(Duration::from_secs(seconds)));
            let mut profile = table([("session_ttl", of(life)), ("idle_ttl", of(idle))]);
            if idle < 1200 {
                profile.insert("access_ttl".to_owned(), of(idle / 2));
            }
            endpoint.insert("profile".to_owned(), profile.into());
            if idle < life {
                let why = format!(
                    "a session ends after {} without a request, even before `cookie_expire`",
                    clock::written(Duration::from_secs(idle))
                );
                self.remark("cookie_expire", why);
            }
        }
        self.urls(path);
        Ok(endpoint)
    }
}

/// Each remark becomes a comment above its line, or at the top.
fn written(mut config: Table, remarks: &[Remark]) -> Result<String, String> {
    let sections = [
        "server",
        "admin",
        "issuer",
        "store",
        "directory",
        "issuers",
        "endpoints",
        "identity",
        "authorizers",
        "upstreams",
        "routes",
    ];
    let mut lines = Vec::new();
    for name in sections {
        let Some(section) = config.remove(name) else { continue };
        let text = toml::to_string(&table([(name, section)])).map_err(|error| error.to_string())?;
        lines.extend(text.lines().map(str::to_owned));
        lines.push(String::new());
    }
    let mut top = vec![
        "# Written by `rotogate init --from-oauth2-proxy`. `rotogate config reference` prints every key.".to_owned(),
    ];
    for Remark { setting, why, key: _, line } in remarks {
        // A setting may contain a file name with control characters.
        let setting: String = setting.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let at = line.and_then(|line| lines.iter().position(|written| written.starts_with(line)));
        match at {
            Some(at) => lines.insert(at, format!("# - {setting}: {why}")),
            None => top.push(format!("# - {setting}: {why}")),
        }
    }
    top.push(String::new());
    top.extend(lines);
    Ok(top.join("\n"))
}

/// Parses a Go duration such as `1h30m` or `1.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut whole) = (text, Duration::ZERO);
    if text == "0" {
        return Some(whole);
    }
    loop {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, next) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        (rest, whole) = (next, whole.checked_add(part)?);
        if rest.is_empty() {
            return Some(whole);
        }
    }
}

/// oauth2-proxy resolves paths from its working directory. The gate resolves paths from the folder of `gateway.toml`.
fn absolute(path: &str) -> String {
    std::path::absolute(Path::new(path)).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}
