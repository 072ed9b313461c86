import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'
import { onSend, service, session, show, stop } from './place.js'

const doc = new Y.Doc()
const provider = new WebsocketProvider(`${service.replace('http', 'ws')}/v1/sync`, session, doc)
provider.awareness.setLocalState({ user: { name: 'Editor' }, kind: 'human', activity: 'idle' })

const messages = doc.getMap('messages')
const place = message => message.get('seq') ?? Infinity
const text = message => (message.get('parts')?.toArray() ?? []).filter(part => part.get('type') === 'text').map(part => part.get('text').toString()).join('')
const draw = () => show([...messages.values()].filter(message => message.get('head')).sort((one, other) => place(one) - place(other)).map(message => ({ id: message.get('head').id, role: message.get('head').role, text: text(message) })))
messages.observeDeep(draw)

onSend(said => doc.transact(() => {
  const id = crypto.randomUUID()
  const message = new Y.Map([
    ['head', { id, role: 'user', author: { id: 'editor', name: 'Editor', kind: 'human' }, parent: null, createdAt: Date.now() }],
    ['parts', Y.Array.from([new Y.Map([['type', 'text'], ['text', new Y.Text(said)], ['state', 'done']])])]
  ])
  messages.set(id, message)
}))
document.getElementById('stop').onclick = stop
