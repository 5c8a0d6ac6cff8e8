// Brokers and edges: the API keys of the machines that call the service, and the calls with each key.

import { api } from '../api.js';
import { sparkline } from '../chart.js';
import { h, replace } from '../dom.js';
import { local, plural } from '../format.js';
import { bad, facts, foreign, moment, table, warning, when } from '../parts.js';
import { nameOf } from './servers.js';

const HOUR = 3_600_000; // ms

export const DIALECTS = {
  native: 'API', emqx: 'EMQX', rabbitmq: 'RabbitMQ', vernemq: 'VerneMQ', mosquitto: 'mosquitto', envoy: 'Envoy',
  nginx: 'nginx', aws_iot: 'AWS IoT',
};
export const PASSED = {
  chain: 'The whole chain', certificate: 'The device certificate alone', names: 'Names only, no certificate',
  nothing: 'No certificate',
};
const FAILED = {
  wrong_token: 'with a wrong token', key_revoked: 'after the key was revoked',
  wrong_role: 'that may only be made with another role',
};

/** One sentence for each key whose calls are refused now. A broker that gets no verdict refuses every device. */
export function refusedCallers(callers, { isHere = false } = {}) {
  return callers.flatMap((caller) => caller.failures).map((failure) => bad(
    failure.reason, ' Since ', moment(failure.since), ', the latest ', moment(failure.lastAt), '. ', failure.mend,
    ...(isHere ? [] : [' ', h('a', { href: '#/brokers' }, 'Brokers and edges')])));
}

function show(view) {
  const trouble = h('div'), keys = h('div'), limits = h('div'), edges = h('section', { class: 'below', 'aria-labelledby': 'edges' });
  view.content.append(trouble, keys, limits, edges);
  view.load(async () => {
    const [callers, contacts, servers] = await Promise.all([api.callers(), api.edges(), api.servers()]);
    if (!view.alive()) return;
    replace(trouble, refusedCallers(callers.results, { isHere: true }));
    replace(keys, callers.results.length
      ? table('brokers', 'API keys', ['API key', 'Last call', 'Last 24 hours', 'What the broker passes'], callers.results.map(row))
      : h('p', null, 'No broker and no TLS edge has a key for this organization yet.'));
    replace(limits, !callers.complete && h('p', { class: 'muted' },
      'A day counts the calls of 30 keys. More keys called, so some calls are missing here.'));
    drawEdges(edges, contacts.results, servers.find((server) => server.active));
  });
}

function row(caller) {
  return {
    key: caller.key,
    cells: [
      [h('code', null, caller.key), h('span', { class: 'muted block' }, [
        caller.role ?? 'broker', caller.platform && ' of the platform', caller.revokedAt && ', revoked'])],
      [caller.lastCallAt ? when(caller.lastCallAt) : h('span', { class: 'muted' }, 'None within 7 days'),
        caller.failures.map((failure) => h('span', { class: 'bad block' }, 'Refused since ', moment(failure.since)))],
      [counts(caller.hours, caller.role === 'edge' ? 'Not counted' : 'No call'), rate(caller.hours)],
      passes(caller),
    ],
    details: caller.hours.length > 0 && h('details', null, h('summary', null, 'By hour'),
      facts(...caller.hours.map((hour) => [local(hour.hour), counts([hour])]))),
  };
}

/** The verdicts of each of the last 24 hours, as small bars. */
function rate(hours, now = Date.now()) {
  const byHour = new Map(hours.map((hour) => [Date.parse(hour.hour), hour.answered]));
  const last = Math.floor(now / HOUR) * HOUR;
  const values = Array.from({ length: 24 }, (_, at) => byHour.get(last - (23 - at) * HOUR) ?? 0);
  return values.some(Boolean) && sparkline(values);
}

function counts(hours, none = 'No call') {
  const sum = (number) => hours.reduce((total, hour) => total + (number(hour) ?? 0), 0);
  const answered = sum((hour) => hour.answered), denied = sum((hour) => hour.denied), continued = sum((hour) => hour.continued);
  const failed = Object.entries(FAILED).map(([name, words]) => [sum((hour) => hour.failed[name]), words]).filter(([count]) => count);
  const refused = [...new Set(hours.flatMap((hour) => Object.keys(hour.refused)))].map((code) => [sum((hour) => hour.refused[code]), code]);
  if (!answered && !failed.length && !refused.length) return h('span', { class: 'muted' }, none);
  return [
    answered > 0 && h('span', { class: 'block' }, `${plural(answered, 'verdict')}, ${plural(denied, 'device')} refused`,
      continued > 0 && `, ${continued} left to the token`),
    refused.map(([count, code]) => h('span', { class: 'block' }, `${plural(count, 'client')} refused by the edge: `,
      h('a', { href: `../docs/errors/${encodeURIComponent(code)}`, target: '_blank', rel: 'noopener' }, code))),
    failed.map(([count, words]) => h('span', { class: 'bad block' }, `${plural(count, 'call')} ${words}`)),
  ];
}

function passes(caller) {
  const forms = Object.entries(caller.passed).sort(([, first], [, other]) => other.localeCompare(first));
  const dialects = Object.keys(caller.dialects).map((name) => DIALECTS[name] ?? name).sort();
  if (!forms.length) return h('span', { class: 'muted' }, '–');
  return [
    forms.map(([form, at]) => h('span', { class: 'block' }, `${PASSED[form] ?? form}, `, moment(at))),
    h('span', { class: 'muted block' }, `Format: ${dialects.join(', ')}`),
    !caller.passed.chain && Boolean(caller.passed.certificate) && h('span', { class: 'muted block' },
      'No chain was ever passed: register the CA that issued the devices\' certificates, not only its root.'),
  ];
}

function drawEdges(part, contacts, active) {
  if (!contacts.length) return;
  replace(part, h('h2', { id: 'edges' }, 'TLS edges'),
    table('edges', 'TLS edges', ['Edge', 'API key', 'Asked last'], contacts.map((edge, at) => ({
      key: `${edge.key} ${edge.edge ?? at}`,
      cells: [edge.edge ? foreign(edge.edge) : h('span', { class: 'muted' }, 'Gives no name'), h('code', null, edge.key),
        [edge.askedAt ? when(edge.askedAt) : h('span', { class: 'muted' }, 'Never'),
          edge.silent && warning('This edge has stopped asking: its sessions do not end when they should.'),
          edge.revoked && h('span', { class: 'muted block' }, 'The key is revoked.')]],
    }))), active && h('p', { class: 'muted' }, h('a', { href: `#/servers/${encodeURIComponent(active.id)}` }, nameOf(active)),
      ...(active.servedSince ? [' is served since ', moment(active.servedSince), '.'] : [' is active. No TLS edge has reported yet that it serves this certificate.'])));
}

export default { path: 'brokers', title: 'Brokers and edges', show };
