//! C31: a copy from the embedded store and back has the same content.

use super::*;
use rotogate_core::store::conformance::copy::there_and_back;
use rotogate_store_redb::{Options, RedbStore};

#[tokio::test]
async fn c31_a_store_is_copied_to_postgresql_and_back_with_all_that_it_holds() {
    let server = Server::start(&[]);
    let connect = async |copy_of: Option<&'static str>| {
        let options = with(server.options().schema("rg"), |network| network.copying = copy_of.map(str::to_owned));
        PostgresStore::connect(options).await
    };
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, copying: Option<&str>| {
        let options = Options { copying: copying.map(str::to_owned), ..Options::new(ISSUER, KEYRING, LEEWAY) };
        RedbStore::open(folder.path().join(name), options)
    };
    there_and_back(open, connect).await;
}
