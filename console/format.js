// Format values for people. Pure functions: nothing here touches the page.

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const MINUTE = 60_000, HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** "16 Dec 2026, 09:30 UTC", in every locale. */
export function absolute(iso) {
  const at = new Date(iso);
  const two = (number) => String(number).padStart(2, '0');
  const day = `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} ${at.getUTCFullYear()}`;
  return `${day}, ${two(at.getUTCHours())}:${two(at.getUTCMinutes())} UTC`;
}

const ZONE = new Intl.DateTimeFormat('en', { timeZoneName: 'short' });

/** The same in the time zone of the browser: "16 Dec 2026, 10:30 GMT+1". */
export function local(iso) {
  const at = new Date(iso);
  const two = (number) => String(number).padStart(2, '0');
  const zone = ZONE.formatToParts(at).find(({ type }) => type === 'timeZoneName').value;
  return `${at.getDate()} ${MONTHS[at.getMonth()]} ${at.getFullYear()}, ${two(at.getHours())}:${two(at.getMinutes())} ${zone}`;
}

/** "16 Dec 2026" */
export const date = (iso) => absolute(iso).split(',')[0];

/** "in 23 days", "2 hours ago" */
export function relative(iso, now = Date.now()) {
  const left = new Date(iso) - now;
  const size = Math.abs(left);
  if (size < MINUTE) return left > 0 ? 'in less than a minute' : 'just now';
  const [count, unit] =
    size < HOUR ? [size / MINUTE, 'minute']
    : size < DAY ? [size / HOUR, 'hour']
    : size < 120 * DAY ? [size / DAY, 'day']
    : size < 730 * DAY ? [size / (30.44 * DAY), 'month']
    : [size / (365.25 * DAY), 'year'];
  const whole = Math.floor(count);
  const words = `${whole.toLocaleString('en')} ${unit}${whole === 1 ? '' : 's'}`;
  return left > 0 ? `in ${words}` : `${words} ago`;
}

/** Hexadecimal pairs with colons: AB:CD:… */
export const fingerprint = (hex) => (hex.toUpperCase().match(/../g) ?? []).join(':');

/** Normalize a fingerprint, typed or copied, for comparison: no colons, no spaces, lower case. */
export const plainHex = (text) => text.replace(/[\s:]/g, '').toLowerCase();

export function size(bytes) {
  return bytes < 1024 ? `${bytes} bytes` : `${(bytes / 1024).toLocaleString('en', { maximumFractionDigits: 1 })} KiB`;
}

export const plural = (count, singular, many = `${singular}s`) => `${count.toLocaleString('en')} ${count === 1 ? singular : many}`;

// Control and format characters (including direction marks), line separators and lone surrogates: characters that could
// be invisible or change how the text around them reads. Line feeds and tabs are kept.
const UNSEEN = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu;

/** Split text into strings and {mark: 'U+202E'} for each character that would be invisible. */
export function pieces(text) {
  const parts = [];
  let from = 0;
  for (const hit of text.matchAll(UNSEEN)) {
    if (hit.index > from) parts.push(text.slice(from, hit.index));
    parts.push({ mark: `U+${hit[0].codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}` });
    from = hit.index + hit[0].length;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

/** The same as one string: "⟨U+202E⟩". For labels, titles and confirmations. */
export const visible = (text) => pieces(String(text ?? '')).map((piece) => piece.mark ? `⟨${piece.mark}⟩` : piece).join('');

// What a person sees as one letter: an emoji with its modifiers, a letter with its accents.
const LETTERS = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** Shorten a text to *most* characters, for a label. */
export function short(text, most = 60) {
  const letters = [...LETTERS.segment(String(text ?? ''))].map(({ segment }) => visible(segment)); // no mark is cut
  return letters.length > most ? `${letters.slice(0, most - 1).join('')}…` : letters.join('');
}

// Letters that are drawn about twice as wide as a Latin letter: pictures, and the scripts of East Asia.
const WIDE = /\p{Extended_Pictographic}|\p{Regional_Indicator}|[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff01-\uff60]|[\u{20000}-\u{3fffd}]/u;

/** Return how many Latin letters are as wide as *text*, about. A letter with its accents is one letter. */
export function width(text) {
  return [...LETTERS.segment(text)].reduce((sum, { segment }) => sum + (WIDE.test(segment) ? 2 : 1), 0);
}

/** Return the readable name in a distinguished name: its CN, else the whole name. */
export function commonName(subject) {
  return /(?:^|,)CN=((?:\\.|[^,\\])*)/.exec(subject)?.[1].replace(/\\(.)/g, '$1') || subject;
}
