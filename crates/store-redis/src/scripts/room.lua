-- Returns the data from which a bounded insert is decided. KEYS: 5 index of the subject. ARGV: 3 prefix of records,
-- 4 the first bytes of the targets of sessions, then targets. Returns the number of inserts, and two lists: ids,
-- each with its record or '', and its entry or ''; and the entries of the targets, or ''.
local ids = redis.call('ZRANGE', KEYS[5], 0, -1)
local inserts = redis.call('ZSCORE', KEYS[5], '#') or '0'
local sessions, entries_of = {}, {}
for _, id in ipairs(ids) do
    if #id == 16 then
        sessions[#sessions + 1] = id
        sessions[#sessions + 1] = redis.call('GET', ARGV[3] .. id) or ''
        sessions[#sessions + 1] = redis.call('HGET', KEYS[2], ARGV[4] .. id) or ''
    end
end
for i = 5, #ARGV do entries_of[#entries_of + 1] = redis.call('HGET', KEYS[2], ARGV[i]) or '' end
-- A replica, whose data may be outdated, rejects writes.
wrote()
return answer('room', inserts, sessions, entries_of)
