// The page of CA certificates.

import { api } from '../api.js';
import { find, h, replace } from '../dom.js';
import { ask, openDialog, saveOver } from '../dialog.js';
import { droppable, fileField, noKey } from '../filefield.js';
import { absolute, commonName, fingerprint, plural, short, visible } from '../format.js';
import { field, input, select, textarea } from '../form.js';
import { menu } from '../menu.js';
import { addSeveral } from './several_cas.js';
import {
  bad, certificateFacts, command, dateState, download, facts, foreign, judgement, good, moment, states, table, warning, when,
} from '../parts.js';
import { mayChange, who } from '../session.js';

const nameOf = (ca) => short(commonName(ca.subject), 40);
const hash = (id) => `#/ca/${encodeURIComponent(id)}`;

export function statesOf(ca) {
  const byDate = dateState(ca);
  if (ca.deniedAt) return ['denied'];
  if (byDate === 'ended') return ca.status === 'active' ? ['ended'] : ['inactive', 'ended'];
  return [ca.status === 'active' ? 'active' : 'inactive', ...(byDate ? [byDate] : [])];
}

const STATES = [['', 'All'], ['active', 'Active'], ['inactive', 'Inactive'], ['expiring', 'Expires soon'], ['expired', 'Expired'],
  ['notYetValid', 'Not valid yet'], ['denied', 'Denied']];
const ORDERS = [['subject', 'Subject'], ['notAfter', 'Expires first'], ['-createdAt', 'Added last'], ['-lastUsed', 'Used last'],
  ['lastUsed', 'Not used for longest'], ['-connections30d', 'Most connections']];
const PAGE = 50;

function show(view, opened) {
  const search = { q: '', status: '', sort: 'subject' };
  let found = null; // {results, bookmark, total, states}: the pages that were read so far
  let pinned = null; // a CA that is shown although it is not on these pages: opened by its address, or just changed
  let turn = null;
  const list = h('div');
  const box = input({ type: 'search', id: 'ca-search', maxlength: 200, placeholder: 'Name, description, fingerprint or serial number', oninput: later });
  const order = select(ORDERS, search.sort, { id: 'ca-order', onchange: () => { search.sort = order.value; refresh(); } });
  const chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'Status' });
  const tools = h('div', { class: 'tools', hidden: true },
    h('div', { class: 'field search' }, h('label', { for: 'ca-search' }, 'Search'), box),
    h('div', { class: 'field' }, h('label', { for: 'ca-order' }, 'Sort'), order),
    menu({ name: 'the list', label: 'Download…', key: 'export', actions: [
      { label: 'Table for spreadsheets (CSV)', run: () => save(api.caTable, 'csv', 'text/csv') },
      { label: 'Certificates (PEM)', run: () => save(api.caBundle, 'pem') },
    ] }));
  view.content.append(tools, chips, list);
  view.primary('Add certificate', add);
  if (mayChange()) view.action.prepend(h('button', { type: 'button', 'data-key': 'several', onclick: several }, 'Add several…'));

  const refresh = () => view.load(async () => {
    const mine = turn = {};
    const page = await api.findCAs({ ...search, limit: PAGE });
    if (!view.alive() || mine !== turn) return;
    const wanted = opened ?? pinned?.id;
    found = page;
    pinned = wanted && !page.results.some((ca) => ca.id === wanted) ? await api.ca(wanted).catch(gone) : null;
    if (view.alive() && mine === turn) draw();
  });

  let waiting = 0;
  /** Search when typing has paused. */
  function later() {
    clearTimeout(waiting);
    waiting = setTimeout(() => { search.q = box.value.trim(); refresh(); }, 200);
  }

  async function more() {
    await view.load(async () => {
      const page = await api.findCAs({ ...search, limit: PAGE, bookmark: found.bookmark });
      found = { ...page, results: [...found.results, ...page.results] };
      draw();
    });
  }

  async function save(read, ending, type) {
    await view.load(async () => download(await read(search), `${who().org}-ca-certificates.${ending}`, type));
  }

  function draw() {
    if (!found) return;
    const all = found.states.active + found.states.inactive, isSearch = Boolean(search.q || search.status);
    tools.hidden = chips.hidden = all < 2 && !isSearch;
    if (!all && !isSearch) return replace(list, empty());
    replace(chips, STATES.map(([state, label]) => {
      const count = state ? found.states[state] : all;
      return (count > 0 || state === search.status) && h('button', {
        type: 'button', class: 'chip', 'data-key': `chip-${state}`, 'aria-pressed': String(state === search.status),
        onclick() { search.status = state; refresh(); },
      }, label, ' ', h('span', { class: 'count' }, count.toLocaleString('en')));
    }));
    if (!found.total && !pinned) return replace(list, h('p', { role: 'status' }, search.q ? `No CA here matches “${short(search.q)}”.` : 'No CA here has this status.'));
    const rows = [...(pinned ? [pinned] : []), ...found.results.filter((ca) => ca.id !== pinned?.id)];
    replace(list, table('cas', 'CA certificates', ['Subject', 'Description', 'Expires', 'Status', 'Actions'], rows.map(row)),
      found.bookmark && h('p', { class: 'more' }, h('button', { type: 'button', 'data-key': 'more', onclick: more }, 'Show more'),
        h('span', { class: 'muted' }, `${found.results.length.toLocaleString('en')} of ${found.total.toLocaleString('en')} are shown.`)));
  }

  /** Return whether another CA of the list has the same name: then a row also shows the beginning of the fingerprint. */
  const hasNamesake = (ca) => found.results.some((other) => other.id !== ca.id && other.subject === ca.subject);

  function row(ca) {
    const isOpen = ca.id === opened;
    const link = h('a', {
      href: isOpen ? '#/ca' : hash(ca.id), 'data-key': `row-${ca.id}`, 'aria-expanded': String(isOpen),
    }, foreign(ca.subject, { lines: 0 }));
    return {
      key: ca.id,
      cells: [[h('div', { class: 'clamp' }, link), hasNamesake(ca) && h('span', { class: 'muted block' }, `SHA-256 ${fingerprint(ca.fingerprintSha256.slice(0, 16))}…`)], foreign(ca.comments), when(ca.notAfter), states(...statesOf(ca)), actions(ca)],
      details: isOpen && details(ca),
    };
  }

  function actions(ca) {
    const action = (label, run, tone) => ({ label, key: `${label}-${ca.id}`, tone, run: () => run(ca) });
    return menu({ name: nameOf(ca), key: `actions-${ca.id}`, actions: [
      mayChange() && (ca.status === 'active' ? action('Deactivate', deactivate) : action('Activate', activate)),
      mayChange() && action('Edit description', describe),
      action('Download PEM', pem),
      mayChange() && action('Delete', remove, 'danger'),
    ] });
  }

  function details(ca) {
    return facts(
      ...certificateFacts(ca),
      ['Added', h('span', null, foreign(ca.createdBy, { lines: 0 }), ', ', moment(ca.createdAt))],
      ca.updatedAt !== ca.createdAt && ['Changed', h('span', null, foreign(ca.updatedBy, { lines: 0 }), ', ', moment(ca.updatedAt))],
      ['Last 30 days', ca.connections30d
        ? h('span', null, `At least ${plural(ca.connections30d, 'connection')} seen, latest `, moment(ca.lastUsed))
        : 'No connection seen'],
      ['Devices', h('a', { href: `#/devices/${encodeURIComponent(ca.id)}` }, 'Devices that this CA accepted')],
      ca.deniedAt && ['On the deny list since', when(ca.deniedAt)],
    );
  }

  function empty() {
    return h('div', { class: 'empty' },
      h('p', null, 'No CA yet. Add the CA, root or intermediate, that signs your devices\' certificates. ',
        'Device certificates themselves are never uploaded.'),
      mayChange() && h('button', { type: 'button', class: 'primary', onclick: add }, 'Add certificate'),
      h('details', null, h('summary', null, 'Don’t have a CA? Create one'),
        h('p', null, 'These commands make a CA, and with it a certificate for one device. Keep ca.key where no device is.'),
        command([
          'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \\',
          '  -keyout ca.key -out ca.pem -subj "/O=Your company/CN=Device CA"',
          'openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \\',
          '  -keyout device.key -out device.csr -subj "/CN=d:thermometer:0001"',
          'openssl x509 -req -in device.csr -CA ca.pem -CAkey ca.key -CAcreateserial \\',
          '  -days 365 -out device.pem',
        ].join('\n'), 'commands')));
  }

  async function pem(ca) {
    await view.load(async () => download(await api.caPem(ca.id), `${ca.id}.pem`));
  }

  /** Show the current record, and focus it. */
  async function settle(id, ...said) {
    pinned = { id };
    await refresh();
    if (said.length) view.say(...said);
    (find(list, `row-${id}`) ?? document.getElementById('heading')).focus();
  }

  async function add() {
    const done = await addCA();
    if (done) await settle(done.ca.id, ...done.said);
  }

  async function several() {
    const saved = await addSeveral();
    if (!saved) return;
    await refresh();
    view.say(`${plural(saved, 'CA')} registered.`);
    document.getElementById('heading').focus();
  }

  async function describe(ca) {
    const comments = field('Description', textarea({ value: ca.comments, maxlength: 1000 }),
      { name: 'comments', hint: 'Which factory or product?' });
    const done = await openDialog({
      title: 'Edit description of CA certificate', content: [h('p', null, foreign(ca.subject)), comments.row], fields: [comments],
      actions: [{ label: 'Save', tone: 'primary', submit: true, async run() {
        const saved = await saveOver((version) => api.changeCA(ca.id, { comments: comments.value }, version), ca.version,
          () => api.ca(ca.id), (theirs) => [h('p', null, 'The description is now:'), foreign(theirs.comments, { empty: '(empty)' })]);
        return { kept: !saved };
      } }],
    });
    if (done) await settle(ca.id, done.kept ? 'The other change was kept; yours was discarded.' : 'Description saved.');
  }

  async function activate(ca) {
    await view.load(async () => {
      const saved = await saveOver((version) => api.changeCA(ca.id, { status: 'active' }, version), ca.version,
        () => api.ca(ca.id), (theirs) => h('p', null, `It is ${theirs.status} now.`));
      await settle(ca.id, ...(saved ? [h('bdi', null, nameOf(ca)), ' is active.'] : ['The other change was kept; yours was discarded.']));
    });
  }

  const deactivate = (ca) => withEffect(ca, () => api.statusEffect(ca.id, 'inactive'), deactivateDialog);
  const remove = (ca) => withEffect(ca, () => api.deletionEffect(ca.id), removeDialog);

  async function withEffect(ca, read, dialog) {
    let effect, others;
    await view.load(async () => {
      const report = await read();
      others = await api.namedCAs(report.alsoVouchedBy);
      effect = report;
    });
    if (effect) await dialog(ca, consequence(ca, effect, others), effect);
  }

  function consequence(ca, effect, others) {
    return [
      !others.length && h('p', null, 'Devices with certificates from ', foreign(ca.subject), ' are refused at their next connection.'),
      ...judgement(effect.judged),
      h('p', null, effect.connections30d
        ? ['Last 30 days: at least ', h('strong', null, plural(effect.connections30d, 'connection')), ' seen, latest ', moment(effect.lastUsed), '.']
        : 'Last 30 days: no connection seen.'),
      others.length > 0 && h('p', null, 'The same devices are allowed by ', others.map((ca, at) => [at ? ', ' : '', foreign(ca.subject, { lines: 0 })]),
        ', which has the same name and key.'),
      effect.lastActive && warning('Every device certificate will be refused.'),
    ];
  }

  const setInactive = (ca) => saveOver((version) => api.changeCA(ca.id, { status: 'inactive' }, version), ca.version,
    () => api.ca(ca.id), (theirs) => h('p', null, `It is ${theirs.status} now.`));

  async function deactivateDialog(ca, content) {
    const done = await ask({
      title: 'Deactivate CA certificate?',
      content: [...content, h('p', null, 'You can activate it again.')],
      actions: [{ label: 'Deactivate', tone: 'danger', run: async () => (await setInactive(ca) ? 'done' : 'kept') }],
    });
    if (done) await settle(ca.id, ...(done === 'done' ? [h('bdi', null, nameOf(ca)), ' is inactive.'] : ['The other change was kept; yours was discarded.']));
  }

  async function removeDialog(ca, content, effect) {
    const used = effect.connections30d > 0;
    let stored = null;
    const word = used && field('Type DELETE to delete it', input({ autocapitalize: 'characters' }), { name: 'word' });
    const done = await ask({
      title: 'Delete CA certificate?',
      content: [...content, word && word.row],
      fields: word ? [word] : [],
      actions: [
        ca.status === 'active' && { label: 'Deactivate instead', run: async () => (await setInactive(ca) ? 'inactive' : 'kept') },
        { label: 'Delete', tone: 'danger', submit: true, async run() {
          if (word && word.value.trim() !== 'DELETE') {
            word.fail('Type DELETE in capitals; this CA is in use.');
            word.focus();
            return undefined;
          }
          stored = await api.caPem(ca.id);
          return await saveOver(async (version) => { await api.deleteCA(ca.id, version); return true; }, ca.version,
            () => api.ca(ca.id), (theirs) => h('p', null, `It is ${theirs.status} now. “Save my change” deletes this CA.`)) ? 'deleted' : 'kept';
        } },
      ].filter(Boolean),
    });
    if (!done) return;
    const name = h('bdi', null, nameOf(ca));
    if (done === 'deleted') {
      await settle(ca.id);
      view.sayWithUndo(async () => {
        await api.addCA({ certificate: stored, comments: ca.comments, status: ca.status });
        await settle(ca.id);
        return [name, ' is registered again.'];
      }, name, ' is deleted.');
      return;
    }
    await settle(ca.id, ...({inactive: [name, ' is inactive.'], kept: ['The other change was kept; yours was discarded.'] })[done]);
  }

  refresh();
  return {
    update(id) {
      opened = id;
      if (!found || !id || found.results.some((ca) => ca.id === id)) draw(); else refresh();
    },
    leave() { clearTimeout(waiting); },
  };
}

/** A CA that was deleted meanwhile is not shown. */
function gone(error) {
  if (error.status !== 404) throw error;
  return null;
}

/**
 * Open the dialog that adds a CA. *text*: a certificate to fill in. *client*: {fingerprint, name} of the refused client
 * that the CA is for. Resolves to {ca, said} or undefined.
 */
export async function addCA({ text = null, client = null } = {}) {
  const preview = h('div', { class: 'preview', 'aria-live': 'polite' });
  let turn = null;
  const certificate = fileField('CA certificate', {
    name: 'certificate', hint: 'PEM or DER, one certificate, at most 64 KiB.', refuse: noKey, onchange: look,
  });
  const description = field('Description', textarea({ maxlength: 1000 }), { name: 'comments', hint: 'Which factory or product?' });

  async function look(file) {
    turn?.abort();
    preview.replaceChildren();
    if (!file) return;
    const mine = turn = new AbortController();
    preview.setAttribute('aria-busy', 'true');
    try {
      const report = await api.preview(file.wire, mine.signal, { effect: true, client: client?.fingerprint });
      const here = report.registered;
      if (mine.signal.aborted) return;
      preview.replaceChildren(
        here ? good('Already here since ', moment(here.createdAt), '.')
        : report.ca.accepted ? good('Will be accepted and active at once.')
        : bad(report.ca.message),
        ...(report.judged && !here ? judgement(report.judged, { admits: true, refuses: false, name: client?.name }) : []),
        facts(...certificateFacts(report)));
      preview.append(...report.ca.warnings.map((notice) => warning(visible(notice.message))));
    } catch (error) {
      if (error.name === 'AbortError') return;
      if (error.status === undefined) throw error;
      certificate.fail(error.message);
    } finally {
      if (turn === mine) preview.removeAttribute('aria-busy');
    }
  }

  return openDialog({
    title: 'Add CA certificate', wide: true, content: [certificate.row, preview, description.row],
    fields: [certificate, description], focusFirst: certificate.picker,
    onProblem(error) {
      if (error.status !== 422 || error.violations.some((violation) => violation.field === 'comments')) return false;
      certificate.fail(error.message); // show the error beside the certificate
      certificate.focus();
      return true;
    },
    setup(dialog) {
      droppable(dialog.element, () => certificate);
      if (text) certificate.fill(text);
    },
    actions: [{ label: 'Save', tone: 'primary', submit: true, async run() {
      if (!certificate.file) {
        certificate.fail('Choose a certificate first.');
        certificate.focus();
        return undefined;
      }
      const { status, data } = await api.addCA({ certificate: certificate.file.wire, comments: description.value });
      const name = h('bdi', null, nameOf(data));
      const said = status === 200
        ? [`Already here since ${absolute(data.createdAt)}; nothing changed.`]
        : [name, ' is active. ', ...(data.warnings ?? []).map((warning) => visible(warning.message))];
      return { ca: data, said };
    } }],
  });
}

export default { path: 'ca', title: 'CA certificates', show };
