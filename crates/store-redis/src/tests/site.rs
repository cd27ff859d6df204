//! The servers of a test's stores: one server, or a cluster.

use support::redis_cluster::RedisCluster;

use super::*;

/// All data of a server, except the number of writes.
const CONTENT: &str = "local found = {}
local keys = redis.call('KEYS', '*')
table.sort(keys)
for _, key in ipairs(keys) do
    local held = redis.call('DUMP', key)
    if string.sub(key, -2) == ':h' then
        local fields = redis.call('HGETALL', key)
        held = ''
        for i = 1, #fields, 2 do if fields[i] ~= 'seq' then held = held .. fields[i] .. '=' .. fields[i + 1] .. ';' end end
    end
    found[#found + 1] = redis.sha1hex(key .. held .. redis.call('PEXPIRETIME', key))
end
return table.concat(found, ' ')";

pub(super) enum Site {
    One(Server),
    Cluster(RedisCluster),
}

impl Site {
    pub(super) fn one() -> Self {
        Self::One(Server::start(&[]))
    }

    /// A site of each kind.
    pub(super) fn all() -> [Self; 2] {
        [Self::one(), Self::cluster()]
    }

    pub(super) fn port(&self) -> u16 {
        self.servers()[0].port
    }

    pub(super) fn cluster() -> Self {
        Self::Cluster(RedisCluster::start(false, &[]))
    }

    pub(super) fn options(&self) -> RedisOptions {
        match self {
            Self::One(server) => server.options(),
            Self::Cluster(cluster) => options(cluster.nodes[0].port).cluster(),
        }
    }

    pub(super) async fn connect(&self, prefix: &str) -> Arc<RedisStore> {
        Arc::new(RedisStore::connect(self.options().prefix(prefix)).await.unwrap())
    }

    fn servers(&self) -> Vec<&Redis> {
        match self {
            Self::One(server) => vec![&**server],
            Self::Cluster(cluster) => cluster.nodes.iter().collect(),
        }
    }

    pub(super) fn content(&self) -> Vec<String> {
        self.servers().into_iter().map(|server| server.cli(&["EVAL", CONTENT, "0"])).collect()
    }
}
