// Form fields with a label, a hint, and a message beside the field after a refusal. A refusal clears no input.

import { h, newId, put } from './dom.js';
import { Problem } from './api.js';

/** A labelled control. *control* is an input, select or textarea. */
export function field(label, control, { hint, name } = {}) {
  control.id ||= newId('field');
  const hintLine = hint ? h('p', { class: 'hint', id: `${control.id}-hint` }, hint) : null;
  const errorLine = h('p', { class: 'error', id: `${control.id}-error`, hidden: true });
  const describe = (failed) => {
    const ids = [hintLine?.id, failed && errorLine.id].filter(Boolean).join(' ');
    if (ids) control.setAttribute('aria-describedby', ids); else control.removeAttribute('aria-describedby');
  };
  describe(false);
  const row = h('div', { class: 'field' }, h('label', { for: control.id }, label), control, hintLine, errorLine);
  return {
    name, row, control,
    get value() { return control.value; },
    /** Show the message beside the field, with the remedy. */
    fail(...content) {
      control.setAttribute('aria-invalid', 'true');
      errorLine.replaceChildren();
      put(errorLine, content);
      errorLine.hidden = false;
      describe(true);
    },
    clear() {
      control.removeAttribute('aria-invalid');
      errorLine.hidden = true;
      errorLine.replaceChildren();
      describe(false);
    },
    focus() { control.focus(); },
  };
}

export const input = (properties) => h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', ...properties });
export const textarea = (properties) => h('textarea', { rows: 2, ...properties });
export const select = (options, chosen, properties) =>
  h('select', properties, options.map(([value, label]) => h('option', { value, selected: value === chosen }, label)));

export function checkbox(label, checked, { hint, key } = {}) {
  const control = h('input', { type: 'checkbox', checked, id: newId('field'), 'data-key': key });
  const hintLine = hint && h('p', { class: 'hint', id: `${control.id}-hint` }, hint);
  if (hintLine) control.setAttribute('aria-describedby', hintLine.id);
  return { control, row: h('div', { class: 'field check' }, h('label', null, control, ' ', label), hintLine) };
}

/** The place of a message that belongs to no single field. */
export function errorArea() {
  const area = h('div', { class: 'error-area', role: 'alert' });
  return {
    area,
    clear: () => area.replaceChildren(),
    say(...content) {
      area.replaceChildren();
      put(area, h('p', { class: 'error' }, ...content));
    },
  };
}

/**
 * Show a Problem's messages beside its fields and focus the first of them, or show the message in *area*. Any other
 * error is a defect of this page, and is thrown again.
 */
export function showProblem(error, fields, area, { fieldOf = (violation) => violation.field } = {}) {
  if (!(error instanceof Problem)) {
    area.say('Something went wrong on this page. Reload it, then try again.');
    throw error;
  }
  let first = null;
  for (const violation of error.violations) {
    const name = fieldOf(violation, error);
    const field = fields.find((candidate) => candidate.name === name);
    if (!field) continue;
    field.fail(violation.message);
    first ??= field;
  }
  if (first) first.focus(); else area.say(error.message);
}
