-- KEYS: 5 counter, or what is remembered. ARGV: 3 what to do, 4 the time that earns one attempt, 5 the time that earns the
-- whole burst, or that it is remembered for. Times are in microseconds, but the last one in milliseconds.
-- A counter is the moment when it is full again, and the name of its last write.
if ARGV[3] == 'remember' then
    redis.call('SET', KEYS[5], '1', 'PX', ARGV[5])
    return answer('counted', 0)
end
if ARGV[3] == 'remembers' then return answer('counted', redis.call('EXISTS', KEYS[5])) end

local at = tonumber(time[1]) * 1000000 + tonumber(time[2])
local every, depth = tonumber(ARGV[4]), tonumber(ARGV[5])
local known = redis.call('GET', KEYS[5])
local full, last = 0, nil
if known then full, last = tonumber(string.sub(known, 9)), string.sub(known, 1, 8) end
-- It was done before. Its answer was that it may.
if last == ARGV[2] then return answer('counted', 0) end
local from = math.max(full, at)
local upcoming
if ARGV[3] == 'take' then
    local wait = from + every - at - depth
    if wait > 0 then return answer('counted', wait) end
    upcoming = from + every
elseif ARGV[3] == 'charge' then
    if from - at <= depth then upcoming = from + every end
elseif ARGV[3] == 'give-back' then
    if full > at then upcoming = full - every end
else
    return answer('counted', math.max(full - depth - at, 0))
end
if upcoming and upcoming > at then
    redis.call('SET', KEYS[5], ARGV[2] .. integer(upcoming), 'PX', integer(math.ceil((upcoming - at) / 1000)))
elseif upcoming then
    redis.call('DEL', KEYS[5])
end
return answer('counted', 0)
