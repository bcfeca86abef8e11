-- Users came to a node or went from it. KEYS[1] counter. ARGV: base, member, seconds a node lives without
-- a sign, users remembered, seconds they are; then of each user: 17 bytes, 1 if it came, 0 if it went, else
-- it was only seen; unix second of that. Answers a digit for each: 1 if it was or is on no other node.
local base, own = ARGV[1], ARGV[1] .. 'vestnik:online:' .. ARGV[2]
local now = tonumber(redis.call('TIME')[1])
local others = {}
for _, it in ipairs(redis.call('ZRANGEBYSCORE', base .. 'vestnik:nodes', now - tonumber(ARGV[3]), '+inf')) do
  if it ~= ARGV[2] then others[#others + 1] = base .. 'vestnik:online:' .. it end
end
local answer = {}
for i = 6, #ARGV, 3 do
  local user, seen_s = ARGV[i], tonumber(ARGV[i + 2])
  local site, id = string.sub(user, 2, 9), string.sub(user, 10)
  if ARGV[i + 1] == '1' then
    redis.call('HSET', own, user, 0)
  elseif ARGV[i + 1] == '0' then
    redis.call('HDEL', own, user)
  end
  local seen_key = base .. 'vestnik:seen:' .. site
  if seen_s > tonumber(redis.call('ZSCORE', seen_key, id) or '0') then
    redis.call('ZADD', seen_key, seen_s, id)
  end
  redis.call('EXPIRE', seen_key, ARGV[5])
  local over = redis.call('ZCARD', seen_key) - tonumber(ARGV[4])
  if over > 0 then redis.call('ZREMRANGEBYRANK', seen_key, 0, over - 1) end
  redis.call('SADD', base .. 'vestnik:sites', site)
  local is_only = 1
  for _, key in ipairs(others) do
    if redis.call('HEXISTS', key, user) == 1 then is_only = 0 end
  end
  answer[#answer + 1] = is_only
end
return table.concat(answer)
