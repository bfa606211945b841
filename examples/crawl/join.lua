-- A process joins a crawl; the first one begins it. The protocol is told in shared.rs.
-- KEYS: crawl:NAME. ARGV: limit, hosts, seconds that the keys live, then the pages to begin with.
-- Gives the run and the process's number, or 0 and what is wrong.
local run = tonumber(redis.call('GET', KEYS[1]) or 0)
local function key(what) return KEYS[1] .. ':' .. run .. ':' .. what end

local known = redis.call('HMGET', key('state'), 'over', 'limit', 'hosts')
if known[1] ~= '0' then -- none that goes on
    run = redis.call('INCR', KEYS[1])
    redis.call('DEL', key('state'), key('seen'), key('jobs'), key('waiting'))
    redis.call('HSET', key('state'), 'over', 0, 'limit', ARGV[1], 'hosts', ARGV[2])
    redis.call('XGROUP', 'CREATE', key('jobs'), 'crawl', '0', 'MKSTREAM')
elseif known[2] ~= ARGV[1] then
    return {0, 'goes on with --limit ' .. known[2] .. ', not ' .. ARGV[1]}
elseif known[3] ~= ARGV[2] then
    return {0, 'goes on for ' .. known[3] .. ', not ' .. ARGV[2]}
end

for i = 4, #ARGV do
    if redis.call('SADD', key('seen'), ARGV[i]) == 1 then
        redis.call('XADD', key('jobs'), '*', 'page', ARGV[i])
        redis.call('HINCRBY', key('state'), 'open', 1)
    end
end
for _, each in ipairs({KEYS[1], key('state'), key('seen'), key('jobs')}) do
    redis.call('EXPIRE', each, ARGV[3])
end
return {run, tostring(redis.call('HINCRBY', key('state'), 'processes', 1))}
