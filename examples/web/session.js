// The session as this page sees it: one Yjs document, stock providers, and a view of layout 1 to render from.
import { IndexeddbPersistence } from 'y-indexeddb'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { request, token } from './access.js'

/** Ask the service for the session, and create it if it never existed. Null without a connection. */
async function describe (name) {
  try {
    let response = await request(`/v1/sessions/${name}`)
    if (response.status === 404) {
      await request('/v1/sessions', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ id: name }) })
      response = await request(`/v1/sessions/${name}`)
    }
    return response.ok ? await response.json() : null
  } catch {
    return null
  }
}

/**
 * Join a session. The local copy is bound to the session's lineage (generation and time of creation): merging the
 * history of a deleted session into a new one of the same name would show everything twice.
 */
export async function join (name, user) {
  const known = `crdt-sessions/lineage/${name}`
  const info = await describe(name)
  const lineage = info ? `${info.generation}-${info.createdAt}` : localStorage.getItem(known) ?? 'unknown'
  if (info) localStorage.setItem(known, lineage)

  const doc = new Y.Doc()
  const local = new IndexeddbPersistence(`crdt-sessions/${name}/${lineage}`, doc)
  const provider = new WebsocketProvider(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/v1/sync`, name, doc, {
    connect: false, // whoever joins listens first: a refusal may come at once
    params: { ...(info && { generation: String(info.generation) }), ...(token && { token }) }
  })
  provider.awareness.setLocalState({ user, kind: 'human', device: device(), activity: 'idle' })
  await local.whenSynced
  return { name, doc, provider, draft: doc.getText('draft') }
}

function device () {
  const agent = navigator.userAgent
  const browser = ['Firefox', 'Edg', 'Chrome', 'Safari'].find(part => agent.includes(part))?.replace('Edg', 'Edge') ?? 'browser'
  return `${browser} on ${['Android', 'iPhone', 'Mac', 'Windows', 'Linux'].find(part => agent.includes(part)) ?? 'a device'}`
}

/** Post a message: one transaction, so that it is whole for everybody. */
export function post (doc, author, text) {
  const id = crypto.randomUUID()
  doc.transact(() => {
    const part = new Y.Map([['type', 'text'], ['text', new Y.Text(text)], ['state', 'done']])
    const parts = new Y.Array()
    const message = new Y.Map([['head', { id, role: 'user', author, parent: null, createdAt: Date.now() }], ['parts', parts]])
    doc.getMap('messages').set(id, message)
    parts.push([part])
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

/** Say what one thinks of a tool call that waits for approval. The service settles which decision counts. */
export function decide (doc, messageId, toolCallId, by, approved) {
  const part = doc.getMap('messages').get(messageId)?.get('parts').toArray().find(part => part.get('toolCallId') === toolCallId)
  part?.get('decisions')?.set(by, { approved, at: Date.now() })
}

/** Messages in the session's order: by seq; without one last, by time, then id. */
export function messages (doc) {
  const runs = doc.getMap('runs')
  const written = doc.getMap('messages')
  const asked = new Map() // question -> the run nobody has begun to write yet
  for (const [id, run] of runs) {
    const request = run instanceof Y.Map ? run.get('request') : null
    if (request && !written.has(run.get('output'))) asked.set(request.messageId, { id, ...run.toJSON() })
  }
  const found = []
  for (const [id, message] of doc.getMap('messages')) {
    const head = message instanceof Y.Map ? message.get('head') : null
    if (head?.id !== id) continue
    const parts = message.get('parts')
    found.push({
      ...head,
      seq: message.get('seq'),
      by: message.get('by'),
      run: runs.has(message.get('runId')) ? { id: message.get('runId'), ...runs.get(message.get('runId')).toJSON() } : undefined,
      asked: asked.get(id),
      parts: parts instanceof Y.Array ? parts.map(part => part.toJSON()) : []
    })
  }
  return found.sort((a, b) => (a.seq ?? Infinity) - (b.seq ?? Infinity) || a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1))
}

/** Who is here, this tab first. */
export function present (provider) {
  const own = provider.awareness.clientID
  return [...provider.awareness.getStates()]
    .filter(([, state]) => state.user)
    .map(([client, state]) => ({ client, own: client === own, ...state }))
    .sort((a, b) => b.own - a.own || a.client - b.client)
}
