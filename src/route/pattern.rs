//! Path patterns, and the tree that finds the most specific one for a path.
//!
//! matchit, whose notation this is, refuses `/{name}/x` beside `/{*rest}`; a gate with a route for "everything else" and
//! tenants in its paths needs both. Here the segments of a path are walked from left to right, at each the plain one
//! before `{name}` before `{*rest}`, with a step back where that leads nowhere. Each node of the tree is looked at once
//! at most, so no path costs more than the table is large.

use std::collections::HashMap;

use super::path::CanonicalPath;

/// One segment of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'p> {
    Plain(&'p str),
    /// `{name}`: any segment that is not empty.
    Named,
    /// `{*rest}`: all that is left.
    Rest,
}

/// Reads a pattern.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse(pattern: &str) -> Result<Vec<Segment<'_>>, String> {
    let path = pattern.strip_prefix('/').ok_or("it does not begin with a slash")?;
    let last = path.split('/').count().saturating_sub(1);
    let mut segments = Vec::new();
    for (at, text) in path.split('/').enumerate() {
        segments.push(match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => match name.strip_prefix('*') {
                Some(name) if is_name(name) && at == last => Segment::Rest,
                Some(name) if is_name(name) => return Err("{*rest} may stand only at its end".to_owned()),
                None if is_name(name) => Segment::Named,
                Some(_) | None => return Err(format!("{text:?} has no name of letters, digits and `_`")),
            },
            None if text.contains(['{', '}']) => {
                return Err("a parameter is a whole segment; a brace that is meant is written %7B or %7D".to_owned());
            }
            None => {
                check_plain(text, at == last)?;
                Segment::Plain(text)
            }
        });
    }
    Ok(segments)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// It is compared with canonical segments, so it must be one.
fn check_plain(text: &str, is_last: bool) -> Result<(), String> {
    if text.is_empty() {
        return if is_last { Ok(()) } else { Err("empty segments are merged: it never matches".to_owned()) };
    }
    let path = format!("/{text}");
    match CanonicalPath::parse(&path) {
        Ok(canonical) if canonical.is_rewritten() => {
            let canonical = canonical.as_str().trim_start_matches('/');
            Err(format!("it never matches: the canonical spelling of {text:?} is {canonical:?}"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("it never matches: {error}")),
    }
}

/// Patterns with what belongs to them.
#[derive(Debug)]
pub(super) struct Tree<T> {
    plain: HashMap<Box<str>, Self, foldhash::fast::RandomState>,
    named: Option<Box<Self>>,
    rest: Option<T>,
    here: Option<T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { plain: HashMap::default(), named: None, rest: None, here: None }
    }
}

impl<T> Tree<T> {
    /// The place of a pattern. Patterns that differ only in the names of their parameters share it.
    pub(super) fn place(&mut self, pattern: &[Segment<'_>]) -> &mut Option<T> {
        match pattern.split_first() {
            None => &mut self.here,
            Some((Segment::Rest, _)) => &mut self.rest,
            Some((Segment::Named, after)) => self.named.get_or_insert_default().place(after),
            Some((Segment::Plain(text), after)) => self.plain.entry((*text).into()).or_default().place(after),
        }
    }

    /// What belongs to the most specific pattern that matches.
    pub(super) fn find(&self, path: &CanonicalPath<'_>) -> Option<&T> {
        self.walk(Some(path.as_str().strip_prefix('/')?))
    }

    fn walk(&self, left: Option<&str>) -> Option<&T> {
        let Some(left) = left else {
            return self.here.as_ref();
        };
        let (segment, after) = left.split_once('/').map_or((left, None), |(segment, after)| (segment, Some(after)));
        let plain = self.plain.get(segment).and_then(|node| node.walk(after));
        let named = || self.named.as_ref().filter(|_| !segment.is_empty()).and_then(|node| node.walk(after));
        plain.or_else(named).or(self.rest.as_ref())
    }
}
