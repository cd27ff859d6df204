//! Issuers of an oauth2-proxy configuration, and their rules for users.

use http::Uri;
use rotogate_core::claim::ClaimPath;
use rotogate_core::route::hosts::is_loopback;
use toml::{Table, Value};

use super::{EMAIL, Import, PROVIDER, absolute, fates, table, texts};

const REQUIRE: &str = "issuers[0].require";

impl Import {
    pub(super) fn provider(&self) -> &str {
        self.settings.get("provider").unwrap_or("google")
    }

    /// The claim with the email address. The deprecated setting `user_id_claim` applies if `oidc_email_claim` has its
    /// default value. Google's provider ignores both settings.
    pub(super) fn address_claim(&self) -> &str {
        let set = |name| self.settings.get(name).filter(|claim| *claim != EMAIL && self.provider() != "google");
        set("oidc_email_claim").or_else(|| set("user_id_claim")).unwrap_or(EMAIL)
    }

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
            format!(
                "provider \"{provider}\" has no `oidc_issuer_url`, but a login needs an OpenID provider with \
                 discovery. If the provider supports only OAuth, put an OpenID provider such as Dex or Keycloak in \
                 front of it"
            )
        })?;
        let is_entra = url.starts_with("https://login.microsoftonline.com/") && url.ends_with("/v2.0");
        let preset = if is_entra { "entra-v2" } else { preset };
        let address = url.parse::<Uri>().ok();
        if address.is_some_and(|at| at.scheme_str() == Some("http") && !at.host().is_some_and(is_loopback)) {
            let why = "`oidc_issuer_url` is an http URL, so the gate could not authenticate the provider. Give the \
                       provider a certificate first, because the gate connects only over https or to a loopback \
                       address";
            return Err(why.to_owned());
        }
        let client = settings
            .get("client_id")
            .ok_or("client_id is missing; expected the id of the gate's client at the provider")?;
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
                "allowed_groups and allowed_roles are both set, so a user must have one of each. A route has only one \
                 list of roles: keep only one of the two settings"
                    .into(),
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
        // oauth2-proxy applies the same claims and requirements to tokens of additional issuers.
        let of_users: Table = ["claims", "require"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), issuer.get(key)?.clone())))
            .collect();
        let mut issuers = vec![Value::Table(issuer)];
        issuers.extend(self.further_issuers(&of_users)?);
        Ok((issuers, roles))
    }

    fn further_issuers(&self, of_users: &Table) -> Result<Vec<Value>, String> {
        let pairs = self.settings.list("extra_jwt_issuers").into_iter().enumerate();
        let issuers = pairs.map(|(index, pair)| {
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
            Ok(further.into())
        });
        issuers.collect()
    }

    /// Requires a verified email address, except for Entra ID, whose tokens lack this claim.
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
                "this claim decides who may log in. As in oauth2-proxy, `email_verified` is not required, because it \
                 describes the claim `email`",
            );
            return Table::new();
        }
        let is_needless = self.settings.is_on("insecure_oidc_allow_unverified_email", false);
        if is_needless || !is_asked || ["azure", "entra-id"].contains(&provider) {
            return Table::new();
        }
        if !["google", "keycloak-oidc"].contains(&provider) {
            let why = "also refuses a user whose ID token does not contain `email_verified`. If the provider does not \
                       send this claim, remove it from `require`";
            self.remark("email_verified", why);
        }
        table([("email_verified", true.into())])
    }

    fn required(&mut self, provider: &str) -> Result<Table, String> {
        if self.settings.list("provider_ca_files").len() > 1 {
            self.remark(
                "provider_ca_files",
                "`fetch.ca` takes only one file, so only the first file was imported: put all certificates into one \
                 file",
            );
        }
        let mut require = self.verified_address(provider);
        let address = self.address_claim();
        // A name that is not a valid path is quoted as one segment.
        let address = if ClaimPath::parse(address).is_ok() { address.to_owned() } else { format!("\"{address}\"") };
        for name in fates::MEMBERS {
            let members = self.settings.list(name);
            if !members.is_empty() {
                require.insert(name.to_owned(), texts(members));
                let why = format!(
                    "the gate does not call the provider's API. NO USER CAN LOG IN until the provider adds a claim \
                     `{name}`, or until you remove the claim from `require`, which admits all users of the provider"
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
            self.remark(
                "authenticated_emails_file",
                "the addresses in the file were copied to `require`; add new addresses there",
            );
        }
        let claim = if provider == "google" { "hd" } else { "email_domain" };
        let domains = self.settings.list("email_domains");
        if domains.is_empty() && !require.contains_key(&address) {
            // oauth2-proxy does not start without `email_domains`. The added rule refuses all users.
            require.insert(claim.to_owned(), texts(["no email_domains was set"]));
            let why = format!(
                "is not set, but oauth2-proxy does not start without it, so it may be in another file or in a flag. \
                 NO USER CAN LOG IN until you also import that setting, or until you remove `{claim}` from `require`, \
                 which admits all users of the provider"
            );
            self.fill_in(REQUIRE, "email_domains", why);
            return Ok(require);
        }
        if domains.is_empty() || domains.contains(&"*") {
            return Ok(require);
        }
        if require.contains_key(&address) {
            self.remark("email_domains", "admits whole domains, but `require` lists addresses; add the missing ones");
            return Ok(require);
        }
        require.insert(claim.to_owned(), texts(domains));
        if claim != "hd" {
            let why = "the gate cannot compare the domain of an address. NO USER CAN LOG IN until the provider adds a \
                       claim `email_domain`, or until you remove the claim from `require`, which admits all users of \
                       the provider";
            self.fill_in(REQUIRE, "email_domains", why);
        }
        Ok(require)
    }
}
