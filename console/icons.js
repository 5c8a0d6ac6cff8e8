// Icons of the navigation: strokes on a grid of 16 by 16. Each is beside its text, so screen readers skip it.

import { svg } from './dom.js';

const PATHS = {
  overview: 'M2 9h5V2H2zm0 5h5v-3H2zm7 0h5V7H9zm0-9h5V2H9z',
  devices: 'M4 4h8v8H4zM6.5 6.5h3v3h-3zM6 1.5V4m4-2.5V4m-4 8v2.5m4-2.5v2.5M1.5 6H4m-2.5 4H4m8-4h2.5M12 10h2.5',
  ca: 'M8 1.5 2.5 3.7v4c0 3.2 2.3 5.6 5.5 6.8 3.2-1.2 5.5-3.6 5.5-6.8v-4zM5.5 8l1.8 1.8L10.7 6',
  servers: 'M2 2.5h12v4H2zm0 7h12v4H2zM4.5 4.5h.01M4.5 11.5h.01',
  security: 'M3.5 7h9v7h-9zM5.5 7V4.5a2.5 2.5 0 0 1 5 0V7',
  brokers: 'M8 3.5a1.5 1.5 0 1 0 0-.01M3 13.5a1.5 1.5 0 1 0 0-.01M13 13.5a1.5 1.5 0 1 0 0-.01M8 5v4m0 0-4 3m4-3 4 3',
  why: 'M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM6 6.2C6 5 6.9 4.4 8 4.4s2 .7 2 1.7c0 1.5-2 1.6-2 3.1M8 11.6h.01',
  activity: 'M1.5 8.5h3l2-5 3 9.5 2-4.5h3',
};

export function icon(name) {
  return svg('svg', { class: 'icon', viewBox: '0 0 16 16', 'aria-hidden': 'true' }, svg('path', { d: PATHS[name] }));
}
