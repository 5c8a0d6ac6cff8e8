// The frame of the page, and routing by hash: an address holds ids, never a secret.

import { Problem, api, onEnded } from './api.js';
import { h, newId, put } from './dom.js';
import { icon } from './icons.js';
import { refreshTimes } from './parts.js';
import * as oidc from './oidc.js';
import * as session from './session.js';
import { listen } from './shortcuts.js';
import { signInAgain, signInPage } from './signin.js';
import activity from './pages/activity.js';
import brokers from './pages/brokers.js';
import cas from './pages/cas.js';
import devices from './pages/devices.js';
import overview from './pages/overview.js';
import security from './pages/security.js';
import servers from './pages/servers.js';
import why from './pages/why.js';

// The pages in the order of the navigation, under their headings.
const NAVIGATION = [
  [null, [overview, devices]],
  ['Security', [cas, servers, security]],
  ['Operations', [why, brokers, activity]],
];
const PAGES = NAVIGATION.flatMap(([, pages]) => pages);
const KEYS = { '': 'o', devices: 'd', ca: 'c', servers: 's', security: 'p', why: 'w', brokers: 'b', activity: 'a' }; // after g
const UNDO = 10_000; // ms
const root = document.getElementById('app');
let current = null; // {page, view, update, leave}

async function start() {
  let where = {}, back = null, problem = null;
  try {
    where = await api.signIn();
    back = await oidc.returned();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem = error.message;
  }
  if (back?.handed) {
    root.replaceChildren(h('main', { class: 'alone', id: 'content' }, h('h1', null, 'Signed in'),
      h('p', null, 'You can close this window.')));
    close();
    return;
  }
  onEnded(() => signInAgain(where));
  try {
    const proof = back?.proof ?? session.current() ?? (session.hasSignedOut() || session.wasIdle() ? null : await session.fromOtherTab());
    if (proof) session.keep(proof, await api.session(proof));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (back?.proof || error.status !== 401) problem = error.message;
    session.forget();
  }
  if (session.who()) frame();
  else signInPage(root, where, frame, problem ?? (session.wasIdle() ? 'Your session ended after 12 hours without a request. Sign in again.' : null));
}

function frame() {
  const { org, role, version } = session.who();
  const nav = h('nav', { 'aria-label': 'Pages' }, NAVIGATION.map(([heading, pages]) => {
    const id = heading && newId('group');
    return [heading && h('p', { class: 'nav-heading', id }, heading),
      h('ul', { 'aria-labelledby': id }, pages.map((page) => h('li', null,
        h('a', { href: `#/${page.path}`, 'data-page': page.path }, icon(page.path || 'overview'), page.title))))];
  }), h('p', { class: 'nav-heading' }, h('a', { href: '../docs/', target: '_blank', rel: 'noopener' }, 'API and error codes')));
  const main = h('main', { id: 'content', tabindex: '-1' });
  root.replaceChildren();
  put(root, [
    h('header', null, h('p', { class: 'name' }, h('img', { src: 'icon.svg', alt: '', width: 24, height: 24 }), 'MQTT Trust',
      h('span', { class: 'version' }, version)), h('p', { class: 'who' },
      `${org} · ${role} `, h('button', { type: 'button', class: 'small', onclick: signOut }, 'Sign out'))),
    h('div', { class: 'frame' }, nav, main),
  ]);
  window.onhashchange = () => route(nav, main); // one listener, also after signing in again
  route(nav, main, true);
}

function signOut() {
  if (hasChanges() && !confirm('Sign out? The changes of this page are not saved.')) return;
  session.end();
  leave();
}

/** Show the sign-in page in place of everything else. */
function leave() {
  isEnding = true;
  location.replace(location.pathname);
}

let shown = ''; // the address of the page that is shown
let isEnding = false; // the session ends: nothing is asked

const hasChanges = () => !isEnding && Boolean(current?.hasChanges?.());

function route(nav, main, first = false) {
  const [path = '', ...args] = location.hash.replace(/^#\/?/, '').split('/').map(decode);
  const page = PAGES.find((candidate) => candidate.path === path) ?? overview;
  if (current?.page !== page && hasChanges() && !confirm('Leave this page? Its changes are not saved.')) {
    history.replaceState(null, '', shown);
    return;
  }
  shown = location.hash || '#/';
  if (current?.page === page && current.update) {
    current.update(...args);
    return;
  }
  current?.leave?.();
  for (const link of nav.querySelectorAll('a')) {
    if (link.dataset.page !== page.path) link.removeAttribute('aria-current');
    else {
      link.setAttribute('aria-current', 'page');
      link.scrollIntoView({ block: 'nearest', inline: 'center' }); // on a phone the navigation scrolls
    }
  }
  document.title = `${page.title} · Trust console`;
  const heading = h('h1', { tabindex: '-1', id: 'heading' }, page.heading ?? page.title);
  const action = h('div', { class: 'page-action' });
  const status = h('p', { class: 'status', role: 'status' });
  const content = h('div', { class: 'content' });
  main.replaceChildren(h('div', { class: 'head' }, heading, action), status, content);
  document.querySelectorAll('dialog').forEach((dialog) => dialog.close());
  const mine = { page };
  current = mine;
  const view = {
    content, action, alive: () => current === mine,
    /** Show one sentence on what was just done; screen readers announce it. */
    say(...text) { status.replaceChildren(); put(status, text); },
    /** The same, with a button that takes back what was done. The button stays for 10 s. *take*: returns what to say. */
    sayWithUndo(take, ...text) {
      const undo = h('button', { type: 'button', class: 'small', onclick: () => view.load(async () => view.say(...await take())) }, 'Undo');
      view.say(...text, ' ', undo);
      setTimeout(() => undo.remove(), UNDO);
    },
    /** Run a slow task; the old content stays meanwhile. A failure is shown with [Try again]. */
    async load(work) {
      content.setAttribute('aria-busy', 'true');
      try {
        await work();
        content.querySelector('.load-error')?.remove();
      } catch (error) {
        if (current !== mine) return;
        if (!(error instanceof Problem)) throw error;
        content.querySelector('.load-error')?.remove();
        content.prepend(h('div', { class: 'load-error', role: 'alert' }, h('p', { class: 'error' }, error.message),
          h('button', { type: 'button', onclick: () => view.load(work) }, 'Try again')));
      } finally {
        content.removeAttribute('aria-busy');
      }
    },
    /** Show the page's main action, or the reason why this user has none. */
    primary(label, run) {
      put(action, [session.mayChange()
        ? h('button', { type: 'button', class: 'primary', 'data-key': 'primary', onclick: run }, label)
        : h('p', { class: 'muted' }, 'Read-only access (viewer).')]);
    },
  };
  Object.assign(mine, page.show(view, ...args));
  if (!first) heading.focus();
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault(); // the hash is the route, so the link must not change it
  document.getElementById('content')?.focus();
});

addEventListener('beforeunload', (event) => { if (hasChanges()) event.preventDefault(); });

// A file dropped beside its field must not replace the page.
for (const kind of ['dragover', 'drop']) addEventListener(kind, (event) => event.preventDefault());

// Times such as "2 minutes ago" stay true while the page is open.
setInterval(refreshTimes, 30_000);

session.onEnd(leave);
listen(PAGES.map(({ path, title }) => ({ path, title, key: KEYS[path] })));
start();
