//! The secret and the TLS files of a login hook. Changed files are read again without a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use secrecy::SecretString;

use super::HttpSettings;
use rotogate_core::bounds::MAX_HOOK_ANSWER;
use rotogate_core::http_client::{BadTls, HttpClient, Tls, bearer};
use rotogate_core::private_file::read_private;
use rotogate_kit::file_stamp::Stamp;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A timeout longer than any configured `timeout`. The configured timeout limits each request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) client: HttpClient,
    pub(super) authorization: Option<HeaderValue>,
}

#[derive(Debug)]
pub(super) struct Files {
    settings: Arc<HttpSettings>,
    read: Mutex<(Vec<Stamp>, Access)>,
}

impl Files {
    /// # Errors
    /// Returns the invalid configuration key and a description of the problem.
    pub(super) fn open(settings: &Arc<HttpSettings>) -> Result<Self, (&'static str, String)> {
        // Stamps are taken first, so that a change during the read is detected later.
        let stamps = stamps(settings);
        let access = access(settings)?;
        Ok(Self { settings: Arc::clone(settings), read: Mutex::new((stamps, access)) })
    }

    /// Reads the files again if they have changed.
    ///
    /// # Errors
    /// A file has changed and is now unusable.
    pub(super) fn current(&self) -> Result<Access, String> {
        let now = stamps(&self.settings);
        let mut read = self.read.lock();
        if read.0 != now {
            let access = access(&self.settings).map_err(|(key, message)| format!("{key}: {message}"))?;
            *read = (now, access);
        }
        Ok(read.1.clone())
    }
}

fn stamps(settings: &HttpSettings) -> Vec<Stamp> {
    settings.files().into_iter().map(|(_, path)| Stamp::read(path)).collect()
}

fn access(settings: &HttpSettings) -> Result<Access, (&'static str, String)> {
    let authorization = settings.secret_file.as_deref().map(authorization).transpose();
    let authorization = authorization.map_err(|error| ("secret_file", error))?;
    let pair = settings.client_cert.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    let client = Tls::read(settings.ca.as_deref(), pair).and_then(|tls| HttpClient::with_tls(&tls));
    let client = client.map_err(|BadTls { key, message, .. }| (key, message))?;
    let client =
        client.with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT).with_max_size(MAX_HOOK_ANSWER);
    Ok(Access { client, authorization })
}

fn authorization(path: &Path) -> Result<HeaderValue, String> {
    let text = read_private(path)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    let is_usable = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
    let header = is_usable.then(|| bearer(&SecretString::from(secret.to_owned()))).flatten();
    header.ok_or_else(|| format!("{}: expected the secret as one line of visible ASCII characters", path.display()))
}
