// What a device's own log says about a failed connection: which side refused, and what to do next.
// TLS alerts: RFC 8446, 6.2, and RFC 6066, 3. MQTT: 3.1.1, 3.2.2.3, and 5.0, 3.2.2.2. mbed TLS: its error codes.

const REFUSALS = { href: '#/why', label: 'Recent refusals' };
const SERVERS = { href: '#/servers', label: 'Server certificates' };
const CAS = { href: '#/ca', label: 'CA certificates' };

/**
 * The kinds of failures, the more special first. *pattern*: found in the text, in any case. *who*: which side refused.
 * *why*, *next*: sentences. *links*: where to go on in the console.
 */
const KINDS = [
  {
    pattern: /unrecognized.?name|alert (?:number )?112\b/i, who: 'The TLS edge refused the handshake.',
    why: 'It serves no host of the name that the device sent (SNI).',
    next: 'Connect to the messaging host by its name, not by an IP address. Check that the organization is not suspended, and that a custom domain is switched on.',
    links: [{ href: '#/security', label: 'Custom domains' }],
  },
  {
    pattern: /alert unknown.?ca|unknown_ca|alert (?:number )?48\b/i, who: 'The side that did not write this line refused the certificate of the side that did.',
    why: 'It does not know the CA that signed the certificate.',
    next: 'In the log of the device: the broker checks client certificates itself and lacks your CA; let the broker ask this service. In the log of the broker or edge: the device does not trust the server certificate; install the CA of the server certificate on the device.',
    links: [CAS, SERVERS],
  },
  {
    pattern: /alert (?:certificate expired|number 45\b)|certificate_expired/i, who: 'The side that did not write this line refused the certificate of the side that did.',
    why: 'The certificate has expired, or the clock of the side that checks it is wrong.',
    next: 'Compare the dates of the certificate with the clock of the device. Renew the certificate that has expired.',
    links: [SERVERS, { href: '#/devices', label: 'Devices' }],
  },
  {
    pattern: /certificate.?verify.?failed|cert_verify_failed|-0x2700|unable to get (?:local )?issuer|self.?signed certificate|x509.*unknown authority|host ?name (?:mismatch|.*doesn.t match)|ip address mismatch/i,
    who: 'The device refused the server certificate.',
    why: 'The device does not trust the CA of the server certificate, the certificate has not the name that the device connects to, or the clock of the device is wrong.',
    next: 'Install the CA of the active server certificate on the device, connect to the messaging host by its name, and set the clock of the device.',
    links: [SERVERS],
  },
  {
    pattern: /protocol.?version|unsupported protocol|alert (?:number )?70\b|wrong version number/i, who: 'One side refused the TLS version.',
    why: 'The device offers no TLS version that the edge accepts, or one of the two does not use TLS at all.',
    next: 'Use TLS 1.2 or 1.3, and the TLS port of the messaging host.', links: [],
  },
  {
    pattern: /certificate required|alert (?:number )?116\b|peer did not return a certificate/i, who: 'The server refused the device.',
    why: 'The device sent no certificate.', next: 'Configure the certificate and the key of the device, or choose a security level that needs none.',
    links: [{ href: '#/security', label: 'Connection security' }],
  },
  {
    pattern: /handshake.?failure|alert (?:number )?40\b|no shared cipher|-0x7780|fatal alert/i, who: 'The server ended the TLS handshake.',
    why: 'The two sides have no cipher or TLS version in common, or the key of the device does not belong to its certificate.',
    next: 'Check that the key belongs to the certificate. Update the TLS library of the device.', links: [REFUSALS],
  },
  {
    pattern: /identifier.?rejected|client identifier not valid|\b0x85\b|\b133\b|connack\D{0,40}\b2\b|\b(?:rc|code)\W{0,3}2\b/i, who: 'This service refused the device.',
    why: 'The client ID has not the form of this organization, or does not belong to the certificate.',
    next: 'Find the device in the list of refusals: its explanation names the client ID that is expected.', links: [REFUSALS],
  },
  {
    pattern: /server.?unavailable|\b0x88\b|\b136\b|connack\D{0,40}\b3\b|\b(?:rc|code)\W{0,3}3\b/i, who: 'The broker or the edge had no verdict.',
    why: 'This service did not answer in time, or the broker could not reach it.',
    next: 'Try again. If it lasts, look whether calls of the broker or edge are refused.', links: [{ href: '#/brokers', label: 'Brokers and edges' }],
  },
  {
    pattern: /bad user.?name|\b0x86\b|\b134\b|connack\D{0,40}\b4\b|\b(?:rc|code)\W{0,3}4\b/i, who: 'The broker refused the user name or the password.',
    why: 'The certificate passed, or none was needed; the token that the device sends as password is wrong.',
    next: 'Correct the token on the device, or choose a security level that needs no token.', links: [{ href: '#/security', label: 'Connection security' }],
  },
  {
    pattern: /not.?authori[sz]ed|\b0x87\b|\b135\b|connack\D{0,40}\b5\b|\b(?:rc|code)\W{0,3}5\b/i, who: 'This service refused the device.',
    why: 'In MQTT 5, the Reason String has the code of the cause.',
    next: 'Find the device in the list of refusals: its explanation names the cause and the cure.', links: [REFUSALS],
  },
  {
    pattern: /getaddrinfo|enotfound|name or service not known|nodename nor servname|-0x52\b|could not resolve|unknown host/i, who: 'The device did not reach the service.',
    why: 'The host name has no address.', next: 'Check the host name and the DNS of the device.', links: [],
  },
  {
    pattern: /connection refused|econnrefused|timed? ?out|etimedout|-0x44\b|-0x6800|no route to host|unreachable/i, who: 'The device did not reach the service.',
    why: 'No program answers at the address and port, or a firewall drops the packets.', next: 'Check the port (8883 as a rule), the firewall and the load balancer.', links: [],
  },
  {
    pattern: /reset by peer|econnreset|\beof\b|-0x7280|-0x50\b|connection (?:was )?(?:lost|closed)|\brc\W{0,3}7\b|broken pipe/i, who: 'The other side closed the connection without an answer.',
    why: 'Brokers and proxies that cannot send a CONNACK packet refuse a device in this way.', next: 'Look for the device in the list of refusals.', links: [REFUSALS],
  },
];

/** Return what a line of a device's log means: {who, why, next, links}, or null. */
export const explainDeviceError = (text) => KINDS.find(({ pattern }) => pattern.test(text)) ?? null;
