// The session: ?service=http://127.0.0.1:8000&session=demo&as=Ann, a Yjs document and who is there.
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
export const provider = new WebsocketProvider(`${service.replace('http', 'ws')}/v1/sync`, encodeURIComponent(session), doc)
export const awareness = provider.awareness
awareness.setLocalState({ user: person, kind: 'human', activity: 'idle' })
export const synced = new Promise(resolve => provider.on('sync', done => done && resolve()))

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
