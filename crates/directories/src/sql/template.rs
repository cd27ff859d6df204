//! SQL statements with placeholders in braces. Values are always bound as parameters (requirement I29).

/// A placeholder in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// `{account}`: the account of the login, or NULL.
    Account,
    /// `{username}`: the submitted name.
    Username,
    /// `{subject}`: the subject to find.
    Subject,
    /// `{old_hash}`: the hash to replace.
    OldHash,
    /// `{new_hash}`: the new hash.
    NewHash,
}

impl Param {
    const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Username => "username",
            Self::Subject => "subject",
            Self::OldHash => "old_hash",
            Self::NewHash => "new_hash",
        }
    }
}

/// The allowed placeholders of a statement, and the required ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    may: &'static [Param],
    must: &'static [Param],
}

/// The statement that finds a user at login.
pub const AUTHENTICATE: Purpose = Purpose { may: &[Param::Username, Param::Account], must: &[Param::Username] };
/// The statement that finds a user by subject.
pub const LOOKUP: Purpose = Purpose { may: &[Param::Subject], must: &[Param::Subject] };
/// The statement that replaces a password hash.
pub const REHASH: Purpose = Purpose {
    may: &[Param::Subject, Param::OldHash, Param::NewHash],
    must: &[Param::Subject, Param::OldHash, Param::NewHash],
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Param(Param),
}

/// A statement as configured.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Template {
    source: String,
    pieces: Vec<Piece>,
}

rotogate_core::debug_with!(Template { source });

/// Returns the n-th parameter in SQL, counted from 1.
pub(super) type PlaceholderStyle = fn(usize) -> String;

impl Template {
    /// Parses a statement.
    ///
    /// # Errors
    /// Describes the problem and shows a valid statement.
    pub fn parse(source: &str, purpose: Purpose) -> Result<Self, String> {
        let known = || purpose.may.iter().map(|param| format!("{{{}}}", param.name())).collect::<Vec<_>>().join(", ");
        let mut pieces = Vec::new();
        let mut is_quoted = false;
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            let (text, braced) = rest.split_at(at);
            is_quoted ^= text.matches('\'').count() % 2 == 1;
            let name = braced.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((name, after)) = name else {
                return Err(format!("found a single brace; a value in braces must be one of {}", known()));
            };
            let Some(param) = purpose.may.iter().find(|param| param.name() == name) else {
                return Err(format!("unknown value {{{}}}; expected one of {}", name.escape_debug(), known()));
            };
            if is_quoted {
                return Err(format!("{{{name}}} is in quotes; remove the quotes, because it is a bound parameter"));
            }
            pieces.extend([Piece::Text(text.to_owned()), Piece::Param(*param)]);
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let template = Self { source: source.to_owned(), pieces };
        template.check(purpose)?;
        Ok(template)
    }

    fn check(&self, purpose: Purpose) -> Result<(), String> {
        if let Some(missing) = purpose.must.iter().find(|param| !self.params().any(|held| held == **param)) {
            return Err(format!("{{{}}} is missing", missing.name()));
        }
        let text: String = self.texts().collect();
        let text = text.trim_end();
        if text.strip_suffix(';').unwrap_or(text).contains(';') {
            return Err("found more than one statement; expected one statement, without \";\"".to_owned());
        }
        let digit_follows =
            |mark: char| text.split(mark).skip(1).any(|after| after.starts_with(|c: char| c.is_ascii_digit()));
        if digit_follows('$') || digit_follows('?') {
            return Err("found a numbered parameter such as $1; write the name of a value in braces instead".to_owned());
        }
        Ok(())
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Param(_) => None,
        })
    }

    pub(super) fn params(&self) -> impl Iterator<Item = Param> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Param(param) => Some(*param),
        })
    }

    pub(super) fn mentions(&self, word: &str) -> bool {
        self.texts().any(|text| text.contains(word))
    }

    /// The statement as configured.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Each placeholder becomes a separate parameter, because the database may infer a different type for each use.
    pub(super) fn render(&self, placeholder: PlaceholderStyle) -> String {
        let mut number = 0;
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Param(_) => {
                number += 1;
                placeholder(number)
            }
        };
        self.pieces.iter().map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> String {
        Template::parse(source, AUTHENTICATE).unwrap_err()
    }

    #[test]
    fn i29_braces_become_parameters_and_nothing_else() {
        let template = Template::parse(
            "SELECT id AS subject FROM users WHERE name = {username} AND ({account} IS NULL OR org = {account})",
            AUTHENTICATE,
        )
        .unwrap();
        let text = template.render(|n| format!("${n}"));
        assert_eq!(text, "SELECT id AS subject FROM users WHERE name = $1 AND ($2 IS NULL OR org = $3)");
        assert_eq!(template.params().collect::<Vec<_>>(), [Param::Username, Param::Account, Param::Account]);
    }

    #[test]
    fn i29_i45_other_braces_quotes_and_further_statements_are_refused() {
        for (source, said) in [
            ("SELECT {name}", "unknown value {name}; expected one of {username}, {account}"),
            ("SELECT {subject} FROM t WHERE n = {username}", "unknown value {subject}"),
            ("SELECT { username } FROM t", "unknown value { username }"),
            ("SELECT {username", "a single brace"),
            ("SELECT username}", "a single brace"),
            ("SELECT {}", "unknown value {}"),
            ("SELECT {{username}}", "unknown value {{username}"),
            ("SELECT * FROM t WHERE n = '{username}'", "remove the quotes"),
            ("SELECT * FROM t WHERE n LIKE '%' || '{username}%'", "remove the quotes"),
            ("SELECT 1", "{username} is missing"),
            ("SELECT {username}; DROP TABLE users", "more than one statement"),
            ("SELECT {username}, $1", "numbered parameter"),
            ("SELECT {username}, ?1", "numbered parameter"),
        ] {
            assert!(refused(source).contains(said), "{source}: {}", refused(source));
        }
        Template::parse("SELECT * FROM t WHERE n = {username} AND x <> 'it''s';", AUTHENTICATE).unwrap();
        let said = Template::parse("UPDATE t SET h = {new_hash} WHERE id = {subject}", REHASH).unwrap_err();
        assert_eq!(said, "{old_hash} is missing");
    }
}
