//! The loose match (requirement T20). Servers behind a gate fold case, cut `;parameters`, drop dots and white space
//! around a segment, decode once more, cut at an escaped `?` or `#`, and treat `/p` as `/p/`. An upstream may therefore
//! treat a path of one route as a path of another, stricter route. This module computes the possible readings of a
//! path. [`super::RouteTable`] looks up the routes to which they lead.

use std::borrow::Cow;

use super::path::resolve;
use super::pattern::{Segment, Tree};

/// How a lax server changes each segment of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lax {
    /// Cuts the segment at `;`.
    cuts: bool,
    /// Trims white space and trailing dots.
    trims: bool,
}

const ALL: [Lax; 4] = [
    Lax { cuts: false, trims: false },
    Lax { cuts: true, trims: false },
    Lax { cuts: false, trims: true },
    Lax { cuts: true, trims: true },
];

/// A reading of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathReading {
    /// The reading of a server that compares case-sensitively.
    Exact(String),
    /// The reading of a server that folds case. It is looked up among the [`folded`] patterns.
    Folded(String),
}

/// The readings of a canonical path that may differ from the path itself.
pub(super) fn readings(path: &str) -> Vec<PathReading> {
    let mut found: Vec<PathReading> = Vec::new();
    // Most paths that reach this point have an upper-case letter and are otherwise usual.
    let is_plain = !path.contains([';', '%', '.']);
    let cut = path_end(path).and_then(|end| path.get(..end));
    for text in std::iter::once(path).chain(cut) {
        for lax in ALL.iter().take(if is_plain { 1 } else { ALL.len() }) {
            let exact = mapped(text, |segment| exact(segment, *lax));
            if exact != path {
                found.push(PathReading::Exact(exact));
            }
            found.push(PathReading::Folded(mapped(text, |segment| fold(segment, *lax))));
        }
    }
    found.dedup();
    found
}

/// The position of an escaped `?` or `#`, escaped once or more often. A server that decodes too early ends the path
/// there.
fn path_end(path: &str) -> Option<usize> {
    path.match_indices('%').map(|(at, _)| at).find(|at| {
        let escaped = path.get(at + 1..).unwrap_or_default().trim_start_matches("25");
        escaped.get(..2).is_some_and(|digits| digits == "23" || digits.eq_ignore_ascii_case("3f"))
    })
}

/// Adds the forms of a pattern that are compared with the folded readings of a path: the pattern in lower case, and the
/// pattern cut and trimmed in the way of a lax server.
pub(super) fn folded(pattern: &[Segment<'_>], mut add: impl FnMut(&[Segment<'_>])) {
    for lax in [ALL[0], ALL[3]] {
        let last = pattern.len().saturating_sub(1);
        let texts: Vec<Option<String>> = pattern
            .iter()
            .map(|segment| match segment {
                Segment::Plain(text) => Some(fold(text, lax).into_owned()),
                Segment::Named | Segment::Rest => None,
            })
            .collect();
        let segments: Vec<Segment<'_>> = (0..)
            .zip(pattern.iter().zip(&texts))
            .filter_map(|(at, (segment, text))| match text {
                // Empty segments are merged. An empty segment at the end is a trailing slash.
                Some(text) if text.is_empty() && at != last => None,
                Some(text) => Some(Segment::Plain(text)),
                None => Some(*segment),
            })
            .collect();
        add(&segments);
    }
}

/// Applies `map` to each segment of the path. Segments that become empty are merged.
fn mapped<'p>(path: &'p str, map: impl Fn(&'p str) -> Cow<'p, str>) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/') {
        let segment = map(segment);
        if !segment.is_empty() {
            out.push('/');
            out.push_str(&segment);
        }
    }
    if path.ends_with('/') || out.is_empty() {
        out.push('/');
    }
    out
}

/// The segment as a lax server reads it, in the spelling of canonical paths.
fn exact(segment: &str, lax: Lax) -> Cow<'_, str> {
    let mut name = segment;
    if lax.cuts {
        let end = name.find(';').into_iter().chain(name.find("%3B")).min();
        name = end.and_then(|end| name.get(..end)).unwrap_or(name);
    }
    while lax.trims
        && let Some(shorter) =
            name.strip_suffix('.').or_else(|| name.strip_suffix("%20")).or_else(|| name.strip_prefix("%20"))
    {
        name = shorter;
    }
    Cow::Borrowed(name)
}

/// The segment as a lax server reads it, in lower case and with all levels of escapes decoded.
fn fold(segment: &str, lax: Lax) -> Cow<'_, str> {
    let resolved: Cow<'_, str> = if segment.contains('%') {
        // An escaped slash is treated as data. The route rejects it, or the configuration of the route states that the
        // upstream also treats it as data.
        Cow::Owned(String::from_utf8_lossy(&resolve(segment.as_bytes())).replace('/', "%2F"))
    } else {
        Cow::Borrowed(segment)
    };
    let mut name: &str = &resolved;
    if lax.cuts {
        name = name.split(';').next().unwrap_or_default();
    }
    if lax.trims {
        name = name.trim_end_matches(|c: char| c == '.' || c.is_whitespace()).trim_start();
    }
    // Converted to upper case and back, because some characters equal a letter in only one of the two cases (the Kelvin
    // sign, the long s).
    Cow::Owned(match name.is_ascii() {
        true => name.to_ascii_lowercase(),
        false => name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect(),
    })
}

/// The patterns of a host's routes in their folded forms.
pub(super) type FoldedTree = Tree<Vec<usize>>;

/// Adds the folded forms of an entry's pattern.
pub(super) fn insert(folded_patterns: &mut FoldedTree, pattern: &[Segment<'_>], entry: usize) {
    folded(pattern, |segments| {
        let entries = folded_patterns.place(segments).get_or_insert_default();
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    });
}

#[cfg(test)]
mod tests;
