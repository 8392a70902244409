-- Returns the oldest notice to the one node that holds the lease, and takes or renews the lease for it.
-- An empty list releases the lease, so that the node that puts the next notice delivers it.
-- KEYS: notices, lease. ARGV: holder, life of the lease in ms, life of the list in ms.
-- Returns {'busy'}, {'empty'} or {'notice', text}.
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then
  return { 'busy' }
end
local notice = redis.call('LINDEX', KEYS[1], 0)
if not notice then
  if holder then
    redis.call('DEL', KEYS[2])
  end
  return { 'empty' }
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { 'notice', notice }
