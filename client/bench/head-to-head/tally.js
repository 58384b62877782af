/**
 * The result of a run.
 *
 * @typedef {object} Record
 * @property {{ id: string, at: number, storedAt: number }[]} published in the order in which they were stored
 * @property {string[]} shown ids in the order of the handler's calls
 * @property {Set<string>} reported ids of messages that the application knows to be missing
 * @property {number} reloads how often the client reported that any message may be missing
 * @property {boolean} isComplete whether the client believes at the end that it has everything
 */

/** @returns {Record} */
export const newRecord = () => ({ published: [], shown: [], reported: new Set(), reloads: 0, isComplete: false });

/** Records that the client reports that any message so far may be missing. @param {Record} record */
export function reload(record) {
  record.reloads++;
  for (const { id } of record.published) record.reported.add(id);
}

/** Counts messages that are shown after one that was both created and stored later: no order permits it. */
function countOutOfOrder({ published, shown }) {
  const messages = new Map(published.map((message, index) => [message.id, { ...message, index }]));
  const earlier = [];
  return [...new Set(shown)].filter((id) => {
    const { at, index } = messages.get(id);
    const isLate = earlier.some((other) => other.at > at && other.index > index);
    earlier.push({ at, index });
    return isLate;
  }).length;
}

/** @param {Record} record */
export function tally(record) {
  const shown = new Set(record.shown);
  const missing = record.published.filter(({ id }) => !shown.has(id));
  const reported = missing.filter(({ id }) => record.reported.has(id)).length;
  const lost = missing.length - reported;
  return {
    published: record.published.length,
    shown: shown.size,
    lost,
    reported,
    reloads: record.reloads,
    falselyComplete: Number(record.isComplete && lost > 0),
    incomplete: Number(!record.isComplete),
    duplicates: record.shown.length - shown.size,
    outOfOrder: countOutOfOrder(record),
  };
}

/** Adds up tallies. */
export const sum = (tallies) =>
  tallies.reduce((total, one) => Object.fromEntries(Object.entries(one).map(([name, count]) => [name, (total[name] ?? 0) + count])), {});
