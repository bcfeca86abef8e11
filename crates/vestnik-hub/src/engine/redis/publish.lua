-- Numbers, stores and announces a batch as one step (W-10, W-11, W-14).
-- KEYS[1] counter. ARGV: base, now_s, known epoch, known seq, now_ms, node, serial, publish command,
-- bus channel, index seconds, messages per channel, messages; then of each message: expiry, head,
-- tail, receivers for the bus, number of indexes, the indexes.
local base, now_s, node, serial = ARGV[1], tonumber(ARGV[2]), ARGV[6], tonumber(ARGV[7])
local known_epoch, known_seq = tonumber(ARGV[3]), tonumber(ARGV[4])
local start_key, counter_key = base .. 'server:startdate', KEYS[1]
local node_key, created_key = base .. 'vestnik:node:' .. node, base .. 'vestnik:created'
-- Fails here while the slot moves to another node of a cluster, before anything was changed: a batch
-- that is executed in part could neither be repeated nor left.
redis.call('EXISTS', base .. 'vestnik:never')
local done = redis.call('GET', node_key)
if done then
  local last, epoch, before, count, created = string.match(done, '(%d+) (%d+) (%d+) (%d+) (%d+)')
  -- Sent before a connection broke, and executed: it must not happen twice.
  if tonumber(last) == serial then return {epoch, before, created, count} end
  if tonumber(last) > serial then return redis.error_reply('STALE an older batch') end
end
local epoch = tonumber(redis.call('GET', start_key) or '0')
local seq = tonumber(redis.call('GET', counter_key) or '0')
if epoch < known_epoch or (epoch == known_epoch and seq < known_seq) or epoch == 0 then
  epoch, seq = math.max(now_s, known_epoch + 1), 0
  redis.call('SET', start_key, string.format('%d', epoch))
end
local count = tonumber(ARGV[12])
local created = tonumber(ARGV[5])
local before_ms = tonumber(redis.call('GET', created_key) or '0')
-- Times never fall; but one clock that went far ahead once must not stop time for all.
if before_ms > created and before_ms < created + 60000 then created = before_ms end
local function number(value) return string.format('%.0f', value) end
local function length(text)
  local value, bytes = #text, ''
  while value > 127 do
    bytes = bytes .. string.char(value % 128 + 128)
    value = math.floor(value / 128)
  end
  return bytes .. string.char(value) .. text
end
redis.call('SET', counter_key, number(seq + count))
redis.call('SET', created_key, number(created))
redis.call('SET', node_key,
  ARGV[7] .. ' ' .. number(epoch) .. ' ' .. number(seq) .. ' ' .. count .. ' ' .. number(created),
  'EX', 3600)
local time = '\37' .. struct.pack('<I4', math.floor(created / 1000))
  .. '\161\6' .. struct.pack('<I8', created)
local at, announced = 13, {}
for n = 1, count do
  local digits = string.format('%010.0f%016.0f', epoch, seq + n)
  local id = string.gsub(digits, '%d%d', function(pair) return string.char(tonumber(pair, 16)) end)
  local expiry, indexes = tonumber(ARGV[at]), tonumber(ARGV[at + 4])
  local message = '\10\13' .. id .. ARGV[at + 1] .. time .. ARGV[at + 2]
  if expiry > 0 then
    redis.call('SETEX', base .. 'message:' .. id, expiry, message)
    for i = at + 5, at + 4 + indexes do
      local index = base .. ARGV[i]
      redis.call('ZADD', index, 0, id)
      redis.call('EXPIRE', index, ARGV[10])
      local over = redis.call('ZCARD', index) - tonumber(ARGV[11])
      if over > 0 then
        local cut = redis.call('ZRANGE', index, over - 1, over - 1)[1]
        redis.call('ZREMRANGEBYRANK', index, 0, over - 1)
        redis.call('SETEX', base .. 'vestnik:cut:' .. ARGV[i], ARGV[10], cut)
      end
      -- Ids whose messages expired leave with time; the newest stays (Q-179).
      for _, old in ipairs(redis.call('ZRANGE', index, 0, 1)) do
        if old ~= id and redis.call('EXISTS', base .. 'message:' .. old) == 0 then
          redis.call('ZREM', index, old)
        end
      end
    end
  end
  announced[n] = length(ARGV[at + 3] .. '\26' .. length(message))
  at = at + 5 + indexes
end
if count > 0 then
  local batch = {}
  for n = 1, count do batch[n] = '\10' .. announced[n] end
  local notification = '\10' .. length('\10' .. length(table.concat(batch)))
  redis.call(ARGV[8], ARGV[9], notification .. '\162\6' .. length(node))
end
return {number(epoch), number(seq), number(created), number(count)}
