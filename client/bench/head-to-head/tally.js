/**
 * The result of a run.
 *
 * @typedef {object} Record
 * @property {{ id: string, at: number, storedAt: number }[]} published in the order in which they were stored
 * @property {string[]} shown ids in the order of the handler's calls
 * @property {Set<string>} told ids of messages that the application knows to be missing
 * @property {number} reloads how often the application was told that it may have missed anything
 * @property {boolean} isComplete whether the client believes at the end that it has everything
 */

/** @returns {Record} */
export const newRecord = () => ({ published: [], shown: [], told: new Set(), reloads: 0, isComplete: false });

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
  const told = missing.filter(({ id }) => record.told.has(id)).length;
  const lost = missing.length - told;
  return {
    published: record.published.length,
    shown: shown.size,
    lost,
    told,
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
