// A session at the gate for a browser or mobile app. It refreshes once for all requests under way, sends the same refresh token
// again if a response was lost, and ends only when the gate says so. No packages; `fetch` and `navigator.locks` are the
// platform's.

/** The session is over: the user must log in again. */
export class SessionEnded extends Error {}

/** Tokens in memory: a reload of the page is a new login. A mobile app gives a store over its keychain instead. */
export class MemoryStore {
    #tokens = null;
    async get() { return this.#tokens; }
    async set(tokens) { this.#tokens = tokens; }
}

const ATTEMPTS = 6;
const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

export class Session {
    #refreshing = null;

    /**
     * `tokenEndpoint` and `revocationEndpoint`: the URLs of the gate. `client`: the id of a public client. `onEnd`: the user must
     * log in again.
     */
    constructor({ tokenEndpoint, revocationEndpoint, client, store = new MemoryStore(), onEnd = () => {}, fetch = globalThis.fetch.bind(globalThis) }) {
        Object.assign(this, { tokenEndpoint, revocationEndpoint, client, store, onEnd, send: fetch });
    }

    async logIn(username, password) {
        const answer = await this.#post(this.tokenEndpoint, { grant_type: 'password', username, password });
        if (!answer.ok) throw new Error(await errorOf(answer) ?? `the login is not decided: ${answer.status}`);
        await this.#keep(await answer.json());
    }

    /** `fetch` with the access token. After a 401 it refreshes, and sends the request once more. */
    async fetch(url, options = {}) {
        const tokens = await this.store.get();
        if (!tokens) throw new SessionEnded();
        const request = new Request(url, options);
        const again = request.clone();
        const answer = await this.send(authorized(request, tokens));
        if (answer.status !== 401) return answer;
        return this.send(authorized(again, await this.#refreshed(tokens)));
    }

    /** Ends the session at the gate. Throws if the gate did not confirm that: try again. */
    async logOut() {
        const tokens = await this.store.get();
        if (!tokens) return;
        const answer = await this.#post(this.revocationEndpoint, { token: tokens.refresh_token });
        if (!answer.ok) throw new Error(`the logout is not confirmed: ${answer.status}`);
        await this.store.set(null);
    }

    /** The tokens that follow these. Requests of this page wait for one refresh; other tabs with the same store, too. */
    #refreshed(old) {
        const run = async () => {
            // Another tab may have refreshed meanwhile.
            const tokens = await this.store.get();
            if (!tokens) throw new SessionEnded();
            return tokens.refresh_token === old.refresh_token ? this.#refresh(tokens) : tokens;
        };
        const locked = () => globalThis.navigator?.locks?.request('session-refresh', run) ?? run();
        this.#refreshing ??= Promise.resolve(locked()).finally(() => { this.#refreshing = null; });
        return this.#refreshing;
    }

    async #refresh({ refresh_token }) {
        const answer = await this.#post(this.tokenEndpoint, { grant_type: 'refresh_token', refresh_token });
        if (answer.ok) return this.#keep(await answer.json());
        // Only this answer says that the session is over (RFC 6749 section 5.2). After any other the tokens may still be good.
        const error = await errorOf(answer);
        if (answer.status !== 400 || error !== 'invalid_grant') throw new Error(`the refresh is not decided: ${error ?? answer.status}`);
        await this.store.set(null);
        this.onEnd();
        throw new SessionEnded();
    }

    /** Kept before it is used: a token that is lost after its first use costs a login. */
    async #keep({ access_token, refresh_token }) {
        const tokens = { access_token, refresh_token };
        await this.store.set(tokens);
        return tokens;
    }

    /** Sends a form. Without an answer, and after 429 and 5xx, nothing is decided: the same form is sent again, six times at most. */
    async #post(url, form) {
        for (let attempt = 1; ; attempt += 1) {
            let wait = 250 * 2 ** attempt;
            try {
                const answer = await this.send(new Request(url, { method: 'POST', body: new URLSearchParams({ client_id: this.client, ...form }) }));
                const isUndecided = answer.status === 429 || answer.status >= 500;
                if (!isUndecided || attempt === ATTEMPTS) return answer;
                wait = untilRetry(answer) ?? wait;
            } catch (error) {
                if (attempt === ATTEMPTS) throw error;
            }
            await pause(wait * (1 + Math.random() / 4));
        }
    }
}

/** The code of an error response (RFC 6749 section 5.2); null in an answer that another server gave. */
async function errorOf(answer) {
    return (await answer.json().catch(() => null))?.error ?? null;
}

/** The milliseconds of `Retry-After`: seconds or a date (RFC 9110 section 10.2.3); null without one. */
function untilRetry(answer) {
    const value = answer.headers.get('retry-after');
    const wait = value === null ? NaN : /^\d+$/.test(value) ? 1000 * Number(value) : Date.parse(value) - Date.now();
    return Number.isNaN(wait) ? null : Math.max(0, wait);
}

function authorized(request, { access_token }) {
    request.headers.set('authorization', `Bearer ${access_token}`);
    return request;
}
