//! Advice about a refusal.

use super::{Explained, Place};
use crate::shell;
use rotogate_core::denial::Denial;
use rotogate_core::route::{Credentials, RoutePolicy};
use rotogate_core::session::Scope;
use rotogate_core::session::rotation::SessionEnd;
use rotogate_core::token::claims::CLIENT_PREFIX;
use rotogate_core::token::session_cookie::NAME as COOKIE;
use rotogate_core::token::verify::OWN;

const KEY_PREFIX: &str = "key:";

impl Explained<'_> {
    pub(super) fn advice(&self, denial: Denial) -> Option<String> {
        let advice = match denial {
            Denial::NoCredential | Denial::UnusableCredential if !self.takes_tokens() => {
                return self.credential_advice();
            }
            Denial::MalformedToken(_) if self.is_refresh_token => {
                "This is a refresh token. Send the `access_token` of the same response."
            }
            Denial::InsufficientScope => return self.scope_advice(),
            Denial::SessionRevoked(SessionEnd::UserInactive) => {
                let enable = self.user().map(|(account, name)| {
                    format!(" with `rotogate user enable {}{}`", shell::word(&name), account_option(account.as_deref()))
                });
                return Some(format!("Enable the user{}, then log in again.", enable.unwrap_or_default()));
            }
            Denial::TokenRevoked | Denial::SessionRevoked(_) => return Some(self.advice_of_ended()),
            Denial::UnknownKey => return Some(self.key_advice()),
            Denial::MissingRole | Denial::RolesOverage if self.asks_for_roles_twice() => {
                "Give the user the role at the token's issuer; new tokens contain the role. The route requires one of \
                 `roles`, and all of `all_roles`."
            }
            _ => of_request(denial).or_else(|| of_token(denial))?,
        };
        Some(advice.to_owned())
    }

    fn takes_tokens(&self) -> bool {
        self.explanation.route.as_ref().is_none_or(|route| route.policy.credentials.token)
    }

    fn credential_advice(&self) -> Option<String> {
        let Credentials { session, key, token: _ } = self.explanation.route.as_ref()?.policy.credentials;
        let login = self.config.endpoints.iter().find(|endpoint| endpoint.browser.is_some());
        let login = login.map_or_else(String::new, |endpoint| format!(" at {}/login", endpoint.path));
        let cookie = format!(
            "Log in with a browser{login}. To explain a browser's request, give its cookie: `--header 'cookie: {COOKIE}=…'`."
        );
        match (session, key) {
            (true, false) => Some(cookie),
            (true, true) => Some(format!("{cookie} Or send an API key.")),
            (false, _) => Some("Send an API key, because the route accepts nothing else.".to_owned()),
        }
    }

    fn asks_for_roles_twice(&self) -> bool {
        let policy = self.explanation.route.as_ref().map(|route| &route.policy);
        policy.is_some_and(|policy| !policy.roles.is_empty() && !policy.all_roles.is_empty())
    }

    /// Names the command that shows who ended the session.
    // Requirement O47.
    fn advice_of_ended(&self) -> String {
        let token =
            self.explanation.token.as_ref().filter(|token| token.issuer_name.as_deref().is_none_or(|of| of == OWN));
        match token.and_then(|token| token.session.as_deref()) {
            Some(id) => format!("Log in again. `rotogate session show {id}` shows who ended the session, and why."),
            None => "Log in again. `rotogate events --action revocation` shows who revoked what.".to_owned(),
        }
    }

    /// Names the source of the issuer's keys, and how to add keys there.
    fn key_advice(&self) -> String {
        let name = self.explanation.token.as_ref().and_then(|token| token.issuer_name.as_deref()).unwrap_or(OWN);
        let Some(issuer) = self.config.issuers.iter().find(|issuer| issuer.name == name) else {
            return "Check whether this gate issued the token: `rotogate keys list` shows the gate's keys.".to_owned();
        };
        match issuer.keys.file() {
            Some((key, file)) => {
                format!(
                    "If {name} has changed its keys, replace {} ({key}): the gate reads the file within a second.",
                    file.display()
                )
            }
            None => format!("If {name} has changed its keys, run `rotogate issuer refresh {name}` to fetch them now."),
        }
    }

    fn scope_advice(&self) -> Option<String> {
        let token = self.explanation.token.as_ref()?;
        let has = token.scope.as_ref()?;
        let mut lacks: Vec<&str> = Vec::new();
        for RoutePolicy { scopes, any_scope, .. } in self.policies().map(|route| &route.policy) {
            lacks.extend(scopes.iter().filter(|scope| !has.contains(scope)));
            if any_scope.iter().all(|scope| !has.contains(scope)) {
                lacks.extend(any_scope.iter().next());
            }
        }
        if lacks.is_empty() {
            // The report's row for the endpoint already names the scope.
            return None;
        }
        let lacks = lacks.join(" ");
        if token.issuer_name.as_deref() != Some(OWN) {
            let issuer = token.issuer_name.as_deref().unwrap_or("its issuer");
            return Some(format!(
                "Ask {issuer} for a token with the scope {lacks}. `scopes` of the issuer's `[[issuers]]` entry must \
                 also allow the scope."
            ));
        }
        let client = token.client.as_deref().unwrap_or("-");
        let allowed = self.of_client(client, &lacks, false);
        let wanted = if has.is_empty() { lacks.clone() } else { format!("{has} {lacks}") };
        if let Some(id) = token.subject.as_deref().and_then(|subject| subject.strip_prefix(CLIENT_PREFIX))
            && !client.starts_with(KEY_PREFIX)
        {
            return Some(format!("{}Request the token with scope={wanted}.", self.of_client(id, &lacks, true)));
        }
        let user = self.user();
        let at =
            user.as_ref().map(|(account, name)| format!("{}{}", shell::word(name), account_option(account.as_deref())));
        let name = user.as_ref().map(|(_, name)| name.clone()).or_else(|| token.subject.clone()).unwrap_or_default();
        let command = at.as_ref().map_or_else(String::new, |at| format!(" (rotogate user add-scope {at} {lacks})"));
        let give = match self.scopes_of_user() {
            Some(scopes) if lacks.split(' ').all(|scope| scopes.contains(scope)) => String::new(),
            _ => format!("Give {name} the scope {lacks}{command}"),
        };
        if client.starts_with(KEY_PREFIX) {
            return Some(self.advice_of_key(&give, at.as_deref(), &wanted));
        }
        let how = match give.is_empty() {
            true => format!(
                "{name} has the scope {lacks}: log in again, with scope={wanted} or without the parameter `scope`"
            ),
            false => format!("{give} and let them log in again"),
        };
        Some(format!("{allowed}{how}; a refresh keeps the scope granted at login."))
    }

    /// Advice about scopes that a client may not have. If a client has no `scopes` in the configuration, its users may
    /// have all their scopes. Tokens of the client itself may have no scopes.
    fn of_client(&self, id: &str, lacks: &str, is_itself: bool) -> String {
        let known = self.config.clients.iter().enumerate().find(|(_, known)| *known.id == *id);
        let Some((index, known)) = known else { return String::new() };
        let may = |allowed: &Scope| lacks.split(' ').all(|scope| allowed.contains(scope));
        if known.scopes.as_ref().map_or(!is_itself, may) {
            return String::new();
        }
        let allowed = known.scopes.as_ref().filter(|allowed| !allowed.is_empty());
        let allowed = allowed.map_or_else(|| "none".to_owned(), ToString::to_string);
        let Place { file, line } = self.place(&format!("clients[{index}].scopes"));
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        format!("Allow {lacks} for the client {id}, which may have {allowed} ({file}{line}). ")
    }

    /// Advice for the owner of an API key. A key's scopes never change.
    fn advice_of_key(&self, give: &str, user: Option<&str>, scopes: &str) -> String {
        let subject = self.explanation.token.as_ref().and_then(|token| token.subject.as_deref()).unwrap_or_default();
        let give = || if give.is_empty() { String::new() } else { format!("{give}. ") };
        let (give, owner) = match (subject.strip_prefix(CLIENT_PREFIX), user) {
            (Some(id), _) => (self.of_client(id, scopes, true), format!("--client {}", shell::word(id))),
            (None, Some(user)) => (give(), format!("--user {user}")),
            (None, None) => (give(), format!("--subject {}", shell::word(subject))),
        };
        format!(
            "{give}Make another API key: rotogate api-key create NAME {owner} --scopes '{scopes}'; the scopes of an \
             existing API key do not change."
        )
    }

    fn scopes_of_user(&self) -> Option<Scope> {
        let ((account, name), subject) = (self.user()?, self.explanation.token.as_ref()?.subject.as_deref()?);
        let named = self.state.users.as_ref()?.directory().named(Some(account.as_deref()), &name);
        named.into_iter().find(|user| *user.subject == *subject).map(|user| user.scopes)
    }
}

fn account_option(account: Option<&str>) -> String {
    account.map_or_else(String::new, |of| format!(" --account {}", shell::word(of)))
}

fn of_request(denial: Denial) -> Option<&'static str> {
    Some(match denial {
        Denial::NoCredential => "Send the access token: `Authorization: Bearer …`.",
        Denial::TwoCredentials => "Send only one credential, in only one place.",
        Denial::UnusableCredential => {
            "Send the access token as `Authorization: Bearer …`. A token in the query or with another scheme is \
             refused."
        }
        Denial::UnknownHost => "Add the host to `server.hosts`, or to `hosts` of a route.",
        Denial::NoRoute => "Add a `[[routes]]` entry with this path, or correct the path of the request.",
        Denial::MethodNotAllowed => "Use a method that the route allows, or add the method to the route.",
        Denial::NearMiss => "Spell the endpoint's path exactly as in the configuration.",
        Denial::AmbiguousPath => {
            "Send the path exactly as the stricter route spells it. If the upstream compares paths as the gate \
             does, you can instead set `loose_match = false` on this route."
        }
        Denial::BadPath(_) => "Send the path in canonical form, without dot segments and percent-encoded separators.",
        Denial::NoCsrfHeader => "Let the page's scripts send the header that the endpoint's `csrf_header` names.",
        Denial::CrossOrigin => "If the page is one of yours, add its origin to `cors.origins`.",
        Denial::RevocationsUnavailable(_) => {
            "Check whether the store works, because without the store's revocations the gate refuses requests."
        }
        Denial::RateLimited("refresh_per_session", _) => {
            "Find out why the client refreshes so often. `refresh_per_session` of `[limits]` is the allowed rate \
             for each session."
        }
        Denial::RateLimited("forged_per_address" | "refused_per_address" | "forged_overall", _) => {
            "Wait, and find out who sends invalid tokens from this address."
        }
        Denial::RateLimited(..) => {
            "Wait. `rotogate events --action rate.limited` lists the callers that exceeded a limit."
        }
        _ => return None,
    })
}

fn of_token(denial: Denial) -> Option<&'static str> {
    Some(match denial {
        Denial::KeysUnavailable(_) => "`rotogate issuer list` shows the last failure; the gate retries by itself.",
        Denial::TokenExpired => "Exchange the refresh token for a new token pair, or log in again.",
        Denial::TokenNotYetValid => "Compare the clocks of the issuer and of this machine.",
        Denial::MalformedToken(why) if why.ends_with(" in the header") => {
            "Ask the issuer for tokens without this header member, because the gate does not take keys or rules \
             from a token's header."
        }
        Denial::MalformedToken(_) => "Send the complete access token: three parts with two dots between them.",
        Denial::UnknownIssuer => {
            "To accept tokens of this issuer, add the issuer to `[[issuers]]`. The `url` of the entry must be \
             exactly the `iss` of the tokens."
        }
        Denial::BadClaim("`exp` is too long after `iat`") => {
            "Raise `max_lifetime` in the issuer's `[[issuers]]` entry, or let the issuer issue tokens with a \
             shorter lifetime."
        }
        Denial::IntrospectionUnavailable(_) => {
            "Send the request, so that the gate introspects the token at the issuer. If the request fails, the \
             issuer does not respond: see the log."
        }
        Denial::WrongType => {
            "Use an access token, not an ID token. If it is an access token, add its `typ` to the issuer's \
             `[[issuers]]` entry."
        }
        Denial::WrongAudience => {
            "Ask the issuer for a token with an audience that the route accepts, or add the token's audience to \
             `audiences` of the route."
        }
        Denial::WrongIssuer => {
            "Add the issuer to `issuers` of the route, or use a token of an issuer that the route accepts."
        }
        Denial::MissingRole | Denial::RolesOverage => {
            "Give the user the role at the token's issuer; new tokens contain the role."
        }
        Denial::BadSignature => "The token was changed, or another key signed it: log in again.",
        Denial::GrantAssertion(_) => {
            "Ask the assertion's issuer for a new assertion, and check `id_jag` or `jwt_bearer` in the issuer's \
             `[[issuers]]` entry."
        }
        Denial::OtherClient => "Only the client to which the token was issued may present the token.",
        Denial::SessionExpired | Denial::SessionIdle | Denial::Reuse { .. } | Denial::UnknownRefreshToken => {
            "Log in again."
        }
        _ => return None,
    })
}
