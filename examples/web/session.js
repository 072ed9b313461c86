// The connection to a session, and the copy of it in this browser: one Yjs document, stock providers.
import { IndexeddbPersistence } from 'y-indexeddb'
import { readAuthMessage } from 'y-protocols/auth'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { request, token } from './access.js'
import * as aside from './aside.js'

const TOO_LONG = 1009 // the web server's own word for a message that it does not even read
const TOKEN_EXPIRED = 4501
const NOT_ALLOWED = 4403
const AUTH = 2 // the type of the message that something was refused
const PATIENCE_MS = 10_000
const refuses = ({ code }) => (code >= 4400 && code < 4500) || [TOO_LONG, TOKEN_EXPIRED].includes(code)
const server = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/v1/sync`

/**
 * A session that one takes part in.
 *
 * `doc` and `provider` are replaced when the service refuses what is in this copy of the document: then the copy is set
 * aside, and a new one is begun from what the service has, so that live updates go on. `onRenew` is called then, and
 * `onChange` whenever there is something else to be shown.
 */
export class Session {
  /** The number of changes that no server has seen. */
  unsynced = 0
  /** Copies that were refused: [{db, why, at, items}]. */
  aside = []
  /** Why the service does not let one in: {code, reason, deleted}. */
  refusal = null
  /** What the service said when it last sent one away for a while. */
  trouble = ''
  /** Whether the service could not be reached since it was last there, or has not answered for some seconds. */
  away = false
  /** Whether somebody chose to work without a connection. */
  offline = false
  /** Whether there is something to show: what the service has, or an earlier copy of it. */
  ready = false

  #place; #pointer; #person; #mayCreate; #local = null; #renewing = false; #waiting = 0

  constructor (name, person, { mayCreate, onChange, onSync, onRenew }) {
    this.name = name
    this.onChange = onChange
    this.onSync = onSync
    this.onRenew = onRenew
    this.#person = person
    this.#mayCreate = mayCreate
    this.#place = `${name}/${person.id}` // a device must not bring what somebody else wrote
    const [lineage, copy, unsynced] = JSON.parse(localStorage.getItem(this.#key) ?? '[]')
    this.#pointer = { lineage, copy: copy ?? 0 }
    this.unsynced = unsynced ?? 0
    this.#use(this.#replica(lineage))
  }

  get #key () { return `crdt-sessions/copy/${this.#place}` }
  get #db () { return `crdt-sessions/${this.#place}/${this.#pointer.lineage}/${this.#pointer.copy}` }

  #remember () {
    const { lineage, copy } = this.#pointer
    if (lineage) localStorage.setItem(this.#key, JSON.stringify([lineage, copy, this.unsynced]))
  }

  /** Show what this browser has of the session, and connect. */
  async open () {
    if (this.#pointer.lineage) {
      this.#local = new IndexeddbPersistence(this.#db, this.doc)
      await this.#local.whenSynced
      this.ready = this.doc.getMap('meta').has('lineage')
    }
    this.provider.connect()
  }

  /** Go offline, or come back. */
  workOffline (offline) {
    this.offline = offline
    this.away = false
    if (offline) this.provider.disconnect()
    else this.provider.connect()
    this.onChange()
  }

  /** Try at once what is tried again and again. */
  retry () {
    this.away = false
    this.provider.disconnect()
    this.provider.connect()
  }

  /** Say something about oneself to everybody who is here. */
  announce (field, value) { this.provider.awareness.setLocalStateField(field, value) }

  async discard (db) {
    await aside.discard(this.#place, db)
    this.aside = this.aside.filter(each => each.db !== db)
    this.onChange()
  }

  /**
   * A document and a provider for it. The lineage says which session of that name the copy is of: merging the history of
   * another one (one that was deleted, or of another database) into this one would mix two conversations.
   */
  #replica (lineage) {
    const doc = new Y.Doc()
    const provider = new WebsocketProvider(server, encodeURIComponent(this.name), doc, {
      connect: false, // whoever joins listens first: a refusal may come at once
      disableBc: true, // the tab beside this one may be another person's
      shouldReconnect: event => !refuses(event),
      params: { ...(lineage && { lineage }), ...(token && { token }) }
    })
    const { color, name, id } = this.#person
    provider.awareness.setLocalState({ user: { id, name, color, colorLight: `${color}33` }, kind: 'human', device: device(), activity: 'idle' })
    return { doc, provider }
  }

  #use ({ doc, provider }) {
    this.doc = doc
    this.provider = provider
    const change = () => this.onChange()
    provider.on('status', ({ status }) => {
      if (status === 'connecting') this.#expectAnswer(provider)
      change()
    })
    provider.on('sync', synced => synced ? this.#synced() : change())
    provider.on('closed', closing => this.#refused(closing))
    // A change was refused, and the connection goes on: this copy holds what nobody else will ever see.
    provider.messageHandlers[AUTH] = (_, decoder) => readAuthMessage(decoder, doc, (_, reason) => this.#refused({ code: NOT_ALLOWED, reason }))
    provider.on('connection-close', event => {
      if (event) this.away = true
      this.trouble = event && !refuses(event) ? event.reason : ''
      change()
    })
    provider.awareness.on('change', change)
    doc.on('update', (_, origin) => {
      if (origin !== provider && origin !== this.#local && !provider.synced) {
        this.unsynced++
        this.#remember()
      }
      change()
    })
  }

  /** Say so where the connection hangs: a network may swallow everything, and a service may be stuck. */
  #expectAnswer (provider) {
    clearTimeout(this.#waiting)
    this.#waiting = setTimeout(() => {
      if (provider !== this.provider || provider.synced) return
      this.away = true
      this.onChange()
    }, PATIENCE_MS)
  }

  async #synced () {
    clearTimeout(this.#waiting)
    this.unsynced = 0
    this.away = false
    this.trouble = ''
    this.ready = true
    this.#pointer.lineage ??= this.doc.getMap('meta').get('lineage') ?? 'unknown'
    this.#local ??= new IndexeddbPersistence(this.#db, this.doc)
    this.#remember()
    this.onSync()
    this.onChange()
    this.aside = await aside.read(this.#place, this.doc)
    this.onChange()
  }

  async #refused ({ code, reason }) {
    if (this.#renewing) return
    const had = this.ready || this.#local !== null
    let deleted = false
    if (code === 4404) {
      const response = await request(`/v1/sessions/${encodeURIComponent(this.name)}`).catch(() => null)
      deleted = response?.status === 410
    }
    const signIn = code === 4401 || code === TOKEN_EXPIRED // what was not sent is sent then
    const gone = deleted || (code === 4404 && !this.#mayCreate())
    if (had && !signIn && !gone) return this.#begin(code, reason)
    await this.#end({ code, reason, deleted }, !signIn)
  }

  /** There is no way on from here. What was never sent can still be read, if it is not to be sent later. */
  async #end (refusal, lost) {
    clearTimeout(this.#waiting)
    this.refusal = refusal
    this.onChange()
    if (!lost) return
    if (this.unsynced) this.#setAside(refusal.reason)
    this.aside = await aside.read(this.#place, new Y.Doc())
    this.onChange()
  }

  /** Begin a new copy from what the service has. The old one is shown until that is there. */
  #begin (code, reason) {
    this.#renewing = true
    const fresh = this.#replica(null)
    const settled = synced => {
      if (!synced) return
      fresh.provider.off('sync', settled)
      fresh.provider.off('closed', refusedAgain)
      this.#renew(fresh, code, reason)
    }
    const refusedAgain = closing => {
      fresh.provider.destroy()
      this.provider.disconnect()
      this.#renewing = false
      this.#end(closing, true)
    }
    fresh.provider.on('sync', settled)
    fresh.provider.on('closed', refusedAgain)
    fresh.provider.connect()
  }

  #renew (fresh, code, reason) {
    this.#setAside(reason || `the service refused it (${code})`)
    this.#renewing = false
    this.provider.destroy()
    this.#use(fresh)
    this.onRenew()
    this.#synced()
  }

  /** From here on this copy is only read: the next load begins another one. */
  #setAside (why) {
    aside.put(this.#place, { db: this.#db, lineage: this.#pointer.lineage, unsynced: this.unsynced, why })
    this.#pointer = { lineage: undefined, copy: this.#pointer.copy + 1 }
    this.unsynced = 0
    localStorage.setItem(this.#key, JSON.stringify([null, this.#pointer.copy, 0]))
    this.#local?.destroy()
    this.#local = null
  }
}

function device () {
  const agent = navigator.userAgent
  const browser = ['Firefox', 'Edg', 'Chrome', 'Safari'].find(part => agent.includes(part))?.replace('Edg', 'Edge') ?? 'browser'
  return `${browser} on ${['Android', 'iPhone', 'Mac', 'Windows', 'Linux'].find(part => agent.includes(part)) ?? 'a device'}`
}
