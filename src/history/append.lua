-- Appends one event to a room's history, and its payload to the contract's own list.
--
-- KEYS[1]  STREAM: the history. An entry's id is <epoch>-<offset>.
-- KEYS[2]  STRING: the place of a hole (hole.lua), which lives as long as the history.
-- KEYS[3]  LIST of payloads, newest last; absent when there is none, or when it lives in another slot.
-- ARGV[1]  the epoch of a history that begins now
-- ARGV[2]  how many events are kept
-- ARGV[3]  ms until the history is forgotten
-- ARGV[4]  payload for the list, ARGV[5] how many are kept there, ARGV[6] ms until it is forgotten
-- ARGV[7…] fields and values of the entry
--
-- Returns the epoch, the offset (as text: both may be larger than Lua's integers print), and 0 when the list could
-- not be written.

local epoch, offset = ARGV[1], '1'
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
  local at
  epoch, at = string.match(last[1], '^(%d+)%-(%d+)$')
  offset = string.format('%.0f', tonumber(at) + 1)
end

redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], epoch .. '-' .. offset, unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])

-- The list belongs to the application: if it is no list, that is no reason to lose the history.
local copied = 1
if KEYS[3] then
  local pushed = redis.pcall('RPUSH', KEYS[3], ARGV[4])
  if type(pushed) == 'table' and pushed.err then
    copied = 0
  else
    redis.call('LTRIM', KEYS[3], '-' .. ARGV[5], -1)
    redis.call('PEXPIRE', KEYS[3], ARGV[6])
  end
end

return { epoch, offset, copied }
