-- Removes all held events of a room, before an event that ends it is sent. One call is atomic.
-- KEYS: number, then gate and held of each event (all of one room: one hash slot)
-- Answers: {number, value, number, value, number, …}: the completion's own number first, which is the greatest.
local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local number = math.max(tonumber(redis.call("GET", KEYS[1]) or "0") + 1, now)
local answer = { 0 }
for i = 2, #KEYS, 2 do
  local held = redis.call("GET", KEYS[i + 1])
  redis.call("DEL", KEYS[i], KEYS[i + 1])
  if held then
    answer[#answer + 1] = held
    answer[#answer + 1] = number
    number = number + 1
  end
end
answer[1] = number
redis.call("SET", KEYS[1], string.format("%.0f", number), "PX", 60000)
return answer
