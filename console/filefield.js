// A file that is chosen, dropped anywhere in its form, or pasted. The file is inspected before it is sent.

import { h, newId, put } from './dom.js';
import { size, visible } from './format.js';
import { refuseKeyStore, sniff, wire } from './sniff.js';

const FILE_MAX = 64 * 1024;

/**
 * *hint*: what the field accepts. *most*: the largest size in bytes. *onchange(file)*: called after each change, with
 * {bytes, content, wire} or null. *refuse(content)*: returns a sentence if the file must not be sent, else null.
 */
export function fileField(label, { name, hint, most = FILE_MAX, accept, onchange = () => {}, refuse = () => null, paste = true }) {
  const id = newId('file');
  const picker = h('input', { type: 'file', id, accept, 'aria-describedby': `${id}-hint`, onchange: () => read(picker.files[0]) });
  const area = paste && h('textarea', {
    rows: 2, id: `${id}-paste`, spellcheck: 'false', autocomplete: 'off', placeholder: '-----BEGIN …',
    oninput: () => {
      picker.value = '';
      const text = area.value;
      if (text.trim()) take(new TextEncoder().encode(text)); else set(null);
    },
  });
  const errorLine = h('p', { class: 'error', id: `${id}-error`, hidden: true });
  const row = h('div', { class: 'field file' },
    h('label', { for: id }, label), picker,
    h('p', { class: 'hint', id: `${id}-hint` }, hint, ' Choose it, drop it anywhere here', paste ? ', or paste it:' : '.'),
    area && h('label', { class: 'sr', for: area.id }, `${label}, pasted`), area, errorLine);
  let file = null;
  let turn = 0;

  async function read(chosen) {
    if (!chosen) return set(null);
    const mine = ++turn;
    if (area) area.value = '';
    if (chosen.size > most) return set(null, `${size(chosen.size)}; at most ${size(most)}.`);
    const content = await chosen.arrayBuffer().catch(() => null); // gone since it was chosen, or not readable
    if (mine !== turn) return null;
    return content ? take(new Uint8Array(content), true) : set(null, `${visible(chosen.name)} cannot be read. Choose it again.`);
  }

  function take(bytes, fresh = false) {
    if (!fresh) turn++;
    if (bytes.length > most) return set(null, `${size(bytes.length)}; at most ${size(most)}.`);
    const content = sniff(bytes);
    const refused = content.keyStore ? refuseKeyStore(content.keyStore) : refuse(content);
    if (refused) return set(null, refused);
    set({ bytes, content, wire: wire(bytes) });
  }

  function set(next, failure) {
    file = next;
    self.clear();
    if (failure) self.fail(failure);
    onchange(file);
  }

  const controls = () => [picker, area].filter(Boolean);

  function show(content, isFailure) {
    for (const control of controls()) {
      if (isFailure) control.setAttribute('aria-invalid', 'true'); else control.removeAttribute('aria-invalid');
      control.setAttribute('aria-describedby', `${id}-hint ${id}-error`);
    }
    errorLine.className = isFailure ? 'error' : 'note';
    errorLine.replaceChildren();
    put(errorLine, content);
    errorLine.hidden = false;
  }

  const self = {
    name, row, picker,
    get file() { return file; },
    fail(...content) { show(content, true); },
    /** Say something about the file that was read. It is no failure: the file may be sent. */
    note(...content) { show(content, false); },
    clear() {
      for (const control of controls()) {
        control.removeAttribute('aria-invalid');
        control.setAttribute('aria-describedby', `${id}-hint`);
      }
      errorLine.hidden = true;
      errorLine.replaceChildren();
    },
    focus() { (area?.value ? area : picker).focus(); },
    /** Take a dropped file; the control shows its name. */
    drop(dropped) {
      const transfer = new DataTransfer();
      transfer.items.add(dropped);
      picker.files = transfer.files;
      return read(dropped);
    },
    /** Take a text from another part of the page. */
    fill(text) {
      if (area) area.value = text;
      picker.value = '';
      take(new TextEncoder().encode(text));
    },
    get failure() { return errorLine.hidden || errorLine.className !== 'error' ? null : errorLine.textContent; },
  };
  return self;
}

/**
 * Pass files that are dropped anywhere in *element* to the field that *give(file)* returns. A field takes one file: of
 * several for one field the first is read, and the field says which were not.
 */
export function droppable(element, give) {
  element.addEventListener('dragover', (event) => {
    event.preventDefault();
    element.classList.add('dropping');
  });
  element.addEventListener('dragleave', (event) => {
    if (!element.contains(event.relatedTarget)) element.classList.remove('dropping');
  });
  element.addEventListener('drop', async (event) => {
    event.preventDefault();
    element.classList.remove('dropping');
    const taken = new Map(); // field -> the names of its files
    // Asked before the first await: the browser empties the list of items then. A folder cannot be read as a file.
    const items = [...event.dataTransfer.items].filter((item) => item.kind === 'file');
    const isFolder = items.map((item) => Boolean(item.webkitGetAsEntry?.()?.isDirectory));
    const files = [...event.dataTransfer.files].filter((_, at) => !isFolder[at]);
    for (const file of files) {
      const field = await give(file);
      const names = taken.get(field) ?? [];
      taken.set(field, [...names, file.name]);
      if (!names.length) await field.drop(file);
    }
    for (const [field, [first, ...others]] of taken) {
      if (others.length && field.file) field.note(`This field takes one file. ${visible(first)} was read; not read: ${others.map(visible).join(', ')}.`);
    }
    if (isFolder.includes(true)) {
      const field = [...taken.keys()][0] ?? await give(new File([], ''));
      if (field.file) field.note(FOLDER_REFUSED); else field.fail(FOLDER_REFUSED);
    }
  });
}

const FOLDER_REFUSED = 'Drop files, not a folder.';
export const KEY_REFUSED = 'This is a private key; it was not sent.';
export const noKey = (content) => (content.key ? KEY_REFUSED : null);
