//! Issuers of a configuration of oauth2-proxy, and the rules that say which of their users may log in.

use http::Uri;
use rotogate_core::claim::ClaimPath;
use rotogate_core::route::hosts::is_loopback;
use toml::{Table, Value};

use super::{EMAIL, Import, PROVIDER, absolute, fates, table, texts};

/// The key of the rules that every user must meet.
const REQUIRE: &str = "issuers[0].require";

impl Import {
    pub(super) fn provider(&self) -> &str {
        self.settings.get("provider").unwrap_or("google")
    }

    /// The claim that oauth2-proxy takes for the address of a user. The deprecated name of the setting counts if the other
    /// has its default. Google's provider reads neither.
    pub(super) fn address_claim(&self) -> &str {
        let set = |name| self.settings.get(name).filter(|claim| *claim != EMAIL && self.provider() != "google");
        set("oidc_email_claim").or_else(|| set("user_id_claim")).unwrap_or(EMAIL)
    }

    /// The provider and further issuers, and the roles that routes require.
    pub(super) fn issuers(&mut self) -> Result<(Vec<Value>, Vec<String>), String> {
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
        let is_entra = url.starts_with("https://login.microsoftonline.com/") && url.ends_with("/v2.0");
        let preset = if is_entra { "entra-v2" } else { preset };
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
                self.fill_in(REQUIRE, name, why);
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
        let claim = if provider == "google" { "hd" } else { "email_domain" };
        let domains = self.settings.list("email_domains");
        if domains.is_empty() && !require.contains_key(&address) {
            // oauth2-proxy does not start so. All users of the provider would be more than it ever admitted.
            require.insert(claim.to_owned(), texts(["no email_domains was set"]));
            let why = format!(
                "is not set, and oauth2-proxy does not start without it: it may be in another file or in a flag. NO USER CAN LOG IN \
                 before you import that, too, or remove {claim} from require, which admits all users of the provider"
            );
            self.fill_in(REQUIRE, "email_domains", why);
            return Ok(require);
        }
        if domains.is_empty() || domains.contains(&"*") {
            return Ok(require);
        }
        if require.contains_key(&address) {
            self.remark("email_domains", "admits more than the addresses in require; add theirs");
            return Ok(require);
        }
        require.insert(claim.to_owned(), texts(domains));
        if claim != "hd" {
            let why = "no rule compares the end of an address. NO USER CAN LOG IN before the provider adds a claim email_domain, \
                       or you remove it from require, which admits all its users";
            self.fill_in(REQUIRE, "email_domains", why);
        }
        Ok(require)
    }
}
