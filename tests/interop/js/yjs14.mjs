// Clients of Yjs 14 for the tests, whose types have no kinds. Commands come as JSON lines on stdin, answers go to stdout.
import WebSocket from './websocket.mjs'
import * as Y from '@y/y'
import { WebsocketProvider } from '@y/websocket'
import { serve } from './commands.mjs'

const peers = new Map()

const commands = {
  open ({ peer, url, room, params = {} }) {
    const doc = new Y.Doc()
    const provider = new WebsocketProvider(url, room, doc, { WebSocketPolyfill: WebSocket, disableBc: true, params })
    const closes = []
    provider.on('connection-close', event => { if (event) closes.push(event.code) })
    peers.set(peer, { doc, provider, closes })
  },
  status: ({ peer }) => ({ synced: peers.get(peer).provider.synced, closes: peers.get(peer).closes }),
  disconnect: ({ peer }) => peers.get(peer).provider.disconnect(),
  connect: ({ peer }) => peers.get(peer).provider.connect(),
  presence: ({ peer, state }) => peers.get(peer).provider.awareness.setLocalState(state),
  present: ({ peer }) => [...peers.get(peer).provider.awareness.getStates().entries()],
  insert: ({ peer, root = 'draft', index, text }) => peers.get(peer).doc.get(root).insert(index, text),
  remove: ({ peer, root = 'draft', index, length }) => peers.get(peer).doc.get(root).delete(index, length),
  format: ({ peer, root = 'rich', index, length, attributes }) => peers.get(peer).doc.get(root).format(index, length, attributes),
  set: ({ peer, root = 'state', key, value }) => peers.get(peer).doc.get(root).setAttr(key, value),
  element: ({ peer, name, text }) => { // as an editor writes a paragraph
    const element = new Y.Type(name)
    element.insert(0, text)
    peers.get(peer).doc.get('xml').insert(0, [element])
  },
  append: ({ peer, message, text }) => { // to what somebody of Yjs 13 has begun
    const parts = peers.get(peer).doc.get('messages').getAttr(message).getAttr('parts')
    const content = parts.get(0).getAttr('text')
    content.insert(content.length, text)
  },
  post: ({ peer, id, text }) => { // as somebody would who takes layout 1 for untyped
    const { doc } = peers.get(peer)
    doc.transact(() => {
      const message = new Y.Type()
      doc.get('messages').setAttr(id, message)
      message.setAttr('head', { id, role: 'user', author: { id: 'js', name: 'js', kind: 'human' }, parent: null, createdAt: 1 })
      const part = new Y.Type()
      part.setAttr('type', 'text')
      part.setAttr('text', text)
      const parts = new Y.Type()
      parts.insert(0, [part])
      message.setAttr('parts', parts)
    })
  },
  look: ({ peer }) => {
    const { doc } = peers.get(peer)
    const read = root => doc.get(root).toJSON()
    return { draft: read('draft'), rich: read('rich'), state: read('state'), messages: read('messages'), xml: read('xml'), pending: doc.store.pendingStructs !== null }
  },
  update: ({ peer }) => Buffer.from(Y.encodeStateAsUpdate(peers.get(peer).doc)).toString('hex'),
  applied: ({ updates }) => { // what golden vectors read as
    const doc = new Y.Doc()
    for (const update of updates) Y.applyUpdate(doc, Buffer.from(update, 'hex'))
    return { draft: doc.get('draft').toString(), again: Buffer.from(Y.encodeStateAsUpdate(doc)).toString('hex'), vector: [...Y.decodeStateVector(Y.encodeStateVector(doc))], pending: doc.store.pendingStructs !== null }
  }
}

serve(commands)
