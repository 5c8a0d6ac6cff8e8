// The numbers of connections by hour, as a page shows them: in the time zone of the browser.

const HOUR = 3_600_000;
const two = (number) => String(number).padStart(2, '0');
const add = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** The numbers of the last 24 hours, and of the last 30 days by day. *traffic*: as the service answers. */
export function summarize(traffic) {
  const times = traffic.allowed.map((_, at) => new Date(Date.parse(traffic.start) + at * HOUR));
  const accepted = traffic.allowed.map((number, at) => number + traffic.continued[at]);
  const denied = Object.entries(traffic.denied);
  const hours = times.map((_, at) => at).slice(-24);
  const hour = (time) => `${two(time.getHours())}:${two(time.getMinutes())}`;
  const day = (time) => time.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
  const days = [];
  times.forEach((time, at) => {
    if (days.at(-1)?.[0] === day(time)) days.at(-1)[1].push(at);
    else days.push([day(time), [at]]);
  });
  const bySum = (series) => series.filter(({ total }) => total).sort((first, other) => other.total - first.total);
  const seriesOf = (parts) => bySum(denied.map(([name, numbers]) => {
    const values = parts.map((part) => add(part.map((at) => numbers[at])));
    return { name, values, total: add(values) };
  }));
  return {
    hours: {
      times: hours.map((at) => hour(times[at])),
      accepted: hours.map((at) => accepted[at]),
      continued: add(hours.map((at) => traffic.continued[at])),
      refused: hours.map((at) => add(denied.map(([, numbers]) => numbers[at]))),
      series: seriesOf(hours.map((at) => [at])),
    },
    days: {
      times: days.map(([name]) => name),
      accepted: days.map(([, part]) => add(part.map((at) => accepted[at]))),
      series: seriesOf(days.map(([, part]) => part)),
    },
  };
}
