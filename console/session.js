// The signed-in user. The credentials stay in the session storage of the tabs of this console; no part of them is ever in
// an address or on the disk. A new tab asks the open tabs for them, and signing out ends all tabs of the organization.

const KEPT = 'trust.session';
const CHANNEL = 'trust.session';
const SIGNED_OUT = 'trust.signed-out';
const PATIENCE = 300; // ms that a new tab waits for the open ones
const LAST_REQUEST = 'trust.last-request'; // in the local storage, for all tabs: a time, and no secret
const IDLE = 12 * 3_600_000; // ms without a request, after which a session ends
const IDLE_ENDED = 'trust.idle';
const MINUTE = 60_000;

let proof = read(); // {kind: 'key', key, token} or {kind: 'token', token}
let idle = (proof !== null && isIdle()) || sessionStorage.getItem(IDLE_ENDED) !== null;
let noted = 0;
sessionStorage.removeItem(IDLE_ENDED);
if (idle) forgetProof();
let person = null; // {org, role, messagingHost, key} as the service returned it

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

/** Return whether no tab made a request for 12 hours. */
function isIdle(now = Date.now()) {
  const last = Number(localStorage.getItem(LAST_REQUEST));
  return last > 0 && now - last > IDLE;
}

/** Note that a request is made. The time is written once a minute at most. */
export function noteRequest(now = Date.now()) {
  if (now - noted < MINUTE) return;
  noted = now;
  localStorage.setItem(LAST_REQUEST, String(now));
}

/** Return whether this tab's session ended because no tab made a request for 12 hours. */
export const wasIdle = () => idle && !person;

setInterval(() => {
  if (!proof || !isIdle()) return;
  end();
  sessionStorage.setItem(IDLE_ENDED, 'yes');
  ended();
}, MINUTE);

export const current = () => proof;
export const who = () => person;
export const mayChange = () => person?.role === 'operator';

export function keep(next, user) {
  idle = false;
  noteRequest();
  proof = next;
  person = user;
  sessionStorage.setItem(KEPT, JSON.stringify(next));
}

/** Resolve to the credentials of an open tab, or to null. Only pages of this origin hear the question. */
export function fromOtherTab() {
  return new Promise((resolve) => {
    const channel = new BroadcastChannel(CHANNEL);
    const done = (found) => { channel.close(); resolve(found); };
    channel.onmessage = ({ data }) => data?.proof && done(data.proof);
    channel.postMessage({ ask: true });
    setTimeout(() => done(null), PATIENCE);
  });
}

const tabs = new BroadcastChannel(CHANNEL);
let ended = () => {};

tabs.onmessage = ({ data }) => {
  if (data?.ask && proof && person && !isIdle()) tabs.postMessage({ proof });
  if (data?.end && data.end === person?.org) {
    forgetProof();
    sessionStorage.setItem(SIGNED_OUT, 'yes');
    ended();
  }
};

/** Call *then* when another tab signs out of this organization. */
export function onEnd(then) {
  ended = then;
}

/** Sign out, in every tab of this organization. The next page of this tab asks no other tab: it shows the sign-in. */
export function end() {
  tabs.postMessage({ end: person?.org });
  forgetProof();
  sessionStorage.setItem(SIGNED_OUT, 'yes');
}

/** Return, once, whether this tab has just signed out. */
export function hasSignedOut() {
  const is = sessionStorage.getItem(SIGNED_OUT) !== null;
  sessionStorage.removeItem(SIGNED_OUT);
  return is;
}

export function setPerson(user) {
  person = user;
}

export function forget() {
  forgetProof();
  person = null;
}

/** Forget the credentials alone. Answers that arrive until the page is replaced are still drawn for the same user. */
function forgetProof() {
  proof = null;
  sessionStorage.removeItem(KEPT);
}

/** Return the Authorization header for credentials (RFC 7617, RFC 6750). */
export function authorization(credentials = proof) {
  if (!credentials) return null;
  if (credentials.kind === 'token') return `Bearer ${credentials.token}`;
  const bytes = new TextEncoder().encode(`${credentials.key}:${credentials.token}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}
