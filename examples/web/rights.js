// What one may do here, and the reason to show where one may not. The service decides; this saves people from trying.
import { isClosed } from './conversation.js'

const NEEDS = { post: 'write messages', write: 'write', decide: 'decide', cancel: 'stop answers', manage: 'bring back earlier states', create: 'make new sessions' }

export class Rights {
  /** What /v1/me says; null while nobody has said anything, when everything may be tried. */
  known = null

  /** Whether a token says who one is. */
  get identified () { return this.known !== null && !this.known.anonymous }

  /** Whether one's role allows it, whatever the session is. */
  has (permission) { return this.known === null || this.known.permissions.includes(permission) }

  /** Why one may not change the session in that way; '' if one may. */
  whyNot (permission, doc) {
    if (isClosed(doc)) return 'This session is closed.'
    return this.has(permission) ? '' : `Your role here, ${this.known.role}, may not ${NEEDS[permission] ?? permission}.`
  }
}
