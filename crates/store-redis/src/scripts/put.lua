-- KEYS: 5 record, 6 index of the subject. ARGV: 3 record, 4 id. A record of another store takes the place of what is there,
-- unless that is later.
if redis.call('HEXISTS', KEYS[1], 'copying') == 0 then return answer('whole') end
local known = redis.call('GET', KEYS[5])
local function is_later(a, b)
    if revoked(a) ~= revoked(b) then return revoked(a) end
    local a_current, b_current = string.sub(a, 11, 18), string.sub(b, 11, 18)
    if a_current ~= b_current then return later(a_current, b_current) end
    return later(string.sub(a, 3, 10), string.sub(b, 3, 10))
end
-- A write in any case: its reply is kept as one.
wrote()
if known and whole(known) and is_later(known, ARGV[3]) then return answer('put') end
local till = string.sub(ARGV[3], 35, 42)
local index, raise_end = indexes()
store(KEYS[5], ARGV[3], till)
if not known then redis.call('ZINCRBY', KEYS[6], 1, '#') end
index(KEYS[6], ARGV[4], till)
raise_end(till)
return answer('put')
