-- KEYS: 5 record, 6 ends. ARGV: 3 record, 4 expected version, 5 id.
local known = redis.call('GET', KEYS[5])
if not known then return answer('changed', '') end
if not readable(known) then return answer('version', string.byte(known, 1)) end
if string.sub(known, 2, 9) == ARGV[2] then return answer('swapped') end
if string.sub(known, 10, 38) ~= ARGV[4] then return answer('changed', known) end
wrote()
local till = string.sub(ARGV[3], 39, 46)
store(KEYS[5], ARGV[3], till)
redis.call('ZADD', KEYS[6], integer(number(till)), ARGV[5])
return answer('swapped')
