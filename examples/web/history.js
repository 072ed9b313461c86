// The session's past, over REST: which states can be read, one of them as a Yjs document, keeping and bringing back.
import * as Y from 'yjs'
import { request } from './access.js'

async function ask (name, path, options = {}) {
  const response = await request(`/v1/sessions/${encodeURIComponent(name)}/versions${path}`, options)
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}))
    throw new Error(problem.detail ?? `the service answered ${response.status}`)
  }
  return response
}

const send = body => ({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })

/** The states that can be read, oldest first: versions that were kept, then everything since the last of them. */
export async function points (name) {
  const { versions, recent } = await (await ask(name, '')).json()
  const bySeq = new Map(recent.map(point => [point.seq, point]))
  for (const version of versions) bySeq.set(version.seq, version)
  return [...bySeq.values()].sort((a, b) => a.seq - b.seq)
}

/** The session as it was: a document of its own, connected to nothing. */
export async function read (name, seq) {
  const doc = new Y.Doc()
  Y.applyUpdate(doc, new Uint8Array(await (await ask(name, `/${seq}?format=yjs`)).arrayBuffer()))
  return doc
}

/** What changed from then until now, in words, from a JSON Patch in which messages are members by id. */
export async function changes (name, seq) {
  const patch = await (await ask(name, `/${seq}/diff`)).json()
  const count = (op, path) => patch.filter(change => change.op === op && path.test(change.path)).length
  const added = count('add', /^\/messages\/[^/]+$/)
  const removed = count('remove', /^\/messages\/[^/]+$/)
  const others = patch.length - added - removed
  const words = [[added, 'more message'], [removed, 'fewer message'], [others, 'other change']]
  return words.filter(([number]) => number).map(([number, what]) => `${number} ${what}${number === 1 ? '' : 's'}`).join(', ') || 'no change'
}

/** Make a new session that begins as this one was. */
export async function fork (name, seq, id, title) {
  const response = await request(`/v1/sessions/${encodeURIComponent(name)}/fork`, send({ id, version: seq, ...(title && { title }) }))
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail ?? `the service answered ${response.status}`)
}

/** Keep the present state under a name. */
export const keep = async (name, called) => (await ask(name, '', send({ name: called }))).json()

/** Make the session look as it did; whoever is connected sees it. */
export const restore = async (name, seq) => (await ask(name, `/${seq}/restore`, { method: 'POST' })).json()
