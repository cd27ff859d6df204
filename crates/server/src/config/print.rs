//! A configuration as a `gateway.toml` that says every value in force, defaults included: to be compared, and to be read
//! again. Each type is taken apart without `..`, so that a new key does not compile until it is printed.

use std::path::Path;
use std::time::Duration;

use http::HeaderName;
use toml::{Table, Value};

use super::types::{
    AdminConfig, CertificateFiles, ClientAuth, ClientConfig, Config, CorsConfig, DirectoryConfig, EndpointConfig,
    IdentityConfig, IssuerConfig, KeySource, LimitsConfig, ListenerConfig, ServerConfig, SessionsConfig, StoreConfig,
    TlsConfig, TrustedIssuer,
};
use crate::log::{AccessLogConfig, LogConfig, LogFormat, LogOutput};
use crate::proxy::{HealthCheck, Reuse, Upstream, UpstreamTls, UpstreamUrl};
use rotogate::client::Grant;
use rotogate::dialect;
use rotogate::limit::Rate;
use rotogate::overload::{Bound, Bounds};
use rotogate::route::{Auth, BadCredential, EncodedSlash, LooseMatch, OnExpiry, Route, RoutePolicy};
use rotogate::session::profile::{OnOtherClient, OnReuse, OnTooMany, Profile, ProfileOverride};
use rotogate::token::verify::AllowedScopes;

/// What stands in the place of a secret. Read again, it is a secret that nobody has, and a warning.
pub(super) const MASK: &str = "(masked)";

pub(super) fn toml(config: &Config) -> String {
    let Config {
        server,
        admin,
        issuer,
        issuers,
        sessions,
        store,
        directory,
        limits,
        cors,
        clients,
        endpoints,
        identity,
        upstreams,
        routes,
        log,
        warnings: _,
        access_log,
        source: _,
    } = config;
    let mut root = Table::new();
    put(&mut root, "server", self::server(server));
    put(&mut root, "admin", self::admin(admin));
    put(&mut root, "issuer", self::issuer(issuer));
    put(&mut root, "issuers", list(issuers, trusted));
    put(&mut root, "sessions", self::sessions(sessions));
    put(&mut root, "store", self::store(store));
    put(&mut root, "directory", self::directory(directory));
    put(&mut root, "limits", self::limits(limits));
    put(&mut root, "cors", self::cors(cors));
    put(&mut root, "clients", list(clients, client));
    put(&mut root, "endpoints", list(endpoints, endpoint));
    put(&mut root, "identity", self::identity(identity));
    put(&mut root, "upstreams", list(upstreams, upstream));
    put(&mut root, "routes", list(routes, |one| route(one, upstreams)));
    put(&mut root, "log", self::log(log));
    put(&mut root, "access_log", self::access_log(access_log));
    // Tables of text and numbers can always be written.
    toml::to_string(&root).unwrap_or_default()
}

fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

fn put_some(table: &mut Table, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(table, key, value);
    }
}

fn list<T>(items: &[T], one: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(one).collect())
}

fn texts<T: ToString>(items: &[T]) -> Value {
    list(items, |item| item.to_string().into())
}

fn number(n: impl TryInto<i64>) -> Value {
    Value::Integer(n.try_into().unwrap_or(i64::MAX))
}

fn time(duration: Duration) -> Value {
    humantime::format_duration(duration).to_string().into()
}

fn rate(rate: Rate) -> Value {
    let Rate { burst, every } = rate;
    format!("{burst}/{}", humantime::format_duration(every.saturating_mul(burst.get()))).into()
}

/// Absolute, so that it says the same in a file elsewhere.
fn path(path: &Path) -> Value {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string().into()
}

fn server(server: &ServerConfig) -> Value {
    let ServerConfig {
        listeners,
        public_url,
        trusted_proxies,
        connect_timeout,
        head_timeout,
        idle_timeout,
        max_head,
        max_connections,
        overload,
        max_requests_per_connection,
        workers,
        min_body_rate,
        drain_timeout,
        hosts,
        request_id_header,
    } = server;
    let mut table = Table::new();
    put(&mut table, "listeners", list(listeners, listener));
    put(&mut table, "public_url", public_url.to_string().trim_end_matches('/'));
    put(&mut table, "trusted_proxies", texts(trusted_proxies));
    put(&mut table, "connect_timeout", time(*connect_timeout));
    put(&mut table, "head_timeout", time(*head_timeout));
    put(&mut table, "idle_timeout", time(*idle_timeout));
    put(&mut table, "max_head", number(*max_head));
    put(&mut table, "max_connections", number(*max_connections));
    let Bounds {
        requests, requests_per_caller, pending_bodies, own_streams, tunnels, anonymous_sockets, buffered, ..
    } = overload;
    let mut bound = |all: &str, each: &str, bound: &Bound| {
        put(&mut table, all, number(bound.all));
        put(&mut table, each, number(bound.each));
    };
    bound("max_requests", "max_requests_per_address", requests);
    bound("max_pending_bodies", "max_pending_bodies_per_address", pending_bodies);
    bound("max_own_streams", "max_own_streams_per_address", own_streams);
    bound("max_tunnels", "max_tunnels_per_caller", tunnels);
    bound("max_anonymous_sockets", "max_anonymous_sockets_per_address", anonymous_sockets);
    bound("max_buffered", "max_buffered_per_caller", buffered);
    put(&mut table, "max_requests_per_caller", number(*requests_per_caller));
    put(&mut table, "max_requests_per_connection", number(*max_requests_per_connection));
    put(&mut table, "workers", number(workers.get()));
    put(&mut table, "min_body_rate", number(*min_body_rate));
    put(&mut table, "drain_timeout", time(*drain_timeout));
    put(&mut table, "hosts", texts(hosts));
    put(&mut table, "request_id_header", request_id_header.as_str());
    table.into()
}

fn listener(listener: &ListenerConfig) -> Value {
    let ListenerConfig { address, key: _, tls, proxy_protocol, max_connections_per_address } = listener;
    let mut table = Table::new();
    put(&mut table, "address", address.to_string());
    put_some(&mut table, "tls", tls.as_ref().map(self::tls));
    put(&mut table, "proxy_protocol", *proxy_protocol);
    put(&mut table, "max_connections_per_address", number(*max_connections_per_address));
    table.into()
}

fn tls(tls: &TlsConfig) -> Value {
    let TlsConfig { certificates, client_auth, key: _ } = tls;
    let pair = |files: &CertificateFiles| {
        let CertificateFiles { cert, key, place: _ } = files;
        let mut table = Table::new();
        put(&mut table, "cert", path(cert));
        put(&mut table, "key", path(key));
        table.into()
    };
    let mut table = Table::new();
    put(&mut table, "certificates", list(certificates, pair));
    let (word, roots) = match client_auth {
        ClientAuth::None => ("none", None),
        ClientAuth::Optional(roots) => ("optional", Some(roots)),
        ClientAuth::Required(roots) => ("required", Some(roots)),
    };
    put(&mut table, "client_auth", word);
    put_some(&mut table, "client_ca", roots.map(|roots| path(roots)));
    table.into()
}

fn admin(admin: &AdminConfig) -> Value {
    let AdminConfig { listen, token_file, dangerous_non_loopback, hosts } = admin;
    let mut table = Table::new();
    put(&mut table, "listen", listen.to_string());
    put(&mut table, "token_file", path(token_file));
    put(&mut table, "dangerous_non_loopback", *dangerous_non_loopback);
    put(&mut table, "hosts", texts(hosts));
    table.into()
}

fn issuer(issuer: &IssuerConfig) -> Value {
    let IssuerConfig { url, audience, algorithm, keys, leeway } = issuer;
    let mut table = Table::new();
    put(&mut table, "url", url.as_str());
    put(&mut table, "audience", texts(audience));
    put(&mut table, "algorithm", algorithm.name());
    put(&mut table, "keys", path(keys));
    put(&mut table, "leeway", time(*leeway));
    table.into()
}

fn trusted(issuer: &TrustedIssuer) -> Value {
    let TrustedIssuer { name, url, audience, scopes, everywhere, subject_prefix, keys, typ, max_lifetime, leeway } =
        issuer;
    let mut table = Table::new();
    put(&mut table, "name", name.as_str());
    let scopes = match scopes {
        AllowedScopes::Any => "any".into(),
        AllowedScopes::Only(scopes) => texts(&scopes.iter().collect::<Vec<_>>()),
    };
    put(&mut table, "scopes", scopes);
    put(&mut table, "everywhere", *everywhere);
    put(&mut table, "subject_prefix", subject_prefix.as_str());
    put(&mut table, "url", url.as_str());
    put(&mut table, "audience", texts(audience));
    match keys {
        KeySource::Jwks(file, algorithm) => {
            put(&mut table, "jwks_file", path(file));
            put_some(&mut table, "algorithm", algorithm.map(|algorithm| algorithm.name()));
        }
        KeySource::PublicKey(file, algorithm) => {
            put(&mut table, "public_key", path(file));
            put(&mut table, "algorithm", algorithm.name());
        }
    }
    put(&mut table, "typ", texts(typ));
    put(&mut table, "max_lifetime", time(*max_lifetime));
    put(&mut table, "leeway", time(*leeway));
    table.into()
}

fn sessions(sessions: &SessionsConfig) -> Value {
    let SessionsConfig { profile, keep_login_client, max_stream } = sessions;
    let Profile {
        access_ttl,
        max_access_ttl,
        session_ttl,
        idle_ttl,
        grace,
        lost_response_window,
        on_reuse,
        on_other_client,
        max_sessions_per_subject,
        on_too_many,
        revoke_previous_after,
    } = profile;
    let mut table = self::profile(&ProfileOverride {
        access_ttl: Some(*access_ttl),
        max_access_ttl: Some(*max_access_ttl),
        session_ttl: Some(*session_ttl),
        idle_ttl: Some(*idle_ttl),
        grace: Some(*grace),
        lost_response_window: Some(*lost_response_window),
        on_reuse: Some(*on_reuse),
        on_other_client: Some(*on_other_client),
        max_sessions_per_subject: Some(*max_sessions_per_subject),
        on_too_many: Some(*on_too_many),
        revoke_previous_after: *revoke_previous_after,
    });
    put(&mut table, "keep_login_client", *keep_login_client);
    put(&mut table, "max_stream", time(*max_stream));
    table.into()
}

fn profile(rules: &ProfileOverride) -> Table {
    let ProfileOverride {
        access_ttl,
        max_access_ttl,
        session_ttl,
        idle_ttl,
        grace,
        lost_response_window,
        on_reuse,
        on_other_client,
        max_sessions_per_subject,
        on_too_many,
        revoke_previous_after,
    } = rules;
    let mut table = Table::new();
    for (key, duration) in [
        ("access_ttl", access_ttl),
        ("max_access_ttl", max_access_ttl),
        ("session_ttl", session_ttl),
        ("idle_ttl", idle_ttl),
        ("grace", grace),
        ("lost_response_window", lost_response_window),
        ("revoke_previous_after", revoke_previous_after),
    ] {
        put_some(&mut table, key, duration.map(time));
    }
    let reuse = on_reuse.map(|rule| match rule {
        OnReuse::RevokeSession => "revoke-session",
        OnReuse::RevokeSubject => "revoke-subject",
        OnReuse::Deny => "deny",
    });
    let other = on_other_client.map(|rule| match rule {
        OnOtherClient::Deny => "deny",
        OnOtherClient::RevokeSession => "revoke-session",
    });
    let too_many = on_too_many.map(|rule| match rule {
        OnTooMany::EndOldest => "end-oldest",
        OnTooMany::Refuse => "refuse",
    });
    put_some(&mut table, "max_sessions_per_subject", max_sessions_per_subject.map(number));
    put_some(&mut table, "on_too_many", too_many);
    put_some(&mut table, "on_reuse", reuse);
    put_some(&mut table, "on_other_client", other);
    table
}

fn store(store: &StoreConfig) -> Value {
    let mut table = Table::new();
    match store {
        StoreConfig::Memory => put(&mut table, "kind", "memory"),
        StoreConfig::Redb { path, accept_restored_store, cache_size, give_up } => {
            put(&mut table, "kind", "redb");
            put(&mut table, "path", self::path(path));
            put(&mut table, "accept_restored_store", *accept_restored_store);
            put(&mut table, "cache_size", number(*cache_size));
            put_some(&mut table, "give_up", give_up.map(time));
        }
    }
    table.into()
}

fn directory(directory: &DirectoryConfig) -> Value {
    let DirectoryConfig::File { path } = directory;
    let mut table = Table::new();
    put(&mut table, "kind", "file");
    put(&mut table, "path", self::path(path));
    table.into()
}

fn limits(limits: &LimitsConfig) -> Value {
    let LimitsConfig {
        login_per_address,
        login_per_account,
        login_per_client,
        refresh_per_session,
        refresh_per_address,
        forged_per_address,
        refused_per_address,
        forged_overall,
        verified_cache,
        max_password_checks,
        password_queue,
        max_token_body,
    } = limits;
    let mut table = Table::new();
    put(&mut table, "login_per_address", rate(*login_per_address));
    put(&mut table, "login_per_account", rate(*login_per_account));
    put(&mut table, "login_per_client", rate(*login_per_client));
    put(&mut table, "refresh_per_session", rate(*refresh_per_session));
    put(&mut table, "refresh_per_address", rate(*refresh_per_address));
    put(&mut table, "forged_per_address", rate(*forged_per_address));
    put(&mut table, "refused_per_address", rate(*refused_per_address));
    put(&mut table, "forged_overall", rate(*forged_overall));
    put(&mut table, "verified_cache", number(*verified_cache));
    put(&mut table, "max_password_checks", number(*max_password_checks));
    put(&mut table, "password_queue", number(*password_queue));
    put(&mut table, "max_token_body", number(*max_token_body));
    table.into()
}

fn cors(cors: &CorsConfig) -> Value {
    let CorsConfig { origins, allow_credentials, max_age, expose } = cors;
    let mut table = Table::new();
    put(&mut table, "origins", texts(origins));
    put(&mut table, "allow_credentials", *allow_credentials);
    put(&mut table, "max_age", time(*max_age));
    put_some(
        &mut table,
        "expose",
        Some(texts(&expose.iter().map(HeaderName::as_str).collect::<Vec<_>>())).filter(|_| !expose.is_empty()),
    );
    table.into()
}

fn client(client: &ClientConfig) -> Value {
    let ClientConfig { id, secret_hash, grants, scopes, profile } = client;
    let grant = |grant: &Grant| {
        Value::from(match grant {
            Grant::Password => "password",
            Grant::RefreshToken => "refresh_token",
            Grant::ClientCredentials => "client_credentials",
        })
    };
    let mut table = Table::new();
    put(&mut table, "id", id.as_str());
    put_some(&mut table, "secret_hash", secret_hash.as_ref().map(|_| MASK));
    put(&mut table, "grants", list(grants, grant));
    put_some(&mut table, "scopes", scopes.as_ref().map(|scopes| texts(&scopes.iter().collect::<Vec<_>>())));
    put_profile(&mut table, profile);
    table.into()
}

fn put_profile(table: &mut Table, rules: &ProfileOverride) {
    let rules = profile(rules);
    if !rules.is_empty() {
        put(table, "profile", rules);
    }
}

fn endpoint(endpoint: &EndpointConfig) -> Value {
    let EndpointConfig { dialect, path, profile, clients, client, accepts, account, options } = endpoint;
    let mut table = Table::new();
    put(&mut table, "dialect", *dialect);
    put(&mut table, "path", path.as_str());
    put_profile(&mut table, profile);
    put_some(&mut table, "clients", clients.as_ref().map(|clients| texts(clients)));
    put_some(&mut table, "client", client.as_deref());
    put(&mut table, "accepts", texts(accepts));
    put_some(&mut table, "account", account.as_deref());
    let dialect::Options { envelope, kuzzle } = options;
    if *dialect == dialect::envelope::NAME {
        let dialect::envelope::Envelope { expired_for_at_most, failure_status } = envelope;
        put(&mut table, "allow_expired_access_token", time(*expired_for_at_most));
        put(&mut table, "failure_status", number(failure_status.as_u16()));
    }
    if *dialect == dialect::kuzzle::NAME {
        // Whether cookies are for https alone follows from public_url.
        let dialect::kuzzle::Kuzzle { secure_cookies: _, host_cookie } = kuzzle;
        let cookie = if *host_cookie { dialect::kuzzle::HOST_COOKIE } else { dialect::kuzzle::COOKIE };
        put(&mut table, "cookie", cookie);
    }
    table.into()
}

fn identity(identity: &IdentityConfig) -> Value {
    let IdentityConfig { subject, account, client, scope, session, issuer, claims, strip, keep } = identity;
    let mut headers = Table::new();
    for (key, header) in [
        ("subject", subject),
        ("account", account),
        ("client", client),
        ("scope", scope),
        ("session", session),
        ("issuer", issuer),
    ] {
        put(&mut headers, key, header.as_ref().map_or("", HeaderName::as_str));
    }
    let mut told = Table::new();
    for (header, claim) in claims {
        put(&mut told, header.as_str(), claim.as_str());
    }
    let mut table = Table::new();
    put(&mut table, "headers", headers);
    put(&mut table, "claims", told);
    put(&mut table, "strip", texts(strip));
    put(&mut table, "keep", texts(keep));
    table.into()
}

fn upstream(upstream: &Upstream) -> Value {
    let Upstream {
        name,
        urls,
        preserve_host,
        connect_timeout,
        head_timeout,
        idle_timeout,
        tls,
        max_requests,
        max_requests_per_caller,
        max_requests_per_address,
        queue_timeout,
        max_failures,
        eject_for,
        health,
        dns_refresh,
        max_connection_age,
        reuse,
        max_requests_per_connection,
    } = upstream;
    let mut table = Table::new();
    put(&mut table, "name", name.as_str());
    put(&mut table, "urls", texts::<UpstreamUrl>(urls));
    put(&mut table, "preserve_host", *preserve_host);
    put_some(&mut table, "connect_timeout", connect_timeout.map(time));
    put_some(&mut table, "head_timeout", head_timeout.map(time));
    put_some(&mut table, "idle_timeout", idle_timeout.map(time));
    let UpstreamTls { ca, server_name, client_cert } = tls;
    put_some(&mut table, "ca", ca.as_deref().map(path));
    put_some(&mut table, "server_name", server_name.as_deref());
    if let Some((cert, key)) = client_cert {
        let mut pair = Table::new();
        put(&mut pair, "cert", path(cert));
        put(&mut pair, "key", path(key));
        put(&mut table, "client_cert", pair);
    }
    put(&mut table, "max_requests", number(*max_requests));
    put(&mut table, "max_requests_per_caller", number(*max_requests_per_caller));
    put(&mut table, "max_requests_per_address", number(*max_requests_per_address));
    put(&mut table, "queue_timeout", time(*queue_timeout));
    put(&mut table, "max_failures", number(*max_failures));
    put(&mut table, "eject_for", time(*eject_for));
    if let Some(HealthCheck { path, interval, timeout, healthy_after, unhealthy_after }) = health {
        let mut check = Table::new();
        put(&mut check, "path", path.as_str());
        put(&mut check, "interval", time(*interval));
        put(&mut check, "timeout", time(*timeout));
        put(&mut check, "healthy_after", number(*healthy_after));
        put(&mut check, "unhealthy_after", number(*unhealthy_after));
        put(&mut table, "health", check);
    }
    put(&mut table, "dns_refresh", time(*dns_refresh));
    put(&mut table, "max_connection_age", time(*max_connection_age));
    let reuse = match reuse {
        Reuse::Safe => "safe",
        Reuse::Never => "never",
    };
    put(&mut table, "reuse", reuse);
    put(&mut table, "max_requests_per_connection", number(max_requests_per_connection.get()));
    table.into()
}

fn route(route: &Route, upstreams: &[Upstream]) -> Value {
    let Route { id, hosts, methods, path, kuzzle, policy, upstream } = route;
    let RoutePolicy {
        auth,
        scopes,
        issuers,
        audiences,
        bad_credential_on_optional,
        forward_token,
        encoded_slash,
        keep_underscore_headers,
        keep_override_headers,
        max_body,
        preflight_to_upstream,
        dialect,
        cookie,
        upgrade,
        on_expiry,
        loose_match,
    } = policy;
    let mut table = Table::new();
    put(&mut table, "id", id.as_str());
    put_some(&mut table, "hosts", Some(texts(hosts)).filter(|_| !hosts.is_empty()));
    put_some(&mut table, "methods", Some(texts(methods)).filter(|_| !methods.is_empty()));
    // A rule for calls alone has no path.
    put_some(&mut table, "path", Some(path.as_str()).filter(|path| !path.is_empty() || kuzzle.is_empty()));
    put_some(&mut table, "kuzzle", Some(texts(kuzzle)).filter(|_| !kuzzle.is_empty()));
    let upstream = upstream.and_then(|place| upstreams.get(place));
    put_some(&mut table, "upstream", upstream.map(|upstream| upstream.name.as_str()));
    let auth_word = match auth {
        Auth::Required => "required",
        Auth::Optional => "optional",
        Auth::None => "none",
    };
    put(&mut table, "auth", auth_word);
    put(&mut table, "scopes", texts(&scopes.iter().collect::<Vec<_>>()));
    put_some(&mut table, "issuers", Some(texts(issuers)).filter(|_| !issuers.is_empty()));
    put(&mut table, "audiences", texts(audiences));
    if *auth == Auth::Optional {
        let word = match bad_credential_on_optional {
            BadCredential::Refuse => "refuse",
            BadCredential::Anonymous => "anonymous",
        };
        put(&mut table, "bad_credential", word);
    }
    put(&mut table, "forward_token", *forward_token);
    let slash = match encoded_slash {
        EncodedSlash::Refuse => "refuse",
        EncodedSlash::Keep => "keep",
    };
    put(&mut table, "encoded_slash", slash);
    put(&mut table, "keep_underscore_headers", *keep_underscore_headers);
    put(&mut table, "keep_override_headers", *keep_override_headers);
    put_some(&mut table, "max_body", max_body.map(number));
    put(&mut table, "preflight", if *preflight_to_upstream { "upstream" } else { "gate" });
    put_some(&mut table, "dialect", dialect.as_deref());
    put_some(&mut table, "cookie", cookie.as_deref());
    put(&mut table, "upgrade", *upgrade);
    let end = match on_expiry {
        OnExpiry::Close => "close",
        OnExpiry::Keep => "keep",
    };
    put(&mut table, "on_expiry", end);
    put(&mut table, "loose_match", *loose_match == LooseMatch::Refuse);
    table.into()
}

fn log(log: &LogConfig) -> Value {
    let LogConfig { format, level, output } = log;
    let mut table = Table::new();
    put(&mut table, "format", log_format(*format));
    put(&mut table, "level", level.as_str());
    put(&mut table, "output", log_output(output));
    table.into()
}

fn access_log(log: &AccessLogConfig) -> Value {
    let AccessLogConfig { enabled, format, output, buffer, flush_interval, log_user_agent } = log;
    let mut table = Table::new();
    put(&mut table, "enabled", *enabled);
    put(&mut table, "format", log_format(*format));
    put(&mut table, "output", log_output(output));
    put(&mut table, "buffer", number(*buffer));
    put(&mut table, "flush_interval", time(*flush_interval));
    put(&mut table, "log_user_agent", *log_user_agent);
    table.into()
}

fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn log_output(output: &LogOutput) -> Value {
    match output {
        LogOutput::Stderr => "stderr".into(),
        LogOutput::Stdout => "stdout".into(),
        LogOutput::File(file) => path(file),
    }
}
