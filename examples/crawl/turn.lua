-- A turn of a process, all or nothing: it hands in what it has done, and takes what it can do. See shared.rs.
-- KEYS: crawl:NAME, and crawl:NAME:RUN.
-- ARGV: the process, jobs wanted (-1: it leaves), beat (1 or 0), ms until a job is claimed, seconds that the keys live,
-- and once it is over; then for each job done: id, 1 if a page, bytes, 1 if an error, the number of its links, these.
-- Gives {over (2: the keys are gone), pages, bytes, requests, errors, open, processes} and {id, page, id, page, ...}.
local me, want, beat, claim_after = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]
local function key(what) return KEYS[2] .. ':' .. what end
local state, seen, jobs, waiting = key('state'), key('seen'), key('jobs'), key('waiting')
local function get(field) return tonumber(redis.call('HGET', state, field) or 0) end
local function add(field, number) redis.call('HINCRBY', state, field, number) end

local function totals()
    local numbers = {}
    for i, field in ipairs({'over', 'pages', 'bytes', 'requests', 'errors', 'open', 'processes'}) do
        numbers[i] = get(field)
    end
    return numbers
end
if redis.call('EXISTS', state) == 0 then return {{2, 0, 0, 0, 0, 0, 0}, {}} end
if get('over') == 1 then return {totals(), {}} end

-- 1. Hand in. A job that is not pending any more was done by another process: it counts once.
local at = 7
while at <= #ARGV do
    local id, links = ARGV[at], tonumber(ARGV[at + 4])
    if redis.call('XACK', jobs, 'crawl', id) == 1 then
        redis.call('XDEL', jobs, id)
        local open = -1
        for i = at + 5, at + 4 + links do
            if redis.call('SADD', seen, ARGV[i]:match('^%S+')) == 1 then
                redis.call('XADD', jobs, '*', 'page', ARGV[i])
                open = open + 1
            end
        end
        add('requests', 1)
        add('pages', ARGV[at + 1])
        add('bytes', ARGV[at + 2])
        add('errors', ARGV[at + 3])
        add('open', open)
    end
    at = at + 5 + links
end

local taken = {}
local function take(entries)
    for _, entry in ipairs(entries) do
        taken[#taken + 1] = entry[1]
        taken[#taken + 1] = entry[2][2]
    end
end
local function missing() return want - #taken / 2 end
-- Hands all jobs of ours to a process.
local function pass(to, idle)
    local first = '-'
    repeat
        local found = redis.call('XPENDING', jobs, 'crawl', first, '+', 1000, me)
        local call = {'XCLAIM', jobs, 'crawl', to, 0}
        for _, job in ipairs(found) do
            call[#call + 1] = job[1]
            first = '(' .. job[1]
        end
        for _, option in ipairs({'IDLE', idle, 'JUSTID'}) do call[#call + 1] = option end
        if #found > 0 then redis.call(unpack(call)) end
    until #found < 1000
end
local function pending() return redis.call('XPENDING', jobs, 'crawl')[1] end

redis.call('SREM', waiting, me)
-- 2. Leave: the jobs are nobody's, and have been idle for long: the next beat of any process claims them.
if want < 0 then pass('nobody', 1000000000) end
if beat then
    -- 3. A sign of life: what is ours is not idle.
    pass(me, 0)
    for _, each in ipairs({KEYS[1], state, seen, jobs, waiting}) do redis.call('EXPIRE', each, ARGV[5]) end
    -- 4. Claim what the dead have left.
    local from = '0-0'
    while missing() > 0 do
        local claimed = redis.call('XAUTOCLAIM', jobs, 'crawl', me, claim_after, from, 'COUNT', missing())
        take(claimed[2])
        from = claimed[1]
        if from == '0-0' then break end
    end
end
-- 5. Take. No more are under way anywhere than may still be pages: the limit is met exactly.
local function room() return get('limit') - get('pages') - pending() end
local most = math.min(missing(), room())
if most > 0 then
    local read = redis.call('XREADGROUP', 'GROUP', 'crawl', me, 'COUNT', most, 'STREAMS', jobs, '>')
    if read then take(read[1][2]) end
end
if missing() > 0 then
    redis.call('SADD', waiting, me)
    redis.call('EXPIRE', waiting, ARGV[5])
end

-- 6. Wake the others, if there is something for them: jobs, or the end.
local over = get('open') == 0 or get('pages') >= get('limit')
if over or (get('open') > pending() and room() > 0) then
    for _, process in ipairs(redis.call('SMEMBERS', waiting)) do
        redis.call('LPUSH', key('wake:' .. process), 1)
        redis.call('EXPIRE', key('wake:' .. process), ARGV[6])
    end
    redis.call('DEL', waiting)
end
if over then
    redis.call('HSET', state, 'over', 1)
    redis.call('DEL', seen, jobs)
    redis.call('EXPIRE', state, ARGV[6])
end
return {totals(), taken}
