use std::collections::HashSet;
use std::sync::atomic::AtomicU32;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::store::MemoryStore;
use crate::store::relay::RelayState;
use crate::token::keyring::{Keyring, RefreshKeys, RefreshSecret};
use crate::token::status_token::inflated;
use register::ROW;

const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO))
}

fn lists(store: &Arc<MemoryStore>, size: u8) -> StatusLists {
    let settings = StatusListSettings { size: ListSize(size), ..StatusListSettings::default() };
    StatusLists::new(settings, "https://gate.test", Arc::clone(store) as _)
}

fn secrets(ids: &[u8], current: u8) -> RefreshKeys {
    let text = |id: u8| RefreshSecret::from_text(URL_SAFE_NO_PAD.encode([id; 32]).as_bytes()).unwrap();
    let secrets: Vec<_> = ids.iter().map(|id| (*id, text(*id))).collect();
    RefreshKeys::new(current, &secrets).unwrap()
}

fn never() -> Timestamp {
    Timestamp::ZERO
}

/// How many indices are drawn: ten million in the weekly run.
fn drawn() -> usize {
    std::env::var("ROTOGATE_STATUS_INDICES").ok().and_then(|number| number.parse().ok()).unwrap_or(100_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn s2_no_index_is_given_twice_by_three_gates_that_are_killed_restored_and_change_their_keys() {
    let store = memory();
    let (all, key) = (Arc::new(Mutex::new(HashSet::new())), Arc::new(AtomicU32::new(1)));
    let share = drawn() / 3;
    let gates = (0..3_usize).map(|gate| {
        let (store, all, key) = (Arc::clone(&store), Arc::clone(&all), Arc::clone(&key));
        tokio::spawn(async move {
            let mut now = AT;
            let mut own = lists(&store, 14);
            for number in 0..share {
                now = now.plus(Duration::from_millis(100));
                if number % 3001 == 3000 {
                    // It is killed in the middle of a block, and starts again.
                    own = lists(&store, 14);
                }
                if gate == 0 && number % 10_007 == 10_006 {
                    key.fetch_add(1, Ordering::Relaxed);
                }
                // The older secret is still there, as between promote and retire.
                let current = u8::try_from(key.load(Ordering::Relaxed)).unwrap_or(250);
                let keys = secrets(&[current - 1, current], current);
                let place = own.place(&keys, now, never).await.unwrap();
                assert!(place.index >> 14 == 0);
                assert!(all.lock().insert(place), "{place:?} is given twice");
                if gate == 1 && number % 7919 == 7918 {
                    // A copy of the store is put in its place: it is of a while ago.
                    let copy = store.load_relay(ROW).await.unwrap().unwrap();
                    for _ in 0..2000 {
                        let place = own.place(&keys, now, never).await.unwrap();
                        assert!(all.lock().insert(place), "{place:?} is given twice");
                    }
                    store.remove_relay(ROW, None).await.unwrap();
                    let restored = crate::store::relay::RelayRecord { state: RelayState::Unknown, ..copy };
                    store.insert_relay(ROW, restored, now).await.unwrap();
                }
            }
        })
    });
    for gate in gates.collect::<Vec<_>>() {
        gate.await.unwrap();
    }
    let all = all.lock();
    assert!(all.len() >= share * 3);
    assert!(all.iter().map(|place| place.list).collect::<HashSet<_>>().len() > 2, "several lists were full");
}

#[tokio::test]
async fn s2_a_store_that_lost_writes_gives_a_new_list_and_the_old_one_is_known_still() {
    let (store, keys) = (memory(), secrets(&[1], 1));
    let gate = lists(&store, 14);
    let first = gate.place(&keys, AT, never).await.unwrap();
    let of_then = store.load_relay(ROW).await.unwrap().unwrap();
    let later = AT.plus(Duration::from_secs(3600));
    // The gates found the loss, and adopted the data: whoever asks next gets indices of another list.
    store.remove_relay(ROW, None).await.unwrap();
    store.insert_relay(ROW, of_then, later).await.unwrap();
    let other = lists(&store, 14);
    let second = other.place(&keys, later.plus(Duration::from_secs(1)), || later).await.unwrap();
    assert_ne!(first.list, second.list);
    let numbers: Vec<_> = other.registered.load().iter().map(|list| list.number).collect();
    assert!(numbers.contains(&first.list) && numbers.contains(&second.list), "{numbers:?}");
    // A gate whose block came later than what the store has says so, too.
    let gate_block = gate.place(&keys, later.plus(BLOCK_FOR), || Timestamp::ZERO).await.unwrap();
    assert_eq!(gate_block.list, second.list, "its old list is closed for all");
}

#[tokio::test]
async fn s2_a_register_that_no_gate_wrote_gives_no_index() {
    let (store, keys) = (memory(), secrets(&[1], 1));
    lists(&store, 14).place(&keys, AT, never).await.unwrap();
    let good = store.load_relay(ROW).await.unwrap().unwrap();
    let mut forged = good.clone();
    *forged.sealed.last_mut().unwrap() ^= 1;
    let rolled_back = crate::store::relay::RelayRecord { attempt: good.attempt - 1, ..good.clone() };
    let cut = crate::store::relay::RelayRecord { sealed: good.sealed[..9].to_vec(), ..good.clone() };
    for bad in [forged, rolled_back, cut] {
        store.remove_relay(ROW, None).await.unwrap();
        store.insert_relay(ROW, bad, AT).await.unwrap();
        let error = lists(&store, 14).place(&keys, AT, never).await.unwrap_err();
        assert!(error.is_of_one_record() && error.to_string().contains("register of status lists"), "{error}");
    }
    // The secret was retired while no gate ran: a new list.
    store.remove_relay(ROW, None).await.unwrap();
    store.insert_relay(ROW, good, AT).await.unwrap();
    let new = secrets(&[2], 2);
    assert!(lists(&store, 14).place(&new, AT, never).await.is_ok());
    assert_eq!(lists_of_key(&*store, &new, 2, AT).await.unwrap(), (1, 1));
    assert_eq!(lists_of_key(&*store, &new, 1, AT).await.unwrap(), (0, 0));
}

#[tokio::test]
async fn s2_a_list_outlives_its_sessions_and_then_goes() {
    let (store, keys) = (memory(), secrets(&[1, 2], 1));
    let gate = lists(&store, 14);
    gate.raise_longest(Duration::from_secs(1000));
    let first = gate.place(&keys, AT, never).await.unwrap();
    let closed = AT.plus(Duration::from_secs(1));
    gate.read_register(&keys, closed, || closed).await.unwrap();
    let has = || gate.registered.load().iter().any(|list| list.number == first.list);
    gate.read_register(&keys, closed.plus(BLOCK_FOR + Duration::from_secs(1000)), never).await.unwrap();
    assert!(has(), "a block may be used for a day, and its last session lives for 1000s");
    gate.read_register(&keys, closed.plus(BLOCK_FOR + Duration::from_secs(1000 + 3600)), never).await.unwrap();
    assert!(!has());
}

fn claims_of(text: &[u8]) -> serde_json::Value {
    let payload = std::str::from_utf8(text).unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn s1_s3_s6_gates_with_equal_keys_and_bits_give_equal_bytes() {
    let (store, keyring) = (memory(), Keyring::ephemeral().unwrap());
    let keys = keyring.refresh_keys();
    let gates = [lists(&store, 14), lists(&store, 14)];
    let place = gates[0].place(keys, AT, never).await.unwrap();
    let mut texts = Vec::new();
    for (gate, at) in gates.iter().zip([AT, AT.plus(Duration::from_secs(29))]) {
        gate.read_register(keys, at, never).await.unwrap();
        gate.set(place);
        gate.build("https://gate.test", &keyring, at).unwrap();
        gate.serve_until(at.plus(Duration::from_secs(10)));
        let list = gate.published(place.list, at).unwrap().unwrap();
        assert_eq!(gate.published(place.list.wrapping_add(1), at), Ok(None));
        assert_eq!(gate.published(place.list, at.plus(Duration::from_secs(10))), Err(StaleLists), "S6");
        texts.push((list.text.clone(), list.etag.clone()));
    }
    assert_eq!(texts[0], texts[1]);
    let claims = claims_of(&texts[0].0);
    assert_eq!(claims["sub"], format!("https://gate.test/status/{}", place.list));
    assert_eq!(
        (&claims["iat"], &claims["exp"], &claims["ttl"]),
        (&1_800_000_000.into(), &1_800_000_300.into(), &30.into())
    );
    let bits = inflated(claims["status_list"]["lst"].as_str().unwrap()).unwrap();
    assert_eq!(bits.len(), (1 << 14) / 8);
    let set: Vec<_> = (0..1 << 14).filter(|index| bits[index / 8] >> (index % 8) & 1 == 1).collect();
    assert_eq!(set, [place.index as usize], "LSB first");
    // Without a change, nothing is built within the ttl; then it is.
    let (gate, before) = (&gates[0], gates[0].builds());
    gate.build("https://gate.test", &keyring, AT.plus(Duration::from_secs(1))).unwrap();
    assert_eq!(gate.builds(), before);
    gate.set(StatusPlace { index: place.index ^ 1, ..place });
    gate.build("https://gate.test", &keyring, AT.plus(Duration::from_secs(2))).unwrap();
    assert_eq!(gate.builds(), before + 1);
    gate.build("https://gate.test", &keyring, AT.plus(Duration::from_secs(30))).unwrap();
    assert_eq!(gate.builds(), before + 2);
}
