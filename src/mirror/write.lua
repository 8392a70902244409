-- Writes one change of a mirrored key, and renews its life.
--
-- KEYS[1]  HASH of metadata, or SET of rooms
-- ARGV[1]  ms until the key is forgotten
-- ARGV[2]  HSET, SADD or SREM
-- ARGV[3…] its arguments

redis.call(ARGV[2], KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
