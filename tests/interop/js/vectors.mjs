// Writes schemas/vectors/*.json: frames and updates as real Yjs, y-protocols and lib0 encode them.
import fs from 'node:fs'
import path from 'node:path'
import * as encoding from 'lib0/encoding'
import * as Y from 'yjs'
import * as awarenessProtocol from 'y-protocols/awareness'
import * as syncProtocol from 'y-protocols/sync'

const folder = path.resolve(process.argv[2])
const hex = bytes => Buffer.from(bytes).toString('hex')
const encoded = write => {
  const encoder = encoding.createEncoder()
  write(encoder)
  return hex(encoding.toUint8Array(encoder))
}
const save = (name, about, vectors) =>
  fs.writeFileSync(path.join(folder, `${name}.json`), JSON.stringify({ about, vectors }, null, 2) + '\n')

save('varint', 'lib0 varUint: value and bytes', [0, 1, 127, 128, 255, 16383, 16384, 2 ** 31, 2 ** 32 - 1, 2 ** 53 - 1]
  .map(value => ({ value, hex: encoded(encoder => encoding.writeVarUint(encoder, value)) })))

save('string', 'lib0 varString: text and bytes; the length counts bytes', ['', 'a', 'é', '😀', 'é😀', '\u0000', 'ÿ'.repeat(70)]
  .map(text => ({ text, hex: encoded(encoder => encoding.writeVarString(encoder, text)) })))

const doc = new Y.Doc()
doc.clientID = 1
const updates = []
doc.on('update', update => updates.push(update))
const empty = new Y.Doc()
const frames = [{ name: 'step1 of an empty document', type: 'SyncStep1', payload: hex(Y.encodeStateVector(empty)), hex: encoded(encoder => { encoding.writeVarUint(encoder, 0); syncProtocol.writeSyncStep1(encoder, empty) }) }]
doc.getText('draft').insert(0, 'Grüße 😀')
doc.getMap('state').set('list', [1, 2.5, 'x', null, true, { deep: { nested: [] } }])
doc.getText('draft').delete(0, 3)
frames.push(
  { name: 'step1', type: 'SyncStep1', payload: hex(Y.encodeStateVector(doc)), hex: encoded(encoder => { encoding.writeVarUint(encoder, 0); syncProtocol.writeSyncStep1(encoder, doc) }) },
  { name: 'step2 for an empty document', type: 'SyncStep2', payload: hex(Y.encodeStateAsUpdate(doc)), hex: encoded(encoder => { encoding.writeVarUint(encoder, 0); syncProtocol.writeSyncStep2(encoder, doc) }) },
  ...updates.map((update, index) => ({ name: `update ${index}`, type: 'Update', payload: hex(update), hex: encoded(encoder => { encoding.writeVarUint(encoder, 0); syncProtocol.writeUpdate(encoder, update) }) })),
  { name: 'query awareness', type: 'QueryAwareness', payload: '', hex: encoded(encoder => encoding.writeVarUint(encoder, 3)) },
  { name: 'permission denied', type: 'PermissionDenied', payload: 'nöpe', hex: encoded(encoder => { encoding.writeVarUint(encoder, 2); encoding.writeVarUint(encoder, 0); encoding.writeVarString(encoder, 'nöpe') }) },
  { name: 'type 102', type: 'Ack', payload: '0102ff', hex: encoded(encoder => { encoding.writeVarUint(encoder, 102); encoding.writeVarUint8Array(encoder, Buffer.from('0102ff', 'hex')) }) },
  { name: 'type 103', type: 'Hold', payload: 'grüße-😀', hex: encoded(encoder => { encoding.writeVarUint(encoder, 103); encoding.writeVarString(encoder, 'grüße-😀') }) },
)

const awareness = new awarenessProtocol.Awareness(doc)
const states = [{}, { user: { name: 'Ann é😀', color: '#a0c' }, cursor: null }, { activity: 'typing' }, null]
const presences = states.map(state => {
  awareness.setLocalState(state)
  const payload = awarenessProtocol.encodeAwarenessUpdate(awareness, [1])
  const entry = { clientId: 1, clock: awareness.meta.get(1).clock, state: JSON.stringify(state) }
  frames.push({ name: `awareness ${entry.clock}`, type: 'AwarenessFrame', payload: hex(payload), hex: encoded(encoder => { encoding.writeVarUint(encoder, 1); encoding.writeVarUint8Array(encoder, payload) }) })
  return { entries: [entry], hex: hex(payload) }
})
save('frames', 'y-websocket frames; payload is hexadecimal, text for PermissionDenied', frames)
save('awareness', 'awareness payloads', presences)
awareness.destroy()

// A session document as a JavaScript client writes it, in steps, with what it must read as.
const session = new Y.Doc()
session.clientID = 2
const steps = []
session.on('update', update => steps.push(hex(update)))
const part = (type, text, state) => {
  const map = new Y.Map()
  map.set('type', type)
  map.set('text', new Y.Text(text))
  map.set('state', state)
  return map
}
session.transact(() => {
  const message = new Y.Map()
  message.set('head', { id: 'm1', role: 'user', author: { id: 'ann', name: 'Ann', kind: 'human' }, parent: null, createdAt: 1700000000000 })
  message.set('parts', Y.Array.from([part('text', 'Wohin? 😀', 'done')]))
  session.getMap('messages').set('m1', message)
})
session.getMap('runs').set('r1', new Y.Map([['request', { messageId: 'm1', agent: '*', trigger: 'submit', createdAt: 1700000000001 }]]))
session.getMap('state').set('mode', 'draft')
session.getMap('receipts').set('ann', 1)
session.getText('draft').insert(0, 'free root')
const answer = new Y.Map()
session.transact(() => {
  answer.set('head', { id: 'm2', role: 'assistant', author: { id: 'bot', name: 'Bot', kind: 'agent' }, parent: 'm1', createdAt: 1700000000002 })
  answer.set('runId', 'r1')
  answer.set('parts', Y.Array.from([part('reasoning', 'hm', 'done'), part('text', '', 'streaming')]))
  session.getMap('messages').set('m2', answer)
})
for (const token of ['Nach', ' Öslo', ' 🚆']) { const text = answer.get('parts').get(1).get('text'); text.insert(text.length, token) }
answer.get('parts').get(1).set('state', 'done')
const input = {
  tools: [{ name: 'look', description: 'Look out', inputSchema: { type: 'object' }, where: 'client' }],
  context: [{ description: 'Ort', value: 'Oslo' }],
  model: 'small',
  settings: { temperature: 0.5, toolChoice: { name: 'look' } }
}
session.getMap('runs').set('r2', new Y.Map([['request', { messageId: 'm1', agent: '*', trigger: 'regenerate', createdAt: 1700000000003, input }]]))
session.transact(() => {
  const anew = new Y.Map()
  anew.set('head', { id: 'm3', role: 'assistant', author: { id: 'bot', name: 'Bot', kind: 'agent' }, parent: 'm1', createdAt: 1700000000004 })
  anew.set('runId', 'r2')
  anew.set('parts', Y.Array.from([part('text', 'Nach Ber', 'interrupted')]))
  session.getMap('messages').set('m3', anew)
  anew.set('superseded', 1)
  anew.get('parts').push([part('text', 'Nach Bergen', 'done')])
})
// Somebody replaces a word in a step that can be undone, and suggests another change, about which somebody else decides.
const trip = new Y.Text('Wir fahren 🚗 Auto.')
session.getMap('artifacts').set('draft', new Y.Map([['head', { id: 'draft', createdAt: 1700000000005 }], ['content', trip]]))
session.transact(() => {
  const begun = Y.getState(session.store, session.clientID)
  const deleted = Y.createRelativePositionFromTypeIndex(trip, 11)
  const step = { artifact: 'draft', run: 'r1', by: 'bot', at: 1700000000006, client: 2, clock: begun, deleted: [{ client: 2, clock: deleted.item.clock, content: [['🚗 Auto', '']] }] }
  session.getMap('edits').set(`2-${begun}`, new Y.Map([['step', step]]))
  trip.insert(18, 'Zug')
  trip.delete(11, 7)
  session.getMap('edits').get(`2-${begun}`).set('step', { ...step, length: Y.getState(session.store, session.clientID) - begun })
})
const place = (index, assoc) => Y.relativePositionToJSON(Y.createRelativePositionFromTypeIndex(trip, index, assoc))
session.transact(() => {
  const suggestion = new Y.Map()
  const pieces = [{ begin: place(4, 0), end: place(10, -1), before: 'fahren', after: 'reisen' }]
  suggestion.set('head', { artifact: 'draft', author: { id: 'bot', name: 'Bot', kind: 'agent' }, run: 'r1', note: 'kürzer', createdAt: 1700000000007, pieces })
  suggestion.set('decisions', new Y.Map([['0:ann', { accepted: true, at: 1700000000008 }]]))
  suggestion.set('settled', new Y.Map())
  session.getMap('suggestions').set('s1', suggestion)
})
save('session', 'a session document in steps, and the JSON of its root maps at the end', [{
  updates: steps,
  json: Object.fromEntries(['messages', 'runs', 'state', 'artifacts', 'receipts', 'edits', 'suggestions'].map(root => [root, session.getMap(root).toJSON()])),
  draft: session.getText('draft').toString()
}])

// Documents: updates, and what everybody reads once these were applied in that order.
const written = (clientID, write, base = []) => {
  const own = new Y.Doc()
  own.clientID = clientID
  for (const update of base) Y.applyUpdate(own, update)
  const made = []
  own.on('update', update => made.push(update))
  for (const step of write) own.transact(() => step(own.getText('draft'), own.getMap('state')))
  return made
}
const documents = []
const readAs = updates => {
  const read = new Y.Doc()
  for (const update of updates) Y.applyUpdate(read, update)
  return {
    draft: read.getText('draft').toString(),
    state: read.getMap('state').toJSON(),
    clocks: [...Y.decodeStateVector(Y.encodeStateVector(read))].sort(([one], [other]) => one - other),
    pending: read.store.pendingStructs !== null || read.store.pendingDs !== null
  }
}
const vector = (name, updates, then) => documents.push({
  name,
  updates: updates.map(hex),
  ...readAs(updates),
  ...(then && { then: { updates: then.map(hex), ...readAs([...updates, ...then]) } })
})
const largest = 2 ** 53 - 1
vector('client ids of 53 bits', [2 ** 31, 2 ** 32, 2 ** 53 - 2, largest].flatMap(id => written(id, [draft => draft.insert(0, `${id} `), (_, state) => state.set(String(id), id)])))
const one = written(1, [draft => draft.insert(0, 'Grüße 😀, 👩‍👩‍👧 𝒳')])
vector('surrogate pairs: inserted beside, deleted whole', [...one, ...written(2, [draft => draft.insert(8, '😺'), draft => draft.delete(6, 2), draft => draft.insert(draft.length, '🚆')], one)])
vector('surrogate pairs: two insert at one place', [...one, ...written(2, [draft => draft.insert(6, '😺a')], one), ...written(3, [draft => draft.insert(6, '😻b')], one)])
vector('deletions, and entries that were replaced', written(4, [draft => draft.insert(0, 'abcdefgh'), draft => draft.delete(2, 3), draft => { draft.insert(2, 'X'); draft.delete(0, 1) }, (_, state) => state.set('k', 1), (_, state) => state.set('k', { deep: [null, true, 1.5, 'x'] }), (_, state) => state.set('gone', 1), (_, state) => state.delete('gone')]))
const two = written(5, [draft => draft.insert(0, 'one '), draft => draft.insert(4, 'two '), draft => draft.insert(8, 'three'), draft => draft.delete(0, 4)])
vector('updates twice and in another order', [two[1], two[0], two[1], two[2], two[0]])
vector('structs that wait for one that comes later', [two[0], two[2]], [two[1]])
vector('a deletion that waits for what it deletes', [two[3]], [two[0], two[1], two[2]])
vector('one update of all', [Y.mergeUpdates(two)])
save('documents', 'updates (encoding v1), in their order, and what a document reads as that has applied them: the text draft, the map state, the clock of each client, and whether something waits; then, if more follows, the same again', documents)

// What providers of Hocuspocus say about two documents: one opens, writes, says something to the application and leaves.
class Wire extends EventTarget { // a WebSocket that is open at once, and answers nothing but the first message
  static said = []

  readyState = 1

  constructor () {
    super()
    setTimeout(() => this.dispatchEvent(new Event('open')))
  }

  send (message) { Wire.said.push(hex(message)) }

  close () { this.readyState = 3 }
}
globalThis.CloseEvent ??= class extends Event {}
const said = []
for (const [version, more] of [[2, {}], [3, {}], [4, {}], [4, { sessionAwareness: true }]]) {
  const { HocuspocusProvider, HocuspocusProviderWebsocket } = await import(`hocuspocus-provider-${version}`)
  const document = new Y.Doc()
  document.clientID = 1
  Wire.said = []
  const websocketProvider = new HocuspocusProviderWebsocket({ url: 'ws://nowhere', WebSocketPolyfill: Wire })
  const provider = new HocuspocusProvider({ websocketProvider, name: 'Grüße', document, token: 'tok', ...more })
  provider.sessionId = 'mc6cclnx2k7'
  if (version > 2) provider.attach()
  while (Wire.said.length < 3) await new Promise(resolve => setTimeout(resolve, 5))
  document.getText('t').insert(0, 'x')
  provider.awareness.setLocalState({ user: { name: 'Ann' } })
  provider.sendStateless('hï')
  provider.destroy()
  websocketProvider.destroy()
  const kinds = ['Token', 'SyncStep1', 'AwarenessFrame', 'Update', 'AwarenessFrame', 'Stateless', 'AwarenessFrame', 'Leave', 'AwarenessFrame']
  said.push({ version, address: provider.effectiveName ?? 'Grüße', messages: Wire.said.map((message, at) => ({ kind: kinds[at], hex: message })) })
}
save('hocuspocus', 'what unmodified providers of Hocuspocus send: opening with the token "tok", typing, a stateless message, leaving', said)
process.exit(0)
