-- Answers a refused CONNECT packet with a CONNACK packet. Without an answer, clients wait, or retry at once and for ever.
--
--   lua.without_bridge_bit  a converter of CONNECT packets
--   lua.refuse              the service that answers, for haproxy.cfg
--
-- Sources: MQTT 3.1.1, 3.2.2.3; MQTT 5.0, 3.2.2.2 (codes) and 3.2.2.3.9 (Reason String).

local NOT_AUTHORIZED = { v3 = 0x05, v5 = 0x87 }
-- The device is not at fault, and may try again later.
local UNAVAILABLE = { v3 = 0x03, v5 = 0x88 }
local IDENTIFIER_REJECTED = { v3 = 0x02, v5 = 0x85 }
local REASONS = {
  client_id_invalid = IDENTIFIER_REJECTED,
  client_id_missing = IDENTIFIER_REJECTED,
  edge_stale = UNAVAILABLE,
  too_long_to_register = UNAVAILABLE,
  unavailable = UNAVAILABLE,
}

-- A mosquitto bridge sets the highest bit of the protocol level (0x83, 0x84), which tells the broker that the client is
-- a bridge. HAProxy reads no CONNECT packet of such a level. The broker receives the packet as it was sent.
-- The packet is passed in hexadecimal digits, because HAProxy cuts a text that it passes to Lua at a zero byte. For every
-- other packet the result is empty.
local BRIDGES = {
  '^10[89A-F]?%x?[89A-F]?%x?[89A-F]?%x?[0-7]%x00044D51545484',
  '^10[89A-F]?%x?[89A-F]?%x?[89A-F]?%x?[0-7]%x00064D514973647083',
}
core.register_converters('without_bridge_bit', function(packet)
  for _, pattern in ipairs(BRIDGES) do
    local _, last = packet:find(pattern)
    if last then
      packet = packet:sub(1, last - 2) .. '0' .. packet:sub(last)
      return (packet:gsub('%x%x', function(digits) return string.char(tonumber(digits, 16)) end))
    end
  end
  return ''
end)

-- Returns a CONNACK packet of MQTT 5. The reason is text for people. It is left out where the packet would be longer
-- than the client accepts.
local function connack_5(code, reason, packet_max)
  local property = '\x1f' .. string.pack('>s2', reason)
  if #reason == 0 or #property + 5 > packet_max then property = '' end
  return string.char(0x20, #property + 3, 0, code, #property) .. property
end

core.register_service('refuse', 'tcp', function(applet)
  local reason = applet:get_var('sess.code') or ''
  local codes = REASONS[reason] or NOT_AUTHORIZED
  if tonumber(applet:get_var('sess.level')) ~= 5 then
    applet:send(string.char(0x20, 2, 0, codes.v3))
    return
  end
  local packet_max = tonumber(applet:get_var('sess.packet_max')) or 0
  if packet_max == 0 then packet_max = math.huge end -- the device sent no Maximum Packet Size
  local answer = connack_5(codes.v5, reason:sub(1, 64), packet_max)
  if #answer <= packet_max then applet:send(answer) end
end)
