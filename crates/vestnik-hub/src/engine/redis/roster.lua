-- Writes down who listens at a node; closes a connection elsewhere when a channel has too many.
-- KEYS[1] counter. ARGV: base, member, seconds a node lives without a sign, seconds of the presence keys
-- of Push server 2.0 or 0, 1 if its processes run beside, most connections of a channel or 0, publish
-- command, bus channel; then of each receiver: its 17 bytes, its counted connections or -1 if nobody
-- listens, how many of them are new.
local base, member = ARGV[1], ARGV[2]
local lives, ttl, most = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
local own = base .. 'vestnik:online:' .. member
local now = tonumber(redis.call('TIME')[1])
local others = {}
for _, it in ipairs(redis.call('ZRANGEBYSCORE', base .. 'vestnik:nodes', now - lives, '+inf')) do
  if it ~= member then others[#others + 1] = it end
end
local function key_of_original(receiver)
  local kind = string.byte(receiver, 1)
  if ttl == 0 or kind > 1 then return nil end
  return base .. (kind == 0 and 'channel:online:' or 'pubchannel:online:') .. string.sub(receiver, 2)
end
local function close_one_of(receiver, counted, came)
  local total, largest, where = counted, 0, nil
  for _, it in ipairs(others) do
    local there = tonumber(redis.call('HGET', base .. 'vestnik:online:' .. it, receiver) or '0')
    total = total + there
    if there > largest then largest, where = there, it end
  end
  if where == nil or counted > most then return end
  if counted > largest then where = member end
  for _ = 1, math.min(came, total - most) do
    local notice = receiver .. where
    redis.call(ARGV[7], ARGV[8], '\170\6' .. string.char(#notice) .. notice)
  end
end
for i = 9, #ARGV, 3 do
  local receiver, counted, came = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local key = key_of_original(receiver)
  if counted >= 0 then
    redis.call('HSET', own, receiver, counted)
    if key then redis.call('SETEX', key, ttl, '1') end
    if came > 0 and most > 0 then close_one_of(receiver, counted, came) end
  else
    redis.call('HDEL', own, receiver)
    if key and ARGV[5] == '0' then
      local is_elsewhere = false
      for _, it in ipairs(others) do
        is_elsewhere = is_elsewhere or redis.call('HEXISTS', base .. 'vestnik:online:' .. it, receiver) == 1
      end
      if not is_elsewhere then redis.call('DEL', key) end
    end
  end
end
return #others
