//! The search field of the view of sessions. It takes a user's name, a subject or a session's id, and words such as
//! `client:web`. The former parameters, such as `?user=ada&client=web`, have the same effect.

use super::view::{FormFields, link};
use crate::server::operate::admin::sessions::SessionsQuery;

const VIEW: &str = "/ui/sessions";
const KEYS: [&str; 6] = ["user", "account", "subject", "client", "status", "order"];
/// The statuses with a button of their own, and the labels of the buttons.
const BUTTONS: [(&str, &str); 3] = [("live", "Live"), ("ended", "Ended"), ("any", "All")];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Search {
    /// The words without a key: a user's name, a subject or a session's id.
    pub(super) words: String,
    pub(super) user: String,
    pub(super) account: String,
    pub(super) subject: String,
    pub(super) client: String,
    status: String,
    order: String,
}

impl Search {
    pub(super) fn new(parameters: &FormFields) -> Self {
        let mut search = Self::default();
        for key in KEYS {
            search.set(key, parameters.text(key));
        }
        search.read(parameters.text("q"));
        search
    }

    fn set(&mut self, key: &str, value: &str) -> bool {
        let field = match key {
            "user" => &mut self.user,
            "account" => &mut self.account,
            "subject" => &mut self.subject,
            "client" => &mut self.client,
            "status" => &mut self.status,
            "order" => &mut self.order,
            _ => return false,
        };
        value.clone_into(field);
        true
    }

    fn read(&mut self, text: &str) {
        let mut rest = text.trim();
        let mut words = Vec::new();
        while !rest.is_empty() {
            let (token, after) = first_token(rest);
            let (key, value) = token.split_once(':').unwrap_or_default();
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            if value.is_empty() || !self.set(key, value) {
                words.push(token);
            }
            rest = after.trim_start();
        }
        self.words = words.join(" ");
    }

    pub(super) fn status(&self) -> &str {
        if self.status.is_empty() { "live" } else { &self.status }
    }

    /// Returns whether the search finds every live session of the user that `field` (`user` or `subject`) names.
    pub(super) fn finds_all_live(&self, field: &str) -> bool {
        let is_of_all_accounts = field == "user" || self.account.is_empty();
        self.client.is_empty() && is_of_all_accounts && matches!(self.status(), "live" | "any")
    }

    /// `newest` or `oldest`, whichever is first.
    pub(super) fn order(&self) -> &'static str {
        if self.order == "oldest" { "oldest" } else { "newest" }
    }

    fn has_button(&self) -> bool {
        BUTTONS.iter().any(|(status, _)| *status == self.status())
    }

    /// Returns the text of the field. A status with a button, and the order, are not part of the field.
    pub(super) fn text(&self) -> String {
        let status = if self.has_button() { "" } else { self.status() };
        let keyed = [
            ("user", &*self.user),
            ("subject", &self.subject),
            ("account", &self.account),
            ("client", &self.client),
            ("status", status),
        ];
        let keyed = keyed.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| {
            if value.contains(char::is_whitespace) { format!("{key}:\"{value}\"") } else { format!("{key}:{value}") }
        });
        let words = Some(self.words.clone()).filter(|words| !words.is_empty());
        words.into_iter().chain(keyed).collect::<Vec<_>>().join(" ")
    }

    /// The hidden fields of the form.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let status = if self.has_button() && self.status() != "live" { self.status() } else { "" };
        let order = if self.order() == "newest" { "" } else { self.order() };
        [("status", status), ("order", order)].into_iter().filter(|(_, value)| !value.is_empty())
    }

    /// The path of this search, from the session after `cursor` on.
    pub(super) fn path(&self, cursor: &str) -> String {
        let text = self.text();
        link(VIEW, &Vec::from_iter([("q", &*text)].into_iter().chain(self.kept()).chain([("cursor", cursor)])))
    }

    /// The buttons of statuses: their paths, their labels, and whether they are in effect.
    pub(super) fn buttons(&self) -> impl Iterator<Item = (String, &'static str, bool)> {
        BUTTONS.into_iter().map(|(status, label)| {
            let with = Self { status: status.to_owned(), ..self.clone() };
            (with.path(""), label, self.status() == status)
        })
    }

    /// The path of this search in the other order.
    pub(super) fn in_other_order(&self) -> String {
        let order = if self.order() == "newest" { "oldest" } else { "newest" };
        Self { order: order.to_owned(), ..self.clone() }.path("")
    }

    /// The search without its words, with the given user or subject in place of the words.
    pub(super) fn query(&self, user: &str, subject: &str, cursor: &str, limit: &str) -> SessionsQuery {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        SessionsQuery {
            user: some(user),
            subject: some(subject),
            account: some(&self.account),
            client: some(&self.client),
            status: some(self.status()).filter(|status| status != "any"),
            order: some(self.order()),
            cursor: some(cursor),
            limit: some(limit),
            ..SessionsQuery::default()
        }
    }
}

/// Splits off the text up to the next space. A value that begins with a quote ends at the next quote before a space.
fn first_token(text: &str) -> (&str, &str) {
    let is_keyed = |key: &&&str| text.strip_prefix(**key).is_some_and(|rest| rest.starts_with(":\""));
    let quoted = KEYS.iter().find(is_keyed).map(|key| key.len() + 2);
    let end = quoted.and_then(|begin| {
        let after = text[begin..].match_indices('"').map(|(at, _)| begin + at + 1);
        after.into_iter().find(|end| text[*end..].chars().next().is_none_or(char::is_whitespace))
    });
    text.split_at(end.or_else(|| text.find(char::is_whitespace)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(query: &str) -> Search {
        Search::new(&FormFields::parse(query.as_bytes()))
    }

    fn of_text(text: &str) -> Search {
        search(&link("", &[("q", text)])[1..])
    }

    #[test]
    fn one_field_has_words_and_keys() {
        let found = of_text(" Ada  Lovelace client:web account:acme status:logout order:oldest ");
        assert_eq!((&*found.words, &*found.client, &*found.account), ("Ada Lovelace", "web", "acme"));
        assert_eq!((found.status(), found.order()), ("logout", "oldest"));
        assert_eq!(found.text(), "Ada Lovelace account:acme client:web status:logout");
        assert_eq!(of_text("user:\"Ada L\" x").user, "Ada L");
        // What is not a key belongs to the name.
        for name in ["urn:ada", "client:", "<img src=x onerror=alert(1)>", "ada@example.com", "\"ada\""] {
            assert_eq!((&*of_text(name).words, of_text(name).text()), (name, name.to_owned()));
        }
    }

    #[test]
    fn a_search_finds_itself_again() {
        for (user, account) in [("ada", ""), ("Ada L", "a b"), ("a\"b c", "x"), ("status:live", "")] {
            let found = Search { user: user.to_owned(), account: account.to_owned(), ..Search::default() };
            assert_eq!(of_text(&found.text()), found, "{user}");
        }
        let found = search("user=ada&client=web&status=ended&order=oldest");
        assert_eq!(found.path(""), "/ui/sessions?q=user%3Aada+client%3Aweb&status=ended&order=oldest");
        let again = search(found.path("").split_once('?').unwrap().1);
        assert_eq!(again, found);
        let query = found.query("ada", "", "", "50");
        assert_eq!((query.user.as_deref(), query.status.as_deref()), (Some("ada"), Some("ended")));
        assert!(search("status=any").query("", "", "", "50").status.is_none());
    }

    #[test]
    fn a_search_by_user_or_status_finds_all_live_sessions() {
        for (query, field, finds_all) in [
            ("q=ada", "user", true),
            ("q=ada&status=any", "user", true),
            ("q=ada&account=acme", "user", true),
            ("subject=ada&account=acme", "subject", false),
            ("q=ada&status=ended", "user", false),
            ("q=ada+client:web", "user", false),
        ] {
            assert_eq!(search(query).finds_all_live(field), finds_all, "{query}");
        }
    }

    #[test]
    fn a_status_with_a_button_is_not_in_the_field() {
        assert_eq!((search("").path(""), search("").text()), ("/ui/sessions".to_owned(), String::new()));
        let ended = search("q=ada&status=ended");
        assert_eq!(ended.text(), "ada");
        assert_eq!(ended.kept().collect::<Vec<_>>(), [("status", "ended")]);
        let buttons: Vec<_> = ended.buttons().collect();
        assert_eq!(buttons[0], ("/ui/sessions?q=ada".to_owned(), "Live", false));
        assert_eq!(buttons[1], ("/ui/sessions?q=ada&status=ended".to_owned(), "Ended", true));
        let logout = of_text("ada status:logout");
        assert!(logout.buttons().all(|(.., is_on)| !is_on));
        assert_eq!(logout.in_other_order(), "/ui/sessions?q=ada+status%3Alogout&order=oldest");
        assert_eq!(logout.buttons().next().unwrap().0, "/ui/sessions?q=ada");
    }
}
