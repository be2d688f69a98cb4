-- Counters of tries in slices of time, as shared_kernel/domain/rate_limits.py has them; one run is one round trip.
-- KEYS: a hash for each counter: number of a slice -> tries in it; `told`: until when a refusal is no news.
-- ARGV: deed, the time in seconds ("" for the server's), then for each counter: most, per_s.
-- take answers {wait in seconds, "" when taken; then the place of each counter whose refusal is news}.
local SLICES = 12
local deed, now = ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end

local function limit(i)
  return tonumber(ARGV[1 + 2 * i]), tonumber(ARGV[2 + 2 * i])
end

if deed == 'forget' then
  for _, key in ipairs(KEYS) do redis.call('DEL', key) end
  return {}
end

if deed == 'give_back' then
  for i, key in ipairs(KEYS) do
    local _, per_s = limit(i)
    local this = math.floor(now * SLICES / per_s)
    for _, number in ipairs({this, this - 1}) do
      if tonumber(redis.call('HGET', key, number) or 0) > 0 then
        redis.call('HINCRBY', key, number, -1)
        break
      end
    end
  end
  return {}
end

local longest, full = 0, {}
for i, key in ipairs(KEYS) do
  local most, per_s = limit(i)
  local oldest = math.floor(now * SLICES / per_s) - SLICES
  local fields, counted, total, past = redis.call('HGETALL', key), {}, 0, {}
  for f = 1, #fields, 2 do
    local number, tries = tonumber(fields[f]), tonumber(fields[f + 1])
    if number then
      if number < oldest then
        past[#past + 1] = fields[f]
      elseif tries > 0 then
        counted[#counted + 1] = {number, tries}
        total = total + tries
      end
    end
  end
  if #past > 0 then redis.call('HDEL', key, unpack(past)) end
  local excess = total + 1 - most
  if excess > 0 then
    full[#full + 1] = i
    table.sort(counted, function(a, b) return a[1] < b[1] end)
    for _, slice in ipairs(counted) do
      excess = excess - slice[2]
      if excess <= 0 then
        longest = math.max(longest, (slice[1] + 1 + SLICES) * per_s / SLICES - now)
        break
      end
    end
  end
end

if #full == 0 then
  for i, key in ipairs(KEYS) do
    local _, per_s = limit(i)
    redis.call('HINCRBY', key, math.floor(now * SLICES / per_s), 1)
    redis.call('EXPIRE', key, math.ceil(per_s + 2 * per_s / SLICES))
  end
  return {''}
end

local answer = {string.format('%.6f', longest)}
for _, i in ipairs(full) do
  local _, per_s = limit(i)
  local told = tonumber(redis.call('HGET', KEYS[i], 'told') or 0)
  if told <= now then
    redis.call('HSET', KEYS[i], 'told', string.format('%.6f', now + per_s))
    answer[#answer + 1] = i
  end
end
return answer
