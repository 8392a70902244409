-- Notes that an event went live which the history lacks.
--
-- KEYS[1]  STREAM: the history
-- KEYS[2]  STRING: the id of the newest event when the hole was noted; <0-0> when there was none
-- ARGV[1]  ms until it is forgotten; every append gives it the history's own time again

local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
redis.call('SET', KEYS[2], newest and newest[1] or '0-0', 'PX', ARGV[1])
return 1
