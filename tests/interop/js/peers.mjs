// Real Yjs clients for the tests. Commands come as JSON lines on stdin, answers go as JSON lines to stdout.
import WebSocket from './websocket.mjs'
import { createYjsProvider } from '@y-sweet/client'
import { DocumentManager } from '@y-sweet/sdk'
import * as Y from 'yjs'
import { serve } from './commands.mjs'

const ROOTS = ['meta', 'messages', 'runs', 'state', 'artifacts', 'receipts', 'delegated', 'edits', 'suggestions']
const VERSIONS = { 1: 'y-websocket-1', 2: 'y-websocket-2', 3: 'y-websocket' }
const providers = {}
for (const [version, name] of Object.entries(VERSIONS)) providers[version] = (await import(name)).WebsocketProvider
const HOCUSPOCUS = { 2: 'hocuspocus-provider-2', 3: 'hocuspocus-provider-3', 4: 'hocuspocus-provider-4' }
const hocuspocus = {}
for (const [version, name] of Object.entries(HOCUSPOCUS)) hocuspocus[version] = await import(name)
const peers = new Map()
const sockets = new Map()

const hex = bytes => Buffer.from(bytes).toString('hex')

const commands = {
  open ({ peer, url, room, version = 3, params = {}, protocols = [], state, saved, early }) {
    const doc = new Y.Doc()
    if (saved) Y.applyUpdate(doc, Buffer.from(saved, 'hex')) // as y-indexeddb does
    const provider = new providers[version](url, room, doc, { WebSocketPolyfill: WebSocket, disableBc: true, connect: false, params, protocols })
    if (state !== undefined) provider.awareness.setLocalState(state) // null: a viewer
    if (early) provider.on('status', ({ status }) => status === 'connected' && commands.post({ peer, ...early })) // its SyncStep1 comes later
    provider.connect()
    const log = { closes: [], updates: 0, stopped: null, denied: 0 }
    const told = provider.messageHandlers[2]
    provider.messageHandlers[2] = (...message) => { log.denied++; told(...message) }
    provider.on('connection-close', event => { if (event) log.closes.push(event.code) })
    provider.on('closed', () => { log.stopped = true })
    doc.on('update', (_, origin) => { if (origin === provider) log.updates++ })
    peers.set(peer, { doc, provider, log })
  },
  socket ({ socket, url, version = 4 }) { // of Hocuspocus providers, which share it
    const { HocuspocusProviderWebsocket } = hocuspocus[version]
    const made = new HocuspocusProviderWebsocket({ url, WebSocketPolyfill: WebSocket, minDelay: 100, delay: 100, maxDelay: 1000 })
    sockets.set(socket, made)
  },
  attach ({ peer, socket, name, version = 4, tokens, state, saved, more = {} }) {
    const doc = new Y.Doc()
    if (saved) Y.applyUpdate(doc, Buffer.from(saved, 'hex'))
    const log = { denied: [], heard: [], counts: [], scopes: [], closes: [], messages: 0, tokensAsked: 0, tokens }
    const token = tokens && (() => { log.tokensAsked++; return log.tokens.length > 1 ? log.tokens.shift() : log.tokens[0] })
    const provider = new hocuspocus[version].HocuspocusProvider({
      websocketProvider: sockets.get(socket), name, document: doc, token, ...more,
      onAuthenticationFailed: ({ reason }) => log.denied.push(reason),
      onAuthenticated: () => log.scopes.push(provider.authorizedScope),
      onStateless: ({ payload }) => log.heard.push(payload),
      onMessage: () => log.messages++,
      onClose: ({ event }) => log.closes.push(event.code)
    })
    provider.on('unsyncedChanges', () => log.counts.push(provider.unsyncedChanges))
    if (state !== undefined) provider.awareness.setLocalState(state)
    if (version > 2) provider.attach()
    peers.set(peer, { doc, provider, log })
  },
  async sweeten ({ peer, url, name, asking = {}, saved, state }) { // a client of y-sweet; url as its backend has it
    const doc = new Y.Doc()
    if (saved) Y.applyUpdate(doc, Buffer.from(saved, 'hex'))
    const manager = new DocumentManager(url)
    const log = { saved: [], closes: [], tokens: [] }
    const ask = async () => {
      const token = await manager.getClientToken(name, asking)
      log.tokens.push(token)
      return token
    }
    const provider = createYjsProvider(doc, name, ask, { WebSocketPolyfill: WebSocket, showDebuggerLink: false, connect: false })
    if (state !== undefined) provider.awareness.setLocalState(state)
    provider.on('local-changes', unsaved => log.saved.push(!unsaved))
    provider.on('connection-close', event => log.closes.push(event.code))
    provider.connect()
    peers.set(peer, { doc, provider, log })
  },
  sweetness: ({ peer }) => {
    const { provider, log } = peers.get(peer)
    return { status: provider.status, unsaved: provider.hasLocalChanges, version: provider.localVersion, acked: provider.ackedVersion, ...log }
  },
  sweetOffline: ({ peer, edits }) => { // in one turn, since such a client connects again by itself, also when it was disconnected
    const { provider } = peers.get(peer)
    provider.disconnect()
    for (const [writer, index, text] of edits) peers.get(writer).doc.getText('draft').insert(index, text)
    return provider.hasLocalChanges
  },
  dropSweet: ({ peer }) => { peers.get(peer).provider.websocket?.terminate() },
  backend: ({ url, method, args }) => new DocumentManager(url)[method](...args.map(each => each?.hex ? Buffer.from(each.hex, 'hex') : each)).then(answer => answer instanceof Uint8Array ? hex(answer) : answer ?? null),
  tokens ({ peer, tokens }) { peers.get(peer).log.tokens = tokens },
  count: ({ peer }) => ({ unsynced: peers.get(peer).provider.unsyncedChanges, synced: peers.get(peer).provider.synced, scope: peers.get(peer).provider.authorizedScope, ...peers.get(peer).log }),
  call: ({ peer, method, args = [] }) => { peers.get(peer).provider[method](...args) },
  socketCall: ({ socket, method }) => { sockets.get(socket)[method]() },
  dropSocket: ({ socket }) => { sockets.get(socket).webSocket?.terminate() },
  applied: ({ updates, roots }) => { // what they read as, one by one, and to who loads all of them
    const doc = new Y.Doc()
    for (const update of updates) Y.applyUpdate(doc, Buffer.from(update, 'hex'))
    const again = new Y.Doc()
    Y.applyUpdate(again, Y.encodeStateAsUpdate(doc))
    const read = doc => roots.map(root => doc.getText(root).toString())
    return { texts: read(doc), again: read(again), pending: doc.store.pendingStructs !== null }
  },
  disconnect: ({ peer }) => peers.get(peer).provider.disconnect(),
  connect: ({ peer }) => peers.get(peer).provider.connect(),
  drop: ({ peer }) => peers.get(peer).provider.ws?.terminate(),
  destroy ({ peer }) {
    peers.get(peer)?.provider.destroy()
    peers.delete(peer)
  },
  odd ({ peer, id }) { // what only JavaScript has, and JSON does not
    const { doc } = peers.get(peer)
    const values = {
      big: 2n ** 62n + 1n, small: 10n, undefined, bytes: new Uint8Array([1, 2]), nan: NaN, lone: 'a\ud83d', date: new Date(0),
      within: { big: 2n ** 62n + 1n, list: [undefined, new Uint8Array([3]), -Infinity] }
    }
    const types = {
      text: () => new Y.XmlText('x'), element: () => new Y.XmlElement('p'), sub: () => new Y.Doc({ guid: 'g' }),
      array: () => Y.Array.from([{ big: 1n }, new Uint8Array([4])]), map: () => new Y.Map([['nan', NaN]]),
      embedded: () => { const text = new Y.Text('ab'); text.insertEmbed(1, { image: 'x' }); return text }
    }
    doc.transact(() => {
      const message = new Y.Map()
      message.set('head', { id, role: 'user', author: { id: 'js', name: 'js', kind: 'human' }, parent: null, createdAt: 1, more: values })
      const parts = [new Y.Map([['type', 'data'], ['value', values]])]
      for (const [name, make] of Object.entries(types)) parts.push(new Y.Map([['type', 'data'], ['value', make()], ['name', name]]))
      message.set('parts', Y.Array.from(parts))
      doc.getMap('messages').set(id, message)
      for (const [key, value] of Object.entries(values)) doc.getMap('state').set(key, value)
      for (const [key, make] of Object.entries(types)) doc.getMap('state').set(key, make())
      for (const [key, value] of Object.entries(values)) doc.getMap('receipts').set(key, value)
      for (const [key, value] of Object.entries(values)) doc.getMap('meta').set('my-' + key, value)
    })
  },
  reset () { // as if this process had just begun
    for (const each of [...peers.values()].map(({ provider }) => provider).concat([...sockets.values()])) each.destroy()
    peers.clear()
    sockets.clear()
  },
  insert: ({ peer, root = 'draft', index, text }) => peers.get(peer).doc.getText(root).insert(index, text),
  remove: ({ peer, root = 'draft', index, length }) => peers.get(peer).doc.getText(root).delete(index, length),
  format: ({ peer, root = 'draft', index, length, attributes }) => peers.get(peer).doc.getText(root).format(index, length, attributes),
  writeXml: ({ peer, text }) => peers.get(peer).doc.getXmlFragment('xml').insert(0, [new Y.XmlText(text)]),
  scribble ({ peer, seed, count }) { // in UTF-16 units, as an editor does that knows nothing of emoji
    const random = below => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % below
    const { doc } = peers.get(peer)
    const texts = [doc.getText('draft'), doc.getText('rich'), ...doc.getXmlFragment('xml').toArray()]
    while (count--) {
      const text = texts[random(texts.length * 7) % texts.length]
      const index = random(text.length + 1)
      const length = Math.min(random(4), text.length - index)
      const choice = random(60) % 6
      if (choice < 3) text.insert(index, ['x', '😀', 'a😀b', '👩‍👩‍👧', 'é\n'][random(50) % 5])
      else if (choice < 5) text.delete(index, length)
      else if (text !== texts[0]) text.format(index, length, { bold: [true, null][random(20) % 2] })
    }
  },
  text: ({ peer, artifact }) => peers.get(peer).doc.getMap('artifacts').get(artifact)?.get('content').toString() ?? null,
  write: ({ peer, artifact, index, length = 0, text = '' }) => peers.get(peer).doc.transact(() => {
    const content = peers.get(peer).doc.getMap('artifacts').get(artifact).get('content')
    content.delete(index, length)
    content.insert(index, text)
  }),
  place: ({ peer, artifact, index, assoc }) => Y.relativePositionToJSON(Y.createRelativePositionFromTypeIndex(
    peers.get(peer).doc.getMap('artifacts').get(artifact).get('content'), index, assoc)),
  placeOf: ({ peer, place }) =>
    Y.createAbsolutePositionFromRelativePosition(Y.createRelativePositionFromJSON(place), peers.get(peer).doc).index,
  set: ({ peer, root = 'state', key, value }) => peers.get(peer).doc.getMap(root).set(key, value),
  post ({ peer, id, text, author = 'js' }) {
    const { doc } = peers.get(peer)
    doc.transact(() => {
      const message = new Y.Map()
      message.set('head', { id, role: 'user', author: { id: author, name: author, kind: 'human' }, parent: null, createdAt: Date.now() })
      const part = new Y.Map()
      part.set('type', 'text')
      part.set('text', new Y.Text(text))
      part.set('state', 'done')
      message.set('parts', Y.Array.from([part]))
      doc.getMap('messages').set(id, message)
    })
  },
  ask ({ peer, run, message, agent = '*', more = {} }) {
    const { doc } = peers.get(peer)
    doc.transact(() => doc.getMap('runs').set(run, new Y.Map([['request', { messageId: message, agent, trigger: 'submit', createdAt: Date.now(), ...more }]])))
  },
  cancel ({ peer, run, by = 'js' }) {
    peers.get(peer).doc.getMap('runs').get(run).set('cancel', { by, at: Date.now() })
  },
  presence: ({ peer, state }) => peers.get(peer).provider.awareness.setLocalState(state),
  present ({ peer }) {
    return [...peers.get(peer).provider.awareness.getStates().entries()]
  },
  status ({ peer }) {
    const { provider, log } = peers.get(peer)
    return { synced: provider.synced, connected: provider.wsconnected, shouldConnect: provider.shouldConnect, ...log }
  },
  save: ({ peer }) => hex(Y.encodeStateAsUpdate(peers.get(peer).doc)),
  dump ({ peer }) {
    const { doc } = peers.get(peer)
    return {
      clientId: doc.clientID,
      snapshot: hex(Y.encodeSnapshot(Y.snapshot(doc))),
      json: Object.fromEntries(ROOTS.map(root => [root, doc.getMap(root).toJSON()])),
      draft: doc.getText('draft').toString(),
      rich: doc.getText('rich').toDelta(),
      xml: doc.getXmlFragment('xml').toString()
    }
  }
}

serve(commands)
