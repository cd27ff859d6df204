//! Advice on what to do about a refusal.

use super::{Explained, Place};
use rotogate_core::denial::Denial;
use rotogate_core::route::RoutePolicy;
use rotogate_core::session::Scope;
use rotogate_core::session::rotation::SessionEnd;
use rotogate_core::token::claims::CLIENT_PREFIX;
use rotogate_core::token::verify::OWN;

/// The prefix of `client_id` in a request with an API key.
const KEY_PREFIX: &str = "key:";

impl Explained<'_> {
    /// Returns advice about a refusal.
    pub(super) fn advice(&self, denial: Denial) -> Option<String> {
        let advice = match denial {
            Denial::InsufficientScope => return self.scope_advice(),
            Denial::TokenExpired => "Refresh: exchange the refresh token for a new pair, or log in again.",
            Denial::TokenNotYetValid => "Compare the clocks of the issuer and of this machine.",
            Denial::NoCredential => "Send the access token: `Authorization: Bearer …`.",
            Denial::TwoCredentials => "Send one credential, in one place.",
            Denial::UnusableCredential => {
                "Send the access token as `Authorization: Bearer …`. A token in the query, or of another scheme, is refused."
            }
            Denial::MalformedToken(why) if why.ends_with(" in the header") => {
                "Ask the issuer for tokens without this member: the gate takes no key and no rule from the header of a token."
            }
            Denial::MalformedToken(_) => "Send the access token, whole: three parts with two dots between them.",
            Denial::SessionRevoked(SessionEnd::UserInactive) => {
                let enable = self.user().map(|(account, name)| {
                    format!(": rotogate user enable {}{}", in_shell(&name), account_option(account.as_deref()))
                });
                return Some(format!("Enable the user{}, then log in again.", enable.unwrap_or_default()));
            }
            Denial::TokenRevoked | Denial::SessionRevoked(_) => return Some(self.advice_of_ended()),
            Denial::UnknownHost => "Name the host in server.hosts, or in hosts of a route.",
            Denial::NoRoute => "Add a [[routes]] with this path, or correct the path of the request.",
            Denial::MethodNotAllowed => "Use a method that is served, or add the method to the route.",
            Denial::NearMiss => "Spell the path of the endpoint as the configuration does.",
            Denial::AmbiguousPath => {
                "Send the path in the spelling of the stricter route; or, if the upstream compares paths as the gate does, set \
                 loose_match = false on this route."
            }
            Denial::BadPath(_) => "Send the path in canonical form: without dot segments and hidden separators.",
            Denial::NoCsrfHeader => {
                "Let the scripts of the page send the header that csrf_header of the endpoint names."
            }
            Denial::CrossOrigin => "If the page is one of yours, list its origin in cors.origins.",
            Denial::UnknownIssuer => {
                "If tokens of this issuer are to pass, add it to [[issuers]], with url exactly as iss of its tokens."
            }
            Denial::BadClaim("exp is too long after iat") => {
                "Raise max_lifetime of the issuer's entry in [[issuers]], or let the issuer issue shorter tokens."
            }
            Denial::UnknownKey => return Some(self.key_advice()),
            Denial::KeysUnavailable(_) => "rotogate issuer list shows the last failure; the gate retries by itself.",
            Denial::IntrospectionUnavailable(_) => {
                "Send the request, so that the gate asks the issuer. If that fails, the issuer does not respond: see the log."
            }
            Denial::RevocationsUnavailable(_) => {
                "Check whether the store works: without its revocations, no request passes."
            }
            Denial::RateLimited("refresh_per_session", _) => {
                "Find out why the client refreshes so often; refresh_per_session of [limits] is the rate of each session."
            }
            Denial::RateLimited("forged_per_address" | "refused_per_address" | "forged_overall", _) => {
                "Wait, and find out who sends bad tokens from this address."
            }
            Denial::RateLimited(..) => "Wait. rotogate events --action rate.limited has those that limits hold up.",
            Denial::WrongType => "Use an access token, not an ID token; or list its typ in the entry of [[issuers]].",
            Denial::WrongAudience => {
                "Ask the issuer for a token of this audience; or add it to audiences of the route."
            }
            Denial::WrongIssuer => "Name the issuer in issuers of the route, or use a token of one that it accepts.",
            Denial::MissingRole | Denial::RolesOverage if self.asks_for_roles_twice() => {
                "Give the user the role at its issuer; new tokens have it. The route asks for one of roles, and for each of \
                 all_roles."
            }
            Denial::MissingRole | Denial::RolesOverage => "Give the user the role at its issuer; new tokens have it.",
            Denial::BadSignature => "The token was changed, or another key signed it: log in again.",
            Denial::GrantAssertion(_) => {
                "Ask its issuer for a new assertion; compare id_jag or jwt_bearer of its entry in [[issuers]]."
            }
            Denial::OtherClient => "The client to which the token was issued must present it.",
            Denial::SessionExpired | Denial::SessionIdle | Denial::Reuse { .. } | Denial::UnknownRefreshToken => {
                "Log in again."
            }
            _ => return None,
        };
        Some(advice.to_owned())
    }

    fn asks_for_roles_twice(&self) -> bool {
        let policy = self.explanation.route.as_ref().map(|route| &route.policy);
        policy.is_some_and(|policy| !policy.roles.is_empty() && !policy.all_roles.is_empty())
    }

    /// Returns advice with the command that shows who ended the session.
    // Requirement O47.
    fn advice_of_ended(&self) -> String {
        let token =
            self.explanation.token.as_ref().filter(|token| token.issuer_name.as_deref().is_none_or(|of| of == OWN));
        match token.and_then(|token| token.session.as_deref()) {
            Some(id) => format!("Log in again. rotogate session show {id} says who ended the session, and why."),
            None => "Log in again. rotogate events --action revocation says who revoked, and what.".to_owned(),
        }
    }

    /// Returns advice about the source of the issuer's keys, and how to add further keys there.
    fn key_advice(&self) -> String {
        let name = self.explanation.token.as_ref().and_then(|token| token.issuer_name.as_deref()).unwrap_or(OWN);
        let Some(issuer) = self.config.issuers.iter().find(|issuer| issuer.name == name) else {
            return "Is it a token of this gate? Its keys: rotogate keys list.".to_owned();
        };
        match issuer.keys.file() {
            Some((key, file)) => {
                format!(
                    "Has {name} exchanged its keys? Then replace {} ({key}): the gate reads it within a second.",
                    file.display()
                )
            }
            None => format!("Has {name} exchanged its keys? rotogate issuer refresh {name} fetches them now."),
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
            // The scope is required by an endpoint, whose own row in the report names it.
            return None;
        }
        let lacks = lacks.join(" ");
        if token.issuer_name.as_deref() != Some(OWN) {
            let issuer = token.issuer_name.as_deref().unwrap_or("its issuer");
            return Some(format!("Ask {issuer} for {lacks}; scopes of its entry in [[issuers]] must allow it, too."));
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
            user.as_ref().map(|(account, name)| format!("{}{}", in_shell(name), account_option(account.as_deref())));
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
            true => format!("{name} has the scope {lacks}: log in again, with scope={wanted} or without scope"),
            false => format!("{give} and let them log in again"),
        };
        Some(format!("{allowed}{how}; a refresh keeps the scope of the login."))
    }

    /// Returns advice about scopes that a client is not allowed to have. The advice is empty if the client is allowed
    /// to have them. Without the key `scopes`, the users of a client may have all of their scopes, and the client
    /// itself has none.
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

    /// Advice for the owner of an API key, whose scopes never change.
    fn advice_of_key(&self, give: &str, user: Option<&str>, scopes: &str) -> String {
        let subject = self.explanation.token.as_ref().and_then(|token| token.subject.as_deref()).unwrap_or_default();
        let give = || if give.is_empty() { String::new() } else { format!("{give}. ") };
        let (give, owner) = match (subject.strip_prefix(CLIENT_PREFIX), user) {
            (Some(id), _) => (self.of_client(id, scopes, true), format!("--client {}", in_shell(id))),
            (None, Some(user)) => (give(), format!("--user {user}")),
            (None, None) => (give(), format!("--subject {}", in_shell(subject))),
        };
        format!(
            "{give}Make another key: rotogate api-key create NAME {owner} --scopes '{scopes}'; the scopes of a key do not change."
        )
    }

    /// Returns the scopes of the user, if the users are in a file.
    fn scopes_of_user(&self) -> Option<Scope> {
        let ((account, name), subject) = (self.user()?, self.explanation.token.as_ref()?.subject.as_deref()?);
        let named = self.state.users.as_ref()?.directory().named(Some(account.as_deref()), &name);
        named.into_iter().find(|user| *user.subject == *subject).map(|user| user.scopes)
    }
}

/// Returns the command-line option for the account of a user.
fn account_option(account: Option<&str>) -> String {
    account.map_or_else(String::new, |of| format!(" --account {}", in_shell(of)))
}

/// Quotes a name so that a shell reads it as one word.
fn in_shell(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "@._+-".contains(c);
    if name.chars().all(is_plain) && !name.starts_with('-') {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}
