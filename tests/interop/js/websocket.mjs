// A WebSocket as browsers have it: closed before it is open, it is no error of the process, also where nobody listens.
// The Hocuspocus provider takes its listeners away before it closes a socket, and ws throws what nobody listens to.
import WebSocket from 'ws'

export default class extends WebSocket {
  constructor (...args) {
    super(...args)
    this.on('error', () => {})
  }
}
