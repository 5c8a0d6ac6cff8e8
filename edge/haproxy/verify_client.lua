-- Requests a verdict from verifyClient for a device that sent a CONNECT packet, and sets variables:
--   sess.verdict  allow or continue; every other value is a refusal
--   sess.code     the reason, for the log
--   sess.who      the session's key in the table `sessions`
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

local URL = read_setting('TRUST_URL'):gsub('/+$', '')
if not (URL:match('^https://') or URL:match('^http://127%.') or URL:match('^http://%[::1%]')) then
  error('TRUST_URL must be https://, or http:// on this machine: requests contain an API key')
end
local KEY = read_key()
local BROKER_BINDS_TOKENS = os.getenv('BROKER_BINDS_TOKENS') == 'true'
local SESSION_KEY_MAX = 599 -- characters of a key of the table `sessions`; HAProxy truncates longer keys silently
local TIMEOUT = 2500 -- ms; the function's deadline is 2 s

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

core.register_action('verify_client', {'tcp-req'}, function(txn)
  if txn:get_var('sess.verdict') then return end
  txn:set_var('sess.verdict', 'error')
  txn:set_var('sess.code', 'unavailable')
  local cid = txn:get_var('sess.cid')
  if not cid or cid == '' then -- the broker would assign a client ID, which no verdict has checked
    txn:set_var('sess.code', 'client_id_missing')
    return
  end
  AUTHORIZATION = AUTHORIZATION or 'Basic ' .. txn.c:base64(KEY)
  local fields = { '"tls":true', '"clientId":' .. quote(cid) }
  local sni, leaf, chain = txn.f:ssl_fc_sni(), txn.f:ssl_c_der(), txn.f:ssl_c_chain_der()
  if sni and sni ~= '' then fields[#fields + 1] = '"serverName":' .. quote(sni) end
  if leaf and leaf ~= '' then fields[#fields + 1] = '"certificateDer":"' .. txn.c:base64(leaf) .. '"' end
  if chain and chain ~= '' then fields[#fields + 1] = '"chainDer":"' .. txn.c:base64(chain) .. '"' end
  local body = '{' .. table.concat(fields, ',') .. '}'
  local response = core.httpclient():post{
    url = URL .. '/api/v0002/verifyClient',
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
  -- client could use the token of a device that also needs a certificate. So the names are compared here. A client
  -- without a user name is refused by the broker.
  local user = txn:get_var('sess.user')
  if decision == 'continue' and user and not BROKER_BINDS_TOKENS and user:gsub('/', ':') ~= cid then
    txn:set_var('sess.verdict', 'deny')
    txn:set_var('sess.code', 'token_of_another')
    return
  end
  local identity = class and type_id and table.concat({ class, type_id, device_id or '' }, ':') or '-'
  local leaf_fingerprints, other_fingerprints = read_fingerprints(response.body)
  -- Functions of an earlier version return no fingerprints, and no withdrawal could end the session.
  if decision == 'allow' and leaf_fingerprints == '' then
    txn:set_var('sess.code', 'unavailable')
    return
  end
  local serial = leaf and leaf ~= '' and txn.c:hex(txn.f:ssl_c_serial()):lower() or '-'
  local who = table.concat({
    txn.f:src() .. ':' .. txn.f:src_port(), org, identity, query('$.ca.id') or '-',
    leaf_fingerprints, serial, tostring(parse_time(query('$.expiresAt'))), other_fingerprints,
  }, '|')
  if #who > SESSION_KEY_MAX then
    txn:set_var('sess.code', 'too_long_to_register')
    return
  end
  txn:set_var('sess.who', who)
  txn:set_var('sess.verdict', decision)
end, 0)
