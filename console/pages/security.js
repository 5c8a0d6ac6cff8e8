// Connection security: the policy, custom domains, type certificates, the deny list.

import { api } from '../api.js';
import { ask, openDialog, saveOver } from '../dialog.js';
import { find, h, newId, replace } from '../dom.js';
import { droppable, fileField, noKey } from '../filefield.js';
import { commonName, plural, short, visible } from '../format.js';
import { checkbox, errorArea, field, input, select, showProblem, textarea } from '../form.js';
import { certificateFacts, facts, foreign, good, judgement, rowButton, moment, table, warning, when } from '../parts.js';
import { mayChange, who } from '../session.js';

// For each level: whether a device is admitted with a valid, an invalid, no certificate. "Token": the broker asks for it.
const IN = 'allowed', OUT = 'refused', TOKEN = 'token decides';
const SHOWN = ['Valid certificate', 'Invalid certificate', 'No certificate'];
const TONES = { [IN]: 'good', [OUT]: 'bad', [TOKEN]: 'warn' };
const LEVELS = [
  ['TLS Optional', IN, OUT, TOKEN, 'Connections without TLS too; then the token decides.'],
  ['TLS with Token Authentication', TOKEN, OUT, TOKEN, ''],
  ['TLS with Client Certificate Authentication', IN, OUT, OUT, ''],
  ['TLS with Token and Client Certificate Authentication', TOKEN, OUT, OUT, ''],
  ['TLS with Client Certificate or Token', IN, OUT, TOKEN, ''],
];
const KINDS = { fingerprint: 'Certificate', serial: 'Serial number', identity: 'Device', key: 'Public key' };

function show(view) {
  const policyPart = h('section', { class: 'panel', 'aria-labelledby': 'level' });
  const settingsPart = h('section', { class: 'panel', 'aria-labelledby': 'settings' });
  const denyPart = h('section', { class: 'panel', 'aria-labelledby': 'denied', id: 'deny-list' });
  view.content.append(policyPart, settingsPart, denyPart);
  if (!mayChange()) view.primary();
  view.load(async () => {
    const [policy, settings, denials] = await Promise.all([api.policy(), api.settings(), api.denials()]);
    const cas = await api.namedCAs(denials.filter(({ kind }) => kind === 'serial').map(({ value }) => value.split(':')[0]));
    if (!view.alive()) return;
    policySection(view, policyPart, policy);
    settingsSection(view, settingsPart, settings);
    denySection(view, denyPart, denials, cas);
    if (location.hash.endsWith('/deny')) denyPart.querySelector('h2').focus();
  });
  settingsPart.addEventListener('input', () => { settingsPart.dataset.changed = 'yes'; });
  return { update() {}, hasChanges: () => [policyPart, settingsPart].some((part) => part.dataset.changed) };
}

// ------------------------------------------------------------------------------------------------------ policy

function policySection(view, part, policy) {
  delete part.dataset.changed;
  const may = mayChange();
  const errors = errorArea();
  const preview = h('div', { class: 'preview', 'aria-live': 'polite' });
  const group = newId('level');
  const radios = h('table', { class: 'levels' },
    h('caption', { class: 'sr' }, 'What each level does with a device'),
    h('thead', null, h('tr', null, ['Level', ...SHOWN].map((name) => h('th', { scope: 'col' }, name)))),
    h('tbody', null, LEVELS.map(([level, valid, invalid, none, note]) => h('tr', null,
      h('th', { scope: 'row' }, h('label', { class: 'level' },
        h('input', { type: 'radio', name: group, value: level, checked: level === policy.default, disabled: !may, 'data-key': `level-${level}`, onchange: stale }),
        h('span', null, level)), note && h('p', { class: 'muted' }, note)),
      [valid, invalid, none].map((outcome, at) => h('td', { class: TONES[outcome], 'data-label': `${SHOWN[at]}: ` }, outcome))))));
  const unnamed = checkbox('A valid certificate that names no device: the broker asks for the token', policy.unnamedCertificates === 'token', {
    hint: 'Not at the level “TLS with Client Certificate Authentication”, which takes no token.', key: 'unnamed',
  });
  unnamed.control.addEventListener('change', stale);
  unnamed.control.disabled = !may;
  const rules = h('div', { class: 'rules' });
  let lines = [];
  let previewed = null;

  function stale() {
    part.dataset.changed = 'yes';
    previewed = null;
    preview.replaceChildren();
  }

  function addRule(rule, at = lines.length) {
    const type = field('Device type', input({ value: rule.deviceType, maxlength: 64, oninput: stale, disabled: !may }), {});
    const level = field('Level', select(LEVELS.map(([name]) => [name, name]), rule.level, { onchange: stale, disabled: !may }));
    const line = { type, level };
    line.row = h('div', { class: 'rule', role: 'group', 'aria-label': 'Rule' }, type.row, level.row, may && h('button', {
      type: 'button', class: 'small', 'aria-label': 'Remove this rule',
      onclick() {
        const next = lines[lines.indexOf(line) + 1] ?? lines[lines.indexOf(line) - 1];
        lines = lines.filter((other) => other !== line);
        line.row.remove();
        stale();
        (next?.type ?? { focus: () => adder.focus() }).focus();
      },
    }, 'Remove'));
    lines.splice(at, 0, line);
    rules.append(line.row);
    return line;
  }
  policy.rules.forEach((rule) => addRule(rule));
  const adder = h('button', { type: 'button', onclick() { stale(); addRule({ deviceType: '', level: LEVELS[2][0] }).type.focus(); } }, 'Add rule');

  const readPolicy = () => ({
    default: part.querySelector(`input[name=${group}]:checked`).value,
    rules: lines.map(({ type, level }) => ({ deviceType: type.value.trim(), level: level.value })),
    unnamedCertificates: unnamed.control.checked ? 'token' : 'deny',
  });
  const named = () => lines.map((line, at) => Object.assign(line.type, { name: `rules[${at}].deviceType` }));
  const clear = () => {
    errors.clear();
    lines.forEach(({ type }) => type.clear());
  };

  async function look() {
    clear();
    try {
      const body = readPolicy();
      const report = await api.dryRun(body);
      previewed = { body: JSON.stringify(body), report };
      preview.replaceChildren(...effect(report));
      return report;
    } catch (error) {
      showProblem(error, named(), errors);
      return null;
    }
  }

  async function save() {
    const body = readPolicy();
    const report = previewed?.body === JSON.stringify(body) ? previewed.report : await look();
    if (!report) return;
    if (report.refused || report.judged.refused) {
      const sure = await ask({ title: 'Save, and refuse them?', content: effect(report), actions: [{ label: 'Save', tone: 'danger', submit: true, run: () => true }] });
      if (!sure) return;
    }
    clear();
    try {
      const saved = await saveOver((version) => api.putPolicy(body, version), policy.version, api.policy,
        (theirs) => facts(['Default level', theirs.default], ['Rules', theirs.rules.map((rule) => `${rule.deviceType}: ${rule.level}`).join('; ') || 'None'], ['Certificates that name no device', theirs.unnamedCertificates === 'token' ? 'Token decides' : 'Refused']));
      const now = saved ?? await api.policy();
      policySection(view, part, now);
      view.say(saved ? 'Connection security is saved; it counts from the next connection on.' : 'The other change was kept; yours was discarded.');
      find(part, 'save-policy').focus();
    } catch (error) {
      showProblem(error, named(), errors);
    }
  }

  part.replaceChildren(h('form', { novalidate: true, onsubmit(event) { event.preventDefault(); save(); } },
    h('h2', { id: 'level' }, 'Default level'),
    h('fieldset', null, h('legend', { class: 'sr' }, 'Default level'), radios),
    h('h3', null, 'Rules'), h('p', { class: 'muted' }, 'For device types that need another level than the default.'),
    rules, !lines.length && h('p', { class: 'none' }, 'No rules: the default level holds for every device type.'),
    may && h('div', { class: 'row-actions' }, adder),
    h('h3', null, 'Certificates without a device name'), unnamed.row,
    errors.area, preview,
    may && h('div', { class: 'form-actions' }, h('button', { type: 'button', onclick: look }, 'Preview'),
      h('button', { type: 'submit', class: 'primary', 'data-key': 'save-policy' }, 'Save')),
    changed(policy)));
}

function effect(report) {
  const { refused, sample, refusedTypes, changed: changes, judged } = report;
  const count = `${refused.toLocaleString('en')} of ${plural(sample.identities, 'client')} seen in 30 days would be refused`;
  return [
    refused ? warning(`${count}: ${refusedTypes.join(', ')}.`) : sample.identities ? good(`${count}.`) : h('p', null, 'No client was seen in 30 days, so no known client would be refused.'),
    ...(judged.certificates ? judgement(judged) : []),
    changes.length ? h('ul', null, changes.map((change) => h('li', null, h('bdi', null, change.deviceType), `: ${change.from} → ${change.to}`))) : h('p', { class: 'muted' }, 'No device type seen or named here changes its level.'),
  ];
}

const changed = (record) => h('p', { class: 'muted stamp' }, 'Last changed by ', foreign(record.updatedBy, { lines: 0 }), ', ', moment(record.updatedAt), '.');

// ---------------------------------------------------------------------------------------------------- settings

function settingsSection(view, part, settings) {
  delete part.dataset.changed;
  const may = mayChange();
  const errors = errorArea();
  const { org, messagingHost } = who();
  const enabled = checkbox('Use custom domains', settings.customDomains.enabled);
  const typed = checkbox('Accept type certificates', settings.typeCertificates, { hint: 'One certificate d:{type}: is valid for every device of its type.' });
  [enabled, typed].forEach((field) => { field.control.disabled = !may; });
  const domains = field('Domains', textarea({ rows: 3, value: settings.customDomains.domains.join('\n'), spellcheck: 'false', disabled: !may, oninput: records }),
    { hint: 'One a line, at most 10, like iot.example.com.' });
  const dns = h('div', { 'aria-live': 'polite' });
  const list = () => domains.value.split(/[\s,]+/).filter(Boolean);

  function records() {
    const [first = '{domain}'] = list();
    dns.replaceChildren(h('p', null, `Add this record for ${org}.messaging.${first} at your DNS provider:`),
      h('pre', { tabindex: '0', 'aria-label': 'DNS records' }, (list().length ? list() : ['{domain}']).map((domain) => `${visible(`${org}.messaging.${domain}`)}. CNAME ${messagingHost}.`).join('\n')));
  }
  records();

  async function save(event) {
    event.preventDefault();
    errors.clear();
    domains.clear();
    const body = { customDomains: { enabled: enabled.control.checked, domains: list() }, typeCertificates: typed.control.checked };
    try {
      const effect = await api.settingsEffect(body);
      if ((effect.hosts.length || effect.judged.refused) && !await confirmEffect(effect)) return;
      const saved = await saveOver((version) => api.putSettings(body, version), settings.version, api.settings,
        (theirs) => facts(['Custom domains', `${theirs.customDomains.enabled ? 'On' : 'Off'}: ${theirs.customDomains.domains.join(', ') || 'none'}`], ['Type certificates', theirs.typeCertificates ? 'On' : 'Off']));
      const now = saved ?? await api.settings();
      settingsSection(view, part, now);
      view.say(saved ? 'Settings saved.' : 'The other change was kept; yours was discarded.');
      find(part, 'save-settings').focus();
    } catch (error) {
      domains.name = 'domains';
      showProblem(error, [domains], errors, { fieldOf: (violation) => violation.field.startsWith('customDomains') ? 'domains' : violation.field });
    }
  }

  const confirmEffect = ({ hosts, judged }) => ask({
    title: 'Save settings?',
    content: [hosts.length > 0 && warning(`Devices can no longer connect to ${hosts.map(visible).join(', ')}.`), ...judgement(judged)],
    actions: [{ label: 'Save', tone: 'danger', submit: true, run: () => true }],
  });

  part.replaceChildren(h('form', { novalidate: true, onsubmit: save },
    h('h2', { id: 'settings' }, 'Custom domains (Beta)'), enabled.row, domains.row, dns,
    h('h2', null, 'Type certificates'), typed.row, errors.area,
    may && h('div', { class: 'form-actions' }, h('button', { type: 'submit', class: 'primary', 'data-key': 'save-settings' }, 'Save settings')),
    changed(settings)));
}

// --------------------------------------------------------------------------------------------------- deny list

function denySection(view, part, denials, cas) {
  const list = h('div');
  part.replaceChildren(h('div', { class: 'list-head' }, h('h2', { id: 'denied', tabindex: '-1' }, 'Deny list'),
    mayChange() && h('button', { type: 'button', 'data-key': 'deny', onclick: add }, 'Add to deny list')), list);
  draw();

  function draw() {
    if (!denials.length) return replace(list, h('p', null, 'The deny list is empty. A device or certificate on it is refused even with a valid certificate.'));
    replace(list, table('denials', 'Deny list', ['Kind', 'Value', 'Reason', 'Since', 'By', 'Actions'], denials.map((denial) => ({
      key: denial.id,
      cells: [KINDS[denial.kind] ?? denial.kind, value(denial), foreign(denial.reason), when(denial.createdAt), foreign(denial.createdBy),
        mayChange() ? rowButton('Remove', short(denial.value, 24), `lift-${denial.id}`, () => lift(denial)) : '–'],
    }))));
  }

  function value(denial) {
    if (denial.kind !== 'serial') return h('code', { 'data-key': `row-${denial.id}`, tabindex: '-1' }, foreign(denial.value));
    const [ca, serial] = denial.value.split(':');
    const issuer = cas.find((known) => known.id === ca);
    return h('span', { 'data-key': `row-${denial.id}`, tabindex: '-1' }, h('code', null, serial), ' of ', issuer ? foreign(commonName(issuer.subject), { lines: 0 }) : ca);
  }

  const refresh = () => view.load(async () => { denials = await api.denials(); draw(); });

  async function lift(denial) {
    let effect;
    await view.load(async () => { effect = await api.liftEffect(denial.id); });
    if (!effect) return;
    const done = await ask({
      title: 'Take off the deny list?', content: [h('p', null, `${KINDS[denial.kind] ?? denial.kind}: `, foreign(denial.value)), h('p', null, 'A device that this entry refuses is allowed again if its certificate is valid.'), ...judgement(effect.judged, { admits: true, refuses: false })],
      actions: [{ label: 'Remove', tone: 'danger', submit: true, run: async () => { await api.lift(denial.id); return true; } }],
    });
    if (!done) return;
    await refresh();
    view.sayWithUndo(async () => {
      await api.deny({ kind: denial.kind, value: denial.value, reason: denial.reason });
      await refresh();
      return ['On the deny list again.'];
    }, 'Taken off the deny list.');
    find(part, 'deny').focus();
  }

  async function add() {
    let all;
    await view.load(async () => { all = await api.cas(); });
    const done = all && await denyDialog(all);
    if (!done) return;
    cas = all;
    await refresh();
    if (done.status === 200) view.say('It was on the deny list already.');
    else {
      view.sayWithUndo(async () => {
        await api.lift(done.data.id);
        await refresh();
        return ['Taken off the deny list.'];
      }, 'It is refused from now on.');
    }
    find(part, `row-${done.data.id}`)?.focus();
  }
}

async function denyDialog(cas) {
  const preview = h('div', { class: 'preview', 'aria-live': 'polite' });
  let turn = 0;
  const certificate = fileField('Certificate', {
    name: 'certificate', hint: 'PEM or DER, of a device or a CA.', refuse: noKey,
    async onchange(file) {
      const mine = ++turn;
      preview.replaceChildren();
      if (!file) return;
      try {
        const report = await api.preview(file.wire);
        if (mine === turn) preview.replaceChildren(facts(...certificateFacts(report)));
      } catch (error) {
        if (mine === turn) certificate.fail(error.message);
      }
    },
  });
  const identity = field('Device', input({ placeholder: 'd:type:device' }), { name: 'value', hint: 'Its identity: d:type:device, or g:type:device for a gateway.' });
  const issuer = field('Issuing CA', select(cas.map((ca) => [ca.id, short(commonName(ca.subject), 60)])), { name: 'issuer' });
  const serial = field('Serial number', input({ placeholder: '4f2a…' }), { name: 'value', hint: 'In hex.' });
  const print = field('SHA-256 fingerprint', input({}), { name: 'value', hint: '64 hex digits, with or without colons.' });
  const reason = field('Reason', textarea({ maxlength: 1000 }), { name: 'reason', hint: 'Shown in the list, for example: stolen in May.' });
  const parts = {
    certificate: [certificate, preview], key: [certificate, preview], identity: [identity], serial: [issuer, serial], fingerprint: [print],
  };
  const kind = field('Deny', select([['certificate', 'This certificate, from a file'], ['identity', 'A device, whatever it shows'],
    ...(cas.length ? [['serial', 'A serial number of a CA']] : []), ['fingerprint', 'A certificate, by fingerprint'],
    ['key', 'Every certificate with the public key of a certificate, from a file']], 'certificate', { onchange: choose }));

  function choose() {
    for (const member of Object.values(parts).flat()) (member.row ?? member).hidden = !parts[kind.value].includes(member);
  }
  choose();

  const bodies = {
    certificate: () => ({ certificate: certificate.file?.wire }),
    key: () => ({ kind: 'key', certificate: certificate.file?.wire }),
    identity: () => ({ kind: 'identity', value: identity.value.trim() }),
    serial: () => ({ kind: 'serial', value: `${issuer.value}:${serial.value.replace(/[\s:]|^0x/g, '')}` }),
    fingerprint: () => ({ kind: 'fingerprint', value: print.value }),
  };
  return openDialog({
    title: 'Add to deny list', wide: true, content: [kind.row, certificate.row, preview, identity.row, issuer.row, serial.row, print.row, reason.row],
    fields: [certificate, identity, serial, print, reason], focusFirst: kind.control,
    setup(dialog) {
      droppable(dialog.element, () => { if (kind.value !== 'key') kind.control.value = 'certificate'; choose(); return certificate; });
    },
    onProblem(error) {
      const active = { certificate, key: certificate, identity, serial, fingerprint: print }[kind.value];
      if (![404, 422].includes(error.status)) return false;
      active.fail(error.message);
      active.focus();
      return true;
    },
    actions: [{ label: 'Deny', tone: 'danger', submit: true, async run() {
      if (parts[kind.value].includes(certificate) && !certificate.file) {
        certificate.fail('Choose the certificate first.');
        return certificate.focus();
      }
      return api.deny({ ...bodies[kind.value](), reason: reason.value });
    } }],
  });
}

export default { path: 'security', title: 'Connection security', show };
