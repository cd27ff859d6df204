//! Path patterns, and the tree that finds the most specific pattern for a path.
//!
//! The syntax is that of the crate `matchit`, which rejects `/{name}/x` beside `/{*rest}`. A node tries the plain
//! segment first, then `{name}`, then `{*rest}`, and backtracks. A look-up visits each node at most once.

use std::collections::HashMap;

use super::path::CanonicalPath;

#[derive(Debug)]
pub(super) struct TreeMatch<'t, T> {
    pub(super) here: Option<&'t T>,
    /// The match after adding or removing a trailing slash. `None` if a pattern equals the path.
    pub(super) beside: Option<&'t T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'p> {
    Plain(&'p str),
    /// `{name}` matches one segment that is not empty.
    Named,
    /// `{*rest}` matches the rest of the path.
    Rest,
}

/// Parses a pattern.
///
/// # Errors
/// A message with the problem and the pattern that was probably meant.
pub(super) fn parse(pattern: &str) -> Result<Vec<Segment<'_>>, String> {
    let path = pattern.strip_prefix('/').ok_or("it does not begin with a slash")?;
    let last = path.split('/').count().saturating_sub(1);
    let mut segments = Vec::new();
    let foreign = |what: &str| format!("{what}; write {:?}", translated(pattern));
    for (at, text) in path.split('/').enumerate() {
        segments.push(match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => match name.strip_prefix('*') {
                Some(name) if is_name(name) && at == last => Segment::Rest,
                Some(name) if is_name(name) => {
                    return Err("{*rest} is allowed only at the end of the pattern".to_owned());
                }
                None if is_name(name) => Segment::Named,
                Some(_) | None => {
                    return Err(foreign(&format!("{text:?} needs a name that has only letters, digits and `_`")));
                }
            },
            None if text.contains(['{', '}']) => {
                let what = "a parameter must be a whole segment; write a literal brace as %7B or %7D";
                return Err(foreign(what));
            }
            // Other proxies use `*` as a wildcard. As literal text, `*` would match almost no path, and a less strict
            // route could serve the intended paths.
            None if text.contains('*') => {
                return Err(foreign(
                    "`*` is not a wildcard here: {name} matches one segment, and {*rest} at the end matches all \
                     further segments",
                ));
            }
            None if text.starts_with(':') => return Err(foreign("a parameter must be in braces")),
            None => {
                check_plain(text, at == last)?;
                Segment::Plain(text)
            }
        });
    }
    Ok(segments)
}

/// Translates the notations of other proxies: `*`, `**`, `:id`, `{id}.json` and `{id:int}`.
fn translated(pattern: &str) -> String {
    let path = pattern.strip_prefix('/').unwrap_or(pattern);
    let last = path.split('/').count().saturating_sub(1);
    let mut out = String::new();
    for (at, text) in path.split('/').enumerate() {
        let is_name_byte = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        let parameter = text.find(['{', ':']).and_then(|at| text.get(at + 1..)).unwrap_or_default();
        let name: String = parameter.trim_start_matches('*').chars().take_while(is_name_byte).collect();
        out.push('/');
        // Only the last segment can match the rest of the path.
        if at == last && text.contains('*') {
            let name = if name.is_empty() { "rest" } else { &name };
            out.push_str(&format!("{{*{name}}}"));
        } else if text.contains(['*', '{', '}']) || text.starts_with(':') {
            let name = if name.is_empty() { format!("segment{}", at + 1) } else { name };
            out.push_str(&format!("{{{name}}}"));
        } else {
            out.push_str(text);
        }
    }
    out
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Checks that a segment is canonical, because it is compared with the canonical segments of requests.
fn check_plain(text: &str, is_last: bool) -> Result<(), String> {
    if text.is_empty() {
        return if is_last {
            Ok(())
        } else {
            Err("it never matches, because the gate merges empty segments".to_owned())
        };
    }
    let path = format!("/{text}");
    match CanonicalPath::parse(&path) {
        Ok(canonical) if canonical.is_rewritten() => {
            let canonical = canonical.as_str().trim_start_matches('/');
            Err(format!("it never matches, because the canonical form of {text:?} is {canonical:?}"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("it never matches: {error}")),
    }
}

/// A search for a `char` would take three times as long as this search for a byte.
fn first_segment(left: &str) -> (&str, Option<&str>) {
    let slash = left.bytes().position(|byte| byte == b'/');
    slash.and_then(|at| left.split_at_checked(at)).map_or((left, None), |(segment, rest)| (segment, rest.get(1..)))
}

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
    /// Returns the slot of a pattern. Patterns that differ only in parameter names share a slot.
    pub(super) fn place(&mut self, pattern: &[Segment<'_>]) -> &mut Option<T> {
        match pattern.split_first() {
            None => &mut self.here,
            Some((Segment::Rest, _)) => &mut self.rest,
            Some((Segment::Named, after)) => self.named.get_or_insert_default().place(after),
            Some((Segment::Plain(text), after)) => self.plain.entry((*text).into()).or_default().place(after),
        }
    }

    pub(super) fn find(&self, path: &str) -> TreeMatch<'_, T> {
        let mut beside = None;
        let here = path.strip_prefix('/').and_then(|left| self.walk(Some(left), &mut beside));
        TreeMatch { here, beside }
    }

    fn walk<'t>(&'t self, left: Option<&str>, beside: &mut Option<&'t T>) -> Option<&'t T> {
        let Some(left) = left else {
            if self.here.is_none() && beside.is_none() {
                *beside = self.plain.get("").and_then(|node| node.here.as_ref()).or(self.rest.as_ref());
            }
            return self.here.as_ref();
        };
        let (segment, after) = first_segment(left);
        let plain = self.plain.get(segment).and_then(|node| node.walk(after, beside));
        if plain.is_none() && left.is_empty() && beside.is_none() {
            *beside = self.here.as_ref();
        }
        let named = |beside: &mut Option<&'t T>| {
            self.named.as_ref().filter(|_| !segment.is_empty()).and_then(|node| node.walk(after, beside))
        };
        plain.or_else(|| named(beside)).or(self.rest.as_ref())
    }

    pub(super) fn any(&self, path: &str, is: &impl Fn(&T) -> bool) -> bool {
        path.strip_prefix('/').is_some_and(|left| self.any_of(Some(left), is))
    }

    fn any_of(&self, left: Option<&str>, is: &impl Fn(&T) -> bool) -> bool {
        let Some(left) = left else { return self.here.as_ref().is_some_and(is) };
        let (segment, after) = first_segment(left);
        self.rest.as_ref().is_some_and(is)
            || self.plain.get(segment).is_some_and(|node| node.any_of(after, is))
            || self.named.as_ref().is_some_and(|node| !segment.is_empty() && node.any_of(after, is))
    }
}
