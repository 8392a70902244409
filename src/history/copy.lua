-- Appends a payload to the contract's own list, where the list lives in another slot than the history.
--
-- KEYS[1]  LIST of payloads, newest last
-- ARGV[1]  payload, ARGV[2] the maximum length, ARGV[3] ms until the list expires

redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], '-' .. ARGV[2], -1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
