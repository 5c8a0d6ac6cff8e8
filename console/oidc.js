// Sign-in through OpenID Connect: authorization code with PKCE (RFC 6749, RFC 7636; OpenID Connect Core 1.0, 3.1).
// The sign-in happens in this tab by redirect, back to the same page. Over an open form it happens in a second window,
// so that no input is lost. That window passes back only the code: verifier and nonce never leave this tab.

import { Problem, api } from './api.js';

const KEPT = 'trust.oidc';
const CHANNEL = 'trust.signin';
const WINDOW = 'w.'; // prefix of the state of a sign-in in a second window

const back = () => `${location.origin}/console/`;
const failed = (why) => new Problem(0, { code: 'sign_in_failed', detail: `Signing in did not work: ${why}. Try again.` });

const encoded = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
const random = () => encoded(crypto.getRandomValues(new Uint8Array(32)));

async function request(where, prefix) {
  const { authorization_endpoint: endpoint, token_endpoint: tokens } = await api.discover(where.issuer);
  const started = { ...where, tokens, state: prefix + random(), nonce: random(), verifier: random(), hash: location.hash };
  const challenge = encoded(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(started.verifier))));
  const url = new URL(endpoint);
  const fields = {
    response_type: 'code', client_id: where.clientId, redirect_uri: back(), scope: 'openid', state: started.state,
    nonce: started.nonce, code_challenge: challenge, code_challenge_method: 'S256',
    // Some issuers take the service's name from this parameter; others ignore it (RFC 6749, 3.1).
    ...(where.audience !== where.clientId && { audience: where.audience }),
  };
  for (const [name, value] of Object.entries(fields)) url.searchParams.set(name, value);
  return { started, url: url.href };
}

/** Redirect this tab to the issuer. The tab returns to the page that it shows now. */
export async function leave(where) {
  const { started, url } = await request(where, '');
  sessionStorage.setItem(KEPT, JSON.stringify(started));
  location.assign(url);
}

/** Sign in in a second window. Resolves to the credentials. *signal* cancels the wait. */
export async function inWindow(where, signal) {
  const opened = open('', '_blank', 'popup,width=520,height=640');
  if (!opened) throw failed('the browser did not let a window open');
  try {
    const { started, url } = await request(where, WINDOW);
    opened.location.replace(url);
    const answer = await heard(started.state, signal);
    return await redeem(started, answer);
  } catch (error) {
    opened.close();
    throw error;
  }
}

function heard(state, signal) {
  return new Promise((resolve, reject) => {
    const channel = new BroadcastChannel(CHANNEL);
    const stop = () => channel.close();
    channel.onmessage = ({ data }) => {
      if (data?.state !== state) return;
      channel.postMessage({ taken: state });
      stop();
      resolve(data);
    };
    signal?.addEventListener('abort', () => { stop(); reject(new DOMException('', 'AbortError')); });
  });
}

/**
 * Read the issuer's answer from the address after a redirect. Resolves to null (no answer), {handed: true} (a second
 * window has passed the answer on), or {proof, hash}. The address is cleaned first.
 */
export async function returned() {
  const answer = Object.fromEntries(new URLSearchParams(location.search));
  if (!answer.state || !(answer.code || answer.error)) return null;
  history.replaceState(null, '', location.pathname + location.hash);
  if (answer.state.startsWith(WINDOW)) {
    const channel = new BroadcastChannel(CHANNEL);
    const taken = new Promise((resolve) => { channel.onmessage = ({ data }) => data?.taken === answer.state && resolve(); });
    channel.postMessage({ state: answer.state, code: answer.code, error: answer.error });
    await Promise.race([taken, new Promise((resolve) => { setTimeout(resolve, 5000); })]);
    channel.close();
    return { handed: true };
  }
  const started = JSON.parse(sessionStorage.getItem(KEPT) ?? 'null');
  sessionStorage.removeItem(KEPT);
  if (!started || started.state !== answer.state) throw failed('it was not begun in this tab');
  history.replaceState(null, '', location.pathname + started.hash);
  return { proof: await redeem(started, answer) };
}

async function redeem(started, answer) {
  if (answer.error) throw failed(`the sign-in service said “${String(answer.error).slice(0, 80)}”`);
  const tokens = await api.exchange(started.tokens, {
    grant_type: 'authorization_code', code: answer.code, redirect_uri: back(), client_id: started.clientId,
    code_verifier: started.verifier,
  });
  const claims = claimsOf(tokens.id_token);
  // TLS to the issuer authenticates this token (Core, 3.1.3.7, 6.); the nonce ties the token to this request. The
  // service itself verifies the signature of every token.
  const audience = [claims?.aud].flat();
  if (claims?.iss !== started.issuer || !audience.includes(started.clientId)) throw failed('the token was issued for another application');
  if (claims.nonce !== started.nonce) throw failed('the answer belongs to another request');
  return { kind: 'token', token: started.audience === started.clientId ? tokens.id_token : tokens.access_token };
}

function claimsOf(token) {
  try {
    const middle = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(middle), (char) => char.charCodeAt(0))));
  } catch {
    throw failed('the answer cannot be read');
  }
}
