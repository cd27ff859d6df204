//! The files that `[tracing]` names.

use std::path::Path;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
};
use rustls::ClientConfig;

use rotogate_config::TracingConfig;
use rotogate_core::private_file::{read_private, trusted};
use rotogate_kit::file_stamp::Stamp;
use rotogate_kit::upstream_tls::{BadTls, UpstreamTls};

/// Headers of the transport, which the file must not set.
const OF_TRANSPORT: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING];

pub(crate) struct Credentials {
    pub(super) headers: HeaderMap,
    pub(super) tls: Option<ClientConfig>,
}

impl Credentials {
    /// # Errors
    /// Returns the faulty configuration key, and a description of the problem.
    pub(crate) fn read(settings: &TracingConfig) -> Result<Self, (&'static str, String)> {
        let headers = settings.headers_file.as_deref().map(headers).transpose();
        let headers = headers.map_err(|message| ("tracing.headers_file", message))?.unwrap_or_default();
        let is_tls = settings.endpoint.scheme_str() == Some("https");
        let tls = UpstreamTls { ca: settings.ca.clone(), ..UpstreamTls::default() };
        // A configured file must be valid even if it is not needed.
        let tls = (is_tls || settings.ca.is_some()).then(|| tls.load()).transpose();
        let tls = tls.map_err(|BadTls { message, .. }| ("tracing.ca", message))?;
        Ok(Self { headers, tls: tls.filter(|_| is_tls) })
    }

    pub(crate) fn files(settings: &TracingConfig) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("tracing.headers_file", &settings.headers_file), ("tracing.ca", &settings.ca)];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?)))
    }

    /// The stamps show whether the files have changed.
    pub(super) fn stamps(settings: &TracingConfig) -> Vec<Stamp> {
        Self::files(settings).map(|(_, file)| Stamp::read(file)).collect()
    }
}

/// Reads a private file with lines of the form `name: value`.
fn headers(path: &Path) -> Result<HeaderMap, String> {
    let text = trusted::check_folders(path).and_then(|()| read_private(path))?;
    let mut headers = HeaderMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: &str| Err(format!("{}: line {}: {what}", path.display(), index + 1));
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok().filter(|value| !value.is_empty())?))
        });
        let Some((name, mut value)) = parsed else {
            return wrong("expected a header, such as \"authorization: Bearer …\"");
        };
        if OF_TRANSPORT.contains(&name) {
            return wrong(&format!("the export protocol sets {name} itself: remove the line"));
        }
        value.set_sensitive(true);
        if headers.insert(&name, value).is_some() {
            return wrong(&format!("{name} occurs twice"));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p45_a_file_of_headers_is_private_and_its_values_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("collector.headers");
        let read = |text: &str| {
            let _ = std::fs::remove_file(&path);
            rotogate_core::private_file::create_private_new(&path, text.as_bytes()).unwrap();
            headers(&path)
        };
        let read_back = read("authorization: Bearer kapikey-1234\n\nx-tenant:  a b \n").unwrap();
        assert_eq!(
            (&read_back["authorization"], &read_back["x-tenant"]),
            (&HeaderValue::from_static("Bearer kapikey-1234"), &HeaderValue::from_static("a b"))
        );
        assert!(!format!("{read_back:?}").contains("kapikey"));
        for (bad, why) in [
            ("x: 1\nkapikey-1234\n", "line 2: expected a header"),
            ("x:\n", "line 1: expected"),
            ("b\u{e4}d: 1\n", "line 1: expected"),
            ("x: 1\nX: 2\n", "line 2: x occurs twice"),
            ("Host: example.com\n", "line 1: the export protocol sets host itself"),
        ] {
            let message = read(bad).unwrap_err();
            assert!(message.contains("collector.headers: ") && message.contains(why), "{message}");
            assert!(!message.contains("1234"), "{message}");
        }
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(headers(&path).is_err(), "everyone may read it");
    }
}
