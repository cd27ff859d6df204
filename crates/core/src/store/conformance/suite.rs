//! The tests that all shared stores run.

/// Writes the tests for a module.
///
/// The module must have the types `Site` and `Server`, which start servers. Its functions `through`, `connect_with`,
/// `move_writes`, `revoke_as` and `count_as` access private parts of the store.
#[macro_export]
macro_rules! shared_store_suite {
    () => {
        use std::path::Path;
        use std::sync::atomic::{AtomicU32, Ordering};

        use rotogate_store_redb::{Options, RedbStore};
        use support::figure::print_time;
        use support::proxy::Proxy;
        use tokio::time::Instant;
        use $crate::clock::TimeSource;
        use $crate::store::agreement;
        use $crate::store::conformance::copy::there_and_back;
        use $crate::store::conformance::server::{follow, next_proof};
        use $crate::store::conformance::{gone, insert, later, minimum, not_before, rotated, session, start, subject};

        #[tokio::test]
        async fn c3_operations_do_what_the_rules_say() {
            for (site, seeds) in Site::all().iter().zip([1..=4, 5..=8]) {
                for seed in seeds {
                    agreement::agrees_with_the_rules(&*site.connect(&format!("t{seed}")).await, seed, 2500).await;
                }
            }
        }

        /// A node does not always know another node's latest write.
        #[tokio::test]
        async fn c3_an_entry_and_a_record_that_another_node_has_changed_since_are_decided_over_anew() {
            let site = Site::one();
            agreement::decides_anew([site.connect("rg").await, site.connect("rg").await]).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn c3_a_not_before_of_all_comes_through_while_sessions_begin_and_outlives_them() {
            let site = Site::one();
            agreement::outlives_what_begins([site.connect("rg").await, site.connect("rg").await]).await;
        }

        /// Inserts at different nodes are not serialised.
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn c1_however_many_sessions_begin_at_two_nodes_no_more_live_than_may() {
            let site = Site::one();
            conformance::races::no_more_live_than_may(&[site.connect("rg").await, site.connect("rg").await]).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn c1_nodes_on_one_store_pass_the_conformance_suite() {
            let (site, next) = (Site::one(), AtomicU32::new(0));
            conformance::run_shared(async || {
                let name = format!("t{}", next.fetch_add(1, Ordering::Relaxed));
                [site.connect(&name).await, site.connect(&name).await]
            })
            .await;
        }

        #[tokio::test]
        async fn c37_what_one_node_wrote_back_keeps_out_nothing_later() {
            let site = Site::one();
            let pair = async |name: &str| [site.connect(name).await, site.connect(name).await];
            conformance::loss::c37_of_two_nodes_that_write_a_session_back_the_later_record_stays(pair("one").await).await;
            conformance::loss::c38_a_node_learns_how_many_records_were_missing(pair("two").await).await;
        }

        #[tokio::test]
        async fn c8_the_clock_is_read_before_the_beat_is_sent() {
            let site = Site::one();
            let time = Arc::new(conformance::server::Readings::default());
            let clock = Arc::clone(&time);
            let proxy = Proxy::timed(site.port(), Arc::new(move || clock.monotonic())).await;
            let store = through(&proxy).await;
            conformance::server::c8_the_clock_is_read_before_the_beat(&store, time, || proxy.passed()).await;
        }

        #[tokio::test]
        async fn c8_a_step_is_complete_once_everything_up_to_the_beat_was_read() {
            let site = Site::one();
            conformance::server::c8_a_step_is_complete_once_all_was_read(&*site.connect("rg").await).await;
        }

        #[tokio::test]
        async fn c4_what_begins_after_a_not_before_was_acknowledged_is_later_than_it() {
            let site = Site::one();
            let nodes = [site.connect("rg").await, site.connect("rg").await];
            conformance::server::c4_what_begins_after_a_not_before_is_later(nodes).await;
        }

        #[tokio::test]
        async fn c13_connections_that_died_silently_are_given_up_in_time() {
            let site = Site::one();
            let proxy = Proxy::to(site.port()).await;
            let store = through(&proxy).await;
            let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
            next_proof(&mut *feed).await;
            proxy.silence();
            let asked = Instant::now();
            insert(&store, &session("alice", 1, start())).await;
            print_time("C13 a write after its connection died silently", asked.elapsed(), LATEST);
            proxy.silence();
            let asked = Instant::now();
            next_proof(&mut *feed).await;
            print_time("C13 a proof after the connections died silently", asked.elapsed(), LATEST);
        }

        #[tokio::test]
        async fn a_server_that_is_away_is_an_error_in_time_and_nothing_was_written() {
            let mut server = Server::start(&[]);
            let store = server.connect("rg").await;
            let took = conformance::server::a_server_that_is_away_is_an_error(store, || server.kill()).await;
            print_time("C11 an answer without the server", took, LATEST);
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn a_crash_of_the_server_loses_nothing_that_was_acknowledged() {
            let mut server = Server::start(DURABLE);
            let store = server.connect("rg").await;
            conformance::server::a_crash_loses_nothing_that_was_acknowledged(store, || {
                server.kill();
                server.start_again();
            })
            .await;
        }

        #[tokio::test]
        async fn c18_a_store_that_was_set_back_while_no_gate_ran_is_refused_however_often_one_starts() {
            for site in Site::all() {
                let folder = tempfile::tempdir().unwrap();
                let mark = folder.path().join("store.mark");
                let (store, left) = set_back(&site, &mark).await;
                drop(store);
                for _ in 0..3 {
                    let refused = connect_marked(&site, &mark, false).await.unwrap_err();
                    assert_eq!(refused.outcome(), WriteOutcome::Refused);
                    assert!(refused.to_string().contains(&format!("the store is only at commit {left}")), "{refused}");
                }
                drop(connect_marked(&site, &mark, true).await.unwrap());
                connect_marked(&site, &mark, false).await.unwrap();
            }
        }

        #[tokio::test]
        async fn k35_a_store_that_lacks_the_revocation_of_a_key_is_refused() {
            for site in Site::all() {
                let folder = tempfile::tempdir().unwrap();
                let mark = folder.path().join("store.mark");
                let store = connect_marked(&site, &mark, false).await.unwrap();
                let target = Target::Token { issuer: ISSUER.into(), jti: "a-key".into() };
                let effect = $crate::revocation::Effect::Gone;
                let entry = Revocation { target, effect, until: later(start(), 600_000) };
                store.revoke(entry, RevokedBecause::Operator).await.unwrap();
                move_writes(&site, &store, -1).await;
                drop(store);
                let refused = connect_marked(&site, &mark, false).await.unwrap_err();
                assert!(refused.to_string().contains("accept-restored"), "{refused}");
            }
        }

        #[tokio::test]
        async fn c15_a_loss_that_a_gate_noticed_keeps_no_later_start_from_the_store() {
            for site in Site::all() {
                let folder = tempfile::tempdir().unwrap();
                let mark = folder.path().join("store.mark");
                let (store, _) = set_back(&site, &mark).await;
                store.adopt().await.unwrap();
                connect_marked(&site, &mark, false).await.unwrap();
            }
        }

        #[tokio::test]
        async fn c31_a_store_is_copied_there_and_back_with_all_that_it_holds() {
            for site in Site::all() {
                let connect = async |copy_of: Option<&'static str>| {
                    connect_with(&site, |network| network.copying = copy_of.map(str::to_owned)).await
                };
                let folder = tempfile::tempdir().unwrap();
                let open = |name: &str, copying: Option<&str>| {
                    let options = Options { copying: copying.map(str::to_owned), ..Options::new(ISSUER, KEYRING, LEEWAY) };
                    RedbStore::open(folder.path().join(name), options)
                };
                there_and_back(open, connect).await;
            }
        }

        /// Sets the mark 500 writes ahead of the store.
        pub(super) async fn set_back(site: &Site, mark: &Path) -> (Shared, u64) {
            let store = connect_marked(site, mark, false).await.unwrap();
            move_writes(site, &store, 1000).await;
            store.sweep(Timestamp::ZERO).await.unwrap();
            let left = move_writes(site, &store, -500).await;
            (store, left)
        }

        async fn connect_marked(site: &Site, mark: &Path, accept_restored: bool) -> Result<Shared, StoreError> {
            connect_with(site, |network| {
                network.high_water = Some(mark.into());
                network.accept_restored = accept_restored;
            })
            .await
        }

        #[tokio::test]
        async fn c2_a_swap_that_is_sent_again_changes_nothing_more() {
            for site in Site::all() {
                let store = site.connect("rg").await;
                let begun = session("alice", 1, start());
                insert(&*store, &begun).await;
                let next = rotated(&begun, later(start(), 5));
                let entry = minimum(begun.id, 2, later(start(), 600_000));
                let op = new_op().unwrap();
                assert_eq!(store.0.swap(op, 1, &next, Some(&entry)).await.unwrap(), Swap::Swapped);
                let before = site.content();
                assert_eq!(store.0.swap(op, 1, &next, Some(&entry)).await.unwrap(), Swap::Swapped);
                assert_eq!(site.content(), before);
                // The repeated swap must still report success after other nodes' writes.
                store.confirm(vec![(begun.id, next.current)]).await.unwrap();
                store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
                let before = site.content();
                assert_eq!(store.0.swap(op, 1, &next, Some(&entry)).await.unwrap(), Swap::Swapped);
                assert_eq!(site.content(), before);
                let other = session("bob", 2, start());
                insert(&*store, &other).await;
                let first = rotated(&other, later(start(), 5));
                let second = rotated(&first, later(start(), 6));
                assert_eq!(store.0.swap(op, 1, &first, None).await.unwrap(), Swap::Swapped);
                assert_eq!(store.compare_and_swap(2, second.clone(), None).await.unwrap(), Swap::Swapped);
                let before = site.content();
                assert_eq!(store.0.swap(op, 1, &first, None).await.unwrap(), Swap::Changed(Some(Box::new(second))));
                assert_eq!(site.content(), before);
            }
        }

        #[tokio::test]
        async fn c2_an_insert_that_is_sent_again_changes_nothing_more_and_says_who_gave_way() {
            let site = Site::one();
            let store = site.connect("rg").await;
            let bound = SubjectBound { most: 1, idle_ttl: Duration::from_secs(60), ends_oldest: true };
            let first = session("alice", 1, start());
            insert(&*store, &first).await;
            let second = session("alice", 2, later(start(), 1));
            let room = store.0.room_for(&second, bound).await.unwrap().unwrap();
            let op = new_op().unwrap();
            let done = store.0.insert_as(op, &second, &room).await.unwrap().unwrap();
            assert!(matches!(&done, Inserted::Inserted(ended) if ended.len() == 1), "{done:?}");
            let before = site.content();
            assert_eq!(store.0.insert_as(op, &second, &room).await.unwrap(), Some(done.clone()));
            assert_eq!(site.content(), before);
            store.revoke(gone(second.id), RevokedBecause::Logout).await.unwrap();
            let before = site.content();
            assert_eq!(store.0.insert_as(op, &second, &room).await.unwrap(), Some(done));
            assert_eq!(site.content(), before);
            // With a new write id, the insert is not a repetition, so it fails because the session exists.
            let error = store.0.insert_as(new_op().unwrap(), &second, &room).await.unwrap_err();
            assert_eq!(error.outcome(), WriteOutcome::Refused);
            let third = session("alice", 3, later(start(), 2));
            assert_eq!(store.0.insert_as(new_op().unwrap(), &third, &room).await.unwrap(), None);
            assert_eq!(site.content(), before);
        }

        #[tokio::test]
        async fn c2_a_revocation_and_a_confirmation_that_are_sent_again_change_nothing_more() {
            for site in Site::all() {
                let store = site.connect("rg").await;
                let begun = session("alice", 1, start());
                insert(&*store, &begun).await;
                store.confirm(vec![(begun.id, Generation::FIRST)]).await.unwrap();
                let before = site.content();
                store.confirm(vec![(begun.id, Generation::FIRST)]).await.unwrap();
                assert_eq!(site.content(), before);
                let op = new_op().unwrap();
                let moment = store.stamp_not_before().await.unwrap();
                for entry in [gone(begun.id), not_before(subject("alice"), moment), not_before(Target::Global, start())] {
                    let merged = revoke_as(&store, op, entry.clone()).await.unwrap();
                    let before = site.content();
                    assert_eq!(revoke_as(&store, op, entry.clone()).await.unwrap(), merged);
                    assert_eq!(site.content(), before);
                }
                let later_one = not_before(subject("alice"), later(moment, 5));
                let merged = store.revoke(later_one, RevokedBecause::Logout).await.unwrap();
                let before = site.content();
                let repeated = revoke_as(&store, op, not_before(subject("alice"), moment)).await.unwrap();
                assert_eq!(repeated, merged);
                assert_eq!(site.content(), before);
            }
        }

        #[tokio::test]
        async fn c2_rows_that_are_sent_again_change_nothing_more() {
            use $crate::store::conformance::rows::{SPACE, first, key, second};
            use $crate::store::rows::{Row, RowInserted, RowStore, RowSwapped, RowVersion};
            for site in Site::all() {
                let store = site.connect("rg").await;
                let (old, new) = (first(start()), second(later(start(), 5)));
                let insert = |row: &Row| store.insert_row(SPACE, key(1), row.clone(), start());
                let swap = |row: &Row| store.swap_row(SPACE, key(1), old.version, row.clone(), start());
                assert_eq!(insert(&old).await.unwrap(), RowInserted::Inserted);
                let before = site.content();
                assert_eq!(insert(&old).await.unwrap(), RowInserted::Inserted);
                assert_eq!(site.content(), before);
                assert_eq!(swap(&new).await.unwrap(), RowSwapped::Swapped);
                let before = site.content();
                assert_eq!(swap(&new).await.unwrap(), RowSwapped::Swapped);
                let other = Row { version: RowVersion([9; 16]), ..old.clone() };
                assert_eq!(insert(&other).await.unwrap(), RowInserted::Present(Box::new(new.clone())));
                assert_eq!(site.content(), before);
            }
        }

        #[tokio::test]
        async fn c2_an_attempt_that_is_sent_again_counts_once() {
            for site in Site::all() {
                let store = site.connect("rg").await;
                let ten = SharedCounter { name: [1; 16], every: Duration::from_secs(3600), burst: 10 };
                for how in [CounterUse::Take, CounterUse::Charge, CounterUse::GiveBack] {
                    let op = new_op().unwrap();
                    assert_eq!(count_as(&store, op, ten, how).await.unwrap(), None);
                    let before = site.content();
                    assert_eq!(count_as(&store, op, ten, how).await.unwrap(), None);
                    assert_eq!(site.content(), before);
                }
                let mut left = 0;
                while store.count(ten, CounterUse::Take).await.unwrap().is_none() {
                    left += 1;
                }
                assert_eq!(left, 9, "one was taken, one charged, one given back");
                let stamp = store.stamp_change([2; 16], [3; 16]).await.unwrap();
                let before = site.content();
                assert_eq!(store.stamp_change([2; 16], [3; 16]).await.unwrap(), stamp);
                assert_eq!(site.content(), before);
            }
        }
    };
}
