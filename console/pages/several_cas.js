// The dialog that adds several CA certificates: from several files, or from a file that holds several.

import { Problem, api } from '../api.js';
import { openDialog } from '../dialog.js';
import { h, newId, replace } from '../dom.js';
import { commonName, fingerprint, plural, short, size, visible } from '../format.js';
import { bad, foreign, good, moment, warning } from '../parts.js';
import { refuseKeyStore, sniff, wire } from '../sniff.js';

const FILE_MAX = 1024 * 1024; // bytes of one file
const MANY = 200; // certificates in one dialog
const AT_ONCE = 4; // requests

const BLOCK = /-----BEGIN ([A-Z0-9 ]*CERTIFICATE|PKCS7|CMS)-----[\s\S]*?-----END \1-----/g;
const hash = async (text) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))].join();

/** Return what *file* holds: {certificates: texts as the API takes them} or {refused: why nothing of it is sent}. */
async function contentOf(file) {
  if (file.size > FILE_MAX) return { refused: `${size(file.size)}; at most ${size(FILE_MAX)}.` };
  const buffer = await file.arrayBuffer().catch(() => null);
  if (!buffer) return { refused: 'The file cannot be read. Choose files, not folders.' };
  const bytes = new Uint8Array(buffer), content = sniff(bytes);
  if (content.keyStore) return { refused: refuseKeyStore(content.keyStore) };
  if (content.key) return { refused: 'The file has a private key; nothing of the file was sent.' };
  if (content.pkcs12) return { refused: 'This is a PKCS#12 file. Export its certificates: openssl pkcs12 -in FILE -nokeys -out certificates.pem' };
  if (content.request) return { refused: 'This is a certificate request, not a certificate.' };
  if (content.pem) return { certificates: content.text.match(BLOCK) ?? [] };
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) return { refused: 'This is a ZIP file. Unpack it, and choose the files in it.' };
  return { certificates: content.certificates ? [wire(bytes)] : [] };
}

/** Order certificates so that each follows the one that signed it, as far as the names say so. Adds *depth*. */
export function asTree(certificates) {
  const bySubject = new Map(certificates.map((cert) => [cert.subject, cert]));
  const placed = new Set(), ordered = [];
  const place = (cert, depth) => {
    if (placed.has(cert)) return;
    placed.add(cert);
    ordered.push({ ...cert, depth });
    certificates.filter((below) => below.issuer === cert.subject && below !== cert).forEach((below) => place(below, depth + 1));
  };
  certificates.filter((cert) => cert.issuer === cert.subject || !bySubject.has(cert.issuer)).forEach((cert) => place(cert, 0));
  certificates.forEach((cert) => place(cert, 0)); // names in a circle
  return ordered;
}

const kindOf = (cert) => !cert.ca.accepted && cert.ca.code === 'not_a_ca' ? 'No CA' : cert.issuer === cert.subject ? 'Root' : 'Intermediate';

/** Open the dialog. Resolves to the number of CAs that were saved, or to undefined. */
export function addSeveral() {
  const found = new Map(); // hash of the text -> a certificate and what is known of it
  const refused = []; // [file name, sentence]
  let busy = 0, saved = 0;
  const id = newId('files');
  const picker = h('input', { type: 'file', id, multiple: true, 'aria-describedby': `${id}-hint`, onchange: () => take([...picker.files]) });
  const area = h('div', { class: 'drop-zone' }, h('label', { for: id }, 'Files'), picker,
    h('p', { class: 'hint', id: `${id}-hint` }, 'PEM or DER, single certificates or bundles. Choose them, or drop them anywhere here.'));
  const status = h('p', { role: 'status', class: 'muted' });
  const list = h('div');

  async function take(files) {
    busy += 1;
    draw();
    for (const file of files) {
      const content = await contentOf(file);
      const texts = content.certificates ?? [];
      if (content.refused || !texts.length) refused.push([file.name, content.refused ?? 'No certificate was found in the file.']);
      for (const text of texts) {
        const key = await hash(text.replace(/\s/g, ''));
        if (found.has(key)) continue;
        if (found.size === MANY) {
          refused.push([file.name, `At most ${MANY} certificates are added at a time. Save these first.`]);
          break;
        }
        found.set(key, { key, text, file: file.name, state: 'reading' });
      }
    }
    draw();
    const waiting = [...found.values()].filter((entry) => entry.state === 'reading');
    await inParallel(waiting, look);
    busy -= 1;
    draw();
  }

  /** Ask the service what a certificate is, and whether it is registered. */
  async function look(entry) {
    if (entry.state !== 'reading') return;
    try {
      const report = await api.preview(entry.text);
      if ([...found.values()].some((other) => other.report?.fingerprintSha256 === report.fingerprintSha256)) {
        found.delete(entry.key); // the same certificate in another form
        return;
      }
      entry.report = report;
      const here = report.registered;
      Object.assign(entry, { state: here ? 'here' : report.ca.accepted ? 'ready' : 'refused', report, here, chosen: !here && report.ca.accepted });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      Object.assign(entry, { state: 'refused', message: error.message });
    }
    draw();
  }

  const chosen = () => [...found.values()].filter((entry) => entry.state === 'ready' && entry.chosen);

  function draw() {
    const entries = [...found.values()], read = entries.filter((entry) => entry.report);
    const tree = asTree(read.map((entry) => ({ ...entry.report, entry })));
    replace(list,
      tree.length > 0 && h('ul', { class: 'tree' }, tree.map((cert) => line(cert))),
      entries.filter((entry) => entry.message).map((entry) => bad(h('bdi', null, visible(entry.file)), ': ', visible(entry.message))),
      refused.map(([name, sentence]) => bad(h('bdi', null, visible(name)), ': ', sentence)));
    status.textContent = busy ? `Reading ${plural(entries.length, 'certificate')} …` : entries.length || refused.length
      ? `${plural(read.length, 'certificate')} read, ${chosen().length.toLocaleString('en')} chosen.` : '';
    if (button) button.textContent = `Save ${chosen().length.toLocaleString('en')}`;
  }

  function line(cert) {
    const { entry } = cert, box = newId('ca');
    const state = entry.state === 'saved' ? good('Registered.') : entry.state === 'here' ? good('Already here since ', moment(entry.here.createdAt), '.')
      : entry.state === 'failed' ? bad(visible(entry.failure)) : cert.ca.accepted ? null : bad(visible(cert.ca.message));
    return h('li', { 'data-depth': String(Math.min(cert.depth, 5)) },
      h('div', { class: 'level' }, entry.state === 'ready' && h('input', {
        type: 'checkbox', id: box, checked: entry.chosen, 'data-key': `choose-${cert.fingerprintSha256}`,
        onchange(event) { entry.chosen = event.target.checked; draw(); },
      }), h('div', null, h('label', { for: box }, foreign(cert.subject, { lines: 0 })),
        h('span', { class: 'muted block' }, `${kindOf(cert)} · SHA-256 ${fingerprint(cert.fingerprintSha256.slice(0, 16))}… · `, h('bdi', null, short(entry.file, 40))),
        state, cert.ca.warnings.map((notice) => warning(visible(notice.message))))));
  }

  let button = null;
  return openDialog({
    title: 'Add several CA certificates', wide: true, content: [area, status, list], focusFirst: picker, cancel: 'Close',
    setup(dialog) {
      button = dialog.buttons[0];
      dialog.element.addEventListener('dragover', (event) => { event.preventDefault(); dialog.element.classList.add('dropping'); });
      dialog.element.addEventListener('dragleave', (event) => { if (!dialog.element.contains(event.relatedTarget)) dialog.element.classList.remove('dropping'); });
      dialog.element.addEventListener('drop', (event) => {
        event.preventDefault();
        dialog.element.classList.remove('dropping');
        take([...event.dataTransfer.files]);
      });
      draw();
    },
    actions: [{ label: 'Save 0', tone: 'primary', submit: true, async run(dialog) {
      const entries = chosen();
      if (!entries.length) {
        dialog.errors.say(busy ? 'Wait until the files are read.' : 'Choose files with CA certificates first.');
        return undefined;
      }
      for (const entry of entries) { // one after the other: the index of the CAs is one document
        status.textContent = `Saving ${saved + 1} …`;
        try {
          await api.addCA({ certificate: entry.text });
          entry.state = 'saved';
          saved += 1;
        } catch (error) {
          if (!(error instanceof Problem)) throw error;
          Object.assign(entry, { state: 'failed', failure: error.message });
        }
        draw();
      }
      return entries.every((entry) => entry.state === 'saved') ? saved : undefined;
    } }],
  }).then((result) => result ?? (saved || undefined));
}

/** Run *work* for each item, a few at a time. */
async function inParallel(items, work) {
  const rest = [...items];
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (rest.length) await work(rest.shift());
  }));
}
