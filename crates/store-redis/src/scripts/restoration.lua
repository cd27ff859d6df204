-- Records that a node has written back what it knew, and returns whether all nodes have. KEYS: 5 nodes, 6 the
-- history that each of them has restored. ARGV: 3 node, 4 how long to wait for the others.
local adopted = tonumber(redis.call('HGET', KEYS[1], 'adopted') or '0')
if adopted == 0 then return answer('restoration', '0', 1) end
local complete, cursor = 1, '0'
if now < adopted + tonumber(ARGV[4]) then
    repeat
        local page = redis.call('HSCAN', KEYS[5], cursor, 'COUNT', 1000)
        cursor = page[1]
        for i = 1, #page[2], 2 do
            local beat = number(string.sub(page[2][i + 1], 1, 8))
            if page[2][i] ~= ARGV[3] and beat + tonumber(ARGV[4]) >= adopted
                and redis.call('HGET', KEYS[6], page[2][i]) ~= HISTORY then
                complete = 0
            end
        end
    until cursor == '0'
end
if redis.call('HGET', KEYS[6], ARGV[3]) ~= HISTORY then
    wrote()
    redis.call('HSET', KEYS[6], ARGV[3], HISTORY)
    redis.call('PEXPIREAT', KEYS[6], integer(now + KEPT))
end
return answer('restoration', integer(adopted), complete)
