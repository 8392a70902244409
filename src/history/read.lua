-- Reads a page of a room's history.
--
-- KEYS[1]  STREAM: the history
-- KEYS[2]  STRING: the place of a hole (hole.lua)
-- ARGV[1]  the maximum number of events
-- ARGV[2]  'newest' or 'oldest': which events to return if there are more
-- ARGV[3]  the offset after which events are wanted; '' for all
-- ARGV[4]  the epoch of that offset; '' if it is not known
--
-- Returns the position of the hole or '', and, unless the room has no history, the newest id, the number of events
-- kept, and the entries. An offset of another epoch, or beyond the newest event, is ignored: then all events are
-- returned.

local hole = redis.call('GET', KEYS[2]) or ''
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not newest then
  return { hole }
end

local epoch, last = string.match(newest[1], '^(%d+)%-(%d+)$')
local from = '-'
if ARGV[3] ~= '' and (ARGV[4] == '' or ARGV[4] == epoch) and tonumber(ARGV[3]) <= tonumber(last) then
  from = epoch .. '-' .. string.format('%.0f', tonumber(ARGV[3]) + 1)
end

local entries
if ARGV[2] == 'oldest' then
  entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', ARGV[1])
else
  entries = redis.call('XREVRANGE', KEYS[1], '+', from, 'COUNT', ARGV[1])
end

return { hole, newest[1], redis.call('XLEN', KEYS[1]), entries }
