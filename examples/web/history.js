// The session's past, over REST: which states can be read, one of them as a Yjs document, keeping and bringing back.
import * as Y from 'yjs'

async function ask (name, path, options = {}) {
  const response = await fetch(`/v1/sessions/${name}/versions${path}`, options)
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

/** Keep the present state under a name. */
export const keep = async (name, called) => (await ask(name, '', send({ name: called }))).json()

/** Make the session look as it did; whoever is connected sees it. */
export const restore = async (name, seq) => (await ask(name, `/${seq}/restore`, { method: 'POST' })).json()
