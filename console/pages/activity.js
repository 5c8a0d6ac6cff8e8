// Activity: what happened, newest first.

import { api } from '../api.js';
import { h, replace } from '../dom.js';
import { commonName, short } from '../format.js';
import { foreign, rowButton, table, when } from '../parts.js';

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
const RESULT = { done: 'Done', refused: 'Refused', ended: 'Expired', within7: 'Expires within 7 days', within30: 'Expires within 30 days' };
const DETAIL = { ended: 'expired', within7: 'within 7 days', within30: 'within 30 days', typeCertificates: 'type certificates' };

function show(view, chosen = '') {
  const tabs = h('ul', { class: 'tabs' });
  const list = h('div');
  view.content.append(h('nav', { 'aria-label': 'Kinds of activity' }, tabs), list);
  let entries = [], bookmark = null, names = new Map();

  function drawTabs() {
    replace(tabs, FILTERS.map(([kind, label]) => h('li', null, h('a', {
      href: kind ? `#/activity/${kind}` : '#/activity', 'aria-current': kind === chosen ? 'true' : null, 'data-key': `tab-${kind}`,
    }, label))));
  }

  const refresh = () => view.load(async () => {
    const kind = chosen;
    const [page, cas, servers] = await Promise.all([api.activity({ kind }), api.cas(), api.servers()]);
    if (!view.alive() || kind !== chosen) return;
    names = new Map([
      ...cas.map((ca) => [ca.id, [`#/ca/${ca.id}`, commonName(ca.subject)]]),
      ...servers.map((server) => [server.id, [`#/servers/${server.id}`, server.names[0] ?? server.subject]]),
    ]);
    ({ results: entries, bookmark } = page);
    draw();
  });

  async function more() {
    await view.load(async () => {
      const page = await api.activity({ kind: chosen, bookmark });
      entries = [...entries, ...page.results];
      ({ bookmark } = page);
      draw();
    });
  }

  function draw() {
    if (!entries.length) return replace(list, h('p', null, chosen === 'upload' ? 'No upload by object store yet.' : 'Nothing yet.'));
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
  return { update(kind = '') { chosen = kind; drawTabs(); refresh(); } };
}

export default { path: 'activity', title: 'Activity', show };
