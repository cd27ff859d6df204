//! The decision points of the configuration, and the files that they need.

use secrecy::SecretString;

use rotogate::program::{EvaluationPlace, HttpDecisionPoint};
use rotogate_core::decision::DecisionPointRules;
use rotogate_core::http_client::{HttpClient, Tls};
use rotogate_core::private_file;

use super::provider_client::target;
use crate::server::error::{Faults, KeyFault};
use rotogate_config::{Config, ConfigErrors, DecisionPointConfig};

/// The rules of a decision point. Reads its files.
///
/// # Errors
/// A file cannot be used.
pub(super) fn load(config: &DecisionPointConfig) -> Result<DecisionPointRules, KeyFault> {
    let DecisionPointConfig { name, cache, .. } = config;
    let point = point(config)?;
    Ok(DecisionPointRules { allow: cache.allow, deny: cache.deny, ..DecisionPointRules::new(name, point) })
}

fn point(config: &DecisionPointConfig) -> Result<HttpDecisionPoint, KeyFault> {
    let DecisionPointConfig { url, evaluation_url, token_file, client_cert, ca, timeout, .. } = config;
    let certificate = client_cert.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    let tls = Tls::read(ca.as_deref(), certificate).and_then(|tls| HttpClient::with_tls(&tls));
    let client = tls.map_err(|error| KeyFault::new(error.key, error.message))?.with_timeout(*timeout);
    let read = |file| private_file::read_private(file).map(|text| SecretString::from(text.trim().to_owned()));
    let token = token_file.as_deref().map(read).transpose();
    let token = token.map_err(|message| KeyFault::new("token_file", message))?;
    let place = match (url, evaluation_url) {
        (_, Some(url)) => EvaluationPlace::Url(target("evaluation_url", url)?),
        (url, None) => EvaluationPlace::Metadata(url.clone().unwrap_or_default()),
    };
    HttpDecisionPoint::new(client, place, token.as_ref()).map_err(|why| KeyFault::new("token_file", why))
}

/// Asks each decision point for its metadata, for `check --online`. Returns a line for each, with the URL of
/// its evaluations.
///
/// # Errors
/// The decision points that failed, each with the reason.
pub(crate) async fn inspect(config: &Config) -> Result<Vec<String>, ConfigErrors> {
    let (mut lines, mut faults) = (Vec::new(), Faults::new(config));
    for (index, entry) in config.decision_points.iter().enumerate() {
        let found = match point(entry) {
            Ok(point) => point.evaluation().await.map_err(|fault| KeyFault::new("url", fault.to_string())),
            Err(fault) => Err(fault),
        };
        let target = faults.good(format_args!("decision_points[{index}]"), found);
        lines.extend(target.map(|target| format!("{}: evaluates at {target}", entry.name)));
    }
    faults.result(lines)
}
