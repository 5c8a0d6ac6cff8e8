// The overview: first steps, ticked when done, and what expires when.

import { api } from '../api.js';
import { h, replace, svg } from '../dom.js';
import { commonName, date, DAY, relative, short, visible, width } from '../format.js';
import { bad, command, dateState, foreign, when } from '../parts.js';
import { mayChange, who } from '../session.js';
import { nameOf as serverName } from './servers.js';
import { refusedCallers } from './brokers.js';
import { CHECKED } from './why.js';

const SPAN = 90; // days

function show(view) {
  const steps = h('section', { class: 'panel', 'aria-labelledby': 'first-steps' });
  const ends = h('section', { class: 'panel', 'aria-labelledby': 'ends' });
  const trouble = h('div');
  view.content.append(trouble, steps, ends);
  if (!mayChange()) view.primary();
  view.load(async () => {
    const callers = api.callers().catch(() => null); // without them the rest is shown
    const [cas, servers] = await Promise.all([api.cas(), api.servers()]);
    if (!view.alive()) return;
    drawSteps(steps, cas);
    drawEnds(ends, cas, servers);
    replace(trouble, refusedCallers((await callers)?.results ?? []));
  });
}

// ------------------------------------------------------------------------------------------------- first steps

function drawSteps(part, cas) {
  const { org, messagingHost } = who();
  const connected = cas.some((ca) => ca.lastUsed);
  const checked = connected || localStorage.getItem(CHECKED()) !== null;
  const step = (number, done, title, ...content) => h('li', { class: done ? 'done' : 'open' },
    h('h3', null, h('span', { class: `sign ${done ? 'good' : 'muted'}`, 'aria-hidden': 'true' }, done ? '✓' : '○'), `${number} ${title}`,
      h('span', { class: 'sr' }, done ? ' (done)' : ' (to do)')), content);
  const all = [cas.some((ca) => ca.status === 'active'), checked, connected];
  const connect = [
    `mosquitto_pub -h ${messagingHost} -p 8883 --cafile server-ca.pem \\`,
    `  --cert device.pem --key device.key -i d:${org}:thermometer:0001 \\`,
    `  -t ${org}/thermometer/0001/hello -m hello`,
  ].join('\n');
  replace(part, h('h2', { id: 'first-steps' }, 'First steps', all.every(Boolean) && h('span', { class: 'muted' }, ' · all done')),
    h('ol', { class: 'first-steps' },
      step(1, all[0], 'Add the CA that signs your devices.', h('p', null, h('a', { href: '#/ca' }, 'CA certificates'))),
      step(2, all[1], 'Check a device certificate.', h('p', null, h('a', { href: '#/why' }, 'Why refused?'), ' shows the ten steps before the device tries them.')),
      step(3, all[2], 'Connect.', h('p', null, 'Host ', h('code', null, messagingHost), ', TLS, client ID ', h('code', null, `d:${org}:type:device`), '.'), command(connect))));
}

// --------------------------------------------------------------------------------------------- what expires when

function drawEnds(part, cas, servers, now = Date.now()) {
  const items = [
    ...cas.filter((ca) => ca.status === 'active').map((ca) => item(ca, 0, short(commonName(ca.subject), 40), `#/ca/${encodeURIComponent(ca.id)}`, now)),
    ...servers.filter((server) => server.notAfter).map((server) => item(server, 1, serverName(server), `#/servers/${encodeURIComponent(server.id)}`, now)),
  ].sort((first, other) => first.days - other.days);
  const near = items.filter((entry) => entry.days <= SPAN);
  const later = items.filter((entry) => entry.days > SPAN);
  const heading = h('h2', { id: 'ends' }, 'Expiring soon');
  if (!near.length) {
    replace(part, heading, h('p', null, `Nothing expires within ${SPAN} days.`,
      later.length > 0 && [' Next: ', h('a', { href: later[0].href }, h('bdi', null, later[0].label)), `, ${date(later[0].notAfter)}.`]));
    return;
  }
  replace(part, heading, near.some((entry) => entry.active && entry.days < 0) && bad('A certificate in use has expired.'),
    timeline(near, later.length), h('ul', { class: 'ends' }, near.map((entry) => h('li', null,
      h('a', { href: entry.href }, foreign(entry.label, { lines: 0 })), h('span', { class: 'muted' }, ['CA', 'Server certificate'][entry.lane]),
      h('span', { class: entry.tone }, h('span', { 'aria-hidden': 'true' }, entry.days < 0 ? '✕ ' : '◷ '), entry.days < 0 ? 'Expired ' : 'Expires ', when(entry.notAfter))))),
    later.length > 0 && h('p', { class: 'muted' }, `${later.length} later.`));
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
