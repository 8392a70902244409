-- Records that the history lacks an event that was delivered.
--
-- KEYS[1]  STREAM: the history
-- KEYS[2]  STRING: the id of the newest event when the hole was recorded; <0-0> if there was none
-- ARGV[1]  ms until it expires; every append renews it

local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
redis.call('SET', KEYS[2], newest and newest[1] or '0-0', 'PX', ARGV[1])
return 1
