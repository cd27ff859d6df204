-- Writes a record back that was lost. KEYS: 5 record, 6 index of the subject. ARGV: 3 record, 4 created, 5-7 targets of
-- subject, client and all, 8 id, 9 target of the session.
local known = redis.call('GET', KEYS[5])
if known then
    if not readable(known) then return answer('version', string.byte(known, 1)) end
    -- Written since the loss, or not lost.
    if revoked(known) or string.sub(known, 27, 34) == HISTORY or later(string.sub(known, 11, 18), string.sub(ARGV[3], 11, 18))
        or not later(string.sub(ARGV[3], 3, 10), string.sub(known, 3, 10)) then
        return answer('had')
    end
    if string.sub(known, 51, 58) ~= string.sub(ARGV[3], 51, 58) then return answer('moved') end
end
local entry = redis.call('HGET', KEYS[2], ARGV[9])
-- Only a minimum leaves a session that goes on.
if entry and string.sub(entry, 1, 1) ~= 'M' then return answer('had') end
local moment = not_before(ARGV[5], ARGV[6], ARGV[7])
if moment and not later(ARGV[4], moment) then return answer('had') end
local till = string.sub(ARGV[3], 35, 42)
if number(till) + KEPT < now then return answer('had') end

local index, raise_end = indexes()
wrote()
store(KEYS[5], ARGV[3], till)
if not known then redis.call('ZINCRBY', KEYS[6], 1, '#') end
index(KEYS[6], ARGV[8], till)
raise_end(till)
return answer('restored')
