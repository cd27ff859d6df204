//! `rotogate explain`: why the running gate refuses a request.

use std::io::Read;
use std::net::IpAddr;

use clap::Args;
use rotogate_core::token::CertificateThumbprint;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use zeroize::Zeroizing;

use super::output::Output;
use super::{CommandResult, Failure, admin_client, runtime};
use crate::server::operate::admin::{ExplainReport, ExplainedRule, Place, TokenKind};
use rotogate_config::AdminAccess;

/// The maximum length of the input, in bytes. Every token is shorter.
const MAX_INPUT: u64 = 32 << 10;

#[derive(Debug, Args, Serialize)]
pub(super) struct ExplainOptions {
    /// The path, with its query. Not needed for a refresh token or an assertion.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The method [default: GET].
    #[arg(long)]
    method: Option<String>,
    /// The host in the request [default: the host of public_url].
    #[arg(long)]
    host: Option<String>,
    /// The address of the client [default: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// The name of the listener [default: a listener without a name].
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The client certificate of the connection, in PEM.
    #[arg(long, value_name = "FILE", value_parser = certificate)]
    client_certificate: Option<CertificateThumbprint>,
    /// A header, such as 'origin: https://app.example.com'. May be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The client that presents a refresh token or an assertion [default: the client of the session, or the client
    /// that the assertion names].
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Treats the token as an assertion that is presented as a grant.
    #[arg(long)]
    #[serde(skip)]
    assertion: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once(':').ok_or("expected a name, a colon and a value, such as 'origin: https://…'")?;
    let name = http::HeaderName::try_from(name.trim()).map_err(|_| "this is not a valid header name".to_owned())?;
    let value = value.trim();
    http::HeaderValue::try_from(value).map_err(|_| "this is not a valid header value".to_owned())?;
    Ok((name.to_string(), value.to_owned()))
}

fn certificate(path: &str) -> Result<CertificateThumbprint, String> {
    let leaf = CertificateDer::from_pem_file(path).map_err(|error| format!("not a certificate in PEM: {error}"))?;
    Ok(CertificateThumbprint::from_der(&leaf))
}

#[derive(Serialize)]
struct ExplainRequest<'a> {
    #[serde(flatten)]
    options: &'a ExplainOptions,
    token: Option<&'a str>,
    kind: Option<TokenKind>,
}

pub(super) fn run(gate: &AdminAccess, options: &ExplainOptions, output: Output) -> CommandResult {
    let token = token()?;
    let token = without_scheme(&token);
    if options.path.is_none() && !options.assertion && !token.starts_with(rotogate_core::token::refresh::PREFIX) {
        let why = "--path is missing; it is optional only for a refresh token or an assertion";
        return Err(Failure::Usage(why.to_owned()));
    }
    let question = ExplainRequest {
        options,
        token: Some(token).filter(|token| !token.is_empty()),
        kind: options.assertion.then_some(TokenKind::Assertion),
    };
    let report: ExplainReport = runtime()?.block_on(admin_client::post(gate, "/v1/explain", &question))?;
    output.write(&report, || text(&report))?;
    if report.decision == "passed" { Ok(()) } else { Err(Failure::Told) }
}

/// Removes an authentication scheme in front of the token.
pub(super) fn without_scheme(text: &str) -> &str {
    let text = text.trim();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => text,
    }
}

/// The token, or an empty string.
fn token() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(MAX_INPUT).read_to_string(&mut text).map_err(Failure::failed)?;
    Ok(text)
}

fn text(report: &ExplainReport) -> String {
    let status = report.status.map_or_else(String::new, |status| format!(" {status}"));
    let decision = report.decision.to_uppercase();
    let mut lines = vec![match report.decision.as_str() {
        "undecided" => format!("{decision}: the endpoint's decision depends on the request body or on the store"),
        "passed" if report.status.is_none() => decision,
        _ => format!("{decision}{status} {}", report.outcome),
    }];
    lines.extend(
        report.problem.as_ref().map(|problem| format!("However, the client would get 502 or 503 ({problem}).")),
    );
    let also = report.route.as_ref().map(|route| route.also_matched.join(" ")).filter(|also| !also.is_empty());
    for rule in &report.rules {
        let mut line = line(rule);
        if rule.rule == "route"
            && let Some(also) = &also
        {
            line.push_str(&format!("  [also matched, less specific: {also}]"));
        }
        lines.push(line);
    }
    if !report.identity.headers.is_empty() {
        lines.push("The upstream gets:".to_owned());
        lines.extend(report.identity.headers.iter().map(|(name, value)| format!("  {name}: {value}")));
    }
    if report.token.as_ref().is_some_and(|token| token.unverified) {
        lines.push("The claims are unverified, because no signature proves them.".to_owned());
    }
    if let Some(advice) = &report.advice {
        let is_passed = report.decision == "passed";
        lines.push(format!("{}: {advice}", if is_passed { "Not judged" } else { "What to do" }));
    }
    lines.join("\n")
}

fn line(rule: &ExplainedRule) -> String {
    let ExplainedRule { rule: name, result, detail, config } = rule;
    let is_failed = result == "fail";
    let result = if is_failed { "FAIL" } else { result };
    // The configuration line is shown only for the route and for failed rules.
    let place = config.as_ref().filter(|_| is_failed || name == "route").map(place).unwrap_or_default();
    format!("  {result:<5} {name:<11} {detail}{place}")
}

fn place(place: &Place) -> String {
    let Place { file, line } = place;
    line.map_or_else(|| format!(" ({file})"), |line| format!(" ({file}:{line})"))
}
