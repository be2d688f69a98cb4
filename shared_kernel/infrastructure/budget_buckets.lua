-- The budgets of all workers. Redis runs a script alone, so two workers never get one permit.
--
-- KEYS  for each lane two: its state (a hash), its grants of the last minute (a sorted set by time, "<hand>:<permits>")
-- ARGV  what to do; the time in seconds ('' for this server's clock, which is the same for all workers);
--       then for each lane what `arguments` says of that deed, the lane's calls a minute first
--
-- A bucket makes the calls even: it fills at the rate and holds a few seconds of it. The grants bound the minute: a
-- bucket that is filled at the full rate would by itself let through its content on top.

local WINDOW = 62     -- seconds: the provider's minute, and how much later one call may follow its grant than another's
local HOLD = 60       -- seconds at the lowered rate after a refusal,
local RISE = 0.05     -- then this part of the rate comes back every minute
local LOWEST = 0.125  -- of the rate
local SAME = 5        -- seconds in which several refusals are one: their calls were on their way together
local QUEUED = 5      -- seconds that the mark of a queue holds
local SET_BACK = 5    -- a clock that jumps back by more than this belongs to another server

local clock = redis.call('TIME')
local now = tonumber(ARGV[2]) or (clock[1] + clock[2] / 1000000)
local FIELDS = {'at', 'tokens', 'reads', 'used', 'paused', 'factor', 'refused', 'queued'}

local function begin(lane)
  -- Nothing is known of the last minute: as if it had been used up, with its burst at the end.
  redis.call('DEL', lane.state, lane.grants)
  lane.at, lane.tokens, lane.reads, lane.used = now, -lane.burst, 0, 0
  lane.paused, lane.factor, lane.refused, lane.queued = 0, 1, 0, 0
end

local function forget_old_grants(lane)
  for _, grant in ipairs(redis.call('ZRANGEBYSCORE', lane.grants, '-inf', lane.at - WINDOW)) do
    lane.used = lane.used - tonumber(string.match(grant, ':(%d+)$'))
    redis.call('ZREM', lane.grants, grant)
  end
  if redis.call('EXISTS', lane.grants) == 0 then lane.used = 0 end
end

local function fill(lane)
  local seconds = math.max(0, now - math.max(lane.at, lane.paused))
  lane.at = math.max(now, lane.at)
  lane.now_factor = math.min(1, lane.factor + math.max(0, lane.at - lane.refused - HOLD) / 60 * RISE)
  local more = seconds * lane.rate * lane.now_factor / WINDOW
  lane.tokens = math.min(lane.burst, lane.tokens + more)
  lane.reads = math.min(lane.read_burst, lane.reads + more / 4)
end

local function open(number, rate)
  local lane = {state = KEYS[2 * number - 1], grants = KEYS[2 * number], rate = rate}
  lane.burst = math.min(rate, 1 + math.max(1, rate / 20)) -- three seconds, and the part of a permit that waits
  lane.read_burst = math.max(1, lane.burst / 4)
  local stored = redis.call('HMGET', lane.state, unpack(FIELDS))
  for place, name in ipairs(FIELDS) do lane[name] = tonumber(stored[place]) end
  if not lane.at or now < lane.at - SET_BACK then begin(lane) end
  fill(lane)
  forget_old_grants(lane)
  return lane
end

local function close(lane)
  local stored = {}
  for _, name in ipairs(FIELDS) do
    table.insert(stored, name)
    table.insert(stored, lane[name])
  end
  redis.call('HSET', lane.state, unpack(stored))
end

local deeds = {}

-- arguments: rate, money, reads, hand, '1' from the queue. Answers the money and the reads that are granted.
function deeds.take(lane, money, reads, hand, from_queue)
  money, reads = tonumber(money), tonumber(reads)
  if lane.paused > now or (lane.queued > now and from_queue ~= '1') then return 0, 0 end
  local free = math.max(0, math.min(math.floor(lane.tokens), lane.rate - lane.used))
  local sure = math.min(reads, free, math.floor(lane.reads))
  local paid = math.min(money, free - sure)
  -- beyond their share only while money is not short, and so that it has half of a burst when it comes
  local spare = math.floor(math.min(lane.tokens, lane.rate - lane.used) - sure - paid - lane.burst / 2)
  local asked = sure + math.max(0, math.min(reads - sure, spare))
  local granted = paid + asked
  if granted > 0 then
    redis.call('ZADD', lane.grants, lane.at, hand .. ':' .. granted)
    lane.used, lane.tokens, lane.reads = lane.used + granted, lane.tokens - granted, lane.reads - sure
  end
  return paid, asked
end

-- arguments: rate, hand, its grant, how much of it was not used, how many of these are reads
function deeds.give_back(lane, hand, grant, unused, reads)
  local member = hand .. ':' .. grant
  local at = redis.call('ZSCORE', lane.grants, member)
  if at then -- else it was forgotten with the minute, or flushed
    redis.call('ZREM', lane.grants, member)
    local used = tonumber(grant) - tonumber(unused)
    if used > 0 then redis.call('ZADD', lane.grants, at, hand .. ':' .. used) end
    lane.used = lane.used - tonumber(unused)
    lane.tokens = math.min(lane.burst, lane.tokens + tonumber(unused))
    lane.reads = math.min(lane.read_burst, lane.reads + tonumber(reads))
  end
  return 0, 0
end

-- arguments: rate, seconds
function deeds.penalise(lane, seconds)
  if now >= lane.paused and now >= lane.refused + SAME then
    lane.factor, lane.refused = math.max(LOWEST, lane.now_factor / 2), now
  end
  lane.paused = math.max(lane.paused, now + tonumber(seconds))
  lane.tokens, lane.reads = math.min(0, lane.tokens), 0
  return 0, 0
end

-- arguments: rate, '1' or '0'
function deeds.queue(lane, on)
  lane.queued = on == '1' and now + QUEUED or 0
  return 0, 0
end

-- arguments: rate, what this worker took from its own share while Redis was gone: "<hand>@<age in seconds>:<permits>,"...
function deeds.rejoin(lane, taken)
  for hand, age, permits in string.gmatch(taken, '(%x+)@([%d.]+):(%d+),') do
    redis.call('ZADD', lane.grants, lane.at - tonumber(age), hand .. ':' .. permits)
    lane.used = lane.used + tonumber(permits)
    lane.tokens = math.min(-lane.burst, lane.tokens) -- others come back within seconds with theirs
  end
  return 0, 0
end

-- arguments: rate. Answers as text: seconds of pause left, tokens, the part of the rate that counts now.
function deeds.look(lane)
  return tostring(math.max(0, lane.paused - now)), tostring(lane.tokens), tostring(lane.now_factor)
end

local arguments = {take = 5, give_back = 5, penalise = 2, queue = 2, rejoin = 2, look = 1}
local answer, each = {}, arguments[ARGV[1]]
for number = 1, #KEYS / 2 do
  local first = 3 + (number - 1) * each
  local lane = open(number, tonumber(ARGV[first]))
  table.insert(answer, {deeds[ARGV[1]](lane, unpack(ARGV, first + 1, first + each - 1))})
  close(lane)
end
return answer
