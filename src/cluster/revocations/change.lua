-- Makes and lifts revocations, at once for all nodes.
-- KEYS: entries (HASH), ends (ZSET)
-- ARGV: now in ms, the maximum number of revocations, then for each: key, revocation as JSON (empty: lift it), end in
-- ms
-- Returns epoch and number of the change; nothing if the maximum is reached.
local now = ARGV[1]
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)
if #ended > 0 then
  redis.call('HDEL', KEYS[1], unpack(ended))
  redis.call('ZREM', KEYS[2], unpack(ended))
end
local more = 0
for at = 3, #ARGV, 3 do
  if ARGV[at + 1] ~= '' and not redis.call('HGET', KEYS[1], ARGV[at]) then
    more = more + 1
  end
end
if more > 0 and redis.call('ZCARD', KEYS[2]) + more > tonumber(ARGV[2]) then
  return {}
end
for at = 3, #ARGV, 3 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('ZREM', KEYS[2], ARGV[at])
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    redis.call('ZADD', KEYS[2], ARGV[at + 2], ARGV[at])
  end
end
redis.call('HSETNX', KEYS[1], '#epoch', now)
local number = redis.call('HINCRBY', KEYS[1], '#number', 1)
-- The key lives a day longer than the last revocation, so that nodes which were away learn of lifted revocations.
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local until_ms = math.max(tonumber(last[2] or now), tonumber(now)) + 86400000
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', until_ms))
redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', until_ms))
return { redis.call('HGET', KEYS[1], '#epoch'), tostring(number) }
