//! Breadth-first search: the first bad history found is a shortest one.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// The possible events, and the forbidden outcomes.
pub(crate) trait World {
    type State: Copy + Eq + Hash;
    type Event: Copy + Debug;

    fn start(&self) -> Self::State;
    /// All possible next events.
    fn next(&mut self, state: &Self::State, out: &mut Vec<(Self::Event, Self::State)>);
    /// The broken rule, if any.
    fn bad(&mut self, before: &Self::State, event: &Self::Event, after: &Self::State) -> Option<&'static str>;
}

/// The result of a walk.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) bad: Option<(&'static str, String)>,
}

/// Searches until no new state is left, or until a bad one is found.
pub(crate) fn explore<W: World>(world: &mut W) -> Found {
    let mut seen = HashSet::with_hasher(foldhash::fast::RandomState::default());
    // Each state, with the index of its predecessor and the event between them.
    let mut all: Vec<(W::State, u32, Option<W::Event>)> = vec![(world.start(), 0, None)];
    seen.insert(world.start());
    let mut out = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let state = all[at].0;
        out.clear();
        world.next(&state, &mut out);
        for (event, after) in &out {
            if let Some(why) = world.bad(&state, event, after) {
                return Found { states: all.len(), bad: Some((why, history(&all, at, event))) };
            }
            if seen.insert(*after) {
                all.push((*after, u32::try_from(at).unwrap(), Some(*event)));
            }
        }
        at += 1;
    }
    Found { states: all.len(), bad: None }
}

fn history<S, E: Debug>(all: &[(S, u32, Option<E>)], mut at: usize, last: &E) -> String {
    let mut events = vec![format!("{last:?}")];
    while let Some(event) = &all[at].2 {
        events.push(format!("{event:?}"));
        at = all[at].1 as usize;
    }
    events.reverse();
    events.join("\n    ")
}

/// The number of generations in a large world: one fewer, unless `EXPLORATION` is `whole`, as in `tests/long.sh exploration`.
pub(crate) fn generations(whole: u8) -> u8 {
    whole - u8::from(std::env::var("EXPLORATION").as_deref() != Ok("whole"))
}

/// The search finds no bad state.
pub(crate) fn proves<W: World>(name: &str, mut world: W) {
    let found = explore(&mut world);
    println!("{name}: {} states", found.states);
    if let Some((why, history)) = found.bad {
        panic!("{name}: {why}:\n    {history}");
    }
    assert!(found.states > 1000, "{name}: a world of {} states proves nothing", found.states);
}

/// The search finds this bad state.
pub(crate) fn finds<W: World>(name: &str, expected: &str, mut world: W) {
    let found = explore(&mut world);
    let Some((why, history)) = found.bad else { panic!("{name}: not found in {} states", found.states) };
    println!("{name}: found after {} states: {why}:\n    {history}", found.states);
    assert_eq!(why, expected, "{name}");
}
