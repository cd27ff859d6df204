//! The greeting that a gate prints when it starts: its addresses, the files and users that it created, and lines to
//! paste.

use std::io::IsTerminal;
use std::net::SocketAddr;

use secrecy::ExposeSecret;
use serde::Serialize;
use tracing::field::display;

use super::CommandResult;
use super::output::Output;
use crate::server::{PublicAddress, Server};
use rotogate::program::OAUTH2;
use rotogate_config::{Config, LogFormat};
use rotogate_core::client::Grant;
use rotogate_proxy::UpstreamUrl;

/// The parts of the configuration that the greeting needs.
pub(super) struct Greeting {
    client: Option<String>,
    token_path: Option<String>,
    /// The page where browsers log in.
    login_page: Option<String>,
    echo: bool,
    public_url: String,
    /// Whether log and greeting are for programs.
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
            is_json: config.log.format == LogFormat::Json,
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
        // Greets an operator who asked for a greeting or is at a terminal. Also greets to show the first
        // password, which is shown nowhere else.
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
        if let Some(admin) = started.admin {
            text.push_str(&format!("; for operators on http://{admin} (/livez, /readyz)"));
        }
        text.push('\n');
        if let Some(first) = &started.first_user {
            text.push_str(&format!(
                "\nA first user was made. The password is shown this once:\n\n    username  {}\n    password  {}\n",
                first.username, first.password
            ));
        }
        if let Some(page) = &self.login_page {
            text.push_str(&format!("\nBrowsers log in at {page}\n"));
        }
        // Prefers a listener without TLS, because a certificate is valid for a name, not for the address.
        let clear = public.iter().find(|public| !public.is_secure);
        let base = clear.map_or_else(|| self.public_url.clone(), ToString::to_string);
        if let (Some(client), Some(path)) = (&self.client, &self.token_path) {
            let (username, password) = match &started.first_user {
                Some(first) => (first.username.as_str(), first.password.as_str()),
                None => ("demo", "THE PASSWORD"),
            };
            let upstream = if self.echo {
                "the echo upstream shows the identity headers that an upstream gets"
            } else {
                "an upstream"
            };
            text.push_str(&format!(
                r#"
Paste to try it:

    # log in
    TOKENS=$(curl -s {base}{path} -d grant_type=password -d client_id={client} -d username={username} --data-urlencode 'password={password}'); echo "$TOKENS"
    field() {{ printf '%s' "$1" | sed -E "s/.*\"$2\":\"([^\"]*)\".*/\1/"; }}

    # call: {upstream}
    curl -s {base}/hello -H "Authorization: Bearer $(field "$TOKENS" access_token)"; echo

    # refresh; at once again, as after a lost reply: the same pair
    NEW=$(curl -s {base}{path} -d grant_type=refresh_token -d client_id={client} -d refresh_token=$(field "$TOKENS" refresh_token)); echo "$NEW"
    curl -s {base}{path} -d grant_type=refresh_token -d client_id={client} -d refresh_token=$(field "$TOKENS" refresh_token); echo

    # revoke, and call once more: 401
    curl -s {base}{revocation} -d client_id={client} -d token=$(field "$NEW" refresh_token)
    curl -si {base}/hello -H "Authorization: Bearer $(field "$NEW" access_token)" | head -1
"#,
                revocation = path.replace("/token", "/revocation"),
            ));
        }
        text
    }
}
