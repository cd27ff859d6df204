//! Checks the uses of an API key. An invalid key never becomes valid again.

use super::judge::Rule;
use super::{KEY_LIFETIME, Moment, Operation, Reply, Request, Rules};

pub(super) fn judge(operations: &[Operation], rules: &Rules) -> Result<(), Rule> {
    let made = operations.iter().find(|one| one.request == Request::MakeKey);
    let surely = operations.iter().filter_map(|one| surely_ended(one, rules));
    let surely = surely.chain(made.map(|made| made.end + KEY_LIFETIME + rules.slack)).min();
    let perhaps = operations.iter().filter_map(|one| perhaps_ended(one, rules));
    let perhaps = perhaps.chain(made.map(|made| (made.begin + KEY_LIFETIME).saturating_sub(rules.slack))).min();
    // A replaced or revoked key cannot be replaced again, not even during its overlap.
    let changes = |one: &&Operation| matches!(one.request, Request::ReplaceKey(..) | Request::RevokeKey(_));
    let acknowledged = operations.iter().filter(changes).filter(|one| one.reply != Reply::InDoubt);
    let acknowledged = acknowledged.map(|one| one.end).min();
    for (place, one) in operations.iter().enumerate() {
        let is_over = match (one.request, one.reply) {
            (Request::UseKey(_), Reply::Accepted) if surely.is_some_and(|end| one.begin > end + rules.staleness) => {
                return Err(Rule::RefusedInTime);
            }
            (Request::ReplaceKey(..), Reply::Issued(_)) if acknowledged.is_some_and(|end| one.begin > end) => {
                return Err(Rule::OneOrder);
            }
            (Request::UseKey(_), Reply::Refused) => perhaps.is_some_and(|end| end <= one.end),
            (Request::ReplaceKey(..), Reply::Refused) => {
                let other = operations.iter().enumerate().filter(|(other, _)| *other != place);
                let other = other.map(|(_, other)| other).filter(changes).filter(|other| other.reply != Reply::Refused);
                let other = other.map(|other| other.begin);
                other.chain(perhaps).min().is_some_and(|begin| begin <= one.end)
            }
            _ => true,
        };
        if !is_over {
            return Err(Rule::AcceptedWhileLive);
        }
    }
    Ok(())
}

/// Returns the time after which this operation has certainly invalidated the key.
fn surely_ended(one: &Operation, rules: &Rules) -> Option<Moment> {
    match (one.request, one.reply) {
        (Request::RevokeKey(_), Reply::Accepted) => Some(one.end),
        (Request::ReplaceKey(_, overlap), Reply::Issued(_)) if overlap.is_zero() => Some(one.end),
        (Request::ReplaceKey(_, overlap), Reply::Issued(_)) => Some(one.end + overlap + rules.slack),
        _ => None,
    }
}

/// Returns the earliest time at which this operation may invalidate the key.
fn perhaps_ended(one: &Operation, rules: &Rules) -> Option<Moment> {
    match one.request {
        _ if one.reply == Reply::Refused => None,
        // An uncertain operation may take effect at any time after its request.
        Request::RevokeKey(_) => Some(one.begin),
        Request::ReplaceKey(_, overlap) => Some((one.begin + overlap).saturating_sub(rules.slack).max(one.begin)),
        _ => None,
    }
}
