// Devices: what their connections of the last 30 days show.

import { api } from '../api.js';
import { openDialog } from '../dialog.js';
import { find, h, replace } from '../dom.js';
import { commonName, short } from '../format.js';
import { field, input, select, textarea } from '../form.js';
import { menu } from '../menu.js';
import { dateState, foreign, states, table, when } from '../parts.js';
import { mayChange } from '../session.js';

const STATES = [['', 'All'], ['accepted', 'Accepted'], ['refused', 'Refused']];
const ORDERS = [['-lastSeen', 'Seen last'], ['lastSeen', 'Not seen for longest'], ['notAfter', 'Certificate expires first'], ['id', 'Name']];
const PAGE = 50;

const isNamed = (device) => !device.id.startsWith('certificate:');
const nameOf = (device) => isNamed(device) ? device.id : short(commonName(device.certificate.subject), 40);

function show(view, ca = '') {
  const search = { q: '', status: '', sort: '-lastSeen', ca };
  let found = null, names = new Map(), turn = null, waiting = 0;
  const box = field('Search', input({ type: 'search', maxlength: 200, placeholder: 'Name, subject, fingerprint or code of a refusal', oninput: later }));
  const order = field('Sort', select(ORDERS, search.sort, { onchange: () => { search.sort = order.value; refresh(); } }));
  box.row.classList.add('search');
  const tools = h('div', { class: 'tools', hidden: true }, box.row, order.row);
  const chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'Status' });
  const list = h('div');
  view.content.append(tools, chips, list, h('p', { class: 'muted note-below' },
    'A device is listed here after it has connected. The service keeps a sample of connections: up to 500 certificates, and up to 500 names a day for 30 days.'));
  if (!mayChange()) view.primary();

  const refresh = () => view.load(async () => {
    const mine = turn = {};
    const page = await api.findDevices({ ...search, limit: PAGE });
    if (mine === turn) await take(page, mine);
  });

  /** Search when typing has paused. */
  function later() {
    clearTimeout(waiting);
    waiting = setTimeout(() => { search.q = box.value.trim(); refresh(); }, 200);
  }

  const more = () => view.load(async () => {
    const page = await api.findDevices({ ...search, limit: PAGE, bookmark: found.bookmark });
    await take({ ...page, results: [...found.results, ...page.results] }, turn);
  });

  async function take(page, mine) {
    const unknown = [search.ca, ...page.results.map((device) => device.caId)].filter((id) => id && !names.has(id));
    const cas = await api.namedCAs(unknown);
    if (!view.alive() || mine !== turn) return;
    names = new Map([...names, ...cas.map((ca) => [ca.id, commonName(ca.subject)])]);
    found = page;
    draw();
  }

  function draw() {
    const all = found.statuses.accepted + found.statuses.refused, isSearch = Boolean(search.q || search.status || search.ca);
    tools.hidden = chips.hidden = !all && !isSearch;
    if (!all && !isSearch) {
      return replace(list, h('div', { class: 'empty' }, h('p', null, 'No device was seen in the last 30 days. ',
        h('a', { href: '#/why' }, 'Why refused?'), ' shows clients whose certificate leads to none of your CAs.')));
    }
    replace(chips, STATES.map(([status, label]) => h('button', {
      type: 'button', class: 'chip', 'data-key': `chip-${status}`, 'aria-pressed': String(status === search.status),
      onclick() { search.status = status; refresh(); },
    }, label, ' ', h('span', { class: 'count' }, (status ? found.statuses[status] : all).toLocaleString('en')))),
    search.ca && h('a', { class: 'button chip', href: '#/devices', 'data-key': 'any-ca' }, h('span', { class: 'sr' }, 'Show the devices of every CA: '), `Accepted by ${short(names.get(search.ca) ?? 'a CA that was deleted', 40)} ✕`));
    if (!found.total) return replace(list, h('p', { role: 'status' }, search.q ? `No device here matches “${short(search.q)}”.` : search.ca && !search.status ? 'No device of this CA was seen in the last 30 days.' : 'No device here has this status.'));
    replace(list, table('devices', 'Devices', ['Device', 'Last seen', 'Status', 'Accepted by', 'Certificate expires', 'Last refusal', 'Actions'], found.results.map(row)),
      found.bookmark && h('p', { class: 'more' }, h('button', { type: 'button', 'data-key': 'more', onclick: more }, 'Show more'),
        h('span', { class: 'muted' }, `${found.results.length.toLocaleString('en')} of ${found.total.toLocaleString('en')} are shown.`)));
  }

  function row(device) {
    const { certificate, lastRefusal: refusal, caId } = device;
    const expiry = certificate && dateState(certificate);
    return {
      key: device.id,
      cells: [
        [h('span', { class: 'block', 'data-key': `row-${device.id}`, tabindex: '-1' }, foreign(nameOf(device), { lines: 0 })),
          certificate && isNamed(device) && commonName(certificate.subject) !== device.id && h('span', { class: 'muted block' }, foreign(certificate.subject))],
        when(device.lastSeen), states(device.status),
        caId ? h('a', { href: `#/ca/${encodeURIComponent(caId)}` }, foreign(names.get(caId) ?? 'A CA that was deleted', { lines: 0 })) : h('span', { class: 'muted' }, '–'),
        certificate ? h('div', { class: expiry === 'ended' ? 'bad' : expiry === 'soon' ? 'warn' : '' }, when(certificate.notAfter)) : h('span', { class: 'muted' }, 'Not recorded'),
        refusal ? [h('a', { href: `#/why/${encodeURIComponent(refusal.id)}`, class: 'block' }, refusal.code), when(refusal.at)] : h('span', { class: 'muted' }, 'None recorded'),
        actions(device),
      ],
    };
  }

  function actions(device) {
    const items = [
      device.lastRefusal && { label: 'Explain', run: () => { location.hash = `#/why/${encodeURIComponent(device.lastRefusal.id)}`; } },
      mayChange() && { label: 'Deny', tone: 'danger', run: () => deny(device) },
    ].filter(Boolean);
    return items.length ? menu({ name: nameOf(device), key: `actions-${device.id}`, actions: items }) : h('span', { class: 'muted' }, '–');
  }

  async function deny(device) {
    const reason = field('Reason', textarea({ maxlength: 1000 }), { name: 'reason', hint: 'Shown in the deny list, for example: stolen in May.' });
    const entry = isNamed(device) ? { kind: 'identity', value: device.id } : { kind: 'fingerprint', value: device.certificate.fingerprintSha256 };
    const done = await openDialog({
      title: 'Deny device?', fields: [reason],
      content: [h('p', null, h('bdi', null, nameOf(device)), isNamed(device)
        ? ' is refused from now on, whatever certificate it shows, and its session ends.' : ' is refused from now on, and its session ends.'), reason.row],
      actions: [{ label: 'Deny', tone: 'danger', submit: true, run: async () => (await api.deny({ ...entry, reason: reason.value })).data }],
    });
    if (!done) return;
    view.sayWithUndo(async () => {
      await api.lift(done.id);
      return [h('bdi', null, nameOf(device)), ' is not on the deny list any more.'];
    }, h('bdi', null, nameOf(device)), ' is denied.');
    find(list, `actions-${device.id}`)?.focus();
  }

  refresh();
  return {
    update(next = '') {
      search.ca = next;
      refresh();
    },
    leave() { clearTimeout(waiting); },
  };
}

export default { path: 'devices', title: 'Devices', show };
