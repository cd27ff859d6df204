//! How an import treats each setting of oauth2-proxy.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Written,
    None(&'static str),
    Unknown,
}

use Fate::{None as Gone, Written};

const ALWAYS: Fate = Gone("this is always on, and cannot be switched off");
const KEYRING: Fate = Gone("the gate seals cookies with its own keyring, which it creates at the first start");
const FIXED: Fate = Gone("the cookie has a fixed name, the path `/`, and is valid for one host");
const NO_PAGE: Fate = Gone("the gate does not show a page before the provider's login page");
const DISCOVERY: Fate = Gone("the gate reads this from the provider's discovery document");
const LOGS: Fate = Gone("the gate's log has its own format: see `[log]`");
const TOKENS: Fate = Gone(
    "the gate does not forward the ID token; the service gets identity headers, or the assertion that `[identity]` \
     sets up",
);
const BASIC: Fate = Gone("the gate does not send a password to a service; the service gets identity headers");
const NO_SKIP: Fate = Gone("the gate always verifies certificates; name your certificate authority in `ca`");
const PROVIDERS_API: Fate = Gone("the gate does not call the provider's API; it uses the claims of the ID token");
const PROBES: Fate = Gone("use the probes `/livez` and `/readyz` of the `[admin]` listener");
const METRICS: Fate = Gone("the `[admin]` listener serves `/metrics`");
const HEADERS: Fate =
    Gone("`[identity]` names the headers for services; responses to browsers do not get such headers");
const REDIS: Fate = Gone("`[store]` has its own keys for Redis: see docs/redis.md");

/// Login restrictions by data that is not in tokens.
pub(super) const MEMBERS: [&str; 10] = [
    "bitbucket_repository",
    "bitbucket_team",
    "github_org",
    "github_repo",
    "github_team",
    "github_users",
    "gitlab_groups",
    "gitlab_projects",
    "google_groups",
    "keycloak_groups",
];
/// The setting with the allowed tenants. The ID token names its tenant in `tid`.
pub(super) const TENANTS: &str = "entra_id_allowed_tenants";

const SETTINGS: &[(&[&str], Fate)] = &[
    (&MEMBERS, Written),
    (&[TENANTS], Written),
    (
        &[
            "provider",
            "oidc_issuer_url",
            "client_id",
            "client_secret",
            "client_secret_file",
            "scope",
            "redirect_url",
            "upstreams",
            "http_address",
            "https_address",
            "tls_cert_file",
            "tls_key_file",
            "email_domains",
            "authenticated_emails_file",
            "allowed_groups",
            "allowed_roles",
            "oidc_groups_claim",
            "oidc_email_claim",
            "user_id_claim",
            "oidc_extra_audiences",
            "azure_tenant",
            "prompt",
            "acr_values",
            "approval_prompt",
            "cookie_expire",
            "skip_auth_routes",
            "skip_auth_regex",
            "api_routes",
            "skip_jwt_bearer_tokens",
            "extra_jwt_issuers",
            "insecure_oidc_allow_unverified_email",
            "pass_access_token",
            "pass_user_headers",
            "set_xauthrequest",
            "pass_host_header",
            "proxy_websockets",
            "upstream_timeout",
            "reverse_proxy",
            "trusted_proxy_ips",
            "proxy_prefix",
            "session_store_type",
            "redis_connection_url",
            "redis_password",
            "redis_ca_path",
            "request_id_header",
            "provider_ca_files",
            "config",
            "alpha_config",
        ],
        Written,
    ),
    (
        &[
            "code_challenge_method",
            "insecure_oidc_skip_nonce",
            "insecure_oidc_skip_issuer_verification",
            "cookie_httponly",
            "cookie_secure",
            "cookie_csrf_per_request",
            "cookie_csrf_expire",
            "cookie_csrf_samesite",
            "encode_state",
            "cookie_csrf_per_request_limit",
            "force_https",
            "flush_interval",
            "auth_request_response_mode",
        ],
        ALWAYS,
    ),
    (&["cookie_secret", "cookie_secret_file"], KEYRING),
    (&["cookie_name", "cookie_path", "cookie_domains"], FIXED),
    (&["cookie_refresh"], Gone("the gate renews a session by itself, once per `access_ttl`")),
    (
        &["cookie_samesite"],
        Gone("the cookie has `SameSite=Lax`; `same_site = \"strict\"` needs `login = \"never\"` on the routes"),
    ),
    (&["session_cookie_minimal"], Gone("the cookie contains only a handle of 106 bytes")),
    (
        &[
            "skip_provider_button",
            "provider_display_name",
            "banner",
            "footer",
            "custom_sign_in_logo",
            "custom_templates_dir",
            "show_debug_on_error",
            "display_htpasswd_form",
        ],
        NO_PAGE,
    ),
    (
        &[
            "login_url",
            "redeem_url",
            "oidc_jwks_url",
            "skip_oidc_discovery",
            "oidc_public_key_files",
            "oidc_enabled_signing_algs",
        ],
        DISCOVERY,
    ),
    (
        &[
            "profile_url",
            "validate_url",
            "skip_claims_from_profile_url",
            "google_admin_email",
            "google_service_account_json",
            "google_use_application_default_credentials",
            "google_target_principal",
            "google_use_organization_id",
            "google_admin_api_user_scope",
            "github_token",
            "azure_graph_group_field",
            "resource",
            "pubjwk_url",
            "jwt_key",
            "jwt_key_file",
            "entra_id_federated_token_auth",
            "additional_claims",
        ],
        PROVIDERS_API,
    ),
    (&["oidc_audience_claims"], Gone("`claims` of the `[[issuers]]` entry names the claims that the gate reads")),
    (&["pass_authorization_header", "set_authorization_header"], TOKENS),
    (&["pass_basic_auth", "set_basic_auth", "basic_auth_password", "prefer_email_to_user", "signature_key"], BASIC),
    (&["skip_auth_strip_headers"], Gone("the gate always removes identity headers that a client sends")),
    (&["inject_request_headers", "inject_response_headers"], HEADERS),
    (&["ssl_insecure_skip_verify", "ssl_upstream_insecure_skip_verify", "insecure_skip_tlsverify"], NO_SKIP),
    (&["redis_insecure_skip_tls_verify"], NO_SKIP),
    (
        &[
            "redis_cluster_connection_urls",
            "redis_use_cluster",
            "redis_use_sentinel",
            "redis_sentinel_password",
            "redis_sentinel_master_name",
            "redis_sentinel_connection_urls",
            "redis_connection_idle_timeout",
        ],
        REDIS,
    ),
    (
        &[
            "auth_logging",
            "auth_logging_format",
            "errors_to_info_log",
            "exclude_logging_paths",
            "logging_compress",
            "logging_filename",
            "logging_local_time",
            "logging_max_age",
            "logging_max_backups",
            "logging_max_size",
            "request_logging",
            "request_logging_format",
            "silence_ping_logging",
            "standard_logging",
            "standard_logging_format",
        ],
        LOGS,
    ),
    (&["ping_path", "ping_user_agent", "ready_path", "gcp_healthchecks"], PROBES),
    (
        &[
            "metrics_address",
            "metrics_secure_address",
            "metrics_tls_cert_file",
            "metrics_tls_key_file",
            "metrics_server",
        ],
        METRICS,
    ),
    (
        &["use_system_trust_store"],
        Gone(
            "the gate trusts only the authority in `fetch.ca` of the issuer or, without that key, those of the system",
        ),
    ),
    (
        &["tls_cipher_suites", "tls_min_version", "server_tls_min_version"],
        Gone("the gate supports only TLS 1.2 and 1.3, with secure cipher suites"),
    ),
    (
        &["whitelist_domains"],
        Gone(
            "after a login, the gate redirects only to pages of `public_url`; to allow other origins, list them in \
             `[cors]` with `allow_credentials`",
        ),
    ),
    (&["backend_logout_url"], Gone("a logout automatically redirects to the provider's end-session page")),
    (
        &["bearer_token_login_fallback"],
        Gone("a request with an invalid token gets 401, even if the request also has a session cookie"),
    ),
    (
        &["force_json_errors"],
        Gone("on a route with `login = \"never\"`, the gate responds with 401 instead of a redirect"),
    ),
    (
        &["htpasswd_file", "htpasswd_user_groups"],
        Gone("an endpoint has one kind of login; without `provider`, the gate's own users log in"),
    ),
    (
        &["real_client_ip_header"],
        Gone("the gate reads the client's address from `X-Forwarded-For`, if a proxy in `trusted_proxies` sent it"),
    ),
    (&["relative_redirect_url"], Gone("the redirect URI is fixed, and does not depend on the request's host")),
    (
        &["skip_auth_preflight"],
        Gone("the gate answers preflights according to `[cors]`, unless the route has `preflight = \"upstream\"`"),
    ),
    (
        &["trusted_ips"],
        Gone(
            "an IP address does not replace a login; give these clients tokens, or set `auth = \"none\"` for their \
             paths",
        ),
    ),
    (&["allow_query_semicolons"], Gone("the gate forwards the query unchanged")),
    (&["disable_keep_alives"], Gone("set `reuse = \"never\"` of the upstream instead")),
    (&["proxy_raw_path"], Gone("set `encoded_slash` of the route instead")),
    (&["login_urlparameters"], Gone("the endpoint's `parameters` are fixed; a link cannot change them")),
    (&["adfs_skip_scope"], Gone("the gate sends the endpoint's `scopes` unchanged")),
    (
        &["server_tls_key_value", "server_tls_key_from_env", "server_tls_cert_value", "server_tls_cert_from_env"],
        Gone("the certificate and the private key must be files: set `cert` and `key` of `[server.tls]`"),
    ),
    (&["version", "config_test", "convert_config_to_alpha"], Gone("use `rotogate check`")),
];

pub(super) fn of_setting(name: &str) -> Fate {
    SETTINGS.iter().find(|(names, _)| names.contains(&name)).map_or(Fate::Unknown, |(_, fate)| *fate)
}

/// Returns the start of the line to which the setting's remark belongs.
pub(super) fn line(name: &str) -> Option<&'static str> {
    Some(match name {
        "redirect_url" => "public_url =",
        "http_address" => "listen =",
        "reverse_proxy" => "[server]",
        "session_store_type" => "[store]",
        "pass_user_headers" => "[identity.headers]",
        "upstreams" | "upstream_timeout" => "[[upstreams]]",
        "pass_access_token" => "forward_token =",
        "skip_auth_routes" | "skip_auth_regex" | "api_routes" => "[[routes]]",
        "provider_ca_files" => "[issuers.fetch]",
        "email_verified" | "authenticated_emails_file" | "email_domains" => "[issuers.require]",
        "cookie_expire" => "idle_ttl =",
        name => return MEMBERS.contains(&name).then_some("[issuers.require]"),
    })
}

const ALPHA: &[(&str, &str)] = &[
    ("id", "config"),
    ("name", "provider_display_name"),
    ("ca_files", "provider_ca_files"),
    ("oidc_insecure_skip_nonce", "insecure_oidc_skip_nonce"),
    ("oidc_insecure_skip_issuer_verification", "insecure_oidc_skip_issuer_verification"),
    ("oidc_insecure_allow_unverified_email", "insecure_oidc_allow_unverified_email"),
    ("oidc_skip_discovery", "skip_oidc_discovery"),
    ("oidc_user_idclaim", "user_id_claim"),
    ("keycloak_roles", "allowed_roles"),
    ("microsoft_entra_id_allowed_tenants", "entra_id_allowed_tenants"),
    ("microsoft_entra_id_federated_token_auth", "entra_id_federated_token_auth"),
    ("google_admin_apiuser_scope", "google_admin_api_user_scope"),
    ("login_gov_jwt_key", "jwt_key"),
    ("login_gov_jwt_key_file", "jwt_key_file"),
    ("login_gov_pubjwk_url", "pubjwk_url"),
    ("server_bind_address", "http_address"),
    ("server_secure_bind_address", "https_address"),
    ("server_tls_key_from_file", "tls_key_file"),
    ("server_tls_cert_from_file", "tls_cert_file"),
    ("server_tls_cipher_suites", "tls_cipher_suites"),
];

pub(super) fn alpha(name: &str) -> &str {
    ALPHA.iter().find(|(alpha, _)| *alpha == name).map_or(name, |(_, known)| known)
}
