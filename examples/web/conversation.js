// Layout 1 (docs/protocol.md) as this page reads and writes it. Nothing here knows a connection or the page.
import * as Y from 'yjs'

export const ACTIVE = ['queued', 'running', 'suspended']
const MOST_SUGGESTIONS = 6
const DEEPEST = 8 // careless writers could make a circle

/** Post a message, and ask `agent` about it if one is named: one transaction, so that it is whole for everybody. */
export function post (doc, author, text, agent) {
  const id = crypto.randomUUID()
  const createdAt = Date.now()
  doc.transact(() => {
    const part = new Y.Map([['type', 'text'], ['text', new Y.Text(text)], ['state', 'done']])
    const parts = new Y.Array()
    const message = new Y.Map([['head', { id, role: 'user', author, parent: null, createdAt }], ['parts', parts]])
    doc.getMap('messages').set(id, message)
    parts.push([part])
    if (agent) runOf(doc, `run-${id}`).set('request', { messageId: id, agent, trigger: 'submit', by: author.id, createdAt })
  })
}

/** The shared map of a run, made if need be: one may press stop before anybody has seen the question. */
function runOf (doc, id) {
  const runs = doc.getMap('runs')
  if (!(runs.get(id) instanceof Y.Map)) runs.set(id, new Y.Map())
  return runs.get(id)
}

/** Press stop: before the run begins or while it is worked on, also offline. */
export function cancel (doc, id, by) {
  doc.transact(() => {
    const run = runOf(doc, id)
    if (!run.has('cancel')) run.set('cancel', { by, at: Date.now() })
  })
}

/** Ask for a run: `submit`, `regenerate` (another answer beside the first) or `continue` (where an answer broke off). */
export function ask (doc, by, messageId, trigger, agent = '*') {
  doc.transact(() => runOf(doc, `run-${crypto.randomUUID()}`).set('request', { messageId, agent, trigger, by, createdAt: Date.now() }))
}

/** The parts of a message that count: not those that an agent took back, but for calls that people, or devices, were asked about. */
const shown = message => {
  const parts = message?.get('parts')
  const gone = message?.get('superseded') ?? 0
  return parts instanceof Y.Array ? parts.toArray().filter((part, at) => at >= gone || (part instanceof Y.Map && (part.has('approvalRequest') || part.has('clientCall')))) : []
}

/** A message of the conversation, or one that a child run writes beside it. */
const messageOf = (doc, id) => doc.getMap('messages').get(id) ?? doc.getMap('delegated').get(id)

const callOf = (doc, messageId, toolCallId) =>
  shown(messageOf(doc, messageId)).find(part => part.get('toolCallId') === toolCallId)

/** Say what one thinks of a tool call that waits for approval. The service settles which decision counts. */
export function decide (doc, messageId, toolCallId, by, approved, value) {
  const decisions = callOf(doc, messageId, toolCallId)?.get('decisions')
  decisions?.set(by, { approved, ...(value === undefined ? {} : { value }), at: Date.now() })
}

/** Fill in fields of a question's draft, which all devices share; undefined empties one. */
export function fillIn (doc, messageId, toolCallId, fields) {
  const draft = callOf(doc, messageId, toolCallId)?.get('draft')
  if (!(draft instanceof Y.Map)) return
  doc.transact(() => {
    for (const [name, value] of Object.entries(fields)) value === undefined ? draft.delete(name) : draft.set(name, value)
  })
}

/** The fields of a question's draft that are shared texts, by their names: of what two devices type in one at once both stays. */
export function textsOf (doc, messageId, toolCallId) {
  const draft = callOf(doc, messageId, toolCallId)?.get('draft')
  const fields = draft instanceof Y.Map ? [...draft.entries()] : []
  return new Map(fields.filter(([, value]) => value instanceof Y.Text))
}

/** What the session is called by people; '' if nobody has given it a title. */
export function title (doc) {
  const found = doc.getMap('meta').get('title')
  return typeof found === 'string' ? found.trim() : ''
}

export const retitle = (doc, text) => doc.getMap('meta').set('title', text)

/** Whether nobody may write here any more, until it is opened again. */
export const isClosed = doc => ['closed', 'archived'].includes(doc.getMap('meta').get('status'))

/** What the session's own application says to newcomers: questions to try, and two hints. Anybody may write there. */
export function welcome (doc) {
  const state = doc.getMap('state').get('welcome')
  const found = state instanceof Y.AbstractType ? state.toJSON() : state
  const text = value => typeof value === 'string' ? value.slice(0, 300) : ''
  const listed = Array.isArray(found?.suggestions) ? found.suggestions.slice(0, MOST_SUGGESTIONS) : []
  const suggestions = listed.map(each => ({ text: text(each?.text), agent: text(each?.agent), hint: text(each?.hint) }))
  return { suggestions: suggestions.filter(each => each.text), terminal: text(found?.terminal), kill: text(found?.kill) }
}

/** The names of agents that one can ask: those of runs, and of what newcomers are told. */
export function agents (doc) {
  const found = welcome(doc).suggestions.map(each => each.agent)
  for (const run of doc.getMap('runs').values()) {
    if (run instanceof Y.Map) found.push(run.get('agent'), run.get('request')?.agent)
  }
  return new Set(found.filter(name => typeof name === 'string' && name && name !== '*'))
}

/** Why a run has ended, to follow what is said of that; '' if nobody said more than that it has. */
export function because ({ status, outcome }) {
  const why = outcome?.error?.message ?? outcome?.reason
  return why && why !== status ? `: ${why}` : ''
}

/** What each run says that it has used. */
export const usages = doc => [...doc.getMap('runs').values()].map(run => run instanceof Y.Map ? run.get('usage') : null).filter(Boolean)

const jsonOf = message => shown(message).map(part => part instanceof Y.Map ? part.toJSON() : {})

/** Returns a function that finds the child runs of a run, each with what it writes and children of its own. */
function families (doc) {
  const found = new Map() // parent -> its children
  for (const [id, run] of doc.getMap('runs')) {
    const request = run instanceof Y.Map ? run.get('request') : null
    if (request?.parent) found.set(request.parent, [...found.get(request.parent) ?? [], { id, ...run.toJSON() }])
  }
  const order = (a, b) => a.request.createdAt - b.request.createdAt || a.id.length - b.id.length || (a.id < b.id ? -1 : 1)
  const below = (id, depth = 0) => depth > DEEPEST ? [] : (found.get(id) ?? []).sort(order).map(run => ({
    run,
    message: { id: run.output, run, parts: jsonOf(messageOf(doc, run.output)) },
    children: below(run.id, depth + 1)
  }))
  return below
}

/** Messages in the session's order: by seq; without one last, by time, then id. */
export function messages (doc) {
  const runs = doc.getMap('runs')
  const written = doc.getMap('messages')
  const childrenOf = families(doc)
  const asked = new Map() // question -> the run nobody has begun to write yet
  for (const [id, run] of runs) {
    const request = run instanceof Y.Map ? run.get('request') : null
    if (request && !request.parent && !written.has(run.get('output'))) asked.set(request.messageId, { id, ...run.toJSON() })
  }
  const found = []
  for (const [id, message] of written) {
    const head = message instanceof Y.Map ? message.get('head') : null
    if (head?.id !== id) continue
    const run = runs.get(message.get('runId'))
    found.push({
      ...head,
      seq: message.get('seq'),
      by: message.get('by'),
      run: run instanceof Y.Map ? { id: message.get('runId'), ...run.toJSON() } : undefined,
      asked: asked.get(id),
      stopped: runs.get(`run-${id}`)?.get?.('cancel') !== undefined, // before the service had it
      parts: jsonOf(message),
      children: childrenOf(message.get('runId') ?? asked.get(id)?.id) // an agent may ask others before it writes
    })
  }
  return found.sort((a, b) => (a.seq ?? Infinity) - (b.seq ?? Infinity) || a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1))
}
