-- Conflation over all nodes. One call is atomic.
-- KEYS: gate, held, number (all of one room: one hash slot)
-- ARGV: "offer" every_ms value keep_ms | "due" every_ms
-- Answers: {"pass", number} | {"held", wait_ms} | {"send", value, number} | {"wait", wait_ms} | {"nothing"}
local operation, every = ARGV[1], tonumber(ARGV[2])
local wait = redis.call("PTTL", KEYS[1])

-- Numbers begin with the clock, so that they grow even after the key was lost.
local function number()
  local time = redis.call("TIME")
  local now = time[1] * 1000000 + time[2]
  local last = tonumber(redis.call("GET", KEYS[3]) or "0")
  local n = math.max(last + 1, now)
  redis.call("SET", KEYS[3], string.format("%.0f", n), "PX", 60000)
  return n
end

if operation == "offer" then
  if wait > 0 then
    redis.call("SET", KEYS[2], ARGV[3], "PX", ARGV[4])
    return { "held", wait }
  end
  redis.call("DEL", KEYS[2])
  redis.call("SET", KEYS[1], "1", "PX", every)
  return { "pass", number() }
end

local held = redis.call("GET", KEYS[2])
if not held then
  return { "nothing" }
end
if wait > 0 then
  return { "wait", wait }
end
redis.call("DEL", KEYS[2])
redis.call("SET", KEYS[1], "1", "PX", every)
return { "send", held, number() }
