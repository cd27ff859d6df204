-- Records: version 1, op 2-9, state, attempt, owner and since 10-38, until 39-46, encoded record.
-- KEYS: 5 record, 6 ends. ARGV: 3 record, 4 the caller's time, 5 id.
local known = redis.call('GET', KEYS[5])
if known then
    if not readable(known) then return answer('version', string.byte(known, 1)) end
    if string.sub(known, 2, 9) == ARGV[2] then return answer('inserted') end
    if later(string.sub(known, 39, 46), ARGV[4]) then return answer('present', known) end
end
wrote()
local till = string.sub(ARGV[3], 39, 46)
store(KEYS[5], ARGV[3], till)
redis.call('ZADD', KEYS[6], integer(number(till)), ARGV[5])
return answer('inserted')
