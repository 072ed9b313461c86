// What answers have cost, in everyday words: what models read and wrote, and money.
const counted = new Intl.NumberFormat()
const MILLIONTHS = 1e6
const LEAST = 0.01

const count = value => Number.isFinite(value) && value > 0 ? value : 0

/** An amount of money, given in millionths; '' if there is none, or it is in no currency. */
function money (cost, currency) {
  const amount = count(cost) / MILLIONTHS
  if (!amount || typeof currency !== 'string') return ''
  try {
    const format = new Intl.NumberFormat(undefined, { style: 'currency', currency })
    return amount < LEAST ? `less than ${format.format(LEAST)}` : format.format(amount)
  } catch { // no currency that is known
    return `${amount} ${currency}`
  }
}

/** Several usages as one: tokens, and money by currency. */
function sum (usages) {
  const costs = new Map()
  let read = 0
  let wrote = 0
  for (const usage of usages) {
    read += count(usage?.inputTokens)
    wrote += count(usage?.outputTokens)
    if (count(usage?.cost)) costs.set(usage.currency, (costs.get(usage.currency) ?? 0) + usage.cost)
  }
  return { read, wrote, costs: [...costs].sort().map(([currency, cost]) => money(cost, currency)).filter(Boolean) }
}

function words ({ read, wrote, costs }) {
  const tokens = read || wrote ? `read ${counted.format(read)} and wrote ${counted.format(wrote)} tokens` : ''
  const cost = costs.length ? `cost ${costs.join(' and ')}` : ''
  return [tokens, cost].filter(Boolean).join(', ')
}

const begun = text => text && text[0].toUpperCase() + text.slice(1)

/** What a run has used, its child runs included; '' if nobody said. */
export function used (usage) {
  const text = words(sum([usage, usage?.children]))
  return begun(text) + (text && usage?.children ? ', child runs included' : '')
}

/** What all runs of a session have used; '' if nobody said. */
export function usedByAll (usages) {
  const text = words(sum(usages)) // without `children`, which stand for themselves
  return text && `So far, models ${text.startsWith('cost') ? `have ${text}` : text}`
}
