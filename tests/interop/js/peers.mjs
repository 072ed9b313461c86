// Real Yjs clients for the tests. Commands come as JSON lines on stdin, answers go as JSON lines to stdout.
import readline from 'node:readline'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'
import { WebsocketProvider as WebsocketProvider2 } from 'y-websocket-2'

const ROOTS = ['meta', 'messages', 'runs', 'state', 'artifacts', 'receipts']
const peers = new Map()

const hex = bytes => Buffer.from(bytes).toString('hex')

const commands = {
  open ({ peer, url, room, version = 3, params = {}, protocols = [] }) {
    const doc = new Y.Doc()
    const Provider = version === 2 ? WebsocketProvider2 : WebsocketProvider
    const provider = new Provider(url, room, doc, { WebSocketPolyfill: WebSocket, disableBc: true, params, protocols })
    const log = { closes: [], updates: 0, stopped: null }
    provider.on('connection-close', event => { if (event) log.closes.push(event.code) })
    provider.on('closed', () => { log.stopped = true })
    doc.on('update', (_, origin) => { if (origin === provider) log.updates++ })
    peers.set(peer, { doc, provider, log })
  },
  disconnect: ({ peer }) => peers.get(peer).provider.disconnect(),
  connect: ({ peer }) => peers.get(peer).provider.connect(),
  drop: ({ peer }) => peers.get(peer).provider.ws?.terminate(),
  destroy ({ peer }) {
    peers.get(peer)?.provider.destroy()
    peers.delete(peer)
  },
  insert: ({ peer, root = 'draft', index, text }) => peers.get(peer).doc.getText(root).insert(index, text),
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
  dump ({ peer }) {
    const { doc } = peers.get(peer)
    return {
      clientId: doc.clientID,
      snapshot: hex(Y.encodeSnapshot(Y.snapshot(doc))),
      json: Object.fromEntries(ROOTS.map(root => [root, doc.getMap(root).toJSON()])),
      draft: doc.getText('draft').toString()
    }
  }
}

readline.createInterface({ input: process.stdin }).on('line', async line => {
  const { call, command, ...options } = JSON.parse(line)
  try {
    process.stdout.write(JSON.stringify({ call, result: (await commands[command](options)) ?? null }) + '\n')
  } catch (error) {
    process.stdout.write(JSON.stringify({ call, error: String(error.stack) }) + '\n')
  }
}).on('close', () => process.exit(0))
