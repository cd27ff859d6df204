-- Counters that all nodes share, and remembered names. ARGV: 3 the operation: `remember` or `remembers`, for KEYS 5
-- and ARGV 4 ms, or `count`.
-- The arguments of `count` are: ARGV: 4 '1' if KEYS 5 is the name of the caller. If the caller is remembered, only
-- the first counter counts, otherwise only the other counters do. The remaining KEYS are the counters. ARGV: from 5
-- on, for each counter, its operation, the time that earns one attempt, and the time that earns the whole burst, in
-- microseconds. Either all of the counters count, or none.
-- The value of a counter is the time at which it is full again, and the name of its last write.
if ARGV[3] == 'remember' then
    redis.call('SET', KEYS[5], '1', 'PX', ARGV[4])
    return answer('counted', 0, 0, 1)
end
if ARGV[3] == 'remembers' then return answer('counted', 0, 0, redis.call('EXISTS', KEYS[5])) end

local at = tonumber(time[1]) * 1000000 + tonumber(time[2])
local base, first, final, known = 5, 5, #KEYS, 0
if ARGV[4] == '1' then
    known, base = redis.call('EXISTS', KEYS[5]), 6
    if known == 1 then first, final = 6, 6 else first = 7 end
end
local states = {}
for i = first, final do
    local n = 5 + (i - base) * 3
    local how, every, depth = ARGV[n], tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2])
    local state = redis.call('GET', KEYS[i])
    local full, last = 0, nil
    if state then full, last = tonumber(string.sub(state, 9)), string.sub(state, 1, 8) end
    -- Otherwise this operation has already been counted, and the attempt was allowed.
    if last ~= ARGV[2] then
        -- If the stored time is later than this maximum, it was written when the clock was ahead.
        full = math.min(full, at + depth + every)
        local from = math.max(full, at)
        local wait, upcoming = 0, nil
        if how == 'take' then
            wait, upcoming = from + every - at - depth, from + every
        elseif how == 'charge' then
            if from - at <= depth then upcoming = from + every end
        elseif how == 'give-back' then
            if full > at then upcoming = full - every end
        else
            wait = full - depth - at
        end
        if wait > 0 then return answer('counted', wait, i - first, known) end
        if upcoming then states[#states + 1] = {KEYS[i], upcoming} end
    end
end

for _, state in ipairs(states) do
    local key, upcoming = state[1], state[2]
    if upcoming > at then
        redis.call('SET', key, ARGV[2] .. integer(upcoming), 'PX', integer(math.ceil((upcoming - at) / 1000)))
    else
        redis.call('DEL', key)
    end
end
return answer('counted', 0, 0, known)
