-- KEYS: 5 row, 6 ends. ARGV: 3 row, 4 expected version, 5 key.
local known = redis.call('GET', KEYS[5])
if not known then return answer('changed', '') end
if not readable(known) then return answer('version', string.byte(known, 1)) end
local version = string.sub(known, 2, 17)
if version == string.sub(ARGV[3], 2, 17) then return answer('swapped') end
if version ~= ARGV[4] then return answer('changed', known) end
wrote()
local till = string.sub(ARGV[3], 18, 25)
store(KEYS[5], ARGV[3], till)
redis.call('ZADD', KEYS[6], integer(number(till)), ARGV[5])
return answer('swapped')
