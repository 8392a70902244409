-- Takes the lease, or renews it for its holder.
--
-- KEYS[1]  STRING: '<holder> <number>'
-- ARGV[1]  the node that asks
-- ARGV[2]  ms; 0 gives the lease up
--
-- Returns the lease's number as text, or 0 when another node holds the lease or it was given up. A new lease has a
-- larger number than every one before, even after Redis has lost its keys: it is the time.

local held = redis.call('GET', KEYS[1])
local holder, number
if held then
  holder, number = string.match(held, '^(.*) (%d+)$')
  if holder ~= ARGV[1] then return 0 end
end
if tonumber(ARGV[2]) == 0 then
  redis.call('DEL', KEYS[1])
  return 0
end
if not number then
  local now = redis.call('TIME')
  number = string.format('%.0f', tonumber(now[1]) * 1000000 + tonumber(now[2]))
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. number, 'PX', ARGV[2])
return number
