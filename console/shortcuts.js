// Keyboard shortcuts. They can be switched off, because speech input may type single characters (WCAG 2.2, 2.1.4).

import { openDialog } from './dialog.js';
import { h } from './dom.js';
import { checkbox } from './form.js';

const OFF = 'trust.no-shortcuts';
const SEQUENCE = 1500; // ms between the two keys of a sequence

/** Listen for shortcuts. *pages*: [{path, title, key}]; `g` and the key lead to the page. */
export function listen(pages) {
  let since = -Infinity;
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector('dialog[open], :popover-open')) return;
    if (event.key === '?') {
      event.preventDefault();
      show(pages);
      return;
    }
    if (localStorage.getItem(OFF)) return;
    const page = event.timeStamp - since < SEQUENCE && pages.find(({ key }) => key === event.key);
    since = event.key === 'g' ? event.timeStamp : -Infinity;
    if (page) location.hash = `#/${page.path}`;
    else if (event.key === '/') {
      const box = document.querySelector('#content input[type=search]');
      if (box?.checkVisibility()) {
        event.preventDefault();
        box.focus();
        box.select();
      }
    }
  });
}

const isTyping = (target) => target.matches('textarea, select, input:not([type=checkbox], [type=radio]), [contenteditable]');

function show(pages) {
  const on = checkbox('Use these shortcuts', !localStorage.getItem(OFF), { hint: 'Switch them off if speech input or a browser extension uses single keys.' });
  on.control.addEventListener('change', () => {
    if (on.control.checked) localStorage.removeItem(OFF); else localStorage.setItem(OFF, 'yes');
  });
  const line = (keys, what) => h('div', null, h('dt', null, keys.map((key) => [h('kbd', null, key), ' '])), h('dd', null, what));
  openDialog({
    title: 'Keyboard shortcuts', cancel: 'Close', cancelFirst: true,
    content: [h('dl', { class: 'facts' }, line(['/'], 'Search in the list'), pages.map(({ title, key }) => line(['g', key], title)), line(['?'], 'This list')), on.row],
  });
}
