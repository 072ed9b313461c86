// The load of W1 by Hocuspocus' own clients, each on a socket of its own, as `load.c` plays it and with its words:
//   node stock.mjs fan-out --port N --prefix PATH --sessions N --viewers N --seconds S (--rate N | --window N)
// It is one process of Node, which has more to do than the servers: what they cost counts, not what they could carry.
import { parseArgs } from 'node:util'
import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider'
import WebSocket from 'ws'
import * as Y from 'yjs'

const TOKEN = 'word '
const WARMUP_S = 1
const PER_TEXT = 1000

const names = ['port', 'prefix', 'dialect', 'sessions', 'viewers', 'seconds', 'rate', 'window']
const { values } = parseArgs({ allowPositionals: true, options: Object.fromEntries(names.map(name => [name, { type: 'string' }])) })
const [sessions, viewers, seconds, rate, window] = names.slice(3).map(name => Number(values[name] ?? 0))
const url = `ws://127.0.0.1:${values.port}${values.prefix}`

const say = (event, figures = {}) => console.log(JSON.stringify({ event, ...figures }))
const now = () => performance.now() / 1000
const turn = () => new Promise(resolve => setImmediate(resolve))

const traffic = { bytes: 0, frames: 0 }
class Counted extends WebSocket {
  constructor (...args) {
    super(...args)
    this.on('message', data => { traffic.frames++; traffic.bytes += data.byteLength })
    this.on('error', () => {}) // closed in the end, whatever it was doing
  }
}

function client (name) {
  const doc = new Y.Doc()
  const socket = new HocuspocusProviderWebsocket({ url, WebSocketPolyfill: Counted })
  const provider = new HocuspocusProvider({ websocketProvider: socket, name, document: doc, token: '' })
  provider.attach()
  const synced = new Promise(resolve => provider.on('synced', resolve))
  return { doc, provider, synced, close: () => { provider.destroy(); socket.destroy() } }
}

const textOf = (doc, token) => doc.getText(`text ${Math.floor(token / PER_TEXT)}`)

/** One agent and its viewers. `seen` has for each viewer how many tokens it has. */
class Session {
  constructor (name) {
    this.agent = client(name)
    this.sentAt = []
    this.seen = new Array(viewers).fill(0)
    this.viewers = this.seen.map((_, at) => this.#view(client(name), at))
  }

  #view (viewer, at) {
    viewer.doc.on('update', () => {
      const arrived = now()
      for (;;) {
        const first = this.seen[at]
        const has = Math.floor(first / PER_TEXT) * PER_TEXT + textOf(viewer.doc, first).length / TOKEN.length
        if (!Number.isInteger(has)) throw new Error('half a token arrived')
        for (let token = first; token < has; token++) late.push(arrived - this.sentAt[token])
        this.seen[at] = has
        if (has === first || has % PER_TEXT) return
      }
    })
    return viewer
  }

  write () {
    const text = textOf(this.agent.doc, this.sentAt.length)
    this.sentAt.push(now())
    text.insert(text.length, TOKEN)
  }

  get slowest () { return Math.min(...this.seen) }
  get clients () { return [this.agent, ...this.viewers] }
}

const late = []
const all = Array.from({ length: sessions }, (_, at) => new Session(`stock-${at}`))
/** Wait until everybody has everything. */
async function arrived () {
  for (const end = now() + 60; all.some(session => session.slowest < session.sentAt.length); await turn()) {
    if (now() > end) throw new Error('tokens never arrived')
  }
}

await Promise.all(all.flatMap(session => session.clients.map(each => each.synced)))
say('connected', { clients: sessions * (1 + viewers) })

/** Write for so long: at a rate, each session at its own instants, or as fast as the slowest viewer reads. */
async function stream (duration) {
  const begun = now()
  const before = all.map(session => session.sentAt.length)
  for (let passed = 0; passed < duration; passed = now() - begun) {
    for (const [at, session] of all.entries()) {
      const goal = rate ? before[at] + (passed - at / sessions / rate) * rate : session.slowest + window
      while (session.sentAt.length < goal) session.write()
    }
    await (rate ? new Promise(resolve => setTimeout(resolve, 1)) : turn())
  }
  return now() - begun
}

for (const session of all) session.write()
await arrived()
await stream(WARMUP_S)
late.length = traffic.bytes = traffic.frames = 0
say('begin')
const used = process.cpuUsage()
const took = await stream(seconds)
const { user, system } = process.cpuUsage(used)
const deliveries = late.length
const { bytes, frames } = traffic
say('end')
await arrived()
const sorted = late.slice(0, deliveries).sort((a, b) => a - b)
const percentile = share => Number(((sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0) * 1000).toFixed(3))
say('result', {
  deliveries, seconds: took, per_s: Math.round(deliveries / took), frames, bytes, generator_cpu: (user + system) / 1e6 / took,
  p50_ms: percentile(0.5), p99_ms: percentile(0.99), p999_ms: percentile(0.999), tokens: all.reduce((sum, session) => sum + session.sentAt.length, 0)
})
process.exit(0)
