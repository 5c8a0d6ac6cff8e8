// Recognize what a file holds by its bytes, before anything is sent, so that no private key is sent by mistake.
// Only the outer shape is recognized; the service judges the content. Shapes: RFC 7468 (PEM), RFC 5958, 8017, 5915
// (keys), RFC 7292 (PKCS#12), RFC 5652 (PKCS#7), RFC 2986 (requests); key stores of Java and Bouncy Castle.

const LABEL = /-----BEGIN ([A-Z0-9 #.]{1,60})-----/g;

/**
 * Return {pem, text, certificates, key, request, pkcs12, keyStore}. *key* is null, 'plain' or 'encrypted'; *certificates*
 * is the apparent number of certificates; *text* is set if the file is PEM; *keyStore* is null, 'JKS', 'JCEKS' or 'BKS'.
 */
export function sniff(bytes) {
  for (let depth = 0; depth < 3; depth++) {
    const text = unescape(asText(bytes));
    const labels = [...text.matchAll(LABEL)].map((hit) => hit[1]);
    if (labels.length) return ofPem(text, labels);
    const content = ofBase64(text);
    if (!content) break;
    bytes = content;
  }
  return ofDer(bytes);
}

// The same forms as in shared/x509/file_forms.py: UTF-16 without a mark, the escapes of JSON, base64 without a BEGIN line.

/** Undo the escapes of JSON in PEM, which has no backslash. */
function unescape(text) {
  if (!text.includes('\\') || !text.includes('-----BEGIN')) return text;
  return text
    .replace(/\\+u00([0-9a-f]{2})/gi, (_, code) => String.fromCharCode(parseInt(code, 16)))
    .replace(/\\+([nrt/])/g, (_, letter) => ({ n: '\n', r: '\r', t: '\t' })[letter] ?? letter);
}

/** Return the bytes that base64 text encodes; null for other text. */
function ofBase64(text) {
  const packed = text.replace(/[\s\0"']/g, '');
  if (!/^[A-Za-z0-9+/_-]{40,}={0,2}$/.test(packed)) return null;
  const digits = packed.replace(/=+$/, '').replaceAll('-', '+').replaceAll('_', '/');
  if (digits.length % 4 === 1) return null;
  return Uint8Array.from(atob(digits), (character) => character.charCodeAt(0));
}

function ofPem(text, labels) {
  const keys = labels.filter((label) => label.endsWith('PRIVATE KEY'));
  const encrypted = keys.includes('ENCRYPTED PRIVATE KEY') || /Proc-Type:\s*4,\s*ENCRYPTED/.test(text);
  return {
    pem: true,
    text,
    certificates: labels.filter((label) => /CERTIFICATE$|^PKCS ?#?7|^CMS$/.test(label)).length,
    key: keys.length ? (encrypted ? 'encrypted' : 'plain') : null,
    request: labels.some((label) => label.endsWith('CERTIFICATE REQUEST')),
    pkcs12: labels.some((label) => /^(PKCS ?#?12|PFX)$/.test(label)),
    keyStore: null,
  };
}

// The same formats as in shared/x509/file_forms.py
const KEY_STORES = [
  ['JKS', [0xfe, 0xed, 0xfe, 0xed]], ['JCEKS', [0xce, 0xce, 0xce, 0xce]],
  ['BKS', [0, 0, 0, 1, 0, 0, 0, 20]], ['BKS', [0, 0, 0, 2, 0, 0, 0, 20]],
];
const KEY_STORE_OPTIONS = {
  JKS: '', JCEKS: ' -{}storetype JCEKS',
  BKS: ' -{}storetype BKS -providerclass org.bouncycastle.jce.provider.BouncyCastleProvider -providerpath bcprov.jar',
};

function keyStoreOf(bytes) {
  const begins = (magic) => bytes.length > 32 && magic.every((octet, at) => bytes[at] === octet);
  return KEY_STORES.find(([, magic]) => begins(magic))?.[0] ?? null;
}

/** Return why a key store is not read, with the commands that convert it: as the service says it. */
export function refuseKeyStore(kind) {
  const store = `store.${kind.toLowerCase()}`;
  const options = (prefix) => KEY_STORE_OPTIONS[kind].replace('{}', prefix);
  return `This file is a Java key store (${kind}). `
    + `For a certificate alone, run: keytool -exportcert -rfc -keystore ${store}${options('')} -alias NAME -file certificate.pem `
    + `For a certificate with its key, run: keytool -importkeystore -srckeystore ${store}${options('src')} -destkeystore file.p12 -deststoretype PKCS12`;
}

function ofDer(bytes) {
  const nothing = { pem: false, text: null, certificates: 0, key: null, request: false, pkcs12: false, keyStore: keyStoreOf(bytes) };
  if (nothing.keyStore) return nothing;
  const outer = element(bytes, 0);
  // A PKCS#12 file in BER: a SEQUENCE of indefinite length that begins with version 3 (RFC 7292, section 4)
  if ([0x30, 0x80, 0x02, 0x01, 0x03].every((octet, at) => bytes[at] === octet)) return { ...nothing, pkcs12: true };
  if (!outer || outer.tag !== 0x30) return nothing;
  const parts = children(bytes, outer);
  const tags = parts.map((part) => part.tag).join(' ');
  const first = parts[0] && bytes.subarray(parts[0].start, parts[0].end);
  const number = first?.length === 1 ? first[0] : -1;
  if (/^48 4$/.test(tags) && element(bytes, parts[0].start)?.tag === 0x06) return { ...nothing, key: 'encrypted' };
  if (/^2 48 4\b/.test(tags) && (number === 0 || number === 1)) return { ...nothing, key: 'plain' };
  if (/^2 4\b/.test(tags) && number === 1) return { ...nothing, key: 'plain' };
  if (/^2( 2){5}/.test(tags)) return { ...nothing, key: 'plain' };
  if (/^2 48\b/.test(tags) && number === 3) return { ...nothing, pkcs12: true };
  if (/^48 48 3$/.test(tags)) {
    // The signed part of a certificate or request. A request begins with its version, then a name, then a key.
    const inner = children(bytes, parts[0]).map((part) => part.tag).join(' ');
    return /^2 48 48( 160)?$/.test(inner) ? { ...nothing, request: true } : { ...nothing, certificates: 1 };
  }
  return { ...nothing, certificates: /^6 160$/.test(tags) ? 1 : 0 };
}

function element(bytes, at) {
  if (at + 2 > bytes.length) return null;
  let start = at + 2, length = bytes[at + 1];
  if (length > 0x7f) {
    const octets = length & 0x7f;
    if (octets === 0 || octets > 4 || start + octets > bytes.length) return null;
    length = 0;
    for (let octet = 0; octet < octets; octet++) length = length * 256 + bytes[start++];
  }
  return start + length > bytes.length ? null : { tag: bytes[at], start, end: start + length };
}

function children(bytes, parent) {
  const elements = [];
  for (let at = parent.start; at < parent.end;) {
    const child = element(bytes, at);
    if (!child) break;
    elements.push(child);
    at = child.end;
  }
  return elements;
}

function asText(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder('utf-16le').decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder('utf-16be').decode(bytes);
  // Without a mark, every second octet of ASCII text in UTF-16 is zero.
  const zeros = [0, 0];
  bytes.forEach((octet, at) => { if (octet === 0) zeros[at % 2] += 1; });
  const enough = Math.max(20, 0.45 * bytes.length);
  if (zeros[1] > enough) return new TextDecoder('utf-16le').decode(bytes);
  if (zeros[0] > enough) return new TextDecoder('utf-16be').decode(bytes);
  return new TextDecoder().decode(bytes);
}

/** Return only the certificates of a PEM text, for a preview without the key. */
export function certificatesOf(text) {
  const blocks = text.match(/-----BEGIN ([A-Z0-9 ]*CERTIFICATE|PKCS7|CMS)-----[\s\S]*?-----END \1-----/g);
  return blocks ? blocks.join('\n') : '';
}

/** Encode a file as the API takes it: PEM as text, anything else as base64. */
export function wire(bytes) {
  const content = sniff(bytes);
  if (content.pem) return content.text;
  let binary = '';
  for (let at = 0; at < bytes.length; at += 0x8000) binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(binary);
}
