// What a front-end developer relies on. Arguments: the gate's URL, the password of the user demo.
import assert from 'node:assert/strict';
import { MemoryStore, Session, SessionEnded } from '../../examples/client/session.mjs';

const [gate, password] = process.argv.slice(2);

/** Counts the refreshes, and does what a network does to them. */
function network() {
    const state = { refreshes: [], logouts: 0, after: null, always: null };
    state.fetch = async request => {
        const form = request.method === 'POST' ? new URLSearchParams(await request.clone().text()) : null;
        const isRefresh = form?.get('grant_type') === 'refresh_token';
        if (isRefresh) state.refreshes.push(form.get('refresh_token'));
        const { after } = state;
        if (isRefresh && state.always) return state.always();
        if (isRefresh && after) {
            state.after = null;
            return after(() => fetch(request));
        }
        return fetch(request);
    };
    return state;
}

async function begin(options = {}) {
    const net = network();
    const ends = [];
    const store = new MemoryStore();
    const session = new Session({
        tokenEndpoint: `${gate}/connect/token`, revocationEndpoint: `${gate}/connect/revocation`,
        client: 'web', store, fetch: net.fetch, onEnd: () => ends.push('end'), ...options,
    });
    await session.logIn('demo', password);
    /** As if the access token had expired. */
    const spoil = async () => store.set({ ...await store.get(), access_token: 'spoiled' });
    return { net, ends, store, session, spoil };
}

const status = async (session, path = '/hello') => (await session.fetch(`${gate}${path}`)).status;

async function it(what, run) {
    await run();
    console.log(`ok ${what}`);
}

await it('twenty requests share one refresh', async () => {
    const { net, session, spoil } = await begin();
    await spoil();
    const answers = await Promise.all(Array.from({ length: 20 }, () => status(session)));
    assert.deepEqual(new Set(answers), new Set([200]));
    assert.equal(net.refreshes.length, 1);
});

await it('a lost response is repeated with the same token, and costs no login', async () => {
    const { net, ends, session, spoil } = await begin();
    await spoil();
    net.after = async send => { await send(); throw new TypeError('the connection was lost'); };
    assert.equal(await status(session), 200);
    assert.equal(net.refreshes.length, 2);
    assert.equal(net.refreshes[0], net.refreshes[1]);
    assert.deepEqual(ends, []);
});

await it('a gate that cannot decide is asked again', async () => {
    const { net, session, spoil } = await begin();
    await spoil();
    net.after = async () => new Response('', { status: 503, headers: { 'retry-after': '1' } });
    assert.equal(await status(session), 200);
    assert.equal(net.refreshes.length, 2);
});

await it('an outage that outlasts the attempts costs no login', async () => {
    for (const [code, body] of [[503, ''], [429, '{"error":"slow_down"}'], [403, ''], [404, ''], [400, '{"error":"invalid_client"}'], [200, 'no JSON']]) {
        const { net, ends, store, session, spoil } = await begin();
        await spoil();
        const before = await store.get();
        net.always = async () => new Response(body, { status: code, headers: { 'retry-after': new Date().toUTCString() } });
        await assert.rejects(status(session), error => !(error instanceof SessionEnded));
        assert.deepEqual(await store.get(), before);
        assert.deepEqual(ends, []);
        assert.equal(net.refreshes.length, code === 503 || code === 429 ? 6 : 1);
        net.always = null;
        assert.equal(await status(session), 200);
    }
});

await it('a second tab with the same store does not refresh again', async () => {
    const { net, store, session, spoil } = await begin();
    const other = network();
    const tab = new Session({ ...session, store, fetch: other.fetch });
    await spoil();
    const old = await store.get();
    assert.equal(await status(session), 200);
    const fresh = await store.get();
    // The tab read the store before the first one wrote it.
    let reads = 0;
    tab.store = { get: async () => (reads++ === 0 ? old : store.get()), set: tokens => store.set(tokens) };
    assert.equal(await status(tab), 200);
    assert.deepEqual(await store.get(), fresh);
    assert.equal(net.refreshes.length + other.refreshes.length, 1);
});

await it('after a logout the session is over', async () => {
    const { store, session } = await begin();
    const tokens = await store.get();
    await session.logOut();
    const answer = await fetch(`${gate}/hello`, { headers: { authorization: `Bearer ${tokens.access_token}` } });
    assert.equal(answer.status, 401);
    await assert.rejects(session.fetch(`${gate}/hello`), SessionEnded);
});

await it('a session that ended elsewhere says so once', async () => {
    const { ends, store, session } = await begin();
    const { refresh_token } = await store.get();
    await fetch(`${gate}/connect/revocation`, { method: 'POST', body: new URLSearchParams({ client_id: 'web', token: refresh_token }) });
    const answers = await Promise.allSettled([status(session), status(session)]);
    assert.ok(answers.every(({ status, reason }) => status === 'rejected' && reason instanceof SessionEnded));
    assert.deepEqual(ends, ['end']);
});
