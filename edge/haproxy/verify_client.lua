-- Requests a verdict from verifyClient for a device that sent a CONNECT packet, and sets variables:
--   sess.verdict  allow or continue; every other value is a refusal
--   sess.code     the reason, for the log
--   sess.who      the session's key in the table `sessions`
--   sess.refused  the key in the table `refused`, where this file refuses a client that verifyClient let pass
-- After any failure, the verdict is neither allow nor continue, and the rules in haproxy.cfg refuse the session.

local function read_setting(name)
  local value = os.getenv(name)
  if not value or value == '' then error('set ' .. name .. ' (see haproxy.cfg)') end
  return value
end

-- Read at the start, while HAProxy still has the rights to read the file.
local function read_key()
  local path = read_setting('TRUST_BROKER_KEY_FILE')
  local file = assert(io.open(path, 'r'))
  local line = file:read('l')
  file:close()
  assert(line and line:match('^[^:%s]+:%S+$'), path .. ' must hold one line, key:token')
  return line
end

-- Returns scheme, host, port and path of an address of the functions. The host is compared as a whole:
-- `127.evil.example` is a name of another machine.
local function parse_url(url)
  local scheme, authority, path = (url .. '/'):match('^(https?)://([^/?#@%s]+)(/[^?#%s]*)$')
  local host, port = (authority or ''):match('^(%[[%x:.]+%])(:?%d*)$')
  if not host then host, port = (authority or ''):match('^([%w._-]+)(:?%d*)$') end
  if not host or port == ':' then error('TRUST_URL must be https://host[:port], or http:// on this machine') end
  port = port ~= '' and tonumber(port:sub(2)) or (scheme == 'https' and 443 or 80)
  return scheme, host:lower(), port, (path:gsub('/+$', ''))
end

local function is_ipv4(host)
  local octets = { host:match('^(%d+)%.(%d+)%.(%d+)%.(%d+)$') }
  for _, octet in ipairs(octets) do
    if #octet > 3 or tonumber(octet) > 255 then return false end
  end
  return #octets == 4
end

local function is_this_machine(host)
  return host == 'localhost' or host == '[::1]' or (is_ipv4(host) and host:match('^127%.') ~= nil)
end

local SCHEME, HOST, PORT, PATH = parse_url(read_setting('TRUST_URL'))
if SCHEME == 'http' and not is_this_machine(HOST) then
  error('TRUST_URL must be https://, or http:// on this machine: requests contain an API key')
end
-- The address, where the host is one. Other hosts are resolved by haproxy.cfg.
local ADDRESS = HOST == 'localhost' and '127.0.0.1' or HOST:match('^%[(.+)%]$') or (is_ipv4(HOST) and HOST) or ''
local CALLOUT = 'unix@' .. read_setting('TRUST_EDGE_SOCKET') .. '.ask' -- the frontend `callout` of haproxy.cfg
local KEY = read_key()
local BROKER_BINDS_TOKENS = os.getenv('BROKER_BINDS_TOKENS') == 'true'
local SESSION_KEY_MAX = 999 -- characters of a key of the table `sessions`; HAProxy truncates longer keys silently
local TIMEOUT = 2500 -- ms; the function's deadline is 2 s, and haproxy.cfg gives up after 2.2 s

local AUTHORIZATION -- set at the first request: the base64 converter needs a transaction

local function quote(text)
  return '"' .. text:gsub('[%c"\\\127]', function(c) return string.format('\\u%04x', c:byte()) end) .. '"'
end

-- Returns the seconds since 1970 of a time like 2026-06-01T12:00:00Z, or 0.
local function parse_time(time)
  local y, m, d, h, min, s = (time or ''):match('^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)')
  if not y then return 0 end
  y, m, d = tonumber(y), tonumber(m), tonumber(d)
  if m <= 2 then y, m = y - 1, m + 12 end -- days since 1970, Gregorian
  local days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * (m - 3) + 2) // 5 + d - 719469
  return days * 86400 + tonumber(h) * 3600 + tonumber(min) * 60 + tonumber(s)
end

-- Returns the fingerprints (SHA-256, the first 16 hex digits) of the device's certificate, and those of the other
-- certificates that the device sent. The response has a list for each certificate. For an ECDSA signature the list has
-- two fingerprints, because the signature has two equivalent forms, and the device may send either.
-- The lists are parsed here, because json_query does not support `[0][1]`. A string in the response cannot contain the
-- pattern, because its quotes are escaped.
local function read_fingerprints(body)
  local lists, leaf, others = body:match('"fingerprintsSha256":(%b[])') or '[]', {}, {}
  local target = leaf
  for list in lists:sub(2, -2):gmatch('%b[]') do
    for sha256 in list:gmatch('%x+') do target[#target + 1] = sha256:sub(1, 16) end
    target = others
  end
  return table.concat(leaf, ','), table.concat(others, ',')
end

-- Returns a list of digests of the path, the device's certificate first. An element may be empty.
local function read_digests(body, name)
  local digests = {}
  for digest in (body:match('"' .. name .. '":%s*(%b[])') or ''):gmatch('"(%x*)"') do digests[#digests + 1] = digest end
  return digests
end

-- Returns digests as text. A path that is too long keeps its first and last digest and the mark `*`: the agent then
-- asks the functions again.
local function join_digests(digests, is_short)
  if is_short and #digests > 2 then return digests[1] .. ',' .. digests[#digests] .. ',*' end
  return table.concat(digests, ',')
end

-- Returns the session's key in the table `sessions`, or nil if the key would be too long.
local function make_key(fields, keys, serials)
  for _, is_short in ipairs({ false, true }) do
    local others = is_short and '' or fields.others
    local key = table.concat({
      fields.source, fields.org, fields.identity, fields.ca, fields.leaf, fields.serial, fields.ends, others,
      join_digests(keys, is_short), join_digests(serials, is_short), fields.server_name, fields.basis,
    }, '|')
    if #key <= SESSION_KEY_MAX then return key end
  end
end

-- Returns whether the response is complete. An answer that was cut off could lack what limits an `allow`.
local function is_whole(response)
  local body, length = response.body, (response.headers['content-length'] or {})[0]
  if length and tonumber(length) ~= #body then return false end
  local structure = body:gsub('\\.', ''):gsub('"[^"]*"', '') -- without strings, whose braces do not count
  return structure:match('^%s*%b{}%s*$') ~= nil and not structure:find('"', 1, true)
end

core.register_action('verify_client', {'tcp-req'}, function(txn)
  if txn:get_var('sess.verdict') then return end
  txn:set_var('sess.verdict', 'error')
  txn:set_var('sess.code', 'unavailable')
  if is_agent_stale() then -- no withdrawal would end this session
    txn:set_var('sess.code', 'edge_stale')
    return
  end
  local cid = txn:get_var('sess.cid')
  if not cid or cid == '' then -- the broker would assign a client ID, which no verdict has checked
    txn:set_var('sess.code', 'client_id_missing')
    return
  end
  if not utf8.len(cid) then -- the request is JSON, which cannot hold this text (MQTT 3.1.1, 1.5.3)
    txn:set_var('sess.verdict', 'deny')
    txn:set_var('sess.code', 'client_id_invalid')
    return
  end
  AUTHORIZATION = AUTHORIZATION or 'Basic ' .. txn.c:base64(KEY)
  local fields = { '"tls":true', '"clientId":' .. quote(cid) }
  local sni, leaf, chain = txn.f:ssl_fc_sni(), txn.f:ssl_c_der(), txn.f:ssl_c_chain_der()
  if sni and sni ~= '' then fields[#fields + 1] = '"serverName":' .. quote(sni) end
  if leaf and leaf ~= '' then fields[#fields + 1] = '"certificateDer":"' .. txn.c:base64(leaf) .. '"' end
  if chain and chain ~= '' then fields[#fields + 1] = '"chainDer":"' .. txn.c:base64(chain) .. '"' end
  local body = '{' .. table.concat(fields, ',') .. '}'
  txn:set_var('proc.functions_tls', SCHEME == 'https')
  txn:set_var('proc.functions_address', ADDRESS)
  txn:set_var('proc.functions_host', HOST)
  txn:set_var('proc.functions_port', PORT)
  local response = core.httpclient():post{
    url = 'http://' .. HOST .. ':' .. PORT .. PATH .. '/api/v0002/verifyClient',
    dst = CALLOUT,
    headers = {
      ['content-type'] = { 'application/json' },
      ['content-length'] = { tostring(#body) }, -- otherwise the body is sent in chunks
      ['authorization'] = { AUTHORIZATION },
    },
    body = body,
    timeout = TIMEOUT,
  }
  if not response or response.status ~= 200 or not response.body then
    core.Warning('verifyClient did not answer: ' .. tostring(response and response.status or 'no connection'))
    return
  end
  if not is_whole(response) then
    core.Warning('verifyClient\'s answer is not complete')
    return
  end
  local function query(path) return txn.c:json_query(response.body, path) end
  local decision, org = query('$.decision'), query('$.orgId')
  txn:set_var('sess.code', query('$.code') or 'unavailable')
  local class, type_id, device_id = query('$.identity.class'), query('$.identity.typeId'), query('$.identity.deviceId')
  -- A verdict that is not bound identifies the holder of the certificate, but does not check the client ID.
  if decision == 'allow' and query('$.bound') ~= 1 then decision = 'unbound' end -- json_query returns 1 for true
  if (decision ~= 'allow' and decision ~= 'continue') or not org or org == '' then
    txn:set_var('sess.verdict', decision == 'deny' and 'deny' or 'error')
    return
  end
  -- The broker checks the user name and the token. It does not check that the user name belongs to this client ID: a
  -- client could use the token of a device that also needs a certificate. So the names are compared here. A token
  -- without a user name (MQTT 5 permits a password alone, for example a JWT) names no device that could be compared.
  if decision == 'continue' and not BROKER_BINDS_TOKENS then
    local user = txn:get_var('sess.user') or ''
    if user:gsub('/', ':') ~= cid then
      txn:set_var('sess.verdict', 'deny')
      txn:set_var('sess.code', user == '' and 'user_name_missing' or 'token_of_another')
      txn:set_var('sess.refused', org .. '|' .. txn:get_var('sess.code'))
      return
    end
  end
  local identity = class and type_id and table.concat({ class, type_id, device_id or '' }, ':') or '-'
  local leaf_fingerprints, other_fingerprints = read_fingerprints(response.body)
  -- Functions of an earlier version return no fingerprints, and no withdrawal could end the session.
  if decision == 'allow' and leaf_fingerprints == '' then
    txn:set_var('sess.code', 'unavailable')
    return
  end
  local serial = leaf and leaf ~= '' and txn.c:hex(txn.f:ssl_c_serial()):lower() or '-'
  -- A server name of other characters cannot have a certificate of an organization.
  local server_name = (sni or ''):match('^[%w.-]+$') or ''
  -- `show sess` lists the connection's own address, which differs from the device's behind a load balancer.
  local who = make_key({
    source = txn.f:fc_src() .. ':' .. txn.f:fc_src_port(), org = org, identity = identity, ca = query('$.ca.id') or '-',
    leaf = leaf_fingerprints, serial = serial, ends = tostring(parse_time(query('$.expiresAt'))),
    others = other_fingerprints, server_name = server_name:lower(),
    basis = (query('$.basis') or ''):match('^[%w.]+$') or '', -- a text that only the functions read
  }, read_digests(response.body, 'keyDigests'), read_digests(response.body, 'serialDigests'))
  if not who then
    txn:set_var('sess.code', 'too_long_to_register')
    return
  end
  txn:set_var('sess.who', who)
  txn:set_var('sess.verdict', decision)
end, 0)
