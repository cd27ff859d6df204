-- KEYS: 5 the record of a session, or the index of a subject. ARGV: 3 target, 4 effect, 5 until, 6 leeway, 7 what the
-- target reaches: `session`, `subject`, `all` or `none`, 8 reason, 9 whether it ends the session, 10 prefix of indexes,
-- 11 id of the session.
local leeway = tonumber(ARGV[6])
local reach, record, unreadable = ZERO, nil, 0
if ARGV[7] == 'session' then
    local known = redis.call('GET', KEYS[5])
    if known and not whole(known) then
        -- It cannot be marked. Its entry outlives it instead.
        reach, unreadable = redis.call('HGET', KEYS[1], 'end') or ZERO, 1
    elseif known then
        reach = string.sub(known, 43, 50)
        if ARGV[9] == '1' then
            if not revoked(known) then
                record = known
            elseif redis.call('HEXISTS', KEYS[2], ARGV[3]) == 0 then
                -- Its entry was written with its end. If the entry is gone, so is everything that it could match.
                return answer('merged', ARGV[4], ARGV[5], 0)
            end
        end
    end
elseif ARGV[7] == 'subject' then
    local top = redis.call('ZREVRANGE', KEYS[5], 0, 0, 'WITHSCORES')
    if top[1] and top[1] ~= '#' then reach = pack(tonumber(top[2])) end
elseif ARGV[7] == 'all' then
    reach = redis.call('HGET', KEYS[1], 'end') or ZERO
end
if record then
    -- While its slot moves, a key that is gone already fails the script: here, not after the first write.
    redis.call('EXISTS', ARGV[10] .. subject_of(record))
end
local absorb, publish = entries()
local effect, till, changed = absorb(ARGV[3], ARGV[4], most(ARGV[5], plus(reach, leeway)))
local stamp
if string.sub(effect, 1, 1) == 'N' then
    local moment = number(string.sub(effect, 2, 9))
    local last = tonumber(redis.call('HGET', KEYS[1], 'stamp') or '0')
    -- What begins from now on begins after it. A moment far ahead must not stop every login.
    if moment >= last and moment <= now + leeway then stamp = moment + 1 end
end

if changed or record or stamp then wrote() end
if stamp then redis.call('HSET', KEYS[1], 'stamp', integer(stamp)) end
if changed then publish(ARGV[3], effect, till) end
if record then
    local _, _, end_session = indexes()
    end_session(KEYS[5], ARGV[11], record, tonumber(ARGV[8]), ARGV[10])
end
return answer('merged', effect, till, unreadable)
