//! C3: the functions and the rules agree.

use super::*;
use rotogate_core::store::agreement;
use rotogate_core::store::kit::fields::{decode_effect, encode_effect};

#[tokio::test]
async fn c3_effects_merge_in_sql_as_in_rust_for_every_pair_of_a_domain() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let connection = store.0.commands.connection().await.map_err(|failed| failed.error).unwrap();
    let effects = agreement::effects();
    let encoded: Vec<Vec<u8>> = effects.iter().map(|effect| encode_effect(*effect)).collect();
    let mut compared = 0;
    for (a, bytes_of_a) in effects.iter().zip(&encoded) {
        let merged =
            "select array_agg(rg.rg_merge($1, b) order by n) from unnest($2::bytea[]) with ordinality as e (b, n)";
        let rows = connection.client.query(merged, &[bytes_of_a, &encoded]).await.unwrap();
        let merged: Vec<Vec<u8>> = rows[0].get(0);
        assert_eq!(merged.len(), effects.len());
        for (b, merged) in effects.iter().zip(merged) {
            assert_eq!(decode_effect(&merged), Some(a.merge(*b)), "{a:?} {b:?}");
            compared += 1;
        }
    }
    assert!(compared >= 10_000, "{compared}");
}

#[tokio::test]
async fn c3_operations_do_what_the_rules_say() {
    let server = Server::start(&[]);
    for seed in 1..=4 {
        agreement::agrees_with_the_rules(&*server.connect(&schema()).await, seed, 2500).await;
    }
}
