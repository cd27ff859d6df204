-- KEYS: 5 record, 6 index of the subject. ARGV: 3 expected revision, 4 record, 5 created, 6-8 targets of subject, client
-- and all, 9 id, and of an entry 10 target, 11 effect, 12 until.
local known = redis.call('GET', KEYS[5])
if not known then return answer('changed', '') end
if not whole(known) then return answer('version', string.byte(known, 1) or 0) end
if string.sub(known, 19, 26) == ARGV[2] then return answer('swapped') end
if revoked(known) or string.sub(known, 3, 10) ~= ARGV[3] then
    -- The node decides by this record as by one that it reads. A replica may be behind, and takes no write.
    wrote()
    return answer('changed', known)
end
if string.sub(known, 51, 58) ~= string.sub(ARGV[4], 51, 58) then return answer('moved') end
local moment = not_before(ARGV[6], ARGV[7], ARGV[8])
if moment and not later(ARGV[5], moment) then return answer('late') end
local effect, merged, changed
local publish
if ARGV[10] then
    local absorb
    absorb, publish = entries()
    effect, merged, changed = absorb(ARGV[10], ARGV[11], ARGV[12])
end

wrote()
local till, before = string.sub(ARGV[4], 35, 42), string.sub(known, 35, 42)
store(KEYS[5], ARGV[4], till, before)
if till ~= before then
    local index, raise_end = indexes()
    index(KEYS[6], ARGV[9], till)
    raise_end(till)
end
if changed then publish(ARGV[10], effect, merged) end
return answer('swapped')
