-- Takes the lease, or renews it for its holder. KEYS: lease. ARGV: node, milliseconds; 0 gives it up.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if tonumber(ARGV[2]) > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
if holder then
  redis.call('DEL', KEYS[1])
end
return 0
