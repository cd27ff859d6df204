-- Rows: format 1, version 2-17, until 18-25, bytes.
-- KEYS: 5 row, 6 ends. ARGV: 3 row, 4 the caller's time, 5 key, 6 the maximum number of rows.
local known = redis.call('GET', KEYS[5])
local last = integer(tonumber(ARGV[6]) - 1)
local ended = {}
if known then
    if not readable(known) then return answer('version', string.byte(known, 1)) end
    if string.sub(known, 2, 17) == string.sub(ARGV[3], 2, 17) then return answer('inserted') end
    if later(string.sub(known, 18, 25), ARGV[4]) then return answer('present', known) end
elseif #redis.call('ZRANGE', KEYS[6], last, last) > 0 then
    ended = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', integer(number(ARGV[4])), 'LIMIT', 0, 128)
    if #ended == 0 then return answer('full') end
end
wrote()
if #ended > 0 then
    local prefix = string.sub(KEYS[5], 1, -1 - #ARGV[5])
    for _, key in ipairs(ended) do redis.call('DEL', prefix .. key) end
    redis.call('ZREM', KEYS[6], unpack(ended))
end
local till = string.sub(ARGV[3], 18, 25)
store(KEYS[5], ARGV[3], till)
redis.call('ZADD', KEYS[6], integer(number(till)), ARGV[5])
return answer('inserted')
