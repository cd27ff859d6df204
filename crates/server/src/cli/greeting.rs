//! The greeting at startup: addresses, created files and users, and commands to try.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use serde::Serialize;
use tracing::field::display;

use super::output::Output;
use super::{CommandResult, init};
use crate::server::{PublicAddress, Server};
use crate::shell;
use rotogate::program::OAUTH2;
use rotogate_config::{Config, LogFormat};
use rotogate_core::client::Grant;
use rotogate_directories::users::UsersFile;
use rotogate_directories::users::edit::list;
use rotogate_proxy::UpstreamUrl;

pub(super) struct Greeting {
    client: Option<String>,
    token_path: Option<String>,
    login_page: Option<String>,
    echo: bool,
    public_url: String,
    admin_token: PathBuf,
    /// `None` if users are not in a file.
    users: Option<UsersFile>,
    program: String,
    /// Whether the log and the greeting are in JSON.
    is_json: bool,
}

#[derive(Serialize)]
struct StartReport {
    listening: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_user: Option<FirstUserReport>,
}

#[derive(Serialize)]
struct FirstUserReport {
    username: String,
    password: String,
}

impl Greeting {
    pub(super) fn new(config: &Config) -> Self {
        let endpoint = config.endpoints.iter().find(|endpoint| endpoint.dialect == OAUTH2);
        let file = config.source.file();
        Self {
            client: config
                .clients
                .iter()
                .find(|client| !client.is_confidential() && client.may(Grant::Password))
                .map(|client| client.id.to_string()),
            login_page: config.endpoints.iter().find(|endpoint| endpoint.browser.is_some()).map(|endpoint| {
                format!("{}{}/login", config.server.public_url.to_string().trim_end_matches('/'), endpoint.path)
            }),
            token_path: endpoint.map(|endpoint| endpoint.path.replace("/{account}/", "/")),
            echo: config.upstreams.iter().any(|upstream| upstream.urls.contains(&UpstreamUrl::Echo)),
            public_url: config.server.public_url.to_string().trim_end_matches('/').to_owned(),
            admin_token: config.admin.token_file.clone(),
            users: config.users_file().ok(),
            program: match file == Path::new(init::FILE) {
                true => "rotogate".to_owned(),
                false => format!("rotogate --config {}", shell::path(file)),
            },
            is_json: config.log.format == Some(LogFormat::Json),
        }
    }

    pub(super) fn write(&self, server: &Server, output: Output) -> CommandResult {
        let asked = output.json;
        let first = server.parts().first_user.as_ref();
        let public = server.addresses();
        let started = StartReport {
            listening: public.iter().map(|public| public.address).collect(),
            admin: server.admin_address(),
            first_user: first.map(|first| FirstUserReport {
                username: first.username.clone(),
                password: first.password.expose_secret().to_owned(),
            }),
        };
        let listening: Vec<_> = public.iter().map(ToString::to_string).collect();
        let admin = started.admin.map(display);
        tracing::info!(listening = listening.join(", "), admin, version = env!("CARGO_PKG_VERSION"), "listening");
        // The greeting is printed if requested, at a terminal, or to show the first password.
        let is_terminal = std::io::stdout().is_terminal();
        let output = Output { json: output.json || (self.is_json && !is_terminal) };
        if asked || is_terminal || started.first_user.is_some() {
            return output.write(&started, || self.text(&started, &public));
        }
        Ok(())
    }

    fn text(&self, started: &StartReport, public: &[PublicAddress]) -> String {
        let mut text = String::from("rotogate listens on");
        public.iter().for_each(|public| text.push_str(&format!(" {public}")));
        text.push('\n');
        if let Some(admin) = started.admin {
            text.push_str(&format!(
                "\n    admin page  http://{admin}/ui/\n    sign in     with the token: cat {}\n",
                shell::path(&self.admin_token)
            ));
        }
        let known = self.known_user();
        text.push_str(&match (&started.first_user, &known, &self.users) {
            (Some(FirstUserReport { username, password }), ..) => format!(
                "\nFirst user (the password is shown once):\n\n    username  {username}\n    password  {password}\n"
            ),
            (None, Some(name), _) => {
                format!("\nIf the password of {name} is lost, set a new one: {} user passwd {name}\n", self.program)
            }
            (None, None, Some(_)) => format!("\nTo add a user: {} user add NAME\n", self.program),
            (None, None, None) => String::new(),
        });
        if let Some(page) = &self.login_page {
            text.push_str(&format!("\nBrowsers log in at {page}\n"));
        }
        // A listener without TLS is preferred. The commands use an IP address, which certificates usually do not
        // contain.
        let clear = public.iter().find(|public| !public.is_secure);
        let base = clear.map_or_else(|| self.public_url.clone(), ToString::to_string);
        if let (Some(client), Some(path)) = (&self.client, &self.token_path) {
            let (username, password) = match &started.first_user {
                Some(first) => (first.username.as_str(), first.password.as_str()),
                None => (known.as_deref().unwrap_or("USERNAME"), "THE PASSWORD"),
            };
            let upstream = if self.echo {
                "the echo upstream returns the identity headers that the gate sends to an upstream"
            } else {
                "an upstream"
            };
            text.push_str(&format!(
                r#"
Paste to try it:

    # log in
    TOKENS=$(curl -sS {base}{path} -d grant_type=password -d client_id={client} -d username={username} --data-urlencode 'password={password}'); echo "$TOKENS"
    field() {{ printf '%s' "$1" | sed -E "s/.*\"$2\":\"([^\"]*)\".*/\1/"; }}

    # call: {upstream}
    curl -sS {base}/hello -H "Authorization: Bearer $(field "$TOKENS" access_token)"; echo

    # refresh; a repeat, as after a lost response, returns the same pair
    NEW=$(curl -sS {base}{path} -d grant_type=refresh_token -d client_id={client} -d refresh_token=$(field "$TOKENS" refresh_token)); echo "$NEW"
    curl -sS {base}{path} -d grant_type=refresh_token -d client_id={client} -d refresh_token=$(field "$TOKENS" refresh_token); echo

    # revoke; the next call gets 401
    curl -sS {base}{revocation} -d client_id={client} -d token=$(field "$NEW" refresh_token)
    curl -sSi {base}/hello -H "Authorization: Bearer $(field "$NEW" access_token)" | head -1
"#,
                revocation = path.replace("/token", "/revocation"),
            ));
        }
        text
    }

    /// Returns a user name that needs no quotes in the example commands.
    fn known_user(&self) -> Option<String> {
        let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b));
        let users = list(self.users.as_ref()?).ok()?.into_iter();
        let users = users.filter(|one| one.user.active && one.user.account.is_none() && is_plain(&one.username));
        users.map(|one| one.username).min_by_key(|name| name != "demo")
    }
}
