-- Carries out commits, one after the other: each writes everything that it has, or nothing if something is not as it expects.
-- What may be written is decided by the node. Here is only compared. KEYS: from 5 on, as the commits name them by number.
--
-- ARGV: from 3 on, for each commit:
--   until when it may come, or ''; a field that the head must have, or '';
--   a moment, and how many targets have no not-before at or after it, then these targets;
--   the key of an index or 0 for all sessions, when the last one there ends at the latest or '', how many were inserted or '';
--   how many records, and for each: its key, the key of its index or 0, its id, what it begins with, what it becomes, and '1'
--     if the name and the history of its last write stay;
--   how many entries, and for each: its target, what it begins with, what it becomes;
--   how far the last stamp is raised or '', and how far ahead of now that may be.
-- What a record or an entry begins with is behind a '='; there must be none if it is '-'. It becomes nothing new if that is ''.
local at = 2
local function take()
    at = at + 1
    return ARGV[at]
end

-- Whether there is no not-before among these targets at or after a moment.
local function is_after(moment, found)
    for _, known in ipairs(found) do
        if known and (string.sub(known, 1, 1) ~= 'N' or not later(moment, string.sub(known, 2, 9))) then return false end
    end
    return true
end

local function is_as(known, expected)
    if not known then return expected == '-' end
    return string.sub(expected, 1, 1) == '=' and string.sub(known, 1, #expected - 1) == string.sub(expected, 2)
end

-- Ids by end, and under '#' how many were inserted.
local function index(key, id, till)
    redis.call('ZADD', key, integer(number(till)), id)
    local top = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
    local ends = tonumber(top[2]) + KEPT
    if ends < EXACT then redis.call('PEXPIREAT', key, integer(ends)) else redis.call('PERSIST', key) end
end

local function write_record(key, index_key, id, known, new)
    local till, before = string.sub(new, 35, 42), known and string.sub(known, 35, 42)
    store(key, new, till, before)
    if not index_key or till == before then return end
    if not known then
        redis.call('ZREMRANGEBYSCORE', index_key, '1000000000', '(' .. integer(now - KEPT))
        redis.call('ZINCRBY', index_key, 1, '#')
    end
    index(index_key, id, till)
    if later(till, redis.call('HGET', KEYS[1], 'end') or ZERO) then redis.call('HSET', KEYS[1], 'end', till) end
end

local function commit()
    local by, field, moment = take(), take(), take()
    local targets, records, entries = {}, {}, {}
    for i = 1, tonumber(take()) do targets[i] = take() end
    local index_key, ends_by, inserts = KEYS[tonumber(take())], take(), take()
    for i = 1, tonumber(take()) do records[i] = {take(), take(), take(), take(), take(), take()} end
    for i = 1, tonumber(take()) do entries[i] = {take(), take(), take()} end
    local stamp, ahead = take(), take()

    local known, known_entries, held, is_so = {}, {}, {}, true
    for i, record in ipairs(records) do
        known[i] = redis.call('GET', KEYS[tonumber(record[1])])
        -- It was sent again.
        if known[i] and string.sub(known[i], 19, 26) == ARGV[2] then return {'done'} end
        is_so = is_so and is_as(known[i], record[4])
    end
    if field ~= '' and redis.call('HEXISTS', KEYS[1], field) == 0 then return {'whole'} end
    if by ~= '' and number(by) < now then return {'late'} end
    for i, entry in ipairs(entries) do
        known_entries[i] = redis.call('HGET', KEYS[2], entry[1])
        is_so = is_so and is_as(known_entries[i], entry[2])
    end
    if #targets > 0 then
        held = redis.call('HMGET', KEYS[2], unpack(targets))
        is_so = is_so and is_after(moment, held)
    end
    local last = ZERO
    if ends_by ~= '' or not is_so then
        if index_key then
            local top = redis.call('ZREVRANGE', index_key, 0, 0, 'WITHSCORES')
            if top[1] and top[1] ~= '#' then last = pack(tonumber(top[2])) end
        else
            last = redis.call('HGET', KEYS[1], 'end') or ZERO
        end
        is_so = is_so and not later(last, ends_by)
    end
    if inserts ~= '' then
        is_so = is_so and tonumber(redis.call('ZSCORE', index_key, '#') or '0') == tonumber(inserts)
    end
    if not is_so then return {'changed', last, known, known_entries, held} end

    for i, record in ipairs(records) do
        local new = record[5]
        if record[6] == '1' then new = string.sub(new, 1, 18) .. string.sub(known[i], 19, 34) .. string.sub(new, 35) end
        if new ~= '' then write_record(KEYS[tonumber(record[1])], KEYS[tonumber(record[2])], record[3], known[i], new) end
    end
    for _, entry in ipairs(entries) do
        if entry[3] ~= '' then publish(entry[1], entry[3]) end
    end
    if stamp ~= '' and tonumber(stamp) <= now + tonumber(ahead)
        and tonumber(stamp) > tonumber(redis.call('HGET', KEYS[1], 'stamp') or '0') then
        redis.call('HSET', KEYS[1], 'stamp', stamp)
    end
    return {'done'}
end

-- Also if nothing follows: the node decides by the answer, and a replica, which may be behind, takes no write.
wrote()
local done = {}
while at < #ARGV do done[#done + 1] = commit() end
return answer('committed', done)
