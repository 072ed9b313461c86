// A phone with real Yjs that syncs by request, as docs/how-to/phones.md says. Commands and answers as in commands.mjs.
import { gzipSync } from 'node:zlib'
import * as Y from 'yjs'
import { serve } from './commands.mjs'

const phones = new Map()
const base64 = bytes => Buffer.from(bytes).toString('base64')
const bytes = text => new Uint8Array(Buffer.from(text, 'base64'))

class Copy {
  constructor (id, clientID) {
    this.doc = new Y.Doc()
    if (clientID) this.doc.clientID = clientID
    Object.assign(this, { id, server: undefined, whole: false, dirty: false, lineage: undefined, problem: undefined })
    this.doc.on('update', (_, origin) => { if (origin !== 'sync') this.dirty = true })
  }

  request () {
    const entry = { id: this.id, lineage: this.lineage, stateVector: base64(Y.encodeStateVector(this.doc)) }
    if (this.dirty) entry.update = base64(Y.encodeStateAsUpdate(this.doc, this.server))
    else if (this.whole) entry.ifChanged = true
    this.dirty = false
    return entry
  }

  take (sent, outcome) {
    this.problem = outcome.problem
    if (outcome.unchanged) return
    if (outcome.problem && sent.update) this.dirty = true
    if (outcome.lineage) this.lineage = outcome.lineage
    if (outcome.update) Y.applyUpdate(this.doc, bytes(outcome.update), 'sync')
    if (outcome.stateVector) this.server = bytes(outcome.stateVector)
    this.whole = !outcome.more && !outcome.problem
  }
}

serve({
  hold ({ phone, name, clientID }) {
    if (!phones.has(phone)) phones.set(phone, { copies: new Map(), cursor: undefined })
    phones.get(phone).copies.set(name, new Copy(name, clientID))
  },
  write ({ phone, name, index, text }) {
    const { doc } = phones.get(phone).copies.get(name)
    doc.getText('draft').insert(index, text)
  },
  set ({ phone, name, key, value }) {
    phones.get(phone).copies.get(name).doc.getMap('state').set(key, value)
  },
  async sync ({ phone, url, token, lose = false }) {
    const here = phones.get(phone)
    const copies = [...here.copies.values()]
    const sessions = copies.map(copy => copy.request())
    const body = gzipSync(JSON.stringify({ cursor: here.cursor, sessions, device: phone }))
    const headers = { 'Content-Type': 'application/json', 'Content-Encoding': 'gzip', ...(token && { Authorization: `Bearer ${token}` }) }
    const response = await fetch(`${url}/v1/sync`, { method: 'POST', headers, body })
    const answer = await response.json()
    if (!response.ok) throw new Error(JSON.stringify(answer))
    if (lose) { // the system ended the app before it could store the answer
      copies.forEach((copy, at) => { copy.dirty ||= Boolean(sessions[at].update) })
      return answer
    }
    copies.forEach((copy, at) => copy.take(sessions[at], answer.sessions[at]))
    here.cursor = answer.cursor
    return answer
  },
  dump ({ phone, name }) {
    const { doc, problem, lineage } = phones.get(phone).copies.get(name)
    return { draft: doc.getText('draft').toString(), state: doc.getMap('state').toJSON(), clients: [...Y.decodeStateVector(Y.encodeStateVector(doc)).keys()], problem, lineage }
  }
})
