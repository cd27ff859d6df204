-- KEYS: 5 record, 6 index of the subject, then records: those that stay, and those that give way.
-- ARGV: 3 record, 4 created, 5-7 targets of subject, client and all, 8 id, 9 bounded: number of inserts of the subject, or '',
-- 10 leeway, 11 reason, 12 prefix of indexes, 13 how many stay, then id, revision and target of each that gives way.
local stay = tonumber(ARGV[13])

local function inserted()
    local found = {}
    for i = 14, #ARGV, 3 do
        local entry = redis.call('HGET', KEYS[2], ARGV[i + 2])
        found[#found + 1] = entry or ''
    end
    return answer('inserted', found)
end

local known = redis.call('GET', KEYS[5])
if known then
    if string.sub(known, 19, 26) == ARGV[2] then return inserted() end
    return answer('exists')
end
-- What may have revoked it is swept an hour after it ended.
if number(ARGV[4]) + KEPT < now then return answer('old') end
local moment = not_before(ARGV[5], ARGV[6], ARGV[7])
if moment and not later(ARGV[4], moment) then return answer('late', moment) end

local ends = {}
local index, raise_end, end_session = indexes()
local publish
if ARGV[9] ~= '' then
    if tonumber(redis.call('ZSCORE', KEYS[6], '#') or '0') ~= tonumber(ARGV[9]) then return answer('again') end
    for i = 7, 6 + stay do
        local record = redis.call('GET', KEYS[i])
        if not record or not whole(record) or revoked(record) then return answer('again') end
    end
    local absorb, ENDED
    absorb, publish, ENDED = entries()
    for i = 14, #ARGV, 3 do
        local key = KEYS[7 + stay + (i - 14) / 3]
        local record = redis.call('GET', key)
        if not record or not whole(record) or revoked(record) or string.sub(record, 3, 10) ~= ARGV[i + 1] then
            return answer('again')
        end
        local till = plus(string.sub(record, 43, 50), tonumber(ARGV[10]))
        local effect, merged, changed = absorb(ARGV[i + 2], ENDED, till)
        ends[#ends + 1] = {key, ARGV[i], record, ARGV[i + 2], effect, merged, changed}
    end
end

wrote()
for _, one in ipairs(ends) do
    end_session(one[1], one[2], one[3], tonumber(ARGV[11]), ARGV[12])
    if one[7] then publish(one[4], one[5], one[6]) end
end
local till = string.sub(ARGV[3], 35, 42)
store(KEYS[5], ARGV[3], till)
redis.call('ZREMRANGEBYSCORE', KEYS[6], '1000000000', '(' .. integer(now - KEPT))
redis.call('ZINCRBY', KEYS[6], 1, '#')
index(KEYS[6], ARGV[8], till)
raise_end(till)
return inserted()
