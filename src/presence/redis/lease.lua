-- Leases of incarnations. ARGV[1] says what is wanted:
--   renew  incarnation, lease (ms), ttl (ms)         -> 'ok' | 'gone', epoch
--   stage  incarnation, lease, ttl, new epoch        -> 'ok', epoch
--   commit incarnation, lease, ttl, one to replace   -> 'ok' | 'gone', epoch
--   end    incarnation                               -> 'ok', epoch
-- followed by the header of reads. The epoch is another one after Redis has lost its data.
local what, incarnation, lease, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local nodes, staging, epoch = base .. ':nodes', base .. ':staging', base .. ':epoch'
local said = 'ok'

if what == 'renew' then
  if leased(':nodes', incarnation) then
    redis.call('ZADD', nodes, now + lease, incarnation)
  elseif leased(':staging', incarnation) then
    redis.call('ZADD', staging, now + lease, incarnation)
  else
    said = 'gone'
  end
elseif what == 'stage' then
  redis.call('SET', epoch, ARGV[5], 'NX')
  redis.call('ZADD', staging, now + lease, incarnation)
elseif what == 'commit' then
  if leased(':staging', incarnation) then
    redis.call('ZREM', staging, incarnation)
    redis.call('ZADD', nodes, now + lease, incarnation)
    if redis.call('ZSCORE', nodes, ARGV[5]) then redis.call('ZADD', nodes, 0, ARGV[5]) end
  else
    said = 'gone'
  end
elseif what == 'end' then
  for _, set in ipairs({ nodes, staging }) do
    if redis.call('ZSCORE', set, incarnation) then redis.call('ZADD', set, 0, incarnation) end
  end
end

if ttl then
  for _, key in ipairs({ nodes, staging, epoch }) do redis.call('PEXPIRE', key, ttl) end
end
return { said, redis.call('GET', epoch) or '', header() }
