-- ARGV: 3 `creation` or `before`, 4 the time that the stamp must be after, or '', 5 leeway.
local last = tonumber(redis.call('HGET', KEYS[1], 'stamp') or '0')
local stamp = math.max(now, last)
if ARGV[3] == 'creation' then
    if ARGV[4] ~= '' then stamp = math.max(stamp, tonumber(ARGV[4]) + 1) end
    if stamp > now + tonumber(ARGV[5]) then return answer('ahead') end
    last = stamp
else
    -- Everything that is created later gets a later millisecond.
    last = stamp + 1
end
wrote()
redis.call('HSET', KEYS[1], 'stamp', integer(last))
return answer('stamp', integer(stamp))
