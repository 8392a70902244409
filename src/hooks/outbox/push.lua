-- Appends notices and keeps the list within its bound.
-- KEYS: notices. ARGV: bound, life of the list in ms, notice...
-- Returns how many of the oldest were dropped.
local length = 0
for at = 3, #ARGV do
  length = redis.call('RPUSH', KEYS[1], ARGV[at])
end
local dropped = length - tonumber(ARGV[1])
if dropped > 0 then
  redis.call('LTRIM', KEYS[1], dropped, -1)
else
  dropped = 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return dropped
