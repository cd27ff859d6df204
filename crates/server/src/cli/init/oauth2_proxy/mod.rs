//! `rotogate init --from-oauth2-proxy`: writes a gateway.toml with the behaviour of an oauth2-proxy
//! configuration.
//!
//! The new configuration never admits more than the old one. A route without login is written only if its pattern
//! has the same meaning in this gate. A restriction of users that no key can express becomes a rule that refuses
//! every user, with a comment.

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

#[cfg(test)]
mod tests;

use fates::Fate;
use rotogate_core::claim::ClaimPath;
use rotogate_core::route::hosts::is_loopback;
use settings::{SentTo, Settings};

/// A setting without a counterpart, or with a counterpart under a condition.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Remark {
    /// The name of the setting, and the file or flag that sets it. Never its value.
    pub(super) setting: String,
    pub(super) why: String,
}

/// The result of an import.
#[derive(Default)]
pub(super) struct Imported {
    pub(super) text: String,
    /// Files with secrets, by their name beside gateway.toml.
    pub(super) secrets: Vec<(&'static str, SecretString)>,
    pub(super) remarks: Vec<Remark>,
}

/// The sources of settings. Flags have precedence over variables, and variables over files.
pub(super) struct SettingSources<'a> {
    pub(super) flags: &'a [String],
    pub(super) variables: &'a [(String, String)],
    pub(super) files: &'a [PathBuf],
}

/// Reads all sources, and writes the configuration.
pub(super) fn import(sources: &SettingSources<'_>) -> Result<Imported, String> {
    let mut settings = Settings::default();
    settings.read_flags(sources.flags.iter().cloned(), "the command line")?;
    let variables = sources.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
    settings.read_variables(variables, "the environment");
    if sources.files.is_empty() && settings.all().next().is_none() {
        return Err(
            "no setting of oauth2-proxy: name its files, or set OAUTH2_PROXY_* as its container does".to_owned()
        );
    }
    let variable =
        |name: &str| sources.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    for file in sources.files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        settings.read_file(file, &text, &variable)?;
    }
    Import { settings, imported: Imported::default() }.write()
}

struct Import {
    settings: Settings,
    imported: Imported,
}

/// The name of the provider in the configuration.
const PROVIDER: &str = "idp";
/// The claim with the address of a user, by default.
const EMAIL: &str = "email";
/// The longest `idle_ttl` of sessions that began at a provider.
const IDLE: u64 = 3 * 86_400;

/// A table of these entries.
fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(values.into_iter().map(Value::from).collect())
}

impl Import {
    fn remark(&mut self, setting: &str, why: impl Into<String>) {
        let place = self.settings.all().find(|(name, _)| *name == setting).map(|(_, setting)| setting.place.clone());
        self.imported.remarks.push(Remark { setting: place.unwrap_or_else(|| setting.to_owned()), why: why.into() });
    }

    fn write(mut self) -> Result<Imported, String> {
        let fates = self.settings.all().filter_map(|(name, setting)| {
            let why = match fates::of_setting(name) {
                Fate::Written => return None,
                Fate::None(why) => why,
                Fate::Unknown => "is not known to this version of rotogate, and was not read",
            };
            Some(Remark { setting: setting.place.clone(), why: why.to_owned() })
        });
        self.imported.remarks = fates.collect();
        let (public_url, path) = self.public_url();
        let mut config = table([
            ("server", self.server(&public_url).into()),
            ("admin", table([("listen", "127.0.0.1:8081".into())]).into()),
            // The users are in the provider's directory.
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
        let config = toml::to_string(&config).map_err(|error| error.to_string())?;
        let mut text =
            "# Written by `rotogate init --from-oauth2-proxy`. `rotogate config reference` prints every key.\n"
                .to_owned();
        for Remark { setting, why } in &self.imported.remarks {
            // Places contain file names, which may have control characters.
            let setting: String = setting.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            text += &format!("# - {setting}: {why}\n");
        }
        self.imported.text = format!("{text}\n{config}");
        Ok(self.imported)
    }

    /// The URL of the gate and the path of the endpoint, chosen so that the redirect URI stays the same.
    fn public_url(&mut self) -> (String, String) {
        let prefix = self.settings.get("proxy_prefix").unwrap_or("/oauth2").to_owned();
        let url = self.settings.get("redirect_url").and_then(|url| url.parse::<Uri>().ok());
        let Some((url, authority)) = url.as_ref().and_then(|url| Some((url, url.authority()?))) else {
            self.remark("redirect_url", "is not there: write public_url, the URL that browsers show");
            return (format!("http://localhost:{}", self.listen().map_or(4180, |at| at.port())), prefix);
        };
        let path = url.path().strip_suffix("/callback").map_or(prefix, str::to_owned);
        let mut scheme = url.scheme_str().unwrap_or("https");
        if scheme == "http" && !is_loopback(authority.host()) {
            scheme = "https";
            self.remark("redirect_url", "browsers keep the cookie over https alone: put TLS here or before the gate");
        }
        (format!("{scheme}://{authority}"), path)
    }

    /// The address to listen on; with a certificate, the https address of oauth2-proxy.
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
            self.remark("http_address", "is no address and port: write listen");
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
            self.remark("reverse_proxy", "trusts every client: write trusted_proxies, the addresses of your proxies");
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
            self.remark("session_store_type", "a cluster or Sentinels: write [store], docs/redis.md has the keys");
            return Ok(table([("path", "data/rotogate.redb".into())]));
        };
        // Removes a user name and password before the host.
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
        self.remark("session_store_type", "gates of one store need the same keys: docs/nodes.md");
        Ok(store)
    }

    /// The identity headers for services, with the names of `--set-xauthrequest`.
    fn identity(&mut self) -> Table {
        let (asked, passed) =
            (self.settings.is_on("set_xauthrequest", false), self.settings.is_on("pass_user_headers", true));
        if !asked && !passed {
            return Table::new();
        }
        if !asked {
            let why = "names such as x-forwarded-user have a meaning of their own: services read x-auth-request-user, \
                       -email, -groups and -preferred-username";
            self.remark("pass_user_headers", why);
        }
        let named = |name: &str| Value::from(format!("x-auth-request-{name}"));
        let headers = table([("subject", named("user")), ("roles", named("groups"))]);
        let address = self.address_claim().to_owned();
        // A header has a claim of the token itself, not one inside another.
        let is_inner = address.contains('.') && ClaimPath::parse(&address).is_ok();
        if is_inner {
            self.remark("oidc_email_claim", "services get no x-auth-request-email: the claim is inside another");
        }
        let email = (!is_inner).then_some(("email", &*address));
        let claims = email.into_iter().chain([("preferred-username", "preferred_username")]);
        let claims = claims.map(|(name, claim)| (format!("x-auth-request-{name}"), Value::from(claim)));
        table([("headers", headers.into()), ("claims", claims.collect::<Table>().into())])
    }

    fn provider(&self) -> &str {
        self.settings.get("provider").unwrap_or("google")
    }

    /// The claim that oauth2-proxy takes for the address of a user. The deprecated name of the setting counts if the other
    /// has its default. Google's provider reads neither.
    fn address_claim(&self) -> &str {
        let set = |name| self.settings.get(name).filter(|claim| *claim != EMAIL && self.provider() != "google");
        set("oidc_email_claim").or_else(|| set("user_id_claim")).unwrap_or(EMAIL)
    }

    /// The provider and further issuers, and the roles that routes require.
    fn issuers(&mut self) -> Result<(Vec<Value>, Vec<String>), String> {
        let (settings, provider) = (&self.settings, self.provider().to_owned());
        let (preset, url) = match &*provider {
            "google" => ("oidc", Some("https://accounts.google.com".to_owned())),
            "azure" | "entra-id" => {
                let tenant = settings.get("azure_tenant");
                ("entra-v2", tenant.map(|tenant| format!("https://login.microsoftonline.com/{tenant}/v2.0")))
            }
            "gitlab" => ("oidc", Some("https://gitlab.com".to_owned())),
            "keycloak-oidc" => ("keycloak", None),
            _ => ("oidc", None),
        };
        let url = settings.get("oidc_issuer_url").map(str::to_owned).or(url).ok_or_else(|| {
            format!("provider \"{provider}\" has no oidc_issuer_url: a login needs an OpenID provider with discovery. Put one, \
                     such as Dex or Keycloak, before a provider that speaks OAuth alone")
        })?;
        let address = url.parse::<Uri>().ok();
        if address.is_some_and(|at| at.scheme_str() == Some("http") && !at.host().is_some_and(is_loopback)) {
            let why = "oidc_issuer_url is http: nothing would tell the provider from another server. The gate asks it over https, or \
                       on a loopback address. Give it a certificate first";
            return Err(why.to_owned());
        }
        let client = settings.get("client_id").ok_or("client_id is missing: the gate's client at the provider")?;
        let audience = std::iter::once(client).chain(settings.list("oidc_extra_audiences"));
        let mut issuer = table([
            ("name", PROVIDER.into()),
            ("url", url.into()),
            ("audience", texts(audience)),
            ("preset", preset.into()),
            ("discovery", true.into()),
        ]);
        let (groups, allowed) = (settings.list("allowed_groups"), settings.list("allowed_roles"));
        if !groups.is_empty() && !allowed.is_empty() {
            return Err(
                "with allowed_groups and allowed_roles a user must have one of each, and a route has one list of roles: keep one of the two".into()
            );
        }
        let claim = if allowed.is_empty() {
            settings.get("oidc_groups_claim").unwrap_or("groups")
        } else {
            "realm_access.roles"
        };
        issuer.insert("claims".to_owned(), table([("roles", texts([claim]))]).into());
        let roles = groups.into_iter().chain(allowed).map(str::to_owned).collect();
        if let Some(ca) = settings.list("provider_ca_files").first() {
            issuer.insert("fetch".to_owned(), table([("ca", absolute(ca).into())]).into());
        }
        if settings.is_on("skip_jwt_bearer_tokens", false) {
            issuer.insert("everywhere".to_owned(), true.into());
        }
        let require = self.required(&provider)?;
        if !require.is_empty() {
            issuer.insert("require".to_owned(), require.into());
        }
        // Tokens of further issuers passed the same rules.
        let of_users: Table = ["claims", "require"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), issuer.get(key)?.clone())))
            .collect();
        let mut issuers = vec![Value::Table(issuer)];
        for (index, pair) in self.settings.list("extra_jwt_issuers").into_iter().enumerate() {
            let (url, audience) = pair.split_once('=').ok_or("extra_jwt_issuers: expected issuer=audience")?;
            let name = format!("extra{}", index + 1);
            let mut further = table([
                ("subject_prefix", format!("{name}|").into()),
                ("name", name.into()),
                ("url", url.into()),
                ("audience", texts([audience])),
                ("preset", "oidc".into()),
                ("discovery", true.into()),
                ("everywhere", true.into()),
            ]);
            further.extend(of_users.clone());
            issuers.push(further.into());
        }
        Ok((issuers, roles))
    }

    /// The rule that a user's e-mail address must be verified. Entra ID has no such claim, so oauth2-proxy does not
    /// require it there.
    fn verified_address(&mut self, provider: &str) -> Table {
        let is_asked = self.settings.get("scope").is_none_or(|scope| scope.split(' ').any(|scope| scope == "email"));
        if self.address_claim() != EMAIL {
            let name = if self.settings.get("oidc_email_claim").is_some_and(|claim| claim != EMAIL) {
                "oidc_email_claim"
            } else {
                "user_id_claim"
            };
            self.remark(
                name,
                "users are admitted by this claim; email_verified, which is about email, is not required, as before",
            );
            return Table::new();
        }
        let is_needless = self.settings.is_on("insecure_oidc_allow_unverified_email", false);
        if is_needless || !is_asked || ["azure", "entra-id"].contains(&provider) {
            return Table::new();
        }
        if !["google", "keycloak-oidc"].contains(&provider) {
            let why = "refuses a user whose ID token has no email_verified, too: remove it from require if the provider has no \
                       such claim";
            self.remark("email_verified", why);
        }
        table([("email_verified", true.into())])
    }

    /// The conditions for a user to log in.
    fn required(&mut self, provider: &str) -> Result<Table, String> {
        if self.settings.list("provider_ca_files").len() > 1 {
            self.remark(
                "provider_ca_files",
                "fetch.ca is one file, the first of these: put all certificates into one file",
            );
        }
        let mut require = self.verified_address(provider);
        let address = self.address_claim();
        // A name that is no path is one segment.
        let address = if ClaimPath::parse(address).is_ok() { address.to_owned() } else { format!("\"{address}\"") };
        for name in fates::MEMBERS {
            let members = self.settings.list(name);
            if !members.is_empty() {
                require.insert(name.to_owned(), texts(members));
                let why = format!(
                    "the gate asks no API of a provider. NO USER CAN LOG IN before the provider adds a claim {name}, or you \
                     remove it from require, which admits all its users"
                );
                self.remark(name, why);
            }
        }
        let tenants = self.settings.list(fates::TENANTS);
        if !tenants.is_empty() {
            require.insert("tid".to_owned(), texts(tenants));
        }
        if let Some(file) = self.settings.get("authenticated_emails_file") {
            let text = std::fs::read_to_string(file).map_err(|error| format!("authenticated_emails_file: {error}"))?;
            let emails = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            require.insert(address.clone(), texts(emails));
            self.remark("authenticated_emails_file", "its addresses are in require; later ones are added there");
        }
        let domains = self.settings.list("email_domains");
        if domains.is_empty() || domains.contains(&"*") {
            return Ok(require);
        }
        if require.contains_key(&address) {
            self.remark("email_domains", "admits more than the addresses in require; add theirs");
            return Ok(require);
        }
        let claim = if provider == "google" { "hd" } else { "email_domain" };
        require.insert(claim.to_owned(), texts(domains));
        if claim != "hd" {
            let why = "no rule compares the end of an address. NO USER CAN LOG IN before the provider adds a claim email_domain, \
                       or you remove it from require, which admits all its users";
            self.remark("email_domains", why);
        }
        Ok(require)
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
        // Less than a second must not become a session without an end of its own.
        let life = go_duration(expire).filter(|life| life.is_zero() || life.as_secs() > 0);
        let life = life.ok_or("cookie_expire: expected a duration such as 168h")?.as_secs();
        if life == 0 {
            endpoint.insert("persistent".to_owned(), false.into());
        } else {
            let idle = life.min(IDLE);
            let mut profile =
                table([("session_ttl", format!("{life}s").into()), ("idle_ttl", format!("{idle}s").into())]);
            if idle < 1200 {
                profile.insert("access_ttl".to_owned(), format!("{}s", idle / 2).into());
            }
            endpoint.insert("profile".to_owned(), profile.into());
        }
        Ok(endpoint)
    }
}

/// A duration as Go writes it, such as `1h30m` or `1.5s`.
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

/// Makes a path absolute: oauth2-proxy resolves a relative path from its working directory, but gateway.toml
/// from the folder of the file.
fn absolute(path: &str) -> String {
    std::path::absolute(Path::new(path)).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}
