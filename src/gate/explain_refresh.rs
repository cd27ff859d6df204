use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use secrecy::SecretString;

use super::Gate;
use super::endpoint::RefreshPlace;
use super::explanation::{Conclusion, ExplainedToken, Explanation, Rule, RuleVerdict, with_cause};
use rotogate_core::client::Grant;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{APPLICATION, AccountRule, ExplainedRefresh, RefreshTerms, denial_of, rotates};
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::session::rotation::{Decision, SessionEnd};
use rotogate_core::session::{Session, Status, use_in_words};

impl Gate {
    /// Explains what a refresh token would do at the endpoint of its session, without consuming it or ending the
    /// session. The effects are listed in [`session::rotation`](rotogate_core::session::rotation). This method reads
    /// the session's record and looks up the user. `client` is the client that sends the token, by default the
    /// session's client.
    ///
    /// ```
    /// use rotogate::gate::Conclusion;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
    /// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let gate = gate.client(Client::public("web")).client(Client::public("ios")).build().await?;
    /// let tokens = gate.sessions().start(NewSession::new("ada", "web")).await?;
    /// let refresh = tokens.refresh_token.ok_or("a login has one")?;
    /// assert_eq!(gate.explain_refresh(refresh.expose(), None).await.decision, Conclusion::Passed);
    /// let other = gate.explain_refresh(refresh.expose(), Some("ios")).await;
    /// assert_eq!(other.outcome, "other_client");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[doc(hidden)]
    pub async fn explain_refresh(&self, token: &str, client: Option<&str>) -> Explanation {
        self.explain_refresh_from(token, client, None).await
    }

    /// Like [`explain_refresh`](Self::explain_refresh), for a client at this address. The rate limits for this address
    /// are checked first.
    #[doc(hidden)]
    pub async fn explain_refresh_from(&self, token: &str, client: Option<&str>, from: Option<IpAddr>) -> Explanation {
        self.explained_refresh(token, client, from, None).await
    }

    /// Explains the token at the endpoint of this request. Returns `None` if the endpoint does not accept refresh
    /// tokens.
    #[doc(hidden)]
    pub async fn explain_refresh_at(
        &self,
        token: &str,
        client: Option<&str>,
        from: Option<IpAddr>,
        at: &Parts,
    ) -> Option<Explanation> {
        let place = RefreshPlace::find(&self.0, at)?;
        Some(self.explained_refresh(token, client, from, Some(&place)).await)
    }

    async fn explained_refresh(
        &self,
        token: &str,
        client: Option<&str>,
        from: Option<IpAddr>,
        at: Option<&RefreshPlace<'_>>,
    ) -> Explanation {
        let gate = &self.0;
        let token = SecretString::from(token);
        let terms_of = |session: &Session| match at {
            Some(place) => place.terms_of(gate, session, client),
            None => self.terms_of(session, client),
        };
        let (explained, mut decided) = gate.engine.explain_refresh(&token, terms_of).await;
        // A request authenticates its client before it reads the token.
        let names_client = at.is_none_or(RefreshPlace::names_client);
        if client.is_some_and(|id| names_client && gate.clients.get(id).is_none()) {
            decided = Err(Denial::InvalidClient.into());
        }
        let (outcome, denial) = match &decided {
            Ok(decision) => match denial_of(*decision) {
                Some(denial) => (Reason::denied(&denial), Some(denial)),
                None => (Reason::ANSWERED, None),
            },
            Err(error) => (Reason::from(error), denial_in(error)),
        };
        let session = decided.as_ref().ok().filter(|decision| rotates(**decision));
        let session = session.and(explained.named).map(|(id, _)| id);
        // The rate limit of the address is checked first, and the rate limit of the session last.
        let held_up = gate.engine.limits().foresee_refresh(from, session).err();
        let is_first = matches!(held_up, Some(Denial::RateLimited("refresh_per_address", _)));
        let (outcome, denial) = match held_up.filter(|_| denial.is_none() || is_first) {
            Some(held_up) => (Reason::denied(&held_up), Some(held_up)),
            None => (outcome, denial),
        };
        let rules = self.rows(&explained, &decided, (held_up, denial), at);
        Explanation {
            decision: match (outcome.is_served(), outcome.is_refusal()) {
                (true, _) => Conclusion::Passed,
                (false, true) => Conclusion::Refused,
                (false, false) => Conclusion::Unavailable,
            },
            status: match (matches!(decided, Err(Error::Failed(_))), denial) {
                (true, _) => Some(503),
                (false, denial) => at.zip(denial).map(|(place, denial)| place.status_of(gate, denial)),
            },
            outcome: outcome.word(),
            detail: outcome.detail(),
            denial,
            challenge: None,
            route: None,
            call_rules: Vec::new(),
            also_matched: Vec::new(),
            rules,
            identity: Vec::new(),
            token: explained.session.as_ref().map(|session| ExplainedToken {
                is_proved: true,
                subject: Some(session.subject.to_string()),
                client: Some(session.client.to_string()),
                session: Some(session.id.to_string()),
                generation: explained.named.map(|(_, generation)| generation.get()),
                scope: Some(session.scope.clone()),
                ..ExplainedToken::default()
            }),
            advice: None,
        }
    }

    fn rows(
        &self,
        explained: &ExplainedRefresh,
        decided: &Result<Decision, Error>,
        (held_up, denial): (Option<Denial>, Option<Denial>),
        at: Option<&RefreshPlace<'_>>,
    ) -> Vec<RuleVerdict> {
        let mut rules = Vec::new();
        rules.extend(
            at.map(|place| RuleVerdict::ok(Rule::Route, format!("the gate itself responds: {}", place.name()))),
        );
        rules.push(match held_up {
            Some(denial) => RuleVerdict::fail(Rule::Limit, denial.to_string()),
            None => RuleVerdict::ok(Rule::Limit, "no rate limit in `[limits]` refuses the request"),
        });
        rules.push(match explained.named {
            Some((id, generation)) => RuleVerdict::ok(
                Rule::Credential,
                format!("a refresh token of session {id}, generation {}", generation.get()),
            ),
            None => RuleVerdict::fail(Rule::Credential, "the token is not a refresh token of this gate"),
        });
        rules.push(match (&explained.session, denial.map(|denial| denial.rule())) {
            (Some(session), Some(Rule::Session | Rule::Credential)) => {
                let why = denial.map(|denial| denial.to_string()).unwrap_or_default();
                RuleVerdict::fail(Rule::Session, format!("{why}; the session is {}", self.told(session)))
            }
            (Some(session), _) => RuleVerdict::ok(Rule::Session, self.told(session)),
            (None, _) if explained.named.is_none() => RuleVerdict::skip(Rule::Session, "the token names no session"),
            (None, Some(_)) => {
                RuleVerdict::fail(Rule::Session, "the session does not exist, or the token does not belong to it")
            }
            (None, None) => RuleVerdict::skip(Rule::Session, "the session was not read"),
        });
        rules.push(match decided {
            Ok(decision) if denial_of(*decision).is_none() => RuleVerdict::ok(Rule::Rotation, row(*decision)),
            Ok(decision) => RuleVerdict::fail(Rule::Rotation, row(*decision)),
            Err(Error::Failed(fault)) => RuleVerdict::fail(Rule::Rotation, with_cause(fault)),
            Err(Error::Denied(_)) => RuleVerdict::skip(Rule::Rotation, "the rotation rules were not applied"),
        });
        rules
    }

    /// The engine itself refuses a token of another client.
    fn terms_of(&self, session: &Session, client: Option<&str>) -> Result<RefreshTerms<'_>, Denial> {
        let gate = &self.0;
        let own = || gate.endpoints.client_of(session).map(Arc::clone);
        let known = match client.filter(|client| **client != *session.client) {
            Some(other) => gate.clients.get(other),
            None => own().or_else(|| gate.clients.get(&session.client)),
        };
        let client = known.ok_or(Denial::InvalidClient)?;
        if !client.may(Grant::RefreshToken) {
            return Err(Denial::UnauthorizedClient);
        }
        let endpoint = gate.endpoints.profile_for(session);
        let own = (*session.dialect == *APPLICATION).then_some(&gate.profile);
        let profile = client.profile.over(endpoint.or(own).ok_or(Denial::OtherDialect)?);
        Ok(RefreshTerms { client, profile, accepts: None, account: AccountRule::Any })
    }

    fn told(&self, session: &Session) -> String {
        let state = match session.status {
            Status::Live => self.0.engine.is_over(session).unwrap_or("live"),
            Status::Revoked(because) => because.word(),
        };
        let Session { subject, client, dialect, current, confirmed, .. } = session;
        let seen = use_in_words(*current, *confirmed);
        format!(
            "{state}, subject {subject}, client {client}, started in {dialect}; the current generation is {}, {seen}",
            current.get()
        )
    }
}

fn denial_in(error: &Error) -> Option<Denial> {
    match error {
        Error::Denied(denial) => Some(*denial),
        Error::Failed(_) => None,
    }
}

fn row(decision: Decision) -> String {
    match decision {
        Decision::Revoked(SessionEnd::NotBefore) => {
            "all sessions, or all sessions of the user or the client, were revoked after this session began".to_owned()
        }
        Decision::Revoked(SessionEnd::BeforeValidFrom) => {
            "the session began before the user's `sessions_valid_from`".to_owned()
        }
        Decision::Revoked(SessionEnd::UserInactive) => "the user is disabled, does not exist any more, or is in \
                                                        another account"
            .to_owned(),
        Decision::Revoked(SessionEnd::Elsewhere) => {
            "the issuer that confirmed the login has ended the session".to_owned()
        }
        Decision::Revoked(SessionEnd::Record | SessionEnd::List) => "the session has ended".to_owned(),
        Decision::Expired(_) => "the session has exceeded one of its lifetimes".to_owned(),
        Decision::Ahead { fast_forward: true } => {
            "the token is newer than the session in the store, so the session continues from this token".to_owned()
        }
        Decision::Ahead { fast_forward: false } => {
            "the token is newer than the session in the store, so it is refused".to_owned()
        }
        Decision::Rotate => {
            "the token has the current generation, so the request would get a new pair of tokens".to_owned()
        }
        Decision::Replay => "the token has the previous generation and the grace period has not ended, so the \
                             request would get the current pair again"
            .to_owned(),
        Decision::Reissue => {
            "the token has the previous generation, but the current one was never used, so the request would get a \
             new pair"
                .to_owned()
        }
        Decision::Reuse(reuse) => {
            let since = reuse
                .superseded_for
                .map_or_else(String::new, |since| format!(", superseded {} s ago", since.as_secs()));
            format!(
                "the token is superseded, {} generations old{since}; a request with the token would trigger \
                 `on_reuse`",
                reuse.generations_old
            )
        }
    }
}
