//! C34: a request with a cached token, at a gate on a shared store and at a gate on the embedded store.
//! `cargo test --test cost` counts the instructions.

use std::sync::Arc;

use rotogate::gate::{GateService, NewSession};
use rotogate::store::redb::Options;
use rotogate::store::{RedbStore, Store};
use tower::Layer;

use crate::rotation::at_most;
use crate::runtime;
use crate::shared::{ISSUER, KINDS, Keys, LEEWAY, gate};
use crate::support::{Case, Heads, Inner, exchange, interleave, measures};

const TOKENS: usize = 100;
/// The most that a request may cost on the shared store, as a multiple of the cost on the embedded store.
const GOAL: f64 = 1.01;

/// A gate with cached tokens.
fn seen(runtime: &tokio::runtime::Runtime, store: Arc<dyn Store>, keys: &Keys) -> (GateService<Inner>, Heads) {
    let (mut service, tokens) = runtime.block_on(async {
        let gate = gate(store, keys).await;
        let mut tokens = Vec::new();
        for number in 0..TOKENS {
            let new = NewSession::new(format!("user-{number}"), "web").scope("read write").unwrap();
            tokens.push(gate.sessions().start(new).await.unwrap().access_token.expose().to_owned());
        }
        (gate.layer().layer(Inner), tokens)
    });
    let mut heads = Heads::new(tokens.iter().map(String::as_str));
    (0..10 * TOKENS).for_each(|_| exchange(&mut service, heads.request()));
    (service, heads)
}

pub(crate) fn run() {
    for kind in KINDS {
        let runtime = runtime();
        let (server, keys) = ((kind.start)(), Keys::new());
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = Options::new(ISSUER, keys.load().id(), LEEWAY);
        let redb = RedbStore::open(folder.path().join("rotogate.redb"), options).unwrap();
        let (mut embedded, mut heads) = seen(&runtime, Arc::new(redb), &keys);
        let (mut shared, mut more_heads) = seen(&runtime, server.connect(&runtime, &keys), &keys);
        let cases = vec![
            Case::new("redb", move || exchange(&mut embedded, heads.request())),
            Case::new(kind.name, move || exchange(&mut shared, more_heads.request())),
        ];
        let measured = interleave(cases, if measures() { 201 } else { 1 });
        measured.print("a cached request through the layer, CPU time", "redb");
        at_most("CPU of a cached request, x that on redb", measured.ratio(kind.name, "redb"), GOAL);
    }
}
