// The signed-in user. The credentials stay in this tab's session storage; no part of them is ever in an address.

const KEPT = 'trust.session';

let proof = read(); // {kind: 'key', key, token} or {kind: 'token', token}
let person = null; // {org, role, messagingHost, key} as the service returned it

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

export function keep(next, user) {
  proof = next;
  person = user;
  sessionStorage.setItem(KEPT, JSON.stringify(next));
}

export function setPerson(user) {
  person = user;
}

export function forget() {
  proof = person = null;
  sessionStorage.removeItem(KEPT);
}

/** Return the Authorization header for credentials (RFC 7617, RFC 6750). */
export function authorization(credentials = proof) {
  if (!credentials) return null;
  if (credentials.kind === 'token') return `Bearer ${credentials.token}`;
  const bytes = new TextEncoder().encode(`${credentials.key}:${credentials.token}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}
