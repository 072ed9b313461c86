// The session: ?service=http://127.0.0.1:8000&session=demo&as=Ann, a Yjs document and who is there.
// With &by=hocuspocus the same by Hocuspocus' provider: editors do not mind which one it is.
import { HocuspocusProvider } from '@hocuspocus/provider'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

const query = new URLSearchParams(location.search)
const COLOURS = ['#7c3aed', '#0369a1', '#be185d', '#15803d', '#b45309']
const name = query.get('as') ?? 'Somebody'
const asked = (query.get('service') ?? location.origin).replace(/\/+$/, '')
export const service = /^https?:\/\//.test(asked) ? asked : `http://${asked}`
export const session = query.get('session') ?? 'demo'
export const which = query.get('editor') ?? 'codemirror'
export const person = {
  id: name.toLowerCase(),
  name,
  color: COLOURS[[...name].reduce((sum, letter) => sum * 7 + letter.codePointAt(0), 0) % COLOURS.length]
}
export const doc = new Y.Doc()
const socket = service.replace('http', 'ws')
const hocuspocus = query.get('by') === 'hocuspocus'
export const provider = hocuspocus
  ? new HocuspocusProvider({ url: `${socket}/v1/hocuspocus`, name: session, document: doc, token: '' })
  : new WebsocketProvider(`${socket}/v1/sync`, encodeURIComponent(session), doc)
export const onSync = tell => hocuspocus ? provider.on('synced', tell) : provider.on('sync', done => done && tell())
/** Calls with the code and reason of a connection that ended; with nothing if there was none. */
export const onClose = tell => hocuspocus ? provider.on('close', ({ event }) => tell(event)) : provider.on('connection-close', tell)
export const awareness = provider.awareness
awareness.setLocalState({ user: person, kind: 'human', activity: 'idle' })
export const synced = new Promise(onSync)

/** The content of an artifact, which is added if it is not there. */
export function artifact (id, Kind) {
  const artifacts = doc.getMap('artifacts')
  if (!artifacts.has(id)) {
    const head = { id, title: id, mediaType: 'text/plain', createdAt: Date.now() }
    artifacts.set(id, new Y.Map([['head', head], ['content', new Kind()]]))
  }
  return artifacts.get(id).get('content')
}

export const link = editor => `?${new URLSearchParams({ ...Object.fromEntries(query), editor })}`
