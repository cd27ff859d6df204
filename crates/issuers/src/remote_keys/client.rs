//! The HTTP client for one issuer. The client's files are read again for each fetch.

use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderValue;
use secrecy::SecretString;

use super::answer::FetchFailure;
use super::settings::{FetchFiles, FetchSettings, RemoteIssuer};
use rotogate_core::http_client::{HttpClient, Proxy, Tls, bearer};
use rotogate_core::private_file::{read_private, trusted};

/// The maximum length of the CA file, in bytes.
const MAX_CA: u64 = 4 << 20;

pub(crate) struct FetchClient {
    files: FetchFiles,
    settings: FetchSettings,
    proxy: Option<Proxy>,
    /// The client, with a digest of its files.
    made: Option<([u8; 32], HttpClient)>,
}

impl FetchClient {
    pub(crate) fn new(issuer: &RemoteIssuer) -> Self {
        Self { files: issuer.files.clone(), settings: issuer.fetch, proxy: issuer.proxy.clone(), made: None }
    }

    pub(crate) fn current(&mut self) -> Result<(HttpClient, Option<HeaderValue>), FetchFailure> {
        let mut tls = Tls::default();
        let mut digest = Context::new(&SHA256);
        if let Some(file) = &self.files.ca {
            let bytes = trusted::read(file, MAX_CA).map_err(FetchFailure::files)?;
            digest.update(&bytes);
            tls.ca = Some(String::from_utf8(bytes).map_err(|_| not(file, "text in PEM"))?);
        }
        digest.update(&[0]);
        if let Some(file) = &self.files.client_cert {
            let pem = read_private(file).map_err(FetchFailure::files)?;
            digest.update(pem.as_bytes());
            tls.client_cert = Some((pem.to_string(), SecretString::from(pem.to_string())));
        }
        let mut found = [0; 32];
        found.iter_mut().zip(digest.finish().as_ref()).for_each(|(to, from)| *to = *from);
        let client = match &self.made {
            Some((digest, client)) if *digest == found => client.clone(),
            _ => {
                let client = HttpClient::with_tls(&tls).map_err(|error| {
                    let file = match error.key {
                        "ca" => self.files.ca.as_deref(),
                        _ => self.files.client_cert.as_deref(),
                    };
                    let file = file.map(|file| format!("{}: ", file.display())).unwrap_or_default();
                    FetchFailure::files(format!("{file}{}", error.message))
                })?;
                let client = client.with_timeout(self.settings.timeout).with_max_size(self.settings.max_size);
                let client = client.with_proxy(self.proxy.clone());
                self.made = Some((found, client.clone()));
                client
            }
        };
        Ok((client, self.bearer()?))
    }

    fn bearer(&self) -> Result<Option<HeaderValue>, FetchFailure> {
        let Some(file) = &self.files.bearer else { return Ok(None) };
        let text = read_private(file).map_err(FetchFailure::files)?;
        let token = SecretString::from(text.trim().to_owned());
        bearer(&token).filter(|_| !text.trim().is_empty()).map(Some).ok_or_else(|| not(file, "a bearer token"))
    }
}

fn not(file: &Path, what: &str) -> FetchFailure {
    FetchFailure::files(format!("{}: is not {what}", file.display()))
}
