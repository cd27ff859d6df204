//! What the documents say about outcomes and events. The page shows it, so that there is one text for both.

const OUTCOMES: &str = include_str!("../../../../../outcomes.md");
const EVENTS: &str = include_str!("../../../../../logs.md");

/// Returns the status, the meaning and the remedy of an outcome. In the remedy, words between backticks are code.
pub(super) fn outcome(word: &str) -> Option<(&'static str, String, String)> {
    let row = OUTCOMES.lines().find_map(|line| line.strip_prefix(&format!("| `{word}` | ")))?;
    let mut cells = row.trim_end_matches('|').splitn(3, " | ").map(str::trim);
    Some((cells.next()?, plain(cells.next()?), unlinked(cells.next()?)))
}

/// Returns what an event of the audit log is about, such as `session began`. `code` is its `event.code`.
pub(super) fn title(code: &str) -> Option<String> {
    let row = EVENTS.lines().find(|line| line.split(" | ").nth(1).and_then(in_backticks) == Some(code))?;
    let (_, cells) = row.split_once(code)?;
    let when = cells.trim_end_matches('|').splitn(3, '|').nth(2)?;
    // What follows is about the fields of the line.
    let told = plain(when.split(';').next()?);
    let mut title = String::new();
    for (place, part) in told.split(['(', ')']).enumerate() {
        title.push_str(if place % 2 == 0 { part } else { "" });
    }
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    let article = ["a ", "an ", "the "].into_iter().find(|article| title.starts_with(article)).unwrap_or_default();
    title.strip_prefix(article).map(str::to_owned)
}

fn in_backticks(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

fn plain(text: &str) -> String {
    unlinked(text).replace('`', "")
}

fn unlinked(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, (label, after))) =
        rest.split_once('[').and_then(|(before, after)| Some((before, after.split_once("](")?)))
    {
        plain.extend([before, label]);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p70_each_outcome_is_explained_in_plain_text() {
        let (status, meaning, remedy) = outcome("insufficient_authentication").unwrap();
        let expected =
            ("401", "the route requires a step-up", "log in again; the new token needs `acr` and `auth_time`");
        assert_eq!((status, &*meaning, &*remedy), expected);
        assert!(outcome("no_such_word").is_none());
        let (table, _) = OUTCOMES.split_once("| limit | counts |").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let all: Vec<_> = rows.map(|(word, _)| outcome(word)).collect();
        assert!(all.len() > 100 && all.iter().all(Option::is_some), "{}", all.len());
    }

    #[test]
    fn p56_each_event_has_a_short_title() {
        for (code, expected) in [
            ("RG1001I", "session began"),
            ("RG1003W", "login was refused: the user has too many sessions"),
            ("RG1008W", "client presented another client's refresh token"),
            ("RG1010W", "limit refused a request"),
            ("RG1704I", "operator signed in at the admin page"),
        ] {
            assert_eq!(title(code).as_deref(), Some(expected));
        }
        assert_eq!(title("RG0"), None);
        let codes: Vec<_> = EVENTS
            .lines()
            .filter_map(|line| in_backticks(line.split(" | ").nth(1)?))
            .filter(|it| it.starts_with("RG"))
            .collect();
        assert!(codes.len() > 50, "{codes:?}");
        for code in codes {
            let title = title(code).unwrap();
            let is_plain = !title.contains(['`', '(', '[', ';', '|']) && (8..110).contains(&title.len());
            assert!(is_plain, "{code}: {title}");
        }
    }
}
