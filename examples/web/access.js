// Who one is here. A service with tokens wants one: it is given behind # in the page's address, which no server sees
// and no log holds, and kept for this tab only.
const KEY = 'crdt-sessions/token'

const given = new URLSearchParams(location.hash.slice(1)).get('token')
if (given) {
  sessionStorage.setItem(KEY, given)
  history.replaceState(null, '', location.pathname + location.search)
}

export const token = sessionStorage.getItem(KEY)

/** Ask the service, as whom the token stands for. */
export function request (path, options = {}) {
  return fetch(path, { ...options, headers: { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) } })
}

/** Return who one is; null where everybody is let in, or nobody can be asked. */
export async function whoami (session) {
  if (!token) return null
  try {
    const response = await request(`/v1/me?session=${session}`)
    return response.ok ? await response.json() : null
  } catch {
    return null
  }
}
