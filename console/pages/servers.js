// The page of server certificates.

import { Problem, api } from '../api.js';
import { countries } from '../countries.js';
import { find, h, replace } from '../dom.js';
import { ask, openDialog, saveOver } from '../dialog.js';
import { droppable, fileField, noKey } from '../filefield.js';
import { absolute, short, visible } from '../format.js';
import { field, input, select, textarea } from '../form.js';
import { menu } from '../menu.js';
import {
  bad, certificateFacts, dateState, download, facts, foreign, good, moment, rowButton, states, table, warning, when,
} from '../parts.js';
import { mayChange, who } from '../session.js';
import { certificatesOf, sniff } from '../sniff.js';

const SOURCES = { default: 'Default', upload: 'Uploaded', csr: 'Requested' };
const KEYS = ['RSA-2048', 'RSA-3072', 'RSA-4096', 'P-256', 'P-384'];
const SELF_SIGNED = 'Browsers refuse this certificate until it is added to them; devices need it in their trust store.';

const REQUESTED = 'The request is made. Download the request, have a CA sign the request, then upload the certificate to the row of the request.';

/** Warnings as sentences that follow another sentence. */
const inWords = (warnings = []) => warnings.map((notice) => ` ${visible(notice.message)}`);

export const nameOf = (server) => server.id === 'default' ? 'Default certificate' : short(server.names[0] ?? server.subject, 50);

function statesOf(server) {
  if (server.status === 'csr') return ['waiting'];
  const byDate = dateState(server);
  return [...(server.active ? ['active'] : byDate === 'ended' ? [] : ['inactive']), ...(byDate ? [byDate] : [])];
}

function show(view, opened) {
  let all = null, activation = null;
  const top = h('section', { class: 'panel', 'aria-labelledby': 'default-cert' });
  const list = h('div');
  view.content.append(top, list);
  view.primary('Add certificate', add);

  const refresh = () => view.load(async () => {
    [all, activation] = await Promise.all([api.servers(), api.active()]);
    if (view.alive()) draw();
  });

  const byId = (id) => all.find((server) => server.id === id);

  function draw() {
    if (!all) return;
    replace(top, chooser());
    replace(list, h('div', { class: 'list-head' },
      mayChange() && h('button', { type: 'button', 'data-key': 'csr', onclick: generate }, 'Generate CSR')),
    table('servers', 'Server certificates', ['Names', 'Source', 'Expires', 'Status', 'Actions'], all.map(row)));
  }

  function chooser() {
    const now = byId(activation.active);
    const choices = all.filter((server) => server.status === 'certificate');
    const label = (server) => {
      const state = dateState(server);
      const note = server.id === activation.active ? ' (active)' : state === 'ended' ? ' (expired)' : state === 'begins' ? ' (not valid yet)' : '';
      return `${nameOf(server)}, expires ${absolute(server.notAfter).split(',')[0]}${note}`;
    };
    const choice = select(choices.map((server) => [server.id, label(server)]), activation.active, { id: 'active-choice', 'data-key': 'choice', 'aria-describedby': 'shown-at' });
    const pending = h('p', { class: 'warn', role: 'status', hidden: true }, 'Not active yet. Press “Activate…”.');
    choice.addEventListener('change', () => { pending.hidden = choice.value === activation.active; });
    const previous = activation.previous && byId(activation.previous);
    const ended = now && dateState(now) === 'ended';
    return [
      h('h2', { id: 'default-cert' }, 'Default messaging server certificate'),
      mayChange()
        ? h('div', { class: 'choice' },
          h('label', { class: 'sr', for: 'active-choice' }, 'Default messaging server certificate'), choice,
          h('button', { type: 'button', 'data-key': 'activate', onclick: () => activate(choice.value) }, 'Activate…'), pending,
          previous && h('button', { type: 'button', 'data-key': 'return', onclick: () => goBack(previous.id) }, `Return to ${nameOf(previous)}`))
        : h('p', null, now ? nameOf(now) : activation.active),
      h('p', { id: 'shown-at', class: 'muted' }, `Shown to devices at ${who().messagingHost}.`,
        activation.activatedAt && [' Active since ', moment(activation.activatedAt), '.'], now && served(now)),
      now && h('p', null, h('button', { type: 'button', class: 'small', 'data-key': 'trust', onclick: () => trustAnchor(now) }, 'Download what devices must trust')),
      ended && bad('This certificate has expired. Devices get this certificate until you activate another one.'),
    ];
  }

  /** Save the certificate that a device needs to verify *server*: the root, or the certificate itself if no CA signed it. */
  async function trustAnchor(server) {
    await view.load(async () => {
      const [full, pem] = await Promise.all([api.server(server.id), api.serverPem(server.id)]);
      const path = [full, ...full.chain], at = path.findIndex((cert) => cert.subject === cert.issuer);
      if (at < 0) {
        return view.say('Devices must trust the root CA above ', foreign(path.at(-1).issuer, { lines: 0 }),
          '. Its certificate is not stored here: get it from that CA, or upload this certificate again with its whole chain.');
      }
      download(pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\s*/g)[at], `${who().org}-server-ca.pem`);
      return undefined;
    });
  }

  /** Show what the TLS edges report. Without an edge, nothing is shown about the default certificate. */
  function served(server) {
    if (server.servedSince) return [' Served since ', moment(server.servedSince), '.'];
    return server.source === 'default' ? null : ' No TLS edge has reported yet that it serves this certificate.';
  }

  function row(server) {
    const isOpen = server.id === opened;
    const link = h('a', {
      href: isOpen ? '#/servers' : `#/servers/${encodeURIComponent(server.id)}`, 'data-key': `row-${server.id}`,
      'aria-expanded': String(isOpen),
    }, server.names.length ? server.names.slice(0, 3).map((name) => h('span', { class: 'name-line' }, foreign(name, { lines: 0 })))
      : foreign(server.subject, { lines: 0 }), server.names.length > 3 && `and ${server.names.length - 3} more`);
    return {
      key: server.id,
      cells: [h('div', { class: 'clamp' }, link, server.comments && h('div', { class: 'muted' }, foreign(server.comments))),
        SOURCES[server.source] ?? server.source, when(server.notAfter), states(...statesOf(server)), actions(server)],
      details: isOpen && details(server),
    };
  }

  function actions(server) {
    const csr = server.status === 'csr', own = server.source !== 'default' && mayChange();
    const button = (label, run) => rowButton(label, nameOf(server), `${label}-${server.id}`, () => run(server));
    const action = (label, run, tone) => ({ label, key: `${label}-${server.id}`, tone, run: () => run(server) });
    return h('div', { class: 'row-actions' },
      csr && button('Download request', (it) => view.load(async () => download(await api.csrPem(it.id), `${it.id}.csr.pem`))),
      csr && own && button('Upload certificate', (it) => fulfil(it)),
      (own || !csr) && menu({ name: nameOf(server), key: `actions-${server.id}`, actions: [
        !csr && own && action('Renew', renew),
        own && action('Edit description', describe),
        !csr && action('Download PEM', (it) => view.load(async () => download(await api.serverPem(it.id), `${it.id}.pem`))),
        own && !server.active && action('Delete', remove, 'danger'),
      ] }),
      own && server.active && h('p', { class: 'hint' }, 'To delete it, activate another first.'));
  }

  function details(server) {
    return facts(
      ...certificateFacts(server),
      ['All names', foreign(server.names.join('\n'))],
      ['Your hosts it serves', server.status === 'csr' ? null : server.hosts.join(', ') || 'None'],
      server.servedSince && ['Served since', when(server.servedSince)],
      server.chain.length > 0 && ['Chain', h('ol', { class: 'chain' }, server.chain.map((cert) => h('li', null, foreign(cert.subject), Date.parse(cert.notAfter) < Date.now() ? ', expired ' : ', expires ', moment(cert.notAfter))))],
      server.source !== 'default' && ['Added', h('span', null, foreign(server.createdBy, { lines: 0 }), ', ', moment(server.createdAt))],
      server.updatedAt !== server.createdAt && ['Changed', h('span', null, foreign(server.updatedBy, { lines: 0 }), ', ', moment(server.updatedAt))],
      server.comments && ['Description', foreign(server.comments)],
    );
  }

  async function settle(id, ...said) {
    await refresh();
    view.say(...said);
    (find(list, `row-${id}`) ?? document.getElementById('heading')).focus();
  }

  // ------------------------------------------------------------------------------------------------ activation

  async function activate(id) {
    const server = byId(id);
    if (id === activation.active) return view.say(h('bdi', null, nameOf(server)), ' is shown to devices already.');
    const version = activation.version, was = byId(activation.active);
    let checked = null, refusal = null;
    await view.load(async () => {
      try {
        checked = await api.preflight(id);
      } catch (error) {
        if (!(error instanceof Problem && [409, 422].includes(error.status))) throw error;
        refusal = error.message;
      }
    });
    if (!checked && !refusal) return undefined;
    const warnings = checked?.warnings ?? [];
    const done = await openDialog({
      title: `Activate ${nameOf(server)}?`, cancelFirst: true, cancel: refusal ? 'Close' : 'Cancel',
      content: refusal ? [bad(refusal)] : [
        checked.hosts.length ? good(`Names cover ${checked.hosts.join(', ')}`) : bad(`Names do not cover ${who().messagingHost}`),
        checked.chainComplete ? good('Chain complete') : warnings.some((notice) => notice.code === 'chain_incomplete') ? null : warning('Chain incomplete'),
        warnings.some((notice) => notice.code === 'ends_soon') ? null : good('Expires ', moment(checked.notAfter)),
        warnings.map((notice) => warning(visible(notice.message))),
        was && h('p', { class: 'muted' }, `Until now: ${nameOf(was)}. One click returns to it.`),
      ],
      actions: refusal ? [] : [{ label: 'Activate', tone: 'primary', submit: true, async run() {
        // An activation does not record who made it; the latest entry of the activity list does.
        const saved = await saveOver((readVersion) => api.activate(id, readVersion), version, lastActivation,
          (theirs) => h('p', null, 'Shown to devices now: ', h('bdi', null, theirs.name), '.'));
        return saved ? 'done' : 'kept';
      } }],
    });
    if (!done) return undefined;
    await refresh();
    view.say(...(done === 'done' ? [h('bdi', null, nameOf(server)), ' is active.'] : ['The other change was kept; yours was discarded.']));
    return find(top, 'activate')?.focus();
  }

  /** Go back with one click, because devices knew this certificate. The service refuses as in a preflight. */
  async function goBack(id) {
    const server = byId(id), version = activation.version;
    await view.load(async () => {
      const now = await saveOver((readVersion) => api.activate(id, readVersion), version, lastActivation,
        (theirs) => h('p', null, 'Shown to devices now: ', h('bdi', null, theirs.name), '.'));
      await refresh();
      view.say(...(now
        ? [h('bdi', null, nameOf(server)), ' is active.', ...inWords(now.warnings)]
        : ['The other change was kept; yours was discarded.']));
      find(top, 'activate')?.focus();
    });
  }

  async function lastActivation() {
    const [now, servers, changes] = await Promise.all([api.active(), api.servers(), api.activity({ kind: 'change', limit: 50 })]);
    const entry = changes.results.find((change) => change.what === 'activateServerCert');
    const shownNow = servers.find((server) => server.id === now.active);
    return { version: now.version, updatedBy: entry?.who ?? 'Another user', updatedAt: entry?.at ?? now.activatedAt, name: shownNow ? nameOf(shownNow) : now.active };
  }

  // ---------------------------------------------------------------------------------------- adding, requesting

  async function add() {
    const done = await addDialog(view);
    if (done?.fulfil) return fulfil(byId(done.fulfil) ?? { id: done.fulfil, names: [] }, done.text);
    if (done) await settle(done.id, ...done.said);
    return undefined;
  }

  async function generate() {
    let hosts = [who().messagingHost];
    await view.load(async () => {
      const { customDomains } = await api.settings();
      if (customDomains.enabled) hosts = [...hosts, ...customDomains.domains.map((domain) => `${who().org}.messaging.${domain}`)];
    });
    const text = (label, name, more) => field(label, input({ maxlength: 256, ...more }), { name, hint: more?.hint });
    const fields = [
      field('Common name', hosts.length > 1 ? select(hosts.map((host) => [host, host]), hosts[0]) : input({ value: hosts[0] }), { name: 'commonName' }),
      text('Organization', 'organization'), text('Unit', 'organizationalUnit'), text('Locality', 'locality'), text('State', 'state'),
      field('Country', select([['', 'None'], ...countries()], ''), { name: 'country' }),
      field('E-mail', input({ type: 'email', maxlength: 256 }), { name: 'emailAddress' }),
      field('Key', select(KEYS.map((key) => [key, key.replace('RSA-', 'RSA ')]), KEYS[0]), { name: 'keyAlgorithm' }),
      field('Description', textarea({ maxlength: 1000 }), { name: 'comments' }),
    ];
    const done = await openDialog({
      title: 'Generate CSR', wide: true, fields,
      content: [h('p', null, 'The service makes the private key and keeps it. The key cannot be downloaded.'), h('div', { class: 'columns' }, fields.map((field) => field.row))],
      actions: [{ label: 'Generate', tone: 'primary', submit: true,
        run: () => api.generateCSR(Object.fromEntries(fields.map((field) => [field.name, field.value.trim()]).filter(([, value]) => value))) }],
    });
    if (done) await settle(done.id, REQUESTED, ...inWords(done.warnings));
  }

  async function fulfil(request, text = null) {
    const preview = h('div', { class: 'preview', 'aria-live': 'polite' });
    const certificate = fileField('Signed certificate', {
      name: 'certificate', hint: 'PEM, DER or PKCS#7, with its chain.', most: 180 * 1024, refuse: noKey,
      onchange: (file) => look(file, preview, certificate),
    });
    const done = await openDialog({
      title: 'Upload certificate', wide: true, content: [h('p', null, 'For the request ', h('bdi', null, nameOf(request)), '.'), certificate.row, preview],
      fields: [certificate], focusFirst: certificate.picker, fieldOf: () => 'certificate',
      setup(dialog) {
        droppable(dialog.element, () => certificate);
        if (text) certificate.fill(text);
      },
      actions: [{ label: 'Save', tone: 'primary', submit: true, async run() {
        if (!certificate.file) {
          certificate.fail('Choose the signed certificate first.');
          return certificate.focus();
        }
        return api.fulfillCSR(request.id, certificate.file.wire);
      } }],
      onProblem(error) {
        if (error.status !== 422) return false;
        certificate.fail(error.message);
        certificate.focus();
        return true;
      },
    });
    if (done) await settle(done.id, h('bdi', null, nameOf(done)), ' took the place of its request.', ...inWords(done.warnings));
  }

  async function renew(server) {
    const done = await ask({
      title: `Renew ${nameOf(server)}?`,
      content: [h('p', null, 'This makes a new request on the same key. The certificate stays as it is until you activate the new one.')],
      actions: [{ label: 'Make the request', tone: 'primary', submit: true, run: () => api.renew(server.id) }],
    });
    if (done) await settle(done.id, REQUESTED, ...inWords(done.warnings));
  }

  async function describe(server) {
    const comments = field('Description', textarea({ value: server.comments, maxlength: 1000 }), { name: 'comments' });
    const done = await openDialog({
      title: 'Edit description of server certificate', content: [h('p', null, h('bdi', null, nameOf(server))), comments.row], fields: [comments],
      actions: [{ label: 'Save', tone: 'primary', submit: true, run: async () => ({
        kept: !await saveOver((version) => api.changeServer(server.id, { comments: comments.value }, version), server.version,
          () => api.server(server.id), (theirs) => [h('p', null, 'The description is now:'), foreign(theirs.comments, { empty: '(empty)' })]),
      }) }],
    });
    if (done) await settle(server.id, done.kept ? 'The other change was kept; yours was discarded.' : 'Description saved.');
  }

  async function remove(server) {
    const csr = server.status === 'csr';
    const done = await ask({
      title: csr ? 'Delete request?' : 'Delete server certificate?',
      content: [h('p', null, h('bdi', null, nameOf(server))),
        h('p', null, csr ? 'A certificate issued for it becomes useless.' : 'Its private key is deleted with it. It is not shown to devices now.')],
      actions: [{ label: 'Delete', tone: 'danger', submit: true, run: async () => (await saveOver(
        async (version) => { await api.deleteServer(server.id, version); return true; }, server.version, () => api.server(server.id),
        (theirs) => h('p', null, `It is ${theirs.status === 'csr' ? 'a request' : 'a certificate'} now. “Save my change” deletes it.`))
        ? 'deleted' : 'kept') }],
    });
    if (done) await settle(server.id, ...(done === 'deleted' ? [h('bdi', null, nameOf(server)), ' is deleted.'] : ['The other change was kept; yours was discarded.']));
  }

  refresh();
  return { update(id) { opened = id; draw(); } };
}

/** Preview a certificate as a server's. Keys stay here: only the certificates of a PEM file are sent. */
async function look(file, preview, beside, alive = () => beside.file === file) {
  preview.replaceChildren();
  if (!file) return;
  const text = file.content.pem ? certificatesOf(file.content.text) : file.wire;
  if (file.content.pkcs12) {
    preview.replaceChildren(h('p', null, 'A PKCS#12 file: it is opened when you save.'));
    return;
  }
  if (!text) return;
  try {
    const report = await api.preview(text);
    if (!alive()) return;
    preview.replaceChildren(
      report.server.accepted ? good('Will be accepted.') : bad(report.server.message),
      ...report.server.warnings.filter((notice) => notice.code !== 'self_signed').map((notice) => warning(visible(notice.message))),
      report.selfSigned ? warning(SELF_SIGNED) : '',
      facts(...certificateFacts(report), ['Names', foreign(report.names.join('\n'))]));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (alive()) beside.fail(error.message);
  }
}

async function addDialog() {
  const preview = h('div', { class: 'preview', 'aria-live': 'polite' });
  const ENCRYPTED = 'This key is encrypted. Passphrase:';
  const certificate = fileField('Certificate file', {
    name: 'certificate', hint: 'The server\'s certificate with its chain: PEM, DER or PKCS#12.', most: 180 * 1024,
    refuse: (content) => content.key && !content.certificates && !content.pkcs12 ? 'This is a private key; it belongs in the field below.' : null,
    onchange(file) {
      look(file, preview, certificate);
      settleFields();
    },
  });
  const key = fileField('Private key file', {
    name: 'privateKey', hint: 'PEM or DER. Not needed for PKCS#12.',
    refuse: (content) => content.certificates && !content.key ? 'No private key found in it.' : null, onchange: () => settleFields(),
  });
  const passphrase = field(ENCRYPTED, input({ type: 'password', autocomplete: 'off', maxlength: 1024 }), { name: 'passphrase' });
  const description = field('Description', textarea({ maxlength: 1000 }), { name: 'comments' });
  let asked = false;
  passphrase.row.hidden = true;

  function settleFields() {
    const whole = certificate.file?.content;
    key.row.hidden = Boolean(whole?.pkcs12);
    const needed = asked || whole?.pkcs12 || whole?.key === 'encrypted' || key.file?.content.key === 'encrypted';
    if (needed && passphrase.row.hidden) {
      passphrase.row.hidden = false;
      passphrase.focus();
    } else if (!needed && !passphrase.value) {
      passphrase.row.hidden = true;
    }
  }

  return openDialog({
    title: 'Add server certificate', wide: true, focusFirst: certificate.picker,
    content: [certificate.row, key.row, passphrase.row, preview, description.row],
    fields: [certificate, key, passphrase, description],
    setup(dialog) {
      // Files dropped together are assigned by their content.
      droppable(dialog.element, async (file) => {
        const head = await file.slice(0, 128 * 1024).arrayBuffer();
        const content = sniff(new Uint8Array(head));
        return content.key && !content.certificates ? key : certificate;
      });
    },
    fieldOf: (violation) => violation.code.startsWith('passphrase_') || violation.code === 'kdf_too_costly' ? 'passphrase'
      : violation.field === 'chain' ? 'certificate' : violation.field,
    onProblem(error, dialog) {
      if (error.code === 'use_fulfil') {
        const id = error.violations[0]?.id;
        certificate.fail(error.message, ' ', h('button', {
          type: 'button', class: 'small',
          onclick: () => dialog.close({ fulfil: id, text: certificate.file.content.pem ? certificate.file.content.text : null }),
        }, 'Upload it there'));
        certificate.focus();
        return true;
      }
      if (error.code === 'passphrase_required' || error.code === 'passphrase_wrong') {
        asked = true;
        settleFields();
        passphrase.fail(error.code === 'passphrase_wrong' ? error.message : 'This key is encrypted: its passphrase.');
        passphrase.focus();
        passphrase.control.select();
        return true;
      }
      if (error.status === 422 && !error.violations.length) {
        certificate.fail(error.message); // show the error beside the certificate
        certificate.focus();
        return true;
      }
      return false;
    },
    actions: [{ label: 'Save', tone: 'primary', submit: true, async run() {
      if (!certificate.file) {
        certificate.fail(certificate.failure ?? 'Choose the certificate first.');
        return certificate.focus();
      }
      const secret = passphrase.row.hidden ? '' : passphrase.value;
      const { status, data } = await api.addServer({
        certificate: certificate.file.wire, comments: description.value,
        ...(key.file && !key.row.hidden && { privateKey: key.file.wire }), ...(secret && { passphrase: secret }),
      });
      const said = status === 200
        ? [`Already here since ${absolute(data.createdAt)}. `,
          visible(data.warnings?.find((notice) => ['chain_completed', 'chain_kept'].includes(notice.code))?.message ?? 'Nothing changed.')]
        : [h('bdi', null, nameOf(data)), ' is saved. Activate it to show it to devices.', ...inWords(data.warnings)];
      return { id: data.id, said };
    } }],
  });
}

export default { path: 'servers', title: 'Server certificates', show };
