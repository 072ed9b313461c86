// The service over HTTP: the token, and who one is by it. A service with tokens wants one: it is given behind # in the
// page's address, which no server sees and no log holds, and kept for this tab only.
const TOKEN = 'crdt-sessions/token'
const KNOWN = 'crdt-sessions/known'

const given = new URLSearchParams(location.hash.slice(1)).get('token')
if (given) {
  keepToken(given)
  history.replaceState(null, '', location.pathname + location.search)
}

export const token = sessionStorage.getItem(TOKEN)

/** Keep a token for this tab, from the next load on. What an earlier one stood for is forgotten. */
export function keepToken (value) {
  sessionStorage.setItem(TOKEN, value)
  sessionStorage.removeItem(KNOWN)
}

/** Ask the service, as whom the token stands for. */
export function request (path, options = {}) {
  return fetch(path, { ...options, headers: { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) } })
}

/**
 * Ask who one is in a session, and what one may do there.
 *
 * Returns `known` (what /v1/me says; of a service that does not answer: what it said last in this tab, or nothing), and
 * `refused` with status and detail if the service wants another token.
 */
export async function whoami (session) {
  try {
    const response = await request(`/v1/me?session=${encodeURIComponent(session)}`)
    const answer = await response.json()
    if (response.ok) {
      sessionStorage.setItem(KNOWN, JSON.stringify({ session, answer }))
      return { known: answer }
    }
    if ([401, 403].includes(response.status)) return { refused: { status: response.status, detail: answer.why ?? answer.what ?? answer.detail } } // without what programs should do
  } catch { /* no connection, or something else than the service answers there */ }
  const last = JSON.parse(sessionStorage.getItem(KNOWN) ?? 'null')
  return { known: last?.session === session ? last.answer : null }
}
