// Charts of numbers over time, as SVG. Bars alone are stretched to the width of their place, so texts are HTML beside them.

import { h, newId, svg } from './dom.js';
import { plural } from './format.js';

const TOP = 100; // height of the drawing, in its own units
const COLOURS = 6; // classes c1 to c6 of the style sheet

/** A line of small bars. It repeats a number that is beside it, so screen readers skip it. */
export function sparkline(values) {
  const most = Math.max(1, ...values);
  return svg('svg', { class: 'sparkline', viewBox: `0 0 ${values.length} ${TOP}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    values.map((value, at) => {
      const height = value ? Math.max(4, value / most * TOP) : 1;
      return svg('rect', { x: at + 0.1, width: 0.8, y: TOP - height, height });
    }));
}

/**
 * Stacked bars with a legend and, folded, the same numbers as a table.
 * *series*: [{name, values, href}], the largest first. *times*: the label of each bar. *marks*: bars whose label is below
 * the drawing. *unit*: what is counted, in the singular.
 */
export function stackedBars({ title, series, times, marks, unit }) {
  const shown = series.slice(0, COLOURS - (series.length > COLOURS ? 1 : 0));
  const others = series.slice(shown.length);
  if (others.length) {
    shown.push({ name: `${others.length} others`, values: times.map((_, at) => sum(others.map(({ values }) => values[at]))) });
  }
  const totals = times.map((_, at) => sum(series.map(({ values }) => values[at])));
  const most = round(Math.max(1, ...totals));
  const caption = newId('chart');
  const bars = times.map((time, at) => {
    let y = TOP;
    const words = [`${time}: ${plural(totals[at], unit)}`, ...shown.filter(({ values }) => values[at]).map(({ name, values }) => `${name}: ${values[at].toLocaleString('en')}`)];
    return svg('g', null, svg('title', null, words.join('\n')), svg('rect', { class: 'hit', x: at, y: 0, width: 1, height: TOP }),
      shown.map(({ values }, place) => {
        const height = values[at] / most * TOP;
        y -= height;
        return values[at] > 0 && svg('rect', { class: `c${place + 1}`, x: at + 0.1, width: 0.8, y, height });
      }));
  });
  return h('figure', { class: 'chart', 'aria-labelledby': caption },
    h('figcaption', { class: 'sr', id: caption }, `${title}. The same numbers are in the table below.`),
    h('div', { class: 'plot' },
      h('span', { class: 'most', 'aria-hidden': 'true' }, most.toLocaleString('en')),
      svg('svg', { viewBox: `0 0 ${times.length} ${TOP}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, bars),
      h('ol', { class: 'ticks', 'aria-hidden': 'true' }, marks.map((at) => h('li', null, times[at])))),
    h('ul', { class: 'legend' }, shown.map(({ name, values, href }, place) => h('li', null,
      h('span', { class: `swatch c${place + 1}`, 'aria-hidden': 'true' }),
      href ? h('a', { href, target: '_blank', rel: 'noopener' }, name) : name,
      h('strong', null, sum(values).toLocaleString('en'))))),
    h('details', null, h('summary', null, 'As a table'), h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': title },
      h('table', { class: 'numbers' },
        h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Time'), series.map(({ name }) => h('th', { scope: 'col' }, name)))),
        h('tbody', null, times.map((time, at) => totals[at] > 0 && h('tr', null, h('th', { scope: 'row' }, time),
          series.map(({ values }) => h('td', null, values[at].toLocaleString('en'))))))))));
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** Return the smallest of 1, 2, 5, 10, 20, 50, … that is at least *number*. */
function round(number) {
  const size = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].map((step) => step * size).find((step) => step >= number);
}
