//! C31: a copy from the embedded store and back has the same content.

use super::site::Site;
use super::*;
use rotogate_core::store::conformance::copy::there_and_back;
use rotogate_store_redb::{Options, RedbStore};

async fn copied_there_and_back(site: &Site) {
    let connect = async |copy_of: Option<&'static str>| {
        let options = with(site.options().prefix("rg"), |network| network.copying = copy_of.map(str::to_owned));
        RedisStore::connect(options).await
    };
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, copying: Option<&str>| {
        let options = Options { copying: copying.map(str::to_owned), ..Options::new(ISSUER, KEYRING, LEEWAY) };
        RedbStore::open(folder.path().join(name), options)
    };
    there_and_back(open, connect).await;
}

#[tokio::test]
async fn c31_a_store_is_copied_to_redis_and_back_with_all_that_it_holds() {
    copied_there_and_back(&Site::One(Server::start(&[]))).await;
}

#[tokio::test]
async fn c31_a_store_is_copied_to_a_cluster_and_back_with_all_that_it_holds() {
    copied_there_and_back(&Site::cluster()).await;
}
