// Native dialogs: Esc cancels. Afterwards the focus returns to the opener, or moves to the new row after a save.

import { find, h, newId } from './dom.js';
import { Problem } from './api.js';
import { errorArea, showProblem } from './form.js';
import { absolute, visible } from './format.js';

/**
 * Open a dialog with a form.
 *
 * content: nodes. fields: the form.js fields that show refusals. actions: [{label, tone, submit, run, value, key}],
 * shown after [Cancel]; *submit* marks the action of the Enter key. run(dialog) returns the value to close with, or
 * undefined to keep the dialog open; it may throw a Problem. focusFirst: the element with the initial focus (default:
 * [Cancel], if *cancelFirst*).
 * Resolves to the value, or undefined if cancelled.
 */
export function openDialog({ title, content, fields = [], actions = [], cancel = 'Cancel', cancelFirst = false, focusFirst,
  fieldOf, onProblem, wide = false, setup }) {
  const opener = document.activeElement;
  const openerKey = opener?.dataset?.key;
  const heading = h('h2', { id: newId('title') }, title);
  const errors = errorArea();
  let value, busy = false;
  const cancelButton = cancel && h('button', { type: 'button', onclick: leave }, cancel);
  const buttons = actions.map((action) => h('button', {
    type: action.submit ? 'submit' : 'button', class: action.tone ?? '',
    onclick: action.submit ? undefined : () => perform(action),
  }, action.label));
  const form = h('form', {
    novalidate: true,
    onsubmit(event) {
      event.preventDefault();
      const action = actions.find((candidate) => candidate.submit);
      if (action) perform(action);
    },
  }, heading, h('div', { class: 'dialog-content' }, content), errors.area,
  h('div', { class: 'dialog-actions' }, cancelButton, buttons));
  const element = h('dialog', { 'aria-labelledby': heading.id, class: wide ? 'wide' : '' }, form);
  let typed = false, warned = false;
  form.addEventListener('input', () => { typed = true; warned = false; });
  element.addEventListener('cancel', (event) => {
    event.preventDefault();
    leave();
  });

  /** Close the dialog. The first time that this would lose what was typed, say so instead. */
  function leave() {
    if (busy) return;
    if (!typed || warned) {
      element.close();
      return;
    }
    warned = true;
    errors.say(`What you entered is not saved. Press ${cancel || 'Esc'} again to discard it.`);
  }

  const dialog = {
    element, errors, buttons,
    close(result) { value = result; element.close(); },
  };

  async function perform(action) {
    if (busy) return;
    busy = true;
    form.setAttribute('aria-busy', 'true');
    errors.clear();
    fields.forEach((field) => field.clear());
    try {
      const result = await action.run(dialog);
      if (result !== undefined) dialog.close(result);
    } catch (error) {
      if (!(error instanceof Problem && await onProblem?.(error, dialog))) showProblem(error, fields, errors, { fieldOf });
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
      // The browser restores the focus. If the list was redrawn meanwhile, focus the element that replaced the opener.
      if (value === undefined && !opener?.isConnected && openerKey) find(document, openerKey)?.focus();
      resolve(value);
    });
  });
}

/** Ask a question; [Cancel] has the focus. */
export const ask = (options) => openDialog({ ...options, cancelFirst: true });

/**
 * Ask which version to keep, after another user saved first. Resolves to 'theirs' or 'mine'.
 * *theirs*: the record as stored now.
 */
export async function conflict(theirs, summary) {
  const name = visible(theirs.updatedBy);
  const answer = await openDialog({
    title: 'Changed meanwhile',
    content: [h('p', null, `${name} changed this at `, h('time', { datetime: theirs.updatedAt }, absolute(theirs.updatedAt)), '.'), summary],
    cancel: null,
    actions: [
      { label: 'Keep the other change', submit: true, run: () => 'theirs' },
      { label: 'Save my change', tone: 'primary', run: () => 'mine' },
    ],
  });
  return answer ?? 'theirs';
}

/**
 * Save with the version that was read. If that version is stale, *read* the stored record and ask the user.
 * Resolves to the saved record, or to null if the stored record is kept.
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
