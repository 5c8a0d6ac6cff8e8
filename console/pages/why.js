// Why was my device refused? The ten steps up to the failing step, with the reason and the remedy.

import { Problem, api } from '../api.js';
import { explainDeviceError } from '../device_errors.js';
import { ask } from '../dialog.js';
import { find, h, replace } from '../dom.js';
import { droppable, fileField, noKey } from '../filefield.js';
import { absolute, commonName, plural, short, visible } from '../format.js';
import { checkbox, errorArea, field, input, showProblem, textarea } from '../form.js';
import { copyButton, facts, fingerprint, foreign, judgement, moment, rowButton } from '../parts.js';
import { mayChange, who } from '../session.js';
import { DIALECTS, PASSED, refusedCallers } from './brokers.js';
import { addCA } from './cas.js';

const LIVE = 5000; // ms between two requests for the list of refusals
const LIVE_CALLERS = 30_000; // and for the brokers and edges, whose calls of seven days are read
const HOUR = 3_600_000;

/** Group refusals, newest first, by cause: the same code and sentence, or the same certificate at fault. */
function byCause(refusals) {
  const groups = new Map();
  for (const refusal of refusals) {
    const cause = refusal.reason || refusal.failing?.fingerprintSha256 || refusal.id;
    const key = `${refusal.code} ${cause}`;
    groups.set(key, [...(groups.get(key) ?? []), refusal]);
  }
  return [...groups.values()];
}
const SIGNS = { passed: ['✓', 'good'], failed: ['✕', 'bad'], 'not reached': ['–', 'muted'] };

export const CHECKED = () => `trust.checked.${who().org}`; // set after a successful check; the overview's first steps read it

function show(view, opened) {
  const recent = h('div', { class: 'recent' });
  const result = h('section', { class: 'panel result', 'aria-label': 'Result', hidden: true });
  const errors = errorArea();
  const certificate = fileField('Device certificate', {
    name: 'certificate', hint: 'PEM or DER, with the intermediates it sends.', refuse: noKey,
  });
  const clientId = field('Client ID', input({ maxlength: 300, autocapitalize: 'none' }), { name: 'clientId', hint: `Like d:${who().org}:type:device.` });
  const serverName = field('Server name', input({ value: who().messagingHost, maxlength: 300, autocapitalize: 'none' }), { name: 'serverName', hint: 'What the device names in TLS (SNI). Empty: it names none.' });
  const tls = checkbox('TLS', true);
  const form = h('form', { class: 'panel', novalidate: true, 'aria-labelledby': 'check', onsubmit(event) { event.preventDefault(); check(); } },
    h('h2', { id: 'check' }, 'Check a device'), certificate.row, clientId.row, serverName.row, tls.row, errors.area,
    h('div', { class: 'form-actions' }, h('button', { type: 'submit', class: 'primary', 'data-key': 'check' }, 'Check')));
  droppable(form, () => certificate);
  const trouble = h('div');
  const meaning = h('div', { 'aria-live': 'polite' });
  const line = field('A line of its log, or the code that it got', textarea({ maxlength: 2000, rows: 2, placeholder: 'tlsv1 alert unknown ca · CONNACK 5 · rc=5 · -0x2700' }),
    { hint: 'From OpenSSL, mbed TLS, Paho, mosquitto, ESP-IDF or another client. Nothing is sent.' });
  line.control.addEventListener('input', () => replace(meaning, line.value.trim() && meaningOf(line.value)));
  const says = h('details', { class: 'panel' }, h('summary', null, 'My device says …'), line.row, meaning);
  view.content.append(trouble, h('div', { class: 'halves' },
    h('div', null, h('section', { class: 'panel', 'aria-labelledby': 'recent' }, h('h2', { id: 'recent' }, 'Recent refusals'), recent), says, form),
    h('div', { class: 'right' }, h('p', { class: 'muted placeholder' }, 'The ten steps appear here.'), result)));

  let refusals = null, drawn = '';

  async function look() {
    refusals = (await api.activity({ kind: 'refusal', limit: 100 })).results;
    const fresh = refusals.filter((refusal) => Date.now() - Date.parse(refusal.at) < HOUR);
    const key = fresh.map((refusal) => refusal.id).join();
    if (!view.alive() || (key === drawn && recent.firstChild)) return;
    drawn = key;
    replace(recent, fresh.length ? h('ul', { class: 'refusals' }, byCause(fresh).map(([refusal, ...others]) => h('li', null,
      h('div', null, others.length ? h('strong', null, plural(new Set([refusal, ...others].map((each) => each.clientId ?? each.who)).size, 'client'), ', the latest ') : null,
        foreign(refusal.clientId ?? refusal.who), h('span', { class: 'muted block' }, `${refusal.code} · `,
          others.length ? ['since ', moment(others.at(-1).at)] : moment(refusal.at)),
        others.length > 0 && refusal.reason && h('span', { class: 'muted block' }, foreign(refusal.reason, { lines: 0 }))),
      rowButton('Explain', short(refusal.clientId ?? refusal.who, 40), `explain-${(others.at(-1) ?? refusal).id}`, () => {
        if (location.hash === `#/why/${refusal.id}`) explain(refusal); else location.hash = `#/why/${encodeURIComponent(refusal.id)}`;
      }))))
      : h('p', null, 'None in the last hour. Let the device try now.'));
  }

  async function lookAtCallers() {
    const callers = (await api.callers()).results;
    if (!view.alive()) return;
    const failing = JSON.stringify(callers.flatMap((caller) => caller.failures));
    if (failing === (trouble.dataset.failing ?? '')) return;
    trouble.dataset.failing = failing;
    replace(trouble, refusedCallers(callers));
  }

  const refresh = () => view.load(look);
  const quiet = (error) => { if (!(error instanceof Problem)) throw error; };
  const repeat = (request, pause) => setInterval(() => { if (!document.hidden && !document.querySelector('dialog')) request().catch(quiet); }, pause);
  const timers = [repeat(look, LIVE), repeat(lookAtCallers, LIVE_CALLERS)];
  lookAtCallers().catch(quiet); // apart from the refusals, which are shown also where this request fails

  /** Fill the form with a refusal's certificate, client ID and server name, and check them as of now. */
  async function explain(refusal) {
    if (refusal.certificate) certificate.fill(refusal.certificate);
    else certificate.fill('');
    clientId.control.value = refusal.clientId ?? '';
    // A broker that cannot pass the server name omits it from the refusal, although the device sent one.
    serverName.control.value = refusal.serverName ?? (refusal.code === 'sni_missing' ? '' : who().messagingHost);
    tls.control.checked = refusal.code !== 'tls_required';
    await check(refusal);
  }

  async function open(id) {
    await refresh();
    let refusal = refusals?.find((each) => each.id === id);
    // An older refusal: search the list page by page.
    for (let page = { bookmark: refusals?.at(-1)?.id ?? null }; !refusal && page.bookmark;) {
      page = await api.activity({ kind: 'refusal', limit: 200, bookmark: page.bookmark });
      refusal = page.results.find((each) => each.id === id);
    }
    if (!view.alive()) return;
    if (refusal) await explain(refusal);
    else view.say('This refusal is no longer in the list.');
  }

  async function check(was = null) {
    errors.clear();
    [clientId, serverName].forEach((field) => field.clear());
    if (certificate.failure) return certificate.focus();
    form.setAttribute('aria-busy', 'true');
    const body = { tls: tls.control.checked };
    if (certificate.file) body[certificate.file.content.pem ? 'certificate' : 'certificateDer'] = certificate.file.wire;
    if (clientId.value.trim()) body.clientId = clientId.value.trim();
    if (serverName.value.trim()) body.serverName = serverName.value.trim();
    try {
      const verdict = await api.explain(body);
      if (view.alive()) await draw(verdict, body, was);
    } catch (error) {
      showProblem(error, [certificate, clientId, serverName], errors);
    } finally {
      form.removeAttribute('aria-busy');
    }
  }

  async function draw(verdict, body, was) {
    const failed = verdict.steps?.find((step) => step.status === 'failed');
    const lines = [];
    const heading = h('h2', { tabindex: '-1', id: 'verdict', 'data-key': 'verdict' });
    if (verdict.decision === 'deny') {
      heading.append(failed ? `✕ Refused at step ${failed.number} of 10: ${failed.name}` : '✕ Refused');
      heading.className = 'bad';
      lines.push(`${verdict.reason} ${verdict.mend}`.trim());
    } else if (verdict.decision === 'continue') {
      heading.append(verdict.code === 'allowed' || body.certificate || body.certificateDer ? '✓ Certificate part passed; the broker asks for the token next.' : '✓ No certificate needed; the broker asks for the token next.');
      heading.className = 'good';
    } else {
      const { identity, ca } = verdict;
      const name = identity ? `${identity.typeId}/${identity.deviceId || '*'}` : 'The client';
      heading.append('✓ ', h('bdi', null, visible(name)), ' is allowed',
        ...(ca ? [' by ', h('bdi', null, short(commonName(ca.subject), 60))] : []),
        verdict.expiresAt ? ` until ${absolute(verdict.expiresAt)}.` : '.');
      heading.className = 'good';
      lines.push('If it is still refused, it sends something else: another server name, no intermediates, an older file, or a key that does not fit.');
      if (body.certificate || body.certificateDer) localStorage.setItem(CHECKED(), '1');
    }
    const code = was?.code ?? (verdict.decision === 'deny' ? verdict.code : null);
    const more = code && h('p', null, h('a', { href: `../docs/errors/${encodeURIComponent(code)}`, target: '_blank', rel: 'noopener' }, `More about ${code}`));
    // The refusal as it was decided comes first; what the same question would get now may differ.
    const recorded = was?.reason && h('div', { class: 'recorded' },
      h('p', null, h('strong', null, 'Refused '), moment(was.at), ` (${was.code}): `, foreign(`${was.reason} ${was.mend}`.trim(), { lines: 0 })),
      was.askedBy && h('p', { class: 'muted' }, 'Asked by ', h('code', null, was.askedBy), ` (${DIALECTS[was.dialect] ?? was.dialect}), which passed: ${(PASSED[was.passed] ?? was.passed).toLowerCase()}.`),
      h('p', { class: 'muted' }, verdict.decision === 'deny' && verdict.code === was.code ? 'The same question is refused for the same reason now:' : 'The same question now:'));
    if (was && !recorded && verdict.decision !== 'deny') lines.unshift(`It was refused ${absolute(was.at)} (${was.code}); judged as of now, it passes.`);
    const steps = h('ol', { class: 'steps' }, (verdict.steps ?? []).map((step) => {
      const [sign, tone] = SIGNS[step.status];
      return h('li', { class: tone, value: step.number }, h('span', { class: 'sign', 'aria-hidden': 'true' }, sign),
        h('span', null, h('strong', null, `${step.number} ${step.name}`), ` ${step.status}`,
          step.found && step.status !== 'not reached' && h('span', { class: 'block' }, 'Found: ', foreign(step.found, { lines: 0 })),
          step.expected && step.status === 'failed' && h('span', { class: 'block' }, 'Expected: ', foreign(step.expected, { lines: 0 }))));
    }));
    const report = h('pre', { class: 'sr', 'aria-hidden': 'true' }, reportOf(verdict, body, heading.textContent));
    if (recorded && verdict.reason === was.reason) lines.length = 0; // the sentence is shown already
    const sentence = h('div', { class: 'sentence-block' }, lines.map((line) => h('p', null, foreign(line, { lines: 0 }))));
    const buttons = h('div', { class: 'row-actions' }, await remedy(verdict, was), await cures(verdict), copyButton(() => report.textContent, report, '', 'Copy report'));
    replace(result, recorded, heading, sentence, more,
      verdict.failing && h('p', { class: 'muted' }, 'Certificate at fault: ', foreign(verdict.failing.subject)),
      verdict.code === 'signature_invalid' && await bothFingerprints(verdict), buttons, steps, report);
    result.hidden = false;
    view.content.querySelector('.placeholder').hidden = true;
    heading.focus();
  }

  /** The fingerprints to compare where a CA was created again: of the registered CAs of that name, and of the certificate. */
  async function bothFingerprints({ failing, reason }) {
    const [, name = ''] = /^A CA named (.*?) is registered/s.exec(reason) ?? [];
    const registered = (await api.findCAs({ q: name.slice(0, 200) })).results.filter((ca) => reason.startsWith(`A CA named ${ca.subject} is registered`));
    return facts(...registered.map((ca) => [`Registered: ${visible(ca.subject)}`, fingerprint(ca.fingerprintSha256)]),
      failing && ['Signed with another key', fingerprint(failing.fingerprintSha256)]);
  }

  /** The button that leads to the remedy. */
  async function remedy(verdict, was) {
    const link = (label, href) => h('a', { class: 'button', href }, label);
    switch (verdict.code) {
      case 'tls_required': case 'certificate_missing': case 'type_certificate_refused': case 'sni_unknown': return link('Connection security', '#/security');
      case 'certificate_revoked': return link('Deny list', '#/security/deny');
      case 'no_trusted_ca': case 'untrusted_issuer': case 'signature_invalid': case 'ca_expired':
        return mayChange() && h('button', { type: 'button', async onclick() {
          const done = await addCA({ client: { fingerprint: was?.fingerprintSha256 ?? '', name: clientId.value.trim() || 'this client' } });
          if (!done) return;
          view.say(...done.said);
          await check();
        } }, 'Add CA');
      default: return null;
    }
  }

  /** Buttons of the cures that the service has tried: with each of them alone, this client passes. */
  async function cures(verdict) {
    const found = verdict.cures ?? [];
    const cas = await api.namedCAs(found.filter((cure) => cure.action === 'activate_ca').map((cure) => cure.value));
    const retry = (field, label, value) => h('button', { type: 'button', async onclick() {
      field.control.value = value;
      await check();
    } }, `${label} ${short(value)}`);
    return found.map(({ action, value }) => {
      const ca = cas.find((known) => known.id === value);
      switch (action) {
        case 'activate_ca': return mayChange() && ca && h('button', { type: 'button', onclick: () => activate(ca) }, `Activate ${short(commonName(ca.subject), 60)}…`);
        case 'client_id': return retry(clientId, 'Check with client ID', value);
        case 'server_name': return retry(serverName, 'Check with server name', value);
        default: return null;
      }
    });
  }

  /** Activate a CA, after showing what that does for the other certificates that were seen. */
  async function activate(ca) {
    let effect;
    await view.load(async () => { effect = await api.statusEffect(ca.id, 'active'); });
    if (!effect) return;
    const done = await ask({
      title: 'Activate CA certificate?',
      content: [h('p', null, foreign(ca.subject)), h('p', null, 'This device is allowed then.'), ...judgement(effect.judged, { admits: true })],
      actions: [{ label: 'Activate', tone: 'primary', submit: true, run: async () => { await api.changeCA(ca.id, { status: 'active' }, ca.version); return true; } }],
    });
    if (!done) return;
    view.say(h('bdi', null, short(commonName(ca.subject), 60)), ' is active.');
    await check();
  }

  if (opened) open(opened).catch(quiet); else refresh();
  return {
    update(id) { if (id) open(id).catch(quiet); },
    leave() { timers.forEach(clearInterval); },
  };
}

/** What a line of a device's log means. */
function meaningOf(text) {
  const known = explainDeviceError(text);
  if (!known) return h('p', null, 'This line is not known here. Look for the device among the recent refusals, or check its certificate below.');
  return [h('p', null, h('strong', null, known.who), ` ${known.why}`), h('p', null, known.next),
    known.links.length > 0 && h('p', null, known.links.map(({ href, label }, at) => [at ? ' · ' : '', h('a', { href }, label)]))];
}

function reportOf(verdict, body, heading) {
  return [
    heading, `${verdict.reason} ${verdict.mend}`.trim(), '',
    `Code: ${verdict.code}`, `Client ID: ${visible(body.clientId ?? '(none)')}`, `Server name: ${visible(body.serverName ?? '(none)')}`,
    `TLS: ${body.tls ? 'yes' : 'no'}`,
    ...(verdict.failing ? [`Certificate at fault: ${visible(verdict.failing.subject)}`, `SHA-256: ${verdict.failing.fingerprintSha256}`] : []), '',
    ...(verdict.steps ?? []).map((step) => `${step.number}. ${step.name}: ${step.status}`
      + (step.found ? `; found: ${visible(step.found)}` : '') + (step.expected ? `; expected: ${visible(step.expected)}` : '')),
  ].join('\n');
}

export default { path: 'why', title: 'Why refused?', heading: 'Why was my device refused?', show };
