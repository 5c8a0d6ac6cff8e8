// Sign-in: as a page, or as a dialog over the page after a session has ended.

import { api } from './api.js';
import { h } from './dom.js';
import { errorArea, field, input, showProblem } from './form.js';
import * as oidc from './oidc.js';
import * as session from './session.js';

/** The sign-in form. *done(proof, person)*: called after success. *over*: above a page whose input must not be lost. */
function signInForm(where, done, { over = false, problem } = {}) {
  const key = field('API key', input({ name: 'key', autocomplete: 'username', autocapitalize: 'none' }), { name: 'key' });
  const token = field('Token', input({ type: 'password', name: 'token', autocomplete: 'current-password' }),
    { name: 'token', hint: 'The token is kept until the last tab of the console closes.' });
  const errors = errorArea();
  if (problem) errors.say(problem);
  const waiting = new AbortController();
  const attempt = async (proof) => {
    const person = await api.session(proof);
    waiting.abort();
    done(proof, person);
  };
  const form = h('form', {
    class: 'sign-in', novalidate: true,
    async onsubmit(event) {
      event.preventDefault();
      errors.clear();
      [key, token].forEach((field) => field.clear());
      if (!key.value.trim()) { key.fail('Type the API key.'); return key.focus(); }
      if (!token.value) { token.fail('Type the token.'); return token.focus(); }
      form.setAttribute('aria-busy', 'true');
      try {
        await attempt({ kind: 'key', key: key.value.trim(), token: token.value.trim() });
      } catch (error) {
        if (error.status === 401) {
          token.fail('The API key or its token is wrong. If the token is lost, create a new key.');
          token.focus();
        } else {
          showProblem(error, [], errors);
        }
      } finally {
        form.removeAttribute('aria-busy');
      }
    },
  }, key.row, token.row, errors.area, h('div', { class: 'dialog-actions' },
    where?.issuer && h('button', {
      type: 'button',
      async onclick() {
        errors.clear();
        try {
          if (over) await attempt(await oidc.inWindow(where, waiting.signal));
          else await oidc.leave(where);
        } catch (error) {
          if (error.name !== 'AbortError') showProblem(error, [], errors);
        }
      },
    }, `Sign in with ${new URL(where.issuer).host}`),
    h('button', { type: 'submit', class: 'primary' }, 'Sign in')));
  return { form, focus: () => key.focus() };
}

/** Show the sign-in page. */
export function signInPage(root, where, done, problem) {
  const { form, focus } = signInForm(where, (proof, person) => {
    session.keep(proof, person);
    done();
  }, { problem });
  root.replaceChildren(h('main', { class: 'alone', id: 'content' }, h('h1', null, 'Trust console'), form));
  document.title = 'Sign in · Trust console';
  focus();
}

/** Show the sign-in dialog until a user has signed in. For another org the page starts again, without the old data. */
export function signInAgain(where) {
  const before = session.who();
  return new Promise((resolve) => {
    const { form, focus } = signInForm(where, (proof, person) => {
      session.keep(proof, person);
      if (before && person.org !== before.org) { location.reload(); return; }
      element.close();
      element.remove();
      resolve();
    }, { over: true });
    const heading = h('h2', { id: 'ended' }, 'Sign in');
    const element = h('dialog', { 'aria-labelledby': 'ended', 'aria-describedby': 'ended-why' }, heading,
      h('p', { id: 'ended-why' }, 'Your session has ended. Sign in to go on; nothing typed is lost.'), form);
    // Without a session the page cannot be used, so Esc does not close this dialog.
    element.addEventListener('cancel', (event) => event.preventDefault());
    element.addEventListener('close', () => { if (element.isConnected) element.showModal(); });
    document.body.append(element);
    element.showModal();
    focus();
  });
}
