//! The state that gates with the same store publish to each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::running::Running;
use rotogate_core::store::{LiveRow, NodeSeen};

pub(super) mod keys;

/// A gate without a heartbeat for this long counts as stopped.
const RUNS_FOR: Duration = Duration::from_secs(20);

pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The delay before the gate logs that another gate has different users. A changed users file needs time to reach all
/// gates.
const MAY_DIFFER_FOR: Duration = Duration::from_secs(60);

pub(super) async fn look(gate: Arc<Running>, users: &mut UsersSeen) {
    let Some(shared) = gate.engine.store().shared() else { return };
    // Other tasks already log a failure of the store.
    let Ok(nodes) = shared.nodes().await else { return };
    gate.engine.set_nodes(nodes.len());
    let now = gate.engine.clock().source().monotonic();
    match users.see(gate.row.get().users.as_deref(), &nodes, now) {
        Some(differ) if differ.is_empty() => tracing::info!("all gates that share the store have the same users again"),
        Some(differ) => tracing::warn!(
            nodes = differ.join(", "),
            "other gates have different users than this gate: copy the same users file to all gates"
        ),
        None => {}
    }
}

/// The gates whose users differ from ours, and when each difference was first seen.
#[derive(Default)]
pub(super) struct UsersSeen {
    differ: BTreeMap<Box<str>, Duration>,
    said: Vec<Box<str>>,
}

impl UsersSeen {
    /// Returns the gates whose users have differed from ours for too long. Returns `None` if the list has not changed.
    fn see(&mut self, own: Option<&str>, nodes: &[NodeSeen], now: Duration) -> Option<Vec<Box<str>>> {
        let own = own?;
        let others = nodes.iter().filter(|seen| seen.row.users.as_deref().is_some_and(|users| users != own));
        let others: Vec<_> = others.map(|seen| seen.row.node.clone()).collect();
        self.differ.retain(|node, _| others.contains(node));
        for node in others {
            self.differ.entry(node).or_insert(now);
        }
        let late = |since: &Duration| now >= since.saturating_add(MAY_DIFFER_FOR);
        let late: Vec<_> = self.differ.iter().filter(|(_, since)| late(since)).map(|(node, _)| node.clone()).collect();
        if late == self.said || (late.is_empty() && !self.differ.is_empty()) {
            return None;
        }
        self.said.clone_from(&late);
        Some(late)
    }
}

/// Without a name, the row gets a generated name.
pub(super) fn row(name: Option<Box<str>>, id: u64) -> Arc<LiveRow> {
    let row = LiveRow::default();
    let name = name.unwrap_or_else(|| format!("gate-{id:08x}").into());
    row.change(|row| row.node.clone_from(&name));
    Arc::new(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rotogate_core::clock::Timestamp;
    use rotogate_core::store::NodeRow;

    #[test]
    fn gates_whose_users_differ_for_a_minute_are_named_once() {
        let node = |name: &str, users: &str| {
            let row = NodeRow { node: name.into(), users: Some(users.into()), ..NodeRow::default() };
            NodeSeen { row, beat: Timestamp::ZERO }
        };
        let at = Duration::from_secs;
        let mut users = UsersSeen::default();
        let [same, others] = [[node("a", "1"), node("b", "1")], [node("a", "1"), node("b", "2")]];
        assert_eq!(users.see(Some("1"), &same, at(0)), None);
        assert_eq!(users.see(Some("1"), &others, at(10)), None);
        assert_eq!(users.see(Some("1"), &others, at(69)), None);
        assert_eq!(users.see(Some("1"), &others, at(70)), Some(vec!["b".into()]));
        assert_eq!(users.see(Some("1"), &others, at(200)), None, "once");
        assert_eq!(users.see(Some("1"), &same, at(210)), Some(Vec::new()));
        assert_eq!(users.see(Some("1"), &others, at(220)), None, "it begins anew");
        assert_eq!(users.see(Some("1"), &same, at(230)), None, "nothing was said");
        assert_eq!(users.see(None, &others, at(900)), None, "no users in a file");
    }
}
