// Native dialogs: Esc cancels, focus goes back to what opened them, or to the new row after a save.

import { find, h, newId } from './dom.js';
import { Problem } from './api.js';
import { errorArea, tell } from './form.js';
import { absolute, visible } from './format.js';

/**
 * A dialog with a form.
 *
 * content: nodes. fields: form.js fields that refusals belong to. actions: [{label, tone, submit, run, value, key}] after
 * [Cancel]; *submit* names the one that Enter means. run(dialog): answers the value to close with; undefined keeps it
 * open; raises a Problem. focusFirst: what has the focus at first (else [Cancel], if *cancelFirst*).
 * Answers a promise of the value (undefined: cancelled).
 */
export function openDialog({ title, content, fields = [], actions = [], cancel = 'Cancel', cancelFirst = false, focusFirst,
  fieldOf, onProblem, wide = false, setup }) {
  const opener = document.activeElement;
  const openerKey = opener?.dataset?.key;
  const heading = h('h2', { id: newId('title') }, title);
  const errors = errorArea();
  let value, busy = false;
  const cancelButton = cancel && h('button', { type: 'button', onclick: () => element.close() }, cancel);
  const buttons = actions.map((action) => h('button', {
    type: action.submit ? 'submit' : 'button', class: action.tone ?? '',
    onclick: action.submit ? undefined : () => perform(action),
  }, action.label));
  const form = h('form', {
    novalidate: true,
    onsubmit(event) {
      event.preventDefault();
      const action = actions.find((one) => one.submit);
      if (action) perform(action);
    },
  }, heading, h('div', { class: 'dialog-content' }, content), errors.area,
  h('div', { class: 'dialog-actions' }, cancelButton, buttons));
  const element = h('dialog', { 'aria-labelledby': heading.id, class: wide ? 'wide' : '' }, form);
  element.addEventListener('cancel', (event) => { if (busy) event.preventDefault(); });

  const dialog = {
    element, errors, buttons,
    close(result) { value = result; element.close(); },
  };

  async function perform(action) {
    if (busy) return;
    busy = true;
    form.setAttribute('aria-busy', 'true');
    errors.clear();
    fields.forEach((one) => one.clear());
    try {
      const result = await action.run(dialog);
      if (result !== undefined) dialog.close(result);
    } catch (error) {
      if (!(error instanceof Problem && await onProblem?.(error, dialog))) tell(error, fields, errors, { fieldOf });
    } finally {
      busy = false;
      form.removeAttribute('aria-busy');
    }
  }

  document.body.append(element);
  setup?.(dialog);
  element.showModal();
  const start = focusFirst ?? (cancelFirst ? cancelButton : fields[0]);
  start?.focus();
  return new Promise((resolve) => {
    element.addEventListener('close', () => {
      element.remove();
      // The browser gives the focus back; where the list was drawn anew meanwhile, the opener's successor has it.
      if (value === undefined && !opener?.isConnected && openerKey) find(document, openerKey)?.focus();
      resolve(value);
    });
  });
}

/** A question with [Cancel], which has the focus. */
export const ask = (options) => openDialog({ ...options, cancelFirst: true });

/**
 * Somebody else was faster: one clear winner. Answers 'theirs' or 'mine'.
 * *theirs*: the record as it stands now.
 */
export async function conflict(theirs, summary) {
  const name = visible(theirs.updatedBy);
  const answer = await openDialog({
    title: 'Changed meanwhile',
    content: [h('p', null, `${name} changed this at `, h('time', { datetime: theirs.updatedAt }, absolute(theirs.updatedAt)), '.'), summary],
    cancel: null,
    actions: [
      { label: 'Keep theirs', submit: true, run: () => 'theirs' },
      { label: 'Save mine', tone: 'primary', run: () => 'mine' },
    ],
  });
  return answer ?? 'theirs';
}

/**
 * Save with the version that was read. Where it is stale, *read* what stands, and ask.
 * Answers the saved record, or null where theirs is kept.
 */
export async function saveOver(save, version, read, summary = () => null) {
  try {
    return await save(version);
  } catch (error) {
    if (!(error instanceof Problem && error.status === 412)) throw error;
    const theirs = await read();
    if (await conflict(theirs, summary(theirs)) === 'theirs') return null;
    return saveOver(save, theirs.version, read, summary);
  }
}
