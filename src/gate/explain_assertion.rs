use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Gate;
use super::explanation::{Conclusion, ExplainedToken, Explanation, Rule, RuleVerdict, with_cause};
use rotogate_core::denial::Denial;
use rotogate_core::directory::User;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::session::Session;
use rotogate_core::strict_json;
use rotogate_core::token::verify::{ProvedGrant, SentGrant};

impl Gate {
    /// Explains what an assertion (RFC 7523 §2.1) would do at the endpoints of this gate. The assertion is not
    /// consumed, and nothing is counted. `client` sends the assertion. The default is the client that the assertion
    /// names.
    #[doc(hidden)]
    pub async fn explain_assertion(&self, assertion: &str, client: Option<&str>) -> Explanation {
        let named = client_named_in(assertion);
        let read = self.read_assertion(assertion, client.or(named.as_deref()));
        let mut rules = Vec::new();
        rules.push(match &read {
            Ok(grant) => {
                let by = &grant.vouched_by;
                RuleVerdict::ok(Rule::Credential, format!("assertion from {} about {}", by.issuer, by.subject))
            }
            Err(denial) => RuleVerdict::fail(Rule::Credential, denial.to_string()),
        });
        let found = match &read {
            Ok(grant) => self.0.engine.foresee_asserted(grant).await,
            Err(denial) => Err((*denial).into()),
        };
        rules.push(match (&read, &found) {
            (Err(_), _) => RuleVerdict::skip(Rule::Session, "the assertion is not valid"),
            (Ok(_), Err(error)) => RuleVerdict::fail(Rule::Session, with_cause(error)),
            (Ok(_), Ok((_, Some(session)))) => {
                RuleVerdict::ok(Rule::Session, format!("session {} continues", session.id))
            }
            (Ok(_), Ok((Some(user), None))) => RuleVerdict::ok(
                Rule::Session,
                format!("the directory returned {}; the assertion has not been used yet", user.subject),
            ),
            (Ok(_), Ok((None, None))) => RuleVerdict::ok(Rule::Session, "the assertion has not been used yet"),
        });
        let outcome = found.as_ref().map_or_else(Reason::from, |_| Reason::ANSWERED);
        Explanation {
            decision: match (outcome.is_served(), outcome.is_refusal()) {
                (true, _) => Conclusion::Passed,
                (false, true) => Conclusion::Refused,
                (false, false) => Conclusion::Unavailable,
            },
            status: matches!(found, Err(Error::Failed(_))).then_some(503),
            outcome: outcome.word(),
            detail: outcome.detail(),
            denial: match found {
                Err(Error::Denied(denial)) => Some(denial),
                Ok(_) | Err(Error::Failed(_)) => None,
            },
            challenge: None,
            route: None,
            call_rules: Vec::new(),
            also_matched: Vec::new(),
            rules,
            identity: Vec::new(),
            token: read.ok().map(|grant| {
                let (user, session) = found.unwrap_or_default();
                explained(&grant, user.as_ref(), session.as_ref())
            }),
            advice: None,
        }
    }

    /// Reads the assertion as an endpoint would. Without endpoints, uses the gate's own issuer as the audience.
    fn read_assertion(&self, assertion: &str, client: Option<&str>) -> Result<ProvedGrant, Denial> {
        let (gate, own) = (&self.0, &**self.0.engine.issuer());
        let read = |issuers: &[&str], endpoint: Option<&str>| {
            let sent = SentGrant { audience: (issuers, endpoint), client, token: assertion };
            // An assertion about a workload does not need a client of this gate.
            gate.checker
                .proved_grant(sent)
                .or_else(|denial| gate.checker.proved_grant(SentGrant { client: None, ..sent }).map_err(|_| denial))
        };
        let mut last = None;
        for (issuer, endpoint) in gate.endpoints.token_endpoints() {
            match read(&[own, issuer], Some(endpoint)) {
                Ok(grant) => return Ok(grant),
                Err(denial) => last = Some(denial),
            }
        }
        last.map_or_else(|| read(&[own], None), Err)
    }
}

/// The assertion is not verified.
fn client_named_in(assertion: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1)?).ok()?;
    strict_json::object(&payload).ok()?.get("client_id")?.as_str().map(str::to_owned)
}

fn explained(grant: &ProvedGrant, user: Option<&User>, session: Option<&Session>) -> ExplainedToken {
    let named = session.map(|session| &session.subject).or(user.map(|user| &user.subject));
    ExplainedToken {
        is_proved: true,
        subject: Some(named.unwrap_or(&grant.vouched_by.subject).to_string()),
        client: Some(grant.client.to_string()),
        session: session.map(|session| session.id.to_string()),
        ..ExplainedToken::default()
    }
}
