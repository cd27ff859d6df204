-- What every script begins with. KEYS: 1 head, 2 revocations, 3 their ends, 4 log. ARGV: 1 history, and the number of
-- writes that the node knows of, 2 op.
-- Only the server's TIME counts. Everything is read before the first write, so that a script that fails wrote nothing.
--
-- Numbers of records are 8 bytes, big-endian, compared as they are: a Lua number has 53 bits only.
local ZERO = string.rep('\0', 8)
local MAX = string.rep('\255', 8)
local HALF = 4294967296
local EXACT = 9007199254740992
local KEPT = 3600000

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function halves(n)
    local a, b, c, d, e, f, g, h = string.byte(n, 1, 8)
    return ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h
end

local function pack(n)
    if n >= EXACT then return MAX end
    return struct.pack('>I4I4', math.floor(n / HALF), n % HALF)
end

-- Rounded above 2^53: for scores and for times to expire at.
local function number(n)
    local high, low = halves(n)
    return high * HALF + low
end

local function later(a, b)
    local ah, al = halves(a)
    local bh, bl = halves(b)
    return ah > bh or (ah == bh and al > bl)
end

local function most(a, b) if later(a, b) then return a end return b end

-- The sum; MAX where it would not fit.
local function plus(n, by)
    local high, low = halves(n)
    low = low + by
    high = high + math.floor(low / HALF)
    if high >= HALF then return MAX end
    return struct.pack('>I4I4', high, low % HALF)
end

local function integer(n) return string.format('%.0f', n) end

local head = redis.call('HMGET', KEYS[1], 'history', 'seq')
local seq = tonumber(head[2] or '0')
local HISTORY = string.sub(ARGV[1], 1, 8)
-- A server that counts fewer writes than a node knows of has lost some.
local right = head[1] == HISTORY and (#ARGV[1] < 16 or seq >= number(string.sub(ARGV[1], 9, 16)))

local function answer(status, ...) return {now, seq, status, ...} end
local function wrote() seq = redis.call('HINCRBY', KEYS[1], 'seq', 1) end

-- What merges and writes entries: `absorb`, `publish`, the effect that ends a session, and `merge`. Each script that needs them asks
-- for them: every call of a script makes its functions anew, which takes longer than what most of them do.
--
-- Effects: kind, then three numbers. M minimum, effective from, before; N moment; G nothing. Kept without the zeros at
-- their end, and E for the effect that ends a session: most entries are of that kind.
local function entries()
    local GONE = 'G' .. ZERO .. ZERO .. ZERO
    local ENDED = 'M' .. MAX .. ZERO .. ZERO

    local function least(a, b) if later(a, b) then return b end return a end

    local function merge(a, b)
        local a_kind, b_kind = string.sub(a, 1, 1), string.sub(b, 1, 1)
        if a_kind == 'G' or b_kind == 'G' then return GONE end
        if a_kind == 'N' and b_kind == 'N' then
            return 'N' .. most(string.sub(a, 2, 9), string.sub(b, 2, 9)) .. ZERO .. ZERO
        end
        if a_kind == 'N' then return b end
        if b_kind == 'N' then return a end
        local a_minimum, b_minimum = string.sub(a, 2, 9), string.sub(b, 2, 9)
        if a_minimum == MAX or b_minimum == MAX then return ENDED end
        local a_from, b_from = string.sub(a, 10, 17), string.sub(b, 10, 17)
        local minimum, from, lower
        if a_minimum == b_minimum then
            minimum, from, lower = a_minimum, least(a_from, b_from), ZERO
        elseif later(a_minimum, b_minimum) then
            minimum, from, lower = a_minimum, a_from, b_minimum
        else
            minimum, from, lower = b_minimum, b_from, a_minimum
        end
        local before = most(string.sub(a, 18, 25), string.sub(b, 18, 25))
        return 'M' .. minimum .. from .. most(before, lower)
    end

    -- The effect of what is kept, and where the rest begins.
    local function read(kept)
        local kind = string.sub(kept, 1, 1)
        if kind == 'E' then return ENDED, 2 end
        if kind == 'G' then return GONE, 2 end
        if kind == 'N' then return string.sub(kept, 1, 9) .. ZERO .. ZERO, 10 end
        if kind == 'M' then return string.sub(kept, 1, 25), 26 end
        -- Of another version: it may end more than this one knows.
        error('an entry of an unknown kind')
    end

    local function shorten(effect)
        local kind = string.sub(effect, 1, 1)
        if effect == ENDED then return 'E' end
        if kind == 'G' then return kind end
        if kind == 'N' then return string.sub(effect, 1, 9) end
        return effect
    end

    -- An entry, merged with the one of its target: effect, until, and whether that differs from what is there. The entry
    -- of a new target merges with itself, which gives equal effects equal bytes.
    local function absorb(target, effect, till)
        local known = redis.call('HGET', KEYS[2], target)
        if not known then return merge(effect, effect), till, true end
        local known_effect, rest = read(known)
        local known_till = string.sub(known, rest, rest + 7)
        local new_effect = merge(known_effect, effect)
        local new_till = most(known_till, till)
        return new_effect, new_till, new_effect ~= known_effect or new_till ~= known_till
    end

    local function publish(target, effect, till)
        local kept = shorten(effect) .. till
        local id = redis.call('XADD', KEYS[4], '*', 'e', '\1' .. ARGV[2] .. kept .. target)
        redis.call('HSET', KEYS[2], target, kept .. id)
        redis.call('ZADD', KEYS[3], integer(number(till)), target)
    end

    return absorb, publish, ENDED, merge
end

-- The moment of the latest not-before among these targets; nil if there is none.
local function not_before(...)
    local latest
    for _, known in ipairs(redis.call('HMGET', KEYS[2], ...)) do
        if known then
            local moment = MAX
            if string.sub(known, 1, 1) == 'N' then moment = string.sub(known, 2, 9) end
            latest = most(moment, latest or ZERO)
        end
    end
    return latest
end

-- Records: version 1, flags 2, revision 3-10, current 11-18, op 19-26, history 27-34, end 35-42, end of the last access
-- token 43-50, digest of subject and client 51-58, length of the subject 59-60, subject, encoded record.
-- Flags: 1 revoked, 2 confirmed, from 4 on the reason of the revocation.
local function readable(record) return string.byte(record, 1) == 1 end
-- A session's record whose fixed part is all there. Another is as unreadable as one of another version.
local function whole(record) return #record >= 60 and readable(record) end
local function revoked(record) return string.byte(record, 2) % 2 == 1 end

local function subject_of(record)
    return string.sub(record, 61, 60 + string.byte(record, 59) * 256 + string.byte(record, 60))
end

-- As one command: a command costs more than what it does here. `before` is the end of the record that is there, if any.
local function store(key, record, till, before)
    local at = number(till) + KEPT
    if till == before then
        redis.call('SET', key, record, 'KEEPTTL')
    elseif at < EXACT then
        redis.call('SET', key, record, 'PXAT', integer(at))
    else
        redis.call('SET', key, record)
    end
end

-- What keeps the subject's index: `index`, `raise_end` and `end_session`.
local function indexes()
    -- Ids by end, and under '#' how many were inserted.
    local function index(key, id, till)
        redis.call('ZADD', key, integer(number(till)), id)
        local top = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
        local at = tonumber(top[2]) + KEPT
        if at < EXACT then redis.call('PEXPIREAT', key, integer(at)) else redis.call('PERSIST', key) end
    end

    local function raise_end(till)
        if later(till, redis.call('HGET', KEYS[1], 'end') or ZERO) then redis.call('HSET', KEYS[1], 'end', till) end
    end

    -- Ends a session, with its record and its place in the index.
    local function end_session(key, id, record, because, index_of)
        local flags = string.byte(record, 2) % 4 + 1 + because * 4
        local revision = plus(string.sub(record, 3, 10), 1)
        local till = string.sub(record, 43, 50)
        store(key, '\1' .. string.char(flags) .. revision .. string.sub(record, 11), till)
        index(index_of .. subject_of(record), id, till)
    end

    return index, raise_end, end_session
end

if not right and not OPENING then return {now, 0, 'history', head[1]} end
