// Elements and text nodes. All content reaches the page through this module, so text never becomes markup.

const SVG = 'http://www.w3.org/2000/svg';
let numbers = 0;

/** Return a new id, for label and description references. */
export const newId = (prefix = 'n') => `${prefix}-${++numbers}`;

/**
 * Create an element. `on…` properties become listeners; `value`, `checked`, `disabled`, `hidden`, `open` and
 * `required` become properties; all others become attributes. An attribute that is undefined, null or false is omitted.
 */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Create an SVG element in the same way. */
export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

const PROPERTIES = new Set(['value', 'checked', 'disabled', 'hidden', 'open', 'required', 'selected', 'multiple']);

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name) && name in element) element[name] = value;
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  put(element, children);
  return element;
}

/** Append text and nodes, however nested; skip null, undefined and false. */
export function put(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** Replace an element's content. The focused element regains the focus if it still exists (by data-key or id). */
export function replace(element, ...children) {
  const held = element.contains(document.activeElement) ? document.activeElement : null;
  const key = held?.dataset?.key, id = held?.id;
  element.replaceChildren();
  put(element, children);
  if (!held || held.isConnected) return;
  const again = (key && find(element, key)) || (id && element.querySelector(`#${CSS.escape(id)}`));
  if (again) again.focus({ preventScroll: true });
}

/** Return the element with this data-key. */
export const find = (root, key) => root.querySelector(`[data-key="${CSS.escape(key)}"]`);
