//! An attacker writes to the database without a key of the gates.

use crate::redis::forged::{Damage, Forgery, damages, forgeries};

use super::{nodes, server};

#[tokio::test]
async fn j23_a_record_that_was_forged_in_postgresql_is_a_fault_of_its_session_alone() {
    let server = server();
    let (_place, [first, second]) = nodes(&server);
    let changed = |record: &str, from: &str, to: &str| {
        format!("decode(replace(encode({record}, 'hex'), '{from}', '{to}'), 'hex')")
    };
    forgeries(
        [&first, &second],
        |Forgery { session, from, to, whose }: &Forgery| {
            let record = changed("record", from, to);
            server.sql(&format!(
                "update rotogate.session set record = {record}, subject = decode('{to}', 'hex'), \
                 state = substr(state, 1, 10) || decode('{whose}', 'hex') where id = '{session}'"
            ));
        },
        |from, to| {
            let record = changed("theirs.record", from, to);
            server.sql(&format!(
                "update rotogate.session as own set record = {record} from rotogate.session as theirs \
                 where own.id = '{to}' and theirs.id = '{from}'"
            ));
        },
    )
    .await;
}

#[tokio::test]
async fn j27_a_record_that_was_damaged_in_postgresql_is_a_fault_of_its_session_alone() {
    let server = server();
    let (_place, [first, second]) = nodes(&server);
    damages([&first, &second], |session, damage| {
        let change = match damage {
            Damage::CutTo(length) => format!("substr(record, 1, {length})"),
            Damage::OtherVersion => "set_byte(record, 0, 9)".to_owned(),
        };
        server.sql(&format!("update rotogate.session set record = {change} where id = '{session}'"));
    })
    .await;
}
