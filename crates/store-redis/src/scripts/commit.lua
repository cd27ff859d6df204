-- Executes commits in their order. Each commit writes all its parts, or nothing if something differs from its
-- expectations. The node decides what may be written; this script only compares. KEYS: from 5 on, in the order in
-- which the commits use them.
--
-- ARGV: from 3 on, for each commit, the letters of the conditions that it has, followed by the arguments of these
-- conditions:
-- - b: the time until which the commit is accepted; f: a field that the head must have;
-- - h: a time, and three targets that must not have a not-before at or after it;
-- - s: the next key is the index of the relevant sessions, instead of all sessions; e: the latest permitted end of
--   the last session in it; n: the number of inserts that it must have;
-- - r: the time to which the last stamp is raised, and the maximum by which that time may be ahead of now.
-- Then the number of records. For each record, the next key is its key, and the arguments are its expected first
-- bytes, its new value, and flags: 'i' if the following key is its index, 'k' if the name and the history of its
-- last write stay.
-- Then the number of entries. For each entry, the arguments are its target, its expected first bytes, and its new
-- value.
-- Expected first bytes are written after '='. The argument '-' means that the value must not exist. An empty new
-- value means that the value stays unchanged.
--
-- The code is one loop without functions and with few tables, because each function that a script creates costs as
-- much as a command.
local at, key_at, answers = 2, 4, {}

-- Writes even if nothing else is written, because the node makes decisions based on the reply, and a replica, whose
-- data may be outdated, rejects writes.
wrote()
while at < #ARGV do
    at = at + 1
    local by, field, moment, targets, index_key, ends_by, inserts, stamp, ahead
    local letters = ARGV[at]
    for i = 1, #letters do
        local letter = string.sub(letters, i, i)
        at = at + 1
        if letter == 'h' then
            moment, targets, at = ARGV[at], at + 1, at + 3
        elseif letter == 'b' then
            by = ARGV[at]
        elseif letter == 'f' then
            field = ARGV[at]
        elseif letter == 's' then
            key_at, at = key_at + 1, at - 1
            index_key = KEYS[key_at]
        elseif letter == 'e' then
            ends_by = ARGV[at]
        elseif letter == 'n' then
            inserts = ARGV[at]
        elseif letter == 'r' then
            stamp, ahead, at = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), at + 1
        end
    end

    local known, known_entries, held, is_so, answer_of = {}, nil, nil, true, 'done'
    local records, records_at, keys_at = tonumber(ARGV[at + 1]), at + 1, key_at
    at = records_at
    for i = 1, records do
        local begin = ARGV[at + 1]
        local record = redis.call('GET', KEYS[key_at + 1])
        known[i] = record
        if not record then
            is_so = is_so and begin == '-'
        else
            is_so = is_so and '=' .. string.sub(record, 1, #begin - 1) == begin
            if string.sub(record, 19, 26) == ARGV[2] then answer_of = 'repeated' end
        end
        key_at = key_at + (string.sub(ARGV[at + 3], 1, 1) == 'i' and 2 or 1)
        at = at + 3
    end
    local entries, entries_at = tonumber(ARGV[at + 1]), at + 1
    at = entries_at
    if entries > 0 then known_entries = {} end
    for i = 1, entries do
        local begin = ARGV[at + 2]
        local entry = redis.call('HGET', KEYS[2], ARGV[at + 1])
        known_entries[i] = entry
        is_so = is_so and (entry and '=' .. string.sub(entry, 1, #begin - 1) or '-') == begin
        at = at + 3
    end
    if targets then
        held = redis.call('HMGET', KEYS[2], ARGV[targets], ARGV[targets + 1], ARGV[targets + 2])
        for i = 1, 3 do
            local entry = held[i]
            if entry and (string.sub(entry, 1, 1) ~= 'N' or not later(moment, string.sub(entry, 2, 9))) then is_so = false end
        end
    end
    local last = ZERO
    if ends_by or not is_so then
        if index_key then
            local top = redis.call('ZREVRANGE', index_key, 0, 0, 'WITHSCORES')
            if top[1] and top[1] ~= '#' then last = pack(tonumber(top[2])) end
        else
            last = redis.call('HGET', KEYS[1], 'end') or ZERO
        end
        is_so = is_so and not later(last, ends_by)
    end
    if inserts and tonumber(redis.call('ZSCORE', index_key, '#') or '0') ~= tonumber(inserts) then is_so = false end

    if answer_of == 'repeated' then
        answer_of = 'done'
    elseif field and redis.call('HEXISTS', KEYS[1], field) == 0 then
        answer_of = 'whole'
    elseif by and number(by) < now then
        answer_of = 'late'
    elseif not is_so then
        answer_of = {last, known, known_entries or {}, held or {}}
    else
        for i = 1, records do
            local new, how, record = ARGV[records_at + 2], ARGV[records_at + 3], known[i]
            local key, has_index = KEYS[keys_at + 1], string.sub(how, 1, 1) == 'i'
            local index_of = has_index and KEYS[keys_at + 2]
            if new ~= '' then
                if string.sub(how, -1) == 'k' then
                    new = string.sub(new, 1, 18) .. string.sub(record, 19, 34) .. string.sub(new, 35)
                end
                local till, before = string.sub(new, 35, 42), record and string.sub(record, 35, 42)
                store(key, new, till, before)
                if index_of and till ~= before then
                    if not record then
                        redis.call('ZREMRANGEBYSCORE', index_of, '1000000000', '(' .. integer(now - KEPT))
                        redis.call('ZINCRBY', index_of, 1, '#')
                    end
                    -- The index contains ids sorted by end, and the number of inserts under '#'.
                    redis.call('ZADD', index_of, integer(number(till)), string.sub(key, -16))
                    local top = redis.call('ZREVRANGE', index_of, 0, 0, 'WITHSCORES')
                    local ends = tonumber(top[2]) + KEPT
                    if ends < EXACT then
                        redis.call('PEXPIREAT', index_of, integer(ends))
                    else
                        redis.call('PERSIST', index_of)
                    end
                    if later(till, redis.call('HGET', KEYS[1], 'end') or ZERO) then
                        redis.call('HSET', KEYS[1], 'end', till)
                    end
                end
            end
            records_at, keys_at = records_at + 3, keys_at + (has_index and 2 or 1)
        end
        for _ = 1, entries do
            if ARGV[entries_at + 3] ~= '' then publish(ARGV[entries_at + 1], ARGV[entries_at + 3]) end
            entries_at = entries_at + 3
        end
        if stamp and stamp <= now + ahead and stamp > tonumber(redis.call('HGET', KEYS[1], 'stamp') or '0') then
            redis.call('HSET', KEYS[1], 'stamp', integer(stamp))
        end
    end
    answers[#answers + 1] = answer_of
end
return answer('committed', answers)
