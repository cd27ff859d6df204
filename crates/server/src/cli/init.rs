//! `rotogate init`: creates a first configuration.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::ExposeSecret;
use serde::Serialize;
use toml_edit::Value;

mod oauth2_proxy;

use super::output::Output;
use super::{CommandResult, Failure};
use crate::shell;
use rotogate_config::{Config, ProcessEnv};
use rotogate_core::private_file::{self, Unpublished};

pub(super) const FILE: &str = "gateway.toml";

#[derive(Debug, Args)]
pub(super) struct InitOptions {
    /// The folder for the new gateway.toml [default: the file that --config names].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The upstream. "echo:" responds with the request that it received.
    #[arg(long, value_name = "URL", default_value = "echo:")]
    upstream: String,
    /// The id of the first client, with which users log in.
    #[arg(long, value_name = "ID", default_value = "web")]
    client: String,
    /// Sets up browser sessions with a cookie, for web pages, instead of a token endpoint. "own": users of the gate log
    /// in. "oidc": users of an OpenID provider log in; write the provider's URL and your client into the file.
    #[arg(long, value_name = "LOGIN", conflicts_with = "client")]
    browser: Option<BrowserLoginKind>,
    /// Translates an oauth2-proxy configuration from these files: its TOML file (.cfg), alpha configuration (.yaml),
    /// flags or environment. Also reads the variables OAUTH2_PROXY_*. Lists settings without a counterpart.
    #[arg(long, value_name = "FILE", num_args = 0.., conflicts_with_all = ["client", "browser", "upstream"])]
    from_oauth2_proxy: Option<Vec<PathBuf>>,
    /// With --from-oauth2-proxy: flags of oauth2-proxy, after "--".
    #[arg(last = true, value_name = "FLAGS", requires = "from_oauth2_proxy")]
    flags: Vec<String>,
}

/// Where users log in with a browser.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum BrowserLoginKind {
    // Users log in at the gate. A documentation comment here would lengthen the help of all options.
    Own,
    // Users log in at an OpenID provider.
    Oidc,
}

#[derive(Serialize)]
struct OpenKey {
    key: String,
    what: String,
}

#[derive(Serialize)]
struct InitReport<'a> {
    file: &'a Path,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<PathBuf>,
    /// Remarks about imported settings without an exact counterpart.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    remarks: &'a [oauth2_proxy::Remark],
    to_fill_in: &'a [OpenKey],
}

pub(super) fn run(configured: &Path, options: &InitOptions, output: Output) -> CommandResult {
    let path = options.dir.as_ref().map_or_else(|| configured.to_owned(), |folder| folder.join(FILE));
    let imported = match &options.from_oauth2_proxy {
        Some(files) => {
            // The variables of oauth2-proxy are always UTF-8.
            let text = |text: std::ffi::OsString| text.into_string().ok();
            let variables: Vec<_> =
                std::env::vars_os().filter_map(|(name, value)| text(name).zip(text(value))).collect();
            let has_redis = cfg!(feature = "redis");
            let sources =
                oauth2_proxy::SettingSources { flags: &options.flags, variables: &variables, files, has_redis };
            oauth2_proxy::import(&sources).map_err(Failure::Usage)?
        }
        None => oauth2_proxy::Imported { text: text(options), ..Default::default() },
    };
    let text = imported.text;
    // A configuration that fails to parse is not written.
    let checked = imported.without_feature.as_ref().unwrap_or(&text);
    let config = rotogate_config::parse(checked, &path, &ProcessEnv).map_err(|errors| {
        Failure::Usage(format!("nothing was written, because the configuration would be invalid:\n{errors}"))
    })?;
    let failed = |path: &Path, error: &io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Failed(format!(
            "{} exists already and was not changed; choose another folder with --dir",
            path.display()
        )),
        _ => Failure::Failed(format!("{} cannot be written: {error}", path.display())),
    };
    // The configuration is written last, so that all other files already exist.
    let secrets = imported
        .secrets
        .iter()
        .map(|(name, secret)| (private_file::parent(&path).join(name), secret.expose_secret(), 0o600));
    // A service with another user must be able to read the configuration, which contains no secrets.
    let files: Vec<_> = secrets.chain([(path.clone(), &*text, 0o644)]).collect();
    write(&files).map_err(|(path, error)| failed(path, &error))?;
    let secrets = files.iter().map(|(file, ..)| file.clone()).filter(|file| *file != path).collect();
    let remarks = &imported.remarks[..];
    let to_fill_in = &open_keys(&config, options, remarks)[..];
    output.write(&InitReport { file: &path, secrets, remarks, to_fill_in }, || {
        let (argument, path) = (shell::path(&path), path.display());
        let creates = match (options.browser, &options.from_oauth2_proxy) {
            (Some(BrowserLoginKind::Oidc), _) | (_, Some(_)) => "keys and a store in the folder `data`",
            (None | Some(BrowserLoginKind::Own), None) => {
                "keys, a store and a user in the folder `data`, and prints the user's password and commands to try"
            }
        };
        let other = remarks.iter().filter(|remark| remark.key.is_none());
        let remarks: String = other.map(|remark| format!("- {}: {}\n", remark.setting, remark.why)).collect();
        let remarks = if remarks.is_empty() { remarks } else { format!("Differences from oauth2-proxy:\n{remarks}\n") };
        let open: String = to_fill_in.iter().map(|OpenKey { key, what }| format!("\n- {key}: {what}")).collect();
        let open = match open.is_empty() {
            true => "Nothing is left to fill in".to_owned(),
            false => format!("Before you start the gate, fill in:\n{open}"),
        };
        format!(
            "{remarks}{path} is written. Next:\n\n    rotogate --config {argument} check\n    rotogate --config {argument}\n\nThe first \
             start creates {creates}.\n\n{open}"
        )
    })
}

fn open_keys(config: &Config, options: &InitOptions, remarks: &[oauth2_proxy::Remark]) -> Vec<OpenKey> {
    let open = |key: &str, what: String| OpenKey { key: key.to_owned(), what };
    let of_import = remarks.iter().filter_map(|one| Some(open(one.key?, format!("{}: {}", one.setting, one.why))));
    let mut keys: Vec<_> = of_import.collect();
    if let Some(BrowserLoginKind::Oidc) = options.browser {
        keys.extend(AT_PROVIDER_OPEN.map(|(key, what)| open(key, what.to_owned())));
    }
    // An import keeps the redirect URI, unless the gate's URL changes.
    let is_registered = options.from_oauth2_proxy.is_some()
        && !keys.iter().any(|open| ["server.public_url", "server.tls"].contains(&&*open.key));
    for (at, endpoint) in config.endpoints.iter().enumerate() {
        let Some(client) = endpoint.browser.as_ref().and_then(|browser| browser.client.as_ref()) else { continue };
        if client.key.is_none() && !client.secret_file.as_ref().is_some_and(|file| file.exists()) {
            let what = "a file (mode 0600) with the client's secret, unless the client is public";
            keys.push(open(&format!("endpoints[{at}].client.secret_file"), what.to_owned()));
        }
        if !is_registered {
            let (url, path) = (config.server.public_url.to_string(), &endpoint.path);
            let what =
                format!("register the redirect URI {}{path}/callback at the provider", url.trim_end_matches('/'));
            keys.push(open(&format!("endpoints[{at}].path"), what));
        }
    }
    keys
}

/// Creates all files, or none. The error names the failed file.
fn write<'a>(files: &'a [(PathBuf, &str, u32)]) -> Result<(), (&'a Path, io::Error)> {
    if let Some((taken, ..)) = files.iter().find(|(path, ..)| path.symlink_metadata().is_ok()) {
        return Err((taken, io::ErrorKind::AlreadyExists.into()));
    }
    let mut parts = Vec::new();
    for (path, text, mode) in files {
        parts.push((path, unpublished(path, text, *mode).map_err(|error| (&**path, error))?));
    }
    let mut published = Vec::new();
    for (path, part) in parts {
        if let Err(error) = part.publish_new(path) {
            published.iter().for_each(|path| drop(std::fs::remove_file(path)));
            return Err((path, error));
        }
        published.push(path);
    }
    Ok(())
}

fn unpublished(path: &Path, text: &str, mode: u32) -> io::Result<Unpublished> {
    private_file::create_private_dir(private_file::parent(path))?;
    let (part, mut file) = Unpublished::beside(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    Ok(part)
}

const AT_PROVIDER: &str = r#"[[issuers]]                            # the provider where browsers log in
name = "idp"
url = "https://id.example.com/realms/x"   # exactly as `issuer` in its discovery document
audience = ["api"]                     # `aud` of its access tokens, for routes that accept them
preset = "keycloak"                    # or auth0, entra-v2, google, okta, ..., oidc
discovery = true
subject_prefix = "idp|"                # added before the ids of its users
backchannel_logout = { path = "/logout/idp", audience = ["web"] }

[[endpoints]]                          # register https://HOST/auth/callback there; `rotogate check --online` prints it
dialect = "browser"
path = "/auth"
provider = "idp"
client = { id = "web" }                # a confidential client also needs secret_file = "idp.secret" (mode 0600)
scopes = ["profile"]
"#;
/// The placeholders in [`AT_PROVIDER`], with instructions.
const AT_PROVIDER_OPEN: [(&str, &str); 3] = [
    ("issuers[0].url", "the issuer of your provider, in place of https://id.example.com/realms/x"),
    ("issuers[0].preset", "your provider, if it is not Keycloak"),
    (
        "endpoints[0].client.id",
        "the client's id at the provider; use the same id in `issuers[0].backchannel_logout.audience`",
    ),
];
const DIRECTORY: &str = r#"[directory]                            # the users; `rotogate user` edits the file
path = "data/users.toml"               # created at the first start, with the user demo

"#;
const NO_DIRECTORY: &str = "[directory]\nkind = \"none\"                          # the provider manages the users\n\n";

fn text(options: &InitOptions) -> String {
    let InitOptions { dir: _, upstream, client, browser, from_oauth2_proxy: _, flags: _ } = options;
    let [upstream, client] = [upstream, client].map(|text| Value::from(text.as_str()).to_string());
    let login = match browser {
        None => format!(
            r#"[[clients]]                            # an application that users log in with
id = {client}

[[endpoints]]                          # where clients log in, refresh and log out
dialect = "oauth2"
path = "/connect/token"
"#
        ),
        Some(BrowserLoginKind::Own) => {
            r#"[[endpoints]]                          # where browsers log in and out: /auth/login, /auth/session, /auth/logout
dialect = "browser"
path = "/auth"
"#
            .to_owned()
        }
        Some(BrowserLoginKind::Oidc) => AT_PROVIDER.to_owned(),
    };
    let route = match browser {
        None => {
            r#"[[routes]]                             # all requests need a token. For public routes: auth = "none"
path = "/{*rest}"
upstream = "app"
"#
        }
        Some(_) => {
            r#"[[routes]]                             # all requests need a login. For public routes: auth = "none"
path = "/{*rest}"
credentials = ["session"]              # add "token" to also accept access tokens
upstream = "app"
"#
        }
    };
    let directory = match browser {
        Some(BrowserLoginKind::Oidc) => NO_DIRECTORY,
        None | Some(BrowserLoginKind::Own) => DIRECTORY,
    };
    format!(
        r#"# The configuration of rotogate. `rotogate check` reports everything that is wrong with it, and
# `rotogate config reference` prints every key.
# Relative paths are relative to this file.

[server]
listen = "127.0.0.1:8080"
public_url = "http://127.0.0.1:8080"   # the gate's URL as clients see it

[admin]                                # health, metrics, sessions: not for clients
listen = "127.0.0.1:8081"

[issuer]                               # the tokens that the gate issues
audience = ["api"]                     # `aud` of the tokens: the name of what the gate protects
keys = "data/keys"                     # created at the first start. Keep it apart from the store's back-ups

[store]                                # sessions and revocations
path = "data/rotogate.redb"

{directory}{login}
[[upstreams]]
name = "app"
urls = [{upstream}]

{route}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b54_each_first_configuration_is_one_that_starts() {
        for browser in [None, Some(BrowserLoginKind::Own), Some(BrowserLoginKind::Oidc)] {
            let (upstream, client) = ("echo:".into(), "web".into());
            let options =
                InitOptions { dir: None, upstream, client, browser, from_oauth2_proxy: None, flags: Vec::new() };
            let text = text(&options);
            let config = rotogate_config::parse(&text, Path::new("gateway.toml"), &ProcessEnv);
            let config = config.unwrap_or_else(|errors| panic!("{browser:?}: {errors}"));
            let is_oidc = matches!(browser, Some(BrowserLoginKind::Oidc));
            assert_eq!(config.directories.is_empty(), is_oidc);
            let open: Vec<_> = open_keys(&config, &options, &[]).into_iter().map(|open| open.key).collect();
            let (secret, path) = ("endpoints[0].client.secret_file", "endpoints[0].path");
            let keys = AT_PROVIDER_OPEN.map(|(key, _)| key).into_iter().chain([secret, path]);
            assert_eq!(open, keys.filter(|_| is_oidc).collect::<Vec<_>>());
            assert!(open.iter().all(|key| key == secret || config.source.is_in_file(key)), "{open:?}");
            assert_eq!(text.contains("example.com"), is_oidc, "a placeholder");
        }
    }
}
