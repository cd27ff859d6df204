-- The common first part of every script. KEYS: 1 head, 2 revocations, 3 their ends, 4 log. ARGV: 1 the history, and
-- the number of writes that the node knows of, 2 op.
-- All times come from the server's TIME. Everything is read before the first write, so that a script that fails has
-- written only the number of writes.
--
-- The numbers in records are 8 big-endian bytes and are compared as bytes, because a Lua number has only 53 bits.
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

-- Rounds numbers above 2^53. Used for scores and expiry times.
local function number(n)
    local high, low = halves(n)
    return high * HALF + low
end

local function later(a, b)
    local ah, al = halves(a)
    local bh, bl = halves(b)
    return ah > bh or (ah == bh and al > bl)
end

local function integer(n) return string.format('%.0f', n) end

local head = redis.call('HMGET', KEYS[1], 'history', 'seq')
local seq = tonumber(head[2] or '0')
local HISTORY = string.sub(ARGV[1], 1, 8)
-- A server that reports fewer writes than a node knows of has lost some.
local right = head[1] == HISTORY and (#ARGV[1] < 16 or seq >= number(string.sub(ARGV[1], 9, 16)))

local function answer(status, ...) return {now, seq, status, ...} end
local function wrote() seq = redis.call('HINCRBY', KEYS[1], 'seq', 1) end

-- Effects: the kind, followed by three numbers. M: minimum, effective from, before; N: time; G: no numbers. Effects
-- are stored without their trailing zeros. E stands for the effect that ends a session, because most entries are of
-- that kind. The end of the entry and its position in the log follow.
local function publish(target, kept)
    local id = redis.call('XADD', KEYS[4], '*', 'e', '\1' .. ARGV[2] .. kept .. target)
    redis.call('HSET', KEYS[2], target, kept .. id)
    redis.call('ZADD', KEYS[3], integer(number(string.sub(kept, -8))), target)
end

-- Records of sessions: version 1, whether it is revoked 2, revision 3-10, digest of subject and client 11-18, op
-- 19-26, history 27-34, end 35-42, encoded record. A node compares the first 18 bytes with those that it read.
local function readable(record) return string.byte(record, 1) == 1 end

-- A single command, because a command costs more than what it does here. `before` is the end of the stored record,
-- if any.
local function store(key, record, till, before)
    if till == before then
        redis.call('SET', key, record, 'KEEPTTL')
        return
    end
    local at = number(till) + KEPT
    if at < EXACT then
        redis.call('SET', key, record, 'PXAT', integer(at))
    else
        redis.call('SET', key, record)
    end
end

if not right and not OPENING then return {now, 0, 'history', head[1]} end
