// Keeps the page itself, so that a reload without a network shows it; what is in a session, y-indexeddb keeps.
// The network comes first: a page of yesterday is shown only where there is no other one.
const CACHE = 'crdt-sessions-page'
const PAGE = ['/', '/demo/app.js', '/demo/style.css', '/demo/icon.svg']

self.addEventListener('install', event => {
  self.skipWaiting()
  event.waitUntil(caches.open(CACHE).then(cache => cache.addAll(PAGE)))
})

self.addEventListener('activate', event => event.waitUntil(self.clients.claim()))

self.addEventListener('fetch', event => {
  const { method, url } = event.request
  const { origin, pathname } = new URL(url)
  if (method === 'GET' && origin === location.origin && PAGE.includes(pathname)) event.respondWith(fresh(event.request, pathname))
})

/** What the network has, or what it had last. Which session is asked for is the page's business. */
async function fresh (request, name) {
  const cache = await caches.open(CACHE)
  try {
    const response = await fetch(request)
    if (response.ok) await cache.put(name, response.clone())
    return response
  } catch (error) {
    const kept = await cache.match(name)
    if (kept) return kept
    throw error
  }
}
