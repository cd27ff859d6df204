//! The connection from commands to the running gate. Only `admin.listen` and `admin.token_file` must be valid.

use std::path::{Path, PathBuf};

use clap::Args;
use http::uri::Authority;

use super::{Failure, print_error};
use rotogate_config::{AdminAccess, Config, ConfigErrors, ProcessEnv};

/// The options of commands that send requests to the running gate.
#[derive(Debug, Args)]
pub(super) struct GateOptions {
    /// The URL of the gate's admin listener, such as http://127.0.0.1:8081 [default: admin.listen].
    #[arg(long, global = true, value_name = "URL", value_parser = address)]
    admin: Option<Authority>,
    /// The file with an admin token [default: admin.token_file].
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

fn address(text: &str) -> Result<Authority, String> {
    let text = text.strip_prefix("http://").unwrap_or(text);
    let authority = text.strip_suffix('/').unwrap_or(text).parse::<Authority>().ok();
    let authority = authority.filter(|it| it.port().is_some() && !it.as_str().contains('@'));
    authority.ok_or_else(|| "expected an http:// URL with a host and a port, such as http://127.0.0.1:8081".to_owned())
}

pub(super) enum Reach {
    Configured(Box<Config>),
    Gate(AdminAccess),
}

impl GateOptions {
    fn named(&self) -> Option<AdminAccess> {
        let address = self.admin.as_ref()?.to_string();
        Some(AdminAccess { address, token_file: self.token_file.clone() })
    }

    pub(super) fn access(&self, path: &Path) -> Result<AdminAccess, Failure> {
        match self.reach(path)? {
            Reach::Configured(config) => Ok(config.admin.access()),
            Reach::Gate(gate) => Ok(gate),
        }
    }

    pub(super) fn sound(&self, path: &Path) -> Result<AdminAccess, Failure> {
        self.named().map_or_else(|| super::load(path).map(|config| self.with_token(config.admin.access())), Ok)
    }

    /// Returns the configuration if it is valid, and otherwise only the settings that are needed to reach the gate.
    // Requirement O28.
    pub(super) fn reach(&self, path: &Path) -> Result<Reach, Failure> {
        if let Some(gate) = self.named() {
            return Ok(Reach::Gate(gate));
        }
        match rotogate_config::load(path, &ProcessEnv) {
            Ok(mut config) => {
                if let Some(file) = &self.token_file {
                    config.admin.token_file.clone_from(file);
                }
                Ok(Reach::Configured(Box::new(config)))
            }
            Err(errors) => beside(path, &errors).map(|gate| Reach::Gate(self.with_token(gate))),
        }
    }

    /// Applies the token file from the command line.
    fn with_token(&self, gate: AdminAccess) -> AdminAccess {
        AdminAccess { token_file: self.token_file.clone().or(gate.token_file), ..gate }
    }
}

/// Reads the admin settings from a configuration that is otherwise invalid. Prints the first error.
fn beside(path: &Path, errors: &ConfigErrors) -> Result<AdminAccess, Failure> {
    let Ok(gate) = rotogate_config::load_access(path, &ProcessEnv) else { return Err(Failure::configuration(errors)) };
    let first = errors.iter().next().map(|error| error.to_string().replace('\n', " ")).unwrap_or_default();
    let more = match errors.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more: run `rotogate check`)"),
    };
    let address = &gate.address;
    print_error(&format!(
        "rotogate: the configuration is invalid: {first}{more}. The command still sends its request to the gate on \
         {address}"
    ));
    Ok(gate)
}
