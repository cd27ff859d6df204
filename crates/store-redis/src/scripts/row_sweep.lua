-- KEYS: 5 ends. ARGV: 3 the caller's time, as a score, 4 the maximum number of rows, 5 prefix of rows.
local ended = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', ARGV[3], 'LIMIT', 0, ARGV[4])
if #ended > 0 then
    wrote()
    for _, key in ipairs(ended) do redis.call('DEL', ARGV[5] .. key) end
    redis.call('ZREM', KEYS[5], unpack(ended))
end
return answer('swept', #ended)
