// Who is signed in. The proof lives in this tab's session storage at the longest; nothing of it is ever in an address.

const KEPT = 'trust.session';

let proof = read(); // {kind: 'key', key, token} or {kind: 'token', token}
let person = null; // {org, role, messagingHost, key} as the service told

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

export const current = () => proof;
export const who = () => person;
export const mayChange = () => person?.role === 'operator';

export function keep(next, told) {
  proof = next;
  person = told;
  sessionStorage.setItem(KEPT, JSON.stringify(next));
}

export function setPerson(told) {
  person = told;
}

export function forget() {
  proof = person = null;
  sessionStorage.removeItem(KEPT);
}

/** The Authorization header for a proof (RFC 7617, RFC 6750). */
export function authorization(one = proof) {
  if (!one) return null;
  if (one.kind === 'token') return `Bearer ${one.token}`;
  const bytes = new TextEncoder().encode(`${one.key}:${one.token}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}
