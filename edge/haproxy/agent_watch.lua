-- Watches the sync agent. After each poll of edgeFeed that succeeded, the agent writes a new number into the table
-- `heartbeat`. Without the agent no withdrawal ends a session, and a revoked edge key looks like an agent that is away.
--
--   is_agent_stale()   whether new devices must be refused (code edge_stale), for verify_client.lua
--
-- Times are HAProxy's own, which never go back, and count from HAProxy's start. No clock of another program is compared.

local function read_seconds(name, default)
  local value = os.getenv(name)
  if not value or value == '' then return default end
  if not value:match('^%d+$') then error(name .. ' must be a whole number of seconds (see haproxy.cfg)') end
  return tonumber(value)
end

local REFUSE_AFTER = read_seconds('TRUST_EDGE_STALE_AFTER', 300)
local END_AFTER = read_seconds('TRUST_EDGE_END_AFTER', 0)
local ALARM_AFTER = REFUSE_AFTER > 0 and math.min(60, REFUSE_AFTER) or 60

local latest_number  -- in the table
local latest_at      -- when the number changed, in seconds; nil before the first look
local alarm_at       -- the age of the next line in the log

local function get_age()
  return latest_at and core.now().sec - latest_at or 0
end

function is_agent_stale()
  return REFUSE_AFTER > 0 and get_age() >= REFUSE_AFTER
end

local function end_all_sessions()
  for _, name in ipairs({ 'broker_trusting', 'broker_asking' }) do
    for _, server in pairs(core.backends[name].servers) do server:shut_sess() end
  end
end

local function look()
  local entry = core.backends['heartbeat'].stktable:lookup('agent')
  local number = entry and entry.gpt0
  if not latest_at or (number and number ~= latest_number) then
    if alarm_at and alarm_at > ALARM_AFTER then core.Info('the agent polls again') end
    latest_number, latest_at, alarm_at = number, core.now().sec, ALARM_AFTER
  end
  local age = get_age()
  if age >= alarm_at then
    local refusing = is_agent_stale() and 'new devices are refused' or 'withdrawn devices stay connected'
    core.Warning('the agent has not polled edgeFeed for ' .. age .. ' s: ' .. refusing)
    alarm_at = age + ALARM_AFTER
  end
  if END_AFTER > 0 and age >= END_AFTER then end_all_sessions() end
end

-- Without an agent (TRUST_EDGE_STALE_AFTER=0 and no TRUST_EDGE_END_AFTER) nothing is watched.
if REFUSE_AFTER > 0 or END_AFTER > 0 then
  core.register_task(function()
    while true do
      look()
      core.msleep(1000)
    end
  end)
end
