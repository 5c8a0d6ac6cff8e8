// All requests of this page. `credentials: 'omit'`: otherwise a 401 opens the browser's own sign-in prompt.

import * as session from './session.js';

const PREFIX = '/api/v0002';

/** A refusal of the service, in the words of its answer. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail);
    this.status = status;
    this.code = document.code ?? '';
    this.violations = document.violations ?? [];
  }
}

let renew = null; // async (): asks the user to sign in again
let renewing = null;

/** Set the function that asks the user to sign in again after a session has ended. */
export function onEnded(ask) {
  renew = ask;
}

/**
 * Make one call. Resolves to {status, data, version}; throws a Problem.
 * *as*: credentials to try instead of the session's; a 401 then throws a Problem like any other refusal.
 * *text*: the answer is text (a PEM file), not JSON.
 */
export async function call(method, path, { body, version, as, text = false, bare = false, signal } = {}) {
  for (;;) {
    const proof = as ?? session.current();
    if (proof) session.noteRequest();
    const headers = {};
    if (!(bare && !as) && proof) headers.Authorization = session.authorization(proof);
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    if (version !== undefined) headers['If-Match'] = version === '*' ? '*' : `"${version}"`;
    const response = await send(bare ? path : PREFIX + path, {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.status === 401 && !as && !bare && renew) {
      if (session.current() === proof) await (renewing ??= renew().finally(() => { renewing = null; }));
      continue;
    }
    if (!response.ok) throw new Problem(response.status, await problemOf(response));
    const data = response.status === 204 ? null : text ? await response.text() : await response.json();
    return { status: response.status, data, version: response.headers.get('ETag')?.replaceAll('"', '') ?? null };
  }
}

async function send(url, options) {
  try {
    return await fetch(url, { ...options, credentials: 'omit', cache: 'no-store', redirect: 'error' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, { code: 'unreachable', detail: 'The service cannot be reached. Check the connection, then try again.' });
  }
}

async function problemOf(response) {
  try {
    const document = await response.json();
    if (typeof document?.detail === 'string') return document;
  } catch { /* not JSON: a proxy in front of the service answered */ }
  return { code: 'unreadable', detail: `The service answered ${response.status} without a reason. Try again.` };
}

const data = async (promise) => (await promise).data;

/** Fetch a whole list, page by page. */
async function every(path) {
  const results = [];
  for (let bookmark = ''; bookmark !== null;) {
    const page = await data(call('GET', `${path}?limit=200${bookmark && `&bookmark=${encodeURIComponent(bookmark)}`}`));
    results.push(...page.results);
    bookmark = page.bookmark;
  }
  return results;
}

const CAS = '/authentication/cacertificates';
const SERVERS = '/authentication/servercertificates';
const DENIALS = '/authorization/denylist';
const id = encodeURIComponent;
const IDS = 50; // ids in one request

/** A query string of the fields that have a value. */
const query = (fields) => new URLSearchParams(Object.entries(fields).filter(([, value]) => value || value === 0));

export const api = {
  signIn: () => data(call('GET', '/signin', { bare: true })),
  session: (as) => data(call('GET', '/session', { as })),
  preview: (certificate, signal, { effect = false, client } = {}) => data(call('POST',
    `/authentication/preview${effect ? `?effect=true&client=${client ?? ''}` : ''}`, { body: { certificate }, signal })),

  cas: () => every(CAS),
  /** One page of a search: {results, bookmark, total, states}. *search*: {q, status, sort, limit, bookmark}. */
  findCAs: (search) => data(call('GET', `${CAS}?${query({ sort: 'subject', ...search })}`)),
  caTable: (search) => data(call('GET', `${CAS}/csv?${query(search)}`, { text: true })),
  caBundle: (search) => data(call('GET', `${CAS}/pem?${query(search)}`, { text: true })),
  /** The CAs of these ids; those that do not exist are left out. */
  async namedCAs(ids) {
    const wanted = [...new Set(ids)], parts = [];
    for (let at = 0; at < wanted.length; at += IDS) parts.push(wanted.slice(at, at + IDS).join());
    const pages = await Promise.all(parts.map((part) => data(call('GET', `${CAS}?${query({ ids: part })}`))));
    return pages.flatMap((page) => page.results);
  },
  ca: (caId) => data(call('GET', `${CAS}/${id(caId)}`)),
  addCA: (body) => call('POST', CAS, { body }),
  changeCA: (caId, body, version) => data(call('PUT', `${CAS}/${id(caId)}`, { body, version })),
  deletionEffect: (caId) => data(call('DELETE', `${CAS}/${id(caId)}?dryrun=true`)),
  statusEffect: (caId, status) => data(call('PUT', `${CAS}/${id(caId)}?dryrun=true`, { body: { status } })),
  deleteCA: (caId, version) => call('DELETE', `${CAS}/${id(caId)}`, { version }),
  caPem: (caId) => data(call('GET', `${CAS}/${id(caId)}/pem`, { text: true })),

  servers: () => every(SERVERS),
  server: (serverId) => data(call('GET', `${SERVERS}/${id(serverId)}`)),
  addServer: (body) => call('POST', SERVERS, { body }),
  changeServer: (serverId, body, version) => data(call('PUT', `${SERVERS}/${id(serverId)}`, { body, version })),
  deleteServer: (serverId, version) => call('DELETE', `${SERVERS}/${id(serverId)}`, { version }),
  serverPem: (serverId) => data(call('GET', `${SERVERS}/${id(serverId)}/pem`, { text: true })),
  csrPem: (serverId) => data(call('GET', `${SERVERS}/${id(serverId)}/csr`, { text: true })),
  generateCSR: (body) => data(call('POST', `${SERVERS}/csr`, { body })),
  fulfillCSR: (serverId, certificate) => data(call('PUT', `${SERVERS}/${id(serverId)}/certificate`, { body: { certificate } })),
  renew: (serverId) => data(call('POST', `${SERVERS}/${id(serverId)}/renewal`)),
  active: () => data(call('GET', `${SERVERS}/active`)),
  preflight: (serverId) => data(call('PUT', `${SERVERS}/active?dryrun=true`, { body: { id: serverId } })),
  activate: (serverId, version) => data(call('PUT', `${SERVERS}/active`, { body: { id: serverId }, version })),

  traffic: (days) => data(call('GET', `/traffic?days=${days}`)),
  /** One page of a search: {results, bookmark, total, statuses}. *search*: {q, status, ca, sort, limit, bookmark}. */
  findDevices: (search) => data(call('GET', `/devices?${query(search)}`)),
  callers: () => data(call('GET', '/callers')),
  edges: () => data(call('GET', '/edges')),

  policy: () => data(call('GET', '/authorization/connectionpolicy')),
  putPolicy: (body, version) => data(call('PUT', '/authorization/connectionpolicy', { body, version })),
  dryRun: (body) => data(call('POST', '/authorization/connectionpolicy/dryrun', { body })),
  settings: () => data(call('GET', '/authorization/settings')),
  settingsEffect: (body) => data(call('PUT', '/authorization/settings?dryrun=true', { body })),
  putSettings: (body, version) => data(call('PUT', '/authorization/settings', { body, version })),
  denials: () => every(DENIALS),
  deny: (body) => call('POST', DENIALS, { body }),
  liftEffect: (entryId) => data(call('DELETE', `${DENIALS}/${id(entryId)}?dryrun=true`)),
  lift: (entryId) => call('DELETE', `${DENIALS}/${id(entryId)}`),

  explain: (body) => data(call('POST', '/authorization/verifyclient', { body: { ...body, explain: true } })),
  activity: (search = {}) => data(call('GET', `/activity?${query({ limit: 50, ...search })}`)),
  activityTable: (search) => data(call('GET', `/activity/csv?${query(search)}`, { text: true })),

  // The OIDC issuer: its discovery document, and the exchange of a code for tokens.
  discover: (issuer) => foreignJson(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`),
  exchange: (endpoint, fields) => foreignJson(endpoint, { method: 'POST', body: new URLSearchParams(fields) }),
};

async function foreignJson(url, options = {}) {
  const response = await send(url, { referrerPolicy: 'no-referrer', ...options });
  if (!response.ok) throw new Problem(response.status, { code: 'sign_in_failed', detail: 'The sign-in service refused. Sign in again.' });
  return response.json();
}
