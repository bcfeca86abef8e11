-- A node says that it lives, and learns of the others. Times are those of Redis, in seconds.
-- KEYS[1] counter. ARGV: base, member, name in the statistics, its statistics or nothing, seconds a node
-- lives without a sign, seconds its list is kept, age at which statistics are dropped, 1 if silent nodes
-- may be buried.
-- Answers 1 if this node was known, 1 if originals run beside, 1 if it was buried meanwhile, the sites
-- that have users, then pairs of the buried and when they lived last.
local base, member = ARGV[1], ARGV[2]
local now = tonumber(redis.call('TIME')[1])
local nodes_key, own, stats_key = base .. 'vestnik:nodes', base .. 'vestnik:online:' .. member, base .. 'stats'
local was_known = redis.call('HEXISTS', own, '')
local was_buried = redis.call('EXISTS', base .. 'vestnik:buried:' .. member)
redis.call('HSET', own, '', ARGV[3])
redis.call('EXPIRE', own, ARGV[6])
redis.call('ZADD', nodes_key, now, member)
if ARGV[4] ~= '' then redis.call('HSET', stats_key, ARGV[3], ARGV[4]) end
local answer = {was_known, 0, was_buried, redis.call('SMEMBERS', base .. 'vestnik:sites')}
local oldest = now - tonumber(ARGV[5])
local names = {}
for _, it in ipairs(redis.call('ZRANGEBYSCORE', nodes_key, oldest, '+inf')) do
  names[redis.call('HGET', base .. 'vestnik:online:' .. it, '') or ''] = true
end
local stats = redis.call('HGETALL', stats_key)
for i = 1, #stats, 2 do
  if not names[stats[i]] then
    local is_read, entry = pcall(cjson.decode, stats[i + 1])
    local date = is_read and type(entry) == 'table' and tonumber(entry.date)
    if date and date / 1000 < now - tonumber(ARGV[7]) then
      redis.call('HDEL', stats_key, stats[i])
    elseif date then
      answer[2] = 1
    end
  end
end
if ARGV[8] == '1' then
  local silent = redis.call('ZRANGEBYSCORE', nodes_key, '-inf', '(' .. oldest, 'WITHSCORES', 'LIMIT', 0, 20)
  for i = 1, #silent, 2 do
    redis.call('ZREM', nodes_key, silent[i])
    redis.call('SET', base .. 'vestnik:buried:' .. silent[i], 1, 'EX', 3600)
    answer[#answer + 1] = silent[i]
    answer[#answer + 1] = silent[i + 1]
  end
end
return answer
