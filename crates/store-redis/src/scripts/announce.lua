-- That a session of a subject is about to begin in another partition. KEYS: 5 index of the subject. ARGV: 3 how many were
-- inserted when the decision was made.
if tonumber(redis.call('ZSCORE', KEYS[5], '#') or '0') ~= tonumber(ARGV[3]) then return answer('again') end
local lasts = #redis.call('ZRANGE', KEYS[5], 0, 1) > 1

wrote()
redis.call('ZINCRBY', KEYS[5], 1, '#')
-- Without a session here nothing else ends the number.
if not lasts then redis.call('PEXPIREAT', KEYS[5], integer(now + KEPT)) end
return answer('announced')
