-- Appends one event to a room's history, and its payload to the contract's own list.
-- KEYS[1]  STREAM: the history. An entry's id is <epoch>-<offset>.
-- KEYS[2]  STRING: the place of a hole (hole.lua), which lives as long as the history.
-- KEYS[3]  STRING: the number of the newest lease under which an event was appended
-- KEYS[4]  LIST of payloads, newest last; absent when there is none, or when it lives in another slot.
-- ARGV[1]  the epoch, if the history begins now
-- ARGV[2]  the maximum number of events
-- ARGV[3]  ms until the history expires
-- ARGV[4]  payload for the list, ARGV[5] its maximum length, ARGV[6] ms until it expires
-- ARGV[7]  the deadline in ms of this server's time, after which the sender has given up; '' for none
-- ARGV[8]  the number of the lease under which the event is published; '' when it needs none
-- ARGV[9…] fields and values of the entry
--
-- Returns this server's time in ms and 'late' or 'fenced' when nothing was done; else the time, the epoch, the offset
-- (as text: they may be larger than Lua's integers print), and 0 when the list could not be written.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local said = string.format('%.0f', now)
if ARGV[7] ~= '' and now > tonumber(ARGV[7]) then
  return { said, 'late' }
end
if ARGV[8] ~= '' then
  local newest = redis.call('GET', KEYS[3])
  if newest and tonumber(newest) > tonumber(ARGV[8]) then
    return { said, 'fenced' }
  end
  redis.call('SET', KEYS[3], ARGV[8], 'PX', 60000)
end

local epoch, offset = ARGV[1], '1'
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
  local at
  epoch, at = string.match(last[1], '^(%d+)%-(%d+)$')
  offset = string.format('%.0f', tonumber(at) + 1)
end

redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], epoch .. '-' .. offset, unpack(ARGV, 9))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])

-- The list belongs to the application, not to roomcast. If it is not a list, the history is written all the same.
local copied = 1
if KEYS[4] then
  local pushed = redis.pcall('RPUSH', KEYS[4], ARGV[4])
  if type(pushed) == 'table' and pushed.err then
    copied = 0
  else
    redis.call('LTRIM', KEYS[4], '-' .. ARGV[5], -1)
    redis.call('PEXPIRE', KEYS[4], ARGV[6])
  end
end

return { said, epoch, offset, copied }
