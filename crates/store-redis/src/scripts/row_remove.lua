-- KEYS: 5 row, 6 ends. ARGV: 3 expected version, or '' for any, 4 key.
local known = redis.call('GET', KEYS[5])
if not known then return answer('removed', 0) end
if not readable(known) then return answer('version', string.byte(known, 1)) end
if ARGV[3] ~= '' and string.sub(known, 2, 17) ~= ARGV[3] then return answer('removed', 0) end
wrote()
redis.call('DEL', KEYS[5])
redis.call('ZREM', KEYS[6], ARGV[4])
return answer('removed', 1)
