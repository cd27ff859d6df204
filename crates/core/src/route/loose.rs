//! The loose match (requirement T20).
//!
//! Lax servers fold case, cut `;parameters`, drop dots and white space around a segment, and treat `/p` as `/p/`. Some
//! servers decode a path twice, or cut it off at an escaped `?` or `#`. An upstream may therefore read a path as a path
//! of a stricter route. [`super::RouteTable`] looks up all these readings of a path.

use std::borrow::Cow;

use super::path::resolve;
use super::pattern::{Segment, Tree};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lax {
    /// Whether the server cuts the segment at `;`.
    cuts: bool,
    /// Whether the server trims white space and trailing dots.
    trims: bool,
}

const ALL: [Lax; 4] = [
    Lax { cuts: false, trims: false },
    Lax { cuts: true, trims: false },
    Lax { cuts: false, trims: true },
    Lax { cuts: true, trims: true },
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathReading {
    Exact(String),
    /// The path with folded case, for the [`folded`] patterns.
    Folded(String),
}

/// Returns only readings that may differ from the path itself.
pub(super) fn readings(path: &str) -> Vec<PathReading> {
    let mut found: Vec<PathReading> = Vec::new();
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

/// A server that decodes too early ends the path at an escaped `?` or `#`.
fn path_end(path: &str) -> Option<usize> {
    path.match_indices('%').map(|(at, _)| at).find(|at| {
        let escaped = path.get(at + 1..).unwrap_or_default().trim_start_matches("25");
        escaped.get(..2).is_some_and(|digits| digits == "23" || digits.eq_ignore_ascii_case("3f"))
    })
}

/// Calls `add` with two lower-case forms of a pattern. In the second form, the segments are also cut and trimmed.
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
                // An empty segment at the end is a trailing slash. Other empty segments are merged.
                Some(text) if text.is_empty() && at != last => None,
                Some(text) => Some(Segment::Plain(text)),
                None => Some(*segment),
            })
            .collect();
        add(&segments);
    }
}

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

/// Returns the canonical spelling of the segment as a lax server reads it.
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

/// The result is in lower case, with all escapes decoded.
fn fold(segment: &str, lax: Lax) -> Cow<'_, str> {
    let resolved: Cow<'_, str> = if segment.contains('%') {
        // A route rejects an escaped slash, unless its upstream also treats the slash as data.
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
    // The long s becomes ASCII in upper case, and the Kelvin sign in lower case.
    Cow::Owned(match name.is_ascii() {
        true => name.to_ascii_lowercase(),
        false => name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect(),
    })
}

pub(super) type FoldedTree = Tree<Vec<usize>>;

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
