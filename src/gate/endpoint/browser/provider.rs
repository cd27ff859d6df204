use std::sync::Arc;

use super::super::handler::EndpointHandler;
use super::told_recipient;
use crate::dialect::browser::callback::{Callback, ProviderAnswer, ProviderError};
use crate::dialect::browser::step_up::AskedLogin;
use crate::dialect::browser::target::LoginTarget;
use crate::dialect::browser::texts::Text;
use crate::dialect::browser::{BrowserDialect, NAME, long_target, words};
use crate::dialect::{Call, Reply};
use crate::gate::Inner;
use crate::gate::browser::transaction::Transaction;
use crate::gate::browser::vault::KeptTokens;
use crate::gate::browser::{BrowserEndpoint, presented};
use crate::gate::to_its_end::to_its_end;
use rotogate_core::denial::{Denial, ProviderFlaw};
use rotogate_core::engine::{ApplicationLogin, BrowserLogin, Engine, Origin};
use rotogate_core::fault::{Error, Fault};
use rotogate_core::pause::MAX_PAUSE;
use rotogate_core::reason::Reason;
use rotogate_core::token::session_cookie::SessionCookie;
use rotogate_core::token::verify::SentIdToken;
use rotogate_issuers::login::{LoginFailure, LoginProvider, LoginSecrets};

const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);
const NOT_BEGUN: Denial = Denial::ProviderLogin(ProviderFlaw::NotBegun);
/// Keycloak announces `iss` even if the client's settings exclude it.
const NO_ISSUER: &str = "`iss` is missing, although the provider's discovery document says that every response has \
                         it (Keycloak: turn off \"Exclude Issuer From Authentication Response\" of the client)";

/// Begins a login without a write to the store. A login counts as a refresh from the client's address, because the gate
/// may send a request to the provider (RFC 9126).
pub(super) async fn begin(
    browser: &BrowserEndpoint,
    provider: &LoginProvider,
    call: &Call<'_>,
    handler: &EndpointHandler<'_>,
) -> (Reply, Reason) {
    let begun = begin_new(browser, provider, call, handler).await;
    handler.tell(&begun);
    match begun {
        Ok(reply) => (reply, Reason::ANSWERED),
        Err(error) => (words::not_logged_in(&browser.dialect, call, &error), Reason::from(&error)),
    }
}

/// Begins a login, or refuses it if the browser would loop between logins.
// Requirements B28, B36 and B38.
async fn begin_new(
    browser: &BrowserEndpoint,
    provider: &LoginProvider,
    call: &Call<'_>,
    handler: &EndpointHandler<'_>,
) -> Result<Reply, Error> {
    let engine = &handler.gate.engine;
    engine.limits().refresh(handler.origin.address)?;
    let now = engine.clock().now();
    let to = BrowserDialect::target_of(call);
    let target = browser.dialect.target(to.as_deref());
    let asked = AskedLogin::read(call.query);
    let mut transaction = Transaction::begin(target.as_str(), asked, now).map_err(Fault::from)?;
    let session = presented(handler.gate, call.headers, handler.origin.address)?.map(|cookie| cookie.session());
    if let Err(made) = transaction.follow(call.headers, session, &engine.keyring(), now) {
        let asked = &transaction.asked;
        tracing::warn!(
            to = target.as_str(),
            %asked,
            made = %made,
            "login refused, because the browser would loop: the user has made the login that the page required \
             (`made`), but now the page requires another login (`asked`). Change the route, or what the provider \
             grants"
        );
        return Err(Denial::ProviderLogin(ProviderFlaw::Repeated).into());
    }
    let secrets =
        LoginSecrets { state: &transaction.state, nonce: &transaction.nonce, verifier: &transaction.verifier };
    let url = provider.login_url(&browser.redirect_uri(), secrets, &transaction.asked.pairs()).await;
    let url = url.map_err(|why| failed(provider, &why))?;
    let mut reply = words::see_other(&url);
    transaction.put(reply.headers_mut(), call.headers, &engine.keyring(), now)?;
    if transaction.rest.is_some() {
        long_target::put(reply.headers_mut(), target.as_str(), &browser.dialect.targets.path);
    }
    Ok(reply)
}

/// Completes a login. The gate never redirects the browser to the provider again by itself, because a browser without
/// cookies would loop.
// Requirement B29.
pub(super) async fn finish(
    browser: &BrowserEndpoint,
    provider: &LoginProvider,
    call: &Call<'_>,
    handler: &EndpointHandler<'_>,
) -> (Reply, Reason) {
    let engine = &handler.gate.engine;
    let now = engine.clock().now();
    let callback = match Callback::read(call.query) {
        Ok(callback) => callback,
        Err(denial) => return not_logged_in(browser, call, &denial.into()),
    };
    let Some(begun) = Transaction::of_state(call.headers, &callback.state, &engine.keyring(), now) else {
        return again(browser, call, handler).await;
    };
    if let Some(said) = &callback.said {
        tracing::warn!(issuer = provider.name(), said, "the provider returned an error for a login");
    }
    let began = log_in(provider, browser, callback, &begun, call, handler).await;
    if matches!(began, Err(Error::Denied(NOT_BEGUN))) {
        return again(browser, call, handler).await;
    }
    handler.gate.running.browser_logins.count(began.as_ref().err());
    handler.tell(&began);
    match began {
        Ok(login) => {
            told_recipient(handler, &login.session);
            let mut reply = logged_in(browser, (&begun, call), &login, engine);
            begun.end(reply.headers_mut(), login.session.id, &engine.keyring(), now);
            (reply, Reason::ANSWERED)
        }
        Err(error) => {
            if let Error::Denied(Denial::ProviderLogin(flaw)) = &error {
                engine.tell_provider_login_refused(provider.name(), provider.client_id(), *flaw, &handler.origin);
            }
            let (mut reply, reason) = not_logged_in(browser, call, &error);
            begun.clear(reply.headers_mut());
            (reply, reason)
        }
    }
}

/// The browser returned without a login in progress, for example after a reload.
async fn again(browser: &BrowserEndpoint, call: &Call<'_>, handler: &EndpointHandler<'_>) -> (Reply, Reason) {
    let gate = handler.gate;
    if let Ok(Some(cookie)) = presented(gate, call.headers, handler.origin.address)
        && gate.engine.browser_session(&cookie, &|session| gate.browser_rules(session)).await.is_ok()
    {
        return (words::see_other(&browser.dialect.targets.url(LoginTarget::ROOT)), Reason::ANSWERED);
    }
    not_logged_in(browser, call, &NOT_BEGUN.into())
}

fn not_logged_in(browser: &BrowserEndpoint, call: &Call<'_>, error: &Error) -> (Reply, Reason) {
    (words::not_logged_in(&browser.dialect, call, error), Reason::from(error))
}

fn logged_in(
    browser: &BrowserEndpoint,
    (begun, call): (&Transaction, &Call<'_>),
    login: &BrowserLogin,
    engine: &Engine,
) -> Reply {
    let rest = begun.rest.as_deref().and_then(|digest| long_target::find(call.headers, digest));
    let url = browser.dialect.targets.url(browser.dialect.target(Some(rest.as_deref().unwrap_or(&begun.to))));
    // After a redirect from another site, a browser does not send a `Strict` cookie.
    let mut reply = if browser.is_strict() {
        browser.dialect.pages(call.headers).onwards(Text::LoggedIn, &url)
    } else {
        words::see_other(&url)
    };
    browser.put_begun(engine, login, reply.headers_mut());
    reply
}

async fn log_in(
    provider: &LoginProvider,
    browser: &BrowserEndpoint,
    callback: Callback,
    begun: &Transaction,
    call: &Call<'_>,
    handler: &EndpointHandler<'_>,
) -> Result<BrowserLogin, Error> {
    // The issuer is checked before the code is sent.
    judge_issuer(provider, callback.issuer.as_deref())?;
    let code = match callback.answer {
        ProviderAnswer::Code(code) => code,
        ProviderAnswer::Error(ProviderError::Denied) => return Err(Denial::ProviderLogin(ProviderFlaw::Denied).into()),
        ProviderAnswer::Error(ProviderError::Other) => return Err(Denial::ProviderLogin(ProviderFlaw::Answer).into()),
        ProviderAnswer::Error(ProviderError::Unavailable) => {
            return Err(Fault::Provider { reason: "provider_busy", retry_after: RETRY_AFTER }.into());
        }
    };
    let (gate, origin) = (Arc::clone(handler.gate), handler.origin.clone());
    gate.running.spent_logins.spend(begun, &**gate.engine.store(), gate.engine.clock().now()).await?;
    let exchange = Exchange {
        provider: provider.clone(),
        redirect_uri: browser.redirect_uri(),
        code,
        nonce: begun.nonce.clone(),
        asked: begun.asked.clone(),
        verifier: begun.verifier.clone(),
        presented: presented(&gate, call.headers, handler.origin.address)?,
    };
    to_its_end(async move { exchange.begin_session(&gate, &origin).await }).await
}

/// Checks that the response comes from this provider (RFC 9207 §2.4).
// Requirement B32.
fn judge_issuer(provider: &LoginProvider, said: Option<&str>) -> Result<(), Denial> {
    let refused = |what| Err(Denial::ProviderLogin(ProviderFlaw::Issuer(what)));
    match said {
        Some(issuer) if issuer == provider.url() => Ok(()),
        Some(_) => refused("`iss` names another provider"),
        None if provider.names_itself() == Some(true) => refused(NO_ISSUER),
        None => Ok(()),
    }
}

struct Exchange {
    provider: LoginProvider,
    redirect_uri: String,
    code: String,
    nonce: String,
    asked: AskedLogin,
    verifier: String,
    presented: Option<SessionCookie>,
}

impl Exchange {
    async fn begin_session(self, gate: &Arc<Inner>, origin: &Origin) -> Result<BrowserLogin, Error> {
        let Self { provider, redirect_uri, code, nonce, asked, verifier, presented } = self;
        let exchanged = provider.exchange(&redirect_uri, &code, &verifier).await;
        let tokens = exchanged.map_err(|why| failed(&provider, &why))?;
        let kept = (Some(&**tokens.id_token), &**tokens.access_token);
        let kept = KeptTokens::new(&provider, kept, &tokens.further, gate.engine.clock().now());
        let proved = gate.checker.proved_login(SentIdToken {
            issuer: provider.name(),
            client: provider.client_id(),
            nonce: &nonce,
            access_token: &tokens.access_token,
            scope: &tokens.scope,
            token: &tokens.id_token,
        });
        let proved = proved.await?;
        // Without this check, the route would redirect the browser back to the login, in a loop.
        if !proved.meets(&asked.step_up(), gate.engine.clock().wall()) {
            return Err(Denial::ProviderLogin(ProviderFlaw::StepUp).into());
        }
        let endpoints = &gate.endpoints;
        let (client, profile) = endpoints.browser_client().zip(endpoints.browser_profile()).ok_or(Denial::NoRoute)?;
        let start = ApplicationLogin {
            subject: &proved.subject,
            account: proved.account.as_deref(),
            client: &client.id,
            scope: proved.scope,
            claims: proved.claims,
            vouched_by: Some(proved.vouched_by),
            profile: &client.profile.over(profile),
            origin,
        };
        let grace = start.profile.grace;
        let vaults = gate.vaults().ok_or(Denial::NoRoute)?;
        let mut begun = gate.engine.start_at_provider(start, NAME).await?;
        gate.engine.end_if_over(&begun, proved.issued_at, origin).await?;
        // The browser does not have the cookie yet. If the process is killed here, nobody can use the session.
        if let Err(fault) = vaults.begin(&begun.cookie, &kept, begun.session.expires).await {
            let _ = gate.engine.end_browser(&begun.cookie, origin).await;
            return Err(fault.into());
        }
        if let Some(presented) = presented {
            // The old session's refresh token is not revoked, because some providers would also end the new login.
            begun.presented_ends_in = gate.engine.end_presented(&presented, &begun.session, grace, origin).await;
            match begun.presented_ends_in {
                Some(_) => gate.end_presented_later(&begun, Some(presented), origin.clone()),
                None => vaults.remove(&presented).await,
            }
        }
        Ok(begun)
    }
}

/// The cause is only in the log.
fn failed(provider: &LoginProvider, why: &LoginFailure) -> Error {
    let (reason, retry_after) = match why {
        LoginFailure::Code => return Denial::ProviderLogin(ProviderFlaw::Code).into(),
        LoginFailure::Unreachable(_) | LoginFailure::Unknown(..) => ("provider_unreachable", RETRY_AFTER),
        LoginFailure::Busy(wait) => ("provider_busy", (*wait).clamp(RETRY_AFTER, MAX_PAUSE)),
        LoginFailure::Client(_) | LoginFailure::Refused(_) | LoginFailure::Unusable(_) => {
            ("provider_failed", RETRY_AFTER)
        }
    };
    if matches!(why, LoginFailure::Client(_) | LoginFailure::Refused(_)) {
        tracing::error!(issuer = provider.name(), %why, "a login at this provider failed");
    } else {
        tracing::warn!(issuer = provider.name(), %why, "a login at this provider failed");
    }
    Fault::Provider { reason, retry_after }.into()
}
