-- Send each request that the environment names once, and stop. Print the result as one line of JSON.
-- One thread sends (wrk -t1); its time ends with the last answer, not with wrk's own duration.
local ffi = require('ffi')
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } storm_time;
  int clock_gettime(int clock, storm_time *time);
  int getpid(void);
  int kill(int pid, int signal);
]]

local function now()
  local time = ffi.new('storm_time')
  ffi.C.clock_gettime(1, time) -- CLOCK_MONOTONIC
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

local headers = { ['Content-Type'] = 'application/json', Authorization = os.getenv('ASK_AUTHORIZATION') }
local bodies, sent, answered, threads = {}, 0, 0, {}
allowed, began, ended, total = 0, 0, 0, 0 -- globals: done() reads the variables of a thread by name

function setup(thread)
  threads[#threads + 1] = thread
end

function init()
  for body in io.lines(os.getenv('ASK_BODIES')) do bodies[#bodies + 1] = body end
  total = #bodies
end

function request()
  if sent == 0 then began = now() end
  sent = sent + 1
  -- A connection that has nothing left to ask repeats the last question; its answer is not counted
  return wrk.format('POST', wrk.path, headers, bodies[math.min(sent, total)])
end

function response(status, _, body)
  if answered == total then return end
  answered = answered + 1
  if status == 200 and body:find('"decision":"allow"', 1, true) then allowed = allowed + 1 end
  if answered == total then
    ended = now()
    ffi.C.kill(ffi.C.getpid(), 2) -- SIGINT: wrk would sleep until its duration is over
  end
end

function done(_, latency)
  local thread = threads[1]
  io.write(string.format('{"requests":%d,"allowed":%d,"seconds":%f,"p50":%f,"p99":%f}\n',
    thread:get('total'), thread:get('allowed'), thread:get('ended') - thread:get('began'),
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
