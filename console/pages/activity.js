// Activity: what happened, newest first.

import { api } from '../api.js';
import { h, replace } from '../dom.js';
import { commonName, short } from '../format.js';
import { field, input } from '../form.js';
import { download, foreign, rowButton, table, when } from '../parts.js';
import { who } from '../session.js';

const FILTERS = [['', 'All'], ['change', 'Changes'], ['upload', 'Uploads'], ['refusal', 'Refusals'], ['edge', 'Edges']];

const WHAT = {
  uploadCA: 'CA added', describeCA: 'CA described', 'set active': 'CA activated', 'set inactive': 'CA deactivated',
  deleteCA: 'CA deleted', uploadServerCert: 'Server certificate added', generateCSR: 'CSR generated',
  renewCSR: 'Renewal requested', fulfillCSR: 'Certificate put in its request\'s place',
  completeChain: 'Chain of a server certificate completed', activateServerCert: 'Server certificate activated', describeServerCert: 'Server certificate described',
  deleteServerCert: 'Server certificate or request deleted', connectionPolicy: 'Connection security changed',
  settings: 'Settings changed', deny: 'Put on the deny list', lift: 'Taken off the deny list',
  createOrg: 'Organization made', suspendOrg: 'Organization suspended', resumeOrg: 'Organization resumed',
  connection: 'Connection', onUpload: 'File put into the upload bucket', expiryReport: 'Daily report of expiring certificates',
  keyHandedOut: 'Certificate and key handed to a TLS edge', served: 'TLS edge serves a certificate',
};
const SOME = 10; // entries on a page, at least, where the list has so many
const CA_ID = /^[0-9a-f]{16}-[0-9a-f]{16,}$/;
const RESULT = { done: 'Done', refused: 'Refused', ended: 'Expired', within7: 'Expires within 7 days', within30: 'Expires within 30 days' };
const DETAIL = { ended: 'expired', within7: 'within 7 days', within30: 'within 30 days', typeCertificates: 'type certificates' };

function show(view, chosen = '') {
  const tabs = h('ul', { class: 'tabs' });
  const list = h('div');
  const text = field('Search', input({ type: 'search', maxlength: 200, placeholder: 'Who, what, code, client ID or reason', oninput: later }));
  const from = field('From', h('input', { type: 'date', onchange: refresh }));
  const to = field('To', h('input', { type: 'date', onchange: refresh }));
  text.row.classList.add('search');
  view.content.append(h('nav', { 'aria-label': 'Kinds of activity' }, tabs), h('div', { class: 'tools' }, text.row, from.row, to.row,
    h('button', { type: 'button', class: 'in-tools', 'data-key': 'export', onclick: () => save() }, 'Download table (CSV)')), list);
  let entries = [], bookmark = null, names = new Map(), turn = null, waiting = 0;

  /** The days of the browser's time zone, as moments. */
  const search = () => ({
    kind: chosen, q: text.value.trim(),
    from: from.value && new Date(`${from.value}T00:00:00`).toISOString(), to: to.value && new Date(`${to.value}T23:59:59.999`).toISOString(),
  });

  /** Search when typing has paused. */
  function later() {
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 200);
  }

  const save = () => view.load(async () => download(await api.activityTable(search()), `${who().org}-activity.csv`, 'text/csv'));

  function drawTabs() {
    replace(tabs, FILTERS.map(([kind, label]) => h('li', null, h('a', {
      href: kind ? `#/activity/${kind}` : '#/activity', 'aria-current': kind === chosen ? 'true' : null, 'data-key': `tab-${kind}`,
    }, label))));
  }

  async function refresh() {
    const mine = turn = {};
    entries = [];
    await view.load(() => read(mine, ''));
  }

  /** Read a page. A search that finds few entries is continued until there is a page, or until the list is at its end. */
  async function read(mine, after) {
    const found = [];
    do {
      const page = await api.activity({ ...search(), bookmark: after });
      found.push(...page.results);
      after = page.bookmark;
    } while (after && found.length < SOME && mine === turn && view.alive());
    const known = await namesIn(found);
    if (!view.alive() || mine !== turn) return;
    names = new Map([...names, ...known]);
    entries = [...entries, ...found];
    bookmark = after;
    draw();
  }

  /** Return the names of the certificates in *found*, and where each is. */
  async function namesIn(found) {
    const values = found.flatMap((entry) => Object.values(entry.detail ?? {})).flatMap((value) => value.split(','));
    const [cas, servers] = await Promise.all([api.namedCAs(values.filter((value) => CA_ID.test(value))), api.servers()]);
    return [
      ...cas.map((ca) => [ca.id, [`#/ca/${ca.id}`, commonName(ca.subject)]]),
      ...servers.map((server) => [server.id, [`#/servers/${server.id}`, server.names[0] ?? server.subject]]),
    ];
  }

  const more = () => view.load(() => read(turn, bookmark));

  function draw() {
    const isSearch = text.value.trim() || from.value || to.value;
    if (!entries.length) {
      return replace(list, h('p', { role: 'status' }, isSearch ? 'No entry here matches. Choose other days or another text.'
        : chosen === 'upload' ? 'No upload by object store yet.' : 'Nothing yet.'));
    }
    replace(list, table('activity', 'Activity', ['Time', 'Who', 'What', 'Result'], entries.map((entry) => ({
      key: entry.id, cells: [when(entry.at), foreign(entry.who), what(entry), result(entry)],
    }))), bookmark && h('p', null, h('button', { type: 'button', 'data-key': 'more', onclick: more }, 'Show more')));
  }

  function what(entry) {
    const details = Object.entries(entry.detail ?? {}).filter(([, value]) => value).map(([name, value]) => h('span', { class: 'detail' },
      h('span', { class: 'muted' }, `${DETAIL[name] ?? name}: `),
      name === 'certificates' ? value.split(',').map((each, at) => [at ? ', ' : '', named(each)]) : named(value)));
    return [h('span', { class: 'block' }, WHAT[entry.what] ?? foreign(entry.what)), details];
  }

  /** Show the id of a known entry as a link with its name, and anything else unchanged. */
  function named(value) {
    const [href, label] = names.get(value) ?? [];
    return href ? h('a', { href }, h('bdi', null, short(label, 40))) : foreign(value);
  }

  function result(entry) {
    const word = RESULT[entry.result] ?? entry.result;
    return [h('span', { class: entry.kind === 'refusal' || entry.result === 'refused' ? 'bad block' : 'block' }, `${word}${entry.code ? ` (${entry.code})` : ''}`),
      entry.kind === 'refusal' && rowButton('Explain', short(entry.who, 40), `explain-${entry.id}`, () => { location.hash = `#/why/${encodeURIComponent(entry.id)}`; })];
  }

  drawTabs();
  refresh();
  return {
    update(kind = '') { chosen = kind; drawTabs(); refresh(); },
    leave() { clearTimeout(waiting); },
  };
}

export default { path: 'activity', title: 'Activity', show };
