//! Exchanges tokens at a provider: RFC 8693, Entra's on-behalf-of, or an identity assertion (ID-JAG).

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::relay::{HttpCaller, ProviderReply, UrlSource};
use rotogate_core::exchange::{ExchangeFault, ExchangeForm, ExchangedToken, TokenExchanger};
use rotogate_core::http_client::ClientCredentials;
use rotogate_core::oauth_error::OAuthError;
use rotogate_core::session::Scope;
use rotogate_core::strict_json;
use rotogate_core::token::verify::MAX_TOKEN;

/// The maximum length, in bytes, of a provider's challenge that is passed to the client.
const MAX_CLAIMS: usize = 4096;
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Exchanges tokens at a token endpoint.
#[derive(Clone)]
pub struct HttpExchanger {
    /// Sends the request.
    pub caller: HttpCaller,
    /// The token endpoint.
    pub url: UrlSource,
    /// Names the token endpoint in log messages.
    pub place: String,
    /// The gate's credentials as a client at the provider.
    pub client: ClientCredentials,
    /// The form of the request.
    pub form: ExchangeForm,
    /// `audience`.
    pub audience: Option<String>,
    /// `resource`.
    pub resource: Option<String>,
    /// `scope`.
    pub scope: Scope,
    /// A second server, which accepts the exchanged token as a grant ([`ExchangeForm::JwtBearer`]).
    pub then: Option<Box<Self>>,
}

rotogate_core::debug_with!(HttpExchanger { place });

impl HttpExchanger {
    // Requirement D17.
    fn body(&self, token: &str) -> Zeroizing<Vec<u8>> {
        let mut pairs = match self.form {
            ExchangeForm::Rfc8693 => vec![
                ("grant_type", EXCHANGE),
                ("subject_token", token),
                ("subject_token_type", ACCESS_TOKEN),
                ("requested_token_type", ACCESS_TOKEN),
            ],
            ExchangeForm::Entra => {
                vec![("grant_type", BEARER_GRANT), ("assertion", token), ("requested_token_use", "on_behalf_of")]
            }
            ExchangeForm::IdJag => vec![
                ("grant_type", EXCHANGE),
                ("subject_token", token),
                ("subject_token_type", ID_TOKEN),
                ("requested_token_type", ID_JAG),
            ],
            ExchangeForm::JwtBearer => vec![("grant_type", BEARER_GRANT), ("assertion", token)],
        };
        pairs.extend(self.audience.as_deref().map(|audience| ("audience", audience)));
        pairs.extend(self.resource.as_deref().map(|resource| ("resource", resource)));
        // An identity assertion has its scope in a claim.
        let states_scope = !self.scope.is_empty() && self.form != ExchangeForm::JwtBearer;
        pairs.extend(states_scope.then(|| ("scope", self.scope.as_str())));
        // A reallocation would leave a copy of the token in memory.
        let room = pairs.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
        let text = form_urlencoded::Serializer::new(String::with_capacity(room)).extend_pairs(pairs).finish();
        Zeroizing::new(text.into_bytes())
    }

    // Requirement D12.
    fn granted(&self, answer: &Map<String, Value>) -> Result<ExchangedToken, &'static str> {
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        // An identity assertion is not an access token, so its `token_type` is `N_A`.
        let is_jag = self.form == ExchangeForm::IdJag;
        let (kind, wrong) = if is_jag {
            ("N_A", "`token_type` in the response is not `N_A`")
        } else {
            ("Bearer", "`token_type` in the response is not `Bearer`")
        };
        if !text("token_type").is_some_and(|said| said.eq_ignore_ascii_case(kind)) {
            return Err(wrong);
        }
        let issued = text("issued_token_type");
        match self.form {
            ExchangeForm::Rfc8693 if !issued.is_some_and(|kind| [ACCESS_TOKEN, JWT].contains(&kind)) => {
                return Err("`issued_token_type` in the response is not the type of an access token");
            }
            ExchangeForm::IdJag if issued != Some(ID_JAG) => {
                return Err("`issued_token_type` in the response is not the type of an identity assertion");
            }
            _ => {}
        }
        // Entra's response spells scopes differently from the request.
        if self.form != ExchangeForm::Entra {
            let is_within = |scope: &Value| {
                scope
                    .as_str()
                    .and_then(|scope| Scope::parse(scope).ok())
                    .is_some_and(|scope| scope.is_within(&self.scope))
            };
            // A list is refused, because it could name additional scopes.
            let said = answer.get("scope").filter(|scope| !scope.is_null());
            if !self.scope.is_empty() && !said.is_none_or(is_within) {
                return Err("`scope` in the response is not a string, or is wider than the requested scope");
            }
        }
        let token = text("access_token").filter(|token| {
            (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let token = Zeroizing::new(token.ok_or("the response has no usable `access_token`")?.to_owned());
        let expires_in = match answer.get("expires_in") {
            None => None,
            Some(seconds) => Some(seconds.as_u64().ok_or("`expires_in` in the response is not a number of seconds")?),
        };
        Ok(ExchangedToken { token, expires_in: expires_in.map(std::time::Duration::from_secs) })
    }

    fn answered(&self, reply: &ProviderReply, error: &str) -> Box<str> {
        format!("{}: the provider returned status {} and the error `{error}`", self.place, reply.status).into()
    }

    /// Reads the provider's response.
    ///
    /// # Errors
    /// The response does not contain a usable token.
    // Requirement D12.
    pub fn read(&self, reply: &ProviderReply) -> Result<ExchangedToken, ExchangeFault> {
        let unclear = |why: &str| {
            let why = format!("{}: {why}", self.place).into();
            match reply.retry_after {
                Some(wait) if reply.status != 503 => ExchangeFault::TooMany(wait, why),
                wait => ExchangeFault::Unavailable(wait, why),
            }
        };
        if reply.status == 429 || reply.status >= 500 {
            return Err(unclear(&format!("the provider returned status {}", reply.status)));
        }
        let answer =
            strict_json::object(&reply.body).map_err(|_| unclear("the provider's response is not a JSON object"))?;
        if reply.status == 200 {
            return self.granted(&answer).map_err(unclear);
        }
        let error = answer.get("error").and_then(Value::as_str).unwrap_or_default();
        let claims = answer.get("claims").and_then(Value::as_str).filter(|claims| claims.len() <= MAX_CLAIMS * 3 / 4);
        Err(match (error, claims) {
            ("interaction_required" | "insufficient_user_authentication", Some(claims)) => {
                let claims = STANDARD.encode(claims);
                ExchangeFault::StepUp(format!("Bearer error=\"insufficient_claims\", claims=\"{claims}\"").into())
            }
            ("insufficient_user_authentication", None) => {
                ExchangeFault::StepUp("Bearer error=\"insufficient_user_authentication\"".into())
            }
            ("invalid_target" | "invalid_scope" | "invalid_resource", _) => {
                ExchangeFault::NotGranted(self.answered(reply, error))
            }
            // RFC 8693 §2.2.2: `invalid_request` means that the subject token is not acceptable.
            ("invalid_request", _) => ExchangeFault::Refused,
            ("", _) => unclear(&format!("the provider returned status {}", reply.status)),
            (error, _) => match OAuthError::read(error) {
                OAuthError::Grant | OAuthError::User => ExchangeFault::Refused,
                OAuthError::Client | OAuthError::Request | OAuthError::Step => {
                    ExchangeFault::Ours(self.answered(reply, error))
                }
                OAuthError::Busy | OAuthError::Server => {
                    unclear(&format!("the provider returned status {} and the error `{error}`", reply.status))
                }
            },
        })
    }
}

/// Entra's tokens for an app without a user have no `scp`.
fn has_delegated_scope(token: &str) -> bool {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| strict_json::object(&payload).ok()).is_some_and(|claims| claims.contains_key("scp"))
}

#[async_trait]
impl TokenExchanger for HttpExchanger {
    async fn exchange(&self, token: &str) -> Result<ExchangedToken, ExchangeFault> {
        if self.form == ExchangeForm::Entra && !has_delegated_scope(token) {
            return Err(ExchangeFault::Refused);
        }
        let first = self.ask(token).await?;
        match &self.then {
            Some(then) => then.ask(&first.token).await,
            None => Ok(first),
        }
    }

    fn identity(&self) -> Box<[u8]> {
        let none = String::new();
        let [audience, resource] = [&self.audience, &self.resource].map(|it| it.as_ref().unwrap_or(&none).as_str());
        let form = format!("{:?}", self.form);
        let parts = [&self.place, &self.client.id, &form, audience, resource, self.scope.as_str()];
        let then = self.then.as_ref().map(|then| then.identity()).unwrap_or_default();
        [parts.join("\0").as_bytes(), &then].join(&0).into()
    }
}

impl HttpExchanger {
    /// Sends the request to this token endpoint only, without [`Self::then`].
    async fn ask(&self, token: &str) -> Result<ExchangedToken, ExchangeFault> {
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        let mut body = self.body(token);
        let added = self.client.add_to(&mut headers, &mut body);
        added.ok_or_else(|| ExchangeFault::Ours("the client's id or secret cannot be sent".into()))?;
        let sent = self.caller.send(&self.url, Method::POST, headers, &body).await;
        self.read(&sent.map_err(|error| ExchangeFault::Unavailable(None, error.to_string().into()))?)
    }
}

#[cfg(test)]
mod tests;
