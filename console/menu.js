// A button that opens a menu of buttons over the page. Esc and a click beside the menu close it.

import { h, newId } from './dom.js';

/**
 * *name*: what the actions are for, in the button's accessible name. *key*: the button's data-key.
 * *actions*: [{label, key, run, tone}]; false ones are skipped. *label*: what the button shows; three dots otherwise.
 */
export function menu({ name, key, actions, label = null }) {
  const id = newId('menu');
  const items = actions.filter(Boolean).map((action) => h('button', {
    type: 'button', class: action.tone ?? '', 'data-key': action.key, 'aria-label': label ? null : `${action.label} ${name}`,
    onclick() {
      list.hidePopover();
      opener.focus(); // a dialog returns the focus here
      action.run();
    },
  }, action.label));
  const opener = h('button', {
    type: 'button', class: 'small menu-button', popovertarget: id, 'data-key': key, 'aria-expanded': 'false', 'aria-haspopup': 'true',
    'aria-label': label ? null : `Actions for ${name}`,
  }, label ?? '⋯');
  const list = h('div', { id, class: 'menu', popover: 'auto', role: 'group', 'aria-label': label ?? `Actions for ${name}`,
    onkeydown(event) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus();
    },
    ontoggle(event) {
      const isOpen = event.newState === 'open';
      opener.setAttribute('aria-expanded', String(isOpen));
      if (isOpen) {
        place();
        items[0]?.focus();
      }
    } }, items);

  /** Put the menu below its button, or above where there is no room; always inside the window. */
  function place() {
    const button = opener.getBoundingClientRect(), box = list.getBoundingClientRect();
    const below = button.bottom + 4, fits = below + box.height <= innerHeight;
    list.style.top = `${Math.max(4, fits ? below : button.top - box.height - 4)}px`;
    list.style.left = `${Math.max(4, Math.min(button.right - box.width, innerWidth - box.width - 4))}px`;
  }

  return h('span', { class: 'menu-place' }, opener, list);
}
