//! Gates that share a store must have matching keys, apart from one step of a key rotation.

use super::RUNS_FOR;
use rotogate_core::clock::Timestamp;
use rotogate_core::store::{LiveRow, NodeRow, NodeSeen};
use rotogate_core::token::keyring::Keyring;
use std::collections::{BTreeMap, BTreeSet};

pub(in crate::gate) fn say(row: &LiveRow, keyring: &Keyring, now: Timestamp) {
    let refresh = keyring.refresh_keys();
    row.change(|row| {
        row.kids = keyring.signing_keys().map(|key| key.kid().into()).collect();
        row.signing = keyring.signer().kid().into();
        row.refresh_keys = refresh.ids().collect();
        row.refresh_prints = refresh.ids().filter_map(|id| refresh.print(id)).map(Into::into).collect();
        row.refresh_current = Some(refresh.current());
        row.keyring = keyring.fingerprint().into();
        row.keys_since = now.as_millis();
    });
}

/// Checks that the keys differ from those of a running gate by at most one rotation step. Otherwise one gate could mint
/// tokens that the other refuses.
///
/// # Errors
/// The differences, the gates that differ, and what to do.
pub(in crate::gate) fn check(own: &NodeRow, others: &[NodeSeen], now: Timestamp) -> Result<(), String> {
    let running = others.iter().filter(|seen| now.since(seen.beat) <= RUNS_FOR);
    let apart = running.filter_map(|seen| {
        let differences = differences(own, &seen.row);
        (differences.steps > 1).then(|| format!("{} {}", seen.row.node, differences.said.join(", and ")))
    });
    let apart: Vec<_> = apart.collect();
    if apart.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this gate's keys differ by more than one step of a key rotation (a key added, promoted or retired) from the \
         keys of running gates with the same store: {}. Copy the key folder of a gate that has the right keys to the \
         others, the key files before `keyring.toml`, and start again. A gate that has ended is still considered \
         running for {} s",
        apart.join("; "),
        RUNS_FOR.as_secs()
    ))
}

#[derive(Default)]
struct Differences {
    steps: usize,
    said: Vec<String>,
}

impl Differences {
    fn add(&mut self, steps: usize, said: String) {
        self.steps += steps;
        self.said.push(said);
    }

    fn compare(&mut self, [own, other]: [BTreeSet<String>; 2], in_use: [Option<String>; 2], uses: &str) {
        other.difference(&own).for_each(|key| self.add(1, format!("has {key}, which this gate does not have")));
        own.difference(&other).for_each(|key| self.add(1, format!("lacks {key}, which this gate has")));
        if let [Some(here), Some(there)] = in_use
            && here != there
        {
            self.add(1, format!("{uses} {there} (this gate: {here})"));
        }
    }
}

fn differences(own: &NodeRow, other: &NodeRow) -> Differences {
    let rows = [own, other];
    let mut found = Differences::default();
    if other.kids.is_empty() {
        // The other gate runs a version that does not publish its keys.
        return found;
    }
    let kids = rows.map(|row| row.kids.iter().map(ToString::to_string).collect());
    found.compare(kids, rows.map(|row| Some(row.signing.to_string())), "signs with");
    let refresh = rows.map(|row| row.refresh_keys.iter().copied().map(refresh_name).collect());
    found.compare(refresh, rows.map(|row| row.refresh_current.map(refresh_name)), "makes refresh tokens with");
    let [here, there] = rows.map(prints);
    for (id, _) in here.iter().filter(|(id, print)| there.get(*id).is_some_and(|other| other != *print)) {
        // Each gate created its own secret with this id. A key rotation never causes that.
        found.add(2, format!("has a different secret {} than this gate", refresh_name(*id)));
    }
    found
}

fn prints(row: &NodeRow) -> BTreeMap<u8, &str> {
    row.refresh_keys.iter().copied().zip(row.refresh_prints.iter().map(|print| &**print)).collect()
}

fn refresh_name(id: u8) -> String {
    format!("refresh-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kids: &[&str], refresh: &[u8], current: u8) -> NodeRow {
        NodeRow {
            node: "b".into(),
            kids: kids.iter().map(|kid| (*kid).into()).collect(),
            signing: kids[0].into(),
            refresh_keys: refresh.into(),
            refresh_prints: refresh.iter().map(|id| format!("print of {id}").into()).collect(),
            refresh_current: Some(current),
            ..NodeRow::default()
        }
    }

    fn refused(own: &NodeRow, other: &NodeRow) -> Option<String> {
        let seen = NodeSeen { row: other.clone(), beat: Timestamp::from_secs(100) };
        check(own, &[seen], Timestamp::from_secs(120)).err()
    }

    #[test]
    fn c28_keys_one_step_of_a_roll_apart_are_good_and_others_are_not() {
        let first = row(&["k1"], &[1], 1);
        let roll = [
            first.clone(),
            row(&["k1", "k2"], &[1], 1),
            row(&["k2", "k1"], &[1], 1),
            row(&["k2"], &[1], 1),
            row(&["k2"], &[1, 2], 1),
            row(&["k2"], &[1, 2], 2),
            row(&["k2"], &[2], 2),
        ];
        for (n, own) in roll.iter().enumerate() {
            for (m, other) in roll.iter().enumerate() {
                assert_eq!(refused(own, other).is_some(), n.abs_diff(m) > 1, "{n} {m}: {:?}", refused(own, other));
            }
        }
        let said = refused(&first, &roll[2]).unwrap();
        assert!(said.contains("b has k2, which this gate does not have, and signs with k2 (this gate: k1)"), "{said}");
        let said = refused(&roll[6], &roll[4]).unwrap();
        assert!(
            said.contains("has refresh-1, which this gate does not have, and makes refresh tokens with refresh-1"),
            "{said}"
        );
    }

    #[test]
    fn c28_two_secrets_of_one_id_are_no_step_of_a_roll() {
        let (own, mut other) = (row(&["k1"], &[1, 2], 1), row(&["k1"], &[1, 2], 1));
        other.refresh_prints[1] = "another print".into();
        assert!(refused(&own, &other).unwrap().contains("a different secret refresh-2"));
        other.refresh_prints = Vec::new();
        assert_eq!(refused(&own, &other), None, "a version that does not say");
    }

    #[test]
    fn c28_gates_that_ended_or_do_not_say_their_keys_are_not_asked() {
        let (own, other) = (row(&["k1"], &[1], 1), row(&["k3"], &[3], 3));
        let seen = |row: &NodeRow| [NodeSeen { row: row.clone(), beat: Timestamp::from_secs(100) }];
        assert!(check(&own, &seen(&other), Timestamp::from_secs(120)).is_err());
        assert!(check(&own, &seen(&other), Timestamp::from_secs(121)).is_ok());
        assert!(check(&own, &seen(&NodeRow::default()), Timestamp::from_secs(100)).is_ok());
        assert!(check(&own, &[], Timestamp::from_secs(100)).is_ok());
    }
}
