-- Announces that a session of a subject is about to be created in another partition. KEYS: 5 index of the subject.
-- ARGV: 3 the number of inserts when the decision was made.
if tonumber(redis.call('ZSCORE', KEYS[5], '#') or '0') ~= tonumber(ARGV[3]) then return answer('again') end
local lasts = #redis.call('ZRANGE', KEYS[5], 0, 1) > 1

wrote()
redis.call('ZINCRBY', KEYS[5], 1, '#')
-- Without a session in this partition, nothing else makes the number expire.
if not lasts then redis.call('PEXPIREAT', KEYS[5], integer(now + KEPT)) end
return answer('announced')
