// Parts that all pages share: times, fingerprints, text from others, states.

import { h, newId } from './dom.js';
import { DAY, absolute, fingerprint as pairs, local, pieces, plural, relative } from './format.js';

/** "in 23 days" above "16 Dec 2026, 10:30 GMT+1": in the time zone of the browser; UTC is the title. */
export function when(iso) {
  if (!iso) return h('span', { class: 'muted' }, '–');
  return h('time', { datetime: iso, class: 'when', title: absolute(iso) },
    h('span', { class: 'ago' }, relative(iso)), ' ', h('span', { class: 'muted' }, local(iso)));
}

/** The same in one line: "in 23 days (16 Dec 2026, 10:30 GMT+1)". */
export const moment = (iso) => h('time', { datetime: iso, title: absolute(iso) }, h('span', { class: 'ago' }, relative(iso)), ` (${local(iso)})`);

/** Write again how long ago, or in how long, each time on the page is. */
export function refreshTimes() {
  for (const ago of document.querySelectorAll('time[datetime] .ago')) {
    const words = relative(ago.closest('time').dateTime);
    if (ago.textContent !== words) ago.textContent = words;
  }
}

/** Show text that others wrote: with its own direction, at most three lines, and visible marks for hidden characters. */
export function foreign(text, { lines = 3, empty = '–' } = {}) {
  if (!text) return h('span', { class: 'muted' }, empty);
  const inner = h('bdi', { class: 'foreign' }, pieces(String(text)).map((piece) =>
    piece.mark ? h('span', { class: 'mark' }, `⟨${piece.mark}⟩`) : piece));
  if (lines === 0 || String(text).length < 60) return inner;
  inner.classList.add('clamped');
  inner.id = newId('text');
  const button = h('button', {
    type: 'button', class: 'link', hidden: true, 'aria-expanded': 'false', 'aria-controls': inner.id,
    onclick() {
      const open = inner.classList.toggle('clamped') === false;
      button.setAttribute('aria-expanded', String(open));
      button.textContent = open ? 'Show less' : 'Show all';
    },
  }, 'Show all');
  new ResizeObserver(() => {
    if (inner.classList.contains('clamped')) button.hidden = inner.scrollHeight <= inner.clientHeight + 1;
  }).observe(inner);
  return h('span', { class: 'long' }, inner, button);
}

export function fingerprint(hex) {
  const text = pairs(hex);
  // Groups of 8 pairs: two groups fit on a line, on a phone one group.
  const code = h('code', { class: 'fingerprint' }, (text.match(/.{1,24}/g) ?? []).map((part) => h('span', null, part)));
  return h('span', { class: 'copyable' }, code, copyButton(() => text, code, 'fingerprint'));
}

/** A [Copy] button. It says "Copied" only after a copy succeeded; else it selects the text, to be copied by hand. */
export function copyButton(text, source, what, label = 'Copy') {
  const status = h('span', { role: 'status', class: 'copied' });
  const button = h('button', {
    type: 'button', class: 'small', 'aria-label': `${label} ${what}`.trim(),
    async onclick() {
      status.textContent = '';
      try {
        await navigator.clipboard.writeText(text());
        status.textContent = 'Copied';
      } catch {
        const range = document.createRange();
        range.selectNodeContents(source);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        status.textContent = 'Press Ctrl+C';
      }
    },
  }, label);
  return h('span', { class: 'copy' }, button, status);
}

/** A command with a [Copy] button. */
export function command(text, what = 'command') {
  const code = h('code', null, text);
  return h('div', { class: 'command' },
    h('pre', { tabindex: '0', 'aria-label': what }, code), copyButton(() => text, code, what));
}

const STATES = {
  active: ['●', 'Active', 'good'],
  inactive: ['○', 'Inactive', 'muted'],
  soon: ['◷', 'Expires soon', 'warn'],
  begins: ['◷', 'Not valid yet', 'warn'],
  ended: ['✕', 'Expired', 'bad'],
  denied: ['✕', 'Denied', 'bad'],
  accepted: ['✓', 'Accepted', 'good'],
  refused: ['✕', 'Refused', 'bad'],
  waiting: ['✎', 'Waiting for signature', 'warn'],
};

export function states(...names) {
  return h('ul', { class: 'states' }, names.map((name) => {
    const [sign, word, tone] = STATES[name];
    return h('li', { class: tone }, h('span', { 'aria-hidden': 'true' }, sign), ` ${word}`);
  }));
}

/** Classify a certificate by its dates: 'ended', 'begins', 'soon' (30 days), or none of these. */
export function dateState({ notBefore, notAfter }, now = Date.now()) {
  if (!notAfter) return null;
  if (now > Date.parse(notAfter)) return 'ended';
  if (now < Date.parse(notBefore)) return 'begins';
  return Date.parse(notAfter) - now < 30 * DAY ? 'soon' : null;
}

export const good = (...content) => sentence('✓', 'good', content);
export const bad = (...content) => sentence('✕', 'bad', content);
export const warning = (...content) => sentence('⚠', 'warn', content);

function sentence(sign, tone, content) {
  return h('p', { class: `sentence ${tone}` },
    h('span', { class: 'sign', 'aria-hidden': 'true' }, sign), h('span', { class: 'sr' }, WORDS[sign]), h('span', null, ...content));
}
const WORDS = { '✓': 'Good: ', '✕': 'Not good: ', '⚠': 'Warning: ' };

/**
 * What a change would do to the certificates that clients presented, in sentences. *refuses*, *admits*: what to show of
 * the effect. *client*: the verdict on one client, by the name *name*.
 */
export function judgement({ certificates, since, refused, codes, admitted, client }, { refuses = true, admits = false, name } = {}) {
  const lines = [];
  if (client && name) {
    lines.push(client.decision === 'deny'
      ? bad('With this change ', h('bdi', null, name), ' is still refused: ', foreign(`${client.reason} ${client.mend}`.trim(), { lines: 0 }))
      : good('With this change ', h('bdi', null, name), client.decision === 'allow' ? ' is allowed.' : ' passes; the broker asks for the token next.'));
  }
  if (!certificates) return [...lines, h('p', null, 'No certificate was seen in 30 days, so none could be judged.')];
  const judged = ['Judged with the change: ', plural(certificates, 'certificate'), ' seen since ', moment(since), '. '];
  if (admits) {
    lines.push((admitted ? good : (...text) => h('p', null, ...text))(...judged, admitted
      ? [h('strong', null, `${admitted.toLocaleString('en')} would be allowed`), ` that ${admitted === 1 ? 'is' : 'are'} refused now.`]
      : 'None of them would be allowed that is refused now.'));
  }
  if (refuses && refused) {
    lines.push(warning(...(admits ? [] : judged), h('strong', null, `${refused.toLocaleString('en')} would be refused`), ` (${Object.keys(codes).sort().join(', ')}).`));
  } else if (refuses && !admits) {
    lines.push(good(...judged, 'None of them would be refused that is allowed now.'));
  }
  return lines;
}

/** A list of names and values. Pairs with the value null are left out. */
export function facts(...pairsOfFacts) {
  return h('dl', { class: 'facts' }, pairsOfFacts.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined)
    .map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value))));
}

/** The facts of a certificate, as pairs. */
export function certificateFacts(certificate) {
  return [
    ['Subject', foreign(certificate.subject)],
    ['Issuer', certificate.issuer ? foreign(certificate.issuer) : null],
    ['Serial number', certificate.serialNumber ? h('code', null, certificate.serialNumber) : null],
    ['Valid from', certificate.notBefore ? when(certificate.notBefore) : null],
    ['Expires', certificate.notAfter ? when(certificate.notAfter) : null],
    ['Key', certificate.keyAlgorithm],
    ['SHA-256 fingerprint', certificate.fingerprintSha256 ? fingerprint(certificate.fingerprintSha256) : null],
  ];
}

/**
 * A table whose rows become labelled blocks on a narrow screen. Each row is {key, cells, details}. The class sets the
 * column widths, because automatic widths make the date column too narrow.
 */
export function table(kind, caption, columns, rows) {
  const head = h('tr', { role: 'row' }, columns.map((name) => h('th', { role: 'columnheader', scope: 'col' }, name)));
  const body = rows.flatMap(({ key, cells, details }) => {
    const line = h('tr', { role: 'row', 'data-row': key }, cells.map((cell, at) =>
      h('td', { role: 'cell', 'data-label': columns[at] }, cell)));
    if (!details) return [line];
    return [line, h('tr', { role: 'row', class: 'details' },
      h('td', { role: 'cell', colspan: columns.length }, details))];
  });
  return h('table', { role: 'table', class: `list ${kind}` },
    h('caption', { class: 'sr' }, caption),
    h('thead', { role: 'rowgroup' }, head), h('tbody', { role: 'rowgroup' }, body));
}

/** A button in a row; its accessible name names the row. */
export function rowButton(label, name, key, onclick, tone = '') {
  return h('button', { type: 'button', class: `small ${tone}`, 'aria-label': `${label} ${name}`, 'data-key': key, onclick }, label);
}

/** Save a text as a file, through the browser's download. */
export function download(text, filename, type = 'application/x-pem-file') {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h('a', { href: url, download: filename, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
