// The overview: whether all is well, and the first steps until they are done.

import { Problem, api } from '../api.js';
import { sparkline, stackedBars } from '../chart.js';
import { h, replace, svg } from '../dom.js';
import { commonName, date, DAY, plural, relative, short, visible, width } from '../format.js';
import { bad, command, dateState, foreign, good, when } from '../parts.js';
import { mayChange, who } from '../session.js';
import { nameOf as serverName } from './servers.js';
import { refusedCallers } from './brokers.js';
import { summarize } from '../traffic.js';
import { CHECKED } from './why.js';

const SPAN = 90; // days
const LISTED = 8; // certificates in the list before [Show all]
const REFRESH = 5 * 60_000; // ms; every CA is read, and a cloud counts reads

function show(view) {
  const steps = h('section', { class: 'panel', 'aria-labelledby': 'first-steps', hidden: true });
  const cards = h('ul', { class: 'cards' });
  const chart = h('section', { class: 'panel', 'aria-labelledby': 'refusals' });
  const ends = h('section', { class: 'panel', 'aria-labelledby': 'ends' });
  const trouble = h('div');
  view.content.append(trouble, steps, cards, chart, ends);
  if (!mayChange()) view.primary();
  let known = null, drawn = '', span = 'hours';

  // Without these the rest is shown.
  const optional = () => [api.traffic(30), api.callers(), api.edges()].map((promise) => promise.catch(absent));

  const refresh = async () => {
    const more = optional();
    const [cas, servers] = await Promise.all([api.findCAs({ status: 'active', sort: 'notAfter', limit: 200 }), api.servers()]);
    const [traffic, callers, edges] = await Promise.all(more);
    if (!view.alive()) return;
    known = { cas, servers, traffic: traffic && summarize(traffic), edges };
    const state = JSON.stringify([known, callers]);
    if (state === drawn) return; // what a person has unfolded stays
    drawn = state;
    drawSteps(steps, cas, known.traffic);
    drawCards();
    drawChart();
    drawEnds(ends, cas, servers);
    replace(trouble, refusedCallers(callers?.results ?? []));
  };

  function drawCards() {
    const toEnds = h('a', { href: '#/', onclick(event) {
      event.preventDefault(); // the hash is the route
      const heading = ends.querySelector('h2');
      heading.scrollIntoView();
      heading.focus();
    } }, 'Expiring within 30 days');
    replace(cards, ...trafficCards(known.traffic), expiryCard(toEnds, known), edgesCard(known.edges));
  }

  function drawChart() {
    const choose = (name, label) => h('button', {
      type: 'button', class: 'small', 'aria-pressed': String(span === name), 'data-key': `span-${name}`,
      onclick() { span = name; drawChart(); },
    }, label);
    const head = h('div', { class: 'list-head' }, h('h2', { id: 'refusals' }, 'Refused connections'),
      h('div', { class: 'row-actions', role: 'group', 'aria-label': 'Period' }, choose('hours', '24 hours'), choose('days', '30 days')));
    if (!known.traffic) return replace(chart, head, h('p', { class: 'muted' }, 'The numbers are not available now. Reload the page to try again.'));
    const { series, times } = known.traffic[span];
    const period = span === 'hours' ? 'in the last 24 hours' : 'in the last 30 days';
    if (!series.length) return replace(chart, head, good(`No connection was refused ${period}.`));
    replace(chart, head, stackedBars({
      title: `Refused connections ${period}, by code`, times, unit: 'connection',
      series: series.map((each) => ({ ...each, href: `../docs/errors/${encodeURIComponent(each.name)}` })),
      marks: span === 'hours' ? [0, 6, 12, 18, 23] : [0, 7, 14, 21, times.length - 1],
    }), h('p', { class: 'muted' }, h('a', { href: '#/why' }, 'Why refused?'),
      ' shows each of them. Under heavy load not every connection is counted: there were at least so many.'));
  }

  view.load(refresh);
  const timer = setInterval(() => { if (!document.hidden && !document.querySelector('dialog')) refresh().catch(absent); }, REFRESH);
  return { leave() { clearInterval(timer); } };
}

function absent(error) {
  if (!(error instanceof Problem)) throw error;
  return null;
}

// ------------------------------------------------------------------------------------------------------- cards

/** A card: what the number means (a text or a link), the number, and a line below. */
const card = (title, number, tone, line, drawing = null) => h('li', { class: `card ${tone}` },
  h('h2', null, title), h('p', { class: 'number' }, number), h('p', { class: 'line' }, line), drawing);

function trafficCards(traffic) {
  const connected = h('a', { href: '#/brokers' }, 'Connections, 24 hours'), refused = h('a', { href: '#/why' }, 'Refused, 24 hours');
  if (!traffic) return [card(connected, '–', '', 'Not available now'), card(refused, '–', '', 'Not available now')];
  const { hours } = traffic;
  const total = (numbers) => numbers.reduce((all, number) => all + number, 0);
  const accepted = total(hours.accepted), denied = total(hours.refused), share = denied / (accepted + denied) * 100;
  return [
    card(connected, accepted.toLocaleString('en'), '', hours.continued ? `${hours.continued.toLocaleString('en')} of them left to the token`
      : accepted ? 'Certificates accepted' : 'No device has connected', sparkline(hours.accepted)),
    card(refused, denied.toLocaleString('en'), denied ? 'warn' : 'good',
      denied ? `${share < 1 ? 'Less than 1' : Math.round(share)} % of all; most often ${hours.series[0].name}` : '✓ Every device was accepted',
      sparkline(hours.refused)),
  ];
}

function expiryCard(title, { cas, servers }, now = Date.now()) {
  const used = [...cas.results, ...servers.filter((server) => server.active)];
  const count = (state) => used.filter((certificate) => dateState(certificate, now) === state).length;
  const soon = count('soon'), ended = count('ended');
  return card(title, soon.toLocaleString('en'), ended ? 'bad' : soon ? 'warn' : 'good', ended
    ? `✕ ${plural(ended, 'certificate')} in use expired already` : soon ? 'CAs and server certificates in use' : '✓ Nothing in use expires');
}

function edgesCard(edges) {
  const title = h('a', { href: '#/brokers' }, 'TLS edges');
  if (!edges) return card(title, '–', '', 'Not available now');
  const known = edges.results.filter((edge) => !edge.revoked && edge.askedAt);
  if (!known.length) return card(title, '0', '', 'No TLS edge has asked within a month');
  const silent = known.filter((edge) => edge.silent).length;
  return card(title, `${known.length - silent} of ${known.length}`, silent ? 'bad' : 'good',
    silent ? `✕ ${plural(silent, 'edge')} stopped asking for changes` : '✓ All ask for changes');
}

// ------------------------------------------------------------------------------------------------- first steps

function drawSteps(part, cas, traffic) {
  const { org, messagingHost } = who();
  const connected = cas.results.some((ca) => ca.lastUsed) || Boolean(traffic?.days.accepted.some(Boolean));
  const checked = connected || localStorage.getItem(CHECKED()) !== null;
  const step = (number, done, title, ...content) => h('li', { class: done ? 'done' : 'open' },
    h('h3', null, h('span', { class: `sign ${done ? 'good' : 'muted'}`, 'aria-hidden': 'true' }, done ? '✓' : '○'), `${number} ${title}`,
      h('span', { class: 'sr' }, done ? ' (done)' : ' (to do)')), content);
  const all = [cas.results.length > 0, checked, connected];
  part.hidden = all.every(Boolean);
  const connect = [
    `mosquitto_pub -h ${messagingHost} -p 8883 --cafile server-ca.pem \\`,
    `  --cert device.pem --key device.key -i d:${org}:thermometer:0001 \\`,
    `  -t ${org}/thermometer/0001/hello -m hello`,
  ].join('\n');
  replace(part, h('h2', { id: 'first-steps' }, 'First steps'),
    h('ol', { class: 'first-steps' },
      step(1, all[0], 'Add the CA that signs your devices.', h('p', null, h('a', { href: '#/ca' }, 'CA certificates'))),
      step(2, all[1], 'Check a device certificate.', h('p', null, h('a', { href: '#/why' }, 'Why refused?'), ' shows the ten steps before the device tries them.')),
      step(3, all[2], 'Connect.', h('p', null, 'Host ', h('code', null, messagingHost), ', TLS, client ID ', h('code', null, `d:${org}:type:device`), '.'), command(connect))));
}

// --------------------------------------------------------------------------------------------- what expires when

function drawEnds(part, cas, servers, now = Date.now()) {
  const items = [
    ...cas.results.map((ca) => item(ca, 0, short(commonName(ca.subject), 40), `#/ca/${encodeURIComponent(ca.id)}`, now)),
    ...servers.filter((server) => server.notAfter).map((server) => item(server, 1, serverName(server), `#/servers/${encodeURIComponent(server.id)}`, now)),
  ].sort((first, other) => first.days - other.days);
  const near = items.filter((entry) => entry.days <= SPAN);
  const later = items.filter((entry) => entry.days > SPAN);
  const laterCount = later.length + cas.total - cas.results.length; // the CAs that were not read expire later
  const heading = h('h2', { id: 'ends', tabindex: '-1' }, 'Expiring soon');
  const line = (entry) => h('li', null,
    h('a', { href: entry.href }, foreign(entry.label, { lines: 0 })), h('span', { class: 'muted' }, ['CA', 'Server certificate'][entry.lane]),
    h('span', { class: entry.tone }, h('span', { 'aria-hidden': 'true' }, entry.days < 0 ? '✕ ' : '◷ '), entry.days < 0 ? 'Expired ' : 'Expires ', when(entry.notAfter)));
  if (!near.length) {
    replace(part, heading, h('p', null, `Nothing expires within ${SPAN} days.`,
      later.length > 0 && [' Next: ', h('a', { href: later[0].href }, h('bdi', null, later[0].label)), `, ${date(later[0].notAfter)}.`]));
    return;
  }
  replace(part, heading, near.some((entry) => entry.active && entry.days < 0) && bad('A certificate in use has expired.'),
    timeline(near, laterCount), h('ul', { class: 'ends' }, near.slice(0, LISTED).map(line)),
    near.length > LISTED && h('details', null, h('summary', null, `Show all ${near.length.toLocaleString('en')}`),
      h('ul', { class: 'ends' }, near.slice(LISTED).map(line))),
    laterCount > 0 && h('p', { class: 'muted' }, `${laterCount.toLocaleString('en')} later.`));
}

function item(certificate, lane, label, href, now) {
  const days = (Date.parse(certificate.notAfter) - now) / DAY;
  const state = dateState(certificate, now);
  return { lane, label, href, days, notAfter: certificate.notAfter, active: certificate.active ?? true, tone: state === 'ended' ? 'bad' : state === 'soon' ? 'warn' : 'plain' };
}

// In px of the drawing; LETTER is the width of a wide letter.
const WIDTH = 960, LEFT = 190, RIGHT = 40, LANE = 30, STACK = 22, ROWS = 5, MARK = 10, LETTER = 8.5;

const textOf = (mark) => `${short(mark.label, 24)}, ${date(mark.notAfter).replace(/ \d+$/, '')}`;

/**
 * Place the marks of a lane: marks of one day above each other, and no name over another mark. If there is not enough
 * room, names are dropped first; marks without a row are only counted. The list below the drawing shows all of them.
 */
function placed(items, x) {
  const rows = []; // the marks of each row so far
  const more = new Map(); // x -> number of marks without room
  for (const entry of items) {
    const at = x(entry.days), left = at > WIDTH - 330, wide = MARK + width(textOf(entry)) * LETTER;
    const spot = { entry, at, left, named: entry.days >= 0, from: left ? at - wide : at - MARK, to: left ? at + MARK : at + wide };
    if (!spot.named) Object.assign(spot, { from: at - MARK, to: at + MARK });
    const free = rows.find((row) => row.at(-1).to <= spot.from) ?? (rows.length < ROWS && (rows.push([]), rows.at(-1)));
    const tight = free || rows.find((row) => row.at(-1).at <= at - 2 * MARK);
    if (!tight) {
      more.set(at, (more.get(at) ?? 0) + 1);
      continue;
    }
    const before = tight.at(-1);
    if (before && before.to > at - MARK) before.named = false;
    if (before && before.named && before.to > spot.from || before && !before.named && before.at + MARK > spot.from) spot.named = false;
    tight.push(spot);
  }
  return {
    marks: rows.flatMap((row, at) => row.map((spot) => ({ ...spot, row: at }))), more,
    rows: Math.max(1, rows.length + (more.size ? 1 : 0)),
  };
}

/** Draw the axis from today to 90 days, with a lane for CAs and a lane for server certificates; expired ones at the left. */
function timeline(near, later) {
  const x = (days) => days < 0 ? LEFT - 24 : LEFT + (Math.min(Math.floor(days), SPAN) / SPAN) * (WIDTH - LEFT - RIGHT);
  const lanes = [0, 1].map((lane) => placed(near.filter((entry) => entry.lane === lane), x));
  const heights = lanes.map(({ rows }) => LANE + STACK * rows);
  const tops = [36, 36 + heights[0]];
  const bottom = tops[1] + heights[1];
  const parts = [[0, 'today'], [7, '7 days'], [30, '30 days'], [90, '90 days']].map(([day, label]) => [
    svg('line', { x1: x(day), x2: x(day), y1: 24, y2: bottom, class: day ? 'tick' : 'today' }),
    svg('text', { x: x(day), y: 16, 'text-anchor': 'middle', class: 'axis' }, label),
  ]);
  lanes.forEach(({ marks, more, rows }, lane) => {
    parts.push(svg('text', { x: 0, y: tops[lane] + 26, class: 'lane' }, ['CA certificates', 'Server certificates'][lane]));
    parts.push(svg('line', { x1: 0, x2: WIDTH, y1: tops[lane] + heights[lane] - 4, y2: tops[lane] + heights[lane] - 4, class: 'tick' }));
    for (const spot of marks) parts.push(mark(spot, tops[lane] + 22 + spot.row * STACK));
    for (const [at, count] of more) {
      parts.push(svg('text', { x: at, y: tops[lane] + 26 + (rows - 1) * STACK, 'text-anchor': 'middle', class: 'axis' }, `+${count}`));
    }
  });
  if (later) parts.push(svg('text', { x: WIDTH, y: bottom + 18, 'text-anchor': 'end', class: 'axis' }, `${later} later`));
  return svg('svg', { class: 'timeline', viewBox: `0 0 ${WIDTH} ${bottom + 26}`, role: 'group', 'aria-label': 'What expires within 90 days' }, parts);
}

function mark({ entry, at, left, named }, y) {
  const name = `${visible(entry.label)}, ${entry.days < 0 ? 'expired' : 'expires'} ${date(entry.notAfter)}, ${relative(entry.notAfter)}`;
  // The link's name begins with its visible text, so that speech input finds the link (WCAG 2.2, 2.5.3).
  const spoken = name.startsWith(textOf(entry)) || !named ? name : `${textOf(entry)}: ${name}`;
  return svg('a', { href: entry.href, 'aria-label': spoken, class: `mark-link ${entry.tone}` },
    svg('title', null, name),
    svg('circle', { cx: at, cy: y, r: 7 }),
    named && svg('text', { x: left ? at - 12 : at + 12, y: y + 5, 'text-anchor': left ? 'end' : 'start', class: 'mark-text' }, textOf(entry)));
}

export default { path: '', title: 'Overview', show };
